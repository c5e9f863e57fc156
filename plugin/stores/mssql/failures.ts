/** What SQL Server's errors mean for a request: whether it happened, and whether its connection is still good. */
import type { Judgement } from '../shared/connections.js'
import { grantRights, messageOf } from '../shared/failures.js'
import { property } from '../shared/property.js'

/** From this severity on the server has ended the connection, or is about to: nobody can say what became of the request. */
const fatal = 20

/**
 * Two transactions stood in each other's way, and the one that gets this was undone and may be tried again: a deadlock, a
 * row that has changed since the transaction's snapshot.
 */
const conflicts = new Set([1205, 3960])

/** A lock was not had within `LOCK_TIMEOUT`. */
const waitedTooLong = 1222

/** Babelfish's number for whatever it has no number of SQL Server's for; it then says it in PostgreSQL's words. */
const unnumbered = 33_557_097

/** The database at the other end only reads, or is no longer the one to ask: a secondary, or a primary that was demoted. */
const readOnly = new Set([976, 978, 979, 982, 983, 3906])

/** Somebody else has inserted a row of that key: said of a constraint, and of an index. */
const duplicates = new Set([2601, 2627])

/** The user lacks a right: to a table, to a column. */
const notPermitted = new Set([229, 230])

/** The server itself said no, and so has undone what was asked for. */
export function isRefusal(error: unknown): boolean {
  const said = saidBy(error)
  return said !== undefined && said.severity < fatal
}

/** The connection may serve the next request. */
export function isHarmless(error: unknown): boolean {
  return isRefusal(error) && !readOnly.has(errorNumber(error) ?? 0)
}

/** Worth doing again from the start: the database undid it for the sake of another transaction. */
export function isConflict(error: unknown): boolean {
  return conflicts.has(errorNumber(error) ?? 0)
}

/** A lock was not had in time. Most of the time that a change has is over by then: whoever wants it begins anew. */
export function isLockTimeout(error: unknown): boolean {
  const number = errorNumber(error)
  return (
    number === waitedTooLong ||
    (number === unnumbered && /lock timeout/.test(messageOf(driverErrorIn(error))))
  )
}

/** There is a row of that key already. */
export function isDuplicate(error: unknown): boolean {
  return duplicates.has(errorNumber(error) ?? 0)
}

/** The number of the server's error; undefined when it was not the server that spoke. */
export function errorNumber(error: unknown): number | undefined {
  return saidBy(error)?.number
}

/** What the driver says of an error of its own: `ENOTBEGUN`, `ELOGIN`, … */
export function driverCode(error: unknown): string | undefined {
  for (const each of chainOf(error)) {
    const code = property(each, 'code')
    if (typeof code === 'string') return code
  }
  return undefined
}

/** The first error with a code, which is the driver's, whatever has been wrapped around it or lies below it. */
export function driverErrorIn(error: unknown): unknown {
  return chainOf(error).find((each) => property(each, 'code') !== undefined) ?? chainOf(error).at(-1)
}

/** Errors of the driver's own have no number, or one that is the text of their code, and never a severity. */
function saidBy(error: unknown): { number: number; severity: number } | undefined {
  for (const each of chainOf(error)) {
    const [number, severity] = [property(each, 'number'), property(each, 'class')]
    if (typeof number === 'number' && typeof severity === 'number') return { number, severity }
  }
  return undefined
}

/** An error and its causes. The driver keeps the error of the layer below it in `originalError`. */
function chainOf(error: unknown): unknown[] {
  const chain: unknown[] = []
  for (let at = error; at !== undefined && at !== null && !chain.includes(at); ) {
    chain.push(at)
    at = property(at, 'cause') ?? property(at, 'originalError')
  }
  return chain
}

function advice(error: unknown): string | undefined {
  return notPermitted.has(errorNumber(error) ?? 0) ? grantRights('mssql') : undefined
}

/** For whoever asks the server. */
export const judgement: Judgement = { isHarmless, isRefusal, advice }
