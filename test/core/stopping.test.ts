/** Tests stopping workers: when `stop()` resolves, and what begins in their place. */
import t from 'tap'
import { deferred } from '../../plugin/core/time/loop.js'
import { partitioned, single } from '../support/workers.js'
import { World, type WorldNode, watched } from '../support/world.js'
import { answeringChangesLate } from '../support/wrapped-store.js'

t.test('a worker that is stopped and registered again in one breath is the new one', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const ran: string[] = []
  const old = a.coordinator.worker(single('job', () => ran.push('old')))
  await world.start(a)
  await world.advance(3_000)
  const stopped = watched(old.stop())
  const now = a.coordinator.worker(single('job', () => ran.push('new')))
  const before = ran.length
  await world.advance(5_000)
  t.ok(stopped.over, 'stop() resolves')
  t.equal(old.state, 'stopped')
  t.equal(now.state, 'working')
  t.same([...new Set(ran.slice(before))], ['new'])
})

t.test('the new one waits until the pass of the old one has settled', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const pass = deferred()
  let ran = 0
  const old = a.coordinator.worker(single('job', () => pass.promise))
  await world.start(a)
  await world.advance(1_000)
  const stopped = watched(old.stop())
  a.coordinator.worker(single('job', () => void ran++))
  await world.advance(world.timing.ttlMs, 500)
  t.equal(ran, 0)
  t.notOk(stopped.over)
  pass.resolve()
  await world.advance(2_000)
  t.ok(stopped.over)
  t.ok(ran > 0)
})

t.test('what a worker is declared as anew is written', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const running = new Set<number>()
  const old = a.coordinator.worker(partitioned(2, () => undefined))
  await world.start(a)
  await world.advance(1_000)
  void old.stop()
  a.coordinator.worker(partitioned(4, ({ partition }) => void running.add(partition)))
  await world.advance(3_000)
  t.equal((await a.coordinator.status()).workers[0]?.slots, 4)
  t.same([...running].sort(), [0, 1, 2, 3])
})

t.test('a worker whose coordinator has closed can be stopped once its pass has settled', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const pass = deferred()
  const worker = a.coordinator.worker(single('job', () => pass.promise))
  await world.start(a)
  await world.advance(500)
  const closed = watched(a.coordinator.close())
  await world.advanceUntil(() => closed.over, world.timing.drainTimeoutMs * 2, 500)
  const stopped = watched(worker.stop())
  await world.advance(100)
  t.notOk(stopped.over, 'its pass goes on')
  pass.resolve()
  await world.advance(100)
  t.ok(stopped.over)
})

t.test('a worker may be stopped by its own pass, from its first line on', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const signals: AbortSignal[] = []
  let ran = 0
  const stopped: ReturnType<typeof watched>[] = []
  const old = a.coordinator.worker({
    name: 'job',
    kind: 'single',
    scope: 'global',
    run: ({ signal }) => {
      signals.push(signal)
      stopped.push(watched(old.stop()))
      a.coordinator.worker(single('job', () => void ran++))
    },
  })
  await world.start(a)
  await world.advance(3_000)
  t.same(
    signals.map(({ aborted }) => aborted),
    [true],
  )
  t.same(stopped, [{ over: true }])
  t.ok(ran > 0, 'and the one that was registered in its place runs')
})

t.test('a worker that is stopped by a listener of its own lease begins no pass', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  let ran = 0
  const run = (): void => void ran++
  const job = a.coordinator.worker(single('job', run))
  const shares = a.coordinator.worker({ name: 'shares', kind: 'coordinated', scope: 'global', run })
  const stopped: { over: boolean }[] = []
  a.coordinator.on('lease.acquired', ({ worker }) => {
    if (worker === 'global/job') stopped.push(watched(job.stop()))
  })
  a.coordinator.on('assignment.changed', () => void stopped.push(watched(shares.stop())))
  await world.start(a)
  await world.advance(5_000)
  t.equal(ran, 0)
  t.same(stopped, [{ over: true }, { over: true }])
  t.same(
    (await a.coordinator.status()).leases.map(({ holder }) => holder),
    [null, null],
  )
})

t.test(
  'a worker that is stopped while a lease is claimed for it is stopped when that is given back',
  async (t) => {
    const world = new World(t)
    const answers = { pauseMs: 0 }
    const a: WorldNode = await world.node('a', { wrap: answeringChangesLate(() => a, answers) })
    const b = await world.node('b')
    await world.start(a, b)
    answers.pauseMs = 500
    let ran = 0
    const job = a.coordinator.worker(single('job', () => void ran++))
    const holders = async () => (await b.coordinator.operator.snapshot()).leases.map(({ holder }) => holder)
    await world.advanceUntil(async () => (await holders()).some((holder) => holder !== null), 10_000)
    let heldAtTheEnd: unknown
    const stopped = watched(
      job.stop().then(async () => {
        heldAtTheEnd = await holders()
      }),
    )
    await world.advanceUntil(() => stopped.over, 10_000)
    t.same(heldAtTheEnd, [null])
    t.equal(ran, 0)
  },
)

t.test('a worker that is stopped while it claims is stopped when its session is lost, too', async (t) => {
  const world = new World(t)
  const answers = { pauseMs: 0 }
  const a: WorldNode = await world.node('a', { wrap: answeringChangesLate(() => a, answers) })
  const b = await world.node('b')
  await world.start(a, b)
  answers.pauseMs = 500
  const job = a.coordinator.worker(single('job', () => undefined))
  const holders = async () => (await b.coordinator.operator.snapshot()).leases.map(({ holder }) => holder)
  await world.advanceUntil(async () => (await holders()).some((holder) => holder !== null), 10_000)
  const stopped = watched(job.stop())
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advanceUntil(() => stopped.over, 10_000)
  t.ok(a.history.includes('session.lost'), 'it does not wait for a life that is over')
})

t.test('a lease that was claimed for a worker of another kind is not worked under', async (t) => {
  const world = new World(t)
  const answers = { pauseMs: 0 }
  const a: WorldNode = await world.node('a', { wrap: answeringChangesLate(() => a, answers) })
  await world.start(a)
  answers.pauseMs = 500
  const old = a.coordinator.worker(single('parts', () => undefined))
  const { operator } = a.coordinator
  await world.advanceUntil(
    async () => (await operator.snapshot()).leases.some(({ holder }) => holder !== null),
    10_000,
  )
  void old.stop()
  const keys = new Set<string>()
  let [running, most] = [0, 0]
  a.coordinator.worker(
    partitioned(1, async ({ lease }) => {
      keys.add(lease.key)
      running += 1
      most = Math.max(most, running)
      await new Promise<void>((resolve) => a.clock.setTimer(5_000, resolve))
      running -= 1
    }),
  )
  await world.advance(10_000)
  answers.pauseMs = 0
  await world.advance(5_000)
  t.same([...keys], ['global/parts#0'])
  t.equal(most, 1)
})
