/** How often one actor may do something: a bucket that fills by the minute. */
export class RateLimit {
  readonly #atOnce: number
  readonly #perMs: number
  readonly #nowMs: () => number
  readonly #buckets = new Map<string, { left: number; atMs: number }>()

  /** @param nowMs any clock that only goes forwards. */
  constructor(atOnce: number, perMinute: number, nowMs: () => number = () => performance.now()) {
    this.#atOnce = atOnce
    this.#perMs = perMinute / 60_000
    this.#nowMs = nowMs
  }

  /** Takes one, and answers 0; or takes none, and answers in how many milliseconds there will be one. */
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

  /** Full buckets are as good as none. Should none be full, who has been away longest is forgotten. */
  #forgetFull(): void {
    for (const actor of [...this.#buckets.keys()]) {
      if (this.#leftOf(actor) >= this.#atOnce) this.#buckets.delete(actor)
    }
    const [oldest] = this.#buckets.keys()
    if (this.#buckets.size >= mostActors && oldest !== undefined) this.#buckets.delete(oldest)
  }
}

/** Actors come from the application's own login, so there are few; this bounds what a mistake there costs. */
const mostActors = 1_000
