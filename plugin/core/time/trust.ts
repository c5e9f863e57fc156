/**
 * How long a node may act on its leases, and how much time has passed between two readings.
 *
 * The elapsed time is never known exactly: the monotonic clock stands still while the machine is suspended, the
 * boot-time clock is coarse. So there are two functions, and each caller uses the one that is safe for it. A holder
 * must stop too early rather than too late: it asks what may have elapsed **at most**. A watcher must judge too late
 * rather than too early: it asks what has elapsed **at least**. With the error of clock rates taken off one side and
 * added to the other, a holder has stopped before any watcher lets another node begin.
 */
import type { Reading } from './clock.js'
import { type Timing, trustMs } from './timing.js'

/** How long a node may act on its leases, counted from before the heartbeat was sent. */
export interface TrustWindow {
  readonly from: Reading
  readonly lengthMs: number
}

/**
 * Returns the window that a good answer opens.
 *
 * `sentAt` must be read before anything that can wait, including the connection pool. The session was stamped at some
 * instant after it, so the window ends before the stamp is a ttl old, however long the answer took.
 */
export function openWindow(sentAt: Reading, timing: Pick<Timing, 'ttlMs' | 'marginMs'>): TrustWindow {
  return { from: sentAt, lengthMs: trustMs(timing) }
}

/** Returns what is left of the window, in milliseconds; 0 or less when it is over. */
export function remainingMs(window: TrustWindow, now: Reading): number {
  return window.lengthMs - elapsedMs(window.from, now)
}

/**
 * Returns the window that ends later, so that a late answer neither shortens nor lengthens what a newer heartbeat gave.
 * Compares them as of the later start, where neither clock can favour a window that has not begun.
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
 * Returns the most that can have elapsed, in milliseconds: the larger of the two clocks' differences, never negative.
 * For callers that must stop in time.
 */
export function elapsedMs(from: Reading, to: Reading): number {
  return Math.max(0, to.monoMs - from.monoMs, to.bootMs - from.bootMs)
}

/**
 * Returns the least that has elapsed, in milliseconds: the smaller of the two clocks' differences, never negative. For
 * callers that must not judge too early.
 *
 * While nothing is suspended, both clocks tell the true time, except that the coarse one may be a tick ahead. While
 * this machine is suspended, the boot-time clock still tells the true time and the monotonic one tells less. So the
 * smaller difference never exceeds the time that passed, even if one of the two clocks jumps forward for an unforeseen
 * reason. The price is patience: after a suspension a watcher waits anew, which it does anyway (see `watch.ts`).
 */
export function surelyElapsedMs(from: Reading, to: Reading): number {
  return Math.max(0, Math.min(to.monoMs - from.monoMs, to.bootMs - from.bootMs))
}
