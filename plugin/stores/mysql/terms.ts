/** What the statements of this store have in common. */
import { and, eq, ne, type Placeholder, type SQL, sql } from 'drizzle-orm'
import type { MySqlTable } from 'drizzle-orm/mysql-core'
import type { MySql2Database } from 'drizzle-orm/mysql2'
import { columnsOf, parsed } from './rows.js'
import { leases, nodes } from './schema.js'

/** What the statements of one store have in common. */
export interface Terms {
  readonly namespace: string
  /** The collation for comparing a text with one of our columns. */
  readonly collation: SQL
}

/** Milliseconds since 1970 when the statement began, regardless of the server's time zone. */
export const nowMs = sql`timestampdiff(microsecond, '1970-01-01', utc_timestamp(3)) div 1000`.mapWith(Number)

export const node: Placeholder = sql.placeholder('node')

export function isNode({ namespace }: Terms): SQL | undefined {
  return and(eq(nodes.namespace, namespace), eq(nodes.id, node), ne(nodes.state, 'gone'))
}

/** The identity of the server: see `capabilities.ts`. */
export const identity = sql`@coordination_identity`

/** Orders the parts by their places and, where these are equal, by the code points of their names. */
export function answering(db: MySql2Database, parts: SQL) {
  return db
    .select({ part: sql<string>`part`, body: sql`body`.mapWith(parsed) })
    .from(sql`(${parts}) as answer`)
    .orderBy(sql`place, name`)
}

export function keysWhere(namespace: string, condition: SQL): SQL {
  return sql`select ${leases.key} as found from ${leases} where ${and(eq(leases.namespace, namespace), condition)}`
}

/** Returns a row of a table as a JSON object, with the port's property names. */
export function objectOf(table: MySqlTable, as: string): SQL {
  const pairs = Object.entries(columnsOf(table)).map(
    ([property, { name }]) => sql`${sql.raw(`'${property}'`)}, ${sql.identifier(as)}.${sql.identifier(name)}`,
  )
  return sql`json_object(${sql.join(pairs, sql`, `)})`
}
