/**
 * Times of day, as cron patterns.
 *
 * When a schedule is due depends only on the pattern, the time zone and an instant, so all nodes agree on it. Which
 * of its times have been dealt with is stored in the lease; see `firing.ts`.
 */
import { Cron } from 'croner'
import { shown } from '../names.js'
import { clockMistakeMs } from '../time/timing.js'

/** A schedule, as given to a worker. */
export interface Schedule {
  /** Five fields, or six with seconds first: `0 3 1 * *` is 03:00 on the first of every month. */
  readonly cron: string
  /** The time zone of the pattern, such as `Europe/Vienna`. Default `UTC`. */
  readonly timeZone?: string | undefined
  /**
   * What happens to times that came while no node could act on them, for example between the death of one holder and
   * the claim of the next, or while a pass was still running. `once` (the default) makes up for all of them with one
   * pass; `skip` waits for the next time.
   */
  readonly missed?: 'once' | 'skip' | undefined
}

/** A schedule that has been checked. */
export interface Timetable {
  readonly cron: string
  readonly timeZone: string
  readonly missed: 'once' | 'skip'
  /** The first due time after this instant, in ms since 1970; undefined when there is none. */
  next(afterMs: number): number | undefined
  /** The last due time up to `untilMs`, but not before `dueMs`, which must be a due time itself. */
  latest(dueMs: number, untilMs: number): number
}

const knownParts = new Set(['cron', 'timeZone', 'missed'])

/** Returns what is wrong with a schedule, as the middle of a sentence; undefined when nothing is. */
export function scheduleProblem(given: unknown): string | undefined {
  const expected = '`schedule` must be a cron pattern like "0 3 * * *", or { cron, timeZone, missed }'
  if (typeof given !== 'string' && (typeof given !== 'object' || given === null))
    return `${expected}, got ${shown(given)}`
  const parts: Record<string, unknown> = typeof given === 'string' ? { cron: given } : { ...given }
  const unknown = Object.keys(parts).find((part) => !knownParts.has(part))
  if (unknown !== undefined) return `${expected}: there is no ${shown(unknown)}`
  const { cron, timeZone = 'UTC', missed = 'once' } = parts
  if (typeof cron !== 'string') return `${expected}, got ${shown(cron)} as the pattern`
  if (missed !== 'once' && missed !== 'skip')
    return `\`schedule.missed\` must be "once" or "skip", got ${shown(missed)}`
  if (typeof timeZone !== 'string' || !isTimeZone(timeZone))
    return `\`schedule.timeZone\` must be a time zone like "Europe/Vienna", got ${shown(timeZone)}`
  try {
    // A date is not a pattern; it would be taken for a job that runs once.
    if (cron.trim().split(/\s+/).length < 5) return `${expected}, got ${shown(cron)} as the pattern`
    if (patternOf(cron, timeZone).nextRun() === null) return `\`schedule\` ${shown(cron)} never comes round`
    return undefined
  } catch (error) {
    const why = error instanceof Error ? inSentence(error.message) : shown(error)
    return `\`schedule\` ${shown(cron)} is no cron pattern: ${why}`
  }
}

/** Returns the timetable of a schedule that has no problem. */
export function timetableOf(given: string | Schedule): Timetable {
  const {
    cron,
    timeZone = 'UTC',
    missed = 'once',
  }: Schedule = typeof given === 'string' ? { cron: given } : given
  const pattern = patternOf(cron, timeZone)
  const next = (afterMs: number): number | undefined => pattern.nextRun(new Date(afterMs))?.getTime()
  const latest = (dueMs: number, untilMs: number): number => {
    const [before = new Date(dueMs)] = pattern.previousRuns(1, new Date(untilMs))
    let latestMs = Math.max(dueMs, before.getTime())
    // Searching back and searching forward may disagree on the hour that clocks go through twice.
    for (let nextMs = next(latestMs); nextMs !== undefined && nextMs <= untilMs; nextMs = next(latestMs))
      latestMs = nextMs
    return latestMs
  }
  return { cron, timeZone, missed, next, latest }
}

/** Returns a schedule as it is stored with its worker, for all nodes to read. */
export function writtenSchedule({ cron, timeZone, missed }: Timetable): string {
  return JSON.stringify({ cron, timeZone, missed })
}

/** The inverse of {@link writtenSchedule}; undefined for a schedule that a newer version may have written. */
export function readSchedule(written: string | null): Timetable | undefined {
  if (written === null) return undefined
  try {
    const parts: unknown = JSON.parse(written)
    return scheduleProblem(parts) === undefined ? timetableOf(parts as Schedule) : undefined
  } catch {
    return undefined
  }
}

/** Whether a time up to which all has been dealt with was recorded by a wrong clock, ahead of the present one. */
export function isMistaken(firedAtMs: number, nowMs: number): boolean {
  return firedAtMs > nowMs + clockMistakeMs
}

/**
 * Returns what is recorded when a schedule is first held: what came before is not made up for. All times of all
 * schedules are whole seconds, and this never is, so that it is not taken for a time at which a pass began.
 */
export function beginningMark(nowMs: number): number {
  return nowMs % 1_000 === 0 ? nowMs + 1 : nowMs
}

/** Whether what is recorded is the beginning of a schedule, and not one of its times. */
function isBeginning(firedAtMs: number): boolean {
  return firedAtMs % 1_000 !== 0
}

/** The state of a schedule, for people. Its times are ms since 1970. */
export interface ScheduleStatus {
  readonly cron: string
  readonly timeZone: string
  readonly missed: 'once' | 'skip'
  /** The time of the schedule for which a pass last began; null before the first. */
  readonly lastFireAtMs: number | null
  /** The next due time; null when there is none. It may already have come, while no node could act on it. */
  readonly nextFireAtMs: number | null
}

/**
 * Returns the state of a schedule; null when there is none, or when a newer version may have written it.
 *
 * @param written the schedule as stored with the worker
 * @param firedAtMs the time up to which, according to its lease, all has been dealt with
 */
export function scheduleStatus(
  written: string | null,
  firedAtMs: number | null,
  nowMs: number,
): ScheduleStatus | null {
  const timetable = knownTimetable(written)
  if (timetable === undefined) return null
  const { cron, timeZone, missed } = timetable
  const dealtWithMs = firedAtMs === null || isMistaken(firedAtMs, nowMs) ? nowMs : firedAtMs
  const fromMs = missed === 'skip' ? Math.max(dealtWithMs, nowMs) : dealtWithMs
  return {
    cron,
    timeZone,
    missed,
    lastFireAtMs: firedAtMs === null || isBeginning(firedAtMs) ? null : firedAtMs,
    nextFireAtMs: timetable.next(fromMs) ?? null,
  }
}

/**
 * Parsing a pattern costs far more than asking it, and a caller that looks at workers looks at the same ones again.
 */
const known = new Map<string, Timetable | undefined>()
const mostKnown = 1_000

function knownTimetable(written: string | null): Timetable | undefined {
  if (written === null) return undefined
  if (!known.has(written)) {
    if (known.size >= mostKnown) known.clear()
    known.set(written, readSchedule(written))
  }
  return known.get(written)
}

/**
 * Returns a message of croner as it can stand in the middle of a sentence. It counts days and months from 0, which people
 * do not.
 */
function inSentence(message: string): string {
  return message
    .replace(/^CronPattern: /, '')
    .replace(/\.$/, '')
    .replace(/^(Invalid value for )(day|month|nearestWeekdays): (-?\d+)$/, (_all, start, part, value) => {
      const name = part === 'nearestWeekdays' ? 'day' : part
      return `${start}${name}: ${Number(value) + 1}`
    })
}

/** Paused: the pattern is only asked, and must never run by itself. */
function patternOf(cron: string, timezone: string): Cron {
  return new Cron(cron, { timezone, paused: true, mode: '5-or-6-parts' })
}

function isTimeZone(name: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }) !== undefined
  } catch {
    return false
  }
}
