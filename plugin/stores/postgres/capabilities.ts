/**
 * What there is at the other end: found out once, when the store opens.
 */
import { type SQL, sql } from 'drizzle-orm'
import type { ClientBase } from 'pg'
import { CoordinationError, StoreError } from '../../core/errors.js'
import type { Capabilities } from '../../core/store.js'
import { notPermitted, sqlState } from './failures.js'

/** What a store must know of its server. */
export interface Server {
  /** Where the tables are found. */
  readonly schema: string
  /** By which settings they are found: another connection may have others. */
  readonly searchPath: string
  /** Says which life of the server this is. */
  readonly identity: SQL<string>
  /**
   * A pooler lends its own connections to the server out by the transaction, or may. Then nothing that
   * belongs to a connection can be relied upon: names of statements, settings, listening.
   */
  readonly pooled: boolean
  /** Notifications are heard. */
  readonly listens: boolean
}

/** Hints are pushed where they are wanted and heard. */
export function capabilitiesOf({ listens }: Server, wanted: { readonly push: boolean }): Capabilities {
  return { push: wanted.push && listens }
}

/** Asks a connection what is at its other end. */
export async function examine(client: ClientBase): Promise<Server> {
  const { rows } = await client.query<{ schema: string; path: string; process: number; standby: boolean }>(`
    select n.nspname as schema, current_setting('search_path') as path,
      pg_backend_pid() as process, pg_is_in_recovery() as standby
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.oid = to_regclass('coordination_nodes')`)
  const [row] = rows
  if (row === undefined) throw missingTables()
  if (row.standby)
    throw new StoreError('The database is a standby that only reads. Name the primary.', 'none')
  if (!(await passesOver(client))) throw withoutSkipLocked()
  return {
    schema: row.schema,
    searchPath: row.path,
    identity: (await permits(client, 'select pg_walfile_name(pg_current_wal_lsn())'))
      ? sql<string>`${started} || '.' || ${timeline}`
      : started,
    ...(await connectionTraits(client, row.process)),
  }
}

async function connectionTraits(
  client: ClientBase,
  serverProcess: number,
): Promise<Pick<Server, 'pooled' | 'listens'>> {
  const pooled = greetedBy(client) !== serverProcess
  const channel = 'coordination_probe'
  const listens = !pooled && (await permits(client, `listen ${channel}; unlisten ${channel}`))
  return { pooled, listens }
}

/** Changes when the server is started again, also after a crash of all of it. */
const started = sql<string>`(extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint::text`

/**
 * Changes when a standby is promoted, at once: what the old primary had acknowledged may be missing. It is
 * the first part of the name of the log file being written.
 */
const timeline = sql<string>`substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)`

/**
 * Changes pass over the rows that fences hold. Not every server that speaks the protocol can. It is explained, not done: a
 * database that only reads refuses it for that, which is no answer.
 */
function passesOver(client: ClientBase): Promise<boolean> {
  const statement = 'explain select from coordination_leases where false for update skip locked'
  return succeeds(client, statement, unknownToServer)
}

/** Some hosted servers let nobody look at the log, or do not know LISTEN. */
function permits(client: ClientBase, statement: string): Promise<boolean> {
  return succeeds(client, statement, [notPermitted, ...unknownToServer])
}

/** No such function, not known, not supported. */
const unknownToServer = ['42883', '42601', '0A000']

/** False when it fails for one of these reasons. Whatever else goes wrong may be different the next time. */
async function succeeds(client: ClientBase, statement: string, reasons: readonly string[]): Promise<boolean> {
  try {
    await client.query(statement)
    return true
  } catch (error) {
    if (reasons.includes(sqlState(error) ?? '')) return false
    throw error
  }
}

/** The server process that took the connection; a pooler makes one up. */
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
