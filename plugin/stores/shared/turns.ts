/** Turns: one at a time, first come, first served. */
import { StoreError } from '../../core/errors.js'

/** Gives out turns, one at a time, in the order in which they were requested. */
export class Turns {
  #taken = false
  readonly #waiting: Array<() => void> = []

  /**
   * Resolves, when it is the caller's turn, to the function that ends the turn.
   *
   * @throws StoreError when the turn does not come before `deadlineMs`, measured by `performance.now()`.
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

  /** Hands the turn over at once, so that no request made in between can overtake. */
  #pass(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#taken = false
    else next()
  }
}
