/** Connects the conformance suite to SQL Server. */
import type { Transaction } from 'mssql'
import type { Test } from 'tap'
import { openMssqlStore } from '../../plugin/stores/mssql/index.js'
import type {
  ConformanceHarness,
  FragileStore,
  StoreOptions,
} from '../../plugin/testing/conformance/harness.js'
import { useMssql, withMssql } from '../support/databases.js'
import { fragile, throughProxy } from '../support/proxy.js'

export async function mssqlHarness(t: Test): Promise<ConformanceHarness> {
  const { url } = await useMssql(t)
  return {
    capabilities: { concurrentTransactions: true, push: false },
    open: (options) => openMssql(url, options),
    openFragile: (options) => openFragile(t, url, options),
    user: {
      transaction: (work) => withMssql(url, (pool) => within(pool.transaction(), work)),
      outsideTransaction: (work) => withMssql(url, async (pool) => work(pool.transaction())),
    },
    execute: (sql) => withMssql(url, async (pool) => void (await pool.query(sql))),
  }
}

/** Returns whether the server says that the transaction of this connection has been committed. */
export function answersCommit(bytes: Buffer): boolean {
  return bytes.includes(Buffer.from([0xe3, 0x0b, 0x00, 0x09]))
}

/** Runs work in a transaction, as an application does. */
export async function within(
  transaction: Transaction,
  work: (transaction: Transaction) => Promise<void>,
): Promise<void> {
  await transaction.begin()
  try {
    await work(transaction)
    await transaction.commit()
  } catch (error) {
    await transaction.rollback()
    throw error
  }
}

/**
 * Opens a store with more time than a case asks for. Babelfish parses a statement anew on each connection, which can
 * take seconds on a busy machine.
 */
function openMssql(url: string, options: StoreOptions) {
  const statementTimeoutMs = Math.min(120_000, 40 * options.statementTimeoutMs)
  return openMssqlStore({
    ...options,
    statementTimeoutMs,
    database: url,
    migrate: true,
    onWarning: () => undefined,
  })
}

async function openFragile(t: Test, url: string, options: StoreOptions): Promise<FragileStore> {
  const { proxy, url: proxied } = await throughProxy(t, url)
  return fragile(await openMssql(proxied, options), proxy, {
    change: answersCommit,
    heartbeat: answersHeartbeat,
  })
}

/** Returns whether the answer has a column that heartbeats have. */
function answersHeartbeat(bytes: Buffer): boolean {
  return bytes.includes(Buffer.from('longest_ttl_ms', 'utf16le'))
}
