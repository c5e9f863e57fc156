/**
 * A database server that a campaign may stop, crash and freeze, whose clock it may set, and which it may replace by a
 * replica. `postgres.ts` and `mariadb.ts` have the two kinds.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from '../support/eventually.js'
import { faketimeEnvironment } from './fleet.js'

export interface ServerPlan {
  /** A folder that nothing else uses. */
  readonly folder: string
  /** The library that fakes its time of day; undefined when the time is not faked. */
  readonly faketime: string | undefined
}

export type Row = Readonly<Record<string, unknown>>

/** Runs one statement in a session. */
export type Run = (sql: string) => Promise<Row[]>

/** How often the server has refused or ended something so far. Which of them it counts may go back to 0 at a restart. */
export type Refusal = 'deadlock' | 'timeout' | 'idle in a transaction'

export abstract class DatabaseServer {
  abstract readonly name: 'PostgreSQL' | 'MariaDB'
  readonly port: number
  readonly folder: string
  protected readonly faketime: string | undefined
  #process: ChildProcess | undefined
  #frozen: number[] = []

  protected constructor({ folder, faketime }: ServerPlan, port: number) {
    this.folder = folder
    this.faketime = faketime
    this.port = port
  }

  /** The URL of the database that the nodes use. */
  abstract get url(): string

  /** Runs `work` in a session of the server's superuser, which ends with it. */
  abstract inSession<T>(work: (run: Run) => Promise<T>): Promise<T>

  abstract replica(folder: string): Promise<DatabaseServer>

  /** Stops the primary of this replica once this replica has received all that it wrote. */
  abstract stopPrimary(primary: DatabaseServer): Promise<void>

  /** Makes this replica stop receiving. */
  abstract stopReceiving(): Promise<void>

  abstract promote(): Promise<void>

  abstract refused(what: Refusal): Promise<number>

  /** Ends the sessions of all nodes. Returns their number. */
  abstract endSessions(): Promise<number>

  /** Locks whole tables while `work` runs. */
  abstract lockingTables(tables: readonly string[], work: () => Promise<void>): Promise<void>

  /** Sets how long a session may be idle in a transaction. Holds for new sessions; undefined is the server's default. */
  abstract limitIdleTransactions(seconds: number | undefined): Promise<void>

  /** The time of day in seconds, as the server reads it. */
  abstract nowS(): Promise<number>

  /** The program and its arguments. */
  protected abstract get command(): readonly string[]

  /** The signal that ends the server without giving it time for anything. */
  protected abstract readonly crashSignal: NodeJS.Signals

  /** The signal that ends it in good order, but does not wait for clients. */
  protected abstract readonly stopSignal: NodeJS.Signals

  /** The file in which the running server keeps the id of its process. */
  protected abstract get pidFile(): string

  /** The processes to freeze. */
  protected abstract processesOf(pid: number): number[]

  /** The user to run the server as, where it is not this one. */
  protected get user(): { uid?: number; gid?: number } {
    return {}
  }

  /** Runs one statement in a session of its own. */
  query(sql: string): Promise<Row[]> {
    return this.inSession((run) => run(sql))
  }

  /** Resolves once the server answers. The lock file that a crash leaves behind is removed by the next start. */
  async start(): Promise<void> {
    const log = openSync(this.#log, 'a')
    const lies = this.faketime === undefined ? {} : faketimeEnvironment(this.faketime, this.#clock)
    // The server ends when its standard input ends, so at the latest with this process, however that ends.
    const crash = this.crashSignal.slice('SIG'.length)
    const guard = `"$@" <&- & server=$!; (read end; kill -${crash} $server) <&3 & wait $server; kill $!`
    this.#process = spawn('sh', ['-c', `exec 3<&0; ${guard}`, 'sh', ...this.command], {
      stdio: ['pipe', log, log],
      env: { ...process.env, ...lies },
      ...this.user,
    })
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
    if (pid !== undefined) process.kill(pid, how === 'immediate' ? this.crashSignal : this.stopSignal)
    const child = this.#process
    this.#process = undefined
    if (child === undefined || child.exitCode !== null) return
    await once(child, 'exit')
  }

  freeze(): number {
    const pid = this.#pid
    if (pid === undefined) return 0
    this.#frozen = this.processesOf(pid).filter((each) => signalled(each, 'SIGSTOP'))
    return this.#frozen.length
  }

  thaw(): void {
    for (const pid of this.#frozen) signalled(pid, 'SIGCONT')
    this.#frozen = []
  }

  get canBeLiedTo(): boolean {
    return this.faketime !== undefined
  }

  setClock(offsetSeconds: number): void {
    writeFileSync(this.#clock, `${offsetSeconds < 0 ? '' : '+'}${offsetSeconds}`)
  }

  /** How often the server's log has matched so far. */
  logged(pattern: RegExp): number {
    return readFileSync(this.#log, 'utf8').match(new RegExp(pattern, 'g'))?.length ?? 0
  }

  async remove(): Promise<void> {
    this.thaw()
    if (this.#process !== undefined) await this.stop('immediate')
    await rm(this.folder, { recursive: true, force: true })
  }

  /** Creates the folder, and in it the files of the clock and of the log. */
  protected async prepare(): Promise<void> {
    await mkdir(this.folder, { recursive: true })
    writeFileSync(this.#clock, '+0')
    writeFileSync(this.#log, '')
  }

  get #log(): string {
    return join(this.folder, 'server.log')
  }

  get #clock(): string {
    return join(this.folder, 'clock')
  }

  get #pid(): number | undefined {
    try {
      const pid = Number(readFileSync(this.pidFile, 'utf8').split('\n')[0])
      return pid > 0 && signalled(pid, 0) ? pid : undefined
    } catch {
      return undefined
    }
  }
}

/** Removes a server that was just made when `work` on it fails. */
export async function orRemoved<Server extends DatabaseServer>(
  server: Server,
  work: () => Promise<void>,
): Promise<Server> {
  try {
    await work()
    return server
  } catch (error) {
    await server.remove()
    throw error
  }
}

function signalled(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal)
  } catch {
    return false
  }
}
