/** What the statements of this store have in common. */
import { and, eq, ne, type Placeholder, type SQL, sql } from 'drizzle-orm'
import type { MySqlTable } from 'drizzle-orm/mysql-core'
import type { MySql2Database } from 'drizzle-orm/mysql2'
import { columnsOf, parsed } from './rows.js'
import { leases, nodes } from './schema.js'

/** What the statements of one store have in common. */
export interface Terms {
  readonly namespace: string
  /** By how a text is compared with a column of ours. */
  readonly collation: SQL
}

/** Milliseconds since 1970 when the statement began, whatever time zone the server lives in. */
export const nowMs = sql`timestampdiff(microsecond, '1970-01-01', utc_timestamp(3)) div 1000`.mapWith(Number)

export const node: Placeholder = sql.placeholder('node')

export function isNode({ namespace }: Terms): SQL | undefined {
  return and(eq(nodes.namespace, namespace), eq(nodes.id, node), ne(nodes.state, 'gone'))
}

/** Which life of the server this is: see `capabilities.ts`. */
export const identity = sql`@coordination_identity`

/** Parts in the order of their places and, where these are equal, of the code points of their names. */
export function answering(db: MySql2Database, parts: SQL) {
  return db
    .select({ part: sql<string>`part`, body: sql`body`.mapWith(parsed) })
    .from(sql`(${parts}) as answer`)
    .orderBy(sql`place, name`)
}

export function keysWhere(namespace: string, condition: SQL): SQL {
  return sql`select ${leases.key} as found from ${leases} where ${and(eq(leases.namespace, namespace), condition)}`
}

/** A row of a table as a JSON object, under the names of the port. */
export function objectOf(table: MySqlTable, as: string): SQL {
  const pairs = Object.entries(columnsOf(table)).map(
    ([property, { name }]) => sql`${sql.raw(`'${property}'`)}, ${sql.identifier(as)}.${sql.identifier(name)}`,
  )
  return sql`json_object(${sql.join(pairs, sql`, `)})`
}
