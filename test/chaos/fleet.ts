/** The processes of a campaign: how one is started, disturbed and ended. */
import { type ChildProcess, type ForkOptions, fork } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type History, monotonicMs } from './history.js'
import type { ChaosCommand, ChaosOrder, ChaosReport } from './node.js'

const ownProgram = fileURLToPath(new URL('./node.js', import.meta.url))

/** How a node is started. */
export interface NodePlan {
  readonly order: ChaosOrder
  /** The file to run; another one for another version. */
  readonly program?: string
  /** The folder of its standard error and of its clock file. */
  readonly folder: string
  /** The library that fakes its time of day; undefined when the time is not faked. */
  readonly faketime: string | undefined
  /** The file of the network namespace it lives in; undefined for this machine's own namespace. */
  readonly namespace: string | undefined
}

/** A node as a process. */
export class ChaosNode {
  readonly by: string
  readonly reports: ChaosReport[] = []
  readonly complaints: string
  readonly #plan: NodePlan
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown[]>
  #asked = false
  #frozen = false

  constructor(plan: NodePlan, history: History) {
    const { order, folder } = plan
    this.by = order.by
    this.#plan = plan
    this.complaints = join(folder, `${order.by}.stderr`)
    writeFileSync(this.#clockFile, '+0')
    const complaints = openSync(this.complaints, 'a')
    this.#child = fork(plan.program ?? ownProgram, [JSON.stringify(order)], {
      stdio: ['ignore', 'ignore', complaints, 'ipc'],
      ...withinNamespace(plan.namespace, ['--max-old-space-size=96']),
      env: { ...process.env, NODE_OPTIONS: '', NODE_V8_COVERAGE: '', ...this.#lies() },
    })
    closeSync(complaints)
    this.#child.on('message', (report: ChaosReport) => this.reports.push(report))
    this.#child.on('error', () => undefined)
    this.#ended = once(this.#child, 'exit')
    void this.#ended.then(([code, signal]) => {
      tidyFaketime(this.pid)
      history.add({
        t: 'ended',
        atMs: monotonicMs(),
        by: this.by,
        how: String(signal ?? code),
        asked: this.#asked,
      })
    })
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  get name(): string {
    return this.#plan.order.options.identity.node
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  get joined(): boolean {
    return this.reports.some(({ report }) => report === 'joined')
  }

  /** The code of the error with which the node rejected the schema of the database; undefined when it has not. */
  get refused(): string | undefined {
    return this.reports.flatMap((each) => (each.report === 'refused' ? [each.code] : []))[0]
  }

  tell(command: ChaosCommand): void {
    if (this.alive) this.#child.send(command, () => undefined)
  }

  /** From now on its end counts as asked for. */
  expectEnd(): void {
    this.#asked = true
  }

  freeze(): void {
    this.#frozen = this.#child.kill('SIGSTOP')
  }

  thaw(): void {
    if (this.#frozen) this.#child.kill('SIGCONT')
    this.#frozen = false
  }

  /** Resolves once the process has ended. Does nothing when it has ended already. */
  async kill(): Promise<void> {
    this.expectEnd()
    if (this.alive) this.#child.kill('SIGKILL')
    await this.#ended
  }

  /** Resolves to the code or the signal with which it ended. */
  async ended(): Promise<string> {
    const [code, signal] = await this.#ended
    return String(signal ?? code)
  }

  /** Sets its time of day off by this many seconds, where the time is faked. */
  setClock(offsetSeconds: number): void {
    writeFileSync(this.#clockFile, `${offsetSeconds < 0 ? '' : '+'}${offsetSeconds}`)
  }

  get canBeLiedTo(): boolean {
    return this.#plan.faketime !== undefined
  }

  get #clockFile(): string {
    return join(this.#plan.folder, `${this.by}.clock`)
  }

  #lies(): Record<string, string> {
    const { faketime } = this.#plan
    return faketime === undefined ? {} : faketimeEnvironment(faketime, this.#clockFile)
  }
}

/** `nsenter` becomes Node.js without a new process, so signals reach the node itself. */
function withinNamespace(namespace: string | undefined, flags: string[]): Partial<ForkOptions> {
  if (namespace === undefined) return { execArgv: flags }
  return { execPath: 'nsenter', execArgv: [`--net=${namespace}`, process.execPath, ...flags] }
}

/** The monotonic clock is not faked. Only the time of day is tested, which people and daemons set. */
export function faketimeEnvironment(library: string, file: string): Record<string, string> {
  return {
    LD_PRELOAD: library,
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: '1',
    DONT_FAKE_MONOTONIC: '1',
  }
}

/** Removes what the library keeps in memory that outlives a process, which has ended without time to do so itself. */
export function tidyFaketime(pid: number): void {
  for (const name of ['faketime_shm', 'sem.faketime_sem']) rmSync(`/dev/shm/${name}_${pid}`, { force: true })
}
