/**
 * Checks in a simulated world that no work is interrupted that nobody had a reason to interrupt: a term ends, or its
 * lease is meant for another node, only where the rows or an order give the reason; and no node ceases to be a candidate
 * for a worker that it has registered.
 */
import type { WorkerHandle } from '../../plugin/core/work/worker.js'
import type { Committed, SimulatedDatabase, StoredLease, StoredNode, StoredWorker } from './database.js'
import type { History } from './history.js'
import { hasLayout } from './layouts.js'
import type { LifeOnSite, Scene } from './scene.js'

/** The reasons for the end of a term that its node takes from the rows. All others are its own. */
const fromRows: readonly string[] = ['reassigned', 'revoked', 'lost', 'paused', 'draining', 'stopped']

/** A term of which the rows have never said that it is to end. */
interface Term {
  readonly key: string
  readonly token: number
  readonly holder: string
  /** What its worker was when it began. */
  readonly layout: string
}

export class Interruptions {
  readonly #scene: Scene
  readonly #database: SimulatedDatabase
  readonly #history: History
  readonly #terms = new Map<string, Term>()
  /** Those of which the rows have said so at some time: whoever has read them then acts on it later. */
  readonly #over = new Set<string>()
  /** The workers in the row of each node, each with what its process had registered when it came there. */
  #registered = new Map<string, WorkerHandle | undefined>()

  constructor(scene: Scene) {
    this.#scene = scene
    this.#database = scene.database
    this.#history = scene.history
  }

  /** Checks a committed change. The history must not know of it yet. */
  committed(change: Committed): void {
    for (const lease of change.leases) {
      const { holder, token } = this.#history.stored(lease.key) ?? lease
      const term = this.#terms.get(`${lease.key}@${token}`)
      if (term === undefined || term.holder !== holder) continue
      if (lease.holder === holder && lease.token === token) this.#checkTarget(term, lease, change)
      else this.#checkEnd(term, change)
    }
    if (change.by !== undefined) this.#checkWithdrawn(change.by, change.sentMs)
    this.look()
  }

  /** Takes what is stored as given, whoever has written it. */
  look(): void {
    for (const { key, token, holder } of this.#database.leases()) {
      const name = `${key}@${token}`
      if (holder === null || this.#over.has(name) || this.#terms.has(name)) continue
      this.#terms.set(name, { key, token, holder, layout: this.#layoutOf(key) })
    }
    for (const [name, term] of this.#terms) {
      if (this.#goesOn(term)) continue
      this.#terms.delete(name)
      this.#over.add(name)
    }
    const registered = new Map<string, WorkerHandle | undefined>()
    for (const { id, workers } of this.#database.nodes())
      for (const key of JSON.parse(workers) as string[]) {
        const name = `${id} ${key}`
        const isKnown = this.#registered.has(name)
        registered.set(name, isKnown ? this.#registered.get(name) : this.#handleOf(id, key))
      }
    this.#registered = registered
  }

  /**
   * Notes that the rows are those of an earlier time. A process may have been refused a worker since that its row has
   * again, and then takes that out.
   */
  rolledBack(): void {
    this.look()
    for (const name of this.#registered.keys()) this.#registered.set(name, undefined)
  }

  /** Checks the end of a term at its node. */
  ended({ process, registered }: LifeOnSite, key: string, token: number, reason: string): void {
    if (!fromRows.includes(reason) || !this.#terms.has(`${key}@${token}`)) return
    const worker = this.#lease(key)?.worker
    if (reason === 'stopped' && !registered.some(({ handle }) => handle.key === worker)) return
    this.#violate(`${process.label} ends ${key}@${token} as ${reason}, which its row has never said`)
  }

  /** Shares and partitions move by plans, which are judged as a whole. */
  #checkTarget({ key, token, holder, layout }: Term, lease: StoredLease, { events }: Committed): void {
    if (lease.target === holder || this.#layoutOf(key) !== layout || this.#isPlanned(lease)) return
    if (events.some(({ type, subject }) => type === 'lease.transferred' && subject === key)) return
    if (this.#isCandidate(holder, lease.worker))
      this.#violate(`${key}@${token} is meant for ${lease.target}, and ${holder} has it and is a candidate`)
  }

  /** A term ends by its own node, by an operator, or because that node is gone. */
  #checkEnd({ key, token, holder }: Term, { by, events }: Committed): void {
    const event = events.find(
      ({ type, subject, token: of }) =>
        type.startsWith('lease.') && type !== 'lease.acquired' && subject === key && of === token,
    )
    if (by === holder || event?.actor !== undefined || this.#node(holder) === undefined) return
    this.#violate(`${by} ends ${key}@${token} of ${holder}: ${event?.type} ${event?.reason ?? ''}`)
  }

  /**
   * A node ceases to be a candidate for a worker when its process stops it, or when the worker has another layout. A
   * request may have been on its way when the process registered the worker once more.
   */
  #checkWithdrawn(id: string, sentMs: number): void {
    const node = this.#node(id)
    if (node === undefined) return
    for (const [name, handle] of this.#registered) {
      const [owner, key = ''] = name.split(' ')
      if (owner !== id || handle === undefined || namesOf(node).includes(key)) continue
      const registered = this.#lifeOf(id)?.registered.find((each) => each.handle === handle)
      const worker = this.#worker(key)
      if (registered === undefined || sentMs < registered.sinceMs) continue
      if (worker !== undefined && hasLayout(worker, registered.layout))
        this.#violate(`${id} withdraws ${key}, which it has registered and not stopped`)
    }
  }

  /** Whether its row and those of its node and worker say nothing but that it goes on. */
  #goesOn({ key, token, holder, layout }: Term): boolean {
    const lease = this.#lease(key)
    if (lease?.holder !== holder || lease.token !== token || lease.target !== holder) return false
    const worker = this.#worker(lease.worker)
    const isOutdated = worker?.kind === 'coordinated' && lease.generation < worker.generation
    return !isOutdated && this.#layoutOf(key) === layout && this.#isCandidate(holder, lease.worker)
  }

  #isCandidate(node: string, worker: string | null): boolean {
    const row = this.#node(node)
    if (row?.state !== 'active') return false
    return worker === null || (this.#worker(worker)?.paused === 0 && namesOf(row).includes(worker))
  }

  #isPlanned({ worker }: StoredLease): boolean {
    return worker !== null && this.#worker(worker)?.kind !== 'single'
  }

  #layoutOf(key: string): string {
    const worker = this.#worker(this.#lease(key)?.worker ?? null)
    return `${worker?.kind} ${worker?.kind === 'partitioned' ? worker.slots : ''}`
  }

  #handleOf(node: string, key: string): WorkerHandle | undefined {
    return this.#lifeOf(node)?.registered.find(({ handle }) => handle.key === key)?.handle
  }

  #lifeOf(node: string): LifeOnSite | undefined {
    return this.#scene.living().find(({ process }) => process.made(node))
  }

  #lease(key: string): StoredLease | undefined {
    return this.#database.leases().find((lease) => lease.key === key)
  }

  #node(id: string): StoredNode | undefined {
    return this.#database.nodes().find((node) => node.id === id)
  }

  #worker(key: string | null): StoredWorker | undefined {
    return this.#database.workers().find((worker) => worker.key === key)
  }

  #violate(what: string): void {
    this.#history.violate('P2', what)
  }
}

/** The workers for which a node is a candidate. */
function namesOf({ workers }: StoredNode): string[] {
  return JSON.parse(workers) as string[]
}
