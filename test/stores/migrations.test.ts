/** Tests that the schema is made once, however many nodes start at once, and never in part. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import Sqlite from 'better-sqlite3'
import mssql from 'mssql'
import { createPool } from 'mysql2'
import { createConnection } from 'mysql2/promise'
import { Client, Pool } from 'pg'
import t, { type Test } from 'tap'
import { CoordinationError } from '../../plugin/core/errors.js'
import type { Store } from '../../plugin/core/store.js'
import { Connections as MssqlConnections } from '../../plugin/stores/mssql/connections.js'
import { migrationTarget as mssqlTarget } from '../../plugin/stores/mssql/migrations.js'
import { PooledConnections as MysqlConnections } from '../../plugin/stores/mysql/connections.js'
import { migrationTarget as mysqlTarget } from '../../plugin/stores/mysql/migrations.js'
import { openStore } from '../../plugin/stores/open.js'
import { PooledConnections } from '../../plugin/stores/postgres/connections.js'
import { migrationTarget as postgresTarget } from '../../plugin/stores/postgres/migrations.js'
import { type Limits, limitsWithin } from '../../plugin/stores/shared/limits.js'
import {
  applyMigrations,
  type Dialect,
  journalTable,
  type Migration,
  type MigrationSession,
  type MigrationTarget,
  migrationSql,
  shippedMigrations,
} from '../../plugin/stores/shared/migrate.js'
import { migrationTarget as sqliteTarget } from '../../plugin/stores/sqlite/migrations.js'
import { gate, join as joinNodes } from '../../plugin/testing/conformance/world.js'
import {
  type Database,
  eachDatabase,
  mssqlConfig,
  useMssql,
  useMysql,
  usePostgres,
  useSqlite,
  withoutMssql,
  withoutMysql,
} from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { useProxy } from '../support/proxy.js'
import { execute, query } from '../support/statements.js'
import { startProcess } from './store-process.js'

t.setTimeout(300_000)

t.test('many processes may start at once on an empty database', async (t) => {
  await eachDatabase(t, async (t, database) => {
    const processes = Array.from({ length: 5 }, () => startProcess(t))
    await Promise.all(processes.map((process) => process.ask('open', database.url)))
    t.strictSame(
      await query(database, `select name from ${journalTable} order by name`),
      names(database.dialect),
    )
    await Promise.all(processes.map((process, index) => process.ask('join', `node ${index}`)))
    t.equal((await query(database, 'select id from coordination_nodes')).length, 5)
  })
})

t.test('many stores may be opened at once in one process', async (t) => {
  await eachDatabase(t, async (t, database) => {
    const stores = await Promise.all(Array.from({ length: 5 }, () => open(database.url)))
    t.strictSame(
      await query(database, `select name from ${journalTable} order by name`),
      names(database.dialect),
    )
    await Promise.all(stores.map((store) => store.close()))
  })
})

t.test('what is pending is an error that names it when it may not be run', async (t) => {
  await eachDatabase(t, async (t, database) => {
    const error = await refusal(open(database.url, { migrate: false }))
    t.equal(error.code, 'WCO_SCHEMA_PENDING')
    t.match(error, { name: 'PendingMigrationsError', pending: names(database.dialect) })
    for (const name of names(database.dialect)) t.match(error.message, name)
    t.match(error.message, `migrationSql('${database.dialect}')`)
    const made = await query(database, tablesIn[database.dialect])
    t.strictSame(made, [], 'nothing was made')
  })
})

t.test('after the SQL has been run by hand nothing is pending', async (t) => {
  await eachDatabase(t, async (t, database) => {
    await execute(database, migrationSql(database.dialect))
    const store = await open(database.url, { migrate: false })
    const { committed } = await store.change(undefined, (change) => change.saveMeta({ tokenFloor: 1 }))
    t.ok(committed)
    await store.close()
    t.equal(migrationSql(database.dialect, names(database.dialect)), '', 'and nothing is left to be run')
  })
})

t.test('a schema that is newer than this library is refused, and says what to do', async (t) => {
  await eachDatabase(t, async (t, database) => {
    await (await open(database.url)).close()
    await execute(database, `insert into ${journalTable} (name) values ('29990101000000_future')`)
    for (const migrate of [true, false]) {
      const error = await refusal(open(database.url, { migrate }))
      t.equal(error.code, 'WCO_SCHEMA_NEWER')
      t.match(error.message, '29990101000000_future')
      t.match(error.message, 'Use the version of the library')
    }
  })
})

t.test('a migration that fails leaves nothing, not even those before it', async (t) => {
  const undoing = { canUndo: true }
  await eachTarget(t, undoing, async (t, database, target) => {
    const first: Migration = { name: '1_first', statements: ['create table first (id text)'] }
    const second: Migration = {
      name: '2_second',
      statements: ['create table second (id text)', 'create nonsense'],
    }
    const options = { migrate: true }
    const error = await refusal(applyMigrations(database.dialect, [first, second], target, options))
    t.equal(error.code, 'WCO_SCHEMA_PENDING')
    t.match(error.message, '"1_first", "2_second"')
    t.match(error.message, /nonsense/, 'it tells what the database said')
    t.strictSame(await query(database, tablesIn[database.dialect]), [])

    const repaired = { ...second, statements: ['create table second (id text)'] }
    await applyMigrations(database.dialect, [first, repaired], target, options)
    t.strictSame(await query(database, tablesIn[database.dialect]), ['first', 'second', journalTable])
  })
})

t.test('only what is not in the journal is run, in the order of the names', async (t) => {
  await eachTarget(t, {}, async (t, database, target) => {
    const create = (name: string): Migration => ({ name, statements: [`create table ${name} (id text)`] })
    const fill: Migration = { name: 'c', statements: [`insert into b values ('filled')`] }
    await applyMigrations(database.dialect, [create('b')], target, { migrate: true })
    const history = [create('a'), create('b'), fill]
    const error = await refusal(applyMigrations(database.dialect, history, target, { migrate: false }))
    t.match(error.message, '("a", "c")')
    t.match(error.message, `migrationSql('${database.dialect}', ["b"])`)
    await Promise.all(
      [1, 2, 3].map(() => applyMigrations(database.dialect, history, target, { migrate: true })),
    )
    t.strictSame(await query(database, 'select id from b'), ['filled'])
    t.strictSame(await query(database, `select name from ${journalTable} order by name`), ['a', 'b', 'c'])
  })
})

t.test('a PostgreSQL role that may create nothing can start once the schema is there', async (t) => {
  const database = await usePostgres(t)
  const { role, url } = await useRole(t, database)
  const refused = await refusal(open(url))
  t.equal(refused.code, 'WCO_SCHEMA_PENDING')
  t.match(refused.message, /permission denied/)
  t.match(refused.message, "migrationSql('postgres')")

  await (await open(database.url)).close()
  await execute(database, `grant select, insert, update, delete on all tables in schema public to ${role}`)
  const store = await open(url)
  await store.change(undefined, (change) => change.saveMeta({ tokenFloor: 1 }))
  t.equal((await store.snapshot()).meta.tokenFloor, 1)
  await store.close()
})

t.test('a PostgreSQL role without rights in the tables is told which page lists them', async (t) => {
  const database = await usePostgres(t)
  const { role, url } = await useRole(t, database)
  await (await open(database.url)).close()
  const said =
    /permission denied for .+\. Grant the user the rights that docs\/databases\/postgres\.md lists\.$/
  for (const rights of ['usage on schema public', `select on ${journalTable}`]) {
    await execute(database, `grant ${rights} to ${role}`)
    t.match(await refusal(open(url)), { code: 'WCO_STORE', message: said }, rights)
  }
  await execute(database, `grant select on all tables in schema public to ${role}`)
  await execute(database, `grant update on coordination_leases to ${role}`)
  const store = await open(url)
  t.teardown(() => store.close())
  const change = store.change(undefined, (change) => change.saveMeta({ tokenFloor: 1 }))
  t.match(await refusal(change), { code: 'WCO_STORE', message: said }, 'also later')
})

t.test('SQL is made for the dialects there are, and what else is asked for is refused', async (t) => {
  for (const dialect of ['mariadb', 'postgresql', undefined, 'toString'])
    t.throws(() => migrationSql(dialect as Dialect), {
      code: 'WCO_OPTIONS',
      message: `migrationSql: expected "postgres", "mysql" (also for MariaDB), "mssql" or "sqlite", got ${JSON.stringify(dialect)}.`,
    })
  t.throws(() => migrationSql('sqlite', 'a' as never), {
    code: 'WCO_OPTIONS',
    message: `migrationSql: expected the names in the table ${journalTable} as a list of texts, got "a".`,
  })
})

t.test('MySQL makes every table in a row format that has room for long names, whatever its default', (t) => {
  const made = migrationSql('mysql').match(/CREATE TABLE[^;]*/g) ?? []
  t.equal(made.length, 6)
  for (const statement of made) t.match(statement, 'ENGINE=InnoDB ROW_FORMAT=DYNAMIC')
  t.end()
})

t.test('PostgreSQL leaves room on its pages, so that a heartbeat touches no index', async (t) => {
  const database = await usePostgres(t)
  await (await open(database.url)).close()
  const options = await query(
    database,
    "select array_to_string(reloptions, ',') from pg_class where relname = 'coordination_nodes'",
  )
  t.strictSame(options, ['fillfactor=50'])
})

t.test('a PostgreSQL migration whose process freezes does not stop those who run', async (t) => {
  const { url } = await usePostgres(t)
  const store = await joinedStore(t, url)
  const { hostname, port } = new URL(url)
  const proxy = await useProxy(t, { host: hostname, port: Number(port) })
  const way = new URL(url)
  way.hostname = proxy.host
  way.port = String(proxy.port)
  let attempts = 0
  const frozen = gate()
  const migrated = migrating(t, way.href, async (session) => {
    attempts += 1
    await session.execute('alter table coordination_nodes add later integer')
    if (attempts > 1) return
    proxy.toServer.hold()
    frozen.open()
  })
  await frozen.opened
  t.ok(await store.heartbeat('a', 1), 'the server ends what is silent')
  proxy.toServer.release()
  await migrated
  t.ok(attempts > 1, 'and it is begun anew')
})

t.test('a migration that waits for a table lets heartbeats through', async (t) => {
  const servers = {
    postgres: { use: usePostgres, missing: undefined },
    mysql: { use: useMysql, missing: withoutMysql },
    mssql: { use: useMssql, missing: withoutMssql },
  }
  for (const [dialect, { use, missing }] of Object.entries(servers)) {
    await t.test(dialect, { skip: missing ?? false }, async (t) => {
      const database = await use(t)
      const store = await joinedStore(t, database.url)
      const user = await usingNodes(t, database)
      let attempts = 0
      const migrated = migrating(t, database.url, async (session) => {
        attempts += 1
        await session.execute('alter table coordination_nodes add later integer')
      })
      await eventually(async () => (await query(database, waitsFor(dialect))).length > 0)
      t.ok(await store.heartbeat('a', 1), 'those behind it are served while the user goes on')
      await user.end()
      await migrated
      t.ok(attempts > 1, 'it has given way')
    })
  }
})

t.test('schemas and migrations have not drifted apart', async (t) => {
  for (const dialect of ['postgres', 'sqlite', 'mysql', 'mssql']) {
    t.match(
      await drizzleKit(dialect, 'generate', '--explain'),
      { status: 'no_changes' },
      `${dialect}: nothing to do`,
    )
    const check = await drizzleKit(dialect, 'check')
    t.match(check, { status: 'ok' }, `${dialect}: no two branches of migrations`)
    t.notOk(check.warnings, `${dialect}: no warnings`)
  }
})

/** Opens a store whose nodes `a` and `b` have joined, and whose heartbeats wait longer than a migration. */
async function joinedStore(t: Test, url: string): Promise<Store> {
  const store = await open(url)
  t.teardown(() => store.close())
  await joinNodes(store, ['a', 'b'])
  return store
}

/** Migrates as a store with a statement timeout of three seconds does. */
async function migrating(
  t: Test,
  url: string,
  work: (session: MigrationSession) => Promise<void>,
): Promise<void> {
  const limits = limitsWithin(3_000)
  if (url.startsWith('mssql:')) return (await useMssqlTarget(t, url, limits)).locked(work)
  if (url.startsWith('mysql:')) {
    const connections = new MysqlConnections(createPool(url), limits)
    t.teardown(() => connections.close())
    return mysqlTarget(connections).locked(work)
  }
  const pgPool = () => new Pool({ connectionString: url })
  const connections = new PooledConnections({ pool: pgPool(), own: true, createPool: pgPool }, limits)
  t.teardown(() => connections.close())
  return postgresTarget(connections).locked(work)
}

/**
 * Opens a transaction that has read the nodes, and keeps it open. On SQL Server, where readers block nobody, it has
 * written the row of `b` instead.
 */
async function usingNodes(t: Test, { dialect, url }: Database): Promise<{ end: () => Promise<void> }> {
  if (dialect === 'mssql') {
    const pool = new mssql.ConnectionPool(mssqlConfig(url))
    await pool.connect()
    t.teardown(() => pool.close())
    const transaction = pool.transaction()
    await transaction.begin()
    await transaction.request().query("update coordination_nodes set [beat] = [beat] where [id] = N'b'")
    return { end: () => transaction.commit() }
  }
  if (dialect === 'mysql') {
    const reader = await createConnection(url)
    t.teardown(() => reader.end())
    await reader.query('begin')
    await reader.query('select * from coordination_nodes')
    return { end: async () => void (await reader.query('commit')) }
  }
  const reader = new Client({ connectionString: url })
  await reader.connect()
  t.teardown(() => reader.end())
  await reader.query('begin; select * from coordination_nodes')
  return { end: async () => void (await reader.query('commit')) }
}

/** Returns a statement that finds a row while a migration waits for a table. */
function waitsFor(dialect: string): string {
  if (dialect === 'mssql')
    return "select spid from sys.sysprocesses where dbid = db_id() and blocked <> 0 and lastwaittype like N'L%CK%'"
  return dialect === 'mysql'
    ? "select 1 from information_schema.processlist where info like 'alter table%' and state like 'Waiting for table%'"
    : "select 1 from pg_stat_activity where query like 'alter table%' and wait_event = 'relation'"
}

/** Statements that return the names of all tables. */
const tablesIn: Record<Database['dialect'], string> = {
  postgres: "select tablename from pg_tables where schemaname = 'public' order by tablename",
  sqlite: "select name from sqlite_master where type = 'table' order by name",
  mysql:
    'select table_name from information_schema.tables where table_schema = database() order by table_name',
  mssql: 'select name from sys.tables order by name',
}

function open(url: string, { migrate = true } = {}) {
  return openStore({
    database: url,
    namespace: 'test',
    statementTimeoutMs: 30_000,
    migrate,
    push: false,
    log: { warn: () => undefined },
  })
}

function names(dialect: Dialect): string[] {
  return shippedMigrations(dialect).map(({ name }) => name)
}

async function refusal(attempt: Promise<unknown>): Promise<CoordinationError> {
  const error = await attempt.then(
    () => undefined,
    (error: unknown) => error,
  )
  if (error instanceof CoordinationError) return error
  throw new Error('Expected a CoordinationError', { cause: error })
}

/**
 * Runs a test over an empty database of each dialect, or of each that can undo the creation of a table. The test
 * receives the store's own way to migrate the database.
 */
async function eachTarget(
  t: Test,
  { canUndo = false }: { canUndo?: boolean },
  body: (t: Test, database: Database, target: MigrationTarget) => Promise<void>,
): Promise<void> {
  await t.test('sqlite', async (t) => {
    const database = await useSqlite(t)
    const client = new Sqlite(database.path)
    t.teardown(() => client.close())
    await body(t, database, oneByOne(sqliteTarget(client, Number.POSITIVE_INFINITY)))
  })
  await t.test('postgres', async (t) => {
    const database = await usePostgres(t)
    const pgPool = () => new Pool({ connectionString: database.url })
    const source = { pool: pgPool(), own: true, createPool: pgPool }
    const connections = new PooledConnections(source, limitsWithin(30_000))
    t.teardown(() => connections.close())
    await body(t, database, postgresTarget(connections))
  })
  await t.test('mysql', { skip: withoutMysql ?? (canUndo && 'it cannot') }, async (t) => {
    const database = await useMysql(t)
    const connections = new MysqlConnections(createPool(database.url), limitsWithin(30_000))
    t.teardown(() => connections.close())
    await body(t, database, mysqlTarget(connections))
  })
  await t.test('mssql', { skip: withoutMssql ?? false }, async (t) => {
    const database = await useMssql(t)
    await body(t, database, await useMssqlTarget(t, database.url, limitsWithin(30_000)))
  })
}

async function useMssqlTarget(t: Test, url: string, limits: Limits): Promise<MigrationTarget> {
  const pool = new mssql.ConnectionPool(mssqlConfig(url))
  const types = { text: mssql.NVarChar(mssql.MAX), number: { type: mssql.BigInt } }
  const connections = new MssqlConnections({ pool, limits, types })
  await connections.open()
  t.teardown(() => connections.close())
  return mssqlTarget(connections)
}

/**
 * Lets one migration run after another, because one connection has one transaction at a time. The store itself does so
 * by taking turns.
 */
function oneByOne(target: MigrationTarget): MigrationTarget {
  let last: Promise<unknown> = Promise.resolve()
  return {
    appliedNames: target.appliedNames,
    locked(work) {
      const next = last.then(() => target.locked(work))
      last = next.catch(() => undefined)
      return next
    },
  }
}

/** Makes a role that may connect but create nothing. */
async function useRole(t: Test, database: Database): Promise<{ role: string; url: string }> {
  const role = `coordination_test_${randomBytes(8).toString('hex')}`
  const password = randomBytes(8).toString('hex')
  await execute(database, `create role ${role} login password '${password}'`)
  await execute(database, 'revoke create on schema public from public')
  t.teardown(() => execute(database, `drop owned by ${role}; drop role ${role}`))
  const url = new URL(database.url)
  url.username = role
  url.password = password
  return { role, url: url.href }
}

/** Returns the report of drizzle-kit. Its exit code says nothing. */
async function drizzleKit(DIALECT: string, ...args: string[]): Promise<Record<string, unknown>> {
  const root = projectRoot(dirname(fileURLToPath(import.meta.url)))
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [join(root, 'node_modules/drizzle-kit/bin.cjs'), ...args, '--output', 'json'],
    { cwd: root, env: { ...process.env, DIALECT, NODE_OPTIONS: '', NODE_V8_COVERAGE: '' } },
  )
  return JSON.parse(stdout)
}

function projectRoot(folder: string): string {
  return existsSync(join(folder, 'drizzle.config.ts')) ? folder : projectRoot(dirname(folder))
}
