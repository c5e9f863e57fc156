import { setTimeout as delay } from 'node:timers/promises'

/** How {@link eventually} waits. */
export interface Patience {
  /** Bounds a test that would otherwise hang; far longer than any machine needs. Default 30 000. */
  readonly timeoutMs?: number
  /** The pause between two attempts, in ms. Default 10. */
  readonly everyMs?: number
  /** Completes the sentence "Waited … ms in vain until …". Default: the source text of the condition. */
  readonly until?: string
}

/**
 * Evaluates a condition until it returns something truthy, and returns that. A condition that throws is evaluated
 * again, too.
 *
 * @throws Error when the time is over; its cause is the last error of the condition.
 */
export async function eventually<T>(
  condition: () => T | Promise<T>,
  { timeoutMs = 30_000, everyMs = 10, until = String(condition) }: Patience = {},
): Promise<T> {
  const deadlineMs = performance.now() + timeoutMs
  for (;;) {
    const attempt = await tried(condition)
    if (attempt.answer) return attempt.answer
    if (performance.now() > deadlineMs) {
      throw new Error(`Waited ${timeoutMs} ms in vain until ${until}`, { cause: attempt.error })
    }
    await delay(everyMs)
  }
}

/**
 * Reads until the value is as wanted. Returns the last value read, wanted or not, for an assertion that then shows it.
 *
 * @throws the error of the last attempt when that attempt was made after the time was over.
 */
export async function latest<T>(
  read: () => T | Promise<T>,
  isWanted: (value: T) => boolean,
  { timeoutMs = 30_000, everyMs = 10 }: Omit<Patience, 'until'> = {},
): Promise<T> {
  const deadlineMs = performance.now() + timeoutMs
  for (;;) {
    const isLast = performance.now() > deadlineMs
    const attempt = await tried(read)
    if ('answer' in attempt && (isLast || isWanted(attempt.answer as T))) return attempt.answer as T
    if (isLast) throw attempt.error
    await delay(everyMs)
  }
}

async function tried<T>(condition: () => T | Promise<T>): Promise<{ answer?: T; error?: unknown }> {
  try {
    return { answer: await condition() }
  } catch (error) {
    return { error }
  }
}
