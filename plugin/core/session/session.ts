/**
 * One session of this node: its heartbeats, and how far it may trust them.
 *
 * A session begins with a join and ends when it is stopped or found lost; the next life has another object with another
 * id. Heartbeats run by themselves, in parallel to everything else, because nothing may delay the one statement on
 * which all leases rest.
 */

import type { HeartbeatAnswer, OwnView, SessionKey, Store } from '../store.js'
import type { Clock, Reading } from '../time/clock.js'
import { Alarm } from '../time/loop.js'
import { heartbeatJitter, heartbeatRetryPauseMs, jittered, type Timing } from '../time/timing.js'
import { later, openWindow, remainingMs, type TrustWindow } from '../time/trust.js'

/** What a session tells its owner. */
export interface SessionOwner {
  /** A heartbeat was answered. Called before the answer extends trust. */
  answered(answer: HeartbeatAnswer, sentAt: Reading, receivedAt: Reading): { mustReadAgain: boolean }
  /** There is news that must be read before trust is renewed. */
  newsArrived(): void
  /** A heartbeat failed; it is tried again. */
  heartbeatFailed(error: unknown): void
  trustExpired(): void
  /** Trust reaches further than before. */
  trustRenewed(): void
  /** Trust begins, or begins again. What could not be claimed without it can be claimed now. */
  trustBegan(): void
  /** The session was buried or has vanished. Nothing more comes from it. */
  sessionLost(): void
}

/** When a heartbeat was sent whose news had not been read when it was answered. */
type Credit = Reading

export class Session {
  readonly id: string
  readonly #store: Store
  readonly #clock: Clock
  readonly #timing: Timing
  readonly #owner: SessionOwner
  readonly #heartbeatAlarm: Alarm
  readonly #trustAlarm: Alarm
  /** Number of the latest change; 1 is the join. */
  #operation = 1
  #beat = 0
  #failures = 0
  #seen = -1
  #trust: TrustWindow | undefined
  #credit: Credit | undefined
  #over = false

  constructor(id: string, store: Store, clock: Clock, timing: Timing, owner: SessionOwner) {
    this.id = id
    this.#store = store
    this.#clock = clock
    this.#timing = timing
    this.#owner = owner
    this.#heartbeatAlarm = new Alarm(clock, () => void this.#heartbeat())
    this.#trustAlarm = new Alarm(clock, () => this.checkTrust())
  }

  get over(): boolean {
    return this.#over
  }

  /** The key of the join, however often it is tried. */
  get joinKey(): SessionKey {
    return { node: this.id, operation: 1 }
  }

  /** Returns the key for the next change of this session. */
  nextOperation(): SessionKey {
    this.#operation += 1
    return { node: this.id, operation: this.#operation }
  }

  /** Notes that the join was answered. Trust, and the time of the first heartbeat, count from its first try. */
  joined(view: OwnView, firstSentAt: Reading): void {
    this.#seen = view.newsRevision
    this.#renew(firstSentAt)
    this.#beatAgainAfter(firstSentAt)
  }

  /**
   * Returns whether this node may act on its leases at this very moment. If its trust has run out, tells the owner at
   * once.
   */
  trusted(): boolean {
    return this.#stillTrustedMs() > 0
  }

  /**
   * Ends trust if it has run out. The session does this itself, but only when it has not been called for a quarter of
   * the margin: whoever has a timer that fires more often spares the process this one.
   */
  checkTrust(): void {
    const leftMs = this.#stillTrustedMs()
    if (leftMs > 0) this.#watchTrust(leftMs)
  }

  /** How much trust is left in ms; 0 when there is none. */
  get trustLeftMs(): number {
    return this.#trust === undefined ? 0 : Math.max(0, remainingMs(this.#trust, this.#clock.read()))
  }

  /** Must be taken before a view is requested, and passed to {@link caughtUp} with that view. */
  get credit(): Credit | undefined {
    return this.#credit
  }

  /** Notes that a view was read and acted upon. A heartbeat answered before the view was requested counts now. */
  caughtUp(view: OwnView, credit: Credit | undefined): void {
    this.#seen = view.newsRevision
    if (credit !== undefined) this.#renew(credit)
    if (this.#credit === credit) this.#credit = undefined
  }

  /** Notes that the store reported this session as gone. */
  lost(): void {
    if (this.#over) return
    this.stop()
    this.#owner.sessionLost()
  }

  /** Ends heartbeats and trust without telling the owner. */
  stop(): void {
    this.#over = true
    this.#trust = undefined
    this.#heartbeatAlarm.clear()
    this.#trustAlarm.clear()
  }

  async #heartbeat(): Promise<void> {
    this.#beat += 1
    const sentAt = this.#clock.read()
    let answer: HeartbeatAnswer | undefined
    try {
      answer = await this.#store.heartbeat(this.id, this.#beat)
    } catch (error) {
      return this.#tryAgain(error)
    }
    if (this.#over) return
    if (answer === undefined) return this.lost()
    this.#failures = 0
    this.#take(answer, sentAt)
    if (!this.#over) this.#beatAgainAfter(sentAt)
  }

  #beatAgainAfter(sentAt: Reading): void {
    const pauseMs = jittered(this.#timing.heartbeatMs, heartbeatJitter, this.#clock.random())
    const spentMs = this.#clock.read().monoMs - sentAt.monoMs
    this.#heartbeatAlarm.set(Math.max(1, pauseMs - spentMs))
  }

  #tryAgain(error: unknown): void {
    if (this.#over) return
    this.#failures += 1
    this.#owner.heartbeatFailed(error)
    this.trusted()
    this.#heartbeatAlarm.set(heartbeatRetryPauseMs(this.#timing, this.#failures, this.#clock.random()))
  }

  #take(answer: HeartbeatAnswer, sentAt: Reading): void {
    const { mustReadAgain } = this.#owner.answered(answer, sentAt, this.#clock.read())
    if (this.#over) return
    if (!mustReadAgain && answer.newsRevision === this.#seen) {
      this.#renew(sentAt)
    } else {
      this.#credit = sentAt
      this.#owner.newsArrived()
    }
  }

  /** Returns how much trust is left, in ms. Ends trust when it has run out. */
  #stillTrustedMs(): number {
    if (this.#trust === undefined) return 0
    const leftMs = remainingMs(this.#trust, this.#clock.read())
    if (leftMs > 0) return leftMs
    this.#trust = undefined
    this.#trustAlarm.clear()
    this.#owner.trustExpired()
    return 0
  }

  /**
   * Timers may fire early by the clock that counts, and stand still with the rest of the window while the machine is
   * suspended. So trust is checked several times within a margin, and work that slept through its end is told soon
   * after it wakes.
   */
  #watchTrust(leftMs: number): void {
    this.#trustAlarm.set(Math.min(Math.max(1, leftMs), this.#timing.marginMs / 4))
  }

  /**
   * A window that is over must end what rests on it before a new one opens, even when the answer that opens it overtook
   * the timer: a term that has ended never comes back.
   */
  #renew(sentAt: Reading): void {
    this.trusted()
    const window = later(this.#trust, openWindow(sentAt, this.#timing))
    const leftMs = remainingMs(window, this.#clock.read())
    if (leftMs <= 0) return
    const began = this.#trust === undefined
    this.#trust = window
    this.#owner.trustRenewed()
    if (began) this.#owner.trustBegan()
    this.#watchTrust(leftMs)
  }
}
