/**
 * Translates the engine's reports into the bodies of the HTTP interface: times become ISO 8601 in UTC. The schemas
 * describe these bodies field by field; fields that they do not name are not sent.
 */

import { leasesOf, workerNamed } from '../../core/changes/rows.js'
import { slotKey } from '../../core/names.js'
import { eventSentence } from '../../core/reports/event-sentences.js'
import type { Explanation } from '../../core/reports/explain.js'
import { isSilent } from '../../core/reports/pulse.js'
import { rowsOf } from '../../core/reports/rows.js'
import type {
  AssignmentStatus,
  LeaseStatus,
  NodeReference,
  NodeStatus,
  WorkerStatus,
} from '../../core/reports/status.js'
import type { Term } from '../../core/reports/terms.js'
import { pauseOf } from '../../core/reports/trail.js'
import type { EventRow, Snapshot } from '../../core/store.js'
import type { ScheduleStatus } from '../../core/work/schedule.js'
import { eventId } from './event-places.js'

/** Time of the reading and latest change. */
export function asOf({ nowMs, meta }: Snapshot): { now: string; revision: number } {
  return { now: isoTime(nowMs), revision: meta.revision }
}

export function nodeBody({ startedAtMs, heartbeatAtMs, goneAtMs, ...node }: NodeStatus) {
  return {
    ...node,
    startedAt: isoTime(startedAtMs),
    heartbeatAt: isoTime(heartbeatAtMs),
    goneAt: isoTime(goneAtMs),
  }
}

export function leaseBody({ acquiredAtMs, ...lease }: LeaseStatus, snapshot: Snapshot) {
  return { ...lease, acquiredAt: isoTime(acquiredAtMs), cooldown: cooldownOf(lease.key, snapshot) }
}

function cooldownOf(key: string, snapshot: Snapshot) {
  const { cooldownNode = null, cooldownUntilMs = null } = rowsOf(snapshot).leases.get(key) ?? {}
  if (cooldownNode === null || cooldownUntilMs === null || cooldownUntilMs <= snapshot.nowMs) return null
  return { node: reference(snapshot, cooldownNode), until: isoTime(cooldownUntilMs) }
}

export function workerBody({ schedule, ...worker }: WorkerStatus, snapshot: Snapshot) {
  const pause = pauseBody(worker, snapshot)
  return { ...worker, pause, schedule: schedule && scheduleBody(schedule) }
}

export function pauseBody(worker: Pick<WorkerStatus, 'key' | 'paused'>, snapshot: Snapshot) {
  const pause = pauseOf(worker, snapshot)
  return pause === undefined ? null : { since: isoTime(pause.atMs), actor: pause.actor, reason: pause.reason }
}

export function scheduleBody({ lastFireAtMs, nextFireAtMs, ...schedule }: ScheduleStatus) {
  return { ...schedule, lastFireAt: isoTime(lastFireAtMs), nextFireAt: isoTime(nextFireAtMs) }
}

export function assignmentBody({ worker, kind, generation, slots }: AssignmentStatus, snapshot: Snapshot) {
  const { leases } = rowsOf(snapshot)
  return {
    worker,
    kind,
    generation,
    planRevision: planRevision(snapshot, worker),
    slots: slots.map((each) => {
      const { slot, holder, target } = each
      const key = slotKey(worker, slot)
      const state = ownership(each, snapshot)
      return { slot, key, state, owner: holder, target, token: leases.get(key)?.token ?? 0 }
    }),
  }
}

/** Returns the number of the latest change to a worker or any of its leases, by which plans are compared. */
function planRevision(snapshot: Snapshot, key: string): number {
  const worker = workerNamed(snapshot.workers, key)
  const leases = leasesOf(snapshot.leases, key)
  return leases.reduce((latest, { revision }) => Math.max(latest, revision), worker?.revision ?? 0)
}

/**
 * Returns the state of a share or partition. A silent holder does not count as an owner, because it works on nothing.
 */
export function ownership(
  { state, holder }: Pick<LeaseStatus, 'state' | 'holder'>,
  snapshot: Snapshot,
): 'owned' | 'moving' | 'unowned' {
  if (isSilent(holder, snapshot)) return 'unowned'
  if (state === 'held') return 'owned'
  return state === 'moving' ? 'moving' : 'unowned'
}

export function termBody({ holder, token, fromMs, toMs, ended }: Term, snapshot: Snapshot) {
  return {
    holder: holder === null ? null : reference(snapshot, holder),
    holderId: holder,
    token,
    from: isoTime(fromMs),
    to: isoTime(toMs),
    ended,
  }
}

export function explanationBody({ holder, target, block, schedule, ...explanation }: Explanation) {
  return {
    ...explanation,
    schedule: schedule && scheduleBody(schedule),
    holder: holder && { ...holder, acquiredAt: isoTime(holder.acquiredAtMs) },
    target: target && { ...target, namedAt: isoTime(target.namedAtMs) },
    block: block && { ...block, until: isoTime(block.untilMs) },
  }
}

export function eventBody(event: EventRow, nameOf: (id: string) => string | null) {
  const { revision, position, atMs, ...rest } = event
  const nodeName = event.node === null ? null : nameOf(event.node)
  const sentence = eventSentence(event, nameOf)
  return { id: eventId({ revision, position }), at: isoTime(atMs), ...rest, nodeName, sentence }
}

/** Maps ids of nodes to names. A node that is no longer listed keeps its name while one of these events mentions it. */
export function nodeNames(snapshot: Snapshot, events: readonly EventRow[]): (id: string) => string | null {
  const { nodes } = rowsOf(snapshot)
  const told = new Map<string, string>()
  for (const { node, detail } of events)
    if (node !== null && typeof detail?.name === 'string') told.set(node, detail.name)
  return (id) => nodes.get(id)?.name ?? told.get(id) ?? null
}

/** Returns null when the node is no longer listed. */
export function reference(snapshot: Snapshot, id: string): NodeReference | null {
  const node = rowsOf(snapshot).nodes.get(id)
  return node === undefined ? null : { id, name: node.name, cluster: node.cluster }
}

export function isoTime<Ms extends number | null>(ms: Ms): Ms extends null ? null : string
export function isoTime(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString()
}
