/**
 * Logs that the database does not answer, or refuses: a line when that begins, gets worse or has a new reason, and one
 * when it is over. Each node tries again several times a second meanwhile, and a line for each try would hide all
 * others.
 */

import { StoreError } from './errors.js'
import type { Events } from './events.js'
import type { Log } from './log.js'
import type { Clock, Reading } from './time/clock.js'
import type { Timing } from './time/timing.js'
import { elapsedMs } from './time/trust.js'

/**
 * The requests, as the log names them. Every node makes vital ones all the time: if they are answered, the database is
 * there.
 */
const requests = {
  heartbeat: { phrase: 'a heartbeat', isVital: true },
  join: { phrase: 'a join', isVital: true },
  turn: { phrase: 'a turn', isVital: false },
  news: { phrase: 'a look for news', isVital: false },
  look: { phrase: 'a look at the other nodes', isVital: false },
  neighbours: { phrase: 'a look at the neighbours', isVital: false },
  firing: { phrase: 'recording a scheduled time', isVital: false },
} as const

/** A request that is made again when it has failed. */
export type RequestKind = keyof typeof requests

/** How many reasons are logged per outage: for example, a server ends, cannot be reached, and then is read-only. */
const mostReasons = 3

export class Outage {
  readonly #clock: Clock
  readonly #log: Log
  readonly #events: Events
  /** How long, in ms, no request must have failed before failures of only non-vital requests count as over. */
  readonly #quietMs: number
  #begunAt: Reading | undefined
  #latestAt: Reading | undefined
  #isVital = false
  #error: unknown
  #failures = 0
  /** The reasons for which vital requests have failed, as far as they were logged. */
  readonly #reasons = new Set<string>()

  constructor({ heartbeatMs }: Pick<Timing, 'heartbeatMs'>, clock: Clock, log: Log, events: Events) {
    this.#clock = clock
    this.#log = log
    this.#events = events
    this.#quietMs = 2 * heartbeatMs
  }

  /** Why the latest request failed; undefined while all is well. */
  get error(): unknown {
    return this.#error
  }

  /**
   * Notes that a request has failed and is made again.
   *
   * @param about further fields for the log.
   */
  failed(error: unknown, request: RequestKind, about: object = {}): void {
    const { phrase, isVital } = requests[request]
    const facts = { err: error, ...about }
    // A fault of this library or of the application, with which the database has nothing to do.
    if (!(error instanceof StoreError)) {
      this.#log.error(facts, `${phrase} failed`)
      return
    }
    this.#events.emit('store.failed', { error })
    this.#failures += 1
    this.#error = error
    const isWorse = isVital && !this.#isVital
    this.#isVital ||= isWorse
    this.#latestAt = this.#clock.read()
    const isAnotherReason = isVital && this.#reasons.size < mostReasons && !this.#reasons.has(error.message)
    if (isAnotherReason) this.#reasons.add(error.message)
    if (this.#begunAt !== undefined && !isWorse && !isAnotherReason) {
      this.#log.debug(facts, `${phrase} failed`)
      return
    }
    this.#begunAt ??= this.#latestAt
    const begun = isVital ? `the database does not answer: ${phrase}` : phrase
    this.#log.warn(facts, `${begun} failed, and is tried again`)
  }

  /** Notes that a heartbeat or a join was answered. */
  answered(): void {
    if (this.#begunAt === undefined || this.#latestAt === undefined) return
    const now = this.#clock.read()
    if (!this.#isVital) this.#error = undefined
    if (!this.#isVital && elapsedMs(this.#latestAt, now) < this.#quietMs) return
    const forMs = Math.round(elapsedMs(this.#begunAt, this.#isVital ? now : this.#latestAt))
    const over = this.#isVital ? 'the database answers again' : 'requests to the database succeed again'
    this.#log.info({ forMs, failures: this.#failures }, over)
    this.#begunAt = undefined
    this.#isVital = false
    this.#error = undefined
    this.#failures = 0
    this.#reasons.clear()
  }
}
