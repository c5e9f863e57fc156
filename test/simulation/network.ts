/** The path between a process and the database: slow, lossy, and sometimes later than its sender waits. */
import { StoreError } from '../../plugin/core/errors.js'
import type {
  Beat,
  Capabilities,
  Change,
  Changed,
  Claim,
  EventQuery,
  EventRow,
  HeartbeatAnswer,
  LeaseRow,
  Look,
  Neighbour,
  OwnView,
  Retention,
  SessionKey,
  Snapshot,
  Store,
} from '../../plugin/core/store.js'
import type { Committed, SimulatedDatabase } from './database.js'
import type { SimulatedProcess } from './process.js'
import type { Scheduler } from './scheduler.js'

/** What happens to one request. */
export interface Course {
  /** The time from the process to the database. Undefined when the request never arrives. */
  readonly thereMs: number | undefined
  /** The time from the database to the process. Undefined when the answer is lost. */
  readonly backMs: number | undefined
  /** Whether a broken connection tells the process of a loss at once. Otherwise the request times out. */
  readonly noticed: boolean
  /**
   * Whether the request has no connection yet when it is sent. It then reaches whichever server is there when it
   * arrives.
   */
  readonly connectsLate: boolean
  /** How long a change keeps other changes waiting before it is committed. */
  readonly holdsMs: number
}

/** Decides what happens to requests, and is told about it. */
export interface Weather {
  course(verb: string): Course
  /** How long a hint takes, in ms; undefined when it is lost. */
  hintMs(): number | undefined
  sent(verb: string): void
  committed(change: Committed): void
  /** A fault of this kind has had an effect. */
  hit(kind: 'away' | 'hang' | 'slow-changes' | 'late-connections' | 'fence'): void
  /** A request was carried out, or refused, after its sender was told that it had failed. */
  cameLate(verb: string, refused: boolean): void
  answerLost(verb: string): void
}

/** The store as one process reaches it. */
export class RemoteStore implements Store {
  readonly dialect = 'sqlite'
  readonly capabilities: Capabilities
  readonly #process: SimulatedProcess
  readonly #database: SimulatedDatabase
  readonly #scheduler: Scheduler
  readonly #weather: Weather
  readonly #timeoutMs: number
  readonly #listening = new Set<() => void>()
  #closed = false

  constructor(
    process: SimulatedProcess,
    database: SimulatedDatabase,
    scheduler: Scheduler,
    weather: Weather,
    timeoutMs: number,
    push: boolean,
  ) {
    this.capabilities = { push }
    this.#process = process
    this.#database = database
    this.#scheduler = scheduler
    this.#weather = weather
    this.#timeoutMs = timeoutMs
  }

  get statements(): number {
    return this.#database.store.statements
  }

  get closed(): boolean {
    return this.#closed
  }

  heartbeat(node: string, beat: number): Promise<HeartbeatAnswer | undefined> {
    return this.#ask('heartbeat', () => this.#database.heartbeat(node, beat))
  }

  view(node: string): Promise<OwnView | undefined> {
    return this.#ask('view', () => this.#database.store.view(node))
  }

  news(node: string): Promise<number | undefined> {
    return this.#ask('news', () => this.#database.store.news(node))
  }

  look(): Promise<Look> {
    return this.#ask('look', () => this.#database.look())
  }

  beats(after: string, most: number): Promise<Beat[]> {
    return this.#ask('beats', () => this.#database.store.beats(after, most))
  }

  neighbours(machine: string): Promise<Neighbour[]> {
    return this.#ask('neighbours', () => this.#database.store.neighbours(machine))
  }

  snapshot(): Promise<Snapshot> {
    return this.#ask('snapshot', () => this.#database.store.snapshot())
  }

  leasesAfter(after: string, most: number): Promise<LeaseRow[]> {
    return this.#ask('leasesAfter', () => this.#database.store.leasesAfter(after, most))
  }

  namespaces(most: number): Promise<string[]> {
    return this.#ask('namespaces', () => this.#database.store.namespaces(most))
  }

  events(query: EventQuery): Promise<EventRow[]> {
    return this.#ask('events', () => this.#database.store.events(query))
  }

  change<T>(session: SessionKey | undefined, work: (change: Change) => Promise<T>): Promise<Changed<T>> {
    const sentMs = this.#scheduler.nowMs
    return this.#ask('change', () =>
      this.#database.change(session, work, {
        committed: (change) => this.#weather.committed({ ...change, sentMs }),
        fenced: () => this.#weather.hit('fence'),
      }),
    )
  }

  prune(retention: Retention): Promise<boolean> {
    return this.#ask('prune', () => this.#database.prune(retention))
  }

  listen(node: string, wake: () => void): () => void {
    if (!this.capabilities.push) return () => undefined
    const stop = this.#database.store.listen(node, () => {
      if (this.#database.changing === node) return
      const delayMs = this.#weather.hintMs()
      if (delayMs === undefined) return
      this.#scheduler.after(delayMs, () => this.#process.deliver(() => this.#listening.has(stop) && wake()))
    })
    this.#listening.add(stop)
    return () => {
      this.#listening.delete(stop)
      stop()
    }
  }

  fence(transaction: unknown, claim: Claim): PromiseLike<void> | void {
    return this.#database.store.fence(transaction, claim)
  }

  close(): Promise<void> {
    this.#closed = true
    this.disconnect()
    return Promise.resolve()
  }

  /** Ends all listening, for a process that has ended. */
  disconnect(): void {
    for (const stop of this.#listening) stop()
    this.#listening.clear()
  }

  #ask<T>(verb: string, execute: () => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new StoreError('The store is closed.', 'none'))
    this.#weather.sent(verb)
    const request = new Request<T>(this.#process, this.#timeoutMs)
    const course = this.#weather.course(verb)
    const { identity, era } = this.#database
    if (course.thereMs === undefined) {
      if (course.noticed) this.#scheduler.after(1, () => request.fail('The connection broke.', 'none'))
      return request.answer
    }
    const isOrdered = verb === 'change'
    const arrive = async (): Promise<void> => {
      const { away, busyUntilMs } = this.#database
      const givenUp = request.over || this.#process.dead
      if (away === 'hangs') return this.#weather.hit('hang')
      if (era !== this.#database.era && givenUp) return
      if (away === 'refuses') {
        this.#weather.hit('away')
        return request.fail('The database refuses connections.', 'none')
      }
      if (identity !== this.#database.identity && (!course.connectsLate || request.over))
        return request.fail('The server went away.', 'unknown')
      if (identity !== this.#database.identity) this.#weather.hit('late-connections')
      if (isOrdered && busyUntilMs > this.#scheduler.nowMs) {
        this.#weather.hit('slow-changes')
        this.#scheduler.at(busyUntilMs, () => void arrive())
        return
      }
      let refused = false
      const outcome = await execute().then(
        (value) => {
          refused = isRefusal(verb, value)
          return () => request.succeed(value)
        },
        (error: unknown) => () => request.reject(error),
      )
      if (isOrdered) this.#database.busyUntilMs = this.#scheduler.nowMs + course.holdsMs
      if (request.over) this.#weather.cameLate(verb, refused)
      if (course.backMs !== undefined) {
        this.#scheduler.after(course.backMs, outcome)
        return
      }
      this.#weather.answerLost(verb)
      if (course.noticed) this.#scheduler.after(1, () => request.fail('The connection broke.', 'unknown'))
    }
    this.#scheduler.after(course.thereMs, () => void arrive())
    return request.answer
  }
}

/** Whether the node of a heartbeat is gone, or the session of a change is gone or has already made a later one. */
function isRefusal(verb: string, value: unknown): boolean {
  if (verb === 'heartbeat') return value === undefined
  return verb === 'change' && (value as Changed<{ readonly kind?: string }>).result.kind === 'no-session'
}

/** A request whose sender waits for an answer for a limited time. */
class Request<T> {
  readonly answer: Promise<T>
  over = false
  readonly #process: SimulatedProcess
  #resolve: (value: T) => void = () => undefined
  #reject: (error: unknown) => void = () => undefined
  readonly #timer: { cancel(): void }

  constructor(process: SimulatedProcess, timeoutMs: number) {
    this.#process = process
    this.answer = new Promise<T>((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.#timer = process.later(timeoutMs, () =>
      this.#end(() => this.#reject(new StoreError('No answer in time.', 'unknown'))),
    )
  }

  succeed(value: T): void {
    this.#process.deliver(() => this.#end(() => this.#resolve(value)))
  }

  reject(error: unknown): void {
    this.#process.deliver(() => this.#end(() => this.#reject(error)))
  }

  fail(message: string, outcome: 'none' | 'unknown'): void {
    this.reject(new StoreError(message, outcome))
  }

  #end(tell: () => void): void {
    if (this.over) return
    this.over = true
    this.#timer.cancel()
    tell()
  }
}
