/** The statements of the verbs that are not part of a change. */
import { and, asc, eq, gt, isNotNull, lt, ne, type SQL, sql } from 'drizzle-orm'
import type { MySqlTable } from 'drizzle-orm/mysql-core'
import type { MySql2Database } from 'drizzle-orm/mysql2'
import { prunedAtOnce } from '../../core/store.js'
import { columnsOf } from './rows.js'
import { leases, meta, nodes, workers } from './schema.js'
import { identity, isNode, keysWhere, node, nowMs, objectOf, type Terms } from './terms.js'

/** The first half of a heartbeat. Its answer tells only whether there was something to stamp. */
export function stamp(db: MySql2Database, terms: Terms) {
  const beat = sql.placeholder('beat')
  return db
    .update(nodes)
    .set({ heartbeatAtMs: nowMs, beat })
    .where(and(isNode(terms), lt(nodes.beat, beat)))
}

/** The second half: the present values of the row, and the beats of the other watchers. */
export function pulse(terms: Terms): SQL {
  const { namespace, collation } = terms
  const watchers = sql`
    select 'beat' as part, json_object('id', n.id, 'beat', n.beat) as body, 0 as place, n.id as name
    from ${meta} as m
    straight_join json_table(m.watchers, '$[*]' columns (id varchar(255) character set utf8mb4 path '$')) as w
    straight_join ${nodes} as n
      on n.namespace = m.namespace and n.id = w.id collate ${collation} and n.state <> 'gone'
    where m.namespace = ${namespace} and n.id <> ${node}`
  return sql`${ownPart(terms)} union all ${watchers}`
}

export function news(db: MySql2Database, terms: Terms) {
  return db.select({ newsRevision: nodes.newsRevision }).from(nodes).where(isNode(terms))
}

export function view(terms: Terms): SQL {
  const { namespace, collation } = terms
  const own = eq(sql`n.id`, node)
  return sql`
    with stood as (
      select w.\`key\`, w.kind
      from ${nodes} as n
      straight_join json_table(n.workers, '$[*]' columns (\`key\` varchar(255) character set utf8mb4 path '$')) as s
      straight_join ${workers} as w
        on w.namespace = n.namespace and w.\`key\` = s.\`key\` collate ${collation}
      where n.namespace = ${namespace} and ${own} and n.state <> 'gone'),
    found as (${leasesIn(
      sql`(
      ${keysWhere(namespace, eq(leases.holder, node))}
      union ${keysWhere(namespace, eq(leases.target, node))}
      union ${keysWhere(namespace, eq(leases.blockedNode, node))}
      union select l.\`key\` from stood
        straight_join ${leases} as l on l.worker = stood.\`key\` and l.namespace = ${namespace}
        where stood.kind = 'coordinated')`,
      terms,
    )})
    ${ownPart(terms)}
    union all ${foundParts(terms, sql`select \`key\` from stood union select worker from found`)}`
}

export function look(terms: Terms): SQL {
  const { namespace } = terms
  return sql`
    with found as (${leasesIn(
      sql`(
      ${keysWhere(namespace, eq(leases.pending, true))}
      union select l.\`key\` from ${nodes} as n
        straight_join ${leases} as l on l.holder = n.id and l.namespace = n.namespace
        where n.namespace = ${namespace} and n.state = 'gone')`,
      terms,
    )})
    select 'beat' as part, json_object('id', n.id, 'beat', n.beat) as body, 0 as place, n.id as name
    from ${nodes} as n where n.namespace = ${namespace} and n.state <> 'gone'
    union all ${foundParts(terms, sql`select distinct worker as \`key\` from found`)}`
}

export function beats(db: MySql2Database, { namespace }: Terms) {
  return db
    .select({ id: nodes.id, beat: nodes.beat })
    .from(nodes)
    .where(
      and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone'), gt(nodes.id, sql.placeholder('after'))),
    )
    .orderBy(asc(nodes.id))
    .limit(sql.placeholder('most'))
}

export function neighbours(db: MySql2Database, { namespace }: Terms) {
  const present = and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone'))
  return db
    .select({ id: nodes.id, process: sql<string>`${nodes.process}` })
    .from(nodes)
    .where(and(present, eq(nodes.machine, sql.placeholder('machine')), isNotNull(nodes.process)))
    .orderBy(asc(nodes.id))
}

export function leasesAfter(db: MySql2Database, { namespace }: Terms) {
  return db
    .select(columnsOf(leases))
    .from(leases)
    .where(and(eq(leases.namespace, namespace), gt(leases.key, sql.placeholder('after'))))
    .orderBy(asc(leases.key))
    .limit(sql.placeholder('most'))
}

export function snapshot({ namespace }: Terms): SQL {
  const rows = (part: string, table: MySqlTable, place: SQL, name: SQL): SQL => sql`
    select ${sql.raw(`'${part}'`)}, ${objectOf(table, 't')}, ${place}, ${name}
    from ${table} as t where t.namespace = ${namespace}`
  return sql`
    select 'facts' as part, json_object('nowMs', ${nowMs}) as body, 0 as place, '' as name
    union all ${rows('meta', meta, sql`0`, sql`''`)}
    union all ${rows('node', nodes, sql`t.joined_revision`, sql`t.id`)}
    union all ${rows('worker', workers, sql`0`, sql`t.\`key\``)}
    union all ${rows('lease', leases, sql`0`, sql`t.\`key\``)}`
}

/**
 * Deletes nodes that have been gone for long enough and that no lease names. Each column of the leases is searched by
 * itself, by its index: the server would rather read all leases, once for each node, when the conditions are joined by
 * OR, or when a column is nearly always null, since it counts nulls as one value.
 */
export function forgetNodes(db: MySql2Database, { namespace }: Terms, goneNodesForMs: number) {
  const columns = { holder: leases.holder, target: leases.target, blocked: leases.blockedNode }
  const unnamed = Object.entries(columns).map(
    ([index, { name }]) => sql`not exists (
      select 1 from ${leases} as l force index (${sql.identifier(`coordination_leases_${index}`)})
      where l.namespace = ${namespace} and l.${sql.identifier(name)} = ${nodes.id})`,
  )
  return db
    .delete(nodes)
    .where(
      and(
        eq(nodes.namespace, namespace),
        eq(nodes.state, 'gone'),
        lt(nodes.goneAtMs, sql`${nowMs} - ${goneNodesForMs}`),
        ...unnamed,
      ),
    )
    .limit(prunedAtOnce)
}

/** The session's own row, with the facts about the server. */
function ownPart({ namespace }: Terms): SQL {
  return sql`
    select 'own' as part, json_object(
      'state', n.state, 'newsRevision', n.news_revision, 'nowMs', ${nowMs}, 'serverIdentity', ${identity},
      'watchers', m.watchers, 'recordedIdentity', m.server_identity,
      'identitySettled', m.identity_settled, 'longestTtlMs', m.longest_ttl_ms) as body, 0 as place, '' as name
    from ${nodes} as n left join ${meta} as m on m.namespace = n.namespace
    where n.namespace = ${namespace} and n.id = ${node} and n.state <> 'gone'`
}

/** The leases with the given keys, each looked up by its primary key. */
function leasesIn(keys: SQL, { namespace }: Terms): SQL {
  return sql`
    select l.* from ${keys} as wanted
    straight_join ${leases} as l on l.namespace = ${namespace} and l.\`key\` = wanted.found`
}

/** The leases in `found`, the named workers, and which holders and blocked nodes of those leases are gone. */
function foundParts({ namespace }: Terms, workerKeys: SQL): SQL {
  return sql`
    select 'lease', ${objectOf(leases, 'f')}, 0, f.\`key\` from found as f
    union all
    select 'worker', ${objectOf(workers, 'w')}, 0, w.\`key\`
    from (${workerKeys}) as named
    straight_join ${workers} as w on w.namespace = ${namespace} and w.\`key\` = named.\`key\`
    union all
    select 'gone', json_object('id', named.id), 0, named.id
    from (select holder as id from found union select blocked_node from found) as named
    left join ${nodes} as n on n.namespace = ${namespace} and n.id = named.id and n.state <> 'gone'
    where named.id is not null and n.id is null`
}
