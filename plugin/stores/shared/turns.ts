/** One after the other, first come first. */
import { StoreError } from '../../core/errors.js'

/** Gives out turns, one at a time, in the order they were asked for. */
export class Turns {
  #taken = false
  readonly #waiting: Array<() => void> = []

  /**
   * Answers, when it is the caller's turn, the function that ends it.
   *
   * @throws StoreError when that is not before `deadlineMs` by `performance.now()`.
   */
  async take(deadlineMs: number): Promise<() => void> {
    if (this.#taken) await this.#wait(deadlineMs)
    this.#taken = true
    return () => this.#pass()
  }

  #wait(deadlineMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const begin = (): void => {
        clearTimeout(timer)
        resolve()
      }
      const giveUp = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(begin), 1)
        reject(
          new StoreError('Another transaction of this process took longer than statementTimeoutMs.', 'none'),
        )
      }
      const timer = Number.isFinite(deadlineMs)
        ? setTimeout(giveUp, Math.max(0, deadlineMs - performance.now()))
        : undefined
      this.#waiting.push(begin)
    })
  }

  /** The turn passes on at once: nobody who asks in between can slip in. */
  #pass(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#taken = false
    else next()
  }
}
