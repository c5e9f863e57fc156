/** What PostgreSQL's errors mean for a request: whether it happened, and whether its connection is still good. */
import { CoordinationError, type Outcome, StoreError } from '../../core/errors.js'

/**
 * Classes of errors after which nobody can say what became of the request, although the server sent
 * them: connection, resources, shutdown and crash, system, internal.
 */
const doubtful = /^(08|53|57P|58|XX)/

/** Two transactions stood in each other's way; the one that gets this was undone and may be tried again. */
const conflicts = new Set(['40001', '40P01'])

/** The server at the other end only reads: a standby, or a primary that was demoted. */
const readOnly = new Set(['25006', '55000'])

/** Wraps whatever went wrong in a request, unless it is an error of ours already. */
export function storeError(what: string, outcome: Outcome, error: unknown): CoordinationError {
  if (error instanceof CoordinationError) return error
  const cause = rootOf(error)
  return new StoreError(`${what} failed: ${messageOf(cause)}`, outcome, { cause })
}

/** A time limit of our own passed without an answer. */
export function tooSlow(what: string, limitMs: number, outcome: Outcome): StoreError {
  return new StoreError(`${what} did not end within ${limitMs} ms.`, outcome)
}

/** The server itself said no, and so has undone what was asked for. */
export function isRefusal(error: unknown): boolean {
  const state = sqlState(error)
  return state !== undefined && !doubtful.test(state)
}

/** The connection may serve the next request. */
export function isHarmless(error: unknown): boolean {
  const state = sqlState(error)
  return isRefusal(error) && state !== undefined && !readOnly.has(state) && !state.startsWith('25P')
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
