/** Opens a store on PostgreSQL: the driver, its connections, the schema. */
import type { Client, ClientConfig, Pool } from 'pg'
import { CoordinationError, type StoreError } from '../../core/errors.js'
import { DedicatedConnection } from '../shared/dedicated.js'
import { loadDriver } from '../shared/driver.js'
import { rootOf, storeError, unusable } from '../shared/failures.js'
import { connectPatiently, type Limits, limitsWithin } from '../shared/limits.js'
import { runMigrations } from '../shared/migrate.js'
import { Statements } from '../shared/statements.js'
import { capabilitiesOf, examine, type Server } from './capabilities.js'
import { PooledConnections, type PoolSource, wayOf } from './connections.js'
import { isReadOnly, judgement, sqlState } from './failures.js'
import { Crowd, channelOf, Hints, pushedNodes } from './hints.js'
import { migrationTarget } from './migrations.js'
import { PostgresStore } from './store.js'

/** The options for opening a store on PostgreSQL. */
export interface PostgresOptions {
  /**
   * `postgres://user:password@host:port/name`, or a pool of `pg`. The store uses a given pool for changes and reads
   * until the application ends it, and never ends it itself. Heartbeats get a separate connection, made with the pool's
   * options.
   */
  readonly database: string | Pool
  readonly namespace: string
  /** Time limit of each verb, in milliseconds. */
  readonly statementTimeoutMs: number
  /** Whether pending migrations are run. If false, pending migrations are an error. */
  readonly migrate: boolean
  /** Whether hints are sent and received by NOTIFY and LISTEN. */
  readonly push: boolean
  /** Receives warnings: what works less well than it could, and what has broken and will be repaired. */
  onWarning(message: string, error?: unknown): void
}

type Driver = typeof import('pg')

/** Where connections come from. */
interface Source extends PoolSource {
  createClient(): Client
}

/**
 * Connects, runs the migrations, finds out what the server can do, and opens the connection for heartbeats.
 *
 * @throws StoreError when the database cannot be reached; CoordinationError `WCO_DRIVER_MISSING` when `pg` is not
 *   installed, `WCO_OPTIONS` when the URL cannot be read, and those of `runMigrations`.
 */
export async function openPostgresStore(options: PostgresOptions): Promise<PostgresStore> {
  const { default: driver } = await loadDriver('pg', () => import('pg'))
  const limits = limitsWithin(options.statementTimeoutMs)
  const source = sourceOf(driver, options.database, limits)
  const connections = new PooledConnections(source, limits)
  try {
    await reach(source, connections, limits)
    await runMigrations('postgres', migrationTarget(connections), { migrate: options.migrate })
    const server = await connections.lendPatiently('Looking at the server', ({ client }) => examine(client))
    if (source.own && !server.pooled) connections.tell(sessionSettings(limits))
    if (server.role !== undefined && !server.pooled) connections.takeOn(server.role)
    return await openOn(server, source, connections, limits, options)
  } catch (error) {
    await connections.close()
    throw storeError('Opening the store', 'none', error, judgement.advice(error))
  }
}

async function openOn(
  server: Server,
  source: Source,
  connections: PooledConnections,
  limits: Limits,
  options: PostgresOptions,
): Promise<PostgresStore> {
  // Imported only here, because this module imports the driver itself.
  const { drizzle } = await import('drizzle-orm/node-postgres')
  const { namespace, push, onWarning } = options
  const { schema, searchPath, limitsTransactions, identity, pooled } = server
  const pushes = capabilitiesOf(server, { push }).push
  if (push && !pushes) onWarning(withoutPush(server))
  if (!storesAnyText(server)) onWarning(aboutEncoding(server))
  const channel = pushes ? channelOf(schema, namespace) : undefined
  const crowd = new Crowd()
  const listening = (): string[] => (channel === undefined || crowd.crowded ? [] : [`listen ${channel}`])
  const capabilities = {
    get push() {
      return pushes && !crowd.crowded
    },
  }
  const hints = new Hints()
  const statements = new Statements()
  const heartbeats = new DedicatedConnection(
    wayOf(source.createClient, (payload) => hints.heard(payload)),
    {
      setUp: (client) => setUpHeartbeats(client, server, limits, listening()),
      restored: () => hints.wakeAll(),
      // The heartbeat itself reports, once, that the server is read-only.
      lost(error) {
        if (!isReadOnly(error))
          onWarning('The connection for heartbeats was lost, and will be made anew.', rootOf(error))
      },
    },
    limits.verbMs,
  )
  await connectPatiently(() => heartbeats.open(), limits).catch((error: unknown) => {
    throw unreachable(source, error)
  })
  return new PostgresStore({
    ...{
      capabilities,
      limits,
      schema,
      searchPath,
      limitsTransactions,
      channel,
      hints,
      statements,
      heartbeats,
      connections,
      crowd,
    },
    crowdChanged() {
      onWarning(aboutCrowd(crowd))
      const [statement = `unlisten ${channel}`] = listening()
      // A failure ends the connection, and its successor is set up according to the new state.
      heartbeats.ask('Listening for hints', (client) => client.query(statement)).catch(() => undefined)
    },
    terms: { namespace, identity, named: !pooled },
    database: (client) => drizzle({ client, logger: statements }),
    async close() {
      await heartbeats.close()
      await connections.close()
    },
  })
}

function sourceOf(driver: Driver['default'], database: string | Pool, limits: Limits): Source {
  return typeof database === 'string'
    ? ownSource(driver, database, limits)
    : lentSource(driver, database, limits)
}

/**
 * A few connections are enough, since a node makes one change at a time. One stays open when idle, so that a handover
 * does not have to connect first. Older drivers do not know `pipeline` and ignore it.
 */
const few = { min: 1, max: 3, idleTimeoutMillis: 10_000, pipeline: true }

function ownSource({ Client, Pool }: Driver['default'], url: string, limits: Limits): Source {
  const config = { connectionString: url, ...clientSettings(limits) }
  refuseUnreadable(() => new Client(config))
  refuseNameless(new Client(config))
  const createPool = (): Pool => new Pool({ ...config, ...few })
  return { pool: createPool(), own: true, createPool, createClient: () => new Client(config) }
}

/**
 * Takes the class and the options from the pool. The options are copied with their descriptors, because the password
 * is a non-enumerable property.
 */
function lentSource({ Pool }: Driver['default'], pool: Pool, limits: Limits): Source {
  const ClientClass: new (config?: ClientConfig) => Client = Reflect.get(pool, 'Client')
  const described = Object.getOwnPropertyDescriptors(pool.options)
  const optionsWith = <More extends object>(more: More): ClientConfig & More =>
    Object.assign(Object.defineProperties({}, described), clientSettings(limits), more)
  return {
    pool,
    own: false,
    createPool: () => new Pool(optionsWith({ ...few, Client: ClientClass })),
    createClient: () => new ClientClass(optionsWith({})),
  }
}

/**
 * Keepalive detects the loss of the other machine while no request is pending. The name is what the server's lists of
 * connections show, unless the application has set one.
 */
function clientSettings({ verbMs }: Limits) {
  return {
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    connectionTimeoutMillis: verbMs,
    fallback_application_name: 'fastify-worker-coordination',
  }
}

/** Replaces the driver's own error, which contains the URL and so the password. */
function refuseUnreadable(createClient: () => Client): void {
  try {
    createClient()
  } catch {
    throw new CoordinationError(
      'WCO_OPTIONS',
      'database: expected a URL like postgres://user:password@host:5432/name, got one that cannot be read. ' +
        'Special characters in the user or password must be percent-encoded.',
    )
  }
}

/** Requires the name of a database. The driver would use the user's name instead, but not every environment has one. */
function refuseNameless({ database }: Client): void {
  if (database) return
  throw new CoordinationError(
    'WCO_OPTIONS',
    'database: expected the name of a database on the server, as in postgres://user:password@host:5432/name, got none.',
  )
}

/**
 * Returns the settings of a connection that only this store uses. They are sent before its first use. At a stricter
 * isolation level, where that is the default of the database or the role, a heartbeat that meets a change of its node
 * would fail.
 */
function sessionSettings({ statementMs, lockMs, silenceMs }: Limits): string {
  return `set statement_timeout = ${statementMs}; set lock_timeout = ${lockMs};
    set idle_in_transaction_session_timeout = ${silenceMs}; set jit = off;
    set default_transaction_isolation = 'read committed'; ${planOnce}; ${unlimited}`
}

/**
 * By default the server plans a prepared statement anew for its first five executions, which costs more than
 * executing it. No parameter value of ours could lead to a better plan. Servers before 12 do not know the setting.
 */
const planOnce = `select set_config(name, 'force_generic_plan', false) from pg_settings where name = 'plan_cache_mode'`

/**
 * The limit for idle connections, where the database or the role has one, may be shorter than the pause between two
 * heartbeats, and that for transactions shorter than the wait for a row. Servers before 14 and 17 do not know them.
 */
const unlimited = `select set_config(name, '0', false) from pg_settings
  where name in ('idle_session_timeout', 'transaction_timeout')`

/**
 * Sets up the connection for heartbeats. It has the search path and the role of the other connections, which an
 * application may set up as it opens them.
 */
async function setUpHeartbeats(
  client: Client,
  { pooled, searchPath, role }: Server,
  limits: Limits,
  listening: readonly string[],
): Promise<void> {
  if (pooled) return
  const taken = Object.entries({ search_path: searchPath, ...(role === undefined ? {} : { role }) })
  const settings = [
    sessionSettings(limits),
    ...taken.map(([name, value]) => `select set_config('${name}', ${client.escapeLiteral(value)}, false)`),
    ...listening,
  ]
  await client.query(settings.join('; '))
}

async function reach(source: Source, connections: PooledConnections, limits: Limits): Promise<void> {
  try {
    await connectPatiently(() => connections.lend('Connecting', async () => undefined), limits)
  } catch (error) {
    throw unreachable(source, error)
  }
}

function unreachable({ createClient }: Source, error: unknown): StoreError {
  const { host, port, database } = createClient()
  const cause = rootOf(error)
  return unusable(`PostgreSQL database "${database}" at ${host}:${port}`, cause, connectionAdvice(cause))
}

function connectionAdvice(error: unknown): string {
  const state = sqlState(error) ?? ''
  if (state.startsWith('28')) return 'Check the user and the password.'
  if (state === '3D000') return 'Create the database, or check its name.'
  if (state === '53300') return connectionLimitAdvice(error)
  if (state === '57P03') return 'The server is starting or stopping: try again.'
  return 'Check host and port, that the server is running and lets this machine in, and whether it wants SSL.'
}

/**
 * The server, the database and the role each have a limit, with one code for all three. Messages are translated; the
 * names of the server's functions are not.
 */
function connectionLimitAdvice(error: unknown): string {
  const routine =
    typeof error === 'object' && error !== null && 'routine' in error ? error.routine : undefined
  if (routine === 'InitializeSessionUserId') {
    return "Raise the role's limit (alter role … connection limit …), or give its other applications fewer."
  }
  if (routine === 'CheckMyDatabase') {
    return "Raise the database's limit (alter database … connection limit …), or give other applications fewer."
  }
  return "Raise the server's max_connections, or give other applications fewer."
}

function aboutCrowd({ crowded }: Crowd): string {
  return crowded
    ? `There are more than ${pushedNodes} nodes: hints are not pushed any more, and news is polled.`
    : 'There are fewer nodes again: hints are pushed.'
}

/** SQL_ASCII stores bytes as they come. */
function storesAnyText({ encoding }: Server): boolean {
  return ['UTF8', 'SQL_ASCII'].includes(encoding)
}

function aboutEncoding({ encoding }: Server): string {
  return `The database is encoded in ${encoding}: reasons, actors and labels with characters it lacks are refused.`
}

function withoutPush({ pooled }: Server): string {
  const why = pooled
    ? 'a connection pooler stands in between; name the server itself, or set push: false'
    : 'the server does not listen'
  return `Hints are not pushed, and changes are noticed later: ${why}.`
}
