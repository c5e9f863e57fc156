/** Opening a store on SQLite: the driver, the connection of its own, the schema. */
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

/** How a store on SQLite is opened. */
export interface SqliteOptions {
  readonly namespace: string
  /** How long a verb may take, waiting for other processes included. */
  readonly statementTimeoutMs: number
  /** Whether pending migrations are run; otherwise they are an error. */
  readonly migrate: boolean
  /** The database's clock. Default: the host's, since SQLite has no server with another. */
  readonly nowMs?: () => number
  /** The server's identity, for a simulated world. Default: that of the file, or of the database object. */
  readonly identity?: () => string
  /** Resolves in a fresh turn of the event loop, for a simulated world. Default: by `setImmediate`. */
  readonly freshTurn?: () => Promise<void>
  /** Told what works less well than it could. Default: nobody is. */
  readonly onWarning?: (message: string, error?: unknown) => void
}

/**
 * Opens a store with a connection of its own.
 *
 * @param options.database the path of a file, made when it is missing; `':memory:'` for a database that
 * nobody shares; or a better-sqlite3 `Database`, whose file is opened a second time: statements of the
 * application must not get into our transactions.
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
 * A store over a database object that is already open and that it will not close. Several stores may share the
 * object and take turns, each being a node of its own: a whole fleet in one process.
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

/** Late, because Drizzle's part for this driver imports the driver itself. */
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
  // A bundle of CommonJS does not know its place; it is told later what it lacks.
  const here: string | undefined = import.meta.url
  const { version } = createRequire(here ?? `${process.cwd()}/`)('better-sqlite3/package.json') as {
    version: string
  }
  refuseUnfit(version, process.versions.napi ?? '')
  return driver
}

/**
 * The user's own copy of the driver. Two copies of SQLite in one process that have the same file open break each
 * other's locks: what POSIX locks, it unlocks when any descriptor of the file is closed.
 */
function driverOf(database: Database): Driver {
  return database.constructor as Driver
}

function pathOf(database: Database): string {
  if (!database.memory) return database.name
  throw new CoordinationError(
    'WCO_OPTIONS',
    'database: expected a better-sqlite3 database over a file, but this one is in memory, where no other ' +
      'process can share it. For a trial in one process use "sqlite::memory:".',
  )
}

/**
 * WAL, so that readers and the one writer do not hold each other up. FULL, because a commit that a power cut takes
 * back would take tokens back: the file stays the same one, so nobody would notice. It costs one more
 * `fsync` for each commit, and a node makes few.
 */
function makeSafeAndConcurrent(client: Database, warn: (message: string) => void): void {
  client.pragma('synchronous = FULL')
  try {
    const mode = client.pragma('journal_mode = WAL', { simple: true })
    if (mode !== 'wal') warn(`SQLite keeps journal mode "${mode}": readers and writers hold each other up.`)
  } catch (error) {
    // A file that cannot be written is found out by the first write, which says so.
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
