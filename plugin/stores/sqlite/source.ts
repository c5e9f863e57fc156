/** Where an open database comes from: a file of which this store has a connection of its own, or somebody's object. */
import { randomUUID } from 'node:crypto'
import { realpathSync, statSync } from 'node:fs'
import type { Database, Options } from 'better-sqlite3'
import { CoordinationError, StoreError } from '../../core/errors.js'
import { driverMissing } from '../shared/driver.js'
import { messageOf, rootOf } from '../shared/failures.js'
import { Turns } from '../shared/turns.js'
import { isBusy } from './failures.js'

/** The class `Database` of some copy of better-sqlite3. */
export type Driver = new (filename: string, options?: Options) => Database

/** An open database, and what tells it from any other. */
export interface Open {
  readonly client: Database
  readonly identity: string
}

/** Provides the open database. All but `turns` is used in turn only. */
export interface Source {
  /** Everybody who uses the same open database takes turns. */
  readonly turns: Turns
  /** The open database, opened (again) where it must be. */
  current(deadlineMs: number): Promise<Open>
  /** The open database has proved useless: the next one shall be another. */
  discard(): void
  close(): void
}

/** What to install when the driver is missing: of its versions, npm chooses one that is made for this Node. */
export const driverPackage = 'better-sqlite3'

/**
 * From version 13 on the driver is made for Node-API 10, which Node has from 22.14 on. An older Node does not refuse it:
 * the process ends with a segmentation fault when a database is opened.
 *
 * @throws CoordinationError `WCO_DRIVER_MISSING`
 */
export function refuseUnfit(version: string, nodeApi: string): void {
  if (Number.parseInt(version, 10) < 13 || Number(nodeApi) >= 10) return
  throw new CoordinationError(
    'WCO_DRIVER_MISSING',
    `better-sqlite3 ${version} needs Node 22.14 or later. Run \`npm install better-sqlite3@12\`.`,
  )
}

/**
 * A file, opened for one store alone.
 *
 * Before each use it is made sure that the path still leads to the file that is open. After a restore has put
 * another one in its place, nobody would ever read what is written to the old one. `statSync` costs a few
 * microseconds, waits for no thread, and leaves no moment between the look and the use.
 *
 * @param prepare makes a database ready for use that has just been opened.
 */
export function fileSource(
  path: string,
  driver: Driver,
  prepare: (client: Database, deadlineMs: number) => Promise<void>,
): Source {
  let open: OpenFile | undefined
  let everOpen = false

  async function current(deadlineMs: number): Promise<Open> {
    if (open !== undefined) {
      if (open.identity === identityOf(path)) return open
      refuseLeftovers(path, open)
      close()
    }
    const { client, identity } = openFile(path, driver, everOpen)
    try {
      await prepare(client, deadlineMs)
      // Any read makes SQLite open what belongs to the file beside it.
      client.pragma('schema_version')
    } catch (error) {
      client.close()
      throw everOpen && !isBusy(error) ? unusable(error) : error
    }
    everOpen = true
    open = { client, identity, companions: companionsOf(path) }
    return open
  }

  function close(): void {
    open?.client.close()
    open = undefined
  }

  return { turns: new Turns(), current, discard: close, close }
}

interface OpenFile extends Open {
  /** What was beside the file when it was opened. */
  readonly companions: readonly (string | undefined)[]
}

/**
 * SQLite finds the `-wal` and the `-shm` of a file by their names. If those of the old file are still there, it takes
 * them for the new one's, and mixes the two files into one that is neither.
 */
function refuseLeftovers(path: string, open: OpenFile): void {
  const left = companionsOf(path).some((identity, at) => identity && identity === open.companions[at])
  if (!left) return
  throw new StoreError(
    'The database file has been replaced, but the "-wal" and "-shm" of the old one are still beside it. Remove both.',
    'none',
  )
}

function companionsOf(path: string): (string | undefined)[] {
  try {
    const file = realpathSync(path)
    return [identityOf(`${file}-wal`), identityOf(`${file}-shm`)]
  } catch {
    // The path leads nowhere now, so there is nothing beside the file either.
    return []
  }
}

/** A database object that somebody else has opened and will close. Several stores may share it. */
export function sharedSource(client: Database): Source {
  const { turns, identity } = sharingOf(client)
  const nothing = (): void => {}
  return { turns, current: async () => ({ client, identity }), discard: nothing, close: nothing }
}

interface Sharing {
  readonly turns: Turns
  readonly identity: string
}

const sharings = new WeakMap<Database, Sharing>()

function sharingOf(client: Database): Sharing {
  const sharing = sharings.get(client) ?? { turns: new Turns(), identity: randomUUID() }
  sharings.set(client, sharing)
  return sharing
}

/**
 * The number of the file and the time it was made, which is 0 where the file system does not keep it. Not the
 * number of the device, which differs between containers that share the file.
 */
function identityOf(path: string): string | undefined {
  const facts = statSync(path, { bigint: true, throwIfNoEntry: false })
  return facts === undefined ? undefined : `${facts.ino}-${facts.birthtimeNs}`
}

/** Only the first time may the file be made: an empty one where a full one was is no place to go on in. */
function openFile(path: string, driver: Driver, mustExist: boolean): Open {
  const before = identityOf(path)
  const client = construct(path, driver, mustExist)
  const identity = identityOf(path)
  // The path led to the same file before and after, so that is the one that was opened.
  if (identity !== undefined && (before === undefined || before === identity)) return { client, identity }
  client.close()
  throw new StoreError('The database file was replaced while it was being opened.', 'none')
}

function construct(path: string, driver: Driver, mustExist: boolean): Database {
  try {
    return new driver(path, { timeout: 0, fileMustExist: mustExist })
  } catch (error) {
    // The binary half of the driver is loaded when it is first used.
    if (isUnloadable(error)) throw driverMissing(driverPackage, error)
    throw error
  }
}

function isUnloadable(error: unknown): boolean {
  return error instanceof Error && /bindings file|NODE_MODULE_VERSION|invalid ELF|dlopen/.test(error.message)
}

/** Once a store is open, its callers know of nothing but store errors. */
function unusable(error: unknown): StoreError {
  const why = messageOf(rootOf(error))
  return new StoreError(`The file now in the database's place cannot be used: ${why}`, 'none', {
    cause: error,
  })
}
