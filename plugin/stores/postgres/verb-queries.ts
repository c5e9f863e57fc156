/** The statements of the verbs that are not part of a change. */
import { and, asc, eq, gt, isNotNull, lt, ne, or, type SQL, sql } from 'drizzle-orm'
import type { NodePgDatabase } from 'drizzle-orm/node-postgres'
import type { PgTable } from 'drizzle-orm/pg-core'
import type { Beat, LeaseRow, MetaRow, NodeRow, WorkerRow } from '../../core/store.js'
import { pushedNodes } from './hints.js'
import { columnsOf, inOrder, json, nowMs, rowsOf } from './rows.js'
import { leases, meta, nodes, workers } from './schema.js'
import { facts, isNode, namedWorkers, node, nothing, type Terms } from './terms.js'

/**
 * Overrides asynchronous commit, where it is the database's default, for this one transaction. Otherwise a crash
 * could lose an acknowledged write without a trace. Stronger settings stay as they are.
 */
export const committing = sql`
  case current_setting('synchronous_commit') when 'off' then set_config('synchronous_commit', 'on', true) end`

/**
 * The outer select sees the rows as they were before the update, which is right for the beats of the other nodes. For
 * the node's own row only RETURNING has the latest values, because the update may have waited for a change that
 * concerned it.
 */
export function heartbeat(db: NodePgDatabase, terms: Terms, counting: boolean) {
  // Counts no further than it matters: with ten thousand nodes a full count would cost more than the heartbeat.
  const present = sql`(select count(*) from (
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
      present: counting ? present.mapWith(Number) : sql<null>`null`,
      committing,
    })
    .from(beaten)
    .leftJoin(meta, eq(meta.namespace, terms.namespace))
}

export function news(db: NodePgDatabase, terms: Terms) {
  return db.select({ newsRevision: nodes.newsRevision }).from(nodes).where(isNode(terms))
}

export function view(db: NodePgDatabase, terms: Terms) {
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

export function look(db: NodePgDatabase, terms: Terms) {
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

export function beats(db: NodePgDatabase, { namespace }: Terms) {
  return db
    .select({ id: nodes.id, beat: nodes.beat })
    .from(nodes)
    .where(
      and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone'), gt(nodes.id, sql.placeholder('after'))),
    )
    .orderBy(asc(nodes.id))
    .limit(sql.placeholder('most'))
}

export function neighbours(db: NodePgDatabase, { namespace }: Terms) {
  const present = and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone'))
  return db
    .select({ id: nodes.id, process: sql<string>`${nodes.process}` })
    .from(nodes)
    .where(and(present, eq(nodes.machine, sql.placeholder('machine')), isNotNull(nodes.process)))
    .orderBy(inOrder(nodes.id))
}

export function leasesAfter(db: NodePgDatabase, { namespace }: Terms) {
  return db
    .select(columnsOf(leases))
    .from(leases)
    .where(and(eq(leases.namespace, namespace), gt(leases.key, sql.placeholder('after'))))
    .orderBy(asc(leases.key))
    .limit(sql.placeholder('most'))
}

/** The leases in `found`, the named workers, and which holders and blocked nodes of those leases are gone. */
function aboutFound({ namespace }: Terms, workerKeys: SQL) {
  const found = sql`(select coalesce(json_agg(to_json(f) order by f.key collate "C"), '[]') from found as f)`
  const gone = sql`(
    select coalesce(json_agg(named.id), '[]')
    from (select holder as id from found union select blocked_node from found) as named
    left join lateral (
      select true as present from ${nodes}
      where namespace = ${namespace} and id = named.id and state <> 'gone' offset 0) as n on true
    where named.id is not null and n.present is null)`
  return {
    leases: found.mapWith(rowsOf<LeaseRow>(leases)),
    workers: namedWorkers(namespace, workerKeys),
    gone: gone.mapWith((ids: unknown) => new Set(json<string[]>(ids))),
  }
}

export function snapshot(db: NodePgDatabase, { namespace }: Terms) {
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
