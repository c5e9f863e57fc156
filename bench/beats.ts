/**
 * Sends the heartbeats of many simulated nodes through the real store, and so with its real statement. A few stores
 * share the load, each with one connection for heartbeats. A heartbeat is late when it has not been answered before the
 * next one is due.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'pg'
import { silentLog } from '../plugin/core/log.js'
import { openStore } from '../plugin/stores/open.js'

export interface Beats {
  readonly url: string
  readonly nodes: number
  readonly everyMs: number
  readonly forMs: number
  readonly connections: number
}

export interface BeatsDone {
  /** From when each was due until it was answered; late ones are not included. */
  readonly tookMs: readonly number[]
}

const { url, nodes, everyMs, forMs, connections } = JSON.parse(process.argv[2] ?? '{}') as Beats
const stores = await Promise.all(
  Array.from({ length: connections }, () =>
    openStore({
      database: url,
      namespace: 'default',
      statementTimeoutMs: 30_000,
      migrate: true,
      push: false,
      log: silentLog,
    }),
  ),
)
const ids = Array.from({ length: nodes }, () => randomUUID())
await writeSessions()
process.send?.('ready')
await new Promise((resolve) => process.once('message', resolve))

const tookMs: number[] = []
const startMs = performance.now()
await Promise.all(
  ids.map(async (id, index) => {
    const store = stores[index % stores.length]
    const phaseMs = (everyMs * index) / nodes
    for (let beat = 1; phaseMs + beat * everyMs <= forMs + everyMs - 1; beat++) {
      const dueMs = startMs + phaseMs + (beat - 1) * everyMs
      await sleep(Math.max(0, dueMs - performance.now()))
      const answer = await store?.heartbeat(id, beat)
      const late = performance.now() - dueMs
      if (answer !== undefined && late < everyMs) tookMs.push(late)
    }
  }),
)
// Waits until the message has been sent. A message still in this process would be lost with the channel.
await new Promise((resolve) => process.send?.({ tookMs } satisfies BeatsDone, resolve))
await Promise.all(stores.map((store) => store.close()))
process.disconnect()

/** Writes the rows that joins would leave, all at once. Ten thousand joins would take longer than the measurement. */
async function writeSessions(): Promise<void> {
  const client = new Client({ connectionString: url })
  await client.connect()
  await client.query(
    `insert into coordination_nodes (namespace, id, name, cluster, state, workers, labels, ttl_ms, operation, beat,
       started_at_ms, heartbeat_at_ms, joined_revision, news_revision, revision)
     select 'default', id, id, 'bench', 'active', '[]', '{}', 3600000, 1, 0, 0, 0, 1, 1, 1 from unnest($1::text[]) as id`,
    [ids],
  )
  await client.query(
    `insert into coordination_meta (namespace, revision, watchers, longest_ttl_ms, token_floor, server_identity, identity_settled)
     values ('default', 1, $1, 3600000, 0, '', true) on conflict do nothing`,
    [JSON.stringify(ids.slice(0, 2))],
  )
  await client.query('analyze coordination_nodes')
  await client.end()
}
