/** The pause before the next attempt, where another connection or process uses the file. */

/** Waits about 1 ms at first, at most 50 ms, never beyond the deadline, and not in step with other processes. */
export async function pause(attempt: number, deadlineMs: number): Promise<void> {
  const longestMs = Math.min(50, 2 ** (attempt + 1))
  const delayMs = Math.min(longestMs * (0.5 + Math.random() / 2), deadlineMs - performance.now())
  await new Promise((resolve) => setTimeout(resolve, delayMs))
}
