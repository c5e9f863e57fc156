/** Runs the conformance suite over every database that has a store. */
import Sqlite from 'better-sqlite3'
import { type Connection, createConnection } from 'mysql2/promise'
import { Client } from 'pg'
import t, { type Test } from 'tap'
import { openMysqlStore } from '../../plugin/stores/mysql/index.js'
import { openPostgresStore } from '../../plugin/stores/postgres/index.js'
import { openSqliteStore, openSqliteStoreOver } from '../../plugin/stores/sqlite/index.js'
import type {
  ConformanceHarness,
  FragileStore,
  StoreOptions,
} from '../../plugin/testing/conformance/harness.js'
import { storeConformance } from '../../plugin/testing/conformance.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'
import { useMysql, usePostgres, useSqlite, withoutMssql, withoutMysql } from '../support/databases.js'
import { answersCommit, fragile, throughProxy } from '../support/proxy.js'
import { mssqlHarness } from './mssql-harness.js'

const dialects: Readonly<Record<string, (t: Test) => Promise<ConformanceHarness>>> = {
  sqlite: sqliteHarness,
  'sqlite, several stores on one database object': sharedSqliteHarness,
  memory: memoryHarness,
  postgres: postgresHarness,
  ...(withoutMysql ? {} : { mysql: mysqlHarness }),
  ...(withoutMssql ? {} : { mssql: mssqlHarness }),
}

t.setTimeout(900_000)

for (const [dialect, harnessFor] of Object.entries(dialects)) {
  t.test(dialect, async (t) => {
    const harness = await harnessFor(t)
    for (const { promise, reasonToSkip, run } of storeConformance()) {
      await t.test(promise, { skip: reasonToSkip(harness) ?? false }, () => run(harness))
    }
  })
}

/** Returns the harness of the database that the testing kit uses. It has no transactions of users and no tables. */
async function memoryHarness(): Promise<ConformanceHarness> {
  const database = new MemoryDatabase()
  return {
    capabilities: { concurrentTransactions: false, push: true },
    open: async (options) => database.open(options),
  }
}

async function sqliteHarness(t: Test): Promise<ConformanceHarness> {
  const { path } = await useSqlite(t)
  return {
    capabilities: { concurrentTransactions: false, push: true },
    open: (options) => openSqliteStore({ ...options, database: path, migrate: true }),
    user: {
      transaction: (work) => onSqlite(path, (client) => sqliteTransaction(client, work)),
      outsideTransaction: (work) => onSqlite(path, work),
    },
    execute: (sql) => onSqlite(path, (client) => client.exec(sql)),
  }
}

async function sharedSqliteHarness(t: Test): Promise<ConformanceHarness> {
  const client = new Sqlite(':memory:')
  t.teardown(() => client.close())
  return {
    capabilities: { concurrentTransactions: false, push: true },
    open: (options) => openSqliteStoreOver(client, { ...options, migrate: true }),
    execute: async (sql) => void client.exec(sql),
  }
}

async function onSqlite(path: string, work: (client: Sqlite.Database) => unknown): Promise<void> {
  // A driver that waits would also stop what it waits for, because both are in this process.
  const client = new Sqlite(path, { timeout: 0 })
  try {
    await work(client)
  } finally {
    client.close()
  }
}

async function sqliteTransaction(
  client: Sqlite.Database,
  work: (handle: unknown) => Promise<void>,
): Promise<void> {
  client.exec('begin')
  try {
    await work(client)
    client.exec('commit')
  } catch (error) {
    client.exec('rollback')
    throw error
  }
}

async function postgresHarness(t: Test): Promise<ConformanceHarness> {
  const { url } = await usePostgres(t)
  return {
    capabilities: { concurrentTransactions: true, push: true },
    open: (options) => openPostgres(url, options),
    openFragile: (options) => openFragilePostgres(t, url, options),
    user: {
      transaction: (work) => onPostgres(url, (client) => inTransaction(client, work)),
      outsideTransaction: (work) => onPostgres(url, work),
    },
    execute: (sql) => onPostgres(url, (client) => client.query(sql)),
  }
}

function openPostgres(url: string, options: StoreOptions) {
  return openPostgresStore({
    ...options,
    database: url,
    migrate: true,
    push: true,
    onWarning: () => undefined,
  })
}

async function openFragilePostgres(t: Test, url: string, options: StoreOptions): Promise<FragileStore> {
  const { proxy, url: proxied } = await throughProxy(t, url)
  return fragile(await openPostgres(proxied, options), proxy, {
    change: answersCommit,
    heartbeat: answersStatement,
  })
}

/** Returns whether the server says that it is idle after a statement that was a transaction by itself. */
function answersStatement(bytes: Buffer): boolean {
  return bytes.includes('Z\0\0\0\x05I')
}

async function onPostgres(url: string, work: (client: Client) => Promise<unknown>): Promise<void> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    await work(client)
  } finally {
    await client.end()
  }
}

async function mysqlHarness(t: Test): Promise<ConformanceHarness> {
  const { url } = await useMysql(t)
  return {
    capabilities: { concurrentTransactions: true, push: false, statementsPerHeartbeat: 2 },
    open: (options) => openMysql(url, options),
    openFragile: (options) => openFragileMysql(t, url, options),
    user: {
      transaction: (work) => onMysql(url, (client) => inTransaction(client, work)),
      outsideTransaction: (work) => onMysql(url, work),
    },
    execute: (sql) => onMysql(url, (client) => client.query(sql)),
  }
}

function openMysql(url: string, options: StoreOptions) {
  return openMysqlStore({ ...options, database: url, migrate: true, onWarning: () => undefined })
}

/** Opens a store behind a proxy. In a heartbeat the first statement is the one that counts, in a change the last. */
async function openFragileMysql(t: Test, url: string, options: StoreOptions): Promise<FragileStore> {
  const { proxy, url: proxied } = await throughProxy(t, url)
  let asked = ''
  proxy.toServer.alter((bytes) => {
    asked = bytes.toString('latin1')
    return bytes
  })
  return fragile(await openMysql(proxied, options), proxy, {
    // The answers to all statements that return nothing look the same.
    change: () => asked.endsWith('commit'),
    heartbeat: answersStamp,
  })
}

/** Returns whether the server says that an update has changed its row. */
function answersStamp(bytes: Buffer): boolean {
  return bytes.includes('Rows matched: 1  Changed: 1')
}

async function onMysql(url: string, work: (client: Connection) => Promise<unknown>): Promise<void> {
  const client = await createConnection(url)
  try {
    await work(client)
  } finally {
    await client.end()
  }
}

async function inTransaction(
  client: { query(sql: string): Promise<unknown> },
  work: (handle: unknown) => Promise<void>,
): Promise<void> {
  await client.query('begin')
  try {
    await work(client)
    await client.query('commit')
  } catch (error) {
    await client.query('rollback')
    throw error
  }
}
