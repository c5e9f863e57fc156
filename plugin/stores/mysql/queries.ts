/**
 * The statements that this store repeats, and how their answers become rows of the port.
 *
 * Each is built when a connection first needs it and then kept, prepared on the server too, because building one
 * costs several times what running it costs. Statements that contain lists, as those of changes do, differ from one
 * to the next and are sent as text.
 *
 * Whatever must be one consistent picture is one statement, which sees the state at its beginning. Where it needs
 * rows of several tables, each row comes as a JSON object with the name of its part. The numbers in the JSON are
 * exact, because none exceeds 2^53. The objects are not gathered into one JSON list, because MariaDB truncates a list
 * that is too long.
 */
import { drizzle } from 'drizzle-orm/mysql2'
import type { Connection } from 'mysql2'
import type { Connection as AskedConnection } from 'mysql2/promise'
import { once } from '../shared/once.js'
import type { Statements } from '../shared/statements.js'
import { loads, stampSession, standingNodes, taken, takeRevision } from './change-queries.js'
import { answering, type Terms } from './terms.js'
import { beats, leasesAfter, look, neighbours, news, pulse, snapshot, stamp, view } from './verb-queries.js'

export type Queries = ReturnType<typeof queriesOn>

/** The statements of a store on one connection. */
export function queriesOn(client: Connection, terms: Terms, logger: Statements) {
  const asked = client.promise()
  const prepared: AskedConnection = Object.create(asked, { query: { value: asked.execute.bind(asked) } })
  const kept = drizzle({ client: prepared, logger })
  return {
    db: drizzle({ client: asked, logger }),
    stamp: once(() => stamp(kept, terms).prepare()),
    pulse: once(() => answering(kept, pulse(terms)).prepare()),
    news: once(() => news(kept, terms).prepare()),
    view: once(() => answering(kept, view(terms)).prepare()),
    look: once(() => answering(kept, look(terms)).prepare()),
    beats: once(() => beats(kept, terms).prepare()),
    neighbours: once(() => neighbours(kept, terms).prepare()),
    snapshot: once(() => answering(kept, snapshot(terms)).prepare()),
    leasesAfter: once(() => leasesAfter(kept, terms).prepare()),
    takeRevision: once(() => takeRevision(kept, terms).prepare()),
    stampSession: once(() => stampSession(kept, terms).prepare()),
    taken: once(() => answering(kept, taken(terms)).prepare()),
    nodes: once(() => standingNodes(kept, terms).prepare()),
    loads: once(() => loads(kept, terms).prepare()),
  }
}
