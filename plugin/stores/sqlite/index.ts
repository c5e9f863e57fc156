/** Opens a store on SQLite: the driver, its own connections, the schema. */
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import type { Database } from 'better-sqlite3'
import { CoordinationError } from '../../core/errors.js'
import type { Store } from '../../core/store.js'
import { loadDriver } from '../shared/driver.js'
import { runMigrations } from '../shared/migrate.js'
import { Connection } from './connections.js'
import { isReadOnly, withAdvice } from './failures.js'
import { Hints } from './hints.js'
import { migrationTarget } from './migrations.js'
import { type Driver, driverPackage, fileSource, refuseUnfit, type Source, sharedSource } from './source.js'

/** The options for opening a store on SQLite. */
export interface SqliteOptions {
  readonly namespace: string
  /** Time limit of each verb in milliseconds, including waits for other processes. */
  readonly statementTimeoutMs: number
  /** Whether pending migrations are run. If false, pending migrations are an error. */
  readonly migrate: boolean
  /** The database's clock. Default: the host's clock, since SQLite has no server with a clock of its own. */
  readonly nowMs?: () => number
  /** The server's identity, for a simulated world. Default: that of the file, or of the database object. */
  readonly identity?: () => string
  /** Resolves in a fresh turn of the event loop, for a simulated world. Default: by `setImmediate`. */
  readonly freshTurn?: () => Promise<void>
  /** Receives warnings about anything that works less well than it could. Default: they are dropped. */
  readonly onWarning?: (message: string, error?: unknown) => void
}

/**
 * Opens a store with its own connections.
 *
 * @param options.database the path of a file, created when it is missing; `':memory:'` for a private database; or a
 *   better-sqlite3 `Database`, whose file is opened again, because statements of the application must not get into
 *   our transactions.
 */
export async function openSqliteStore(
  options: SqliteOptions & { readonly database: string | Database },
): Promise<Store> {
  const { database } = options
  const driver = typeof database === 'string' ? await installedDriver() : driverOf(database)
  const path = typeof database === 'string' ? database : pathOf(database)
  return path === ':memory:'
    ? openInMemory(new driver(path), options)
    : openFile(driver, resolve(path), options)
}

/**
 * Opens a store over a database object that is already open. The store does not close it. Several stores may share
 * the object and take turns, each of them as a separate node: a whole fleet in one process.
 */
export async function openSqliteStoreOver(database: Database, options: SqliteOptions): Promise<Store> {
  return openObject(database, sharedSource(database), sharedHints(database, options.namespace), options)
}

function openInMemory(client: Database, options: SqliteOptions): Promise<Store> {
  const source: Source = { ...sharedSource(client), close: () => client.close() }
  return openObject(client, source, new Hints(), options)
}

async function openObject(
  client: Database,
  source: Source,
  hints: Hints,
  options: SqliteOptions,
): Promise<Store> {
  const SqliteStore = await loadStore()
  const only = new Connection(source, options.statementTimeoutMs)
  await only.run('be opened', (_open, deadlineMs) => migrate(client, deadlineMs, options))
  return new SqliteStore({ ...settingsOf(options), writer: only, reader: only, hints })
}

async function openFile(driver: Driver, path: string, options: SqliteOptions): Promise<Store> {
  const SqliteStore = await loadStore()
  const settings = settingsOf(options)
  const connectionFor = (warn: (message: string) => void): Connection => {
    const prepare = async (client: Database, deadlineMs: number): Promise<void> => {
      await migrate(client, deadlineMs, options)
      makeSafeAndConcurrent(client, warn)
    }
    return new Connection(fileSource(path, driver, prepare), options.statementTimeoutMs)
  }
  const writer = connectionFor(settings.onWarning)
  const reader = connectionFor(() => {})
  try {
    for (const connection of [writer, reader]) await connection.run(`open the file "${path}"`, () => {})
  } catch (error) {
    await Promise.all([writer.close(), reader.close()])
    throw withAdvice(path, error)
  }
  return new SqliteStore({ ...settings, writer, reader, hints: new Hints(), path })
}

/** Loaded late, because Drizzle's part for this driver imports the driver itself. */
async function loadStore() {
  const { SqliteStore } = await loadDriver(driverPackage, () => import('./store.js'))
  return SqliteStore
}

function settingsOf(options: SqliteOptions) {
  const { namespace, nowMs = Date.now, identity, freshTurn = nextTurn, onWarning = () => {} } = options
  return { namespace, nowMs, identity, freshTurn, onWarning }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

async function installedDriver(): Promise<Driver> {
  const { default: driver } = await loadDriver(driverPackage, () => import('better-sqlite3'))
  // A CommonJS bundle does not know its location. That it lacks the migrations is reported later.
  const here: string | undefined = import.meta.url
  const { version } = createRequire(here ?? `${process.cwd()}/`)('better-sqlite3/package.json') as {
    version: string
  }
  refuseUnfit(version, process.versions.napi ?? '')
  return driver
}

/**
 * Returns the user's own copy of the driver. Two copies of SQLite in one process that have the same file open break
 * each other's locks, because POSIX drops the locks on a file when any of its descriptors is closed.
 */
function driverOf(database: Database): Driver {
  return database.constructor as Driver
}

/**
 * Returns the path as SQLite resolved it when the application opened the file, because the working directory may have
 * changed since. A database that is closed by now has only its name.
 */
function pathOf(database: Database): string {
  if (database.memory) {
    throw new CoordinationError(
      'WCO_OPTIONS',
      'database: expected a better-sqlite3 database over a file, but this one is in memory, where no other ' +
        'process can share it. For a trial in one process use "sqlite::memory:".',
    )
  }
  if (!database.open) return database.name.trim()
  // The first that is listed is "main". A select from the list would read the file, which may be locked or broken.
  const { file } = database.prepare('pragma database_list').get() as { file: string }
  return file
}

/**
 * Sets WAL, so that readers and the one writer do not delay each other. Sets FULL, because a commit undone by a power
 * failure would take tokens back, unnoticed, since the file stays the same one. FULL costs one more `fsync` for each
 * commit, and a node makes few commits.
 */
function makeSafeAndConcurrent(client: Database, warn: (message: string) => void): void {
  client.pragma('synchronous = FULL')
  try {
    const mode = client.pragma('journal_mode = WAL', { simple: true })
    if (mode !== 'wal') warn(`SQLite keeps journal mode "${mode}": readers and writers hold each other up.`)
  } catch (error) {
    // A file that cannot be written is detected and reported by the first write.
    if (!isReadOnly(error)) throw error
  }
}

const hintsOver = new WeakMap<Database, Map<string, Hints>>()

function sharedHints(database: Database, namespace: string): Hints {
  const ofDatabase = hintsOver.get(database) ?? new Map<string, Hints>()
  hintsOver.set(database, ofDatabase)
  const hints = ofDatabase.get(namespace) ?? new Hints()
  ofDatabase.set(namespace, hints)
  return hints
}

function migrate(client: Database, deadlineMs: number, options: SqliteOptions): Promise<void> {
  return runMigrations('sqlite', migrationTarget(client, deadlineMs), options)
}
