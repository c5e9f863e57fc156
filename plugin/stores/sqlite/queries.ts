/**
 * Every statement on our rows, all of them synchronous, as the driver is.
 *
 * They are prepared once per open database: building one anew costs several times what running it does.
 * Lists go in as one JSON text each, so that the statement stays the same and no list is too long for it;
 * many rows go in one by one, which within a transaction costs next to nothing.
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
