/** What SQL Server's errors mean: whether the request took effect, and whether its connection is still usable. */
import type { Judgement } from '../shared/connections.js'
import { grantRights, keptLocked, messageOf } from '../shared/failures.js'
import { property } from '../shared/property.js'

/**
 * From this severity on, the server has ended the connection or is about to, and the outcome of the request is
 * unknown.
 */
const fatal = 20

/**
 * Two transactions were in conflict, and the one that gets this error was undone and may be tried again: a deadlock,
 * or a row that has changed since the transaction's snapshot.
 */
const conflicts = new Set([1205, 3960])

/** A lock was not obtained within `LOCK_TIMEOUT`. */
const waitedTooLong = 1222

/** Babelfish's number for errors that have no number on SQL Server. The message is then PostgreSQL's. */
const unnumbered = 33_557_097

/** The database is read-only, or is no longer the primary: a secondary, or a primary that was demoted. */
const readOnly = new Set([976, 978, 979, 982, 983, 3906])

/** Another transaction has inserted a row with the same key: one number is for constraints, the other for indexes. */
const duplicates = new Set([2601, 2627])

/** The user lacks a right: to a table, to a column. */
const notPermitted = new Set([229, 230])

/** Returns whether the server itself refused the request, and so has undone it. */
export function isRefusal(error: unknown): boolean {
  const said = saidBy(error)
  return said !== undefined && said.severity < fatal
}

/** Returns whether the connection can serve another request after this error. */
export function isHarmless(error: unknown): boolean {
  return isRefusal(error) && !readOnly.has(errorNumber(error) ?? 0)
}

/**
 * Returns whether the request is worth repeating from the start, because the database undid it in favour of another
 * transaction.
 */
export function isConflict(error: unknown): boolean {
  return conflicts.has(errorNumber(error) ?? 0)
}

/**
 * Returns whether a lock was not obtained in time. By then most of a change's time is over, so a caller that still
 * wants the change begins anew.
 */
export function isLockTimeout(error: unknown): boolean {
  const number = errorNumber(error)
  return (
    number === waitedTooLong ||
    (number === unnumbered && /lock timeout/.test(messageOf(driverErrorIn(error))))
  )
}

/** Returns whether a row with that key exists already. */
export function isDuplicate(error: unknown): boolean {
  return duplicates.has(errorNumber(error) ?? 0)
}

/** Returns the number of the server's error, or undefined when the error did not come from the server. */
export function errorNumber(error: unknown): number | undefined {
  return saidBy(error)?.number
}

/** Returns the code of an error of the driver's own: `ENOTBEGUN`, `ELOGIN`, … */
export function driverCode(error: unknown): string | undefined {
  for (const each of chainOf(error)) {
    const code = property(each, 'code')
    if (typeof code === 'string') return code
  }
  return undefined
}

/** Returns the first error with a code in the chain, which is the driver's, or else the last error of the chain. */
export function driverErrorIn(error: unknown): unknown {
  return chainOf(error).find((each) => property(each, 'code') !== undefined) ?? chainOf(error).at(-1)
}

/**
 * Returns the server's error. Errors of the driver's own have no number, or the text of their code instead, and never
 * have a severity.
 */
function saidBy(error: unknown): { number: number; severity: number } | undefined {
  for (const each of chainOf(error)) {
    const [number, severity] = [property(each, 'number'), property(each, 'class')]
    if (typeof number === 'number' && typeof severity === 'number') return { number, severity }
  }
  return undefined
}

/** Returns an error and its causes. The driver keeps the error of the layer below it in `originalError`. */
function chainOf(error: unknown): unknown[] {
  const chain: unknown[] = []
  for (let at = error; at !== undefined && at !== null && !chain.includes(at); ) {
    chain.push(at)
    at = property(at, 'cause') ?? property(at, 'originalError')
  }
  return chain
}

function advice(error: unknown): string | undefined {
  if (isLockTimeout(error)) return keptLocked('sys.dm_tran_locks')
  return notPermitted.has(errorNumber(error) ?? 0) ? grantRights('mssql') : undefined
}

/** How requests to this server judge errors. */
export const judgement: Judgement = { isHarmless, isRefusal, advice }
