/**
 * What this node knows of the database server, and whether it may claim under it.
 *
 * A server that crashed, failed over or was restored may have lost acknowledged writes, among them
 * the claim of somebody who still trusts that it holds. So after a new server identity has been
 * recorded nobody claims until a whole block wait has passed on its own clock since it saw the
 * record; by then every trust window from before has ended. The first node to have waited says so in
 * the database, which spares nodes that start later the same wait.
 */

import type { ServerFacts } from '../store.js'
import type { Reading } from '../time/clock.js'
import { blockWaitMs, type Timing } from '../time/timing.js'
import { elapsedMs, surelyElapsedMs } from '../time/trust.js'

export class KnownServer {
  readonly #timing: Timing
  #longestTtlMs: number
  #longestEverMs: number
  #identity: string | undefined
  #recorded: string | undefined
  #settled = false
  #graceFrom: Reading | undefined
  #silent = false
  #clockMs = 0
  #heardAt: Reading = { monoMs: 0, bootMs: 0 }

  constructor(timing: Timing) {
    this.#timing = timing
    this.#longestTtlMs = timing.ttlMs
    this.#longestEverMs = timing.ttlMs
  }

  /**
   * The longest ttl among all nodes, this one included. Who judges others by what stands still must wait by
   * theirs, not by its own: they may be set differently, above all during a deploy.
   */
  get longestTtlMs(): number {
    return this.#longestTtlMs
  }

  /**
   * How long this node must itself have seen a block before it may claim all the same. The ttl is the longest of all, the
   * statement timeout its own: the timeout only makes up for the change in which this node made the block itself. A block
   * that another node made is seen once it is committed; from then on every heartbeat of the revoked holder brings the news.
   */
  get blockWaitMs(): number {
    return blockWaitMs({ ...this.#timing, ttlMs: this.#longestTtlMs })
  }

  /** The identity last heard of; empty before the first answer. */
  get identity(): string {
    return this.#identity ?? ''
  }

  /** The server is another one than the record says: recording that comes before anything else. */
  get mustRecord(): boolean {
    return this.#identity !== undefined && this.#identity !== this.#recorded
  }

  /**
   * This node knew a server before this one, and has not said under this one which tokens it has seen. Who recorded
   * this one may have started only after it: then nobody else knows of what was forgotten.
   */
  get mustSayTokens(): boolean {
    return this.#silent && !this.mustRecord
  }

  /** It has, under this server. */
  saidTokens(identity: string): void {
    if (identity === this.#identity) this.#silent = false
  }

  get mayClaim(): boolean {
    return this.#identity !== undefined && !this.mustRecord && this.#settled
  }

  /** What time it is by the database's clock, in whole ms since 1970: what its last answer said, counted on. */
  nowMs(now: Reading): number {
    return Math.floor(this.#clockMs + elapsedMs(this.#heardAt, now))
  }

  /** Takes in what an answer said. Answers whether the server is another one than before. */
  learn(facts: ServerFacts, receivedAt: Reading): boolean {
    const changed = this.#identity !== undefined && this.#identity !== facts.serverIdentity
    this.#silent ||= changed
    const newRecord = this.#recorded !== facts.recordedIdentity
    this.#identity = facts.serverIdentity
    this.#clockMs = facts.nowMs
    this.#heardAt = receivedAt
    this.#longestTtlMs = Math.max(this.#timing.ttlMs, facts.longestTtlMs)
    this.#longestEverMs = Math.max(this.#longestEverMs, this.#longestTtlMs)
    this.#recorded = facts.recordedIdentity
    this.#settled = facts.identitySettled
    if (this.#settled || this.mustRecord) this.#graceFrom = undefined
    else if (newRecord || this.#graceFrom === undefined) this.#graceFrom = receivedAt
    return changed
  }

  /**
   * How long until this node has waited out the grace period; undefined when there is none. The longest ttl it
   * has ever heard of counts, since the new server may have lost the row of that node. The statement timeout is its own here too:
   * every change records a new server before it does anything else, so none of another node is under way that could give trust
   * afterwards.
   */
  graceLeftMs(now: Reading): number | undefined {
    if (this.#graceFrom === undefined) return undefined
    const graceMs = blockWaitMs({ ...this.#timing, ttlMs: this.#longestEverMs })
    return Math.max(0, graceMs - surelyElapsedMs(this.#graceFrom, now))
  }
}
