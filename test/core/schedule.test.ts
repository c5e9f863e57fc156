/** Tests passes at times of day: each time once, whichever node holds the lease, whatever the clocks do. */
import t from 'tap'
import { fire } from '../../plugin/core/changes/times.js'
import { silentLog } from '../../plugin/core/log.js'
import { join, leaseOf, newLease, saveLeases } from '../../plugin/testing/conformance/world.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'
import { dues, everyMinute, type Fired, minutes, scheduled } from '../support/scheduled.js'
import { World, type WorldNode } from '../support/world.js'

t.test('each time is begun once, by whoever holds the lease then', async (t) => {
  const world = new World(t)
  const fired: Fired[] = []
  const nodes = [await world.node('a'), await world.node('b'), await world.node('c')]
  const [a, b] = nodes
  for (const node of nodes) scheduled(node, everyMinute, fired)
  await world.start(...nodes)
  await world.advance(120_000)
  t.strictSame(dues(fired), minutes(14, 15))
  world.freeze(a as WorldNode)
  await world.advance(120_000)
  t.strictSame(dues(fired), minutes(14, 15, 16, 17), 'its leader died')
  world.thaw(a as WorldNode)
  await world.advance(60_000)
  void b?.coordinator.close()
  await world.advance(120_000)
  t.strictSame(dues(fired), minutes(14, 15, 16, 17, 18, 19, 20), 'the next one was closed')
  t.ok(new Set(fired.map(({ by }) => by)).size > 1)
  t.strictSame(
    (await a?.coordinator.status())?.leases.map(({ key }) => key),
    ['global/month-close'],
  )
})

t.test('only who holds the lease, under its latest token, writes a time of its schedule', async (t) => {
  const store = new MemoryDatabase().open({ namespace: 'default', statementTimeoutMs: 30_000 })
  await join(store, ['a', 'b'])
  await saveLeases(store, newLease('month-close', { holder: 'a', token: 7, firedAtMs: 1_000 }))
  const writes = async (node: string, token: number): Promise<string> =>
    (await store.change(undefined, (change) => fire(change, node, { key: 'month-close', token }, 2_000)))
      .result
  t.equal(await writes('b', 7), 'lost', 'another node')
  t.equal(await writes('a', 6), 'lost', 'an earlier term of the same node')
  t.equal((await leaseOf(store, 'month-close')).firedAtMs, 1_000)
  t.equal(await writes('a', 7), 'written')
  t.equal((await leaseOf(store, 'month-close')).firedAtMs, 2_000)
})

t.test('times that fail, but not in a row, do not hand a worker on', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const fired: Fired[] = []
  const run = (): void => {
    if (fired.length % 3 !== 0) throw new Error('no')
  }
  for (const node of [a, b]) scheduled(node, everyMinute, fired, { run, maxFailures: 3 })
  await world.start(a, b)
  await world.advance(9 * 60_000, 500)
  t.same([...new Set(fired.map(({ by }) => by))], ['a'])
  t.equal(fired.length, 9)
})

t.test('everybody can see when a worker was fired last, and when it will be next', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  scheduled(a, everyMinute, [])
  b.coordinator.worker({ name: 'other', kind: 'single', scope: 'global', run: () => undefined })
  await world.start(a, b)
  const shown = async () => {
    const { workers } = await b.coordinator.status()
    const { schedule = null } = workers.find(({ name }) => name === 'month-close') ?? {}
    const at = (ms: number | null | undefined) => (ms ? new Date(ms).toISOString().slice(11, 19) : ms)
    return [schedule?.cron, at(schedule?.lastFireAtMs), at(schedule?.nextFireAtMs)]
  }
  t.strictSame(await shown(), [everyMinute, null, '22:14:00'], 'the beginning of a term is no fire')
  await world.advance(150_000)
  t.strictSame(await shown(), [everyMinute, '22:15:00', '22:16:00'])
  void a.coordinator.close()
  await world.advance(300_000)
  t.strictSame(await shown(), [everyMinute, '22:15:00', '22:16:00'], 'nobody stood for it when it came')
  const { workers } = await b.coordinator.status()
  t.equal(workers.find(({ name }) => name === 'other')?.schedule, null)
})

t.test('everybody sees the schedule of who leads, also while others have registered another', async (t) => {
  const world = new World(t)
  const fired: Fired[] = []
  const shown = async (node: WorldNode): Promise<string | undefined> =>
    (await node.coordinator.status()).workers[0]?.schedule?.cron
  const old = await world.node('old')
  scheduled(old, everyMinute, fired)
  await world.start(old)
  const fresh = await world.node('new')
  scheduled(fresh, '0 * * * *', fired)
  await world.start(fresh)
  await world.advance(5_000)
  t.equal(await shown(fresh), everyMinute, 'the new version was registered last, and does not lead')
  const again = await world.node('old again')
  void old.coordinator.close()
  await world.advance(5_000)
  t.equal(await shown(fresh), '0 * * * *', 'it leads')
  scheduled(again, everyMinute, fired)
  await world.start(again)
  await world.advance(5_000)
  t.equal(await shown(again), '0 * * * *', 'the old version was registered last, and does not lead')
  const revision = async (): Promise<number> => (await fresh.coordinator.status()).revision
  const before = await revision()
  await world.advance(60_000)
  t.equal(await revision(), before, 'and all is at rest')
  const { workers } = (await again.coordinator.operator.snapshot()).nodes[1] ?? {}
  t.same(workers, ['global/month-close'], 'who leads is a candidate as before')
})

t.test(
  'who leads several workers keeps all of them while another version changes their schedules',
  async (t) => {
    const world = new World(t)
    const [old, fresh] = [await world.node('old'), await world.node('new')]
    const names = ['one', 'two', 'three']
    for (const [{ coordinator }, schedule] of [
      [old, everyMinute],
      [fresh, '0 * * * *'],
    ] as const)
      for (const name of names)
        coordinator.worker({ name, kind: 'single', scope: 'global', schedule, run: () => undefined })
    await world.start(old)
    await world.advance(1_000)
    await world.start(fresh)
    await world.advance(5_000)
    t.strictSame([...old.history].sort(), names.map((name) => `lease.acquired global/${name}`).sort())
    t.strictSame(fresh.history, [])
    const { workers } = await fresh.coordinator.status()
    t.ok(workers.every(({ schedule }) => schedule?.cron === everyMinute))
  },
)

for (const [missed, expected] of [
  ['once', minutes(14, 15, 30, 31)],
  ['skip', minutes(14, 30, 31)],
] as const) {
  t.test(`times that came while nobody stood for the worker: ${missed}`, async (t) => {
    const world = new World(t)
    const fired: Fired[] = []
    const first = await world.node('first')
    scheduled(first, { cron: everyMinute, missed }, fired)
    await world.start(first)
    await world.advance(60_000)
    void first.coordinator.close()
    await world.advance(15 * 60_000, 1_000)
    const second = await world.node('second')
    scheduled(second, { cron: everyMinute, missed }, fired)
    await world.start(second)
    await world.advance(120_000)
    t.strictSame(dues(fired), expected)
  })
}

t.test('what comes while a pass runs is made up for once, or skipped', async (t) => {
  for (const [missed, expected] of [
    ['once', minutes(14, 15, 17, 18)],
    ['skip', minutes(14, 17, 18)],
  ] as const) {
    const world = new World(t)
    const fired: Fired[] = []
    const a = await world.node('a')
    let first = true
    const run = async (): Promise<void> => {
      if (!first) return
      first = false
      await new Promise<void>((resolve) => a.clock.setTimer(150_000, resolve))
    }
    scheduled(a, { cron: everyMinute, missed }, fired, { run })
    await world.start(a)
    await world.advance(300_000, 500)
    t.strictSame(dues(fired), expected, missed)
  }
})

t.test(
  'a database clock that is set back repeats nothing; one that leaps ahead is made up for once',
  async (t) => {
    const world = new World(t)
    const fired: Fired[] = []
    const nodes = [await world.node('a'), await world.node('b')]
    for (const node of nodes) scheduled(node, everyMinute, fired)
    await world.start(...nodes)
    await world.advance(60_000)
    t.strictSame(dues(fired), minutes(14))
    world.clockOffsetMs = -10 * 60_000
    void nodes[0]?.coordinator.close()
    await world.advance(9 * 60_000, 500)
    t.strictSame(dues(fired), minutes(14), 'its times have been dealt with')
    await world.advance(3 * 60_000, 500)
    t.strictSame(dues(fired), minutes(14, 15, 16))
    world.clockOffsetMs += 30 * 60_000
    await world.advance(60_000)
    t.strictSame(dues(fired), minutes(14, 15, 16, 17, 47), 'all that was leapt over is one pass')
  },
)

t.test('a clock that was wrong by days silences nobody for days, also while one node leads', async (t) => {
  const world = new World(t)
  const fired: Fired[] = []
  const a = await world.node('a')
  scheduled(a, everyMinute, fired)
  await world.start(a)
  await world.advance(60_000)
  world.clockOffsetMs = 30 * 86_400_000
  await world.advance(60_000)
  t.strictSame(dues(fired), minutes(14, 15), 'all that was leapt over is one pass')
  world.clockOffsetMs = 0
  const shown = async () => (await a.coordinator.status()).workers[0]?.schedule?.nextFireAtMs
  await world.advanceUntil(async () => (await shown()) === Date.UTC(2023, 10, 14, 22, 17), 120_000)
  await world.advance(180_000)
  t.strictSame(dues(fired.slice(-3)), minutes(17, 18, 19), 'what is shown as the next time is begun')
  t.same([...new Set(a.history)], ['lease.acquired global/month-close'], 'in one term')
})

t.test('the last time begun is shown also after a change of schedule; a beginning never is', async (t) => {
  const world = new World(t)
  const fired: Fired[] = []
  const shown = async ({ coordinator }: WorldNode): Promise<string | null> => {
    const { lastFireAtMs = null } = (await coordinator.status()).workers[0]?.schedule ?? {}
    return lastFireAtMs === null ? null : new Date(lastFireAtMs).toISOString().slice(11)
  }
  // The world's clock then shows a whole minute.
  await world.advance(40_000 - 50)
  const a = await world.node('a')
  scheduled(a, '0,30 * * * *', fired)
  await world.start(a)
  await world.advance(1_000)
  void a.coordinator.close()
  await world.advance(1_000)
  const b = await world.node('b')
  scheduled(b, everyMinute, fired)
  await world.start(b)
  t.equal(await shown(b), null, 'no pass has begun')
  await world.advance(120_000)
  t.strictSame(dues(fired), minutes(15, 16))
  void b.coordinator.close()
  await world.advance(1_000)
  const c = await world.node('c')
  scheduled(c, '0,30 * * * *', fired)
  await world.start(c)
  t.equal(await shown(c), '22:16:00.000Z')
})

t.test('a clock that was wrong by days does not silence a schedule for days', async (t) => {
  const world = new World(t)
  const fired: Fired[] = []
  const a = await world.node('a')
  scheduled(a, everyMinute, fired)
  world.clockOffsetMs = 30 * 86_400_000
  await world.start(a)
  await world.advance(60_000)
  t.equal(fired.length, 1)
  world.clockOffsetMs = 0
  void a.coordinator.close()
  await world.advance(1_000)
  const b = await world.node('b')
  scheduled(b, everyMinute, fired)
  await world.start(b)
  await world.advance(120_000)
  t.strictSame(fired.slice(1), [
    { by: 'b', due: '22:15:00' },
    { by: 'b', due: '22:16:00' },
  ])
})

t.test(
  'a pass that fails is not begun again for the same time, and too many failures end the term',
  async (t) => {
    const world = new World(t)
    const fired: Fired[] = []
    const lines: object[] = []
    const error = (fields: object, line: string): void => void (line === 'pass failed' && lines.push(fields))
    const log = { ...silentLog, error }
    const nodes = [await world.node('a', { log }), await world.node('b', { log })]
    const run = (): never => {
      throw new Error('the books do not balance')
    }
    const failed: (number | null)[] = []
    for (const node of nodes) {
      scheduled(node, everyMinute, fired, { run, maxFailures: 2 })
      node.coordinator.on('pass.failed', ({ dueAtMs }) => failed.push(dueAtMs))
    }
    await world.start(...nodes)
    await world.advance(5 * 60_000, 500)
    t.strictSame(dues(fired), minutes(14, 15, 16, 17, 18))
    t.equal(fired[0]?.by, fired[1]?.by)
    t.not(fired[1]?.by, fired[2]?.by)
    const times = [14, 15, 16, 17, 18].map((minute) => Date.UTC(2023, 10, 14, 22, minute))
    t.same(failed, times, 'people hear which times are lost')
    t.match(
      lines,
      times.map((dueAtMs) => ({ dueAtMs })),
    )
  },
)

t.test('times that are skipped are not begun again when the clock is set back during a pass', async (t) => {
  for (const missed of ['once', 'skip'] as const) {
    const world = new World(t)
    const fired: Fired[] = []
    const a = await world.node('a')
    const run = async (): Promise<void> => {
      if (fired.length === 3) world.clockOffsetMs -= 5 * 60_000
      await new Promise<void>((resolve) => a.clock.setTimer(10_000, resolve))
    }
    scheduled(a, { cron: everyMinute, missed }, fired, { run })
    await world.start(a)
    await world.advance(12 * 60_000, 500)
    t.same(dues(fired), [...new Set(dues(fired))], missed)
    t.ok(fired.length > 5, 'and they go on')
  }
})

t.test('a clock that was ahead when a pass ended skips nothing once it has gone back', async (t) => {
  const world = new World(t)
  const fired: Fired[] = []
  const a = await world.node('a')
  const run = async (): Promise<void> => {
    const ahead = fired.length === 2 ? 60 * 60_000 : 0
    world.clockOffsetMs += ahead
    await new Promise<void>((resolve) => a.clock.setTimer(10_000, resolve))
    a.clock.setTimer(10_000, () => {
      world.clockOffsetMs -= ahead
    })
  }
  scheduled(a, { cron: everyMinute, missed: 'skip' }, fired, { run })
  await world.start(a)
  await world.advance(8 * 60_000, 500)
  t.strictSame(dues(fired), minutes(14, 15, 16, 17, 18, 19, 20, 21))
})
