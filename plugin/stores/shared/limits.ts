/** The time limits of a store whose server keeps some of them itself. */
import { Deadline } from './deadline.js'

/** How long things may take, in milliseconds. */
export interface Limits {
  /** A verb, from the call to its answer. Kept on this side. */
  readonly verbMs: number
  /** A statement on the server. */
  readonly statementMs: number
  /** Waiting for a row, which leaves a change time for its work once it has got the row. */
  readonly lockMs: number
  /**
   * Silence of a client inside a transaction. Shorter than the wait for a row, so that those who wait
   * for a frozen process outlast it.
   */
  readonly silenceMs: number
  /** Opening the store, on which no lease depends yet. Processes that have just begun are slow. */
  readonly openMs: number
}

/** Limits of which all but that of opening end within the statement timeout. */
export function limitsWithin(statementTimeoutMs: number): Limits {
  const part = (share: number): number => Math.max(1, Math.floor(statementTimeoutMs * share))
  return {
    ...{ verbMs: statementTimeoutMs, statementMs: part(0.9), lockMs: part(0.8), silenceMs: part(0.5) },
    openMs: Math.max(15_000, statementTimeoutMs),
  }
}

/** Connects; and again, for as long as opening may take, whenever it was the limit of a verb that ended the attempt. */
export async function connectPatiently<T>(connect: () => Promise<T>, { verbMs, openMs }: Limits): Promise<T> {
  const deadline = new Deadline(openMs)
  for (;;) {
    const attempt = new Deadline(verbMs)
    try {
      return await connect()
    } catch (error) {
      if (attempt.remainingMs > 0 || deadline.remainingMs === 0) throw error
    }
  }
}
