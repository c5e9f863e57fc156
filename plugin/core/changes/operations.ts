/**
 * What an operator may ask for: each is one change, and leaves an event that says who asked and why.
 */

import type { Change, LeaseRow } from '../store.js'
import { Draft } from './draft.js'
import { type Candidate, chooseSuccessor } from './plan.js'
import { noteNodes, replan, takeAway } from './rules.js'

/** Who asked for something, and why. Goes into the audit trail. */
export interface Instruction {
  /** 1 to 200 characters, without line breaks and other control characters. */
  readonly actor: string
  /** 3 to 200 characters, not only spaces, without line breaks and other control characters. */
  readonly reason: string
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
  /** There is no such lease. */
  | { readonly kind: 'unknown' }
  /** It is held with another token, or not held at all. */
  | { readonly kind: 'stale'; readonly lease: LeaseRow }
  /** A user's transaction fences it at the moment; nothing was done. */
  | { readonly kind: 'fenced'; readonly lease: LeaseRow }
  | {
      readonly kind: 'revoked'
      /** Session id of the node it was taken from. */
      readonly previousHolder: string
      /** Number of the change that did it. */
      readonly revision: number
      /** When, by the database's clock, in ms since 1970. */
      readonly nowMs: number
      /** Whether the next holder has to wait for the old one to have stopped. */
      readonly blocked: boolean
    }
  /** This very revocation has already taken effect. */
  | { readonly kind: 'repeated'; readonly lease: LeaseRow }

/**
 * Takes a lease from its holder; the next claims once that one has acknowledged, is gone, or cannot trust any more. What
 * was revoked before and still waits for that, an `immediate` revocation lets the next claim at once.
 */
export async function revoke(change: Change, order: Revocation): Promise<Revoked> {
  const draft = new Draft(change)
  await draft.load({ keys: [order.key] })
  const lease = draft.lease(order.key)
  if (lease === undefined) return { kind: 'unknown' }
  const isBlockedByIt = lease.blockedToken === order.token
  if (isBlockedByIt && !order.immediate) return { kind: 'repeated', lease }
  const previousHolder = isBlockedByIt ? lease.blockedNode : lease.holder
  if (previousHolder === null || lease.token !== order.token) return { kind: 'stale', lease }
  if (lease.fenced) return { kind: 'fenced', lease }
  if (isBlockedByIt) {
    draft.edit(lease.key, { blockedNode: null, blockedToken: null })
    draft.coolDown(lease.key, previousHolder, order.cooldownMs)
    if (lease.target === previousHolder) draft.assign(lease.key, null)
  } else takeAway(draft, lease, { immediate: order.immediate, cooldownMs: order.cooldownMs })
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

/** Ends a term in good order, perhaps in favour of one node. */
export interface Transfer extends Instruction {
  readonly key: string
  /** The token it is about: a newer holder is not touched. */
  readonly token: number
  /** Session id of the node that is to have it next; default: the plan chooses. */
  readonly to: string | null
  /** How long the old holder should not win again while others stand, in ms. */
  readonly cooldownMs: number
}

/** What became of a {@link Transfer}. */
export type Transferred =
  /** There is no such lease. */
  | { readonly kind: 'unknown' }
  /** It is held with another token, or not held at all. */
  | { readonly kind: 'stale'; readonly lease: LeaseRow }
  /** A user's transaction fences it at the moment; nothing was done. */
  | { readonly kind: 'fenced'; readonly lease: LeaseRow }
  /** The node that was named does not stand for it, or nobody does but its holder. */
  | { readonly kind: 'no-candidate'; readonly candidates: readonly string[] }
  /** The holder, `from`, is to hand it over: session ids, and null where the plan has nobody yet. */
  | { readonly kind: 'asked'; readonly from: string; readonly to: string | null }

/** The holder hears of it, ends its pass and gives the lease to whoever is meant to have it next. */
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
  draft.coolDown(lease.key, lease.holder, order.cooldownMs)
  if (lease.worker !== null && coordinated) await draft.plan([lease.worker])
  else if (lease.worker === null && order.to === null) await assignByQueue(draft, lease.key)
  else draft.assign(lease.key, order.to ?? successorTo(draft, lease.key, others))
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

/** By name it goes to whoever has waited longest, whoever ends the term. */
async function assignByQueue(draft: Draft, key: string): Promise<void> {
  draft.assign(key, null)
  const lease = draft.lease(key)
  if (lease !== undefined) await draft.planByName(lease)
}

function successorTo(draft: Draft, key: string, others: readonly Candidate[]): string | null {
  const lease = draft.lease(key)
  return lease === undefined ? null : (chooseSuccessor(key, others, draft.cooling(lease, others)) ?? null)
}

/** A partition or share that a plan gives to another node. */
export interface Move {
  /** Number of the partition or share, from 0. */
  readonly slot: number
  /** Session id of the node that was meant to have it; null for nobody. */
  readonly from: string | null
  /** Session id of the node that is; null for nobody. */
  readonly to: string | null
}

/** What became of a request to plan afresh. */
export type Rebalanced =
  /** There is no such worker. */
  | { readonly kind: 'unknown' }
  /** Another plan is in force than the one that was looked at. */
  | { readonly kind: 'stale'; readonly revision: number }
  /** `moves` is empty when nothing is to move; `generation` is the number of the plan in force. */
  | { readonly kind: 'planned'; readonly moves: readonly Move[]; readonly generation: number }

/** Plans the leases of a worker afresh. With `dryRun` it only answers what would move. */
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
  await draft.plan([key])
  const moves = movesBetween(before, draft.leasesOf(key))
  const { generation } = draft.worker(key) ?? worker
  if (how.dryRun || moves.length === 0) return { kind: 'planned', moves, generation }
  const { actor, reason } = how
  draft.record({ type: 'worker.rebalanced', subject: key, actor, reason, detail: { moves: moves.length } })
  await draft.write()
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

function movesBetween(before: readonly LeaseRow[], after: readonly LeaseRow[]): Move[] {
  const from = new Map(before.map((lease) => [lease.slot, lease.target]))
  return after
    .filter((lease) => (from.get(lease.slot) ?? null) !== lease.target)
    .map((lease) => ({ slot: lease.slot, from: from.get(lease.slot) ?? null, to: lease.target }))
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
    // Who was named in the meantime, a waiter that stood first, stays named.
    if (!draining && lease.target !== null) continue
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
