/**
 * The operations an operator may ask for. Each is one change, and records an event that says who asked and why.
 */

import type { Change, LeaseRow } from '../store.js'
import { Draft } from './draft.js'
import { type Candidate, chooseSuccessor } from './plan.js'
import { namedBy, unblocked, uncooled } from './rows.js'
import { noteNodes, takeAway, unname } from './rules.js'
import { planByName, planWorkers, queueFirst, replan } from './targets.js'

/** Who asked for an operation, and why. It goes into the audit trail. */
export interface Instruction {
  /** 1 to 200 characters, without line breaks and other control characters. */
  readonly actor: string
  /** 3 to 200 characters, not only spaces, without line breaks and other control characters. */
  readonly reason: string
}

/** Why a node that closes drains itself. Its own name is the actor. */
export const closingReason = 'the node is closing'

/** How an operator takes a lease away. */
export interface Revocation extends Instruction {
  readonly key: string
  /** The token of the term to end: a newer holder is not affected. */
  readonly token: number
  /** How long the old holder should not win the lease again while there are other candidates, in ms. */
  readonly cooldownMs: number
  /** Whether the next holder may claim without waiting for the old one to stop. */
  readonly immediate: boolean
}

/** The outcome of a revocation. */
export type Revoked =
  /** There is no such lease. */
  | { readonly kind: 'unknown' }
  /** It is held under another token, or not held. */
  | { readonly kind: 'stale'; readonly lease: LeaseRow }
  /** A user's transaction fences it at the moment; nothing was done. */
  | { readonly kind: 'fenced'; readonly lease: LeaseRow }
  | {
      readonly kind: 'revoked'
      /** Session id of the node it was taken from. */
      readonly previousHolder: string
      /** Number of the change that revoked it. */
      readonly revision: number
      /** When it was revoked, by the database's clock, in ms since 1970. */
      readonly nowMs: number
      /** Whether the next holder must wait for the old one to stop. */
      readonly blocked: boolean
    }
  /** This same revocation has already taken effect. */
  | { readonly kind: 'repeated'; readonly lease: LeaseRow }

/**
 * Takes a lease from its holder. The next node claims once the old holder has acknowledged, is gone, or can no
 * longer trust. If the lease was revoked before and that wait is still going on, an `immediate` revocation ends it.
 */
export async function revoke(change: Change, order: Revocation): Promise<Revoked> {
  const draft = new Draft(change)
  await draft.load({ keys: [order.key] })
  const lease = draft.lease(order.key)
  if (lease === undefined) return { kind: 'unknown' }
  const isBlockedByIt = lease.blockedToken === order.token
  if (isBlockedByIt && !order.immediate) return { kind: 'repeated', lease }
  const missing = draft.forsaken.get(order.key)?.holder
  const previousHolder = isBlockedByIt ? lease.blockedNode : (lease.holder ?? missing ?? null)
  if (previousHolder === null || lease.token !== order.token) return { kind: 'stale', lease }
  if (lease.fenced) return { kind: 'fenced', lease }
  await draft.loadShares(lease)
  // Where the row of its holder is missing, nobody claims for a grace period.
  const immediate = order.immediate && missing === undefined
  if (missing !== undefined) {
    // One event tells of the end of this term.
    draft.forsaken.delete(order.key)
    if (lease.target === missing) draft.assign(lease.key, null)
  } else if (isBlockedByIt) {
    draft.edit(lease.key, unblocked)
    draft.coolDown(lease.key, previousHolder, order.cooldownMs)
    unname(draft, lease, previousHolder)
  } else takeAway(draft, lease, { immediate, cooldownMs: order.cooldownMs })
  draft.record({
    type: 'lease.revoked',
    subject: lease.key,
    node: previousHolder,
    token: lease.token,
    actor: order.actor,
    reason: order.reason,
    detail: { immediate, cooldownMs: order.cooldownMs },
  })
  await replan(draft, [lease.key])
  await draft.write()
  const blocked = missing !== undefined || draft.lease(lease.key)?.blockedNode !== null
  return { kind: 'revoked', previousHolder, revision: change.revision, nowMs: change.nowMs, blocked }
}

/** Ends a term in good order, optionally in favour of one node. */
export interface Transfer extends Instruction {
  readonly key: string
  /** The token of the term to end: a newer holder is not affected. */
  readonly token: number
  /** Session id of the node that should hold it next, whose cool-down ends; null to let the plan choose. */
  readonly to: string | null
  /**
   * How long the old holder should not win the lease again while there are other candidates, in ms. Null: as is usual.
   */
  readonly cooldownMs: number | null
}

/** How long a node usually does not win a lease again that an operator took from it, in ms. */
export const usualCooldownMs = 60_000

/** The outcome of a {@link Transfer}. */
export type Transferred =
  /** There is no such lease. */
  | { readonly kind: 'unknown' }
  /** It is held under another token, or not held. */
  | { readonly kind: 'stale'; readonly lease: LeaseRow }
  /** A user's transaction fences it at the moment; nothing was done. */
  | { readonly kind: 'fenced'; readonly lease: LeaseRow }
  /**
   * The requested node is not a candidate, a share was requested for a certain node, or only the holder is a
   * candidate.
   */
  | { readonly kind: 'no-candidate'; readonly candidates: readonly string[] }
  /**
   * The holder, `from`, has been asked to hand it over to `to`: session ids; `to` is null while the plan has no node
   * for it.
   */
  | { readonly kind: 'asked'; readonly from: string; readonly to: string | null }

/**
 * Ends a term in good order: the holder hears of it, ends its pass and releases the lease, and the target claims.
 */
export async function transfer(change: Change, order: Transfer): Promise<Transferred> {
  const draft = new Draft(change)
  await draft.load({ keys: [order.key] })
  const lease = draft.lease(order.key)
  if (lease === undefined) return { kind: 'unknown' }
  if (lease.holder === null || lease.token !== order.token) return { kind: 'stale', lease }
  if (lease.fenced) return { kind: 'fenced', lease }
  const others = (await draft.standFor(lease)).filter((candidate) => candidate.id !== lease.holder)
  const candidates = others.map((candidate) => candidate.id)
  const coordinated = draft.isCoordinated(lease)
  const named = order.to === null || (candidates.includes(order.to) && !coordinated)
  if (!named || candidates.length === 0) return { kind: 'no-candidate', candidates }
  await draft.loadShares(lease)
  // Whom the operator has chosen, the next plan is not to pass over.
  if (order.to !== null && lease.cooldownNode === order.to) draft.edit(lease.key, uncooled)
  // After a cool-down partitions are shared out evenly again, which would undo what the operator has chosen.
  const isPlaced = order.to !== null && draft.workerOf(lease)?.kind === 'partitioned'
  draft.coolDown(lease.key, lease.holder, order.cooldownMs ?? (isPlaced ? 0 : usualCooldownMs))
  if (lease.worker !== null && coordinated) await planWorkers(draft, [lease.worker])
  else if (lease.worker === null && order.to === null) await assignByQueue(draft, lease.key)
  else {
    // Who was next by the queue is next again after the node that the operator has chosen.
    if (lease.worker === null && lease.target !== null && lease.target !== order.to)
      queueFirst(draft, lease.key, lease.target)
    draft.assign(lease.key, order.to ?? successorTo(draft, lease.key, others))
  }
  const to = draft.lease(lease.key)?.target ?? null
  if (to === lease.holder) return { kind: 'no-candidate', candidates }
  const { actor, reason } = order
  draft.record({
    type: 'lease.transferred',
    subject: lease.key,
    node: lease.holder,
    token: lease.token,
    actor,
    reason,
    detail: { to },
  })
  await draft.write()
  return { kind: 'asked', from: lease.holder, to }
}

/**
 * However a term ends, a lease acquired by name goes to the node that has waited longest. One that is the target already
 * has come out of the queue, and stays the target.
 */
async function assignByQueue(draft: Draft, key: string): Promise<void> {
  const lease = draft.lease(key)
  if (lease?.target === lease?.holder) draft.assign(key, null)
  await planByName(draft, key)
}

function successorTo(draft: Draft, key: string, others: readonly Candidate[]): string | null {
  const lease = draft.lease(key)
  return lease === undefined ? null : (chooseSuccessor(key, others, draft.cooling([lease], others)) ?? null)
}

/** A partition or share that a plan gives to another node. */
export interface Move {
  /** Number of the partition or share, from 0. */
  readonly slot: number
  /** Session id of the old target; null for none. */
  readonly from: string | null
  /** Session id of the new target; null for none. */
  readonly to: string | null
}

/** The outcome of a request to plan afresh. */
export type Rebalanced =
  /** There is no such worker. */
  | { readonly kind: 'unknown' }
  /** The plan in force is not the one that the operator looked at. */
  | { readonly kind: 'stale'; readonly revision: number }
  /** `moves` is empty when nothing needs to move; `generation` is the number of the plan in force. */
  | { readonly kind: 'planned'; readonly moves: readonly Move[]; readonly generation: number }

/** Plans the leases of a worker afresh. With `dryRun` it only returns what would move. */
export async function rebalance(
  change: Change,
  key: string,
  how: Instruction & { readonly dryRun: boolean; readonly revision: number | null },
): Promise<Rebalanced> {
  const draft = new Draft(change)
  await draft.load({ workers: [key] })
  await draft.loadWorkers([key])
  const worker = draft.worker(key)
  if (worker === undefined) return { kind: 'unknown' }
  const before = draft.leasesOf(key)
  const revision = Math.max(worker.revision, ...before.map((lease) => lease.revision))
  if (how.revision !== null && how.revision !== revision) return { kind: 'stale', revision }
  await planWorkers(draft, [key])
  const moves = movesBetween(before, draft.leasesOf(key))
  if (how.dryRun || moves.length === 0) return { kind: 'planned', moves, generation: worker.generation }
  const { actor, reason } = how
  draft.record({ type: 'worker.rebalanced', subject: key, actor, reason, detail: { moves: moves.length } })
  await draft.write()
  const { generation } = draft.worker(key) ?? worker
  return { kind: 'planned', moves, generation }
}

/** Removes a node that is gone from the list. */
export async function forget(
  change: Change,
  id: string,
  by: Instruction,
): Promise<'done' | 'unknown' | 'alive' | 'named'> {
  const [node] = await change.nodesById([id])
  if (node === undefined) return 'unknown'
  if (node.state !== 'gone') return 'alive'
  const named = await change.leases({ nodes: [id] })
  if (named.length > 0) return 'named'
  await change.forgetNode(id)
  await change.record([{ type: 'node.forgotten', subject: id, node: id, ...by, detail: { name: node.name } }])
  return 'done'
}

/**
 * Removes a worker that no node registers any more, with its leases. Should it ever be registered again, its tokens go
 * on from the floor.
 */
export async function forgetWorker(
  change: Change,
  key: string,
  by: Instruction,
): Promise<'done' | 'unknown' | 'registered' | 'named'> {
  const draft = new Draft(change)
  await draft.load({ workers: [key] })
  await draft.loadWorkers([key])
  const worker = draft.worker(key)
  if (worker === undefined) return 'unknown'
  if ((await draft.nodesWith(key)).length > 0) return 'registered'
  const present = new Set((await draft.presentNodes()).map(({ id }) => id))
  const leases = draft.leasesOf(key)
  if (leases.some((lease) => lease.fenced || namedBy(lease).some((node) => present.has(node)))) return 'named'
  // The tokens of rows that somebody has deleted are known to nobody.
  if (draft.lacksLeases(worker)) draft.doubt(key)
  for (const lease of leases) draft.remove(lease.key)
  draft.record({ type: 'worker.forgotten', subject: key, ...by })
  await draft.write()
  await change.forgetWorker(key)
  return 'done'
}

function movesBetween(before: readonly LeaseRow[], after: readonly LeaseRow[]): Move[] {
  const from = new Map(before.map((lease) => [lease.slot, lease.target]))
  return after
    .filter((lease) => (from.get(lease.slot) ?? null) !== lease.target)
    .map((lease) => ({ slot: lease.slot, from: from.get(lease.slot) ?? null, to: lease.target }))
}

/** Asks a node to hand over everything, or withdraws that request. */
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
  await planWorkers(draft, row.workers)
  for (const lease of draft.leasesWhere((each) => each.worker === null && each.holder === node)) {
    // A target that was chosen in the meantime, such as the first waiter, is kept.
    if (!draining && lease.target !== null) continue
    if (draining) await assignByQueue(draft, lease.key)
    else draft.assign(lease.key, node)
  }
  // Where it was next in line, the others need not wait until it is passed over.
  for (const { key } of draft.leasesWhere(({ worker, target }) => worker === null && target === node))
    await planByName(draft, key)
  draft.concern([node])
  draft.record({ type: draining ? 'node.draining' : 'node.resumed', subject: node, node, ...by })
  await noteNodes(draft)
  await draft.write()
  return 'done'
}

/** Pauses a worker, so that no node runs it, or resumes it. A pause survives restarts. */
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
  draft.concern((await draft.nodesWith(key)).map(({ id }) => id))
  await planWorkers(draft, [key])
  await draft.write()
  return 'done'
}
