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
import { isHarmless, isRefusal, storeError, tooSlow } from './failures.js'

/** How long things may take, in milliseconds. */
export interface Limits {
  /** A verb, from the call to its answer. Kept on this side. */
  readonly verbMs: number
  /** A statement on the server. */
  readonly statementMs: number
  /** Waiting for a row, which leaves a change time for its work once it has got the row. */
  readonly lockMs: number
  /**
   * Silence of a client inside a transaction. Shorter than the wait for a row, so that those who wait
   * for a frozen process outlast it.
   */
  readonly silenceMs: number
}

/** Limits of which all end within the statement timeout. */
export function limitsWithin(statementTimeoutMs: number): Limits {
  const part = (share: number): number => Math.max(1, Math.floor(statementTimeoutMs * share))
  return { verbMs: statementTimeoutMs, statementMs: part(0.9), lockMs: part(0.8), silenceMs: part(0.5) }
}

/** The moment by which a verb must have ended. */
export class Deadline {
  readonly #endsAtMs: number

  constructor(readonly limitMs: number) {
    this.#endsAtMs = performance.now() + limitMs
  }

  get remainingMs(): number {
    return Math.max(0, this.#endsAtMs - performance.now())
  }

  /** Settles as `work` does, or rejects with `late()` once the moment has come. */
  async hold<T>(work: Promise<T>, late: () => Error): Promise<T> {
    let timer: NodeJS.Timeout | undefined
    const limit = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(late()), this.remainingMs)
    })
    try {
      return await Promise.race([work, limit])
    } finally {
      clearTimeout(timer)
    }
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

/** What a {@link DedicatedConnection} is made of. */
export interface Dedication {
  create(): Client
  /** Makes a fresh connection ready for use. */
  setUp(client: Client): Promise<unknown>
  notified(payload: string): void
  /** It is back after it was lost: what was to be heard meanwhile has not been. */
  restored(): void
  lost(error: unknown): void
}

/**
 * The connection that heartbeats have to themselves, and that listens for hints. One request at a time.
 *
 * When it is lost it comes back by itself, after a pause that grows and differs from node to node, so that a
 * restarted server is not met by all of them at once. A heartbeat does not wait for that.
 */
export class DedicatedConnection {
  readonly #parts: Dedication
  readonly #limitMs: number
  #client: Client | undefined
  #connecting: Promise<Client> | undefined
  #turn: Promise<void> = Promise.resolve()
  #retry: NodeJS.Timeout | undefined
  #failures = 0
  #wasUp = false
  #closed = false

  constructor(parts: Dedication, limitMs: number) {
    this.#parts = parts
    this.#limitMs = limitMs
  }

  async open(): Promise<void> {
    await this.#connect()
  }

  /** Has `send` ask something that takes effect by itself, connecting anew first where that is needed. */
  async ask<T>(what: string, send: (client: Client) => Promise<T>): Promise<T> {
    if (this.#closed) throw new StoreError(`${what} failed: the store is closed.`, 'none')
    const deadline = new Deadline(this.#limitMs)
    const before = this.#turn
    let end: () => void = ignore
    this.#turn = new Promise((resolve) => {
      end = resolve
    })
    try {
      await deadline.hold(before, () => tooSlow(what, this.#limitMs, 'none'))
      return await this.#askNow(what, deadline, await this.#connected(what, deadline), send)
    } finally {
      end()
    }
  }

  /** Asks nothing any more, and ends once what has been asked is answered. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#retry)
    await this.#turn
    await this.#connecting?.catch(ignore)
    const client = this.#client
    this.#client = undefined
    if (client !== undefined) await farewell(client, this.#limitMs)
  }

  async #askNow<T>(
    what: string,
    deadline: Deadline,
    client: Client,
    send: (client: Client) => Promise<T>,
  ): Promise<T> {
    try {
      return await deadline.hold(send(client), () => tooSlow(what, this.#limitMs, 'unknown'))
    } catch (error) {
      if (!isHarmless(error)) this.#drop(client, error)
      throw storeError(what, isRefusal(error) ? 'none' : 'unknown', error)
    }
  }

  async #connected(what: string, deadline: Deadline): Promise<Client> {
    try {
      // An attempt that began before this request may be hopeless by now; then one of its own follows.
      const earlier = await this.#connecting?.catch(ignore)
      const late = (): Error => tooSlow(what, this.#limitMs, 'none')
      return earlier ?? this.#client ?? (await deadline.hold(this.#connect(), late))
    } catch (error) {
      throw storeError(what, 'none', error)
    }
  }

  #connect(): Promise<Client> {
    clearTimeout(this.#retry)
    this.#connecting ??= this.#attempt().finally(() => {
      this.#connecting = undefined
    })
    return this.#connecting
  }

  async #attempt(): Promise<Client> {
    const client = this.#parts.create()
    let ended = false
    client.on('error', (error) => this.#drop(client, error))
    client.on('end', () => {
      ended = true
      this.#drop(client, undefined)
    })
    client.on('notification', ({ payload }) => this.#parts.notified(payload ?? ''))
    const attempt = client.connect().then(() => this.#parts.setUp(client))
    try {
      const late = (): Error => new Error(`no connection within ${this.#limitMs} ms`)
      await new Deadline(this.#limitMs).hold(attempt, late)
      if (ended) throw new Error('the connection ended as soon as it was made')
    } catch (error) {
      destroy(client)
      this.#failures += 1
      if (this.#wasUp) this.#connectLater()
      throw error
    }
    this.#client = client
    this.#failures = 0
    if (this.#wasUp) this.#parts.restored()
    this.#wasUp = true
    return client
  }

  #drop(client: Client, error: unknown): void {
    if (this.#client !== client) return
    this.#client = undefined
    destroy(client)
    if (this.#closed) return
    this.#parts.lost(error)
    this.#connectLater()
  }

  /** Until somebody needs it at once. */
  #connectLater(): void {
    clearTimeout(this.#retry)
    if (this.#closed) return
    const longestMs = Math.min(10_000, 100 * 2 ** this.#failures)
    this.#retry = setTimeout(() => this.#connect().catch(ignore), longestMs * (0.5 + Math.random() / 2))
    this.#retry.unref()
  }
}

/** Says goodbye to the server, but not for ever. */
async function farewell(client: Client, limitMs: number): Promise<void> {
  try {
    await new Deadline(limitMs).hold(client.end(), () => new Error('The goodbye was not heard.'))
  } catch {
    destroy(client)
  }
}

/** Ends a connection whatever its state. Drivers without sockets of their own have no `connection`. */
function destroy(client: Client): void {
  client.end().catch(ignore)
  client.connection?.stream.destroy()
}

function ignore(): void {}
