/**
 * Looks in a simulated world for what should be held, joined, buried or spread, and is not. The rows say what should be;
 * the history says who acts.
 */
import type { Commits } from './commits.js'
import type { SimulatedDatabase, StoredLease, StoredNode, StoredWorker } from './database.js'
import type { History } from './history.js'
import { hasLayout, type Registered } from './layouts.js'
import type { LifeOnSite, Scene } from './scene.js'

/** What should be held, joined or buried, and is not. */
export interface Unserved {
  readonly key: string
  readonly single: boolean
  readonly why: string
  /** For how long it may be so before it counts, in ms; default: a ttl. */
  readonly toleratedMs?: number
}

export class Inspection {
  readonly #scene: Scene
  readonly #database: SimulatedDatabase
  readonly #history: History
  readonly #commits: Commits
  /** The nodes whose rows somebody has deleted by hand. */
  readonly #deletedNodes = new Set<string>()

  constructor(scene: Scene, commits: Commits) {
    this.#scene = scene
    this.#database = scene.database
    this.#history = scene.history
    this.#commits = commits
  }

  /** Notes that somebody has deleted the row of a node by hand. */
  deletedNode(id: string): void {
    this.#deletedNodes.add(id)
  }

  /** Returns the leases that a node could hold and none holds, processes that have not joined, and nodes not buried. */
  unserved(): Unserved[] {
    const ids = new Map(this.#scene.living().map((life) => [life.coordinator.nodeId, life]))
    const nodes = this.#database.nodes()
    const leases = this.#database.leases()
    const found: Unserved[] = []
    for (const life of this.#scene.living()) {
      const node = nodes.find(({ id }) => id === life.coordinator.nodeId)
      if (node !== undefined) found.push(...this.#unregistered(life, node))
      else if (!life.registered.some((each) => this.#isContradicted(each, undefined)))
        found.push({ key: life.process.label, single: false, why: 'it has not joined' })
    }
    // When the last nodes have closed without being heard, no node is left to bury them.
    for (const node of ids.size === 0 ? [] : nodes)
      if (!ids.has(node.id)) found.push({ key: node.id, single: false, why: 'it is not buried' })
    for (const worker of this.#database.workers()) {
      const candidates = nodes.filter(
        (node) => ids.has(node.id) && (JSON.parse(node.workers) as string[]).includes(worker.key),
      )
      if (worker.paused || candidates.length === 0) continue
      const single = worker.kind === 'single'
      const slots = leases.filter((lease) => lease.worker === worker.key && lease.slot < worker.slots)
      if (slots.length < worker.slots || worker.slots === 0)
        found.push({ key: worker.key, single, why: `it has ${slots.length} of ${worker.slots} leases` })
      if (worker.key === 'global/ticks') found.push(...this.#outOfDate(worker, slots, ids))
      for (const lease of slots) {
        const held =
          lease.holder !== null && ids.has(lease.holder) && this.#history.isTrusted(lease.key, lease.token)
        if (held && (worker.kind !== 'coordinated' || lease.generation === worker.generation)) continue
        found.push({ key: lease.key, single, why: JSON.stringify(lease) })
      }
      found.push(
        ...this.#uneven(
          worker,
          slots,
          candidates.map(({ id }) => id),
        ),
      )
    }
    if (ids.size > 0) found.push(...this.#unwatched(nodes), ...this.#withheld(leases, ids))
    return found
  }

  /**
   * Returns the worker when its partitions are not balanced to within one, or its shares are not one for each candidate.
   * While a node cools down for one of them, or where the operator has moved one, it may be so. A node that waits for the end
   * of a cool-down goes by the database's clock as it was when it read the row, so a jump of that clock excuses it, too.
   */
  #uneven(worker: StoredWorker, slots: readonly StoredLease[], candidates: readonly string[]): Unserved[] {
    const { key, kind } = worker
    const { nowMs } = this.#database
    const hasMoved = this.#commits.clockMovedAtMs > 0
    const cooling = this.#database
      .leases()
      .filter((lease) => lease.worker === key && lease.cooldownNode !== null)
      .some(({ cooldownUntilMs }) => hasMoved || (cooldownUntilMs ?? 0) > nowMs)
    if (kind === 'single' || cooling || this.#commits.isPlaced(key)) return []
    const counts = candidates.map((id) => slots.filter(({ holder }) => holder === id).length)
    const isEven =
      kind === 'coordinated'
        ? counts.every((count) => count === 1) && slots.length === candidates.length
        : Math.max(...counts) - Math.min(...counts) <= 1
    if (isEven) return []
    const why = `its nodes have ${counts.join(' and ')} of ${slots.length}`
    return [{ key: `${key}, evenly`, single: false, why, toleratedMs: 3 * this.#scene.timing.ttlMs }]
  }

  /** Returns the worker with a schedule when its row does not have that of its leader. */
  #outOfDate(
    { key, schedule }: StoredWorker,
    leases: readonly StoredLease[],
    lives: ReadonlyMap<string | undefined, LifeOnSite>,
  ): Unserved[] {
    const leader = leases.flatMap(({ holder }) => lives.get(holder ?? undefined) ?? [])[0]
    const own = leader && this.#scene.scheduleOf(leader.process.label)
    if (own === undefined || schedule?.includes(`"${own.cron}"`)) return []
    const why = `its row has ${schedule}, and ${leader?.process.label} leads by ${own.cron}`
    return [{ key: `${key}, its schedule`, single: false, why, toleratedMs: 3 * this.#scene.timing.ttlMs }]
  }

  /**
   * Returns the leases by name whose holder lives and may not act under them any more. Work that goes on is waited for
   * until the time to hand over is up.
   */
  #withheld(leases: readonly StoredLease[], lives: ReadonlyMap<string | undefined, LifeOnSite>): Unserved[] {
    const { ttlMs, handoverTimeoutMs } = this.#scene.timing
    return leases
      .filter(({ worker, holder }) => worker === null && holder !== null && lives.has(holder))
      .filter(({ key, token }) => !this.#history.isTrusted(key, token))
      .map((lease) => ({
        key: `${lease.key}, by name`,
        single: false,
        why: JSON.stringify(lease),
        toleratedMs: handoverTimeoutMs + 2 * ttlMs,
      }))
  }

  /**
   * Returns the revision row when it does not name two active nodes as watchers, or as many as there are. In place of one
   * whose row somebody has deleted another is named only with the next change of the nodes, while the other watches.
   */
  #unwatched(nodes: readonly StoredNode[]): Unserved[] {
    const active = nodes.filter(({ state }) => state === 'active').map(({ id }) => id)
    const watchers = this.#database.watchers()
    const isNamedRightly = (id: string): boolean => active.includes(id) || this.#deletedNodes.has(id)
    const isWatched = active.length === 0 || watchers.some((id) => active.includes(id))
    if (watchers.length >= Math.min(2, active.length) && isWatched && watchers.every(isNamedRightly))
      return []
    const why = `${watchers.join(' and ')} watch`
    return [{ key: 'watchers', single: false, why, toleratedMs: 3 * this.#scene.timing.ttlMs }]
  }

  /**
   * Returns the workers that a process has registered and is no candidate for, although no other node contradicts it, and
   * those it has stopped and is still a candidate for.
   */
  #unregistered({ process, registered }: LifeOnSite, node: StoredNode): Unserved[] {
    const rows = this.#database.workers()
    const candidateFor = JSON.parse(node.workers) as string[]
    const missing = registered.filter(({ handle, layout }) => {
      const row = rows.find((each) => each.key === handle.key)
      return row === undefined || !hasLayout(row, layout) || !candidateFor.includes(handle.key)
    })
    const kept = candidateFor.filter((key) => !registered.some(({ handle }) => handle.key === key))
    // A refused worker is tried again once per ttl.
    const toleratedMs = 3 * this.#scene.timing.ttlMs
    const unserved = (key: string, why: string): Unserved => ({
      key: `${process.label} ${key}`,
      single: false,
      why,
      toleratedMs,
    })
    return [
      ...missing
        .filter((each) => !this.#isContradicted(each, node.id))
        .map(({ handle }) => unserved(handle.key, 'it is registered and no candidate')),
      ...kept.map((key) => unserved(key, 'it has been stopped and is still a candidate')),
    ]
  }

  /** Whether another node is a candidate for this worker in another layout. */
  #isContradicted({ handle, layout }: Registered, node: string | undefined): boolean {
    const row = this.#database.workers().find(({ key }) => key === handle.key)
    return row !== undefined && !hasLayout(row, layout) && this.#candidates(row.key).some((id) => id !== node)
  }

  /** Returns the nodes that are candidates for a worker, by the rows. */
  #candidates(worker: string): string[] {
    const nodes = this.#database.nodes()
    return nodes.filter((node) => (JSON.parse(node.workers) as string[]).includes(worker)).map(({ id }) => id)
  }
}
