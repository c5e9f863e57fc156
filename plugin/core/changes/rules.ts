/**
 * Rules that several changes share: when a lease is free, what happens to it when its holder is gone, and which
 * nodes are watchers.
 */

import type { EndReason } from '../errors.js'
import type { Change, LeaseRow, LockedLease, NodeRow, WorkerRow } from '../store.js'
import { Draft } from './draft.js'
import { isBlocked, isOutdated, namedBy, unblocked, vacated } from './rows.js'
import { replan } from './targets.js'

/** A lease as its holder knows it. */
export interface Held {
  readonly key: string
  readonly token: number
}

/**
 * Whether a lease can be claimed: it has no living holder, is not fenced, and is not blocked unless the block is
 * waived.
 */
export function isFree(draft: Draft, lease: LockedLease, waived: readonly Held[]): boolean {
  const held = lease.holder !== null && !draft.isGone(lease.holder)
  return !held && !lease.fenced && (!isBlocked(lease, draft.isGone) || isWaived(lease, waived))
}

export function isWaived(lease: LeaseRow, waived: readonly Held[]): boolean {
  return waived.some((each) => each.key === lease.key && each.token === lease.blockedToken)
}

/**
 * Whether a fence holds a share of an older generation of a worker, so that none of the present one can be claimed. Its
 * holder may be gone: its transaction may still write.
 */
export function isFencedOff(draft: Draft, worker: WorkerRow): boolean {
  return draft
    .leasesOf(worker.key)
    .some((each) => each.fenced && each.holder !== null && isOutdated(each, worker))
}

/** How the end of a lease is recorded when its holder is gone. */
interface Ending {
  readonly type: 'lease.lost' | 'lease.released'
  readonly reason?: EndReason
}

/** Clears the holder, the target and the block of a lease where they name a node that is gone. */
export function freeIfAbandoned(draft: Draft, key: string, ending: Ending = { type: 'lease.lost' }): void {
  const lease = draft.lease(key)
  if (lease === undefined || lease.fenced) return
  if (lease.holder !== null && draft.isGone(lease.holder)) {
    draft.edit(key, vacated)
    draft.record({ ...ending, subject: key, node: lease.holder, token: lease.token })
  }
  if (lease.blockedNode !== null && draft.isGone(lease.blockedNode)) draft.edit(key, unblocked)
  if (lease.target !== null && draft.isGone(lease.target)) draft.assign(key, null)
}

export function takeAway(
  draft: Draft,
  lease: LockedLease,
  how: { immediate: boolean; cooldownMs: number },
): void {
  const { holder } = lease
  if (holder === null) return
  const blocks = !how.immediate && !draft.isGone(holder)
  draft.edit(lease.key, {
    ...vacated,
    ...(blocks ? { blockedNode: holder, blockedToken: lease.token } : {}),
  })
  draft.coolDown(lease.key, holder, how.cooldownMs)
  unname(draft, lease, holder)
}

/**
 * Has the next plan choose who follows a node as target of a lease. A share stays with its node as long as that is a
 * candidate and does not stand aside: another plan would end everybody's passes.
 */
export function unname(draft: Draft, lease: LeaseRow, node: string): void {
  if (lease.target !== node) return
  if (!draft.isCoordinated(lease)) draft.assign(lease.key, null)
  else if (!hasNewPlan(draft, lease)) draft.edit(lease.key, { targetAtMs: draft.change.nowMs })
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
 * Revokes a holder whose time to hand over is up, as an operator would, so that no node waits for ever for work that
 * ignores its signal. Such a node can take no share of a coordinated worker until that work has settled, so it stands
 * aside.
 */
export function revokeLate(draft: Draft, lease: LockedLease, reason: string, cooldownMs: number): void {
  const { key, holder, token } = lease
  const worker = draft.workerOf(lease)
  takeAway(draft, lease, { immediate: false, cooldownMs })
  if (worker?.kind === 'coordinated' && holder !== null) putAside(draft, worker, key, holder)
  draft.record({ type: 'lease.revoked', subject: key, node: holder, token, reason })
}

/**
 * Makes a node stand aside from all shares, by a cool-down on one. A cool-down that an operator asked for is kept.
 */
export function putAside(draft: Draft, worker: WorkerRow, key: string, node: string): void {
  const others = draft.leasesOf(worker.key).map((lease) => lease.key)
  const spare = [key, ...others].find((each) => {
    const lease = draft.lease(each)
    return lease !== undefined && !lease.fenced && draft.cooling([lease]).size === 0
  })
  if (spare !== undefined) draft.coolDown(spare, node, standAsideMs)
}

/** How long a node that cannot claim stands aside, so that the next plan does not choose it again at once. */
export const standAsideMs = 30_000

/** Frees and plans anew what nodes that are gone, or go with this change, held or were meant to hold. */
export async function sortOut(
  change: Change,
  rows: readonly NodeRow[],
  record: (draft: Draft, id: string) => void,
  ending?: Ending,
): Promise<void> {
  const gone = rows.map((row) => row.id)
  const workers = rows.flatMap((row) => row.workers)
  const draft = new Draft(change)
  for (const id of gone) draft.markGone(id)
  await draft.load({ nodes: gone, workers })
  for (const id of gone) record(draft, id)
  const touched = draft.leasesWhere((lease) => namedBy(lease).some((id) => gone.includes(id)))
  for (const lease of touched) freeIfAbandoned(draft, lease.key, ending)
  await replan(
    draft,
    touched.map((lease) => lease.key),
    workers,
  )
  missWorkers(draft, workers)
  await noteNodes(draft)
  await draft.write()
}

/**
 * Doubts workers that nodes have registered until this change and that have no row, once they have been looked for. When
 * no node has them registered any more, nobody can tell a worker whose rows were deleted from a new one.
 */
export function missWorkers(draft: Draft, keys: readonly string[]): void {
  for (const key of keys) if (draft.worker(key) === undefined) draft.doubt(key)
}

/**
 * Brings the revision row up to date about the nodes: the two watchers, which are active nodes (draining ones only
 * when there are no others), and the longest ttl, by which all nodes wait.
 *
 * A watcher stays a watcher. A free place goes first to the node that makes this change, because that node is
 * certainly alive, and then to the node heard from last. If it went to the oldest node and many had died together,
 * dead nodes would be named two at a time, and each pair would take a ttl to be found dead.
 */
export async function noteNodes(draft: Draft): Promise<void> {
  const nodes = await draft.presentNodes()
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
