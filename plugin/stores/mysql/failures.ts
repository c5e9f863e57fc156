/** What MySQL's errors mean for a request: whether it happened, and whether its connection is still good. */
import type { Judgement } from '../shared/connections.js'
import { grantRights, rootOf, takesNoWrites } from '../shared/failures.js'

/**
 * Errors after which nobody can say what became of the request, although the server sent them: it is stopping, has
 * lost the connection or ended it, does not know itself, or failed while it was committing.
 */
const doubtful = new Set([1053, 1079, 1080, 1105, 1152, 1158, 1159, 1160, 1161, 1180, 1184, 1927, 3100, 4031])

/** Two transactions stood in each other's way; the one that gets this was undone and may be tried again. */
const conflicts = new Set([1020, 1213])

/** The server at the other end only reads: a replica, or a primary that was demoted. */
const readOnly = new Set([1290, 1792, 1836])

/** A row is locked and the statement was not to wait; MariaDB says the same when the waiting took too long. */
const locked = new Set([1205, 3572])

/** The user lacks a right: in the database, to a table, to a column. */
const notPermitted = new Set([1044, 1142, 1143])

/** The server itself said no, and so has undone what was asked for. */
export function isRefusal(error: unknown): boolean {
  const number = errorNumber(error)
  return number !== undefined && !doubtful.has(number)
}

/** The connection may serve the next request. */
export function isHarmless(error: unknown): boolean {
  return isRefusal(error) && !isReadOnly(error)
}

/** The server only reads. Its connection is given up, so that the next one may lead to another server. */
export function isReadOnly(error: unknown): boolean {
  return readOnly.has(errorNumber(error) ?? 0)
}

/** Worth doing again from the start: the database undid it for the sake of another transaction. */
export function isConflict(error: unknown): boolean {
  return conflicts.has(errorNumber(error) ?? 0)
}

/** Somebody else has the row. */
export function isLocked(error: unknown): boolean {
  return locked.has(errorNumber(error) ?? 0)
}

/** The number of the server's error; undefined when it was not the server that spoke. */
export function errorNumber(error: unknown): number | undefined {
  const root = rootOf(error)
  if (!(root instanceof Error) || !('sqlState' in root) || !('errno' in root)) return undefined
  return typeof root.errno === 'number' ? root.errno : undefined
}

function advice(error: unknown): string | undefined {
  if (isReadOnly(error)) return takesNoWrites
  return notPermitted.has(errorNumber(error) ?? 0) ? grantRights('mysql') : undefined
}

/** For whoever asks the server. */
export const judgement: Judgement = { isHarmless, isRefusal, advice }
