/** Limits how many viewers may watch the stream at the same time. */

import { HttpProblem } from '../http-problems.js'
import type { Limits } from '../limits.js'

export class Seats {
  readonly #limits: Pick<Limits, 'streams' | 'streamsPerActor'>
  readonly #taken = new Map<string | undefined, number>()
  #all = 0

  constructor(limits: Pick<Limits, 'streams' | 'streamsPerActor'>) {
    this.#limits = limits
  }

  /**
   * Takes a seat and returns a function that gives it back; further calls of that function have no effect. Viewers
   * without a name are limited only by the total.
   *
   * @throws HttpProblem 429 when the actor has too many, 503 when no seat is left.
   */
  take(actor: string | undefined): () => void {
    const { streams, streamsPerActor } = this.#limits
    const own = this.#taken.get(actor) ?? 0
    if (actor !== undefined && own >= streamsPerActor)
      throw new HttpProblem(
        'too-many-requests',
        `Each actor may watch ${streamsPerActor} streams at a time.`,
        comeAgain,
      )
    if (this.#all >= streams)
      throw new HttpProblem('unavailable', `This process serves ${streams} streams at a time.`, comeAgain)
    this.#count(actor, 1)
    let seated = true
    return () => {
      if (seated) this.#count(actor, -1)
      seated = false
    }
  }

  #count(actor: string | undefined, by: number): void {
    const own = (this.#taken.get(actor) ?? 0) + by
    this.#all += by
    if (own === 0) this.#taken.delete(actor)
    else this.#taken.set(actor, own)
  }
}

/** For viewers that are turned away. */
export const comeAgain = { retryAfter: 10 }
