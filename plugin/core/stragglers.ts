/**
 * Logs work that goes on although its signal has aborted, and when that is over.
 *
 * Work that is told to stop in good order keeps its lease until it has stopped: that is logged as information. Where
 * trust has ended or the lease was taken away, another node may be at work as well: that is logged as a warning.
 */

import type { EndReason } from './errors.js'
import type { Log } from './log.js'
import type { Clock, Reading, Timer } from './time/clock.js'
import { elapsedMs } from './time/trust.js'
import type { Holding } from './work/lease.js'

/** The reasons after which another node may hold the lease while the work goes on. */
const takenAway: ReadonlySet<EndReason> = new Set(['trust-expired', 'lost', 'revoked'])

export class Stragglers {
  readonly #clock: Clock
  readonly #log: Log
  readonly #patienceMs: number
  readonly #timers = new Set<Timer>()

  /** @param patienceMs how long work may go on after its signal before it is logged. */
  constructor(patienceMs: number, clock: Clock, log: Log) {
    this.#patienceMs = patienceMs
    this.#clock = clock
    this.#log = log
  }

  /** Watches the work of a term that has ended and that was just told to stop. */
  watch(holding: Holding): void {
    const endedAt = this.#clock.read()
    let isLate = false
    const timer = this.#clock.setTimer(this.#patienceMs, () => {
      this.#timers.delete(timer)
      if (!holding.unsettled) return
      isLate = true
      this.#say(holding, endedAt, 'work goes on although its signal has aborted')
    })
    this.#timers.add(timer)
    void holding.whenSettled.then(() => {
      timer.cancel()
      this.#timers.delete(timer)
      if (isLate) this.#say(holding, endedAt, 'work that went on after its signal had aborted has ended')
    })
  }

  /** Stops watching. */
  stop(): void {
    for (const timer of this.#timers) timer.cancel()
    this.#timers.clear()
  }

  #say({ key, token, ended }: Holding, endedAt: Reading, what: string): void {
    const forMs = Math.round(elapsedMs(endedAt, this.#clock.read()))
    const level = ended !== undefined && takenAway.has(ended) ? 'warn' : 'info'
    this.#log[level]({ lease: key, token, reason: ended, forMs }, what)
  }
}
