/** The store on SQLite: the port of `core/store.ts`. */
import type { Database } from 'better-sqlite3'
import { StoreError } from '../../core/errors.js'
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
  ServerFacts,
  SessionKey,
  Snapshot,
  Store,
} from '../../core/store.js'
import { Deadline } from '../shared/deadline.js'
import { Statements } from '../shared/statements.js'
import { capabilities } from './capabilities.js'
import { SqliteChange } from './change.js'
import { type Connection, tooLate, transact } from './connections.js'
import { fence } from './fence.js'
import { announce, FileWatch, type Hints } from './hints.js'
import { prepareQueries, type Queries } from './queries.js'
import type { Open } from './source.js'

/** What a store is assembled from. */
export interface SqliteStoreOptions {
  /** For changes, heartbeats, and all other writes. */
  readonly writer: Connection
  /** For reads, which then wait for no change. The same as `writer` where there is only one connection. */
  readonly reader: Connection
  readonly hints: Hints
  readonly namespace: string
  /** The file to watch for commits of other processes. Default: none, because there are no other processes. */
  readonly path?: string | undefined
  /** The database's clock, which is the host's. */
  readonly nowMs: () => number
  /** Overrides the identity of the file or object. */
  readonly identity?: (() => string) | undefined
  /** Resolves in a turn of the event loop in which nothing else has run yet. */
  readonly freshTurn: () => Promise<void>
  readonly onWarning: (message: string, error?: unknown) => void
}

/** A store for one namespace in an SQLite database. */
export class SqliteStore implements Store {
  readonly dialect = 'sqlite'
  readonly capabilities = capabilities
  readonly #options: SqliteStoreOptions
  readonly #watch: FileWatch | undefined
  readonly #listening = new Set<() => void>()
  #closed = false
  #looking = false
  readonly #queries = new WeakMap<Database, Queries>()
  readonly #statements = new Statements()
  #seen: { readonly client: Database; readonly version: number | undefined } | undefined

  constructor(options: SqliteStoreOptions) {
    const { path, onWarning } = options
    this.#options = options
    this.#watch =
      path === undefined ? undefined : new FileWatch(path, () => void this.#lookForNews(), onWarning)
  }

  get statements(): number {
    return this.#statements.count
  }

  heartbeat(node: string, beat: number): Promise<HeartbeatAnswer | undefined> {
    return this.#write('stamp a heartbeat', (queries, facts) => {
      const pulse = queries.heartbeat(node, beat, facts.nowMs)
      return pulse && { ...pulse, ...facts }
    })
  }

  view(node: string): Promise<OwnView | undefined> {
    return this.#read("read a node's view", (queries, facts) => {
      const found = queries.view(node)
      return found && { ...found, ...facts }
    })
  }

  news(node: string): Promise<number | undefined> {
    return this.#read('read the news', (queries) => queries.news(node))
  }

  look(): Promise<Look> {
    return this.#read('look for the dead', (queries) => queries.look())
  }

  beats(after: string, most: number): Promise<Beat[]> {
    return this.#read('look at some nodes', (queries) => queries.beats(after, most))
  }

  neighbours(machine: string): Promise<Neighbour[]> {
    return this.#read('look for neighbours', (queries) => queries.neighbours(machine))
  }

  snapshot(): Promise<Snapshot> {
    return this.#read('read a snapshot', (queries, { nowMs }) => ({ ...queries.snapshot(), nowMs }))
  }

  leasesAfter(after: string, most: number): Promise<LeaseRow[]> {
    return this.#read('read some leases', (queries) => queries.leasesAfter(after, most))
  }

  namespaces(most: number): Promise<string[]> {
    return this.#read('read the namespaces', (queries) => queries.namespaces(most))
  }

  events(query: EventQuery): Promise<EventRow[]> {
    return this.#read('read events', (queries) => queries.events(query))
  }

  async change<T>(session: SessionKey | undefined, work: Work<T>): Promise<Changed<T>> {
    const thrown: unknown[] = []
    // An error thrown by the caller's work must not be mistaken for an error of the database.
    const observed: Work<T> = async (change) => {
      try {
        return await work(change)
      } catch (error) {
        thrown.push(error)
        throw new StoreError('A change was given up by its maker.', 'none', { cause: error })
      }
    }
    try {
      return await this.#change(session, observed)
    } catch (error) {
      throw thrown.length > 0 ? thrown[0] : error
    }
  }

  prune(retention: Retention): Promise<boolean> {
    return this.#write('prune', (queries, { nowMs }) => queries.prune(retention, nowMs))
  }

  listen(node: string, wake: () => void): () => void {
    if (this.#closed) return () => {}
    const silence = this.#options.hints.listen(node, wake)
    const stop = (): void => {
      silence()
      this.#listening.delete(stop)
      if (this.#listening.size === 0) this.#watch?.stop()
    }
    this.#listening.add(stop)
    this.#watch?.start()
    return stop
  }

  fence(transaction: unknown, claim: Claim): PromiseLike<void> {
    this.#statements.add()
    return fence(transaction, this.#options.namespace, claim)
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const stop of this.#listening) stop()
    await Promise.all([this.#options.writer.close(), this.#options.reader.close()])
  }

  /**
   * Makes a change. It begins in a fresh turn of the event loop and, from BEGIN to COMMIT, waits only for promises
   * that are already resolved, so nothing of the application runs in between. Otherwise a synchronous write by the
   * application to the same file would wait, with the whole process, for a transaction that only this process can
   * end.
   */
  async #change<T>(session: SessionKey | undefined, work: Work<T>): Promise<Changed<T>> {
    const { writer, freshTurn } = this.#options
    const { result, commit, change } = await writer.run(
      'make a change',
      (open, deadlineMs) =>
        transact(open.client, deadlineMs, async () => {
          const change = new SqliteChange(this.#queriesOn(open), this.#factsOf(open), session)
          try {
            const result = await new Deadline(deadlineMs - performance.now()).hold(work(change), tooLate)
            change.assertWhole()
            return { result, commit: change.wrote, change }
          } finally {
            change.end()
          }
        }),
      freshTurn,
    )
    if (commit && change.told.size > 0) this.#wake(change, session?.node)
    return { result, committed: commit }
  }

  #wake({ told, revision }: SqliteChange, maker: string | undefined): void {
    const { hints, path } = this.#options
    hints.told(told, revision, maker)
    if (path !== undefined) announce(path)
  }

  #write<T>(doing: string, work: (queries: Queries, facts: Facts) => T): Promise<T> {
    return this.#options.writer.run(doing, (open) => work(this.#queriesOn(open), this.#factsOf(open)))
  }

  #read<T>(doing: string, work: (queries: Queries, facts: Facts) => T): Promise<T> {
    return this.#options.reader.run(doing, (open) => work(this.#queriesOn(open), this.#factsOf(open)))
  }

  #queriesOn({ client }: Open): Queries {
    const queries =
      this.#queries.get(client) ?? prepareQueries(client, this.#options.namespace, this.#statements)
    this.#queries.set(client, queries)
    return queries
  }

  #factsOf(open: Open): Facts {
    const { nowMs, identity } = this.#options
    return { nowMs: nowMs(), serverIdentity: identity?.() ?? open.identity }
  }

  /**
   * Looks for news. A look that fails is ignored. A look that still waits for its turn will see what this one would
   * see.
   */
  async #lookForNews(): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    const { reader, hints } = this.#options
    const look = (open: Open) => this.#newsOn(open, hints.nodes())
    const news = await reader.run('look for news', look).catch(() => undefined)
    this.#looking = false
    if (news) hints.found(news)
  }

  /** Returns undefined when no other connection has committed anything since the last look at the same file. */
  #newsOn(open: Open, nodes: readonly string[]): ReadonlyMap<string, number> | undefined {
    const { client } = open
    const queries = this.#queriesOn(open)
    const version = queries.dataVersion()
    if (this.#seen?.client === client && this.#seen.version === version) return undefined
    const news = queries.newsOf(nodes)
    this.#seen = { client, version }
    return news
  }
}

type Facts = Pick<ServerFacts, 'nowMs' | 'serverIdentity'>

type Work<T> = (change: Change) => Promise<T>
