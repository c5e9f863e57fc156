/** The times of a schedule in a simulated world: each is begun once, none is forgotten without a reason, and they go on. */
import { clockMistakeMs } from '../../plugin/core/time/timing.js'
import type { Schedule } from '../../plugin/core/work/schedule.js'
import type { SimulatedDatabase, StoredLease } from './database.js'
import type { History } from './history.js'
import type { SimulatedProcess } from './process.js'

/** How far the times of the schedule are apart. */
export const timesEveryMs = 5_000

/** Due every five seconds; what becomes of those that were missed depends on the world. */
export function scheduleFor(missed: 'once' | 'skip'): Schedule {
  return { cron: '*/5 * * * * *', missed }
}

export class Times {
  readonly #database: SimulatedDatabase
  readonly #history: History
  readonly #begun = new Map<string, Set<number>>()

  constructor(database: SimulatedDatabase, history: History) {
    this.#database = database
    this.#history = history
  }

  /** A pass begins for a time. Of what a failover has lost since nobody can know. */
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

  /** A change was committed that touched this lease. */
  committed({ key, token, firedAtMs }: StoredLease, before: StoredLease | undefined): void {
    if (firedAtMs !== null && !Number.isInteger(firedAtMs))
      this.#history.violate('T2', `a time of ${key} is no whole number: ${firedAtMs}`)
    const beforeMs = before?.firedAtMs ?? null
    if (beforeMs === null || (firedAtMs ?? 0) >= beforeMs) return
    const begun = [...(this.#begun.get(key) ?? [])].some((dueAtMs) => dueAtMs > (firedAtMs ?? 0))
    // Who has written down a time, and has begun no pass for it, may take that back as long as its term lasts.
    const isTakenBack = firedAtMs !== null && token === before?.token && !begun
    if (!isTakenBack && beforeMs <= this.#database.nowMs + clockMistakeMs)
      this.#history.violate('T2', `${key} forgets the times up to ${shownTime(beforeMs)}`)
    this.#forgetAfter(key, firedAtMs ?? 0)
  }

  /** The database has lost its latest writes, and with them which times have been begun. */
  rolledBack(leases: readonly StoredLease[]): void {
    for (const key of this.#begun.keys())
      this.#forgetAfter(key, leases.find((lease) => lease.key === key)?.firedAtMs ?? 0)
  }

  /** Whether a time has been due for longer than it takes to begin it. What the clock has still to come to is not. */
  isOverdue({ firedAtMs }: StoredLease, patienceMs: number): boolean {
    if (firedAtMs === null) return true
    const dueMs = (Math.floor(firedAtMs / timesEveryMs) + 1) * timesEveryMs
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
