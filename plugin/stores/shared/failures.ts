/** What becomes of a driver's errors, whichever database it is for. */
import { CoordinationError, type Outcome, StoreError } from '../../core/errors.js'

/** Wraps whatever went wrong in a request, unless it is an error of ours already; `advice`, where something may be done about it. */
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

/** Said where the server refuses something for want of a right. */
export function grantRights(page: string): string {
  return `Grant the user the rights that docs/databases/${page}.md lists.`
}

/** Said where the server only reads. */
export const takesNoWrites =
  'The database takes no writes there: it is a standby, or has been made read-only. The address must lead to the primary.'

/** A time limit of our own passed without an answer; `why`, where more is known. */
export function tooSlow(what: string, limitMs: number, outcome: Outcome, why?: string): StoreError {
  const late = `${what} did not end within ${limitMs} ms`
  return new StoreError(why === undefined ? `${late}.` : `${late}: ${why}.`, outcome)
}

/**
 * A database that cannot be used from the start, and what may be done about it. Never with the password, nor with an error that
 * might carry it.
 *
 * @param what which one, as in `MySQL database "shop" at db:3306`.
 */
export function unusable(what: string, cause: unknown, advice: string): StoreError {
  const why = messageOf(cause).replace(/\.$/, '')
  return new StoreError(`The ${what} cannot be used: ${why}. ${advice}`, 'none', { cause })
}

/** What the driver reported, below whatever has been wrapped around it. */
export function rootOf(error: unknown): unknown {
  let root = error
  while (root instanceof Error && root.cause instanceof Error) root = root.cause
  return root
}

/** Node's error for a name with several addresses says nothing itself; those of the addresses do. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(messageOf).join('; ')
  return error instanceof Error ? error.message : String(error)
}
