/**
 * Checks the times of a schedule in a simulated world: each begins once, none is forgotten without a reason, and none
 * is overdue.
 */
import { clockMistakeMs } from '../../plugin/core/time/timing.js'
import type { Schedule } from '../../plugin/core/work/schedule.js'
import type { SimulatedDatabase, StoredLease } from './database.js'
import type { History } from './history.js'
import type { SimulatedProcess } from './process.js'

/** The distance between two times of the schedule, in ms. */
export const timesEveryMs = 5_000

/** The same for the schedule of another version, which has only some of those times. */
export const rarerTimesEveryMs = 10_000

/** Returns the schedule of another version of the application, with the opposite for missed times. */
export function otherScheduleThan({ missed }: Schedule): Schedule {
  return { cron: '*/10 * * * * *', missed: missed === 'once' ? 'skip' : 'once' }
}

/** Returns a schedule that is due every five seconds. The world decides what happens to missed times. */
export function scheduleFor(missed: 'once' | 'skip'): Schedule {
  return { cron: '*/5 * * * * *', missed }
}

export class Times {
  readonly #database: SimulatedDatabase
  readonly #history: History
  readonly #begun = new Map<string, Set<number>>()
  /** The latest time that each term has recorded. Its holder remembers that, even if a failover makes the row forget it. */
  readonly #recorded = new Map<string, number>()
  /** When each term began, by the database's clock. */
  readonly #beganAtMs = new Map<string, number>()

  constructor(database: SimulatedDatabase, history: History) {
    this.#database = database
    this.#history = history
  }

  /** Checks a pass that begins for a time. Times that a failover has made the database forget are left out. */
  began(process: SimulatedProcess, key: string, dueAtMs: number): void {
    this.#history.count('times begun')
    const firedAtMs = this.#history.stored(key)?.firedAtMs ?? null
    if (firedAtMs === null || firedAtMs < dueAtMs) return
    const begun = this.#begun.get(key) ?? new Set()
    this.#begun.set(key, begun)
    if (begun.has(dueAtMs))
      this.#history.violate('T1', `${process.label} begins ${key} for ${shownTime(dueAtMs)} once more`)
    begun.add(dueAtMs)
  }

  /** Checks a committed change that touched this lease. */
  committed({ key, token, firedAtMs }: StoredLease, before: StoredLease | undefined): void {
    if (firedAtMs !== null && !Number.isInteger(firedAtMs))
      this.#history.violate('T2', `a time of ${key} is no whole number: ${firedAtMs}`)
    const term = `${key}@${token}`
    if (!this.#beganAtMs.has(term)) this.#beganAtMs.set(term, this.#database.nowMs)
    this.#recorded.set(term, Math.max(this.#recorded.get(term) ?? 0, firedAtMs ?? 0))
    const beforeMs = before?.firedAtMs ?? null
    if (beforeMs === null || (firedAtMs ?? 0) >= beforeMs) return
    const begun = [...(this.#begun.get(key) ?? [])].some((dueAtMs) => dueAtMs > (firedAtMs ?? 0))
    // A node that has recorded a time and has begun no pass for it may take that back while its term lasts.
    const isTakenBack = firedAtMs !== null && token === before?.token && !begun
    if (!isTakenBack && beforeMs <= this.#database.nowMs + clockMistakeMs)
      this.#history.violate('T2', `${key} forgets the times up to ${shownTime(beforeMs)}`)
    this.#forgetAfter(key, firedAtMs ?? 0)
  }

  /** Notes that the database has lost its latest writes, and with them which times have begun. */
  rolledBack(leases: readonly StoredLease[]): void {
    for (const key of this.#begun.keys())
      this.#forgetAfter(key, leases.find((lease) => lease.key === key)?.firedAtMs ?? 0)
  }

  /** Notes that the rows of these leases have been deleted, and with them which times have begun. */
  forget(leases: readonly string[]): void {
    for (const key of leases) this.#forgetAfter(key, 0)
  }

  /**
   * Whether a time has been due for longer than `patienceMs`. A time that the database's clock has not reached is not
   * due.
   *
   * @param maySkip whether the holder may have skipped what was missed before its term.
   */
  isOverdue({ key, token, firedAtMs }: StoredLease, patienceMs: number, maySkip: boolean): boolean {
    if (firedAtMs === null) return true
    const term = `${key}@${token}`
    const skippedMs = maySkip ? (this.#beganAtMs.get(term) ?? 0) : 0
    const dealtWithMs = Math.max(firedAtMs, this.#recorded.get(term) ?? 0, skippedMs)
    const dueMs = (Math.floor(dealtWithMs / timesEveryMs) + 1) * timesEveryMs
    return dueMs + patienceMs < this.#database.nowMs
  }

  #forgetAfter(key: string, firedAtMs: number): void {
    const begun = this.#begun.get(key)
    for (const dueAtMs of begun ?? []) if (dueAtMs > firedAtMs) begun?.delete(dueAtMs)
  }
}

function shownTime(ms: number): string {
  return new Date(ms).toISOString()
}
