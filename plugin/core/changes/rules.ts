/**
 * Rules that several changes share: when a lease is free, what becomes of it when its holder is gone, and who
 * watches.
 */

import type { EndReason } from '../errors.js'
import type { Change, LeaseRow, LockedLease, NodeRow } from '../store.js'
import { Draft, isBlocked, vacated } from './draft.js'

/** A lease as its holder knows it. */
export interface Held {
  readonly key: string
  readonly token: number
}

/** Whether a lease can be claimed: it has no living holder, is not blocked on a revoked one, and is not fenced. */
export function isFree(draft: Draft, lease: LockedLease, waived: readonly Held[]): boolean {
  const held = lease.holder !== null && !draft.isGone(lease.holder)
  return !held && !lease.fenced && (!isBlocked(lease, draft.isGone) || isWaived(lease, waived))
}

export function isWaived(lease: LeaseRow, waived: readonly Held[]): boolean {
  return waived.some((each) => each.key === lease.key && each.token === lease.blockedToken)
}

/** How a lease is said to have ended whose holder is gone. */
interface Ending {
  readonly type: 'lease.lost' | 'lease.released'
  readonly reason?: EndReason
}

/** Clears from a lease every name of a node that is gone. */
export function freeIfAbandoned(draft: Draft, key: string, ending: Ending = { type: 'lease.lost' }): void {
  const lease = draft.lease(key)
  if (lease === undefined || lease.fenced) return
  if (lease.holder !== null && draft.isGone(lease.holder)) {
    draft.edit(key, vacated)
    draft.record({ ...ending, subject: key, node: lease.holder, token: lease.token })
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
export async function replan(
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
  if (lease.target === holder) draft.assign(lease.key, null)
}

/** Frees and plans again what nodes that are now gone, or go with this change, had or were meant to have. */
export async function sortOut(
  change: Change,
  rows: readonly NodeRow[],
  record: (draft: Draft, id: string) => void,
  ending?: Ending,
): Promise<void> {
  const gone = rows.map((row) => row.id)
  const draft = new Draft(change)
  for (const id of gone) draft.markGone(id)
  await draft.load({ nodes: gone, workers: rows.flatMap((row) => row.workers) })
  for (const id of gone) record(draft, id)
  const touched = draft.leasesWhere((lease) =>
    [lease.holder, lease.target, lease.blockedNode].some((id) => id !== null && gone.includes(id)),
  )
  for (const lease of touched) freeIfAbandoned(draft, lease.key, ending)
  await replan(
    draft,
    touched.map((lease) => lease.key),
    rows.flatMap((row) => row.workers),
  )
  await noteNodes(draft)
  await draft.write()
}

/**
 * Brings the revision row up to date about the nodes: two active ones look for the dead (draining ones
 * only when nobody else is there), and the longest ttl is what all of them wait by.
 *
 * Who watches goes on watching. A place that is free goes to the node that makes this change, for that one is
 * certainly alive, and then to whoever was heard of last: were it the oldest, then of many that died
 * together two at a time would be named and found dead, a ttl each time.
 */
export async function noteNodes(draft: Draft): Promise<void> {
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
