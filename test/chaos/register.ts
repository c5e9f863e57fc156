/**
 * The table that nodes write to under a fence. Each row has the key of the lease, the token, and a number in the order
 * in which the database made the rows.
 *
 * Only the driver of the database in use is loaded, because every node of a campaign loads this file.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import BetterSqlite from 'better-sqlite3'
import type { ConnectionPool } from 'mssql'
import type { Connection, RowDataPacket } from 'mysql2/promise'
import type { Client } from 'pg'
import type { HeldLease } from '../../plugin/coordinator.js'
import { journalTable } from '../../plugin/stores/shared/migrate.js'
import { mssqlConfig, withMssql } from '../support/databases.js'

/** A connection of the application's own to its database. */
export interface Register {
  /** Writes one row in a fenced transaction, which stays open for `pauseMs` between the fence and the write. */
  write(lease: HeldLease, pauseMs: number): Promise<void>
  /** Returns everything written, in order. */
  rows(): Promise<[key: string, token: number][]>
  /** Returns the names of the migrations that the database has. */
  migrations(): Promise<string[]>
  close(): Promise<void>
}

const journal = `select name from ${journalTable}`

export function openRegister(database: string): Register {
  if (database.startsWith('sqlite:')) return sqliteRegister(database.slice('sqlite:'.length))
  if (database.startsWith('mysql:')) return mysqlRegister(database)
  return database.startsWith('mssql:') ? mssqlRegister(database) : postgresRegister(database)
}

/** @throws the error of the driver when the server of the database does not answer. */
export async function reach(database: string): Promise<void> {
  if (database.startsWith('mysql:')) await withMysql(database, (connection) => connection.query('select 1'))
  else if (database.startsWith('mssql:')) await withMssql(database, (pool) => pool.query('select 1'))
  else await withClient(database, (client) => client.query('select 1'))
}

/** Creates the table if it does not exist. */
export async function createRegister(database: string): Promise<void> {
  if (database.startsWith('sqlite:')) {
    const file = new BetterSqlite(database.slice('sqlite:'.length))
    file.exec(
      'create table if not exists chaos_writes (number integer primary key autoincrement, lease text, token integer)',
    )
    file.close()
  } else if (database.startsWith('mysql:')) {
    await withMysql(database, (connection) =>
      connection.query(
        'create table if not exists chaos_writes (number bigint auto_increment primary key, lease text, token bigint)',
      ),
    )
  } else if (database.startsWith('mssql:')) {
    await withMssql(database, (pool) =>
      pool.query(`if object_id('chaos_writes') is null create table chaos_writes
        ([number] bigint identity primary key, lease nvarchar(400), token bigint)`),
    )
  } else {
    await withClient(database, (client) =>
      client.query(
        'create table if not exists chaos_writes (number bigserial primary key, lease text, token bigint)',
      ),
    )
  }
}

/** Opens a connection for each transaction, because a broken one is of no use to the next transaction. */
function postgresRegister(url: string): Register {
  return {
    write: (lease, pauseMs) =>
      withClient(url, async (client) => {
        await client.query('begin')
        await lease.fence(client)
        if (pauseMs > 0) await sleep(pauseMs)
        await client.query('insert into chaos_writes (lease, token) values ($1, $2)', [
          lease.key,
          lease.token,
        ])
        await client.query('commit')
      }),
    rows: () =>
      withClient(url, async (client) => {
        const { rows } = await client.query('select lease, token from chaos_writes order by number')
        return rows.map(({ lease, token }) => [String(lease), Number(token)])
      }),
    migrations: () =>
      withClient(url, async (client) => (await client.query(journal)).rows.map(({ name }) => String(name))),
    close: async () => undefined,
  }
}

async function withClient<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const { Client } = await import('pg')
  const client = new Client({
    connectionString: url,
    connectionTimeoutMillis: 2_000,
    query_timeout: 4_000,
    keepAlive: true,
  })
  client.on('error', () => undefined)
  try {
    await client.connect()
    return await work(client)
  } finally {
    // A silent server may never answer the end of the session, so it is not waited for.
    void client.end().catch(() => undefined)
    if ('connection' in client) destroySoon(client.connection)
  }
}

function destroySoon(connection: unknown): void {
  if (typeof connection !== 'object' || connection === null || !('stream' in connection)) return
  const { stream } = connection
  if (typeof stream !== 'object' || stream === null || !('destroy' in stream)) return
  const { destroy } = stream
  if (typeof destroy === 'function') setTimeout(() => destroy.call(stream), 200).unref()
}

function mysqlRegister(url: string): Register {
  return {
    write: (lease, pauseMs) =>
      withMysql(url, async (connection) => {
        await connection.query('begin')
        await lease.fence(connection)
        if (pauseMs > 0) await sleep(pauseMs)
        await connection.query('insert into chaos_writes (lease, token) values (?, ?)', [
          lease.key,
          lease.token,
        ])
        await connection.query('commit')
      }),
    rows: () =>
      withMysql(url, async (connection) => {
        const [rows] = await connection.query<RowDataPacket[]>(
          'select lease, token from chaos_writes order by number',
        )
        return rows.map(({ lease, token }) => [String(lease), Number(token)])
      }),
    migrations: () =>
      withMysql(url, async (connection) => {
        const [rows] = await connection.query<RowDataPacket[]>(journal)
        return rows.map(({ name }) => String(name))
      }),
    close: async () => undefined,
  }
}

async function withMysql<T>(url: string, work: (connection: Connection) => Promise<T>): Promise<T> {
  const { createConnection } = await import('mysql2/promise')
  const connection = await createConnection({ uri: url, connectTimeout: 2_000 })
  connection.on('error', () => undefined)
  try {
    return await work(connection)
  } finally {
    connection.destroy()
  }
}

/** Keeps one connection, because the first statements on a connection may take longer than all later ones. */
function mssqlRegister(url: string): Register {
  let connected: Promise<ConnectionPool> | undefined
  const connect = async (): Promise<ConnectionPool> => {
    const { default: mssql } = await import('mssql')
    const limits = { connectionTimeout: 10_000, requestTimeout: 10_000, pool: { min: 0, max: 1 } }
    const pool = new mssql.ConnectionPool({ ...mssqlConfig(url), ...limits })
    pool.on('error', () => undefined)
    return pool.connect()
  }
  return {
    async write(lease, pauseMs) {
      const { default: mssql } = await import('mssql')
      connected ??= connect()
      const pool = await connected.catch((error: unknown) => {
        connected = undefined
        throw error
      })
      const transaction = pool.transaction()
      await transaction.begin()
      try {
        await lease.fence(transaction)
        if (pauseMs > 0) await sleep(pauseMs)
        const request = transaction.request().input('lease', lease.key)
        await request
          .input('token', mssql.BigInt, lease.token)
          .query('insert into chaos_writes (lease, token) values (@lease, @token)')
        await transaction.commit()
      } catch (error) {
        await transaction.rollback().catch(() => undefined)
        throw error
      }
    },
    rows: () =>
      withMssql(url, async (pool) => {
        const { recordset } = await pool.query<{ lease: string; token: string }>(
          'select lease, token from chaos_writes order by [number]',
        )
        return recordset.map(({ lease, token }) => [lease, Number(token)])
      }),
    migrations: () =>
      withMssql(url, async (pool) => {
        const { recordset } = await pool.query<{ name: string }>(journal)
        return recordset.map(({ name }) => name)
      }),
    close: async () => void (await connected?.catch(() => undefined))?.close(),
  }
}

function sqliteRegister(path: string): Register {
  const file = new BetterSqlite(path, { timeout: 0 })
  return {
    async write(lease, pauseMs) {
      file.exec('begin immediate')
      try {
        lease.fence(file)
        if (pauseMs > 0) await sleep(pauseMs)
        file.prepare('insert into chaos_writes (lease, token) values (?, ?)').run(lease.key, lease.token)
        file.exec('commit')
      } finally {
        if (file.inTransaction) file.exec('rollback')
      }
    },
    async rows() {
      const rows = file.prepare('select lease, token from chaos_writes order by number').raw().all()
      return (rows as [string, number][]).map(([lease, token]) => [lease, token])
    },
    migrations: async () => file.prepare<[], string>(journal).pluck().all(),
    close: async () => void file.close(),
  }
}
