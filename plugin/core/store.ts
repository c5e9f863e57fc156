/**
 * The port between the engine and a database: few verbs and plain types, each with its promises.
 *
 * The engine decides; a store only reads and writes rows. Every decision is taken inside {@link Store.change}, whose
 * first statement takes the one revision row and so puts all changes of a namespace in one order. A store therefore
 * needs no particular isolation level, and the engine needs no knowledge of any database.
 *
 * `plugin/testing/conformance.ts` states the promises of a store once more, as tests that run against every database.
 *
 * Times named `…AtMs` and `nowMs` are milliseconds since 1970 by the **database's** clock. They serve people,
 * cool-downs and tokens; no safety rests on them.
 */

/** `single`: one run per scope. `coordinated`: one per node. `partitioned`: one per partition. */
export type Kind = 'single' | 'coordinated' | 'partitioned'

/** Where uniqueness holds: within each cluster by itself, or across all of them. */
export type Scope = 'cluster' | 'global'

/** `draining` nodes hand over and get nothing new; `gone` ones have left or were buried. */
export type NodeState = 'active' | 'draining' | 'gone'

/** One life of one process: its session. */
export interface NodeRow {
  /** Unique per life: a process that joins again gets a new id. */
  readonly id: string
  readonly name: string
  readonly cluster: string
  readonly state: NodeState
  /** Keys of the workers that this node is a candidate for. */
  readonly workers: readonly string[]
  readonly labels: Readonly<Record<string, string>>
  /** The application's version, as it states it; breaks ties when partitions are spread. Null when it states none. */
  readonly version: string | null
  /** Identifies its machine, as far as processes there can see one another; null when unknown. */
  readonly machine: string | null
  /** Identifies its process among all that ever ran on that machine; null when unknown. */
  readonly process: string | null
  /** The node's trust in its leases never lasts longer than this after a heartbeat. */
  readonly ttlMs: number
  /** Number of the latest change that this session made. It only grows, so that a late change is refused. */
  readonly operation: number
  /** Number of the latest heartbeat. It only grows. */
  readonly beat: number
  readonly startedAtMs: number
  readonly heartbeatAtMs: number
  readonly goneAtMs: number | null
  /** The change in which it joined: an age that needs no clock. */
  readonly joinedRevision: number
  /** The latest change that concerns this node. */
  readonly newsRevision: number
  readonly revision: number
}

/** A worker in its scope: `global/month-close`, or `eu-1/indexing` once per cluster. */
export interface WorkerRow {
  readonly key: string
  readonly name: string
  readonly kind: Kind
  readonly scope: Scope
  /** The cluster it is repeated for; null when the scope is global. */
  readonly cluster: string | null
  /** Number of the plan in force. Only `coordinated` workers advance it. */
  readonly generation: number
  /** How many leases the plan has: 1, the number of shares, or the number of partitions. */
  readonly slots: number
  readonly paused: boolean
  /** How long an old holder may take to hand over before its lease is revoked. */
  readonly handoverTimeoutMs: number
  /** Its schedule as the node that declared it last wrote it; null when it has none. */
  readonly schedule: string | null
  readonly revision: number
}

/** A named exclusive right: `eu-1/indexing`, `global/consumer#12`, or a lease acquired by name. */
export interface LeaseRow {
  readonly key: string
  /** Key of its worker; null for a lease that application code acquires by name. */
  readonly worker: string | null
  /** Number of the share or partition; 0 for `single` workers and leases acquired by name. */
  readonly slot: number
  /** The generation under which the present holder claimed it. */
  readonly generation: number
  /** The node that is meant to hold it. Only the target may claim. */
  readonly target: string | null
  readonly targetAtMs: number | null
  readonly holder: string | null
  /** The latest fencing token given for it; 0 before the first. */
  readonly token: number
  /** Operation number of the change in which the holder claimed it. */
  readonly attempt: number | null
  /** Identity of the server under which that claim was made. */
  readonly identity: string | null
  readonly acquiredAtMs: number | null
  /** A revoked holder that has not yet acknowledged, and the token it held. */
  readonly blockedNode: string | null
  readonly blockedToken: number | null
  /** A node that should not win again before `cooldownUntilMs` while there are other candidates. */
  readonly cooldownNode: string | null
  readonly cooldownUntilMs: number | null
  /** The latest time of its worker's schedule that has been dealt with; null before the first. */
  readonly firedAtMs: number | null
  /** Nodes waiting for a lease acquired by name, in order of arrival. */
  readonly waiters: readonly string[]
  /** Whether watchers must observe it; see `isPending` in `changes/rows.ts`. */
  readonly pending: boolean
  readonly revision: number
}

/** A lease as a change reads it. */
export interface LockedLease extends LeaseRow {
  /**
   * Whether a user's transaction holds a fence on the row. The change must then leave it as it is: no change waits for
   * a user's transaction.
   */
  readonly fenced: boolean
}

/** The one row per namespace whose update puts all changes in order. */
export interface MetaRow {
  /** Number of the latest change. */
  readonly revision: number
  /** The two active nodes that look for the dead; fewer when fewer are active. */
  readonly watchers: readonly string[]
  /**
   * The longest ttl of all nodes that are not gone. A node that judges others waits by this one, so that nodes with
   * different settings can live side by side.
   */
  readonly longestTtlMs: number
  /** Every new token is greater than this. */
  readonly tokenFloor: number
  /** The record of the server, which begins with its identity. Empty before the first change. */
  readonly serverIdentity: string
  /** False from the making of a record until one node has waited out the grace period. */
  readonly identitySettled: boolean
}

/** The state of a namespace that has no revision row yet. */
export const beforeAnyChange: MetaRow = {
  revision: 0,
  watchers: [],
  longestTtlMs: 0,
  tokenFloor: 0,
  serverIdentity: '',
  identitySettled: true,
}

/** One event of the audit trail. Nothing depends on it. */
export interface EventRow {
  /** Number of the change in which it happened. */
  readonly revision: number
  /** Its place among the events of that change, from 0. */
  readonly position: number
  readonly atMs: number
  /** A subject and a past participle: `lease.acquired`, `node.gone`. */
  readonly type: string
  /** What it happened to: the key of a lease or worker, or the id of a node. */
  readonly subject: string
  /** Id of the node that it happened on or to. */
  readonly node: string | null
  readonly token: number | null
  /** Who asked for it; null when the engine itself decided. */
  readonly actor: string | null
  readonly reason: string | null
  /** Further facts, by the type of the event. */
  readonly detail: Readonly<Record<string, unknown>> | null
}

/** What the engine states of an event; the store adds its place and time. */
export type NewEvent = Pick<EventRow, 'type' | 'subject'> &
  Partial<Pick<EventRow, 'node' | 'token' | 'actor' | 'reason' | 'detail'>>

/** A node that is not gone, and its process. */
export interface Neighbour {
  readonly id: string
  readonly process: string
}

/** A node and the number of its latest heartbeat. */
export interface Beat {
  readonly id: string
  readonly beat: number
}

/** What each answer says about the database itself. */
export interface ServerFacts {
  readonly nowMs: number
  /**
   * Identifies this life of this database: it changes after a crash, a failover, a restore, and whenever acknowledged
   * writes may have been lost.
   */
  readonly serverIdentity: string
  /** {@link MetaRow.serverIdentity} and {@link MetaRow.identitySettled} as stored. */
  readonly recordedIdentity: string
  readonly identitySettled: boolean
  /** {@link MetaRow.longestTtlMs} as stored. */
  readonly longestTtlMs: number
}

/** The answer to a heartbeat that found its session alive. */
export interface HeartbeatAnswer extends ServerFacts {
  readonly state: NodeState
  readonly newsRevision: number
  /** The other watchers that are not gone, with their beats. */
  readonly watchers: readonly Beat[]
}

/** Everything that concerns one node, read as of one instant. */
export interface OwnView extends ServerFacts {
  readonly state: NodeState
  readonly newsRevision: number
  readonly watchers: readonly string[]
  /**
   * Leases whose holder, target or blocked node is this node, and every lease of the `coordinated` workers it is a
   * candidate for (their barrier depends on all of them).
   */
  readonly leases: readonly LeaseRow[]
  /** The workers that this node is a candidate for, and those of the leases above. */
  readonly workers: readonly WorkerRow[]
  /** The nodes named above as holder or blocked node that are gone or unknown. */
  readonly gone: ReadonlySet<string>
}

/** What a watcher sees. */
export interface Look {
  /** All nodes that are not gone. */
  readonly nodes: readonly Beat[]
  /** Leases that are `pending`, and leases whose holder is gone. */
  readonly leases: readonly LeaseRow[]
  /** The workers of those leases. */
  readonly workers: readonly WorkerRow[]
  /** The holders and blocked nodes of those leases that are gone or unknown. */
  readonly gone: ReadonlySet<string>
}

/** The whole namespace as of one revision. */
export interface Snapshot {
  readonly nowMs: number
  readonly meta: MetaRow
  /** All nodes, oldest first, including those that are gone until they are pruned. */
  readonly nodes: readonly NodeRow[]
  readonly workers: readonly WorkerRow[]
  readonly leases: readonly LeaseRow[]
}

/** Which leases a change wants: those that match any of the given lists. */
export interface LeaseFilter {
  readonly keys?: readonly string[]
  readonly workers?: readonly string[]
  /** Leases whose holder, target or blocked node is one of these nodes. */
  readonly nodes?: readonly string[]
}

/** How many leases a node holds or is meant to hold. */
export interface Load {
  readonly node: string
  readonly leases: number
}

/** A node at the moment it joins. */
export type NewNode = Pick<
  NodeRow,
  'id' | 'name' | 'cluster' | 'workers' | 'labels' | 'version' | 'machine' | 'process' | 'ttlMs'
>

/** Selects events of the audit trail. */
export interface EventQuery {
  /** How many at most. */
  readonly limit: number
  /** Only events after this place, oldest first. Default: all, newest first. */
  readonly after?: Pick<EventRow, 'revision' | 'position'> | undefined
  /** Only events of these types, by their full names. Default: all. */
  readonly types?: readonly string[] | undefined
  /** Only events about this subject: the key of a lease or worker, or the id of a node. Default: all. */
  readonly subject?: string | undefined
}

/**
 * What a change may alter of a node that is not gone; the heartbeat's own columns are excluded. A node becomes gone by
 * {@link Change.bury}, which also writes when.
 */
export interface NodePatch extends Partial<Pick<NodeRow, 'workers'>> {
  readonly state?: Exclude<NodeState, 'gone'>
}

/**
 * The inside of a change: the revision row is taken, and no other change can be made until this one ends. Reads see
 * what this change has written. Calls are made strictly one after another, and those with nothing to write, such as
 * empty lists, count as writing nothing. Orders are those of code points.
 */
export interface Change {
  /** The number of this change; every row it writes is stamped with it. */
  readonly revision: number
  readonly nowMs: number
  readonly serverIdentity: string
  /** The revision row as the previous change left it, apart from `revision`. */
  readonly meta: MetaRow
  /**
   * The session on whose behalf this change is made, its `operation` now recorded. Undefined when it is gone, or has
   * already made a change of this number or a later one.
   */
  readonly session: NodeRow | undefined

  /** Returns all nodes that are not gone, oldest first (by `joinedRevision`, then id). */
  nodes(): Promise<NodeRow[]>
  /** Returns the rows of these nodes, including gone ones. */
  nodesById(ids: readonly string[]): Promise<NodeRow[]>
  workers(keys: readonly string[]): Promise<WorkerRow[]>
  /** Locks the rows that it can lock, and marks the others as fenced. Ordered by key. */
  leases(filter: LeaseFilter): Promise<LockedLease[]>
  /** Returns, for each node that is not gone, how many leases name it as target, or as holder without a target. */
  loads(): Promise<Load[]>
  /** Returns the greatest token of any lease; 0 when there is none. */
  highestToken(): Promise<number>
  /**
   * The same as {@link Store.view}, within this change.
   *
   * @param last no further call of this change follows, and `work` is about to succeed: a store may commit together
   *   with this read, to save a round trip.
   */
  view(node: string, last?: boolean): Promise<OwnView | undefined>

  /** Adds an active node with beat 0 and the given operation number; `joinedRevision` is this change. */
  addNode(node: NewNode, operation: number): Promise<void>
  /** Updates a node. One that is gone stays as it is. */
  updateNode(id: string, patch: NodePatch): Promise<void>
  /**
   * Declares a node gone, and returns whether it did. With `beat`: only if that is still its beat, decided under the
   * row's lock, so that a heartbeat in flight either wins or finds its node gone.
   */
  bury(id: string, beat?: number): Promise<boolean>
  /** Deletes the row of a node that is gone. The caller has made sure that no lease names it. */
  forgetNode(id: string): Promise<void>
  /** Inserts or replaces rows, stamped with this change. */
  saveWorkers(rows: readonly WorkerRow[]): Promise<void>
  /** Deletes the row of a worker. The caller has deleted its leases. */
  forgetWorker(key: string): Promise<void>
  /** Inserts or replaces rows, stamped with this change. None of them may have been read as fenced. */
  saveLeases(rows: readonly LeaseRow[]): Promise<void>
  /** Deletes rows. The caller has raised the token floor above their tokens. */
  deleteLeases(keys: readonly string[]): Promise<void>
  saveMeta(patch: Partial<Omit<MetaRow, 'revision'>>): Promise<void>
  /** Appends to the audit trail. */
  record(events: readonly NewEvent[]): Promise<void>
  /**
   * Stamps `newsRevision` of these nodes, and wakes them by a hint after the commit; except gone ones, and the node on
   * whose behalf this change is made, which knows what it has done.
   */
  tell(nodes: ReadonlySet<string>): Promise<void>
}

/** The session on whose behalf a change is made. */
export interface SessionKey {
  readonly node: string
  /** Greater than that of every change this session has tried before. */
  readonly operation: number
}

/**
 * What a change will read first, as far as it is known beforehand. A store may read it together with the revision row,
 * to save a round trip; nothing depends on whether it does.
 */
export interface Ahead {
  readonly leases: LeaseFilter
  /** Whether it will also ask for all nodes and their loads. */
  readonly nodes: boolean
}

/** How a change ended. */
export interface Changed<T> {
  readonly result: T
  /** False when the change wrote nothing: then it left no trace, its number and its session's included. */
  readonly committed: boolean
}

/** What must still be true when a user's transaction is fenced. */
export interface Claim {
  readonly key: string
  readonly node: string
  readonly token: number
}

/** How the databases differ. */
export interface Capabilities {
  /**
   * Whether hints arrive by themselves; otherwise the engine polls {@link Store.news}. May change with every heartbeat.
   */
  readonly push: boolean
}

/** How much history {@link Store.prune} keeps. */
export interface Retention {
  /** Events older than this many ms, by the database's clock, are deleted; an event exactly this old is kept. */
  readonly eventsForMs: number
  /** Only the newest events are kept, up to this number. */
  readonly events: number
  /** Nodes that have been gone for more than this many ms are deleted; a node gone for exactly this long is kept. */
  readonly goneNodesForMs: number
}

/**
 * The most events, and the most nodes, that one call of {@link Store.prune} deletes. It must end in time, or it would
 * never make progress; on SQLite everything else waits for it; and SQL Server locks a whole table for some thousands of
 * rows.
 */
export const prunedAtOnce = 1_000

/**
 * A database that keeps the rows of one namespace.
 *
 * Every verb ends within the statement timeout it was opened with, or rejects. A rejection is a `StoreError`; unless
 * its `outcome` is `'none'`, the request may have been carried out, or may yet be. No verb retries by itself what may
 * have been carried out.
 */
export interface Store {
  /** `postgres`, `sqlite`, … */
  readonly dialect: string
  readonly capabilities: Capabilities

  /**
   * How many statements on its tables this store has sent since it opened, whatever their outcome. Statements that only
   * begin or end a transaction are not counted. Reading it costs nothing.
   */
  readonly statements: number

  /**
   * Stamps the session's row if it is not gone and `beat` is greater than the stored one: one statement, alone, on a
   * connection of its own. Undefined when there was nothing to stamp: the session is lost. Runs in parallel to changes
   * and waits for none but one that concerns this very node.
   */
  heartbeat(node: string, beat: number): Promise<HeartbeatAnswer | undefined>

  /** Reads everything that concerns this node. Undefined when it is gone. */
  view(node: string): Promise<OwnView | undefined>

  /** Reads `newsRevision` of one node, by primary key. Undefined when the node is gone. */
  news(node: string): Promise<number | undefined>

  look(): Promise<Look>

  /** Reads the first `most` nodes, of those that are not gone, whose ids come after this one, in a stable order. */
  beats(after: string, most: number): Promise<Beat[]>

  /** Reads the nodes on this machine that are not gone and whose process is known, ordered by id. */
  neighbours(machine: string): Promise<Neighbour[]>

  snapshot(): Promise<Snapshot>

  /**
   * Reads the first `most` leases whose keys come after this one, in a stable order. Ends in time however many there
   * are.
   */
  leasesAfter(after: string, most: number): Promise<LeaseRow[]>

  /** Reads the first `most` namespaces that ever had a change, this store's own or not, ordered by name. */
  namespaces(most: number): Promise<string[]>

  /** Reads the events that match, newest first or, when `after` is given, those after that place, oldest first. */
  events(query: EventQuery): Promise<EventRow[]>

  /**
   * Runs `work` inside one ordered transaction and commits, unless it wrote nothing. When `work` throws, everything is
   * undone, and its error is passed on unchanged. `work` counts towards the time limit, may be called again after a
   * conflict, and must not wait for another verb of this store.
   */
  change<T>(
    session: SessionKey | undefined,
    work: (change: Change) => Promise<T>,
    ahead?: Ahead,
  ): Promise<Changed<T>>

  /**
   * Deletes old events, and gone nodes that no lease names as holder, target or blocked node; at most
   * {@link prunedAtOnce} of each. Returns whether there may be more. Concerns no node, so it is not a change.
   */
  prune(retention: Retention): Promise<boolean>

  /**
   * Calls `wake` when there may be news for `node`; returns a function that stops it. Hints may be lost, doubled or
   * late. What `wake` throws is dropped: it neither keeps other nodes from being woken nor fails a change.
   */
  listen(node: string, wake: () => void): () => void

  /**
   * Holds the lease row, as the first statement of a user's transaction, so that no node can take it over before that
   * transaction ends. Several transactions of its holder may do so at once. Synchronous where the driver is.
   *
   * @throws {FencedError} when the claim is no longer true.
   * @throws {CoordinationError} `WCO_FENCE_TARGET` when `transaction` is not an open transaction of this dialect.
   */
  fence(transaction: unknown, claim: Claim): PromiseLike<void> | void

  /** Ends the connections it opened itself, and no others. Harmless when repeated. */
  close(): Promise<void>
}
