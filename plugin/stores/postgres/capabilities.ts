/** What the server at the other end can do. Determined once, when the store opens. */
import { type SQL, type SQLWrapper, sql } from 'drizzle-orm'
import type { ClientBase } from 'pg'
import { CoordinationError, StoreError } from '../../core/errors.js'
import type { Capabilities } from '../../core/store.js'
import { notPermitted, sqlState } from './failures.js'

/**
 * Computes the identity of the server.
 *
 * @param recorded the record of the server in the revision row, which may be null.
 */
export type Identity = (recorded: SQLWrapper) => SQL<string>

/** What a store must know about its server. */
export interface Server {
  /** The schema that contains the tables. */
  readonly schema: string
  /** How the database encodes text. */
  readonly encoding: string
  /** The search path by which the tables were found. Another connection may have a different one. */
  readonly searchPath: string
  /** The role as which the tables were found, if the connection has taken on another than it logged in as. */
  readonly role: string | undefined
  /** Whether the server can limit whole transactions, as PostgreSQL can from 17 on. */
  readonly limitsTransactions: boolean
  /** Computes the identity of the server, given what is on record. */
  readonly identity: Identity
  /**
   * Whether a pooler lends its connections to the server per transaction, or may do so. Then nothing that belongs to
   * a connection can be relied upon: statement names, settings, listening.
   */
  readonly pooled: boolean
  /** Whether notifications are received. */
  readonly listens: boolean
}

/** Hints are pushed when they are wanted and can be received. */
export function capabilitiesOf({ listens }: Server, wanted: { readonly push: boolean }): Capabilities {
  return { push: wanted.push && listens }
}

interface Found {
  readonly schema: string
  readonly encoding: string
  readonly path: string
  readonly role: string
  readonly process: string
  readonly standby: string
  readonly limit: string | null
}

/** Examines the server at the other end of a connection. */
export async function examine(client: ClientBase): Promise<Server> {
  const { rows } = await client.query<Found>(`
    select n.nspname as schema, current_setting('server_encoding') as encoding,
      current_setting('search_path') as path, coalesce(current_setting('role', true), 'none') as role,
      pg_backend_pid()::text as process, pg_is_in_recovery()::text as standby,
      current_setting('transaction_timeout', true) as limit
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.oid = to_regclass('coordination_nodes')`)
  const [row] = rows
  if (row === undefined) throw missingTables()
  if (row.standby === 'true')
    throw new StoreError('The database is a read-only standby. The address must lead to the primary.', 'none')
  if (!(await passesOver(client))) throw withoutSkipLocked()
  return {
    schema: row.schema,
    encoding: row.encoding,
    searchPath: row.path,
    role: row.role === 'none' ? undefined : row.role,
    limitsTransactions: row.limit !== null,
    identity: (await permits(client, 'select pg_walfile_name(pg_current_wal_lsn())'))
      ? () => sql<string>`${started} || '.' || ${timeline}`
      : asRecorded,
    ...(await connectionTraits(client, row.process)),
  }
}

async function connectionTraits(
  client: ClientBase,
  serverProcess: string,
): Promise<Pick<Server, 'pooled' | 'listens'>> {
  const pooled = String(greetedBy(client)) !== serverProcess
  const channel = 'coordination_probe'
  const listens = !pooled && (await permits(client, `listen ${channel}; unlisten ${channel}`))
  return { pooled, listens }
}

/** Changes when the server is restarted, including the restart after a crash of the whole server. */
const started = sql<string>`(extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint::text`

/**
 * Changes as soon as a standby is promoted: writes that the old primary had acknowledged may be missing. It is the
 * first part of the name of the log file that is being written.
 */
const timeline = sql<string>`substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)`

/**
 * The identity for a role that may not look at the log. Another process may have a role that may. If both told what
 * they see, each would take the server for another one than the other has recorded, and record its own, without end. So
 * the timeline on record counts for as long as the server has not been started again.
 */
function asRecorded(recorded: SQLWrapper): SQL<string> {
  return sql`
    case when ${recorded} like ${started} || '.%' then split_part(${recorded}, '#', 1) else ${started} end`
}

/**
 * Returns whether the server knows SKIP LOCKED, by which changes pass over rows that fences hold. Not every server
 * that speaks the protocol does. The statement is only explained, because a read-only database would refuse to
 * execute it.
 */
function passesOver(client: ClientBase): Promise<boolean> {
  const statement = 'explain select from coordination_leases where false for update skip locked'
  return succeeds(client, statement, unknownToServer)
}

/**
 * Returns whether a statement is known and allowed. Some hosted servers deny access to the log, or do not know
 * LISTEN.
 */
function permits(client: ClientBase, statement: string): Promise<boolean> {
  return succeeds(client, statement, [notPermitted, ...unknownToServer])
}

/** No such function, unknown syntax, not supported. */
const unknownToServer = ['42883', '42601', '0A000']

/**
 * Returns false when the statement fails for one of these reasons. Any other error is thrown, since it may not occur
 * the next time.
 */
async function succeeds(client: ClientBase, statement: string, reasons: readonly string[]): Promise<boolean> {
  try {
    await client.query(statement)
    return true
  } catch (error) {
    if (reasons.includes(sqlState(error) ?? '')) return false
    throw error
  }
}

/** Returns the server process that announced itself on this connection. A pooler makes one up. */
function greetedBy(client: ClientBase): unknown {
  return 'processID' in client ? client.processID : undefined
}

function withoutSkipLocked(): StoreError {
  return new StoreError(
    'The server does not know SKIP LOCKED, by which changes pass over rows that fences hold. PostgreSQL does since 9.5.',
    'none',
  )
}

function missingTables(): CoordinationError {
  return new CoordinationError(
    'WCO_SCHEMA_PENDING',
    'The migrations have been run, but their tables are not found. Does the search_path name their schema?',
  )
}
