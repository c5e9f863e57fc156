/**
 * The inside of a change: one transaction that begins by taking the revision row.
 *
 * What is written is gathered, and goes out before the next read or the commit: one statement for each table, whatever the
 * number of rows. Until it commits a change keeps all others waiting, and each statement is a journey to the
 * database and back.
 */
import { and, eq, inArray, ne, type SQL, sql } from 'drizzle-orm'
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
import { storeError, tooSlow } from '../shared/failures.js'
import { type Loan, sent } from './connections.js'
import { isLocked } from './failures.js'
import {
  columnsOf,
  givenInstead,
  leasesWanted,
  lockLeases,
  ownView,
  type Queries,
  type Taken,
  type Terms,
  takenOf,
} from './queries.js'
import { events, leases, meta, nodes, workers } from './schema.js'

/** What a change is called in errors. */
export const aChange = 'A change'

/** How many rows one statement inserts at most: the server takes only so much in one packet. */
const rowsAtOnce = 1_000

/** What a change must know beside its connection. */
export interface Setting {
  readonly terms: Terms
  readonly queries: Queries
}

/** Begins a change: takes the revision row, stamps the session, and then reads both. */
export async function beginChange(
  loan: Loan,
  setting: Setting,
  session: Session | undefined,
): Promise<MysqlChange> {
  const ask = <T>(send: () => Promise<T>): Promise<T> => sent(loan, aChange, send)
  // Until it has ended well, the transaction and its connection go together.
  loan.spoiled = true
  await ask(() => loan.client.promise().query('start transaction'))
  await ask(() => setting.queries.takeRevision().execute())
  const stamped = session !== undefined && (await ask(() => stampSession(setting, session)))
  const node = stamped ? session.node : null
  const taken = takenOf(await ask(() => setting.queries.taken().execute({ node })))
  return new MysqlChange(loan, setting, session, taken)
}

/** Answers whether the session is not gone and has made no change of this number or a later one. */
async function stampSession({ queries }: Setting, { node, operation }: Session): Promise<boolean> {
  const [{ affectedRows }] = await queries.stampSession().execute({ node, operation })
  return affectedRows > 0
}

export class MysqlChange implements Change {
  readonly revision: number
  readonly nowMs: number
  readonly serverIdentity: string
  readonly meta: MetaRow
  readonly session: NodeRow | undefined
  readonly #loan: Loan
  readonly #setting: Setting
  readonly #asking: Session | undefined
  #leases = new Map<string, LeaseRow>()
  #workers = new Map<string, WorkerRow>()
  #events: (NewEvent & { position: number })[] = []
  #told = new Set<string>()
  readonly #woken = new Set<string>()
  /** Keys of leases that are locked here, or of which it is known that there is no row to lock. */
  readonly #mine = new Set<string>()
  #position = 0
  #wrote = false
  #failure: CoordinationError | undefined
  #over = false

  constructor(loan: Loan, setting: Setting, asking: Session | undefined, taken: Taken) {
    this.meta = taken.meta
    this.revision = taken.meta.revision
    this.nowMs = taken.nowMs
    this.serverIdentity = taken.serverIdentity
    this.session = taken.session
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
    await this.#ask(() => this.#commit())
    this.#over = true
    this.#loan.spoiled = false
    return true
  }

  /** Rolls back. Where that fails, the connection ends and the server rolls back by itself. */
  async undo(): Promise<void> {
    this.#over = true
    if (this.#failure !== undefined) return
    await this.#loan.client
      .promise()
      .query('rollback')
      .then(
        () => {
          this.#loan.spoiled = false
        },
        () => undefined,
      )
  }

  async nodes(): Promise<NodeRow[]> {
    return this.#read(() => this.#queries.nodes().execute())
  }

  async nodesById(ids: readonly string[]): Promise<NodeRow[]> {
    const mine = and(eq(nodes.namespace, this.#namespace), inArray(nodes.id, [...ids]))
    return this.#read(() => this.#queries.db.select(columnsOf(nodes)).from(nodes).where(mine))
  }

  async workers(keys: readonly string[]): Promise<WorkerRow[]> {
    const mine = and(eq(workers.namespace, this.#namespace), inArray(workers.key, [...keys]))
    return this.#read(() => this.#queries.db.select(columnsOf(workers)).from(workers).where(mine))
  }

  /** Only changes alter leases, so a row is still the same when it is locked after it has been read. */
  async leases(filter: LeaseFilter): Promise<LockedLease[]> {
    const { keys = [], workers = [], nodes = [] } = filter
    if (keys.length + workers.length + nodes.length === 0) return this.#read(async () => [])
    const { queries, terms } = this.#setting
    const rows = await this.#read(() => leasesWanted(queries.db, terms, filter))
    const locked = await this.#lock(rows.map(({ key }) => key))
    const there = new Set<string>(rows.map(({ key }) => key))
    for (const key of keys) if (!there.has(key)) this.#mine.add(key)
    return rows.map((row) => ({ ...row, fenced: !locked.has(row.key) }))
  }

  async loads(): Promise<Load[]> {
    return this.#read(() => this.#queries.loads().execute())
  }

  async highestToken(): Promise<number> {
    const highest = sql`coalesce(max(${leases.token}), 0)`.mapWith(Number)
    const rows = await this.#read(() =>
      this.#queries.db.select({ highest }).from(leases).where(eq(leases.namespace, this.#namespace)),
    )
    return rows[0]?.highest ?? 0
  }

  async view(node: string): Promise<OwnView | undefined> {
    return ownView(await this.#read(() => this.#queries.view().execute({ node })))
  }

  async addNode(node: NewNode, operation: number): Promise<void> {
    const { revision, nowMs } = this
    const { id, name, cluster, workers, labels, version, machine, process, ttlMs } = node
    await this.#write(() =>
      this.#queries.db.insert(nodes).values({
        ...{
          namespace: this.#namespace,
          id,
          name,
          cluster,
          workers,
          labels,
          version,
          machine,
          process,
          ttlMs,
        },
        ...{ state: 'active', operation, beat: 0, startedAtMs: nowMs, heartbeatAtMs: nowMs },
        ...{ joinedRevision: revision, newsRevision: revision, revision },
      }),
    )
  }

  async updateNode(id: string, patch: NodePatch): Promise<void> {
    await this.#write(() =>
      this.#queries.db
        .update(nodes)
        .set({ ...patch, revision: this.revision })
        .where(this.#isStanding(id)),
    )
  }

  async bury(id: string, beat?: number): Promise<boolean> {
    const sameBeat = beat === undefined ? undefined : eq(nodes.beat, beat)
    await this.#flush()
    const [{ affectedRows }] = await this.#ask(() =>
      this.#queries.db
        .update(nodes)
        .set({ state: 'gone', goneAtMs: this.nowMs, revision: this.revision })
        .where(and(this.#isStanding(id), sameBeat)),
    )
    this.#wrote ||= affectedRows > 0
    return affectedRows > 0
  }

  async forgetNode(id: string): Promise<void> {
    const isGone = and(eq(nodes.namespace, this.#namespace), eq(nodes.id, id), eq(nodes.state, 'gone'))
    await this.#write(() => this.#queries.db.delete(nodes).where(isGone))
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
    await this.#flush()
    const free = [...(await this.#lock(keys))]
    const mine = and(eq(leases.namespace, this.#namespace), inArray(leases.key, free))
    await this.#write(() => this.#queries.db.delete(leases).where(mine))
  }

  async saveMeta(patch: Partial<Omit<MetaRow, 'revision'>>): Promise<void> {
    if (Object.keys(patch).length === 0) return
    await this.#write(() =>
      this.#queries.db.update(meta).set(patch).where(eq(meta.namespace, this.#namespace)),
    )
  }

  async record(events: readonly NewEvent[]): Promise<void> {
    this.#guard()
    for (const event of events) {
      this.#events.push({ ...event, position: this.#position })
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

  get #namespace(): string {
    return this.#setting.terms.namespace
  }

  #isStanding(id: string): SQL | undefined {
    return and(eq(nodes.namespace, this.#namespace), eq(nodes.id, id), ne(nodes.state, 'gone'))
  }

  async #read<T>(send: () => Promise<T>): Promise<T> {
    await this.#flush()
    return this.#ask(send)
  }

  async #write(send: () => Promise<unknown>): Promise<void> {
    await this.#flush()
    await this.#ask(send)
    this.#wrote = true
  }

  /** Locks those of these leases that no user's transaction holds, and answers their keys. */
  async #lock(keys: readonly string[]): Promise<ReadonlySet<string>> {
    if (keys.length === 0) return new Set()
    const { queries, terms } = this.#setting
    const locked = await this.#ask(() => lockLeases(queries.db, terms, keys, { skipLocked: true }))
    for (const { key } of locked) this.#mine.add(key)
    return new Set(locked.map(({ key }) => key))
  }

  /** Sends what has been gathered. */
  async #flush(): Promise<void> {
    this.#guard()
    const [leases, workers, events, told] = [this.#leases, this.#workers, this.#events, [...this.#told]]
    if (leases.size + workers.size + events.length + told.length === 0) return
    this.#leases = new Map()
    this.#workers = new Map()
    this.#events = []
    this.#told = new Set()
    this.#wrote = true
    await this.#saveLeases([...leases.values()])
    await this.#saveWorkers([...workers.values()])
    await this.#record(events)
    if (told.length > 0) await this.#tell(told)
  }

  async #saveLeases(rows: readonly LeaseRow[]): Promise<void> {
    await this.#claimRows(rows.map(({ key }) => key).filter((key) => !this.#mine.has(key)))
    await this.#inParts(rows, (part) =>
      this.#queries.db
        .insert(leases)
        .values(part.map((row) => ({ ...row, ...this.#stamp })))
        .onDuplicateKeyUpdate({ set: givenInstead(leases) }),
    )
  }

  /** What was not read here before is not waited for either. */
  async #claimRows(keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return
    const { queries, terms } = this.#setting
    await this.#ask(async () => {
      try {
        await lockLeases(queries.db, terms, keys, { noWait: true })
      } catch (error) {
        if (!isLocked(error)) throw error
        throw new StoreError('A change was to write leases that are fenced by a transaction.', 'none')
      }
    })
  }

  async #saveWorkers(rows: readonly WorkerRow[]): Promise<void> {
    await this.#inParts(rows, (part) =>
      this.#queries.db
        .insert(workers)
        .values(part.map((row) => ({ ...row, ...this.#stamp })))
        .onDuplicateKeyUpdate({ set: givenInstead(workers) }),
    )
  }

  async #record(rows: readonly (NewEvent & { position: number })[]): Promise<void> {
    await this.#inParts(rows, (part) =>
      this.#queries.db
        .insert(events)
        .values(part.map((row) => ({ ...row, ...this.#stamp, atMs: this.nowMs }))),
    )
  }

  async #tell(told: readonly string[]): Promise<void> {
    const mine = and(
      eq(nodes.namespace, this.#namespace),
      ne(nodes.state, 'gone'),
      inArray(nodes.id, [...told]),
    )
    await this.#ask(() => this.#queries.db.update(nodes).set({ newsRevision: this.revision }).where(mine))
  }

  get #stamp() {
    return { namespace: this.#namespace, revision: this.revision }
  }

  async #inParts<Row>(rows: readonly Row[], insert: (part: Row[]) => Promise<unknown>): Promise<void> {
    for (let from = 0; from < rows.length; from += rowsAtOnce) {
      const part = rows.slice(from, from + rowsAtOnce)
      await this.#ask(() => insert(part))
    }
  }

  async #commit(): Promise<void> {
    this.#loan.outcome = 'unknown'
    await this.#loan.client.promise().query('commit')
  }

  /** Any error inside a transaction ends it, and its connection: both are in a state nobody should build on. */
  async #ask<T>(send: () => Promise<T>): Promise<T> {
    this.#guard()
    try {
      return await sent(this.#loan, aChange, send)
    } catch (error) {
      this.#failure = error as CoordinationError
      throw error
    }
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
