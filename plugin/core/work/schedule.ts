/**
 * Times of day, as cron patterns.
 *
 * When a schedule is due follows from nothing but the pattern, the time zone and an instant, so all nodes agree on it.
 * Which of its times have been dealt with stands in the lease; see `firing.ts`.
 */
import { Cron } from 'croner'
import { shown } from '../names.js'

/** A schedule, as a worker is given it. */
export interface Schedule {
  /** Five fields, or six with seconds first: `0 3 1 * *` is three in the morning of each first of a month. */
  readonly cron: string
  /** The zone whose clocks the pattern speaks of, like `Europe/Vienna`. Default `UTC`. */
  readonly timeZone?: string
  /**
   * What becomes of times that came while nobody could act on them, say between the death of one holder and the claim of
   * the next, or while a pass still ran: `once` (the default) makes up for all of them by one pass, `skip` waits for
   * the next time.
   */
  readonly missed?: 'once' | 'skip'
}

/** A schedule that was checked. */
export interface Timetable {
  readonly cron: string
  readonly timeZone: string
  readonly missed: 'once' | 'skip'
  /** The first due time after this instant, in ms since 1970; undefined when there is none. */
  next(afterMs: number): number | undefined
  /** The last due time up to this instant, and not before `dueMs`, which is one. */
  latest(dueMs: number, untilMs: number): number
}

const knownParts = new Set(['cron', 'timeZone', 'missed'])

/** What is wrong with a schedule, as the middle of a sentence; undefined when nothing is. */
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
    // A date and not a pattern would be taken for a job that runs once.
    if (cron.trim().split(/\s+/).length < 5) return `${expected}, got ${shown(cron)} as the pattern`
    if (patternOf(cron, timeZone).nextRun() === null) return `\`schedule\` ${shown(cron)} never comes round`
    return undefined
  } catch (error) {
    return `\`schedule\` ${shown(cron)} is no cron pattern: ${error instanceof Error ? error.message : shown(error)}`
  }
}

/** A schedule that has no problem, ready to be asked. */
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
    // Going back and going forward need not agree on the hour that clocks go through twice.
    for (let nextMs = next(latestMs); nextMs !== undefined && nextMs <= untilMs; nextMs = next(latestMs))
      latestMs = nextMs
    return latestMs
  }
  return { cron, timeZone, missed, next, latest }
}

/** As it is kept with the worker for everybody to see. */
export function writtenSchedule({ cron, timeZone, missed }: Timetable): string {
  return JSON.stringify({ cron, timeZone, missed })
}

/** The inverse of {@link writtenSchedule}; undefined for what a newer version may have written. */
export function readSchedule(written: string | null): Timetable | undefined {
  if (written === null) return undefined
  const parts: unknown = JSON.parse(written)
  return scheduleProblem(parts) === undefined ? timetableOf(parts as Schedule) : undefined
}

/** How a schedule stands, for people: its times are ms since 1970. */
export interface ScheduleStatus {
  readonly cron: string
  readonly timeZone: string
  readonly missed: 'once' | 'skip'
  /** The time of the schedule for which a pass was begun last; null before the first. */
  readonly lastFireAtMs: number | null
  /** The next one. It may have come already, while nobody could act on it. */
  readonly nextFireAtMs: number | null
}

/**
 * @param written as it is kept with the worker.
 * @param firedAtMs what its lease says has been dealt with.
 */
export function scheduleStatus(
  written: string | null,
  firedAtMs: number | null,
  nowMs: number,
): ScheduleStatus | null {
  const timetable = knownTimetable(written)
  if (timetable === undefined) return null
  const { cron, timeZone, missed } = timetable
  const isMistaken = firedAtMs !== null && firedAtMs > nowMs + clockMistakeMs
  const dealtWithMs = firedAtMs === null || isMistaken ? nowMs : firedAtMs
  const fromMs = missed === 'skip' ? Math.max(dealtWithMs, nowMs) : dealtWithMs
  return {
    cron,
    timeZone,
    missed,
    // A term may begin at any instant; what was fired is one of the schedule's own.
    lastFireAtMs: firedAtMs !== null && timetable.next(firedAtMs - 1) === firedAtMs ? firedAtMs : null,
    nextFireAtMs: timetable.next(fromMs) ?? null,
  }
}

/**
 * When a lease's row says that times further ahead than this have been dealt with, the clock was wrong when that was
 * written, and it is forgotten. Below it, a clock that was set back is waited for.
 */
export const clockMistakeMs = 24 * 3_600_000

/** Reading a pattern costs far more than asking it, and whoever looks at workers looks at the same ones again. */
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

/** Paused: it is asked, and never runs by itself. */
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
