/**
 * Passes at the times of a schedule, each time once.
 *
 * Before a pass begins, the time it is for is written into the row of the lease, in a change that still finds this
 * node's token there. So of all nodes that ever hold the lease one begins the pass for that time, whoever
 * dies when. The other side of it: a pass that was begun and did not end is not begun again for the same time. Only where the term
 * ends between the writing and the beginning does this node know that none was begun, and takes it back under the same token, before
 * anybody else can have the lease.
 *
 * Time is the database's, as heard in its last answer and counted on by this node's own clock. If it is set back, what
 * has been dealt with stays dealt with; see {@link clockMistakeMs}.
 */
import type { Fired } from '../changes/changes.js'
import { StoreError } from '../errors.js'
import type { Clock, Reading } from '../time/clock.js'
import { sleep } from '../time/loop.js'
import { backoffMs } from '../time/timing.js'
import { elapsedMs } from '../time/trust.js'
import type { Holding } from './lease.js'
import { clockMistakeMs, type Timetable } from './schedule.js'

/** What firing needs of the world. */
export interface Calendar {
  /** The time by the database's clock, in whole ms since 1970. */
  nowMs(): number
  /** Writes into the lease's row that everything up to this time has been dealt with. */
  fire(holding: Holding, atMs: number): Promise<Fired>
  /** It is not known whether that was written; it is tried again. */
  fireFailed(holding: Holding, error: unknown): void
  /** This time may be written as dealt with though no pass was begun for it, and that cannot be taken back any more. */
  forgone(holding: Holding, atMs: number): void
  /** Aborts when there is no sense in trying any further: this node has closed. */
  readonly over: AbortSignal
}

/** What became of writing down a time. */
type Taken =
  /** It is written, and its pass may begin. */
  | 'taken'
  /** The term has ended; the row may say it, or says it. */
  | 'perhaps'
  | 'not-taken'

/** The database's clock may be set while we wait for it, so it is looked at again at least this often. */
const lookAgainMs = 60_000

/** The due times of one term of one lease, one after another. */
export class Firing {
  readonly #holding: Holding
  readonly #timetable: Timetable
  readonly #calendar: Calendar
  readonly #clock: Clock
  readonly #firedAtMs: number | null
  /** Up to then everything has been dealt with, and the row says so. */
  #dealtWithMs: number | undefined
  /** Nobody could act on what came up to then, which is not made up for; and when that was, by this node's own clocks. */
  #skippedToMs = Number.NEGATIVE_INFINITY
  #skippedAt: Reading = { monoMs: 0, bootMs: 0 }

  /** @param firedAtMs what the row said when the term began. */
  constructor(
    holding: Holding,
    timetable: Timetable,
    calendar: Calendar,
    clock: Clock,
    firedAtMs: number | null,
  ) {
    this.#holding = holding
    this.#timetable = timetable
    this.#calendar = calendar
    this.#clock = clock
    this.#firedAtMs = firedAtMs
  }

  /** Waits for the next due time and takes it. Answers that time; undefined when the term has ended before. */
  async next(): Promise<number | undefined> {
    this.#dealtWithMs ??= await this.#beginning()
    if (this.#dealtWithMs === undefined) return undefined
    const due = await this.#nextDue(this.#dealtWithMs)
    if (due === undefined) return undefined
    // One pass stands for all times that have come until now; the last of them is what people are shown.
    const latestMs = this.#timetable.latest(due.dueMs, due.nowMs)
    const taken = await this.#take(latestMs)
    if (taken === 'perhaps') await this.#takeBack(latestMs, this.#dealtWithMs)
    if (taken !== 'taken') return undefined
    this.#dealtWithMs = latestMs
    return due.dueMs
  }

  /** A pass has ended. Nobody could act on what came while it ran. */
  passed(): void {
    this.#skipTo(this.#calendar.nowMs())
  }

  #skipTo(nowMs: number): void {
    if (this.#timetable.missed !== 'skip') return
    this.#skippedToMs = nowMs
    this.#skippedAt = this.#clock.read()
  }

  /** A schedule begins when it is first held: what came before that was nobody's. */
  async #beginning(): Promise<number | undefined> {
    const nowMs = this.#calendar.nowMs()
    const known = this.#firedAtMs !== null && this.#firedAtMs <= nowMs + clockMistakeMs
    if (!known) return (await this.#take(nowMs)) === 'taken' ? nowMs : undefined
    this.#skipTo(nowMs)
    return this.#firedAtMs
  }

  /** Answers the time that is due next once it is; undefined when the term has ended before. */
  async #nextDue(dealtWithMs: number): Promise<{ dueMs: number; nowMs: number } | undefined> {
    while (this.#holding.held) {
      const nowMs = this.#calendar.nowMs()
      // The database's clock was ahead then, and has gone back since: what comes by it from then on is not skipped.
      if (nowMs < this.#skippedToMs)
        this.#skippedToMs = nowMs - elapsedMs(this.#skippedAt, this.#clock.read())
      const dueMs = this.#timetable.next(Math.max(dealtWithMs, this.#skippedToMs)) ?? Number.POSITIVE_INFINITY
      if (nowMs >= dueMs) return { dueMs, nowMs }
      await sleep(this.#clock, Math.min(dueMs - nowMs, lookAgainMs), this.#holding.signal)
    }
    return undefined
  }

  /** Tried until it is known: a try whose answer was lost may have been written, and is written again. */
  async #take(atMs: number): Promise<Taken> {
    let unanswered = false
    for (let attempt = 1; this.#holding.held; attempt++) {
      const fired = await this.#calendar.fire(this.#holding, atMs).catch((error: unknown) => {
        unanswered ||= !(error instanceof StoreError && error.outcome === 'none')
        this.#calendar.fireFailed(this.#holding, error)
        return 'not-yet' as const
      })
      if (fired === 'written') return this.#holding.held ? 'taken' : 'perhaps'
      if (fired === 'lost') break
      const delayMs = backoffMs(attempt, { firstMs: 100, maxMs: 5_000 }, this.#clock.random())
      await sleep(this.#clock, delayMs, this.#holding.signal)
    }
    return unanswered ? 'perhaps' : 'not-taken'
  }

  /** Until this returns the term has not settled, so the row stays this node's, unless it is taken away by force. */
  async #takeBack(atMs: number, beforeMs: number): Promise<void> {
    const { over } = this.#calendar
    for (let attempt = 1; !over.aborted; attempt++) {
      const fired = await this.#calendar.fire(this.#holding, beforeMs).catch((error: unknown) => {
        this.#calendar.fireFailed(this.#holding, error)
        return 'not-yet' as const
      })
      if (fired === 'written') return
      if (fired === 'lost') break
      const delayMs = backoffMs(attempt, { firstMs: 100, maxMs: 1_000 }, this.#clock.random())
      await sleep(this.#clock, delayMs, over)
    }
    this.#calendar.forgone(this.#holding, atMs)
  }
}
