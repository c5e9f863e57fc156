/**
 * Lending the connections of a driver's pool to verbs, one for as long as a verb takes.
 *
 * A verb that has had no answer in time is rejected here, for a network that swallows packets tells nobody. The
 * connection on which that happened is never used again: what was asked may still be on its way, and its answer must
 * not be taken for another one's.
 *
 * A connection is made ready before it is lent for the first time, and that is no part of any verb. The one that needed it
 * may be served sooner by another connection, which has been given back meanwhile, or have given up; it goes on all the
 * same, for a later one.
 */
import type { EventEmitter } from 'node:events'
import { type Outcome, StoreError } from '../../core/errors.js'
import { Deadline } from './deadline.js'
import { storeError, tooSlow } from './failures.js'
import type { Limits } from './limits.js'

/** What a driver's errors mean for a connection and for what was asked over it. */
export interface Judgement {
  /** After this error the connection may serve the next request. */
  isHarmless(error: unknown): boolean
  /** The server itself said no, and so has undone what was asked for. */
  isRefusal(error: unknown): boolean
  /** What may be done about it, where it is not for the next try to mend. */
  advice(error: unknown): string | undefined
}

/** A pooled connection, for as long as one verb takes. */
export class Loan<Client> {
  /** What is known should nothing more be heard: `unknown` from when something is sent that takes effect by itself. */
  outcome: Outcome = 'none'
  /** The connection must not serve anybody again. */
  spoiled = false
  /** Why the connection ended between two statements. */
  lost: Error | undefined
  readonly #judgement: Judgement

  constructor(
    readonly client: Client,
    readonly deadline: Deadline,
    judgement: Judgement,
  ) {
    this.#judgement = judgement
  }

  /** Sends one request of a verb; what goes wrong comes out as a `StoreError`, and spoils what it must. */
  async send<T>(what: string, request: () => Promise<T>): Promise<T> {
    try {
      return await request()
    } catch (error) {
      if (!this.#judgement.isHarmless(error)) this.spoiled = true
      const { isRefusal, advice } = this.#judgement
      throw storeError(what, isRefusal(error) ? 'none' : this.outcome, error, advice(error))
    }
  }
}

/** What making a connection ready is called in errors. */
export const settingUp = 'Setting up a connection'

/** How connections are made ready, and which are. */
interface Preparation<Client extends object, Lent> {
  readonly make: (loan: Lent) => Promise<unknown>
  readonly made: WeakSet<Client>
}

/** What ends the wait of a verb for a connection before one is given back, well or badly. */
type Unless = (proceed: () => void, fail: (error: unknown) => void) => unknown

/** How long it may take to make a connection ready, whoever waits for it, and whether one has to wait for another. */
export interface Readiness {
  readonly readyMs: number
  /**
   * One after another: where that costs the server much, many at once would all be late, be given up, and be begun again. A
   * verb waits for the one that is under way, or for what is given back.
   */
  readonly oneByOne: boolean
}

/** The connections for changes and reads: a small pool, of a class for each driver. */
export abstract class LentConnections<Client extends EventEmitter, Lent extends Loan<Client>> {
  readonly limits: Limits
  readonly #readiness: Readiness
  readonly #underWay = new Set<Promise<unknown>>()
  readonly #preparing = new Map<Promise<unknown>, () => void>()
  /** Verbs that wait for a fresh connection, or for another one. */
  readonly #waiting = new Set<() => void>()
  #preparation: Preparation<Client, Lent> | undefined
  /** How often one has been given back. */
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

  /** Lends one for as long as opening the store may take. */
  async lendPatiently<T>(what: string, work: (loan: Lent) => Promise<T>): Promise<T> {
    return this.lend(what, work, new Deadline(this.limits.openMs))
  }

  /**
   * Lends nothing any more, waits until all has been given back, ends what is being made ready for nobody, and says
   * goodbye to the server, but not for ever.
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

  /** From now on each connection is made ready so before it is lent for the first time. */
  protected prepareBy(make: (loan: Lent) => Promise<unknown>): void {
    this.#preparation = { make, made: new WeakSet() }
  }

  /** Gets a connection from the driver's pool. */
  protected abstract acquire(): Promise<Client>
  /** Puts one back that nobody has used. */
  protected abstract release(client: Client): void
  protected abstract loanOf(client: Client, deadline: Deadline): Lent
  /** Takes a connection back, or ends it when it is spoiled. */
  protected abstract takeBack(loan: Lent): void
  /** Ends all connections. */
  protected abstract end(): Promise<unknown>

  /**
   * How many the driver's pool could lend without delay. To be answered where some of those may not be ready: where one is
   * made ready at a time, or where the pool connects for nobody.
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
      // What was given back in the meantime has woken nobody.
      if (this.#returns === returns) await this.#someReady(unless, what, deadline)
    }
  }

  /** The pool may lend one that is not ready before one that is: a verb must not wait while the latter lies idle. */
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

  /** Begins to make a connection ready, unless it has to wait for another one, and says what a verb then waits for. */
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
   * Ends when it is one's turn at a connection that has been put into the pool.
   *
   * @param unless may end it before that
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

  /** Makes a connection ready, and puts it into the pool. */
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
      // One that did not get ready is of no use to anybody.
      loan.spoiled = true
      await Promise.race([make(loan), givenUp])
      loan.spoiled = loan.lost !== undefined
      made.add(client)
    })
    this.#preparing.set(ready, giveUp)
    await ready.finally(() => this.#preparing.delete(ready))
  }

  /** Has `work` use a connection, and takes it back. */
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
      // The driver's pool listens again before our own listener is taken off, so that no error goes unheard.
      this.takeBack(loan)
      client.off('error', lose)
      client.off('end', lose)
      if (!loan.spoiled) this.#wakeFirst()
    }
  }

  /** One that came too late. */
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
