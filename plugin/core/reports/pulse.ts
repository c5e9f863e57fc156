/** Tells whether heartbeats of nodes arrive, by the database's clock in the snapshot itself. */
import type { NodeRow, Snapshot } from '../store.js'
import { rowsOf } from './rows.js'
import { isSilent as isSilentRow, type NodeReference } from './status.js'

/**
 * Whether heartbeats arrive in time: `late` when two are missing, `silent` when none has come for longer than the ttl.
 */
export type Pulse = 'steady' | 'late' | 'silent'

export function pulseOf(row: NodeRow | undefined, nowMs: number): Pulse {
  if (row === undefined || row.state === 'gone') return 'steady'
  if (isSilentRow(row, nowMs)) return 'silent'
  return nowMs - row.heartbeatAtMs > (2 * row.ttlMs) / 3 ? 'late' : 'steady'
}

/**
 * Returns since when the holder is silent; null while its heartbeats arrive. From that moment it cannot trust its
 * leases and has stopped, although the rows name it until a watcher buries it. While the database takes no writes, no
 * node is buried.
 */
export function silentSinceMs(holder: Pick<NodeReference, 'id'> | null, snapshot: Snapshot): number | null {
  const row = rowsOf(snapshot).nodes.get(holder?.id ?? '')
  return row !== undefined && pulseOf(row, snapshot.nowMs) === 'silent' ? row.heartbeatAtMs + row.ttlMs : null
}

export function isSilent(holder: Pick<NodeReference, 'id'> | null, snapshot: Snapshot): boolean {
  return silentSinceMs(holder, snapshot) !== null
}
