/**
 * Clearing away what nobody needs any more: old events, nodes long gone, names long unused.
 *
 * One node does it for all, the first watcher. Correctness never depends on it.
 */
import type { Clock } from './clock.js'
import type { Log } from './log.js'
import { Alarm } from './loop.js'
import { inOrder } from './order.js'
import type { Retention, Store } from './store.js'
import { pruneLeases } from './upkeep.js'

const everyMs = 3_600_000

/** What is so at the moment it is done. */
export interface HousekeepingCircumstances {
  /** Whether this node is the one to do it. */
  isOurs(): boolean
  /** The greatest token this process has ever seen. */
  highestToken(): number
}

export class Housekeeping {
  readonly #store: Store
  readonly #retention: Retention
  readonly #log: Log
  readonly #circumstances: HousekeepingCircumstances
  readonly #alarm: Alarm

  constructor(
    store: Store,
    clock: Clock,
    log: Log,
    retention: Retention,
    circumstances: HousekeepingCircumstances,
  ) {
    this.#store = store
    this.#retention = retention
    this.#log = log
    this.#circumstances = circumstances
    this.#alarm = new Alarm(clock, () => void this.#tick())
  }

  /** Begins within the hour; `part` of it, from 0 to 1, so that not all namespaces begin at once. */
  start(part: number): void {
    this.#alarm.set(everyMs * part)
  }

  stop(): void {
    this.#alarm.clear()
  }

  async #tick(): Promise<void> {
    this.#alarm.set(everyMs)
    if (!this.#circumstances.isOurs()) return
    try {
      await this.#store.prune(this.#retention)
      await this.#pruneNames()
    } catch (error) {
      this.#log.warn({ err: error }, 'could not clear away old rows; it is tried again in an hour')
    }
  }

  /**
   * A token is never less than the time it was given at, so it tells since when at the most a name is in use, as a
   * lease or to claim times under.
   */
  async #pruneNames(): Promise<void> {
    const { leases, nowMs } = await this.#store.snapshot()
    const unusedSinceMs = nowMs - this.#retention.goneNodesForMs
    const isUnused = ({ worker, holder, token, firedAtMs }: (typeof leases)[number]): boolean =>
      worker === null && holder === null && Math.max(token, firedAtMs ?? 0) < unusedSinceMs
    const keys = leases.filter(isUnused).map((lease) => lease.key)
    if (keys.length === 0) return
    const highestSeen = this.#circumstances.highestToken()
    await inOrder(this.#store, undefined, highestSeen, (change) => pruneLeases(change, keys))
  }
}
