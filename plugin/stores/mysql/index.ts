/** Opens a store on MySQL or MariaDB: the driver, its connections, the schema. */
import type { ConnectionOptions, Pool, PoolOptions } from 'mysql2'
import { CoordinationError, type StoreError } from '../../core/errors.js'
import { DedicatedConnection } from '../shared/dedicated.js'
import { loadDriver } from '../shared/driver.js'
import { rootOf, storeError, unusable } from '../shared/failures.js'
import { Hints } from '../shared/hints.js'
import { connectPatiently, type Limits, limitsWithin } from '../shared/limits.js'
import { runMigrations } from '../shared/migrate.js'
import { property } from '../shared/property.js'
import { Statements } from '../shared/statements.js'
import { examine, refuseOtherEngines, type Server, settingsAnywhere } from './capabilities.js'
import { PooledConnections, sendInTurn, wayOf } from './connections.js'
import { errorNumber, isReadOnly, judgement } from './failures.js'
import { migrationTarget } from './migrations.js'
import type { MysqlStore } from './store.js'

/** The options for opening a store on MySQL or MariaDB. */
export interface MysqlOptions {
  /**
   * `mysql://user:password@host:port/name`, or a pool or connection of mysql2. The store makes its own connections
   * with the options of a given client. It never uses the client itself, and never ends it.
   */
  readonly database: string | MysqlClient
  readonly namespace: string
  /** Time limit of each verb, in milliseconds. */
  readonly statementTimeoutMs: number
  /** Whether pending migrations are run. If false, pending migrations are an error. */
  readonly migrate: boolean
  /** Receives warnings: what works less well than it could, and what has broken and will be repaired. */
  onWarning(message: string, error?: unknown): void
}

/** A pool or connection of mysql2, with callbacks or with promises. */
export type MysqlClient =
  | import('mysql2').Pool
  | import('mysql2').Connection
  | import('mysql2/promise').Pool
  | import('mysql2/promise').Connection

/** Where to connect, and as which user. */
type Target = Pick<ConnectionOptions, (typeof targetOptions)[number]>

/** The options taken from a pool or connection of the application: what leads to the server, and nothing else. */
const targetOptions = [
  ...(['host', 'port', 'localAddress', 'socketPath', 'stream', 'database'] as const),
  ...(['user', 'password', 'password2', 'password3', 'passwordSha1'] as const),
  ...(['ssl', 'authPlugins', 'authSwitchHandler', 'insecureAuth', 'enableCleartextPlugin'] as const),
]

/**
 * Connects, runs the migrations, finds out what the server can do, and opens the connection for heartbeats.
 *
 * @throws StoreError when the database cannot be reached or is not suitable; CoordinationError `WCO_DRIVER_MISSING`
 *   when `mysql2` is not installed, `WCO_OPTIONS` when the URL cannot be read, and those of `runMigrations`.
 */
export async function openMysqlStore(options: MysqlOptions): Promise<MysqlStore> {
  const { default: driver } = await loadDriver('mysql2', () => import('mysql2'))
  const limits = limitsWithin(options.statementTimeoutMs)
  const target = targetOf(options.database)
  const config = { ...target, ...connectionSettings(limits) }
  // Idle connections do not stay long. A few are enough, since a node makes one change at a time.
  const pool = poolOf(driver, { ...config, connectionLimit: 3, maxIdle: 2, idleTimeout: 10_000 })
  const connections = new PooledConnections(pool, limits)
  try {
    await connectPatiently(() => connections.lend('Connecting', async () => undefined), limits).catch(
      (error: unknown) => {
        throw unreachable(target, error)
      },
    )
    connections.tell([settingsAnywhere(limits)])
    const server = await connections.lendPatiently('Looking at the server', ({ client }) =>
      examine(client.promise()),
    )
    if (server.warning !== undefined) options.onWarning(server.warning)
    await runMigrations('mysql', migrationTarget(connections), { migrate: options.migrate })
    await connections.lendPatiently('Looking at the tables', ({ client }) =>
      refuseOtherEngines(client.promise()),
    )
    return await openOn(server, () => driver.createConnection(config), connections, limits, options)
  } catch (error) {
    await connections.close()
    throw storeError('Opening the store', 'none', error, judgement.advice(error))
  }
}

async function openOn(
  server: Server,
  create: () => import('mysql2').Connection,
  connections: PooledConnections,
  limits: Limits,
  { namespace, onWarning }: MysqlOptions,
): Promise<MysqlStore> {
  // Imported only here, because Drizzle's part for this driver imports the driver itself.
  const { MysqlStore } = await import('./store.js')
  const { schema, collation } = server
  const settings = server.settings(limits)
  connections.tell(settings)
  const heartbeats = new DedicatedConnection(
    wayOf(create),
    {
      setUp: (client) => sendInTurn(client, settings),
      // The heartbeat itself reports, once, that the server is read-only.
      lost(error) {
        if (!isReadOnly(error))
          onWarning('The connection for heartbeats was lost, and will be made anew.', rootOf(error))
      },
    },
    limits.verbMs,
  )
  await connectPatiently(() => heartbeats.open(), limits)
  return new MysqlStore({
    ...{ limits, schema, heartbeats, connections, transactions: server.transactions(limits) },
    ...{ terms: { namespace, collation }, hints: new Hints(), statements: new Statements() },
    async close() {
      await heartbeats.close()
      await connections.close()
    },
  })
}

function targetOf(database: string | MysqlClient): Target {
  const target = typeof database === 'string' ? targetOfUrl(database) : targetOfClient(database)
  if (target.database) return target
  throw new CoordinationError(
    'WCO_OPTIONS',
    'database: expected the name of a database on the server, as in mysql://user:password@host:3306/name, ' +
      'got none.',
  )
}

/** Parses the URL. The driver would also accept options from it that a URL must not decide. */
function targetOfUrl(text: string): Target {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined) throw unreadable('one that cannot be read')
  const { ssl, socketPath, ...unknown } = Object.fromEntries(url.searchParams)
  const [first] = Object.keys(unknown)
  if (first !== undefined) throw unreadable(`one with the parameter ${JSON.stringify(first)}`)
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: Number(url.port || 3306),
    user: decoded(url.username),
    password: decoded(url.password),
    database: decoded(url.pathname.slice(1)),
    ...(socketPath === undefined ? {} : { socketPath }),
    ...(ssl === undefined || ssl === 'false' ? {} : { ssl: sslOf(ssl) }),
  }
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    throw unreadable('one that cannot be read')
  }
}

/** The driver knows its profiles of `ssl`, and refuses another name when it makes the pool. */
function poolOf(driver: typeof import('mysql2'), options: PoolOptions): Pool {
  try {
    return driver.createPool(options)
  } catch {
    throw unreadable('one whose parameter "ssl" names no profile of the driver')
  }
}

/** Accepts options of `node:tls` as JSON, or the name of a profile of the driver, such as `Amazon RDS`. */
function sslOf(text: string): Exclude<ConnectionOptions['ssl'], undefined> {
  if (!text.startsWith('{')) return text === 'true' ? {} : text
  try {
    return JSON.parse(text)
  } catch {
    throw unreadable('one whose parameter "ssl" is no JSON')
  }
}

/** The message must not contain any part of the URL, because any part may hold a password. */
function unreadable(got: string): CoordinationError {
  return new CoordinationError(
    'WCO_OPTIONS',
    `database: expected a URL like mysql://user:password@host:3306/name, with "ssl" or "socketPath" as ` +
      `parameters at most, got ${got}. Special characters in the user or password must be percent-encoded.`,
  )
}

/** A client with promises contains one with callbacks. A pool keeps the options of its connections one level deeper. */
function targetOfClient(client: MysqlClient): Target {
  const inner = property(client, 'pool') ?? property(client, 'connection') ?? client
  const config = property(inner, 'config')
  const options = property(config, 'connectionConfig') ?? config
  return Object.fromEntries(
    targetOptions.map((name) => [name, property(options, name)]).filter(([, value]) => value !== undefined),
  )
}

/**
 * Keepalive detects the loss of the other machine while no request is pending. Row counts are of rows that were
 * altered, not merely found, contrary to the driver's default. JSON stays a text, as it is on MariaDB anyway. The
 * name is what the server's lists of connections show.
 */
function connectionSettings({ verbMs }: Limits) {
  return {
    enableKeepAlive: true,
    keepAliveInitialDelay: 10_000,
    connectTimeout: verbMs,
    charset: 'utf8mb4',
    flags: ['-FOUND_ROWS'],
    supportBigNumbers: true,
    jsonStrings: true,
    multipleStatements: false,
    connectAttributes: { program_name: 'fastify-worker-coordination' },
  }
}

function unreachable({ host, port, database }: Target, error: unknown): StoreError {
  const cause = rootOf(error)
  return unusable(`MySQL database "${database}" at ${host}:${port}`, cause, connectionAdvice(cause))
}

function connectionAdvice(error: unknown): string {
  const number = errorNumber(error)
  // The server says the same where it wants SSL, for all or for this user.
  if (number === 1045 || number === 1698)
    return 'Check the user and the password, and whether the server wants SSL.'
  if (number === 1044 || number === 1049)
    return 'Create the database, check its name, and grant the user the rights that docs/databases/mysql.md lists.'
  if (number === 1040) return "Raise the server's max_connections, or give other applications fewer."
  if (number === 1203 || number === 1226) {
    return "Raise the user's max_user_connections, or give its other applications fewer."
  }
  if (number === 1053) return 'The server is stopping: try again.'
  if (property(error, 'code') === 'HANDSHAKE_SSL_ERROR')
    return 'Check the server\'s certificate and what "ssl" says: docs/databases/mysql.md tells which are trusted.'
  return 'Check host and port, that the server is running and lets this machine in, and whether it wants SSL.'
}
