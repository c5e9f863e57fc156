/**
 * What the guards inside a user's transaction have in common. The statement that holds the lease is each database's own; it is
 * a plain one of the driver's, whatever the transaction is: an application's Drizzle may be another version than
 * ours, and cannot run what ours has built.
 */
import { CoordinationError, FencedError } from '../../core/errors.js'
import type { Claim } from '../../core/store.js'
import { property } from './property.js'

/** Where the leases of a store are. */
export interface Place {
  readonly namespace: string
  readonly schema: string
}

/**
 * What an error of the holding statement may mean: the transaction is over; the tables are not in its database; it keeps to
 * an old snapshot, and what it was to hold has changed since.
 */
export type Refusal = 'ended' | 'elsewhere' | 'outdated'

/** What a transaction must be, in words, and what is said of everything else. */
export class FenceTarget {
  readonly #expected: string

  /** @param expected completes "fence() needs the open transaction that it is to guard: …". */
  constructor(expected: string) {
    this.#expected = expected
  }

  wrong(why: string, cause?: unknown): CoordinationError {
    return new CoordinationError(
      'WCO_FENCE_TARGET',
      `fence() needs the open transaction that it is to guard: ${this.#expected}. ${why}`,
      cause === undefined ? undefined : { cause },
    )
  }

  /** @param stillTrue looks at the lease from outside, for when the transaction itself can tell no more. */
  async explained(
    error: unknown,
    refusal: Refusal | undefined,
    claim: Claim,
    stillTrue: (claim: Claim) => Promise<boolean>,
  ): Promise<unknown> {
    if (error instanceof CoordinationError) return error
    if (refusal === 'ended') return this.wrong('It has ended.', error)
    if (refusal === 'elsewhere')
      return this.wrong("The coordinator's tables are not there: it is another database.", error)
    if (refusal === undefined || (await stillTrue(claim))) return error
    const fenced = new FencedError(claim.key, claim.token)
    fenced.cause = error
    return fenced
  }
}

/** What is to be found in a transaction of Drizzle's: the driver's connection, or its transaction. */
export function clientInside(transaction: unknown): unknown {
  return property(property(transaction, 'session'), 'client')
}
