/** Lets the commands that are beside the tests undo what they have set up when they are asked to end. */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'

const signals = ['SIGINT', 'SIGTERM'] as const

/**
 * Does the work of this process. When the process is asked to end, `asked` aborts; the work then ends soon, and leaves
 * nothing behind. What it throws from then on is the interruption itself. The process ends by the signal, so that
 * whoever started it can tell.
 */
export async function interruptible(work: (asked: AbortSignal) => Promise<void>): Promise<void> {
  const asking = new AbortController()
  let by: NodeJS.Signals | undefined
  const end = (signal: NodeJS.Signals): void => {
    by ??= signal
    asking.abort()
  }
  // The listeners stay: npm passes on a signal that the terminal has sent to this process, too.
  for (const signal of signals) process.on(signal, end)
  if (process.env.npm_lifecycle_event !== undefined) whenOrphaned(() => end('SIGTERM'))
  try {
    await work(asking.signal)
  } catch (error) {
    if (by === undefined) throw error
  }
  for (const signal of signals) process.off(signal, end)
  if (by === undefined) return
  process.kill(process.pid, by)
  // Where something else listens for it, too, the signal is heard in a later turn of the loop, which must not end before.
  setTimeout(() => undefined, 10_000)
}

/** A signal that ends `npm run` does not reach this process. */
function whenOrphaned(end: () => void): void {
  const parent = process.ppid
  const watch = setInterval(() => {
    if (process.ppid === parent) return
    clearInterval(watch)
    end()
  }, 500)
  watch.unref()
}

/** Never resolves. Rejects with the reason of `asked` when that aborts. */
export function aborted(asked: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (asked.aborted) reject(asked.reason)
    else asked.addEventListener('abort', () => reject(asked.reason), { once: true })
  })
}

/**
 * Resolves to the exit code of a process that was started just now, once it has ended; to null when a signal has ended
 * it. The process must lead a group (`detached`): when `asked` aborts, it is killed with all that it has started.
 *
 * @throws the reason of `asked`, and what keeps the process from being started.
 */
export async function endOf(child: ChildProcess, asked: AbortSignal): Promise<number | null> {
  const kill = (): void => signalGroup(child, 'SIGKILL')
  asked.addEventListener('abort', kill)
  if (asked.aborted) kill()
  try {
    const [code] = await once(child, 'close')
    asked.throwIfAborted()
    return code
  } finally {
    asked.removeEventListener('abort', kill)
  }
}

/**
 * Does the work for several items at a time. Returns an answer for each. When the work on one fails, or `asked` aborts,
 * `stop` aborts, and all that has been begun ends before this throws.
 *
 * @throws what the work has thrown, or the reason of `asked`.
 */
export async function inTurns<Item, Answer>(
  items: readonly Item[],
  jobs: number,
  asked: AbortSignal,
  work: (item: Item, stop: AbortSignal) => Promise<Answer>,
): Promise<Answer[]> {
  const failing = new AbortController()
  const stop = AbortSignal.any([asked, failing.signal])
  const answers: Answer[] = []
  const waiting = [...items.entries()]
  const go = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      stop.throwIfAborted()
      answers[next[0]] = await work(next[1], stop)
    }
  }
  const turns = Array.from({ length: jobs }, () =>
    go().catch((error: unknown) => {
      failing.abort(error)
      throw error
    }),
  )
  await Promise.allSettled(turns)
  await Promise.all(turns)
  return answers
}

/** Sends a signal to all processes of the group that a process leads. A group that has ended gets none. */
export function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, signal)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}
