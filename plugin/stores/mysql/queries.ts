/**
 * The statements this store repeats, and how their answers become rows of the port.
 *
 * Each is made when a connection first needs it and then kept, prepared on the server too: building one costs several
 * times what running it costs. Statements with lists in them, as changes have, differ from one to the next and
 * are sent as text.
 *
 * What must be one consistent picture is one statement, which sees what was there when it began. Where rows of
 * several tables are wanted at once, each comes as a JSON object with the name of its part; the numbers in
 * them are exact, because none exceeds 2^53. They are not gathered into one JSON list: MariaDB cuts off what has
 * become too long.
 */
import {
  and,
  asc,
  eq,
  getTableColumns,
  gt,
  inArray,
  isNotNull,
  lt,
  ne,
  type Placeholder,
  type SQL,
  sql,
} from 'drizzle-orm'
import type { MySqlColumn, MySqlTable } from 'drizzle-orm/mysql-core'
import { drizzle, type MySql2Database } from 'drizzle-orm/mysql2'
import type { Connection } from 'mysql2'
import type { Connection as AskedConnection } from 'mysql2/promise'
import { StoreError } from '../../core/errors.js'
import type {
  Beat,
  HeartbeatAnswer,
  LeaseFilter,
  LeaseRow,
  Look,
  MetaRow,
  NodeRow,
  OwnView,
  ServerFacts,
  Snapshot,
  WorkerRow,
} from '../../core/store.js'
import type { Taken } from '../shared/change.js'
import type { Statements } from '../shared/statements.js'
import { leases, meta, nodes, workers } from './schema.js'

/** What the statements of one store have in common. */
export interface Terms {
  readonly namespace: string
  /** By how a text is compared with a column of ours. */
  readonly collation: SQL
}

export type Queries = ReturnType<typeof queriesOn>

/** The statements of a store on one connection. */
export function queriesOn(client: Connection, terms: Terms, logger: Statements) {
  const asked = client.promise()
  const prepared: AskedConnection = Object.create(asked, { query: { value: asked.execute.bind(asked) } })
  const kept = drizzle({ client: prepared, logger })
  return {
    db: drizzle({ client: asked, logger }),
    stamp: once(() => stamp(kept, terms).prepare()),
    pulse: once(() => answering(kept, pulse(terms)).prepare()),
    news: once(() => news(kept, terms).prepare()),
    view: once(() => answering(kept, view(terms)).prepare()),
    look: once(() => answering(kept, look(terms)).prepare()),
    beats: once(() => beats(kept, terms).prepare()),
    neighbours: once(() => neighbours(kept, terms).prepare()),
    snapshot: once(() => answering(kept, snapshot(terms)).prepare()),
    takeRevision: once(() => takeRevision(kept, terms).prepare()),
    stampSession: once(() => stampSession(kept, terms).prepare()),
    taken: once(() => answering(kept, taken(terms)).prepare()),
    nodes: once(() => standingNodes(kept, terms).prepare()),
    loads: once(() => loads(kept, terms).prepare()),
  }
}

/** Milliseconds since 1970 when the statement began, whatever time zone the server lives in. */
export const nowMs = sql`timestampdiff(microsecond, '1970-01-01', utc_timestamp(3)) div 1000`.mapWith(Number)

/** The columns of a table that are properties of the port's row. */
export function columnsOf<T extends MySqlTable>(table: T): Omit<T['_']['columns'], 'namespace'> {
  const { namespace: _, ...columns } = getTableColumns(table)
  return columns
}

/** Sets every column to what could not be inserted. */
export function givenInstead(table: MySqlTable): Record<string, SQL> {
  const columns = Object.entries(columnsOf(table))
  return Object.fromEntries(columns.map(([property, column]) => [property, sql`values(${column})`]))
}

/** One row of an answer that has rows of several kinds. */
interface Part {
  readonly part: string
  readonly body: Readonly<Record<string, unknown>>
}

/** What was asked beside the rows. Without a session row there was nothing to stamp. */
export function heartbeatAnswer(answer: readonly Part[]): HeartbeatAnswer | undefined {
  const [own] = partOf<OwnFacts>(answer, 'own')
  if (own === undefined) return undefined
  const { state, newsRevision } = own
  return { ...factsOf(own), state, newsRevision, watchers: partOf<Beat>(answer, 'beat') }
}

/** Without a session row the node is gone. */
export function ownView(answer: readonly Part[]): OwnView | undefined {
  const [own] = partOf<OwnFacts>(answer, 'own')
  if (own === undefined) return undefined
  const { state, newsRevision, watchers } = own
  return {
    ...{ ...factsOf(own), state, newsRevision, watchers: JSON.parse(watchers ?? '[]') },
    ...relatedOf(answer),
  }
}

export function lookOf(answer: readonly Part[]): Look {
  return { nodes: partOf<Beat>(answer, 'beat'), ...relatedOf(answer) }
}

/** Before the first change there is no revision row. */
export function snapshotOf(answer: readonly Part[]): Snapshot {
  const [facts] = partOf<{ nowMs: number }>(answer, 'facts')
  const unwritten = {
    revision: 0,
    watchers: [],
    longestTtlMs: 0,
    tokenFloor: 0,
    serverIdentity: '',
    identitySettled: true,
  }
  return {
    nowMs: facts?.nowMs ?? 0,
    meta: rowsOf<MetaRow>(meta, answer, 'meta')[0] ?? unwritten,
    nodes: rowsOf<NodeRow>(nodes, answer, 'node'),
    ...leasesAndWorkersOf(answer),
  }
}

/** What a change finds when it has taken the revision row. */
export function takenOf(answer: readonly Part[]): Taken {
  const [facts] = partOf<Pick<OwnFacts, 'nowMs' | 'serverIdentity'>>(answer, 'facts')
  const [row] = rowsOf<MetaRow>(meta, answer, 'meta')
  if (facts === undefined || row === undefined) {
    throw new StoreError('A change could not take its number.', 'none')
  }
  const [session] = rowsOf<NodeRow>(nodes, answer, 'node')
  return { nowMs: facts.nowMs, serverIdentity: known(facts.serverIdentity), meta: row, session }
}

/** The leases that match a filter, each found by the index that fits. Empty lists match nothing. */
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
 * Locks rows by their primary key, and no others on the way. With `skipLocked` it answers the keys of those it has got;
 * with `noWait` it fails when it does not get them all.
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

interface OwnFacts {
  readonly state: 'active' | 'draining'
  readonly newsRevision: number
  readonly nowMs: number
  readonly serverIdentity: string | null
  readonly watchers: string | null
  readonly recordedIdentity: string | null
  readonly identitySettled: number | null
  readonly longestTtlMs: number | null
}

/** What the revision row says, or would if it were there, and the server. */
function factsOf({ nowMs, serverIdentity, ...recorded }: OwnFacts): ServerFacts {
  return {
    nowMs,
    serverIdentity: known(serverIdentity),
    recordedIdentity: recorded.recordedIdentity ?? '',
    identitySettled: recorded.identitySettled === null || recorded.identitySettled === 1,
    longestTtlMs: recorded.longestTtlMs ?? 0,
  }
}

/** Kept in the connection; a proxy that puts another one in its place does not know of it. */
function known(identity: string | null): string {
  if (identity !== null) return identity
  throw new StoreError('The connection is not the one that was set up: something has replaced it.', 'unknown')
}

function relatedOf(answer: readonly Part[]) {
  const gone = new Set(partOf<{ id: string }>(answer, 'gone').map(({ id }) => id))
  return { ...leasesAndWorkersOf(answer), gone }
}

function leasesAndWorkersOf(answer: readonly Part[]) {
  return {
    leases: rowsOf<LeaseRow>(leases, answer, 'lease'),
    workers: rowsOf<WorkerRow>(workers, answer, 'worker'),
  }
}

function partOf<Body>(answer: readonly Part[], wanted: string): Body[] {
  return answer.filter(({ part }) => part === wanted).map(({ body }) => body as Body)
}

/** Lists and objects come as the texts they are stored as, and truth as 0 and 1. */
function rowsOf<Row>(table: MySqlTable, answer: readonly Part[], part: string): Row[] {
  const columns = Object.entries(columnsOf(table))
  return partOf<Record<string, unknown>>(answer, part).map(
    (body) =>
      Object.fromEntries(
        columns.map(([property, column]) => [property, decoded(column, body[property])]),
      ) as Row,
  )
}

function decoded(column: MySqlColumn, value: unknown): unknown {
  if (value === null || value === undefined) return null
  const type = column.getSQLType()
  if (type === 'boolean') return value === 1
  return type === 'mediumtext' ? JSON.parse(String(value)) : value
}

function once<T>(make: () => T): () => T {
  let made: T | undefined
  return () => {
    made ??= make()
    return made
  }
}

const node: Placeholder = sql.placeholder('node')

function isNode({ namespace }: Terms): SQL | undefined {
  return and(eq(nodes.namespace, namespace), eq(nodes.id, node), ne(nodes.state, 'gone'))
}

/** The first half of a heartbeat. Its answer tells whether there was something to stamp, and no more. */
function stamp(db: MySql2Database, terms: Terms) {
  const beat = sql.placeholder('beat')
  return db
    .update(nodes)
    .set({ heartbeatAtMs: nowMs, beat })
    .where(and(isNode(terms), lt(nodes.beat, beat)))
}

/** The second half: what the row says now, and the beats of the other watchers. */
function pulse(terms: Terms): SQL {
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

function news(db: MySql2Database, terms: Terms) {
  return db.select({ newsRevision: nodes.newsRevision }).from(nodes).where(isNode(terms))
}

function view(terms: Terms): SQL {
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

function look(terms: Terms): SQL {
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

function beats(db: MySql2Database, { namespace }: Terms) {
  return db
    .select({ id: nodes.id, beat: nodes.beat })
    .from(nodes)
    .where(
      and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone'), gt(nodes.id, sql.placeholder('after'))),
    )
    .orderBy(asc(nodes.id))
    .limit(sql.placeholder('most'))
}

function neighbours(db: MySql2Database, { namespace }: Terms) {
  const standing = and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone'))
  return db
    .select({ id: nodes.id, process: sql<string>`${nodes.process}` })
    .from(nodes)
    .where(and(standing, eq(nodes.machine, sql.placeholder('machine')), isNotNull(nodes.process)))
    .orderBy(asc(nodes.id))
}

function snapshot({ namespace }: Terms): SQL {
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

/** Waits for all earlier changes. The row is read in a statement of its own, whose time is not older than theirs. */
function takeRevision(db: MySql2Database, { namespace }: Terms) {
  return db
    .insert(meta)
    .values({
      ...{ namespace, revision: 1, watchers: [], longestTtlMs: 0, tokenFloor: 0 },
      ...{ serverIdentity: '', identitySettled: true },
    })
    .onDuplicateKeyUpdate({ set: { revision: sql`${meta.revision} + 1` } })
}

function stampSession(db: MySql2Database, terms: Terms) {
  const operation = sql.placeholder('operation')
  return db
    .update(nodes)
    .set({ operation })
    .where(and(isNode(terms), lt(nodes.operation, operation)))
}

/** The revision row, which this transaction holds, and that of the session it has stamped. */
function taken({ namespace }: Terms): SQL {
  return sql`
    select 'facts' as part,
      json_object('nowMs', ${nowMs}, 'serverIdentity', ${identity}) as body, 0 as place, '' as name
    union all select 'meta', ${objectOf(meta, 't')}, 0, '' from ${meta} as t where t.namespace = ${namespace}
    union all select 'node', ${objectOf(nodes, 't')}, 0, '' from ${nodes} as t
      where t.namespace = ${namespace} and t.id = ${node}`
}

function standingNodes(db: MySql2Database, { namespace }: Terms) {
  return db
    .select(columnsOf(nodes))
    .from(nodes)
    .where(and(eq(nodes.namespace, namespace), ne(nodes.state, 'gone')))
    .orderBy(asc(nodes.joinedRevision), asc(nodes.id))
}

function loads(db: MySql2Database, { namespace }: Terms) {
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

/** Which life of the server this is: see `capabilities.ts`. */
const identity = sql`@coordination_identity`

/** Parts in the order of their places and, where these are equal, of the code points of their names. */
function answering(db: MySql2Database, parts: SQL) {
  return db
    .select({ part: sql<string>`part`, body: sql`body`.mapWith(parsed) })
    .from(sql`(${parts}) as answer`)
    .orderBy(sql`place, name`)
}

function parsed(body: unknown): Part['body'] {
  return JSON.parse(String(body))
}

/** The session's own row with what is said beside it of the server. */
function ownPart({ namespace }: Terms): SQL {
  return sql`
    select 'own' as part, json_object(
      'state', n.state, 'newsRevision', n.news_revision, 'nowMs', ${nowMs}, 'serverIdentity', ${identity},
      'watchers', m.watchers, 'recordedIdentity', m.server_identity,
      'identitySettled', m.identity_settled, 'longestTtlMs', m.longest_ttl_ms) as body, 0 as place, '' as name
    from ${nodes} as n left join ${meta} as m on m.namespace = n.namespace
    where n.namespace = ${namespace} and n.id = ${node} and n.state <> 'gone'`
}

function keysWhere(namespace: string, condition: SQL): SQL {
  return sql`select ${leases.key} as found from ${leases} where ${and(eq(leases.namespace, namespace), condition)}`
}

/** The rows of leases whose keys are given, each looked up by its primary key. */
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

/** A row of a table as a JSON object, under the names of the port. */
function objectOf(table: MySqlTable, as: string): SQL {
  const pairs = Object.entries(columnsOf(table)).map(
    ([property, { name }]) => sql`${sql.raw(`'${property}'`)}, ${sql.identifier(as)}.${sql.identifier(name)}`,
  )
  return sql`json_object(${sql.join(pairs, sql`, `)})`
}
