/** Migrates PostgreSQL: in one transaction, under an advisory lock that ends with it. */
import type { PoolClient } from 'pg'
import { StoreError } from '../../core/errors.js'
import { Deadline } from '../shared/deadline.js'
import { migrateGivingWay } from '../shared/giving-way.js'
import type { Limits } from '../shared/limits.js'
import { journalTable, type MigrationSession, type MigrationTarget } from '../shared/migrate.js'
import type { Loan, PooledConnections } from './connections.js'
import { isConflict, sqlState } from './failures.js'

/** Any number that nothing else locks. One lock serves all schemas of a database, since they are rarely migrated. */
const lockNumber = 726_415_927_301

/** Building an index on existing rows may take a while, and so may another process that migrates first. */
const limitMs = 120_000

/** Returns the database at the other end of these connections as a migration target. */
export function migrationTarget(connections: PooledConnections): MigrationTarget {
  const what = 'Looking for pending migrations'
  return {
    appliedNames: () => connections.lendPatiently(what, ({ client }) => appliedNames(client)),
    locked: (work) => locked(connections, work),
  }
}

function locked<T>(
  connections: PooledConnections,
  work: (session: MigrationSession) => Promise<T>,
): Promise<T> {
  const { limits } = connections
  const migrate = (loan: Loan): Promise<T> => inTransaction(loan, limits, work)
  const gaveWay = (error: unknown, { lost }: Loan): boolean => isGivingWay(error) || isGivingWay(lost)
  return migrateGivingWay(connections, new Deadline(limitMs), limits.lockMs, migrate, gaveWay)
}

/**
 * Runs a migration in one transaction. Its waits for tables end in time for the requests that queue behind it, and
 * the server ends the transaction when this process freezes. At a stricter isolation level than `read committed`, it
 * would read the journal as it was before the wait for the lock.
 */
async function inTransaction<T>(
  loan: Loan,
  { lockMs, silenceMs }: Limits,
  work: (session: MigrationSession) => Promise<T>,
): Promise<T> {
  const { client } = loan
  // Until it has ended well, the transaction and its connection go together.
  loan.spoiled = true
  await client.query(`begin isolation level read committed;
    set local statement_timeout = ${limitMs};
    set local lock_timeout = ${limitMs};
    set local idle_in_transaction_session_timeout = ${silenceMs};
    select set_config(name, '0', true) from pg_settings where name = 'transaction_timeout';
    select pg_advisory_xact_lock(${lockNumber});
    set local lock_timeout = ${lockMs}`)
  try {
    await makeSureOfLock(client)
    const result = await work(sessionOf(client))
    await client.query('commit')
    loan.spoiled = false
    return result
  } catch (error) {
    await client.query('rollback').catch(() => undefined)
    throw error
  }
}

/**
 * Returns whether the migration waited for a lock or was silent for too long, or was in conflict with another
 * transaction.
 */
function isGivingWay(error: unknown): boolean {
  const state = sqlState(error)
  return state === '55P03' || state === '25P03' || isConflict(error)
}

/** Makes sure that the lock is held. Some servers that speak PostgreSQL's protocol accept the call and lock nothing. */
async function makeSureOfLock(client: PoolClient): Promise<void> {
  const { rows } = await client.query<{ locked: string }>(
    `select exists (select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and granted
       and (classid::bigint << 32) + objid::bigint = ${lockNumber})::text as locked`,
  )
  if (rows[0]?.locked !== 'true')
    throw new StoreError(
      'the server takes no notice of advisory locks, so that several might migrate at once',
      'none',
    )
}

function sessionOf(client: PoolClient): MigrationSession {
  return {
    appliedNames: () => appliedNames(client),
    execute: async (statement) => {
      await client.query(statement)
    },
    record: async (name) => {
      await client.query(`insert into ${journalTable} (name) values ($1)`, [name])
    },
  }
}

/**
 * Returns the names in the journal. Needs only the right to read. A missing table is an answer, not an error.
 *
 * `to_regclass` by itself answers from a cache: a connection that has once seen the table missing still misses it
 * after waiting for the lock under which another process created it. Reading from a table, here `pg_class`, refreshes
 * the cache first.
 */
async function appliedNames(client: PoolClient): Promise<string[] | undefined> {
  const exists = 'select exists (select from pg_class where oid = to_regclass($1))::text as there'
  const found = await client.query<{ there: string }>(exists, [journalTable])
  if (found.rows[0]?.there !== 'true') return undefined
  const { rows } = await client.query<{ name: string }>(`select name from ${journalTable} order by name`)
  return rows.map(({ name }) => name)
}
