/**
 * The inside of a change: one transaction that begins by taking the revision row.
 *
 * What is written is gathered, and goes out in one request before the next read or the commit. Until it commits a change
 * keeps all others waiting, and each request is a journey to the database and back: so a typical one makes a
 * handful of them, whatever the number of rows.
 */
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
  Session,
  WorkerRow,
} from '../../core/store.js'
import type { Statements } from '../shared/statements.js'
import { type Loan, sent } from './connections.js'
import { isDuplicate, storeError, tooSlow } from './failures.js'
import { everything, locking } from './fence.js'
import type { Queries, Query, Taken } from './queries.js'
import { meta, nodes } from './schema.js'

/** What a change is called in errors. */
export const aChange = 'A change'

/** What a change must know beside its connection. */
export interface Setting {
  readonly namespace: string
  readonly queries: Queries
  readonly statements: Statements
}

/** Begins a change: one journey opens the transaction, the next one takes the revision row and stamps the session. */
export async function beginChange(
  loan: Loan,
  setting: Setting,
  session: Session | undefined,
): Promise<MssqlChange> {
  const taken = (await take(loan, setting, session)) ?? (await takeFirst(loan, setting, session))
  return new MssqlChange(loan, setting, session, taken)
}

/** Undefined, with no transaction left, when there is no revision row. */
async function take(loan: Loan, setting: Setting, session: Session | undefined): Promise<Taken | undefined> {
  // Until it has ended well, the transaction and its connection go together.
  loan.spoiled = true
  await sent(loan, aChange, () => loan.begin())
  const taken = await ask(loan, setting, setting.queries.take(session, everything(setting.namespace)))
  if (taken !== undefined) return taken
  await sent(loan, aChange, () => loan.rollback())
  loan.spoiled = false
  return undefined
}

/** The row is made by itself, with the number 0 that says the same as no row: whoever loses the race finds it. */
async function takeFirst(loan: Loan, setting: Setting, session: Session | undefined): Promise<Taken> {
  await ask(loan, setting, setting.queries.found()).catch((error: unknown) => {
    if (!isDuplicate(error)) throw error
  })
  const taken = await take(loan, setting, session)
  if (taken === undefined) throw new StoreError('A change could not take its number.', 'none')
  return taken
}

async function ask<T>(loan: Loan, { statements }: Setting, query: Query<T>): Promise<T> {
  statements.add(query.statements)
  const answer = await sent(loan, aChange, () => loan.ask(query.sql, query.parameters))
  return query.read(answer, loan.identity)
}

export class MssqlChange implements Change {
  readonly revision: number
  readonly nowMs: number
  readonly serverIdentity: string
  readonly meta: MetaRow
  readonly session: NodeRow | undefined
  readonly #loan: Loan
  readonly #setting: Setting
  readonly #asking: Session | undefined
  readonly #noFences: boolean
  /** Leases of which this change has found out whether they are fenced; those that are not it has locked. */
  readonly #fenced = new Map<string, boolean>()
  #leases = new Map<string, LeaseRow>()
  #workers = new Map<string, WorkerRow>()
  #events: object[] = []
  #told = new Set<string>()
  readonly #woken = new Set<string>()
  #position = 0
  #wrote = false
  #failure: CoordinationError | undefined
  #over = false

  constructor(loan: Loan, setting: Setting, asking: Session | undefined, taken: Taken) {
    this.meta = taken.meta
    this.revision = taken.meta.revision
    this.nowMs = taken.nowMs
    this.serverIdentity = loan.identity
    this.session = taken.session
    this.#noFences = taken.noFences
    this.#loan = loan
    this.#setting = setting
    this.#asking = asking
  }

  /** What went wrong with the transaction: then it is dead, whatever `work` has made of the error. */
  get failure(): CoordinationError | undefined {
    return this.#failure
  }

  /** The nodes a hint is for: those told, but for the one that makes this change and knows. */
  get woken(): string[] {
    return [...this.#woken]
  }

  /** Commits, unless nothing was written. Answers whether it did. */
  async finish(): Promise<boolean> {
    await this.#flush()
    if (!this.#wrote) {
      await this.undo()
      return false
    }
    await this.#send(() => this.#commit())
    this.#over = true
    this.#loan.spoiled = false
    return true
  }

  /** Rolls back. Where that fails, the connection ends and the server rolls back by itself. */
  async undo(): Promise<void> {
    this.#over = true
    if (this.#failure !== undefined) return
    await this.#loan.rollback().then(
      () => {
        this.#loan.spoiled = false
      },
      () => undefined,
    )
  }

  async nodes(): Promise<NodeRow[]> {
    return this.#read(this.#queries.nodes())
  }

  async nodesById(ids: readonly string[]): Promise<NodeRow[]> {
    return this.#read(this.#queries.nodesById(ids))
  }

  async workers(keys: readonly string[]): Promise<WorkerRow[]> {
    return this.#read(this.#queries.workers(keys))
  }

  async leases(filter: LeaseFilter): Promise<LockedLease[]> {
    const { keys = [], workers = [], nodes = [] } = filter
    if (keys.length + workers.length + nodes.length === 0) return []
    const rows = await this.#read(this.#queries.leases(filter))
    await this.#lock(rows.filter(({ holder }) => holder !== null).map(({ key }) => key))
    return rows.map((row) => ({ ...row, fenced: this.#fenced.get(row.key) ?? false }))
  }

  async loads(): Promise<Load[]> {
    return this.#read(this.#queries.loads())
  }

  async highestToken(): Promise<number> {
    return this.#read(this.#queries.highestToken())
  }

  async view(node: string): Promise<OwnView | undefined> {
    return this.#read(this.#queries.view(node))
  }

  async addNode(node: NewNode, operation: number): Promise<void> {
    const { revision, nowMs } = this
    await this.#write(
      this.#queries.insert(nodes, {
        ...node,
        ...{ state: 'active', operation, beat: 0, startedAtMs: nowMs, heartbeatAtMs: nowMs },
        ...{ joinedRevision: revision, newsRevision: revision, revision },
      }),
    )
  }

  async updateNode(id: string, patch: NodePatch): Promise<void> {
    await this.#write(this.#queries.updateNode(id, { ...patch, revision: this.revision }))
  }

  async bury(id: string, beat?: number): Promise<boolean> {
    const gone = { state: 'gone', goneAtMs: this.nowMs, revision: this.revision }
    const buried = await this.#read(this.#queries.updateNode(id, gone, beat))
    this.#wrote ||= buried
    return buried
  }

  async forgetNode(id: string): Promise<void> {
    await this.#write(this.#queries.forgetNode(id))
  }

  async saveWorkers(rows: readonly WorkerRow[]): Promise<void> {
    this.#guard()
    for (const row of rows) this.#workers.set(row.key, row)
  }

  async saveLeases(rows: readonly LeaseRow[]): Promise<void> {
    this.#guard()
    for (const row of rows) this.#leases.set(row.key, row)
  }

  /** Waits for no fence: a fenced row stays. */
  async deleteLeases(keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return
    await this.#lock(keys)
    await this.#write(this.#queries.deleteLeases(keys.filter((key) => this.#fenced.get(key) !== true)))
  }

  async saveMeta(patch: Partial<Omit<MetaRow, 'revision'>>): Promise<void> {
    if (Object.keys(patch).some((property) => property in meta))
      await this.#write(this.#queries.updateMeta(patch))
  }

  async record(events: readonly NewEvent[]): Promise<void> {
    this.#guard()
    for (const event of events) {
      this.#events.push({ ...event, position: this.#position, atMs: this.nowMs })
      this.#position += 1
    }
  }

  async tell(nodes: ReadonlySet<string>): Promise<void> {
    this.#guard()
    for (const node of nodes) {
      this.#told.add(node)
      if (node !== this.#asking?.node) this.#woken.add(node)
    }
  }

  get #queries(): Queries {
    return this.#setting.queries
  }

  async #read<T>(query: Query<T>): Promise<T> {
    await this.#flush()
    return this.#ask(query)
  }

  async #write(query: Query<unknown>): Promise<void> {
    await this.#flush()
    await this.#ask(query)
    this.#wrote = true
  }

  /** Sends what has been gathered. */
  async #flush(): Promise<void> {
    this.#guard()
    const leases = [...this.#leases.values()]
    const gathered = {
      leases,
      workers: [...this.#workers.values()],
      events: this.#events,
      told: [...this.#told],
    }
    if (Object.values(gathered).every((list) => list.length === 0)) return
    this.#leases = new Map()
    this.#workers = new Map()
    this.#events = []
    this.#told = new Set()
    this.#wrote = true
    await this.#lock(leases.map(({ key }) => key))
    if (leases.some(({ key }) => this.#fenced.get(key) === true)) throw this.#fail(writesFenced())
    await this.#ask(this.#queries.write({ revision: this.revision, ...gathered }))
  }

  /**
   * Finds out which of these leases are fenced, and keeps the others from being fenced before this change has ended. When
   * there was no fence at all in the beginning none can come, and nothing needs to be asked.
   */
  async #lock(keys: readonly string[]): Promise<void> {
    if (this.#noFences) return
    const unknown = [...new Set(keys)].filter((key) => !this.#fenced.has(key))
    for (const { sql, parameters, of } of locking(this.#setting.namespace, unknown)) {
      const [rows = []] = await this.#send(() => this.#loan.ask(sql, parameters))
      const fenced = new Set(rows.map(({ place }) => Number(place)))
      of.forEach((key, place) => {
        this.#fenced.set(key, fenced.has(place))
      })
    }
  }

  async #commit(): Promise<void> {
    this.#loan.outcome = 'unknown'
    await this.#loan.commit()
  }

  async #ask<T>(query: Query<T>): Promise<T> {
    this.#guard()
    return this.#send(async () => {
      this.#setting.statements.add(query.statements)
      return query.read(await this.#loan.ask(query.sql, query.parameters), this.serverIdentity)
    })
  }

  /** Any error inside a transaction ends it, and its connection: both are in a state nobody should build on. */
  async #send<T>(send: () => Promise<T>): Promise<T> {
    this.#guard()
    try {
      return await sent(this.#loan, aChange, send)
    } catch (error) {
      throw this.#fail(error as CoordinationError)
    }
  }

  #fail(error: CoordinationError): CoordinationError {
    this.#failure = error
    this.#loan.spoiled = true
    return error
  }

  #guard(): void {
    if (this.#failure !== undefined) throw this.#failure
    if (this.#over) throw new StoreError('This change has ended.', 'none')
    const { deadline, lost } = this.#loan
    if (lost !== undefined) throw storeError(aChange, 'none', lost)
    // After a stall the timer that ends this verb may be late; nothing is sent that nobody waits for.
    if (deadline.remainingMs === 0) throw tooSlow(aChange, deadline.limitMs, 'none')
  }
}

function writesFenced(): StoreError {
  return new StoreError('A change was to write leases that are fenced by a transaction.', 'none')
}
