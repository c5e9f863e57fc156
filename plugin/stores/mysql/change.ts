/**
 * The inside of a change: one transaction that begins by taking the revision row.
 *
 * Writes are gathered and sent before the next read or before the commit: one statement for each table, regardless of
 * the number of rows. A change keeps all other changes waiting until it commits, and each statement is a round trip
 * to the database.
 */
import { and, eq, inArray, ne, type SQL, sql } from 'drizzle-orm'
import type {
  Change,
  LeaseFilter,
  LeaseRow,
  Load,
  LockedLease,
  MetaRow,
  NewNode,
  NodePatch,
  NodeRow,
  OwnView,
  SessionKey,
  WorkerRow,
} from '../../core/store.js'
import {
  aChange,
  type Gathered,
  type PlacedEvent,
  ServerChange,
  type Taken,
  writesFenced,
} from '../shared/change.js'
import type { Transactions } from './capabilities.js'
import { leasesWanted, lockLeases } from './change-queries.js'
import type { Loan } from './connections.js'
import { isLocked } from './failures.js'
import type { Queries } from './queries.js'
import { columnsOf, givenInstead, ownView, takenOf } from './rows.js'
import { events, leases, meta, nodes, workers } from './schema.js'
import type { Terms } from './terms.js'

/** How many rows one statement inserts at most, because the server limits the size of a packet. */
const rowsAtOnce = 1_000

/** What a change must know besides its connection. */
export interface Setting {
  readonly terms: Terms
  readonly transactions: Transactions
  readonly queries: Queries
}

/** Begins a change: takes the revision row, stamps the session, and then reads both. */
export async function beginChange(
  loan: Loan,
  setting: Setting,
  session: SessionKey | undefined,
): Promise<MysqlChange> {
  const ask = <T>(send: () => Promise<T>): Promise<T> => loan.send(aChange, send)
  // Until it has ended well, the transaction and its connection go together.
  loan.spoiled = true
  loan.afterwards = setting.transactions.afterwards
  await ask(() => loan.client.promise().query(setting.transactions.begin))
  await ask(() => setting.queries.takeRevision().execute())
  const stamped = session !== undefined && (await ask(() => stampSession(setting, session)))
  const node = stamped ? session.node : null
  const taken = takenOf(await ask(() => setting.queries.taken().execute({ node })))
  return new MysqlChange(loan, setting, session, taken)
}

/** Returns whether the session is not gone and has not made a change of this number or a later one. */
async function stampSession({ queries }: Setting, { node, operation }: SessionKey): Promise<boolean> {
  const [{ affectedRows }] = await queries.stampSession().execute({ node, operation })
  return affectedRows > 0
}

export class MysqlChange extends ServerChange<Loan> implements Change {
  readonly #setting: Setting
  /** Keys of leases that are locked here, or that are known to have no row to lock. */
  readonly #mine = new Set<string>()

  constructor(loan: Loan, setting: Setting, asking: SessionKey | undefined, taken: Taken) {
    super(loan, asking, taken)
    this.#setting = setting
  }

  async nodes(): Promise<NodeRow[]> {
    return this.read(() => this.#queries.nodes().execute())
  }

  async nodesById(ids: readonly string[]): Promise<NodeRow[]> {
    const mine = and(eq(nodes.namespace, this.#namespace), inArray(nodes.id, [...ids]))
    return this.read(() => this.#queries.db.select(columnsOf(nodes)).from(nodes).where(mine))
  }

  async workers(keys: readonly string[]): Promise<WorkerRow[]> {
    const mine = and(eq(workers.namespace, this.#namespace), inArray(workers.key, [...keys]))
    return this.read(() => this.#queries.db.select(columnsOf(workers)).from(workers).where(mine))
  }

  /** Only changes alter leases, so a row that was read is still the same when it is locked afterwards. */
  async leases(filter: LeaseFilter): Promise<LockedLease[]> {
    const { keys = [], workers = [], nodes = [] } = filter
    if (keys.length + workers.length + nodes.length === 0) return this.read(async () => [])
    const { queries, terms } = this.#setting
    const rows = await this.read(() => leasesWanted(queries.db, terms, filter))
    const locked = await this.#lock(rows.map(({ key }) => key))
    const there = new Set<string>(rows.map(({ key }) => key))
    for (const key of keys) if (!there.has(key)) this.#mine.add(key)
    return rows.map((row) => ({ ...row, fenced: !locked.has(row.key) }))
  }

  async loads(): Promise<Load[]> {
    return this.read(() => this.#queries.loads().execute())
  }

  async highestToken(): Promise<number> {
    const highest = sql`coalesce(max(${leases.token}), 0)`.mapWith(Number)
    const rows = await this.read(() =>
      this.#queries.db.select({ highest }).from(leases).where(eq(leases.namespace, this.#namespace)),
    )
    return rows[0]?.highest ?? 0
  }

  async view(node: string): Promise<OwnView | undefined> {
    return ownView(await this.read(() => this.#queries.view().execute({ node })))
  }

  async addNode(node: NewNode, operation: number): Promise<void> {
    const row = { namespace: this.#namespace, ...this.joined(node, operation) }
    await this.write(() => this.#queries.db.insert(nodes).values(row))
  }

  async updateNode(id: string, patch: NodePatch): Promise<void> {
    await this.write(() =>
      this.#queries.db
        .update(nodes)
        .set({ ...patch, revision: this.revision })
        .where(this.#isPresent(id)),
    )
  }

  async bury(id: string, beat?: number): Promise<boolean> {
    const sameBeat = beat === undefined ? undefined : eq(nodes.beat, beat)
    return this.write(async () => {
      const [{ affectedRows }] = await this.#queries.db
        .update(nodes)
        .set(this.buried)
        .where(and(this.#isPresent(id), sameBeat))
      return affectedRows > 0
    })
  }

  async forgetNode(id: string): Promise<void> {
    const isGone = and(eq(nodes.namespace, this.#namespace), eq(nodes.id, id), eq(nodes.state, 'gone'))
    await this.write(() => this.#queries.db.delete(nodes).where(isGone))
  }

  async forgetWorker(key: string): Promise<void> {
    const isThis = and(eq(workers.namespace, this.#namespace), eq(workers.key, key))
    await this.write(() => this.#queries.db.delete(workers).where(isThis))
  }

  /** Does not wait for fences: a fenced row stays. */
  async deleteLeases(keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return
    await this.flush()
    const free = [...(await this.#lock(keys))]
    const mine = and(eq(leases.namespace, this.#namespace), inArray(leases.key, free))
    await this.write(() => this.#queries.db.delete(leases).where(mine))
  }

  async saveMeta(patch: Partial<Omit<MetaRow, 'revision'>>): Promise<void> {
    if (Object.keys(patch).length === 0) return
    await this.write(() =>
      this.#queries.db.update(meta).set(patch).where(eq(meta.namespace, this.#namespace)),
    )
  }

  get #queries(): Queries {
    return this.#setting.queries
  }

  get #namespace(): string {
    return this.#setting.terms.namespace
  }

  #isPresent(id: string): SQL | undefined {
    return and(eq(nodes.namespace, this.#namespace), eq(nodes.id, id), ne(nodes.state, 'gone'))
  }

  protected async commit(): Promise<void> {
    await this.loan.client.promise().query('commit')
  }

  protected rollback(): Promise<unknown> {
    return this.loan.client.promise().query('rollback')
  }

  protected async writeGathered({ leases, workers, events, told }: Gathered): Promise<void> {
    await this.#saveLeases(leases)
    await this.#saveWorkers(workers)
    await this.#record(events)
    if (told.length > 0) await this.#tell(told)
  }

  /** Locks those of these leases that no user's transaction holds, and returns their keys. */
  async #lock(keys: readonly string[]): Promise<ReadonlySet<string>> {
    if (keys.length === 0) return new Set()
    const { queries, terms } = this.#setting
    const locked = await this.ask(() => lockLeases(queries.db, terms, keys, { skipLocked: true }))
    for (const { key } of locked) this.#mine.add(key)
    return new Set(locked.map(({ key }) => key))
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

  /** Locks rows that were not read here before, without waiting for them. */
  async #claimRows(keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return
    const { queries, terms } = this.#setting
    await this.ask(async () => {
      try {
        await lockLeases(queries.db, terms, keys, { noWait: true })
      } catch (error) {
        if (!isLocked(error)) throw error
        throw writesFenced()
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

  async #record(rows: readonly PlacedEvent[]): Promise<void> {
    await this.#inParts(rows, (part) =>
      this.#queries.db.insert(events).values(part.map((row) => ({ ...row, ...this.#stamp }))),
    )
  }

  async #tell(told: readonly string[]): Promise<void> {
    const mine = and(
      eq(nodes.namespace, this.#namespace),
      ne(nodes.state, 'gone'),
      inArray(nodes.id, [...told]),
    )
    await this.ask(() => this.#queries.db.update(nodes).set({ newsRevision: this.revision }).where(mine))
  }

  get #stamp() {
    return { namespace: this.#namespace, revision: this.revision }
  }

  async #inParts<Row>(rows: readonly Row[], insert: (part: Row[]) => Promise<unknown>): Promise<void> {
    for (let from = 0; from < rows.length; from += rowsAtOnce) {
      const part = rows.slice(from, from + rowsAtOnce)
      await this.ask(() => insert(part))
    }
  }
}
