/**
 * Connections, and the time limits of what is asked over them.
 *
 * Two parties watch the time. The server ends a wait for a lock. It ends neither a statement that runs too long nor a
 * transaction whose client has fallen silent; so this side rejects a verb that has had no answer in time, and destroys
 * its connection, upon which the server undoes what was open. Such a connection is never used again: what was
 * asked may still be on its way, and its answer must not be taken for another one's.
 *
 * The driver's own limit of a request is never used. It asks the server to give up and waits for the answer, which on a
 * network that swallows packets takes five seconds more.
 *
 * All connections are our own, also where the application has given us its pool: settings stay with a connection, so
 * that what we need the application would find on it later, and what it has left there we would.
 */
import type { ConnectionPool, IResult, ISqlType, Request, Transaction } from 'mssql'
import { type Outcome, StoreError } from '../../core/errors.js'
import { Deadline } from '../shared/deadline.js'
import { isHarmless, isRefusal, storeError, tooSlow } from './failures.js'

/** How long things may take, in milliseconds. */
export interface Limits {
  /** A verb, from the call to its answer. Kept on this side. */
  readonly verbMs: number
  /** Waiting for a lock on the server, which leaves a change time for its work once it has got it. */
  readonly lockMs: number
  /**
   * Making a connection. It takes several journeys, with encryption more; an attempt that outlasts the verb it was begun
   * for serves a later one.
   */
  readonly connectMs: number
  /** Opening the store, on which no lease depends yet. */
  readonly openMs: number
}

/** Limits of which all end within the statement timeout. */
export function limitsWithin(statementTimeoutMs: number): Limits {
  return {
    verbMs: statementTimeoutMs,
    lockMs: Math.max(1, Math.floor(statementTimeoutMs * 0.8)),
    connectMs: Math.max(5_000, statementTimeoutMs),
    openMs: Math.max(15_000, statementTimeoutMs),
  }
}

/** What a statement is given: texts, numbers, and lists, which go as one text in JSON. */
export type Parameters = Readonly<Record<string, string | number | null | readonly unknown[]>>

/** The sets of rows that a request has answered. */
export type Answer = readonly Record<string, unknown>[][]

/** A connection of the driver's, as far as it is needed here. */
type Wire = Awaited<ReturnType<ConnectionPool['pool']['acquire']>['promise']>

/** The driver's types of parameters. */
export interface ParameterTypes {
  readonly text: ISqlType
  readonly number: ISqlType
}

/**
 * One connection, in the place of the pool that requests of the driver expect. They are made with the pool's own classes:
 * there may be several copies of the driver.
 */
class Link {
  readonly connected = true
  readonly config: unknown
  readonly collation: unknown
  readonly #pool: ConnectionPool

  constructor(
    pool: ConnectionPool,
    readonly wire: Wire,
  ) {
    this.#pool = pool
    this.config = Reflect.get(pool, 'config')
    this.collation = Reflect.get(pool, 'collation')
  }

  /** Called by a request before it is sent. */
  acquire(_for: unknown, lent: (error: null, wire: Wire, config: unknown) => void): void {
    lent(null, this.wire, this.config)
  }

  /** Called by a request after it has been answered. */
  release(): void {}

  request(): Request {
    return Reflect.construct(this.#pool.request().constructor, [this])
  }

  transaction(): Transaction {
    return Reflect.construct(this.#pool.transaction().constructor, [this])
  }
}

/** A pooled connection, for as long as one verb takes. */
export class Loan {
  /** What is known should nothing more be heard: `unknown` from when something is sent that takes effect by itself. */
  outcome: Outcome = 'none'
  /** The connection must not serve anybody again. */
  spoiled = false
  /** Why the connection ended between two statements. */
  lost: Error | undefined
  /** Which life of the server this connection leads to. */
  identity = ''
  #transaction: Transaction | undefined

  constructor(
    readonly link: Link,
    readonly deadline: Deadline,
    readonly types: ParameterTypes,
    readonly lockMs: number,
  ) {}

  async begin(): Promise<void> {
    const transaction = this.link.transaction()
    // Said when the server undoes a transaction by itself; the request it was for says so too.
    transaction.on('error', ignore)
    await transaction.begin()
    this.#transaction = transaction
  }

  async commit(): Promise<void> {
    await this.#transaction?.commit()
    this.#transaction = undefined
  }

  async rollback(): Promise<void> {
    await this.#transaction?.rollback()
    this.#transaction = undefined
  }

  /**
   * Sends statements in one journey, inside of the transaction if there is one. What is set in a request holds until its
   * end, so each one sets anew how long it may wait for a lock.
   */
  async ask(sql: string, parameters: Parameters = {}): Promise<Answer> {
    const request = this.#transaction?.request() ?? this.link.request()
    for (const [name, value] of Object.entries(parameters)) {
      const isNumber = typeof value === 'number'
      // An object is a list: texts, numbers and null are none.
      const sent = typeof value === 'object' && value !== null ? JSON.stringify(value) : value
      request.input(name, isNumber ? this.types.number : this.types.text, sent)
    }
    const { recordsets }: IResult<unknown> = await request.query(`set lock_timeout ${this.lockMs}; ${sql}`)
    return recordsets as Answer
  }
}

/** What a {@link Connections} is made of. */
export interface ConnectionsParts {
  readonly pool: ConnectionPool
  readonly limits: Limits
  readonly types: ParameterTypes
}

/** A few connections: those for changes and reads, or the one for heartbeats. */
export class Connections {
  readonly #parts: ConnectionsParts
  readonly #identities = new WeakMap<Wire, string>()
  readonly #underWay = new Set<Promise<unknown>>()
  #identityOf: string | undefined
  #closed = false

  constructor(parts: ConnectionsParts) {
    this.#parts = parts
    // Without a listener an error in the background would end the process.
    parts.pool.on('error', ignore)
  }

  /** Connects for the first time. */
  async open(): Promise<void> {
    const { pool, limits } = this.#parts
    const late = (): Error => new Error(`no connection within ${limits.connectMs} ms`)
    await new Deadline(limits.connectMs).hold(pool.connect(), late)
  }

  /**
   * From now on each connection is asked which life of the server it leads to before it is lent for the first time; the
   * first one at once, so that no verb begins by connecting.
   */
  async identifyBy(sql: string): Promise<void> {
    this.#identityOf = sql
    await this.lend('Looking at the server', async () => undefined, new Deadline(this.#parts.limits.openMs))
  }

  /** Lends a connection to `work`. Errors of `work` come out unchanged. */
  async lend<T>(
    what: string,
    work: (loan: Loan) => Promise<T>,
    deadline = new Deadline(this.#parts.limits.verbMs),
  ): Promise<T> {
    if (this.#closed) throw new StoreError(`${what} failed: the store is closed.`, 'none')
    const verb = this.#lend(what, work, deadline)
    const ended = verb.then(ignore, ignore)
    this.#underWay.add(ended)
    ended.then(() => this.#underWay.delete(ended))
    return verb
  }

  /** Lends nothing any more, waits until all has been given back, and says goodbye to the server, but not for ever. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(this.#underWay)
    const { pool, limits } = this.#parts
    const late = (): Error => new Error('The goodbye was not heard.')
    await new Deadline(limits.verbMs).hold(pool.close(), late).catch(ignore)
  }

  async #lend<T>(what: string, work: (loan: Loan) => Promise<T>, deadline: Deadline): Promise<T> {
    const { pool, types, limits } = this.#parts
    const wire = await this.#take(what, deadline)
    const loan = new Loan(new Link(pool, wire), deadline, types, limits.lockMs)
    const lose = (error?: Error): void => {
      loan.lost ??= error ?? new Error('The server has ended the connection.')
      loan.spoiled = true
    }
    wire.on('error', lose).on('end', lose)
    try {
      return await deadline.hold(this.#prepared(loan, what, work), () => {
        loan.spoiled = true
        return tooSlow(what, deadline.limitMs, loan.outcome)
      })
    } finally {
      wire.off('error', lose).off('end', lose)
      // The pool never lends out a closed one.
      if (loan.spoiled) wire.close()
      pool.pool.release(wire)
    }
  }

  async #take(what: string, deadline: Deadline): Promise<Wire> {
    const { pool } = this.#parts
    const pending = pool.pool.acquire()
    try {
      return await deadline.hold(pending.promise, () => tooSlow(what, deadline.limitMs, 'none'))
    } catch (error) {
      pending.promise.then((wire) => pool.pool.release(wire), ignore)
      throw storeError(what, 'none', error)
    }
  }

  /** A connection does not outlive the server it leads to, so it is asked once which one that is. */
  async #prepared<T>(loan: Loan, what: string, work: (loan: Loan) => Promise<T>): Promise<T> {
    const { wire } = loan.link
    const ask = this.#identityOf
    if (ask !== undefined && !this.#identities.has(wire)) {
      const [[row] = []] = await sent(loan, what, () => loan.ask(ask))
      this.#identities.set(wire, String(row?.identity))
    }
    loan.identity = this.#identities.get(wire) ?? ''
    return work(loan)
  }
}

/** Sends one request of a verb; what goes wrong comes out as a `StoreError`, and spoils what it must. */
export async function sent<T>(loan: Loan, what: string, send: () => Promise<T>): Promise<T> {
  try {
    return await send()
  } catch (error) {
    if (!isHarmless(error)) loan.spoiled = true
    throw storeError(what, isRefusal(error) ? 'none' : loan.outcome, error)
  }
}

function ignore(): void {}
