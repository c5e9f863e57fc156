/** What the server at the other end can do. Determined once, when the store opens. */
import { getTableName, type SQL, sql } from 'drizzle-orm'
import type { Connection } from 'mysql2/promise'
import { StoreError } from '../../core/errors.js'
import type { Capabilities } from '../../core/store.js'
import type { Limits } from '../shared/limits.js'
import { wholeSeconds } from './connections.js'
import { events, leases, meta, nodes, workers } from './schema.js'

/** What a store must know about its server. */
export interface Server {
  /** The database that contains the tables. */
  readonly schema: string
  /** The collation for comparing a text with one of our columns. */
  readonly collation: SQL
  /** Returns the statements that each connection is sent before its first use, in this order. */
  settings(limits: Limits): readonly string[]
  /** Returns how a transaction is begun whose client must not be silent for too long. */
  transactions(limits: Limits): Transactions
  /** A warning about what works less well here than it could; undefined when there is nothing to warn of. */
  readonly warning: string | undefined
}

/** How the transaction of a change is begun, and what its connection is sent once it has ended. */
export interface Transactions {
  readonly begin: string
  readonly afterwards: string | undefined
}

/** Neither server has anything like LISTEN, so news is polled. */
export const capabilities: Capabilities = { push: false }

type Variables = ReadonlyMap<string, string>

/**
 * Examines the server at the other end of a connection.
 *
 * @throws StoreError when it is too old, read-only, or writes its log in a way that our isolation level excludes.
 */
export async function examine(client: Connection): Promise<Server> {
  const variables = await variablesOf(client)
  const version = variables.get('version') ?? ''
  const isMariaDb = /mariadb/i.test(version)
  refuseOld(version, isMariaDb)
  refuseReadOnly(variables)
  refuseStatementLog(variables)
  return {
    schema: await schemaOf(client),
    collation: sql.raw(isMariaDb ? 'utf8mb4_nopad_bin' : 'utf8mb4_0900_bin'),
    settings: (limits) => (isMariaDb ? mariaDbSettings(limits, variables) : mysqlSettings(limits)),
    transactions: (limits) => (isMariaDb ? mariaDbTransactions : mysqlTransactions(limits)),
    warning: variables.get('wsrep_on') === 'ON' ? manyWriters : undefined,
  }
}

/** Names that this server does not know are missing from the answer and cause no error. */
async function variablesOf(client: Connection): Promise<Variables> {
  const names = ['version', 'read_only', 'innodb_read_only', 'log_bin', 'binlog_format']
  const [rows] = await client.query({
    sql: 'show global variables where variable_name in (?)',
    values: [[...names, 'wsrep_on', 'server_uid']],
    rowsAsArray: true,
  })
  const pairs = (Array.isArray(rows) ? rows : []).map((row) => (Array.isArray(row) ? row : []))
  return new Map(pairs.map(([name, value]) => [String(name).toLowerCase(), String(value)]))
}

async function schemaOf(client: Connection): Promise<string> {
  const [rows] = await client.query({ sql: 'select database()', rowsAsArray: true })
  const [row] = Array.isArray(rows) ? rows : []
  return String(Array.isArray(row) ? row[0] : '')
}

/** Requires SKIP LOCKED, JSON_TABLE and a collation that keeps trailing blanks. */
function refuseOld(version: string, isMariaDb: boolean): void {
  const [oldest, name] = isMariaDb ? ([10_006_000, 'MariaDB'] as const) : ([8_000_017, 'MySQL'] as const)
  const [, major = 0, minor = 0, patch = 0] = /(\d+)\.(\d+)\.(\d+)/.exec(version) ?? []
  if (Number(major) * 1e6 + Number(minor) * 1e3 + Number(patch) >= oldest) return
  throw new StoreError(
    `The server is ${name} ${version}, which cannot skip locked rows or read lists: MySQL 8.0.17 or MariaDB 10.6 are ` +
      'the oldest that will do.',
    'none',
  )
}

/** A user with all rights could write to a read-only server nevertheless, and the primary would never see it. */
function refuseReadOnly(variables: Variables): void {
  const isOn = (name: string): boolean => /^(on|1)$/i.test(variables.get(name) ?? '')
  if (!isOn('read_only') && !isOn('innodb_read_only')) return
  throw new StoreError(
    'The database is a read-only replica (read_only). The address must lead to the primary.',
    'none',
  )
}

/** With such a log, InnoDB refuses every write at READ COMMITTED. */
function refuseStatementLog(variables: Variables): void {
  if (variables.get('log_bin') !== 'ON' || variables.get('binlog_format') !== 'STATEMENT') return
  throw new StoreError(
    'The server logs statements instead of rows (binlog_format = STATEMENT). Set it to ROW or MIXED.',
    'none',
  )
}

/**
 * Refuses tables of another engine. A MariaDB server with `enforce_storage_engine` makes them without a word, although
 * the migrations ask for InnoDB, and an operator may have altered them. Where the engine knows no transactions, a
 * change that fails half-way stays, and nothing holds a row.
 *
 * @throws StoreError
 */
export async function refuseOtherEngines(client: Connection): Promise<void> {
  const [rows] = await client.query({
    sql:
      'select table_name, engine from information_schema.tables ' +
      "where table_schema = database() and table_name in (?) and engine <> 'InnoDB' order by table_name",
    values: [[nodes, workers, leases, events, meta].map(getTableName)],
    rowsAsArray: true,
  })
  const others = (Array.isArray(rows) ? rows : []).map((row) => (Array.isArray(row) ? row : []))
  if (others.length === 0) return
  const list = others.map(([name, engine]) => `${name} (${engine})`).join(', ')
  throw new StoreError(
    `These tables are not of InnoDB, whose transactions and locks the library needs: ${list}. Unset ` +
      'enforce_storage_engine if the server has it, then run "alter table … engine = InnoDB" for each.',
    'none',
  )
}

const manyWriters =
  'The server is part of a Galera cluster, in which locks hold on one server only: give all nodes the address of ' +
  'the same server.'

/**
 * Returns the settings under which a server can be looked at and migrated, whichever it is. They override the server's
 * defaults and the application's choices: a server may be set to take all texts for another character set than the one
 * that the client has named, to cut off the rows of each select after so many, or to begin another transaction with
 * each commit.
 */
export function settingsAnywhere({ lockMs, openMs }: Limits): string {
  const settings = [
    'names utf8mb4 collate utf8mb4_unicode_ci',
    'autocommit = 1',
    "completion_type = 'NO_CHAIN'",
    "sql_mode = 'STRICT_ALL_TABLES'",
    'sql_safe_updates = 0',
    'sql_big_selects = 1',
    'sql_select_limit = 18446744073709551615',
    "time_zone = '+00:00'",
    `innodb_lock_wait_timeout = ${wholeSeconds(lockMs)}`,
    `lock_wait_timeout = ${wholeSeconds(lockMs)}`,
  ]
  return `set ${settings.join(', ')} /*M!, max_statement_time = ${openMs / 1000} */`
}

/**
 * MariaDB limits every statement, and the silence of a client within a transaction. Its `server_uid` is made of the
 * machine's address and the port.
 */
function mariaDbSettings(limits: Limits, variables: Variables): readonly string[] {
  const who = variables.has('server_uid') ? '@@server_uid' : "concat(@@hostname, ':', @@port)"
  const settings = [
    identifiedBy(who, 'information_schema'),
    "tx_isolation = 'READ-COMMITTED'",
    `max_statement_time = ${limits.statementMs / 1000}`,
    `idle_transaction_timeout = ${wholeSeconds(limits.silenceMs)}`,
  ]
  return together(limits, settings)
}

const mariaDbTransactions: Transactions = { begin: 'start transaction', afterwards: undefined }

/** MySQL limits only statements that read; other statements are bounded by the limits of their lock waits. */
function mysqlSettings(limits: Limits): readonly string[] {
  return together(limits, [
    identifiedBy('@@server_uuid', 'performance_schema'),
    "transaction_isolation = 'READ-COMMITTED'",
    `max_execution_time = ${limits.statementMs}`,
  ])
}

/**
 * MySQL does not distinguish a client that is silent within a transaction from an idle one, and ends both. So the limit
 * is set where a transaction begins and taken back once it has ended. Without automatic commits, the statement after
 * the first one begins the transaction.
 */
function mysqlTransactions({ silenceMs }: Limits): Transactions {
  return {
    begin: `set autocommit = 0, wait_timeout = ${wholeSeconds(silenceMs)}`,
    afterwards: `set autocommit = 1, ${patient}`,
  }
}

/** The server's own limit for idle connections may be shorter than the pause between two heartbeats. */
const patient = 'wait_timeout = 28800'

/** The identity is computed by a select, which the first statement must have allowed. */
function together(limits: Limits, settings: readonly string[]): readonly string[] {
  return [settingsAnywhere(limits), `set ${[...settings, patient].join(', ')}`]
}

/**
 * Computes the identity: which server it is, and when it was started. The time and the uptime are both counted from
 * the beginning of the statement, in seconds, so their difference is the same whenever it is computed.
 *
 * It is computed once per connection and kept in it, because a connection ends with its server. If a proxy substitutes
 * another connection, the variable is empty there, which is detected.
 */
function identifiedBy(who: string, schema: string): string {
  const uptime = `(select variable_value from ${schema}.global_status where variable_name = 'Uptime')`
  return `@coordination_identity = concat(${who}, '.', unix_timestamp() - cast(${uptime} as signed))`
}
