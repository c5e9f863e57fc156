/** Turns MySQL's answers into rows of the port. */
import { getTableColumns, type SQL, sql } from 'drizzle-orm'
import type { MySqlColumn, MySqlTable } from 'drizzle-orm/mysql-core'
import { StoreError } from '../../core/errors.js'
import {
  type Beat,
  beforeAnyChange,
  type HeartbeatAnswer,
  type LeaseRow,
  type Look,
  type MetaRow,
  type NodeRow,
  type OwnView,
  type ServerFacts,
  type Snapshot,
  type WorkerRow,
} from '../../core/store.js'
import type { Taken } from '../shared/change.js'
import { leases, meta, nodes, workers } from './schema.js'

/** Returns the columns of a table that are properties of the port's row. */
export function columnsOf<T extends MySqlTable>(table: T): Omit<T['_']['columns'], 'namespace'> {
  const { namespace: _, ...columns } = getTableColumns(table)
  return columns
}

/** Sets every column to the value of the row that could not be inserted. */
export function givenInstead(table: MySqlTable): Record<string, SQL> {
  const columns = Object.entries(columnsOf(table))
  return Object.fromEntries(columns.map(([property, column]) => [property, sql`values(${column})`]))
}

/** One row of an answer that contains rows of several kinds. */
interface Part {
  readonly part: string
  readonly body: Readonly<Record<string, unknown>>
}

/** Without a session row there was nothing to stamp. */
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
  return {
    nowMs: facts?.nowMs ?? 0,
    meta: rowsOf<MetaRow>(meta, answer, 'meta')[0] ?? beforeAnyChange,
    nodes: rowsOf<NodeRow>(nodes, answer, 'node'),
    ...leasesAndWorkersOf(answer),
  }
}

/** Returns what a change knows once it has taken the revision row. */
export function takenOf(answer: readonly Part[]): Taken {
  const [facts] = partOf<Pick<OwnFacts, 'nowMs' | 'serverIdentity'>>(answer, 'facts')
  const [row] = rowsOf<MetaRow>(meta, answer, 'meta')
  if (facts === undefined || row === undefined) {
    throw new StoreError('A change could not take its number.', 'none')
  }
  const [session] = rowsOf<NodeRow>(nodes, answer, 'node')
  return { nowMs: facts.nowMs, serverIdentity: known(facts.serverIdentity), meta: row, session }
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

/**
 * Returns the facts about the server and the values of the revision row, or their defaults when there is no such row
 * yet.
 */
function factsOf({ nowMs, serverIdentity, ...recorded }: OwnFacts): ServerFacts {
  return {
    nowMs,
    serverIdentity: known(serverIdentity),
    recordedIdentity: recorded.recordedIdentity ?? '',
    identitySettled: recorded.identitySettled === null || recorded.identitySettled === 1,
    longestTtlMs: recorded.longestTtlMs ?? 0,
  }
}

/** Returns the identity kept in the connection. A connection that a proxy has substituted does not have one. */
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

/** Decodes rows: lists and objects arrive as the texts they are stored as, and booleans as 0 and 1. */
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

export function parsed(body: unknown): Part['body'] {
  return JSON.parse(String(body))
}
