/** How what PostgreSQL answers becomes rows of the port. */
import { getTableColumns, type SQL, sql } from 'drizzle-orm'
import type { PgColumn, PgTable } from 'drizzle-orm/pg-core'
import type { ServerFacts } from '../../core/store.js'

/** What the revision row says, or would if it were there. */
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

/** Milliseconds since 1970 when it is evaluated; `now()` would be when the transaction began. */
export const nowMs = sql`(extract(epoch from clock_timestamp()) * 1000)::bigint`.mapWith(Number)

/** The columns of a table that are properties of the port's row. */
export function columnsOf<T extends PgTable>(table: T): Omit<T['_']['columns'], 'namespace'> {
  const { namespace: _, ...columns } = getTableColumns(table)
  return columns
}

/** Turns a record, or a list of records, that came as JSON into rows of the port; `more` are no columns of the table. */
export function rowsOf<Row>(table: PgTable, ...more: string[]): (answer: unknown) => Row[] {
  const properties = [
    ...Object.entries(columnsOf(table)).map(([property, { name }]) => [property, name] as const),
    ...more.map((name) => [name, name] as const),
  ]
  const toRow = (record: Readonly<Record<string, unknown>>): Row =>
    Object.fromEntries(properties.map(([property, name]) => [property, record[name]])) as Row
  return (answer) => json<Record<string, unknown>[]>(answer).map(toRow)
}

/** JSON as the driver hands it over: parsed, unless the application has told it not to. */
export function json<T>(answer: unknown): T {
  return (typeof answer === 'string' ? JSON.parse(answer) : answer) as T
}

/** In the order of code points, which is the same on every database, whatever language this one speaks. */
export function inOrder(column: PgColumn): SQL {
  return sql`${column} collate "C"`
}
