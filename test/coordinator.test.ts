/** Tests coordinators without Fastify, over real databases whose connections break. */
import { readFile } from 'node:fs/promises'
import BetterSqlite3 from 'better-sqlite3'
import { drizzle as drizzleSqlite } from 'drizzle-orm/better-sqlite3'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import t, { type Test } from 'tap'
import { createCoordinator } from '../plugin/coordinator.js'
import type { Coordinator } from '../plugin/core/coordinator.js'
import type { EventName } from '../plugin/core/events.js'
import type { Lease } from '../plugin/core/work/lease.js'
import type { SingleContext } from '../plugin/core/work/worker.js'
import type { CoordinatorOptions } from '../plugin/options.js'
import { eachDatabase, endPool, usePostgres, usePostgresCluster, useSqlite } from './support/databases.js'
import { eventually } from './support/eventually.js'
import { answersCommit, throughProxy } from './support/proxy.js'

/** Timing with many heartbeats in one trust window, which is longer than any delay of a slow machine. */
const patient = { ttlMs: 60_000, heartbeatMs: 200, statementTimeoutMs: 5_000 } as const

async function useCoordinator(
  t: Test,
  database: string | object,
  options: Partial<CoordinatorOptions> = {},
): Promise<Coordinator> {
  const coordinator = await createCoordinator({
    database,
    identity: { node: 'node', cluster: 'test' },
    drainTimeoutMs: 1_000,
    ...patient,
    ...options,
  })
  t.teardown(() => coordinator.close())
  await coordinator.start()
  return coordinator
}

function times(coordinator: Coordinator, name: EventName, count: number): Promise<void> {
  let left = count
  return new Promise((resolve) => coordinator.on(name, () => --left === 0 && resolve()))
}

function once(coordinator: Coordinator, name: EventName): Promise<void> {
  return times(coordinator, name, 1)
}

t.test('a lease goes from one to the next, with ever greater tokens', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const [a, b] = [await useCoordinator(t, url), await useCoordinator(t, url)]
    let held: Lease | undefined
    const tokens: number[] = []
    for (const coordinator of [a, b, a, b, a, b]) {
      const next = coordinator.acquire('rebuild')
      await held?.release()
      held = await next
      t.ok(held.held)
      tokens.push(held.token)
    }
    t.same(
      tokens,
      [...new Set(tokens)].sort((x, y) => x - y),
    )
    await held?.release()
  }),
)

t.test('two applications in one database do not see each other', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const a = await useCoordinator(t, url, { namespace: 'billing' })
    const b = await useCoordinator(t, url, { namespace: 'search' })
    const [one, other] = [await a.tryAcquire('rebuild'), await b.tryAcquire('rebuild')]
    t.ok(one?.held && other?.held)
    t.equal((await a.status()).nodes.length, 1)
    await one?.release()
    await other?.release()
  }),
)

t.test('what the store warns of says whose it is, like every other line', async (t) => {
  const { proxy, url } = await throughProxy(t, (await usePostgres(t)).url)
  const warnings: [object, string][] = []
  const nothing = (): void => undefined
  const warn = (fields: object, message: string): void => void warnings.push([fields, message])
  await useCoordinator(t, url, { log: { debug: nothing, info: nothing, warn, error: nothing } })
  proxy.cut()
  const isMeant = ([, message]: [object, string]): boolean =>
    message.startsWith('The connection for heartbeats')
  await eventually(() => warnings.some(isMeant))
  t.match(warnings.find(isMeant)?.[0], { node: 'node', cluster: 'test' })
})

t.test('the database away for less than the trust window costs nothing', async (t) => {
  const { proxy, url } = await throughProxy(t, (await usePostgres(t)).url)
  const coordinator = await useCoordinator(t, url)
  const lease = await coordinator.acquire('rebuild')
  coordinator.on('trust.expired', () => t.fail('trust has ended'))
  const failed = times(coordinator, 'store.failed', 3)
  proxy.refuse()
  await failed
  t.ok(lease.held)
  proxy.cut()
  const before = await heartbeatOf(coordinator)
  await eventually(async () => (await heartbeatOf(coordinator)) > before)
  t.ok(lease.held)
  t.notOk(lease.signal.aborted)
  await lease.release()
})

t.test('the database away for longer ends all work, which comes back with the database', async (t) => {
  const { proxy, url } = await throughProxy(t, (await usePostgres(t)).url)
  const coordinator = await useCoordinator(t, url, {
    ttlMs: 3_000,
    heartbeatMs: 1_000,
    statementTimeoutMs: 600,
  })
  const tokens: number[] = []
  let running = 0
  coordinator.worker({
    name: 'leader',
    kind: 'single',
    scope: 'global',
    run: async ({ lease, signal }) => {
      running += 1
      tokens.push(lease.token)
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
      running -= 1
    },
  })
  await eventually(() => running === 1)
  const expired = once(coordinator, 'trust.expired')
  proxy.goSilent()
  await expired
  await eventually(() => running === 0)
  t.notOk(coordinator.isHeld('leader'))
  proxy.cut()
  await eventually(() => running === 1)
  t.ok((tokens.at(-1) ?? 0) > (tokens[0] ?? 0), 'under a greater token')
})

t.test('an answer lost after the commit: the lease is held once, and nothing is done twice', async (t) => {
  const { proxy, url } = await throughProxy(t, (await usePostgres(t)).url)
  const coordinator = await useCoordinator(t, url)
  const cut = proxy.cutAtAnswer(answersCommit)
  const lease = await coordinator.acquire('rebuild')
  await cut
  t.ok(lease.held)
  const found = (await coordinator.status()).leases[0]
  t.match(found, { key: 'global/rebuild', state: 'held', token: lease.token })
  const cutAgain = proxy.cutAtAnswer(answersCommit)
  await lease.release()
  await cutAgain
  t.match((await coordinator.status()).leases, [{ state: 'free', token: lease.token }])
})

t.test('connections killed at any moment lose nothing and double nothing', async (t) => {
  const { url } = await usePostgres(t)
  const [a, b] = [await useCoordinator(t, url), await useCoordinator(t, url)]
  const admin = new pg.Client({ connectionString: url })
  await admin.connect()
  t.teardown(() => admin.end())
  let holding = 0
  const tokens: number[] = []
  const work = async (coordinator: Coordinator): Promise<void> => {
    for (let round = 0; round < 20; round++) {
      const lease = await coordinator.acquire('rebuild')
      if (++holding > 1) t.fail('two nodes hold one lease')
      tokens.push(lease.token)
      await new Promise((resolve) => setImmediate(resolve))
      holding -= 1
      await lease.release()
    }
  }
  let done = false
  const both = Promise.all([work(a), work(b)]).finally(() => {
    done = true
  })
  let killed = 0
  while (!done) {
    const { rowCount } = await admin.query(
      'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
    )
    killed += rowCount ?? 0
    // Let the work make progress between two terminations, then terminate at a random moment.
    const before = tokens.length
    await eventually(() => done || tokens.length > before)
    for (let left = Math.random() * 20; left > 0 && !done; left--) await admin.query('select 1')
  }
  await both
  t.equal(tokens.length, 40)
  t.same(
    tokens,
    [...new Set(tokens)].sort((x, y) => x - y),
    'tokens grow',
  )
  t.ok(killed > 0, `${killed} connections were killed`)
})

t.test('1 000 leases on one node: each heartbeat is one statement, counted at the server', async (t) => {
  const server = await usePostgresCluster(t, { log_statement: 'all' })
  const coordinator = await useCoordinator(t, server.url, { namespace: 'many' })
  let held = 0
  coordinator.worker({
    name: 'consumer',
    kind: 'partitioned',
    scope: 'global',
    partitions: 1_000,
    run: async ({ signal }) => {
      held += 1
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
    },
  })
  await eventually(() => held === 1_000)
  const admin = new pg.Client({ connectionString: server.url })
  await admin.connect()
  t.teardown(() => admin.end())
  const beat = async (mark: string): Promise<number> => {
    const { rows } = await admin.query(`select beat::int as beat from coordination_nodes -- ${mark}`)
    return rows[0].beat
  }
  await eventually(async () => (await beat('quiet')) > 5)
  const first = await beat('first')
  await eventually(async () => (await beat('waiting')) >= first + 10)
  const last = await beat('last')
  let log = ''
  await eventually(async () => {
    log = await readFile(server.logPath, 'utf8')
    return log.includes('-- last')
  })
  const between = log
    .slice(log.indexOf('-- first'), log.indexOf('-- last'))
    .split('\n')
    .filter((line) => /LOG:\s+(statement|execute)/.test(line))
    .filter((line) => !/-- (first|waiting|last)/.test(line))
  const heartbeats = between.filter((line) => line.includes('heartbeat_at_ms'))
  t.ok(
    Math.abs(heartbeats.length - (last - first)) <= 1,
    `${heartbeats.length} statements for ${last - first} beats`,
  )
  const others = between.filter((line) => !heartbeats.includes(line))
  t.ok(
    others.every((line) => line.includes('coordination_nodes')),
    'the rest are the looks of a watcher',
  )
  t.ok(others.length < heartbeats.length, `${others.length} looks`)
})

t.test('a fence on PostgreSQL, with Drizzle and with the driver', async (t) => {
  const { url } = await usePostgres(t)
  const [a, b] = [await useCoordinator(t, url), await useCoordinator(t, url)]
  const pool = new pg.Pool({ connectionString: url })
  t.teardown(() => endPool(pool))
  await pool.query('create table reports (name text)')
  const db = drizzle({ client: pool })
  const lease = await a.acquire('rebuild')
  await db.transaction(async (tx) => {
    await lease.fence(tx)
    await tx.execute("insert into reports values ('by drizzle')")
  })
  const client = await pool.connect()
  await client.query('begin')
  await lease.fence(client)
  await client.query("insert into reports values ('by pg')")
  const { key, token } = lease
  const order = { key, token, actor: 'ops', reason: 'test', immediate: true }
  t.match(
    await b.operator.release(order),
    { kind: 'fenced' },
    'nobody can take it over before the transaction ends',
  )
  await client.query('commit')
  t.match(await b.operator.release(order), { kind: 'revoked' })
  await client.query('begin')
  await t.rejects(
    Promise.resolve().then(() => lease.fence(client)),
    { code: 'WCO_FENCED' },
  )
  await client.query('rollback')
  client.release()
  t.same((await pool.query('select name from reports order by name')).rows, [
    { name: 'by drizzle' },
    { name: 'by pg' },
  ])
  await lease.release()
})

t.test('a fence on SQLite holds the one writer', async (t) => {
  const { url, path } = await useSqlite(t)
  const [a, b] = [await useCoordinator(t, url), await useCoordinator(t, url)]
  const own = new BetterSqlite3(path)
  t.teardown(() => own.close())
  own.exec('create table reports (name text)')
  const lease = await a.acquire('rebuild')
  own.transaction(() => {
    lease.fence(own)
    own.exec("insert into reports values ('first')")
  })()
  t.throws(
    () => lease.fence(own),
    { code: 'WCO_FENCE_TARGET' },
    'outside a transaction it would guard nothing',
  )
  t.match(
    await b.operator.release({
      key: lease.key,
      token: lease.token,
      actor: 'ops',
      reason: 'test',
      immediate: true,
    }),
    { kind: 'revoked' },
  )
  const late = own.transaction(() => {
    own.exec("insert into reports values ('late')")
    lease.fence(own)
  })
  t.throws(late, { code: 'WCO_FENCED' })
  t.same(own.prepare('select name from reports').all(), [{ name: 'first' }])
  await lease.release()
})

t.test('a fence on SQLite may be awaited while its transaction is open, and no longer', async (t) => {
  const { url, path } = await useSqlite(t)
  const coordinator = await useCoordinator(t, url)
  const own = new BetterSqlite3(path)
  t.teardown(() => own.close())
  own.exec('create table reports (name text)')
  const lease = await coordinator.acquire('rebuild')
  own.exec('begin')
  await lease.fence(own)
  own.exec("insert into reports values ('first')")
  own.exec('commit')
  const db = drizzleSqlite({ client: own })
  const late = async (tx: object): Promise<void> => {
    await lease.fence(tx)
    own.exec("insert into reports values ('late')")
  }
  const message = /ended at the first `await`: with better-sqlite3 its callback must not be async/
  // Drizzle's types refuse such a callback; JavaScript does not.
  const transacted = async (): Promise<unknown> => db.transaction(late as never)
  await t.rejects(transacted, { code: 'WCO_FENCE_TARGET', message })
  t.notOk(own.inTransaction)
  t.same(own.prepare('select name from reports').all(), [{ name: 'first' }])
  await lease.release()
})

t.test('closing ends in time although the database does not answer', async (t) => {
  const { proxy, url } = await throughProxy(t, (await usePostgres(t)).url)
  const coordinator = await useCoordinator(t, url, {
    ttlMs: 3_000,
    heartbeatMs: 1_000,
    statementTimeoutMs: 600,
  })
  await coordinator.acquire('rebuild')
  proxy.goSilent()
  await coordinator.close()
  t.equal(coordinator.state, 'closed')
})

async function heartbeatOf(coordinator: Coordinator): Promise<number> {
  const { nodes } = await coordinator.status()
  return nodes.find((node) => node.id === coordinator.nodeId)?.heartbeatAtMs ?? 0
}

t.test(
  'a worker whose lease a transaction fences when it is registered runs when that has ended',
  async (t) => {
    const { url } = await usePostgres(t)
    const [a, b] = [
      await useCoordinator(t, url, { identity: { node: 'a', cluster: 'test' } }),
      await useCoordinator(t, url, { identity: { node: 'b', cluster: 'test' } }),
    ]
    const lease = await a.acquire('job')
    const client = new pg.Client(url)
    await client.connect()
    t.teardown(() => client.end())
    await client.query('begin')
    await lease.fence(client)
    const running = new Promise<void>((resolve) => {
      b.worker({ name: 'job', kind: 'single', scope: 'global', run: () => resolve() })
    })
    b.worker({ name: 'other', kind: 'single', scope: 'global', run: () => undefined })
    await eventually(() => b.isHeld('other'), { until: 'another worker runs, which does not wait for it' })
    await client.query('commit')
    await lease.release()
    await running
    t.ok(b.isHeld('job'))
  },
)

t.test('a cool-down that is no whole number stops nobody', async (t) =>
  eachDatabase(t, async (t, { url }) => {
    const [a, b] = [
      await useCoordinator(t, url, { identity: { node: 'a', cluster: 'test' } }),
      await useCoordinator(t, url, { identity: { node: 'b', cluster: 'test' } }),
    ]
    const job = { name: 'job', kind: 'single', scope: 'global' } as const
    const stepDown = await new Promise<(cooldownMs: number) => void>((resolve) => {
      a.worker({ ...job, everyMs: 60_000, run: (context: SingleContext) => resolve(context.stepDown) })
    })
    const begun = new Promise<void>((resolve) => {
      b.worker({ ...job, run: () => resolve() })
    })
    await eventually(async () => (await a.status()).workers[0]?.candidates.length === 2)
    stepDown(50_000.25)
    await begun
    const row = (await b.operator.snapshot()).leases.find(({ key }) => key === 'global/job')
    t.ok(Number.isInteger(row?.cooldownUntilMs))
  }),
)

t.test('a schedule is kept on every database, by the clocks of the machine', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const coordinator = await useCoordinator(t, url)
    const failures: unknown[] = []
    coordinator.on('store.failed', ({ error }) => failures.push(error))
    const dueAtMs: (number | null)[] = []
    await new Promise<void>((resolve) => {
      coordinator.worker({
        name: 'tick',
        kind: 'single',
        scope: 'global',
        schedule: '* * * * * *',
        run: (context) => {
          if (dueAtMs.push(context.dueAtMs) === 3) resolve()
        },
      })
    })
    t.equal(new Set(dueAtMs).size, 3)
    t.ok(dueAtMs.every((ms) => ms !== null && ms % 1_000 === 0))
    const row = (await coordinator.operator.snapshot()).leases.find(({ key }) => key === 'global/tick')
    t.ok(Number.isInteger(row?.firedAtMs), 'and in whole milliseconds')
    t.same(failures, [])
  }),
)

t.test(
  'what the application writes by itself to the same file never waits for a change of ours',
  async (t) => {
    const { path, url } = await useSqlite(t)
    const coordinator = await useCoordinator(t, url)
    // Waiting would be useless: the driver would block the process, and with it the change it waits for.
    const own = new BetterSqlite3(path, { timeout: 0 })
    t.teardown(() => own.close())
    own.exec('create table written (hops integer)')
    const write = own.prepare('insert into written values (?)')
    const writeAfter = async (hops: number): Promise<void> => {
      for (let hop = 0; hop < hops; hop++) await undefined
      write.run(hops)
    }
    for (let hops = 0; hops < 60; hops++) {
      const lease = await coordinator.acquire('rebuild')
      await Promise.all([lease.release(), writeAfter(hops)])
    }
    t.equal(own.prepare('select count(*) from written').pluck().get(), 60)
  },
)

t.test('a database that takes no writes is said to take none, once and without statements', async (t) => {
  const { url } = await usePostgres(t)
  const lines: string[] = []
  const note = (fields: object, message: string): void => {
    const { err } = fields as { err?: unknown }
    lines.push(`${message} ${err instanceof Error ? `${err.stack} ${err.cause}` : ''}`)
  }
  const nothing = (): void => undefined
  const log = { debug: nothing, info: nothing, warn: note, error: note }
  const coordinator = await useCoordinator(t, url, { log, watchProcesses: false })
  const outside = new pg.Client(url)
  await outside.connect()
  t.teardown(() => outside.end())
  const { rows } = await outside.query('select current_database() as name')
  const database = `"${rows[0].name}"`
  await outside.query(`alter database ${database} set default_transaction_read_only = on`)
  await outside.query(
    'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
  )
  await times(coordinator, 'heartbeat.failed', 5)
  const readOnly = lines.filter((line) => /read-only|takes no writes/.test(line))
  t.equal(readOnly.length, 1, lines.join('\n'))
  t.match(readOnly[0], /takes no writes there: .* must lead to the primary/)
  t.notMatch(lines.join(), /update "/)
  await outside.query(`set default_transaction_read_only = off`)
  await outside.query(`alter database ${database} reset default_transaction_read_only`)
})
