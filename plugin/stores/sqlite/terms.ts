/** What the statements of this store have in common. */
import type { Database } from 'better-sqlite3'
import { and, type Column, eq, getColumns, ne, type Placeholder, type SQL, sql } from 'drizzle-orm'
import type { BetterSQLite3Database } from 'drizzle-orm/better-sqlite3'
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import { events, leases, meta, nodes, workers } from './schema.js'

export const nodeColumns = columnsOf(nodes)
export const workerColumns = columnsOf(workers)
export const leaseColumns = columnsOf(leases)
export const eventColumns = columnsOf(events)
export const metaColumns = columnsOf(meta)

/** An open database, and the namespace of all statements on it. */
export interface Place {
  readonly client: Database
  readonly db: BetterSQLite3Database
  readonly namespace: string
}

/** Returns the columns of a table that are properties of the port's row. */
function columnsOf<T extends SQLiteTable>(table: T): Omit<T['_']['columns'], 'namespace'> {
  const { namespace: _, ...columns } = getColumns(table)
  return columns
}

export function ourNodes({ namespace }: Place): SQL {
  return eq(nodes.namespace, namespace)
}

export function alive(at: Place): SQL | undefined {
  return and(ourNodes(at), ne(nodes.state, 'gone'))
}

export function thisNode(at: Place): SQL | undefined {
  return and(alive(at), eq(nodes.id, given('node')))
}

export function ourWorkers({ namespace }: Place): SQL {
  return eq(workers.namespace, namespace)
}

export function ourLeases({ namespace }: Place): SQL {
  return eq(leases.namespace, namespace)
}

export function ourEvents({ namespace }: Place): SQL {
  return eq(events.namespace, namespace)
}

export function ourMeta({ namespace }: Place): SQL {
  return eq(meta.namespace, namespace)
}

/**
 * Selects the leases that meet at least one of the conditions. Each condition is looked up separately: SQLite assumes
 * that any namespace is small, and would rather scan all its leases than use several indexes.
 */
export function leasesWhere(at: Place, ...conditions: ReadonlyArray<SQL | undefined>) {
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

export function given<N extends string>(name: N): Placeholder<N> {
  return sql.placeholder(name)
}

/** The members of a list that is passed as JSON text. */
export function listed(name: string): SQL {
  return sql`(select value from json_each(${given(name)}))`
}

/** Returns a placeholder of the same name for each of these columns. */
export function eachGiven(names: readonly string[]): Record<string, Placeholder> {
  return Object.fromEntries(names.map((name) => [name, given(name)]))
}

/** Returns a placeholder of the same name for each column. */
export function allGiven<C extends Record<string, Column>>(
  columns: C,
): { [K in keyof C & string]: Placeholder<K> } {
  const entries = Object.keys(columns).map((name) => [name, given(name)])
  return Object.fromEntries(entries)
}

/** Sets each column to the value of the row that could not be inserted. */
export function allOf<C extends Record<string, Column>>(columns: C): { [K in keyof C & string]: SQL } {
  const entries = Object.entries(columns).map(([name, column]) => [
    name,
    sql`excluded.${sql.identifier(column.name)}`,
  ])
  return Object.fromEntries(entries)
}
