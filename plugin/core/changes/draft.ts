/**
 * The rows that a change is about to alter, gathered first and written once.
 *
 * Every change follows the same course: it loads some leases, edits them, plans those that became free (`targets.ts`),
 * and writes. The draft remembers what was loaded, so it can tell exactly which nodes the change concerns. It also keeps
 * `pending` correct, and leaves alone the rows that a user's transaction fences.
 */

import type { Change, LeaseFilter, LeaseRow, LockedLease, NewEvent, NodeRow, WorkerRow } from '../store.js'
import type { Candidate } from './plan.js'
import { barrierOpen, isBlocked, isPending, maxCooldownMs, namedBy, unblocked, vacated } from './rows.js'
import { doubtServer } from './server-record.js'

export class Draft {
  readonly change: Change
  /** Partitioned workers of which a fence kept the plan from being carried out in full: to be planned again. */
  readonly unfinished = new Set<string>()
  /** The terms that end because the rows of their holders are missing, by the keys of their leases. */
  readonly forsaken = new Map<string, { readonly holder: string; readonly token: number }>()
  readonly #loaded = new Map<string, LockedLease>()
  readonly #loadedByWorker = new Set<string>()
  readonly #edited = new Map<string, LockedLease>()
  readonly #removed = new Set<string>()
  /** The leases that belong, or belonged, to each worker: a node may be a candidate for thousands of workers. */
  readonly #keysByWorker = new Map<string, Set<string>>()
  readonly #workers = new Map<string, WorkerRow>()
  readonly #editedWorkers = new Set<string>()
  readonly #concerned = new Set<string>()
  readonly #events: NewEvent[] = []
  readonly #doubted = new Set<string>()
  readonly #goneNodes = new Set<string>()
  /** Those of the gone nodes that have no row. Whatever named them first, somebody may have deleted it. */
  readonly #missingNodes = new Set<string>()
  /** The nodes that this change lets cool down, by the leases in whose rows that is written. */
  readonly #cooledHere = new Map<string, string>()
  #presentNodes: NodeRow[] | undefined
  #presentByWorker: Map<string, NodeRow[]> | undefined
  #loads: Map<string, number> | undefined

  constructor(change: Change) {
    this.change = change
  }

  /** Loads leases, the workers they belong to, and which of the nodes they name are gone. */
  async load(filter: LeaseFilter): Promise<void> {
    const wanted = this.#notYetLoaded(filter)
    if (wanted === undefined) return
    const rows = await this.change.leases(wanted)
    for (const worker of wanted.workers ?? []) this.#loadedByWorker.add(worker)
    const fresh = rows.filter((row) => !this.#loaded.has(row.key))
    for (const row of fresh) this.#loaded.set(row.key, row)
    for (const row of fresh) this.#index(row)
    await this.loadWorkers(fresh.flatMap((row) => row.worker ?? []))
    await this.#learnWhoIsGone(fresh)
    for (const row of fresh) this.#shortenCooldown(row)
  }

  /** Loads all shares of the coordinated worker that a lease belongs to, if it belongs to one. */
  async loadShares(lease: LeaseRow): Promise<void> {
    if (lease.worker !== null && this.isCoordinated(lease)) await this.load({ workers: [lease.worker] })
  }

  async loadWorkers(keys: readonly string[]): Promise<void> {
    const missing = [...new Set(keys)].filter((key) => !this.#workers.has(key))
    if (missing.length === 0) return
    for (const worker of await this.change.workers(missing)) this.#workers.set(worker.key, worker)
  }

  lease(key: string): LockedLease | undefined {
    return this.#edited.get(key) ?? this.#loaded.get(key)
  }

  /** A lease as it was before this change. */
  before(key: string): LeaseRow | undefined {
    return this.#loaded.get(key)
  }

  worker(key: string): WorkerRow | undefined {
    return this.#workers.get(key)
  }

  /** The worker that a lease belongs to; undefined for one acquired by name, and where the worker's row is missing. */
  workerOf({ worker }: LeaseRow): WorkerRow | undefined {
    return worker === null ? undefined : this.#workers.get(worker)
  }

  isCoordinated(lease: LeaseRow): boolean {
    return this.workerOf(lease)?.kind === 'coordinated'
  }

  /** The leases of one worker, by slot. Complete only if they were loaded by worker. */
  leasesOf(worker: string): LockedLease[] {
    return [...(this.#keysByWorker.get(worker) ?? [])]
      .map((key) => this.lease(key))
      .filter((lease): lease is LockedLease => lease?.worker === worker)
      .sort((a, b) => a.slot - b.slot)
  }

  /** Whether somebody has deleted rows of leases that a worker has. All of them must have been loaded. */
  lacksLeases({ key, slots }: WorkerRow): boolean {
    return this.leasesOf(key).filter(({ slot }) => slot < slots).length < slots
  }

  /** All leases loaded or added so far that match. */
  leasesWhere(matches: (lease: LockedLease) => boolean): LockedLease[] {
    const keys = new Set([...this.#loaded.keys(), ...this.#edited.keys()])
    return [...keys]
      .map((key) => this.lease(key))
      .filter((lease) => lease !== undefined && matches(lease)) as LockedLease[]
  }

  /** Alters a lease. A fenced one stays as it is; a node that waits for it tries again later. */
  edit(key: string, patch: Partial<LeaseRow>): void {
    const lease = this.lease(key)
    if (lease === undefined || lease.fenced) return
    const edited = { ...lease, ...patch }
    this.#edited.set(key, edited)
    if (edited.worker !== lease.worker) this.#index(edited)
  }

  /** Sets the target of a lease. */
  assign(key: string, target: string | null): void {
    const lease = this.lease(key)
    if (lease === undefined || lease.fenced || lease.target === target) return
    this.edit(key, { target, targetAtMs: target === null ? null : this.change.nowMs })
    this.#countLoad(lease.target ?? lease.holder, -1)
    this.#countLoad(target ?? lease.holder, 1)
  }

  add(lease: LockedLease): void {
    this.#edited.set(lease.key, lease)
    this.#index(lease)
  }

  /** Deletes a lease, which must be loaded, not fenced, and in nobody's use. */
  remove(key: string): void {
    this.#removed.add(key)
  }

  putWorker(worker: WorkerRow): void {
    this.#workers.set(worker.key, worker)
    this.#editedWorkers.add(worker.key)
  }

  /** Marks nodes that should hear of this change, whichever rows it touches. */
  concern(nodes: Iterable<string | null>): void {
    for (const node of nodes) if (node !== null) this.#concerned.add(node)
  }

  record(event: NewEvent): void {
    this.#events.push(event)
  }

  /** Whether there is anything to write. */
  get alters(): boolean {
    return this.#edited.size + this.#editedWorkers.size + this.#events.length > 0
  }

  readonly isGone = (node: string): boolean => this.#goneNodes.has(node)

  /** Marks a node that this change itself declares gone. */
  markGone(node: string): void {
    this.#goneNodes.add(node)
    this.nodesChanged()
  }

  /** Marks a node that this change itself adds. It may be one whose row somebody had deleted. */
  markPresent(node: string): void {
    this.#goneNodes.delete(node)
    this.#missingNodes.delete(node)
    this.nodesChanged()
  }

  /** Must be called when this change has added, removed or altered a node: the nodes are then read again. */
  nodesChanged(): void {
    this.#presentNodes = undefined
    this.#presentByWorker = undefined
  }

  /** All nodes that are not gone, oldest first. */
  async presentNodes(): Promise<readonly NodeRow[]> {
    this.#presentNodes ??= (await this.change.nodes()).filter((node) => !this.isGone(node.id))
    return this.#presentNodes
  }

  /** The nodes that have registered a worker and are not gone, oldest first. */
  async nodesWith(worker: string): Promise<readonly NodeRow[]> {
    this.#presentByWorker ??= byWorker(await this.presentNodes())
    return this.#presentByWorker.get(worker) ?? []
  }

  /** The nodes that may hold the leases of a worker: active ones that registered it. None while it is paused. */
  async candidates(worker: WorkerRow): Promise<Candidate[]> {
    if (worker.paused) return []
    const nodes = (await this.nodesWith(worker.key)).filter(({ state }) => state === 'active')
    const loads = await this.#loadsByNode()
    return nodes.map(({ id, version, joinedRevision }) => ({
      id,
      version,
      joinedRevision,
      load: loads.get(id) ?? 0,
    }))
  }

  /** The nodes that may get a lease: the candidates for its worker, or those that wait for it by name or are next. */
  async standFor(lease: LeaseRow): Promise<Candidate[]> {
    const worker = this.workerOf(lease)
    if (worker !== undefined) return this.candidates(worker)
    const waiting = new Set([...lease.waiters, lease.target])
    const nodes = (await this.presentNodes()).filter(
      (node) => node.state === 'active' && waiting.has(node.id),
    )
    return nodes.map(({ id, version, joinedRevision }) => ({ id, version, joinedRevision, load: 0 }))
  }

  /**
   * Keeps a node from winning a lease again for a while, as long as there are other candidates. A row remembers one
   * cool-down, the one that ends last, also of two for the same node; see {@link #placeOfCooldown} for shares.
   */
  coolDown(key: string, node: string, forMs: number): void {
    if (forMs <= 0) return
    const cooldownUntilMs = this.change.nowMs + Math.ceil(forMs)
    const place = this.#placeOfCooldown(key, node)
    this.#cooledHere.set(place, node)
    const lease = this.lease(place)
    const isShorter = (lease?.cooldownUntilMs ?? 0) > cooldownUntilMs
    if (lease !== undefined && isShorter && this.#coolingIn(lease).length > 0) return
    this.edit(place, { cooldownNode: node, cooldownUntilMs })
  }

  /**
   * The nodes that cool down for a lease, or for any share of a worker; they are passed over while there are other
   * candidates. A row remembers only one of them, but both the one it named before this change and the one that this
   * change is about count in this change. Otherwise a lease revoked from a second node would return to the first, which
   * was revoked too. If there are no other candidates, only the one that this change is about is passed over.
   */
  cooling(leases: readonly LeaseRow[], candidates: readonly Candidate[] = []): ReadonlySet<string> {
    const cooledHere = leases.flatMap(({ key }) => this.#cooledHere.get(key) ?? [])
    const rows = leases.flatMap((lease) => [lease, this.#loaded.get(lease.key) ?? lease])
    const all = new Set([...cooledHere, ...rows.flatMap((row) => this.#coolingIn(row))])
    const isAnyLeft = cooledHere.length === 0 || candidates.some(({ id }) => !all.has(id))
    return isAnyLeft ? all : new Set(cooledHere)
  }

  /**
   * Where a cool-down is written. All shares of a worker are planned together, so where the row of one remembers
   * another node, that of any other share will do.
   */
  #placeOfCooldown(key: string, node: string): string {
    const lease = this.lease(key)
    if (lease === undefined || lease.worker === null || !this.isCoordinated(lease)) return key
    const shares = [lease, ...this.leasesOf(lease.worker)]
    return shares.find((share) => !share.fenced && !this.#coolsAnother(share, node))?.key ?? key
  }

  /** Notes that somebody has deleted rows of a worker or a node: whoever held what they were of may not know yet. */
  doubt(subject: string): void {
    if (!this.#doubted.has(subject)) this.record({ type: 'rows.missed', subject })
    this.#doubted.add(subject)
  }

  /** Whether leases may be claimed in this change: no grace period is being waited out, and none begins with it. */
  get mayClaim(): boolean {
    return this.change.meta.identitySettled && this.#doubted.size === 0
  }

  /** Writes everything, and tells the nodes it concerns. Must be called last. */
  async write(): Promise<void> {
    if (this.#doubted.size > 0) await doubtServer(this.change)
    else await this.#raiseFloor()
    for (const [key, { holder, token }] of this.forsaken)
      this.record({ type: 'lease.lost', subject: key, node: holder, token })
    this.#tellWhenBarriersOpen()
    const workers = [...this.#editedWorkers].flatMap((key) => this.#workers.get(key) ?? [])
    if (workers.length > 0) await this.change.saveWorkers(workers)
    const leases = [...this.#edited.values()]
      .filter(({ key }) => !this.#removed.has(key))
      .map((lease) => ({ ...lease, pending: isPending(lease, this.workerOf(lease)) }))
    if (leases.length > 0) await this.change.saveLeases(leases)
    if (this.#removed.size > 0) await this.change.deleteLeases([...this.#removed])
    for (const lease of leases) {
      const before = this.#loaded.get(lease.key)
      if (before !== undefined) this.concern(namedBy(before))
      this.concern(namedBy(lease))
    }
    if (this.#events.length > 0) await this.change.record(this.#events)
    for (const node of this.#goneNodes) this.#concerned.delete(node)
    if (this.#concerned.size > 0) await this.change.tell(this.#concerned)
  }

  /** Tokens never go back: the floor is raised to those of the leases removed. A doubt raises it above them anyway. */
  async #raiseFloor(): Promise<void> {
    if (this.#removed.size === 0) return
    const tokens = [...this.#removed].map((key) => this.lease(key)?.token ?? 0)
    await this.change.saveMeta({ tokenFloor: Math.max(this.change.meta.tokenFloor, ...tokens) })
  }

  #notYetLoaded(filter: LeaseFilter): LeaseFilter | undefined {
    const keys = filter.keys?.filter((key) => this.lease(key) === undefined) ?? []
    const workers = filter.workers?.filter((worker) => !this.#isLoaded(worker)) ?? []
    const nodes = filter.nodes ?? []
    return keys.length + workers.length + nodes.length === 0
      ? undefined
      : { keys, workers: [...new Set(workers)], nodes }
  }

  /** Whether all leases of a worker have been loaded. A single worker has only the lease of its own name. */
  #isLoaded(worker: string): boolean {
    if (this.#loadedByWorker.has(worker)) return true
    return this.#workers.get(worker)?.kind === 'single' && this.lease(worker) !== undefined
  }

  #index({ key, worker }: LeaseRow): void {
    if (worker === null) return
    const keys = this.#keysByWorker.get(worker)
    if (keys === undefined) this.#keysByWorker.set(worker, new Set([key]))
    else keys.add(key)
  }

  /**
   * The nodes that wait at a barrier all hear at once that it has opened. They also hear of a block, because each
   * must observe it to wait it out. Otherwise they need not be woken.
   */
  #tellWhenBarriersOpen(): void {
    const touched = new Set([...this.#edited.values()].flatMap((lease) => lease.worker ?? []))
    for (const key of touched) {
      const worker = this.#workers.get(key)
      if (worker?.kind !== 'coordinated') continue
      const leases = this.leasesOf(key)
      const blocked = leases.some((lease) => isBlocked(lease, this.isGone))
      if (blocked || barrierOpen(worker, leases, this.isGone))
        this.concern(leases.map((lease) => lease.target))
    }
  }

  async #learnWhoIsGone(leases: readonly LockedLease[]): Promise<void> {
    const named = new Set(
      leases
        .flatMap((lease) => [lease.holder, lease.blockedNode, ...this.#coolingIn(lease)])
        .filter((id) => id !== null),
    )
    const unknown = [...named].filter((id) => !this.#goneNodes.has(id))
    const rows = unknown.length === 0 ? [] : await this.change.nodesById(unknown)
    const known = new Map(rows.map((node) => [node.id, node.state]))
    for (const id of unknown) {
      if ((known.get(id) ?? 'gone') === 'gone') this.#goneNodes.add(id)
      if (!known.has(id)) this.#missingNodes.add(id)
    }
    for (const lease of leases) this.#forsake(lease)
  }

  /**
   * Frees a lease whose holder has no row. Gone nodes keep theirs as long as a lease names them, so somebody has deleted
   * it, and the node may still trust.
   */
  #forsake({ key, fenced, holder, blockedNode, token }: LockedLease): void {
    if (fenced) return
    if (blockedNode !== null && this.#missingNodes.has(blockedNode)) {
      this.edit(key, unblocked)
      this.doubt(blockedNode)
    }
    if (holder !== null && this.#missingNodes.has(holder)) {
      this.edit(key, vacated)
      this.forsaken.set(key, { holder, token })
      this.doubt(holder)
    }
  }

  /** The node that a row lets cool down. One that has gone needs none, and is not to hide that of another. */
  #coolingIn({ cooldownNode, cooldownUntilMs }: LeaseRow): string[] {
    if (cooldownNode === null || this.isGone(cooldownNode)) return []
    return (cooldownUntilMs ?? 0) > this.change.nowMs ? [cooldownNode] : []
  }

  #coolsAnother(lease: LeaseRow, node: string): boolean {
    return this.#coolingIn(lease).some((cooling) => cooling !== node)
  }

  /**
   * Shortens a cool-down that is longer than can be requested: the database's clock has jumped back since it was
   * set.
   */
  #shortenCooldown(lease: LockedLease): void {
    const latest = this.change.nowMs + maxCooldownMs
    if (lease.fenced || lease.cooldownUntilMs === null || lease.cooldownUntilMs <= latest) return
    this.edit(lease.key, { cooldownUntilMs: latest })
    this.record({
      type: 'cooldown.shortened',
      subject: lease.key,
      detail: { fromMs: lease.cooldownUntilMs, toMs: latest },
    })
  }

  /** How many leases each node has. What this change has altered so far is not stored yet, and counts too. */
  async #loadsByNode(): Promise<Map<string, number>> {
    if (this.#loads !== undefined) return this.#loads
    this.#loads = new Map((await this.change.loads()).map((load) => [load.node, load.leases]))
    for (const { key, target, holder } of this.#edited.values()) {
      const before = this.#loaded.get(key)
      this.#countLoad(before?.target ?? before?.holder ?? null, -1)
      this.#countLoad(target ?? holder, 1)
    }
    return this.#loads
  }

  #countLoad(node: string | null, by: number): void {
    if (node !== null && this.#loads !== undefined) this.#loads.set(node, (this.#loads.get(node) ?? 0) + by)
  }
}

function byWorker(nodes: readonly NodeRow[]): Map<string, NodeRow[]> {
  const found = new Map<string, NodeRow[]>()
  for (const node of nodes) {
    for (const key of new Set(node.workers)) {
      const those = found.get(key)
      if (those === undefined) found.set(key, [node])
      else those.push(node)
    }
  }
  return found
}
