/**
 * One run of the command line: from what was typed to what is written and the exit code.
 *
 * It talks to the database, not to a node, so it works when no node does.
 */
import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { createCoordinator, type Dialect, migrationSql } from '../coordinator.js'
import { CoordinationError, PendingMigrationsError, StoreError } from '../core/errors.js'
import { resolveTiming } from '../core/time/timing.js'
import { openStore } from '../stores/open.js'
import { commands, type Order, parse, UsageError } from './arguments.js'
import { check } from './check.js'
import { obey } from './commands.js'
import { type Answer, exitCodes, render } from './output.js'

/** Where the command line was typed, and where it writes to. */
export interface Terminal {
  /** `DATABASE_URL` and `NO_COLOR` are read. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** Returns who is written down as the actor where none is named. */
  readonly user: () => string
  readonly out: Output
  readonly err: Output
}

export interface Output {
  /** Whether a person looks at it. */
  readonly isTTY?: boolean
  write(text: string): unknown
}

const program = 'npx fastify-worker-coordination'
/** The command that creates and alters tables. */
const migrating = `${program} migrate`

/** Does what was typed, and resolves to the exit code once all connections are closed. Never rejects. */
export async function run(typed: readonly string[], { env, user, out, err }: Terminal): Promise<number> {
  try {
    const order = parse(typed, env, user)
    if (order === 'help') return say(out, help())
    if (order === 'version') return say(out, `${version()}\n`)
    const answer = await answerTo(order)
    const coloured = out.isTTY === true && !env.NO_COLOR
    out.write(render(answer, { json: order.json, coloured }))
    return answer.exitCode
  } catch (error) {
    return complain(err, error)
  }
}

async function answerTo(order: Order): Promise<Answer> {
  if (order.command === 'migrate') return answered(order)
  try {
    return await answered(order)
  } catch (error) {
    throw withOwnRemedy(error, order.database)
  }
}

/** Whoever mistyped where the database is should not be led to make another one. */
const ifNew = `Is this the right database? If it is new: ${migrating}`

/** SQLite would create the file, and a mistyped path would look like an empty database. */
function refuseMissingFile(database: string): void {
  const path = fileOf(database)
  if (path === undefined || existsSync(path)) return
  throw new StoreError(`There is no file "${resolve(path)}". ${ifNew}`, 'none')
}

/** Returns the path in a URL of SQLite; undefined for other databases. */
function fileOf(database: string): string | undefined {
  const [, path] = /^sqlite:(?:\/\/)?(.+)$/is.exec(database) ?? []
  return path === ':memory:' ? undefined : path
}

/** Replaces the remedy: an operator who types commands has set no option, and need not run SQL by hand. */
function withOwnRemedy(error: unknown, database: string): unknown {
  if (!(error instanceof PendingMigrationsError)) return error
  const { pending } = error
  return new PendingMigrationsError(pending, remedyFor(pending, database), { cause: error })
}

function remedyFor(pending: readonly string[], database: string): string {
  const path = fileOf(database)
  const place = path === undefined ? 'this database' : `"${resolve(path)}"`
  if (areAll(pending, database)) return `There are no tables of this package in ${place}. ${ifNew}`
  const names = pending.map((name) => `"${name}"`).join(', ')
  return `Migrations are pending (${names}). To run them: ${migrating}`
}

/** Whether these are all migrations there are: had they been run, none would be left. */
function areAll(pending: readonly string[], database: string): boolean {
  const dialect = dialects.find(([schemes]) => schemes.test(database))?.[1]
  return dialect !== undefined && migrationSql(dialect, pending) === ''
}

const dialects: readonly (readonly [schemes: RegExp, Dialect])[] = [
  [/^postgres(?:ql)?:/i, 'postgres'],
  [/^(?:mysql|mariadb):/i, 'mysql'],
  [/^mssql:/i, 'mssql'],
  [/^sqlite:/i, 'sqlite'],
]

async function answered(order: Order): Promise<Answer> {
  if (order.command === 'check') return checked(order)
  const { database, namespace } = order
  const migrate = order.command === 'migrate'
  if (!migrate) refuseMissingFile(database)
  const identity = { node: 'command-line', cluster: 'command-line' }
  const coordinator = await createCoordinator({ database, namespace, identity, migrate })
  try {
    return await obey(coordinator, order)
  } finally {
    await coordinator.close()
  }
}

async function checked({ database, namespace, preset }: Order<'check'>): Promise<Answer> {
  const timing = resolveTiming({ preset })
  refuseMissingFile(database)
  const { statementTimeoutMs } = timing
  const warnings: string[] = []
  const log = { warn: (_facts: object, message: string) => void warnings.push(message) }
  const store = await openStore({ database, namespace, statementTimeoutMs, migrate: false, push: true, log })
  try {
    return await check(store, timing, Date.now, warnings)
  } finally {
    await store.close()
  }
}

function say(out: Output, text: string): number {
  out.write(text)
  return exitCodes.done
}

function complain(err: Output, error: unknown): number {
  const message = error instanceof Error ? error.message : String(error)
  const isUsage =
    error instanceof UsageError ||
    (error instanceof CoordinationError && ['WCO_OPTIONS', 'WCO_NAME'].includes(error.code))
  err.write(`${message}\n${isUsage ? `Run ${program} --help to see what there is.\n` : ''}`)
  if (isUsage) return exitCodes.usage
  return error instanceof CoordinationError ? exitCodes.unreachable : exitCodes.no
}

function help(): string {
  const lines = Object.entries(commands).map(([name, { operands, about }]) => {
    const call = [name, ...operands.map((each) => `<${each}>`)].join(' ')
    return `  ${call.padEnd(18)} ${about}`
  })
  return `Usage: fastify-worker-coordination <command> [options]

${lines.join('\n')}

Options:
  --database URL     default: DATABASE_URL
  --namespace NAME   default: default
  --reason TEXT      why, for the audit trail; undrain, resume and forget need none
  --actor NAME       who, for the audit trail; default: you, as this machine knows you
                     (uid N where it has no name for you)
  --token N          release: the term that is meant
  --immediate        release: do not wait for the old holder to have stopped
  --cooldown-ms N    release: how long the old holder should not win again; default: 60000
  --preset NAME      check: default, fast or relaxed
  --json             answer as JSON

Exit codes: 0 done; 1 the answer is no and nothing was done, or a problem is an error; 2 not understood; 3 the
database cannot be used; 4 the answer could not be written.
`
}

function version(): string {
  const path = new URL('../../../package.json', import.meta.url)
  const { version }: { version?: string } = JSON.parse(readFileSync(path, 'utf8'))
  return version ?? 'unknown'
}
