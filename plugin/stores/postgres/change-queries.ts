/** The statements of a change: all its reads and all its writes. */
import { and, asc, eq, getTableColumns, ne, or, type SQL, sql } from 'drizzle-orm'
import type { NodePgDatabase } from 'drizzle-orm/node-postgres'
import type { PgTable } from 'drizzle-orm/pg-core'
import type { LockedLease, NodeRow } from '../../core/store.js'
import { columnsOf, inOrder, rowsOf } from './rows.js'
import { events, leases, nodes, workers } from './schema.js'
import { namedWorkers, nothing, type Terms } from './terms.js'

/** Which kinds of rows a change has to write. */
export interface WriteParts {
  readonly leases: boolean
  readonly workers: boolean
  readonly events: boolean
  readonly told: boolean
  readonly notified: boolean
}

export function standingNodes(db: NodePgDatabase, { namespace }: Terms) {
  return db
    .select(columnsOf(nodes))
    .from(nodes)
    .where(and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone')))
    .orderBy(asc(nodes.joinedRevision), inOrder(nodes.id))
}

export function nodesById(db: NodePgDatabase, { namespace }: Terms) {
  return db
    .select(columnsOf(nodes))
    .from(nodes)
    .where(and(eq(nodes.namespace, namespace), sql`${nodes.id} = any (${sql.placeholder('ids')})`))
    .orderBy(asc(nodes.joinedRevision), inOrder(nodes.id))
}

export function workersByKey(db: NodePgDatabase, { namespace }: Terms) {
  return db
    .select(columnsOf(workers))
    .from(workers)
    .where(and(eq(workers.namespace, namespace), sql`${workers.key} = any (${sql.placeholder('keys')})`))
    .orderBy(inOrder(workers.key))
}

export function lockedLeases(db: NodePgDatabase, { namespace }: Terms) {
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
  // This is not a join, because a planner that expects one row would compare each row with each.
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
    from (
      select holder as id from found union select blocked_node from found union select cooldown_node from found) as named
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

/**
 * Finds leases with a target or a holder by the indexes of these columns. Leases that were used once and are free may
 * be far more numerous.
 */
export function loads(db: NodePgDatabase, { namespace }: Terms) {
  const counted = sql`(
    select id as node, 0 as leases from ${nodes} where namespace = ${namespace} and state <> 'gone'
    union all
    select target, 1 from ${leases} where namespace = ${namespace} and target is not null
    union all
    select holder, 1 from ${leases}
    where namespace = ${namespace} and holder is not null and target is null) as counted`
  return (
    db
      .select({ node: sql<string>`counted.node`, leases: sql`sum(counted.leases)`.mapWith(Number) })
      .from(counted)
      .groupBy(sql`counted.node`)
      // Only a node that is not gone contributes a 0.
      .having(sql`min(counted.leases) = 0`)
  )
}

/**
 * Writes everything that a change has gathered, in one statement: to a remote database, each further statement costs
 * more than all of this.
 */
export function write(db: NodePgDatabase, terms: Terms, parts: WriteParts) {
  // It must fail as an error, so that whatever is sent behind it fails too, even a commit.
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

/** The error of a write that could not save all leases: a division by zero. */
export const leasesUnsaved = '22012'

const revision = sql`${sql.placeholder('revision')}::bigint`

/** Rows passed as one JSON parameter, so that the text of the statement is the same for any number of rows. */
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

/** The given leases that no user's transaction holds. */
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

/** Selects all columns from the given rows, with the namespace and this change's revision. */
function stamped(table: PgTable, { namespace }: Terms): SQL {
  const values = Object.keys(getTableColumns(table)).map((property) => {
    if (property === 'namespace') return sql`${namespace}::text`
    return property === 'revision' ? revision : sql`g.${sql.identifier(property)}`
  })
  return sql`select ${sql.join(values, sql`, `)}`
}

/** Sets every column to the value of the row that could not be inserted. */
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
