/**
 * The inside of a change: one transaction that begins by taking the revision row.
 *
 * Writes are gathered and sent in one request before the next read or before the commit. A change keeps all other
 * changes waiting until it commits, and each request is a round trip to the database. Gathering keeps a typical
 * change to a handful of requests, regardless of the number of rows.
 */
import { StoreError } from '../../core/errors.js'
import type {
  Change,
  LeaseFilter,
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
import { aChange, type Gathered, ServerChange, writesFenced } from '../shared/change.js'
import { Known } from '../shared/known.js'
import type { Statements } from '../shared/statements.js'
import type { Loan } from './connections.js'
import { isDuplicate } from './failures.js'
import { everything, locking } from './fence.js'
import type { Queries, Query, TakenHere } from './queries.js'
import { meta, nodes } from './schema.js'

/** What a change must know besides its connection. */
export interface Setting {
  readonly namespace: string
  readonly queries: Queries
  readonly statements: Statements
}

/**
 * Begins a change: one round trip opens the transaction, and the next one takes the revision row and stamps the
 * session.
 */
export async function beginChange(
  loan: Loan,
  setting: Setting,
  session: SessionKey | undefined,
): Promise<MssqlChange> {
  const taken = (await take(loan, setting, session)) ?? (await takeFirst(loan, setting, session))
  return new MssqlChange(loan, setting, session, taken)
}

/** Returns undefined, with no transaction open, when there is no revision row. */
async function take(
  loan: Loan,
  setting: Setting,
  session: SessionKey | undefined,
): Promise<TakenHere | undefined> {
  // Until it has ended well, the transaction and its connection go together.
  loan.spoiled = true
  await loan.send(aChange, () => loan.begin())
  const taken = await ask(loan, setting, setting.queries.take(session, everything(setting.namespace)))
  if (taken !== undefined) return taken
  await loan.send(aChange, () => loan.rollback())
  loan.spoiled = false
  return undefined
}

/**
 * Creates the revision row in a request of its own, with the number 0, which means the same as no row. A node that
 * loses the race finds the row of the other.
 */
async function takeFirst(loan: Loan, setting: Setting, session: SessionKey | undefined): Promise<TakenHere> {
  await ask(loan, setting, setting.queries.found()).catch((error: unknown) => {
    if (!isDuplicate(error)) throw error
  })
  const taken = await take(loan, setting, session)
  if (taken === undefined) throw new StoreError('A change could not take its number.', 'none')
  return taken
}

async function ask<T>(loan: Loan, { statements }: Setting, query: Query<T>): Promise<T> {
  statements.add(query.statements)
  const answer = await loan.send(aChange, () => loan.ask(query.sql, query.parameters))
  return query.read(answer, loan.identity)
}

export class MssqlChange extends ServerChange<Loan> implements Change {
  readonly #setting: Setting
  readonly #noFences: boolean
  /**
   * Leases for which this change has determined whether they are fenced. Those that are not fenced are locked by it.
   */
  readonly #fenced = new Map<string, boolean>()
  readonly #known = new Known()

  constructor(loan: Loan, setting: Setting, asking: SessionKey | undefined, taken: TakenHere) {
    super(loan, asking, taken)
    this.#setting = setting
    this.#noFences = taken.noFences
  }

  async nodes(): Promise<NodeRow[]> {
    return this.#read(this.#queries.nodes())
  }

  async nodesById(ids: readonly string[]): Promise<NodeRow[]> {
    return this.read(async () => this.#known.nodesById(ids) ?? this.#send(this.#queries.nodesById(ids)))
  }

  async workers(keys: readonly string[]): Promise<WorkerRow[]> {
    return this.read(async () => this.#known.workers(keys) ?? this.#send(this.#queries.workers(keys)))
  }

  async leases(filter: LeaseFilter): Promise<LockedLease[]> {
    const { keys = [], workers = [], nodes = [] } = filter
    if (keys.length + workers.length + nodes.length === 0) return []
    const found = await this.#read(this.#queries.leases(filter))
    this.#known.add(found)
    const rows = found.leases
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
    await this.#write(this.#queries.insert(nodes, this.joined(node, operation)))
  }

  async updateNode(id: string, patch: NodePatch): Promise<void> {
    const update = this.#queries.updateNode(id, { ...patch, revision: this.revision })
    // This counts as a write even if the node is gone, so that the request uses up its number.
    await this.write(async () => void (await this.#send(update)))
  }

  async bury(id: string, beat?: number): Promise<boolean> {
    return this.#write(this.#queries.updateNode(id, this.buried, beat))
  }

  async forgetNode(id: string): Promise<void> {
    await this.#write(this.#queries.forgetNode(id))
  }

  async forgetWorker(key: string): Promise<void> {
    await this.#write(this.#queries.forgetWorker(key))
  }

  /** Does not wait for fences: a fenced row stays. */
  async deleteLeases(keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return
    await this.#lock(keys)
    await this.#write(this.#queries.deleteLeases(keys.filter((key) => this.#fenced.get(key) !== true)))
  }

  async saveMeta(patch: Partial<Omit<MetaRow, 'revision'>>): Promise<void> {
    if (Object.keys(patch).some((property) => property in meta))
      await this.#write(this.#queries.updateMeta(patch))
  }

  get #queries(): Queries {
    return this.#setting.queries
  }

  protected commit(): Promise<void> {
    return this.loan.commit()
  }

  protected rollback(): Promise<void> {
    return this.loan.rollback()
  }

  protected override async write(send: () => Promise<unknown>): Promise<boolean> {
    this.#known.forget()
    return super.write(send)
  }

  protected async writeGathered(gathered: Gathered): Promise<void> {
    this.#known.forget()
    const keys = gathered.leases.map(({ key }) => key)
    await this.#lock(keys)
    await this.ask(async () => {
      if (keys.some((key) => this.#fenced.get(key) === true)) throw writesFenced()
      await this.#send(this.#queries.write({ revision: this.revision, ...gathered }))
    })
  }

  #read<T>(query: Query<T>): Promise<T> {
    return this.read(() => this.#send(query))
  }

  #write(query: Query<unknown>): Promise<boolean> {
    return this.write(() => this.#send(query))
  }

  async #send<T>(query: Query<T>): Promise<T> {
    this.#setting.statements.add(query.statements)
    return query.read(await this.loan.ask(query.sql, query.parameters), this.serverIdentity)
  }

  /**
   * Determines which of these leases are fenced, and prevents fences on the others until this change has ended. When
   * there was no fence at all at the beginning, none can be added, and nothing needs to be asked.
   */
  async #lock(keys: readonly string[]): Promise<void> {
    if (this.#noFences) return
    const unknown = [...new Set(keys)].filter((key) => !this.#fenced.has(key))
    for (const { sql, parameters, of } of locking(this.#setting.namespace, unknown)) {
      const [rows = []] = await this.ask(() => this.loan.ask(sql, parameters))
      const fenced = new Set(rows.map(({ place }) => Number(place)))
      of.forEach((key, place) => {
        this.#fenced.set(key, fenced.has(place))
      })
    }
  }
}
