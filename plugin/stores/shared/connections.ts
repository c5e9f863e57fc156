/**
 * Lending the connections of a driver's pool to verbs, one for as long as a verb takes.
 *
 * A verb that has had no answer in time is rejected here, for a network that swallows packets tells nobody. The
 * connection on which that happened is never used again: what was asked may still be on its way, and its answer must
 * not be taken for another one's.
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
      throw storeError(what, this.#judgement.isRefusal(error) ? 'none' : this.outcome, error)
    }
  }
}

/** The connections for changes and reads: a small pool, of a class for each driver. */
export abstract class LentConnections<Client extends EventEmitter, Lent extends Loan<Client>> {
  protected readonly limits: Limits
  readonly #underWay = new Set<Promise<unknown>>()
  #closed = false

  constructor(limits: Limits) {
    this.limits = limits
  }

  /** Lends a connection to `work`. Errors of `work` come out unchanged. */
  async lend<T>(
    what: string,
    work: (loan: Lent) => Promise<T>,
    deadline = new Deadline(this.limits.verbMs),
  ): Promise<T> {
    if (this.#closed) throw new StoreError(`${what} failed: the store is closed.`, 'none')
    const verb = this.#lend(what, work, deadline)
    const ended = verb.then(ignore, ignore)
    this.#underWay.add(ended)
    ended.then(() => this.#underWay.delete(ended))
    return verb
  }

  /** Lends one for as long as opening the store may take. */
  async lendPatiently<T>(what: string, work: (loan: Lent) => Promise<T>): Promise<T> {
    return this.lend(what, work, new Deadline(this.limits.openMs))
  }

  /** Lends nothing any more, waits until all has been given back, and says goodbye to the server, but not for ever. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(this.#underWay)
    const late = (): Error => new Error('The goodbye was not heard.')
    await new Deadline(this.limits.verbMs).hold(this.end(), late).catch(ignore)
  }

  /** Gets a connection from the driver's pool. */
  protected abstract acquire(): Promise<Client>
  /** Puts one back that nobody has used. */
  protected abstract release(client: Client): void
  protected abstract loanOf(client: Client, deadline: Deadline): Lent
  /** Makes a connection ready whenever it is lent. */
  protected abstract prepare(loan: Lent, what: string): Promise<void>
  /** Takes a connection back, or ends it when it is spoiled. */
  protected abstract takeBack(loan: Lent): void
  /** Ends all connections. */
  protected abstract end(): Promise<unknown>

  async #lend<T>(what: string, work: (loan: Lent) => Promise<T>, deadline: Deadline): Promise<T> {
    const loan = this.loanOf(await this.#take(what, deadline), deadline)
    const lose = (error?: Error): void => {
      loan.lost ??= error ?? new Error('The server has ended the connection.')
      loan.spoiled = true
    }
    loan.client.on('error', lose)
    loan.client.on('end', lose)
    try {
      return await deadline.hold(this.#prepared(loan, what, work), () => {
        loan.spoiled = true
        return tooSlow(what, deadline.limitMs, loan.outcome)
      })
    } finally {
      // The driver's pool listens again before our own listener is taken off, so that no error goes unheard.
      this.takeBack(loan)
      loan.client.off('error', lose)
      loan.client.off('end', lose)
    }
  }

  async #take(what: string, deadline: Deadline): Promise<Client> {
    const pending = this.acquire()
    try {
      return await deadline.hold(pending, () => tooSlow(what, deadline.limitMs, 'none'))
    } catch (error) {
      pending.then((client) => this.release(client), ignore)
      throw storeError(what, 'none', error)
    }
  }

  async #prepared<T>(loan: Lent, what: string, work: (loan: Lent) => Promise<T>): Promise<T> {
    await this.prepare(loan, what)
    return work(loan)
  }
}

/** What each connection is told once, before it is lent for the first time. */
export class Greeting<Client extends object> {
  readonly #told = new WeakSet<Client>()
  #words: string | undefined

  get isSet(): boolean {
    return this.#words !== undefined
  }

  /** From now on this is what they are told. */
  set(words: string): void {
    this.#words = words
  }

  async tell(client: Client, say: (words: string) => Promise<unknown>): Promise<void> {
    if (this.#words === undefined || this.#told.has(client)) return
    await say(this.#words)
    this.#told.add(client)
  }
}

function ignore(): void {}
