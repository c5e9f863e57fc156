/** Tests the connections of the store on PostgreSQL: what becomes of verbs when they fail, and hints. */
import type { Client } from 'pg'
import t, { type Test } from 'tap'
import { StoreError } from '../../plugin/core/errors.js'
import { channelOf, pushedNodes } from '../../plugin/stores/postgres/hints.js'
import type { PostgresOptions } from '../../plugin/stores/postgres/index.js'
import type { PostgresStore } from '../../plugin/stores/postgres/store.js'
import {
  commit,
  join,
  newLease,
  newNode,
  rejectionOf,
  saveLeases,
} from '../../plugin/testing/conformance/world.js'
import { usePostgres } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { answersCommit, type TcpProxy, throughProxy } from '../support/proxy.js'
import {
  connected,
  failInserts,
  namespace,
  opened,
  storeProcesses,
  withSearchPath,
} from './postgres-scene.js'
import { testConnections } from './server-tests.js'

t.setTimeout(300_000)

testConnections(t, {
  ...{ use: usePostgres, connected, opened, storeProcesses },
  endStores: terminateStores,
  undoEvents: (admin, times) => failInserts(admin, '40001', times),
  whoHoldsLocks: /lock timeout\. Another transaction holds a lock, .*: pg_stat_activity shows it\.$/,
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

t.test('a change that the database undoes as it begins is made again, too', async (t) => {
  const { url } = await usePostgres(t)
  const admin = await connected(t, url)
  const store = await opened(t, url)
  await failInserts(admin, '40P01', 2, 'coordination_meta')
  t.equal(await join(store, ['a']), 1)
  const { rows } = await admin.query('select last_value::int as tries from failures')
  t.same(rows, [{ tries: 3 }])
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

async function openedThroughProxy(
  t: Test,
  url: string,
  more: Partial<PostgresOptions> = {},
): Promise<[PostgresStore, TcpProxy]> {
  const { proxy, url: way } = await throughProxy(t, url)
  return [await opened(t, way, more), proxy]
}

async function terminateStores(client: Client): Promise<number> {
  const processes = await storeProcesses(client)
  await client.query('select pg_terminate_backend(pid) from unnest($1::int[]) as pid', [processes])
  return processes.length
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
