/**
 * Runs passes at the times of a schedule, each time once.
 *
 * Before a pass begins, its time is written into the row of the lease, in a change that still finds this node's
 * token there. Of all nodes that ever hold the lease, only one therefore begins the pass for that time, no matter
 * which node dies when. The price is that a pass that began and did not end is not begun again for the same time.
 * There is one exception: when the term ends between the write and the beginning of the pass, this node knows that
 * none began. It then takes the time back under the same token, before another node can have the lease.
 *
 * The time is the database's, as received in its last answer and counted on by this node's own clock. If the
 * database's clock is set back, what has been dealt with stays dealt with; see {@link isMistaken}.
 */
import type { Fired } from '../changes/times.js'
import { StoreError } from '../errors.js'
import type { Clock, Reading } from '../time/clock.js'
import { sleep } from '../time/loop.js'
import { backoffMs } from '../time/timing.js'
import { elapsedMs } from '../time/trust.js'
import type { Holding } from './lease.js'
import { beginningMark, isMistaken, type Timetable } from './schedule.js'

/** What firing needs from its surroundings. */
export interface Calendar {
  /** The time by the database's clock, in whole ms since 1970. */
  nowMs(): number
  /** Records in the lease's row that everything up to this time has been dealt with. */
  fire(holding: Holding, atMs: number): Promise<Fired>
  /** Reports that an attempt to record a time has failed; it is tried again. */
  fireFailed(holding: Holding, error: unknown): void
  /**
   * Reports that a time may be recorded as dealt with although no pass began for it, and that this cannot be undone.
   */
  forgone(holding: Holding, atMs: number): void
  /** Aborts when further attempts are pointless: this node has closed. */
  readonly over: AbortSignal
}

/** The outcome of recording a time. */
type Taken =
  /** It is recorded, and its pass may begin. */
  | 'taken'
  /** The term has ended; the time is recorded, or may be. */
  | 'perhaps'
  | 'not-taken'

/** The database's clock may be set while a node waits for it, so it is read again at least this often, in ms. */
const lookAgainMs = 60_000

/** The due times of one term of one lease, one after another. */
export class Firing {
  readonly #holding: Holding
  readonly #timetable: Timetable
  readonly #calendar: Calendar
  readonly #clock: Clock
  /** What the row said when counting began. */
  #firedAtMs: number | null
  /** Everything up to this time has been dealt with, and the row says so. */
  #dealtWithMs: number | undefined
  /**
   * Times up to this one are not made up for, because no node could act on them. `#skippedAt` is when this was set,
   * by this node's own clocks.
   */
  #skippedToMs = Number.NEGATIVE_INFINITY
  #skippedAt: Reading = { monoMs: 0, bootMs: 0 }

  /** @param firedAtMs what the row said when the term began */
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

  /** Waits for the next due time and takes it. Returns that time; undefined when the term ended first. */
  async next(): Promise<number | undefined> {
    this.#dealtWithMs ??= await this.#beginning()
    if (this.#dealtWithMs === undefined) return undefined
    const due = await this.#nextDue(this.#dealtWithMs)
    if (due === 'mistaken') {
      this.#firedAtMs = this.#dealtWithMs
      this.#dealtWithMs = undefined
      return this.next()
    }
    if (due === undefined) return undefined
    // One pass covers all times that have come until now. The last of them is recorded, and shown to people.
    const latestMs = this.#timetable.latest(due.dueMs, due.nowMs)
    const taken = await this.#take(latestMs)
    if (taken === 'perhaps') await this.#takeBack(latestMs, this.#dealtWithMs)
    if (taken !== 'taken') return undefined
    this.#dealtWithMs = latestMs
    return due.dueMs
  }

  /** Must be called when a pass has ended. No node could act on the times that came while it ran. */
  passed(): void {
    this.#skipTo(this.#calendar.nowMs())
  }

  #skipTo(nowMs: number): void {
    if (this.#timetable.missed !== 'skip') return
    this.#skippedToMs = nowMs
    this.#skippedAt = this.#clock.read()
  }

  /**
   * Returns the time up to which all has been dealt with when the term begins, or when the clock turns out to have been
   * wrong; undefined when the term has ended. A schedule begins when it is first held: earlier times had no holder.
   */
  async #beginning(): Promise<number | undefined> {
    const nowMs = this.#calendar.nowMs()
    if (this.#firedAtMs === null || isMistaken(this.#firedAtMs, nowMs)) {
      const markMs = beginningMark(nowMs)
      return (await this.#take(markMs)) === 'taken' ? markMs : undefined
    }
    this.#skipTo(nowMs)
    return this.#firedAtMs
  }

  /**
   * Waits for the next due time. Returns it, and the time then; undefined when the term ended first, and `mistaken` when
   * the clock shows that what has been dealt with was dealt with by a wrong one.
   */
  async #nextDue(dealtWithMs: number): Promise<{ dueMs: number; nowMs: number } | 'mistaken' | undefined> {
    while (this.#holding.held) {
      const nowMs = this.#calendar.nowMs()
      if (isMistaken(dealtWithMs, nowMs)) return 'mistaken'
      // The database's clock was ahead when the mark was set, and has gone back. What comes by it from then on is
      // not skipped.
      if (nowMs < this.#skippedToMs)
        this.#skippedToMs = nowMs - elapsedMs(this.#skippedAt, this.#clock.read())
      const dueMs = this.#timetable.next(Math.max(dealtWithMs, this.#skippedToMs)) ?? Number.POSITIVE_INFINITY
      if (nowMs >= dueMs) return { dueMs, nowMs }
      await sleep(this.#clock, Math.min(dueMs - nowMs, lookAgainMs), this.#holding.signal)
    }
    return undefined
  }

  /**
   * Tries until the outcome is known. An attempt whose answer was lost may have been recorded; it is recorded again.
   */
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

  /**
   * Takes a time back. Until this returns the term has not settled, so the row stays with this node unless it is
   * revoked.
   */
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
