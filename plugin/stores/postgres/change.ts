/**
 * The inside of a change: one transaction that begins by taking the revision row.
 *
 * What is written is gathered, and goes out in one statement before the next read or the commit. Until it
 * commits a change keeps all others waiting, and each statement is a journey to the database and back: so a
 * typical one makes a handful of them, whatever the number of rows.
 */
import { and, eq, ne, type SQL, sql } from 'drizzle-orm'
import { PgDialect } from 'drizzle-orm/pg-core'
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
  Session,
  WorkerRow,
} from '../../core/store.js'
import { aChange, type Gathered, ServerChange, type Taken, writesFenced } from '../shared/change.js'
import type { Limits } from '../shared/limits.js'
import type { Statements } from '../shared/statements.js'
import type { Loan } from './connections.js'
import { payloadFor } from './hints.js'
import { committing, nowMs, ownView, type Queries, rowsOf, type Terms } from './queries.js'
import { leases, meta, nodes } from './schema.js'

/** What a change must know beside its connection. */
export interface Setting {
  readonly terms: Terms
  readonly limits: Limits
  readonly queries: Queries
  readonly statements: Statements
  /** Where hints go; undefined when none are sent. */
  readonly channel: string | undefined
}

/**
 * Opens a transaction whose every statement, and every silence of ours, the server itself bounds, and that is
 * committed as heartbeats are. Nor is anything compiled: that takes longer than any of our statements, and guesses
 * that are wide of the mark bring it about.
 */
export function beginWithin({ statementMs, lockMs, silenceMs }: Limits): string {
  return `begin isolation level read committed;
    set local statement_timeout = ${statementMs};
    set local lock_timeout = ${lockMs};
    set local idle_in_transaction_session_timeout = ${silenceMs};
    set local jit = off;
    select ${inlined(committing)}`
}

/** Begins a change: one journey takes the revision row and stamps the session. */
export async function beginChange(
  loan: Loan,
  setting: Setting,
  session: Session | undefined,
): Promise<PostgresChange> {
  const literal = (text: string): SQL => sql.raw(loan.client.escapeLiteral(text))
  const steps = [beginWithin(setting.limits), takeRevision(setting.terms, literal)]
  if (session !== undefined) steps.push(stampSession(setting.terms, literal, session))
  setting.statements.add(steps.length - 1)
  loan.spoiled = true
  const results: unknown = await loan.send(aChange, () => loan.client.query(steps.join(';\n')))
  const rows = (Array.isArray(results) ? results : []).map(
    (result: { rows: Record<string, unknown>[] }) => result.rows[0],
  )
  const stamped = session === undefined ? undefined : rows.pop()
  return new PostgresChange(loan, setting, session, takenOf(rows.at(-1) ?? {}, stamped))
}

/**
 * Waits for all earlier changes. RETURNING is evaluated once the row has been got, so that the time it
 * tells is not older than theirs.
 */
function takeRevision({ namespace, identity }: Terms, literal: (text: string) => SQL): string {
  return inlined(sql`
    insert into ${meta} as m 
      (namespace, revision, watchers, longest_ttl_ms, token_floor, server_identity, identity_settled)
    values (${literal(namespace)}, 1, '[]', 0, 0, '', true)
    on conflict (namespace) do update set revision = m.revision + 1
    returning to_json(m) as meta, ${nowMs} as now_ms, ${identity} as server_identity`)
}

function stampSession(
  { namespace }: Terms,
  literal: (text: string) => SQL,
  { node, operation }: Session,
): string {
  return inlined(sql`
    update ${nodes} as n set operation = ${literal(String(operation))}::bigint
    where namespace = ${literal(namespace)} and id = ${literal(node)}
      and state <> 'gone' and operation < ${literal(String(operation))}::bigint
    returning to_json(n) as session`)
}

/** Several statements in one journey cannot have parameters. */
function inlined(statement: SQL): string {
  return new PgDialect().sqlToQuery(statement).sql
}

const toMeta = rowsOf<MetaRow>(meta)
const toNodes = rowsOf<NodeRow>(nodes)

function takenOf(
  taken: Readonly<Record<string, unknown>>,
  stamped: Readonly<Record<string, unknown>> | undefined,
): Taken {
  const [row] = toMeta([taken.meta])
  if (row === undefined) throw new StoreError('A change could not take its number.', 'none')
  return {
    meta: row,
    nowMs: Number(taken.now_ms),
    serverIdentity: String(taken.server_identity),
    session: stamped === undefined ? undefined : toNodes([stamped.session])[0],
  }
}

export class PostgresChange extends ServerChange<Loan> implements Change {
  readonly #setting: Setting

  constructor(loan: Loan, setting: Setting, asking: Session | undefined, taken: Taken) {
    super(loan, asking, taken)
    this.#setting = setting
  }

  async nodes(): Promise<NodeRow[]> {
    return this.read(() => this.#queries.nodes().execute())
  }

  async nodesById(ids: readonly string[]): Promise<NodeRow[]> {
    return this.read(() => this.#queries.nodesById().execute({ ids: [...ids] }))
  }

  async workers(keys: readonly string[]): Promise<WorkerRow[]> {
    return this.read(() => this.#queries.workers().execute({ keys: [...keys] }))
  }

  async leases({ keys = [], workers = [], nodes = [] }: LeaseFilter): Promise<LockedLease[]> {
    const filter = { keys: [...keys], workers: [...workers], nodes: [...nodes] }
    return this.read(() => this.#queries.leases().execute(filter))
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
        .where(this.#isStanding(id)),
    )
  }

  async bury(id: string, beat?: number): Promise<boolean> {
    const sameBeat = beat === undefined ? undefined : eq(nodes.beat, beat)
    return this.write(async () => {
      const buried = await this.#queries.db
        .update(nodes)
        .set(this.buried)
        .where(and(this.#isStanding(id), sameBeat))
        .returning({ id: nodes.id })
      return buried.length > 0
    })
  }

  async forgetNode(id: string): Promise<void> {
    const isGone = and(eq(nodes.namespace, this.#namespace), eq(nodes.id, id), eq(nodes.state, 'gone'))
    await this.write(() => this.#queries.db.delete(nodes).where(isGone))
  }

  /** Waits for no fence: a fenced row stays. */
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

  #isStanding(id: string): SQL | undefined {
    return and(eq(nodes.namespace, this.#namespace), eq(nodes.id, id), ne(nodes.state, 'gone'))
  }

  protected async commit(): Promise<void> {
    const { command } = await this.loan.client.query('commit')
    // The server says so when it has rolled a failed transaction back instead.
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
    await this.ask(async () => {
      const [answer] = await this.#queries.write(parts).execute({
        revision: this.revision,
        leases: storable(leases),
        leaseKeys: leases.map(({ key }) => key),
        workers: storable(workers),
        events: storable(events),
        told,
        channel,
        payload: payloadFor(woken),
      })
      if (answer?.savedLeases !== leases.length) throw writesFenced()
    })
  }
}

/**
 * Rows as one JSON text. PostgreSQL stores neither NUL nor half a surrogate pair; free text, as in the reason for
 * a revocation, may hold them, and must not fail the change it belongs to.
 */
function storable(rows: readonly object[]): string {
  return JSON.stringify(rows).replace(/\\(?:u(?:0000|d[89a-f][0-9a-f]{2})|.)/g, (found) =>
    found.startsWith('\\u0000') || found.startsWith('\\ud') ? '\ufffd' : found,
  )
}
