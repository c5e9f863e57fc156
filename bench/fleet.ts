/** Nodes in processes of their own, of which one leads. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('./node.js', import.meta.url))

export class Fleet {
  readonly #database: string
  readonly #ttlMs: number
  readonly #nodes = new Set<ChildProcess>()
  #leader: { readonly node: ChildProcess; readonly sinceNs: bigint } | undefined
  #newLeader: () => void = () => undefined

  constructor(database: string, ttlMs: number) {
    this.#database = database
    this.#ttlMs = ttlMs
  }

  /** Starts one node, and waits until it has joined. */
  async add(): Promise<void> {
    const node = fork(program, [this.#database, String(this.#ttlMs)])
    this.#nodes.add(node)
    const joined = new Promise<void>((resolve, reject) => {
      node.once('exit', () => reject(new Error('a node ended before it had joined')))
      node.on('message', (message: { joined?: true; leadsSinceNs?: string }) => {
        if (message.joined) resolve()
        if (message.leadsSinceNs === undefined) return
        this.#leader = { node, sinceNs: BigInt(message.leadsSinceNs) }
        this.#newLeader()
      })
    })
    await joined
  }

  /** Ends the leader with a signal, and answers how long it took until the next one led, in ms. */
  async replaceLeader(signal: NodeJS.Signals): Promise<number> {
    while (this.#leader === undefined) await this.#nextLeader()
    const { node } = this.#leader
    const next = this.#nextLeader()
    const sentNs = process.hrtime.bigint()
    node.kill(signal)
    await next
    if (node.exitCode === null && node.signalCode === null) await once(node, 'exit')
    this.#nodes.delete(node)
    return Number((this.#leader?.sinceNs ?? 0n) - sentNs) / 1e6
  }

  async end(): Promise<void> {
    const left = [...this.#nodes].filter((node) => node.exitCode === null && node.signalCode === null)
    await Promise.all(
      left.map((node) => {
        node.kill('SIGKILL')
        return once(node, 'exit')
      }),
    )
  }

  #nextLeader(): Promise<void> {
    return new Promise((resolve) => {
      this.#newLeader = resolve
    })
  }
}
