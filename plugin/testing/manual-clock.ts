/**
 * A clock that a test moves by hand.
 *
 * Nothing fires by itself. {@link ManualClock.advance} moves time from timer to timer, lets everything that each
 * timer set off come to rest, and only then goes on. A test of a takeover therefore takes milliseconds and always
 * sees the same order.
 */
import { setImmediate as freshTurn } from 'node:timers'
import type { Clock, Reading, Timer } from '../core/time/clock.js'

interface Entry {
  readonly atMs: number
  readonly order: number
  readonly fire: () => void
}

export class ManualClock implements Clock {
  #nowMs = 1_000_000
  #suspendedMs = 0
  #order = 0
  #ids = 0
  readonly #entries = new Set<Entry>()
  readonly #random: () => number

  /** @param random supplies the jitter, a number in [0, 1). Default: always 0.5. */
  constructor(random: () => number = () => 0.5) {
    this.#random = random
  }

  /** The time of the monotonic clock, in ms. */
  get nowMs(): number {
    return this.#nowMs
  }

  read(): Reading {
    return { monoMs: this.#nowMs, bootMs: this.#nowMs + this.#suspendedMs }
  }

  setTimer(delayMs: number, fire: () => void): Timer {
    const entry = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, fire }
    this.#entries.add(entry)
    return { cancel: () => void this.#entries.delete(entry) }
  }

  random(): number {
    return this.#random()
  }

  uuid(): string {
    this.#ids += 1
    return `00000000-0000-4000-8000-${String(this.#ids).padStart(12, '0')}`
  }

  /** The time until the next timer fires, in ms; undefined when none is set. */
  get dueInMs(): number | undefined {
    const next = this.#next(Number.POSITIVE_INFINITY)
    return next === undefined ? undefined : Math.max(0, next.atMs - this.#nowMs)
  }

  /**
   * Fires the timers that are due now, but none that these set. For clocks that are moved together, by {@link stall}.
   */
  fireDue(): void {
    const lastOrder = this.#order
    for (let next = this.#next(this.#nowMs, lastOrder); next; next = this.#next(this.#nowMs, lastOrder)) {
      this.#entries.delete(next)
      next.fire()
    }
  }

  /** Moves on by `ms`, and fires each timer that comes due on the way at its time. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms
    await comeToRest()
    for (let next = this.#next(endMs); next !== undefined; next = this.#next(endMs)) {
      this.#nowMs = Math.max(this.#nowMs, next.atMs)
      this.#entries.delete(next)
      next.fire()
      await comeToRest()
    }
    this.#nowMs = endMs
  }

  /** Moves on step by step until a condition holds. Throws when it does not hold within `limitMs`. */
  async advanceUntil(
    condition: () => boolean | Promise<boolean>,
    limitMs: number,
    stepMs = 10,
  ): Promise<void> {
    const endMs = this.#nowMs + limitMs
    await comeToRest()
    while (!(await condition())) {
      if (this.#nowMs >= endMs)
        throw new Error(`what was waited for did not come within ${limitMs} ms of the clock`)
      await this.advance(stepMs)
    }
  }

  /** Simulates a process that stands still while time passes: timers fire late, all of them after the stall. */
  stall(ms: number): void {
    this.#nowMs += ms
  }

  /** Simulates a suspended machine: the monotonic clock stands still, and the boot-time clock runs on. */
  suspend(ms: number): void {
    this.#suspendedMs += ms
  }

  /** Returns the first timer that fires by `endMs`, among those set before the one numbered `beforeOrder`. */
  #next(endMs: number, beforeOrder = Number.POSITIVE_INFINITY): Entry | undefined {
    let next: Entry | undefined
    for (const entry of this.#entries) {
      if (entry.atMs > endMs || entry.order >= beforeOrder) continue
      if (
        next === undefined ||
        entry.atMs < next.atMs ||
        (entry.atMs === next.atMs && entry.order < next.order)
      ) {
        next = entry
      }
    }
    return next
  }
}

/**
 * Resolves when everything that waits only for promises has gone as far as it can. Fake timers of a test runner replace
 * the global `setImmediate`, with which this would wait for them for ever.
 */
export async function comeToRest(): Promise<void> {
  for (let round = 0; round < 3; round++) await new Promise((resolve) => freshTurn(resolve))
}
