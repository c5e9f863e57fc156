import { setTimeout as delay } from 'node:timers/promises'

/** How {@link eventually} waits. */
export interface Patience {
  /** Bounds a test that would hang; far above what any machine needs. Default 30 000. */
  readonly timeoutMs?: number
  /** Default 10. */
  readonly everyMs?: number
  /** Completes the sentence "Waited … ms in vain until …". Default: the source text of the condition. */
  readonly until?: string
}

/**
 * Asks again and again until the condition answers something truthy, and answers that. A condition
 * that throws is asked again too; its last error is the cause of the failure.
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
 * Reads again and again until what is read is as wanted, and answers what was read last, wanted or not: for an assertion, which
 * then shows it. An error comes out once the patience has ended.
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
