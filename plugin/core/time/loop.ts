/** How the engine waits and takes turns: one timer at a time, one turn at a time, no wait without an end. */
import type { Clock, Timer } from './clock.js'
import { presentContext } from './context.js'

/** Runs pieces of work strictly one after another, in the order in which they were given. */
export class Turnstile {
  #last: Promise<unknown> = Promise.resolve()

  pass<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work)
    this.#last = result.catch(() => undefined)
    return result
  }
}

/**
 * A timer that can be set again and again; setting it replaces the previous setting. It rings in the context in which
 * it was made.
 */
export class Alarm {
  readonly #clock: Clock
  readonly #ring: () => void
  readonly #inContext = presentContext()
  #timer: Timer | undefined

  constructor(clock: Clock, ring: () => void) {
    this.#clock = clock
    this.#ring = ring
  }

  set(delayMs: number): void {
    this.#timer?.cancel()
    this.#timer = this.#clock.setTimer(delayMs, () => {
      this.#timer = undefined
      this.#inContext(this.#ring)
    })
  }

  clear(): void {
    this.#timer?.cancel()
    this.#timer = undefined
  }
}

/**
 * Takes a turn whenever it is poked, never two at once. Pokes during a turn cause one more turn, so that none is missed
 * and none piles up. Turns run in the context in which the loop was made, whichever caller pokes it.
 */
export class Loop {
  readonly #turn: () => Promise<void>
  readonly #inContext = presentContext()
  #poked = false
  #running: Promise<void> | undefined
  #stopped = false

  constructor(turn: () => Promise<void>) {
    this.#turn = turn
  }

  poke(): void {
    this.#poked = true
    if (!this.#stopped) this.#running ??= this.#inContext(() => this.#run())
  }

  /** Prevents further turns. Resolves once the present turn has ended. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#running
  }

  async #run(): Promise<void> {
    while (this.#poked && !this.#stopped) {
      this.#poked = false
      await this.#turn()
    }
    this.#running = undefined
  }
}

/** Resolves after `delayMs`, or as soon as the signal aborts. Never rejects. */
export function sleep(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => {
    const done = (): void => {
      timer.cancel()
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = clock.setTimer(delayMs, done)
    signal.addEventListener('abort', done, { once: true })
  })
}

/** Waits until a promise settles, but no longer than `limitMs`. Returns whether it settled in time. Never rejects. */
export function within(clock: Clock, limitMs: number, work: Promise<unknown>): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = clock.setTimer(limitMs, () => resolve(false))
    const inTime = (): void => {
      timer.cancel()
      resolve(true)
    }
    work.then(inTime, inTime)
  })
}

/** A promise together with the functions that settle it. */
export interface Deferred<T> {
  readonly promise: Promise<T>
  resolve(value: T): void
  reject(reason: unknown): void
}

/** Does what `Promise.withResolvers` does on newer versions of Node. */
export function deferred<T = void>(): Deferred<T> {
  let resolve!: (value: T) => void
  let reject!: (reason: unknown) => void
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve
    reject = onReject
  })
  return { promise, resolve, reject }
}
