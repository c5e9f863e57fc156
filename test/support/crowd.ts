/**
 * A realistic crowd in a database: thousands of nodes, leases and partitions, and the usual few irregularities. It is
 * written through the real store. No process keeps the nodes alive; nearly all have a ttl of an hour, so that they are
 * not buried.
 */
import { randomUUID } from 'node:crypto'
import { runChange } from '../../plugin/core/changes/run-change.js'
import { silentLog } from '../../plugin/core/log.js'
import { slotKey } from '../../plugin/core/names.js'
import type { Change, LeaseRow, NewEvent, NewNode, WorkerRow } from '../../plugin/core/store.js'
import { openStore } from '../../plugin/stores/open.js'
import { newLease } from '../../plugin/testing/conformance/world.js'

/** How many rows of each kind. */
export interface Crowd {
  readonly nodes: number
  /** How many leases of single workers. */
  readonly leases: number
  readonly partitions: number
}

/** What was written. */
export interface Written {
  readonly nodes: readonly Pick<NewNode, 'id' | 'name'>[]
  readonly leases: readonly string[]
}

/** Fills an empty database. */
export async function writeCrowd(url: string, crowd: Crowd): Promise<Written> {
  const store = await openStore({
    database: url,
    namespace: 'default',
    statementTimeoutMs: 30_000,
    migrate: true,
    push: false,
    log: silentLog,
  })
  const change = async (work: (change: Change) => Promise<void>): Promise<void> => {
    const done = await runChange(store, undefined, 0, work)
    if (done.kind !== 'done') throw new Error(`The crowd could not be written: ${done.kind}`)
  }
  try {
    const singles = many(crowd.leases, (at) => workerRow(`eu-${1 + (at % 4)}`, jobName(at), 'single', 1))
    const consumer = workerRow('global', 'consumer', 'partitioned', crowd.partitions)
    const workers = crowd.partitions > 0 ? [...singles, consumer] : singles
    const nodes = many(crowd.nodes, (at) => newNode(at, workers))
    await inLots(nodes, 250, (lot) =>
      change(async (to) => {
        for (const node of lot) await to.addNode(node, 1)
        await to.record(lot.map(({ id, name, cluster }) => joined(id, name, cluster)))
      }),
    )
    await change((to) => to.saveWorkers(workers))
    const leases = [
      ...singles.map((worker, at) => singleLease(worker, nodes, at)),
      ...partitions(consumer, nodes, crowd),
    ]
    await inLots(leases, 500, (lot) =>
      change(async (to) => {
        await to.saveLeases(
          lot.map((lease) => ({
            ...lease,
            acquiredAtMs: lease.holder === null ? null : to.nowMs - age(lease),
          })),
        )
        await to.record(lot.flatMap(acquired))
      }),
    )
    await change((to) => disturb(to, nodes))
    return { nodes, leases: leases.map(({ key }) => key) }
  } finally {
    await store.close()
  }
}

/**
 * Of a hundred nodes one drains and one is gone. The first 71 stay as they are, so that the first leases have live
 * holders.
 */
async function disturb(change: Change, nodes: readonly NewNode[]): Promise<void> {
  for (const [at, { id }] of nodes.entries()) {
    if (at % 100 === 71) await change.updateNode(id, { state: 'draining' })
    if (at % 100 === 87) await change.bury(id)
  }
}

const anHourMs = 3_600_000

function newNode(at: number, workers: readonly WorkerRow[]): NewNode {
  const cluster = `eu-${1 + (at % 4)}`
  const own = workers.filter((worker, place) => worker.cluster === null || place % 97 === at % 97)
  return {
    id: randomUUID(),
    name: `api-${cluster}-${String(at).padStart(4, '0')}`,
    cluster,
    workers: own.slice(0, 20).map(({ key }) => key),
    labels: { zone: `${cluster}${'abc'.charAt(at % 3)}` },
    version: at % 40 === 11 ? '2.3.9' : '2.4.1',
    machine: null,
    process: null,
    ttlMs: at % 250 === 33 ? 1 : anHourMs,
  }
}

function workerRow(cluster: string, name: string, kind: WorkerRow['kind'], slots: number): WorkerRow {
  const isGlobal = cluster === 'global'
  return {
    key: `${cluster}/${name}`,
    name,
    kind,
    scope: isGlobal ? 'global' : 'cluster',
    cluster: isGlobal ? null : cluster,
    generation: 0,
    slots,
    paused: name.endsWith('-13'),
    schedule: null,
    handoverTimeoutMs: 30_000,
    revision: 0,
  }
}

const jobs = [
  'billing-cron',
  'cdn-purge',
  'email-digest',
  'geo-sync',
  'invoice-export',
  'metrics-rollup',
  'outbox-relay',
  'search-index',
  'session-gc',
  'webhook-retry',
]

function jobName(at: number): string {
  return `${jobs[at % jobs.length]}${at < jobs.length ? '' : `-${Math.floor(at / jobs.length)}`}`
}

function singleLease(worker: WorkerRow, nodes: readonly NewNode[], at: number): LeaseRow {
  const holder = worker.paused || nodes.length === 0 ? null : (nodes[at % nodes.length]?.id ?? null)
  return leaseRow(worker.key, worker.key, 0, holder, holder)
}

function partitions(worker: WorkerRow, nodes: readonly NewNode[], crowd: Crowd): LeaseRow[] {
  return many(crowd.partitions, (slot) => {
    const owner = nodes[(slot * 7) % nodes.length]?.id ?? null
    const next = nodes[(slot * 7 + 1) % nodes.length]?.id ?? null
    const isUnowned = slot % 1_000 === 500
    const isMoving = slot % 500 === 250
    return leaseRow(
      slotKey(worker.key, slot),
      worker.key,
      slot,
      isUnowned ? null : owner,
      isMoving ? next : owner,
    )
  })
}

function leaseRow(
  key: string,
  worker: string,
  slot: number,
  holder: string | null,
  target: string | null,
): LeaseRow {
  return newLease(key, {
    worker,
    slot,
    target,
    targetAtMs: Date.now(),
    holder,
    token: holder === null ? 0 : 3_900 + slot,
    attempt: holder === null ? null : 2,
  })
}

/** The time for which a lease has been held: from seconds to days. */
function age({ key }: LeaseRow): number {
  return 1_000 * 3 ** ([...key].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % 12)
}

function joined(id: string, name: string, cluster: string): NewEvent {
  return { type: 'node.joined', subject: id, node: id, detail: { name, cluster } }
}

function acquired({ key, holder, token }: LeaseRow): NewEvent[] {
  return holder === null ? [] : [{ type: 'lease.acquired', subject: key, node: holder, token }]
}

function many<Item>(count: number, make: (at: number) => Item): Item[] {
  return Array.from({ length: count }, (_, at) => make(at))
}

async function inLots<Item>(
  items: readonly Item[],
  size: number,
  each: (lot: Item[]) => Promise<void>,
): Promise<void> {
  for (let from = 0; from < items.length; from += size) await each(items.slice(from, from + size))
}
