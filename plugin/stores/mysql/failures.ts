/** What MySQL's errors mean: whether the request took effect, and whether its connection is still usable. */
import type { Judgement } from '../shared/connections.js'
import { grantRights, keptLocked, rootOf, takesNoWrites } from '../shared/failures.js'
import { property } from '../shared/property.js'

/**
 * Errors that leave the outcome of the request unknown, although the server sent them: it is stopping, has lost or
 * ended the connection, reports an unknown error, or failed while it was committing.
 */
const doubtful = new Set([1053, 1079, 1080, 1105, 1152, 1158, 1159, 1160, 1161, 1180, 1184, 1927, 3100, 4031])

/** Two transactions were in conflict. The one that gets this error was undone and may be tried again. */
const conflicts = new Set([1020, 1213])

/** The server is read-only: a replica, or a primary that was demoted. MariaDB says of a table what holds for InnoDB. */
const readOnly = new Set([1036, 1290, 1792, 1836, 1874])

/** A row is locked and the statement must not wait. MariaDB reports a wait that took too long in the same way. */
const locked = new Set([1205, 3572])

/**
 * The server has ended a connection whose client was silent. Its message leads to `wait_timeout`, which is ours to set.
 */
const silent = 4031

/** A statement is longer than the server takes. */
const tooLong = 1153

/** The user lacks a right: in the database, to a table, to a column. */
const notPermitted = new Set([1044, 1142, 1143])

/** Returns whether the server itself refused the request, and so has undone it. */
export function isRefusal(error: unknown): boolean {
  const number = errorNumber(error)
  return number !== undefined && !doubtful.has(number)
}

/** Returns whether the connection can serve another request after this error. */
export function isHarmless(error: unknown): boolean {
  return isRefusal(error) && !isReadOnly(error)
}

/**
 * Returns whether the server is read-only. Its connection is then given up, so that the next one may lead to another
 * server.
 */
export function isReadOnly(error: unknown): boolean {
  return readOnly.has(errorNumber(error) ?? 0)
}

/**
 * Returns whether the request is worth repeating from the start, because the database undid it in favour of another
 * transaction.
 */
export function isConflict(error: unknown): boolean {
  return conflicts.has(errorNumber(error) ?? 0)
}

/** Returns whether another transaction holds the row. */
export function isLocked(error: unknown): boolean {
  return locked.has(errorNumber(error) ?? 0)
}

/** Returns the number of the server's error, or undefined when the error did not come from the server. */
export function errorNumber(error: unknown): number | undefined {
  const root = rootOf(error)
  if (!(root instanceof Error) || !('sqlState' in root) || !('errno' in root)) return undefined
  return typeof root.errno === 'number' ? root.errno : undefined
}

function advice(error: unknown): string | undefined {
  if (wasSilent(error))
    return 'This process stood still in a transaction. The library sets wait_timeout itself.'
  if (isReadOnly(error)) return takesNoWrites
  if (isLocked(error)) return keptLocked('SHOW FULL PROCESSLIST')
  if (errorNumber(error) === tooLong) return "Raise the server's max_allowed_packet."
  return notPermitted.has(errorNumber(error) ?? 0) ? grantRights('mysql') : undefined
}

/** While no request is pending, the driver gives the number as the code. */
function wasSilent(error: unknown): boolean {
  return [errorNumber(error), property(rootOf(error), 'code')].includes(silent)
}

/** How requests to this server judge errors. */
export const judgement: Judgement = { isHarmless, isRefusal, advice }
