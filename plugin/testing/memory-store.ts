/**
 * A store in memory: the whole port without a database, for tests of workers and as an example for authors of stores.
 * It keeps the same promises as the other stores, verified by the same conformance suite, except that nothing
 * survives the process.
 *
 * There is one writer at a time, and a reader sees what the last writer has committed.
 */
import { randomUUID } from 'node:crypto'
import { CoordinationError, FencedError, StoreError } from '../core/errors.js'
import type {
  Beat,
  Change,
  Changed,
  Claim,
  EventQuery,
  EventRow,
  HeartbeatAnswer,
  LeaseFilter,
  LeaseRow,
  Load,
  LockedLease,
  Look,
  MetaRow,
  Neighbour,
  NewEvent,
  NewNode,
  NodePatch,
  NodeRow,
  OwnView,
  Retention,
  ServerFacts,
  SessionKey,
  Snapshot,
  Store,
  WorkerRow,
} from '../core/store.js'
import { byCodePoints } from '../stores/shared/code-points.js'
import { Deadline } from '../stores/shared/deadline.js'
import { wakeLater } from '../stores/shared/hints.js'
import { Turns } from '../stores/shared/turns.js'
import { Rows } from './memory-rows.js'

/** The options of a database in memory. */
export interface MemoryDatabaseOptions {
  /** The database's clock, in whole ms since 1970. Default: the host's clock. */
  readonly nowMs?: (() => number) | undefined
  /** The identity of the database. A different identity means a failover. Default: a random one. */
  readonly identity?: (() => string) | undefined
}

/** The options for opening a store on a database in memory. */
export interface MemoryStoreOptions {
  readonly namespace: string
  /** Time limit of each verb in ms, including waits for others. */
  readonly statementTimeoutMs: number
}

/** A database in memory, on which any number of stores can be opened. */
export class MemoryDatabase {
  readonly #spaces = new Map<string, Space>()
  readonly #nowMs: () => number
  readonly #identity: () => string

  constructor({ nowMs = Date.now, identity }: MemoryDatabaseOptions = {}) {
    const own = `memory-${randomUUID()}`
    this.#nowMs = nowMs
    this.#identity = identity ?? (() => own)
  }

  open({ namespace, statementTimeoutMs }: MemoryStoreOptions): Store {
    const space = this.#spaces.get(namespace) ?? new Space()
    this.#spaces.set(namespace, space)
    const facts = (): Facts => ({ nowMs: this.#nowMs(), serverIdentity: this.#identity() })
    return new MemoryStore(space, facts, statementTimeoutMs, () => this.#namespaces())
  }

  #namespaces(): string[] {
    const changed = [...this.#spaces].filter(([, { rows }]) => rows.meta.revision > 0)
    return changed.map(([namespace]) => namespace).sort(byCodePoints)
  }
}

type Facts = Pick<ServerFacts, 'nowMs' | 'serverIdentity'>

/** What the stores of one namespace share. */
class Space {
  rows = new Rows()
  readonly turns = new Turns()
  readonly #listeners = new Set<Listener>()

  listen(listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /**
   * Wakes the listeners of these nodes, except the maker of the change. Like every store, it wakes them later: at
   * this moment it is still the change's turn.
   */
  wake(nodes: ReadonlySet<string>, maker: string | undefined): void {
    for (const listener of this.#listeners) {
      const { node, wake } = listener
      if (nodes.has(node) && node !== maker) wakeLater(wake, () => this.#listeners.has(listener))
    }
  }
}

interface Listener {
  readonly node: string
  readonly wake: () => void
}

class MemoryStore implements Store {
  readonly dialect = 'memory'
  readonly capabilities = { push: true }
  statements = 0
  readonly #space: Space
  readonly #facts: () => Facts
  readonly #timeoutMs: number
  readonly #namespaces: () => string[]
  readonly #listening = new Set<() => void>()
  #closed = false

  constructor(space: Space, facts: () => Facts, timeoutMs: number, namespaces: () => string[]) {
    this.#space = space
    this.#facts = facts
    this.#timeoutMs = timeoutMs
    this.#namespaces = namespaces
  }

  heartbeat(node: string, beat: number): Promise<HeartbeatAnswer | undefined> {
    return this.#write((rows, facts) => {
      const own = rows.living(node)
      if (own === undefined || own.beat >= beat) return undefined
      rows.nodes.set(node, { ...own, beat, heartbeatAtMs: facts.nowMs })
      const { state, newsRevision } = own
      return { state, newsRevision, watchers: rows.watchersBeside(node), ...rows.recorded(), ...facts }
    })
  }

  view(node: string): Promise<OwnView | undefined> {
    return this.#read((rows, facts) => {
      const view = rows.view(node)
      return view && { ...view, ...facts }
    })
  }

  news(node: string): Promise<number | undefined> {
    return this.#read((rows) => rows.living(node)?.newsRevision)
  }

  look(): Promise<Look> {
    return this.#read((rows) => rows.look())
  }

  beats(after: string, most: number): Promise<Beat[]> {
    return this.#read((rows) => rows.beats(after, most))
  }

  neighbours(machine: string): Promise<Neighbour[]> {
    return this.#read((rows) => rows.neighbours(machine))
  }

  snapshot(): Promise<Snapshot> {
    return this.#read((rows, { nowMs }) => ({ ...rows.snapshot(), nowMs }))
  }

  leasesAfter(after: string, most: number): Promise<LeaseRow[]> {
    return this.#read((rows) => rows.leasesAfter(after, most))
  }

  namespaces(most: number): Promise<string[]> {
    return this.#read(() => this.#namespaces().slice(0, most))
  }

  events(query: EventQuery): Promise<EventRow[]> {
    return this.#read((rows) => rows.eventsOf(query))
  }

  async change<T>(
    session: SessionKey | undefined,
    work: (change: Change) => Promise<T>,
  ): Promise<Changed<T>> {
    const deadline = new Deadline(this.#timeoutMs)
    const done = await this.#turn(deadline)
    const change = new MemoryChange(this.#space.rows.copy(), this.#facts(), session)
    this.statements += 1
    try {
      const result = await deadline.hold(work(change), tooLate)
      change.assertWhole()
      if (!change.wrote) return { result, committed: false }
      this.#space.rows = change.rows
      this.#space.wake(change.told, session?.node)
      return { result, committed: true }
    } finally {
      change.end()
      done()
    }
  }

  prune(retention: Retention): Promise<boolean> {
    return this.#write((rows, { nowMs }) => rows.prune(retention, nowMs))
  }

  listen(node: string, wake: () => void): () => void {
    if (this.#closed) return () => undefined
    const silence = this.#space.listen({ node, wake })
    const stop = (): void => {
      silence()
      this.#listening.delete(stop)
    }
    this.#listening.add(stop)
    return stop
  }

  /**
   * Accepts any object as a transaction, since there are no transactions here. It checks that the claim on the lease
   * is true.
   */
  fence(transaction: unknown, { key, node, token }: Claim): void {
    if (typeof transaction !== 'object' || transaction === null) {
      throw new CoordinationError('WCO_FENCE_TARGET', 'A fence expects the transaction it is to guard.')
    }
    this.statements += 1
    const { rows } = this.#space
    const lease = rows.leases.get(key)
    if (lease?.holder !== node || lease.token !== token || rows.living(node) === undefined)
      throw new FencedError(key, token)
  }

  /** Does not wait for verbs that are under way: there is nothing to close. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const stop of this.#listening) stop()
  }

  async #write<T>(work: (rows: Rows, facts: Facts) => T): Promise<T> {
    const done = await this.#turn(new Deadline(this.#timeoutMs))
    try {
      this.statements += 1
      return work(this.#space.rows, this.#facts())
    } finally {
      done()
    }
  }

  async #read<T>(work: (rows: Rows, facts: Facts) => T): Promise<T> {
    this.#assertOpen()
    this.statements += 1
    return work(this.#space.rows, this.#facts())
  }

  async #turn({ remainingMs }: Deadline): Promise<() => void> {
    this.#assertOpen()
    return this.#space.turns.take(performance.now() + remainingMs)
  }

  #assertOpen(): void {
    if (this.#closed) throw closed()
  }
}

function closed(): StoreError {
  return new StoreError('The store is closed.', 'none')
}

function tooLate(): StoreError {
  return new StoreError('A change took longer than statementTimeoutMs and was undone.', 'none')
}

/** The inside of a change, on a copy of the rows. */
class MemoryChange implements Change {
  readonly rows: Rows
  readonly revision: number
  readonly nowMs: number
  readonly serverIdentity: string
  readonly meta: MetaRow
  readonly session: NodeRow | undefined
  readonly told = new Set<string>()
  wrote = false
  #position = 0
  #over: StoreError | undefined

  constructor(rows: Rows, { nowMs, serverIdentity }: Facts, session: SessionKey | undefined) {
    this.rows = rows
    this.nowMs = nowMs
    this.serverIdentity = serverIdentity
    this.meta = rows.meta
    this.revision = rows.meta.revision + 1
    rows.meta = { ...rows.meta, revision: this.revision }
    this.session = session && this.#recordOperation(session)
  }

  /** @throws StoreError when one of its verbs has failed, whether or not the caller noticed. */
  assertWhole(): void {
    if (this.#over !== undefined) throw this.#over
  }

  /** Accepts nothing more. */
  end(): void {
    this.#over ??= new StoreError('This change has ended.', 'none')
  }

  async nodes(): Promise<NodeRow[]> {
    return this.#open().allLiving()
  }

  async nodesById(ids: readonly string[]): Promise<NodeRow[]> {
    const wanted = new Set(ids)
    return this.#open()
      .oldestFirst()
      .filter(({ id }) => wanted.has(id))
  }

  async workers(keys: readonly string[]): Promise<WorkerRow[]> {
    return this.#open().workersOf(keys)
  }

  async leases(filter: LeaseFilter): Promise<LockedLease[]> {
    return this.#open()
      .leasesOf(filter)
      .map((row) => ({ ...row, fenced: false }))
  }

  async loads(): Promise<Load[]> {
    return this.#open().loads()
  }

  async highestToken(): Promise<number> {
    return this.#open().highestToken()
  }

  async view(node: string): Promise<OwnView | undefined> {
    const { nowMs, serverIdentity } = this
    const view = this.#open().view(node)
    return view && { ...view, nowMs, serverIdentity }
  }

  async addNode(node: NewNode, operation: number): Promise<void> {
    const { nodes } = this.#open()
    if (nodes.has(node.id)) {
      this.#over = new StoreError('There is already a node with the id of the one that joins.', 'none')
      throw this.#over
    }
    const { revision, nowMs } = this
    this.#keep(nodes, node.id, {
      ...node,
      state: 'active',
      operation,
      beat: 0,
      startedAtMs: nowMs,
      heartbeatAtMs: nowMs,
      goneAtMs: null,
      joinedRevision: revision,
      newsRevision: revision,
      revision,
    })
  }

  async updateNode(id: string, patch: NodePatch): Promise<void> {
    const rows = this.#open()
    const node = rows.living(id)
    this.wrote = true
    if (node === undefined) return
    this.#keep(rows.nodes, id, { ...node, ...patch, revision: this.revision })
  }

  async bury(id: string, beat?: number): Promise<boolean> {
    const rows = this.#open()
    const node = rows.living(id)
    if (node === undefined || (beat !== undefined && node.beat !== beat)) return false
    const { nowMs: goneAtMs, revision } = this
    this.#keep(rows.nodes, id, { ...node, state: 'gone', goneAtMs, revision })
    return true
  }

  async forgetNode(id: string): Promise<void> {
    const { nodes } = this.#open()
    if (nodes.get(id)?.state === 'gone') nodes.delete(id)
    this.wrote = true
  }

  async forgetWorker(key: string): Promise<void> {
    this.#open().workers.delete(key)
    this.wrote = true
  }

  async saveWorkers(workers: readonly WorkerRow[]): Promise<void> {
    const rows = this.#open()
    for (const row of workers) this.#keep(rows.workers, row.key, { ...row, revision: this.revision })
  }

  async saveLeases(leases: readonly LeaseRow[]): Promise<void> {
    const rows = this.#open()
    for (const row of leases)
      this.#keep(rows.leases, row.key, withoutMark({ ...row, revision: this.revision }))
  }

  async deleteLeases(keys: readonly string[]): Promise<void> {
    const { leases } = this.#open()
    for (const key of keys) leases.delete(key)
    this.wrote ||= keys.length > 0
  }

  async saveMeta(patch: Partial<Omit<MetaRow, 'revision'>>): Promise<void> {
    const rows = this.#open()
    rows.meta = { ...rows.meta, ...structuredClone(patch), revision: this.revision }
    this.wrote ||= Object.keys(patch).length > 0
  }

  async record(events: readonly NewEvent[]): Promise<void> {
    const rows = this.#open()
    const unsaid = { node: null, token: null, actor: null, reason: null, detail: null }
    const { revision, nowMs: atMs } = this
    for (const event of events) {
      rows.events.push({ ...unsaid, ...structuredClone(event), revision, position: this.#position++, atMs })
    }
    this.wrote ||= events.length > 0
  }

  async tell(nodes: ReadonlySet<string>): Promise<void> {
    const rows = this.#open()
    for (const id of nodes) {
      const node = rows.living(id)
      if (node !== undefined) this.#keep(rows.nodes, id, { ...node, newsRevision: this.revision })
      this.told.add(id)
    }
    this.wrote ||= nodes.size > 0
  }

  #recordOperation({ node: id, operation }: SessionKey): NodeRow | undefined {
    const node = this.rows.living(id)
    if (node === undefined || node.operation >= operation) return undefined
    const session = { ...node, operation }
    this.rows.nodes.set(id, session)
    return session
  }

  /** Stores a copy, so that the caller keeps its own object. */
  #keep<Row>(rows: Map<string, Row>, key: string, row: Row): void {
    rows.set(key, structuredClone(row))
    this.wrote = true
  }

  #open(): Rows {
    if (this.#over !== undefined) throw this.#over
    return this.rows
  }
}

/** Removes the mark `fenced`, because a lease may be saved as a change has read it. */
function withoutMark(row: LeaseRow & { fenced?: boolean }): LeaseRow {
  const { fenced: _, ...lease } = row
  return lease
}
