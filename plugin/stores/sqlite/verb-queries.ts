/** The statements of the verbs that are not part of a change. */
import { and, asc, desc, eq, gt, inArray, isNotNull, lt, notInArray, or, type SQL, sql } from 'drizzle-orm'
import { alias } from 'drizzle-orm/sqlite-core'
import {
  type Beat,
  beforeAnyChange,
  type EventQuery,
  type EventRow,
  type LeaseRow,
  type Look,
  type MetaRow,
  type Neighbour,
  type OwnView,
  prunedAtOnce,
  type Retention,
  type ServerFacts,
  type Snapshot,
} from '../../core/store.js'
import { prepareWorkers } from './change-queries.js'
import { events, leases, meta, nodes, workers } from './schema.js'
import {
  alive,
  eventColumns,
  given,
  leaseColumns,
  leasesWhere,
  listed,
  metaColumns,
  nodeColumns,
  ourEvents,
  ourLeases,
  ourMeta,
  ourNodes,
  ourWorkers,
  type Place,
  thisNode,
  workerColumns,
} from './terms.js'

/** What a read finds. The caller adds the clock and the identity of the server. */
type Unstamped<T extends ServerFacts | Snapshot> = Omit<T, 'nowMs' | 'serverIdentity'>

/** What a heartbeat finds: its own row, the watchers, and what is recorded about the server. */
type Pulse = Pick<
  OwnView,
  'state' | 'newsRevision' | 'recordedIdentity' | 'identitySettled' | 'longestTtlMs'
> & {
  readonly watchers: readonly Beat[]
}

export function prepareVerbs(at: Place) {
  return {
    heartbeat: prepareHeartbeat(at),
    view: prepareView(at),
    news: prepareNews(at),
    newsOf: prepareNewsOf(at),
    look: prepareLook(at),
    beats: prepareBeats(at),
    neighbours: prepareNeighbours(at),
    snapshot: prepareSnapshot(at),
    leasesAfter: prepareLeasesAfter(at),
    namespaces: prepareNamespaces(at),
    events: prepareEvents(at),
    prune: preparePrune(at),
    dataVersion: prepareDataVersion(at),
  }
}

/** The same statement returns the watchers. The node itself is left out, because it knows its own beat. */
function prepareHeartbeat(at: Place) {
  const { db, namespace } = at
  const watching = alias(nodes, 'watching')
  const named = sql`(select value from ${meta}, json_each(${meta.watchers}) where ${ourMeta(at)})`
  const watchers = sql`(
    select json_group_array(json_object('id', ${watching.id}, 'beat', ${watching.beat}))
    from ${nodes} as ${sql.identifier('watching')}
    where ${watching.namespace} = ${namespace} and ${watching.id} in ${named}
      and ${watching.state} <> 'gone' and ${watching.id} <> ${given('node')})`
  const statement = db
    .update(nodes)
    .set({ heartbeatAtMs: given('nowMs'), beat: given('beat') })
    .where(and(thisNode(at), lt(nodes.beat, given('beat'))))
    .returning({
      state: nodes.state,
      newsRevision: nodes.newsRevision,
      ...recorded(at),
      watchers: watchers.mapWith((text): Beat[] => JSON.parse(String(text))),
    })
    .prepare()
  return (node: string, beat: number, nowMs: number): Pulse | undefined => {
    // If asked for one row only, the driver would not report that the row could not be committed, for example on a
    // full disk.
    const [pulse] = statement.all({ node, beat, nowMs })
    return pulse
  }
}

/** What is recorded of the server, or what holds before the first change where there is no revision row. */
function recorded(at: Place) {
  return {
    recordedIdentity: ofMeta(at, 'serverIdentity').mapWith(meta.serverIdentity),
    identitySettled: ofMeta(at, 'identitySettled').mapWith(meta.identitySettled),
    longestTtlMs: ofMeta(at, 'longestTtlMs').mapWith(meta.longestTtlMs),
  }
}

function ofMeta(at: Place, property: keyof MetaRow): SQL {
  const column = meta[property]
  const otherwise = sql.param(beforeAnyChange[property], column)
  return sql`coalesce((select ${column} from ${meta} where ${ourMeta(at)}), ${otherwise})`
}

function prepareView(at: Place) {
  const { client, db } = at
  const own = db
    .select({
      state: nodes.state,
      newsRevision: nodes.newsRevision,
      standsFor: nodes.workers,
      watchers: ofMeta(at, 'watchers').mapWith(meta.watchers),
      ...recorded(at),
    })
    .from(nodes)
    .where(thisNode(at))
    .prepare()
  const coordinated = db
    .select({ key: workers.key })
    .from(workers)
    .where(and(ourWorkers(at), eq(workers.kind, 'coordinated'), inArray(workers.key, listed('workers'))))
  const node = given('node')
  const concerned = leasesWhere(
    at,
    eq(leases.holder, node),
    eq(leases.target, node),
    eq(leases.blockedNode, node),
    inArray(leases.worker, coordinated),
  )
  const related = prepareRelated(at)

  const read = (node: string): Unstamped<OwnView> | undefined => {
    const found = own.get({ node })
    if (found === undefined) return undefined
    const { standsFor, ...facts } = found
    const rows = concerned.all({ node, workers: JSON.stringify(standsFor) })
    return { ...facts, leases: rows, ...related(rows, standsFor) }
  }
  const readAlone = client.transaction(read)
  // A change reads in the transaction that it has open. A nested one would cost two more statements.
  return (node: string): Unstamped<OwnView> | undefined =>
    client.inTransaction ? read(node) : readAlone(node)
}

function prepareNews(at: Place) {
  const statement = at.db
    .select({ newsRevision: nodes.newsRevision })
    .from(nodes)
    .where(thisNode(at))
    .prepare()
  return (node: string): number | undefined => statement.get({ node })?.newsRevision
}

function prepareNewsOf(at: Place) {
  const statement = at.db
    .select({ id: nodes.id, newsRevision: nodes.newsRevision })
    .from(nodes)
    .where(and(alive(at), inArray(nodes.id, listed('ids'))))
    .prepare()
  return (ids: readonly string[]): Map<string, number> =>
    new Map(statement.all({ ids: JSON.stringify(ids) }).map(({ id, newsRevision }) => [id, newsRevision]))
}

function prepareLook(at: Place) {
  const { client, db } = at
  const beats = db.select({ id: nodes.id, beat: nodes.beat }).from(nodes).where(alive(at)).prepare()
  const gone = db.select({ id: nodes.id }).from(nodes).where(isGone(at))
  const watched = leasesWhere(at, eq(leases.pending, true), inArray(leases.holder, gone))
  const related = prepareRelated(at)

  const read = client.transaction((): Look => {
    const rows = watched.all()
    return { nodes: beats.all(), leases: rows, ...related(rows) }
  })
  return (): Look => read()
}

function prepareBeats(at: Place) {
  const statement = at.db
    .select({ id: nodes.id, beat: nodes.beat })
    .from(nodes)
    .where(and(alive(at), gt(nodes.id, given('after'))))
    .orderBy(asc(nodes.id))
    .limit(given('most'))
    .prepare()
  return (after: string, most: number): Beat[] => statement.all({ after, most })
}

function prepareNeighbours(at: Place) {
  const statement = at.db
    .select({ id: nodes.id, process: sql<string>`${nodes.process}` })
    .from(nodes)
    .where(and(alive(at), eq(nodes.machine, given('machine')), isNotNull(nodes.process)))
    .orderBy(asc(nodes.id))
    .prepare()
  return (machine: string): Neighbour[] => statement.all({ machine })
}

function prepareNamespaces(at: Place) {
  const statement = at.db
    .select({ namespace: meta.namespace })
    .from(meta)
    .orderBy(asc(meta.namespace))
    .limit(given('most'))
    .prepare()
  return (most: number): string[] => statement.all({ most }).map(({ namespace }) => namespace)
}

/** Returns the workers of these leases, and which of their holders and blocked nodes are gone or unknown. */
function prepareRelated(at: Place) {
  const workersByKey = prepareWorkers(at)
  const living = at.db
    .select({ id: nodes.id })
    .from(nodes)
    .where(and(alive(at), inArray(nodes.id, listed('nodes'))))
    .prepare()

  return (rows: readonly LeaseRow[], alsoWorkers: readonly string[] = []) => {
    const keys = new Set(alsoWorkers)
    const gone = new Set<string>()
    for (const { worker, holder, blockedNode } of rows) {
      if (worker !== null) keys.add(worker)
      if (holder !== null) gone.add(holder)
      if (blockedNode !== null) gone.add(blockedNode)
    }
    // Most looks find no lease, and then there is nothing to look up.
    if (gone.size > 0) for (const { id } of living.all({ nodes: JSON.stringify([...gone]) })) gone.delete(id)
    return { workers: keys.size > 0 ? workersByKey([...keys]) : [], gone }
  }
}

function prepareSnapshot(at: Place) {
  const { client, db } = at
  const metaRow = db.select(metaColumns).from(meta).where(ourMeta(at)).prepare()
  const oldestFirst = [asc(nodes.joinedRevision), asc(nodes.id)]
  const allNodes = db
    .select(nodeColumns)
    .from(nodes)
    .where(ourNodes(at))
    .orderBy(...oldestFirst)
    .prepare()
  const allWorkers = db
    .select(workerColumns)
    .from(workers)
    .where(ourWorkers(at))
    .orderBy(workers.key)
    .prepare()
  const allLeases = db.select(leaseColumns).from(leases).where(ourLeases(at)).orderBy(leases.key).prepare()

  const read = client.transaction(
    (): Unstamped<Snapshot> => ({
      meta: metaRow.get() ?? beforeAnyChange,
      nodes: allNodes.all(),
      workers: allWorkers.all(),
      leases: allLeases.all(),
    }),
  )
  return (): Unstamped<Snapshot> => read()
}

function prepareLeasesAfter(at: Place) {
  const statement = at.db
    .select(leaseColumns)
    .from(leases)
    .where(and(ourLeases(at), gt(leases.key, given('after'))))
    .orderBy(asc(leases.key))
    .limit(given('most'))
    .prepare()
  return (after: string, most: number): LeaseRow[] => statement.all({ after, most })
}

function prepareEvents(at: Place) {
  return ({ limit, after, types, subject }: EventQuery): EventRow[] => {
    const place = sql`(${events.revision}, ${events.position})`
    const way = after === undefined ? desc : asc
    return at.db
      .select(eventColumns)
      .from(events)
      .where(
        and(
          ourEvents(at),
          after && sql`${place} > (${after.revision}, ${after.position})`,
          types && inArray(events.type, [...types]),
          subject === undefined ? undefined : eq(events.subject, subject),
        ),
      )
      .orderBy(way(events.revision), way(events.position))
      .limit(limit)
      .all()
  }
}

function preparePrune(at: Place) {
  const { client, db } = at
  const newestBeyond = db
    .select({ revision: events.revision, position: events.position })
    .from(events)
    .where(ourEvents(at))
    .orderBy(desc(events.revision), desc(events.position))
    .limit(1)
    .offset(given('kept'))
  const place = sql`(${events.revision}, ${events.position})`
  const oldEvents = db
    .select({ revision: events.revision, position: events.position })
    .from(events)
    .where(and(ourEvents(at), or(lt(events.atMs, given('beforeMs')), sql`${place} <= (${newestBeyond})`)))
    .orderBy(asc(events.revision), asc(events.position))
    .limit(prunedAtOnce)
  const deleteEvents = db
    .delete(events)
    .where(and(ourEvents(at), sql`${place} in (${oldEvents})`))
    .prepare()
  const goneNodes = db
    .select({ id: nodes.id })
    .from(nodes)
    .where(and(isGone(at), lt(nodes.goneAtMs, given('beforeMs')), notInArray(nodes.id, namedByLeases(at))))
    .limit(prunedAtOnce)
  const deleteNodes = db
    .delete(nodes)
    .where(and(ourNodes(at), inArray(nodes.id, goneNodes)))
    .prepare()

  const prune = client.transaction((retention: Retention, nowMs: number): boolean => {
    const { changes: fewerEvents } = deleteEvents.run({
      kept: retention.events,
      beforeMs: nowMs - retention.eventsForMs,
    })
    const { changes: fewerNodes } = deleteNodes.run({ beforeMs: nowMs - retention.goneNodesForMs })
    return Math.max(fewerEvents, fewerNodes) === prunedAtOnce
  })
  return (retention: Retention, nowMs: number): boolean => prune.immediate(retention, nowMs)
}

function isGone(at: Place): SQL | undefined {
  return and(ourNodes(at), eq(nodes.state, 'gone'))
}

function namedByLeases(at: Place): SQL {
  const named = [leases.holder, leases.target, leases.blockedNode].map(
    (column) => sql`select ${column} from ${leases} where ${ourLeases(at)} and ${column} is not null`,
  )
  return sql`(${sql.join(named, sql` union all `)})`
}

/** Returns a number that changes when another connection has committed something to the file. */
function prepareDataVersion({ client }: Place) {
  const statement = client.prepare<[], number>('PRAGMA data_version').pluck()
  return (): number | undefined => statement.get()
}
