/**
 * How long a node may act on its leases, and how much time has passed between two readings.
 *
 * Nobody knows exactly how much time has passed: the monotonic clock stands still while the machine
 * is suspended, the boot-time clock is coarse. So there are two answers, and who asks decides which one
 * is safe. A holder must stop too early rather than too late: it asks what may have elapsed **at most**.
 * A watcher must judge too late rather than too early: it asks what has elapsed **at least**. With the error
 * of clock rates taken off one side and added to the other, a holder has stopped before any
 * watcher lets somebody else begin.
 */
import type { Reading } from './clock.js'
import { type Timing, trustMs } from './timing.js'

/** How long a node may act on its leases: counted from before the heartbeat was sent. */
export interface TrustWindow {
  readonly from: Reading
  readonly lengthMs: number
}

/**
 * The window a good answer gives. `sentAt` is read before anything that can wait, the connection pool
 * included: the session was stamped at some instant after it, so the window ends before the stamp is
 * a ttl old, however long the answer took.
 */
export function openWindow(sentAt: Reading, timing: Pick<Timing, 'ttlMs' | 'marginMs'>): TrustWindow {
  return { from: sentAt, lengthMs: trustMs(timing) }
}

/** What is left of the window, in milliseconds; 0 or less when it is over. */
export function remainingMs(window: TrustWindow, now: Reading): number {
  return window.lengthMs - elapsedMs(window.from, now)
}

/**
 * The later-ending of two windows: an answer that comes late never shortens or lengthens what a newer
 * heartbeat gave. Compared as of the later start, where neither clock can favour a window that has
 * not begun.
 */
export function later(a: TrustWindow | undefined, b: TrustWindow): TrustWindow {
  if (a === undefined) return b
  const now: Reading = {
    monoMs: Math.max(a.from.monoMs, b.from.monoMs),
    bootMs: Math.max(a.from.bootMs, b.from.bootMs),
  }
  return remainingMs(b, now) > remainingMs(a, now) ? b : a
}

/**
 * What has elapsed at most, in milliseconds: the larger of the two clocks' differences; never negative. For
 * whoever must stop in time.
 */
export function elapsedMs(from: Reading, to: Reading): number {
  return Math.max(0, to.monoMs - from.monoMs, to.bootMs - from.bootMs)
}

/**
 * What has elapsed at least, in milliseconds: the smaller of the two clocks' differences; never negative. For
 * whoever must not judge too early.
 *
 * While nothing is suspended both clocks tell the true time, except that the coarse one may be a tick
 * ahead; while this machine is suspended the boot-time clock still tells the true time and the
 * monotonic one less. So the smaller difference is never more than what passed, and it stays so if one of
 * the two clocks jumps forward for a reason nobody thought of. What it costs is patience: after a
 * suspension a watcher waits anew, which it does anyway (see `watch.ts`).
 */
export function surelyElapsedMs(from: Reading, to: Reading): number {
  return Math.max(0, Math.min(to.monoMs - from.monoMs, to.bootMs - from.bootMs))
}
