/**
 * The store on SQL Server.
 *
 * Heartbeats have a connection of their own, so that nothing can delay them; changes and reads share a few others.
 * The statements are in `queries.ts`, the course of a change is in `change.ts`, and the time limits are in
 * `connections.ts`.
 */
import type {
  Beat,
  Change,
  Changed,
  Claim,
  EventQuery,
  EventRow,
  HeartbeatAnswer,
  LeaseRow,
  Look,
  Neighbour,
  OwnView,
  Retention,
  SessionKey,
  Snapshot,
  Store,
} from '../../core/store.js'
import { makeChange } from '../shared/change.js'
import type { Hints } from '../shared/hints.js'
import type { Limits } from '../shared/limits.js'
import type { Statements } from '../shared/statements.js'
import { capabilities } from './capabilities.js'
import { beginChange, type MssqlChange } from './change.js'
import type { Connections, Loan } from './connections.js'
import { isConflict } from './failures.js'
import { fence } from './fence.js'
import type { Queries, Query } from './queries.js'

/** What a store is assembled from. */
export interface Parts {
  readonly namespace: string
  readonly limits: Limits
  /** The schema that contains the tables. */
  readonly schema: string
  readonly queries: Queries
  readonly hints: Hints
  readonly statements: Statements
  /** The one connection for heartbeats. */
  readonly heartbeats: Connections
  readonly connections: Connections
  /** Ends everything that was opened for this store. */
  close(): Promise<void>
}

export class MssqlStore implements Store {
  readonly dialect = 'mssql'
  readonly capabilities = capabilities
  readonly #parts: Parts
  #closed: Promise<void> | undefined

  constructor(parts: Parts) {
    this.#parts = parts
  }

  get statements(): number {
    return this.#parts.statements.count
  }

  async heartbeat(node: string, beat: number): Promise<HeartbeatAnswer | undefined> {
    const { heartbeats, queries } = this.#parts
    return this.#ask(heartbeats, 'A heartbeat', queries.heartbeat(node, beat), 'writing')
  }

  async view(node: string): Promise<OwnView | undefined> {
    return this.#read('Reading the view', this.#parts.queries.view(node))
  }

  async news(node: string): Promise<number | undefined> {
    return this.#read('Looking for news', this.#parts.queries.news(node))
  }

  async look(): Promise<Look> {
    return this.#read('Looking at all nodes', this.#parts.queries.look())
  }

  async beats(after: string, most: number): Promise<Beat[]> {
    return this.#read('Looking at some nodes', this.#parts.queries.beats(after, most))
  }

  async neighbours(machine: string): Promise<Neighbour[]> {
    return this.#read('Looking for neighbours', this.#parts.queries.neighbours(machine))
  }

  async snapshot(): Promise<Snapshot> {
    return this.#read('Taking a snapshot', this.#parts.queries.snapshot())
  }

  async leasesAfter(after: string, most: number): Promise<LeaseRow[]> {
    return this.#read('Reading some leases', this.#parts.queries.leasesAfter(after, most))
  }

  async namespaces(most: number): Promise<string[]> {
    return this.#read('Reading the namespaces', this.#parts.queries.namespaces(most))
  }

  async events(query: EventQuery): Promise<EventRow[]> {
    return this.#read('Reading events', this.#parts.queries.events(query))
  }

  async change<T>(
    session: SessionKey | undefined,
    work: (change: Change) => Promise<T>,
  ): Promise<Changed<T>> {
    const { connections, limits, namespace, queries, statements, hints } = this.#parts
    const way = {
      begin: (loan: Loan) => beginChange(loan, { namespace, queries, statements }, session),
      isConflict,
      committed: ({ woken }: MssqlChange) => hints.told(woken),
    }
    return makeChange(connections, limits, way, work)
  }

  async prune(retention: Retention): Promise<boolean> {
    const { connections, queries } = this.#parts
    return this.#ask(connections, 'Pruning', queries.prune(retention), 'writing')
  }

  listen(node: string, wake: () => void): () => void {
    return this.#parts.hints.listen(node, wake)
  }

  async fence(transaction: unknown, claim: Claim): Promise<void> {
    const { namespace, schema, statements, queries } = this.#parts
    statements.add()
    await fence(transaction, claim, { namespace, schema }, ({ key, node, token }) =>
      this.#read('Looking at a lease', queries.claim(key, node, token)),
    )
  }

  async close(): Promise<void> {
    this.#closed ??= this.#parts.close()
    await this.#closed
  }

  async #read<T>(what: string, query: Query<T>): Promise<T> {
    return this.#ask(this.#parts.connections, what, query, 'reading')
  }

  /** Sends one request that is not part of a change. Its writes take effect by themselves. */
  async #ask<T>(
    connections: Connections,
    what: string,
    query: Query<T>,
    purpose: 'reading' | 'writing',
  ): Promise<T> {
    return connections.lend(what, async (loan) => {
      if (purpose === 'writing') loan.outcome = 'unknown'
      this.#parts.statements.add(query.statements)
      const answer = await loan.send(what, () => loan.ask(query.sql, query.parameters))
      return query.read(answer, loan.identity)
    })
  }
}
