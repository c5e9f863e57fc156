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
import { type Outcome, StoreError } from '../../core/errors.js'
import { Deadline } from '../shared/deadline.js'
import type { Way } from '../shared/dedicated.js'
import { storeError, tooSlow } from '../shared/failures.js'
import type { Limits } from '../shared/limits.js'
import { isHarmless, isRefusal } from './failures.js'

/** A pooled connection, for as long as one verb takes. */
export class Loan {
  /** What is known should nothing more be heard: `unknown` from when something is sent that takes effect by itself. */
  outcome: Outcome = 'none'
  /** The connection must not serve anybody again. */
  spoiled = false
  /** Why the connection ended between two statements. */
  lost: Error | undefined

  constructor(
    readonly client: PoolClient,
    readonly deadline: Deadline,
  ) {}
}

/** The connections for changes and reads: a small pool of our own, or the application's. */
export class PooledConnections {
  readonly #pool: Pool
  readonly #limits: Limits
  #setUp: string | undefined
  readonly #ready = new WeakSet<PoolClient>()
  readonly #underWay = new Set<Promise<unknown>>()
  #closed = false

  constructor(pool: Pool, limits: Limits) {
    this.#pool = pool
    this.#limits = limits
    pool.on('error', ignore)
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

  /** From now on each connection is told this before it is lent for the first time. Not for a pool that others use. */
  tell(settings: string): void {
    this.#setUp = settings
  }

  /** Whether the server limits statements outside of transactions, too. */
  get bounded(): boolean {
    return this.#setUp !== undefined
  }

  /** Lends nothing any more, and waits until all has been given back. Ending the pool is up to whoever made it. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(this.#underWay)
    this.#pool.off('error', ignore)
  }

  async #lend<T>(what: string, work: (loan: Loan) => Promise<T>, deadline: Deadline): Promise<T> {
    const loan = new Loan(await this.#take(what, deadline), deadline)
    const lose = (error: Error): void => {
      loan.lost ??= error
      loan.spoiled = true
    }
    loan.client.on('error', lose)
    try {
      return await deadline.hold(this.#prepared(loan, what, work), () => {
        loan.spoiled = true
        return tooSlow(what, deadline.limitMs, loan.outcome)
      })
    } finally {
      giveBack(loan)
      loan.client.off('error', lose)
    }
  }

  async #take(what: string, deadline: Deadline): Promise<PoolClient> {
    const pending = this.#pool.connect()
    try {
      return await deadline.hold(pending, () => tooSlow(what, deadline.limitMs, 'none'))
    } catch (error) {
      pending.then((client) => client.release(), ignore)
      throw storeError(what, 'none', error)
    }
  }

  async #prepared<T>(loan: Loan, what: string, work: (loan: Loan) => Promise<T>): Promise<T> {
    if (this.#setUp !== undefined && !this.#ready.has(loan.client)) {
      await sent(loan, what, () => loan.client.query(this.#setUp ?? ''))
      this.#ready.add(loan.client)
    }
    return work(loan)
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

/** The pool listens for errors again before our own listener is taken off, so that none goes unheard. */
function giveBack({ client, spoiled }: Loan): void {
  client.release(spoiled)
  if (spoiled) client.connection?.stream.destroy()
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
    isHarmless,
    isRefusal,
  }
}

/** Ends a connection whatever its state. Drivers without sockets of their own have no `connection`. */
function destroy(client: Client): void {
  client.end().catch(ignore)
  client.connection?.stream.destroy()
}

function ignore(): void {}
