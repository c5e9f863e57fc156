/**
 * Migrates MySQL: statement by statement, under a lock of the server's own.
 *
 * Neither MySQL nor MariaDB can undo the creation of a table. Each migration is therefore a single statement, and is
 * recorded right after it was run. A process that dies between the two leaves a statement that was run but not
 * recorded. The next process is told that the object exists, and records the statement.
 */
import { createHash } from 'node:crypto'
import type { Connection } from 'mysql2/promise'
import { StoreError } from '../../core/errors.js'
import { Deadline } from '../shared/deadline.js'
import { migrateGivingWay } from '../shared/giving-way.js'
import { journalTable, type MigrationSession, type MigrationTarget } from '../shared/migrate.js'
import { type PooledConnections, wholeSeconds } from './connections.js'
import { errorNumber } from './failures.js'

/** Building an index on existing rows may take a while, and so may another process that migrates first. */
const limitMs = 120_000

/** What only MariaDB reads. A user or a server may have a limit that is too short for a migration, or to wait for one. */
const patient = `/*M!, max_statement_time = ${limitMs / 1000} */`

/** A wait for a row, or for a whole table. */
const waitedTooLong = 1205

/** Returns the database at the other end of these connections as a migration target. */
export function migrationTarget(connections: PooledConnections): MigrationTarget {
  const what = 'Looking for pending migrations'
  return {
    appliedNames: () => connections.lendPatiently(what, ({ client }) => appliedNames(client.promise())),
    locked: (work) => locked(connections, work),
  }
}

/**
 * The lock belongs to the connection, and ends with it. A wait for a table gives way to the requests that queue
 * behind it.
 */
function locked<T>(
  connections: PooledConnections,
  work: (session: MigrationSession) => Promise<T>,
): Promise<T> {
  const { lockMs } = connections.limits
  const migrate = async (loan: { client: { promise(): Connection }; spoiled: boolean }): Promise<T> => {
    const client = loan.client.promise()
    loan.spoiled = true
    await client.query(`set autocommit = 1, lock_wait_timeout = ${wholeSeconds(lockMs)} ${patient}`)
    await takeLock(client)
    return work(sessionOf(client))
  }
  const gaveWay = (error: unknown): boolean => errorNumber(error) === waitedTooLong
  return migrateGivingWay(connections, new Deadline(limitMs), lockMs, migrate, gaveWay)
}

/** Names of locks belong to the whole server and have at most 64 characters. */
async function takeLock(client: Connection): Promise<void> {
  const database = await scalar(client, 'select database()')
  const name = `coordination_${createHash('sha256').update(String(database)).digest('hex').slice(0, 32)}`
  if (Number(await scalar(client, `select get_lock('${name}', ${wholeSeconds(limitMs)})`)) === 1) return
  throw new StoreError('Another process has been migrating this database for too long.', 'none')
}

function sessionOf(client: Connection): MigrationSession {
  return {
    appliedNames: () => appliedNames(client),
    execute: async (statement) => {
      await client.query(statement).catch((error: unknown) => {
        if (!isThereAlready(error)) throw error
      })
    },
    record: async (name) => {
      await client.query(`insert into ${journalTable} (name) values (?)`, [name])
    },
  }
}

/** Returns whether a table, a column or an index of that name exists already. */
function isThereAlready(error: unknown): boolean {
  return [1050, 1060, 1061].includes(errorNumber(error) ?? 0)
}

/** Returns the names in the journal. Needs only the right to read. A missing table is an answer, not an error. */
async function appliedNames(client: Connection): Promise<string[] | undefined> {
  const there = await scalar(
    client,
    `select count(*) from information_schema.tables where table_schema = database() and table_name = '${journalTable}'`,
  )
  if (Number(there) === 0) return undefined
  const [rows] = await client.query({
    sql: `select name from ${journalTable} order by name`,
    rowsAsArray: true,
  })
  return (Array.isArray(rows) ? rows : []).map((row) => String(Array.isArray(row) ? row[0] : row))
}

async function scalar(client: Connection, sql: string): Promise<unknown> {
  const [rows] = await client.query({ sql, rowsAsArray: true })
  const [row] = Array.isArray(rows) ? rows : []
  return Array.isArray(row) ? row[0] : undefined
}
