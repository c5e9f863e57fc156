/**
 * A database server that a campaign may stop, crash and freeze, whose clock it may set, and which it may replace by a
 * replica. `postgres.ts` and `mariadb.ts` have the two kinds.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, statfsSync, writeFileSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually } from '../support/eventually.js'
import { faketimeEnvironment, tidyFaketime } from './fleet.js'

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

  /**
   * Resolves once the server answers. The lock file that a crash leaves behind is removed by the next start. A server
   * that ends instead, because its port or its files are still in use for a moment, is started again.
   *
   * @throws Error with the {@link condition} of the server when it does not answer in time.
   */
  async start(): Promise<void> {
    const answers = async (): Promise<boolean> => {
      if (this.#process === undefined || hasEnded(this.#process)) this.#process = this.#spawn()
      return (await this.query('select 1')).length > 0
    }
    await eventually(answers, { timeoutMs: 60_000, everyMs: 50, until: 'the server answers' }).catch(
      (error: Error) => {
        throw new Error(`${error.message}\n${this.condition()}`, { cause: error.cause })
      },
    )
  }

  #spawn(): ChildProcess {
    const log = openSync(this.#log, 'a')
    const lies = this.faketime === undefined ? {} : faketimeEnvironment(this.faketime, this.#clock)
    // The server ends when its standard input ends, so at the latest with this process, however that ends.
    const crash = this.crashSignal.slice('SIG'.length)
    const guard = `"$@" <&- & server=$!; (read end; kill -${crash} $server) <&3 & wait $server; kill $!`
    const child = spawn('sh', ['-c', `exec 3<&0; ${guard}`, 'sh', ...this.command], {
      stdio: ['pipe', log, log],
      env: { ...process.env, ...lies },
      ...this.user,
    })
    closeSync(log)
    child.once('exit', () => tidyFaketime(child.pid ?? 0))
    return child
  }

  /**
   * Stops the server. `immediate` is like a crash: nothing is flushed, and the next start recovers. A server that does
   * not end within `limitMs` is killed with all its processes; a frozen or hanging one waits for no signal but that.
   * Returns whether it has ended by itself.
   */
  async stop(how: 'immediate' | 'fast', limitMs = 30_000): Promise<boolean> {
    const child = this.#process
    if (child === undefined || hasEnded(child)) return true
    const ended = once(child, 'exit').then(() => true)
    const pid = this.#pid
    if (pid !== undefined) signalled(pid, how === 'immediate' ? this.crashSignal : this.stopSignal)
    const inTime = await Promise.race([ended, sleep(limitMs, false, { ref: false })])
    if (inTime) return true
    this.#killAll(child)
    return ended.then(() => false)
  }

  #killAll(child: ChildProcess): void {
    const pid = this.#pid
    if (pid === undefined) child.kill('SIGKILL')
    else for (const each of this.processesOf(pid)) signalled(each, 'SIGKILL')
  }

  /** What can be known of the server from outside: its processes and their states, its disk, and the end of its log. */
  condition(): string {
    const pid = this.#pid
    const processes = pid === undefined ? [] : this.processesOf(pid)
    const { bavail, blocks, bsize } = statfsSync(this.folder)
    const megabytes = (count: number): number => Math.round((count * bsize) / 2 ** 20)
    return [
      `${this.name}, port ${this.port}, process ${pid ?? 'none'}`,
      ...processes.map(stateOf),
      `disk: ${megabytes(bavail)} of ${megabytes(blocks)} MB free`,
      readFileSync(this.#log, 'utf8').slice(-4_000),
    ].join('\n')
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
    await this.stop('immediate')
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

/** A primary that had to be killed may have sent less to its replica than it has acknowledged. */
export async function stopInGoodOrder(primary: DatabaseServer): Promise<void> {
  if (!(await primary.stop('fast'))) throw new Error(`${primary.name} had to be killed.`)
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}

/** The name of a process, its state, and what it waits for in the kernel. */
function stateOf(pid: number): string {
  const read = (file: string): string => {
    try {
      return readFileSync(`/proc/${pid}/${file}`, 'utf8').replaceAll('\0', ' ').trim()
    } catch {
      return ''
    }
  }
  const state = /^State:\s+(.*)$/m.exec(read('status'))?.[1]
  return `${pid} ${read('cmdline')}: ${state ?? 'gone'}, waits in ${read('wchan') || 'nothing'}`
}

function signalled(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal)
  } catch {
    return false
  }
}
