/**
 * Brings a database's schema up to date, safely for any number of processes that start at once.
 *
 * The files are drizzle-kit's; the runner is our own. Drizzle's runner holds no lock, so two processes that start on
 * an empty database collide, and on PostgreSQL it needs the right to create schemas even when there is nothing to do.
 * Here the journal is read first, without a lock and with no right beyond SELECT. When it contains every migration,
 * nothing else happens. A process can therefore run under a role that cannot create anything, once the migrations
 * have been run under a role that can.
 *
 * Pending migrations are applied under the database's own lock, after the journal has been read again, so a process
 * that waited for the lock finds the work done. They are applied in one transaction, except on MySQL, which cannot
 * undo changes of the schema; see `mysql/migrations.ts`.
 */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import { CoordinationError, PendingMigrationsError } from '../../core/errors.js'
import { shown } from '../../core/names.js'
import { messageOf, rootOf } from './failures.js'

/** The databases that have migrations. The names are also those of their folders. */
export type Dialect = 'postgres' | 'sqlite' | 'mysql' | 'mssql'

/** The table that records which migrations have been applied, one per row, by name, in its column `name`. */
export const journalTable = 'worker_coordination_migrations'

const journals: Record<Dialect, string> = {
  postgres: `CREATE TABLE IF NOT EXISTS "${journalTable}" (
  "name" text PRIMARY KEY,
  "applied_at" timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
)`,
  sqlite: `CREATE TABLE IF NOT EXISTS "${journalTable}" (
  "name" text NOT NULL PRIMARY KEY,
  "applied_at" text DEFAULT CURRENT_TIMESTAMP NOT NULL
)`,
  mysql: `CREATE TABLE IF NOT EXISTS ${journalTable} (
  name varchar(255) PRIMARY KEY,
  applied_at timestamp DEFAULT CURRENT_TIMESTAMP NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`,
  mssql: `IF object_id(N'${journalTable}', N'U') IS NULL CREATE TABLE ${journalTable} (
  name nvarchar(255) COLLATE Latin1_General_100_BIN2 NOT NULL PRIMARY KEY,
  applied_at datetime2(3) DEFAULT sysutcdatetime() NOT NULL
)`,
}

/** A database whose schema is to be brought up to date. */
export interface MigrationTarget {
  /** Returns the names in the journal, or undefined when there is no journal. Needs no right beyond SELECT. */
  appliedNames(): Promise<string[] | undefined>
  /**
   * Runs `work` under a lock that every process migrating this database takes, and in one transaction where the
   * database can undo changes of the schema. When `work` throws, its error comes out unchanged, and the transaction
   * is undone.
   */
  locked<T>(work: (session: MigrationSession) => Promise<T>): Promise<T>
}

/** The inside of {@link MigrationTarget.locked}. */
export interface MigrationSession {
  /** As {@link MigrationTarget.appliedNames}, read while the lock is held. */
  appliedNames(): Promise<string[] | undefined>
  execute(sql: string): Promise<void>
  /** Adds a name to the journal. */
  record(name: string): Promise<void>
}

/** One step of the schema's history. */
export interface Migration {
  /** `<yyyymmddhhmmss>_<what it changes>`. Migrations are applied in the order of their names. */
  readonly name: string
  readonly statements: readonly string[]
}

/**
 * Applies the pending migrations, or makes sure that there are none.
 *
 * @throws CoordinationError `WCO_SCHEMA_NEWER` when a migration has been applied that this version of the library
 *   does not know; `WCO_SCHEMA_PENDING` when migrations are pending and `migrate` is false, or when they cannot be
 *   run. Then nothing has been applied, except on MySQL, where the migrations before the failed one have been.
 */
export async function runMigrations(
  dialect: Dialect,
  target: MigrationTarget,
  options: { readonly migrate: boolean },
): Promise<void> {
  await applyMigrations(dialect, shippedMigrations(dialect), target, options)
}

/** As {@link runMigrations}, for a history other than the shipped one. */
export async function applyMigrations(
  dialect: Dialect,
  shipped: readonly Migration[],
  target: MigrationTarget,
  options: { readonly migrate: boolean },
): Promise<void> {
  const applied = await target.appliedNames()
  const pending = pendingOf(shipped, applied ?? [])
  if (pending.length === 0) return
  if (!options.migrate) throw pendingError(dialect, pending, applied ?? [])
  try {
    await target.locked((session) => applyPending(dialect, shipped, session))
  } catch (error) {
    throw isNewer(error) ? error : pendingError(dialect, pending, applied ?? [], error)
  }
}

/**
 * Returns the SQL that creates the schema, to be run by hand where the application itself has no right to do so. It
 * is one transaction (of which MySQL commits each change of the schema at once) that also writes the journal, so that
 * the library then starts with `migrate: false`.
 *
 * @param applied the names that are already in the journal, to get only what is missing. Default: none.
 * @throws CoordinationError `WCO_OPTIONS` for an unknown dialect, or when `applied` is not a list of strings;
 *   `WCO_SCHEMA_NEWER` when it contains a migration that this version of the library does not know.
 */
export function migrationSql(dialect: Dialect, applied: readonly string[] = []): string {
  if (!Object.hasOwn(journals, dialect))
    throw wrong(`"postgres", "mysql" (also for MariaDB), "mssql" or "sqlite", got ${shown(dialect)}`)
  if (!Array.isArray(applied) || !applied.every((name) => typeof name === 'string'))
    throw wrong(`the names in the table ${journalTable} as a list of texts, got ${shown(applied)}`)
  const pending = pendingOf(shippedMigrations(dialect), applied)
  if (pending.length === 0) return ''
  const statements = [
    journals[dialect],
    ...pending.flatMap(({ name, statements }) => [
      ...statements,
      `INSERT INTO ${journalTable} (name) VALUES ('${name}')`,
    ]),
  ]
  // Without this, SQL Server would continue after an error and commit the rest.
  const begin = dialect === 'mssql' ? ['SET XACT_ABORT ON', 'BEGIN TRANSACTION'] : ['BEGIN']
  return [...begin, ...statements, 'COMMIT']
    .map((statement) => `${withoutSemicolon(statement)};\n`)
    .join('\n')
}

function wrong(expected: string): CoordinationError {
  return new CoordinationError('WCO_OPTIONS', `migrationSql: expected ${expected}.`)
}

/** Returns the migrations of this version of the library, oldest first. */
export function shippedMigrations(dialect: Dialect): Migration[] {
  const folder = folderOf(dialect)
  if (folder === undefined || !existsSync(folder)) {
    throw new CoordinationError(
      'WCO_SCHEMA_PENDING',
      'The migrations of fastify-worker-coordination are not where the package keeps them. When bundling ' +
        'an application, leave this package out of the bundle.',
    )
  }
  return readMigrationFiles({ migrationsFolder: folder }).map(({ name, sql }) => ({
    name,
    statements: sql.map((statement) => statement.trim()).filter((statement) => statement !== ''),
  }))
}

/** Returns undefined in a CommonJS bundle, where a module does not know its location. */
function folderOf(dialect: Dialect): string | undefined {
  const here: string | undefined = import.meta.url
  // This file is compiled to build/plugin/stores/shared/.
  return here === undefined ? undefined : fileURLToPath(new URL(`../../../../migrations/${dialect}`, here))
}

async function applyPending(
  dialect: Dialect,
  shipped: readonly Migration[],
  session: MigrationSession,
): Promise<void> {
  const applied = await session.appliedNames()
  if (applied === undefined) await session.execute(journals[dialect])
  for (const { name, statements } of pendingOf(shipped, applied ?? [])) {
    for (const statement of statements) await session.execute(statement)
    await session.record(name)
  }
}

function pendingOf(shipped: readonly Migration[], applied: readonly string[]): Migration[] {
  const known = new Set(shipped.map(({ name }) => name))
  const unknown = applied.filter((name) => !known.has(name))
  if (unknown.length > 0) throw newerError(unknown)
  const done = new Set(applied)
  return shipped.filter(({ name }) => !done.has(name))
}

function newerError(unknown: readonly string[]): CoordinationError {
  return new CoordinationError(
    'WCO_SCHEMA_NEWER',
    `The database's schema is newer than this version of fastify-worker-coordination: it has ${listed(unknown)}. ` +
      'Use the version of the library that made the schema, or a newer one.',
  )
}

function isNewer(error: unknown): boolean {
  return error instanceof CoordinationError && error.code === 'WCO_SCHEMA_NEWER'
}

function pendingError(
  dialect: Dialect,
  pending: readonly Migration[],
  applied: readonly string[],
  cause?: unknown,
): PendingMigrationsError {
  const names = pending.map(({ name }) => name)
  const why =
    cause === undefined
      ? 'are to be run by hand (migrate: false)'
      : `could not be run: ${messageOf(rootOf(cause)).replace(/\.$/, '')}`
  const call = `migrationSql('${dialect}'${applied.length === 0 ? '' : `, ${JSON.stringify(applied)}`})`
  return new PendingMigrationsError(
    names,
    `Migrations are pending (${listed(names)}) that ${why}. ${call} from fastify-worker-coordination returns the SQL: ` +
      'run it once as a user who may create tables.',
    cause === undefined ? undefined : { cause },
  )
}

function listed(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(', ')
}

function withoutSemicolon(statement: string): string {
  return statement.endsWith(';') ? statement.slice(0, -1) : statement
}
