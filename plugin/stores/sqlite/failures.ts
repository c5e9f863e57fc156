/** What the driver's errors mean: whether to try again, and whether the connection is still usable. */
import { existsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { CoordinationError, type Outcome, StoreError } from '../../core/errors.js'
import { messageOf, rootOf } from '../shared/failures.js'

/**
 * Returns the error for the caller: `error` itself if it is one of ours already, otherwise a `StoreError`.
 *
 * @param doing completes the sentence "SQLite could not …".
 * @param outcome the outcome of the request; see {@link outcomeOf}.
 */
export function sqliteError(doing: string, outcome: Outcome, error: unknown): CoordinationError {
  if (error instanceof CoordinationError) return error
  const code = driverCode(error)
  const said = messageOf(rootOf(error))
  const detail = code === undefined ? said : `${said} (${code})`
  const who = isBusy(error) ? ' Another process writes to the file, or has left a transaction open.' : ''
  return new StoreError(`SQLite could not ${doing}: ${detail}.${who}`, outcome, { cause: error })
}

/** Adds advice to the error of opening a file. */
export function withAdvice(path: string, error: unknown): unknown {
  if (!(error instanceof StoreError) || error.cause === undefined) return error
  const code = driverCode(error) ?? ''
  if (isBusy(error.cause)) return error
  const advice = /^SQLITE_(NOTADB|CORRUPT)/.test(code)
    ? 'It is no database of SQLite, or a damaged or encrypted one: check the path.'
    : adviceOnPlace(path)
  return new StoreError(`${error.message} ${advice}`, error.outcome, { cause: error.cause })
}

function adviceOnPlace(path: string): string {
  const folder = dirname(path)
  if (!existsSync(folder)) return `There is no folder "${folder}": make it, or correct the path.`
  if (existsSync(path) && statSync(path).isDirectory()) return 'That is a folder: name a file in it.'
  return 'This process must be allowed to read and write the file, and to make files beside it.'
}

/**
 * Returns the outcome of a failed statement. SQLite decides at once, so a failed statement has certainly done
 * nothing, with one exception: when the disk fails while a commit is being written, the commit may have reached the
 * disk nevertheless, and appear when the file is next recovered.
 */
export function outcomeOf(error: unknown): Outcome {
  return driverCode(error)?.startsWith('SQLITE_IOERR') ? 'unknown' : 'none'
}

/** Returns whether another process, or another connection, is using the file. A later attempt can succeed. */
export function isBusy(error: unknown): boolean {
  return !(error instanceof CoordinationError) && /^SQLITE_(BUSY|LOCKED)/.test(driverCode(error) ?? '')
}

/** Returns whether the file cannot be written. */
export function isReadOnly(error: unknown): boolean {
  return /^SQLITE_READONLY/.test(driverCode(error) ?? '')
}

/**
 * Returns whether the connection cannot recover by itself. A connection that was opened on a read-only file stays
 * read-only after the file has been made writable, and after a disk failure its state is unknown.
 */
export function isUseless(error: unknown): boolean {
  return /^SQLITE_(READONLY|IOERR|CORRUPT|NOTADB|CANTOPEN)/.test(driverCode(error) ?? '')
}

/** Returns the code `SQLITE_…`, however deeply the error has been wrapped. */
function driverCode(error: unknown): string | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    if ('code' in at && typeof at.code === 'string' && at.code.startsWith('SQLITE_')) return at.code
  }
  return undefined
}
