/**
 * Tells whether heartbeats of nodes arrive, by the database's clock in the snapshot itself. For display only: a node is
 * declared gone by nodes that have watched it themselves.
 */
import type { NodeRow, Snapshot } from '../store.js'
import { rowsOf } from './rows.js'
import type { NodeReference } from './status.js'

/**
 * Whether heartbeats arrive in time: `late` when two are missing, `silent` when none has come for longer than the ttl.
 */
export type Pulse = 'steady' | 'late' | 'silent'

/** A heartbeat is due at least every third of a ttl (`timing.ts` sees to it); two missing ones are no accident. */
export function pulseOf(row: NodeRow | undefined, nowMs: number): Pulse {
  if (row === undefined || row.state === 'gone') return 'steady'
  const agoMs = nowMs - row.heartbeatAtMs
  if (agoMs > row.ttlMs) return 'silent'
  return agoMs > (2 * row.ttlMs) / 3 ? 'late' : 'steady'
}

/**
 * Returns since when the holder is silent; null while its heartbeats arrive. By that moment it has stopped, because its
 * trust is counted from before each heartbeat was sent, although the rows name it until a watcher buries it. While the
 * database takes no writes, no node is buried.
 */
export function silentSinceMs(holder: Pick<NodeReference, 'id'> | null, snapshot: Snapshot): number | null {
  const row = rowsOf(snapshot).nodes.get(holder?.id ?? '')
  return row !== undefined && pulseOf(row, snapshot.nowMs) === 'silent' ? row.heartbeatAtMs + row.ttlMs : null
}

export function isSilent(holder: Pick<NodeReference, 'id'> | null, snapshot: Snapshot): boolean {
  return silentSinceMs(holder, snapshot) !== null
}
