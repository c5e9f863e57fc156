/**
 * The database of a simulated world: the real store over a real SQLite database in memory, with a clock that can be
 * set, outages, and failovers that lose the latest writes.
 */
import Database from 'better-sqlite3'
import { FencedError } from '../../plugin/core/errors.js'
import type {
  Change,
  Changed,
  Claim,
  HeartbeatAnswer,
  LeaseFilter,
  LeaseRow,
  Load,
  LockedLease,
  Look,
  MetaRow,
  NewEvent,
  NewNode,
  NodePatch,
  NodeRow,
  OwnView,
  Retention,
  SessionKey,
  Store,
  WorkerRow,
} from '../../plugin/core/store.js'
import { openSqliteStoreOver } from '../../plugin/stores/sqlite/index.js'

/** A lease row as the checker reads it. */
export interface StoredLease {
  readonly key: string
  readonly worker: string | null
  readonly slot: number
  readonly generation: number
  readonly holder: string | null
  readonly target: string | null
  readonly token: number
  readonly blockedNode: string | null
  readonly cooldownNode: string | null
  readonly cooldownUntilMs: number | null
  readonly firedAtMs: number | null
  readonly pending: number
  /** The nodes that wait for it by name, as JSON. */
  readonly waiters: string
}

/** What a committed change has done. */
export interface Committed {
  /** The leases that it touched. */
  readonly leases: readonly StoredLease[]
  /** The keys of those that it deleted. */
  readonly deleted: readonly string[]
  readonly events: readonly NewEvent[]
  /** The node that made it; undefined for an operator's. */
  readonly by: string | undefined
  /** When it was asked for, in true time. */
  readonly sentMs: number
}

export interface StoredNode {
  readonly id: string
  readonly name: string
  readonly cluster: string
  readonly state: string
  readonly workers: string
}

export interface StoredWorker {
  readonly key: string
  readonly kind: string
  readonly generation: number
  readonly slots: number
  readonly paused: number
  readonly schedule: string | null
}

interface Wrote {
  leases: boolean
  nodes: boolean
  workers: boolean
}

const everything: Wrote = { leases: true, nodes: true, workers: true }

type Rows = ReadonlyMap<string, readonly unknown[][]>

const tables = ['nodes', 'workers', 'leases', 'events', 'meta']

/** When the world begins, by the database's clock. */
const epochMs = 1_700_000_000_000

/** The time limit of the store's statements. It runs on the wall clock, so it must never take effect here. */
const neverMs = 1_000_000_000

export class SimulatedDatabase {
  readonly store: Store
  readonly #client: Database.Database
  readonly #trueMs: () => number
  #offsetMs = 0
  #furthestMs = 0
  #lives = 1
  #wipes = 0
  /** Whether requests are answered. In state `hangs` the database takes requests and does not answer. */
  away: 'no' | 'refuses' | 'hangs' = 'no'
  /** Requests that were given up on in an earlier era never arrive. */
  era = 0
  /** When the change that is under way will have ended. Later changes wait for it. */
  busyUntilMs = 0
  /** The session whose change is being carried out. A store sends no hints to the node that made the change. */
  changing: string | undefined
  /** How many transactions of the application fence each lease, by its key. */
  readonly #fences = new Map<string, number>()
  readonly #statements: Statements

  /** Rows that were read since the last write to their table, so that they need not be read again. */
  #rows: {
    leases?: StoredLease[] | undefined
    nodes?: StoredNode[] | undefined
    workers?: StoredWorker[] | undefined
  } = {}
  #look: Promise<Look> | undefined

  private constructor({ client, store, statements, facts }: Engine, trueMs: () => number) {
    this.#client = client
    this.#trueMs = trueMs
    this.#statements = statements
    this.store = store
    facts.nowMs = () => this.nowMs
    facts.identity = () => this.identity
  }

  /**
   * Returns an empty database. It is always the same one, emptied, so only one world can exist at a time: opening one
   * and preparing its statements takes longer than simulating a small world.
   */
  static async open(trueMs: () => number): Promise<SimulatedDatabase> {
    engine ??= await openEngine()
    for (const { clear } of engine.statements.tables.values()) clear.run()
    return new SimulatedDatabase(engine, trueMs)
  }

  get nowMs(): number {
    return Math.round(epochMs + this.#trueMs() + this.#offsetMs)
  }

  /** Changes with each restart. */
  get identity(): string {
    return `server-${this.#lives}`
  }

  /** Changes whenever the database may have forgotten what it had stored. */
  get past(): string {
    return `${this.identity} ${this.#wipes}`
  }

  /** Begins a new era: requests that were given up on and are still on their way are lost. */
  forgetLate(): void {
    this.era += 1
  }

  jumpClock(byMs: number): void {
    this.#offsetMs += byMs
    this.#furthestMs = Math.max(this.#furthestMs, this.#offsetMs)
  }

  /** Whether the clock was set back and has not been put right since. */
  get isClockBehind(): boolean {
    return this.#offsetMs < this.#furthestMs
  }

  /**
   * Returns what is stored now, for a later failover. Undefined before the first change: a namespace that has lost
   * everything cannot be told from a new one, and nothing is promised for it.
   */
  backup(): Rows | undefined {
    if (this.#statements.record.get() === undefined) return undefined
    const { tables } = this.#statements
    return new Map([...tables].map(([table, { all }]) => [table, all.all() as unknown[][]]))
  }

  /** Restarts the server under a new identity; with a backup, in the state of that backup. */
  restart(backup?: Rows): void {
    this.#lives += 1
    this.#forgetRows()
    this.#fences.clear()
    if (backup === undefined) return
    this.#client.transaction(() => {
      for (const [table, { clear, insert }] of this.#statements.tables) {
        clear.run()
        for (const row of backup.get(table) ?? []) insert.run(...row)
      }
    })()
  }

  heartbeat(node: string, beat: number): Promise<HeartbeatAnswer | undefined> {
    this.#look = undefined
    return this.store.heartbeat(node, beat)
  }

  /** Returns what watchers see, from a cache. Watchers look far more often than anything changes. */
  look(): Promise<Look> {
    this.#look ??= this.store.look()
    return this.#look
  }

  prune(retention: Retention): Promise<boolean> {
    this.#forgetRows()
    return this.store.prune(retention)
  }

  #forgetRows(): void {
    this.#rows = {}
    this.#look = undefined
  }

  /**
   * Forgets cached rows of the tables that a change may have written to: of all tables when the change did not even
   * begin.
   */
  #forget(wrote: Wrote = everything): void {
    if (wrote.leases) this.#rows.leases = undefined
    if (wrote.nodes) this.#rows.nodes = undefined
    if (wrote.workers) this.#rows.workers = undefined
    if (wrote.leases || wrote.nodes || wrote.workers) this.#look = undefined
  }

  /** Runs a change. When it was committed, reports which leases it touched. */
  async change<T>(
    session: SessionKey | undefined,
    work: (change: Change) => Promise<T>,
    heard: {
      committed(change: Omit<Committed, 'sentMs'>): void
      fenced(): void
    },
  ): Promise<Changed<T>> {
    let watched: WatchedChange | undefined
    this.changing = session?.node
    const changed = await this.store
      .change(session, (change) => {
        watched = new WatchedChange(change, this.#fences, heard.fenced)
        return work(watched)
      })
      .finally(() => {
        this.changing = undefined
        this.#forget(watched?.wrote)
      })
    if (changed.committed)
      heard.committed({
        leases: watched?.wrote.leases
          ? (this.#statements.touched.all(watched.revision) as StoredLease[])
          : [],
        deleted: watched?.deleted ?? [],
        events: watched?.events ?? [],
        by: session?.node,
      })
    return changed
  }

  /** Fences a lease row as an application does. Returns a function that ends the fence. */
  fence(key: string): () => void {
    this.#fences.set(key, (this.#fences.get(key) ?? 0) + 1)
    const life = this.#lives
    return () => {
      const left = (this.#fences.get(key) ?? 0) - 1
      if (life !== this.#lives) return
      if (left > 0) this.#fences.set(key, left)
      else this.#fences.delete(key)
    }
  }

  isFenced(key: string): boolean {
    return this.#fences.has(key)
  }

  endFences(): void {
    this.#fences.clear()
  }

  /** Deletes a row, as somebody does who writes to the tables by hand. */
  deleteRow(table: 'leases' | 'workers' | 'nodes', key: string): void {
    this.#statements.deleteRow[table].run(key)
    this.#forgetRows()
  }

  /** Deletes all rows, as somebody does who cleans up by hand. Returns whether no transaction prevents it. */
  wipe(): boolean {
    if (this.#fences.size > 0) return false
    this.#wipes += 1
    for (const { clear } of this.#statements.tables.values()) clear.run()
    this.#forgetRows()
    return true
  }

  leases(): readonly StoredLease[] {
    this.#rows.leases ??= this.#statements.allLeases.all() as StoredLease[]
    return this.#rows.leases
  }

  nodes(): readonly StoredNode[] {
    this.#rows.nodes ??= this.#statements.allNodes.all() as StoredNode[]
    return this.#rows.nodes
  }

  goneNodes(): string[] {
    return this.#statements.goneNodes.all() as string[]
  }

  /** Whether other nodes have declared this node gone. A node that leaves by itself has stopped before it leaves. */
  wasBuried(node: string): boolean {
    return this.#statements.burials.get(node) !== undefined
  }

  workers(): readonly StoredWorker[] {
    this.#rows.workers ??= this.#statements.allWorkers.all() as StoredWorker[]
    return this.#rows.workers
  }

  /**
   * Returns whether a fenced transaction of the application could write under a lease that its process believes it
   * holds. The transaction is rolled back.
   */
  writeFenced(claim: Claim): boolean {
    this.#statements.begin.run()
    try {
      void this.store.fence(this.#client, claim)
      return true
    } catch (error) {
      if (error instanceof FencedError) return false
      throw error
    } finally {
      this.#statements.rollback.run()
    }
  }

  /** The recorded server, and whether a node has waited out its grace period. */
  record(): { readonly identity: string; readonly settled: boolean } {
    const [identity = '', settled = 1] = (this.#statements.record.get() ?? []) as [string?, number?]
    return { identity, settled: settled === 1 }
  }

  /** The nodes that are named as watchers. */
  watchers(): readonly string[] {
    return JSON.parse(String(this.#statements.watchers.get() ?? '[]')) as string[]
  }

  /** Returns how many events of the audit trail have this reason and an actor. */
  eventsWithReason(reason: string): number {
    return Number(this.#statements.byReason.get(reason))
  }
}

/**
 * A change of the real store that notes where it writes, and marks fenced leases as other databases do. In SQLite
 * itself a fence stops every change.
 */
class WatchedChange implements Change {
  readonly wrote: Wrote = { leases: false, nodes: false, workers: false }
  /** The keys of the leases that it has deleted. */
  readonly deleted: string[] = []
  readonly events: NewEvent[] = []
  readonly #change: Change
  readonly #fences: ReadonlyMap<string, number>
  readonly #met: () => void

  constructor(change: Change, fences: ReadonlyMap<string, number>, met: () => void) {
    this.#change = change
    this.#fences = fences
    this.#met = met
  }

  get revision(): number {
    return this.#change.revision
  }

  get nowMs(): number {
    return this.#change.nowMs
  }

  get serverIdentity(): string {
    return this.#change.serverIdentity
  }

  get meta(): MetaRow {
    return this.#change.meta
  }

  get session(): NodeRow | undefined {
    return this.#change.session
  }

  leases(filter: LeaseFilter): Promise<LockedLease[]> {
    const rows = this.#change.leases(filter)
    return this.#fences.size === 0 ? rows : rows.then((found) => found.map((row) => this.#marked(row)))
  }

  saveLeases(rows: readonly LeaseRow[]): Promise<void> {
    this.#mustBeFree(rows.map(({ key }) => key))
    this.wrote.leases = true
    return this.#change.saveLeases(rows)
  }

  deleteLeases(keys: readonly string[]): Promise<void> {
    this.#mustBeFree(keys)
    this.wrote.leases = true
    this.deleted.push(...keys)
    return this.#change.deleteLeases(keys)
  }

  saveWorkers(rows: readonly WorkerRow[]): Promise<void> {
    this.wrote.workers = true
    return this.#change.saveWorkers(rows)
  }

  addNode(node: NewNode, operation: number): Promise<void> {
    this.wrote.nodes = true
    return this.#change.addNode(node, operation)
  }

  updateNode(id: string, patch: NodePatch): Promise<void> {
    this.wrote.nodes = true
    return this.#change.updateNode(id, patch)
  }

  bury(id: string, beat?: number): Promise<boolean> {
    this.wrote.nodes = true
    return this.#change.bury(id, beat)
  }

  forgetNode(id: string): Promise<void> {
    this.wrote.nodes = true
    return this.#change.forgetNode(id)
  }

  forgetWorker(key: string): Promise<void> {
    this.wrote.workers = true
    return this.#change.forgetWorker(key)
  }

  nodes(): Promise<NodeRow[]> {
    return this.#change.nodes()
  }

  nodesById(ids: readonly string[]): Promise<NodeRow[]> {
    return this.#change.nodesById(ids)
  }

  workers(keys: readonly string[]): Promise<WorkerRow[]> {
    return this.#change.workers(keys)
  }

  loads(): Promise<Load[]> {
    return this.#change.loads()
  }

  highestToken(): Promise<number> {
    return this.#change.highestToken()
  }

  view(node: string): Promise<OwnView | undefined> {
    return this.#change.view(node)
  }

  saveMeta(patch: Partial<Omit<MetaRow, 'revision'>>): Promise<void> {
    return this.#change.saveMeta(patch)
  }

  record(events: readonly NewEvent[]): Promise<void> {
    this.events.push(...events)
    return this.#change.record(events)
  }

  tell(nodes: ReadonlySet<string>): Promise<void> {
    return this.#change.tell(nodes)
  }

  #marked(row: LockedLease): LockedLease {
    const fenced = this.#fences.has(row.key)
    if (fenced) this.#met()
    return { ...row, fenced }
  }

  #mustBeFree(keys: readonly string[]): void {
    const broken = keys.filter((key) => this.#fences.has(key))
    if (broken.length > 0) throw new Error(`a change would wait for the fence of ${broken.join(', ')}`)
  }
}

interface Engine {
  readonly client: Database.Database
  readonly store: Store
  readonly statements: Statements
  /** What the store asks its surroundings. Each world puts its own functions in place. */
  readonly facts: { nowMs: () => number; identity: () => string }
}

let engine: Engine | undefined

async function openEngine(): Promise<Engine> {
  const client = new Database(':memory:')
  const facts = { nowMs: () => 0, identity: () => '' }
  const store = await openSqliteStoreOver(client, {
    namespace: 'default',
    statementTimeoutMs: neverMs,
    migrate: true,
    nowMs: () => facts.nowMs(),
    identity: () => facts.identity(),
    // Between two events of a world all promises have settled, so each turn is a fresh one.
    freshTurn: () => Promise.resolve(),
  })
  return { client, store, facts, statements: prepareStatements(client) }
}

type Statements = ReturnType<typeof prepareStatements>

/** Prepares the statements that the world runs past the store. */
function prepareStatements(client: Database.Database) {
  const leaseColumns = `key, worker, slot, generation, holder, target, token, pending, blocked_node as blockedNode,
    cooldown_node as cooldownNode, cooldown_until_ms as cooldownUntilMs, fired_at_ms as firedAtMs, waiters`
  return {
    touched: client.prepare(`select ${leaseColumns} from coordination_leases where revision = ?`),
    allLeases: client.prepare(`select ${leaseColumns} from coordination_leases`),
    allNodes: client.prepare(
      `select id, name, cluster, state, workers from coordination_nodes where state <> 'gone'`,
    ),
    goneNodes: client.prepare(`select id from coordination_nodes where state = 'gone' order by id`).pluck(),
    allWorkers: client.prepare(
      'select key, kind, generation, slots, paused, schedule from coordination_workers',
    ),
    burials: client.prepare(`select 1 from coordination_events where type = 'node.gone' and subject = ?`),
    byReason: client
      .prepare('select count(*) from coordination_events where reason = ? and actor is not null')
      .pluck(),
    watchers: client.prepare('select watchers from coordination_meta').pluck(),
    record: client.prepare('select server_identity, identity_settled from coordination_meta').raw(),
    deleteRow: {
      leases: client.prepare('delete from coordination_leases where key = ?'),
      workers: client.prepare('delete from coordination_workers where key = ?'),
      nodes: client.prepare('delete from coordination_nodes where id = ?'),
    },
    begin: client.prepare('begin immediate'),
    rollback: client.prepare('rollback'),
    tables: new Map(tables.map((table) => [table, prepareTable(client, `coordination_${table}`)])),
  }
}

function prepareTable(client: Database.Database, table: string) {
  const all = client.prepare(`select * from ${table}`).raw()
  const places = all.columns().map(() => '?')
  return {
    all,
    clear: client.prepare(`delete from ${table}`),
    insert: client.prepare(`insert into ${table} values (${places.join(', ')})`),
  }
}
