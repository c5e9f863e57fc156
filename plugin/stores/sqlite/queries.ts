/**
 * Every statement on our rows. All of them are synchronous, as the driver is.
 *
 * They are prepared once per open database, because building one costs several times what running it costs. Each list
 * is passed as one JSON text, so that the statement stays the same and no list is too long for it. Rows are written
 * one by one, which costs next to nothing within a transaction.
 */
import type { Database } from 'better-sqlite3'
import { drizzle } from 'drizzle-orm/better-sqlite3'
import type { Statements } from '../shared/statements.js'
import { prepareReads, prepareWrites } from './change-queries.js'
import type { Place } from './terms.js'
import { prepareVerbs } from './verb-queries.js'

/** The statements of one namespace on one open database. */
export type Queries = ReturnType<typeof prepareQueries>

/** Prepares all statements. The tables must exist. */
export function prepareQueries(client: Database, namespace: string, statements: Statements) {
  const at: Place = { client, db: drizzle({ client, logger: statements }), namespace }
  return { ...prepareVerbs(at), ...prepareReads(at), ...prepareWrites(at) }
}
