/** Finds times of schedules that have come and have not begun. */
import type { LeaseRow, WorkerRow } from '../store.js'
import type { Timing } from '../time/timing.js'
import { scheduleStatus } from '../work/schedule.js'

/**
 * Returns the time of its schedule for which the holder of a lease has begun no pass although it should have, in ms by
 * the database's clock; null when there is none. As a rule an earlier pass still runs.
 *
 * A time is recorded within milliseconds, so after a statement's timeout something keeps it from being recorded; after a
 * takeover that counts from the claim. With `missed: 'skip'` a time that has passed counts as dealt with, so this finds
 * none.
 */
export function overdueAtMs(
  { firedAtMs, acquiredAtMs }: LeaseRow,
  worker: WorkerRow | undefined,
  nowMs: number,
  { statementTimeoutMs }: Pick<Timing, 'statementTimeoutMs'>,
): number | null {
  const { nextFireAtMs = null } = scheduleStatus(worker?.schedule ?? null, firedAtMs, nowMs) ?? {}
  if (nextFireAtMs === null) return null
  const lateSinceMs = Math.max(nextFireAtMs, acquiredAtMs ?? 0)
  return nowMs - lateSinceMs > statementTimeoutMs ? nextFireAtMs : null
}
