/**
 * How a watcher sees that something stands still, and when it may judge.
 *
 * No node believes another machine's clock, so nothing ever "expires". A watcher looks again and again; what has not
 * changed between an early look and a late one has stood still for at least the time between them, by the watcher's own
 * clocks.
 */
import type { Reading } from '../time/clock.js'
import { elapsedMs, surelyElapsedMs } from '../time/trust.js'

/** How a {@link Standstill} watches. */
export interface StandstillOptions {
  /** How long a state must be seen unchanged, in ms. A function is asked at each look, for each id. */
  readonly waitMs: number | ((id: string) => number)
  /** A gap between two looks longer than this, in ms, makes everything start afresh. */
  readonly staleAfterMs: number
}

/**
 * Observes states standing still, by this node's own clocks: beats of nodes, targets that do not claim, holders that do
 * not hand over. States are compared by `Object.is`.
 */
export class Standstill<State> {
  readonly #waitMsFor: (id: string) => number
  readonly #staleAfterMs: number
  #watched: ReadonlyMap<string, Watched<State>> = new Map()
  #lookedAt: Reading | undefined

  constructor({ waitMs, staleAfterMs }: StandstillOptions) {
    this.#waitMsFor = typeof waitMs === 'function' ? waitMs : () => waitMs
    this.#staleAfterMs = staleAfterMs
  }

  /**
   * Takes in one look: what was seen, the reading taken before the request was sent, and the one taken after its answer
   * came. Returns the ids that have stood still for their wait, in the order seen, at this look and at every further
   * one that shows the same. Forgets what was not seen.
   *
   * The first look that showed a state may have read it as late as when its answer came, this one as early as when it
   * was sent. Only the time in between is certain, and of that the smaller of the two clocks' differences (see
   * {@link surelyElapsedMs}).
   *
   * After a gap longer than `staleAfterMs`, everything starts afresh with this look. A gap means that this node was
   * late or its looks failed; the same cause may have held up the nodes it watches, so they get time to show themselves
   * before they are judged. Here the larger difference counts, so that a suspension is noticed, and gaps are taken from
   * answer to answer, so that no instant goes uncounted.
   */
  observe(seen: ReadonlyMap<string, State>, sentAt: Reading, receivedAt: Reading): readonly string[] {
    if (this.#isLate(receivedAt)) this.reset()
    this.#lookedAt = receivedAt
    const watched = new Map<string, Watched<State>>()
    for (const [id, state] of seen) watched.set(id, this.#look(id, state, sentAt, receivedAt))
    this.#watched = watched
    return [...watched].filter(([, { complete }]) => complete).map(([id]) => id)
  }

  /**
   * Returns how long until a look sent then could complete the earliest wait, as seen from `now`: whole milliseconds, 0
   * when a look sent now could, undefined when no wait is running. Complete waits, whose ids {@link observe} has
   * returned, do not count: otherwise a caller that sleeps by this number would not sleep at all while one of them
   * cannot be dealt with.
   */
  dueInMs(now: Reading): number | undefined {
    let dueInMs: number | undefined
    for (const { complete, waitMs, since } of this.#watched.values()) {
      if (complete) continue
      const leftMs = Math.max(0, Math.ceil(waitMs - surelyElapsedMs(since, now)))
      dueInMs = Math.min(leftMs, dueInMs ?? leftMs)
    }
    return dueInMs
  }

  /** How many ids the latest look showed. */
  get size(): number {
    return this.#watched.size
  }

  /** Forgets everything: the next look is the first. */
  reset(): void {
    this.#watched = new Map()
    this.#lookedAt = undefined
  }

  #isLate(receivedAt: Reading): boolean {
    return this.#lookedAt !== undefined && elapsedMs(this.#lookedAt, receivedAt) > this.#staleAfterMs
  }

  #look(id: string, state: State, sentAt: Reading, receivedAt: Reading): Watched<State> {
    const before = this.#watched.get(id)
    const since = before !== undefined && Object.is(before.state, state) ? before.since : receivedAt
    const waitMs = this.#waitMsFor(id)
    return { state, since, waitMs, complete: surelyElapsedMs(since, sentAt) >= waitMs }
  }
}

/** One id under watch. */
interface Watched<State> {
  readonly state: State
  /** When the answer came that first showed it in this state. */
  readonly since: Reading
  readonly waitMs: number
  /** Whether the latest look found that it has stood still for its wait. */
  readonly complete: boolean
}
