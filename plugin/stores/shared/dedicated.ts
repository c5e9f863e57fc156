/**
 * The connection that is reserved for heartbeats. It carries one request at a time.
 *
 * A lost connection is reopened by itself after a pause. The pause grows with each failure and differs from node to
 * node, so that the nodes do not all reconnect to a restarted server at once. A heartbeat does not wait for the
 * pause.
 */
import { StoreError } from '../../core/errors.js'
import type { Judgement } from './connections.js'
import { Deadline } from './deadline.js'
import { storeError, tooSlow } from './failures.js'

/** What the drivers differ in. */
export interface Way<Client> extends Judgement {
  /**
   * Creates a connection that is not yet open. `lost` is called when the connection fails or ends, with the error if
   * there is one.
   */
  create(lost: (error: unknown) => void): Client
  connect(client: Client): Promise<unknown>
  /** Closes the connection in an orderly way. */
  end(client: Client): Promise<unknown>
  /** Closes the connection at once, whatever its state. */
  destroy(client: Client): void
}

/** What the owner of the connection supplies. */
export interface Dedication<Client> {
  /** Prepares a fresh connection for use. */
  setUp(client: Client): Promise<unknown>
  /** Called when a lost connection is back. Hints sent in the meantime have been missed. */
  restored?(): void
  lost(error: unknown): void
}

/** When to reconnect after a loss. */
export interface Pauses {
  /** In [0, 1). */
  random(): number
  /**
   * Calls `fire` once after `ms` milliseconds. Returns a function that cancels the call. Must not keep the process
   * alive.
   */
  after(ms: number, fire: () => void): () => void
}

const systemPauses: Pauses = {
  random: Math.random,
  after(ms, fire) {
    const timer = setTimeout(fire, ms).unref()
    return () => clearTimeout(timer)
  },
}

export class DedicatedConnection<Client> {
  readonly #way: Way<Client>
  readonly #wanted: Dedication<Client>
  readonly #limitMs: number
  readonly #pauses: Pauses
  #client: Client | undefined
  #connecting: Promise<Client> | undefined
  #turn: Promise<void> = Promise.resolve()
  #interrupt: (lost: Error) => void = ignore
  #forgetRetry: () => void = ignore
  #failures = 0
  #wasUp = false
  /** Whether the connection has answered a request. A pooler welcomes everybody, also while its server is away. */
  #hasServed = false
  #closed = false

  constructor(way: Way<Client>, wanted: Dedication<Client>, limitMs: number, pauses = systemPauses) {
    this.#way = way
    this.#wanted = wanted
    this.#limitMs = limitMs
    this.#pauses = pauses
  }

  async open(): Promise<void> {
    await this.#connect()
  }

  /** Sends a request that takes effect by itself, reconnecting first if needed. */
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

  /** Accepts no more requests, and closes the connection once the pending ones have been answered. */
  async close(): Promise<void> {
    this.#closed = true
    this.#forgetRetry()
    await this.#turn
    await this.#connecting?.catch(ignore)
    const client = this.#client
    this.#client = undefined
    if (client !== undefined) await this.#farewell(client)
  }

  async #askNow<T>(
    what: string,
    deadline: Deadline,
    client: Client,
    send: (client: Client) => Promise<T>,
  ): Promise<T> {
    try {
      const answer = this.#unlessLost(send(client))
      const answered = await deadline.hold(answer, () => tooSlow(what, this.#limitMs, 'unknown'))
      this.#hasServed = true
      return answered
    } catch (error) {
      if (!this.#way.isHarmless(error)) this.#drop(client, error)
      const { isRefusal, advice } = this.#way
      throw storeError(what, isRefusal(error) ? 'none' : 'unknown', error, advice(error))
    }
  }

  /** Rejects when the connection is lost, because not every driver rejects its pending requests in that case. */
  #unlessLost<T>(answer: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#interrupt = reject
      answer.then(resolve, reject)
    })
  }

  async #connected(what: string, deadline: Deadline): Promise<Client> {
    try {
      // An attempt that began before this request may already be hopeless. If it fails, this request makes its own.
      const earlier = await this.#connecting?.catch(ignore)
      const late = (): Error => tooSlow(what, this.#limitMs, 'none')
      return earlier ?? this.#client ?? (await deadline.hold(this.#connect(), late))
    } catch (error) {
      throw storeError(what, 'none', error, this.#way.advice(error))
    }
  }

  #connect(): Promise<Client> {
    this.#forgetRetry()
    this.#connecting ??= this.#attempt().finally(() => {
      this.#connecting = undefined
    })
    return this.#connecting
  }

  async #attempt(): Promise<Client> {
    let ended = false
    const client = this.#way.create((error) => {
      ended ||= error === undefined
      this.#drop(client, error)
    })
    const attempt = this.#way.connect(client).then(() => this.#wanted.setUp(client))
    try {
      const late = (): Error => new Error(`no connection within ${this.#limitMs} ms`)
      await new Deadline(this.#limitMs).hold(attempt, late)
      if (ended) throw new Error('the connection ended as soon as it was made')
    } catch (error) {
      this.#way.destroy(client)
      this.#failures += 1
      if (this.#wasUp) this.#connectLater()
      throw error
    }
    this.#client = client
    this.#hasServed = !this.#wasUp
    this.#failures = 0
    if (this.#wasUp) this.#wanted.restored?.()
    this.#wasUp = true
    return client
  }

  #drop(client: Client, error: unknown): void {
    if (this.#client !== client) return
    this.#client = undefined
    this.#way.destroy(client)
    this.#interrupt(error instanceof Error ? error : new Error('The server has ended the connection.'))
    if (this.#closed) return
    if (this.#hasServed) this.#wanted.lost(error)
    this.#connectLater()
  }

  /** Reconnects after a pause, unless a request needs the connection sooner. */
  #connectLater(): void {
    this.#forgetRetry()
    if (this.#closed) return
    const longestMs = Math.min(10_000, 100 * 2 ** this.#failures)
    const pauseMs = longestMs * (0.5 + this.#pauses.random() / 2)
    this.#forgetRetry = this.#pauses.after(pauseMs, () => this.#connect().catch(ignore))
  }

  /** Closes the connection in an orderly way, but waits only for a limited time. */
  async #farewell(client: Client): Promise<void> {
    const late = (): Error => new Error('The goodbye was not heard.')
    await new Deadline(this.#limitMs).hold(this.#way.end(client), late).catch(ignore)
    this.#way.destroy(client)
  }
}

function ignore(): void {}
