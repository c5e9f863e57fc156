/**
 * The database of a simulated world: the real store over real SQLite in memory, with a clock that can be set,
 * outages, and failovers that lose the latest writes.
 */
import Database from 'better-sqlite3'
import { FencedError } from '../../plugin/core/errors.js'
import type {
  Change,
  Changed,
  Claim,
  HeartbeatAnswer,
  LockedLease,
  Look,
  Retention,
  Session,
  Store,
} from '../../plugin/core/store.js'
import { openSqliteStoreOver } from '../../plugin/stores/sqlite/index.js'

/** A lease as the checker knows it. */
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
  readonly pending: number
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
}

type Rows = ReadonlyMap<string, readonly unknown[][]>

const tables = ['nodes', 'workers', 'leases', 'events', 'meta'].map((name) => `coordination_${name}`)

const leaseColumns = `key, worker, slot, generation, holder, target, token, pending, blocked_node as blockedNode,
  cooldown_node as cooldownNode, cooldown_until_ms as cooldownUntilMs`

/** When the world began by the database's clock. */
const epochMs = 1_700_000_000_000

/** The store has time limits of its own by the clock on the wall; none of them may ever matter here. */
const neverMs = 1_000_000_000

export class SimulatedDatabase {
  readonly store: Store
  readonly #client: Database.Database
  readonly #trueMs: () => number
  #offsetMs = 0
  #lives = 1
  /** Whether requests are answered; `hang` takes them and says nothing. */
  away: 'no' | 'refuses' | 'hangs' = 'no'
  /** Requests that were given up before the latest number here never arrive. */
  era = 0
  /** When the change that is under way will have ended; the next ones wait for it. */
  busyUntilMs = 0
  /** The session whose change is being carried out at this moment: a store sends no hints to whoever made a change. */
  changing: string | undefined
  /** Leases that transactions of the application hold, by key. */
  readonly #fences = new Map<string, number>()
  readonly #touched: Database.Statement
  readonly #allLeases: Database.Statement
  readonly #allNodes: Database.Statement
  readonly #allWorkers: Database.Statement
  readonly #byReason: Database.Statement
  readonly #record: Database.Statement

  /** What was read since anything was last written: the same again costs nothing. */
  #rows: { leases?: StoredLease[]; nodes?: StoredNode[]; workers?: StoredWorker[] } = {}
  #look: Promise<Look> | undefined

  private constructor({ client, store, facts }: Engine, trueMs: () => number) {
    this.#client = client
    this.#trueMs = trueMs
    this.store = store
    facts.nowMs = () => this.nowMs
    facts.identity = () => this.identity
    this.#touched = client.prepare(`select ${leaseColumns} from coordination_leases where revision = ?`)
    this.#allLeases = client.prepare(`select ${leaseColumns} from coordination_leases`)
    this.#allNodes = client.prepare(
      `select id, name, cluster, state, workers from coordination_nodes where state <> 'gone'`,
    )
    this.#allWorkers = client.prepare('select key, kind, generation, slots, paused from coordination_workers')
    this.#byReason = client.prepare(
      'select count(*) from coordination_events where reason = ? and actor is not null',
    )
    this.#byReason.pluck()
    this.#record = client.prepare('select server_identity, identity_settled from coordination_meta').raw()
  }

  /**
   * An empty database. One world at a time: it is always the same one, emptied, since to open one and prepare all
   * statements takes longer than to simulate a small world.
   */
  static async open(trueMs: () => number): Promise<SimulatedDatabase> {
    engine ??= await openEngine()
    for (const table of tables) engine.client.exec(`delete from ${table}`)
    return new SimulatedDatabase(engine, trueMs)
  }

  get nowMs(): number {
    return Math.round(epochMs + this.#trueMs() + this.#offsetMs)
  }

  /** Names this life of the server. */
  get identity(): string {
    return `server-${this.#lives}`
  }

  /** The network empties: what was given up and is still on its way gets lost. */
  forgetLate(): void {
    this.era += 1
  }

  jumpClock(byMs: number): void {
    this.#offsetMs += byMs
  }

  /**
   * What is stored now, to fail over to later. Undefined before the first change: who loses everything, the
   * namespace itself included, cannot be told from who begins, and nothing is promised for it.
   */
  backup(): Rows | undefined {
    if (this.#client.prepare('select 1 from coordination_meta').get() === undefined) return undefined
    return new Map(
      tables.map((table) => [
        table,
        this.#client.prepare(`select * from ${table}`).raw().all() as unknown[][],
      ]),
    )
  }

  /** The server comes back under a new identity; with a backup, as it was then. */
  restart(backup?: Rows): void {
    this.#lives += 1
    this.#forgetRows()
    this.#fences.clear()
    if (backup === undefined) return
    this.#client.transaction(() => {
      for (const [table, rows] of backup) {
        this.#client.exec(`delete from ${table}`)
        const [first] = rows
        if (first === undefined) continue
        const insert = this.#client.prepare(
          `insert into ${table} values (${first.map(() => '?').join(', ')})`,
        )
        for (const row of rows) insert.run(...row)
      }
    })()
  }

  /** Stamps a heartbeat. */
  heartbeat(node: string, beat: number): Promise<HeartbeatAnswer | undefined> {
    this.#look = undefined
    return this.store.heartbeat(node, beat)
  }

  /** Two watchers look far more often than anything changes, and a look is nothing but what is stored. */
  look(): Promise<Look> {
    this.#look ??= this.store.look()
    return this.#look
  }

  prune(retention: Retention): Promise<void> {
    this.#forgetRows()
    return this.store.prune(retention)
  }

  #forgetRows(): void {
    this.#rows = {}
    this.#look = undefined
  }

  /** Runs a change, and says which leases it touched if it was committed. */
  async change<T>(
    session: Session | undefined,
    work: (change: Change) => Promise<T>,
    heard: { committed(leases: readonly StoredLease[]): void; fenced(): void },
  ): Promise<Changed<T>> {
    let revision = 0
    this.changing = session?.node
    const changed = await this.store
      .change(session, (change) => {
        revision = change.revision
        return work(this.#fences.size === 0 ? change : this.#withFences(change, heard.fenced))
      })
      .finally(() => {
        this.changing = undefined
        this.#forgetRows()
      })
    if (changed.committed) heard.committed(this.#touched.all(revision) as StoredLease[])
    return changed
  }

  /** A transaction of the application holds a lease row until it ends. */
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

  endFences(): void {
    this.#fences.clear()
  }

  /** Here a fence would stop every change, as SQLite has it; elsewhere it marks the row. */
  #withFences(change: Change, met: () => void): Change {
    const marked = (row: LockedLease): LockedLease => {
      const fenced = this.#fences.has(row.key)
      if (fenced) met()
      return { ...row, fenced }
    }
    const unfenced = (keys: readonly string[]): void => {
      const broken = keys.filter((key) => this.#fences.has(key))
      if (broken.length > 0) throw new Error(`a change would wait for the fence of ${broken.join(', ')}`)
    }
    return new Proxy(change, {
      get(target, name) {
        if (name === 'leases')
          return async (filter: Parameters<Change['leases']>[0]) => (await target.leases(filter)).map(marked)
        if (name === 'saveLeases')
          return (rows: Parameters<Change['saveLeases']>[0]) => {
            unfenced(rows.map(({ key }) => key))
            return target.saveLeases(rows)
          }
        if (name === 'deleteLeases')
          return (keys: Parameters<Change['deleteLeases']>[0]) => {
            unfenced(keys)
            return target.deleteLeases(keys)
          }
        const value: unknown = Reflect.get(target, name, target)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
  }

  leases(): readonly StoredLease[] {
    this.#rows.leases ??= this.#allLeases.all() as StoredLease[]
    return this.#rows.leases
  }

  nodes(): readonly StoredNode[] {
    this.#rows.nodes ??= this.#allNodes.all() as StoredNode[]
    return this.#rows.nodes
  }

  goneNodes(): string[] {
    return this.#client
      .prepare(`select id from coordination_nodes where state = 'gone' order by id`)
      .pluck()
      .all() as string[]
  }

  /** Whether others have declared it gone; a node that leaves by itself has stopped before it says so. */
  wasBuried(node: string): boolean {
    const events = this.#client.prepare(
      `select 1 from coordination_events where type = 'node.gone' and subject = ?`,
    )
    return events.get(node) !== undefined
  }

  workers(): readonly StoredWorker[] {
    this.#rows.workers ??= this.#allWorkers.all() as StoredWorker[]
    return this.#rows.workers
  }

  /**
   * A transaction of the application writes under a lease that its process believes to hold. Answers whether it
   * could; nothing is kept of it.
   */
  writeFenced(claim: Claim): boolean {
    this.#client.exec('BEGIN IMMEDIATE')
    try {
      void this.store.fence(this.#client, claim)
      return true
    } catch (error) {
      if (error instanceof FencedError) return false
      throw error
    } finally {
      this.#client.exec('ROLLBACK')
    }
  }

  /** The server that is recorded, and whether somebody has waited out its grace period. */
  record(): { readonly identity: string; readonly settled: boolean } {
    const [identity = '', settled = 1] = (this.#record.get() ?? []) as [string?, number?]
    return { identity, settled: settled === 1 }
  }

  /** How many events of the audit trail bear this reason and an actor. */
  eventsWithReason(reason: string): number {
    return Number(this.#byReason.get(reason))
  }
}

interface Engine {
  readonly client: Database.Database
  readonly store: Store
  /** What the store asks the world about; each world puts its own in place. */
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
  })
  return { client, store, facts }
}
