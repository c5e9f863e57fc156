/** How the engine hears that a signal of the application has aborted. */

/** Who is called when a signal aborts, and the listener that calls them. */
interface Waiting {
  readonly calls: Set<() => void>
  readonly abort: () => void
}

const waitingFor = new WeakMap<AbortSignal, Waiting>()

/**
 * Calls back once when the signal aborts. Returns a function that no longer wants to be called.
 *
 * Any number of calls may wait with one signal, such as that of a server that closes. They share one listener: of more
 * than ten, Node warns as of a leak, and how many others may listen is for the application to say.
 */
export function whenAborted(signal: AbortSignal, call: () => void): () => void {
  const { calls, abort } = waitingFor.get(signal) ?? listening(signal)
  calls.add(call)
  return () => {
    if (!calls.delete(call) || calls.size > 0) return
    signal.removeEventListener('abort', abort)
    waitingFor.delete(signal)
  }
}

function listening(signal: AbortSignal): Waiting {
  const calls = new Set<() => void>()
  const abort = (): void => {
    for (const call of calls) call()
  }
  signal.addEventListener('abort', abort, { once: true })
  const waiting = { calls, abort }
  waitingFor.set(signal, waiting)
  return waiting
}
