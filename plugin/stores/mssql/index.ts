/** Opens a store on SQL Server: the driver, its connections, the schema. */
import type { ConnectionPool, config } from 'mssql'
import { CoordinationError, type StoreError } from '../../core/errors.js'
import { loadDriver } from '../shared/driver.js'
import { messageOf, storeError, unusable } from '../shared/failures.js'
import { Hints } from '../shared/hints.js'
import { connectPatiently, type Limits, limitsWithin } from '../shared/limits.js'
import { runMigrations } from '../shared/migrate.js'
import { Statements } from '../shared/statements.js'
import { examine, refuseOld } from './capabilities.js'
import { Connections } from './connections.js'
import { driverCode, driverErrorIn, judgement } from './failures.js'
import { migrationTarget } from './migrations.js'
import { Queries, rehearsals } from './queries.js'
import { MssqlStore } from './store.js'

/** The options for opening a store on SQL Server. */
export interface MssqlOptions {
  /**
   * `mssql://user:password@host:port/name?encrypt=true`, or a `ConnectionPool` of `mssql`. The store uses only the
   * settings of a given pool, and makes its own connections.
   */
  readonly database: string | ConnectionPool
  readonly namespace: string
  /** Time limit of each verb, in milliseconds. */
  readonly statementTimeoutMs: number
  /** Whether pending migrations are run. If false, pending migrations are an error. */
  readonly migrate: boolean
  /** Receives warnings about anything that works less well than it could. */
  onWarning(message: string, error?: unknown): void
}

/** What to install when the driver is missing. Version 12 works, but Drizzle requires 11. */
const driverPackage = 'mssql@11'

type Driver = typeof import('mssql')

/**
 * Connects, runs the migrations, finds out what the server can do, and prepares the connections.
 *
 * @throws StoreError when the database cannot be reached or is not suitable; CoordinationError `WCO_DRIVER_MISSING`
 *   when `mssql` is not installed, `WCO_OPTIONS` when the URL cannot be read, and those of `runMigrations`.
 */
export async function openMssqlStore(options: MssqlOptions): Promise<MssqlStore> {
  // The driver is CommonJS: all of it is the default export.
  const { default: driver } = await loadDriver(driverPackage, () => import('mssql'))
  const limits = limitsWithin(options.statementTimeoutMs)
  const settings = settingsOf(options.database)
  const connections = connectionsOf(driver, settings, limits, 3)
  const heartbeats = connectionsOf(driver, settings, limits, 1)
  const close = async (): Promise<void> => {
    await Promise.all([heartbeats.close(), connections.close()])
  }
  try {
    await reach(settings, connections)
    await connections.lendPatiently('Looking at the server', refuseOld)
    await runMigrations('mssql', migrationTarget(connections), { migrate: options.migrate })
    const server = await connections.lendPatiently('Looking at the server', examine)
    if (server.warning !== undefined) options.onWarning(server.warning)
    await reach(settings, heartbeats)
    const { ofHeartbeats, ofChanges } = rehearsals()
    await Promise.all([
      heartbeats.rehearse(server.identitySql, ofHeartbeats),
      connections.rehearse(server.identitySql, ofChanges),
    ])
    const { namespace } = options
    return new MssqlStore({
      ...{ namespace, limits, schema: server.schema, queries: new Queries(namespace) },
      ...{ hints: new Hints(), statements: new Statements(), heartbeats, connections, close },
    })
  } catch (error) {
    await close()
    throw storeError('Opening the store', 'none', error, judgement.advice(error))
  }
}

/**
 * Idle connections do not stay long, except one, so that a handover does not have to prepare a connection first. The
 * connection for heartbeats is never idle for long.
 */
function connectionsOf(driver: Driver, settings: config, limits: Limits, most: number): Connections {
  const pool = new driver.ConnectionPool({ ...settings, ...ourSettings(settings, limits, most) })
  const types = { text: driver.NVarChar(driver.MAX), number: { type: driver.BigInt } }
  return new Connections({ pool, limits, types })
}

/**
 * Errors undo the whole transaction. Connections are not validated beforehand, because a lost one is detected when it
 * is next used. The name is what the server's lists of sessions show, unless the application has set one.
 */
function ourSettings({ options = {} }: config, limits: Limits, most: number) {
  const connectMs = connectMsWithin(limits)
  return {
    connectionTimeout: connectMs,
    requestTimeout: 0,
    stream: false,
    arrayRowMode: false,
    parseJSON: false,
    validateConnection: false,
    pool: { max: most, min: 1, idleTimeoutMillis: 10_000 },
    options: {
      appName: 'fastify-worker-coordination',
      ...Object.fromEntries(Object.entries(options).filter(([name]) => ways.has(name))),
      ...{ abortTransactionOnError: true, enableImplicitTransactions: false, useUTC: true },
      ...{ connectTimeout: connectMs, requestTimeout: 0, cancelTimeout: limits.verbMs },
    },
  }
}

/**
 * The limit of connecting, which takes several round trips, and more with encryption. A connection that takes longer
 * than the verb that needed it serves a later verb.
 */
function connectMsWithin({ verbMs }: Limits): number {
  return Math.max(5_000, verbMs)
}

/** The options taken from an application's pool: what leads to the server, and nothing else. */
const ways = new Set([
  ...['encrypt', 'trustServerCertificate', 'serverName', 'cryptoCredentialsDetails', 'tdsVersion'],
  ...['instanceName', 'localAddress', 'multiSubnetFailover', 'connector', 'appName', 'workstationId'],
])

function settingsOf(database: string | ConnectionPool): config {
  return typeof database === 'string' ? readUrl(database) : Reflect.get(database, 'config')
}

/** The parameters that a URL may have, by the driver's names for them. */
const encrypted: Readonly<Record<string, boolean | 'strict'>> = { true: true, false: false, strict: 'strict' }
const switches = ['trustServerCertificate', 'multiSubnetFailover']
const texts = ['instanceName', 'appName', 'serverName']

function readUrl(text: string): config {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const database = decoded(url?.pathname.slice(1))
  const [user, password] = [decoded(url?.username), decoded(url?.password)]
  if (!url?.hostname || !database || user === undefined || password === undefined)
    throw unreadable('one that cannot be read')
  return {
    server: url.hostname.replace(/^\[|\]$/g, ''),
    ...(url.port === '' ? {} : { port: Number(url.port) }),
    ...{ user, password, database },
    options: Object.fromEntries([...url.searchParams].map(([name, value]) => [name, optionOf(name, value)])),
  }
}

function optionOf(name: string, value: string): unknown {
  if (name === 'encrypt' && Object.hasOwn(encrypted, value)) return encrypted[value]
  if (switches.includes(name) && (value === 'true' || value === 'false')) return value === 'true'
  if (texts.includes(name) && value !== '') return value
  const isKnown = ['encrypt', ...switches, ...texts].includes(name)
  throw unreadable(
    isKnown
      ? `one whose parameter ${JSON.stringify(name)} has a value that it cannot have`
      : `one with the parameter ${JSON.stringify(name)}`,
  )
}

function decoded(part: string | undefined): string | undefined {
  try {
    return decodeURIComponent(part ?? '')
  } catch {
    return undefined
  }
}

/** The URL contains the password, so the message repeats nothing of it but the name of a parameter. */
function unreadable(got: string): CoordinationError {
  return new CoordinationError(
    'WCO_OPTIONS',
    `database: expected a URL like mssql://user:password@host:1433/name?encrypt=true, got ${got}. ` +
      'Special characters in the user or password must be percent-encoded; after the question mark may stand ' +
      `${['encrypt', ...switches, ...texts].join(', ')}.`,
  )
}

async function reach(settings: config, connections: Connections): Promise<void> {
  try {
    await connectPatiently(() => connections.open(), connections.limits, connectMsWithin(connections.limits))
  } catch (error) {
    throw unreachable(settings, error)
  }
}

function unreachable({ server, port = 1433, database = '' }: config, error: unknown): StoreError {
  const cause = driverErrorIn(error)
  return unusable(`SQL Server database "${database}" at ${server}:${port}`, cause, connectionAdvice(cause))
}

function connectionAdvice(error: unknown): string {
  if (driverCode(error) === 'ELOGIN') return 'Check the user, the password and the name of the database.'
  if (/certificate/i.test(messageOf(error)))
    return 'Give the server a certificate that this machine trusts, or add trustServerCertificate=true to the URL.'
  return 'Check host and port, that the server is running and lets this machine in, and whether it wants encryption.'
}
