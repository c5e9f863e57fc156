/**
 * What the log says of a database that does not answer: a line when that begins and one when it is over. In between each node tries
 * again some times a second, and a line for each try would bury all others.
 */
import type { Clock, Reading } from './clock.js'
import { StoreError } from './errors.js'
import type { Events } from './events.js'
import type { Log } from './log.js'
import { elapsedMs } from './trust.js'

export class Outage {
  readonly #clock: Clock
  readonly #log: Log
  readonly #events: Events
  #begunAt: Reading | undefined
  #error: unknown
  #failures = 0

  constructor(clock: Clock, log: Log, events: Events) {
    this.#clock = clock
    this.#log = log
    this.#events = events
  }

  /** Why the latest request failed; undefined while all is well. */
  get error(): unknown {
    return this.#error
  }

  /**
   * A request has failed and is made again.
   *
   * @param what what was asked for, as in "a heartbeat".
   */
  failed(error: unknown, what: string): void {
    this.#events.emit('store.failed', { error })
    if (!(error instanceof StoreError)) {
      this.#log.error({ err: error }, `${what} failed`)
      return
    }
    this.#failures += 1
    this.#error = error
    if (this.#begunAt !== undefined) {
      this.#log.debug({ err: error }, `${what} failed`)
      return
    }
    this.#begunAt = this.#clock.read()
    this.#log.warn({ err: error }, `the database does not answer: ${what} failed, and is tried again`)
  }

  /** A heartbeat or a join was answered. */
  answered(): void {
    if (this.#begunAt === undefined) return
    const forMs = Math.round(elapsedMs(this.#begunAt, this.#clock.read()))
    this.#log.info({ forMs, failures: this.#failures }, 'the database answers again')
    this.#begunAt = undefined
    this.#error = undefined
    this.#failures = 0
  }
}
