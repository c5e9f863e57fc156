/** Turns SQL Server's answers into rows of the port, and values of the port into values of columns. */
import { getTableColumns } from 'drizzle-orm'
import type { MsSqlTable } from 'drizzle-orm/mssql-core'
import type {
  Beat,
  HeartbeatAnswer,
  LeaseRow,
  Look,
  NodeRow,
  ServerFacts,
  WorkerRow,
} from '../../core/store.js'
import { byCodePoints } from '../shared/code-points.js'
import type { Found } from '../shared/known.js'
import type { Answer } from './connections.js'
import { leases, nodes, workers } from './schema.js'

export type Column = ReturnType<typeof getTableColumns<MsSqlTable>>[string]

/** Returns the columns of a table that are properties of the port's row. */
export function columnsOf(table: MsSqlTable): Record<string, Column> {
  const { namespace: _, ...columns } = getTableColumns(table)
  return columns
}

function namesOf(table: MsSqlTable): string[] {
  return Object.values(columnsOf(table)).map(({ name }) => `[${name}]`)
}

export function listOf(table: MsSqlTable): string {
  return namesOf(table).join(', ')
}

/** Turns records, from JSON or directly from the driver, into rows of the port. */
export function rowsOf<Row>(table: MsSqlTable): (records: readonly Record<string, unknown>[]) => Row[] {
  const columns = Object.entries(columnsOf(table))
  const toRow = (record: Record<string, unknown>): Row =>
    Object.fromEntries(columns.map(([property, column]) => [property, value(column, record)])) as Row
  return (records) => records.map(toRow)
}

/** JSON from the server omits null values. */
function value(column: Column, record: Record<string, unknown>): unknown {
  const came = record[column.name]
  return came === undefined || came === null ? null : column.mapFromDriverValue(came)
}

export function written(column: Column, value: unknown): string | number | null {
  if (value === undefined || value === null) return null
  const sent: unknown = column.mapToDriverValue(value)
  return typeof sent === 'boolean'
    ? Number(sent)
    : typeof sent === 'number'
      ? sent
      : storableText(String(sent))
}

export function first(answer: Answer): Record<string, unknown> | undefined {
  return answer[0]?.[0]
}

/** Reads JSON from the server, which is null when there are no rows. */
export function records(json: unknown): Record<string, unknown>[] {
  return typeof json === 'string' ? JSON.parse(json) : []
}

export function readId(id: unknown): string {
  return String(nodes.id.mapFromDriverValue(String(id)))
}

export function beatsOf(json: unknown): Beat[] {
  return records(json).map(({ id, beat }) => ({ id: readId(id), beat: Number(beat) }))
}

export function stateOf(row: Record<string, unknown>): Pick<HeartbeatAnswer, 'state' | 'newsRevision'> {
  const { state } = row
  return {
    state: state === 'draining' ? state : 'active',
    newsRevision: Number(row.news_revision),
  }
}

/** Before the first change there is no revision row. */
export function facts(row: Record<string, unknown>, serverIdentity: string): ServerFacts {
  return {
    nowMs: Number(row.now_ms),
    serverIdentity,
    recordedIdentity: String(row.server_identity ?? ''),
    identitySettled: row.identity_settled !== false,
    longestTtlMs: Number(row.longest_ttl_ms ?? 0),
  }
}

export function foundIn(row: Record<string, unknown>): Pick<Look, 'leases' | 'workers' | 'gone'> {
  return { ...leasesIn(row), gone: new Set(records(row.gone).map(({ id }) => readId(id))) }
}

export function foundLeases(row: Record<string, unknown>): Found<LeaseRow> {
  return { ...leasesIn(row), nodes: rowsOf<NodeRow>(nodes)(records(row.nodes)) }
}

function leasesIn(row: Record<string, unknown>): Pick<Found<LeaseRow>, 'leases' | 'workers'> {
  return {
    leases: rowsOf<LeaseRow>(leases)(records(row.leases)).sort(byKey),
    workers: rowsOf<WorkerRow>(workers)(records(row.workers)).sort(byKey),
  }
}

/**
 * Replaces NUL, halves of surrogate pairs and the substitutes used in JSON, because not every server stores them as
 * text. Free text may contain them, and must not make its change fail.
 */
function storableText(text: string): string {
  return text.replace(/[\p{Surrogate}\0\ufdd0-\ufdef\uffff]/gu, '\ufffd')
}

export function byAge(a: NodeRow, b: NodeRow): number {
  return a.joinedRevision - b.joinedRevision || byId(a, b)
}

export function byId(a: { readonly id: string }, b: { readonly id: string }): number {
  return byCodePoints(a.id, b.id)
}

export function byKey(a: { readonly key: string }, b: { readonly key: string }): number {
  return byCodePoints(a.key, b.key)
}
