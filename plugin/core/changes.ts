/**
 * What changes are made of: every rule about who may hold what, and when.
 *
 * Each function runs inside one ordered {@link Change}. Since all changes of a namespace come one
 * after another, none of them can see another half done, and what one of them checks is still true
 * when it writes. How these rules fit together is told in `README.md` beside this file.
 */

import { barrierOpen, Draft, freshLease, isBlocked, vacated } from './draft.js'
import { CoordinationError, type EndReason } from './errors.js'
import { slotKey } from './names.js'
import { nextAfter } from './plan.js'
import type {
  Beat,
  Change,
  Changed,
  Kind,
  LeaseRow,
  LockedLease,
  NewNode,
  NodeRow,
  OwnView,
  Scope,
  Session,
  Store,
  WorkerRow,
} from './store.js'
import { nextToken, raisedFloor } from './token.js'

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
}

/** Who asked for something, and why. Goes into the audit trail. */
export interface Instruction {
  readonly actor: string
  readonly reason: string
}

/** A lease as its holder knows it. */
export interface Held {
  readonly key: string
  readonly token: number
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
}

/** What a change answers to the node that made it, over and above its result. */
export type Ordered<T> =
  /** The server is not the one that was recorded: this is recorded now, and nothing else was done. */
  | { readonly kind: 'new-server' }
  /** The session is gone, or has made a later change already. */
  | { readonly kind: 'no-session' }
  | { readonly kind: 'done'; readonly result: T; readonly view: OwnView | undefined }

/**
 * Runs one change for a session.
 *
 * A new server identity is recorded before anything else may happen under it, by a change that does
 * only that: acknowledged writes may be missing, so tokens leap ahead of all that may have been given.
 *
 * @param highestSeen the greatest token this process has ever seen; the database may have lost it.
 */
export async function inOrder<T>(
  store: Store,
  session: Session | undefined,
  highestSeen: number,
  work: (change: Change) => Promise<T>,
): Promise<Ordered<T>> {
  const changed: Changed<Ordered<T>> = await store.change(session, async (change) => {
    if (change.meta.serverIdentity === '') {
      await change.saveMeta({ serverIdentity: change.serverIdentity, identitySettled: true })
    } else if (change.meta.serverIdentity !== change.serverIdentity) {
      await recordIdentity(change, highestSeen)
      return { kind: 'new-server' }
    }
    const joining = session !== undefined && session.operation === 1
    if (session !== undefined && !joining && change.session === undefined) return { kind: 'no-session' }
    const result = await work(change)
    const view = session === undefined ? undefined : await change.view(session.node)
    return { kind: 'done', result, view }
  })
  return changed.result
}

/**
 * Joins a node, with the workers it stands for. Tried again after a lost answer it finds itself
 * joined already, or buried since: then this life is over, and the next needs another id.
 */
export async function join(
  change: Change,
  node: NewNode,
  declarations: readonly Declaration[],
): Promise<'joined' | 'buried'> {
  const [earlier] = await change.nodesById([node.id])
  if (earlier !== undefined) return earlier.state === 'gone' ? 'buried' : 'joined'
  await change.addNode(node, 1)
  const draft = new Draft(change)
  await declare(draft, node.id, declarations)
  await draft.plan(declarations.map((declaration) => declaration.key))
  draft.record({
    type: 'node.joined',
    subject: node.id,
    node: node.id,
    detail: { name: node.name, cluster: node.cluster },
  })
  draft.concern([node.id])
  await noteNodes(draft)
  await draft.write()
  return 'joined'
}

/** Sets anew which workers a node stands for. */
export async function register(
  change: Change,
  node: string,
  declarations: readonly Declaration[],
): Promise<void> {
  const before = change.session?.workers ?? []
  const now = declarations.map((declaration) => declaration.key)
  await change.updateNode(node, { workers: now })
  const draft = new Draft(change)
  await declare(
    draft,
    node,
    declarations.filter((declaration) => !before.includes(declaration.key)),
  )
  const altered = [
    ...before.filter((key) => !now.includes(key)),
    ...now.filter((key) => !before.includes(key)),
  ]
  await draft.plan(altered)
  draft.concern([node])
  await draft.write()
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
  if (change.session?.state === 'active') {
    const waived = change.meta.longestTtlMs > wishes.longestTtlMs ? [] : wishes.waived
    for (const key of wishes.claim) claim(draft, node, key, waived)
    for (const wish of wishes.acquire) {
      if (!refused.includes(wish.key)) await acquire(draft, node, wish, waived)
    }
  }
  draft.concern([node])
  await draft.write()
  return { refused }
}

/**
 * Declares nodes gone whose beats have stood still, if they still do. Answers those it buried.
 *
 * @param longestTtlMs the ttl by which they were watched. If a node with a longer one has joined since, it may
 *   be one of these, and nobody is buried.
 */
export async function bury(
  change: Change,
  beats: readonly Beat[],
  longestTtlMs: number,
  by: string,
): Promise<string[]> {
  if (change.meta.longestTtlMs > longestTtlMs) return []
  const buried: string[] = []
  for (const beat of beats) if (await change.bury(beat.id, beat.beat)) buried.push(beat.id)
  if (buried.length > 0)
    await sortOut(change, buried, (draft, id) => {
      draft.record({
        type: 'node.gone',
        subject: id,
        node: id,
        actor: by,
        reason: 'its heartbeat stood still for a ttl',
      })
    })
  return buried
}

/** A node goes of its own accord: everything it holds is free at once. */
export async function leave(change: Change, node: string): Promise<void> {
  if (!(await change.bury(node))) return
  await sortOut(change, [node], (draft, id) => draft.record({ type: 'node.left', subject: id, node: id }))
}

/** Asks a node to hand over everything, or takes that back. */
export async function drain(
  change: Change,
  node: string,
  draining: boolean,
  by: Instruction,
): Promise<'done' | 'unchanged' | 'gone'> {
  const row = (await change.nodesById([node]))[0]
  if (row === undefined || row.state === 'gone') return 'gone'
  const state = draining ? 'draining' : 'active'
  if (row.state === state) return 'unchanged'
  await change.updateNode(node, { state })
  const draft = new Draft(change)
  await draft.load({ nodes: [node] })
  await draft.plan(row.workers)
  for (const lease of draft.leasesWhere((each) => each.worker === null && each.holder === node)) {
    draft.assign(lease.key, draining ? null : node)
    if (draining) await draft.planByName(draft.lease(lease.key) ?? lease)
  }
  draft.concern([node])
  draft.record({ type: draining ? 'node.draining' : 'node.resumed', subject: node, node, ...by })
  await noteNodes(draft)
  await draft.write()
  return 'done'
}

/** Nobody runs a worker any more, or somebody may again. Survives restarts. */
export async function pause(
  change: Change,
  key: string,
  paused: boolean,
  by: Instruction,
): Promise<'done' | 'unchanged' | 'unknown'> {
  const draft = new Draft(change)
  await draft.loadWorkers([key])
  const worker = draft.worker(key)
  if (worker === undefined) return 'unknown'
  if (worker.paused === paused) return 'unchanged'
  draft.putWorker({ ...worker, paused })
  draft.record({ type: paused ? 'worker.paused' : 'worker.resumed', subject: key, ...by })
  const nodes = await draft.standing()
  draft.concern(nodes.filter((node) => node.workers.includes(key)).map((node) => node.id))
  await draft.plan([key])
  await draft.write()
  return 'done'
}

/** How an operator takes a lease away. */
export interface Revocation extends Instruction {
  readonly key: string
  /** The token it is about: a newer holder is not touched. */
  readonly token: number
  /** How long the old holder should not win again while others stand. */
  readonly cooldownMs: number
  /** Whether the next may claim without waiting for the old holder to have stopped. */
  readonly immediate: boolean
}

/** What became of a revocation. */
export type Revoked =
  | { readonly kind: 'unknown' }
  /** It is held with another token, or not held at all. */
  | { readonly kind: 'stale'; readonly lease: LeaseRow }
  /** A user's transaction fences it at the moment; nothing was done. */
  | { readonly kind: 'fenced'; readonly lease: LeaseRow }
  | {
      readonly kind: 'revoked'
      readonly previousHolder: string
      readonly revision: number
      readonly nowMs: number
      readonly blocked: boolean
    }
  /** This very revocation has already taken effect. */
  | { readonly kind: 'repeated'; readonly lease: LeaseRow }

/** Takes a lease from its holder; the next claims once that one has acknowledged, is gone, or cannot trust any more. */
export async function revoke(change: Change, order: Revocation): Promise<Revoked> {
  const draft = new Draft(change)
  await draft.load({ keys: [order.key] })
  const lease = draft.lease(order.key)
  if (lease === undefined) return { kind: 'unknown' }
  if (lease.blockedToken === order.token) return { kind: 'repeated', lease }
  if (lease.holder === null || lease.token !== order.token) return { kind: 'stale', lease }
  if (lease.fenced) return { kind: 'fenced', lease }
  const previousHolder = lease.holder
  takeAway(draft, lease, { immediate: order.immediate, cooldownMs: order.cooldownMs })
  draft.record({
    type: 'lease.revoked',
    subject: lease.key,
    node: previousHolder,
    token: lease.token,
    actor: order.actor,
    reason: order.reason,
    detail: { immediate: order.immediate, cooldownMs: order.cooldownMs },
  })
  await replan(draft, [lease.key])
  await draft.write()
  const blocked = draft.lease(lease.key)?.blockedNode !== null
  return { kind: 'revoked', previousHolder, revision: change.revision, nowMs: change.nowMs, blocked }
}

/** What a watcher has seen go wrong with leases, to be put right if it is still so. */
export interface Findings {
  /** Targets that have not claimed in time. */
  readonly unclaimed: readonly { readonly key: string; readonly target: string }[]
  /** Holders that have not handed over in time. */
  readonly overdue: readonly Held[]
  /** Leases whose holder is gone. */
  readonly abandoned: readonly string[]
}

/** Passes over targets that hang, revokes holders that do not hand over, frees what the dead still hold. */
export async function attend(change: Change, findings: Findings): Promise<void> {
  const draft = new Draft(change)
  const keys = [...findings.unclaimed, ...findings.overdue]
    .map((finding) => finding.key)
    .concat(findings.abandoned)
  await draft.load({ keys })
  await draft.load({ workers: draft.leasesWhere(() => true).flatMap((lease) => lease.worker ?? []) })
  for (const key of findings.abandoned) freeIfAbandoned(draft, key)
  await replan(draft, findings.abandoned)
  for (const { key, token } of findings.overdue) revokeOverdue(draft, key, token)
  for (const { key, target } of findings.unclaimed) await passOver(draft, key, target)
  await draft.write()
}

/**
 * One node has waited out the grace period after a new server identity: the others need not any more. Only for the
 * very server it waited for: by now there may be yet another one, and for that nobody has waited.
 */
export async function settleIdentity(change: Change, waitedFor: string): Promise<void> {
  if (change.meta.identitySettled || change.serverIdentity !== waitedFor) return
  await change.saveMeta({ identitySettled: true })
  await tellEverybody(change)
}

/** Deletes leases acquired by name that have long been free. Tokens never go back: the floor rises above them. */
export async function pruneLeases(change: Change, keys: readonly string[]): Promise<void> {
  const rows = (await change.leases({ keys })).filter(
    (row) =>
      row.worker === null &&
      row.holder === null &&
      row.target === null &&
      row.blockedNode === null &&
      !row.fenced,
  )
  if (rows.length === 0) return
  const tokenFloor = Math.max(change.meta.tokenFloor, ...rows.map((row) => row.token))
  await change.saveMeta({ tokenFloor })
  await change.deleteLeases(rows.map((row) => row.key))
}

async function recordIdentity(change: Change, highestSeen: number): Promise<void> {
  const { tokenFloor, serverIdentity } = change.meta
  await change.saveMeta({
    serverIdentity: change.serverIdentity,
    identitySettled: false,
    tokenFloor: raisedFloor(tokenFloor, await change.highestToken(), highestSeen, change.nowMs),
  })
  await change.record([
    {
      type: 'server.changed',
      subject: 'database',
      detail: { from: serverIdentity, to: change.serverIdentity },
    },
  ])
  await tellEverybody(change)
}

async function tellEverybody(change: Change): Promise<void> {
  await change.tell(new Set((await change.nodes()).map((node) => node.id)))
}

/** Writes what is declared of workers, and refuses what contradicts other nodes that stand for them. */
async function declare(draft: Draft, node: string, declarations: readonly Declaration[]): Promise<void> {
  const keys = declarations.map((declaration) => declaration.key)
  await draft.loadWorkers(keys)
  await draft.load({ keys, workers: keys })
  for (const declaration of declarations) {
    const known = draft.worker(declaration.key)
    if (known !== undefined) await refuseContradiction(draft, node, known, declaration)
    putDeclared(draft, known, declaration)
    layOutLeases(draft, declaration)
  }
}

async function refuseContradiction(
  draft: Draft,
  node: string,
  known: WorkerRow,
  declared: Declaration,
): Promise<void> {
  const sameKind = known.kind === declared.kind
  if (sameKind && (declared.partitions === null || declared.partitions === known.slots)) return
  const others = (await draft.standing()).filter(
    (each) => each.id !== node && each.workers.includes(known.key),
  )
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

function putDeclared(draft: Draft, known: WorkerRow | undefined, declared: Declaration): void {
  const { key, name, kind, scope, cluster, partitions, handoverTimeoutMs } = declared
  const slots = partitions ?? (kind === 'single' ? 1 : known?.kind === 'coordinated' ? known.slots : 0)
  const row = {
    key,
    name,
    kind,
    scope,
    cluster,
    slots,
    handoverTimeoutMs,
    generation: known?.generation ?? 0,
    paused: known?.paused ?? false,
    revision: known?.revision ?? 0,
  }
  if (known === undefined || !sameWorker(known, row)) draft.putWorker(row)
}

function sameWorker(a: WorkerRow, b: WorkerRow): boolean {
  return a.kind === b.kind && a.slots === b.slots && a.handoverTimeoutMs === b.handoverTimeoutMs
}

/** Creates the leases a worker needs, and takes from it those it no longer has. */
function layOutLeases(draft: Draft, declared: Declaration): void {
  const keys =
    declared.kind === 'single'
      ? [declared.key]
      : Array.from({ length: declared.partitions ?? 0 }, (_, slot) => slotKey(declared.key, slot))
  for (const [slot, key] of keys.entries()) {
    const lease = draft.lease(key)
    if (lease === undefined) draft.add(freshLease(key, declared.key, slot))
    else if (lease.worker !== declared.key) draft.edit(key, { worker: declared.key, waiters: [] })
  }
  if (declared.kind === 'coordinated') return
  const wanted = new Set(keys)
  for (const lease of draft.leasesOf(declared.key)) {
    if (!wanted.has(lease.key)) draft.edit(lease.key, { worker: null, target: null, targetAtMs: null })
  }
}

/** Coordinated workers are judged as a whole, so all their leases are loaded. */
async function loadWhatIsNeeded(draft: Draft, wishes: Wishes): Promise<void> {
  const keys = [...wishes.release, ...wishes.acknowledge, ...wishes.acquire].map((wish) => wish.key)
  await draft.load({ keys: [...new Set([...keys, ...wishes.claim, ...wishes.withdraw])] })
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
  if (lease.target === node) draft.assign(lease.key, null)
  draft.record({ type: 'lease.released', subject: lease.key, node, token: lease.token, reason: wish.reason })
  return true
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
  const lease = draft.lease(wish.key)
  if (lease === undefined || lease.holder === node) return
  const target = lease.target !== null && (await stands(draft, lease.target)) ? lease.target : null
  const mayHave = target === null || target === node
  if (mayHave && isFree(draft, lease, waived)) return grant(draft, node, lease, 0)
  if (!wish.wait) return
  const vacant = lease.holder === null || draft.isGone(lease.holder)
  if (mayHave && vacant) draft.assign(lease.key, node)
  else if (!lease.waiters.includes(node)) draft.edit(lease.key, { waiters: [...lease.waiters, node] })
}

async function stands(draft: Draft, node: string): Promise<boolean> {
  return (await draft.standing()).some((each) => each.id === node && each.state === 'active')
}

/** Nobody holds it who is not gone, no revoked holder may still be at work, and no user's transaction fences it. */
function isFree(draft: Draft, lease: LockedLease, waived: readonly Held[]): boolean {
  const held = lease.holder !== null && !draft.isGone(lease.holder)
  return !held && !lease.fenced && (!isBlocked(lease, draft.isGone) || isWaived(lease, waived))
}

function isWaived(lease: LeaseRow, waived: readonly Held[]): boolean {
  return waived.some((each) => each.key === lease.key && each.token === lease.blockedToken)
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

/** Frees and plans again what nodes that are now gone had or were meant to have. */
async function sortOut(
  change: Change,
  gone: readonly string[],
  record: (draft: Draft, id: string) => void,
): Promise<void> {
  const rows = await change.nodesById(gone)
  const draft = new Draft(change)
  for (const id of gone) draft.markGone(id)
  await draft.load({ nodes: gone, workers: rows.flatMap((row) => row.workers) })
  for (const id of gone) record(draft, id)
  const touched = draft.leasesWhere((lease) =>
    [lease.holder, lease.target, lease.blockedNode].some((id) => id !== null && gone.includes(id)),
  )
  for (const lease of touched) freeIfAbandoned(draft, lease.key)
  await replan(
    draft,
    touched.map((lease) => lease.key),
    rows.flatMap((row) => row.workers),
  )
  await noteNodes(draft)
  await draft.write()
}

/** Clears from a lease every name of a node that is gone. */
function freeIfAbandoned(draft: Draft, key: string): void {
  const lease = draft.lease(key)
  if (lease === undefined || lease.fenced) return
  if (lease.holder !== null && draft.isGone(lease.holder)) {
    draft.edit(key, vacated)
    draft.record({ type: 'lease.lost', subject: key, node: lease.holder, token: lease.token })
  }
  if (lease.blockedNode !== null && draft.isGone(lease.blockedNode))
    draft.edit(key, { blockedNode: null, blockedToken: null })
  if (lease.target !== null && draft.isGone(lease.target)) draft.assign(key, null)
}

/**
 * Names who is next for leases that have become free, and plans further workers with them. Where somebody is named
 * already there is nothing to plan; but shares are planned as a whole, and one that was fenced may have missed
 * the last plan.
 */
async function replan(
  draft: Draft,
  freed: readonly string[],
  workers: readonly string[] = [],
): Promise<void> {
  const leases = freed.flatMap((key) => draft.lease(key) ?? [])
  const unplanned = leases.filter((lease) => lease.target === null || draft.isCoordinated(lease))
  await draft.plan([...workers, ...unplanned.flatMap((lease) => lease.worker ?? [])])
  for (const lease of leases)
    if (lease.worker === null) await draft.planByName(draft.lease(lease.key) ?? lease)
}

function takeAway(draft: Draft, lease: LockedLease, how: { immediate: boolean; cooldownMs: number }): void {
  const { holder } = lease
  if (holder === null) return
  const blocks = !how.immediate && !draft.isGone(holder)
  draft.edit(lease.key, {
    ...vacated,
    ...(blocks ? { blockedNode: holder, blockedToken: lease.token } : {}),
  })
  draft.coolDown(lease.key, holder, how.cooldownMs)
  if (lease.target === holder) draft.assign(lease.key, null)
}

/** Nobody waits for ever for work that ignores its signal: the holder is revoked as if by an operator. */
function revokeOverdue(draft: Draft, key: string, token: number): void {
  const lease = draft.lease(key)
  if (lease === undefined || lease.fenced || lease.holder === null || lease.token !== token) return
  const worker = lease.worker === null ? undefined : draft.worker(lease.worker)
  const handingOver =
    lease.target !== lease.holder || (worker !== undefined && lease.generation < worker.generation)
  if (!handingOver) return
  takeAway(draft, lease, { immediate: false, cooldownMs: 0 })
  draft.record({
    type: 'lease.revoked',
    subject: key,
    node: lease.holder,
    token,
    reason: 'the holder did not hand over in time',
  })
}

/** How long a target that was passed over stands aside, so that the next plan does not name it again at once. */
const passedOverForMs = 30_000

async function passOver(draft: Draft, key: string, target: string): Promise<void> {
  const lease = draft.lease(key)
  if (lease === undefined || lease.fenced || lease.target !== target || lease.holder === target) return
  if (!isFree(draft, lease, [])) return
  const worker = lease.worker === null ? undefined : draft.worker(lease.worker)
  if (worker === undefined) {
    draft.assign(key, null)
    await draft.planByName(draft.lease(key) ?? lease)
  } else if (worker.kind === 'coordinated') {
    if (!barrierOpen(worker, draft.leasesOf(worker.key), draft.isGone)) return
    if ((await draft.candidates(worker)).length < 2) return
    if (draft.cooling(lease).size === 0) draft.coolDown(key, target, passedOverForMs)
    await draft.plan([worker.key])
  } else {
    const next = nextAfter(key, target, await draft.candidates(worker), draft.cooling(lease))
    draft.assign(key, next ?? null)
  }
  if (draft.lease(key)?.target !== target)
    draft.record({ type: 'target.passed-over', subject: key, node: target })
}

/**
 * Brings the revision row up to date about the nodes: two active ones look for the dead (draining ones
 * only when nobody else is there), and the longest ttl is what all of them wait by.
 *
 * Who watches goes on watching. A place that is free goes to the node that makes this change, for that one is
 * certainly alive, and then to whoever was heard of last: were it the oldest, then of many that died
 * together two at a time would be named and found dead, a ttl each time.
 */
async function noteNodes(draft: Draft): Promise<void> {
  draft.nodesChanged()
  const nodes = await draft.standing()
  const active = nodes.filter((node) => node.state === 'active')
  const { meta, session } = draft.change
  const rank = ({ id }: NodeRow): number => (meta.watchers.includes(id) ? 0 : id === session?.id ? 1 : 2)
  const ranked = [...(active.length > 0 ? active : nodes)].sort(
    (a, b) => rank(a) - rank(b) || b.heartbeatAtMs - a.heartbeatAtMs,
  )
  const watchers = ranked.slice(0, 2).map((node) => node.id)
  const longestTtlMs = Math.max(0, ...nodes.map((node) => node.ttlMs))
  const sameWatchers =
    watchers.length === meta.watchers.length && watchers.every((id) => meta.watchers.includes(id))
  if (sameWatchers && longestTtlMs === meta.longestTtlMs) return
  await draft.change.saveMeta({ watchers, longestTtlMs })
  if (!sameWatchers) draft.concern([...meta.watchers, ...watchers])
}
