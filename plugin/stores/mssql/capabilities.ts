/** What the server at the other end can do. Determined once, when the store opens. */
import { CoordinationError, StoreError } from '../../core/errors.js'
import type { Capabilities } from '../../core/store.js'
import type { Loan } from './connections.js'
import { isRefusal } from './failures.js'

/** SQL Server has nothing like LISTEN that would not keep a transaction open, so news is polled. */
export const capabilities: Capabilities = { push: false }

/** What a store must know about its server. */
export interface Server {
  /** The schema that contains the tables. */
  readonly schema: string
  /** A query that returns the identity of the server as `identity`. */
  readonly identitySql: string
  /** A warning about what works less well here than it could; undefined when there is nothing to warn of. */
  readonly warning: string | undefined
}

/**
 * Examines the server at the other end of a connection.
 *
 * @throws StoreError when it is read-only, or makes readers wait for writers.
 */
export async function examine(loan: Loan): Promise<Server> {
  const [[row] = []] = await loan.ask(`
    select @@version as [version], db_name() as [database],
      databasepropertyex(db_name(), N'Updateability') as [updateability],
      (select is_read_committed_snapshot_on from sys.databases where database_id = db_id()) as [versions],
      (select create_date from sys.databases where name = N'tempdb') as [started],
      (select schema_name(schema_id) from sys.tables where object_id = object_id(N'coordination_nodes')) as [schema]`)
  const schema = row?.schema
  if (typeof schema !== 'string') throw missingTables()
  if (row?.updateability === 'READ_ONLY') {
    throw new StoreError(
      'The database is read-only: it is a secondary, or was set so. The address must lead to the primary.',
      'none',
    )
  }
  if (row?.versions !== true) throw readersWait(String(row?.database))
  const started = row?.started === null ? await otherStart(loan) : tempdbStart
  return { schema, identitySql: identitySql(started), warning: started === undefined ? unnoticed : undefined }
}

/**
 * Tries the features that the statements of this store need.
 *
 * @throws StoreError when the server, or the database's compatibility level, is too old for them.
 */
export async function refuseOld(loan: Loan): Promise<void> {
  try {
    await loan.ask(
      "select translate([value], N'a', N'b') as [value] from openjson(N'[\"a\"]') with ([value] nvarchar(1) '$')",
    )
  } catch (error) {
    if (!isRefusal(error)) throw error
    throw new StoreError(
      'The server cannot read lists in JSON, or cannot translate characters: SQL Server 2017 or later is needed, ' +
        'with a database of compatibility level 130 or higher.',
      'none',
      { cause: error },
    )
  }
}

/**
 * Returns the query for the identity. Its parts are the name of the server; when the server was started, since tempdb
 * is created at each start; when the database was created or restored; and its recovery fork, since a failover that
 * may have lost writes begins a new one.
 */
function identitySql(started: string | undefined): string {
  const fork = 'select recovery_fork_guid from sys.database_recovery_status where database_id = db_id()'
  const parts = [
    'cast(@@servername as nvarchar(128))',
    ...(started === undefined ? [] : [text(started)]),
    text('select create_date from sys.databases where database_id = db_id()'),
    `isnull(cast((${fork}) as nvarchar(36)), N'')`,
  ]
  return `select ${parts.join(" + N'.' + ")} as [identity]`
}

/** Converts a time to text. Style 126 has all digits and does not depend on the language. */
function text(select: string): string {
  return `isnull(convert(nvarchar(30), (${select}), 126), N'')`
}

const tempdbStart = "select create_date from sys.databases where name = N'tempdb'"

/**
 * Returns another query for the start of the server. Hosted databases may hide tempdb. This query needs a right that
 * not every user has, and undefined is returned without it.
 */
async function otherStart(loan: Loan): Promise<string | undefined> {
  const start = 'select sqlserver_start_time from sys.dm_os_sys_info'
  try {
    await loan.ask(start)
    return start
  } catch (error) {
    if (isRefusal(error)) return undefined
    throw error
  }
}

const unnoticed =
  'The server does not say when it was started, so that a restart or failover goes unnoticed unless the server or the ' +
  'database is another one after it. Grant the user VIEW SERVER STATE, or VIEW DATABASE STATE on Azure.'

/**
 * Without row versions a reader, a heartbeat included, waits for each change in progress, and no read is of one
 * instant.
 */
function readersWait(database: string): StoreError {
  const name = `[${database.replaceAll(']', ']]')}]`
  return new StoreError(
    'In this database readers wait for writers. Let them read row versions instead, once, as its owner: ' +
      `ALTER DATABASE ${name} SET READ_COMMITTED_SNAPSHOT ON WITH ROLLBACK IMMEDIATE`,
    'none',
  )
}

function missingTables(): CoordinationError {
  return new CoordinationError(
    'WCO_SCHEMA_PENDING',
    "The migrations have been run, but their tables are not found. Is the user's default schema theirs?",
  )
}
