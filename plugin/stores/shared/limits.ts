/** The time limits of a store whose server enforces some of them itself. */
import { Deadline } from './deadline.js'

/** Time limits in milliseconds. */
export interface Limits {
  /** Limit of a verb, from the call to its answer. Enforced on this side. */
  readonly verbMs: number
  /** Limit of a statement on the server. */
  readonly statementMs: number
  /** Limit of a wait for a row. It leaves a change time to do its work once it has the row. */
  readonly lockMs: number
  /**
   * How long a client may be silent inside a transaction. Shorter than the wait for a row, so that those who wait for
   * a frozen process outlast it.
   */
  readonly silenceMs: number
  /** Limit of opening the store. No lease depends on the store yet, and processes are slow while they start. */
  readonly openMs: number
}

/** Returns limits that all end within the statement timeout, except the limit of opening. */
export function limitsWithin(statementTimeoutMs: number): Limits {
  const part = (share: number): number => Math.max(1, Math.floor(statementTimeoutMs * share))
  return {
    ...{ verbMs: statementTimeoutMs, statementMs: part(0.9), lockMs: part(0.8), silenceMs: part(0.5) },
    openMs: Math.max(15_000, statementTimeoutMs),
  }
}

/**
 * Connects. When an attempt failed only because its time had passed, tries again, for as long as opening may take.
 *
 * @param attemptMs the limit of an attempt, here or in the driver. The two race where both have it, and the driver may
 *   be a little early: an attempt that has taken nearly all of its time has failed for want of it.
 */
export async function connectPatiently<T>(
  connect: () => Promise<T>,
  { verbMs, openMs }: Limits,
  attemptMs = verbMs,
): Promise<T> {
  const deadline = new Deadline(openMs)
  for (;;) {
    const patience = new Deadline(0.9 * attemptMs)
    try {
      return await connect()
    } catch (error) {
      if (patience.remainingMs > 0 || deadline.remainingMs === 0) throw error
    }
  }
}
