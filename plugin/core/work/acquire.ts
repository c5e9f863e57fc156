/**
 * The queue of calls in this process that wait for a lease by name.
 *
 * In the database a node is in the queue of a lease at most once. The calls behind that one place queue here.
 */
import { CoordinationError } from '../errors.js'
import { type Deferred, deferred } from '../time/loop.js'
import type { Holding, Lease } from './lease.js'

/** One call of `acquire` or `tryAcquire`. */
export interface Request {
  readonly key: string
  readonly name: string
  /** Whether it queues when the lease is not free. */
  readonly wait: boolean
  readonly answer: Deferred<Lease | undefined>
  /** Whether the node has asked the database on its behalf; `perhaps` until the answer has come. */
  asked: 'no' | 'perhaps' | 'yes'
}

/** Returns the error for a call that would acquire a lease by the name of a worker. */
export function nameOfWorker(key: string): CoordinationError {
  return new CoordinationError(
    'WCO_NAME',
    `"${key}" is the name of a worker, so no lease can be acquired by it. Choose another name.`,
  )
}

export class Requests {
  /** The open requests for each key, in order of arrival. There may be thousands, so none is searched for. */
  readonly #byKey = new Map<string, Set<Request>>()
  /** Keys for which no call here waits any more, although this node may still be in their queue. */
  readonly #abandoned = new Set<string>()

  add(key: string, name: string, wait: boolean): Request {
    const request: Request = { key, name, wait, answer: deferred<Lease | undefined>(), asked: 'no' }
    const queue = this.#byKey.get(key) ?? new Set()
    this.#byKey.set(key, queue.add(request))
    this.#abandoned.delete(key)
    return request
  }

  has(key: string): boolean {
    return this.#byKey.has(key)
  }

  get keys(): string[] {
    return [...this.#byKey.keys()]
  }

  get abandoned(): string[] {
    return [...this.#abandoned]
  }

  /** Whether any request for a key would wait for it. */
  wouldWait(key: string): boolean {
    return this.#of([key]).some((request) => request.wait)
  }

  /** Whether there is a request for a key on whose behalf the database has not answered yet. */
  unasked(key: string): boolean {
    return this.#of([key]).some((request) => request.asked !== 'yes')
  }

  /** The first request in line; it gets the handle. */
  first(key: string): Request | undefined {
    const [first] = this.#byKey.get(key) ?? []
    return first
  }

  /**
   * Gives the lease to one request. Those that only try are declined, even if they came after the database was
   * asked.
   */
  grant(request: Request, holding: Holding): void {
    this.#drop(request)
    request.answer.resolve(holding)
    this.#decline(this.#of([request.key]))
  }

  /** Called when the database is about to be asked for these keys. Returns the requests on whose behalf that is. */
  asking(keys: readonly string[]): Request[] {
    const requests = this.#of(keys)
    for (const request of requests) if (request.asked === 'no') request.asked = 'perhaps'
    return requests
  }

  /**
   * Called when the database has been asked on behalf of these requests. A request that got nothing and would not
   * wait is declined. If one of them got the lease, the node's one place in the queue is used up, and it must ask
   * again. So it must for the `hindered` keys, whose queues it could not join.
   */
  answered(requests: readonly Request[], hindered: readonly string[] = []): void {
    const granted = new Set(requests.filter((request) => !this.#isOpen(request)).map(({ key }) => key))
    const open = requests.filter((request) => this.#isOpen(request))
    for (const request of open)
      request.asked = granted.has(request.key) || hindered.includes(request.key) ? 'no' : 'yes'
    this.#decline(open)
  }

  withdrawn(keys: readonly string[]): void {
    for (const key of keys) this.#abandoned.delete(key)
  }

  /** Rejects a request whose caller waits no longer. */
  giveUp(request: Request, error: unknown): void {
    if (!this.#isOpen(request)) return
    this.#drop(request)
    if (request.asked !== 'no' && request.wait && !this.has(request.key)) this.#abandoned.add(request.key)
    request.answer.reject(error)
  }

  /** Rejects all requests for a name that turned out to be that of a worker. */
  refuse(key: string): void {
    for (const request of this.#of([key])) this.giveUp(request, nameOfWorker(key))
    this.#abandoned.delete(key)
  }

  /** Rejects all requests, because no lease can be acquired any more. */
  rejectAll(error: unknown): void {
    for (const request of this.#all()) this.giveUp(request, error)
    this.#abandoned.clear()
  }

  /** Rejects the requests that only try, because the database cannot be asked. */
  rejectTries(error: unknown): void {
    for (const request of this.#all()) if (!request.wait) this.giveUp(request, error)
  }

  /** Declines the requests that only try, while this node is given nothing. */
  declineTries(): void {
    this.#decline(this.#all())
  }

  /** Called when this node no longer drains: what it waits for may have become free in the meantime. */
  askAgain(): void {
    for (const request of this.#all()) if (request.asked === 'yes') request.asked = 'perhaps'
  }

  /** Must be called for a new session, which is in no queue. */
  forgetAsked(): void {
    for (const request of this.#all()) request.asked = 'no'
    this.#abandoned.clear()
  }

  #of(keys: readonly string[]): Request[] {
    return keys.flatMap((key) => [...(this.#byKey.get(key) ?? [])])
  }

  #all(): Request[] {
    return this.#of(this.keys)
  }

  #decline(requests: readonly Request[]): void {
    for (const request of requests) {
      if (request.wait) continue
      this.#drop(request)
      request.answer.resolve(undefined)
    }
  }

  #isOpen(request: Request): boolean {
    return this.#byKey.get(request.key)?.has(request) ?? false
  }

  #drop(request: Request): void {
    const queue = this.#byKey.get(request.key)
    queue?.delete(request)
    if (queue?.size === 0) this.#byKey.delete(request.key)
  }
}
