/**
 * What an operator may ask for beyond taking a lease away: each is one change, with its event.
 */
import type { Instruction } from './changes.js'
import { Draft } from './draft.js'
import { chooseSuccessor } from './plan.js'
import type { Change, LeaseRow } from './store.js'

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
  | { readonly kind: 'unknown' }
  /** It is held with another token, or not held at all. */
  | { readonly kind: 'stale'; readonly lease: LeaseRow }
  /** A user's transaction fences it at the moment; nothing was done. */
  | { readonly kind: 'fenced'; readonly lease: LeaseRow }
  /** The node that was named does not stand for it, or nobody does but its holder. */
  | { readonly kind: 'no-candidate'; readonly candidates: readonly string[] }
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
  else draft.assign(lease.key, order.to ?? chooseSuccessor(lease.key, others, draft.cooling(lease)) ?? null)
  const to = draft.lease(lease.key)?.target ?? null
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

/** A partition or share that a plan gives to another node. */
export interface Move {
  readonly slot: number
  readonly from: string | null
  readonly to: string | null
}

/** What became of a request to plan afresh. */
export type Rebalanced =
  | { readonly kind: 'unknown' }
  /** Another plan is in force than the one that was looked at. */
  | { readonly kind: 'stale'; readonly revision: number }
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
