/** A MariaDB server of a campaign's own. Its programs come with the system, for example in Debian's `mariadb-server`. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { createConnection, type RowDataPacket } from 'mysql2/promise'
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

const programs = ['mariadbd', 'mariadb-install-db', 'mariadb-dump'] as const

const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin']

/** The reason why there is no MariaDB server of the campaign's own; undefined when there can be one. */
export const withoutMariadb: string | undefined = programs.every((name) => pathOf(name) !== undefined)
  ? undefined
  : `MariaDB is not installed: ${programs.join(', ')}`

/** Small files, which are quick to copy. A killed server loses nothing that the system has received. */
const files: Readonly<Record<string, string>> = {
  'innodb-log-file-size': '8M',
  'innodb-buffer-pool-size': '32M',
}

const settings = {
  ...files,
  'bind-address': '127.0.0.1',
  'skip-name-resolve': 'ON',
  'max-connections': '200',
  'log-bin': 'binlog',
  'log-slave-updates': 'ON',
  'binlog-format': 'ROW',
  'innodb-flush-log-at-trx-commit': '2',
  'sync-binlog': '0',
}

/** The database of the nodes. */
const database = 'coordination'

/** What the nodes connect as. Unlike root it may not write to a server that is read-only. */
const nodeUser = 'app'

export class MariadbServer extends DatabaseServer {
  readonly name = 'MariaDB'
  protected readonly crashSignal = 'SIGKILL'
  protected readonly stopSignal = 'SIGTERM'

  static async create(plan: ServerPlan): Promise<MariadbServer> {
    const server = new MariadbServer(plan, await freePort())
    return orRemoved(server, () => server.#begin())
  }

  get url(): string {
    return `mysql://${nodeUser}@127.0.0.1:${this.port}/${database}`
  }

  async inSession<T>(work: (run: Run) => Promise<T>): Promise<T> {
    const connection = await createConnection({
      ...{ host: '127.0.0.1', port: this.port, user: 'root', database, connectTimeout: 5_000 },
    })
    connection.on('error', () => undefined)
    try {
      return await work(async (sql) => {
        const [rows] = await connection.query<RowDataPacket[]>(sql)
        return Array.isArray(rows) ? rows : []
      })
    } finally {
      connection.destroy()
    }
  }

  /** The server counts the first two. It counts from 0 again after a restart. */
  async refused(what: Refusal): Promise<number> {
    if (what === 'idle in a transaction') return this.logged(/Got timeout reading communication packets/)
    const counter = what === 'deadlock' ? 'Innodb_deadlocks' : 'Max_statement_time_exceeded'
    return this.inSession((run) => countIn(run, counter))
  }

  endSessions(): Promise<number> {
    return this.inSession(endNodeSessions)
  }

  /**
   * Lets in as few sessions as a server can be limited to, and takes them all while `work` runs. Returns how often the
   * server has refused another one.
   */
  takingAllConnections(work: () => Promise<void>): Promise<number> {
    // One session for all of this: soon not even root gets another one.
    return this.inSession(async (run) => {
      const least = 10
      const refused = 'Connection_errors_max_connections'
      const before = await countIn(run, refused)
      await run(`set global max_connections = ${least}`)
      await endNodeSessions(run)
      const taken = await Promise.all(
        Array.from({ length: least }, () => createConnection(this.url).catch(() => undefined)),
      )
      try {
        await work()
      } finally {
        for (const connection of taken) connection?.destroy()
        await run(`set global max_connections = ${settings['max-connections']}`)
      }
      return (await countIn(run, refused)) - before
    })
  }

  lockingTables(tables: readonly string[], work: () => Promise<void>): Promise<void> {
    return this.inSession(async (run) => {
      await run(`lock tables ${tables.map((table) => `${table} write`).join(', ')}`)
      await work()
      await run('unlock tables')
    })
  }

  async limitIdleTransactions(seconds: number | undefined): Promise<void> {
    await this.set('idle_transaction_timeout', seconds ?? 0)
  }

  /** Changes a setting of the server until its next start. */
  async set(setting: string, value: number): Promise<void> {
    await this.query(`set global ${setting} = ${value}`)
  }

  async nowS(): Promise<number> {
    const [row] = await this.query('select unix_timestamp() as s')
    return Number(row?.s)
  }

  /** Starts a copy of the nodes' database, which then receives what is written to it. */
  async replica(folder: string): Promise<MariadbServer> {
    const copy = new MariadbServer({ folder, faketime: this.faketime }, await freePort())
    return orRemoved(copy, async () => {
      await copy.#begin()
      await this.#copyTo(copy)
    })
  }

  async #copyTo(copy: MariadbServer): Promise<void> {
    const { stdout } = await run(
      program('mariadb-dump'),
      [
        ...['--no-defaults', '--host=127.0.0.1', `--port=${this.port}`, '--user=root'],
        ...['--single-transaction', '--master-data=2', '--databases', database],
      ],
      { maxBuffer: 2 ** 30 },
    )
    const [, log, position] = /MASTER_LOG_FILE='(.+)', MASTER_LOG_POS=(\d+);/.exec(stdout) ?? []
    await copy.#load(stdout)
    await copy.query(
      `change master to master_host = '127.0.0.1', master_port = ${this.port}, master_user = 'root',
         master_connect_retry = 1, master_log_file = '${log}', master_log_pos = ${position}`,
    )
    await copy.query('start slave')
  }

  /** The usual order: nobody writes any more, the replica has received everything, the primary stops. */
  async stopPrimary(primary: DatabaseServer): Promise<void> {
    await primary.query('set global read_only = on')
    const [end] = await primary.query('show master status')
    const [received] = await this.query(
      `select master_pos_wait('${end?.File}', ${end?.Position}, 60) as events`,
    )
    if (received?.events === null || Number(received?.events) < 0)
      throw new Error(`The replica has not received everything: ${JSON.stringify(received)}`)
    await stopInGoodOrder(primary)
  }

  async stopReceiving(): Promise<void> {
    await this.query('stop slave')
  }

  async promote(): Promise<void> {
    await this.query('stop slave')
    await this.query('reset slave all')
  }

  protected get command(): readonly string[] {
    return [
      program('mariadbd'),
      ...['--no-defaults', `--datadir=${this.#data}`, `--port=${this.port}`, `--server-id=${this.port}`],
      ...[`--socket=${join(this.folder, 'socket')}`, `--pid-file=${this.pidFile}`, ...asThisUser()],
      ...flagsOf(settings),
    ]
  }

  protected get pidFile(): string {
    return join(this.folder, 'pid')
  }

  protected processesOf(pid: number): number[] {
    return [pid]
  }

  get #data(): string {
    return join(this.folder, 'data')
  }

  async #begin(): Promise<void> {
    await this.prepare()
    const empty = join(dirname(this.folder), 'empty-data')
    await makeEmptyData(empty)
    await cp(empty, this.#data, { recursive: true, preserveTimestamps: true })
    await this.start()
    await this.query(`create user ${nodeUser}@'127.0.0.1'`)
    await this.query(`grant all on ${database}.* to ${nodeUser}@'127.0.0.1'`)
  }

  async #load(dump: string): Promise<void> {
    const connection = await createConnection({
      ...{ host: '127.0.0.1', port: this.port, user: 'root', multipleStatements: true },
    })
    try {
      await connection.query(dump)
    } finally {
      connection.destroy()
    }
  }
}

/** Returns a counter of the server. */
async function countIn(run: Run, name: string): Promise<number> {
  const [row] = await run(`show global status like '${name}'`)
  return Number(row?.Value)
}

async function endNodeSessions(run: Run): Promise<number> {
  const sessions = await run(`select id from information_schema.processlist where user = '${nodeUser}'`)
  let ended = 0
  for (const { id } of sessions) ended += await run(`kill ${Number(id)}`).then(() => 1, endedBefore)
  return ended
}

/**
 * Makes the data of a server that has never run, with an empty database, which is a folder. Copying such data takes
 * less time than making it.
 */
async function makeEmptyData(folder: string): Promise<void> {
  if (existsSync(folder)) return
  await run(program('mariadb-install-db'), [
    ...['--no-defaults', `--datadir=${folder}`, '--auth-root-authentication-method=normal', '--skip-test-db'],
    ...[...asThisUser(), ...flagsOf(files)],
  ])
  await mkdir(join(folder, database))
}

/** The server refuses to run as root unless it is told to. */
function asThisUser(): readonly string[] {
  return [`--user=${userInfo().username}`]
}

function flagsOf(settings: Readonly<Record<string, string>>): readonly string[] {
  return Object.entries(settings).map(([name, value]) => `--${name}=${value}`)
}

function endedBefore(error: unknown): 0 {
  // ER_NO_SUCH_THREAD
  if (error instanceof Error && 'errno' in error && error.errno === 1094) return 0
  throw error
}

function program(name: (typeof programs)[number]): string {
  const path = pathOf(name)
  if (path === undefined) throw new Error(withoutMariadb)
  return path
}

function pathOf(name: string): string | undefined {
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path))
}
