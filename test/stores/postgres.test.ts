/** Tests what is special about the store on PostgreSQL: its connections, query plans, locks and hints. */
import { randomBytes } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg, { type Client, type ClientBase, type Pool } from 'pg'
import t, { type Test } from 'tap'
import { FencedError, StoreError } from '../../plugin/core/errors.js'
import type { Change } from '../../plugin/core/store.js'
import { loads } from '../../plugin/stores/postgres/change-queries.js'
import { channelOf, pushedNodes } from '../../plugin/stores/postgres/hints.js'
import { openPostgresStore, type PostgresOptions } from '../../plugin/stores/postgres/index.js'
import type { PostgresStore } from '../../plugin/stores/postgres/store.js'
import { migrationSql } from '../../plugin/stores/shared/migrate.js'
import {
  commit,
  gate,
  join,
  newLease,
  newNode,
  newWorker,
  rejectionOf,
  saveLeases,
} from '../../plugin/testing/conformance/world.js'
import { endPool, usePostgres, usePostgresCluster } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { answersCommit, type TcpProxy, useProxy } from '../support/proxy.js'

t.setTimeout(300_000)

const namespace = 'shop'

/** The number that a migration locks. */
const migrationLock = 726_415_927_301

t.test('heartbeats are heap-only updates', async (t) => {
  const { url } = await usePostgres(t)
  const client = await connected(t, url)
  const store = await opened(t, url)
  await join(store, ['a', 'b'])
  const before = await updatesOfNodes(client)
  for (let beat = 1; beat <= 100; beat++) t.ok(await store.heartbeat('a', beat))
  // A server process reports its statistics when it ends.
  await store.close()
  await eventually(async () => (await updatesOfNodes(client)).all - before.all >= 100)
  const after = await updatesOfNodes(client)
  t.equal(after.all - before.all, 100)
  t.equal(after.heapOnly - before.heapOnly, 100)
})

t.test('journeys to the database are few, whatever the number of rows', async (t) => {
  const { url } = await usePostgres(t)
  const store = await opened(t, url)
  await join(store, ['a', 'b'], { workers: ['w'] })
  const count = async (work: () => Promise<unknown>) => (await queriesOf(work)).length
  // A connection sends its settings before its first statement.
  await store.view('a')
  t.equal(await count(() => store.heartbeat('a', 1)), 1)
  t.equal(await count(() => store.view('a')), 1)
  t.equal(await count(() => store.look()), 1)
  t.equal(await count(() => store.snapshot()), 1)
  t.equal(await count(() => store.news('a')), 1)
  const work = async (change: Change): Promise<void> => {
    const rows = Array.from({ length: 200 }, (_, slot) => newLease(`l-${slot}`, { worker: 'w', slot }))
    await change.saveWorkers([newWorker('w')])
    await change.saveLeases(rows)
    await change.record(rows.map(({ key }) => ({ type: 'lease.acquired', subject: key })))
    await change.tell(new Set(['a', 'b']))
  }
  t.equal(
    await count(() => store.change({ node: 'a', operation: 2 }, work)),
    3,
    'it begins, writes, and commits',
  )
  const cooling = newLease('cooling', { cooldownNode: 'b', cooldownUntilMs: Date.now() + 3_600_000 })
  await store.change(undefined, (change) => change.saveLeases([cooling]))
  const read = async (change: Change): Promise<void> => {
    await change.leases({ keys: ['cooling'] })
    t.match(await change.nodesById(['b']), [{ id: 'b' }])
  }
  t.equal(
    await count(() => store.change({ node: 'a', operation: 3 }, read)),
    3,
    'a lease comes with the nodes that it names, the one that cools down included',
  )
})

t.test('a change whose process stood still for too long sends nothing more', async (t) => {
  const { url } = await usePostgres(t)
  const statementTimeoutMs = 500
  const store = await opened(t, url, { statementTimeoutMs })
  await join(store, ['a'])
  let error: unknown
  const sent = await queriesOf(async () => {
    error = await rejectionOf(
      store.change({ node: 'a', operation: 2 }, async (change) => {
        // The timer that ends the change cannot fire meanwhile.
        const endsAtMs = performance.now() + statementTimeoutMs
        while (performance.now() < endsAtMs);
        await change.saveMeta({ tokenFloor: 7 })
      }),
    )
  })
  t.match(error, { outcome: 'none', message: /did not end within/ })
  t.same(
    sent.map(({ text }) => text.split(' ')[0]),
    ['begin', 'rollback'],
  )
  const { meta } = await store.snapshot()
  t.equal(meta.tokenFloor, 0)
})

t.test('a plan that was made for empty tables does not become a trap when they have grown', async (t) => {
  const { url } = await usePostgres(t)
  const store = await opened(t, url)
  let beat = 0
  const all = async (): Promise<void> => {
    beat += 1
    await store.heartbeat('node-0', beat)
    await store.view('node-0')
    await store.look()
    await store.change(undefined, async (change) => {
      await change.loads()
      await change.leases({ keys: ['lease-1'], workers: ['w'], nodes: ['node-0'] })
      await change.saveLeases([newLease('another')])
      await change.tell(new Set(['node-1']))
      await change.view('node-1')
    })
  }
  await join(store, ['node-0'])
  for (let round = 0; round < 10; round++) await all()
  const ids = Array.from({ length: 2_000 }, (_, index) => `node-${index}`)
  const rows = ids.flatMap((id, index) =>
    [1, 2, 3, 4, 5].map((n) =>
      newLease(`lease-${index}-${n}`, { holder: id, worker: `w-${index}`, pending: true }),
    ),
  )
  const client = await connected(t, url)
  await client.query(
    `insert into coordination_nodes select 'shop', 'node-' || i, 'n', 'c', case when i % 2 = 0 then 'active' else 'gone' end,
      '[]', '{}', null, 15000, 1, 0, 0, 0, 0, 1, 1, 1 from generate_series(1, 1999) as i`,
  )
  await saveLeases(store, ...rows)
  // A query plan that compares each row with each takes minutes. The limit of 30 s would end it.
  await all()
})

t.test('who counts what nodes hold reads none of the leases that nobody has', async (t) => {
  const { url } = await usePostgres(t)
  const store = await opened(t, url)
  await join(store, ['a', 'b'])
  await saveLeases(store, ...Array.from({ length: 3_000 }, (_, index) => newLease(`unused-${index}`)))
  await saveLeases(store, newLease('held', { holder: 'a' }), newLease('moving', { holder: 'a', target: 'b' }))
  const client = await connected(t, url)
  await client.query('analyze coordination_leases')
  const statement = loads(drizzle({ client }), {
    namespace,
    identity: () => sql<string>`''`,
    named: true,
  }).toSQL()
  const { rows } = await client.query(`explain (analyze, format json) ${statement.sql}`, statement.params)
  const read = rowsRead(rows[0]['QUERY PLAN'][0].Plan)
  t.ok(read >= 2 && read <= 4, `${read} rows of leases were read`)
})

t.test('no statement is planned anew each time, in changes as little as in heartbeats', async (t) => {
  const { url } = await usePostgres(t)
  const store = await opened(t, url)
  const admin = await connected(t, url)
  await admin.query(`
    create table seen (what text, setting text);
    create function note() returns trigger language plpgsql as $$ begin
      insert into seen values (tg_op, current_setting('plan_cache_mode')); return null;
    end $$;
    create trigger note after insert or update on coordination_nodes for each row execute function note()`)
  await join(store, ['a'])
  await store.heartbeat('a', 1)
  const { rows } = await admin.query('select * from seen')
  t.same(rows, [
    { what: 'INSERT', setting: 'force_generic_plan' },
    { what: 'UPDATE', setting: 'force_generic_plan' },
  ])
})

t.test('a store outlives the end of all its connections while they are idle', async (t) => {
  const { url } = await usePostgres(t)
  const admin = await connected(t, url)
  const warnings: string[] = []
  const store = await opened(t, url, { onWarning: (message) => warnings.push(message) })
  await join(store, ['a'])
  await store.heartbeat('a', 1)
  t.ok((await terminateStores(admin)) >= 2)
  await eventually(() => warnings.length === 1)
  t.match(await store.heartbeat('a', 2), { state: 'active' })
  t.equal(await join(store, ['b']), 2)
})

t.test('while no connection can be made nothing happens, and afterwards all goes on', async (t) => {
  const { url } = await usePostgres(t)
  const warnings: string[] = []
  const onWarning = (message: string) => warnings.push(message)
  const [store, proxy] = await openedThroughProxy(t, url, { onWarning })
  await join(store, ['a'])
  proxy.refuse()
  await eventually(() => warnings.length > 0)
  const verbs = [
    () => store.heartbeat('a', 1),
    () => store.heartbeat('a', 2),
    () => store.view('a'),
    () => join(store, ['b']),
  ]
  for (const verb of verbs) t.match(await rejectionOf(verb()), { name: 'StoreError', outcome: 'none' })
  proxy.cut()
  t.match(await store.heartbeat('a', 3), { state: 'active' })
  t.equal(await join(store, ['b']), 2)
})

t.test('a change whose connection ends is undone, and says so', async (t) => {
  const { url } = await usePostgres(t)
  const admin = await connected(t, url)
  const store = await opened(t, url)
  await join(store, ['a'])
  const error = await rejectionOf(
    store.change(undefined, async (change) => {
      await change.addNode(newNode('b'), 1)
      await terminateStores(admin)
      await eventually(async () => (await storeProcesses(admin)).length <= 1)
      await change.addNode(newNode('c'), 1)
    }),
  )
  t.match(error, { name: 'StoreError', outcome: 'none' })
  t.equal(await join(store, ['d']), 2)
  t.same(
    (await store.snapshot()).nodes.map(({ id }) => id),
    ['a', 'd'],
  )
})

t.test('a change that has nothing more to send notices that its connection has ended', async (t) => {
  const { url } = await usePostgres(t)
  const admin = await connected(t, url)
  const store = await opened(t, url)
  const error = await rejectionOf(
    store.change(undefined, async (change) => {
      await change.addNode(newNode('b'), 1)
      await terminateStores(admin)
      await eventually(async () => (await storeProcesses(admin)).length <= 1)
    }),
  )
  t.type(error, StoreError)
  t.same((await store.snapshot()).nodes, [])
})

t.test('a change whose answer is lost after the commit may have happened, and has', async (t) => {
  const { url } = await usePostgres(t)
  const [store, proxy] = await openedThroughProxy(t, url)
  await join(store, ['a'])
  const lost = proxy.cutAtAnswer(answersCommit)
  const error = await rejectionOf(saveLeases(store, newLease('l', { token: 7 })))
  await lost
  t.match(error, { name: 'StoreError', outcome: 'unknown' })
  t.match((await store.snapshot()).leases, [{ key: 'l', token: 7 }])
})

t.test('when the network swallows everything each verb ends, and later all is well again', async (t) => {
  const { url } = await usePostgres(t)
  const [store, proxy] = await openedThroughProxy(t, url, { statementTimeoutMs: 1_000 })
  await join(store, ['a'])
  await store.heartbeat('a', 1)
  proxy.goSilent()
  const outcomes = {
    heartbeat: await rejectionOf(store.heartbeat('a', 2)),
    change: await rejectionOf(saveLeases(store, newLease('l'))),
    view: await rejectionOf(store.view('a')),
    secondHeartbeat: await rejectionOf(store.heartbeat('a', 3)),
  }
  t.match(outcomes, {
    heartbeat: { name: 'StoreError', outcome: 'unknown' },
    change: { name: 'StoreError', outcome: 'none' },
    view: { name: 'StoreError', outcome: 'none' },
    secondHeartbeat: { name: 'StoreError', outcome: 'none' },
  })
  proxy.cut()
  t.ok(await eventually(() => store.heartbeat('a', 4).catch(() => undefined)))
  await eventually(() => saveLeases(store, newLease('l')).catch(() => undefined))
  t.ok(await store.view('a'))
})

t.test('a commit that nobody answers may have happened', async (t) => {
  const { url } = await usePostgres(t)
  const [store, proxy] = await openedThroughProxy(t, url, { statementTimeoutMs: 2_000 })
  await join(store, ['a'])
  // Only the commit of this change is left when the answers stop.
  const error = await rejectionOf(
    store.change(undefined, async (change) => {
      await change.saveLeases([newLease('l')])
      await change.nodes()
      proxy.toClient.drop()
    }),
  )
  t.match(error, { name: 'StoreError', outcome: 'unknown' })
  const direct = await opened(t, url)
  await eventually(async () => (await direct.snapshot()).leases.length === 1)
})

t.test('a process that freezes in the middle of a change does not stop the others', async (t) => {
  const { url } = await usePostgres(t)
  const [frozen, proxy] = await openedThroughProxy(t, url, { statementTimeoutMs: 3_000 })
  const other = await opened(t, url, { statementTimeoutMs: 20_000 })
  await join(other, ['a'])
  const begun = gate()
  const thawed = gate()
  const change = rejectionOf(
    frozen.change(undefined, async (change) => {
      await change.addNode(newNode('frozen'), 1)
      begun.open()
      await thawed.opened
      await change.addNode(newNode('thawed'), 1)
    }),
  )
  await begun.opened
  proxy.toServer.hold()
  t.equal(await join(other, ['b']), 2)
  proxy.toServer.release()
  thawed.open()
  t.match(await change, { name: 'StoreError', outcome: 'none' })
  t.same(
    (await other.snapshot()).nodes.map(({ id }) => id),
    ['a', 'b'],
  )
})

t.test('a change gives up waiting for a revision row that is held by force', async (t) => {
  const { url } = await usePostgres(t)
  const admin = await connected(t, url)
  const store = await opened(t, url, { statementTimeoutMs: 1_000 })
  await join(store, ['a'])
  await admin.query('begin')
  await admin.query('select * from coordination_meta for update')
  t.match(await rejectionOf(join(store, ['b'])), {
    name: 'StoreError',
    outcome: 'none',
    message: /lock timeout\. Another transaction holds a lock, .*: pg_stat_activity shows it\.$/,
  })
  t.ok(await store.heartbeat('a', 1), 'heartbeats wait for no change')
  await admin.query('rollback')
  t.equal(await join(store, ['b']), 2)
})

t.test('the time a change tells is not older than what it has waited for', async (t) => {
  const { url } = await usePostgres(t)
  const admin = await connected(t, url)
  // Within a transaction a look at the others stays as it was.
  const watcher = await connected(t, url)
  const store = await opened(t, url)
  await join(store, ['a'])
  await admin.query('begin')
  await admin.query('select * from coordination_meta for update')
  const change = store.change(undefined, async ({ nowMs }) => nowMs)
  await eventually(async () => {
    const { rows } = await watcher.query(
      "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
    )
    return rows.length > 0
  })
  const { rows } = await admin.query('select (extract(epoch from clock_timestamp()) * 1000)::float8 as now')
  await admin.query('commit')
  t.ok((await change).result >= Math.floor(rows[0].now))
})

t.test('a change that the database undoes for the sake of another is made again', async (t) => {
  const { url } = await usePostgres(t)
  const admin = await connected(t, url)
  const store = await opened(t, url)
  await failInserts(admin, '40001', 2)
  let tries = 0
  const revision = await commit(store, async (change) => {
    tries += 1
    await change.record([{ type: 'thing.happened', subject: 'a' }])
  })
  t.equal(tries, 3)
  t.equal(revision, 1)
  t.equal((await store.events({ limit: 10 })).length, 1)
})

t.test('a change that the database undoes as it begins is made again, too', async (t) => {
  const { url } = await usePostgres(t)
  const admin = await connected(t, url)
  const store = await opened(t, url)
  await failInserts(admin, '40P01', 2, 'coordination_meta')
  t.equal(await join(store, ['a']), 1)
})

t.test(
  'a change that fails otherwise is not made again, and what its work makes of that does not matter',
  async (t) => {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    const store = await opened(t, url)
    await failInserts(admin, 'P0001', 1)
    const error = await rejectionOf(
      store.change(undefined, async (change) => {
        await change.addNode(newNode('a'), 1)
        await change.record([{ type: 'thing.happened', subject: 'a' }])
        await change.nodes().catch(() => undefined)
      }),
    )
    t.match(error, { name: 'StoreError', outcome: 'none', message: /P0001/ })
    t.same((await store.snapshot()).nodes, [])
    t.equal(await join(store, ['a']), 1)
  },
)

t.test('a commit whose end the server does not know may have happened', async (t) => {
  const { url } = await usePostgres(t)
  const admin = await connected(t, url)
  const store = await opened(t, url)
  await admin.query(`
    create function doubt() returns trigger language plpgsql as $$ begin
      raise exception 'result is ambiguous' using errcode = '40003';
    end $$;
    create constraint trigger doubt after insert on coordination_events
      deferrable initially deferred for each row execute function doubt()`)
  const error = await rejectionOf(
    commit(store, (change) => change.record([{ type: 'thing.happened', subject: 'a' }])),
  )
  t.match(error, { name: 'StoreError', outcome: 'unknown', message: /result is ambiguous/ })
})

t.test('nothing is committed asynchronously, whatever the database does by default', async (t) => {
  const { url } = await usePostgres(t)
  const admin = await connected(t, url)
  await (await opened(t, url)).close()
  await admin.query(`
    create table seen (what text, setting text);
    create function note() returns trigger language plpgsql as $$ begin
      insert into seen values (tg_table_name || ' ' || tg_op, current_setting('synchronous_commit')); return null;
    end $$;
    create trigger note after insert or update on coordination_nodes for each row execute function note()`)
  for (const [setting, expected] of [
    ['off', 'on'],
    ['remote_apply', 'remote_apply'],
    ['local', 'local'],
  ]) {
    await admin.query(`do $$ begin
      execute format('alter database %I set synchronous_commit = ${setting}', current_database()); end $$`)
    const store = await opened(t, url)
    await join(store, [setting ?? ''])
    await store.heartbeat(setting ?? '', 1)
    await store.close()
    const { rows } = await admin.query('delete from seen returning *')
    t.same(rows, [
      { what: 'coordination_nodes INSERT', setting: expected },
      { what: 'coordination_nodes UPDATE', setting: expected },
    ])
  }
})

t.test('text that PostgreSQL cannot store does not fail the change it explains', async (t) => {
  const { url } = await usePostgres(t)
  const store = await opened(t, url)
  const reason = 'nul \0, half \ud83d a pair, a whole one \ud83d\ude00, \\u0000 and \\ud83d spelt out, "\n'
  await commit(store, (change) =>
    change.record([{ type: 'x', subject: 'y', reason, detail: { [reason]: [reason] } }]),
  )
  const stored = reason.replace('\0', '\ufffd').replace(/\ud83d(?!\ude00)/, '\ufffd')
  t.match(await store.events({ limit: 1 }), [{ reason: stored, detail: { [stored]: [stored] } }])
})

t.test('hints', async (t) => {
  t.test('a notification is sent only when a change tells somebody else', async (t) => {
    const { url } = await usePostgres(t)
    const store = await opened(t, url)
    const { notified } = await notifications(t, url)
    await join(store, ['a', 'b'])
    const asA = (operation: number, told: string[]) =>
      store.change({ node: 'a', operation }, async (change) => {
        await change.saveLeases([newLease('l')])
        await change.tell(new Set(told))
      })
    await store.heartbeat('a', 1)
    await asA(2, [])
    await asA(3, ['a'])
    await rejectionOf(
      store.change(undefined, async (change) => {
        await change.tell(new Set(['b']))
        await change.nodes()
        throw new Error('no')
      }),
    )
    await asA(4, ['a', 'b'])
    await eventually(() => notified.length > 0)
    await asA(5, ['b'])
    await eventually(() => notified.length > 1)
    t.equal(notified.length, 2)
  })

  t.test('only those who are told wake, however many that are', async (t) => {
    const { url } = await usePostgres(t)
    const [store, other] = [await opened(t, url), await opened(t, url)]
    const woken: string[] = []
    for (const node of ['a', 'b', 'c']) other.listen(node, () => woken.push(node))
    const tell = (nodes: string[]) => commit(store, (change) => change.tell(new Set(nodes)))
    await tell(['b'])
    await eventually(() => woken.length === 1)
    await tell(['a', 'c'])
    await eventually(() => woken.length === 3)
    t.same(woken, ['b', 'a', 'c'])
    await tell(Array.from({ length: 2_000 }, (_, index) => `node-${index}`))
    await eventually(() => woken.length === 6)
  })

  t.test('with very many nodes nothing is pushed any more, until there are fewer again', async (t) => {
    const { url } = await usePostgres(t)
    const warnings: string[] = []
    const store = await opened(t, url, { onWarning: (message) => warnings.push(message) })
    const listener = await connected(t, url)
    let heard = 0
    listener.on('notification', () => {
      heard += 1
    })
    await listener.query(`listen ${channelOf('public', namespace)}`)
    const ids = Array.from({ length: pushedNodes + 1 }, (_, index) => `node-${index}`)
    await join(store, ids)
    await store.heartbeat('node-0', 1)
    t.equal(store.capabilities.push, false)
    t.match(warnings, [/more than 400 nodes/])
    const isPushed = async (): Promise<boolean> => {
      const before = heard
      await commit(store, (change) => change.tell(new Set(['node-1', 'node-2'])))
      await listener.query('select 1')
      return heard > before
    }
    t.equal(await isPushed(), false)
    await commit(store, async (change) => {
      for (const id of ids.slice(pushedNodes / 2)) await change.bury(id)
    })
    await store.heartbeat('node-0', 2)
    t.equal(store.capabilities.push, false, 'it is counted now and then, and not with each heartbeat')
    await store.heartbeat('node-0', 13)
    t.equal(store.capabilities.push, true)
    await eventually(isPushed)
    await eventually(() => warnings.some((message) => message.includes('fewer nodes')))
  })

  t.test('when the listening connection has been lost it comes back, and everybody wakes once', async (t) => {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    const store = await opened(t, url)
    const other = await opened(t, url)
    let woken = 0
    store.listen('a', () => {
      woken += 1
    })
    await terminateStores(admin)
    await eventually(() => woken > 0, { until: 'the listener is woken, for it may have missed something' })
    const before = woken
    await eventually(() => commit(other, (change) => change.tell(new Set(['a']))).catch(() => undefined))
    await eventually(() => woken > before)
  })

  t.test(
    'two namespaces in one schema, and one namespace in two schemas, do not wake each other',
    async (t) => {
      const { url } = await usePostgres(t)
      const admin = await connected(t, url)
      await admin.query('create schema one; create schema "Two, too"')
      const stores = [
        await opened(t, withSearchPath(url, 'one'), { namespace: 'x' }),
        await opened(t, withSearchPath(url, 'one'), { namespace: 'y' }),
        await opened(t, withSearchPath(url, '"Two, too"'), { namespace: 'x' }),
      ]
      const woken: number[] = []
      for (const [index, store] of stores.entries()) store.listen('a', () => woken.push(index))
      for (const [index, store] of stores.entries()) {
        await commit(store, async (change) => {
          await change.saveLeases([newLease(`lease of ${index}`)])
          await change.tell(new Set(['a']))
        })
        await eventually(() => woken.length === index + 1)
      }
      t.same(woken, [0, 1, 2])
      for (const [index, store] of stores.entries()) {
        t.match(await store.snapshot(), { meta: { revision: 1 }, leases: [{ key: `lease of ${index}` }] })
      }
    },
  )

  t.test('without push nothing is sent or heard, but within a process nobody needs to wait', async (t) => {
    const { url } = await usePostgres(t)
    const { notified, allHeard } = await notifications(t, url)
    const store = await opened(t, url, { push: false })
    t.equal(store.capabilities.push, false)
    let woken = 0
    const stop = store.listen('a', () => {
      woken += 1
    })
    await commit(store, (change) => change.tell(new Set(['a', 'b'])))
    t.equal(woken, 1)
    stop()
    stop()
    await commit(store, (change) => change.tell(new Set(['a'])))
    t.equal(woken, 1)
    await allHeard()
    t.same(notified, [])
  })
})

t.test('a fence', async (t) => {
  const { url } = await usePostgres(t)
  const store = await opened(t, url)
  const client = await connected(t, url)
  const claim = { key: 'l', node: 'a', token: 7 }
  await join(store, ['a', 'b'])
  const held = () => saveLeases(store, newLease('l', { holder: 'a', token: 7 }), newLease('free'))
  await held()

  t.test('holds a lease that a change then sees, leaves alone, and does not wait for', async (t) => {
    await client.query('begin')
    await store.fence(client, claim)
    await commit(store, async (change) => {
      const rows = await change.leases({ keys: ['l', 'free'] })
      t.same(
        rows.map(({ key, fenced }) => [key, fenced]),
        [
          ['free', false],
          ['l', true],
        ],
      )
      await change.saveLeases([newLease('free', { token: 1 })])
      await change.deleteLeases(['l'])
    })
    const taken = rejectionOf(
      saveLeases(store, newLease('free', { token: 2 }), newLease('l', { holder: 'b', token: 8 })),
    )
    t.match(await taken, { name: 'StoreError', outcome: 'none' })
    await client.query('commit')
    t.match((await store.snapshot()).leases, [
      { key: 'free', token: 1 },
      { key: 'l', holder: 'a', token: 7 },
    ])
  })

  t.test('takes a transaction of Drizzle, nested ones too, as well as a client', async (t) => {
    const pool = usePool(t, url)
    const fencedIn = async (transaction: unknown, seen: () => Promise<unknown>): Promise<void> => {
      await store.fence(transaction, claim)
      t.equal(await seen(), true)
    }
    const isFenced = async () => {
      const { result } = await store.change(undefined, (change) => change.leases({ keys: ['l'] }))
      return result[0]?.fenced
    }
    await drizzle({ client: pool }).transaction(async (tx) => fencedIn(tx, isFenced))
    await drizzle({ client: pool }).transaction((tx) => tx.transaction(async (tx) => fencedIn(tx, isFenced)))
    await drizzle({ client }).transaction(async (tx) => fencedIn(tx, isFenced))
    t.equal(await isFenced(), false)
  })

  t.test('refuses what is not an open transaction of this database', async (t) => {
    const pool = usePool(t, url)
    const elsewhere = await connected(t, (await usePostgres(t)).url)
    await elsewhere.query('begin')
    const refused: [string, unknown][] = [
      ['a client outside of a transaction', client],
      ['a pool', pool],
      ["Drizzle's database on a pool", drizzle({ client: pool })],
      ["Drizzle's database on a client", drizzle({ client })],
      ['another database', elsewhere],
      ['a URL', url],
      ['nothing', undefined],
    ]
    for (const [what, target] of refused) {
      const error = await rejectionOf(store.fence(target, claim))
      t.match(error, { name: 'CoordinationError', code: 'WCO_FENCE_TARGET' }, what)
      t.equal(
        /A pool is not/.test(String(error)),
        /a pool/.test(what),
        `${what}: whether a pool is spoken of`,
      )
    }
  })

  t.test('finds its lease whatever search_path and isolation the transaction has', async () => {
    await client.query('begin isolation level serializable; set local search_path = pg_catalog')
    await store.fence(client, claim)
    await client.query('commit')
  })

  t.test('fails when the lease was taken over, also behind the back of an old snapshot', async (t) => {
    await client.query('begin')
    t.type(await rejectionOf(store.fence(client, { ...claim, token: 6 })), FencedError)
    await client.query('rollback')
    await client.query('begin isolation level repeatable read')
    await client.query('select 1 from coordination_nodes')
    await saveLeases(store, newLease('l', { holder: 'b', token: 8 }))
    const error = await rejectionOf(store.fence(client, claim))
    t.type(error, FencedError)
    t.match(error, { cause: { code: '40001' } })
    await client.query('rollback')
    await held()
  })

  t.test('leaves the database its own error when the lease was touched and not lost', async (t) => {
    await client.query('begin isolation level repeatable read')
    await client.query('select 1 from coordination_nodes')
    await saveLeases(store, newLease('l', { holder: 'a', token: 7, waiters: ['b'] }))
    t.match(await rejectionOf(store.fence(client, claim)), { code: '40001', severity: 'ERROR' })
    await client.query('rollback')
  })

  t.test('leaves the database its own error when there is no connection to look at the lease', async (t) => {
    const pool = usePool(t, url, { max: 1 })
    const lent = await opened(t, pool, { statementTimeoutMs: 1_000 })
    const only = await pool.connect()
    await only.query('begin isolation level repeatable read')
    await only.query('select 1 from coordination_nodes')
    await held()
    t.match(await rejectionOf(lent.fence(only, claim)), { code: '40001', severity: 'ERROR' })
    await only.query('rollback')
    only.release()
  })

  t.test('fails when the node is gone, even if the lease still names it', async (t) => {
    await commit(store, (change) => change.bury('a'))
    await client.query('begin')
    t.type(await rejectionOf(store.fence(client, claim)), FencedError)
    await client.query('rollback')
  })
})

t.test('whatever the defaults of the database are', async (t) => {
  async function useStrict(t: Test) {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    const database = new URL(url).pathname.slice(1)
    await admin.query(`
      alter database ${database} set default_transaction_isolation = serializable;
      alter database ${database} set idle_session_timeout = '1min'`)
    return { url, admin }
  }

  async function waiting(admin: Client): Promise<number> {
    const { rows } = await admin.query(
      "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
    )
    return rows.length
  }

  t.test('a process that waits while another one migrates finds the work done', async (t) => {
    const { url, admin } = await useStrict(t)
    await admin.query(`select pg_advisory_lock(${migrationLock})`)
    const opening = [opened(t, url), opened(t, url)]
    await eventually(async () => (await waiting(admin)) === 2)
    await admin.query(`select pg_advisory_unlock(${migrationLock})`)
    t.equal((await Promise.all(opening)).length, 2)
  })

  t.test('a heartbeat that meets a change of its node waits and is answered', async (t) => {
    const { url, admin } = await useStrict(t)
    // Within a transaction a look at the others stays as it was.
    const watcher = await connected(t, url)
    const store = await opened(t, url)
    await join(store, ['a'])
    await admin.query('begin isolation level read committed')
    await admin.query("update coordination_nodes set news_revision = 7 where id = 'a'")
    const heartbeat = store.heartbeat('a', 1)
    await eventually(async () => (await waiting(watcher)) === 1)
    await admin.query('commit')
    t.match(await heartbeat, { newsRevision: 7 })
  })

  t.test('the connection for heartbeats may be idle for as long as it likes', async (t) => {
    const { url } = await useStrict(t)
    const clients: Client[] = []
    class Noted extends pg.Client {
      constructor(config?: string | pg.ClientConfig) {
        super(config)
        clients.push(this)
      }
    }
    const pool = usePool(t, url, { Client: Noted, max: 1 })
    await opened(t, pool)
    const heartbeats = clients.at(-1)
    t.equal((await heartbeats?.query('show idle_session_timeout'))?.rows[0].idle_session_timeout, '0')
    t.equal((await pool.query('show idle_session_timeout')).rows[0].idle_session_timeout, '1min')
  })

  t.test('a change waits for another one for longer than the server gives a transaction', async (t) => {
    const { url } = await usePostgresCluster(t, { transaction_timeout: '1s' })
    const admin = await connected(t, url)
    // Within a transaction a look at the others stays as it was.
    const watcher = await connected(t, url)
    for (const database of [url, usePool(t, url)]) {
      const store = await opened(t, database)
      await store.change(undefined, (change) => change.saveMeta({ tokenFloor: 0 }))
      await admin.query('set transaction_timeout = 0; begin; update coordination_meta set token_floor = 1')
      const change = store.change(undefined, (change) => change.saveMeta({ tokenFloor: 2 }))
      const isLate = async () => {
        const late = "wait_event_type = 'Lock' and clock_timestamp() > xact_start + interval '1.1 s'"
        return (await watcher.query(`select from pg_stat_activity where ${late}`)).rows.length === 1
      }
      await Promise.race([change, eventually(isLate)])
      await admin.query('commit')
      t.match(await change, { committed: true })
      await store.close()
    }
  })
})

t.test(
  'a database in another encoding is used with a warning, and a text it cannot hold is told',
  async (t) => {
    const { url } = await usePostgres(t)
    const inLatin1 = new URL(url)
    inLatin1.pathname += '_latin1'
    const name = inLatin1.pathname.slice(1)
    const admin = await connected(t, url)
    await admin.query(`create database "${name}" encoding 'LATIN1' locale 'C' template template0`)
    t.teardown(async () => {
      const owner = new pg.Client(url)
      await owner.connect()
      await owner.query(`drop database "${name}" with (force)`)
      await owner.end()
    })
    const warnings: string[] = []
    const store = await opened(t, inLatin1.href, { onWarning: (text: string) => void warnings.push(text) })
    t.match(warnings, [/encoded in LATIN1: reasons, actors and labels with characters it lacks are refused/])
    await join(store, ['a'])
    const noted = (reason: string) =>
      store.change(undefined, (change) => change.record([{ type: 'thing.happened', subject: 'a', reason }]))
    await noted('hängt')
    await t.rejects(noted('hängt → neu'), {
      code: 'WCO_STORE',
      message: /Use other characters, or a database in UTF8/,
    })
    await store.close()
  },
)

t.test("an application's pool", async (t) => {
  t.test('serves the store and outlives it', async (t) => {
    const { url } = await usePostgres(t)
    const pool = usePool(t, url, { application_name: 'shop' })
    const store = await opened(t, pool)
    await join(store, ['a'])
    t.ok(await store.heartbeat('a', 1))
    t.ok(await store.view('a'))
    await store.prune({ eventsForMs: 0, events: 0, goneNodesForMs: 0 })
    const { rows } = await pool.query(
      "select count(*)::int as n from pg_stat_activity where application_name = 'shop' and datname = current_database()",
    )
    t.equal(rows[0].n, 2, 'one connection of the pool, and one for heartbeats')
    await store.close()
    await store.close()
    t.equal((await pool.query('select 1 as one')).rows[0].one, 1)
    t.equal(pool.listenerCount('error'), 0)
    const client = await pool.connect()
    t.equal(client.listenerCount('error'), 0)
    client.release()
    t.match(await rejectionOf(store.view('a')), { name: 'StoreError', outcome: 'none' })
  })

  t.test('that is used up by the application is said to be', async (t) => {
    const { url } = await usePostgres(t)
    const pool = usePool(t, url, { max: 1 })
    const store = await opened(t, pool, { statementTimeoutMs: 3_000 })
    const client = await pool.connect()
    await t.rejects(store.look(), { code: 'WCO_STORE', message: /it waited for a connection of the pool/ })
    client.release()
    t.ok(await store.look(), 'and serves again afterwards')
  })

  t.test('keeps its own settings', async (t) => {
    const { url } = await usePostgres(t)
    const pool = usePool(t, url, { max: 1 })
    const settings = async () =>
      (await pool.query("select name, setting from pg_settings where source in ('session', 'client')")).rows
    const before = await settings()
    const store = await opened(t, pool)
    await join(store, ['a'])
    await store.view('a')
    await store.look()
    t.same(await settings(), before)
  })

  t.test('may leave JSON and numbers as texts', async (t) => {
    const { url } = await usePostgres(t)
    const asText = new pg.TypeOverrides()
    for (const type of [20, 114, 1700, 3802]) asText.setTypeParser(type, String)
    const pool = usePool(t, url, { types: asText })
    const store = await opened(t, pool)
    await join(store, ['a'])
    const { result } = await store.change({ node: 'a', operation: 2 }, async ({ meta, session }) => ({
      revision: meta.revision,
      id: session?.id,
    }))
    t.same(result, { revision: 2, id: 'a' })
  })

  for (const [what, parse, only] of [
    ['everything as texts', String],
    ['whole numbers as BigInt', BigInt, [20, 21, 23]],
  ] as const) {
    t.test(`may read ${what}`, async (t) => {
      const { url } = await usePostgres(t)
      const warnings: string[] = []
      const onWarning = (message: string): void => void warnings.push(message)
      const types = new pg.TypeOverrides()
      for (const type of only ?? [16, 20, 23, 25, 114, 1700, 3802]) {
        types.setTypeParser<unknown>(type, parse)
      }
      for (const attempt of ['that migrates', 'that finds the tables']) {
        const store = await opened(t, usePool(t, url, { types }), { onWarning })
        t.ok(store.capabilities.push, attempt)
      }
      t.same(warnings, [])
    })
  }

  t.test('may rename the columns of every answer', async (t) => {
    const { url } = await usePostgres(t)
    const store = await opened(t, usePool(t, url, { Client: Renaming }))
    t.equal(await join(store, ['a']), 1)
    const { result } = await store.change(undefined, async ({ nowMs, serverIdentity }) => ({
      nowMs,
      serverIdentity,
    }))
    t.ok(result.nowMs > 0)
    t.equal(result.serverIdentity, (await store.heartbeat('a', 1))?.serverIdentity)
  })

  t.test('may find its schema by what it does to each connection', async (t) => {
    const { url } = await usePostgres(t)
    await (await connected(t, url)).query('create schema hidden')
    const pool = usePool(t, url)
    pool.on('connect', (client: ClientBase) => void client.query('set search_path = hidden'))
    const store = await opened(t, pool)
    await join(store, ['a'])
    t.ok(await store.heartbeat('a', 1))
    const { rows } = await pool.query("select from pg_tables where schemaname = 'hidden'")
    t.ok(rows.length > 0)
  })

  t.test('may take on a role with what it does to each connection', async (t) => {
    const { url } = await usePostgres(t)
    const role = `owner_${randomBytes(4).toString('hex')}`
    const login = `login_${randomBytes(4).toString('hex')}`
    const admin = await connected(t, url)
    await admin.query(`
      create role ${role};
      create role ${login} login noinherit password 'login' in role ${role};
      grant create on schema public to ${role}`)
    t.teardown(() => onDatabase(url, `drop owned by ${role}; drop role ${login}; drop role ${role}`))
    const clerks = new URL(url)
    clerks.username = login
    clerks.password = 'login'
    const pool = new pg.Pool({ connectionString: clerks.href })
    pool.on('connect', (client: ClientBase) => void client.query(`set role ${role}`))
    const store = await opened(t, pool)
    await join(store, ['a'])
    t.ok(await store.heartbeat('a', 1))
    await endPool(pool)
    t.match(await store.snapshot(), { nodes: [{ id: 'a' }] }, 'also where it has ended the pool')
  })

  t.test('may leave another search path on a connection', async (t) => {
    const { url } = await usePostgres(t)
    const pool = usePool(t, url, { max: 1 })
    const store = await opened(t, pool)
    await pool.query('create schema tenant; set search_path = tenant')
    t.equal(await join(store, ['a']), 1)
    t.match(await store.snapshot(), { nodes: [{ id: 'a' }] })
    t.equal((await pool.query('show search_path')).rows[0].search_path, 'tenant')
  })

  t.test('loses a connection that has failed, and no more', async (t) => {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    const pool = usePool(t, url, { max: 1 })
    const store = await opened(t, pool)
    await failInserts(admin, 'P0001', 1)
    t.type(
      await rejectionOf(commit(store, (change) => change.record([{ type: 'x', subject: 'y' }]))),
      StoreError,
    )
    t.equal((await pool.query('select 1 as one')).rows[0].one, 1)
    t.equal(await join(store, ['a']), 1)
  })

  t.test('that is ended while a verb waits for it is left as soon as it shows', async (t) => {
    const { url } = await usePostgres(t)
    const pool = new pg.Pool({ connectionString: url, max: 2 })
    const store = await opened(t, pool)
    await join(store, ['a'])
    const clients = [await pool.connect(), await pool.connect()]
    const changes = [join(store, ['b']), join(store, ['c'])]
    await eventually(() => pool.waitingCount === 2)
    const ended = endPool(pool)
    clients.pop()?.release()
    await Promise.all(changes)
    t.equal((await store.snapshot()).nodes.length, 3)
    clients.pop()?.release()
    await ended
    t.equal(pool.totalCount, 0, 'no connection of it is kept')
  })

  t.test('that is ended gets back the connection that it was making for a verb', async (t) => {
    const { url } = await usePostgres(t)
    const proxy = await useProxy(t, addressOf(url))
    const pool = new pg.Pool({ connectionString: through(proxy, url), max: 2 })
    const store = await opened(t, pool)
    await join(store, ['a'])
    const lent = await pool.connect()
    proxy.toClient.hold()
    const changes = [join(store, ['b'])]
    await eventually(() => pool.totalCount === 2)
    const ended = pool.end()
    changes.push(join(store, ['c']))
    proxy.toClient.release()
    await Promise.all(changes)
    lent.release()
    await eventually(() => pool.totalCount === 0)
    await ended
  })

  t.test('that is used up makes a verb fail in time and not for ever', async (t) => {
    const { url } = await usePostgres(t)
    const pool = usePool(t, url, { max: 1 })
    const store = await opened(t, pool, { statementTimeoutMs: 1_000 })
    const client = await pool.connect()
    t.match(await rejectionOf(store.view('a')), { name: 'StoreError', outcome: 'none' })
    client.release()
    t.equal(await store.view('a'), undefined)
    t.equal(pool.idleCount, 1)
  })
})

t.test('opening', async (t) => {
  t.test(
    'a database that cannot be reached is named, with what to check, and never with the password',
    async (t) => {
      const { url } = await usePostgres(t)
      const missing = new URL(url)
      missing.pathname = '/not_there'
      missing.password ||= 'hunter2'
      for (const [database, expected] of [
        [
          'postgres://someone:hunter2@127.0.0.1:1/shop',
          /"shop" at 127.0.0.1:1 .*ECONNREFUSED.* Check host and port/,
        ],
        ['postgres://someone:hunter2@localhost:1/shop', /"shop" at localhost:1 .*ECONNREFUSED/],
        [missing.href, /"not_there" at .* Create the database/],
      ] as const) {
        const error = await rejectionOf(openPostgresStore(options(database)))
        t.match(error, { name: 'StoreError', outcome: 'none', message: expected })
        t.notMatch(`${describe(error)}`, new RegExp(missing.password))
      }
      const unreadable = await rejectionOf(
        openPostgresStore(options('postgres://someone:hunter2@127.0.0.1:99999/shop')),
      )
      t.match(unreadable, { name: 'CoordinationError', code: 'WCO_OPTIONS' })
      t.notMatch(describe(unreadable), /hunter2/)
    },
  )

  t.test('a limit of connections is named with what raises it', async (t) => {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    const role = `few_${randomBytes(6).toString('hex')}`
    await admin.query(`create role ${role} login password 'few' connection limit 0`)
    t.teardown(() => onDatabase(url, `drop role ${role}`))
    const theirs = new URL(url)
    theirs.username = role
    theirs.password = 'few'
    const refused = (): Promise<unknown> =>
      rejectionOf(openPostgresStore(options(theirs.href, { statementTimeoutMs: 500 })))
    t.match(await refused(), { message: /too many connections for role .* Raise the role's limit/ })
    await admin.query(`alter role ${role} connection limit -1`)
    await admin.query(`alter database ${theirs.pathname.slice(1)} connection limit 0`)
    t.match(await refused(), { message: /too many connections for database .* Raise the database's limit/ })
  })

  t.test('a database that does not answer ends the attempt', async (t) => {
    const { url } = await usePostgres(t)
    const proxy = await useProxy(t, addressOf(url))
    proxy.goSilent()
    const error = await rejectionOf(
      openPostgresStore(options(through(proxy, url), { statementTimeoutMs: 500 })),
    )
    t.match(error, { name: 'StoreError', outcome: 'none' })
    await eventually(() => proxy.connections === 0, { until: 'nothing is left open' })
  })

  t.test('any number of processes may start at once on an empty database', async (t) => {
    const { url } = await usePostgres(t)
    const stores = await Promise.all(Array.from({ length: 8 }, () => opened(t, url)))
    const revisions = await Promise.all(stores.map((store, index) => join(store, [`node-${index}`])))
    t.same(
      revisions.sort((a, b) => a - b),
      [1, 2, 3, 4, 5, 6, 7, 8],
    )
  })

  t.test('a server that takes no notice of advisory locks is not migrated by itself', async (t) => {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    await admin.query(`
      create schema deaf;
      create function deaf.pg_advisory_xact_lock(bigint) returns void language sql as 'select'`)
    const deaf = withSearchPath(url, 'deaf, pg_catalog, public')
    const error = await rejectionOf(openPostgresStore(options(deaf)))
    t.match(error, {
      code: 'WCO_SCHEMA_PENDING',
      message: /no notice of advisory locks.*migrationSql\('postgres'\)/,
    })
    const { rows } = await admin.query("select from pg_class where relname = 'coordination_nodes'")
    t.equal(rows.length, 0, 'nothing was made')
    await admin.query(`set search_path = deaf, pg_catalog, public; ${migrationSql('postgres')}`)
    await join(await opened(t, deaf), ['a'])
  })

  t.test('a connection that is ended in the same breath as it is welcomed ends no process', async (t) => {
    const { url } = await usePostgres(t)
    const proxy = await useProxy(t, addressOf(url))
    const welcome = Buffer.from('R\0\0\0\x08\0\0\0\0', 'latin1')
    const fields = 'SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0'
    const farewell = Buffer.from(`E\0\0\0${String.fromCharCode(fields.length + 4)}${fields}`, 'latin1')
    proxy.toClient.alter((bytes) => (bytes.includes(welcome) ? Buffer.concat([bytes, farewell]) : bytes))
    const error = await rejectionOf(
      openPostgresStore(options(through(proxy, url), { statementTimeoutMs: 500 })),
    )
    t.match(error, { name: 'StoreError' })
  })

  t.test('a server that cannot pass over locked rows is refused when the store opens', async (t) => {
    const { url } = await usePostgres(t)
    await (await opened(t, url)).close()
    const proxy = await useProxy(t, addressOf(url))
    proxy.toServer.swap('skip locked', 'skip nobody')
    const error = await rejectionOf(openPostgresStore(options(through(proxy, url))))
    t.match(error, { name: 'StoreError', message: /SKIP LOCKED/ })
  })

  t.test('a role that may not look at the log, nor create anything, can run a store', async (t) => {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    const privileged = await opened(t, url)
    const role = `clerk_${randomBytes(6).toString('hex')}`
    await admin.query(`create role ${role} login password 'clerk'`)
    t.teardown(() => onDatabase(url, `drop owned by ${role}; drop role ${role}`))
    await admin.query(`
      grant usage on schema public to ${role};
      grant select, insert, update, delete on all tables in schema public to ${role};
      revoke create on schema public from public;
      revoke execute on function pg_current_wal_lsn() from public`)
    const clerks = new URL(url)
    clerks.username = role
    clerks.password = 'clerk'
    const store = await opened(t, clerks.href)
    await join(store, ['a'])
    const [mine, theirs] = await Promise.all([store.heartbeat('a', 1), privileged.view('a')])
    t.match(mine?.serverIdentity, /^\d+$/)
    t.match(theirs?.serverIdentity, /^\d+\.[0-9A-F]{8}$/)

    const { serverIdentity: full = '' } = theirs ?? {}
    const [started] = full.split('.')
    const identityOnRecord = async (record: string) => {
      await privileged.change(undefined, (change) => change.saveMeta({ serverIdentity: record }))
      const { result } = await store.change(undefined, async ({ serverIdentity }) => serverIdentity)
      t.equal((await store.view('a'))?.serverIdentity, result)
      t.equal((await store.heartbeat('a', ++beat))?.serverIdentity, result)
      return result
    }
    let beat = 1
    t.equal(await identityOnRecord(full), full, 'it goes by what another role has seen and recorded')
    t.equal(await identityOnRecord(`${full}#7@1000`), full, 'also where the record is doubted')
    t.equal(await identityOnRecord(`${started}`), started)
    t.equal(await identityOnRecord(`${started}#7@1000`), started)
    t.equal(
      await identityOnRecord(`${started}0.00000001`),
      started,
      'but not of a server started at another time',
    )
  })

  t.test('a connection bears the name of this library, unless the application has given one', async (t) => {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    await opened(t, url)
    t.ok((await storeProcesses(admin)).length > 0)
    const named = new URL(url)
    named.searchParams.set('application_name', 'shop')
    await opened(t, named.href)
    const { rows } = await admin.query(
      "select from pg_stat_activity where application_name = 'shop' and datname = current_database()",
    )
    t.ok(rows.length > 0)
  })
})

t.test('behind a pooler', async (t) => {
  const { url } = await usePostgres(t)
  const proxy = await useProxy(t, addressOf(url))
  proxy.cutAtAnswer((bytes) => disguised(bytes) && false)
  const warnings: string[] = []
  const store = await opened(t, through(proxy, url), { onWarning: (message) => warnings.push(message) })
  await join(store, ['a'])
  t.ok(await store.heartbeat('a', 1))
  t.ok(await store.view('a'))
  await store.look()
  await saveLeases(store, newLease('l', { holder: 'a' }))
  await store.prune({ eventsForMs: 0, events: 0, goneNodesForMs: 0 })

  t.test('nothing is pushed, and the application is told', async (t) => {
    t.equal(store.capabilities.push, false)
    t.match(warnings, [/pooler/])
  })

  t.test('no connection is given names or settings that another client might meet', async (t) => {
    const sent = await queriesOf(async () => {
      await store.heartbeat('a', 2)
      await store.view('a')
    })
    t.same(
      sent.map(({ name, text }) => `${name} ${text.split(/[ \n]/)[0]}`),
      [' with', 'undefined begin', ' with', 'undefined commit'],
    )
  })
})

/** Changes the process number that the server gives to a new connection. A pooler makes up its own. */
function disguised(bytes: Buffer): true {
  const at = bytes.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]))
  if (at >= 0) bytes.writeInt32BE(1, at + 5)
  return true
}

function options(database: string | Pool, more: Partial<PostgresOptions> = {}): PostgresOptions {
  return {
    database,
    namespace,
    statementTimeoutMs: 30_000,
    migrate: true,
    push: true,
    onWarning: () => undefined,
    ...more,
  }
}

async function opened(
  t: Test,
  database: string | Pool,
  more: Partial<PostgresOptions> = {},
): Promise<PostgresStore> {
  const store = await openPostgresStore(options(database, more))
  t.teardown(() => store.close())
  return store
}

async function openedThroughProxy(
  t: Test,
  url: string,
  more: Partial<PostgresOptions> = {},
): Promise<[PostgresStore, TcpProxy]> {
  const proxy = await useProxy(t, addressOf(url))
  return [await opened(t, through(proxy, url), more), proxy]
}

function addressOf(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port || 5432) }
}

function through(proxy: TcpProxy, url: string): string {
  const way = new URL(url)
  way.hostname = '127.0.0.1'
  way.port = String(proxy.port)
  return way.href
}

function withSearchPath(url: string, path: string): string {
  const elsewhere = new URL(url)
  elsewhere.searchParams.set('options', `-c search_path=${path.replace(/[\\ ]/g, '\\$&')}`)
  return elsewhere.href
}

async function connected(t: Test, url: string): Promise<Client> {
  const client = new pg.Client({ connectionString: url, application_name: 'test' })
  // A database that is dropped at the end of a test ends its connections.
  client.on('error', () => undefined)
  await client.connect()
  t.teardown(() => client.end())
  return client
}

function usePool(t: Test, url: string, more: pg.PoolConfig = {}): Pool {
  const pool = new pg.Pool({ connectionString: url, ...more })
  t.teardown(() => endPool(pool))
  return pool
}

async function onDatabase(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(sql)
  await client.end()
}

async function updatesOfNodes(client: Client): Promise<{ all: number; heapOnly: number }> {
  const { rows } = await client.query(
    "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'coordination_nodes'",
  )
  return { all: Number(rows[0]?.n_tup_upd ?? 0), heapOnly: Number(rows[0]?.n_tup_hot_upd ?? 0) }
}

/** Renames columns as the package `pg-camelcase` does for a whole application. */
class Renaming extends pg.Client {
  override query(...args: unknown[]): never {
    const answer: unknown = Reflect.apply(super.query, this, args)
    return (answer instanceof Promise ? answer.then(renamed) : answer) as never
  }
}

function renamed(answer: pg.QueryResult | pg.QueryResult[]) {
  for (const result of [answer].flat()) {
    result.rows = result.rows.map((row) => {
      if (Array.isArray(row)) return row
      const entries = Object.entries(row)
      return Object.fromEntries(
        entries.map(([name, value]) => [name.replace(/_(\w)/g, (_, next) => next.toUpperCase()), value]),
      )
    })
  }
  return answer
}

/** Returns what all clients of the driver send while `work` runs. */
async function queriesOf(
  work: () => Promise<unknown>,
): Promise<{ name: string | undefined; text: string }[]> {
  const { query } = pg.Client.prototype
  const sent: { name: string | undefined; text: string }[] = []
  pg.Client.prototype.query = function (this: Client, ...args: unknown[]) {
    const [first] = args
    sent.push(
      typeof first === 'string'
        ? { name: undefined, text: first }
        : (first as pg.QueryConfig & { name: string }),
    )
    return Reflect.apply(query, this, args)
  }
  try {
    await work()
  } finally {
    pg.Client.prototype.query = query
  }
  return sent
}

interface PlanNode {
  readonly 'Relation Name'?: string
  readonly 'Actual Rows': number
  readonly 'Rows Removed by Filter'?: number
  readonly Plans?: readonly PlanNode[]
}

/** Returns how many rows of leases were read, including those read in vain. */
function rowsRead(node: PlanNode): number {
  const { 'Relation Name': table, 'Actual Rows': found, 'Rows Removed by Filter': inVain = 0 } = node
  const below = (node.Plans ?? []).reduce((sum, each) => sum + rowsRead(each), 0)
  return below + (table === 'coordination_leases' ? found + inVain : 0)
}

async function storeProcesses(client: Client): Promise<number[]> {
  const { rows } = await client.query(
    "select pid from pg_stat_activity where application_name = 'fastify-worker-coordination' and datname = current_database()",
  )
  return rows.map(({ pid }) => pid)
}

async function terminateStores(client: Client): Promise<number> {
  const processes = await storeProcesses(client)
  await client.query('select pg_terminate_backend(pid) from unnest($1::int[]) as pid', [processes])
  return processes.length
}

/** Makes the next inserts into a table, as many as `times`, fail with an error of this state. */
async function failInserts(
  client: Client,
  state: string,
  times: number,
  table = 'coordination_events',
): Promise<void> {
  await client.query(`
    create sequence failures;
    create function fail() returns trigger language plpgsql as $$ begin
      if nextval('failures') <= ${times} then
        raise exception 'failing with ${state}' using errcode = '${state}';
      end if;
      return new;
    end $$;
    create trigger fail before insert on ${table} for each statement execute function fail()`)
}

/**
 * Returns a list that receives what is notified on the channel of the namespace in the schema `public`, and a function
 * that waits until everything notified so far has arrived: the server sends it before the answer to the next query.
 */
async function notifications(t: Test, url: string) {
  const client = await connected(t, url)
  const notified: string[] = []
  client.on('notification', ({ payload }) => notified.push(payload ?? ''))
  await client.query(`listen ${channelOf('public', namespace)}`)
  return { notified, allHeard: () => client.query('select 1') }
}

/** Returns everything that a log of this error could show. */
function describe(error: unknown): string {
  const seen: unknown[] = []
  for (let at = error; at instanceof Error; at = at.cause) {
    seen.push(at.message, at.stack, JSON.stringify(at), Object.values(at))
  }
  return JSON.stringify(seen)
}
