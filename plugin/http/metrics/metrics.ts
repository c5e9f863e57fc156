/**
 * `GET /metrics`: figures for Prometheus, through `prom-client` when that is installed.
 *
 * What this process does is counted as it happens; how the namespace is doing is read when somebody asks, in one
 * snapshot that is shared with whoever else asks at that moment. Nothing is read otherwise. While the database does
 * not answer, the figures that need it are left out, and the others are told all the same.
 *
 * What a metric is called and what it says stands in one table, `metric-table.ts`.
 */
import type { FastifyInstance, RouteOptions } from 'fastify'
import type { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Coordinator } from '../../core/coordinator.js'
import { CoordinationError } from '../../core/errors.js'
import type { Status } from '../../core/reports/status.js'
import type { Snapshot } from '../../core/store.js'
import type { Dependencies } from '../dependencies.js'
import { HttpProblem } from '../http-problems.js'
import { routeConfig, routeSchema } from '../route.js'
import { query, reads } from '../schemas/common.js'
import { ownership } from '../snapshot/presenters.js'
import { isSilent } from '../snapshot/pulse.js'
import { DatabaseClock, Leaderless, LoopDelay } from './sources.js'
import { type MetricName, type MetricRow, metricNames, metricTable, sampled } from './table.js'

/** A registry of prom-client's, as far as it matters here: its types are there only where it is installed. */
export interface MetricsRegistry {
  /** `never`, so that the registry of any version of prom-client fits, whatever that calls the type of a metric. */
  registerMetric(metric: never): void
  removeSingleMetric(name: string): void
}

/** What the metrics need. */
export interface MetricsDependencies extends Pick<Dependencies, 'coordinator' | 'name' | 'source'> {
  /** The application's own registry, which then has these metrics as well. Default: none. */
  readonly registry?: MetricsRegistry | undefined
}

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
  let saidHow = false
  scope.route({
    ...metricsRoute(deps.name),
    handler: async (request, reply) => {
      if (metrics === undefined) {
        const how = 'There are no metrics without prom-client: npm install prom-client@15'
        if (!saidHow) request.log.warn(how)
        saidHow = true
        throw new HttpProblem('not-installed', how)
      }
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
    config: routeConfig('read', { uncounted: true, underPressure: true }),
    schema: routeSchema({
      summary: 'Figures for Prometheus',
      tags: ['coordination'],
      operationId: `${name}Metrics`,
      querystring: query({}),
      response: reads({ 200: page }, 'not-installed'),
    }),
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
  readonly #loop: LoopDelay
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
      this.#unregister()
      throw new CoordinationError(
        'WCO_OPTIONS',
        'metrics.registry: it has metrics of these names already. Each registration needs a registry of its own.',
        { cause: error },
      )
    }
    this.#loop = new LoopDelay()
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
    this.#unregister()
  }

  /** Only what was made here: of the same name there may be a metric of the application's. */
  #unregister(): void {
    for (const name of this.#metrics.keys()) this.#in.registry?.removeSingleMetric(name)
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
    for (const name of sampled) this.#leaveOut(name)
    this.#set('coordination_database_up', read === undefined ? 0 : 1)
    if (read !== undefined) this.#sampleNamespace(read.status, read.snapshot)
    this.#sampleProcess()
  }

  #sampleNamespace(status: Status, snapshot: Snapshot): void {
    this.#add('coordination_changes_total', status.revision)
    const nodes = status.nodes.map((node) => (isSilent(node, snapshot) ? 'silent' : node.state))
    for (const [state, count] of counted(nodeStates, nodes)) this.#set('coordination_nodes', count, { state })
    const leases = status.leases.map((lease) => (isSilent(lease.holder, snapshot) ? 'silent' : lease.state))
    for (const [state, count] of counted(leaseStates, leases))
      this.#set('coordination_leases', count, { state })
    for (const { worker, slots } of status.assignments) {
      const states = slots.map((slot) => ownership(slot, snapshot))
      for (const [state, count] of counted(['owned', 'moving', 'unowned'], states))
        this.#set('coordination_partitions', count, { worker, state })
    }
    for (const [worker, forMs] of this.#leaderless.of(status, snapshot))
      this.#set('coordination_leaderless_seconds', forMs / 1_000, { worker })
  }

  #sampleProcess(): void {
    const { held, unsettled, trustLeftMs, statements } = this.#in.coordinator.health()
    this.#set('coordination_held_leases', held.length)
    this.#set('coordination_unsettled_passes', unsettled.length)
    this.#set('coordination_trust_remaining_seconds', trustLeftMs / 1_000)
    this.#add('coordination_statements_total', statements)
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

  /** A metric without labels is set to 0 by `reset`: of a counter that would tell that it began anew. */
  #leaveOut(name: MetricName): void {
    const metric = this.#metrics.get(name)
    metric?.reset()
    metric?.remove({})
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

const nodeStates = ['active', 'draining', 'silent', 'gone']
const leaseStates = ['held', 'moving', 'silent', 'blocked', 'unclaimed', 'free']

/** How many there are of each, those of which there are none included: a series that vanishes raises no alarm. */
function counted(states: readonly string[], found: readonly string[]): [string, number][] {
  return states.map((state) => [state, found.filter((each) => each === state).length])
}
