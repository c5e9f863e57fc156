/** The time limits of a store whose server keeps some of them itself. */

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
}

/** Limits of which all end within the statement timeout. */
export function limitsWithin(statementTimeoutMs: number): Limits {
  const part = (share: number): number => Math.max(1, Math.floor(statementTimeoutMs * share))
  return { verbMs: statementTimeoutMs, statementMs: part(0.9), lockMs: part(0.8), silenceMs: part(0.5) }
}
