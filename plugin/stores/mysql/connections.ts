/**
 * Connections, and the time limits of what is asked over them.
 *
 * Three parties watch the time. The server ends a statement that runs or waits too long, and a connection whose
 * client has fallen silent within a transaction: a process that is frozen in the middle of a change would
 * otherwise hold up all others. This side rejects a verb that has had no answer at all, for a network that swallows
 * packets tells nobody. And a connection on which that happened is destroyed, never used again: what was asked may
 * still be on its way, and its answer must not be taken for another one's.
 *
 * All connections are our own, also where the application has given us its pool. MySQL has no settings that end with
 * a transaction: what we need of a connection the application would find on it later, and what it has left
 * there we would.
 */
import type { Connection, Pool, PoolConnection } from 'mysql2'
import * as shared from '../shared/connections.js'
import type { Deadline } from '../shared/deadline.js'
import type { Way } from '../shared/dedicated.js'
import type { Limits } from '../shared/limits.js'
import { judgement } from './failures.js'

/** Some of the server's limits are counted in seconds, and 0 would mean none or at once. */
export function wholeSeconds(limitMs: number): number {
  return Math.max(1, Math.floor(limitMs / 1000))
}

/** A pooled connection, for as long as one verb takes. */
export type Loan = shared.Loan<PoolConnection>

/** The connections for changes and reads: a small pool. */
export class PooledConnections extends shared.LentConnections<PoolConnection, Loan> {
  readonly #pool: Pool
  readonly #open = new Set<PoolConnection>()

  constructor(pool: Pool, limits: Limits) {
    super(limits)
    this.#pool = pool
    pool.on('connection', (connection) => {
      this.#open.add(connection)
      connection.once('end', () => this.#open.delete(connection))
      // What breaks while nobody uses it the driver takes out of the pool by itself.
      connection.on('error', ignore)
    })
  }

  /** From now on each connection is told this before it is lent for the first time. */
  tell(settings: string): void {
    this.prepareBy((loan) => loan.send(shared.settingUp, () => loan.client.promise().query(settings)))
  }

  /** The driver waits for a goodbye for ever. */
  override async close(): Promise<void> {
    await super.close()
    for (const connection of [...this.#open]) destroy(connection)
  }

  protected acquire(): Promise<PoolConnection> {
    return new Promise((resolve, reject) =>
      this.#pool.getConnection((error, connection) => (error ? reject(error) : resolve(connection))),
    )
  }

  protected release(connection: PoolConnection): void {
    connection.release()
  }

  protected loanOf(connection: PoolConnection, deadline: Deadline): Loan {
    return new shared.Loan(connection, deadline, judgement)
  }

  protected takeBack({ client, spoiled }: Loan): void {
    if (spoiled) {
      this.#open.delete(client)
      destroy(client)
    } else {
      client.release()
    }
  }

  protected end(): Promise<void> {
    return new Promise((resolve) => this.#pool.end(() => resolve()))
  }
}

/** How heartbeats get their connection, from the one that begins to be made to its end. */
export function wayOf(create: () => Connection): Way<Connection> {
  return {
    create(lost) {
      const client = create()
      client.on('error', lost)
      client.on('end', () => lost(undefined))
      return client
    },
    connect: (client) =>
      new Promise<void>((resolve, reject) =>
        client.connect((error: unknown) => (error ? reject(error) : resolve())),
      ),
    end: (client) => new Promise<void>((resolve) => client.end(() => resolve())),
    destroy,
    ...judgement,
  }
}

/** Ends a connection whatever its state. The driver itself would wait for the other side to agree. */
function destroy(client: Connection): void {
  client.destroy()
  const stream: unknown = Reflect.get(client, 'stream')
  if (stream instanceof Object && 'destroy' in stream && typeof stream.destroy === 'function')
    stream.destroy()
}

function ignore(): void {}
