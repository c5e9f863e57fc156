/**
 * Calls a pass inside the functions that the application has put around passes.
 *
 * Only one pass of a lease may run at a time, and a lease is handed over only when its pass has ended. This must not
 * depend on how such a function is written, so the calls of `run` are counted and waited for here.
 */
import { CoordinationError } from '../errors.js'
import type { AroundPass, Pass } from './worker.js'

/**
 * Calls `run` inside all functions, the first of which is the outermost. Settles once `run` and all of them have. An
 * error of `run` fails the pass, unless a function throws one of its own in its place.
 *
 * @throws {CoordinationError} `WCO_OPTIONS` when a function did not call its `run` exactly once.
 */
export async function surround(
  functions: readonly AroundPass[],
  pass: Pass,
  run: () => Promise<void>,
): Promise<void> {
  const [around, ...further] = functions
  if (around === undefined) return run()
  const once = new Once(() => surround(further, pass, run))
  try {
    await around(pass, () => once.call())
  } finally {
    await once.ended()
  }
  await once.result()
}

/** A call that may be made once, and only until it is waited for. */
class Once {
  readonly #run: () => Promise<void>
  #running: Promise<void> | undefined
  #calledAgain = false
  #over = false

  constructor(run: () => Promise<void>) {
    this.#run = run
  }

  /** Refuses a second call, and one that comes too late. */
  call(): Promise<void> {
    if (this.#over) return handled(Promise.reject(misused('called run after it had ended')))
    if (this.#running !== undefined) {
      this.#calledAgain = true
      return handled(Promise.reject(misused('called run a second time')))
    }
    this.#running = handled(this.#run())
    return this.#running
  }

  /** Resolves once nothing is under way any more. */
  async ended(): Promise<void> {
    this.#over = true
    await this.#running?.catch(() => undefined)
  }

  /** Passes on what the call came to, and throws when it was not made, or made twice. */
  async result(): Promise<void> {
    if (this.#running === undefined) throw misused('did not call run')
    await this.#running
    if (this.#calledAgain) throw misused('called run a second time')
  }
}

/** The rejection reaches the caller, who may leave it unhandled: it must not end the process. */
function handled(promise: Promise<void>): Promise<void> {
  promise.catch(() => undefined)
  return promise
}

function misused(how: string): CoordinationError {
  return new CoordinationError('WCO_OPTIONS', `aroundPasses: the function around passes ${how}.`)
}
