/** How much of what this node wishes goes into its next change, and when that change is made. */
import type { Wishes } from '../changes/wishes.js'
import type { Reading } from '../time/clock.js'
import { elapsedMs } from '../time/trust.js'

/**
 * How many wishes go into one change. A change that exceeds its time limit does nothing, however often it is made; so
 * the number is halved after a failed change and doubled after a successful one.
 */
export const wishesAtOnce = { least: 32, most: 512 }

/**
 * How long until wishes that a change left undone are made again, for example because of a fence. News does not shorten
 * it.
 */
const undoneRetryMs = 250

export class Portions {
  #most = wishesAtOnce.most
  #lastUndone = ''
  #lastTriedAt: Reading = { monoMs: 0, bootMs: 0 }

  /** Returns the wishes for a change to make now; or how long it must wait, because the last one left the same undone. */
  next(all: Wishes, now: Reading): Wishes | { readonly waitMs: number } {
    const wishes = portionOf(all, this.#most)
    const undone = JSON.stringify(wishes)
    const waitMs = undone === this.#lastUndone ? undoneRetryMs - elapsedMs(this.#lastTriedAt, now) : 0
    if (waitMs > 0) return { waitMs }
    this.#lastUndone = undone
    this.#lastTriedAt = now
    return wishes
  }

  /** Notes that no wish is left. */
  nothingLeft(): void {
    this.#lastUndone = ''
  }

  /** Notes that the change was made. */
  succeeded(): void {
    this.#most = Math.min(wishesAtOnce.most, this.#most * 2)
  }

  /** Notes that a change failed, or what was to be read for it. */
  failed(): void {
    this.#lastUndone = ''
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
