/** What PostgreSQL's errors mean for a request: whether it happened, and whether its connection is still good. */
import type { Judgement } from '../shared/connections.js'
import { grantRights, rootOf, takesNoWrites } from '../shared/failures.js'

/**
 * Classes of errors after which nobody can say what became of the request, although the server sent
 * them: connection, resources, shutdown and crash, system, internal.
 */
const doubtful = /^(08|53|57P|58|XX)/

/** Two transactions stood in each other's way; the one that gets this was undone and may be tried again. */
const conflicts = new Set(['40001', '40P01'])

/** The server at the other end only reads: a standby, or a primary that was demoted. */
const readOnly = new Set(['25006', '55000'])

/** The user lacks a right. */
export const notPermitted = '42501'

/** The server itself said no, and so has undone what was asked for. */
export function isRefusal(error: unknown): boolean {
  const state = sqlState(error)
  return state !== undefined && !doubtful.test(state)
}

/** The connection may serve the next request. */
export function isHarmless(error: unknown): boolean {
  const state = sqlState(error)
  return isRefusal(error) && state !== undefined && !isReadOnly(error) && !state.startsWith('25P')
}

/** The server only reads. Its connection is given up, so that the next one may lead to another server. */
export function isReadOnly(error: unknown): boolean {
  return readOnly.has(sqlState(error) ?? '')
}

/** Worth doing again from the start: the database undid it for the sake of another transaction. */
export function isConflict(error: unknown): boolean {
  const state = sqlState(error)
  return state !== undefined && conflicts.has(state)
}

/** The five characters that say what happened; undefined when it was not the server that spoke. */
export function sqlState(error: unknown): string | undefined {
  const root = rootOf(error)
  if (!(root instanceof Error) || !('severity' in root) || !('code' in root)) return undefined
  return typeof root.code === 'string' ? root.code : undefined
}

function advice(error: unknown): string | undefined {
  if (isReadOnly(error)) return takesNoWrites
  return sqlState(error) === notPermitted ? grantRights('postgres') : undefined
}

/** For whoever asks the server. */
export const judgement: Judgement = { isHarmless, isRefusal, advice }
