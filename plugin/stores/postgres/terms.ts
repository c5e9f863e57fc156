/** What the statements of this store have in common. */
import { and, eq, ne, type SQL, sql } from 'drizzle-orm'
import type { WorkerRow } from '../../core/store.js'
import type { Identity } from './capabilities.js'
import { nowMs, rowsOf } from './rows.js'
import { meta, nodes, workers } from './schema.js'

/** What the statements of one store have in common. */
export interface Terms {
  readonly namespace: string
  readonly identity: Identity
  /**
   * Whether statements may have names. False behind a pooler, where the next statement may reach another connection
   * of the server.
   */
  readonly named: boolean
}

export const node = sql.placeholder('node')

/** A single row to select from when everything comes from subqueries. */
export const nothing = sql`(values (1)) as nothing`

export function facts({ identity }: Terms) {
  return {
    nowMs,
    serverIdentity: identity(meta.serverIdentity),
    recordedIdentity: meta.serverIdentity,
    identitySettled: meta.identitySettled,
    longestTtlMs: meta.longestTtlMs,
  }
}

export function isNode({ namespace }: Terms): SQL | undefined {
  return and(eq(nodes.namespace, namespace), eq(nodes.id, node), ne(nodes.state, 'gone'))
}

export function namedWorkers(namespace: string, keys: SQL) {
  const named = sql`(
    select coalesce(json_agg(to_json(w) order by w.key collate "C"), '[]')
    from (select distinct key from (${keys}) as k (key)) as named
    cross join lateral (
      select * from ${workers} where namespace = ${namespace} and key = named.key offset 0) as w)`
  return named.mapWith(rowsOf<WorkerRow>(workers))
}
