/** Tests when a schedule is due, and how it is read, kept and refused. */
import t from 'tap'
import { readSchedule, type Schedule, timetableOf, writtenSchedule } from '../../plugin/core/work/schedule.js'
import type { WorkerDefinition } from '../../plugin/core/work/worker.js'
import { everyMinute } from '../support/scheduled.js'
import { World } from '../support/world.js'

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
