/** Opening a store on PostgreSQL: the driver, its connections, the schema. */
import type { Client, ClientConfig, Pool } from 'pg'
import { CoordinationError, type StoreError } from '../../core/errors.js'
import { DedicatedConnection } from '../shared/dedicated.js'
import { loadDriver } from '../shared/driver.js'
import { rootOf, storeError, unusable } from '../shared/failures.js'
import { connectPatiently, type Limits, limitsWithin } from '../shared/limits.js'
import { runMigrations } from '../shared/migrate.js'
import { Statements } from '../shared/statements.js'
import { capabilitiesOf, examine, type Server } from './capabilities.js'
import { PooledConnections, wayOf } from './connections.js'
import { isReadOnly, judgement, sqlState } from './failures.js'
import { Crowd, channelOf, Hints, pushedNodes } from './hints.js'
import { migrationTarget } from './migrations.js'
import { PostgresStore } from './store.js'

/** How a store on PostgreSQL is opened. */
export interface PostgresOptions {
  /**
   * `postgres://user:password@host:port/name`, or a pool of `pg`. A pool serves changes and reads, and is never
   * ended; heartbeats get a connection of their own besides, made with the pool's options.
   */
  readonly database: string | Pool
  readonly namespace: string
  /** Within which each verb ends. */
  readonly statementTimeoutMs: number
  /** Whether pending migrations are run; otherwise they are an error. */
  readonly migrate: boolean
  /** Whether hints are sent and heard by NOTIFY and LISTEN. */
  readonly push: boolean
  /** Told what works less well than it could, and what has broken and will be mended. */
  onWarning(message: string, error?: unknown): void
}

type Driver = typeof import('pg')

/** Where connections come from. */
interface Source {
  readonly pool: Pool
  /** The pool was made here: nobody else uses its connections, and it ends with the store. */
  readonly own: boolean
  createClient(): Client
}

/**
 * Connects, runs the migrations, finds out what the server can do, and opens the connection for heartbeats.
 *
 * @throws StoreError when the database cannot be reached. CoordinationError `WCO_DRIVER_MISSING` when `pg` is
 * not installed, `WCO_OPTIONS` when the URL cannot be read, and those of `runMigrations`.
 */
export async function openPostgresStore(options: PostgresOptions): Promise<PostgresStore> {
  const { default: driver } = await loadDriver('pg', () => import('pg'))
  const limits = limitsWithin(options.statementTimeoutMs)
  const source = sourceOf(driver, options.database, limits)
  const connections = new PooledConnections(source.pool, limits, source)
  try {
    await reach(source, connections, limits)
    await runMigrations('postgres', migrationTarget(connections), { migrate: options.migrate })
    const server = await connections.lendPatiently('Looking at the server', ({ client }) => examine(client))
    if (source.own && !server.pooled) connections.tell(sessionSettings(limits))
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
  // It imports the driver when it is loaded itself.
  const { drizzle } = await import('drizzle-orm/node-postgres')
  const { namespace, push, onWarning } = options
  const { schema, identity, pooled } = server
  const pushes = capabilitiesOf(server, { push }).push
  if (push && !pushes) onWarning(withoutPush(server))
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
      // That the server only reads is told by the heartbeat itself, once.
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
    ...{ capabilities, limits, schema, channel, hints, statements, heartbeats, connections, crowd },
    crowdChanged() {
      onWarning(aboutCrowd(crowd))
      const [statement = `unlisten ${channel}`] = listening()
      // A failure ends the connection, and the next one is set up as it now should be.
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
  return typeof database === 'string' ? ownSource(driver, database, limits) : lentSource(database, limits)
}

/**
 * A few are enough, since a node makes one change at a time. One stays when nothing is going on, for whoever hands over
 * or takes over then should not have to connect first. Older drivers know no `pipeline` and leave it alone.
 */
function ownSource({ Client, Pool }: Driver['default'], url: string, limits: Limits): Source {
  const config = { connectionString: url, ...clientSettings(limits) }
  refuseUnreadable(() => new Client(config))
  refuseNameless(new Client(config))
  const pool = new Pool({ ...config, min: 1, max: 3, idleTimeoutMillis: 10_000, pipeline: true })
  return { pool, own: true, createClient: () => new Client(config) }
}

/**
 * The pool's class and options, copied with their descriptors: the password is a property that does
 * not show when they are enumerated.
 */
function lentSource(pool: Pool, limits: Limits): Source {
  const ClientClass: new (config: ClientConfig) => Client = Reflect.get(pool, 'Client')
  const options: ClientConfig = Object.defineProperties({}, Object.getOwnPropertyDescriptors(pool.options))
  Object.assign(options, clientSettings(limits))
  return { pool, own: false, createClient: () => new ClientClass(options) }
}

/**
 * Keepalive finds out that the other machine is gone while nothing is being asked. The name is what the
 * server's lists of connections show, unless the application has given one.
 */
function clientSettings({ verbMs }: Limits) {
  return {
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    connectionTimeoutMillis: verbMs,
    fallback_application_name: 'fastify-worker-coordination',
  }
}

/** The driver's own error carries the URL, and so the password. */
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

/** The driver takes the user's name for it, but not everywhere is there a user. */
function refuseNameless({ database }: Client): void {
  if (database) return
  throw new CoordinationError(
    'WCO_OPTIONS',
    'database: expected the name of a database on the server, as in postgres://user:password@host:5432/name, got none.',
  )
}

/** What a connection that nobody else uses is told before its first use. */
function sessionSettings({ statementMs, lockMs, silenceMs }: Limits): string {
  return `set statement_timeout = ${statementMs}; set lock_timeout = ${lockMs};
    set idle_in_transaction_session_timeout = ${silenceMs}; set jit = off; ${planOnce}`
}

/**
 * By itself the server plans a prepared statement anew for its first five times, which costs more than carrying it
 * out. No value that ours are given could make a plan better. Servers before 12 do not know the setting.
 */
const planOnce = `select set_config(name, 'force_generic_plan', false) from pg_settings where name = 'plan_cache_mode'`

/**
 * What the connection for heartbeats is told. Its tables are found as on the other connections, which an application
 * may set up as it opens them.
 */
async function setUpHeartbeats(
  client: Client,
  { pooled, searchPath }: Server,
  limits: Limits,
  listening: readonly string[],
): Promise<void> {
  if (pooled) return
  const settings = [
    sessionSettings(limits),
    `select set_config('search_path', ${client.escapeLiteral(searchPath)}, false)`,
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
  if (state === '53300') return "Raise the server's max_connections, or give other applications fewer."
  if (state === '57P03') return 'The server is starting or stopping: try again.'
  return 'Check host and port, that the server is running and lets this machine in, and whether it wants SSL.'
}

function aboutCrowd({ crowded }: Crowd): string {
  return crowded
    ? `There are more than ${pushedNodes} nodes: hints are not pushed any more, and news is polled.`
    : 'There are fewer nodes again: hints are pushed.'
}

function withoutPush({ pooled }: Server): string {
  const why = pooled
    ? 'a connection pooler stands in between; name the server itself, or set push: false'
    : 'the server does not listen'
  return `Hints are not pushed, and changes are noticed later: ${why}.`
}
