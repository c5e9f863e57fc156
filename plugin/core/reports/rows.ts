/** Indexes the rows of a snapshot. Each snapshot is indexed once, for all its users. */
import type { LeaseRow, NodeRow, Snapshot } from '../store.js'

export interface Rows {
  readonly leases: ReadonlyMap<string, LeaseRow>
  /** Leases of each worker, by its key. */
  readonly leasesOf: ReadonlyMap<string, readonly LeaseRow[]>
  readonly nodes: ReadonlyMap<string, NodeRow>
}

const known = new WeakMap<Snapshot, Rows>()

export function rowsOf(snapshot: Snapshot): Rows {
  const rows = known.get(snapshot) ?? ordered(snapshot)
  known.set(snapshot, rows)
  return rows
}

function ordered({ leases, nodes }: Snapshot): Rows {
  const leasesOf = new Map<string, LeaseRow[]>()
  for (const lease of leases) {
    if (lease.worker === null) continue
    const siblings = leasesOf.get(lease.worker)
    if (siblings === undefined) leasesOf.set(lease.worker, [lease])
    else siblings.push(lease)
  }
  return {
    leases: new Map(leases.map((lease) => [lease.key, lease])),
    leasesOf,
    nodes: new Map(nodes.map((node) => [node.id, node])),
  }
}
