/**
 * The parts of a fence that all dialects share. The statement that holds the lease differs by database. It is sent as
 * a plain statement of the driver, even in a Drizzle transaction: the application's Drizzle may be another version
 * than ours, and cannot run a query that ours has built.
 */
import { CoordinationError, FencedError } from '../../core/errors.js'
import type { Claim } from '../../core/store.js'
import { property } from './property.js'

/** Where a store keeps its leases. */
export interface Place {
  readonly namespace: string
  readonly schema: string
}

/**
 * What an error of the holding statement can mean: the transaction has ended; the tables are not in its database; or
 * it reads an old snapshot, and the row to hold has changed since.
 */
export type Refusal = 'ended' | 'elsewhere' | 'outdated'

/** What a transaction must be, in words, and the errors for everything else. */
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

  /**
   * Returns the error to throw in place of `error`.
   *
   * @param stillTrue checks the claim from outside, for when the transaction itself can no longer tell. If it fails, it
   *   hides nothing: an application that sees the database's own error makes its transaction again.
   */
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
    if (refusal === undefined || (await stillTrue(claim).catch(() => true))) return error
    const fenced = new FencedError(claim.key, claim.token)
    fenced.cause = error
    return fenced
  }
}

/** Returns what a Drizzle transaction runs on: the driver's connection, or the driver's transaction. */
export function clientInside(transaction: unknown): unknown {
  return property(property(transaction, 'session'), 'client')
}
