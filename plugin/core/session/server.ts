/**
 * What this node knows of the database server, and whether it may claim under it.
 *
 * A server that crashed, failed over or was restored may have lost acknowledged writes, among them the claim of a node
 * that still trusts. So after a new server identity has been recorded, no node claims until it has waited for a whole
 * block wait by its own clocks since it saw the record; by then every trust window from before has ended. The first
 * node to have waited records that, which spares nodes that start later the same wait.
 */

import { isRecordOf } from '../changes/server-record.js'
import type { ServerFacts } from '../store.js'
import type { Reading } from '../time/clock.js'
import { blockWaitMs, type Timing } from '../time/timing.js'
import { elapsedMs, surelyElapsedMs } from '../time/trust.js'

export class KnownServer {
  readonly #timing: Timing
  #longestTtlMs: number
  #longestEverMs: number
  #identity: string | undefined
  #recorded = ''
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
   * The longest ttl among all nodes, this one included. A node that judges others must wait by their ttl, not its own:
   * they may be configured differently, above all during a deploy.
   */
  get longestTtlMs(): number {
    return this.#longestTtlMs
  }

  /**
   * How long this node must itself have seen a block before it may claim in spite of it.
   *
   * The ttl is the longest of all; the statement timeout is its own, because it only allows for a change in which this
   * node made the block. A block that another node made is seen once it is committed, and from then on every heartbeat
   * of the revoked holder brings the news.
   */
  get blockWaitMs(): number {
    return blockWaitMs({ ...this.#timing, ttlMs: this.#longestTtlMs })
  }

  /** The server identity last heard of; empty before the first answer. */
  get identity(): string {
    return this.#identity ?? ''
  }

  /** The record last heard of: of this server or an earlier one; empty before the first answer. */
  get recorded(): string {
    return this.#recorded
  }

  /** Whether the server is not the recorded one. Recording it comes before anything else. */
  get mustRecord(): boolean {
    return this.#identity !== undefined && !isRecordOf(this.#recorded, this.#identity)
  }

  /**
   * Whether this node knew an earlier server and has not yet reported, under the present one, which tokens it has seen.
   * The node that recorded the present server may have started later and then cannot know what was forgotten.
   */
  get mustSayTokens(): boolean {
    return this.#silent && !this.mustRecord
  }

  /** Notes that this node has reported its tokens under this server. */
  saidTokens(identity: string): void {
    if (identity === this.#identity) this.#silent = false
  }

  get mayClaim(): boolean {
    return this.#identity !== undefined && !this.mustRecord && this.#settled
  }

  /** Returns the time by the database's clock, in whole ms since 1970: that of the last answer, counted on. */
  nowMs(now: Reading): number {
    return Math.floor(this.#clockMs + elapsedMs(this.#heardAt, now))
  }

  /** Takes in the facts of an answer. Returns whether the server is another one than before. */
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
   * Returns how long until this node has waited out the grace period, in ms; undefined when there is none.
   *
   * The longest ttl it has ever heard of counts, because the new server may have lost the row of that node. The
   * statement timeout is its own here too: every change first records a new server, so no change of another node that
   * is under way can give trust afterwards.
   */
  graceLeftMs(now: Reading): number | undefined {
    if (this.#graceFrom === undefined) return undefined
    const graceMs = blockWaitMs({ ...this.#timing, ttlMs: this.#longestEverMs })
    return Math.max(0, graceMs - surelyElapsedMs(this.#graceFrom, now))
  }
}
