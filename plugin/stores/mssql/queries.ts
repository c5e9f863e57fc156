/**
 * The statements of this store, and how their answers become rows of the port.
 *
 * They are written by hand, because Drizzle cannot express what they need: JSON in both directions, and updates that
 * return what they have read beside their row. The tables are Drizzle's, and their columns define how values are
 * written and read.
 *
 * Whatever must be one consistent picture is one statement, for which the server keeps the versions of all rows as of
 * its beginning. Where it needs rows of several tables, they come as JSON. The numbers in the JSON are exact, because
 * none exceeds 2^53. Lists are passed as JSON, too, so that the text of a statement, and the server's plan for it, is
 * the same for any length of list. Not every server of this kind undoes the escapes in the JSON that it reads, so
 * characters that would need one are replaced by others in transit.
 *
 * No lock hints are used, and none are needed: a statement that writes a row depending on others holds the revision
 * row, and any other statement states its whole condition in that one row.
 *
 * Rows are sorted here, not by the server. The server compares code units, which differs from the order of code
 * points for texts with characters beyond the first 65 536.
 */
import { getTableName } from 'drizzle-orm'
import type { MsSqlTable } from 'drizzle-orm/mssql-core'
import {
  type Beat,
  beforeAnyChange,
  type EventQuery,
  type EventRow,
  type HeartbeatAnswer,
  type LeaseFilter,
  type LeaseRow,
  type Load,
  type Look,
  type MetaRow,
  type Neighbour,
  type NodeRow,
  type OwnView,
  prunedAtOnce,
  type Retention,
  type Snapshot,
  type WorkerRow,
} from '../../core/store.js'
import type { Gathered, Taken } from '../shared/change.js'
import type { Found } from '../shared/known.js'
import type { Answer, Parameters } from './connections.js'
import { alphabets, given, inserted, listed, replaced, storable } from './json.js'
import {
  beatsOf,
  byAge,
  byId,
  byKey,
  columnsOf,
  facts,
  first,
  foundIn,
  foundLeases,
  listOf,
  readId,
  records,
  rowsOf,
  stateOf,
  written,
} from './rows.js'
import { collation, events, leases, meta, nodes, storedKey, workers } from './schema.js'

/** A request: its text, its parameters, and how many statements on our tables it contains. */
export interface Query<T> {
  readonly sql: string
  readonly parameters: Parameters
  readonly statements: number
  /** Converts the rows that come back. `identity` is the identity of the server that sent them. */
  read(answer: Answer, identity: string): T
}

/** The statements of one namespace. */
export class Queries {
  readonly #namespace: string

  constructor(namespace: string) {
    this.#namespace = storedKey(namespace)
  }

  /**
   * The same statement returns the watchers as they were before it, which is right for the beats of the other nodes.
   * For the node's own row only `inserted` has the latest values, because the update may have waited for a change
   * that concerned it.
   */
  heartbeat(node: string, beat: number): Query<HeartbeatAnswer | undefined> {
    const ofMeta = (column: string): string =>
      `(select ${column} from coordination_meta where namespace = @namespace) as ${column}`
    const sql = `
      update coordination_nodes set [beat] = @beat, [heartbeat_at_ms] = ${nowMs}
      output inserted.[state] as [state], inserted.[news_revision] as [news_revision],
        inserted.[heartbeat_at_ms] as [now_ms], found.[server_identity] as [server_identity],
        found.[identity_settled] as [identity_settled], found.[longest_ttl_ms] as [longest_ttl_ms],
        found.[watchers] as [watchers]
      from (
        select ${['[server_identity]', '[identity_settled]', '[longest_ttl_ms]'].map(ofMeta).join(', ')}, (
          select o.[id] as [id], o.[beat] as [beat]
          from openjson((select [watchers] from coordination_meta where namespace = @namespace))
            with ([id] nvarchar(320) '$') as w
          join coordination_nodes as o on o.namespace = @namespace and o.[id] = w.[id] collate ${collation}
          where o.[state] <> N'gone' and o.[id] <> @node
          for json path) as [watchers]) as found
      where coordination_nodes.namespace = @namespace and coordination_nodes.[id] = @node
        and coordination_nodes.[state] <> N'gone' and coordination_nodes.[beat] < @beat`
    return this.#query(sql, { node: storedKey(node), beat }, (answer, serverIdentity) => {
      const row = first(answer)
      if (row === undefined) return undefined
      return { ...stateOf(row), ...facts(row, serverIdentity), watchers: beatsOf(row.watchers) }
    })
  }

  news(node: string): Query<number | undefined> {
    const sql = `select [news_revision] from coordination_nodes
      where namespace = @namespace and [id] = @node and [state] <> N'gone'`
    return this.#query(sql, { node: storedKey(node) }, (answer) => {
      const row = first(answer)
      return row && Number(row.news_revision)
    })
  }

  /**
   * Each way in which a lease can concern the node is looked up separately, because alternatives joined by OR would
   * use no index.
   */
  view(node: string): Query<OwnView | undefined> {
    const by = (column: string): string =>
      `select [key] from coordination_leases where namespace = @namespace and ${column} = @node`
    const sql = `
      with own as (
        select [state], [news_revision], [workers] from coordination_nodes
        where namespace = @namespace and [id] = @node and [state] <> N'gone'),
      stood as (
        select w.[key], w.[kind] from own
        cross apply openjson(own.[workers]) with ([key] nvarchar(320) '$') as o
        join coordination_workers as w on w.namespace = @namespace and w.[key] = o.[key] collate ${collation}),
      found as (
        select ${listOf(leases)} from coordination_leases
        where namespace = @namespace and exists (select 1 from own) and [key] in (
          ${['[holder]', '[target]', '[blocked_node]'].map(by).join(' union all ')}
          union all select l.[key] from coordination_leases as l join stood on stood.[key] = l.[worker]
            where l.namespace = @namespace and stood.[kind] = N'coordinated'))
      select ${nowMs} as [now_ms], own.[state], own.[news_revision], m.[watchers],
        m.[server_identity], m.[identity_settled], m.[longest_ttl_ms],
        ${aboutFound('select [key] from stood union all select [worker] from found where [worker] is not null')}
      from own left join coordination_meta as m on m.namespace = @namespace`
    return this.#query(sql, { node: storedKey(node) }, (answer, serverIdentity) => {
      const row = first(answer)
      if (row === undefined) return undefined
      const watchers = row.watchers === null ? [] : meta.watchers.mapFromDriverValue(String(row.watchers))
      return {
        ...stateOf(row),
        ...facts(row, serverIdentity),
        watchers: watchers as readonly string[],
        ...foundIn(row),
      }
    })
  }

  look(): Query<Look> {
    const sql = `
      with found as (
        select ${listOf(leases)} from coordination_leases
        where namespace = @namespace and [key] in (
          select [key] from coordination_leases where namespace = @namespace and [pending] = 1
          union all
          select l.[key] from coordination_nodes as n
          join coordination_leases as l on l.namespace = @namespace and l.[holder] = n.[id]
          where n.namespace = @namespace and n.[state] = N'gone'))
      select (
          select [id] as [id], [beat] as [beat] from coordination_nodes
          where namespace = @namespace and [state] <> N'gone' for json path) as [nodes],
        ${aboutFound('select [worker] from found where [worker] is not null')}`
    return this.#query(sql, {}, (answer) => {
      const row = first(answer) ?? {}
      return { nodes: beatsOf(row.nodes), ...foundIn(row) }
    })
  }

  beats(after: string, most: number): Query<Beat[]> {
    const sql = `select top (@most) [id], [beat] from coordination_nodes
      where namespace = @namespace and [state] <> N'gone' and [id] > @after order by [id]`
    return this.#query(sql, { after: storedKey(after), most }, ([rows = []]) =>
      rowsOf<NodeRow>(nodes)(rows).map(({ id, beat }) => ({ id, beat })),
    )
  }

  neighbours(machine: string): Query<Neighbour[]> {
    const sql = `select [id], [process] from coordination_nodes
      where [machine] = @machine and namespace = @namespace and [state] <> N'gone' and [process] is not null`
    return this.#query(sql, { machine: storedKey(machine) }, ([rows = []]) =>
      rowsOf<NodeRow>(nodes)(rows)
        .map(({ id, process }) => ({ id, process: String(process) }))
        .sort(byId),
    )
  }

  /** A revision row with the number 0 is left by a first change that was undone. It means the same as no row. */
  namespaces(most: number): Query<string[]> {
    const sql =
      'select top (@most) [namespace] from coordination_meta where [revision] > 0 order by [namespace]'
    return this.#query(sql, { most }, ([rows = []]) => rows.map(({ namespace }) => String(namespace)))
  }

  snapshot(): Query<Snapshot> {
    const all = (table: MsSqlTable, name: string): string =>
      `(select ${listOf(table)} from ${getTableName(table)} where namespace = @namespace for json path) as ${name}`
    const sql = `select ${nowMs} as [now_ms], ${all(meta, '[meta]')}, ${all(nodes, '[nodes]')},
      ${all(workers, '[workers]')}, ${all(leases, '[leases]')}`
    return this.#query(sql, {}, (answer) => {
      const row = first(answer) ?? {}
      return {
        nowMs: Number(row.now_ms),
        meta: rowsOf<MetaRow>(meta)(records(row.meta))[0] ?? beforeAnyChange,
        nodes: rowsOf<NodeRow>(nodes)(records(row.nodes)).sort(byAge),
        workers: rowsOf<WorkerRow>(workers)(records(row.workers)).sort(byKey),
        leases: rowsOf<LeaseRow>(leases)(records(row.leases)).sort(byKey),
      }
    })
  }

  leasesAfter(after: string, most: number): Query<LeaseRow[]> {
    const sql = `select top (@most) ${listOf(leases)} from coordination_leases
      where namespace = @namespace and [key] > @after order by [key]`
    return this.#query(sql, { after: storedKey(after), most }, ([rows = []]) =>
      rowsOf<LeaseRow>(leases)(rows),
    )
  }

  events({ limit, after, types, subject }: EventQuery): Query<EventRow[]> {
    const way = after === undefined ? 'desc' : 'asc'
    const place = 'and ([revision] > @revision or ([revision] = @revision and [position] > @position))'
    const conditions = [
      after && place,
      types && `and [type] in (${listed('types')})`,
      subject === undefined ? undefined : 'and [subject] = @subject',
    ]
    const sql = `select top (@limit) ${listOf(events)} from coordination_events
      where namespace = @namespace ${conditions.filter(Boolean).join(' ')}
      order by [revision] ${way}, [position] ${way}`
    const parameters = {
      limit,
      ...after,
      ...(types && { types: given(types) }),
      ...(subject === undefined ? {} : { subject: storedKey(subject) }),
    }
    return this.#query(sql, parameters, ([rows = []]) => rowsOf<EventRow>(events)(rows))
  }

  prune({ eventsForMs, events: kept, goneNodesForMs }: Retention): Query<boolean> {
    const named = (column: string): string =>
      `not exists (select 1 from coordination_leases as l where l.namespace = @namespace and l.${column} = n.[id])`
    const sql = `
      declare @revision bigint, @position bigint, @events int, @nodes int
      select @revision = [revision], @position = [position] from coordination_events where namespace = @namespace
        order by [revision] desc, [position] desc offset @kept rows fetch next 1 rows only
      delete top (${prunedAtOnce}) from coordination_events where namespace = @namespace and (
        [at_ms] < ${nowMs} - @eventsForMs or [revision] < @revision
        or ([revision] = @revision and [position] <= @position))
      set @events = @@rowcount
      delete top (${prunedAtOnce}) n from coordination_nodes as n
      where n.namespace = @namespace and n.[state] = N'gone' and n.[gone_at_ms] < ${nowMs} - @goneNodesForMs
        and ${['[holder]', '[target]', '[blocked_node]'].map(named).join(' and ')}
      set @nodes = @@rowcount
      select @events as [events], @nodes as [nodes]`
    const read = (answer: Answer): boolean => {
      const { events, nodes } = first(answer) ?? {}
      return Math.max(Number(events), Number(nodes)) === prunedAtOnce
    }
    return this.#query(sql, { kept, eventsForMs, goneNodesForMs }, read, 3)
  }

  /** Whether a claim is true, checked from outside the user's transaction. */
  claim(key: string, node: string, token: number): Query<boolean> {
    const parameters = { key: storedKey(key), node: storedKey(node), token }
    return this.#query(
      `select 1 as [found] where ${claimed('')}`,
      parameters,
      ([rows = []]) => rows.length > 0,
    )
  }

  /**
   * Creates the revision row, for the first change of a namespace. If two nodes do so at once, one of them gets a
   * duplicate error.
   */
  found(): Query<void> {
    const { watchers, serverIdentity } = beforeAnyChange
    const sql = `
      insert into coordination_meta
        (namespace, [revision], [watchers], [longest_ttl_ms], [token_floor], [server_identity], [identity_settled])
      values (@namespace, 0, @watchers, 0, 0, @serverIdentity, 1)`
    return this.#query(sql, { watchers, serverIdentity }, () => undefined)
  }

  /**
   * Takes the next number, which waits for all earlier changes; checks whether any lease is fenced; stamps the
   * session; and reads the time, in a separate statement, so that the time is not older than the changes that were
   * waited for. Returns undefined when there was no row to take, even if another node has created one by the time of
   * the read.
   */
  take(
    session: { node: string; operation: number } | undefined,
    everything: string,
  ): Query<TakenHere | undefined> {
    const stamp = `
      update coordination_nodes set [operation] = @operation
      where namespace = @namespace and [id] = @node and [state] <> N'gone' and [operation] < @operation
      set @stamped = @@rowcount`
    const sql = `
      declare @taken int, @stamped int = 0, @free int = -1
      update coordination_meta set [revision] = [revision] + 1 where namespace = @namespace
      set @taken = @@rowcount
      if @taken > 0
        exec @free = sp_getapplock @Resource = @everything, @LockMode = N'IntentExclusive', @LockOwner = N'Transaction',
          @LockTimeout = 0
      ${session === undefined ? '' : stamp}
      select ${nowMs} as [now_ms], @free as [free], ${listOf(meta)} from coordination_meta
        where namespace = @namespace and @taken > 0
      ${session === undefined ? '' : `select ${listOf(nodes)} from coordination_nodes where namespace = @namespace and [id] = @node and @stamped > 0`}`
    const parameters = {
      everything,
      ...(session && { node: storedKey(session.node), operation: session.operation }),
    }
    const read = (answer: Answer, serverIdentity: string): TakenHere | undefined => {
      const row = first(answer)
      return (
        row && {
          nowMs: Number(row.now_ms),
          serverIdentity,
          noFences: Number(row.free) >= 0,
          meta: rowsOf<MetaRow>(meta)([row])[0] ?? beforeAnyChange,
          session: rowsOf<NodeRow>(nodes)(answer[1] ?? [])[0],
        }
      )
    }
    return this.#query(sql, parameters, read, session === undefined ? 2 : 4)
  }

  nodes(): Query<NodeRow[]> {
    const sql = `select ${listOf(nodes)} from coordination_nodes where namespace = @namespace and [state] <> N'gone'`
    return this.#query(sql, {}, ([rows = []]) => rowsOf<NodeRow>(nodes)(rows).sort(byAge))
  }

  nodesById(ids: readonly string[]): Query<NodeRow[]> {
    const sql = `select ${listOf(nodes)} from coordination_nodes
      where namespace = @namespace and [id] in (${listed('ids')})`
    return this.#query(sql, { ids: given(ids) }, ([rows = []]) => rowsOf<NodeRow>(nodes)(rows).sort(byAge))
  }

  workers(keys: readonly string[]): Query<WorkerRow[]> {
    const sql = `select ${listOf(workers)} from coordination_workers
      where namespace = @namespace and [key] in (${listed('keys')})`
    return this.#query(sql, { keys: given(keys) }, ([rows = []]) =>
      rowsOf<WorkerRow>(workers)(rows).sort(byKey),
    )
  }

  /** The leases come with what a change asks for next: their workers, and the nodes that they name. */
  leases({ keys = [], workers = [], nodes = [] }: LeaseFilter): Query<Found<LeaseRow>> {
    const by = (column: string): string =>
      `select [key] from coordination_leases where namespace = @namespace and ${column} in (${listed('nodes')})`
    const ofWorkers = `select [key] from coordination_leases
      where namespace = @namespace and [worker] in (${listed('workers')})`
    const ways = [
      ...(keys.length > 0 ? [listed('keys')] : []),
      ...(workers.length > 0 ? [ofWorkers] : []),
      ...(nodes.length > 0 ? ['[holder]', '[target]', '[blocked_node]'].map(by) : []),
    ]
    const sql = `
      with found as (
        select ${listOf(leases)} from coordination_leases
        where namespace = @namespace and [key] in (${ways.join(' union all ')}))
      select ${withWorkers('select [worker] from found')}, ${theirNodes}`
    const lists = Object.entries({ keys, workers, nodes }).filter(([, list]) => list.length > 0)
    const parameters = Object.fromEntries(lists.map(([name, list]) => [name, given(list)]))
    return this.#query(sql, parameters, (answer) => foundLeases(first(answer) ?? {}))
  }

  loads(): Query<Load[]> {
    const sql = `
      select n.[id] as [id], count(l.[bearer]) as [leases] from coordination_nodes as n
      left join (
        select [target] as [bearer] from coordination_leases where namespace = @namespace and [target] is not null
        union all
        select [holder] from coordination_leases
        where namespace = @namespace and [holder] is not null and [target] is null) as l
        on l.[bearer] = n.[id]
      where n.namespace = @namespace and n.[state] <> N'gone' group by n.[id]`
    return this.#query(sql, {}, ([rows = []]) =>
      rows.map((row) => ({ node: readId(row.id), leases: Number(row.leases) })),
    )
  }

  highestToken(): Query<number> {
    const sql =
      'select isnull(max([token]), 0) as [highest] from coordination_leases where namespace = @namespace'
    return this.#query(sql, {}, (answer) => Number(first(answer)?.highest))
  }

  insert(table: MsSqlTable, row: object): Query<void> {
    const { names, parameters } = this.#given(table, row)
    const values = names.map((_, at) => `@value${at}`)
    const sql = `insert into ${getTableName(table)} (namespace, ${names.join(', ')})
      values (@namespace, ${values.join(', ')})`
    return this.#query(sql, parameters, () => undefined)
  }

  /**
   * Alters the row of a node that is not gone, if its beat is still `beat` where that is given. Returns whether it
   * did.
   */
  updateNode(id: string, patch: object, beat?: number): Query<boolean> {
    const { names, parameters } = this.#given(nodes, patch)
    const sameBeat = beat === undefined ? '' : 'and [beat] = @beat'
    const sql = `update coordination_nodes set ${assigned(names)} output inserted.[id] as [id]
      where namespace = @namespace and [id] = @node and [state] <> N'gone' ${sameBeat}`
    const all = { ...parameters, node: storedKey(id), ...(beat === undefined ? {} : { beat }) }
    return this.#query(sql, all, ([rows = []]) => rows.length > 0)
  }

  forgetNode(id: string): Query<void> {
    const sql = `delete from coordination_nodes where namespace = @namespace and [id] = @node and [state] = N'gone'`
    return this.#query(sql, { node: storedKey(id) }, () => undefined)
  }

  forgetWorker(key: string): Query<void> {
    const sql = 'delete from coordination_workers where namespace = @namespace and [key] = @key'
    return this.#query(sql, { key: storedKey(key) }, () => undefined)
  }

  updateMeta(patch: object): Query<void> {
    const { names, parameters } = this.#given(meta, patch)
    const sql = `update coordination_meta set ${assigned(names)} where namespace = @namespace`
    return this.#query(sql, parameters, () => undefined)
  }

  deleteLeases(keys: readonly string[]): Query<void> {
    const sql = `delete from coordination_leases where namespace = @namespace and [key] in (${listed('keys')})`
    return this.#query(sql, { keys: given(keys) }, () => undefined)
  }

  /**
   * Writes everything that a change has gathered, in one round trip. `evenNothing` includes the statements for empty
   * lists as well.
   */
  write(
    { revision, leases: rows, workers: kept, events: happened, told }: Gathered & { revision: number },
    evenNothing = false,
  ): Query<void> {
    const names = (list: readonly unknown[]): boolean => evenNothing || list.length > 0
    const parts = [
      ...(names(rows) ? [replaced(leases, 'leases'), inserted(leases, 'leases')] : []),
      ...(names(kept) ? [replaced(workers, 'workers'), inserted(workers, 'workers')] : []),
      ...(names(happened) ? [inserted(events, 'events')] : []),
      ...(names(told) ? [news] : []),
    ]
    const parameters = {
      revision,
      ...(names(rows) && { leases: storable(leases, rows) }),
      ...(names(kept) && { workers: storable(workers, kept) }),
      ...(names(happened) && { events: storable(events, happened) }),
      ...(names(told) && { told: given(told) }),
    }
    return this.#query(parts.join('\n'), parameters, () => undefined, parts.length)
  }

  #query<T>(
    sql: string,
    parameters: Parameters,
    read: (answer: Answer, identity: string) => T,
    statements = 1,
  ): Query<T> {
    const given = {
      namespace: this.#namespace,
      ...parameters,
      ...(sql.includes('@escaped') ? alphabets : {}),
    }
    return { sql, parameters: given, statements, read }
  }

  /** Returns the given columns and their values, as parameters in the order of the names. */
  #given(table: MsSqlTable, row: object): { names: string[]; parameters: Parameters } {
    const columns = columnsOf(table)
    const given = Object.entries(row).flatMap(([property, value]) => {
      const column = columns[property]
      return column === undefined ? [] : [{ name: `[${column.name}]`, value: written(column, value) }]
    })
    const parameters = given.map(({ value }, at) => [`value${at}`, value] as const)
    return { names: given.map(({ name }) => name), parameters: Object.fromEntries(parameters) }
  }
}

/**
 * Returns the requests that sessions depend on, for a namespace and a node that cannot exist: they touch no row and
 * wait for none. A server that has answered them has parsed and planned them, which may take longer than a verb may.
 */
export function rehearsals() {
  const queries = new Queries('')
  return {
    ofHeartbeats: [queries.heartbeat('', 0)],
    ofChanges: [
      queries.take({ node: '', operation: 0 }, ''),
      queries.view(''),
      queries.look(),
      queries.loads(),
      queries.write({ revision: 0, leases: [], workers: [], events: [], told: [] }, true),
    ],
  }
}

/** What a change knows once it has begun. */
export interface TakenHere extends Taken {
  /** Whether no transaction has fenced any lease of the namespace. Then none will until this change has ended. */
  readonly noFences: boolean
}

/** Milliseconds since 1970 when the statement begins. */
const nowMs = "datediff_big(ms, cast('1970-01-01' as datetime2), sysutcdatetime())"

/** Returns the condition that a lease is held as `@key`, `@node` and `token` claim, and that its holder is not gone. */
export function claimed(schema: string, token = '@token'): string {
  return `exists (
    select 1 from ${schema}coordination_leases as l
    join ${schema}coordination_nodes as n on n.namespace = l.namespace and n.[id] = l.[holder]
    where l.namespace = @namespace and l.[key] = @key and l.[holder] = @node and l.[token] = ${token}
      and n.[state] <> N'gone')`
}

/** The leases in `found`, the named workers, and which holders and blocked nodes of those leases are gone. */
function aboutFound(workerKeys: string): string {
  return `${withWorkers(workerKeys)},
    (select distinct named.[id] as [id] from (
        select [holder] as [id] from found union all select [blocked_node] from found) as named
      where named.[id] is not null and not exists (
        select 1 from coordination_nodes as n
        where n.namespace = @namespace and n.[id] = named.[id] and n.[state] <> N'gone')
      for json path) as [gone]`
}

/** The leases in `found`, and the named workers. */
function withWorkers(workerKeys: string): string {
  return `
    (select ${listOf(leases)} from found for json path) as [leases],
    (select ${listOf(workers)} from coordination_workers
      where namespace = @namespace and [key] in (${workerKeys}) for json path) as [workers]`
}

/** The nodes that hold the leases in `found`, block them, or cool down. */
const theirNodes = `
    (select ${listOf(nodes)} from coordination_nodes
      where namespace = @namespace and [id] in (
        select [holder] from found union all select [blocked_node] from found
        union all select [cooldown_node] from found) for json path) as [nodes]`

function assigned(names: readonly string[]): string {
  return names.map((name, at) => `${name} = @value${at}`).join(', ')
}

const news = `update coordination_nodes set [news_revision] = @revision
    where namespace = @namespace and [state] <> N'gone' and [id] in (${listed('told')})`
