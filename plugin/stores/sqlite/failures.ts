/** What the driver's errors mean: whether to try again, and whether the connection is still good. */
import { existsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { CoordinationError, type Outcome, StoreError } from '../../core/errors.js'
import { messageOf, rootOf } from '../shared/failures.js'

/**
 * The error a caller gets for whatever went wrong, unless it is one of ours already.
 *
 * @param doing completes the sentence "SQLite could not …".
 * @param outcome what has become of the request; see {@link outcomeOf}.
 */
export function sqliteError(doing: string, outcome: Outcome, error: unknown): CoordinationError {
  if (error instanceof CoordinationError) return error
  const code = driverCode(error)
  const said = messageOf(rootOf(error))
  const detail = code === undefined ? said : `${said} (${code})`
  return new StoreError(`SQLite could not ${doing}: ${detail}.`, outcome, { cause: error })
}

/** The error of opening a file, with what may be done about it. */
export function withAdvice(path: string, error: unknown): unknown {
  if (!(error instanceof StoreError) || error.cause === undefined) return error
  const code = driverCode(error) ?? ''
  const advice = /^SQLITE_(NOTADB|CORRUPT)/.test(code)
    ? 'It is no database of SQLite, or a damaged or encrypted one: check the path.'
    : isBusy(error.cause)
      ? 'Another process keeps it busy: try again.'
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
 * SQLite decides on the spot, so a failed statement has certainly done nothing, but for one case: when the
 * disk fails while a commit is being written, the commit may have reached it all the same, and come to light
 * when the file is next recovered.
 */
export function outcomeOf(error: unknown): Outcome {
  return driverCode(error)?.startsWith('SQLITE_IOERR') ? 'unknown' : 'none'
}

/** Another process, or another connection, is using the file: later it will do. */
export function isBusy(error: unknown): boolean {
  return !(error instanceof CoordinationError) && /^SQLITE_(BUSY|LOCKED)/.test(driverCode(error) ?? '')
}

/** The file cannot be written. */
export function isReadOnly(error: unknown): boolean {
  return /^SQLITE_READONLY/.test(driverCode(error) ?? '')
}

/**
 * The connection will not get well by itself: one that was opened on a read-only file stays so after the file has
 * been made writable, and after a failed disk nobody knows what it believes.
 */
export function isUseless(error: unknown): boolean {
  return /^SQLITE_(READONLY|IOERR|CORRUPT|NOTADB|CANTOPEN)/.test(driverCode(error) ?? '')
}

/** `SQLITE_…`, however deep it has been wrapped. */
function driverCode(error: unknown): string | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    if ('code' in at && typeof at.code === 'string' && at.code.startsWith('SQLITE_')) return at.code
  }
  return undefined
}
