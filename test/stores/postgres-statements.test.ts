/** Tests the statements of the store on PostgreSQL: their number, what they read, and their plans and commits. */
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import type { Client } from 'pg'
import t from 'tap'
import type { Change } from '../../plugin/core/store.js'
import { loads } from '../../plugin/stores/postgres/change-queries.js'
import {
  commit,
  join,
  newLease,
  newWorker,
  rejectionOf,
  saveLeases,
} from '../../plugin/testing/conformance/world.js'
import { usePostgres } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { connected, namespace, opened, queriesOf } from './postgres-scene.js'

t.setTimeout(300_000)

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
  // While a snapshot of somebody else keeps old versions of the row, its page fills up, and a version goes to another.
  const heapOnly = after.heapOnly - before.heapOnly
  t.ok(heapOnly >= 90, `${heapOnly} of 100`)
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

async function updatesOfNodes(client: Client): Promise<{ all: number; heapOnly: number }> {
  const { rows } = await client.query(
    "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'coordination_nodes'",
  )
  return { all: Number(rows[0]?.n_tup_upd ?? 0), heapOnly: Number(rows[0]?.n_tup_hot_upd ?? 0) }
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
