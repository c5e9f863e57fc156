/**
 * Rows of ten nodes on a bad night, which the screenshots show. The nodes have a history, and whatever can be wrong is
 * wrong.
 */
import { randomUUID } from 'node:crypto'
import BetterSqlite from 'better-sqlite3'
import { runChange } from '../../plugin/core/changes/run-change.js'
import { silentLog } from '../../plugin/core/log.js'
import { slotKey } from '../../plugin/core/names.js'
import type { Change, LeaseRow, NewEvent, NewNode, WorkerRow } from '../../plugin/core/store.js'
import { openStore } from '../../plugin/stores/open.js'

const minuteMs = 60_000
const plan = 25

/** The names of the nodes, and for how many minutes each has been up. */
const people = [
  ...[
    ['api-1-7pl', 1_440],
    ['api-2-jqj', 440],
    ['api-3-t14', 4_320],
    ['api-4-s4t', 58],
    ['api-5-0o7', 960],
  ],
  ...[
    ['api-6-yrb', 1_020],
    ['api-7-wuu', 4_200],
    ['api-8-acv', 1_500],
    ['api-9-bzh', 4_330],
    ['api-10-097', 1_440],
  ],
] as [string, number][]

/** The holders of each lease, and how many minutes ago each began. `null` is a time without a leader. */
const histories: Readonly<Record<string, readonly [minutesAgo: number, holder: number | null][]>> = {
  'billing-cron': [[940, 6]],
  'email-digest': [
    [41, 1],
    [9.4, 3],
    [9.2, 7],
    [2.3, 3],
  ],
  'invoice-export': [
    [70, 4],
    [13.6, null],
    [13.4, 0],
    [8, 0],
  ],
  'metrics-rollup': [
    [120, 2],
    [5, 0],
  ],
  'outbox-relay': [
    [300, 5],
    [4.2, 9],
  ],
  'search-index': [
    [33, 5],
    [12.1, null],
    [11.9, 7],
    [6.4, 1],
    [3.2, 7],
  ],
  'session-gc': [
    [90, 9],
    [10.9, 3],
  ],
  'webhook-retry': [
    [55, 8],
    [3.1, null],
  ],
}

export interface Scene {
  readonly nodes: readonly { readonly id: string; readonly name: string }[]
}

/** Fills an empty file. */
export async function writeScene({ url, path }: { url: string; path: string }): Promise<Scene> {
  const store = await openStore({
    ...{ database: url, namespace: 'default', statementTimeoutMs: 30_000, migrate: true, push: false },
    log: silentLog,
  })
  const nodes = people.map(([name], at) => node(name, at))
  const id = (at: number | null): string | null => (at === null ? null : (nodes[at]?.id ?? null))
  const happened: { event: NewEvent; minutesAgo: number }[] = []
  try {
    const done = await runChange(store, undefined, 0, async (change) => {
      for (const each of nodes) await change.addNode(each, 1)
      await change.saveWorkers([...Object.keys(histories).map(single), ...shared])
      const singles = Object.entries(histories).map(([name, terms], at) => {
        happened.push(...termsOf(`eu-1/${name}`, 3_900 + 60 * at, terms, id))
        return leaseOf(
          `eu-1/${name}`,
          `eu-1/${name}`,
          0,
          id(terms.at(-1)?.[1] ?? null),
          3_900 + 60 * at + terms.length,
          terms.at(-1)?.[0],
        )
      })
      await change.saveLeases([...singles, ...shared.flatMap((worker, at) => slotsOf(worker, at, id))])
      await disturb(change, id)
    })
    if (done.kind !== 'done') throw new Error(`The scene could not be written: ${done.kind}`)
  } finally {
    await store.close()
  }
  rewrite(path, nodes, [...happened, ...others(id)])
  return { nodes }
}

function node(name: string, at: number): NewNode {
  const own = Object.keys(histories).filter(
    (lease, place) => lease !== 'webhook-retry' && (at + place) % 9 > 1,
  )
  return {
    ...{ id: randomUUID(), name, cluster: 'eu-1', machine: null, process: null },
    workers: [...own.map((lease) => `eu-1/${lease}`), ...(at < 9 ? shared.map(({ key }) => key) : [])],
    labels: { zone: `eu-1${'abc'.charAt(at % 3)}` },
    version: at === 1 ? '2.3.9' : '2.4.1',
    ttlMs: 15_000,
  }
}

function workerOf(key: string, kind: WorkerRow['kind'], slots: number): WorkerRow {
  const [cluster = '', name = ''] = key.split('/')
  const isGlobal = cluster === 'global'
  return {
    ...{
      key,
      name,
      kind,
      slots,
      generation: kind === 'coordinated' ? plan : 0,
      paused: false,
      schedule: null,
    },
    ...{ scope: isGlobal ? 'global' : 'cluster', cluster: isGlobal ? null : cluster },
    ...{ handoverTimeoutMs: 30_000, revision: 0 },
  }
}

function single(name: string): WorkerRow {
  return workerOf(`eu-1/${name}`, 'single', 1)
}

const shared = [
  workerOf('global/inbox', 'partitioned', 64),
  workerOf('global/orders', 'partitioned', 16),
  workerOf('global/tenants', 'coordinated', 7),
]

function leaseOf(
  key: string,
  worker: string,
  slot: number,
  holder: string | null,
  token: number,
  minutesAgo = 40,
  target = holder,
): LeaseRow {
  return {
    ...{
      key,
      worker,
      slot,
      holder,
      target,
      token,
      generation: worker.endsWith('tenants') ? plan : 0,
      attempt: holder === null ? null : 2,
      identity: null,
    },
    ...{ targetAtMs: Date.now(), acquiredAtMs: holder === null ? null : Date.now() - minutesAgo * minuteMs },
    ...{ blockedNode: null, blockedToken: null, cooldownNode: null, cooldownUntilMs: null, firedAtMs: null },
    ...{ waiters: [], pending: false, revision: 0 },
  }
}

/**
 * Spreads the slots over the seven healthy nodes. Two of `global/inbox` are moving, and two of `global/orders` have no
 * holder.
 */
function slotsOf(
  { key, slots }: WorkerRow,
  at: number,
  id: (at: number | null) => string | null,
): LeaseRow[] {
  const well = [0, 1, 3, 4, 5, 6, 7]
  return Array.from({ length: slots }, (_, slot) => {
    const place = Math.floor((slot * well.length) / slots)
    const owner = id(well[place] ?? null)
    const isMoving = key === 'global/inbox' && (slot === 36 || slot === 37)
    const isUnowned = key === 'global/orders' && (slot === 5 || slot === 6)
    const next = isMoving ? id(well[place + 1] ?? null) : owner
    return leaseOf(slotKey(key, slot), key, slot, isUnowned ? null : owner, 3_700 + at, 40, next)
  })
}

function termsOf(
  key: string,
  token: number,
  terms: readonly [number, number | null][],
  id: (at: number | null) => string | null,
): { event: NewEvent; minutesAgo: number }[] {
  return terms.flatMap(([minutesAgo, holder], at) => {
    const before = terms[at - 1]?.[1] ?? null
    const ended: NewEvent[] =
      before === null
        ? []
        : [
            {
              type: 'lease.released',
              subject: key,
              node: id(before),
              token: token + at,
              reason: 'stepped-down',
            },
          ]
    if (key.endsWith('webhook-retry') && holder === null)
      return [
        {
          event: {
            type: 'lease.revoked',
            subject: key,
            node: id(before),
            token: token + at,
            actor: 'mira@ops',
            reason: 'host is being replaced',
          },
          minutesAgo,
        },
      ]
    const begun: NewEvent[] =
      holder === null
        ? []
        : [{ type: 'lease.acquired', subject: key, node: id(holder), token: token + at + 1 }]
    return [...ended, ...begun].map((event, place) => ({ event, minutesAgo: minutesAgo - place / 200 }))
  })
}

async function disturb(change: Change, id: (at: number | null) => string | null): Promise<void> {
  await change.updateNode(id(2) ?? '', { state: 'draining' })
}

function others(id: (at: number | null) => string | null): { event: NewEvent; minutesAgo: number }[] {
  return [
    { event: { type: 'assignment.changed', subject: 'global/inbox', detail: { moved: 2 } }, minutesAgo: 0.9 },
    {
      event: {
        type: 'node.draining',
        subject: id(2) ?? '',
        node: id(2),
        actor: 'mira@ops',
        reason: 'new kernel tonight',
      },
      minutesAgo: 1.4,
    },
    {
      event: {
        type: 'node.joined',
        subject: id(3) ?? '',
        node: id(3),
        detail: { name: people[3]?.[0], cluster: 'eu-1' },
      },
      minutesAgo: 58,
    },
  ]
}

/** Writes times of the past, which the store itself never would. */
function rewrite(
  path: string,
  nodes: readonly NewNode[],
  happened: readonly { event: NewEvent; minutesAgo: number }[],
): void {
  const file = new BetterSqlite(path)
  const nowMs = Date.now()
  for (const [at, { id }] of nodes.entries())
    file
      .prepare('update coordination_nodes set started_at_ms = ? where id = ?')
      .run(nowMs - (people[at]?.[1] ?? 0) * minuteMs, id)
  const insert = file.prepare(
    `insert into coordination_events (namespace, revision, position, at_ms, type, subject, node, token, actor, reason, detail)
     values ('default', 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  )
  const sorted = [...happened].sort((a, b) => b.minutesAgo - a.minutesAgo)
  for (const [position, { event, minutesAgo }] of sorted.entries()) {
    const { type, subject, node = null, token = null, actor = null, reason = null, detail } = event
    const atMs = Math.round(nowMs - minutesAgo * minuteMs)
    insert.run(
      position,
      atMs,
      type,
      subject,
      node,
      token,
      actor,
      reason,
      detail === undefined ? null : JSON.stringify(detail),
    )
  }
  file.close()
  keepAlive(path)
}

/**
 * Writes the heartbeats of the nodes. Must be called from time to time. One node is late, and one has fallen silent.
 */
export function keepAlive(path: string): void {
  const file = new BetterSqlite(path)
  const beat = file.prepare('update coordination_nodes set heartbeat_at_ms = ? where name = ?')
  for (const [at, [name]] of people.entries())
    beat.run(Date.now() - ({ 8: 11_400, 9: 47_000 }[at] ?? 300 + 900 * (at % 5)), name)
  file.close()
}
