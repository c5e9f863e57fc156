/** The statements of a change that are not built anew each time. */
import { and, asc, eq, inArray, lt, ne, type SQL, sql } from 'drizzle-orm'
import type { MySql2Database } from 'drizzle-orm/mysql2'
import { beforeAnyChange, type LeaseFilter } from '../../core/store.js'
import { columnsOf } from './rows.js'
import { leases, meta, nodes } from './schema.js'
import { identity, isNode, keysWhere, node, nowMs, objectOf, type Terms } from './terms.js'

/** Selects the leases that match a filter, each found by the index that fits. Empty lists match nothing. */
export function leasesWanted(
  db: MySql2Database,
  { namespace }: Terms,
  { keys = [], workers = [], nodes = [] }: LeaseFilter,
) {
  const lists = [
    [leases.key, keys],
    [leases.worker, workers],
    [leases.holder, nodes],
    [leases.target, nodes],
    [leases.blockedNode, nodes],
  ] as const
  const wanted = lists
    .filter(([, list]) => list.length > 0)
    .map(([column, list]) => keysWhere(namespace, inArray(column, [...list])))
  return db
    .select(columnsOf(leases))
    .from(sql`(${sql.join(wanted, sql` union `)}) as wanted`)
    .innerJoin(leases, and(eq(leases.namespace, namespace), sql`${leases.key} = wanted.found`))
    .orderBy(asc(leases.key))
}

/**
 * Locks rows by their primary key, and no others on the way. With `skipLocked` it returns the keys of the rows that
 * it locked. With `noWait` it fails when it cannot lock them all.
 */
export function lockLeases(
  db: MySql2Database,
  { namespace }: Terms,
  keys: readonly string[],
  how: { readonly skipLocked: true } | { readonly noWait: true },
) {
  return db
    .select({ key: leases.key })
    .from(leases, { forceIndex: 'PRIMARY' })
    .where(and(eq(leases.namespace, namespace), inArray(leases.key, [...keys])))
    .for('update', how)
}

/**
 * Waits for all earlier changes. A separate statement reads the row, so the time that it returns is not older than
 * the times of earlier changes.
 */
export function takeRevision(db: MySql2Database, { namespace }: Terms) {
  return db
    .insert(meta)
    .values({ ...beforeAnyChange, namespace, revision: 1 })
    .onDuplicateKeyUpdate({ set: { revision: sql`${meta.revision} + 1` } })
}

export function stampSession(db: MySql2Database, terms: Terms) {
  const operation = sql.placeholder('operation')
  return db
    .update(nodes)
    .set({ operation })
    .where(and(isNode(terms), lt(nodes.operation, operation)))
}

/** The revision row, which this transaction holds, and the row of the session that it has stamped. */
export function taken({ namespace }: Terms): SQL {
  return sql`
    select 'facts' as part,
      json_object('nowMs', ${nowMs}, 'serverIdentity', ${identity}) as body, 0 as place, '' as name
    union all select 'meta', ${objectOf(meta, 't')}, 0, '' from ${meta} as t where t.namespace = ${namespace}
    union all select 'node', ${objectOf(nodes, 't')}, 0, '' from ${nodes} as t
      where t.namespace = ${namespace} and t.id = ${node}`
}

export function standingNodes(db: MySql2Database, { namespace }: Terms) {
  return db
    .select(columnsOf(nodes))
    .from(nodes)
    .where(and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone')))
    .orderBy(asc(nodes.joinedRevision), asc(nodes.id))
}

/**
 * Finds leases with a target or a holder by the indexes of these columns. Leases that were used once and are free may
 * be far more numerous.
 */
export function loads(db: MySql2Database, { namespace }: Terms) {
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
