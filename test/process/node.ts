/**
 * A node as a process of its own, for tests that kill, freeze and block it. It does small pieces of work under every
 * lease it holds, and reports each to the test. Times are by the machine's monotonic clock, which all processes share.
 */
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import BetterSqlite from 'better-sqlite3'
import Fastify from 'fastify'
import { silentLog } from '../../plugin/core/log.js'
import { deferred } from '../../plugin/core/time/loop.js'
import workerCoordination, {
  allowLoopback,
  type HeldLease,
  LeaseLostError,
  type PassContext,
  type TimingOptions,
} from '../../plugin/index.js'
import { openStore } from '../../plugin/stores/open.js'
import { mssqlConfig } from '../support/databases.js'
import { eventually } from '../support/eventually.js'

/** What the process is told when it starts. */
export interface NodeOrder {
  readonly database: string
  readonly namespace: string
  readonly node: string
  readonly cluster: string
  readonly timing: TimingOptions
  /** The option `watchProcesses`. Default false here, so that other nodes can judge only by its silence. */
  readonly watchProcesses?: boolean
  readonly workers: readonly WorkerOrder[]
  /** Whether its passes hang, without doing work and whatever their signals say, until `go-on`. Default false. */
  readonly hangs?: boolean
}

export type WorkerOrder =
  | { readonly kind: 'single' | 'coordinated'; readonly name: string; readonly scope: 'cluster' | 'global' }
  | {
      readonly kind: 'partitioned'
      readonly name: string
      readonly scope: 'cluster' | 'global'
      readonly partitions: number
    }

/** What it is told later. */
export type Command =
  /** Blocks the event loop until the file exists. */
  | { readonly command: 'block'; readonly untilFile: string }
  /** Writes a row in a transaction fenced by the latest lease of this key, and commits it. */
  | { readonly command: 'write'; readonly key: string }
  /** The same, but the fence is the store's alone, so that no clock of this process is asked. */
  | { readonly command: 'write-unasked'; readonly key: string }
  /** The same as `write`, but never ends the transaction. */
  | { readonly command: 'hold'; readonly key: string }
  /** Lets the hanging passes end. */
  | { readonly command: 'go-on' }
  | { readonly command: 'listen' }
  /** Reports `echo` after everything before it. */
  | { readonly command: 'echo'; readonly word: string }

interface Term {
  readonly key: string
  readonly token: number
  /** Set for shares of a coordinated worker. */
  readonly share?: { readonly index: number; readonly count: number; readonly generation: number }
}

/** What it reports. Times are milliseconds by the monotonic clock. */
export type Report =
  | { readonly report: 'running'; readonly id: string }
  /** A piece of work. It began at this time, and the lease was held at a later instant. */
  | ({ readonly report: 'worked'; readonly atMs: number } & Term)
  /** A pass has ended, because its own check failed or its signal woke it. */
  | ({
      readonly report: 'stopped'
      readonly atMs: number
      readonly noticedBy: 'check' | 'signal'
      readonly aborted: boolean
      readonly reason: string
    } & Term)
  /** A pass hangs. `aborted` follows when its signal aborts. */
  | ({ readonly report: 'hangs' } & Term)
  | ({ readonly report: 'aborted'; readonly reason: string } & Term)
  | { readonly report: 'listening'; readonly origin: string }
  | { readonly report: 'holding'; readonly key: string }
  /** A fenced write was committed, or failed with the error of this name. */
  | { readonly report: 'wrote'; readonly key: string; readonly token: number; readonly error: string | null }
  | { readonly report: 'echo'; readonly word: string }

const order = JSON.parse(process.argv[2] ?? '') as NodeOrder
const { database, namespace, node, cluster, timing } = order
const latest = new Map<string, HeldLease>()
const ownData = await ownDataOf(database.slice(0, database.indexOf(':')))
const { statementTimeoutMs = 5_000 } = timing
const store = await openStore({
  database,
  namespace,
  statementTimeoutMs,
  migrate: true,
  push: false,
  log: silentLog,
})

// Test machines are busy, and some servers answer slowly at first.
const app = Fastify({ pluginTimeout: 60_000 })
const { watchProcesses = false, hangs = false } = order
await app.register(workerCoordination, {
  ...{ database, namespace, identity: { node, cluster }, watchProcesses },
  ...timing,
  authorize: allowLoopback(),
})
const goingOn = deferred()
const run = hangs ? hang : work
for (const worker of order.workers) {
  if (worker.kind === 'coordinated') {
    app.coordination.worker({ ...worker, kind: 'coordinated', run })
  } else if (worker.kind === 'single') {
    app.coordination.worker({ ...worker, kind: 'single', run })
  } else {
    app.coordination.worker({ ...worker, run })
  }
}
/** Ends the process with its test. Otherwise it would keep open the output that the test runner waits for. */
const endWithTest = (): never => process.exit(1)
process.once('disconnect', endWithTest)
app.addHook('onClose', async () => {
  await store.close()
  await ownData.close()
  process.off('disconnect', endWithTest)
  process.disconnect()
})
let obeyed = Promise.resolve()
process.on('message', (command: Command) => {
  obeyed = obeyed.then(() => obey(command))
})
process.on('SIGTERM', () => void app.close())
await app.ready()
say({ report: 'running', id: app.coordination.nodeId ?? '' })

/**
 * Works until the lease is lost. The time is taken before the check, so that a process that is stopped between the two
 * has not worked.
 */
async function work(context: PassContext & { assignment?: Term['share'] }): Promise<void> {
  const { lease, signal, assignment } = context
  const { key, token } = lease
  const share = assignment && {
    index: assignment.index,
    count: assignment.count,
    generation: assignment.generation,
  }
  const term: Term = share === undefined ? { key, token } : { key, token, share }
  latest.set(key, lease)
  try {
    for (;;) {
      const atMs = monotonicMs()
      lease.assertHeld()
      say({ report: 'worked', atMs, ...term })
      await sleep(20, undefined, { signal })
    }
  } catch (error) {
    const noticedBy = error instanceof LeaseLostError ? 'check' : 'signal'
    const reason = error instanceof LeaseLostError ? error.reason : signal.reason.reason
    say({ report: 'stopped', atMs: monotonicMs(), noticedBy, aborted: signal.aborted, reason, ...term })
  }
}

/** Hangs, as only people notice: the process is well, and no work is done. */
async function hang({ lease: { key, token }, signal }: PassContext): Promise<void> {
  signal.addEventListener('abort', () => say({ report: 'aborted', reason: signal.reason.reason, key, token }))
  say({ report: 'hangs', key, token })
  await goingOn.promise
}

async function obey(command: Command): Promise<void> {
  if (command.command === 'block') blockUntil(command.untilFile)
  else if (command.command === 'go-on') goingOn.resolve()
  else if (command.command === 'listen')
    say({ report: 'listening', origin: await app.listen({ port: 0, host: '127.0.0.1' }) })
  else if (command.command === 'echo') say({ report: 'echo', word: command.word })
  else await write(command)
}

async function write({ command, key }: { readonly command: string; readonly key: string }): Promise<void> {
  // The database may show that this node leads before its pass has begun.
  const lease = await eventually(() => latest.get(key), { timeoutMs: 60_000 })
  if (lease === undefined) throw new Error(`There is no lease ${key}`)
  const { token, holder } = lease
  const fence = (transaction: object): PromiseLike<void> | void =>
    command === 'write-unasked'
      ? store.fence(transaction, { key, node: holder, token })
      : lease.fence(transaction)
  try {
    await ownData.begin()
    await fence(ownData.client)
    if (command === 'hold') return say({ report: 'holding', key })
    await ownData.insert(key, token)
    await ownData.end('commit')
    say({ report: 'wrote', key, token, error: null })
  } catch (error) {
    await ownData.end('rollback')
    say({ report: 'wrote', key, token, error: error instanceof Error ? error.name : String(error) })
  }
}

/** A connection of the application's own to the same database, for its own rows. */
interface OwnData {
  readonly client: object
  begin(): Promise<void>
  insert(key: string, token: number): Promise<void>
  end(how: 'commit' | 'rollback'): Promise<void>
  close(): Promise<void>
}

/** Loads the driver of this database only: a node is ready sooner without the others. */
async function ownDataOf(scheme: string): Promise<OwnData> {
  if (scheme === 'sqlite') return sqliteData()
  if (scheme === 'mssql') return mssqlData()
  return scheme === 'mysql' ? mysqlData() : postgresData()
}

async function mssqlData(): Promise<OwnData> {
  const { default: mssql } = await import('mssql')
  const pool = new mssql.ConnectionPool(mssqlConfig(database))
  pool.on('error', () => undefined)
  await pool.connect()
  const client = pool.transaction()
  return {
    client,
    begin: async () => void (await client.begin()),
    async insert(key, token) {
      const request = client.request().input('lease', key).input('token', mssql.BigInt, token)
      await request.query('insert into writes (lease, token) values (@lease, @token)')
    },
    end: (how) => client[how](),
    close: () => pool.close(),
  }
}

async function mysqlData(): Promise<OwnData> {
  const { createConnection } = await import('mysql2/promise')
  const client = await createConnection(database)
  return {
    client,
    begin: async () => void (await client.query('begin')),
    insert: async (key, token) =>
      void (await client.query('insert into writes (lease, token) values (?, ?)', [key, token])),
    end: async (how) => void (await client.query(how)),
    close: () => client.end(),
  }
}

async function postgresData(): Promise<OwnData> {
  const { Client } = await import('pg')
  const client = new Client({ connectionString: database })
  await client.connect()
  return {
    client,
    begin: async () => void (await client.query('begin')),
    insert: async (key, token) =>
      void (await client.query('insert into writes (lease, token) values ($1, $2)', [key, token])),
    end: async (how) => void (await client.query(how)),
    close: () => client.end(),
  }
}

/** Tries a busy file again after a while, because waiting inside the driver would stop the whole process. */
function sqliteData(): OwnData {
  const client = new BetterSqlite(database.slice('sqlite:'.length), { timeout: 0 })
  return {
    client,
    async begin() {
      while (!began(client)) await sleep(5)
    },
    insert: async (key, token) =>
      void client.prepare('insert into writes (lease, token) values (?, ?)').run(key, token),
    end: async (how) => void (client.inTransaction && client.exec(how)),
    close: async () => void client.close(),
  }
}

function began(client: BetterSqlite.Database): boolean {
  try {
    client.exec('begin immediate')
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && String(error.code).startsWith('SQLITE_BUSY'))
      return false
    throw error
  }
}

/** Blocks for two minutes at most, in case no test creates the file. */
function blockUntil(file: string): void {
  const pause = new Int32Array(new SharedArrayBuffer(4))
  const deadlineMs = monotonicMs() + 120_000
  while (!existsSync(file) && monotonicMs() < deadlineMs) Atomics.wait(pause, 0, 0, 5)
}

function say(report: Report): void {
  if (process.connected) process.send?.(report)
}

function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}
