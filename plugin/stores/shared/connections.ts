/**
 * Lends the connections of a driver's pool to verbs, each for the duration of one verb.
 *
 * A verb that gets no answer in time is rejected here, because a network that drops packets reports nothing. Its
 * connection is never used again: a late answer must not be mistaken for the answer to another request.
 *
 * A connection is prepared before it is lent for the first time, which is not part of any verb. The verb that started
 * the preparation may be served sooner by another connection, or may time out; the preparation continues for a later
 * verb.
 */
import type { EventEmitter } from 'node:events'
import { type Outcome, StoreError } from '../../core/errors.js'
import { Deadline } from './deadline.js'
import { storeError, tooSlow } from './failures.js'
import type { Limits } from './limits.js'

/** What a driver's errors mean for a connection and for the request sent over it. */
export interface Judgement {
  /** Whether the connection can serve another request after this error. */
  isHarmless(error: unknown): boolean
  /** Whether the server itself refused the request, and so has undone it. */
  isRefusal(error: unknown): boolean
  /** What an operator can do about the error, if trying again will not help. */
  advice(error: unknown): string | undefined
}

/** A pooled connection, for the duration of one verb. */
export class Loan<Client> {
  /**
   * The outcome to assume if nothing more is heard. It becomes `unknown` when a request that takes effect by itself
   * is sent.
   */
  outcome: Outcome = 'none'
  /** Whether the connection must not be used again. */
  spoiled = false
  /** Why the connection ended between two statements. */
  lost: Error | undefined

  constructor(
    readonly client: Client,
    readonly deadline: Deadline,
    readonly judgement: Judgement,
  ) {}

  /**
   * Sends one request of a verb. Rejects with a `StoreError`, and marks the connection as spoiled if the error
   * requires it.
   */
  async send<T>(what: string, request: () => Promise<T>): Promise<T> {
    try {
      return await request()
    } catch (error) {
      if (!this.judgement.isHarmless(error)) this.spoiled = true
      const { isRefusal, advice } = this.judgement
      throw storeError(what, isRefusal(error) ? 'none' : this.outcome, error, advice(error))
    }
  }
}

/** The name of the preparation of a connection in error messages. */
export const settingUp = 'Setting up a connection'

/** How connections are prepared, and which of them are ready. */
interface Preparation<Client extends object, Lent> {
  readonly make: (loan: Lent) => Promise<unknown>
  readonly made: WeakSet<Client>
}

/** Subscribes a waiting verb to events other than the return of a connection: success or failure of a preparation. */
type Unless = (proceed: () => void, fail: (error: unknown) => void) => unknown

/** How long the preparation of a connection may take, and whether preparations run one at a time. */
export interface Readiness {
  readonly readyMs: number
  /**
   * Whether connections are prepared one at a time. Where preparation costs the server much, many at once would all
   * be late, be given up, and be started again. A verb waits for the one in progress, or for a connection that is
   * given back.
   */
  readonly oneByOne: boolean
}

/** Lends connections until a deadline. */
export interface Lending<Lent> {
  lend<T>(what: string, work: (loan: Lent) => Promise<T>, deadline: Deadline): Promise<T>
}

/** The connections for changes and reads: a small pool, with one subclass per driver. */
export abstract class LentConnections<Client extends EventEmitter, Lent extends Loan<Client>>
  implements Lending<Lent>
{
  readonly limits: Limits
  readonly #readiness: Readiness
  readonly #underWay = new Set<Promise<unknown>>()
  readonly #preparing = new Map<Promise<unknown>, () => void>()
  /** Verbs that wait for a fresh connection, or for another one to be given back. */
  readonly #waiting = new Set<() => void>()
  #preparation: Preparation<Client, Lent> | undefined
  /** How often a connection has been given back. */
  #returns = 0
  #closed = false

  constructor(limits: Limits, readiness: Readiness = { readyMs: limits.verbMs, oneByOne: false }) {
    this.limits = limits
    this.#readiness = readiness
  }

  /** Lends a connection to `work`. Errors of `work` come out unchanged. */
  async lend<T>(
    what: string,
    work: (loan: Lent) => Promise<T>,
    deadline = new Deadline(this.limits.verbMs),
  ): Promise<T> {
    if (this.#closed) throw closed(what)
    const verb = this.#take(what, deadline).then((client) => this.#use(client, what, deadline, work))
    const ended = verb.then(ignore, ignore)
    this.#underWay.add(ended)
    ended.then(() => this.#underWay.delete(ended))
    return verb
  }

  /** Lends a connection with the time limit for opening the store. */
  async lendPatiently<T>(what: string, work: (loan: Lent) => Promise<T>): Promise<T> {
    return this.lend(what, work, new Deadline(this.limits.openMs))
  }

  /**
   * Stops lending, waits until all connections have been given back, abandons preparations that no verb waits for,
   * and closes the connections. The wait for the server is limited.
   */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(this.#underWay)
    this.#preparation = undefined
    for (const giveUp of this.#preparing.values()) giveUp()
    await Promise.allSettled(this.#preparing.keys())
    const late = (): Error => new Error('The goodbye was not heard.')
    await new Deadline(this.limits.verbMs).hold(this.end(), late).catch(ignore)
  }

  /** Sets how each connection is prepared, from now on, before it is lent for the first time. */
  protected prepareBy(make: (loan: Lent) => Promise<unknown>): void {
    this.#preparation = { make, made: new WeakSet() }
  }

  protected abstract acquire(): Promise<Client>
  /** Puts back a connection that was not used. */
  protected abstract release(client: Client): void
  protected abstract loanOf(client: Client, deadline: Deadline): Lent
  /** Takes a connection back, or closes it when it is spoiled. */
  protected abstract takeBack(loan: Lent): void
  protected abstract end(): Promise<unknown>

  /**
   * How many connections the driver's pool could lend without delay. A subclass must override this where some of
   * those may not be ready: where connections are prepared one at a time, or where the pool opens connections without
   * a request.
   */
  protected get idle(): number {
    return 0
  }

  async #take(what: string, deadline: Deadline): Promise<Client> {
    const pending = this.#acquireReady(what, deadline)
    try {
      return await deadline.hold(pending, () => waitedTooLong(what, deadline))
    } catch (error) {
      pending.then((client) => this.#putBack(client), ignore)
      throw storeError(what, 'none', error)
    }
  }

  async #acquireReady(what: string, deadline: Deadline): Promise<Client> {
    for (;;) {
      const returns = this.#returns
      const client = await this.#acquireBest()
      const preparation = this.#preparation
      if (preparation === undefined || preparation.made.has(client)) return client
      const unless = this.#readying(client, preparation, deadline)
      // A connection that was given back in the meantime has woken no verb.
      if (this.#returns === returns) await this.#someReady(unless, what, deadline)
    }
  }

  /**
   * Prefers a ready connection. The pool may lend one that is not ready first, and a verb must not wait while a ready
   * one is idle.
   */
  async #acquireBest(): Promise<Client> {
    const passedOver: Client[] = []
    try {
      for (;;) {
        const client = await this.acquire()
        if (this.idle === 0 || this.#preparation?.made.has(client) !== false) return client
        passedOver.push(client)
      }
    } finally {
      for (const client of passedOver) this.release(client)
    }
  }

  /**
   * Starts to prepare a connection, unless it must wait for another preparation. Returns what a verb then waits for.
   */
  #readying(client: Client, preparation: Preparation<Client, Lent>, deadline: Deadline): Unless {
    const [other] = this.#readiness.oneByOne ? this.#preparing.keys() : []
    if (other !== undefined) {
      this.release(client)
      return (proceed) => other.then(proceed, proceed)
    }
    const patience = new Deadline(Math.max(this.#readiness.readyMs, deadline.remainingMs))
    const own = this.#prepare(client, patience, preparation)
    own.catch(ignore)
    return (_proceed, fail) => own.catch(fail)
  }

  /**
   * Resolves when it is this verb's turn to take a connection from the pool.
   *
   * @param unless may end the wait earlier.
   */
  async #someReady(unless: Unless, what: string, deadline: Deadline): Promise<void> {
    let proceed: () => void = ignore
    const woken = new Promise<void>((resolve, reject) => {
      proceed = resolve
      unless(resolve, reject)
    })
    this.#waiting.add(proceed)
    try {
      await deadline.hold(woken, () => waitedTooLong(what, deadline))
    } finally {
      this.#waiting.delete(proceed)
    }
  }

  /** Prepares a connection and puts it into the pool. */
  async #prepare(
    client: Client,
    deadline: Deadline,
    { make, made }: Preparation<Client, Lent>,
  ): Promise<void> {
    let giveUp: () => void = ignore
    const ready = this.#use(client, settingUp, deadline, async (loan) => {
      const givenUp = new Promise<never>((_resolve, reject) => {
        giveUp = () => reject(closed(settingUp))
      })
      // A connection that could not be prepared is unusable.
      loan.spoiled = true
      await Promise.race([make(loan), givenUp])
      loan.spoiled = loan.lost !== undefined
      made.add(client)
    })
    this.#preparing.set(ready, giveUp)
    await ready.finally(() => this.#preparing.delete(ready))
  }

  /** Lets `work` use a connection, then takes the connection back. */
  async #use<T>(
    client: Client,
    what: string,
    deadline: Deadline,
    work: (loan: Lent) => Promise<T>,
  ): Promise<T> {
    const loan = this.loanOf(client, deadline)
    const lose = (error?: Error): void => {
      loan.lost ??= error ?? new Error('The server has ended the connection.')
      loan.spoiled = true
    }
    client.on('error', lose)
    client.on('end', lose)
    try {
      return await deadline.hold(work(loan), () => {
        loan.spoiled = true
        return tooSlow(what, deadline.limitMs, loan.outcome)
      })
    } finally {
      // The driver's pool listens again before our own listener is removed, so that every error is heard.
      this.takeBack(loan)
      client.off('error', lose)
      client.off('end', lose)
      if (!loan.spoiled) this.#wakeFirst()
    }
  }

  /** Puts back a connection that arrived after its verb had timed out. */
  #putBack(client: Client): void {
    this.release(client)
    this.#wakeFirst()
  }

  #wakeFirst(): void {
    this.#returns += 1
    const [first] = this.#waiting
    if (first === undefined) return
    this.#waiting.delete(first)
    first()
  }
}

function waitedTooLong(what: string, { limitMs }: Deadline): StoreError {
  return tooSlow(what, limitMs, 'none', 'it waited for a connection of the pool all that time')
}

function closed(what: string): StoreError {
  return new StoreError(`${what} failed: the store is closed.`, 'none')
}

function ignore(): void {}
