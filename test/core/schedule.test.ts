/** Tests passes at times of day: each time once, whichever node holds the lease, whatever the clocks do. */
import t from 'tap'
import { runChange } from '../../plugin/core/changes/run-change.js'
import { claimTime, fire } from '../../plugin/core/changes/times.js'
import { claimedForMs, pruneLeases } from '../../plugin/core/changes/upkeep.js'
import { silentLog } from '../../plugin/core/log.js'
import { readSchedule, type Schedule, timetableOf, writtenSchedule } from '../../plugin/core/work/schedule.js'
import type { SingleContext, WorkerDefinition, WorkerHandle } from '../../plugin/core/work/worker.js'
import { join, leaseOf, newLease, saveLeases } from '../../plugin/testing/conformance/world.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'
import { World, type WorldNode } from '../support/world.js'
import { answeringChangesLate, losingAnswers } from '../support/wrapped-store.js'

/** A pass: the node that began it, and the time for which it was due. */
interface Fired {
  readonly by: string
  readonly due: string
}

/** Registers a scheduled worker. Each pass is noted, and then does what the test wants. */
function scheduled(
  node: WorldNode,
  schedule: string | Schedule,
  fired: Fired[],
  more: { run?: (context: SingleContext) => unknown; maxFailures?: number } = {},
): WorkerHandle {
  const { run = () => undefined, ...options } = more
  return node.coordinator.worker({
    ...options,
    name: 'month-close',
    kind: 'single',
    scope: 'global',
    schedule,
    run: (context) => {
      fired.push({ by: node.name, due: new Date(context.dueAtMs ?? Number.NaN).toISOString().slice(11, 19) })
      return run(context)
    },
  })
}

const everyMinute = '* * * * *'
const minutes = (...of: number[]): string[] => of.map((minute) => `22:${minute}:00`)
const dues = (fired: readonly Fired[]): string[] => fired.map(({ due }) => due)

t.test('a schedule is due when its clocks say so, whatever their zone does', async (t) => {
  const cases: [string | Schedule, string, string | undefined][] = [
    ['0 3 1 * *', '2026-01-31T12:00:00Z', '2026-02-01T03:00:00.000Z'],
    ['*/10 * * * * *', '2026-01-31T12:00:05Z', '2026-01-31T12:00:10.000Z'],
    [{ cron: '0 3 * * *', timeZone: 'Europe/Vienna' }, '2026-07-01T00:00:00Z', '2026-07-01T01:00:00.000Z'],
    [{ cron: '0 3 * * *', timeZone: 'Europe/Vienna' }, '2026-01-01T00:00:00Z', '2026-01-01T02:00:00.000Z'],
    // In autumn, half past two occurs twice.
    [{ cron: '30 2 * * *', timeZone: 'Europe/Vienna' }, '2026-10-25T00:30:00Z', '2026-10-26T01:30:00.000Z'],
  ]
  for (const [schedule, after, expected] of cases) {
    const dueMs = timetableOf(schedule).next(Date.parse(after))
    t.equal(
      dueMs === undefined ? undefined : new Date(dueMs).toISOString(),
      expected,
      JSON.stringify(schedule),
    )
  }
})

t.test('the parts of a pattern mean what people are told', async (t) => {
  // 1 June 2026 is a Monday, and 31 May a Sunday.
  for (const [cron, expected] of [
    ['0 0 1,15 * *', '05-15 06-01 06-15'],
    ['0 0 10-12 * *', '05-10 05-11 05-12'],
    ['0 0 */10 * *', '05-11 05-21 05-31'],
    ['0 0 10-30/10 * *', '05-10 05-20 05-30'],
    ['0 0 1 JUN-AUG *', '06-01 07-01 08-01'],
    ['0 0 * * SAT,sun', '05-02 05-03 05-09'],
    ['0 0 * * 0', '05-03 05-10 05-17'],
    ['0 0 * * 7', '05-03 05-10 05-17'],
    ['0 0 L * *', '05-31 06-30 07-31'],
    ['0 0 LW * *', '05-29 06-30 07-31'],
    ['0 0 31W * *', '05-29 07-31 08-31'],
    ['0 0 * * FRI#2', '05-08 06-12 07-10'],
    ['0 0 * * FRIL', '05-29 06-26 07-31'],
    ['0 0 13 * FRI', '05-08 05-13 05-15'],
    ['0 0 13 * +FRI', '11-13 08-13 10-13'],
    ['0 0 */31 * MON', '05-04 05-11 05-18'],
    ['0 0 29 2 *', '02-29 02-29 02-29'],
  ] as const) {
    const timetable = timetableOf(cron)
    let dueMs = Date.parse('2026-05-01T12:00:00Z')
    const found = [1, 2, 3].map(() => {
      dueMs = timetable.next(dueMs) ?? Number.NaN
      return new Date(dueMs).toISOString().slice(5, 10)
    })
    t.equal(found.join(' '), expected, cron)
  }
})

t.test(
  'in the nights of summer time a time of day comes once, and what repeats goes by the clocks',
  async (t) => {
    const autumn = ['2027-10-31T00:00:00Z', '2027-10-31T02:00:00Z']
    const spring = ['2027-03-28T00:00:00Z', '2027-03-28T02:00:00Z']
    const cases: [string, readonly string[], string[]][] = [
      ['30 2 * * *', autumn, ['00:30']],
      ['0,30 2 * * *', autumn, ['00:00', '00:30', '01:00', '01:30']],
      ['30 1-3 * * *', autumn, ['00:30', '01:30']],
      ['30 2 * * *', spring, ['01:00']],
      ['0,30 2 * * *', spring, []],
      ['30 1-3 * * *', spring, ['00:30', '01:30']],
    ]
    for (const [cron, [from = '', to = ''], expected] of cases) {
      const timetable = timetableOf({ cron, timeZone: 'Europe/Vienna' })
      const found: string[] = []
      let dueMs = timetable.next(Date.parse(from) - 1)
      while (dueMs !== undefined && dueMs < Date.parse(to)) {
        found.push(new Date(dueMs).toISOString().slice(11, 16))
        dueMs = timetable.next(dueMs)
      }
      t.same(found, expected, `${cron} from ${from}`)
    }
  },
)

t.test('the last time that was due is found, also in the hour that comes twice', async (t) => {
  const inVienna = timetableOf({ cron: '*/15 * * * *', timeZone: 'Europe/Vienna' })
  const from = Date.parse('2026-10-24T23:00:00Z')
  for (let minute = 0; minute < 240; minute++) {
    const untilMs = from + minute * 60_000
    t.equal(inVienna.latest(from, untilMs), untilMs - (untilMs % 900_000), new Date(untilMs).toISOString())
  }
  t.equal(inVienna.latest(from, from - 1), from, 'never before the one that is known')
})

t.test('a schedule is kept with its worker, and read as it was written', async (t) => {
  const timetable = timetableOf({ cron: '0 3 * * *', timeZone: 'Europe/Vienna', missed: 'skip' })
  t.match(readSchedule(writtenSchedule(timetable)), {
    cron: '0 3 * * *',
    timeZone: 'Europe/Vienna',
    missed: 'skip',
  })
  t.equal(readSchedule(null), undefined)
  t.equal(readSchedule('{"solar":"at dusk"}'), undefined, 'what a newer version wrote')
  t.equal(readSchedule('at dusk'), undefined, 'what is no JSON')
})

t.test('a part of a schedule that is undefined, such as an unset variable, is its default', async (t) => {
  const schedule: Schedule = { cron: '0 3 * * *', timeZone: undefined, missed: undefined }
  t.match(timetableOf(schedule), { timeZone: 'UTC', missed: 'once' })
  const { coordinator } = await new World(t).node('a')
  t.ok(coordinator.worker({ name: 'w', kind: 'single', scope: 'global', schedule, run: () => undefined }))
})

t.test('a schedule that cannot be used is refused when the worker is registered', async (t) => {
  const world = new World(t)
  const { coordinator } = await world.node('a')
  const refused = (more: object): string => {
    const definition = { name: 'w', kind: 'single', scope: 'global', run: () => undefined, ...more }
    try {
      coordinator.worker(definition as WorkerDefinition)
      return 'taken'
    } catch (error) {
      return String(error)
    }
  }
  for (const [schedule, said] of [
    ['at noon', 'must be a cron pattern like "0 3 * * *", or { cron, timeZone, missed }, got "at noon"'],
    ['61 * * * *', '"61 * * * *" is no cron pattern'],
    ['0 3 32 * *', '"0 3 32 * *" is no cron pattern: Invalid value for day: 32.'],
    ['0 3 0 * *', 'Invalid value for day: 0.'],
    ['0 3 40W * *', 'Invalid value for day: 40.'],
    ['0 3 1 13 *', 'Invalid value for month: 13.'],
    ['0 3 * * 8', 'Invalid value for dayOfWeek: 8.'],
    ['0 22-4 * * *', '"0 22-4 * * *" is no cron pattern'],
    ['5/15 * * * *', '"5/15 * * * *" is no cron pattern'],
    ['@daily', 'must be a cron pattern'],
    ['0 0 3 1 1 * 2030', '"0 0 3 1 1 * 2030" is no cron pattern'],
    ['2030-01-01T00:00:00', 'must be a cron pattern'],
    ['0 0 30 2 *', '"0 0 30 2 *" never comes round'],
    [7, 'must be a cron pattern like "0 3 * * *", or { cron, timeZone, missed }, got 7'],
    [{ cron: 7 }, 'got 7 as the pattern'],
    [{ cron: everyMinute, zone: 'UTC' }, 'there is no "zone"'],
    [{ cron: everyMinute, timeZone: 'Vienna' }, 'must be a time zone like "Europe/Vienna", got "Vienna"'],
    [{ cron: everyMinute, missed: 'all' }, 'must be "once" or "skip", got "all"'],
  ] as const) {
    t.match(refused({ schedule }), said)
  }
  t.match(refused({ schedule: '61 * * * *' }), /[^.]\.$/, 'with one full stop')
  t.match(refused({ schedule: everyMinute, everyMs: 5 }), '`everyMs` and `schedule` exclude each other')
  t.match(refused({ schedule: everyMinute, kind: 'coordinated' }), '`schedule` is for single workers alone')
})

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

t.test('a change whose answer is lost is written again, and its pass is begun once', async (t) => {
  const world = new World(t)
  const fired: Fired[] = []
  const loss = { next: 0 }
  const a = await world.node('a', { wrap: losingAnswers(loss) })
  scheduled(a, everyMinute, fired)
  await world.start(a)
  await world.advance(30_000)
  loss.next = 3
  await world.advance(90_000)
  t.strictSame(dues(fired), minutes(14, 15))
  t.equal(loss.next, 0, 'answers were lost')
})

t.test('a scheduled pass that its signal ends is told, since its time is not begun again', async (t) => {
  for (const how of ['closed', 'stopped', 'paused', 'drained', 'released', 'stepped down'] as const)
    t.test(how, async (t) => {
      const world = new World(t)
      const fired: Fired[] = []
      const warnings: { readonly fields: object; readonly line: string }[] = []
      const warn = (fields: object, line: string) => void warnings.push({ fields, line })
      const a = await world.node('a', { log: { ...silentLog, warn } })
      let stepDown = (): void => undefined
      const worker = scheduled(a, everyMinute, fired, {
        run: (context) => {
          stepDown = context.stepDown
          return new Promise((_resolve, reject) => {
            context.signal.addEventListener('abort', () => reject(context.signal.reason), { once: true })
          })
        },
      })
      await world.start(a)
      await world.advanceUntil(() => fired.length === 1, 120_000)
      const { operator, nodeId = '' } = a.coordinator
      const { key = '', token = 0 } = (await operator.snapshot()).leases[0] ?? {}
      const by = { actor: 'ops', reason: 'just then' }
      if (how === 'closed') void a.coordinator.close()
      if (how === 'stopped') void worker.stop()
      if (how === 'paused') await operator.pause(key, by)
      if (how === 'drained') await operator.drain(nodeId, by)
      if (how === 'released') await operator.release({ key, token, ...by })
      if (how === 'stepped down') stepDown()
      await world.advance(2_000)
      t.match(warnings, [
        {
          fields: {
            lease: key,
            token,
            dueAtMs: Date.UTC(2023, 10, 14, 22, 14),
            err: { code: 'WCO_LEASE_LOST' },
          },
          line: 'a scheduled pass was ended by its signal, and its time is not begun again',
        },
      ])
      t.same(dues(fired), minutes(14), 'and it is not begun again')
    })
})

t.test('a pass that ends well although its signal has aborted is not warned of', async (t) => {
  const world = new World(t)
  const fired: Fired[] = []
  const warnings: string[] = []
  const warn = (_fields: object, line: string) => void warnings.push(line)
  const a = await world.node('a', { log: { ...silentLog, warn } })
  scheduled(a, everyMinute, fired, {
    run: ({ signal }) =>
      new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true })),
  })
  await world.start(a)
  await world.advanceUntil(() => fired.length === 1, 120_000)
  void a.coordinator.close()
  await world.advance(2_000)
  t.same(warnings, [])
})

t.test('a time that is written when its term ends, before its pass has begun, is taken back', async (t) => {
  for (const how of ['closed', 'stopped', 'paused', 'handed over'] as const)
    t.test(how, async (t) => {
      const world = new World(t)
      const fired: Fired[] = []
      const errors: unknown[] = []
      const answers = { pauseMs: 0 }
      const log = { ...silentLog, error: (fields: object) => void errors.push(fields) }
      const a: WorldNode = await world.node('a', { wrap: answeringChangesLate(() => a, answers), log })
      const worker = scheduled(a, everyMinute, fired)
      await world.start(a)
      const b = await world.node('b')
      scheduled(b, everyMinute, fired)
      await world.start(b)
      const { operator } = b.coordinator
      const { key = '', token = 0 } = (await operator.snapshot()).leases[0] ?? {}
      const by = { actor: 'ops', reason: 'just then' }
      answers.pauseMs = 500
      await world.advanceUntil(
        async () => (await operator.snapshot()).leases[0]?.firedAtMs === Date.UTC(2023, 10, 14, 22, 14),
        60_000,
      )
      if (how === 'closed') void a.coordinator.close()
      if (how === 'stopped') void worker.stop()
      if (how === 'paused') await operator.pause(key, by)
      if (how === 'handed over') await operator.transfer({ key, token, ...by })
      await world.advance(10_000)
      if (how === 'paused') await operator.resume(key, by)
      await world.advance(60_000)
      t.same(dues(fired), minutes(14, 15), 'made up for, once')
      t.same(errors, [])
    })
})

t.test(
  'a time that was written before an outage in which its term ended is taken back after it',
  async (t) => {
    const world = new World(t)
    const fired: Fired[] = []
    const loss = { next: 0 }
    const lines: string[] = []
    const note = (_fields: object, line: string) => void lines.push(line)
    const log = { ...silentLog, info: note, warn: note }
    const a: WorldNode = await world.node('a', { wrap: losingAnswers(loss), log })
    scheduled(a, everyMinute, fired)
    await world.start(a)
    const { operator } = a.coordinator
    await world.advance(39_000)
    loss.next = Number.POSITIVE_INFINITY
    world.freeze(a)
    await world.advance(1_000)
    world.thaw(a)
    await world.advance(100)
    t.equal(
      (await operator.snapshot()).leases[0]?.firedAtMs,
      Date.UTC(2023, 10, 14, 22, 14),
      'it was written',
    )
    t.same(fired, [])
    a.clock.suspend(world.timing.ttlMs)
    await world.advance(5_000)
    t.ok(a.history.includes('trust.expired'))
    t.same(fired, [])
    t.same(a.coordinator.health().unsettled, [], 'no pass has begun, so none goes on')
    loss.next = 0
    await world.advance(10_000)
    t.same(dues(fired), minutes(14))
    t.notMatch(lines.join(), /work .* signal/, 'nor does the log say so')
  },
)

t.test(
  'a time that was written, and whose lease was taken away before its pass began, is told',
  async (t) => {
    const world = new World(t)
    const fired: Fired[] = []
    const errors: object[] = []
    const loss = { next: 0 }
    const log = { ...silentLog, error: (fields: object) => void errors.push(fields) }
    const a: WorldNode = await world.node('a', { wrap: losingAnswers(loss), log })
    const b = await world.node('b')
    scheduled(a, everyMinute, fired)
    await world.start(a, b)
    scheduled(b, everyMinute, fired)
    await world.advance(1_000)
    loss.next = Number.POSITIVE_INFINITY
    const { operator } = b.coordinator
    const due = Date.UTC(2023, 10, 14, 22, 14)
    await world.advanceUntil(async () => (await operator.snapshot()).leases[0]?.firedAtMs === due, 60_000)
    const { key = '', token = 0 } = (await operator.snapshot()).leases[0] ?? {}
    world.freeze(a)
    await world.advance(world.timing.ttlMs * 2, 500)
    loss.next = 0
    world.thaw(a)
    await world.advance(40_000, 500)
    t.same(dues(fired), minutes(15))
    t.match(errors, [{ lease: key, token, due: new Date(due).toISOString() }])
  },
)

t.test('a time whose record was answered only after the session was found lost is told', async (t) => {
  const world = new World(t)
  const fired: Fired[] = []
  const errors: object[] = []
  const answers = { pauseMs: 0 }
  const log = { ...silentLog, error: (fields: object) => void errors.push(fields) }
  const a: WorldNode = await world.node('a', { wrap: answeringChangesLate(() => a, answers), log })
  const b = await world.node('b')
  scheduled(a, everyMinute, fired)
  await world.start(a, b)
  answers.pauseMs = 8_000
  const due = Date.UTC(2023, 10, 14, 22, 14)
  const lease = async () => (await b.coordinator.operator.snapshot()).leases[0]
  await world.advanceUntil(async () => (await lease())?.firedAtMs === due, 60_000)
  const token = (await lease())?.token
  const id = a.coordinator.nodeId ?? ''
  await runChange(b.store, undefined, 0, (change) => change.bury(id))
  await world.advanceUntil(() => a.history.includes('session.lost'), 7_500)
  answers.pauseMs = 0
  await world.advance(40_000)
  t.same(fired, [])
  t.match(errors, [{ token, due: new Date(due).toISOString() }])
})

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

t.test('no time is claimed under the name of a worker, of whatever kind and wherever it runs', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const [scope, run] = ['global', () => undefined] as const
  a.coordinator.worker({ name: 'one', kind: 'single', scope, run })
  a.coordinator.worker({ name: 'parts', kind: 'partitioned', partitions: 2, scope, run })
  a.coordinator.worker({ name: 'shares', kind: 'coordinated', scope, run })
  await world.start(a, b)
  for (const name of ['one', 'parts', 'shares']) {
    const claimed = b.coordinator.claimTime(name, new Date(1_700_000_000_000))
    await t.rejects(claimed, { code: 'WCO_NAME' }, name)
  }
})

t.test(
  'a time that was claimed is not claimed again, however old, also when its name was cleared away',
  async (t) => {
    const dayMs = 86_400_000
    let nowMs = Date.UTC(2030, 0, 1)
    const database = new MemoryDatabase({ nowMs: () => nowMs, identity: () => 'server' })
    const store = database.open({ namespace: 'default', statementTimeoutMs: 30_000 })
    const claims = async (daysAgo: number): Promise<boolean> =>
      (
        await store.change(undefined, (change) =>
          claimTime(change, 'task', Date.UTC(2030, 0, 1) - daysAgo * dayMs, dayMs + claimedForMs),
        )
      ).result
    const clearAway = () => store.change(undefined, (change) => pruneLeases(change, ['task'], nowMs - dayMs))
    t.equal(await claims(9), false, 'nobody knows any more')
    t.equal(await claims(3), true)
    await clearAway()
    t.equal(await claims(3), false)
    t.equal(await claims(0), true)
    nowMs += 7 * dayMs
    await clearAway()
    t.equal(await claims(0), false)
    nowMs += 2 * dayMs
    await clearAway()
    t.same((await store.snapshot()).leases, [], 'it is cleared away at last')
    t.equal(await claims(0), false)
  },
)
