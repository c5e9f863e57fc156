/** The inside of a change, as `core/store.ts` promises it, on a transaction that is already open. */
import { type CoordinationError, StoreError } from '../../core/errors.js'
import type {
  Change,
  LeaseFilter,
  LeaseRow,
  Load,
  LockedLease,
  MetaRow,
  NewEvent,
  NewNode,
  NodePatch,
  NodeRow,
  OwnView,
  ServerFacts,
  SessionKey,
  WorkerRow,
} from '../../core/store.js'
import { sqliteError } from './failures.js'
import type { Queries } from './queries.js'

/** One change. The constructor takes the revision row and records the operation. */
export class SqliteChange implements Change {
  readonly meta: MetaRow
  readonly revision: number
  readonly session: NodeRow | undefined
  readonly nowMs: number
  readonly serverIdentity: string
  /** Nodes to wake once the change has committed. */
  readonly told = new Set<string>()
  /** Whether the change has written anything that needs a commit. */
  wrote = false
  readonly #queries: Queries
  #position = 0
  #over: CoordinationError | undefined

  constructor(
    queries: Queries,
    facts: Pick<ServerFacts, 'nowMs' | 'serverIdentity'>,
    session: SessionKey | undefined,
  ) {
    this.#queries = queries
    this.nowMs = facts.nowMs
    this.serverIdentity = facts.serverIdentity
    this.meta = queries.takeRevision()
    this.revision = this.meta.revision
    this.session = session && queries.recordOperation(session.node, session.operation)
  }

  /** @throws StoreError when one of its statements has failed, whether or not the caller noticed. */
  assertWhole(): void {
    if (this.#over !== undefined) throw this.#over
  }

  /** Accepts nothing more. A late statement would run outside of the transaction. */
  end(): void {
    this.#over ??= new StoreError('This change has ended.', 'none')
  }

  async nodes(): Promise<NodeRow[]> {
    return this.#run('read the nodes', () => this.#queries.nodes())
  }

  async nodesById(ids: readonly string[]): Promise<NodeRow[]> {
    return this.#run('read nodes', () => this.#queries.nodesById(ids))
  }

  async workers(keys: readonly string[]): Promise<WorkerRow[]> {
    return this.#run('read workers', () => this.#queries.workers(keys))
  }

  /** No lease is ever fenced here: a user's transaction with a fence holds the write slot that this change has. */
  async leases(filter: LeaseFilter): Promise<LockedLease[]> {
    const rows = this.#run('read leases', () => this.#queries.leases(filter))
    return rows.map((row) => ({ ...row, fenced: false }))
  }

  async loads(): Promise<Load[]> {
    return this.#run('count leases', () => this.#queries.loads())
  }

  async highestToken(): Promise<number> {
    return this.#run('read the highest token', () => this.#queries.highestToken())
  }

  async view(node: string): Promise<OwnView | undefined> {
    const { nowMs, serverIdentity } = this
    const found = this.#run("read a node's view", () => this.#queries.view(node))
    return found && { ...found, nowMs, serverIdentity }
  }

  async addNode(node: NewNode, operation: number): Promise<void> {
    this.#write('add a node', () => this.#queries.addNode(node, operation, this.revision, this.nowMs))
  }

  async updateNode(id: string, patch: NodePatch): Promise<void> {
    this.#write('update a node', () => this.#queries.updateNode(id, patch, this.revision))
  }

  async bury(id: string, beat?: number): Promise<boolean> {
    const buried = this.#run('bury a node', () => this.#queries.bury(id, beat, this.revision, this.nowMs))
    this.wrote ||= buried
    return buried
  }

  async forgetNode(id: string): Promise<void> {
    this.#write('forget a node', () => this.#queries.forgetNode(id))
  }

  async forgetWorker(key: string): Promise<void> {
    this.#write('forget a worker', () => this.#queries.forgetWorker(key))
  }

  async saveWorkers(rows: readonly WorkerRow[]): Promise<void> {
    for (const row of rows) this.#write('save a worker', () => this.#queries.saveWorker(row, this.revision))
  }

  async saveLeases(rows: readonly LeaseRow[]): Promise<void> {
    for (const row of rows) this.#write('save a lease', () => this.#queries.saveLease(row, this.revision))
  }

  async deleteLeases(keys: readonly string[]): Promise<void> {
    if (keys.length > 0) this.#write('delete leases', () => this.#queries.deleteLeases(keys))
  }

  async saveMeta(patch: Partial<Omit<MetaRow, 'revision'>>): Promise<void> {
    if (Object.keys(patch).length > 0)
      this.#write('save the revision row', () => this.#queries.saveMeta(patch))
  }

  async record(events: readonly NewEvent[]): Promise<void> {
    const { revision, nowMs: atMs } = this
    for (const event of events) {
      const position = this.#position++
      this.#write('record an event', () => this.#queries.recordEvent({ ...event, revision, position, atMs }))
    }
  }

  async tell(nodes: ReadonlySet<string>): Promise<void> {
    if (nodes.size === 0) return
    this.#write('tell nodes', () => this.#queries.tell([...nodes], this.revision))
    for (const node of nodes) this.told.add(node)
  }

  #write(doing: string, statement: () => void): void {
    this.#run(doing, statement)
    this.wrote = true
  }

  /** Runs a statement. A statement that fails is the last one, because SQLite may have undone the whole transaction. */
  #run<T>(doing: string, statement: () => T): T {
    if (this.#over) throw this.#over
    try {
      return statement()
    } catch (error) {
      this.#over = sqliteError(doing, 'none', error)
      throw this.#over
    }
  }
}
