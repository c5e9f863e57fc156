/**
 * The handle by which application code holds a lease.
 *
 * A handle ends once and never comes back: a new term has a new handle and a greater token. That a handle has ended
 * and that the work under it has stopped ("settled") are two things; only when both are true is the lease given to
 * another node.
 */

import { setMaxListeners } from 'node:events'
import { CoordinationError, type EndReason, FencedError, LeaseLostError } from '../errors.js'
import type { Claim } from '../store.js'
import { presentContext } from '../time/context.js'
import { deferred } from '../time/loop.js'

/** A lease that is held, as a worker's pass sees it. */
export interface HeldLease {
  /** The name under which it was registered or acquired. */
  readonly name: string
  /** Its full key, `global/month-close` or `eu-1/consumer#3`. */
  readonly key: string
  /**
   * The fencing token: greater than that of every earlier holder. Pass it along to every resource that the work
   * changes, and let the resource refuse lower ones: a signal cannot reach a process that stands still.
   */
  readonly token: number
  /** Session id of the node that holds it: this one. */
  readonly holder: string
  /** Aborts when authority ends, with a {@link LeaseLostError} as its reason. */
  readonly signal: AbortSignal
  /**
   * Whether the lease is held right now. Compares clocks at each call, because a blocked event loop fires its timers
   * late.
   */
  readonly held: boolean
  /** @throws {LeaseLostError} when {@link held} is false. */
  assertHeld(): void
  /**
   * Ties a transaction of the application to this lease. Call it first inside the transaction. Until the transaction
   * ends, no node can take the lease over, so nothing stale is ever committed. Nor can this node give it back: do not
   * wait for {@link Lease.release} inside the transaction, which would wait for itself.
   *
   * Takes a Drizzle transaction or the driver's own client, connected to the coordinator's database.
   *
   * @returns a promise. With the synchronous driver `better-sqlite3` the work is done on return; awaiting what is
   *   returned there only checks that the transaction has not ended.
   * @throws {FencedError} when the lease has been lost: roll back.
   * @throws {CoordinationError} `WCO_FENCE_TARGET` when there is no open transaction.
   */
  fence(transaction: object): PromiseLike<void> | void
}

/** A lease acquired by name. Release it or dispose of it (`await using`) when the work is done. */
export interface Lease extends HeldLease, AsyncDisposable {
  /**
   * Gives the lease back. Resolves once it is free or lost; harmless when repeated. While a transaction fences the
   * lease it is not free: release it after the transaction, not in it.
   */
  release(): Promise<void>
}

/** What a handle needs from the session that keeps it. */
export interface Keeper {
  /** Whether the trust window is open at this very moment. When it is found to be over, everything held ends. */
  trusted(): boolean
  fence(transaction: object, claim: Claim): PromiseLike<void> | void
  /** Called when a handle has ended, for whatever reason. */
  ended(holding: Holding): void
  /** Called when something about a handle has changed that the engine must act upon. */
  changed(): void
}

/** The facts from which a handle is made. */
export interface Term {
  readonly name: string
  readonly key: string
  /** Key of the worker it belongs to; null when it was acquired by name. */
  readonly worker: string | null
  readonly token: number
  readonly generation: number
  readonly holder: string
  /**
   * How long this node had been the target when it claimed, in ms by the database's clock; null when it had not
   * been.
   */
  readonly namedForMs: number | null
  /** The token of the previous term; null when this node has not seen it. */
  readonly previousToken: number | null
}

/** One term of one lease on this node. */
export class Holding implements Lease {
  readonly name: string
  readonly key: string
  readonly worker: string | null
  readonly token: number
  readonly generation: number
  readonly holder: string
  readonly namedForMs: number | null
  readonly previousToken: number | null
  /** How long this node should not win the lease again, in ms, as requested when the term was ended. */
  cooldownMs = 0
  /** Whether no pass is under way: the library waits for a scheduled time, records it, or takes it back. */
  betweenPasses = false

  readonly #keeper: Keeper
  readonly #controller = new AbortController()
  /**
   * The async context in which the handle was made. The signal aborts in it, so that the work never sees the context
   * of the caller that ends the handle.
   */
  readonly #inContext = presentContext()
  readonly #settling = deferred()
  readonly #forgotten = deferred()
  #endReason: EndReason | undefined
  #settled = false

  constructor(term: Term, keeper: Keeper) {
    this.name = term.name
    this.key = term.key
    this.worker = term.worker
    this.token = term.token
    this.generation = term.generation
    this.holder = term.holder
    this.namedForMs = term.namedForMs
    this.previousToken = term.previousToken
    this.#keeper = keeper
    // Work may hand its signal to as many calls as it likes at a time: more than ten listeners are no leak.
    setMaxListeners(0, this.signal)
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  get held(): boolean {
    return this.#endReason === undefined && this.#keeper.trusted()
  }

  /** Why it ended; undefined while it has not. */
  get ended(): EndReason | undefined {
    return this.#endReason
  }

  /** Whether the work under it has stopped. */
  get settled(): boolean {
    return this.#settled
  }

  /** Whether code of the application still runs although the lease has ended. */
  get unsettled(): boolean {
    return this.#endReason !== undefined && !this.#settled && !this.betweenPasses
  }

  get whenSettled(): Promise<void> {
    return this.#settling.promise
  }

  /** Resolves once the lease no longer belongs to this node and its work has settled. */
  get whenForgotten(): Promise<void> {
    return this.#forgotten.promise
  }

  assertHeld(): void {
    if (!this.held) throw new LeaseLostError(this.key, this.token, this.#endReason ?? 'trust-expired')
  }

  fence(transaction: object): PromiseLike<void> | void {
    if (!this.held) throw new FencedError(this.key, this.token, 'this node does not hold it any more')
    return this.#keeper.fence(transaction, { key: this.key, node: this.holder, token: this.token })
  }

  async release(): Promise<void> {
    // Only its worker may settle it: released within a pass, it would be another node's while the pass goes on.
    if (this.worker !== null) throw notReleasable(this.key)
    this.end('released')
    this.settle()
    await this.#forgotten.promise
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release()
  }

  /** Ends the authority now. Only the first reason counts. */
  end(reason: EndReason): void {
    if (this.#endReason !== undefined) return
    this.#endReason = reason
    this.#inContext(() => this.#controller.abort(new LeaseLostError(this.key, this.token, reason)))
    this.#keeper.ended(this)
    this.#keeper.changed()
  }

  /** Records that the work has stopped. */
  settle(): void {
    if (this.#settled) return
    this.#settled = true
    this.#settling.resolve()
    this.#keeper.changed()
  }

  /**
   * Records that the lease no longer belongs to this node and its work has stopped. Nothing happens to a handle
   * after that.
   */
  forget(): void {
    this.#forgotten.resolve()
  }
}

function notReleasable(key: string): CoordinationError {
  return new CoordinationError(
    'WCO_OPTIONS',
    `The lease "${key}" belongs to a worker, so it cannot be released in this way: call stepDown() of its pass, or stop() of the worker.`,
  )
}
