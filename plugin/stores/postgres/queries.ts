/**
 * The statements this store repeats, and how their answers become rows of the port.
 *
 * Each is made when a connection first needs it and then kept: building one costs several times what
 * running it costs. Each bears a name, so that the server plans it once per connection, too. Such a plan is often
 * made while the tables are all but empty, and kept when they have grown, until they are next analysed. So they are
 * written in a way that leaves no plan which compares each row with each: lists of keys are arrays and not
 * joins, and a join that looks up a primary key is kept apart by OFFSET 0.
 *
 * What must be one consistent picture is one statement. Where rows of several tables are wanted at once they
 * come as JSON; the numbers in them are exact, because none exceeds 2^53.
 */
import { and, asc, eq, getTableColumns, gt, isNotNull, lt, ne, or, type SQL, sql } from 'drizzle-orm'
import type { NodePgDatabase } from 'drizzle-orm/node-postgres'
import type { PgColumn, PgTable } from 'drizzle-orm/pg-core'
import type {
  Beat,
  HeartbeatAnswer,
  LeaseRow,
  LockedLease,
  MetaRow,
  NodeRow,
  OwnView,
  ServerFacts,
  WorkerRow,
} from '../../core/store.js'
import { pushedNodes } from './hints.js'
import { events, leases, meta, nodes, workers } from './schema.js'

/** What the statements of one store have in common. */
export interface Terms {
  readonly namespace: string
  /** Says which life of the server this is. */
  readonly identity: SQL<string>
  /** False where the next statement may meet another connection of the server, as it does behind a pooler. */
  readonly named: boolean
}

/** What a change has to write at its end. */
export interface WriteParts {
  readonly leases: boolean
  readonly workers: boolean
  readonly events: boolean
  readonly told: boolean
  readonly notified: boolean
}

export type Queries = ReturnType<typeof queriesOn>

/** The statements of a store on one connection. */
export function queriesOn(db: NodePgDatabase, terms: Terms) {
  // Drizzle makes up a name, from the text of the statement, for what is prepared without one.
  const name = terms.named ? undefined : ''
  const writes = new Map<string, ReturnType<ReturnType<typeof write>['prepare']>>()
  return {
    db,
    heartbeat: once(() => heartbeat(db, terms, false).prepare(name)),
    countingHeartbeat: once(() => heartbeat(db, terms, true).prepare(name)),
    news: once(() => news(db, terms).prepare(name)),
    view: once(() => view(db, terms).prepare(name)),
    look: once(() => look(db, terms).prepare(name)),
    beats: once(() => beats(db, terms).prepare(name)),
    neighbours: once(() => neighbours(db, terms).prepare(name)),
    snapshot: once(() => snapshot(db, terms).prepare(name)),
    nodes: once(() => standingNodes(db, terms).prepare(name)),
    nodesById: once(() => nodesById(db, terms).prepare(name)),
    workers: once(() => workersByKey(db, terms).prepare(name)),
    leases: once(() => lockedLeases(db, terms).prepare(name)),
    loads: once(() => loads(db, terms).prepare(name)),
    write(parts: WriteParts) {
      const kind = JSON.stringify(parts)
      const prepared = writes.get(kind) ?? write(db, terms, parts).prepare(name)
      writes.set(kind, prepared)
      return prepared
    },
  }
}

type Answer<K extends 'heartbeat' | 'view' | 'leases'> = Awaited<
  ReturnType<ReturnType<Queries[K]>['execute']>
>

/** Leases as a change reads them, with what it asks for next: their workers, and the nodes they are held or blocked by. */
export interface FoundLeases {
  readonly leases: LockedLease[]
  readonly workers: WorkerRow[]
  readonly nodes: NodeRow[]
}

export function foundLeases([row]: Answer<'leases'>): FoundLeases {
  return row ?? { leases: [], workers: [], nodes: [] }
}

/** Without a row there was nothing to stamp. Before the first change there is no revision row either. */
export function heartbeatAnswer([row]: Answer<'heartbeat'>): HeartbeatAnswer | undefined {
  if (row === undefined) return undefined
  const { committing: _, standing: __, ...answer } = row
  return { ...answer, ...recorded(row) }
}

/** Without a row the node is gone. */
export function ownView([row]: Answer<'view'>): OwnView | undefined {
  if (row === undefined) return undefined
  return {
    ...row,
    ...recorded(row),
    watchers: row.watchers ?? [],
  }
}

/** What the revision row says, or would if it were there. */
function recorded(row: {
  recordedIdentity: string | null
  identitySettled: boolean | null
  longestTtlMs: number | null
}): Pick<ServerFacts, 'recordedIdentity' | 'identitySettled' | 'longestTtlMs'> {
  const { recordedIdentity, identitySettled, longestTtlMs } = row
  return {
    recordedIdentity: recordedIdentity ?? '',
    identitySettled: identitySettled ?? true,
    longestTtlMs: longestTtlMs ?? 0,
  }
}

/** Milliseconds since 1970 when it is evaluated; `now()` would be when the transaction began. */
export const nowMs = sql`(extract(epoch from clock_timestamp()) * 1000)::bigint`.mapWith(Number)

/** The columns of a table that are properties of the port's row. */
export function columnsOf<T extends PgTable>(table: T): Omit<T['_']['columns'], 'namespace'> {
  const { namespace: _, ...columns } = getTableColumns(table)
  return columns
}

/** Turns a record, or a list of records, that came as JSON into rows of the port; `more` are no columns of the table. */
export function rowsOf<Row>(table: PgTable, ...more: string[]): (answer: unknown) => Row[] {
  const properties = [
    ...Object.entries(columnsOf(table)).map(([property, { name }]) => [property, name] as const),
    ...more.map((name) => [name, name] as const),
  ]
  const toRow = (record: Readonly<Record<string, unknown>>): Row =>
    Object.fromEntries(properties.map(([property, name]) => [property, record[name]])) as Row
  return (answer) => json<Record<string, unknown>[]>(answer).map(toRow)
}

/** JSON as the driver hands it over: parsed, unless the application has told it not to. */
function json<T>(answer: unknown): T {
  return (typeof answer === 'string' ? JSON.parse(answer) : answer) as T
}

/** In the order of code points, which is the same on every database, whatever language this one speaks. */
function inOrder(column: PgColumn): SQL {
  return sql`${column} collate "C"`
}

function once<T>(make: () => T): () => T {
  let made: T | undefined
  return () => {
    made ??= make()
    return made
  }
}

const node = sql.placeholder('node')

/** A row to select from where everything comes from subqueries. */
const nothing = sql`(values (1)) as nothing`

function facts({ identity }: Terms) {
  return {
    nowMs,
    serverIdentity: identity,
    recordedIdentity: meta.serverIdentity,
    identitySettled: meta.identitySettled,
    longestTtlMs: meta.longestTtlMs,
  }
}

function isNode({ namespace }: Terms): SQL | undefined {
  return and(eq(nodes.namespace, namespace), eq(nodes.id, node), ne(nodes.state, 'gone'))
}

/**
 * A database that commits asynchronously by default is overruled, for this one transaction: what it acknowledged
 * would be lost in a crash, and nobody could tell. Stronger settings stay as they are.
 */
export const committing = sql`
  case current_setting('synchronous_commit') when 'off' then set_config('synchronous_commit', 'on', true) end`

/**
 * The outer select sees what was there before the update: right for the others' beats. Of its own row
 * only RETURNING knows the latest, for the update may have waited for a change that concerned it.
 */
function heartbeat(db: NodePgDatabase, terms: Terms, counting: boolean) {
  // No further than it matters: with ten thousand nodes it would cost more than the heartbeat.
  const standing = sql`(select count(*) from (
    select from ${nodes} where namespace = ${terms.namespace} and state <> 'gone' limit ${sql.raw(String(pushedNodes + 1))}) as s)`
  const beat = sql`${sql.placeholder('beat')}::bigint`
  const beaten = db.$with('beaten').as(
    db
      .update(nodes)
      .set({ heartbeatAtMs: nowMs, beat })
      .where(and(isNode(terms), lt(nodes.beat, beat)))
      .returning({ state: nodes.state, newsRevision: nodes.newsRevision }),
  )
  const watchers = sql`(
    select coalesce(json_agg(json_build_object('id', w.id, 'beat', n.beat)), '[]')
    from jsonb_array_elements_text(${meta.watchers}) as w (id)
    cross join lateral (
      select beat from ${nodes}
      where namespace = ${terms.namespace} and id = w.id and state <> 'gone' offset 0) as n
    where w.id <> ${node})`
  return db
    .with(beaten)
    .select({
      ...facts(terms),
      state: beaten.state,
      newsRevision: beaten.newsRevision,
      watchers: watchers.mapWith(json<Beat[]>),
      standing: counting ? standing.mapWith(Number) : sql<null>`null`,
      committing,
    })
    .from(beaten)
    .leftJoin(meta, eq(meta.namespace, terms.namespace))
}

function news(db: NodePgDatabase, terms: Terms) {
  return db.select({ newsRevision: nodes.newsRevision }).from(nodes).where(isNode(terms))
}

function view(db: NodePgDatabase, terms: Terms) {
  const own = db
    .$with('own')
    .as(
      db
        .select({ state: nodes.state, newsRevision: nodes.newsRevision, workers: nodes.workers })
        .from(nodes)
        .where(isNode(terms)),
    )
  const stood = db.$with('stood', {}).as(sql`
    select w.key, w.kind from own
    cross join lateral jsonb_array_elements_text(own.workers) as o (key)
    cross join lateral (
      select key, kind from ${workers}
      where namespace = ${terms.namespace} and key = o.key offset 0) as w`)
  const found = db.$with('found').as(
    db
      .select(columnsOf(leases))
      .from(leases)
      .where(
        and(
          eq(leases.namespace, terms.namespace),
          or(
            eq(leases.holder, node),
            eq(leases.target, node),
            eq(leases.blockedNode, node),
            sql`${leases.worker} = any (array(select key from stood where kind = 'coordinated'))`,
          ),
        ),
      ),
  )
  return db
    .with(own, stood, found)
    .select({
      ...facts(terms),
      state: own.state,
      newsRevision: own.newsRevision,
      watchers: meta.watchers,
      ...aboutFound(terms, sql`select key from stood union select worker from found`),
    })
    .from(own)
    .leftJoin(meta, eq(meta.namespace, terms.namespace))
}

function look(db: NodePgDatabase, terms: Terms) {
  const { namespace } = terms
  const gone = sql`array(select id from ${nodes} where namespace = ${namespace} and state = 'gone')`
  const found = db.$with('found').as(
    db
      .select(columnsOf(leases))
      .from(leases)
      .where(and(eq(leases.namespace, namespace), or(leases.pending, sql`${leases.holder} = any (${gone})`))),
  )
  const beats = sql`(
    select coalesce(json_agg(json_build_object('id', n.id, 'beat', n.beat)), '[]')
    from ${nodes} as n where n.namespace = ${namespace} and n.state <> 'gone')`
  return db
    .with(found)
    .select({ nodes: beats.mapWith(json<Beat[]>), ...aboutFound(terms, sql`select worker from found`) })
    .from(nothing)
}

function beats(db: NodePgDatabase, { namespace }: Terms) {
  return db
    .select({ id: nodes.id, beat: nodes.beat })
    .from(nodes)
    .where(
      and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone'), gt(nodes.id, sql.placeholder('after'))),
    )
    .orderBy(asc(nodes.id))
    .limit(sql.placeholder('most'))
}

function neighbours(db: NodePgDatabase, { namespace }: Terms) {
  const standing = and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone'))
  return db
    .select({ id: nodes.id, process: sql<string>`${nodes.process}` })
    .from(nodes)
    .where(and(standing, eq(nodes.machine, sql.placeholder('machine')), isNotNull(nodes.process)))
    .orderBy(inOrder(nodes.id))
}

/** The leases in `found`, the named workers, and which holders and blocked nodes of those leases are gone. */
function aboutFound({ namespace }: Terms, workerKeys: SQL) {
  const found = sql`(select coalesce(json_agg(to_json(f) order by f.key collate "C"), '[]') from found as f)`
  const gone = sql`(
    select coalesce(json_agg(named.id), '[]')
    from (select holder as id from found union select blocked_node from found) as named
    left join lateral (
      select true as stands from ${nodes}
      where namespace = ${namespace} and id = named.id and state <> 'gone' offset 0) as n on true
    where named.id is not null and n.stands is null)`
  return {
    leases: found.mapWith(rowsOf<LeaseRow>(leases)),
    workers: namedWorkers(namespace, workerKeys),
    gone: gone.mapWith((ids: unknown) => new Set(json<string[]>(ids))),
  }
}

function namedWorkers(namespace: string, keys: SQL) {
  const named = sql`(
    select coalesce(json_agg(to_json(w) order by w.key collate "C"), '[]')
    from (select distinct key from (${keys}) as k (key)) as named
    cross join lateral (
      select * from ${workers} where namespace = ${namespace} and key = named.key offset 0) as w)`
  return named.mapWith(rowsOf<WorkerRow>(workers))
}

function snapshot(db: NodePgDatabase, { namespace }: Terms) {
  const all = (table: PgTable, order: SQL): SQL =>
    sql`(select coalesce(json_agg(to_json(t) order by ${order}), '[]') from ${table} as t where t.namespace = ${namespace})`
  return db
    .select({
      nowMs,
      meta: all(meta, sql`t.namespace`).mapWith(rowsOf<MetaRow>(meta)),
      nodes: all(nodes, sql`t.joined_revision, t.id collate "C"`).mapWith(rowsOf<NodeRow>(nodes)),
      workers: all(workers, sql`t.key collate "C"`).mapWith(rowsOf<WorkerRow>(workers)),
      leases: all(leases, sql`t.key collate "C"`).mapWith(rowsOf<LeaseRow>(leases)),
    })
    .from(nothing)
}

function standingNodes(db: NodePgDatabase, { namespace }: Terms) {
  return db
    .select(columnsOf(nodes))
    .from(nodes)
    .where(and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone')))
    .orderBy(asc(nodes.joinedRevision), inOrder(nodes.id))
}

function nodesById(db: NodePgDatabase, { namespace }: Terms) {
  return db
    .select(columnsOf(nodes))
    .from(nodes)
    .where(and(eq(nodes.namespace, namespace), sql`${nodes.id} = any (${sql.placeholder('ids')})`))
    .orderBy(asc(nodes.joinedRevision), inOrder(nodes.id))
}

function workersByKey(db: NodePgDatabase, { namespace }: Terms) {
  return db
    .select(columnsOf(workers))
    .from(workers)
    .where(and(eq(workers.namespace, namespace), sql`${workers.key} = any (${sql.placeholder('keys')})`))
    .orderBy(inOrder(workers.key))
}

function lockedLeases(db: NodePgDatabase, { namespace }: Terms) {
  const named = sql.placeholder('nodes')
  const wanted = and(
    eq(leases.namespace, namespace),
    or(
      sql`${leases.key} = any (${sql.placeholder('keys')})`,
      sql`${leases.worker} = any (${sql.placeholder('workers')})`,
      sql`${leases.holder} = any (${named})`,
      sql`${leases.target} = any (${named})`,
      sql`${leases.blockedNode} = any (${named})`,
    ),
  )
  const locked = db
    .$with('locked')
    .as(db.select({ key: leases.key }).from(leases).where(wanted).for('update', { skipLocked: true }))
  // Not a join: where the planner expects one row, it would compare each with each.
  const isFenced = sql<boolean>`${leases.key} not in (select key from locked)`.as('fenced')
  const found = db.$with('found').as(
    db
      .select({ ...columnsOf(leases), fenced: isFenced })
      .from(leases)
      .where(wanted),
  )
  const all = sql`(select coalesce(json_agg(to_json(f) order by f.key collate "C"), '[]') from found as f)`
  const theirNodes = sql`(
    select coalesce(json_agg(to_json(n) order by n.joined_revision, n.id collate "C"), '[]')
    from (select holder as id from found union select blocked_node from found) as named
    cross join lateral (
      select * from ${nodes} where namespace = ${namespace} and id = named.id offset 0) as n)`
  return db
    .with(locked, found)
    .select({
      leases: all.mapWith(rowsOf<LockedLease>(leases, 'fenced')),
      workers: namedWorkers(namespace, sql`select worker from found`),
      nodes: theirNodes.mapWith(rowsOf<NodeRow>(nodes)),
    })
    .from(nothing)
}

function loads(db: NodePgDatabase, { namespace }: Terms) {
  const counted = sql`(
    select id as node, 0 as leases from ${nodes} where namespace = ${namespace} and state <> 'gone'
    union all
    select coalesce(target, holder), 1 from ${leases} where namespace = ${namespace}) as counted`
  return (
    db
      .select({ node: sql<string>`counted.node`, leases: sql`sum(counted.leases)`.mapWith(Number) })
      .from(counted)
      .groupBy(sql`counted.node`)
      // Every node that is not gone adds a nought.
      .having(sql`min(counted.leases) = 0`)
  )
}

/**
 * All that a change has gathered, in one statement: to a database that is not next door, each further one
 * costs more than all of this.
 */
function write(db: NodePgDatabase, terms: Terms, parts: WriteParts) {
  // What is sent behind it must fail with it, a commit too.
  const allSaved = sql`1 / ((select count(*) from saved_leases) = json_array_length(${sql.placeholder('leases')}::json))::integer`
  const notified = sql`pg_notify(${sql.placeholder('channel')}, ${sql.placeholder('payload')})`
  return db
    .with(
      ...(parts.leases
        ? [givenLeases(db), presentLeases(db, terms), freeLeases(db, terms), saveLeases(db, terms)]
        : []),
      ...(parts.workers ? [saveWorkers(db, terms)] : []),
      ...(parts.events ? [record(db, terms)] : []),
      ...(parts.told ? [tell(db, terms)] : []),
    )
    .select({
      allSaved: parts.leases ? allSaved : sql`null`,
      notified: parts.notified ? notified : sql`null`,
    })
    .from(nothing)
}

/** How a write fails that could not save all leases: as a division by zero. */
export const leasesUnsaved = '22012'

const revision = sql`${sql.placeholder('revision')}::bigint`

/** Rows that come as one JSON parameter, so that the text is the same whatever their number. */
function recordset(parameter: string, table: PgTable): SQL {
  const columns = Object.entries(columnsOf(table)).map(
    ([property, column]) => sql`${sql.identifier(property)} ${sql.raw(column.getSQLType())}`,
  )
  return sql`json_to_recordset(${sql.placeholder(parameter)}::json) as g (${sql.join(columns, sql`, `)})`
}

function givenLeases(db: NodePgDatabase) {
  return db.$with('given_leases', {}).as(sql`select * from ${recordset('leases', leases)}`)
}

function presentLeases(db: NodePgDatabase, terms: Terms) {
  return db.$with('present_leases').as(db.select({ key: leases.key }).from(leases).where(isGiven(terms)))
}

/** Those of them that no user's transaction holds. */
function freeLeases(db: NodePgDatabase, terms: Terms) {
  return db
    .$with('free_leases')
    .as(db.select({ key: leases.key }).from(leases).where(isGiven(terms)).for('update', { skipLocked: true }))
}

function isGiven({ namespace }: Terms): SQL | undefined {
  return and(eq(leases.namespace, namespace), sql`${leases.key} = any (${sql.placeholder('leaseKeys')})`)
}

function saveLeases(db: NodePgDatabase, terms: Terms) {
  const isNew = sql`g.key not in (select key from present_leases)`
  const isFree = sql`g.key in (select key from free_leases)`
  const rows = sql`${stamped(leases, terms)} from given_leases as g where (${isNew}) or (${isFree})`
  return db.$with('saved_leases').as(
    db
      .insert(leases)
      .select(rows)
      .onConflictDoUpdate({ target: [leases.namespace, leases.key], set: excluded(leases) })
      .returning({ key: leases.key }),
  )
}

function saveWorkers(db: NodePgDatabase, terms: Terms) {
  return db.$with('saved_workers').as(
    db
      .insert(workers)
      .select(sql`${stamped(workers, terms)} from ${recordset('workers', workers)}`)
      .onConflictDoUpdate({ target: [workers.namespace, workers.key], set: excluded(workers) })
      .returning({ key: workers.key }),
  )
}

/** Selects all columns from rows that were given, with the namespace and this change's revision. */
function stamped(table: PgTable, { namespace }: Terms): SQL {
  const values = Object.keys(getTableColumns(table)).map((property) => {
    if (property === 'namespace') return sql`${namespace}::text`
    return property === 'revision' ? revision : sql`g.${sql.identifier(property)}`
  })
  return sql`select ${sql.join(values, sql`, `)}`
}

/** Sets every column to what could not be inserted. */
function excluded(table: PgTable): Record<string, SQL> {
  const columns = Object.entries(columnsOf(table))
  return Object.fromEntries(
    columns.map(([property, { name }]) => [property, sql`excluded.${sql.identifier(name)}`]),
  )
}

function record(db: NodePgDatabase, terms: Terms) {
  return db.$with('recorded').as(
    db
      .insert(events)
      .select(sql`${stamped(events, terms)} from ${recordset('events', events)}`)
      .returning({ position: events.position }),
  )
}

function tell(db: NodePgDatabase, { namespace }: Terms) {
  const named = sql`${nodes.id} = any (${sql.placeholder('told')})`
  return db.$with('told').as(
    db
      .update(nodes)
      .set({ newsRevision: revision })
      .where(and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone'), named))
      .returning({ id: nodes.id }),
  )
}
