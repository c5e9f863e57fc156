/**
 * What the watchers, and the first among them, do for all nodes: they bury the dead, put right what is stuck, and
 * delete what is no longer used.
 */

import type { Beat, Change, LeaseRow, Neighbour, NodeRow } from '../store.js'
import { Draft } from './draft.js'
import { nextAfter } from './plan.js'
import { barrierOpen, isOutdated, namedBy } from './rows.js'
import {
  freeIfAbandoned,
  type Held,
  isFencedOff,
  isFree,
  noteNodes,
  putAside,
  revokeLate,
  sortOut,
} from './rules.js'
import { planByName, planWorkers, replan } from './targets.js'

/**
 * Declares nodes gone whose beats have stood still, if they still do. Returns the nodes it buried.
 *
 * @param longestTtlMs the ttl by which they were watched. If a node with a longer one has joined since, it may be
 *   one of these, and none is buried.
 */
export async function bury(
  change: Change,
  beats: readonly Beat[],
  longestTtlMs: number,
  by: string,
): Promise<NodeRow[]> {
  if (change.meta.longestTtlMs > longestTtlMs) return []
  const buried: string[] = []
  for (const beat of beats) if (await change.bury(beat.id, beat.beat)) buried.push(beat.id)
  return sortOutGone(change, buried, by, 'its heartbeat stood still for a ttl')
}

/**
 * Declares nodes gone whose processes have ended, as a process on the same machine has seen. Returns the nodes it
 * buried. A request that such a process sent last may still be on its way, but it is refused, because its session is
 * gone.
 */
export async function buryEnded(
  change: Change,
  ended: readonly Neighbour[],
  machine: string,
  by: string,
): Promise<NodeRow[]> {
  const rows = await change.nodesById(ended.map(({ id }) => id))
  const same = rows.filter(
    (row) =>
      row.machine === machine && ended.some(({ id, process }) => id === row.id && process === row.process),
  )
  const buried: string[] = []
  for (const { id } of same) if (await change.bury(id)) buried.push(id)
  return sortOutGone(change, buried, by, 'its process has ended')
}

/**
 * Names watchers where one on record is missing. Several nodes may find that out at about the same time, and only the
 * first of them has to read all nodes while the others wait.
 */
export async function nameWatchers(change: Change): Promise<void> {
  const { watchers } = change.meta
  const named = await change.nodesById(watchers)
  const present = named.filter(({ state }) => state !== 'gone')
  if (present.length > 0 && present.length === watchers.length) return
  const draft = new Draft(change)
  await noteNodes(draft)
  await draft.write()
}

async function sortOutGone(
  change: Change,
  buried: readonly string[],
  by: string,
  reason: string,
): Promise<NodeRow[]> {
  if (buried.length === 0) return []
  const rows = await change.nodesById(buried)
  await sortOut(change, rows, (draft, id) => {
    draft.record({ type: 'node.gone', subject: id, node: id, actor: by, reason })
  })
  return rows
}

/** A target that has not claimed in time. */
export interface Unclaimed {
  readonly key: string
  readonly target: string
  /** Whether a fence kept it from claiming when this was last attended to. */
  readonly hindered: boolean
}

/** What a watcher has found wrong with leases. Each finding is acted on only if it is still true. */
export interface Findings {
  readonly unclaimed: readonly Unclaimed[]
  /** Holders that have not handed over in time. */
  readonly overdue: readonly Held[]
  /** Leases whose holder is gone. */
  readonly abandoned: readonly string[]
}

/**
 * Passes over targets that hang, revokes holders that do not hand over, and frees what gone nodes still hold. Returns
 * the keys of the unclaimed leases that a fence keeps from being claimed.
 */
export async function attend(change: Change, findings: Findings): Promise<string[]> {
  const draft = new Draft(change)
  const keys = [...findings.unclaimed, ...findings.overdue]
    .map((finding) => finding.key)
    .concat(findings.abandoned)
  await draft.load({ keys })
  await draft.load({ workers: draft.leasesWhere(() => true).flatMap((lease) => lease.worker ?? []) })
  for (const key of findings.abandoned) freeIfAbandoned(draft, key)
  await replan(draft, findings.abandoned)
  const revoked = findings.overdue.filter(({ key, token }) => revokeOverdue(draft, key, token))
  await replan(
    draft,
    revoked.map(({ key }) => key),
  )
  const hindered: string[] = []
  for (const each of findings.unclaimed)
    if (isHindered(draft, each)) hindered.push(each.key)
    else await passOver(draft, each)
  await draft.write()
  return hindered
}

/** How much longer a claimed time is remembered than an unused name, in ms. Older times cannot be claimed. */
export const claimedForMs = 7 * 24 * 3_600_000

/**
 * Whether a name has not been used since `sinceMs` as a lease, nor, for {@link claimedForMs} longer, to claim times.
 * Nodes that are gone may still be in its queue. A token is never less than the time at which it was given, so the
 * lease was not claimed later than its token says.
 */
export function isUnusedName(lease: LeaseRow, sinceMs: number): boolean {
  const { worker, token, firedAtMs } = lease
  return (
    worker === null &&
    namedBy(lease).length === 0 &&
    token < sinceMs &&
    (firedAtMs === null || firedAtMs + claimedForMs < sinceMs)
  )
}

/**
 * Deletes leases acquired by name that have long been unused, if they still are. The row also holds the last time
 * claimed under the name, which must not be claimed once more.
 */
export async function pruneLeases(
  change: Change,
  keys: readonly string[],
  unusedSinceMs: number,
): Promise<void> {
  const draft = new Draft(change)
  await draft.load({ keys })
  const unused = draft.leasesWhere((lease) => isUnusedName(lease, unusedSinceMs) && !lease.fenced)
  const areAwaited = unused.some(({ waiters }) => waiters.length > 0)
  const present = new Set(areAwaited ? (await draft.presentNodes()).map(({ id }) => id) : [])
  for (const { key, waiters } of unused) if (!waiters.some((node) => present.has(node))) draft.remove(key)
  await draft.write()
}

/** Revokes a holder that has not handed over. Returns whether the lease was revoked. */
function revokeOverdue(draft: Draft, key: string, token: number): boolean {
  const lease = draft.lease(key)
  if (lease === undefined || lease.fenced || lease.holder === null || lease.token !== token) return false
  const handingOver = lease.target !== lease.holder || isOutdated(lease, draft.workerOf(lease))
  if (!handingOver) return false
  revokeLate(draft, lease, 'the holder did not hand over in time', 0)
  return true
}

/**
 * How long a node gets no partition again that it has not claimed in time, in ms. Where it cannot claim for long, such
 * as while work of an earlier term goes on, the node that has the partition is interrupted as often as this.
 */
const passedOverMs = 5 * 60_000

/** Whether a fence keeps the target from claiming: of this lease, or of a share of an older generation. */
function isHindered(draft: Draft, { key }: Unclaimed): boolean {
  const lease = draft.lease(key)
  const worker = lease && draft.workerOf(lease)
  return lease?.fenced === true || (worker?.kind === 'coordinated' && isFencedOff(draft, worker))
}

async function passOver(draft: Draft, { key, target, hindered }: Unclaimed): Promise<void> {
  const lease = draft.lease(key)
  if (lease === undefined || lease.target !== target || lease.holder === target) return
  const standsInItsOwnWay = lease.blockedNode === target
  if (!standsInItsOwnWay && !isFree(draft, lease, [])) return
  const worker = draft.workerOf(lease)
  const couldClaim = (await draft.standFor(lease)).some(({ id }) => id === target)
  // The fence has ended. The target hears of it, and has as much time as any other.
  if (hindered && couldClaim) return draft.edit(key, { targetAtMs: draft.change.nowMs })
  if (worker === undefined) {
    // It goes to the end of the queue: it still waits, and does not ask again while it believes that it is next.
    if (couldClaim) {
      draft.assign(key, null)
      draft.edit(key, { waiters: [...lease.waiters.filter((node) => node !== target), target] })
    }
    await planByName(draft, key)
  } else if (worker.kind === 'coordinated') {
    if (!standsInItsOwnWay && !barrierOpen(worker, draft.leasesOf(worker.key), draft.isGone)) return
    // A target that is no candidate any more, because a fence hindered the plan without it, needs no other one.
    if (couldClaim) {
      if ((await draft.candidates(worker)).length < 2) return
      putAside(draft, worker, key, target)
    }
    await planWorkers(draft, [worker.key])
  } else {
    const candidates = await draft.candidates(worker)
    const cooling = draft.cooling([lease], candidates)
    const next = nextAfter(key, target, candidates, cooling)
    draft.assign(key, next ?? null)
    // The node that has a partition in place of one that cools down has them shared out evenly again after that. A
    // cool-down that is still of use is kept.
    const isOfUse = cooling.size > 0 && (next === undefined || !cooling.has(next))
    if (worker.kind === 'partitioned' && next !== target && !isOfUse)
      draft.coolDown(key, target, passedOverMs)
  }
  if (draft.lease(key)?.target !== target)
    draft.record({ type: 'target.passed-over', subject: key, node: target })
}
