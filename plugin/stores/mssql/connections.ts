/**
 * Connections, and the time limits of the requests sent over them.
 *
 * Time is limited in two places. The server ends a wait for a lock. It ends neither a statement that runs too long
 * nor a transaction whose client has fallen silent. This side therefore rejects a verb that gets no answer in time,
 * and destroys its connection, upon which the server undoes the open transaction. Such a connection is never used
 * again: a late answer must not be mistaken for the answer to another request.
 *
 * The driver's own limit of a request is never used. It asks the server to give up and waits for the answer, which
 * takes five seconds more on a network that drops packets.
 *
 * All connections are our own, even where the application has given us its pool. Settings stay with a connection, so
 * the application would later find our settings on its connections, and we would find its settings.
 */
import type { ConnectionPool, IResult, ISqlType, Request, Transaction } from 'mssql'
import * as shared from '../shared/connections.js'
import { Deadline } from '../shared/deadline.js'
import { tooSlow } from '../shared/failures.js'
import type { Limits } from '../shared/limits.js'
import { judgement } from './failures.js'

/** The parameters of a statement: texts, numbers, and lists. A list is sent as one JSON text. */
export type Parameters = Readonly<Record<string, string | number | null | readonly unknown[]>>

/** The sets of rows that a request has returned. */
export type Answer = readonly Record<string, unknown>[][]

/** A connection of the driver, as far as it is needed here. */
type Wire = Awaited<ReturnType<ConnectionPool['pool']['acquire']>['promise']>

/** The driver's types of parameters. */
export interface ParameterTypes {
  readonly text: ISqlType
  readonly number: ISqlType
}

/**
 * One connection that takes the place of the pool that the driver's requests expect. Requests are made with the
 * pool's own classes, because there may be several copies of the driver.
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

/** A pooled connection, for the duration of one verb. */
export class Loan extends shared.Loan<Wire> {
  readonly #link: Link
  readonly #types: ParameterTypes
  readonly #lockMs: number
  #transaction: Transaction | undefined

  /** @param identity the identity of the server that this connection leads to. */
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
    // Emitted when the server undoes a transaction by itself. The request that caused it reports it as well.
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
   * Sends statements in one round trip, inside the transaction if there is one. A setting made in a request lasts
   * until the request ends, so each request sets its own limit for lock waits.
   */
  async ask(sql: string, parameters: Parameters = {}): Promise<Answer> {
    const request = this.#transaction?.request() ?? this.#link.request()
    for (const [name, value] of Object.entries(parameters)) {
      const isNumber = typeof value === 'number'
      // An object is a list, because texts, numbers and null are handled otherwise.
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

/** A request whose answer does not matter. */
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
    // Some servers are slow to read a statement for the first time. Then it does not help to begin again on another
    // connection, or on several at once. A server that keeps answering is given more time than one that has fallen
    // silent.
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
   * From now on prepares each connection before it is lent for the first time: asks for the identity of the server,
   * which cannot change while the connection exists, and then sends the requests that must later be answered without
   * delay. Prepares the first connection at once, so that no verb begins by connecting.
   */
  async rehearse(identitySql: string, questions: readonly Question[]): Promise<void> {
    this.prepareBy(async (loan) => {
      const [[row] = []] = await this.#rehearsed(loan, { sql: identitySql, parameters: {} })
      for (const question of questions) await this.#rehearsed(loan, question)
      this.#identities.set(loan.client, String(row?.identity))
    })
    await this.lend('Looking at the server', async () => undefined, new Deadline(this.#readyMs))
  }

  /** Sends one rehearsed request. A server that does not answer it within `openMs` counts as silent. */
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

  /**
   * The driver's pool may connect for one verb and then serve that verb with another connection, and it lends the
   * newest connection first.
   */
  protected override get idle(): number {
    return this.#parts.pool.pool.numFree()
  }

  protected loanOf(wire: Wire, deadline: Deadline): Loan {
    return new Loan(wire, deadline, this.#identities.get(wire) ?? '', this.#parts)
  }

  /** The pool never lends a closed connection. */
  protected takeBack({ client, spoiled }: Loan): void {
    if (spoiled) client.close()
    this.release(client)
  }

  protected end(): Promise<unknown> {
    return this.#parts.pool.close()
  }
}

function ignore(): void {}
