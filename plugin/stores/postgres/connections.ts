/**
 * Connections, and the time limits of what is asked over them.
 *
 * Three parties watch the time. The server ends a statement that runs or waits too long, and a transaction
 * whose client has fallen silent: a process that is frozen in the middle of a change would otherwise hold up
 * all others. This side rejects a verb that has had no answer at all, for a network that swallows packets tells
 * nobody. And a connection on which that happened is destroyed, never used again: what was asked may
 * still be on its way, and its answer must not be taken for another one's.
 *
 * The driver's own `query_timeout` is never used. It gives up on a statement but not on the connection, so
 * that a BEGIN which arrives late leaves an open transaction for whoever is lent that connection next.
 */
import type { Client, Pool, PoolClient } from 'pg'
import * as shared from '../shared/connections.js'
import type { Deadline } from '../shared/deadline.js'
import type { Way } from '../shared/dedicated.js'
import type { Limits } from '../shared/limits.js'
import { judgement } from './failures.js'

/** A pooled connection, for as long as one verb takes. */
export type Loan = shared.Loan<PoolClient>

/** The connections for changes and reads: a small pool of our own, or the application's. */
export class PooledConnections extends shared.LentConnections<PoolClient, Loan> {
  readonly #pool: Pool
  readonly #own: boolean
  #bounded = false

  /** @param own the pool was made for this store, and ends with it. */
  constructor(pool: Pool, limits: Limits, { own }: { readonly own: boolean }) {
    super(limits)
    this.#pool = pool
    this.#own = own
    pool.on('error', ignore)
    pool.on('connect', hearErrors)
  }

  /** From now on each connection is told this before it is lent for the first time. Not for a pool that others use. */
  tell(settings: string): void {
    this.#bounded = true
    this.prepareBy((loan) => loan.send(shared.settingUp, () => loan.client.query(settings)))
  }

  /** Whether the server limits statements outside of transactions, too. */
  get bounded(): boolean {
    return this.#bounded
  }

  protected acquire(): Promise<PoolClient> {
    return this.#pool.connect()
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

  /** The application's pool it leaves as it was. */
  protected async end(): Promise<void> {
    if (this.#own) await this.#pool.end()
    else this.#pool.off('error', ignore).off('connect', hearErrors)
  }
}

/** How heartbeats get their connection, from the one that begins to be made to its end. */
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

/** Ends a connection whatever its state. Drivers without sockets of their own have no `connection`. */
function destroy(client: Client): void {
  client.end().catch(ignore)
  client.connection?.stream.destroy()
}

/**
 * The pool stops listening when it lends a connection, and its borrower begins a moment later. What the server says in the
 * same breath as its welcome, that it ends the connection, would be heard by nobody, and end the process.
 */
function hearErrors(client: PoolClient): void {
  client.on('error', ignore)
}

function ignore(): void {}
