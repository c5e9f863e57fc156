/**
 * The port between the engine and a database: few verbs, plain types, each promise in prose.
 *
 * The engine decides; a store only reads and writes rows. Everything that takes a decision runs
 * inside {@link Store.change}, whose first statement takes the one revision row and so puts all
 * changes of a namespace in one order. A store therefore needs no clever isolation level, and the
 * engine needs to know nothing about any database.
 *
 * What a store promises is stated once more as executable sentences in
 * `plugin/testing/conformance.ts`, which runs over every database.
 *
 * Times named `…AtMs` and `nowMs` are milliseconds since 1970 by the **database's** clock. They are
 * for people, cool-downs and tokens; no safety rests on them.
 */

/** `single`: one run per scope. `coordinated`: one per node. `partitioned`: one per partition. */
export type Kind = 'single' | 'coordinated' | 'partitioned'

/** Where uniqueness holds: in each cluster by itself, or across all of them. */
export type Scope = 'cluster' | 'global'

/** `draining` nodes hand over and get nothing new; `gone` ones have left or were buried. */
export type NodeState = 'active' | 'draining' | 'gone'

/** One life of one process: its session. */
export interface NodeRow {
  /** Unique per life: a process that joins again gets a new one. */
  readonly id: string
  readonly name: string
  readonly cluster: string
  readonly state: NodeState
  /** Keys of the workers this node stands for. */
  readonly workers: readonly string[]
  readonly labels: Readonly<Record<string, string>>
  /** The application's version, as it names itself; used to prefer newer nodes in a rolling deploy. */
  readonly version: string | null
  /** Names the machine its process runs on, as far as processes there can see one another; null when unknown. */
  readonly machine: string | null
  /** Names its process among all that ever ran on that machine; null when unknown. */
  readonly process: string | null
  /** Its trust in its leases never lasts longer than this after a heartbeat. */
  readonly ttlMs: number
  /** Number of the latest change this session made; it only grows, so that a late one is refused. */
  readonly operation: number
  /** Number of the latest heartbeat; it only grows. */
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
  /** How long an old holder may take to hand over before it is revoked. */
  readonly handoverTimeoutMs: number
  /** Its schedule as the node that declared it last wrote it; null when it has none. */
  readonly schedule: string | null
  readonly revision: number
}

/** A named exclusive right: `eu-1/indexing`, `global/consumer#12`, or a lease taken by hand. */
export interface LeaseRow {
  readonly key: string
  /** Key of its worker; null for a lease that application code acquires by name. */
  readonly worker: string | null
  /** Share or partition; 0 for `single` workers and leases acquired by name. */
  readonly slot: number
  /** Generation under which the present holder claimed it. */
  readonly generation: number
  /** The node that is meant to hold it. Only the target may claim. */
  readonly target: string | null
  readonly targetAtMs: number | null
  readonly holder: string | null
  /** The latest fencing token given for it; 0 before the first. */
  readonly token: number
  /** Operation number of the claim by which the holder got it. */
  readonly attempt: number | null
  /** Identity of the server under which that claim was made. */
  readonly identity: string | null
  readonly acquiredAtMs: number | null
  /** A revoked holder that has not yet acknowledged, and the token it held. */
  readonly blockedNode: string | null
  readonly blockedToken: number | null
  /** A node that should not win again before `cooldownUntilMs` while others stand. */
  readonly cooldownNode: string | null
  readonly cooldownUntilMs: number | null
  /** The latest time of its worker's schedule that has been dealt with; null before the first. */
  readonly firedAtMs: number | null
  /** Nodes waiting for a lease acquired by name, first come first. */
  readonly waiters: readonly string[]
  /** Whether a watcher must keep an eye on it; see `isPending` in `draft.ts`. */
  readonly pending: boolean
  readonly revision: number
}

/** A lease as a change reads it. */
export interface LockedLease extends LeaseRow {
  /**
   * A user's transaction holds a fence on the row: this change must leave it as it is. Nothing
   * waits for a user's transaction.
   */
  readonly fenced: boolean
}

/** The one row per namespace whose update orders all changes. */
export interface MetaRow {
  /** Number of the latest change. */
  readonly revision: number
  /** Two active nodes, who look for the dead; fewer when there are fewer. */
  readonly watchers: readonly string[]
  /**
   * The longest ttl of all nodes that are not gone: whoever judges others waits by this one, so that nodes
   * with different settings can live side by side.
   */
  readonly longestTtlMs: number
  /** Every new token is greater than this. */
  readonly tokenFloor: number
  /** The server identity that was last recorded. Empty before the first change. */
  readonly serverIdentity: string
  /** False from the recording of a new identity until one node has waited out the grace period. */
  readonly identitySettled: boolean
}

/** What a namespace is like that has no revision row yet. */
export const beforeAnyChange: MetaRow = {
  revision: 0,
  watchers: [],
  longestTtlMs: 0,
  tokenFloor: 0,
  serverIdentity: '',
  identitySettled: true,
}

/** One thing that happened: audit trail and timeline. Nothing depends on it. */
export interface EventRow {
  /** Number of the change in which it happened. */
  readonly revision: number
  /** Its place among the events of that change, from 0. */
  readonly position: number
  readonly atMs: number
  /** A past participle: `lease.acquired`, `node.gone`. */
  readonly type: string
  /** What it happened to: the key of a lease or worker, or the id of a node. */
  readonly subject: string
  /** Id of the node it happened on or to. */
  readonly node: string | null
  readonly token: number | null
  /** Who asked for it; null when the engine itself decided. */
  readonly actor: string | null
  readonly reason: string | null
  /** What else there is to say, by the type of the event. */
  readonly detail: Readonly<Record<string, unknown>> | null
}

/** What the engine says of an event; the store adds where and when. */
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
   * Names this life of this database: it changes after a crash, a failover, a restore, and whenever
   * acknowledged writes may have been lost.
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
   * Leases whose holder, target or blocked node is this node, and every lease of the `coordinated`
   * workers it stands for (their barrier depends on all of them).
   */
  readonly leases: readonly LeaseRow[]
  /** The workers this node stands for, and those of the leases above. */
  readonly workers: readonly WorkerRow[]
  /** Which of the nodes named as holder or blocked above are gone or unknown. */
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
  /** Which holders and blocked nodes of those leases are gone or unknown. */
  readonly gone: ReadonlySet<string>
}

/** The whole namespace as of one revision. */
export interface Snapshot {
  readonly nowMs: number
  readonly meta: MetaRow
  /** Gone nodes included, until they are pruned. Oldest first. */
  readonly nodes: readonly NodeRow[]
  readonly workers: readonly WorkerRow[]
  readonly leases: readonly LeaseRow[]
}

/** Which rows a change wants: those that match any of the given lists. */
export interface LeaseFilter {
  readonly keys?: readonly string[]
  readonly workers?: readonly string[]
  /** Leases whose holder, target or blocked node is one of these nodes. */
  readonly nodes?: readonly string[]
}

/** How many leases a node holds or is meant to hold. */
export interface Load {
  /** Id of the node. */
  readonly node: string
  /** How many leases. */
  readonly leases: number
}

/** A node at the moment it joins. */
export type NewNode = Pick<
  NodeRow,
  'id' | 'name' | 'cluster' | 'workers' | 'labels' | 'version' | 'machine' | 'process' | 'ttlMs'
>

/** Which events are asked for. */
export interface EventQuery {
  /** How many at most. */
  readonly limit: number
  /** Only those after this place, oldest first. Default: all, newest first. */
  readonly after?: Pick<EventRow, 'revision' | 'position'>
  /** Only those of these types, as they are called in full. Default: all. */
  readonly types?: readonly string[]
  /** Only those about this: the key of a lease or worker, or the id of a node. Default: all. */
  readonly subject?: string
}

/**
 * What a change may alter of a node that stands; the heartbeat's own columns are not among it. How a node comes to be
 * gone is {@link Change.bury}, which writes when.
 */
export interface NodePatch extends Partial<Pick<NodeRow, 'workers'>> {
  readonly state?: Exclude<NodeState, 'gone'>
}

/**
 * The inside of a change: the revision row is taken, and nobody else can change anything until this
 * one ends. Reads see what this change has written. Calls are made strictly one after another, and those with
 * nothing to write, such as empty lists, count as writing nothing. Orders are those of code points.
 */
export interface Change {
  /** The number of this change; every row it writes is stamped with it. */
  readonly revision: number
  readonly nowMs: number
  readonly serverIdentity: string
  /** The revision row as the previous change left it, apart from `revision`. */
  readonly meta: MetaRow
  /**
   * The session on whose behalf this change is made, its `operation` now recorded; undefined when
   * it is gone, or when it has already made a change of this number or a later one.
   */
  readonly session: NodeRow | undefined

  /** All nodes that are not gone, oldest first (by `joinedRevision`, then id). */
  nodes(): Promise<NodeRow[]>
  /** The rows of these nodes, gone ones included. */
  nodesById(ids: readonly string[]): Promise<NodeRow[]>
  workers(keys: readonly string[]): Promise<WorkerRow[]>
  /** Locks the rows it can lock, and marks the others as fenced. Ordered by key. */
  leases(filter: LeaseFilter): Promise<LockedLease[]>
  /** For each node that is not gone, how many leases name it as target, or as holder without a target. */
  loads(): Promise<Load[]>
  /** The greatest token of any lease; 0 when there is none. */
  highestToken(): Promise<number>
  /**
   * As {@link Store.view}, within this change.
   *
   * @param last nothing is asked of this change after it, and `work` is about to end well: a store may commit with it, and
   *   so spare a journey.
   */
  view(node: string, last?: boolean): Promise<OwnView | undefined>

  /** Adds an active node with beat 0 and the given operation number; `joinedRevision` is this change. */
  addNode(node: NewNode, operation: number): Promise<void>
  /** Nobody comes back from the dead: one that is gone stays as it is. */
  updateNode(id: string, patch: NodePatch): Promise<void>
  /**
   * Declares a node gone. With `beat`: only if that is still its beat, decided under the row's lock, so
   * that a heartbeat in flight either wins or finds itself gone. Answers whether it did.
   */
  bury(id: string, beat?: number): Promise<boolean>
  /** Deletes the row of a node that is gone. The caller has made sure that no lease names it. */
  forgetNode(id: string): Promise<void>
  /** Inserts or replaces, stamped with this change. */
  saveWorkers(rows: readonly WorkerRow[]): Promise<void>
  /** Inserts or replaces, stamped with this change. No row may be one that was read as fenced. */
  saveLeases(rows: readonly LeaseRow[]): Promise<void>
  /** Deletes rows. The caller has raised the token floor above their tokens. */
  deleteLeases(keys: readonly string[]): Promise<void>
  saveMeta(patch: Partial<Omit<MetaRow, 'revision'>>): Promise<void>
  /** Appends to the audit trail. */
  record(events: readonly NewEvent[]): Promise<void>
  /**
   * Stamps `newsRevision` of these nodes, gone ones left alone, and wakes them by a hint after the commit; but for the one on whose
   * behalf this change is made, which knows what it has done.
   */
  tell(nodes: ReadonlySet<string>): Promise<void>
}

/** On whose behalf a change is made. */
export interface SessionKey {
  readonly node: string
  /** Greater than that of every change this session has tried before. */
  readonly operation: number
}

/**
 * What a change is going to read first, as far as it is known beforehand: a store may have it come along with the
 * revision row, and so spare a journey. Nothing depends on whether it does.
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

/** What a user's transaction must still be true for. */
export interface Claim {
  readonly key: string
  readonly node: string
  readonly token: number
}

/** What the databases differ in. */
export interface Capabilities {
  /** Hints arrive by themselves; otherwise the engine polls {@link Store.news}. It may change with every heartbeat. */
  readonly push: boolean
}

/** How much history {@link Store.prune} leaves. */
export interface Retention {
  /** Events older than so many ms, by the database's clock, are deleted; one that is exactly as old is kept. */
  readonly eventsForMs: number
  /** Of events only the newest so many are kept. */
  readonly events: number
  /** Nodes that have been gone for longer than so many ms are deleted; one that has been gone for exactly so long is kept. */
  readonly goneNodesForMs: number
}

/**
 * How many events, and how many nodes, one call of {@link Store.prune} deletes at most. It has to end in time, or it would
 * never get anywhere; on SQLite everybody else waits for it; and SQL Server locks a whole table for some thousands of rows.
 */
export const prunedAtOnce = 1_000

/**
 * A database that keeps the rows of one namespace.
 *
 * Every verb ends within the statement timeout it was opened with, or rejects. A rejection is a
 * `StoreError`; unless its `outcome` is `'none'`, what was asked for may still have happened,
 * or may yet happen. No verb retries by itself what may have happened.
 */
export interface Store {
  /** `postgres`, `sqlite`, … */
  readonly dialect: string
  readonly capabilities: Capabilities

  /**
   * How many statements on its tables this store has sent since it opened, whatever became of them. What only begins
   * or ends a transaction is not counted. It costs nothing to ask.
   */
  readonly statements: number

  /**
   * One statement, alone, on a connection of its own: stamps the session's row if it is not gone and
   * `beat` is greater than the stored one. Undefined: there was nothing to stamp, the session is lost.
   * Runs in parallel to changes and waits for none but one that concerns this very node.
   */
  heartbeat(node: string, beat: number): Promise<HeartbeatAnswer | undefined>

  /** Undefined when the node is gone. */
  view(node: string): Promise<OwnView | undefined>

  /** `newsRevision` of one node, by primary key; undefined when the node is gone. */
  news(node: string): Promise<number | undefined>

  look(): Promise<Look>

  /** The first `most` nodes whose ids come after this one, of those that are not gone, in an order that stays the same. */
  beats(after: string, most: number): Promise<Beat[]>

  /** The nodes on this machine that are not gone and whose process is known, ordered by id. */
  neighbours(machine: string): Promise<Neighbour[]>

  snapshot(): Promise<Snapshot>

  /** The first `most` leases whose keys come after this one, in an order that stays the same: however many there are, it ends in time. */
  leasesAfter(after: string, most: number): Promise<LeaseRow[]>

  /** The first `most` namespaces in which anything was ever changed, this store's own or not, ordered by name. */
  namespaces(most: number): Promise<string[]>

  /** Events that match, newest first, or, when `after` is given, those after that place, oldest first. */
  events(query: EventQuery): Promise<EventRow[]>

  /**
   * Runs `work` inside one ordered transaction and commits, unless it wrote nothing. When `work`
   * throws, everything is undone and its error comes out unchanged. `work` counts towards the time limit,
   * may be called again after a conflict, and must not wait for another verb of this store.
   */
  change<T>(
    session: SessionKey | undefined,
    work: (change: Change) => Promise<T>,
    ahead?: Ahead,
  ): Promise<Changed<T>>

  /**
   * Deletes old events, and gone nodes that no lease names as holder, target or blocked node; of each no more than
   * {@link prunedAtOnce}. Answers whether there may be more of them. Concerns nobody, so is no change.
   */
  prune(retention: Retention): Promise<boolean>

  /**
   * Calls `wake` when there may be news for `node`. Hints may be lost, doubled or late. A `wake` that throws keeps nobody else from
   * being woken, and fails no change; what it throws is dropped. Answers a function that stops it.
   */
  listen(node: string, wake: () => void): () => void

  /**
   * As the first statement of a user's transaction: holds the lease row so that nobody can take it
   * over before that transaction ends (several transactions of its holder may do so at once), and throws `FencedError` when the claim is no longer true, or
   * `CoordinationError` with code `WCO_FENCE_TARGET` when `transaction` is not an open transaction of this dialect. Where the
   * driver is synchronous it answers synchronously.
   */
  fence(transaction: unknown, claim: Claim): Promise<void> | void

  /** Ends the connections it opened itself, and no others. Harmless when repeated. */
  close(): Promise<void>
}
