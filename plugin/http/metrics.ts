/**
 * `GET /metrics`: figures for Prometheus, through `prom-client` when that is installed.
 *
 * What this process does is counted as it happens; how the namespace is doing is read when somebody asks, in one
 * snapshot that is shared with whoever else asks at that moment. Nothing is read otherwise. While the database does
 * not answer, the figures that need it are left out, and the others are told all the same.
 *
 * What a metric is called and what it says stands in one table, {@link metricTable}.
 */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks'
import type { FastifyInstance, RouteOptions } from 'fastify'
import type { Counter, Gauge, Histogram, Registry } from 'prom-client'
import { systemClock } from '../core/clock.js'
import type { Coordinator } from '../core/coordinator.js'
import { CoordinationError } from '../core/errors.js'
import type { Status } from '../core/status.js'
import type { Snapshot } from '../core/store.js'
import { elapsedMs } from '../core/trust.js'
import { does } from './access.js'
import type { Dependencies } from './dependencies.js'
import { asDocumented } from './openapi.js'
import { HttpProblem } from './problems.js'
import { query, reads } from './schemas/common.js'

/** A registry of prom-client's, as far as it matters here: its types are there only where it is installed. */
export interface MetricsRegistry {
  registerMetric(metric: never): void
  removeSingleMetric(name: string): void
}

/** What the metrics need. */
export interface MetricsDependencies extends Pick<Dependencies, 'coordinator' | 'name' | 'source'> {
  /** The application's own registry, which then has these metrics as well. Default: none. */
  readonly registry?: MetricsRegistry | undefined
}

/** A row of {@link metricTable}. */
export interface MetricRow {
  readonly type: 'gauge' | 'counter' | 'histogram'
  readonly labels: readonly string[]
  readonly help: string
  readonly buckets?: readonly number[]
}

/** Every metric there is. Durations are in seconds, as Prometheus has them. */
export const metricTable = {
  coordination_leaderless_seconds: {
    type: 'gauge',
    labels: ['worker'],
    help: 'How long a worker has had a lease that nobody holds, the longest of its leases; 0 when all are held or it is paused',
  },
  coordination_partitions: {
    type: 'gauge',
    labels: ['worker', 'state'],
    help: 'Shares or partitions of a worker that are owned, moving or unowned',
  },
  coordination_leases: {
    type: 'gauge',
    labels: ['state'],
    help: 'Leases in the namespace that are held, moving, blocked, unclaimed or free',
  },
  coordination_nodes: {
    type: 'gauge',
    labels: ['state'],
    help: 'Nodes in the namespace that are active, draining or gone',
  },
  coordination_changes_total: {
    type: 'counter',
    labels: [],
    help: 'Changes made in the namespace, by whichever node',
  },
  coordination_database_up: {
    type: 'gauge',
    labels: [],
    help: 'Whether the database answered for this very page: 1 or 0',
  },
  coordination_held_leases: {
    type: 'gauge',
    labels: [],
    help: 'Leases this node holds',
  },
  coordination_unsettled_passes: {
    type: 'gauge',
    labels: [],
    help: 'Leases that have ended on this node while work under them goes on, its signal ignored',
  },
  coordination_trust_remaining_seconds: {
    type: 'gauge',
    labels: [],
    help: 'How long this node may still act on its leases without another heartbeat; 0 when it may not',
  },
  coordination_term_seconds: {
    type: 'histogram',
    labels: ['worker'],
    help: 'How long terms of this node lasted that have ended',
    buckets: [1, 10, 60, 300, 1_800, 7_200, 43_200, 86_400, 604_800],
  },
  coordination_terms_ended_total: {
    type: 'counter',
    labels: ['worker', 'reason'],
    help: 'Terms of this node that have ended, by reason',
  },
  coordination_takeover_seconds: {
    type: 'histogram',
    labels: ['worker'],
    help: 'From the moment this node was named for a lease until it held it, by the clock of the database',
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
  },
  coordination_pass_failures_total: {
    type: 'counter',
    labels: ['worker'],
    help: 'Passes that threw on this node',
  },
  coordination_heartbeat_seconds: {
    type: 'histogram',
    labels: [],
    help: 'How long heartbeats of this node took to be answered',
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
  },
  coordination_heartbeat_failures_total: {
    type: 'counter',
    labels: [],
    help: 'Heartbeats of this node that were not answered',
  },
  coordination_store_failures_total: {
    type: 'counter',
    labels: [],
    help: 'Requests of this node to the database that failed, heartbeats among them',
  },
  coordination_trust_expired_total: {
    type: 'counter',
    labels: [],
    help: 'How often this node had to stop because its trust had ended',
  },
  coordination_sessions_lost_total: {
    type: 'counter',
    labels: [],
    help: 'How often this node was buried while it was alive',
  },
  coordination_event_loop_delay_seconds: {
    type: 'gauge',
    labels: ['quantile'],
    help: 'How late timers of this process fired since this was last asked; quantile 1 is the latest',
  },
  coordination_database_clock_offset_seconds: {
    type: 'gauge',
    labels: [],
    help: 'How far the clock of the database is ahead of that of this process',
  },
  coordination_database_clock_jumps_total: {
    type: 'counter',
    labels: [],
    help: 'How often the clock of the database has moved by more than a second otherwise than time passed here',
  },
} as const satisfies Readonly<Record<string, MetricRow>>

type MetricName = keyof typeof metricTable

/** How leases that were acquired by name are labelled: there may be any number of names, but no worker called that. */
const byName = '(by name)'

/**
 * Adds the route. Without prom-client it answers how to install it.
 *
 * @throws {CoordinationError} `WCO_OPTIONS` when the registry has metrics of these names already.
 */
export async function registerMetrics(scope: FastifyInstance, deps: MetricsDependencies): Promise<void> {
  const client = await installed()
  const metrics = client === undefined ? undefined : new Metrics(client, deps)
  scope.addHook('onClose', async () => metrics?.close())
  scope.route({
    ...metricsRoute(deps.name),
    handler: async (_request, reply) => {
      if (metrics === undefined)
        throw new HttpProblem(
          'not-installed',
          'There are no metrics without prom-client: npm install prom-client@15',
        )
      reply.header('cache-control', 'no-store').type(metrics.contentType)
      return reply.send(await metrics.text())
    },
  })
}

function metricsRoute(name: string): Omit<RouteOptions, 'handler'> {
  const description = 'In the text format of Prometheus'
  const page = { description, content: { 'text/plain': { schema: { type: 'string' } } } }
  return {
    method: 'GET',
    url: '/metrics',
    logLevel: 'warn',
    config: {
      ...does('read'),
      pressureHandler: () => undefined,
      rateLimit: false,
      swaggerTransform: asDocumented,
    } as object,
    schema: {
      summary: 'Figures for Prometheus',
      tags: ['coordination'],
      operationId: `${name}Metrics`,
      querystring: query({}),
      response: reads({ 200: page }, 'not-installed'),
    } as object,
  }
}

type Client = typeof import('prom-client')

/** Anything but its absence is an error that must be seen. */
async function installed(): Promise<Client | undefined> {
  try {
    return await import('prom-client')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ERR_MODULE_NOT_FOUND') return undefined
    throw error
  }
}

/** The figures of one coordinator. */
class Metrics {
  readonly #in: MetricsDependencies
  readonly #own: Registry
  readonly #metrics = new Map<MetricName, Counter | Gauge | Histogram>()
  readonly #loop = new LoopDelay()
  readonly #leaderless = new Leaderless()
  #sampling: Promise<void> | undefined

  constructor(client: Client, deps: MetricsDependencies) {
    this.#in = deps
    this.#own = new client.Registry()
    const registers = [
      this.#own,
      ...(deps.registry === undefined ? [] : [deps.registry as unknown as Registry]),
    ]
    try {
      for (const name of metricNames) this.#metrics.set(name, this.#make(client, name, registers))
    } catch (error) {
      throw new CoordinationError(
        'WCO_OPTIONS',
        'metrics.registry: it has metrics of these names already. Each registration needs a registry of its own.',
        { cause: error },
      )
    }
    this.#count(deps.coordinator)
  }

  get contentType(): string {
    return this.#own.contentType
  }

  text(): Promise<string> {
    return this.#own.metrics()
  }

  /** Whoever makes the application again may use the registry again. */
  close(): void {
    this.#loop.stop()
    for (const name of metricNames) this.#in.registry?.removeSingleMetric(name)
  }

  #make(client: Client, name: MetricName, registers: Registry[]): Counter | Gauge | Histogram {
    const { type, labels, help, buckets }: MetricRow = metricTable[name]
    const collect = sampled.has(name) ? { collect: () => this.#sample() } : {}
    const configuration = { name, help, labelNames: [...labels], registers, ...collect }
    if (type === 'gauge') return new client.Gauge(configuration)
    if (type === 'counter') return new client.Counter(configuration)
    return new client.Histogram({ ...configuration, buckets: [...(buckets ?? [])] })
  }

  /** All metrics of a page are collected at once, and one sample is for all of them. */
  #sample(): Promise<void> {
    this.#sampling ??= this.#sampleOnce().finally(() => {
      this.#sampling = undefined
    })
    return this.#sampling
  }

  async #sampleOnce(): Promise<void> {
    const read = await this.#in.source.status().catch(() => undefined)
    for (const name of sampled) this.#metrics.get(name)?.reset()
    this.#set('coordination_database_up', read === undefined ? 0 : 1)
    if (read !== undefined) this.#sampleNamespace(read.status, read.snapshot)
    this.#sampleProcess()
  }

  #sampleNamespace(status: Status, snapshot: Snapshot): void {
    this.#add('coordination_changes_total', status.revision)
    for (const [state, count] of counted(nodeStates, status.nodes))
      this.#set('coordination_nodes', count, { state })
    for (const [state, count] of counted(leaseStates, status.leases))
      this.#set('coordination_leases', count, { state })
    for (const { worker, slots } of status.assignments) {
      const states = slots.map((slot) => ({ state: partitionStates[slot.state] }))
      for (const [state, count] of counted(['owned', 'moving', 'unowned'], states))
        this.#set('coordination_partitions', count, { worker, state })
    }
    for (const [worker, forMs] of this.#leaderless.of(status, snapshot))
      this.#set('coordination_leaderless_seconds', forMs / 1_000, { worker })
  }

  #sampleProcess(): void {
    const { held, unsettled, trustLeftMs } = this.#in.coordinator.health()
    this.#set('coordination_held_leases', held.length)
    this.#set('coordination_unsettled_passes', unsettled.length)
    this.#set('coordination_trust_remaining_seconds', trustLeftMs / 1_000)
    for (const [quantile, delayMs] of this.#loop.take())
      this.#set('coordination_event_loop_delay_seconds', delayMs / 1_000, { quantile })
  }

  #count(coordinator: Coordinator): void {
    const began = new Map<string, number>()
    const clock = new DatabaseClock()
    coordinator.on('lease.acquired', ({ key, worker, namedForMs }) => {
      began.set(key, performance.now())
      if (namedForMs !== null)
        this.#observe('coordination_takeover_seconds', namedForMs, { worker: worker ?? byName })
    })
    coordinator.on('lease.ended', ({ key, worker, reason }) => {
      const labels = { worker: worker ?? byName }
      const sinceMs = began.get(key)
      began.delete(key)
      if (sinceMs !== undefined)
        this.#observe('coordination_term_seconds', performance.now() - sinceMs, labels)
      this.#add('coordination_terms_ended_total', 1, { ...labels, reason })
    })
    coordinator.on('pass.failed', ({ key }) => {
      this.#add('coordination_pass_failures_total', 1, { worker: key.replace(/#\d+$/, '') })
    })
    coordinator.on('heartbeat.answered', ({ latencyMs, databaseNowMs }) => {
      this.#observe('coordination_heartbeat_seconds', latencyMs)
      const { offsetMs, jumped } = clock.heard(databaseNowMs, latencyMs)
      this.#set('coordination_database_clock_offset_seconds', offsetMs / 1_000)
      if (jumped) this.#add('coordination_database_clock_jumps_total', 1)
    })
    const simple = {
      'heartbeat.failed': 'coordination_heartbeat_failures_total',
      'store.failed': 'coordination_store_failures_total',
      'trust.expired': 'coordination_trust_expired_total',
      'session.lost': 'coordination_sessions_lost_total',
    } as const
    for (const event of Object.keys(simple) as (keyof typeof simple)[])
      coordinator.on(event, () => this.#add(simple[event], 1))
  }

  #set(name: MetricName, value: number, labels: Labels = {}): void {
    const metric = this.#metrics.get(name)
    if (metric !== undefined && 'set' in metric) metric.set(labels, value)
  }

  #add(name: MetricName, value: number, labels: Labels = {}): void {
    const metric = this.#metrics.get(name)
    if (metric !== undefined && 'inc' in metric) metric.inc(labels, value)
  }

  #observe(name: MetricName, ms: number, labels: Labels = {}): void {
    const metric = this.#metrics.get(name)
    if (metric !== undefined && 'observe' in metric) metric.observe(labels, ms / 1_000)
  }
}

type Labels = Readonly<Record<string, string>>

const metricNames = Object.keys(metricTable) as MetricName[]

/** What is read when somebody asks; everything else is counted as it happens. */
const sampled: ReadonlySet<MetricName> = new Set([
  'coordination_leaderless_seconds',
  'coordination_partitions',
  'coordination_leases',
  'coordination_nodes',
  'coordination_changes_total',
  'coordination_database_up',
  'coordination_held_leases',
  'coordination_unsettled_passes',
  'coordination_trust_remaining_seconds',
  'coordination_event_loop_delay_seconds',
])

const nodeStates = ['active', 'draining', 'gone'] as const
const leaseStates = ['held', 'moving', 'blocked', 'unclaimed', 'free'] as const
const partitionStates = {
  held: 'owned',
  moving: 'moving',
  blocked: 'unowned',
  unclaimed: 'unowned',
  free: 'unowned',
} as const

/** How many there are of each, those of which there are none included: a series that vanishes raises no alarm. */
function counted<State extends string>(
  states: readonly State[],
  things: readonly { readonly state: State }[],
): [State, number][] {
  return states.map((state) => [state, things.filter((thing) => thing.state === state).length])
}

/**
 * Since when nobody holds what somebody should. The rows tell when the next holder was named; should that be passed
 * over, or nobody be found, this process remembers since when it has seen the lease without a holder.
 */
class Leaderless {
  #seenAtMs = new Map<string, number>()

  /** By worker, in ms. A worker that no node has stood for of late, not even one that is gone, is in use no more. */
  of({ workers, leases, nodes }: Status, snapshot: Snapshot): Map<string, number> {
    const rows = new Map(snapshot.leases.map((row) => [row.key, row]))
    const inUse = new Set(nodes.flatMap((node) => node.workers))
    const byWorker = new Map(
      workers.filter(({ key }) => inUse.has(key)).map((worker) => [worker.key, worker]),
    )
    const longest = new Map([...byWorker.keys()].map((key) => [key, 0]))
    const before = this.#seenAtMs
    this.#seenAtMs = new Map()
    for (const { key, worker, slot, state } of leases) {
      const of = byWorker.get(worker ?? '')
      if (of === undefined || of.paused || slot >= of.slots || state === 'held' || state === 'moving')
        continue
      const seenAtMs = before.get(key) ?? performance.now()
      this.#seenAtMs.set(key, seenAtMs)
      const namedForMs = snapshot.nowMs - (rows.get(key)?.targetAtMs ?? snapshot.nowMs)
      const forMs = Math.max(performance.now() - seenAtMs, namedForMs)
      longest.set(of.key, Math.max(longest.get(of.key) ?? 0, forMs))
    }
    return longest
  }
}

/** What heartbeats tell of the database's clock. Nothing in the engine rests on it, but people should know. */
class DatabaseClock {
  #last:
    | { readonly at: ReturnType<typeof systemClock.read>; readonly nowMs: number; readonly latencyMs: number }
    | undefined

  heard(nowMs: number, latencyMs: number): { offsetMs: number; jumped: boolean } {
    const at = systemClock.read()
    const last = this.#last
    this.#last = { at, nowMs, latencyMs }
    const offsetMs = nowMs - (Date.now() - latencyMs / 2)
    if (last === undefined) return { offsetMs, jumped: false }
    const strayedMs = Math.abs(nowMs - last.nowMs - elapsedMs(last.at, at))
    return { offsetMs, jumped: strayedMs > 1_000 + latencyMs + last.latencyMs }
  }
}

/** How late timers fire: what makes a node lose its leases though nothing else is wrong. */
class LoopDelay {
  readonly #histogram: IntervalHistogram = monitorEventLoopDelay({ resolution: resolutionMs })

  constructor() {
    this.#histogram.enable()
  }

  /** Quantiles in ms since it was last asked. What is measured is the interval, so the timer's own length goes off. */
  take(): [quantile: string, delayMs: number][] {
    const quantiles = ['0.5', '0.99', '1'].map((quantile): [string, number] => {
      const ns = this.#histogram.percentile(Number(quantile) * 100)
      return [quantile, this.#histogram.count === 0 ? 0 : Math.max(0, ns / 1e6 - resolutionMs)]
    })
    this.#histogram.reset()
    return quantiles
  }

  stop(): void {
    this.#histogram.disable()
  }
}

const resolutionMs = 10
