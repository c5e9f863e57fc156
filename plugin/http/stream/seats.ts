/** How many may watch the stream at a time. */

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
   * Answers a function that gives the seat back; harmless when repeated. Where nobody was asked for a name, all
   * viewers together have the seats there are.
   *
   * @throws HttpProblem 429 for one who has too many, 503 when there are none left.
   */
  take(actor: string | undefined): () => void {
    const { streams, streamsPerActor } = this.#limits
    const own = this.#taken.get(actor) ?? 0
    if (actor !== undefined && own >= streamsPerActor)
      throw new HttpProblem(
        'too-many-requests',
        `Each may watch ${streamsPerActor} streams at a time.`,
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

/** For who is turned away. */
export const comeAgain = { retryAfter: 10 }
