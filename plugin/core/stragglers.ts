/**
 * What the log says of work that goes on although its signal has aborted. The lease may be somebody else's by then, so
 * whoever reads the log must hear of it, and when it is over.
 */
import type { Clock, Reading, Timer } from './clock.js'
import type { Holding } from './lease.js'
import type { Log } from './log.js'
import { elapsedMs } from './trust.js'

export class Stragglers {
  readonly #clock: Clock
  readonly #log: Log
  readonly #patienceMs: number
  readonly #timers = new Set<Timer>()

  /** @param patienceMs for how long after its signal work may go on without a word. */
  constructor(patienceMs: number, clock: Clock, log: Log) {
    this.#patienceMs = patienceMs
    this.#clock = clock
    this.#log = log
  }

  /** A term has ended: its work has just been told to stop. */
  watch(holding: Holding): void {
    const endedAt = this.#clock.read()
    let isLate = false
    const timer = this.#clock.setTimer(this.#patienceMs, () => {
      this.#timers.delete(timer)
      isLate = true
      this.#log.warn(this.#facts(holding, endedAt), 'work goes on although its signal has aborted')
    })
    this.#timers.add(timer)
    void holding.whenSettled.then(() => {
      timer.cancel()
      this.#timers.delete(timer)
      if (isLate)
        this.#log.warn(this.#facts(holding, endedAt), 'work that went on after its signal has ended')
    })
  }

  /** Nothing is watched any more. */
  stop(): void {
    for (const timer of this.#timers) timer.cancel()
    this.#timers.clear()
  }

  #facts({ key, token, ended }: Holding, endedAt: Reading): object {
    return { lease: key, token, reason: ended, forMs: Math.round(elapsedMs(endedAt, this.#clock.read())) }
  }
}
