/**
 * Connections, and the time limits of the requests sent over them.
 *
 * Time is limited in three places. The server ends a statement that runs or waits too long, and a transaction whose
 * client has fallen silent, because a process that freezes in the middle of a change would otherwise block all
 * others. This side rejects a verb that gets no answer at all, because a network that drops packets reports nothing.
 * And the connection on which that happened is destroyed: a late answer must not be mistaken for the answer to
 * another request.
 *
 * The driver's own `query_timeout` is never used. It gives up on a statement but not on the connection, so a BEGIN
 * that arrives late would leave an open transaction to the next borrower of that connection.
 */
import type { Client, Pool, PoolClient } from 'pg'
import * as shared from '../shared/connections.js'
import type { Deadline } from '../shared/deadline.js'
import type { Way } from '../shared/dedicated.js'
import type { Limits } from '../shared/limits.js'
import { judgement } from './failures.js'

/** A pooled connection, for the duration of one verb. */
export type Loan = shared.Loan<PoolClient>

/** Where pooled connections come from. */
export interface PoolSource {
  readonly pool: Pool
  /** Whether the pool was made for this store. If so, only this store uses its connections, and it ends with the store. */
  readonly own: boolean
  /** Makes a pool for this store, of a few connections to the same database. */
  createPool(): Pool
}

/** The connections for changes and reads: a small pool of our own, or the application's pool until that is ended. */
export class PooledConnections extends shared.LentConnections<PoolClient, Loan> {
  readonly #createPool: () => Pool
  #pool: Pool
  #own: boolean
  readonly #heard = new Set<PoolClient>()
  /** What makes each verb that waits for the application's pool leave it. */
  readonly #waiting = new Set<() => void>()
  #bounded = false
  #role: string | undefined

  /**
   * Keeps a listener for errors on a new connection. The pool removes its own when it lends a connection, and the
   * borrower adds one a moment later. If the server ended the connection right after accepting it, no listener would
   * receive the error, and it would end the process.
   */
  readonly #hear = (client: PoolClient): void => {
    client.on('error', ignore)
    this.#heard.add(client)
  }

  readonly #removed = (client: PoolClient): void => {
    this.#heard.delete(client)
    this.#leaveEnded()
  }

  constructor({ pool, own, createPool }: PoolSource, limits: Limits) {
    super(limits)
    this.#createPool = createPool
    this.#own = own
    this.#pool = this.#listenTo(pool)
  }

  /**
   * Sets the settings that each connection gets, from now on, before it is lent for the first time. Must not be used
   * on a pool that others use.
   */
  tell(settings: string): void {
    this.#bounded = true
    this.#prepareBy(settings)
  }

  /** Sets the role that the application's pool takes on by itself, so that a pool in its place has the same rights. */
  takeOn(role: string): void {
    this.#role = role
  }

  /** Whether the server also limits statements outside of transactions. */
  get bounded(): boolean {
    return this.#bounded
  }

  protected acquire(): Promise<PoolClient> {
    this.#leaveEnded()
    return this.#own ? this.#pool.connect() : this.#borrow()
  }

  protected release(client: PoolClient): void {
    client.release()
  }

  protected loanOf(client: PoolClient, deadline: Deadline): Loan {
    return new shared.Loan(client, deadline, judgement)
  }

  protected takeBack({ client, spoiled }: Loan): void {
    client.release(spoiled)
    if (spoiled) client.connection?.stream.destroy()
  }

  /** Leaves the application's pool as it was. */
  protected async end(): Promise<void> {
    if (this.#own) return this.#pool.end()
    this.#pool.off('error', ignore).off('connect', this.#hear).off('remove', this.#removed)
    for (const client of this.#heard) client.off('error', ignore)
  }

  #borrow(): Promise<PoolClient> {
    return new Promise((resolve, reject) => {
      const lent = this.#pool.connect()
      const leave = (): void => {
        lent.then((client) => this.release(client), ignore)
        resolve(this.#pool.connect())
      }
      this.#waiting.add(leave)
      const settle = (how: () => void): void => {
        this.#waiting.delete(leave)
        how()
      }
      lent.then(
        (client) => settle(() => resolve(client)),
        (error: unknown) => settle(() => reject(error)),
      )
    })
  }

  /**
   * An application that stops may end its pool first. This node must still give its leases back: nobody else could have
   * them for a ttl. A pool that is ended never serves those who wait for it, and tells nobody. But from then on it
   * removes each connection that it gets back.
   */
  #leaveEnded(): void {
    if (this.#own || !this.#pool.ending) return
    this.#replacePool()
    for (const leave of this.#waiting) leave()
    this.#waiting.clear()
  }

  /** Still listens to the pool that is replaced: some of its connections may be lent, or may just be made. */
  #replacePool(): void {
    this.#own = true
    this.#pool = this.#listenTo(this.#createPool())
    const role = this.#role
    if (role !== undefined) this.#prepareBy("select set_config('role', $1, false)", [role])
  }

  #prepareBy(settings: string, values?: string[]): void {
    this.prepareBy((loan) => loan.send(shared.settingUp, () => loan.client.query(settings, values)))
  }

  #listenTo(pool: Pool): Pool {
    return pool.on('error', ignore).on('connect', this.#hear).on('remove', this.#removed)
  }
}

/** How the connection for heartbeats is created, connected and ended. */
export function wayOf(createClient: () => Client, notified: (payload: string) => void): Way<Client> {
  return {
    create(lost) {
      const client = createClient()
      client.on('error', lost)
      client.on('end', () => lost(undefined))
      client.on('notification', ({ payload }) => notified(payload ?? ''))
      return client
    },
    connect: (client) => client.connect(),
    end: (client) => client.end(),
    destroy,
    ...judgement,
  }
}

/** Ends a connection, whatever its state. Drivers without sockets of their own have no `connection`. */
function destroy(client: Client): void {
  client.end().catch(ignore)
  client.connection?.stream.destroy()
}

function ignore(): void {}
