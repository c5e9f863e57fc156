/** What PostgreSQL's errors mean: whether the request took effect, and whether its connection is still usable. */
import type { Judgement } from '../shared/connections.js'
import { grantRights, keptLocked, rootOf, takesNoWrites } from '../shared/failures.js'

/**
 * Errors that leave the outcome of the request unknown, although the server sent them, by their class: connection,
 * resources, shutdown and crash, system, internal. CockroachDB says 40003 of a commit whose end it does not know.
 */
const doubtful = /^(08|40003|53|57P|58|XX)/

/** Two transactions were in conflict. The one that gets this error was undone and may be tried again. */
const conflicts = new Set(['40001', '40P01'])

/** The server is read-only: a standby, or a primary that was demoted. */
const readOnly = new Set(['25006', '55000'])

/** The encoding of the database lacks a character of a text. */
const notInEncoding = new Set(['22P05', '22021'])

/** The user lacks a right. */
export const notPermitted = '42501'

/** A lock was not obtained in time. */
const lockTimeout = '55P03'

/** Returns whether the server itself refused the request, and so has undone it. */
export function isRefusal(error: unknown): boolean {
  const state = sqlState(error)
  return state !== undefined && !doubtful.test(state)
}

/** Returns whether the connection can serve another request after this error. */
export function isHarmless(error: unknown): boolean {
  const state = sqlState(error)
  return isRefusal(error) && state !== undefined && !isReadOnly(error) && !state.startsWith('25P')
}

/**
 * Returns whether the server is read-only. Its connection is then given up, so that the next one may lead to another
 * server.
 */
export function isReadOnly(error: unknown): boolean {
  return readOnly.has(sqlState(error) ?? '')
}

/**
 * Returns whether the request is worth repeating from the start, because the database undid it in favour of another
 * transaction.
 */
export function isConflict(error: unknown): boolean {
  const state = sqlState(error)
  return state !== undefined && conflicts.has(state)
}

/** Returns the five-character code of the server's error, or undefined when the error did not come from the server. */
export function sqlState(error: unknown): string | undefined {
  const root = rootOf(error)
  if (!(root instanceof Error) || !('severity' in root) || !('code' in root)) return undefined
  return typeof root.code === 'string' ? root.code : undefined
}

function advice(error: unknown): string | undefined {
  if (isReadOnly(error)) return takesNoWrites
  if (notInEncoding.has(sqlState(error) ?? '')) return 'Use other characters, or a database in UTF8.'
  if (sqlState(error) === lockTimeout) return keptLocked('pg_stat_activity')
  return sqlState(error) === notPermitted ? grantRights('postgres') : undefined
}

/** How requests to this server judge errors. */
export const judgement: Judgement = { isHarmless, isRefusal, advice }
