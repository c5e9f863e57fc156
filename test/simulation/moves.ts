/**
 * Checks in a simulated world that a plan moves what must move, and nothing else: a coordinated worker gets a new
 * generation only for other nodes than before, and no more partitions change their node than an even plan needs.
 */
import { slotKey } from '../../plugin/core/names.js'
import type { Committed, SimulatedDatabase, StoredLease, StoredWorker } from './database.js'
import type { History } from './history.js'
import { otherChoices } from './spread.js'
import { ends } from './trail.js'

export class Moves {
  readonly #database: SimulatedDatabase
  readonly #history: History
  #workers = new Map<string, StoredWorker>()

  constructor(database: SimulatedDatabase, history: History) {
    this.#database = database
    this.#history = history
  }

  /** Checks a committed change. The history must not know of it yet. */
  committed(change: Committed): void {
    for (const worker of this.#database.workers()) {
      const before = this.#workers.get(worker.key)
      if (worker.kind === 'coordinated' && before?.kind === 'coordinated') {
        if (worker.generation !== before.generation) this.#checkGeneration(worker, before, change)
      } else if (worker.kind === 'partitioned' && change.leases.some((lease) => lease.worker === worker.key))
        this.#checkPartitions(worker, change)
    }
    this.look()
  }

  /** Takes what is stored as given, whoever has written it. */
  look(): void {
    this.#workers = new Map(this.#database.workers().map((worker) => [worker.key, worker]))
  }

  /** A new generation ends the passes of all nodes. So its nodes are others, and who leaves can or should have no share. */
  #checkGeneration(worker: StoredWorker, before: StoredWorker, { events }: Committed): void {
    const { key, generation } = worker
    const old = Array.from({ length: before.slots }, (_, slot) => this.#history.stored(slotKey(key, slot)))
    // Rows that somebody has deleted are planned anew.
    if (old.some((share) => share?.worker !== key)) return
    const rows = this.#rowsOf(key)
    const from = old.map((share) => share?.target ?? null)
    const to = rows.filter(({ slot }) => slot < worker.slots).map(({ target }) => target)
    this.#history.count('generations judged')
    if ([...from].sort().join() === [...to].sort().join())
      this.#violate(`${key} gets generation ${generation} for the same nodes: ${to.join(' and ')}`)
    const candidates = this.#candidates(worker)
    // A row keeps the cool-down that ends last. Who is to cool down beside that one stands aside in this change alone.
    const coolsUnwritten = ({ key: share }: StoredLease, node: string): boolean =>
      events.some((event) => event.subject === share && event.node === node && ends.includes(event.type))
    const standsAside = (share: StoredLease, node: string): boolean =>
      this.#coolsIn(share, node) || (this.#coolsIn(share) && coolsUnwritten(share, node))
    for (const node of from)
      if (node !== null && !to.includes(node) && candidates.includes(node))
        if (!rows.some((share) => standsAside(share, node)))
          this.#violate(`${key} gets generation ${generation} without ${node}, which is a candidate`)
  }

  /**
   * The fewest partitions that must leave a node are those that it has beyond its even part. More move only where a node
   * cools down for one of them, or where one is given to another node by itself. One that was on its way to another node
   * is no longer worked on, so it may go anywhere.
   */
  #checkPartitions(worker: StoredWorker, { events }: Committed): void {
    const rows = this.#rowsOf(worker.key)
    const held = new Map(this.#candidates(worker).map((node) => [node, 0]))
    if (held.size === 0) return
    const moved: string[] = []
    for (const row of rows) {
      const types = events.filter(({ subject }) => subject === row.key).map(({ type }) => type)
      const bearer = this.#bearerOf(row, types, (node) => held.has(node))
      const count = held.get(bearer ?? '')
      if (bearer === null || count === undefined) continue
      held.set(bearer, count + 1)
      const isChosen = types.some((type) => otherChoices.includes(type)) || this.#coolsIn(row)
      const { holder, target } = this.#history.stored(row.key) ?? {}
      const isWorkedOn = holder === bearer && target === bearer
      if (row.target !== bearer && isWorkedOn && !isChosen) moved.push(row.key)
    }
    const part = Math.floor(rows.length / held.size)
    const above = [...held.values()].filter((count) => count > part)
    const least =
      above.reduce((sum, count) => sum + count - part, 0) - Math.min(above.length, rows.length % held.size)
    this.#history.count('partitions moved', moved.length)
    if (moved.length > least)
      this.#violate(
        `${moved.join(' and ')} leave nodes that are candidates, where ${least} such moves are enough`,
      )
  }

  /**
   * The node that a partition was meant for before this change; the one that had it, where that node is no candidate any
   * more. Null for one that the change has freed.
   */
  #bearerOf(
    { key, worker }: StoredLease,
    types: readonly string[],
    isCandidate: (node: string) => boolean,
  ): string | null {
    const before = this.#history.stored(key)
    if (before === undefined || before.worker !== worker) return null
    const isFreed = before.target === before.holder && types.some((type) => ends.includes(type))
    if (isFreed) return null
    return before.target !== null && isCandidate(before.target) ? before.target : before.holder
  }

  /** Whether a node cools down by this row, now or before this change: this one, or any. */
  #coolsIn(row: StoredLease, node?: string): boolean {
    return [row, this.#history.stored(row.key)].some(
      (each) =>
        each !== undefined &&
        each.cooldownNode !== null &&
        (node === undefined || each.cooldownNode === node) &&
        (each.cooldownUntilMs ?? 0) > this.#database.nowMs,
    )
  }

  #rowsOf(worker: string): StoredLease[] {
    return this.#database.leases().filter((lease) => lease.worker === worker)
  }

  #candidates({ key, paused }: StoredWorker): string[] {
    if (paused) return []
    return this.#database
      .nodes()
      .filter(({ state, workers }) => state === 'active' && (JSON.parse(workers) as string[]).includes(key))
      .map(({ id }) => id)
  }

  #violate(what: string): void {
    this.#history.violate('P2', what)
  }
}
