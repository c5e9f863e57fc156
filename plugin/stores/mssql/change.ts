/**
 * The inside of a change: one transaction that begins by taking the revision row.
 *
 * What is written is gathered, and goes out in one request before the next read or the commit. Until it commits a change
 * keeps all others waiting, and each request is a journey to the database and back: so a typical one makes a
 * handful of them, whatever the number of rows.
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
import type { Statements } from '../shared/statements.js'
import type { Loan } from './connections.js'
import { isDuplicate } from './failures.js'
import { everything, locking } from './fence.js'
import type { Queries, Query, TakenHere } from './queries.js'
import { meta, nodes } from './schema.js'

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
  session: SessionKey | undefined,
): Promise<MssqlChange> {
  const taken = (await take(loan, setting, session)) ?? (await takeFirst(loan, setting, session))
  return new MssqlChange(loan, setting, session, taken)
}

/** Undefined, with no transaction left, when there is no revision row. */
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

/** The row is made by itself, with the number 0 that says the same as no row: whoever loses the race finds it. */
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
  /** Leases of which this change has found out whether they are fenced; those that are not it has locked. */
  readonly #fenced = new Map<string, boolean>()

  constructor(loan: Loan, setting: Setting, asking: SessionKey | undefined, taken: TakenHere) {
    super(loan, asking, taken)
    this.#setting = setting
    this.#noFences = taken.noFences
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
    await this.#write(this.#queries.insert(nodes, this.joined(node, operation)))
  }

  async updateNode(id: string, patch: NodePatch): Promise<void> {
    const update = this.#queries.updateNode(id, { ...patch, revision: this.revision })
    // It counts as written also where the node is gone, so that what was asked for has its number.
    await this.write(async () => void (await this.#send(update)))
  }

  async bury(id: string, beat?: number): Promise<boolean> {
    return this.#write(this.#queries.updateNode(id, this.buried, beat))
  }

  async forgetNode(id: string): Promise<void> {
    await this.#write(this.#queries.forgetNode(id))
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

  get #queries(): Queries {
    return this.#setting.queries
  }

  protected commit(): Promise<void> {
    return this.loan.commit()
  }

  protected rollback(): Promise<void> {
    return this.loan.rollback()
  }

  protected async writeGathered(gathered: Gathered): Promise<void> {
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
   * Finds out which of these leases are fenced, and keeps the others from being fenced before this change has ended. When
   * there was no fence at all in the beginning none can come, and nothing needs to be asked.
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
