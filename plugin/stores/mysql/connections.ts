/**
 * Connections, and the time limits of the requests sent over them.
 *
 * Time is limited in three places. The server ends a statement that runs or waits too long, and a connection whose
 * client has fallen silent within a transaction, because a process that freezes in the middle of a change would
 * otherwise block all others. This side rejects a verb that gets no answer at all, because a network that drops
 * packets reports nothing. And the connection on which that happened is destroyed: a late answer must not be mistaken
 * for the answer to another request.
 *
 * All connections are our own, even where the application has given us its pool. MySQL has no settings that end with
 * a transaction, so the application would later find our settings on its connections, and we would find its settings.
 */
import type { Connection, Pool, PoolConnection } from 'mysql2'
import * as shared from '../shared/connections.js'
import type { Deadline } from '../shared/deadline.js'
import type { Way } from '../shared/dedicated.js'
import type { Limits } from '../shared/limits.js'
import { judgement } from './failures.js'

/**
 * Converts a limit to seconds, at least 1. Some of the server's limits are in seconds, where 0 would mean no limit or
 * no wait.
 */
export function wholeSeconds(limitMs: number): number {
  return Math.max(1, Math.floor(limitMs / 1000))
}

/** A pooled connection, for the duration of one verb. */
export class Loan extends shared.Loan<PoolConnection> {
  /** The statement that takes back what a transaction has set. It is sent when the verb has ended well. */
  afterwards: string | undefined
}

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
      // The driver itself removes a connection that breaks while idle from the pool.
      connection.on('error', ignore)
    })
  }

  /** Sets the settings that each connection gets, from now on, before it is lent for the first time. */
  tell(settings: readonly string[]): void {
    this.prepareBy((loan) => loan.send(shared.settingUp, () => sendInTurn(loan.client, settings)))
  }

  /** Destroys the connections that remain, because the driver waits without limit for an orderly end. */
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
    return new Loan(connection, deadline, judgement)
  }

  /** What another verb sends over the connection waits in it until the transaction's settings are gone. */
  protected takeBack({ client, spoiled, afterwards }: Loan): void {
    if (spoiled) {
      this.#drop(client)
      return
    }
    if (afterwards !== undefined) client.query(afterwards, (error) => error && this.#drop(client))
    client.release()
  }

  #drop(client: PoolConnection): void {
    this.#open.delete(client)
    destroy(client)
  }

  protected end(): Promise<void> {
    return new Promise((resolve) => this.#pool.end(() => resolve()))
  }
}

/** Sends statements that set up a connection. */
export async function sendInTurn(client: Connection, statements: readonly string[]): Promise<void> {
  for (const statement of statements) await client.promise().query(statement)
}

/** How the connection for heartbeats is created, connected and ended. */
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

/** Ends a connection, whatever its state. The driver itself would wait for the other side to agree. */
function destroy(client: Connection): void {
  client.destroy()
  const stream: unknown = Reflect.get(client, 'stream')
  if (stream instanceof Object && 'destroy' in stream && typeof stream.destroy === 'function')
    stream.destroy()
}

function ignore(): void {}
