/**
 * Where an open database comes from: a file that the store opens for itself, or a database object that the caller
 * owns.
 */
import { randomUUID } from 'node:crypto'
import { realpathSync, statSync } from 'node:fs'
import type { Database, Options } from 'better-sqlite3'
import { CoordinationError, StoreError } from '../../core/errors.js'
import { driverMissing } from '../shared/driver.js'
import { messageOf, rootOf } from '../shared/failures.js'
import { once } from '../shared/once.js'
import { Turns } from '../shared/turns.js'
import { isBusy } from './failures.js'
import { pause } from './pause.js'

/** The class `Database` of some copy of better-sqlite3. */
export type Driver = new (filename: string, options?: Options) => Database

/** An open database, and what distinguishes it from any other. */
export interface Open {
  readonly client: Database
  readonly identity: string
}

/** Provides the open database. Everything but `turns` must be used only during a turn. */
export interface Source {
  /** The turns of all users of the same open database. */
  readonly turns: Turns
  /** Returns the open database, and opens it first where necessary. */
  current(deadlineMs: number): Promise<Open>
  /** Drops an open database that has become useless. The next use opens another one. */
  discard(): void
  close(): void
}

/** What to install when the driver is missing. npm chooses a version that supports this Node. */
export const driverPackage = 'better-sqlite3'

/**
 * Refuses a driver that this Node cannot run. From version 13 on the driver is built for Node-API 10, which Node has
 * from 22.14 on. An older Node does not refuse it: the process ends with a segmentation fault when a database is
 * opened.
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
 * Each use first checks that the path still leads to the open file, and the names beside it to its companions. After
 * a restore has put another file in its place, nothing would ever read what is written to the old one. These looks
 * take some ten microseconds, wait for no thread, and leave no gap between the check and the use.
 *
 * @param prepare prepares a database that has just been opened.
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
      if (open.identity === identityOf(path)) {
        refuseRobbed(path, open)
        return open
      }
      refuseLeftovers(path, open)
      close()
    }
    await refuseOtherName(path, driver, deadlineMs)
    const { client, identity } = openFile(path, driver, everOpen)
    try {
      await prepare(client, deadlineMs)
      // Any read makes SQLite open the companion files beside the file.
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
  /** The identities of the files beside this one when it was opened. */
  readonly companions: readonly (string | undefined)[]
}

/**
 * Refuses to go on without the companions. Processes that open the file after these were deleted make others, and see
 * neither what is written to the deleted ones nor their locks. The file is not opened again, because SQLite shares the
 * index of a `-wal` among all connections of a process, and this process may have others. When the last of them is
 * closed, SQLite writes to the file what the deleted `-wal` holds, unless another process has the file open by then.
 */
function refuseRobbed(path: string, open: OpenFile): void {
  const now = companionsOf(path)
  if (open.companions.every((identity, at) => identity === undefined || identity === now[at])) return
  throw new StoreError(
    'The "-wal" or "-shm" beside the database file was deleted while it was in use. Stop all processes that use the ' +
      'file, then start them again.',
    'none',
  )
}

/**
 * Refuses to go on with companions of the old file. SQLite finds the `-wal` and the `-shm` of a file by their names.
 * If those of the old file are still there, it uses them for the new one, and mixes the two files into one that is
 * neither.
 */
function refuseLeftovers(path: string, open: OpenFile): void {
  const left = companionsOf(path).some((identity, at) => identity && identity === open.companions[at])
  if (!left) return
  throw new StoreError(
    'The database file has been replaced, but the "-wal" and "-shm" of the old one are still beside it. Remove both.',
    'none',
  )
}

/**
 * Refuses to open a file that another process has open without the companions beside it. That process has opened it by
 * another name, or one of them was deleted. Either way each of the two would see neither the changes nor the locks of
 * the other, and what both write to the file in the end would damage it.
 */
async function refuseOtherName(path: string, driver: Driver, deadlineMs: number): Promise<void> {
  for (let attempt = 0; isOpenElsewhere(path, driver); attempt += 1) {
    if (performance.now() >= deadlineMs) {
      throw new StoreError(
        `The database file "${path}" is in use, but not with a "-wal" and a "-shm" beside it: it was opened by another ` +
          'name, such as a hard link or a mount of the file without its folder; or one of the two was deleted; or it ' +
          'is kept locked, by a transaction that was left open or by locking_mode = EXCLUSIVE.',
        'none',
      )
    }
    await pause(attempt, deadlineMs)
  }
}

/** In WAL mode each process that has the file open keeps a lock on it, whatever the name. Others do so for moments. */
function isOpenElsewhere(path: string, driver: Driver): boolean {
  if (identityOf(path) === undefined || hasCompanions(path)) return false
  const client = construct(path, driver, true)
  try {
    client.pragma('locking_mode = EXCLUSIVE')
    client.pragma('schema_version')
    return false
  } catch (error) {
    // A process that has just opened it by this name has made both. Other errors occur again when the file is opened.
    return isBusy(error) && !hasCompanions(path)
  } finally {
    client.close()
  }
}

function hasCompanions(path: string): boolean {
  return companionsOf(path).every((identity) => identity !== undefined)
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

/** A database object that its owner has opened and will close. Several stores may share it. */
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
 * Returns the number of the file and the time of its creation, which is 0 where the file system does not keep it. The
 * number of the device is left out, because it differs between containers that share the file.
 */
function identityOf(path: string): string | undefined {
  const facts = statSync(path, { bigint: true, throwIfNoEntry: false })
  return facts === undefined ? undefined : `${facts.ino}-${tellsBirth() ? facts.birthtimeNs : 0}`
}

/**
 * Returns whether the time of creation is one. Without the system call `statx`, which Linux before 4.11 and some
 * sandboxes of containers lack, Node gives the time of the latest change in its place. It then does so for a process,
 * too, which has no time of creation.
 */
const tellsBirth = once(() => {
  if (process.platform !== 'linux') return true
  try {
    const { birthtimeNs, ctimeNs } = statSync('/proc/self', { bigint: true })
    return birthtimeNs !== ctimeNs
  } catch {
    // There is no `/proc`, or this process may not read it. Others that may must find the same identity.
    return true
  }
})

/** Creates the file only at the first opening. Later, an empty file in the place of a full one must not be used. */
function openFile(path: string, driver: Driver, mustExist: boolean): Open {
  const before = identityOf(path)
  const client = construct(path, driver, mustExist)
  const identity = identityOf(path)
  // The path led to the same file before and after, so that is the file that was opened.
  if (identity !== undefined && (before === undefined || before === identity)) return { client, identity }
  client.close()
  throw new StoreError('The database file was replaced while it was being opened.', 'none')
}

function construct(path: string, driver: Driver, mustExist: boolean): Database {
  try {
    return new driver(path, { timeout: 0, fileMustExist: mustExist })
  } catch (error) {
    // The native part of the driver is loaded at its first use.
    if (isUnloadable(error)) throw driverMissing(driverPackage, error)
    throw error
  }
}

function isUnloadable(error: unknown): boolean {
  return error instanceof Error && /bindings file|NODE_MODULE_VERSION|invalid ELF|dlopen/.test(error.message)
}

/** Once a store is open, its callers expect only store errors. */
function unusable(error: unknown): StoreError {
  const why = messageOf(rootOf(error))
  return new StoreError(`The file now in the database's place cannot be used: ${why}`, 'none', {
    cause: error,
  })
}
