/**
 * The store on MySQL and MariaDB.
 *
 * Heartbeats have a connection of their own, so that nothing can delay them; changes and reads share a few others.
 * The statements are in `queries.ts`, the course of a change is in `change.ts`, and the time limits are in
 * `connections.ts`.
 */
import { and, asc, desc, eq, gt, gte, inArray, ne, or, type SQL, sql } from 'drizzle-orm'
import type { Connection } from 'mysql2'
import {
  type Beat,
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
import { storeError } from '../shared/failures.js'
import type { Hints } from '../shared/hints.js'
import type { Limits } from '../shared/limits.js'
import type { Statements } from '../shared/statements.js'
import { capabilities, type Transactions } from './capabilities.js'
import { beginChange, type MysqlChange } from './change.js'
import type { Loan, PooledConnections } from './connections.js'
import { isConflict } from './failures.js'
import { fence } from './fence.js'
import { type Queries, queriesOn } from './queries.js'
import { columnsOf, heartbeatAnswer, lookOf, ownView, snapshotOf } from './rows.js'
import { events, leases, meta, nodes } from './schema.js'
import { nowMs, type Terms } from './terms.js'
import { forgetNodes } from './verb-queries.js'

/** What a store is assembled from. */
export interface Parts {
  readonly terms: Terms
  readonly limits: Limits
  /** The database that contains the tables. */
  readonly schema: string
  readonly hints: Hints
  readonly statements: Statements
  readonly heartbeats: DedicatedConnection<Connection>
  readonly connections: PooledConnections
  readonly transactions: Transactions
  /** Ends everything that was opened for this store. */
  close(): Promise<void>
}

const aHeartbeat = 'A heartbeat'

export class MysqlStore implements Store {
  readonly dialect = 'mysql'
  readonly capabilities = capabilities
  readonly #parts: Parts
  readonly #queries = new WeakMap<Connection, Queries>()
  #closed: Promise<void> | undefined

  constructor(parts: Parts) {
    this.#parts = parts
  }

  get statements(): number {
    return this.#parts.statements.count
  }

  /**
   * Sends two statements, since an update on MySQL returns no rows. Only the first one counts: what the second one
   * reads is as new or newer. When the second answer is lost, the outcome of the stamp is unknown, as it is when the
   * answer to a single statement is lost.
   */
  async heartbeat(node: string, beat: number): Promise<HeartbeatAnswer | undefined> {
    return this.#parts.heartbeats.ask(aHeartbeat, async (client) => {
      const on = this.#on(client)
      const [{ affectedRows }] = await on.stamp().execute({ node, beat })
      if (affectedRows === 0) return undefined
      try {
        return heartbeatAnswer(await on.pulse().execute({ node }))
      } catch (error) {
        throw storeError(aHeartbeat, 'unknown', error)
      }
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
    return lookOf(await this.#read('Looking at all nodes', (on) => on.look().execute()))
  }

  async beats(after: string, most: number): Promise<Beat[]> {
    return this.#read('Looking at some nodes', (on) => on.beats().execute({ after, most }))
  }

  async neighbours(machine: string): Promise<Neighbour[]> {
    return this.#read('Looking for neighbours', (on) => on.neighbours().execute({ machine }))
  }

  async snapshot(): Promise<Snapshot> {
    return snapshotOf(await this.#read('Taking a snapshot', (on) => on.snapshot().execute()))
  }

  async leasesAfter(after: string, most: number): Promise<LeaseRow[]> {
    return this.#read('Reading some leases', (on) => on.leasesAfter().execute({ after, most }))
  }

  async namespaces(most: number): Promise<string[]> {
    const rows = await this.#read('Reading the namespaces', ({ db }) =>
      db.select({ namespace: meta.namespace }).from(meta).orderBy(asc(meta.namespace)).limit(most),
    )
    return rows.map(({ namespace }) => namespace)
  }

  async events({ limit, after, types, subject }: EventQuery): Promise<EventRow[]> {
    const way = after === undefined ? desc : asc
    return this.#read('Reading events', ({ db }) =>
      db
        .select(columnsOf(events))
        .from(events)
        .where(
          and(
            eq(events.namespace, this.#namespace),
            after && gte(events.revision, after.revision),
            after && or(gt(events.revision, after.revision), gt(events.position, after.position)),
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
  ): Promise<Changed<T>> {
    const { connections, limits, terms, transactions, hints } = this.#parts
    const way = {
      begin: (loan: Loan) =>
        beginChange(loan, { terms, transactions, queries: this.#on(loan.client) }, session),
      isConflict,
      committed: ({ woken }: MysqlChange) => hints.told(woken),
    }
    return makeChange(connections, limits, way, work)
  }

  async prune({ eventsForMs, events: kept, goneNodesForMs }: Retention): Promise<boolean> {
    return this.#read('Pruning', async ({ db }, loan) => {
      loan.outcome = 'unknown'
      const [fewerEvents] = await db.execute<never>(this.#pruneEvents(eventsForMs, kept))
      const [fewerNodes] = await forgetNodes(db, this.#parts.terms, goneNodesForMs)
      return Math.max(fewerEvents.affectedRows, fewerNodes.affectedRows) === prunedAtOnce
    })
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

  #on(client: Connection): Queries {
    const { statements, terms } = this.#parts
    const queries = this.#queries.get(client) ?? queriesOn(client, terms, statements)
    this.#queries.set(client, queries)
    return queries
  }

  async #read<T>(what: string, ask: (on: Queries, loan: Loan) => Promise<T>): Promise<T> {
    return this.#parts.connections.lend(what, async (loan) => {
      const on = this.#on(loan.client)
      return loan.send(what, () => ask(on, loan))
    })
  }

  /** Events that are too old, or beyond the number to keep. */
  #pruneEvents(eventsForMs: number, kept: number): SQL {
    const mine = eq(events.namespace, this.#namespace)
    const newestSurplus = sql`
      select revision, position from ${events} where ${mine}
      order by revision desc, position desc limit 1 offset ${kept}`
    return sql`
      delete surplus from ${events} as surplus
      join (
        select revision, position from ${events}
        where ${mine} and (at_ms < ${nowMs} - ${eventsForMs} or (revision, position) <= (${newestSurplus}))
        order by revision, position limit ${prunedAtOnce}) as doomed
      on surplus.namespace = ${this.#namespace}
        and surplus.revision = doomed.revision and surplus.position = doomed.position`
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
