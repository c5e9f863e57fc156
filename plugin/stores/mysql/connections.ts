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
import { type Outcome, StoreError } from '../../core/errors.js'
import { Deadline } from '../shared/deadline.js'
import type { Way } from '../shared/dedicated.js'
import { storeError, tooSlow } from '../shared/failures.js'
import type { Limits } from '../shared/limits.js'
import { isHarmless, isRefusal } from './failures.js'

/** Some of the server's limits are counted in seconds, and 0 would mean none or at once. */
export function wholeSeconds(limitMs: number): number {
  return Math.max(1, Math.floor(limitMs / 1000))
}

/** A pooled connection, for as long as one verb takes. */
export class Loan {
  /** What is known should nothing more be heard: `unknown` from when something is sent that takes effect by itself. */
  outcome: Outcome = 'none'
  /** The connection must not serve anybody again. */
  spoiled = false
  /** Why the connection ended between two statements. */
  lost: Error | undefined

  constructor(
    readonly client: PoolConnection,
    readonly deadline: Deadline,
  ) {}
}

/** The connections for changes and reads: a small pool. */
export class PooledConnections {
  readonly #pool: Pool
  readonly #limits: Limits
  #setUp: string | undefined
  readonly #ready = new WeakSet<PoolConnection>()
  readonly #open = new Set<PoolConnection>()
  readonly #underWay = new Set<Promise<unknown>>()
  #closed = false

  constructor(pool: Pool, limits: Limits) {
    this.#pool = pool
    this.#limits = limits
    pool.on('connection', (connection) => {
      this.#open.add(connection)
      connection.once('end', () => this.#open.delete(connection))
      // What breaks while nobody uses it the driver takes out of the pool by itself.
      connection.on('error', ignore)
    })
  }

  /** Lends a connection to `work`. Errors of `work` come out unchanged. */
  async lend<T>(
    what: string,
    work: (loan: Loan) => Promise<T>,
    deadline = new Deadline(this.#limits.verbMs),
  ): Promise<T> {
    if (this.#closed) throw new StoreError(`${what} failed: the store is closed.`, 'none')
    const verb = this.#lend(what, work, deadline)
    const ended = verb.then(ignore, ignore)
    this.#underWay.add(ended)
    ended.then(() => this.#underWay.delete(ended))
    return verb
  }

  /** From now on each connection is told this before it is lent for the first time. */
  tell(settings: string): void {
    this.#setUp = settings
  }

  /** Lends nothing any more, waits until all has been given back, and says goodbye to the server, but not for ever. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(this.#underWay)
    const ended = new Promise<void>((resolve) => this.#pool.end(() => resolve()))
    const late = (): Error => new Error('The goodbye was not heard.')
    await new Deadline(this.#limits.verbMs).hold(ended, late).catch(ignore)
    for (const connection of [...this.#open]) destroy(connection)
  }

  async #lend<T>(what: string, work: (loan: Loan) => Promise<T>, deadline: Deadline): Promise<T> {
    const loan = new Loan(await this.#take(what, deadline), deadline)
    const lose = (error?: Error): void => {
      loan.lost ??= error ?? new Error('The server has ended the connection.')
      loan.spoiled = true
    }
    loan.client.on('error', lose).on('end', lose)
    try {
      return await deadline.hold(this.#prepared(loan, what, work), () => {
        loan.spoiled = true
        return tooSlow(what, deadline.limitMs, loan.outcome)
      })
    } finally {
      loan.client.off('error', lose).off('end', lose)
      if (loan.spoiled) this.#discard(loan.client)
      else loan.client.release()
    }
  }

  async #take(what: string, deadline: Deadline): Promise<PoolConnection> {
    const pending = new Promise<PoolConnection>((resolve, reject) =>
      this.#pool.getConnection((error, connection) => (error ? reject(error) : resolve(connection))),
    )
    try {
      return await deadline.hold(pending, () => tooSlow(what, deadline.limitMs, 'none'))
    } catch (error) {
      pending.then((connection) => connection.release(), ignore)
      throw storeError(what, 'none', error)
    }
  }

  async #prepared<T>(loan: Loan, what: string, work: (loan: Loan) => Promise<T>): Promise<T> {
    const settings = this.#setUp
    if (settings !== undefined && !this.#ready.has(loan.client)) {
      await sent(loan, what, () => loan.client.promise().query(settings))
      this.#ready.add(loan.client)
    }
    return work(loan)
  }

  #discard(connection: PoolConnection): void {
    this.#open.delete(connection)
    destroy(connection)
  }
}

/** Sends one statement of a verb; what goes wrong comes out as a `StoreError`, and spoils what it must. */
export async function sent<T>(loan: Loan, what: string, send: () => Promise<T>): Promise<T> {
  try {
    return await send()
  } catch (error) {
    if (!isHarmless(error)) loan.spoiled = true
    throw storeError(what, isRefusal(error) ? 'none' : loan.outcome, error)
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
    isHarmless,
    isRefusal,
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
