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
import * as shared from '../shared/connections.js'
import { Deadline } from '../shared/deadline.js'
import { tooSlow } from '../shared/failures.js'
import type { Limits } from '../shared/limits.js'
import { judgement } from './failures.js'

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
export class Loan extends shared.Loan<Wire> {
  readonly #link: Link
  readonly #types: ParameterTypes
  readonly #lockMs: number
  #transaction: Transaction | undefined

  /** @param identity which life of the server this connection leads to. */
  constructor(
    wire: Wire,
    deadline: Deadline,
    readonly identity: string,
    { pool, types, limits }: ConnectionsParts,
  ) {
    super(wire, deadline, judgement)
    this.#link = new Link(pool, wire)
    this.#types = types
    this.#lockMs = limits.lockMs
  }

  async begin(): Promise<void> {
    const transaction = this.#link.transaction()
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
    const request = this.#transaction?.request() ?? this.#link.request()
    for (const [name, value] of Object.entries(parameters)) {
      const isNumber = typeof value === 'number'
      // An object is a list: texts, numbers and null are none.
      const sent = typeof value === 'object' && value !== null ? JSON.stringify(value) : value
      request.input(name, isNumber ? this.#types.number : this.#types.text, sent)
    }
    const { recordsets }: IResult<unknown> = await request.query(`set lock_timeout ${this.#lockMs}; ${sql}`)
    return recordsets as Answer
  }
}

/** What a {@link Connections} is made of. */
export interface ConnectionsParts {
  readonly pool: ConnectionPool
  readonly limits: Limits
  readonly types: ParameterTypes
}

/** Something to be asked, whatever the answer. */
interface Question {
  readonly sql: string
  readonly parameters: Parameters
}

/** A few connections: those for changes and reads, or the one for heartbeats. */
export class Connections extends shared.LentConnections<Wire, Loan> {
  readonly #parts: ConnectionsParts
  readonly #readyMs: number
  readonly #identities = new WeakMap<Wire, string>()

  constructor(parts: ConnectionsParts) {
    // Not every server is quick to read a statement for the first time. Then it is no use to begin again on another one, nor
    // to begin on several at once. One that goes on answering is given more time than one that has fallen silent.
    const readyMs = 4 * parts.limits.openMs
    super(parts.limits, { readyMs, oneByOne: true })
    this.#parts = parts
    this.#readyMs = readyMs
    // Without a listener an error in the background would end the process.
    parts.pool.on('error', ignore)
  }

  /** Connects for the first time. */
  async open(): Promise<void> {
    const { openMs } = this.limits
    const late = (): Error => new Error(`no connection within ${openMs} ms`)
    await new Deadline(openMs).hold(this.#parts.pool.connect(), late)
  }

  /**
   * From now on each connection, before it is lent for the first time, is asked which life of the server it leads to, which
   * it does not outlive; and then the questions that are to be answered without delay later. The first one
   * at once, so that no verb begins by connecting.
   */
  async rehearse(identitySql: string, questions: readonly Question[]): Promise<void> {
    this.prepareBy(async (loan) => {
      const [[row] = []] = await this.#rehearsed(loan, { sql: identitySql, parameters: {} })
      for (const question of questions) await this.#rehearsed(loan, question)
      this.#identities.set(loan.client, String(row?.identity))
    })
    await this.lend('Looking at the server', async () => undefined, new Deadline(this.#readyMs))
  }

  /** Whoever has not answered this for so long is taken for silent. */
  #rehearsed(loan: Loan, { sql, parameters }: Question): Promise<Answer> {
    const { openMs } = this.limits
    const answer = loan.send(shared.settingUp, () => loan.ask(sql, parameters))
    return new Deadline(openMs).hold(answer, () => tooSlow(shared.settingUp, openMs, 'none'))
  }

  protected acquire(): Promise<Wire> {
    return this.#parts.pool.pool.acquire().promise
  }

  protected release(wire: Wire): void {
    this.#parts.pool.pool.release(wire)
  }

  /** The driver's pool connects for a verb that it then serves with another connection, and lends the newest first. */
  protected override get idle(): number {
    return this.#parts.pool.pool.numFree()
  }

  protected loanOf(wire: Wire, deadline: Deadline): Loan {
    return new Loan(wire, deadline, this.#identities.get(wire) ?? '', this.#parts)
  }

  /** The pool never lends out a closed one. */
  protected takeBack({ client, spoiled }: Loan): void {
    if (spoiled) client.close()
    this.release(client)
  }

  protected end(): Promise<unknown> {
    return this.#parts.pool.close()
  }
}

function ignore(): void {}
