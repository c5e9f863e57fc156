/** The processes with nodes of one contestant, and which node leads which key. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Order } from './adapters/adapter.js'
import type { ContestantName } from './adapters/index.js'
import type { Says, Told } from './contender.js'

const program = fileURLToPath(new URL('./contender.js', import.meta.url))

interface Lead {
  readonly process: ChildProcess
  readonly node: string
  readonly atNs: bigint
}

export class Crew {
  readonly #name: ContestantName
  readonly #processes = new Set<ChildProcess>()
  readonly #leads = new Map<string, Lead>()
  readonly #waiting = new Set<() => void>()
  readonly #ending = new Set<ChildProcess>()
  #failed: (error: Error) => void = () => undefined
  readonly #failure = new Promise<never>((_, reject) => {
    this.#failed = reject
  })
  #reports = 0

  constructor(name: ContestantName) {
    this.#name = name
    this.#failure.catch(() => undefined)
  }

  /** Number of keys that have had a leader. */
  get led(): number {
    return this.#leads.size
  }

  get pids(): number[] {
    return [...this.#processes].map(({ pid }) => pid ?? 0)
  }

  /** Starts one process with its nodes and waits until all of them are candidates. */
  async add(order: Order): Promise<ChildProcess> {
    const child = fork(program, [this.#name, JSON.stringify(order)])
    this.#processes.add(child)
    // One listener for each answer that is being waited for.
    child.setMaxListeners(1_000)
    await new Promise<void>((resolve, reject) => {
      child.once('exit', () => {
        if (!this.#ending.has(child))
          this.#failed(new Error(`a process of ${this.#name} has ended by itself`))
        reject(new Error(`a process of ${this.#name} ended before it was ready`))
      })
      child.on('message', (says: Says) => {
        if ('ready' in says) resolve()
        if ('leads' in says)
          this.#lead(says.leads, { process: child, node: says.node, atNs: BigInt(says.atNs) })
      })
    })
    return child
  }

  /**
   * Makes the leader of a key give it up. Returns the time from that call until the work of the next leader begins, in
   * ms.
   */
  async handOver(key: string): Promise<number> {
    const before = await this.leader(key)
    const calledAtNs = answerOf(before.process, (says) =>
      'resigned' in says && says.resigned === key ? BigInt(says.calledAtNs) : undefined,
    )
    const next = this.#until(() => (this.#leads.get(key) !== before ? this.#leads.get(key) : undefined))
    tell(before.process, { resign: key, node: before.node })
    const after = await next
    const tookMs = Number(after.atNs - (await calledAtNs)) / 1e6
    tell(before.process, { campaign: key, node: before.node })
    return tookMs
  }

  /** Makes the leader of a key give it up and become a candidate again. Resolves once the key has a leader again. */
  async takeAgain(key: string): Promise<void> {
    const before = await this.leader(key)
    const resigned = answerOf(before.process, (says) =>
      'resigned' in says && says.resigned === key ? true : undefined,
    )
    tell(before.process, { resign: key, node: before.node })
    await resigned
    tell(before.process, { campaign: key, node: before.node })
    await this.#until(() => this.#leads.get(key) !== before || undefined)
  }

  /**
   * Ends processes with a signal, all at once. Returns for each key that one of them led the time until another process
   * led it, in ms; infinity for all when one takes longer than `timeoutMs`.
   */
  async end(processes: Iterable<ChildProcess>, signal: NodeJS.Signals, timeoutMs: number): Promise<number[]> {
    const ended = new Set(processes)
    const lost = [...this.#leads].filter(([, lead]) => ended.has(lead.process))
    const again = Promise.all(
      lost.map(([key, before]) =>
        this.#until(() => {
          const now = this.#leads.get(key)
          return now !== undefined && now !== before && !ended.has(now.process) ? now.atNs : undefined
        }),
      ),
    )
    const sentNs = process.hrtime.bigint()
    for (const each of ended) {
      this.#ending.add(each)
      each.kill(signal)
    }
    const late = setTimeout(() => undefined, timeoutMs)
    const timeout = new Promise<'late'>((resolve) => setTimeout(() => resolve('late'), timeoutMs).unref())
    const atNs = await Promise.race([again, timeout])
    clearTimeout(late)
    for (const each of ended) {
      if (each.exitCode === null && each.signalCode === null) await once(each, 'exit')
      this.#processes.delete(each)
    }
    if (atNs === 'late') return lost.map(() => Number.POSITIVE_INFINITY)
    return atNs.map((at) => Number(at - sentNs) / 1e6)
  }

  leader(key: string): Promise<Lead> {
    return this.#until(() => this.#leads.get(key))
  }

  async untilLed(keys: number): Promise<void> {
    await this.#until(() => this.#leads.size >= keys || undefined)
  }

  /** Returns the requests to PostgreSQL and the CPU time of all processes so far. */
  async spent(): Promise<{ requests: number; cpuMs: number }> {
    this.#reports += 1
    const number = this.#reports
    const answers = [...this.#processes].map((child) => {
      const answer = answerOf(child, (says) =>
        'report' in says && says.report === number ? says : undefined,
      )
      tell(child, { report: number })
      return answer
    })
    const reports = await Promise.all(answers)
    return {
      requests: reports.reduce((sum, { requests }) => sum + requests, 0),
      cpuMs: reports.reduce((sum, { cpuMs }) => sum + cpuMs, 0),
    }
  }

  /** Kills all processes. */
  async close(): Promise<void> {
    const left = [...this.#processes].filter((each) => each.exitCode === null && each.signalCode === null)
    await Promise.all(
      left.map(async (each) => {
        this.#ending.add(each)
        each.kill('SIGKILL')
        await once(each, 'exit')
      }),
    )
    this.#processes.clear()
  }

  #lead(key: string, lead: Lead): void {
    this.#leads.set(key, lead)
    for (const look of [...this.#waiting]) look()
  }

  #until<T>(condition: () => T | undefined): Promise<T> {
    const found = new Promise<T>((resolve) => {
      const look = (): void => {
        const answer = condition()
        if (answer === undefined) return
        this.#waiting.delete(look)
        resolve(answer)
      }
      this.#waiting.add(look)
      look()
    })
    return Promise.race([found, this.#failure])
  }
}

function tell(child: ChildProcess, told: Told): void {
  if (child.connected) child.send(told)
}

function answerOf<T>(child: ChildProcess, read: (says: Says) => T | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    const gone = (): void => reject(new Error('a process ended before it answered'))
    const hear = (says: Says): void => {
      const answer = read(says)
      if (answer === undefined) return
      child.off('message', hear)
      child.off('exit', gone)
      resolve(answer)
    }
    child.on('message', hear)
    child.once('exit', gone)
  })
}
