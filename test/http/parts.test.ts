/** Tests the smaller parts by themselves. */
import Fastify from 'fastify'
import t from 'tap'
import { StoreError } from '../../plugin/core/errors.js'
import { problemsIn } from '../../plugin/core/reports/problems.js'
import type { Snapshot } from '../../plugin/core/store.js'
import { deferred } from '../../plugin/core/time/loop.js'
import { RateLimit } from '../../plugin/http/guard/rate-limit.js'
import { answerHttpProblem, Failures } from '../../plugin/http/http-problems.js'
import { SnapshotSource } from '../../plugin/http/snapshot/snapshot.js'
import { World } from '../support/world.js'
import { untilAborted } from './application.js'

t.test('a bucket fills by the minute, up to its brim', async (t) => {
  let nowMs = 0
  const limit = new RateLimit(2, 6, () => nowMs)
  t.equal(limit.take('a'), 0)
  t.equal(limit.take('a'), 0)
  t.equal(limit.take('a'), 10_000)
  t.equal(limit.take('b'), 0, 'each has one of its own')
  nowMs = 9_999
  t.equal(limit.take('a'), 1)
  nowMs = 10_000
  t.equal(limit.take('a'), 0)
  nowMs = 3_600_000
  t.strictSame([limit.take('a'), limit.take('a')], [0, 0])
  t.not(limit.take('a'), 0)
})

t.test('however many actors there are, only so many are remembered', async (t) => {
  const limit = new RateLimit(1, 1, () => 0)
  for (let actor = 0; actor <= 1_000; actor++) t.equal(limit.take(String(actor)), 0)
  t.not(limit.take('1000'), 0)
  t.equal(limit.take('0'), 0, 'who has been away longest is forgotten first')
})

t.test('all who ask at about the same time share one reading', async (t) => {
  const world = new World(t)
  const { coordinator } = await world.node('a')
  let nowMs = 0
  let readings = 0
  let underWay = 0
  const gates: ReturnType<typeof deferred>[] = []
  const { operator } = coordinator
  const read = operator.snapshot.bind(operator)
  operator.snapshot = async () => {
    readings++
    t.equal(++underWay, 1, 'never two at a time')
    const gate = deferred()
    gates.push(gate)
    await gate.promise
    underWay--
    return read()
  }
  const source = new SnapshotSource(coordinator, () => nowMs)
  const first = Promise.all([source.current(), source.current(), source.status()])
  gates[0]?.resolve(undefined)
  const [snapshot, same, { snapshot: described }] = await first
  t.equal(same, snapshot)
  t.equal(described, snapshot)
  nowMs = 250
  t.equal(await source.current(), snapshot)
  t.equal(readings, 1)
  nowMs = 251
  const second = source.current()
  source.outdate()
  const third = Promise.all([source.current(), source.current()])
  gates[1]?.resolve(undefined)
  await second
  while (gates.length < 3) await Promise.resolve()
  gates[2]?.resolve(undefined)
  const [newer] = await third
  t.not(newer, await second, 'who asks after a change is not given what was read before')
  t.equal(readings, 3)
})

t.test('a reading that fails fails for those who wait, and the next one is tried afresh', async (t) => {
  const world = new World(t)
  const { coordinator } = await world.node('a')
  const { operator } = coordinator
  const read = operator.snapshot.bind(operator)
  operator.snapshot = () => Promise.reject(new StoreError('away', 'none'))
  const source = new SnapshotSource(coordinator, () => 0)
  await t.rejects(Promise.all([source.current(), source.current()]), StoreError)
  operator.snapshot = read
  t.match(await source.current(), { nodes: [] })
})

t.test(
  'what is read of the audit trail is read once for all who ask the same, until something changes',
  async (t) => {
    const world = new World(t)
    const a = await world.node('a')
    await world.start(a)
    const { operator } = a.coordinator
    let nowMs = 0
    let readings = 0
    const source = new SnapshotSource(a.coordinator, () => nowMs)
    const read = () => {
      readings += 1
      return operator.events({ limit: 1 })
    }
    const ask = (question = 'latest') => source.shared([question], read)
    const [first, second] = await Promise.all([ask(), ask()])
    t.equal(first, second)
    t.equal(readings, 1)
    await ask('something else')
    t.equal(readings, 2)

    nowMs = 900
    await ask()
    t.equal(readings, 2, 'longer than a snapshot is good for')
    await operator.drain(a.coordinator.nodeId ?? '', { actor: 'mira', reason: 'a good one' })
    source.outdate()
    t.match(await ask(), [{ type: 'node.draining' }])
    t.equal(readings, 3)
    nowMs = 2_000
    await ask()
    t.equal(readings, 4, 'but for a second at most')

    await t.rejects(source.shared(['fails'], () => Promise.reject(new StoreError('away', 'none'))))
    t.equal(await source.shared(['fails'], async () => 'answered'), 'answered')
  },
)

t.test('what a person should see is said in sentences, the worst first', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const b = await world.node('b')
  for (const { coordinator } of [a, b])
    coordinator.worker({ name: 'report', kind: 'single', scope: 'global', run: untilAborted })
  await world.start(a, b)
  await world.advance(1_000)
  const sentences: string[] = []
  const seen = async (alter: (snapshot: Snapshot) => Snapshot = (snapshot) => snapshot) => {
    const snapshot = alter(await a.coordinator.operator.snapshot())
    const altered = new SnapshotSource(a.coordinator)
    a.coordinator.operator.snapshot = () => Promise.resolve(snapshot)
    const { status } = await altered.status()
    a.coordinator.operator.snapshot = () => a.store.snapshot()
    const found = problemsIn(snapshot, status, a.coordinator.health(), world.timing)
    for (const { sentence } of found) t.match(sentence, /^[A-Z].*\.$/)
    sentences.push(...found.map(({ sentence }) => sentence))
    return found.map(({ code, severity }) => `${severity} ${code}`)
  }
  t.strictSame(await seen(), [])
  const withNodes = (patch: (node: Snapshot['nodes'][number]) => object) => (snapshot: Snapshot) => ({
    ...snapshot,
    nodes: snapshot.nodes.map((node) => ({ ...node, ...patch(node) })),
  })
  const withLeases = (patch: (snapshot: Snapshot) => object) => (snapshot: Snapshot) => ({
    ...snapshot,
    leases: snapshot.leases.map((lease) => ({ ...lease, ...patch(snapshot) })),
  })
  const other = b.coordinator.nodeId ?? ''
  const own = a.coordinator.nodeId ?? ''
  t.strictSame(
    await seen(
      withNodes(({ id, ttlMs, heartbeatAtMs }) =>
        id === other ? { heartbeatAtMs: heartbeatAtMs - ttlMs - 60_000 } : {},
      ),
    ),
    ['error node-silent'],
  )
  t.strictSame(await seen(withNodes(({ id }) => (id === other ? { state: 'draining' } : {}))), [
    'info node-draining',
  ])
  t.strictSame(await seen(withNodes(() => ({ workers: [] }))), ['warning worker-without-candidates'])
  t.strictSame(
    await seen((snapshot) => ({
      ...snapshot,
      workers: snapshot.workers.map((worker) => ({ ...worker, paused: true })),
    })),
    ['info worker-paused'],
  )
  t.strictSame(
    await seen((snapshot) => ({ ...snapshot, meta: { ...snapshot.meta, identitySettled: false } })),
    ['warning server-changed'],
  )
  t.match(
    sentences.at(-1),
    /^The database was restarted or restored.*nobody claims a lease until 20 s after/,
    'a restart in good order is no crash, and how long to wait is said',
  )
  t.strictSame(await seen(withLeases(() => ({ holder: null, blockedNode: other, blockedToken: 1 }))), [
    'warning lease-blocked',
  ])
  t.strictSame(
    await seen(withLeases(({ nowMs }) => ({ holder: null, target: other, targetAtMs: nowMs - 1_000 }))),
    [],
  )
  t.strictSame(
    await seen(withLeases(({ nowMs }) => ({ holder: null, target: other, targetAtMs: nowMs - 60_000 }))),
    ['error lease-unclaimed'],
  )
  const unclaimed = withLeases(({ nowMs }) => ({ holder: null, target: other, targetAtMs: nowMs - 60_000 }))
  t.strictSame(
    await seen((snapshot) => unclaimed({ ...snapshot, meta: { ...snapshot.meta, identitySettled: false } })),
    ['warning server-changed'],
    'nobody is to be blamed while nobody may claim',
  )
  t.strictSame(
    await seen(withLeases(({ nowMs }) => ({ holder: own, target: other, targetAtMs: nowMs - 20_000 }))),
    [],
  )
  t.strictSame(
    await seen(withLeases(({ nowMs }) => ({ holder: own, target: other, targetAtMs: nowMs - 60_000 }))),
    ['warning lease-moving'],
  )
  world.freeze(a)
  await world.advance(20_000)
  world.thaw(a)
  t.ok((await seen()).includes('error trust-expired'))
})

t.test('a reason for which the database fails is logged once a minute', async (t) => {
  let nowMs = 0
  const failures = new Failures(() => nowMs)
  const away = { message: 'away' }
  t.ok(failures.isNew(away))
  nowMs = 59_999
  t.notOk(failures.isNew(away))
  t.ok(failures.isNew({ message: 'refused' }))
  nowMs = 60_000
  t.ok(failures.isNew(away), 'counted from when it was logged')
  for (let reason = 0; reason < 100; reason++) failures.isNew({ message: String(reason) })
  t.ok(failures.isNew(away), 'only so many are remembered')
})

t.test('a database that stays away does not fill the log with what each request says', async (t) => {
  const lines: { readonly level: number; readonly err?: { readonly message: string } }[] = []
  const stream = { write: (line: string) => void lines.push(JSON.parse(line)) }
  const app = Fastify({ logger: { level: 'debug', stream } })
  t.teardown(() => app.close())
  app.setErrorHandler(answerHttpProblem)
  app.get<{ Params: { readonly reason: string } }>('/:reason', async ({ params }) => {
    throw new StoreError(params.reason, 'none')
  })
  for (const reason of ['away', 'away', 'away', 'refused', 'away'])
    t.equal((await app.inject(`/${reason}`)).statusCode, 503)
  const failed = lines.filter(({ err }) => err !== undefined)
  t.strictSame(
    failed.map(({ level, err }) => [level, err?.message]),
    [
      [50, 'away'],
      [20, 'away'],
      [20, 'away'],
      [50, 'refused'],
      [20, 'away'],
    ],
  )
})
