/** The statements of a change: all its reads and all its writes. */
import { and, asc, type Column, eq, inArray, isNull, lt, max, type SQL, sql } from 'drizzle-orm'
import {
  beforeAnyChange,
  type EventRow,
  type LeaseFilter,
  type LeaseRow,
  type Load,
  type MetaRow,
  type NewEvent,
  type NewNode,
  type NodePatch,
  type NodeRow,
  type WorkerRow,
} from '../../core/store.js'
import { onceFor } from '../shared/once.js'
import { events, leases, meta, nodes, workers } from './schema.js'
import {
  alive,
  allGiven,
  allOf,
  eachGiven,
  eventColumns,
  given,
  leaseColumns,
  leasesWhere,
  listed,
  metaColumns,
  nodeColumns,
  ourLeases,
  ourMeta,
  ourNodes,
  ourWorkers,
  type Place,
  thisNode,
  workerColumns,
} from './terms.js'

export function prepareReads(at: Place) {
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

export function prepareWorkers(at: Place) {
  const statement = at.db
    .select(workerColumns)
    .from(workers)
    .where(and(ourWorkers(at), inArray(workers.key, listed('keys'))))
    .orderBy(workers.key)
    .prepare()
  return (keys: readonly string[]): WorkerRow[] => statement.all({ keys: JSON.stringify(keys) })
}

/** Prepares one statement for each combination of lists, because searching the empty lists costs more than the rest. */
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

export function prepareWrites(at: Place) {
  return {
    takeRevision: prepareTakeRevision(at),
    recordOperation: prepareRecordOperation(at),
    addNode: prepareAddNode(at),
    updateNode: prepareUpdateNode(at),
    bury: prepareBury(at),
    forgetNode: prepareForgetNode(at),
    forgetWorker: prepareForgetWorker(at),
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

/** A node that is gone stays as it is, because a session never comes back. */
function prepareUpdateNode(at: Place) {
  const statementFor = onceFor((names: readonly string[]) =>
    at.db.update(nodes).set(eachGiven(names)).where(thisNode(at)).prepare(),
  )
  return (id: string, patch: NodePatch, revision: number): void => {
    const values = { ...patch, revision }
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

function prepareForgetWorker(at: Place) {
  const statement = at.db
    .delete(workers)
    .where(and(ourWorkers(at), eq(workers.key, given('key'))))
    .prepare()
  return (key: string): void => void statement.run({ key })
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
