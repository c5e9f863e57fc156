/**
 * `GET /metrics`: metrics for Prometheus, provided by `prom-client` when that is installed.
 *
 * What this process does is counted as it happens. The state of the namespace is read only when metrics are requested,
 * from one snapshot that is shared with all other requests at that moment. While the database does not answer, the
 * metrics that need it are left out and the others are still reported.
 *
 * The names and help texts of all metrics are in one table, `table.ts`.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyInstance, FastifyRequest, RouteOptions } from 'fastify'
import type { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Coordinator } from '../../core/coordinator.js'
import { CoordinationError } from '../../core/errors.js'
import type { Status } from '../../core/reports/status.js'
import type { Snapshot } from '../../core/store.js'
import type { Dependencies } from '../dependencies.js'
import { HttpProblem } from '../http-problems.js'
import { routeConfig, routeSchema } from '../route.js'
import { query, serves } from '../schemas/common.js'
import { countsOf } from '../snapshot/counts.js'
import { ownership } from '../snapshot/presenters.js'
import { DatabaseClock, Leaderless, LoopDelay } from './sources.js'
import { type MetricName, type MetricRow, metricNames, metricTable, sampled } from './table.js'

/** The part of a prom-client registry that is used here. The library's own types exist only where it is installed. */
export interface MetricsRegistry {
  /** `never`, so that the registry of any version of prom-client fits, whatever its type of a metric is. */
  registerMetric(metric: never): void
  removeSingleMetric(name: string): void
}

/** The dependencies of the metrics. */
export interface MetricsDependencies extends Pick<Dependencies, 'coordinator' | 'name' | 'source'> {
  /** The application's own registry, to which the metrics are added as well. Default: none. */
  readonly registry?: MetricsRegistry | undefined
}

/**
 * The `worker` label of leases that were acquired by name. There may be any number of such names, and no worker can
 * have this one.
 */
const byName = '(by name)'

/**
 * Adds the route. Without prom-client, the route responds with how to install it.
 *
 * @throws {CoordinationError} `WCO_OPTIONS` when the registry already has metrics of these names.
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
      return reply.send(await metrics.text(patienceOf(request)))
    },
  })
}

/**
 * Returns how long the page may take, in ms; undefined when the client does not say so. Prometheus sends its
 * `scrape_timeout`; a fifth of it is left for the way.
 */
function patienceOf({ headers }: FastifyRequest): number | undefined {
  const seconds = Number(headers['x-prometheus-scrape-timeout-seconds'])
  return seconds > 0 && seconds < 3_600 ? 800 * seconds : undefined
}

function metricsRoute(name: string): Omit<RouteOptions, 'handler'> {
  const description = 'The metrics, in the text format of Prometheus'
  const page = { description, content: { 'text/plain': { schema: { type: 'string' } } } }
  return {
    method: 'GET',
    url: '/metrics',
    logLevel: 'warn',
    config: routeConfig('read', { uncounted: true, underPressure: true }),
    schema: routeSchema({
      summary: 'Get metrics for Prometheus',
      tags: ['coordination'],
      operationId: `${name}Metrics`,
      querystring: query({}),
      response: serves({ 200: page }, 'not-installed'),
    }),
  }
}

type Client = typeof import('prom-client')

/** Returns undefined only when prom-client is not installed; any other error must be seen. */
async function installed(): Promise<Client | undefined> {
  try {
    return await import('prom-client')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ERR_MODULE_NOT_FOUND') return undefined
    throw error
  }
}

class Metrics {
  readonly #in: MetricsDependencies
  readonly #own: Registry
  readonly #metrics = new Map<MetricName, Counter | Gauge | Histogram>()
  readonly #loop: LoopDelay
  readonly #leaderless = new Leaderless()
  #sampling: Promise<void> | undefined
  /** How long the sample that is about to be taken may wait for the database, in ms. */
  #patienceMs: number | undefined

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

  /**
   * Returns the page.
   *
   * @param patienceMs how long to wait for the database; by default as long as its statements may take. Pages that are
   *   asked for at the same time wait for one sample, as long as the first of them may.
   */
  text(patienceMs: number | undefined): Promise<string> {
    this.#patienceMs = patienceMs
    const page = this.#own.metrics()
    // The sample has begun. The application's own registry knows no such limit.
    this.#patienceMs = undefined
    return page
  }

  /** Frees the registry for an application that is created again. */
  close(): void {
    this.#loop.stop()
    this.#unregister()
  }

  /** Removes only metrics that were created here: the application may have a metric of the same name. */
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

  /** Takes one sample for all metrics of a page, which prom-client collects at the same time. */
  #sample(): Promise<void> {
    this.#sampling ??= this.#sampleOnce().finally(() => {
      this.#sampling = undefined
    })
    return this.#sampling
  }

  async #sampleOnce(): Promise<void> {
    const read = await within(
      this.#patienceMs,
      this.#in.source.status().catch(() => undefined),
    )
    for (const name of sampled) this.#leaveOut(name)
    this.#set('coordination_database_up', read === undefined ? 0 : 1)
    if (read !== undefined) this.#sampleNamespace(read.status, read.snapshot)
    this.#sampleProcess()
  }

  #sampleNamespace(status: Status, snapshot: Snapshot): void {
    this.#add('coordination_changes_total', status.revision)
    const { nodes, leases } = countsOf(status, snapshot)
    for (const [state, count] of Object.entries(nodes)) this.#set('coordination_nodes', count, { state })
    for (const [state, count] of Object.entries(leases)) this.#set('coordination_leases', count, { state })
    for (const { worker, slots } of status.assignments) {
      const states = slots.map((slot) => ownership(slot, snapshot))
      for (const [state, count] of counted(['owned', 'moving', 'unowned'], states))
        this.#set('coordination_partitions', count, { worker, state })
    }
    for (const [worker, forMs] of this.#leaderless.of(status, snapshot))
      this.#set('coordination_leaderless_seconds', forMs / 1_000, { worker })
    // From the start: a series that begins with its first failure hides that failure from `increase`.
    const own = status.nodes.find(({ id }) => id === status.self.id)
    for (const worker of own?.workers ?? []) this.#add('coordination_pass_failures_total', 0, { worker })
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

  /**
   * Clears the metric. For a metric without labels, `reset` alone sets it to 0, which for a counter would mean a
   * restart.
   */
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

/** Resolves as `value` does, or to undefined when that takes longer. */
async function within<Value>(ms: number | undefined, value: Promise<Value>): Promise<Value | undefined> {
  if (ms === undefined) return value
  const ended = new AbortController()
  try {
    return await Promise.race([value, delay(ms, undefined, { signal: ended.signal })])
  } finally {
    ended.abort()
  }
}

type Labels = Readonly<Record<string, string>>

/** Returns the count of each state, including states without any: a series that vanishes raises no alarm. */
function counted(states: readonly string[], found: readonly string[]): [string, number][] {
  return states.map((state) => [state, found.filter((each) => each === state).length])
}
