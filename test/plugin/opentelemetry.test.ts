/** Tests the spans and metrics of two nodes that hand over to each other, as OpenTelemetry's own SDK collects them. */
import { context, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base'
import t, { type Test } from 'tap'
import { instrument } from '../../plugin/opentelemetry.js'
import { TestWorld } from '../../plugin/testing/index.js'

context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())

/** Collects what one process exports. */
function useTelemetry() {
  const spans = new InMemorySpanExporter()
  const tracerProvider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] })
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 })
  const meterProvider = new MeterProvider({ readers: [reader] })
  const measured = async (): Promise<Map<string, unknown[]>> => {
    await reader.forceFlush()
    const latest =
      exporter
        .getMetrics()
        .at(-1)
        ?.scopeMetrics.flatMap(({ metrics }) => metrics) ?? []
    return new Map(
      latest.map(({ descriptor, dataPoints }) => [
        descriptor.name,
        dataPoints.map(({ attributes, value }) => ({ ...attributes, value })),
      ]),
    )
  }
  const named = (name: string): ReadableSpan[] =>
    spans.getFinishedSpans().filter((span) => span.name === name)
  return { providers: { tracerProvider, meterProvider }, tracerProvider, named, measured }
}

function useWorld(t: Test): TestWorld {
  const world = new TestWorld()
  t.teardown(() => world.close())
  return world
}

t.test(
  "a claim is linked to the term before, which is another node's, and each pass to its own",
  async (t) => {
    const world = useWorld(t)
    const nodes = ['a', 'b'].map((name) => {
      const { coordinator } = world.node(name)
      const telemetry = useTelemetry()
      instrument(coordinator, telemetry.providers)
      const run = (): void => telemetry.tracerProvider.getTracer('app').startSpan('work').end()
      coordinator.worker({ name: 'indexing', kind: 'single', scope: 'global', everyMs: 500, run })
      return { coordinator, ...telemetry }
    })
    const [a, b] = nodes
    await world.start()
    await world.settled(a?.coordinator.close() ?? Promise.resolve())
    await world.advanceUntil(() => b?.coordinator.isHeld('indexing') === true)
    await world.advance(1_000)

    const [first] = a?.named('claim global/indexing') ?? []
    const [handedOver] = a?.named('hand over global/indexing') ?? []
    const [second] = b?.named('claim global/indexing') ?? []
    t.ok(first && handedOver && second)
    if (!first || !handedOver || !second) return
    t.strictSame(first.links, [], 'nobody had it before')
    t.equal(handedOver.spanContext().traceId, first.spanContext().traceId, 'a term is one trace')
    t.equal(handedOver.attributes['coordination.reason'], 'closing')
    t.strictSame(
      second.links.map((link) => link.context.traceId),
      [first.spanContext().traceId],
    )
    t.match(second.attributes, {
      'coordination.namespace': 'default',
      'coordination.node': 'b',
      'coordination.cluster': 'default',
      'coordination.lease': 'global/indexing',
      'coordination.worker': 'global/indexing',
      'coordination.token': Number,
    })

    const passes = b?.named('pass global/indexing') ?? []
    t.ok(passes.length > 1)
    t.equal(
      new Set(passes.map((pass) => pass.spanContext().traceId)).size,
      passes.length,
      'each is a trace by itself',
    )
    for (const pass of passes) {
      t.strictSame(
        pass.links.map((link) => link.context.traceId),
        [second.spanContext().traceId],
      )
    }
    t.strictSame(
      b?.named('work').map((span) => span.parentSpanContext?.spanId),
      passes.map((pass) => pass.spanContext().spanId),
      'what a pass does is within it',
    )
  },
)

t.test('a pass that fails says so, and one that its signal ends does not', async (t) => {
  const world = useWorld(t)
  const { coordinator } = world.node('a')
  const { named, providers, measured } = useTelemetry()
  instrument(coordinator, providers)
  let isFirst = true
  coordinator.worker({
    name: 'report',
    kind: 'single',
    scope: 'global',
    schedule: '* * * * *',
    async run({ signal }) {
      if (isFirst) {
        isFirst = false
        throw new Error('the books do not balance')
      }
      await new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    },
  })
  await world.start()
  await world.advance(120_000)
  await world.settled(coordinator.close())
  const [failed, aborted] = named('pass global/report')
  t.match(failed, {
    status: { code: 2, message: 'the books do not balance' },
    events: [{ name: 'exception' }],
    attributes: { 'coordination.due_at': '2030-01-01T00:01:00.000Z' },
  })
  t.equal(aborted?.status.code, 0)
  const outcomes = (await measured()).get('coordination.pass.duration') ?? []
  t.match(outcomes, [{ 'coordination.outcome': 'failed' }, { 'coordination.outcome': 'aborted' }])
})

t.test('what there is to measure is measured', async (t) => {
  const world = useWorld(t)
  const [a, b] = [world.node('a'), world.node('b')]
  const telemetry = useTelemetry()
  const stop = instrument(a.coordinator, telemetry.providers)
  for (const { coordinator } of [a, b])
    coordinator.worker({
      name: 'consumer',
      kind: 'partitioned',
      scope: 'global',
      partitions: 4,
      run: () => undefined,
    })
  await world.start()
  await world.advance(10_000)
  const well = await telemetry.measured()
  t.strictSame(well.get('coordination.leases.held'), [{ value: 2 }])
  const [{ value: left }] = well.get('coordination.trust.remaining') as [{ value: number }]
  t.ok(left > 0 && left <= 15)
  t.match(well.get('coordination.heartbeat.duration'), [{ value: { count: Number } }])
  t.match(well.get('coordination.claim.wait'), [{ 'coordination.worker': 'global/consumer' }])
  t.match(well.get('coordination.pass.duration'), [{ 'coordination.outcome': 'done' }])
  a.disconnect()
  await world.advance(30_000)
  const ill = await telemetry.measured()
  t.match(ill.get('coordination.heartbeat.failures'), [{ value: Number }])
  const reasons = ill.get('coordination.terms.ended') as { 'coordination.reason': string }[]
  t.ok(reasons.some((each) => each['coordination.reason'] === 'trust-expired'))
  const before = telemetry.named('pass global/consumer').length
  stop()
  a.reconnect()
  await world.advance(60_000)
  t.equal(telemetry.named('pass global/consumer').length, before, 'and not any more, once it is ended')
})

t.test('without a provider nothing is said and nothing fails', async (t) => {
  const world = useWorld(t)
  const { coordinator } = world.node('a')
  const misspelt = { tracerprovider: trace.getTracerProvider() } as object
  t.throws(() => instrument(coordinator, misspelt), {
    code: 'WCO_OPTIONS',
    message: /did you mean `tracerProvider`\?/,
  })
  instrument(coordinator)
  coordinator.worker({ name: 'indexing', kind: 'single', scope: 'global', run: () => undefined })
  await world.start()
  t.ok(coordinator.isHeld('indexing'))
  t.equal(trace.getActiveSpan(), undefined)
})
