/** Turns PostgreSQL's answers into rows of the port. */
import { getTableColumns, type SQL, sql } from 'drizzle-orm'
import type { PgColumn, PgTable } from 'drizzle-orm/pg-core'
import type { ServerFacts } from '../../core/store.js'

/** Returns the values of the revision row, or their defaults when there is no such row yet. */
export function recorded(row: {
  recordedIdentity: string | null
  identitySettled: boolean | null
  longestTtlMs: number | null
}): Pick<ServerFacts, 'recordedIdentity' | 'identitySettled' | 'longestTtlMs'> {
  const { recordedIdentity, identitySettled, longestTtlMs } = row
  return {
    recordedIdentity: recordedIdentity ?? '',
    identitySettled: identitySettled ?? true,
    longestTtlMs: longestTtlMs ?? 0,
  }
}

/** Milliseconds since 1970 at the time of evaluation; `now()` would be the start of the transaction. */
export const nowMs = sql`(extract(epoch from clock_timestamp()) * 1000)::bigint`.mapWith(Number)

/** Returns the columns of a table that are properties of the port's row. */
export function columnsOf<T extends PgTable>(table: T): Omit<T['_']['columns'], 'namespace'> {
  const { namespace: _, ...columns } = getTableColumns(table)
  return columns
}

/**
 * Turns a record or a list of records in JSON into rows of the port. `more` names properties that are not columns of
 * the table.
 */
export function rowsOf<Row>(table: PgTable, ...more: string[]): (answer: unknown) => Row[] {
  const properties = [
    ...Object.entries(columnsOf(table)).map(([property, { name }]) => [property, name] as const),
    ...more.map((name) => [name, name] as const),
  ]
  const toRow = (record: Readonly<Record<string, unknown>>): Row =>
    Object.fromEntries(properties.map(([property, name]) => [property, record[name]])) as Row
  return (answer) => json<Record<string, unknown>[]>(answer).map(toRow)
}

/** Returns JSON as the driver delivers it: parsed, unless the application has told the driver not to parse it. */
export function json<T>(answer: unknown): T {
  return (typeof answer === 'string' ? JSON.parse(answer) : answer) as T
}

/** Orders by code points, which is the same on every database, whatever collation this one uses. */
export function inOrder(column: PgColumn): SQL {
  return sql`${column} collate "C"`
}
