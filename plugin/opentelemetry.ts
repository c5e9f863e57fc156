/**
 * Spans and metrics of a coordinator, by means of the OpenTelemetry API that the application has set up.
 *
 * @example
 * import { instrument } from 'fastify-worker-coordination/opentelemetry'
 *
 * instrument(app.coordination)
 */
import { createHash } from 'node:crypto'
import {
  type Attributes,
  type Context,
  type Link,
  type Meter,
  type MeterProvider,
  metrics,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  type TracerProvider,
  trace,
} from '@opentelemetry/api'
import type { Coordinator } from './core/coordinator.js'
import type { CoordinatorEvents, EventName, Listener } from './core/events.js'
import { checkCoordinator, checkOptions } from './core/inputs.js'

/** Where spans and metrics go. Default: the providers that are registered globally. */
export interface InstrumentOptions {
  readonly tracerProvider?: TracerProvider | undefined
  readonly meterProvider?: MeterProvider | undefined
}

/** The name of the tracer and of the meter. */
const scopeName = 'fastify-worker-coordination'

/**
 * Traces and measures passes, claims and hand-overs. Returns a function that stops it.
 *
 * @throws {CoordinationError} `WCO_OPTIONS` when it is given no coordinator, or an unknown option.
 */
export function instrument(coordinator: Coordinator, options: InstrumentOptions = {}): () => void {
  checkCoordinator('instrument', coordinator)
  checkOptions('instrument', options, ['tracerProvider', 'meterProvider'])
  const { tracerProvider = trace.getTracerProvider(), meterProvider = metrics.getMeterProvider() } = options
  const tracer = tracerProvider.getTracer(scopeName)
  const ends = [
    traceTerms(coordinator, tracer),
    tracePasses(coordinator, tracer),
    measure(coordinator, meterProvider.getMeter(scopeName)),
  ]
  return () => {
    for (const end of ends) end()
  }
}

/**
 * A term has one trace, with a span for its claim and one for handing it over. The trace's id follows from the lease
 * and its token, so nodes can refer to each other's terms without communicating: each claim is linked to the
 * previous term, and each pass to its own term.
 */
function traceTerms(coordinator: Coordinator, tracer: Tracer): () => void {
  const { namespace } = coordinator.settings
  const leaving = new Map<string, Span>()
  const within = (key: string, token: number): Context =>
    trace.setSpanContext(ROOT_CONTEXT, termContext(namespace, key, token))

  const claimed: Listener<'lease.acquired'> = (term) => {
    const nowMs = Date.now()
    const { key, token, previousToken, namedForMs } = term
    const links: Link[] =
      previousToken === null ? [] : [{ context: termContext(namespace, key, previousToken) }]
    const startTime = nowMs - (namedForMs ?? 0)
    const attributes = about(coordinator, term)
    tracer.startSpan(`claim ${key}`, { startTime, links, attributes }, within(key, token)).end(nowMs)
  }
  const ended: Listener<'lease.ended'> = (term) => {
    const attributes = { ...about(coordinator, term), 'coordination.reason': term.reason }
    const span = tracer.startSpan(`hand over ${term.key}`, { attributes }, within(term.key, term.token))
    leaving.set(`${term.key} ${term.token}`, span)
  }
  const released: Listener<'lease.released'> = ({ key, token }) => {
    leaving.get(`${key} ${token}`)?.end()
    leaving.delete(`${key} ${token}`)
  }

  const observed = [
    listen(coordinator, 'lease.acquired', claimed),
    listen(coordinator, 'lease.ended', ended),
    listen(coordinator, 'lease.released', released),
  ]
  return () => {
    for (const stop of observed) stop()
    for (const span of leaving.values()) span.end()
    leaving.clear()
  }
}

/**
 * A pass is a span with a trace of its own. It is active while `run` is called, so that spans made by the work lie
 * within it.
 */
function tracePasses(coordinator: Coordinator, tracer: Tracer): () => void {
  const { namespace } = coordinator.settings
  return coordinator.aroundPasses(({ lease, worker, dueAtMs }, run) => {
    const attributes = {
      ...about(coordinator, { key: lease.key, token: lease.token, worker }),
      ...(dueAtMs === null ? {} : { 'coordination.due_at': new Date(dueAtMs).toISOString() }),
    }
    const links = [{ context: termContext(namespace, lease.key, lease.token) }]
    return tracer.startActiveSpan(`pass ${worker}`, { root: true, links, attributes }, async (span) => {
      try {
        await run()
      } catch (error) {
        if (!lease.signal.aborted) markFailed(span, error)
        throw error
      } finally {
        span.end()
      }
    })
  })
}

/** Counts and measures. No attribute takes an unbounded number of values. */
function measure(coordinator: Coordinator, meter: Meter): () => void {
  const claimSeconds = meter.createHistogram('coordination.claim.wait', {
    description: 'From being named for a lease to holding it',
    unit: 's',
  })
  const heartbeatSeconds = meter.createHistogram('coordination.heartbeat.duration', {
    description: 'How long the database takes to answer a heartbeat',
    unit: 's',
  })
  const heartbeatFailures = meter.createCounter('coordination.heartbeat.failures', {
    description: 'Heartbeats that were not answered',
  })
  const endings = meter.createCounter('coordination.terms.ended', {
    description: 'Terms that ended, by reason',
  })
  const held = meter.createObservableGauge('coordination.leases.held', {
    description: 'Leases held by this node',
  })
  const trustLeft = meter.createObservableGauge('coordination.trust.remaining', {
    description: 'How long this node may act without another good heartbeat',
    unit: 's',
  })
  const observed = [
    listen(coordinator, 'lease.acquired', (term) => {
      if (term.namedForMs !== null) claimSeconds.record(term.namedForMs / 1_000, workerOf(term))
    }),
    listen(coordinator, 'lease.ended', (term) =>
      endings.add(1, { ...workerOf(term), 'coordination.reason': term.reason }),
    ),
    listen(coordinator, 'heartbeat.answered', ({ latencyMs }) => heartbeatSeconds.record(latencyMs / 1_000)),
    listen(coordinator, 'heartbeat.failed', () => heartbeatFailures.add(1)),
    measurePasses(coordinator, meter),
    watch(held, () => coordinator.health().held.length),
    watch(trustLeft, () => coordinator.health().trustLeftMs / 1_000),
  ]
  return () => {
    for (const stop of observed) stop()
  }
}

function measurePasses(coordinator: Coordinator, meter: Meter): () => void {
  const seconds = meter.createHistogram('coordination.pass.duration', {
    description: 'How long passes take',
    unit: 's',
  })
  return coordinator.aroundPasses(async ({ lease, worker }, run) => {
    const begunMs = performance.now()
    let outcome = 'done'
    try {
      await run()
    } catch (error) {
      outcome = lease.signal.aborted ? 'aborted' : 'failed'
      throw error
    } finally {
      const measured = { 'coordination.worker': worker, 'coordination.outcome': outcome }
      seconds.record((performance.now() - begunMs) / 1_000, measured)
    }
  })
}

function about({ settings }: Coordinator, { key, token, worker }: Term): Attributes {
  const { namespace, identity } = settings
  return {
    'coordination.namespace': namespace,
    'coordination.node': identity.node,
    'coordination.cluster': identity.cluster,
    'coordination.lease': key,
    'coordination.token': token,
    ...(worker === null ? {} : { 'coordination.worker': worker }),
  }
}

type Term = Pick<CoordinatorEvents['lease.released'], 'key' | 'token' | 'worker'>

/** No attribute of a measure takes an unbounded number of values: no token, and no lease acquired by name. */
function workerOf({ worker }: Term): Attributes {
  return worker === null ? {} : { 'coordination.worker': worker }
}

function markFailed(span: Span, error: unknown): void {
  span.recordException(error instanceof Error ? error : String(error))
  span.setStatus({
    code: SpanStatusCode.ERROR,
    message: error instanceof Error ? error.message : String(error),
  })
}

/** Returns a context that is the same on every node and differs for every term. */
function termContext(namespace: string, key: string, token: number): SpanContext {
  const digest = createHash('sha256')
    .update(JSON.stringify([namespace, key, token]))
    .digest('hex')
  return {
    traceId: digest.slice(0, 32),
    spanId: digest.slice(32, 48),
    traceFlags: TraceFlags.SAMPLED,
    isRemote: true,
  }
}

function listen<Name extends EventName>(
  coordinator: Coordinator,
  name: Name,
  listener: Listener<Name>,
): () => void {
  coordinator.on(name, listener)
  return () => void coordinator.off(name, listener)
}

function watch(gauge: ReturnType<Meter['createObservableGauge']>, read: () => number): () => void {
  const observe = (result: { observe(value: number): void }): void => result.observe(read())
  gauge.addCallback(observe)
  return () => gauge.removeCallback(observe)
}
