/**
 * The connection that heartbeats have to themselves. One request at a time.
 *
 * When it is lost it comes back by itself, after a pause that grows and differs from node to node, so that a
 * restarted server is not met by all of them at once. A heartbeat does not wait for that.
 */
import { StoreError } from '../../core/errors.js'
import type { Judgement } from './connections.js'
import { Deadline } from './deadline.js'
import { storeError, tooSlow } from './failures.js'

/** What the drivers differ in. */
export interface Way<Client> extends Judgement {
  /** A connection that is not yet open. `lost` is told when it fails or ends, with an error if there is one. */
  create(lost: (error: unknown) => void): Client
  connect(client: Client): Promise<unknown>
  /** Says goodbye to the server. */
  end(client: Client): Promise<unknown>
  /** Ends it whatever its state, at once. */
  destroy(client: Client): void
}

/** What its owner wants of it. */
export interface Dedication<Client> {
  /** Makes a fresh connection ready for use. */
  setUp(client: Client): Promise<unknown>
  /** It is back after it was lost: what was to be heard meanwhile has not been. */
  restored?(): void
  lost(error: unknown): void
}

/** When what was lost is tried again. */
export interface Pauses {
  /** In [0, 1). */
  random(): number
  /** Calls back once after so long, and answers what calls that off. Holds no process. */
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
      return await deadline.hold(answer, () => tooSlow(what, this.#limitMs, 'unknown'))
    } catch (error) {
      if (!this.#way.isHarmless(error)) this.#drop(client, error)
      const { isRefusal, advice } = this.#way
      throw storeError(what, isRefusal(error) ? 'none' : 'unknown', error, advice(error))
    }
  }

  /** Not every driver tells those who wait for an answer when the connection ends: then it is told from here. */
  #unlessLost<T>(answer: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#interrupt = reject
      answer.then(resolve, reject)
    })
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
    this.#wanted.lost(error)
    this.#connectLater()
  }

  /** Until somebody needs it at once. */
  #connectLater(): void {
    this.#forgetRetry()
    if (this.#closed) return
    const longestMs = Math.min(10_000, 100 * 2 ** this.#failures)
    const pauseMs = longestMs * (0.5 + this.#pauses.random() / 2)
    this.#forgetRetry = this.#pauses.after(pauseMs, () => this.#connect().catch(ignore))
  }

  /** Says goodbye to the server, but not for ever. */
  async #farewell(client: Client): Promise<void> {
    const late = (): Error => new Error('The goodbye was not heard.')
    await new Deadline(this.#limitMs).hold(this.#way.end(client), late).catch(ignore)
    this.#way.destroy(client)
  }
}

function ignore(): void {}
