/**
 * Measurements kept nowhere else: since when a worker is leaderless, how the database's clock strays, how late timers
 * fire.
 */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks'
import { silentSinceMs } from '../../core/reports/pulse.js'
import { rowsOf } from '../../core/reports/rows.js'
import type { Status } from '../../core/reports/status.js'
import type { Snapshot } from '../../core/store.js'
import { systemClock } from '../../core/time/clock.js'
import { elapsedMs } from '../../core/time/trust.js'

/**
 * Measures how long leases that some node should hold have had no holder. The rows tell when a holder fell silent or
 * when the current target was named. Because a target may be passed over or missing, this process also remembers since
 * when it has seen the lease without a holder.
 */
export class Leaderless {
  #seenAtMs = new Map<string, number>()

  /**
   * Returns the longest vacancy of each worker, in ms. A worker that no listed node names, not even one that is gone,
   * is no longer in use and is left out.
   */
  of({ workers, leases, nodes }: Status, snapshot: Snapshot): Map<string, number> {
    const rows = rowsOf(snapshot).leases
    const inUse = new Set(nodes.flatMap((node) => node.workers))
    const byWorker = new Map(
      workers.filter(({ key }) => inUse.has(key)).map((worker) => [worker.key, worker]),
    )
    const longest = new Map([...byWorker.keys()].map((key) => [key, 0]))
    const before = this.#seenAtMs
    this.#seenAtMs = new Map()
    // A coordinated worker without candidates has no shares that could be vacant.
    for (const { key, paused, slots } of byWorker.values()) {
      if (paused || slots > 0) continue
      const seenAtMs = before.get(key) ?? performance.now()
      this.#seenAtMs.set(key, seenAtMs)
      longest.set(key, performance.now() - seenAtMs)
    }
    for (const { key, worker, slot, state, holder } of leases) {
      const its = byWorker.get(worker ?? '')
      if (its === undefined || its.paused || slot >= its.slots) continue
      const silentAtMs = silentSinceMs(holder, snapshot)
      if (silentAtMs === null && (state === 'held' || state === 'moving')) continue
      const seenAtMs = before.get(key) ?? performance.now()
      this.#seenAtMs.set(key, seenAtMs)
      const sinceMs = silentAtMs ?? rows.get(key)?.targetAtMs ?? snapshot.nowMs
      const forMs = Math.max(performance.now() - seenAtMs, snapshot.nowMs - sinceMs)
      longest.set(its.key, Math.max(longest.get(its.key) ?? 0, forMs))
    }
    return longest
  }
}

/**
 * Watches the database's clock through heartbeats. The engine does not depend on it, but operators should know of
 * jumps.
 */
export class DatabaseClock {
  #last:
    | { readonly at: ReturnType<typeof systemClock.read>; readonly nowMs: number; readonly latencyMs: number }
    | undefined

  heard(nowMs: number, latencyMs: number): { offsetMs: number; jumped: boolean } {
    const at = systemClock.read()
    const last = this.#last
    this.#last = { at, nowMs, latencyMs }
    const offsetMs = nowMs - (Date.now() - latencyMs / 2)
    if (last === undefined) return { offsetMs, jumped: false }
    const strayedMs = Math.abs(nowMs - last.nowMs - elapsedMs(last.at, at))
    return { offsetMs, jumped: strayedMs > 1_000 + latencyMs + last.latencyMs }
  }
}

/** Measures how late timers fire. Late timers can cost a node its leases when nothing else is wrong. */
export class LoopDelay {
  readonly #histogram: IntervalHistogram = monitorEventLoopDelay({ resolution: resolutionMs })

  constructor() {
    this.#histogram.enable()
  }

  /**
   * Returns quantiles in ms since the previous call. The histogram records intervals, so the timer's own period is
   * subtracted.
   */
  take(): [quantile: string, delayMs: number][] {
    const quantiles = ['0.5', '0.99', '1'].map((quantile): [string, number] => {
      const ns = this.#histogram.percentile(Number(quantile) * 100)
      return [quantile, this.#histogram.count === 0 ? 0 : Math.max(0, ns / 1e6 - resolutionMs)]
    })
    this.#histogram.reset()
    return quantiles
  }

  stop(): void {
    this.#histogram.disable()
  }
}

const resolutionMs = 10
