/**
 * The statements that this store repeats, and how their answers become rows of the port.
 *
 * Each is built when a connection first needs it and then kept, because building one costs several times what running
 * it costs. Each has a name, so that the server plans it only once per connection, too. Such a plan is often made
 * while the tables are nearly empty, and kept when they have grown, until they are next analysed. The statements are
 * therefore written so that no plan compares each row with each: lists of keys are arrays and not joins, and a join
 * that looks up a primary key is kept apart by OFFSET 0.
 *
 * Whatever must be one consistent picture is one statement. Where it needs rows of several tables, they come as JSON.
 * The numbers in the JSON are exact, because none exceeds 2^53.
 */
import type { NodePgDatabase } from 'drizzle-orm/node-postgres'
import type { HeartbeatAnswer, LockedLease, OwnView } from '../../core/store.js'
import type { Found } from '../shared/known.js'
import { once } from '../shared/once.js'
import {
  loads,
  lockedLeases,
  nodesById,
  standingNodes,
  type WriteParts,
  workersByKey,
  write,
} from './change-queries.js'
import { recorded } from './rows.js'
import type { Terms } from './terms.js'
import { beats, heartbeat, leasesAfter, look, neighbours, news, snapshot, view } from './verb-queries.js'

export type Queries = ReturnType<typeof queriesOn>

/** The statements of a store on one connection. */
export function queriesOn(db: NodePgDatabase, terms: Terms) {
  // Without a name, Drizzle derives one from the text of a prepared statement.
  const name = terms.named ? undefined : ''
  const writes = new Map<string, ReturnType<ReturnType<typeof write>['prepare']>>()
  return {
    db,
    heartbeat: once(() => heartbeat(db, terms, false).prepare(name)),
    countingHeartbeat: once(() => heartbeat(db, terms, true).prepare(name)),
    news: once(() => news(db, terms).prepare(name)),
    view: once(() => view(db, terms).prepare(name)),
    look: once(() => look(db, terms).prepare(name)),
    beats: once(() => beats(db, terms).prepare(name)),
    neighbours: once(() => neighbours(db, terms).prepare(name)),
    snapshot: once(() => snapshot(db, terms).prepare(name)),
    leasesAfter: once(() => leasesAfter(db, terms).prepare(name)),
    nodes: once(() => standingNodes(db, terms).prepare(name)),
    nodesById: once(() => nodesById(db, terms).prepare(name)),
    workers: once(() => workersByKey(db, terms).prepare(name)),
    leases: once(() => lockedLeases(db, terms).prepare(name)),
    loads: once(() => loads(db, terms).prepare(name)),
    write(parts: WriteParts) {
      const kind = JSON.stringify(parts)
      const prepared = writes.get(kind) ?? write(db, terms, parts).prepare(name)
      writes.set(kind, prepared)
      return prepared
    },
  }
}

type Answer<K extends 'heartbeat' | 'view' | 'leases'> = Awaited<
  ReturnType<ReturnType<Queries[K]>['execute']>
>

export function foundLeases([row]: Answer<'leases'>): Found<LockedLease> {
  return row ?? { leases: [], workers: [], nodes: [] }
}

/** Without a row there was nothing to stamp. Before the first change there is no revision row either. */
export function heartbeatAnswer([row]: Answer<'heartbeat'>): HeartbeatAnswer | undefined {
  if (row === undefined) return undefined
  const { committing: _, present: __, ...answer } = row
  return { ...answer, ...recorded(row) }
}

/** Without a row the node is gone. */
export function ownView([row]: Answer<'view'>): OwnView | undefined {
  if (row === undefined) return undefined
  return {
    ...row,
    ...recorded(row),
    watchers: row.watchers ?? [],
  }
}
