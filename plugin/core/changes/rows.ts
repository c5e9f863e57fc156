/**
 * What can be said of a lease and its worker from their rows alone. Pure.
 *
 * Changes decide by these predicates, and so do the watchers, the nodes that wait for a lease, and the reports: all of
 * them must mean the same by "blocked" and "outdated".
 */
import type { LeaseRow, LockedLease, WorkerRow } from '../store.js'

/** The longest cool-down that can be requested, in ms. A time further ahead comes from a clock that jumped. */
export const maxCooldownMs = 24 * 3_600_000

/** A lease with neither holder nor target. */
export function freshLease(key: string, worker: string | null, slot: number): LockedLease {
  return {
    key,
    worker,
    slot,
    generation: 0,
    target: null,
    targetAtMs: null,
    ...vacated,
    token: 0,
    ...unblocked,
    ...uncooled,
    firedAtMs: null,
    waiters: [],
    pending: false,
    revision: 0,
    fenced: false,
  }
}

/** The columns of a lease that has lost its holder. */
export const vacated = { holder: null, attempt: null, identity: null, acquiredAtMs: null } as const

/** The columns of a lease whose block has ended. */
export const unblocked = { blockedNode: null, blockedToken: null } as const

/** The columns of a lease for which no node cools down any more. */
export const uncooled = { cooldownNode: null, cooldownUntilMs: null } as const

/** The nodes that a lease names. */
export function namedBy({ holder, target, blockedNode }: LeaseRow): string[] {
  return [holder, target, blockedNode].filter((node) => node !== null)
}

/** Whether no holder works under an older generation and no lease is blocked, apart from waived blocks. */
export function barrierOpen(
  worker: WorkerRow,
  leases: Iterable<LeaseRow>,
  isGone: (node: string) => boolean,
  isWaived: (lease: LeaseRow) => boolean = () => false,
): boolean {
  for (const lease of leases) {
    const held = lease.holder !== null && !isGone(lease.holder)
    if ((held && isOutdated(lease, worker)) || (isBlocked(lease, isGone) && !isWaived(lease))) return false
  }
  return true
}

/** Whether a lease was claimed under an older generation of its worker than the one in force. */
export function isOutdated(lease: LeaseRow, worker: WorkerRow | undefined): boolean {
  return worker !== undefined && lease.generation < worker.generation
}

/** Whether a revoked holder has neither acknowledged nor gone. */
export function isBlocked(lease: LeaseRow, isGone: (node: string) => boolean): boolean {
  return lease.blockedNode !== null && !isGone(lease.blockedNode)
}

/**
 * Whether watchers must keep an eye on a lease: it is about to change hands, or a revoked holder has not
 * acknowledged.
 */
export function isPending(lease: LeaseRow, worker: WorkerRow | undefined): boolean {
  const outdated = lease.holder !== null && isOutdated(lease, worker)
  return lease.holder !== lease.target || lease.blockedNode !== null || outdated
}

const workersByKey = new WeakMap<readonly WorkerRow[], ReadonlyMap<string | null, WorkerRow>>()

/** Returns the worker with this key. Indexed, because a linear search for each of many leases would be quadratic. */
export function workerNamed(workers: readonly WorkerRow[], key: string | null): WorkerRow | undefined {
  const index = workersByKey.get(workers) ?? new Map(workers.map((worker) => [worker.key, worker]))
  workersByKey.set(workers, index)
  return index.get(key)
}

type OfWorker = Pick<LeaseRow, 'worker'>

const leasesByWorker = new WeakMap<readonly OfWorker[], ReadonlyMap<string | null, readonly OfWorker[]>>()

/** Returns the leases of the worker with this key, in their order. Indexed like {@link workerNamed}. */
export function leasesOf<Lease extends OfWorker>(leases: readonly Lease[], worker: string): readonly Lease[] {
  const index = leasesByWorker.get(leases) ?? groupedByWorker(leases)
  leasesByWorker.set(leases, index)
  return (index.get(worker) ?? []) as readonly Lease[]
}

function groupedByWorker(leases: readonly OfWorker[]): Map<string | null, OfWorker[]> {
  const groups = new Map<string | null, OfWorker[]>()
  for (const lease of leases) {
    const { worker } = lease
    const group = groups.get(worker)
    if (group === undefined) groups.set(worker, [lease])
    else group.push(lease)
  }
  return groups
}
