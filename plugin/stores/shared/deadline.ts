/** The moment by which a verb of a store must have ended. */
export class Deadline {
  readonly #endsAtMs: number

  constructor(readonly limitMs: number) {
    this.#endsAtMs = performance.now() + limitMs
  }

  get remainingMs(): number {
    return Math.max(0, this.#endsAtMs - performance.now())
  }

  /** Settles as `work` does, or rejects with `late()` once the deadline has passed. */
  async hold<T>(work: Promise<T>, late: () => Error): Promise<T> {
    let timer: NodeJS.Timeout | undefined
    const limit = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(late()), this.remainingMs)
    })
    try {
      return await Promise.race([work, limit])
    } finally {
      clearTimeout(timer)
    }
  }
}
