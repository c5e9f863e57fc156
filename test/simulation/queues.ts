/**
 * Checks the queues of leases by name in a simulated world: nodes are served in the order in which they joined, and none
 * loses its place except as the guarantees say.
 */
import type { Committed, SimulatedDatabase, StoredLease } from './database.js'
import type { History } from './history.js'

export class Queues {
  readonly #database: SimulatedDatabase
  readonly #history: History

  constructor(database: SimulatedDatabase, history: History) {
    this.#database = database
    this.#history = history
  }

  /** Checks a committed change. The history must not know of it yet. */
  committed(change: Committed): void {
    for (const lease of change.leases) {
      const before = this.#history.stored(lease.key)
      if (lease.worker !== null || before === undefined || before.worker !== null) continue
      this.#checkPlaces(lease, before, change)
      this.#checkTurn(lease, before, change)
    }
  }

  /** Who waits stays where it is, unless it is next, is gone, or waits no longer. Others come behind. */
  #checkPlaces(now: StoredLease, before: StoredLease, { by }: Committed): void {
    // Who was next goes to the end when it is passed over, also where it still has a place because it was chosen.
    const earlier = waitersOf(before).filter((node) => node !== before.target)
    const later = waitersOf(now)
    const left = earlier.filter((node) => !later.includes(node))
    for (const node of left)
      if (node !== now.target && node !== now.holder && node !== by && this.#stateOf(node) !== 'gone')
        this.#violate(now, before, `${node} has lost its place`)
    const kept = later.filter((node) => earlier.includes(node))
    if (kept.join() !== earlier.filter((node) => later.includes(node)).join())
      this.#violate(now, before, 'the order has changed')
  }

  /** Who is next is the first in the queue that is active. Who was next and has not claimed waits again. */
  #checkTurn(now: StoredLease, before: StoredLease, { by, events }: Committed): void {
    const { key, target } = now
    if (target === before.target) return
    const queue = waitersOf(before)
    const isChosen = events.some(({ type, subject }) => type === 'lease.transferred' && subject === key)
    const place = target === null ? -1 : queue.indexOf(target)
    const isAhead = (node: string): boolean => node !== before.target && this.#stateOf(node) === 'active'
    const ahead = (place < 0 ? queue : queue.slice(0, place)).filter(isAhead)
    if (target !== null && target !== now.holder && target !== before.holder && !isChosen && ahead.length > 0)
      this.#violate(now, before, `${target} is served before ${ahead.join(' and ')}`)
    const last = before.target
    if (last === null || [before.holder, now.holder, by].includes(last) || this.#stateOf(last) === 'gone')
      return
    const waiting = waitersOf(now)
    if (!waiting.includes(last)) this.#violate(now, before, `${last} was next and has lost its place`)
    else if (this.#stateOf(last) === 'draining' && !queue.includes(last) && waiting.indexOf(last) > 0)
      this.#violate(now, before, `${last} was next, drains, and has not kept its place`)
  }

  #stateOf(node: string): string {
    return this.#database.nodes().find(({ id }) => id === node)?.state ?? 'gone'
  }

  #violate(now: StoredLease, before: StoredLease, what: string): void {
    this.#history.violate('Q1', `${now.key}: ${what}: ${shown(before)} became ${shown(now)}`)
  }
}

function waitersOf({ waiters }: StoredLease): readonly string[] {
  return JSON.parse(waiters) as string[]
}

function shown({ holder, target, waiters }: StoredLease): string {
  return JSON.stringify({ holder, target, waiters })
}
