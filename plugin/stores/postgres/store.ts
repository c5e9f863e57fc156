/**
 * The store on PostgreSQL.
 *
 * Heartbeats have a connection of their own, so that nothing can delay them; changes and reads share a few others.
 * The statements are in `queries.ts`, the course of a change is in `change.ts`, and the time limits are in
 * `connections.ts`.
 */
import { and, asc, desc, eq, inArray, lt, ne, or, sql } from 'drizzle-orm'
import type { NodePgDatabase } from 'drizzle-orm/node-postgres'
import type { Client, ClientBase, PoolClient } from 'pg'
import {
  type Ahead,
  type Beat,
  beforeAnyChange,
  type Capabilities,
  type Change,
  type Changed,
  type Claim,
  type EventQuery,
  type EventRow,
  type HeartbeatAnswer,
  type LeaseRow,
  type Look,
  type Neighbour,
  type OwnView,
  prunedAtOnce,
  type Retention,
  type SessionKey,
  type Snapshot,
  type Store,
} from '../../core/store.js'
import { makeChange } from '../shared/change.js'
import type { DedicatedConnection } from '../shared/dedicated.js'
import type { Limits } from '../shared/limits.js'
import type { Statements } from '../shared/statements.js'
import { beginChange, beginning, beginWithin, type PostgresChange, type Setting } from './change.js'
import type { Loan, PooledConnections } from './connections.js'
import { isConflict } from './failures.js'
import { fence } from './fence.js'
import { type Crowd, type Hints, payloadFor } from './hints.js'
import { heartbeatAnswer, ownView, type Queries, queriesOn } from './queries.js'
import { columnsOf, inOrder, nowMs } from './rows.js'
import { events, leases, meta, nodes } from './schema.js'
import type { Terms } from './terms.js'

/** What a store is assembled from. */
export interface Parts {
  readonly capabilities: Capabilities
  readonly terms: Terms
  readonly limits: Limits
  /** The schema that contains the tables. */
  readonly schema: string
  /** The search path by which they were found. */
  readonly searchPath: string
  /** Whether the server can limit whole transactions. */
  readonly limitsTransactions: boolean
  /** The channel for hints; undefined when none are sent. */
  readonly channel: string | undefined
  readonly hints: Hints
  readonly crowd: Crowd
  /** Called when hints begin or cease to be pushed. */
  crowdChanged(): void
  /** Counts the statements sent. `database` reports to it everything that goes through Drizzle. */
  readonly statements: Statements
  readonly heartbeats: DedicatedConnection<Client>
  readonly connections: PooledConnections
  /** Returns Drizzle on one connection. */
  database(client: Client | PoolClient): NodePgDatabase
  /** Ends everything that was opened for this store. */
  close(): Promise<void>
}

/** The nodes are counted at one in so many heartbeats. */
const beatsPerCount = 12

export class PostgresStore implements Store {
  readonly dialect = 'postgres'
  readonly capabilities: Capabilities
  readonly #parts: Parts
  readonly #queries = new WeakMap<ClientBase, Queries>()
  #closed: Promise<void> | undefined

  constructor(parts: Parts) {
    this.#parts = parts
    this.capabilities = parts.capabilities
  }

  get statements(): number {
    return this.#parts.statements.count
  }

  async heartbeat(node: string, beat: number): Promise<HeartbeatAnswer | undefined> {
    const counts = this.#parts.channel !== undefined && beat % beatsPerCount === 1
    return this.#parts.heartbeats.ask('A heartbeat', async (client) => {
      const on = this.#on(client)
      if (!counts) return heartbeatAnswer(await on.heartbeat().execute({ node, beat }))
      const answer = await on.countingHeartbeat().execute({ node, beat })
      this.#count(answer[0]?.present ?? 0)
      return heartbeatAnswer(answer)
    })
  }

  async view(node: string): Promise<OwnView | undefined> {
    return ownView(await this.#read('Reading the view', (on) => on.view().execute({ node })))
  }

  async news(node: string): Promise<number | undefined> {
    const rows = await this.#read('Looking for news', (on) => on.news().execute({ node }))
    return rows[0]?.newsRevision
  }

  async look(): Promise<Look> {
    const [row] = await this.#read('Looking at all nodes', (on) => on.look().execute())
    return row ?? { nodes: [], leases: [], workers: [], gone: new Set() }
  }

  async beats(after: string, most: number): Promise<Beat[]> {
    return this.#read('Looking at some nodes', (on) => on.beats().execute({ after, most }))
  }

  async neighbours(machine: string): Promise<Neighbour[]> {
    return this.#read('Looking for neighbours', (on) => on.neighbours().execute({ machine }))
  }

  async snapshot(): Promise<Snapshot> {
    const [row] = await this.#read('Taking a snapshot', (on) => on.snapshot().execute())
    const { nowMs = 0, meta = [], nodes = [], workers = [], leases = [] } = row ?? {}
    return { nowMs, meta: meta[0] ?? beforeAnyChange, nodes, workers, leases }
  }

  async leasesAfter(after: string, most: number): Promise<LeaseRow[]> {
    return this.#read('Reading some leases', (on) => on.leasesAfter().execute({ after, most }))
  }

  async namespaces(most: number): Promise<string[]> {
    const rows = await this.#read('Reading the namespaces', ({ db }) =>
      db.select({ namespace: meta.namespace }).from(meta).orderBy(inOrder(meta.namespace)).limit(most),
    )
    return rows.map(({ namespace }) => namespace)
  }

  async events({ limit, after, types, subject }: EventQuery): Promise<EventRow[]> {
    const way = after === undefined ? desc : asc
    const place = sql`(${events.revision}, ${events.position})`
    return this.#read('Reading events', ({ db }) =>
      db
        .select(columnsOf(events))
        .from(events)
        .where(
          and(
            eq(events.namespace, this.#namespace),
            after && sql`${place} > (${after.revision}::bigint, ${after.position}::integer)`,
            types && inArray(events.type, [...types]),
            subject === undefined ? undefined : eq(events.subject, subject),
          ),
        )
        .orderBy(way(events.revision), way(events.position))
        .limit(limit),
    )
  }

  async change<T>(
    session: SessionKey | undefined,
    work: (change: Change) => Promise<T>,
    ahead?: Ahead,
  ): Promise<Changed<T>> {
    const { connections, limits } = this.#parts
    const way = {
      begin: (loan: Loan) => beginChange(loan, this.#settingOn(loan.client), session, ahead),
      isConflict,
      committed: ({ woken }: PostgresChange) => this.#wakeHere([...woken]),
    }
    return makeChange(connections, limits, way, work)
  }

  async prune({ eventsForMs, events: kept, goneNodesForMs }: Retention): Promise<boolean> {
    const [row] = await this.#read('Pruning', ({ db }, loan) => {
      loan.outcome = 'unknown'
      const fewerEvents = db.$with('fewer_events').as(
        db
          .delete(events)
          .where(sql`ctid in (${this.#surplusEvents(db, eventsForMs, kept)})`)
          .returning({ position: events.position }),
      )
      const fewerNodes = db.$with('fewer_nodes').as(
        db
          .delete(nodes)
          .where(sql`ctid in (${this.#forgottenNodes(db, goneNodesForMs)})`)
          .returning({ id: nodes.id }),
      )
      return db
        .with(fewerEvents, fewerNodes)
        .select({
          events: sql`(select count(*) from ${fewerEvents})`.mapWith(Number),
          nodes: sql`(select count(*) from ${fewerNodes})`.mapWith(Number),
        })
        .from(sql`(select) as nothing`)
    })
    return Math.max(row?.events ?? 0, row?.nodes ?? 0) === prunedAtOnce
  }

  listen(node: string, wake: () => void): () => void {
    return this.#parts.hints.listen(node, wake)
  }

  async fence(transaction: unknown, claim: Claim): Promise<void> {
    const { schema, statements } = this.#parts
    statements.add()
    await fence(transaction, claim, { schema, namespace: this.#namespace }, (claim) => this.#isTrue(claim))
  }

  async close(): Promise<void> {
    this.#closed ??= this.#parts.close()
    await this.#closed
  }

  get #namespace(): string {
    return this.#parts.terms.namespace
  }

  #on(client: Client | PoolClient): Queries {
    const { database, terms } = this.#parts
    const queries = this.#queries.get(client) ?? queriesOn(database(client), terms)
    this.#queries.set(client, queries)
    return queries
  }

  /**
   * Sends one statement. On connections whose settings are not ours to make, the statement goes into a transaction
   * that limits it. Without a limit on the server it would wait on, for example for a table that is being altered,
   * long after its client has given up, and each further attempt would leave one more.
   */
  async #read<T>(what: string, ask: (on: Queries, loan: Loan) => Promise<T>): Promise<T> {
    const { connections } = this.#parts
    return connections.lend(what, async (loan) => {
      const on = this.#on(loan.client)
      if (connections.bounded) return loan.send(what, () => ask(on, loan))
      return loan.send(what, async () => {
        loan.spoiled = true
        await loan.client.query(this.#beginOn(loan.client))
        const answer = await ask(on, loan)
        await loan.client.query('commit')
        loan.spoiled = false
        return answer
      })
    })
  }

  #settingOn(client: PoolClient): Setting {
    const { terms, statements, crowd } = this.#parts
    const channel = crowd.crowded ? undefined : this.#parts.channel
    const overlaps = terms.named && 'pipeline' in client && client.pipeline === true
    const begin = this.#beginOn(client)
    return { terms, channel, statements, overlaps, begin, queries: this.#on(client) }
  }

  #beginOn(client: PoolClient): string {
    const { connections, limits, searchPath, limitsTransactions } = this.#parts
    if (connections.bounded) return beginning
    return beginWithin(limits, client.escapeLiteral(searchPath), limitsTransactions)
  }

  /** Where nothing is pushed, the listeners in this process still need not wait. */
  #wakeHere(woken: readonly string[]): void {
    const { channel, crowd, hints } = this.#parts
    if ((channel === undefined || crowd.crowded) && woken.length > 0) hints.heard(payloadFor(woken))
  }

  #count(nodes: number): void {
    const { crowd, crowdChanged } = this.#parts
    if (crowd.counts(nodes)) crowdChanged()
  }

  /** Events that are too old, or beyond the number to keep. */
  #surplusEvents(db: NodePgDatabase, eventsForMs: number, kept: number) {
    const mine = eq(events.namespace, this.#namespace)
    const place = sql`(${events.revision}, ${events.position})`
    const newestSurplus = db
      .select({ place: sql`${events.revision}, ${events.position}` })
      .from(events)
      .where(mine)
      .orderBy(desc(events.revision), desc(events.position))
      .limit(1)
      .offset(kept)
    return db
      .select({ ctid: sql`ctid` })
      .from(events)
      .where(
        and(
          mine,
          or(lt(events.atMs, sql`${nowMs} - ${eventsForMs}::bigint`), sql`${place} <= (${newestSurplus})`),
        ),
      )
      .orderBy(asc(events.revision), asc(events.position))
      .limit(prunedAtOnce)
  }

  /** Nodes that have been gone for long enough and that no lease names. */
  #forgottenNodes(db: NodePgDatabase, goneNodesForMs: number) {
    const named = sql`exists (
      select from ${leases} as l where l.namespace = ${this.#namespace}
      and (l.holder = ${nodes.id} or l.target = ${nodes.id} or l.blocked_node = ${nodes.id}))`
    return db
      .select({ ctid: sql`ctid` })
      .from(nodes)
      .where(
        and(
          eq(nodes.namespace, this.#namespace),
          eq(nodes.state, 'gone'),
          lt(nodes.goneAtMs, sql`${nowMs} - ${goneNodesForMs}::bigint`),
          sql`not ${named}`,
        ),
      )
      .limit(prunedAtOnce)
  }

  async #isTrue({ key, node, token }: Claim): Promise<boolean> {
    const rows = await this.#read('Looking at a lease', ({ db }) =>
      db
        .select({ key: leases.key })
        .from(leases)
        .innerJoin(nodes, and(eq(nodes.namespace, leases.namespace), eq(nodes.id, leases.holder)))
        .where(
          and(
            eq(leases.namespace, this.#namespace),
            eq(leases.key, key),
            eq(leases.holder, node),
            eq(leases.token, token),
            ne(nodes.state, 'gone'),
          ),
        ),
    )
    return rows.length > 0
  }
}
