/** Turns a driver's errors into errors of this library, for every database. */
import { CoordinationError, type Outcome, StoreError } from '../../core/errors.js'

/**
 * Wraps an error of a request, unless it is already one of ours. `advice` says what can be done about it, if
 * anything.
 */
export function storeError(
  what: string,
  outcome: Outcome,
  error: unknown,
  advice?: string,
): CoordinationError {
  if (error instanceof CoordinationError) return error
  const cause = rootOf(error)
  const why = messageOf(cause)
  const said = advice === undefined ? why : `${why.replace(/\.$/, '')}. ${advice}`
  return new StoreError(`${what} failed: ${said}`, outcome, { cause })
}

/** Advice for when the server denies a right. */
export function grantRights(page: string): string {
  return `Grant the user the rights that docs/databases/${page}.md lists.`
}

/** Advice for when the server is read-only. */
export const takesNoWrites =
  'The database takes no writes there: it is a standby, or has been made read-only. The address must lead to the primary.'

/** Advice for when a lock was not obtained in time. `where` names what shows who holds it. */
export function keptLocked(where: string): string {
  return `Another transaction holds a lock, a migration perhaps or one that was left open: ${where} shows it.`
}

/** The error for when one of our own time limits passed without an answer. `why` gives the reason, if known. */
export function tooSlow(what: string, limitMs: number, outcome: Outcome, why?: string): StoreError {
  const late = `${what} did not end within ${limitMs} ms`
  return new StoreError(why === undefined ? `${late}.` : `${late}: ${why}.`, outcome)
}

/**
 * The error for a database that cannot be used from the start, with advice. It must contain neither the password nor
 * an error that might carry it.
 *
 * @param what names the database, as in `MySQL database "shop" at db:3306`.
 */
export function unusable(what: string, cause: unknown, advice: string): StoreError {
  const why = messageOf(cause).replace(/\.$/, '')
  return new StoreError(`The ${what} cannot be used: ${why}. ${advice}`, 'none', { cause })
}

/** Returns the error that the driver reported, below any wrappers. */
export function rootOf(error: unknown): unknown {
  let root = error
  while (root instanceof Error && root.cause instanceof Error) root = root.cause
  return root
}

/**
 * Returns the message of an error. Node's error for a name with several addresses has no message of its own, so those
 * of the addresses are joined.
 */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(messageOf).join('; ')
  return error instanceof Error ? error.message : String(error)
}
