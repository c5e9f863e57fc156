/**
 * What {@link Coordinator.status} returns: the whole namespace as of one instant, as plain JSON.
 */
import { isOutdated, leasesOf } from '../changes/rows.js'
import type { Kind, LeaseRow, NodeRow, NodeState, Scope, Snapshot, WorkerRow } from '../store.js'
import { type ScheduleStatus, scheduleStatus } from '../work/schedule.js'

/** A node. Gone ones are included until they are pruned. */
export interface NodeStatus {
  readonly id: string
  readonly name: string
  readonly cluster: string
  readonly state: NodeState
  readonly workers: readonly string[]
  readonly labels: Readonly<Record<string, string>>
  readonly version: string | null
  readonly startedAtMs: number
  readonly heartbeatAtMs: number
  readonly goneAtMs: number | null
  /** Whether it is one of the two watchers. */
  readonly watcher: boolean
}

export interface WorkerStatus {
  readonly key: string
  readonly name: string
  readonly kind: Kind
  readonly scope: Scope
  readonly cluster: string | null
  readonly generation: number
  /** How many leases its plan has. */
  readonly slots: number
  readonly paused: boolean
  /** Names of the active nodes that are candidates for it. */
  readonly candidates: readonly string[]
  /** Null for a worker without a schedule. */
  readonly schedule: ScheduleStatus | null
}

/** A node, as a lease or an assignment names it. */
export interface NodeReference {
  readonly id: string
  readonly name: string
  readonly cluster: string
}

export type LeaseState =
  /** Its holder is alive and is meant to hold it. */
  | 'held'
  /** Its holder should hand it over. */
  | 'moving'
  /** A revoked holder has not acknowledged yet. */
  | 'blocked'
  /** It has a target but no holder. */
  | 'unclaimed'
  /** It has neither a target nor a holder. */
  | 'free'

export interface LeaseStatus {
  readonly key: string
  /** Key of its worker; null for a lease acquired by name. */
  readonly worker: string | null
  readonly slot: number
  readonly state: LeaseState
  readonly holder: NodeReference | null
  readonly target: NodeReference | null
  readonly token: number
  readonly acquiredAtMs: number | null
  readonly blockedNode: NodeReference | null
  readonly waiting: number
}

/** The shares or partitions of one worker. */
export interface AssignmentStatus {
  readonly worker: string
  readonly kind: 'coordinated' | 'partitioned'
  readonly generation: number
  readonly slots: readonly {
    readonly slot: number
    readonly state: LeaseState
    readonly holder: NodeReference | null
    readonly target: NodeReference | null
  }[]
}

export interface Status {
  readonly nowMs: number
  readonly revision: number
  readonly namespace: string
  /** This node; `id` is null while it has not joined. */
  readonly self: {
    readonly id: string | null
    readonly name: string
    readonly cluster: string
    readonly state: string
  }
  readonly nodes: readonly NodeStatus[]
  readonly workers: readonly WorkerStatus[]
  readonly leases: readonly LeaseStatus[]
  readonly assignments: readonly AssignmentStatus[]
}

/** Describes a snapshot in the terms of the public interface. */
export function describe(
  snapshot: Snapshot,
  settings: {
    readonly namespace: string
    readonly identity: { readonly node: string; readonly cluster: string }
  },
  self: string | undefined,
  state: string,
): Status {
  const byId = new Map(snapshot.nodes.map((node) => [node.id, node]))
  const workers = new Map(snapshot.workers.map((worker) => [worker.key, worker]))
  const leases = snapshot.leases.map((lease) => describeLease(lease, byId, workers))
  const candidates = candidatesByWorker(snapshot.nodes)
  const firedAt = new Map(snapshot.leases.map(({ worker, firedAtMs }) => [worker, firedAtMs]))
  return {
    nowMs: snapshot.nowMs,
    revision: snapshot.meta.revision,
    namespace: settings.namespace,
    self: { id: self ?? null, name: settings.identity.node, cluster: settings.identity.cluster, state },
    nodes: snapshot.nodes.map((node) => describeNode(node, snapshot.meta.watchers)),
    workers: snapshot.workers.map((worker) => {
      const firedAtMs = firedAt.get(worker.key) ?? null
      const schedule = scheduleStatus(worker.schedule, firedAtMs, snapshot.nowMs)
      return { ...describeWorker(worker, candidates.get(worker.key) ?? []), schedule }
    }),
    leases,
    assignments: snapshot.workers.flatMap((worker) => describeAssignment(worker, leases)),
  }
}

function describeNode(node: NodeRow, watchers: readonly string[]): NodeStatus {
  const { id, name, cluster, state, workers, labels, version, startedAtMs, heartbeatAtMs, goneAtMs } = node
  const watcher = watchers.includes(id)
  return { id, name, cluster, state, workers, labels, version, startedAtMs, heartbeatAtMs, goneAtMs, watcher }
}

/** Returns, for each worker, the names of the active nodes that are candidates for it. */
function candidatesByWorker(nodes: readonly NodeRow[]): Map<string, string[]> {
  const names = new Map<string, string[]>()
  for (const { state, name, workers } of nodes) {
    if (state !== 'active') continue
    for (const key of new Set(workers)) {
      const known = names.get(key)
      if (known === undefined) names.set(key, [name])
      else known.push(name)
    }
  }
  return names
}

function describeWorker(worker: WorkerRow, candidates: readonly string[]): Omit<WorkerStatus, 'schedule'> {
  const { key, name, kind, scope, cluster, generation, slots, paused } = worker
  return { key, name, kind, scope, cluster, generation, slots, paused, candidates }
}

function describeLease(
  lease: LeaseRow,
  nodes: ReadonlyMap<string, NodeRow>,
  workers: ReadonlyMap<string, WorkerRow>,
): LeaseStatus {
  const reference = (id: string | null): NodeReference | null => {
    const node = id === null ? undefined : nodes.get(id)
    return node === undefined ? null : { id: node.id, name: node.name, cluster: node.cluster }
  }
  const isGone = (id: string | null): boolean =>
    id === null ? true : (nodes.get(id)?.state ?? 'gone') === 'gone'
  const worker = lease.worker === null ? undefined : workers.get(lease.worker)
  return {
    key: lease.key,
    worker: lease.worker,
    slot: lease.slot,
    state: stateOf(lease, worker, isGone),
    holder: isGone(lease.holder) ? null : reference(lease.holder),
    target: reference(lease.target),
    token: lease.token,
    acquiredAtMs: lease.acquiredAtMs,
    blockedNode: reference(lease.blockedNode),
    waiting: lease.waiters.filter((id) => !isGone(id)).length,
  }
}

function stateOf(
  lease: LeaseRow,
  worker: WorkerRow | undefined,
  isGone: (id: string | null) => boolean,
): LeaseState {
  if (!isGone(lease.holder)) {
    return lease.holder !== lease.target || isOutdated(lease, worker) ? 'moving' : 'held'
  }
  if (!isGone(lease.blockedNode)) return 'blocked'
  return lease.target === null ? 'free' : 'unclaimed'
}

function describeAssignment(worker: WorkerRow, leases: readonly LeaseStatus[]): AssignmentStatus[] {
  const { key, kind, generation } = worker
  if (kind === 'single') return []
  const own = leasesOf(leases, key).filter(({ slot, holder }) => slot < worker.slots || holder !== null)
  const slots = own
    .map(({ slot, state, holder, target }) => ({ slot, state, holder, target }))
    .sort((a, b) => a.slot - b.slot)
  return [{ worker: key, kind, generation, slots }]
}
