/** How much of what this node wishes goes into its next change, and when that change is made. */
import type { Wishes } from '../changes/wishes.js'
import type { Reading } from '../time/clock.js'
import { lookEveryMs, type Timing } from '../time/timing.js'
import { elapsedMs } from '../time/trust.js'

/**
 * How many wishes go into one change. A change that exceeds its time limit does nothing, however often it is made; so
 * the number is halved after a failed change and doubled after a successful one.
 */
export const wishesAtOnce = { least: 32, most: 512 }

/**
 * The shortest pause before wishes that a change left undone are made again, for example because of a fence. News does
 * not shorten it.
 */
const undoneRetryMs = 250

export class Portions {
  readonly #longestPauseMs: number
  /** How long pauses stay short: until the watchers have seen what keeps this node from claiming. */
  readonly #unseenMs: number
  #most = wishesAtOnce.most
  /** What was sent last, and when it was for the first and for the last time. */
  #sent: { what: string; firstAt: Reading; lastAt: Reading } | undefined

  constructor(timing: Timing) {
    this.#longestPauseMs = timing.heartbeatMs
    this.#unseenMs = timing.claimTimeoutMs + lookEveryMs(timing)
  }

  /**
   * Returns the wishes for a change to make now; or how long it must wait, because the last ones left the same undone.
   * That is a quarter of how long they have done so since a watcher must have seen it, so that what is no longer in the
   * way delays them little. Before that, a target that tried again late would be taken for one that hangs.
   */
  next(all: Wishes, now: Reading): Wishes | { readonly waitMs: number } {
    const wishes = portionOf(all, this.#most)
    const what = JSON.stringify(wishes)
    if (this.#sent?.what !== what) {
      this.#sent = { what, firstAt: now, lastAt: now }
      return wishes
    }
    const { firstAt, lastAt } = this.#sent
    const knownForMs = elapsedMs(firstAt, lastAt) - this.#unseenMs
    const pauseMs = Math.min(this.#longestPauseMs, Math.max(undoneRetryMs, knownForMs / 4))
    const waitMs = pauseMs - elapsedMs(lastAt, now)
    if (waitMs > 0) return { waitMs }
    this.#sent.lastAt = now
    return wishes
  }

  /** Notes that no wish is left. */
  nothingLeft(): void {
    this.#sent = undefined
  }

  /** Makes pauses short again, because something has changed or somebody else asks for the same. */
  hurry(): void {
    if (this.#sent !== undefined) this.#sent.firstAt = this.#sent.lastAt
  }

  /** Notes that the change was made. */
  succeeded(): void {
    this.#most = Math.min(wishesAtOnce.most, this.#most * 2)
  }

  /** Notes that a change failed, or what was to be read for it. */
  failed(): void {
    this.#sent = undefined
    this.#most = Math.max(wishesAtOnce.least, this.#most / 2)
  }
}

/**
 * Returns at most `most` of these wishes, in the order in which other nodes wait for them. The next comparison repeats
 * the rest; what is asked for only now and then comes again at its next turn.
 */
function portionOf(wishes: Wishes, most: number): Wishes {
  let left = most
  const some = <T>(list: readonly T[]): readonly T[] => {
    const taken = list.slice(0, left)
    left -= taken.length
    return taken
  }
  return {
    ...wishes,
    acknowledge: some(wishes.acknowledge),
    release: some(wishes.release),
    revoke: some(wishes.revoke),
    withdraw: some(wishes.withdraw),
    claim: some(wishes.claim),
    acquire: some(wishes.acquire),
    replan: some(wishes.replan),
  }
}
