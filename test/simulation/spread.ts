/**
 * Checks in a simulated world that single workers spread over the nodes: each free lease is given to the candidate that
 * has the fewest leases.
 */
import type { Committed, SimulatedDatabase, StoredLease } from './database.js'
import type { History } from './history.js'

/** The events of targets that are chosen in another way. */
export const otherChoices: readonly string[] = ['lease.transferred', 'target.passed-over']

/** How the leases that a node has came to be so in one change. */
interface Moves {
  /** Leases that it has since this change, other than those of single workers for which it was chosen. */
  gained: number
  /** Leases that it had before, other than those of single workers that it has given back or lost. */
  lost: number
}

export class Spread {
  readonly #database: SimulatedDatabase
  readonly #history: History

  constructor(database: SimulatedDatabase, history: History) {
    this.#database = database
    this.#history = history
  }

  /** Checks a committed change. The history must not know of it yet. */
  committed({ leases, events }: Committed): void {
    const chosen = new Map<string, StoredLease[]>()
    for (const lease of leases) {
      const { key, target } = lease
      if (target === null || !this.#isNamedAnew(lease)) continue
      if (events.some(({ type, subject }) => subject === key && otherChoices.includes(type))) continue
      chosen.set(target, [...(chosen.get(target) ?? []), lease])
    }
    if (chosen.size === 0) return
    const moves = this.#movesIn(leases, new Set([...chosen.values()].flat()))
    const loads = new Map<string, number>()
    for (const lease of this.#database.leases()) count(loads, bearerOf(lease))
    for (const [target, given] of chosen) this.#check(target, given, loads, moves)
  }

  /**
   * How many leases a node had when a target was chosen is not known exactly: the change may have planned other leases
   * before and after. So this is about the last of those leases that the other node could have been given instead.
   */
  #check(
    target: string,
    given: readonly StoredLease[],
    loads: ReadonlyMap<string, number>,
    moves: ReadonlyMap<string, Moves>,
  ): void {
    this.#history.count('single workers spread', given.length)
    for (const { id, state, workers } of this.#database.nodes()) {
      if (id === target || state !== 'active') continue
      const own = JSON.parse(workers) as string[]
      const alike = given.filter(
        (lease) => own.includes(lease.key) && !this.#standsAside(lease, [target, id]),
      )
      if (alike.length === 0) continue
      const later = 1 + given.length - alike.length + (moves.get(target)?.gained ?? 0)
      const least = (loads.get(target) ?? 0) - later
      const most = (loads.get(id) ?? 0) + (moves.get(id)?.lost ?? 0)
      if (most < least)
        this.#history.violate(
          'P1',
          `${alike[0]?.key} is meant for ${target}, which had ${least} others or more, and not for ${id} with ${most}`,
        )
    }
  }

  /** Whether one of these nodes cools down for the lease, or did before. */
  #standsAside(lease: StoredLease, nodes: readonly string[]): boolean {
    const before = this.#history.stored(lease.key)
    const aside = [lease.cooldownNode, before?.cooldownNode, before && unrememberedIn(lease, before)]
    return nodes.some((node) => aside.includes(node))
  }

  /** Whether it is the lease of a single worker, and this change has chosen another node than its holder as its target. */
  #isNamedAnew({ key, worker, target }: StoredLease): boolean {
    const before = this.#history.stored(key)
    if (key !== worker || before === undefined) return false
    return ![before.holder, bearerOf(before)].includes(target)
  }

  #movesIn(leases: readonly StoredLease[], chosen: ReadonlySet<StoredLease>): ReadonlyMap<string, Moves> {
    const moves = new Map<string, Moves>()
    const of = (node: string): Moves => {
      const known = moves.get(node) ?? { gained: 0, lost: 0 }
      moves.set(node, known)
      return known
    }
    for (const lease of leases) {
      const before = this.#history.stored(lease.key)
      const [from, to] = [before && bearerOf(before), bearerOf(lease)]
      if (from === to) continue
      const isGivenBack = lease.key === lease.worker && before?.holder === from && lease.holder !== from
      if (from && !isGivenBack) of(from).lost += 1
      // Between two targets it counts for its holder.
      if (before?.holder && before.holder !== from && before.holder === lease.holder)
        of(before.holder).lost += 1
      if (to !== null && !chosen.has(lease)) of(to).gained += 1
    }
    return moves
  }
}

/** The node that has given back a lease whose row goes on to remember the cool-down of another node. */
export function unrememberedIn(lease: StoredLease, before: StoredLease): string | undefined {
  const { holder, cooldownNode } = before
  if (holder === null || lease.holder === holder) return undefined
  return cooldownNode !== null && cooldownNode !== holder && lease.cooldownNode === cooldownNode
    ? holder
    : undefined
}

/** The node for which a lease counts: the one that is meant to have it, or the one that has it. */
function bearerOf({ target, holder }: StoredLease): string | null {
  return target ?? holder
}

function count(loads: Map<string, number>, node: string | null): void {
  if (node !== null) loads.set(node, (loads.get(node) ?? 0) + 1)
}
