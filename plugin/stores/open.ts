/** Opens the store that the option `database` describes: recognises the database, then loads its dialect. */
import { CoordinationError } from '../core/errors.js'
import type { Log } from '../core/log.js'
import type { Store } from '../core/store.js'
import { clientInside } from './shared/fencing.js'

/** The options for opening a store, on any database. */
export interface OpenStoreOptions {
  /**
   * A URL (`postgres://…`, `mysql://…`, `mariadb://…`, `mssql://…`, `sqlite:path`, `sqlite::memory:`), a driver's
   * client (a `pg.Pool`, a pool or connection of mysql2, a `ConnectionPool` of mssql, a better-sqlite3 `Database`),
   * or a Drizzle database over one of these.
   */
  readonly database: string | object
  readonly namespace: string
  /** Time limit of each verb of the store, in milliseconds. */
  readonly statementTimeoutMs: number
  /** Whether pending migrations are run. If false, pending migrations are an error. */
  readonly migrate: boolean
  /** Whether PostgreSQL is asked to push hints, which takes a connection of its own. */
  readonly push: boolean
  /** Receives warnings about anything that works less well than it could. */
  readonly log: Pick<Log, 'warn'>
}

/**
 * Opens the store for a database. Loads only the files and the driver of that database.
 *
 * @throws CoordinationError `WCO_OPTIONS` when the database is of no supported kind, `WCO_DRIVER_MISSING`,
 *   `WCO_SCHEMA_NEWER`, `WCO_SCHEMA_PENDING`; StoreError when the database cannot be reached.
 */
export async function openStore(options: OpenStoreOptions): Promise<Store> {
  const { namespace, statementTimeoutMs, migrate, push, log } = options
  const onWarning = (message: string, error?: unknown): void =>
    log.warn(error === undefined ? {} : { err: error }, message)
  const common = { namespace, statementTimeoutMs, migrate, onWarning }
  const place = placeOf(options.database)
  if (place.dialect === 'postgres') {
    const { openPostgresStore } = await import('./postgres/index.js')
    return openPostgresStore({ ...common, database: place.database, push })
  }
  if (place.dialect === 'mysql') {
    const { openMysqlStore } = await import('./mysql/index.js')
    return openMysqlStore({ ...common, database: place.database })
  }
  if (place.dialect === 'mssql') {
    const { openMssqlStore } = await import('./mssql/index.js')
    return openMssqlStore({ ...common, database: place.database })
  }
  const { openSqliteStore } = await import('./sqlite/index.js')
  return openSqliteStore({ ...common, database: place.database })
}

/** Returns what is wrong with the option `database`, as far as that shows without connecting: a sentence that begins so. */
export function databaseProblem(database: unknown): string | undefined {
  try {
    placeOf(database)
    return undefined
  } catch (error) {
    if (error instanceof CoordinationError) return error.message
    throw error
  }
}

type Place =
  | { readonly dialect: 'postgres'; readonly database: string | PgPool }
  | { readonly dialect: 'mysql'; readonly database: string | MysqlClient }
  | { readonly dialect: 'mssql'; readonly database: string | MssqlPool }
  | { readonly dialect: 'sqlite'; readonly database: string | SqliteDatabase }

// These are types only and load no driver.
type PgPool = import('pg').Pool
type MysqlClient = import('./mysql/index.js').MysqlClient
type MssqlPool = import('mssql').ConnectionPool
type SqliteDatabase = import('better-sqlite3').Database

/** Drizzle's database exposes its client since version 0.34. Before that it was only in its session. */
function placeOf(database: unknown): Place {
  if (typeof database === 'string') return placeOfUrl(database)
  const client = has(database, '$client') ? database.$client : (clientInside(database) ?? database)
  if (isSqliteDatabase(client)) return { dialect: 'sqlite', database: client }
  if (isPgPool(client)) return { dialect: 'postgres', database: client }
  if (isMysqlClient(client)) return { dialect: 'mysql', database: client }
  if (isMssqlPool(client)) return { dialect: 'mssql', database: client }
  if (has(client, 'pool') && isMssqlPool(client.pool)) return { dialect: 'mssql', database: client.pool }
  throw notADatabase(describe(client))
}

function placeOfUrl(url: string): Place {
  const scheme = /^[a-z]+(?=:)/i.exec(url)?.[0].toLowerCase()
  // A driver would take all of it, with a password it may contain, for the name of a database, which errors name.
  if (/^(postgres|postgresql|mysql|mariadb|mssql):(?!\/\/|$)/i.test(url))
    throw notADatabase('a URL without "//"')
  if (scheme !== 'sqlite' && /^\w+:\/\/\/[^?]*@/.test(url)) throw notADatabase('a URL without a host')
  // It was cut at a "/", "?" or "#" in the password, and errors would name the rest of that as host or database.
  if (scheme !== 'sqlite' && /^\w+:\/\/[^/?#]*(?=[/?#])[^?]*(?:\?[^=]*)?@/.test(url))
    throw notADatabase('a URL whose user or password has a special character that is not percent-encoded')
  if (scheme === 'postgres' || scheme === 'postgresql') return { dialect: 'postgres', database: url }
  if (scheme === 'mysql' || scheme === 'mariadb') return { dialect: 'mysql', database: url }
  if (scheme === 'mssql') return { dialect: 'mssql', database: url }
  if (scheme !== 'sqlite') throw notADatabase(describeUrl(url))
  // The driver, too, leaves out blanks and line ends around a path.
  const path = url.slice('sqlite:'.length).replace(/^\/\//, '').trim()
  if (path === '') throw notADatabase('a URL without a path')
  // They would become part of the file's name, and nodes that differ in them would not see each other.
  if (/^file:|[?]/i.test(path)) throw notADatabase('a sqlite: URL with parameters or with a URL as its path')
  return { dialect: 'sqlite', database: path }
}

function isSqliteDatabase(client: unknown): client is SqliteDatabase {
  return (
    has(client, 'prepare') && has(client, 'name') && has(client, 'memory') && has(client, 'inTransaction')
  )
}

/** Returns whether this is a pool. A single connection is not enough, because heartbeats need one of their own. */
function isPgPool(client: unknown): client is PgPool {
  return has(client, 'connect') && has(client, 'query') && has(client, 'totalCount') && has(client, 'options')
}

/** Accepts a single connection as well as a pool, because only the options are needed. */
function isMysqlClient(client: unknown): client is MysqlClient {
  const inner = has(client, 'pool') ? client.pool : has(client, 'connection') ? client.connection : client
  return has(client, 'query') && has(client, 'execute') && has(inner, 'config') && has(inner, 'promise')
}

/** Also used for the pool that Drizzle creates itself and keeps inside a client of its own. */
function isMssqlPool(client: unknown): client is MssqlPool {
  return (
    has(client, 'request') && has(client, 'transaction') && has(client, 'connect') && has(client, 'config')
  )
}

function has<N extends string>(value: unknown, name: N): value is Record<N, unknown> {
  return typeof value === 'object' && value !== null && name in value
}

function notADatabase(came: string): CoordinationError {
  return new CoordinationError(
    'WCO_OPTIONS',
    'database: expected a URL that begins with "postgres:", "postgresql:", "mysql:", "mariadb:", "mssql:" or ' +
      '"sqlite:", a pg.Pool, a pool or connection of mysql2, a ConnectionPool of mssql, a better-sqlite3 Database, or ' +
      `a Drizzle database over one of these, got ${came}.`,
  )
}

/** Describes a URL by its scheme only, because any other part of it may contain a password. */
function describeUrl(url: string): string {
  const scheme = /^[a-z][a-z0-9+.-]*(?=:\/\/)/i.exec(url)?.[0]
  if (scheme !== undefined) return `a URL that begins with "${scheme}:"`
  return url === '' ? 'an empty string' : 'a string that begins with none of these; a file is "sqlite:path"'
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value)
  if (typeof value !== 'object') return `a value of type ${typeof value}`
  const name = Object.getPrototypeOf(value)?.constructor?.name
  return typeof name === 'string' && name !== '' ? `an object of class ${name}` : 'an object'
}
