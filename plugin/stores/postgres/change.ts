/**
 * The inside of a change: one transaction that begins by taking the revision row.
 *
 * Gathered writes go out in one statement, regardless of the number of rows, and rows known to be needed next are
 * read together with the current ones. Where the driver can send a statement before the previous one has been
 * answered, the beginning and the first read are one round trip, and so are a write, the last read and the commit.
 */
import { and, eq, ne, type SQL, sql } from 'drizzle-orm'
import { PgDialect } from 'drizzle-orm/pg-core'
import { StoreError } from '../../core/errors.js'
import type {
  Ahead,
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
import { aChange, type Gathered, ServerChange, type Taken, writesFenced } from '../shared/change.js'
import { type Found, Known } from '../shared/known.js'
import type { Limits } from '../shared/limits.js'
import type { Statements } from '../shared/statements.js'
import { leasesUnsaved } from './change-queries.js'
import type { Loan } from './connections.js'
import { sqlState } from './failures.js'
import { payloadFor } from './hints.js'
import { foundLeases, ownView, type Queries } from './queries.js'
import { json, nowMs, rowsOf } from './rows.js'
import { leases, meta, nodes, workers } from './schema.js'
import type { Terms } from './terms.js'
import { committing } from './verb-queries.js'

/** What a change must know besides its connection. */
export interface Setting {
  readonly terms: Terms
  readonly queries: Queries
  readonly statements: Statements
  /** The channel for hints; undefined when none are sent. */
  readonly channel: string | undefined
  /** Whether several statements may be in flight at once. They are executed in the order in which they were sent. */
  readonly overlaps: boolean
  /** How a transaction begins on this connection: {@link beginning}, or {@link beginWithin}. */
  readonly begin: string
}

/** Begins a transaction on a connection that has our settings already. */
export const beginning = 'begin isolation level read committed'

/**
 * Begins a transaction in which the server itself limits every statement and every silence of the client, but not the
 * whole, and which commits as heartbeats do. JIT compilation is off: it takes longer than any of our statements, and it is triggered
 * by row estimates that are far off. The tables are those that were found when the store opened: the application may
 * have left another search path on the connection.
 *
 * @param searchPath as a literal.
 * @param limitsTransactions whether the server knows a limit for the whole.
 */
export function beginWithin(
  { statementMs, lockMs, silenceMs }: Limits,
  searchPath: string,
  limitsTransactions: boolean,
): string {
  return `${beginning};${limitsTransactions ? ' set local transaction_timeout = 0;' : ''}
    set local statement_timeout = ${statementMs};
    set local lock_timeout = ${lockMs};
    set local idle_in_transaction_session_timeout = ${silenceMs};
    set local jit = off;
    select set_config('search_path', ${searchPath}, true), ${inlined(committing)}`
}

/** Begins a change: one round trip takes the revision row, stamps the session, and reads what is wanted ahead. */
export async function beginChange(
  loan: Loan,
  setting: Setting,
  session: SessionKey | undefined,
  ahead: Ahead | undefined,
): Promise<PostgresChange> {
  const literal = (text: string): SQL => sql.raw(loan.client.escapeLiteral(text))
  const steps = [setting.begin, takeRevision(setting.terms, literal)]
  if (session !== undefined) steps.push(stampSession(setting.terms, literal, session))
  setting.statements.add(steps.length - 1)
  loan.spoiled = true
  const begun = loan.send(aChange, () => loan.client.query(steps.join(';\n')))
  const reads = new Reads(setting.queries)
  if (ahead !== undefined && setting.overlaps) reads.fetch(ahead)
  const results: unknown = await begun
  const rows = (Array.isArray(results) ? results : []).map(
    (result: { rows: Record<string, unknown>[] }) => result.rows[0],
  )
  const stamped = session === undefined ? undefined : rows.pop()
  return new PostgresChange(loan, setting, session, reads, takenOf(rows.at(-1) ?? {}, stamped))
}

/**
 * Waits for all earlier changes. RETURNING is evaluated once the row has been locked, so the time that it returns is
 * not older than the times of earlier changes. The names of the results have one word each, because an application may
 * have the driver rename what has an underscore.
 */
function takeRevision({ namespace, identity }: Terms, literal: (text: string) => SQL): string {
  return inlined(sql`
    insert into ${meta} as m 
      (namespace, revision, watchers, longest_ttl_ms, token_floor, server_identity, identity_settled)
    values (${literal(namespace)}, 1, '[]', 0, 0, '', true)
    on conflict (namespace) do update set revision = m.revision + 1
    returning to_json(m) as meta, ${nowMs} as time, ${identity(sql`m.server_identity`)} as server, ${committing} as committing`)
}

function stampSession(
  { namespace }: Terms,
  literal: (text: string) => SQL,
  { node, operation }: SessionKey,
): string {
  return inlined(sql`
    update ${nodes} as n set operation = ${literal(String(operation))}::bigint
    where namespace = ${literal(namespace)} and id = ${literal(node)}
      and state <> 'gone' and operation < ${literal(String(operation))}::bigint
    returning to_json(n) as session`)
}

/** Several statements in one round trip cannot have parameters. */
function inlined(statement: SQL): string {
  return new PgDialect().sqlToQuery(statement).sql
}

/** What a change has read ahead of being asked for it, until it writes. */
class Reads {
  readonly known = new Known()
  readonly #queries: Queries
  #leases: { readonly wanted: string; readonly found: Promise<Found<LockedLease>> } | undefined
  #nodes: Promise<NodeRow[]> | undefined
  #loads: Promise<Load[]> | undefined

  constructor(queries: Queries) {
    this.#queries = queries
  }

  fetch({ leases, nodes }: Ahead): void {
    this.#leases = { wanted: JSON.stringify(filled(leases)), found: this.#ask(filled(leases)) }
    if (nodes) this.fetchNodes()
  }

  /** Loads are nearly always asked for after the nodes. */
  fetchNodes(): void {
    this.#nodes ??= handled(this.#queries.nodes().execute())
    this.#loads ??= handled(this.#queries.loads().execute())
  }

  async leases(filter: LeaseFilter): Promise<LockedLease[]> {
    const { wanted, found } = this.#leases ?? {}
    this.#leases = undefined
    const asked = filled(filter)
    const read = await (wanted === JSON.stringify(asked) && found ? found : this.#ask(asked))
    this.known.add(read)
    return read.leases
  }

  nodes(): Promise<NodeRow[]> | undefined {
    return this.#nodes
  }

  loads(): Promise<Load[]> | undefined {
    return this.#loads
  }

  forget(): void {
    this.#leases = undefined
    this.#nodes = undefined
    this.#loads = undefined
    this.known.forget()
  }

  #ask(filter: Required<LeaseFilter>): Promise<Found<LockedLease>> {
    const { keys, workers, nodes } = filter
    const asked = { keys: [...keys], workers: [...workers], nodes: [...nodes] }
    return handled(this.#queries.leases().execute(asked).then(foundLeases))
  }
}

function filled({ keys = [], workers = [], nodes = [] }: LeaseFilter): Required<LeaseFilter> {
  return { keys, workers, nodes }
}

/** Sends at once, but rejects with the error of `before` if that fails. */
async function behind<T>(before: Promise<unknown>, send: () => Promise<T>): Promise<T> {
  const answer = handled(send())
  await before
  return answer
}

/**
 * Marks a rejection as handled, because the promise may never be awaited. The error surfaces when the next statement
 * fails too.
 */
function handled<T>(answer: Promise<T>): Promise<T> {
  answer.catch(() => undefined)
  return answer
}

const toMeta = rowsOf<MetaRow>(meta)
const toNodes = rowsOf<NodeRow>(nodes)

function takenOf(
  taken: Readonly<Record<string, unknown>>,
  stamped: Readonly<Record<string, unknown>> | undefined,
): Taken {
  const [row] = toMeta([json(taken.meta)])
  if (row === undefined) throw new StoreError('A change could not take its number.', 'none')
  return {
    meta: row,
    nowMs: Number(taken.time),
    serverIdentity: String(taken.server),
    session: stamped === undefined ? undefined : toNodes([json(stamped.session)])[0],
  }
}

export class PostgresChange extends ServerChange<Loan> implements Change {
  readonly #setting: Setting
  readonly #reads: Reads

  constructor(loan: Loan, setting: Setting, asking: SessionKey | undefined, reads: Reads, taken: Taken) {
    super(loan, asking, taken)
    this.#setting = setting
    this.#reads = reads
  }

  async nodes(): Promise<NodeRow[]> {
    return this.read(async () => {
      if (this.#setting.overlaps) this.#reads.fetchNodes()
      return this.#reads.nodes() ?? this.#queries.nodes().execute()
    })
  }

  async nodesById(ids: readonly string[]): Promise<NodeRow[]> {
    const ask = (): Promise<NodeRow[]> => this.#queries.nodesById().execute({ ids: [...ids] })
    return this.read(async () => this.#reads.known.nodesById(ids) ?? ask())
  }

  async workers(keys: readonly string[]): Promise<WorkerRow[]> {
    const ask = (): Promise<WorkerRow[]> => this.#queries.workers().execute({ keys: [...keys] })
    return this.read(async () => this.#reads.known.workers(keys) ?? ask())
  }

  async leases(filter: LeaseFilter): Promise<LockedLease[]> {
    return this.read(() => this.#reads.leases(filter))
  }

  async loads(): Promise<Load[]> {
    return this.read(async () => this.#reads.loads() ?? this.#queries.loads().execute())
  }

  async highestToken(): Promise<number> {
    const highest = sql`coalesce(max(${leases.token}), 0)`.mapWith(Number)
    const rows = await this.read(() =>
      this.#queries.db.select({ highest }).from(leases).where(eq(leases.namespace, this.#namespace)),
    )
    return rows[0]?.highest ?? 0
  }

  async view(node: string, last = false): Promise<OwnView | undefined> {
    return ownView(await this.read(() => this.#queries.view().execute({ node }), last))
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
      const buried = await this.#queries.db
        .update(nodes)
        .set(this.buried)
        .where(and(this.#isPresent(id), sameBeat))
        .returning({ id: nodes.id })
      return buried.length > 0
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
    const mine = and(
      eq(leases.namespace, this.#namespace),
      sql`${leases.key} = any (${sql.param([...keys])})`,
    )
    const { db } = this.#queries
    const free = db.select({ key: leases.key }).from(leases).where(mine).for('update', { skipLocked: true })
    await this.write(() => db.delete(leases).where(and(mine, sql`${leases.key} in (${free})`)))
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

  /**
   * Sends the gathered writes first without waiting for their answer; a commit that follows does not wait either.
   * When one of these requests fails, those behind it fail too, and the error of the first one counts.
   */
  protected override async read<T>(send: () => Promise<T>, last = false): Promise<T> {
    if (!this.#setting.overlaps) return super.read(send)
    const flushed = handled(this.flush())
    const answer = handled(this.ask(() => behind(flushed, send)))
    if (last) this.commitAhead(answer)
    return answer
  }

  protected override async write(send: () => Promise<unknown>): Promise<boolean> {
    const wrote = await super.write(send)
    if (wrote) this.#reads.forget()
    return wrote
  }

  protected async commit(): Promise<void> {
    const { command } = await this.loan.client.query('commit')
    // The server says ROLLBACK when it has undone a failed transaction instead.
    if (command !== 'COMMIT') throw new StoreError('A change was undone by the database.', 'none')
  }

  protected rollback(): Promise<unknown> {
    return this.loan.client.query('rollback')
  }

  protected async writeGathered({ leases, workers, events, told }: Gathered): Promise<void> {
    const { channel } = this.#setting
    const woken = channel === undefined ? [] : told.filter((node) => this.woken.has(node))
    const parts = {
      leases: leases.length > 0,
      workers: workers.length > 0,
      events: events.length > 0,
      told: told.length > 0,
      notified: woken.length > 0,
    }
    this.#reads.forget()
    await this.ask(async () => {
      const written = this.#queries.write(parts).execute({
        revision: this.revision,
        leases: storable(leases),
        leaseKeys: leases.map(({ key }) => key),
        workers: storable(workers),
        events: storable(events),
        told,
        channel,
        payload: payloadFor(woken),
      })
      await written.catch((error: unknown) => {
        throw sqlState(error) === leasesUnsaved ? writesFenced() : error
      })
    })
  }
}

/**
 * Returns rows as one JSON text. PostgreSQL stores neither NUL nor half a surrogate pair. Free text, such as the
 * reason for a revocation, may contain them, and must not make its change fail.
 */
function storable(rows: readonly object[]): string {
  return JSON.stringify(rows).replace(/\\(?:u(?:0000|d[89a-f][0-9a-f]{2})|.)/g, (found) =>
    found.startsWith('\\u0000') || found.startsWith('\\ud') ? '\ufffd' : found,
  )
}
