/** The promises of the port, over every database there is a store for. */
import Sqlite from 'better-sqlite3'
import { Client } from 'pg'
import t, { type Test } from 'tap'
import { openPostgresStore } from '../../plugin/stores/postgres/index.js'
import { openSqliteStore, openSqliteStoreOver } from '../../plugin/stores/sqlite/index.js'
import {
  type ConformanceHarness,
  type FragileStore,
  type StoreOptions,
  storeConformance,
} from '../../plugin/testing/conformance.js'
import { usePostgres, useSqlite } from '../support/databases.js'
import { answersCommit, useProxy } from '../support/proxy.js'

const dialects: Readonly<Record<string, (t: Test) => Promise<ConformanceHarness>>> = {
  sqlite: sqliteHarness,
  'sqlite, several stores on one database object': sharedSqliteHarness,
  postgres: postgresHarness,
}

t.setTimeout(300_000)

for (const [dialect, harnessFor] of Object.entries(dialects)) {
  t.test(dialect, async (t) => {
    const harness = await harnessFor(t)
    for (const { promise, reasonToSkip, run } of storeConformance()) {
      await t.test(promise, { skip: reasonToSkip(harness) ?? false }, () => run(harness))
    }
  })
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
  // A driver that waits would stop whoever it waits for: they are in this process.
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
      transaction: (work) => onPostgres(url, (client) => postgresTransaction(client, work)),
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
  const target = new URL(url)
  const proxy = await useProxy(t, { host: target.hostname, port: Number(target.port || 5432) })
  target.hostname = '127.0.0.1'
  target.port = String(proxy.port)
  const store = await openPostgres(target.href, options)
  return {
    store,
    loseAnswerTo: (verb) => void proxy.cutAtAnswer(verb === 'change' ? answersCommit : answersStatement),
    goSilent: () => proxy.goSilent(),
    cut: () => proxy.cut(),
  }
}

/** Whether the server says that it is idle, after something that was a transaction by itself. */
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

async function postgresTransaction(client: Client, work: (handle: unknown) => Promise<void>): Promise<void> {
  await client.query('begin')
  try {
    await work(client)
    await client.query('commit')
  } catch (error) {
    await client.query('rollback')
    throw error
  }
}
