/**
 * What a node does about itself and its own leases: join, register, release, claim, leave.
 *
 * Each function runs inside one ordered {@link Change}. Since all changes of a namespace come one
 * after another, none of them can see another half done, and what one of them checks is still true
 * when it writes. How these rules fit together is told in `README.md` beside this file.
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
import { clockMistakeMs } from '../work/schedule.js'
import { barrierOpen, Draft, freshLease, isOutdated, vacated } from './draft.js'
import type { Instruction } from './operations.js'
import { freeIfAbandoned, type Held, isFree, isWaived, noteNodes, replan, sortOut } from './rules.js'
import { nextToken } from './token.js'

/** A worker as a node registers it. */
export interface Declaration {
  readonly key: string
  readonly name: string
  readonly kind: Kind
  readonly scope: Scope
  readonly cluster: string | null
  /** Number of partitions; null for the other kinds, whose number of leases follows from the nodes. */
  readonly partitions: number | null
  readonly handoverTimeoutMs: number
  /** See {@link WorkerRow.schedule}. */
  readonly schedule: string | null
}

/** A worker that was registered last with another schedule, as happens while a new version is deployed, and for which others stand. */
export interface OtherSchedule {
  readonly worker: string
  /** The schedule it was registered with last; see {@link WorkerRow.schedule}. */
  readonly registered: string | null
  readonly ours: string | null
}

/** The workers that a node stands for now, and what it should know of them. */
export interface Registered {
  readonly workers: readonly string[]
  readonly otherSchedules: readonly OtherSchedule[]
}

/** What a node wants done about its own leases; everything goes into one change. */
export interface Wishes {
  readonly release: readonly (Held & { readonly reason: EndReason; readonly cooldownMs?: number })[]
  /** Blocks by which this node was revoked: it has stopped, the next may claim. */
  readonly acknowledge: readonly Held[]
  /** Leases of workers that name this node as their target. */
  readonly claim: readonly string[]
  /** Leases by name: claimed when free, else queued for when `wait` is set. */
  readonly acquire: readonly { readonly key: string; readonly wait: boolean }[]
  /** Leases by name this node no longer waits for. */
  readonly withdraw: readonly string[]
  /** Coordinated workers this node stands for and has no share of, though nothing stands against it. */
  readonly replan: readonly string[]
  /** Blocks this node has itself seen stand for the whole block wait. */
  readonly waived: readonly Held[]
  /** The longest ttl it reckoned with in waiting; a longer one that it did not know of makes the wait void. */
  readonly longestTtlMs: number
  /** The server under which it waited: another one may have forgotten that a block was lifted in between. */
  readonly identity: string
}

/**
 * Joins a node, with the workers it stands for. Tried again after a lost answer it finds itself
 * joined already, or buried since: then this life is over, and the next needs another id. Answers the workers it stands
 * for now: all that are declared but those that a fence hinders.
 *
 * @param drained given for a process that was draining before it lost its last session: it still is.
 */
export async function join(
  change: Change,
  node: Omit<NewNode, 'workers'>,
  declarations: readonly Declaration[],
  drained: Instruction | undefined,
): Promise<Registered | 'buried'> {
  const [earlier] = await change.nodesById([node.id])
  if (earlier !== undefined)
    return earlier.state === 'gone' ? 'buried' : { workers: earlier.workers, otherSchedules: [] }
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
  return { workers, otherSchedules }
}

/** Nodes on the same machine look at each other's processes, so they must know of each other. */
async function neighboursOf(draft: Draft, { id, machine }: Omit<NewNode, 'workers'>): Promise<string[]> {
  if (machine === null) return []
  const standing = await draft.standing()
  return standing.filter((each) => each.machine === machine && each.id !== id).map((each) => each.id)
}

/**
 * Sets anew which workers a node stands for. `added` is declared also where the node stood for one of that key before, which
 * may have been another. Answers the workers it stands for now, without those that a fence hinders.
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
  await draft.plan([...[...before].filter((key) => !now.includes(key)), ...declared])
  draft.concern([node])
  await draft.write()
  return { workers: now, otherSchedules }
}

/**
 * Does what a node wishes about its own leases. What the rows no longer allow is left undone: the
 * view tells. Answers the names that cannot be acquired because they are the names of workers.
 */
export async function settle(change: Change, node: string, wishes: Wishes): Promise<{ refused: string[] }> {
  const draft = new Draft(change)
  await loadWhatIsNeeded(draft, wishes)
  const freed = wishes.release.filter((wish) => release(draft, node, wish)).map((wish) => wish.key)
  const withdrawn = wishes.withdraw.filter((key) => withdraw(draft, node, key))
  for (const wish of wishes.acknowledge) acknowledge(draft, node, wish)
  await replan(draft, [...freed, ...withdrawn], wishes.replan)
  const refused = wishes.acquire
    .filter(({ key }) => (draft.lease(key)?.worker ?? null) !== null)
    .map(({ key }) => key)
  // Who asked may have got its connection only after a failover, and not know of it yet.
  if (change.session?.state === 'active' && change.meta.identitySettled) {
    const waited =
      change.meta.longestTtlMs <= wishes.longestTtlMs && change.serverIdentity === wishes.identity
    const waived = waited ? wishes.waived : []
    for (const key of wishes.claim) claim(draft, node, key, waived)
    for (const wish of wishes.acquire) {
      if (!refused.includes(wish.key)) await acquire(draft, node, wish, waived)
    }
  }
  // Who only asks again whether it still stands in line has found that it does: nothing is written then.
  if (draft.alters) draft.concern([node])
  await draft.write()
  return { refused }
}

/** What became of writing down a time of a schedule. */
export type Fired =
  | 'written'
  /** The lease is not held under this token any more. */
  | 'lost'
  /** A user's transaction fences the lease, or the server is another one than before: it is to be tried again. */
  | 'not-yet'

/** Writes that everything up to this time of a schedule has been dealt with. */
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
 * Whether this time is later than every one that was claimed under this name before; then it is claimed now. A time far
 * ahead of the database's clock comes from a clock that was wrong: it is refused, and forgotten where it stands. So is one that
 * is older than `rememberedForMs`: that it was claimed before may have been cleared away.
 */
export async function claimTime(
  change: Change,
  key: string,
  atMs: number,
  rememberedForMs: number,
): Promise<boolean> {
  const draft = new Draft(change)
  await draft.load({ keys: [key] })
  const lease = draft.lease(key) ?? freshLease(key, null, 0)
  const isMistaken = (timeMs: number): boolean => timeMs > change.nowMs + clockMistakeMs
  const claimedMs = lease.firedAtMs
  if (lease.worker !== null) {
    throw new CoordinationError('WCO_NAME', `"${key}" is a worker's, so no times can be claimed under it.`)
  }
  if (isMistaken(atMs) || atMs < change.nowMs - rememberedForMs) return false
  if (claimedMs !== null && claimedMs >= atMs && !isMistaken(claimedMs)) return false
  if (lease.fenced) throw new StoreError(`The lease "${key}" is fenced by a transaction.`, 'none')
  draft.add({ ...lease, firedAtMs: atMs })
  await draft.write()
  return true
}

/** A node goes of its own accord: everything it holds is free at once. */
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

/** What {@link leave} is going to read. */
export function aheadOfLeave(node: string, workers: readonly string[]): Ahead {
  return { leases: { nodes: [node], workers }, nodes: true }
}

/**
 * Writes what is declared of workers, and refuses what contradicts other nodes that stand for them. Answers those of which
 * nothing was written, because a user's transaction fences a lease that would have to be altered.
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
    putDeclared(draft, known, declaration)
    for (const lease of missing) draft.add(lease)
    for (const { key } of taken) draft.edit(key, { worker: declaration.key, waiters: [] })
    for (const { key } of surplus) draft.edit(key, { worker: null, target: null, targetAtMs: null })
  }
  return { hindered, otherSchedules }
}

async function refuseContradiction(
  draft: Draft,
  node: string,
  known: WorkerRow,
  declared: Declaration,
): Promise<void> {
  const sameKind = known.kind === declared.kind
  if (sameKind && (declared.partitions === null || declared.partitions === known.slots)) return
  const others = await othersStandingFor(draft, node, known.key)
  if (others.length === 0) return
  const is = known.kind === 'partitioned' ? `partitioned with ${known.slots} partitions` : known.kind
  const wants =
    declared.partitions === null ? declared.kind : `${declared.kind} with ${declared.partitions} partitions`
  throw new CoordinationError(
    'WCO_WORKER_CONFLICT',
    `The worker "${known.key}" is registered here as ${wants}, but as ${is} by ${others.length} other node(s), ` +
      `among them "${others[0]?.name}". Stop those first, or give the new one another name.`,
  )
}

/** Refused it cannot be: it differs for a while in every deployment that alters it. */
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
  const standing = await draft.standing()
  return standing.filter(({ id, workers }) => id !== node && workers.includes(worker))
}

function putDeclared(draft: Draft, known: WorkerRow | undefined, declared: Declaration): void {
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
    generation: known?.generation ?? 0,
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
 * Compares the leases a worker needs with the rows there are: `missing` have no row, `taken` have a row that belongs to another worker
 * or to none, `surplus` are rows it no longer needs.
 */
function layout(
  draft: Draft,
  declared: Declaration,
): { missing: LockedLease[]; taken: LockedLease[]; surplus: LockedLease[] } {
  const keys =
    declared.kind === 'single'
      ? [declared.key]
      : Array.from({ length: declared.partitions ?? 0 }, (_, slot) => slotKey(declared.key, slot))
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

/** What {@link settle} is going to read. What is released is planned anew, for which all nodes are asked. */
export function aheadOf(wishes: Wishes): Ahead {
  return { leases: { keys: keysOf(wishes) }, nodes: wishes.release.length > 0 }
}

function keysOf(wishes: Wishes): string[] {
  const keys = [...wishes.release, ...wishes.acknowledge, ...wishes.acquire].map((wish) => wish.key)
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

function release(draft: Draft, node: string, wish: Wishes['release'][number]): boolean {
  const lease = draft.lease(wish.key)
  if (lease === undefined || lease.fenced || lease.holder !== node || lease.token !== wish.token) return false
  draft.edit(lease.key, vacated)
  draft.coolDown(lease.key, node, wish.cooldownMs ?? 0)
  if (lease.target === node && !hasNewPlan(draft, lease)) draft.assign(lease.key, null)
  draft.record({ type: 'lease.released', subject: lease.key, node, token: lease.token, reason: wish.reason })
  return true
}

/**
 * A share of an older generation: its target is that of the new plan, which stands. Planned anew at each release,
 * a plan for many nodes would begin as many generations.
 */
function hasNewPlan(draft: Draft, lease: LeaseRow): boolean {
  const worker = lease.worker === null ? undefined : draft.worker(lease.worker)
  return worker?.kind === 'coordinated' && isOutdated(lease, worker)
}

function acknowledge(draft: Draft, node: string, block: Held): void {
  const lease = draft.lease(block.key)
  if (lease?.blockedNode !== node || lease.blockedToken !== block.token) return
  draft.edit(lease.key, { blockedNode: null, blockedToken: null })
  draft.record({ type: 'lease.acknowledged', subject: lease.key, node, token: block.token })
}

/** Answers whether the lease is free for another now. */
function withdraw(draft: Draft, node: string, key: string): boolean {
  const lease = draft.lease(key)
  if (lease === undefined || lease.worker !== null) return false
  if (lease.waiters.includes(node))
    draft.edit(key, { waiters: lease.waiters.filter((waiter) => waiter !== node) })
  if (lease.target !== node || lease.holder === node) return false
  draft.assign(key, null)
  return true
}

/** A target claims its lease, if nothing stands against it. */
function claim(draft: Draft, node: string, key: string, waived: readonly Held[]): void {
  freeIfAbandoned(draft, key)
  const lease = draft.lease(key)
  const worker = lease?.worker == null ? undefined : draft.worker(lease.worker)
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

/** First come, first served: a free lease goes to whoever asks, unless somebody else is already meant to have it. */
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
  if (lease.waiters.includes(node)) return
  // Nodes that are gone stand in no queue: over months of restarts it would only grow.
  const standing = new Set((await draft.standing()).map(({ id }) => id))
  draft.edit(lease.key, { waiters: [...lease.waiters.filter((waiter) => standing.has(waiter)), node] })
}

/** Where nobody is named, or somebody who cannot have it, those who wait come before who asks now. */
async function planInPlaceOfAbsent(draft: Draft, node: string, key: string): Promise<void> {
  const lease = draft.lease(key)
  if (lease === undefined || lease.target === node) return
  if (lease.target === null && lease.waiters.length === 0) return
  await draft.planByName(lease)
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
