/**
 * Heartbeats of many simulated nodes: the statement of the real store, through the real store, over a few stores of one
 * connection for heartbeats each. A heartbeat is late when it has not been answered by the time the next one is due.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { silentLog } from '../plugin/core/log.js'
import { inOrder } from '../plugin/core/order.js'
import { openStore } from '../plugin/stores/open.js'

export interface Beats {
  readonly url: string
  readonly nodes: number
  readonly everyMs: number
  readonly forMs: number
  readonly connections: number
}

export interface BeatsDone {
  /** From when each was due until it was answered. */
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
const [first] = stores
for (let from = 0; from < nodes && first !== undefined; from += 250) {
  await inOrder(first, undefined, 0, async (change) => {
    for (const id of ids.slice(from, from + 250)) await change.addNode(session(id), 1)
  })
}
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
process.send?.({ tookMs } satisfies BeatsDone)
await Promise.all(stores.map((store) => store.close()))
process.disconnect()

function session(id: string) {
  return {
    ...{ id, name: id, cluster: 'bench', workers: [], labels: {}, version: null },
    ...{ machine: null, process: null, ttlMs: 3_600_000 },
  }
}
