/** Limits how often each actor may do something: one bucket per actor, refilled over time. */
export class RateLimit {
  readonly #atOnce: number
  readonly #perMs: number
  readonly #nowMs: () => number
  readonly #buckets = new Map<string, { left: number; atMs: number }>()

  /** @param nowMs a clock that never goes backwards, in milliseconds. */
  constructor(atOnce: number, perMinute: number, nowMs: () => number = () => performance.now()) {
    this.#atOnce = atOnce
    this.#perMs = perMinute / 60_000
    this.#nowMs = nowMs
  }

  /** Takes one unit and returns 0, or takes none and returns the number of milliseconds until one is available. */
  take(actor: string): number {
    const left = this.#leftOf(actor)
    if (left < 1) return Math.ceil((1 - left) / this.#perMs)
    if (this.#buckets.size >= mostActors) this.#forgetFull()
    this.#buckets.delete(actor)
    this.#buckets.set(actor, { left: left - 1, atMs: this.#nowMs() })
    return 0
  }

  #leftOf(actor: string): number {
    const bucket = this.#buckets.get(actor)
    if (bucket === undefined) return this.#atOnce
    return Math.min(this.#atOnce, bucket.left + (this.#nowMs() - bucket.atMs) * this.#perMs)
  }

  /**
   * Drops full buckets, which are equivalent to none. When none is full, drops the bucket that has been idle longest.
   */
  #forgetFull(): void {
    for (const actor of [...this.#buckets.keys()]) {
      if (this.#leftOf(actor) >= this.#atOnce) this.#buckets.delete(actor)
    }
    const [oldest] = this.#buckets.keys()
    if (this.#buckets.size >= mostActors && oldest !== undefined) this.#buckets.delete(oldest)
  }
}

/**
 * Actors come from the application's own login, so there are few of them. This bounds the damage of a mistake there.
 */
const mostActors = 1_000
