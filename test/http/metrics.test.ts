/** Tests the metrics for Prometheus with scrapes over a real socket. */
import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import Fastify, { type FastifyInstance } from 'fastify'
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import t, { type Test } from 'tap'
import { StoreError } from '../../plugin/core/errors.js'
import { resolveTiming } from '../../plugin/core/time/timing.js'
import type { WorkerDefinition } from '../../plugin/core/work/worker.js'
import type { Dependencies } from '../../plugin/http/dependencies.js'
import { type MetricsRegistry, registerMetrics } from '../../plugin/http/metrics/metrics.js'
import { metricTable } from '../../plugin/http/metrics/table.js'
import { SnapshotSource } from '../../plugin/http/snapshot/snapshot.js'
import workerCoordination from '../../plugin/index.js'
import { type Database, eachDatabase, useSqlite } from '../support/databases.js'
import { eventually, latest } from '../support/eventually.js'
import { untilAborted } from '../support/workers.js'
import { type Room, useRoom } from './room.js'

const by = { actor: 'ops', reason: 'a good one' }

t.test('a scrape tells of the namespace and of this node', (t) =>
  eachDatabase(t, async (t, database) => {
    const room = await useMetrics(t, database)
    const reply = await scrape(room)
    t.equal(reply.status, 200)
    t.equal(reply.type, 'text/plain; version=0.0.4; charset=utf-8')
    const { values } = reply
    t.match(values, {
      'coordination_nodes{state="active"}': 1,
      'coordination_nodes{state="draining"}': 0,
      'coordination_nodes{state="gone"}': 0,
      'coordination_leases{state="held"}': 5,
      'coordination_leases{state="free"}': 0,
      'coordination_partitions{worker="global/consumer",state="owned"}': 3,
      'coordination_partitions{worker="global/consumer",state="moving"}': 0,
      'coordination_partitions{worker="global/consumer",state="unowned"}': 0,
      'coordination_partitions{worker="global/data",state="owned"}': 1,
      'coordination_leaderless_seconds{worker="global/month-close"}': 0,
      'coordination_leaderless_seconds{worker="global/consumer"}': 0,
      coordination_database_up: 1,
      coordination_held_leases: 5,
      coordination_unsettled_passes: 0,
      coordination_heartbeat_failures_total: 0,
      coordination_store_failures_total: 0,
      coordination_trust_expired_total: 0,
      coordination_sessions_lost_total: 0,
      coordination_database_clock_jumps_total: 0,
      'coordination_takeover_seconds_count{worker="global/month-close"}': 1,
      'coordination_takeover_seconds_count{worker="global/consumer"}': 3,
    })
    t.equal(values.coordination_changes_total, (await room.coordinator.status()).revision)
    t.ok((values.coordination_trust_remaining_seconds ?? 0) > 0)
    t.ok((values.coordination_trust_remaining_seconds ?? 0) <= 15)
    for (const quantile of ['0.5', '0.99', '1'])
      t.ok((values[`coordination_event_loop_delay_seconds{quantile="${quantile}"}`] ?? -1) >= 0)
    await eventually(async () => (await scrape(room)).values.coordination_heartbeat_seconds_count)
    const later = (await scrape(room)).values
    t.ok(
      Math.abs(later.coordination_database_clock_offset_seconds ?? 99) < 5,
      'it is the same machine’s clock',
    )
  }),
)

t.test('names, labels and help are those of the table, and the documentation has the same', async (t) => {
  const room = await useMetrics(t, await useSqlite(t))
  const { text } = await scrape(room)
  const told = [...text.matchAll(/^# HELP (\S+) (.*)\n# TYPE \S+ (\S+)$/gm)].map(([, name, help, type]) => ({
    name,
    help,
    type,
  }))
  const table = Object.entries(metricTable).map(([name, { help, type }]) => ({ name, help, type }))
  t.strictSame(told, table)
  const documented = documentedMetrics()
  t.strictSame(
    documented,
    Object.entries(metricTable).map(([name, { type, labels, help }]) => ({
      name,
      type,
      labels: [...labels],
      help,
    })),
  )
  for (const { name, help } of table) {
    t.match(name, /^coordination_[a-z_]+$/)
    t.notMatch(help, /\.$|\|/, name)
  }
})

t.test('nothing is read until somebody asks, and then one snapshot for all who ask at once', async (t) => {
  const room = await useMetrics(t, await useSqlite(t))
  const before = snapshots(room)
  const source = new SnapshotSource(room.coordinator)
  await Promise.all(Array.from({ length: 20 }, () => source.status()))
  t.equal(snapshots(room) - before, 1)
  await scrape(room)
  const reads = [...room.calls.keys()].filter((verb) => ['events', 'look', 'news', 'view'].includes(verb))
  t.notOk(reads.includes('events'), 'and nothing else')
})

t.test('a worker that nobody runs is leaderless for as long, and not when it is paused', async (t) => {
  let stop = (): void => undefined
  const run = (): Promise<void> =>
    new Promise((resolve) => {
      stop = resolve
    })
  const room = await useMetrics(t, await useSqlite(t), { workers: [untilAborted('stubborn', { run })] })
  t.teardown(() => stop())
  const { operator } = room.coordinator
  const { leases } = await room.coordinator.status()
  const token = leases.find(({ key }) => key === 'global/stubborn')?.token ?? 0
  const leaderless = async (): Promise<number> =>
    (await scrape(room)).values['coordination_leaderless_seconds{worker="global/stubborn"}'] ?? -1
  t.equal(await leaderless(), 0)
  await operator.release({ key: 'global/stubborn', token, ...by })
  const first = await eventually(leaderless)
  await eventually(async () => (await leaderless()) > first)
  t.ok(first > 0, 'and it grows')
  t.match((await scrape(room)).values, {
    'coordination_leases{state="blocked"}': 1,
    coordination_unsettled_passes: 1,
    'coordination_terms_ended_total{worker="global/stubborn",reason="revoked"}': 1,
    'coordination_term_seconds_count{worker="global/stubborn"}': 1,
  })
  await operator.pause('global/stubborn', by)
  t.equal(await latest(leaderless, (seconds) => seconds === 0), 0, 'it is meant to be so')
})

t.test('a coordinated worker that nobody stands for any more is leaderless', async (t) => {
  const room = await useMetrics(t, await useSqlite(t))
  const { operator, nodeId } = room.coordinator
  const leaderless = async (): Promise<number> =>
    (await scrape(room)).values['coordination_leaderless_seconds{worker="global/data"}'] ?? -1
  t.equal(await leaderless(), 0)
  await operator.drain(nodeId ?? '', by)
  await eventually(async () => (await leaderless()) > 0)
})

t.test('statements are counted, and those of a page are on it', async (t) => {
  const room = await useMetrics(t, await useSqlite(t))
  const sent = async (): Promise<number> => (await scrape(room)).values.coordination_statements_total ?? 0
  const first = await sent()
  t.ok(first > 10, 'joining alone takes some')
  await room.coordinator.operator.snapshot()
  t.ok((await sent()) > first)
  const { statements } = room.coordinator.health()
  t.ok((await sent()) >= statements)
})

t.test('failures of a worker are counted from 0, so that the first one is an increase', async (t) => {
  const room = await useMetrics(t, await useSqlite(t), { workers: [untilAborted('calm')] })
  const series = 'coordination_pass_failures_total{worker="global/calm"}'
  await eventually(async () => series in (await scrape(room)).values)
  t.equal((await scrape(room)).values[series], 0)
})

t.test('terms and passes are counted as they end', async (t) => {
  const run = (): never => {
    throw new Error('clumsy')
  }
  const room = await useMetrics(t, await useSqlite(t), { workers: [untilAborted('clumsy', { run })] })
  const lease = await room.coordinator.acquire('one-off')
  await lease.release()
  await eventually(
    async () => (await scrape(room)).values['coordination_pass_failures_total{worker="global/clumsy"}'],
  )
  const { values } = await scrape(room)
  t.equal(values['coordination_terms_ended_total{worker="(by name)",reason="released"}'], 1)
  t.equal(values['coordination_term_seconds_count{worker="(by name)"}'], 1)
  t.notOk(
    Object.keys(values).some((name) => name.includes('one-off')),
    'any number of names makes no more series',
  )
})

t.test('while the database is away the figures that need none are told all the same', async (t) => {
  const room = await useMetrics(t, await useSqlite(t), { timing: resolveTiming({ ttlMs: 1_000 }) })
  const changes = (await scrape(room)).values.coordination_changes_total ?? 0
  t.ok(changes > 0)
  room.failure = new StoreError('It is away.', 'none')
  await eventually(async () => (await scrape(room)).values.coordination_trust_expired_total)
  const { status, values } = await scrape(room)
  t.equal(status, 200)
  t.match(values, {
    coordination_database_up: 0,
    coordination_held_leases: 0,
    coordination_trust_remaining_seconds: 0,
  })
  t.ok((values.coordination_heartbeat_failures_total ?? 0) > 0)
  t.ok((values.coordination_store_failures_total ?? 0) >= (values.coordination_heartbeat_failures_total ?? 0))
  t.notOk(
    Object.keys(values).some((name) => name.startsWith('coordination_leases')),
    'old figures are not shown as new',
  )
  t.equal(values.coordination_changes_total, undefined, 'a counter that fell to 0 would count all over again')
  room.failure = undefined
  await eventually(async () => (await scrape(room)).values.coordination_database_up === 1)
  t.ok(((await scrape(room)).values.coordination_changes_total ?? 0) >= changes)
})

t.test('a page comes before the scraper gives up, although the database hangs', async (t) => {
  const room = await useMetrics(t, await useSqlite(t))
  t.equal((await scrape(room, '10')).values.coordination_database_up, 1)
  room.delayMs = 3_000
  // A reading of a moment ago may be used again at first.
  const { status, values } = await latest(
    () => scrape(room, '0.5'),
    ({ values }) => values.coordination_database_up === 0,
  )
  t.equal(status, 200)
  t.match(values, { coordination_database_up: 0, coordination_held_leases: 5 })
  room.delayMs = 0
  for (const unclear of ['0', '-1', 'soon', '1e9'])
    t.equal((await scrape(room, unclear)).values.coordination_database_up, 1, unclear)
})

t.test('a jump of the database’s clock is counted', async (t) => {
  const room = await useMetrics(t, await useSqlite(t), { timing: resolveTiming({ ttlMs: 1_000 }) })
  await eventually(async () => (await scrape(room)).values.coordination_heartbeat_seconds_count)
  room.clockOffsetMs = -3_600_000
  await eventually(async () => (await scrape(room)).values.coordination_database_clock_jumps_total === 1)
  const { values } = await scrape(room)
  t.ok(Math.abs((values.coordination_database_clock_offset_seconds ?? 0) + 3_600) < 30)
})

t.test('the application’s own registry has them too, and only ours are shown here', async (t) => {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const room = await useMetrics(t, await useSqlite(t), { registry })
  t.match(await registry.metrics(), 'coordination_leases{state="held"} 5')
  t.match(await registry.metrics(), 'process_cpu_seconds_total')
  t.notMatch((await scrape(room)).text, 'process_cpu_seconds_total')
  const app = Fastify()
  t.teardown(() => app.close())
  const { coordinator } = room
  await t.rejects(registerMetrics(app, { coordinator, name: 'second', source: {} as never, registry }), {
    code: 'WCO_OPTIONS',
    message: /metrics\.registry: .*registry of its own/,
  })
  await room.app.close()
  t.notMatch(
    await registry.metrics(),
    'coordination_',
    'and whoever makes the application again may use it again',
  )
})

t.test('a registry that has a metric of ours already is left as it was', async (t) => {
  const { url } = await useSqlite(t)
  const registry = new Registry()
  const theirs = new Gauge({ name: 'coordination_leases', help: 'theirs', registers: [registry] })
  const app = Fastify({ pluginTimeout: 60_000 })
  t.teardown(() => app.close())
  await t.rejects(async () => app.register(workerCoordination, { database: url, metrics: { registry } }), {
    code: 'WCO_OPTIONS',
  })
  t.strictSame(registry.getMetricsAsArray(), [theirs])
})

t.test('the option `metrics` of the plugin names that registry', async (t) => {
  const { url } = await useSqlite(t)
  const registry = new Registry()
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(workerCoordination, { database: url, metrics: { registry } })
  await app.ready()
  t.match(await registry.metrics(), 'coordination_database_up 1')
  t.match((await app.inject('/coordination/metrics')).body, 'coordination_database_up 1')
})

t.test('without prom-client the route tells how to install it, and everything else works', async (t) => {
  const { url } = await useSqlite(t)
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--input-type=module', '--eval', withoutPromClient(url)],
    { env: { ...process.env, NODE_OPTIONS: '', NODE_V8_COVERAGE: '' } },
  )
  const { lines, ...answers } = JSON.parse(stdout)
  t.equal(lines.filter((line: string) => line.includes('prom-client')).length, 1, 'the log says it once')
  t.match(answers, {
    metrics: { status: 501, detail: /npm install prom-client@15/ },
    health: 200,
  })
})

/** Returns a node with metrics, once it holds all it is meant to hold. */
async function useMetrics(
  t: Test,
  database: Database,
  {
    timing = resolveTiming({ ttlMs: 15_000, heartbeatMs: 500 }),
    registry,
    workers = usualWorkers(),
  }: {
    timing?: ReturnType<typeof resolveTiming>
    registry?: MetricsRegistry
    workers?: readonly WorkerDefinition[]
  } = {},
): Promise<Room> {
  const register = (scope: FastifyInstance, deps: Dependencies): Promise<void> =>
    registerMetrics(scope, { ...deps, registry })
  const room = await useRoom(t, database, register, { timing, workers: [...workers] })
  await eventually(async () => {
    const { leases } = await room.coordinator.status()
    const { held } = room.coordinator.health()
    // Its rows tell that it holds a lease a moment before the node itself knows.
    return held.length > 0 && held.length === leases.length
  })
  return room
}

function usualWorkers(): WorkerDefinition[] {
  return [
    untilAborted('month-close'),
    untilAborted('data', { kind: 'coordinated' }),
    untilAborted('consumer', { kind: 'partitioned', partitions: 3 }),
  ]
}

interface Scrape {
  readonly status: number
  readonly type: string | null
  readonly text: string
  /** By name and labels, as they are written. */
  readonly values: Readonly<Record<string, number>>
}

/** @param timeout what Prometheus sends of its `scrape_timeout`, in seconds. */
async function scrape({ origin }: Room, timeout?: string): Promise<Scrape> {
  const limit = timeout === undefined ? {} : { 'x-prometheus-scrape-timeout-seconds': timeout }
  const headers = { 'x-user': 'prometheus', ...limit }
  const reply = await fetch(`${origin}/coordination/metrics`, { headers })
  const text = await reply.text()
  const lines = [...text.matchAll(/^([a-z][^#\n]*) (\S+)$/gm)]
  const values = Object.fromEntries(lines.map(([, name, value]) => [name, Number(value)]))
  return { status: reply.status, type: reply.headers.get('content-type'), text, values }
}

function snapshots({ calls }: Room): number {
  return calls.get('snapshot') ?? 0
}

/** Returns the table in `docs/operations.md`. */
function documentedMetrics(): { name: string; type: string; labels: string[]; help: string }[] {
  let root = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(root, 'tsconfig.json')) || !existsSync(join(root, 'docs'))) root = dirname(root)
  const rows = readFileSync(join(root, 'docs/operations.md'), 'utf8').matchAll(
    /^\| `(coordination_\w+)` +\| (\w+) +\| ([^|]*?) *\| ([^|]*?) *\|$/gm,
  )
  return [...rows].map(([, name = '', type = '', labels = '', help = '']) => ({
    name,
    type,
    labels: [...labels.matchAll(/`(\w+)`/g)].map(([, label = '']) => label),
    help,
  }))
}

/** Returns a program that cannot find that package, whatever is installed here. */
function withoutPromClient(database: string): string {
  const hook = `export async function resolve(name, context, next) {
    if (name === 'prom-client') throw Object.assign(new Error('Cannot find package'), { code: 'ERR_MODULE_NOT_FOUND' })
    return next(name, context)
  }`
  return `
    import { register } from 'node:module'
    register(${JSON.stringify(`data:text/javascript,${encodeURIComponent(hook)}`)})
    const { default: workerCoordination } = await import(${JSON.stringify(import.meta.resolve('../../plugin/index.js'))})
    const { default: Fastify } = await import(${JSON.stringify(import.meta.resolve('fastify'))})
    const lines = []
    const app = Fastify({ logger: { level: 'warn', stream: { write: (line) => lines.push(JSON.parse(line).msg) } } })
    await app.register(workerCoordination, { database: ${JSON.stringify(database)} })
    const metrics = await app.inject('/coordination/metrics')
    await app.inject('/coordination/metrics')
    const health = await app.inject('/coordination/health')
    await app.close()
    process.stdout.write(JSON.stringify({ metrics: metrics.json(), health: health.statusCode, lines }))
  `
}
