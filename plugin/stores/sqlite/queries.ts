/**
 * Every statement on our rows, all of them synchronous, as the driver is.
 *
 * They are prepared once per open database: building one anew costs several times what running it does.
 * Lists go in as one JSON text each, so that the statement stays the same and no list is too long for it;
 * many rows go in one by one, which within a transaction costs next to nothing.
 */
import type { Database } from 'better-sqlite3'
import {
  and,
  asc,
  type Column,
  desc,
  eq,
  getColumns,
  gt,
  inArray,
  isNotNull,
  isNull,
  lt,
  lte,
  max,
  ne,
  notInArray,
  or,
  type Placeholder,
  type SQL,
  sql,
} from 'drizzle-orm'
import { type BetterSQLite3Database, drizzle } from 'drizzle-orm/better-sqlite3'
import { alias } from 'drizzle-orm/sqlite-core'
import type {
  Beat,
  EventQuery,
  EventRow,
  LeaseFilter,
  LeaseRow,
  Load,
  Look,
  MetaRow,
  Neighbour,
  NewEvent,
  NewNode,
  NodePatch,
  NodeRow,
  OwnView,
  Retention,
  ServerFacts,
  Snapshot,
  WorkerRow,
} from '../../core/store.js'
import type { Statements } from '../shared/statements.js'
import { events, leases, meta, nodes, workers } from './schema.js'

const { namespace: _ofNode, ...nodeColumns } = getColumns(nodes)
const { namespace: _ofWorker, ...workerColumns } = getColumns(workers)
const { namespace: _ofLease, ...leaseColumns } = getColumns(leases)
const { namespace: _ofEvent, ...eventColumns } = getColumns(events)
const { namespace: _ofMeta, ...metaColumns } = getColumns(meta)

/** What a read finds; the clock and the identity of the server are added by those who know them. */
export type Unstamped<T extends ServerFacts | Snapshot> = Omit<T, 'nowMs' | 'serverIdentity'>

/** What a heartbeat finds: its own row, and beside it the watchers and what is recorded of the server. */
export type Pulse = Pick<
  OwnView,
  'state' | 'newsRevision' | 'recordedIdentity' | 'identitySettled' | 'longestTtlMs'
> & {
  readonly watchers: readonly Beat[]
}

/** The statements of one namespace on one open database. */
export type Queries = ReturnType<typeof prepareQueries>

/** Prepares all statements. The tables must exist. */
export function prepareQueries(client: Database, namespace: string, statements: Statements) {
  const at: Place = { client, db: drizzle({ client, logger: statements }), namespace }
  return { ...prepareVerbs(at), ...prepareReads(at), ...prepareWrites(at) }
}

interface Place {
  readonly client: Database
  readonly db: BetterSQLite3Database
  readonly namespace: string
}

function prepareVerbs(at: Place) {
  return {
    heartbeat: prepareHeartbeat(at),
    view: prepareView(at),
    news: prepareNews(at),
    newsOf: prepareNewsOf(at),
    look: prepareLook(at),
    beats: prepareBeats(at),
    neighbours: prepareNeighbours(at),
    snapshot: prepareSnapshot(at),
    events: prepareEvents(at),
    prune: preparePrune(at),
    dataVersion: prepareDataVersion(at),
  }
}

/** The watchers come with the same statement. The asking node is left out: its beat is its own news. */
function prepareHeartbeat(at: Place) {
  const { db, namespace } = at
  const watching = alias(nodes, 'watching')
  const named = sql`(select value from ${meta}, json_each(${meta.watchers}) where ${ourMeta(at)})`
  const watchers = sql`(
    select json_group_array(json_object('id', ${watching.id}, 'beat', ${watching.beat}))
    from ${nodes} as ${sql.identifier('watching')}
    where ${watching.namespace} = ${namespace} and ${watching.id} in ${named}
      and ${watching.state} <> 'gone' and ${watching.id} <> ${given('node')})`
  const ofMeta = (column: Column): SQL => sql`(select ${column} from ${meta} where ${ourMeta(at)})`
  const statement = db
    .update(nodes)
    .set({ heartbeatAtMs: given('nowMs'), beat: given('beat') })
    .where(and(thisNode(at), lt(nodes.beat, given('beat'))))
    .returning({
      state: nodes.state,
      newsRevision: nodes.newsRevision,
      recordedIdentity: ofMeta(meta.serverIdentity).mapWith(meta.serverIdentity),
      identitySettled: ofMeta(meta.identitySettled).mapWith(meta.identitySettled),
      longestTtlMs: ofMeta(meta.longestTtlMs).mapWith(meta.longestTtlMs),
      watchers: watchers.mapWith((text): Beat[] => JSON.parse(String(text))),
    })
    .prepare()
  return (node: string, beat: number, nowMs: number): Pulse | undefined =>
    statement.get({ node, beat, nowMs })
}

function prepareView(at: Place) {
  const { client, db } = at
  const own = db
    .select({
      state: nodes.state,
      newsRevision: nodes.newsRevision,
      standsFor: nodes.workers,
      watchers: meta.watchers,
      recordedIdentity: meta.serverIdentity,
      identitySettled: meta.identitySettled,
      longestTtlMs: meta.longestTtlMs,
    })
    .from(nodes)
    .innerJoin(meta, eq(meta.namespace, nodes.namespace))
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
  // A change reads in the transaction it has open; in it, another one would be two statements more.
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
  const living = db.select({ id: nodes.id }).from(nodes).where(alive(at))
  const deserted = and(isNotNull(leases.holder), notInArray(leases.holder, living))
  const watched = leasesWhere(at, eq(leases.pending, true), deserted)
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

/** The workers of these leases, and who of the nodes they name as holder or blocked is gone or unknown. */
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
    // Most looks find no lease, and then there is nothing to ask about.
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

/** What a namespace without a revision row is like. */
const beforeAnyChange: MetaRow = {
  revision: 0,
  watchers: [],
  longestTtlMs: 0,
  tokenFloor: 0,
  serverIdentity: '',
  identitySettled: true,
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
  const beyond = sql`(${events.revision}, ${events.position}) <= (${newestBeyond})`
  const oldEvents = db
    .delete(events)
    .where(and(ourEvents(at), or(lte(events.atMs, given('beforeMs')), beyond)))
    .prepare()
  const longGone = and(ourNodes(at), eq(nodes.state, 'gone'), lte(nodes.goneAtMs, given('beforeMs')))
  const goneNodes = db
    .delete(nodes)
    .where(and(longGone, notInArray(nodes.id, namedByLeases(at))))
    .prepare()

  const prune = client.transaction((retention: Retention, nowMs: number): void => {
    oldEvents.run({ kept: retention.events, beforeMs: nowMs - retention.eventsForMs })
    goneNodes.run({ beforeMs: nowMs - retention.goneNodesForMs })
  })
  return (retention: Retention, nowMs: number): void => prune.immediate(retention, nowMs)
}

function namedByLeases(at: Place): SQL {
  const named = [leases.holder, leases.target, leases.blockedNode, leases.cooldownNode].map(
    (column) => sql`select ${column} from ${leases} where ${ourLeases(at)} and ${column} is not null`,
  )
  const waiting = sql`
    select waiting.value from ${leases}, json_each(${leases.waiters}) as waiting where ${ourLeases(at)}`
  return sql`(${sql.join([...named, waiting], sql` union all `)})`
}

/** A number that moves when another connection has committed something to the file. */
function prepareDataVersion({ client }: Place) {
  const statement = client.prepare<[], number>('PRAGMA data_version').pluck()
  return (): number | undefined => statement.get()
}

function prepareReads(at: Place) {
  return {
    nodes: prepareNodes(at),
    nodesById: prepareNodesById(at),
    workers: prepareWorkers(at),
    leases: prepareLeases(at),
    loads: prepareLoads(at),
    highestToken: prepareHighestToken(at),
  }
}

function prepareNodes(at: Place) {
  const statement = at.db
    .select(nodeColumns)
    .from(nodes)
    .where(alive(at))
    .orderBy(asc(nodes.joinedRevision), asc(nodes.id))
    .prepare()
  return (): NodeRow[] => statement.all()
}

function prepareNodesById(at: Place) {
  const statement = at.db
    .select(nodeColumns)
    .from(nodes)
    .where(and(ourNodes(at), inArray(nodes.id, listed('ids'))))
    .prepare()
  return (ids: readonly string[]): NodeRow[] => statement.all({ ids: JSON.stringify(ids) })
}

function prepareWorkers(at: Place) {
  const statement = at.db
    .select(workerColumns)
    .from(workers)
    .where(and(ourWorkers(at), inArray(workers.key, listed('keys'))))
    .orderBy(workers.key)
    .prepare()
  return (keys: readonly string[]): WorkerRow[] => statement.all({ keys: JSON.stringify(keys) })
}

/** One statement for each combination of lists: to look through those that are empty costs more than the rest. */
function prepareLeases(at: Place) {
  const byKey = at.db
    .select(leaseColumns)
    .from(leases)
    .where(and(ourLeases(at), inArray(leases.key, listed('keys'))))
    .orderBy(leases.key)
    .prepare()
  const conditions = {
    keys: [inArray(leases.key, listed('keys'))],
    workers: [inArray(leases.worker, listed('workers'))],
    nodes: [leases.holder, leases.target, leases.blockedNode].map((column) =>
      inArray(column, listed('nodes')),
    ),
  }
  const statementFor = onceFor((lists: readonly (keyof typeof conditions)[]) =>
    lists.length === 1 && lists[0] === 'keys'
      ? byKey
      : leasesWhere(at, ...lists.flatMap((list) => conditions[list])),
  )
  return (filter: LeaseFilter): LeaseRow[] => {
    const { keys = [], workers = [], nodes = [] } = filter
    const given = { keys, workers, nodes }
    const lists = (['keys', 'workers', 'nodes'] as const).filter((list) => given[list].length > 0)
    if (lists.length === 0) return []
    const texts = lists.map((list) => [list, JSON.stringify(given[list])])
    return statementFor(lists).all(Object.fromEntries(texts))
  }
}

function prepareLoads(at: Place) {
  const counted = (bearer: Column, condition?: SQL): SQL =>
    sql`(select count(*) from ${leases} where ${and(ourLeases(at), sql`${bearer} = ${nodes.id}`, condition)})`
  const load = sql`${counted(leases.target)} + ${counted(leases.holder, isNull(leases.target))}`
  const statement = at.db
    .select({ node: nodes.id, leases: load.mapWith(Number) })
    .from(nodes)
    .where(alive(at))
    .prepare()
  return (): Load[] => statement.all()
}

function prepareHighestToken(at: Place) {
  const statement = at.db
    .select({ token: max(leases.token) })
    .from(leases)
    .where(ourLeases(at))
    .prepare()
  return (): number => statement.get()?.token ?? 0
}

function prepareWrites(at: Place) {
  return {
    takeRevision: prepareTakeRevision(at),
    recordOperation: prepareRecordOperation(at),
    addNode: prepareAddNode(at),
    updateNode: prepareUpdateNode(at),
    bury: prepareBury(at),
    forgetNode: prepareForgetNode(at),
    saveWorker: prepareSaveWorker(at),
    saveLease: prepareSaveLease(at),
    deleteLeases: prepareDeleteLeases(at),
    saveMeta: prepareSaveMeta(at),
    recordEvent: prepareRecordEvent(at),
    tell: prepareTell(at),
  }
}

/** The first statement of a change: the revision row with its next number. */
function prepareTakeRevision({ db, namespace }: Place) {
  const statement = db
    .insert(meta)
    .values({ ...beforeAnyChange, revision: 1, namespace })
    .onConflictDoUpdate({ target: meta.namespace, set: { revision: sql`${meta.revision} + 1` } })
    .returning(metaColumns)
    .prepare()
  return (): MetaRow => statement.get()
}

function prepareRecordOperation(at: Place) {
  const operation = given('operation')
  const statement = at.db
    .update(nodes)
    .set({ operation })
    .where(and(thisNode(at), lt(nodes.operation, operation)))
    .returning(nodeColumns)
    .prepare()
  return (node: string, operation: number): NodeRow | undefined => statement.get({ node, operation })
}

function prepareAddNode({ db, namespace }: Place) {
  const statement = db
    .insert(nodes)
    .values({ ...allGiven(nodeColumns), namespace })
    .prepare()
  return (node: NewNode, operation: number, revision: number, nowMs: number): void =>
    void statement.run({
      ...node,
      state: 'active',
      operation,
      beat: 0,
      startedAtMs: nowMs,
      heartbeatAtMs: nowMs,
      goneAtMs: null,
      joinedRevision: revision,
      newsRevision: revision,
      revision,
    })
}

/** Nobody comes back from the dead: a node that is gone stays as it is. */
function prepareUpdateNode(at: Place) {
  const statementFor = onceFor((names: readonly string[]) =>
    at.db.update(nodes).set(eachGiven(names)).where(thisNode(at)).prepare(),
  )
  return (id: string, patch: NodePatch, revision: number, nowMs: number): void => {
    const values = { ...patch, ...(patch.state === 'gone' ? { goneAtMs: nowMs } : {}), revision }
    statementFor(Object.keys(values)).run({ ...values, node: id })
  }
}

function prepareBury(at: Place) {
  const gone = eachGiven(['state', 'goneAtMs', 'revision'])
  const anyway = at.db.update(nodes).set(gone).where(thisNode(at)).prepare()
  const ifStill = at.db
    .update(nodes)
    .set(gone)
    .where(and(thisNode(at), eq(nodes.beat, given('beat'))))
    .prepare()
  return (node: string, beat: number | undefined, revision: number, nowMs: number): boolean => {
    const values = { node, state: 'gone', goneAtMs: nowMs, revision }
    const { changes } = beat === undefined ? anyway.run(values) : ifStill.run({ ...values, beat })
    return changes > 0
  }
}

function prepareForgetNode(at: Place) {
  const statement = at.db
    .delete(nodes)
    .where(and(ourNodes(at), eq(nodes.id, given('node')), eq(nodes.state, 'gone')))
    .prepare()
  return (node: string): void => void statement.run({ node })
}

function prepareSaveWorker({ db, namespace }: Place) {
  const statement = db
    .insert(workers)
    .values({ ...allGiven(workerColumns), namespace })
    .onConflictDoUpdate({ target: [workers.namespace, workers.key], set: allOf(workerColumns) })
    .prepare()
  return (row: WorkerRow, revision: number): void => void statement.run({ ...row, revision })
}

function prepareSaveLease({ db, namespace }: Place) {
  const statement = db
    .insert(leases)
    .values({ ...allGiven(leaseColumns), namespace })
    .onConflictDoUpdate({ target: [leases.namespace, leases.key], set: allOf(leaseColumns) })
    .prepare()
  return (row: LeaseRow, revision: number): void => void statement.run({ ...row, revision })
}

function prepareDeleteLeases(at: Place) {
  const statement = at.db
    .delete(leases)
    .where(and(ourLeases(at), inArray(leases.key, listed('keys'))))
    .prepare()
  return (keys: readonly string[]): void => void statement.run({ keys: JSON.stringify(keys) })
}

function prepareSaveMeta(at: Place) {
  const statementFor = onceFor((names: readonly string[]) =>
    at.db.update(meta).set(eachGiven(names)).where(ourMeta(at)).prepare(),
  )
  return (patch: Partial<Omit<MetaRow, 'revision'>>): void => void statementFor(Object.keys(patch)).run(patch)
}

function prepareRecordEvent({ db, namespace }: Place) {
  const statement = db
    .insert(events)
    .values({ ...allGiven(eventColumns), namespace })
    .prepare()
  const unsaid = { node: null, token: null, actor: null, reason: null, detail: null }
  return (event: NewEvent & Pick<EventRow, 'revision' | 'position' | 'atMs'>): void =>
    void statement.run({ ...unsaid, ...event })
}

function prepareTell(at: Place) {
  const statement = at.db
    .update(nodes)
    .set({ newsRevision: given('revision') })
    .where(and(alive(at), inArray(nodes.id, listed('ids'))))
    .prepare()
  return (ids: readonly string[], revision: number): void =>
    void statement.run({ ids: JSON.stringify(ids), revision })
}

function ourNodes({ namespace }: Place): SQL {
  return eq(nodes.namespace, namespace)
}

function alive(at: Place): SQL | undefined {
  return and(ourNodes(at), ne(nodes.state, 'gone'))
}

function thisNode(at: Place): SQL | undefined {
  return and(alive(at), eq(nodes.id, given('node')))
}

function ourWorkers({ namespace }: Place): SQL {
  return eq(workers.namespace, namespace)
}

function ourLeases({ namespace }: Place): SQL {
  return eq(leases.namespace, namespace)
}

function ourEvents({ namespace }: Place): SQL {
  return eq(events.namespace, namespace)
}

function ourMeta({ namespace }: Place): SQL {
  return eq(meta.namespace, namespace)
}

/**
 * The leases that meet at least one of the conditions. Each is looked up by itself: SQLite takes any namespace for
 * a small one, and would rather go through all of its leases than use several indexes.
 */
function leasesWhere(at: Place, ...conditions: ReadonlyArray<SQL | undefined>) {
  const found = conditions.map(
    (condition) => sql`select rowid from ${leases} where ${and(ourLeases(at), condition)}`,
  )
  return at.db
    .select(leaseColumns)
    .from(leases)
    .where(sql`rowid in (${sql.join(found, sql` union all `)})`)
    .orderBy(leases.key)
    .prepare()
}

function given<N extends string>(name: N): Placeholder<N> {
  return sql.placeholder(name)
}

/** The members of a list that is given as JSON text. */
function listed(name: string): SQL {
  return sql`(select value from json_each(${given(name)}))`
}

/** A placeholder of the same name for each of these columns. */
function eachGiven(names: readonly string[]): Record<string, Placeholder> {
  return Object.fromEntries(names.map((name) => [name, given(name)]))
}

/** Makes a statement when it is first asked for, one for each list of names. */
function onceFor<N extends string, S>(make: (names: readonly N[]) => S): (names: readonly N[]) => S {
  const made = new Map<string, S>()
  return (names) => {
    const key = names.join()
    const statement = made.get(key) ?? make(names)
    made.set(key, statement)
    return statement
  }
}

/** A placeholder of the same name for each column. */
function allGiven<C extends Record<string, Column>>(columns: C): { [K in keyof C & string]: Placeholder<K> } {
  const entries = Object.keys(columns).map((name) => [name, given(name)])
  return Object.fromEntries(entries)
}

/** Each column as it would have been inserted. */
function allOf<C extends Record<string, Column>>(columns: C): { [K in keyof C & string]: SQL } {
  const entries = Object.entries(columns).map(([name, column]) => [
    name,
    sql`excluded.${sql.identifier(column.name)}`,
  ])
  return Object.fromEntries(entries)
}
