/** Statements that a test sends to a database by itself, past the library. */
import Sqlite from 'better-sqlite3'
import { type Connection, createConnection } from 'mysql2/promise'
import { Client } from 'pg'
import { type Database, withMssql } from './databases.js'

/** Returns the first column of the answer. */
export async function query({ dialect, url }: Database, sql: string): Promise<unknown[]> {
  if (dialect === 'sqlite') return onSqlite(url, (client) => client.prepare(sql).pluck().all())
  if (dialect === 'mysql') return onMysql(url, async (client) => firstColumn(await client.query(sql)))
  if (dialect === 'mssql') {
    return withMssql(url, async (pool) =>
      (await pool.query(sql)).recordset.map((row) => Object.values(row)[0]),
    )
  }
  return onPostgres(url, async (client) => (await client.query({ text: sql, rowMode: 'array' })).rows.flat())
}

/** Runs statements that answer nothing. */
export async function execute({ dialect, url }: Database, sql: string): Promise<void> {
  if (dialect === 'sqlite') onSqlite(url, (client) => client.exec(sql))
  else if (dialect === 'mysql') await onMysql(url, (client) => client.query(sql))
  else if (dialect === 'mssql') await withMssql(url, (pool) => pool.query(sql))
  else await onPostgres(url, (client) => client.query(sql))
}

function onSqlite<T>(url: string, work: (client: Sqlite.Database) => T): T {
  const client = new Sqlite(url.slice('sqlite:'.length))
  try {
    return work(client)
  } finally {
    client.close()
  }
}

async function onPostgres<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

async function onMysql<T>(url: string, work: (client: Connection) => Promise<T>): Promise<T> {
  const client = await createConnection({ uri: url, multipleStatements: true })
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

function firstColumn([rows]: readonly unknown[]): unknown[] {
  return Array.isArray(rows) ? rows.map((row) => Object.values(row)[0]) : []
}
