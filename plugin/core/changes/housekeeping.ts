/**
 * Deletes what is no longer needed: old events, nodes long gone, names long unused.
 *
 * One node, the first watcher, does it for all. Correctness never depends on it. It works in portions and pauses
 * after each, so that others get their turn however much there is to delete.
 */

import type { Log } from '../log.js'
import type { Retention, Store } from '../store.js'
import type { Clock } from '../time/clock.js'
import { Alarm, sleep } from '../time/loop.js'
import { changeWithoutSession } from './run-change.js'
import { isUnusedName, pruneLeases } from './upkeep.js'

const everyMs = 3_600_000

/** The pause after each portion. It is short enough for thousands of rows a second, more than ever accumulate. */
const pauseMs = 100

/**
 * How many leases are read, and so at most deleted, at once. The deletion is a change, for which all others wait.
 */
export const leasesAtOnce = 250

/** Asked anew before each portion. */
export interface HousekeepingCircumstances {
  /** Whether this node is the one that does the housekeeping. */
  isOurs(): boolean
  /** The time by the database's clock, in ms since 1970. */
  nowMs(): number
  /** The greatest token this process has ever seen. */
  highestToken(): number
}

export class Housekeeping {
  readonly #store: Store
  readonly #clock: Clock
  readonly #retention: Retention
  readonly #log: Log
  readonly #circumstances: HousekeepingCircumstances
  readonly #alarm: Alarm
  readonly #stopping = new AbortController()

  constructor(
    store: Store,
    clock: Clock,
    log: Log,
    retention: Retention,
    circumstances: HousekeepingCircumstances,
  ) {
    this.#store = store
    this.#clock = clock
    this.#retention = retention
    this.#log = log
    this.#circumstances = circumstances
    this.#alarm = new Alarm(clock, () => void this.#tick())
  }

  /** Starts the first round after `part` of an hour, from 0 to 1, so that not all namespaces start at once. */
  start(part: number): void {
    this.#alarm.set(everyMs * part)
  }

  /** Prevents further portions from beginning. Does not wait for the one in progress. */
  stop(): void {
    this.#alarm.clear()
    this.#stopping.abort()
  }

  async #tick(): Promise<void> {
    try {
      await this.#prune()
      await this.#pruneNames()
    } catch (error) {
      this.#log.warn({ err: error }, 'could not clear away old rows; it is tried again in an hour')
    }
    if (!this.#stopping.signal.aborted) this.#alarm.set(everyMs)
  }

  async #prune(): Promise<void> {
    while (this.#goesOn && (await this.#store.prune(this.#retention))) await this.#pause()
  }

  /**
   * Reads all leases, but in portions: one read of all might exceed its time limit, and then nothing would ever be
   * deleted.
   */
  async #pruneNames(): Promise<void> {
    const unusedSinceMs = this.#circumstances.nowMs() - this.#retention.goneNodesForMs
    for (let after: string | undefined = ''; after !== undefined && this.#goesOn; ) {
      const leases = await this.#store.leasesAfter(after, leasesAtOnce)
      const unused = leases.filter((lease) => isUnusedName(lease, unusedSinceMs)).map(({ key }) => key)
      if (unused.length > 0) await this.#pruneThose(unused, unusedSinceMs)
      after = leases.length < leasesAtOnce ? undefined : leases.at(-1)?.key
      if (after !== undefined) await this.#pause()
    }
  }

  async #pruneThose(keys: readonly string[], unusedSinceMs: number): Promise<void> {
    const highestSeen = (): number => this.#circumstances.highestToken()
    await changeWithoutSession(this.#store, highestSeen, (change) => pruneLeases(change, keys, unusedSinceMs))
  }

  get #goesOn(): boolean {
    return !this.#stopping.signal.aborted && this.#circumstances.isOurs()
  }

  #pause(): Promise<void> {
    return sleep(this.#clock, pauseMs, this.#stopping.signal)
  }
}
