/**
 * What a node does about itself and its own leases: it joins, registers workers, releases, claims and leaves.
 *
 * Each function runs inside one ordered {@link Change}. All changes of a namespace run one after another. A function
 * therefore never sees another change half done, and what it has checked is still true when it writes.
 * `plugin/core/README.md` explains how these rules fit together.
 */

import { CoordinationError, type EndReason, StoreError } from '../errors.js'
import { slotKey } from '../names.js'
import type {
  Ahead,
  Change,
  Kind,
  LeaseRow,
  LockedLease,
  NewNode,
  NodeRow,
  Scope,
  WorkerRow,
} from '../store.js'
import { clockMistakeMs } from '../time/timing.js'
import { Draft } from './draft.js'
import type { Instruction } from './operations.js'
import { barrierOpen, freshLease, isOutdated, vacated } from './rows.js'
import {
  freeIfAbandoned,
  type Held,
  isFree,
  isWaived,
  missWorkers,
  noteNodes,
  replan,
  revokeLate,
  sortOut,
  standAsideMs,
} from './rules.js'
import { nextToken } from './token.js'

/** A worker as a node registers it. */
export interface Declaration {
  readonly key: string
  readonly name: string
  readonly kind: Kind
  readonly scope: Scope
  readonly cluster: string | null
  /** Number of partitions; null for the other kinds, which have one lease, or one for each candidate. */
  readonly partitions: number | null
  readonly handoverTimeoutMs: number
  /** See {@link WorkerRow.schedule}. */
  readonly schedule: string | null
}

/**
 * A worker whose last registration has a different schedule, while other nodes are candidates for it. This is normal
 * during a deployment that changes the schedule.
 */
export interface OtherSchedule {
  readonly worker: string
  /** The schedule of the last registration; see {@link WorkerRow.schedule}. */
  readonly registered: string | null
  readonly ours: string | null
}

/** The workers for which a node is now a candidate, and what the node should know about them. */
export interface Registered {
  readonly workers: readonly string[]
  readonly otherSchedules: readonly OtherSchedule[]
  /** Those whose partitions are to be planned again; see {@link Draft.unfinished}. */
  readonly unfinished: readonly string[]
}

/** What a node wants done about its own leases. All of it goes into one change. */
export interface Wishes {
  readonly release: readonly (Held & { readonly reason: EndReason; readonly cooldownMs?: number })[]
  /** Terms that have ended, and whose work has not settled in the time a holder has to hand over. */
  readonly revoke: readonly (Held & { readonly cooldownMs: number })[]
  /** Blocks on this node after a revocation. Its work has stopped, so the next node may claim. */
  readonly acknowledge: readonly Held[]
  /** Leases of workers that name this node as target. */
  readonly claim: readonly string[]
  /** Leases by name. A free one is claimed; for any other the node joins the queue when `wait` is set. */
  readonly acquire: readonly { readonly key: string; readonly wait: boolean }[]
  /** Leases by name for which this node no longer waits. */
  readonly withdraw: readonly string[]
  /**
   * Coordinated workers of which this node has no share, although it is a candidate and nothing prevents it; and
   * partitioned ones whose last plan a fence or a cool-down kept from being carried out in full.
   */
  readonly replan: readonly string[]
  /** Blocks that this node has itself observed for the whole block wait. */
  readonly waived: readonly Held[]
  /** The longest ttl on which the wait was based. If a longer one has been recorded since, the wait is void. */
  readonly longestTtlMs: number
  /**
   * The server under which the node waited. Another server may have forgotten that a block was lifted in between.
   */
  readonly identity: string
}

/**
 * Joins a node, with the workers for which it is a candidate. A join that is repeated after a lost answer finds that
 * the node has joined already or has been buried since. If it was buried, this life is over and the next one needs a
 * new id. Returns the workers for which the node is now a candidate: all that are declared, except those that could
 * not be written because of a fence.
 *
 * @param drained given for a process that was draining when it lost its last session: it is still draining.
 */
export async function join(
  change: Change,
  node: Omit<NewNode, 'workers'>,
  declarations: readonly Declaration[],
  drained: Instruction | undefined,
): Promise<Registered | 'buried'> {
  const [earlier] = await change.nodesById([node.id])
  if (earlier !== undefined)
    return earlier.state === 'gone'
      ? 'buried'
      : { workers: earlier.workers, otherSchedules: [], unfinished: earlier.workers }
  const draft = new Draft(change)
  const { hindered, otherSchedules } = await declare(draft, node.id, declarations)
  const workers = declarations.map(({ key }) => key).filter((key) => !hindered.has(key))
  await change.addNode({ ...node, workers }, 1)
  if (drained !== undefined) await change.updateNode(node.id, { state: 'draining' })
  draft.nodesChanged()
  await draft.plan(workers)
  draft.record({
    type: 'node.joined',
    subject: node.id,
    node: node.id,
    detail: { name: node.name, cluster: node.cluster },
  })
  if (drained !== undefined)
    draft.record({ type: 'node.draining', subject: node.id, node: node.id, ...drained })
  draft.concern([node.id, ...(await neighboursOf(draft, node))])
  await noteNodes(draft)
  await draft.write()
  return { workers, otherSchedules, unfinished: [...draft.unfinished] }
}

/** Nodes on the same machine look at each other's processes, so each must know of the others. */
async function neighboursOf(draft: Draft, { id, machine }: Omit<NewNode, 'workers'>): Promise<string[]> {
  if (machine === null) return []
  const present = await draft.presentNodes()
  return present.filter((each) => each.machine === machine && each.id !== id).map((each) => each.id)
}

/**
 * Replaces the workers for which a node is a candidate. `added` is declared even if the node was already a candidate
 * for a worker of that key, because that may have been a different one. Returns the workers for which the node is
 * now a candidate, without those that could not be written because of a fence.
 */
export async function register(
  change: Change,
  node: string,
  declarations: readonly Declaration[],
  added: string | undefined,
): Promise<Registered> {
  const before = new Set(change.session?.workers ?? [])
  const draft = new Draft(change)
  const fresh = declarations.filter(({ key }) => key === added || !before.has(key))
  const { hindered, otherSchedules } = await declare(draft, node, fresh)
  const now = declarations.map(({ key }) => key).filter((key) => !hindered.has(key))
  await change.updateNode(node, { workers: now })
  draft.nodesChanged()
  const declared = fresh.filter(({ key }) => !hindered.has(key)).map(({ key }) => key)
  const withdrawn = [...before].filter((key) => !now.includes(key))
  await draft.plan([...withdrawn, ...declared])
  missWorkers(draft, withdrawn)
  draft.concern([node])
  await draft.write()
  return { workers: now, otherSchedules, unfinished: [...draft.unfinished] }
}

/** What a node cannot learn from its view about the leases by name that it asked for. */
export interface Settled {
  /** Names that cannot be acquired because they belong to workers. */
  readonly refused: readonly string[]
  /** Leases whose queue the node could not join, because a user's transaction fences the row. */
  readonly hindered: readonly string[]
  /** Workers to be planned again; see {@link Draft.unfinished}. */
  readonly unfinished: readonly string[]
}

/**
 * Does what a node wishes about its own leases. Wishes that the rows no longer allow are skipped; the node learns of
 * it from its view.
 */
export async function settle(change: Change, node: string, wishes: Wishes): Promise<Settled> {
  const draft = new Draft(change)
  await loadWhatIsNeeded(draft, wishes)
  const freed = wishes.release.filter((wish) => release(draft, node, wish)).map((wish) => wish.key)
  const withdrawn = wishes.withdraw.filter((key) => withdraw(draft, node, key))
  for (const wish of wishes.acknowledge) acknowledge(draft, node, wish)
  const revoked = wishes.revoke.filter((wish) => revokeOwn(draft, node, wish)).map((wish) => wish.key)
  await replan(draft, [...freed, ...withdrawn, ...revoked], wishes.replan)
  const refused = wishes.acquire
    .filter(({ key }) => (draft.lease(key)?.worker ?? null) !== null)
    .map(({ key }) => key)
  // The node may have connected only after a failover, and not know about it yet.
  if (change.session?.state === 'active' && draft.mayClaim) {
    const waited =
      change.meta.longestTtlMs <= wishes.longestTtlMs && change.serverIdentity === wishes.identity
    const waived = waited ? wishes.waived : []
    for (const key of wishes.claim) claim(draft, node, key, waived)
    for (const wish of wishes.acquire) {
      if (!refused.includes(wish.key)) await acquire(draft, node, wish, waived)
    }
  }
  // A node that only asks again whether it is still in the queue, and is, causes no write.
  if (draft.alters) draft.concern([node])
  await draft.write()
  const hindered = wishes.acquire.map(({ key }) => key).filter((key) => isKeptOut(draft, node, key))
  return { refused, hindered, unfinished: [...draft.unfinished] }
}

/** Whether a node has no place in the queue of a lease by name because the row is fenced. */
function isKeptOut(draft: Draft, node: string, key: string): boolean {
  const lease = draft.lease(key)
  return lease?.fenced === true && ![lease.holder, lease.target, ...lease.waiters].includes(node)
}

/** The outcome of recording a time of a schedule. */
export type Fired =
  | 'written'
  /** The lease is no longer held under this token. */
  | 'lost'
  /** A user's transaction fences the lease, or the server has changed: the caller should try again. */
  | 'not-yet'

/** Records that every time of a schedule up to `firedAtMs` has been dealt with. */
export async function fire(
  change: Change,
  node: string,
  { key, token }: Held,
  firedAtMs: number,
): Promise<Fired> {
  const draft = new Draft(change)
  await draft.load({ keys: [key] })
  const lease = draft.lease(key)
  if (lease?.holder !== node || lease.token !== token) return 'lost'
  if (lease.fenced) return 'not-yet'
  draft.edit(key, { firedAtMs })
  await draft.write()
  return 'written'
}

/**
 * Claims a time if it is later than every time claimed under this name before, and returns whether it did. A time
 * far ahead of the database's clock comes from a clock that was wrong: it is refused, and ignored where one is
 * recorded. A time older than `rememberedForMs` is refused too, because the record of its claim may have been
 * deleted.
 */
export async function claimTime(
  change: Change,
  key: string,
  atMs: number,
  rememberedForMs: number,
): Promise<boolean> {
  const draft = new Draft(change)
  await draft.load({ keys: [key] })
  // Only a single worker has a lease of its own name.
  await draft.loadWorkers([key])
  const lease = draft.lease(key) ?? freshLease(key, null, 0)
  const isMistaken = (timeMs: number): boolean => timeMs > change.nowMs + clockMistakeMs
  const claimedMs = lease.firedAtMs
  if (lease.worker !== null || draft.worker(key) !== undefined) {
    throw new CoordinationError('WCO_NAME', `"${key}" is a worker's, so no times can be claimed under it.`)
  }
  if (isMistaken(atMs) || atMs < change.nowMs - rememberedForMs) return false
  if (claimedMs !== null && claimedMs >= atMs && !isMistaken(claimedMs)) return false
  if (lease.fenced) throw new StoreError(`The lease "${key}" is fenced by a transaction.`, 'none')
  draft.add({ ...lease, firedAtMs: atMs })
  await draft.write()
  return true
}

/** Removes a node at its own request. Everything it holds is free at once. */
export async function leave(change: Change, node: string): Promise<void> {
  if (change.session === undefined) return
  await sortOut(
    change,
    [change.session],
    (draft, id) => draft.record({ type: 'node.left', subject: id, node: id }),
    { type: 'lease.released', reason: 'closing' },
  )
  await change.bury(node)
}

/** The rows that {@link leave} is going to read. */
export function aheadOfLeave(node: string, workers: readonly string[]): Ahead {
  return { leases: { nodes: [node], workers }, nodes: true }
}

/**
 * Writes the declarations of workers, and throws when one contradicts other nodes that are candidates for that
 * worker. Returns as `hindered` the workers of which nothing was written, because a user's transaction fences a
 * lease that would have to change.
 */
async function declare(
  draft: Draft,
  node: string,
  declarations: readonly Declaration[],
): Promise<{ readonly hindered: ReadonlySet<string>; readonly otherSchedules: readonly OtherSchedule[] }> {
  const hindered = new Set<string>()
  const otherSchedules: OtherSchedule[] = []
  const keys = declarations.map((declaration) => declaration.key)
  await draft.loadWorkers(keys)
  await draft.load({ keys, workers: keys })
  await loadLeft(draft, declarations)
  for (const declaration of declarations) {
    const known = draft.worker(declaration.key)
    if (known !== undefined) {
      await refuseContradiction(draft, node, known, declaration)
      otherSchedules.push(...(await otherSchedule(draft, node, known, declaration)))
    }
    const { missing, taken, surplus } = layout(draft, declaration)
    if ([...taken, ...surplus].some(({ fenced }) => fenced)) {
      hindered.add(declaration.key)
      continue
    }
    if (await hasLostRows(draft, known, declaration)) draft.doubt(declaration.key)
    putDeclared(draft, known, declaration, [...draft.leasesOf(declaration.key), ...taken])
    // Who leads goes by its own schedule, and then writes that one.
    if (known !== undefined && known.schedule !== declaration.schedule)
      draft.concern(draft.leasesOf(known.key).map(({ holder }) => holder))
    for (const lease of missing) draft.add(lease)
    for (const { key } of taken) draft.edit(key, { worker: declaration.key, waiters: [] })
    for (const { key } of surplus) draft.edit(key, { worker: null, target: null, targetAtMs: null })
  }
  return { hindered, otherSchedules }
}

/**
 * Whether somebody has deleted the row of a worker that nodes have registered, this one or others, or rows of its leases.
 * Those of shares are missed when they are planned, which follows.
 */
async function hasLostRows(
  draft: Draft,
  known: WorkerRow | undefined,
  declared: Declaration,
): Promise<boolean> {
  const arePlanned = known?.kind === 'coordinated' && declared.kind === 'coordinated'
  if (known !== undefined) return !arePlanned && draft.lacksLeases(known)
  const present = await draft.presentNodes()
  return present.some(({ workers }) => workers.includes(declared.key))
}

async function refuseContradiction(
  draft: Draft,
  node: string,
  known: WorkerRow,
  declared: Declaration,
): Promise<void> {
  if (isSameLayout(known, declared)) return
  const others = await othersStandingFor(draft, node, known.key)
  if (others.length === 0) return
  const { nowMs } = draft.change
  const leftMs = Math.max(...others.map((other) => other.ttlMs - Math.abs(nowMs - other.heartbeatAtMs)))
  throw new Contradiction(known, declared, others, leftMs)
}

/** Other nodes have registered a worker as another kind, or with another number of partitions. */
export class Contradiction extends CoordinationError {
  /**
   * Whether none of those nodes has been heard of for its ttl, by the database's clock: they have probably died, and
   * where all nodes have, nobody is there to bury them.
   */
  readonly bySilent: boolean

  /** @param leftMs how long until none of the nodes has been heard of for its ttl. */
  constructor(known: WorkerRow, declared: Declaration, others: readonly NodeRow[], leftMs: number) {
    const is = known.kind === 'partitioned' ? `partitioned with ${known.slots} partitions` : known.kind
    const wants =
      declared.partitions === null ? declared.kind : `${declared.kind} with ${declared.partitions} partitions`
    const bySilent = leftMs <= 0
    const advice = bySilent
      ? 'They have been silent for longer than their ttl. It is registered as soon as they are gone.'
      : 'Stop those first, or give the new one another name. If they have died, start again in ' +
        `${Math.ceil(leftMs / 1_000)} s.`
    super(
      'WCO_WORKER_CONFLICT',
      `The worker "${known.key}" is registered here as ${wants}, but as ${is} by ${others.length} other node(s), ` +
        `among them "${others[0]?.name}". ${advice}`,
    )
    this.bySilent = bySilent
  }
}

/** How many rows are looked for at once, because servers limit the size of a request. */
const keysAtOnce = 16_384

/**
 * Loads the rows that workers already have although they do not belong to them now, because they had another kind or
 * fewer partitions in between, or were forgotten. Their tokens still count, and so do their holders. A change has no
 * time to look for thousands of workers one after another, so it looks for all at once. How many shares a worker had is
 * not known: they have been numbered without a gap, and twice as many are looked for each time.
 */
async function loadLeft(draft: Draft, declarations: readonly Declaration[]): Promise<void> {
  const changed = declarations.filter((declared) => {
    const known = draft.worker(declared.key)
    return known === undefined || !isSameLayout(known, declared)
  })
  await loadKeys(draft, changed.flatMap(partitionsOf))
  let growing = changed.filter(({ kind }) => kind === 'coordinated').map(({ key }) => key)
  for (let first = 0, end = 1; growing.length > 0; [first, end] = [end, 2 * end + 1]) {
    const slots = Array.from({ length: end - first }, (_, index) => first + index)
    await loadKeys(
      draft,
      growing.flatMap((worker) => slots.map((slot) => slotKey(worker, slot))),
    )
    growing = growing.filter((worker) => sharesOf(draft, worker).length >= end)
  }
}

async function loadKeys(draft: Draft, keys: readonly string[]): Promise<void> {
  for (let first = 0; first < keys.length; first += keysAtOnce)
    await draft.load({ keys: keys.slice(first, first + keysAtOnce) })
}

/** Whether the leases that a worker has are those that it is declared with. */
export function isSameLayout(known: WorkerRow, { kind, partitions }: Declaration): boolean {
  return known.kind === kind && (partitions === null || partitions === known.slots)
}

function partitionsOf({ key, partitions }: Declaration): string[] {
  return Array.from({ length: partitions ?? 0 }, (_, slot) => slotKey(key, slot))
}

/** The keys of the shares that have been loaded, from the first on. */
function sharesOf(draft: Draft, worker: string): string[] {
  const keys: string[] = []
  for (let key = slotKey(worker, 0); draft.lease(key) !== undefined; key = slotKey(worker, keys.length))
    keys.push(key)
  return keys
}

/** A different schedule is reported, not refused: every deployment that changes it has both for a while. */
async function otherSchedule(
  draft: Draft,
  node: string,
  { key, schedule: registered }: WorkerRow,
  { schedule: ours }: Declaration,
): Promise<OtherSchedule[]> {
  if (registered === ours) return []
  const others = await othersStandingFor(draft, node, key)
  return others.length === 0 ? [] : [{ worker: key, registered, ours }]
}

async function othersStandingFor(draft: Draft, node: string, worker: string): Promise<NodeRow[]> {
  const present = await draft.presentNodes()
  return present.filter(({ id, workers }) => id !== node && workers.includes(worker))
}

/**
 * Where the worker has leases but no row any more, its generations go on from theirs: a plan of a lower one would leave
 * passes of the old plan running beside those of the new one.
 */
function putDeclared(
  draft: Draft,
  known: WorkerRow | undefined,
  declared: Declaration,
  left: readonly LeaseRow[],
): void {
  const { key, name, kind, scope, cluster, partitions, handoverTimeoutMs, schedule } = declared
  const slots = partitions ?? (kind === 'single' ? 1 : known?.kind === 'coordinated' ? known.slots : 0)
  const row = {
    key,
    name,
    kind,
    scope,
    cluster,
    slots,
    handoverTimeoutMs,
    schedule,
    generation: known?.generation ?? Math.max(0, ...left.map((lease) => lease.generation)),
    paused: known?.paused ?? false,
    revision: known?.revision ?? 0,
  }
  if (known === undefined || !sameWorker(known, row)) draft.putWorker(row)
}

function sameWorker(a: WorkerRow, b: WorkerRow): boolean {
  const equal = ['kind', 'slots', 'handoverTimeoutMs', 'schedule'] as const
  return equal.every((column) => a[column] === b[column])
}

/**
 * Compares the leases that a worker needs with the existing rows. `missing` leases have no row, `taken` rows belong
 * to another worker or to none, and `surplus` rows are no longer needed.
 */
function layout(
  draft: Draft,
  declared: Declaration,
): { missing: LockedLease[]; taken: LockedLease[]; surplus: LockedLease[] } {
  const keys = {
    single: () => [declared.key],
    coordinated: () => sharesOf(draft, declared.key),
    partitioned: () => partitionsOf(declared),
  }[declared.kind]()
  const missing = keys.flatMap((key, slot) =>
    draft.lease(key) === undefined ? [freshLease(key, declared.key, slot)] : [],
  )
  const known = keys.flatMap((key) => draft.lease(key) ?? [])
  const wanted = new Set(keys)
  const isShare = (lease: LeaseRow): boolean =>
    declared.kind === 'coordinated' && lease.key === slotKey(declared.key, lease.slot)
  return {
    missing,
    taken: known.filter((lease) => lease.worker !== declared.key),
    surplus: draft.leasesOf(declared.key).filter((lease) => !wanted.has(lease.key) && !isShare(lease)),
  }
}

/** The rows that {@link settle} is going to read. A lease given up is planned anew, which needs all nodes. */
export function aheadOf(wishes: Wishes): Ahead {
  return { leases: { keys: keysOf(wishes) }, nodes: wishes.release.length + wishes.revoke.length > 0 }
}

function keysOf(wishes: Wishes): string[] {
  const { release, revoke, acknowledge, acquire } = wishes
  const keys = [...release, ...revoke, ...acknowledge, ...acquire].map((wish) => wish.key)
  return [...new Set([...keys, ...wishes.claim, ...wishes.withdraw])]
}

/** Coordinated workers are judged as a whole, so all their leases are loaded. */
async function loadWhatIsNeeded(draft: Draft, wishes: Wishes): Promise<void> {
  await draft.load({ keys: keysOf(wishes) })
  const coordinated = draft
    .leasesWhere((lease) => draft.isCoordinated(lease))
    .flatMap((lease) => lease.worker ?? [])
  if (coordinated.length > 0) await draft.load({ workers: [...new Set(coordinated)] })
}

/**
 * A share stays with its node as long as that is a candidate, as after a lapse of its trust: another plan would end
 * everybody's passes.
 */
function release(draft: Draft, node: string, wish: Wishes['release'][number]): boolean {
  const lease = draft.lease(wish.key)
  if (lease === undefined || lease.fenced || lease.holder !== node || lease.token !== wish.token) return false
  draft.edit(lease.key, vacated)
  draft.coolDown(lease.key, node, wish.cooldownMs ?? 0)
  if (lease.target === node) {
    if (!draft.isCoordinated(lease)) draft.assign(lease.key, null)
    else if (!hasNewPlan(draft, lease)) draft.edit(lease.key, { targetAtMs: draft.change.nowMs })
  }
  draft.record({ type: 'lease.released', subject: lease.key, node, token: lease.token, reason: wish.reason })
  return true
}

/**
 * Whether the lease is a share of an older generation. Its target is then that of the new plan, which stays. If each
 * release planned anew, a plan for many nodes would begin as many generations.
 */
function hasNewPlan(draft: Draft, lease: LeaseRow): boolean {
  const worker = draft.workerOf(lease)
  return worker?.kind === 'coordinated' && isOutdated(lease, worker)
}

/**
 * Takes a lease from this very node, whose work under it does not settle. Until it does, this node cannot claim the
 * lease again; so if no other has been named yet, it stands aside.
 */
function revokeOwn(
  draft: Draft,
  node: string,
  { key, token, cooldownMs }: Wishes['revoke'][number],
): boolean {
  const lease = draft.lease(key)
  if (lease === undefined || lease.fenced || lease.holder !== node || lease.token !== token) return false
  const standsAside = lease.target === node && lease.worker !== null && !draft.isCoordinated(lease)
  const coolsForMs = lease.cooldownNode === node ? (lease.cooldownUntilMs ?? 0) - draft.change.nowMs : 0
  const forMs = standsAside ? Math.max(cooldownMs, coolsForMs, standAsideMs) : cooldownMs
  revokeLate(draft, lease, 'the work under it did not end in time', forMs)
  return true
}

function acknowledge(draft: Draft, node: string, block: Held): void {
  const lease = draft.lease(block.key)
  if (lease?.blockedNode !== node || lease.blockedToken !== block.token || lease.fenced) return
  draft.edit(lease.key, { blockedNode: null, blockedToken: null })
  draft.record({ type: 'lease.acknowledged', subject: lease.key, node, token: block.token })
}

/** Ends the node's wait for a lease, and returns whether the lease is now free for another node. */
function withdraw(draft: Draft, node: string, key: string): boolean {
  const lease = draft.lease(key)
  if (lease === undefined || lease.worker !== null) return false
  if (lease.waiters.includes(node))
    draft.edit(key, { waiters: lease.waiters.filter((waiter) => waiter !== node) })
  if (lease.target !== node || lease.holder === node) return false
  draft.assign(key, null)
  return true
}

/** Lets a target claim its lease if nothing prevents it. */
function claim(draft: Draft, node: string, key: string, waived: readonly Held[]): void {
  freeIfAbandoned(draft, key)
  const lease = draft.lease(key)
  const worker = lease && draft.workerOf(lease)
  if (lease === undefined || worker === undefined || worker.paused || lease.target !== node) return
  if (!isFree(draft, lease, waived)) return
  if (worker.kind === 'coordinated') {
    const fenced = draft
      .leasesOf(worker.key)
      .some((each) => each.fenced && each.holder !== null && isOutdated(each, worker))
    if (fenced) return
    const open = barrierOpen(worker, draft.leasesOf(worker.key), draft.isGone, (each) =>
      isWaived(each, waived),
    )
    if (!open) return
  }
  grant(draft, node, lease, worker.generation)
}

/** First come, first served: a free lease goes to the node that asks, unless another node is already its target. */
async function acquire(
  draft: Draft,
  node: string,
  wish: Wishes['acquire'][number],
  waived: readonly Held[],
): Promise<void> {
  if (draft.lease(wish.key) === undefined) draft.add(freshLease(wish.key, null, 0))
  freeIfAbandoned(draft, wish.key)
  await planInPlaceOfAbsent(draft, node, wish.key)
  const lease = draft.lease(wish.key)
  if (lease === undefined || lease.holder === node) return
  const mayHave = lease.target === null || lease.target === node
  if (mayHave && isFree(draft, lease, waived)) return grant(draft, node, lease, 0)
  if (!wish.wait) return
  const vacant = lease.holder === null || draft.isGone(lease.holder)
  if (mayHave && vacant) return draft.assign(lease.key, node)
  if (lease.target === node || lease.waiters.includes(node)) return
  // Gone nodes leave the queue. Otherwise it would only grow, over months of restarts.
  const present = new Set((await draft.presentNodes()).map(({ id }) => id))
  draft.edit(lease.key, { waiters: [...lease.waiters.filter((waiter) => present.has(waiter)), node] })
}

/**
 * If the lease has no target, or one that can no longer hold it, waiting nodes come before the node that asks now.
 */
async function planInPlaceOfAbsent(draft: Draft, node: string, key: string): Promise<void> {
  const lease = draft.lease(key)
  if (lease === undefined || lease.target === node) return
  if (lease.target === null && lease.waiters.length === 0) return
  await draft.planByName(key)
}

function grant(draft: Draft, node: string, lease: LockedLease, generation: number): void {
  const { change } = draft
  const token = nextToken(lease.token, change.meta.tokenFloor, change.nowMs)
  draft.assign(lease.key, node)
  draft.edit(lease.key, {
    holder: node,
    token,
    generation,
    attempt: change.session?.operation ?? null,
    identity: change.serverIdentity,
    acquiredAtMs: change.nowMs,
    blockedNode: null,
    blockedToken: null,
    waiters: lease.waiters.filter((waiter) => waiter !== node),
  })
  draft.record({ type: 'lease.acquired', subject: lease.key, node, token })
}
