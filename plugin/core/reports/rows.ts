/** Indexes the rows of a snapshot. Each snapshot is indexed once, for all its users. */
import type { LeaseRow, NodeRow, Snapshot } from '../store.js'

export interface Rows {
  readonly leases: ReadonlyMap<string, LeaseRow>
  readonly nodes: ReadonlyMap<string, NodeRow>
}

const known = new WeakMap<Snapshot, Rows>()

export function rowsOf(snapshot: Snapshot): Rows {
  const rows = known.get(snapshot) ?? indexed(snapshot)
  known.set(snapshot, rows)
  return rows
}

function indexed({ leases, nodes }: Snapshot): Rows {
  return {
    leases: new Map(leases.map((lease) => [lease.key, lease])),
    nodes: new Map(nodes.map((node) => [node.id, node])),
  }
}
