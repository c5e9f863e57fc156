/** Stores on MySQL and MariaDB under test, and connections beside them. */
import { type Connection, createConnection } from 'mysql2/promise'
import type { Test } from 'tap'
import { type MysqlOptions, openMysqlStore } from '../../plugin/stores/mysql/index.js'
import type { MysqlStore } from '../../plugin/stores/mysql/store.js'

export const namespace = 'shop'

export function options(
  database: MysqlOptions['database'] | object,
  more: Partial<MysqlOptions> = {},
): MysqlOptions {
  return {
    database: database as MysqlOptions['database'],
    namespace,
    statementTimeoutMs: 30_000,
    migrate: true,
    onWarning: () => undefined,
    ...more,
  }
}

export async function opened(t: Test, url: string, more: Partial<MysqlOptions> = {}): Promise<MysqlStore> {
  const store = await openMysqlStore(options(url, more))
  t.teardown(() => store.close())
  return store
}

export async function connected(t: Test, url: string): Promise<Connection> {
  const client = await createConnection(url)
  t.teardown(() => client.destroy())
  return client
}

/** Returns the one value of a statement. */
export async function only(client: Connection, sql: string): Promise<unknown> {
  const [rows] = await client.query({ sql, rowsAsArray: true })
  const [row] = Array.isArray(rows) ? rows : []
  return Array.isArray(row) ? row[0] : undefined
}
