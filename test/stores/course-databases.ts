/** How courses reach each database that is available. */
import Sqlite from 'better-sqlite3'
import mssql from 'mssql'
import { createConnection } from 'mysql2/promise'
import { Client } from 'pg'
import type { Store } from '../../plugin/core/store.js'
import { openMssqlStore } from '../../plugin/stores/mssql/index.js'
import { openMysqlStore } from '../../plugin/stores/mysql/index.js'
import { openPostgresStore } from '../../plugin/stores/postgres/index.js'
import { openSqliteStore, openSqliteStoreOver } from '../../plugin/stores/sqlite/index.js'
import { MemoryDatabase, type MemoryStoreOptions } from '../../plugin/testing/memory-store.js'
import {
  type Lifetime,
  mssqlConfig,
  useMssql,
  useMysql,
  usePostgres,
  useSqlite,
  withoutMssql,
  withoutMysql,
} from '../support/databases.js'
import type { Tried } from './course-match.js'
import { within } from './mssql-harness.js'

/** What is compared with the reference, by name. */
export const courseDatabases: Readonly<Record<string, (t: Lifetime) => Promise<Tried>>> = {
  sqlite: useSqliteFile,
  'sqlite, several stores on one database object': useSqliteObject,
  postgres: usePostgresStores,
  ...(withoutMysql ? {} : { mysql: useMysqlStores }),
  ...(withoutMssql ? {} : { mssql: useMssqlStores }),
}

/** Returns a second reference in memory. The caller opens its stores and can put faults into them. */
export async function useMemory(
  openIn: (database: MemoryDatabase, options: MemoryStoreOptions) => Store,
): Promise<Tried> {
  const clock = { nowMs: beginningMs }
  const nowMs = (): number => clock.nowMs
  const open = async (): Promise<Tried['stores']> => {
    const database = new MemoryDatabase({ nowMs, identity: () => 'memory' })
    return threeStores(async (options) => openIn(database, options))
  }
  const tried = { clock, beside: { reads: true, heartbeats: false }, stores: await open() }
  return {
    ...tried,
    get stores() {
      return tried.stores
    },
    async empty() {
      tried.stores = await open()
    },
    transaction: (work) => work({}),
  }
}

const beginningMs = 1_790_000_000_000

/** Long enough for any slow machine. */
const statementTimeoutMs = 60_000

interface Opening {
  readonly namespace: string
  readonly statementTimeoutMs: number
  readonly migrate: true
  readonly onWarning: () => void
}

/** Opens two stores of one namespace and one of another, whose name is nearly the same. */
async function threeStores(open: (options: Opening) => Promise<Store>): Promise<Tried['stores']> {
  const as = (namespace: string): Promise<Store> =>
    open({ namespace, statementTimeoutMs, migrate: true, onWarning: () => undefined })
  return [await as('course'), await as('course'), await as('Course ')]
}

const emptying = ['events', 'leases', 'workers', 'nodes', 'meta'].map(
  (table) => `delete from coordination_${table}`,
)

async function useSqliteFile(t: Lifetime): Promise<Tried> {
  const { path } = await useSqlite(t)
  const clock = { nowMs: beginningMs }
  const nowMs = (): number => clock.nowMs
  const stores = await threeStores((options) => openSqliteStore({ ...options, database: path, nowMs }))
  // A driver that waits would also stop what it waits for, because both are in this process.
  const client = new Sqlite(path, { timeout: 0 })
  t.teardown(async () => {
    client.close()
    await closeAll(stores)
  })
  return {
    ...{ stores, clock, beside: { reads: true, heartbeats: false } },
    empty: async () => void client.exec(emptying.join(';')),
    async transaction(work) {
      client.exec('begin')
      await work(client)
      client.exec('commit')
    },
  }
}

async function useSqliteObject(t: Lifetime): Promise<Tried> {
  const client = new Sqlite(':memory:')
  const clock = { nowMs: beginningMs }
  const nowMs = (): number => clock.nowMs
  const stores = await threeStores((options) => openSqliteStoreOver(client, { ...options, nowMs }))
  t.teardown(async () => {
    await closeAll(stores)
    client.close()
  })
  return {
    ...{ stores, clock, beside: { reads: false, heartbeats: false } },
    empty: async () => void client.exec(emptying.join(';')),
  }
}

async function usePostgresStores(t: Lifetime): Promise<Tried> {
  const { url } = await usePostgres(t)
  const stores = await threeStores((options) => openPostgresStore({ ...options, database: url, push: true }))
  const client = new Client({ connectionString: url })
  await client.connect()
  t.teardown(async () => {
    await client.end()
    await closeAll(stores)
  })
  return { ...onServer(stores), ...speaking(client, (sql) => client.query(sql)) }
}

async function useMysqlStores(t: Lifetime): Promise<Tried> {
  const { url } = await useMysql(t)
  const stores = await threeStores((options) => openMysqlStore({ ...options, database: url }))
  const client = await createConnection(url)
  t.teardown(async () => {
    await client.end()
    await closeAll(stores)
  })
  return { ...onServer(stores), ...speaking(client, (sql) => client.query(sql)) }
}

async function useMssqlStores(t: Lifetime): Promise<Tried> {
  const { url } = await useMssql(t)
  const stores = await threeStores((options) => openMssqlStore({ ...options, database: url }))
  const pool = new mssql.ConnectionPool(mssqlConfig(url))
  await pool.connect()
  t.teardown(async () => {
    await pool.close()
    await closeAll(stores)
  })
  return {
    ...onServer(stores),
    async empty() {
      for (const sql of emptying) await pool.query(sql)
    },
    transaction: (work) => within(pool.transaction(), work),
  }
}

function onServer(stores: Tried['stores']) {
  return { stores, beside: { reads: true, heartbeats: true } }
}

/** Returns the remaining members of `Tried`, which use a connection of their own. */
function speaking(handle: unknown, query: (sql: string) => Promise<unknown>) {
  return {
    async empty() {
      for (const sql of emptying) await query(sql)
    },
    async transaction(work: (handle: unknown) => Promise<void>) {
      await query('begin')
      await work(handle)
      await query('commit')
    },
  }
}

async function closeAll(stores: readonly Store[]): Promise<void> {
  await Promise.all(stores.map((store) => store.close()))
}
