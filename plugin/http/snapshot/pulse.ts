/** Whether nodes are heard of, by the database's clock in the snapshot itself. */
import { isSilent as isSilentRow, type NodeReference } from '../../core/reports/status.js'
import type { NodeRow, Snapshot } from '../../core/store.js'
import { rowsOf } from './rows.js'

/** Whether heartbeats come as they should: `late` after two missing ones, `silent` past the ttl. */
export type Pulse = 'steady' | 'late' | 'silent'

export function pulseOf(row: NodeRow | undefined, nowMs: number): Pulse {
  if (row === undefined || row.state === 'gone') return 'steady'
  if (isSilentRow(row, nowMs)) return 'silent'
  return nowMs - row.heartbeatAtMs > (2 * row.ttlMs) / 3 ? 'late' : 'steady'
}

/**
 * Since when a node that a row names as holder is silent; null while it is heard of. From then on it cannot trust its
 * leases and has stopped, though the rows name it until a watcher has buried it. Where the database takes no writes
 * nobody is ever buried.
 */
export function silentSinceMs(holder: Pick<NodeReference, 'id'> | null, snapshot: Snapshot): number | null {
  const row = rowsOf(snapshot).nodes.get(holder?.id ?? '')
  return row !== undefined && pulseOf(row, snapshot.nowMs) === 'silent' ? row.heartbeatAtMs + row.ttlMs : null
}

export function isSilent(holder: Pick<NodeReference, 'id'> | null, snapshot: Snapshot): boolean {
  return silentSinceMs(holder, snapshot) !== null
}
