/**
 * A world at rest: a copy of a database whose nodes held leases and worked, below an application whose own node has not
 * joined. Only requests change anything in it, so each change was made by the request that has just been answered.
 * After each change the world is restored.
 */
import BetterSqlite, { type Database } from 'better-sqlite3'
import type { FastifyInstance, RouteOptions } from 'fastify'
import {
  type Authorize,
  allowLoopback,
  type Coordinator,
  createCoordinator,
  type LeaseStatus,
  type WorkerDefinition,
} from '../../plugin/index.js'
import { type Lifetime, useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { threeWorkers, untilAborted, useApp } from './application.js'

export const prefix = '/coordination'

/** One worker of each kind, and one that is paused. */
export const workers: readonly WorkerDefinition[] = [
  ...threeWorkers,
  { name: 'month-close', kind: 'single', scope: 'global', run: untilAborted },
]

/** Users that are no valid actors. */
export const strangers = ['stranger', 'thrower', 'nobody', 'longwinded'] as const

/** The header `x-user` names the actor. Without it only this machine may do anything, as `allowLoopback` says. */
export const authorize: Authorize = (request, action) => {
  const { 'x-user': user } = request.headers
  if (user === 'stranger') return false
  if (user === 'thrower') throw new Error('the session store is away')
  if (user === 'nobody') return undefined
  if (user === 'longwinded') return { id: 'l'.repeat(201) }
  return typeof user === 'string' ? { id: user } : allowLoopback()(request, action)
}

/** What requests can name. The order is the same in each run, although the ids are not. */
export interface Known {
  readonly routes: readonly RouteOptions[]
  readonly leases: readonly string[]
  readonly workers: readonly string[]
  readonly nodes: readonly string[]
  /** The `next` of a page, by the path of the list. */
  readonly cursors: ReadonlyMap<string, string>
}

export interface World {
  readonly app: FastifyInstance
  readonly known: Known
  /** Returns what `If-Match` must be for a write to this path. */
  tagOf(path: string): Promise<string>
}

export type Row = Readonly<Record<string, unknown>>

/** All rows of all tables of the library. */
export type Rows = Readonly<Record<string, readonly Row[]>>

export interface WorldAtRest extends World {
  /** The rows that are restored. */
  readonly before: Rows
  /** Returns all rows when another connection has committed something since the last call, and undefined otherwise. */
  changed(): Rows | undefined
  /** Restores all rows. */
  restore(): void
}

/** Opens a world at rest, which the head of this file describes. */
export async function useWorldAtRest(t: Lifetime): Promise<WorldAtRest> {
  const { path, url } = await photograph(t)
  const routes: RouteOptions[] = []
  const app = await useApp(t, {
    url,
    options: { authorize, autoStart: false },
    before: (app) => prepare(app, routes),
  })
  await arrange(app, path)
  const database = new BetterSqlite(path)
  t.teardown(() => database.close())
  const { before, changed, restore } = keeper(database)
  const known = await knownIn(app, routes)
  const tags = new Map<string, string>()
  for (const each of [...paths('leases', known.leases), ...paths('assignments', known.workers)])
    tags.set(each, await readTag(app, each))
  return { app, known, before, changed, restore, tagOf: async (path) => tags.get(path) ?? '"1"' }
}

/** Starts an application, and another node that is a candidate for the same workers. */
export async function useLivingWorld(t: Lifetime): Promise<World> {
  const { url } = await useSqlite(t)
  const routes: RouteOptions[] = []
  const app = await useApp(t, {
    url,
    workers,
    options: { authorize, pollMs: 50 },
    before: (app) => prepare(app, routes),
  })
  const other = await createCoordinator({
    database: url,
    identity: { node: 'n2', cluster: 'c1' },
    pollMs: 50,
  })
  t.teardown(() => other.close())
  for (const worker of workers) other.worker(worker)
  await other.start()
  await eventually(() => allHeld(app.coordination))
  return { app, known: await knownIn(app, routes), tagOf: (path) => readTag(app, path) }
}

/** Notes the routes, and lets streams be injected: the stand-in for a socket there has no time limits. */
function prepare(app: FastifyInstance, routes: RouteOptions[]): void {
  app.addHook('onRoute', (route) => void routes.push(route))
  app.addHook('onRequest', async (_request, { raw: { socket } }) => {
    if (socket !== null) Object.assign(socket, { setTimeout: () => socket })
  })
}

/** A worker that only the node that leaves has registered. */
const renamed: WorkerDefinition = { name: 'renamed', kind: 'single', scope: 'global', run: untilAborted }

/**
 * Returns whether each lease has its intended holder. Shares for which there are too few nodes may be free, and so may be
 * what nobody registers any more.
 */
export async function allHeld(coordinator: Coordinator): Promise<boolean> {
  const { leases } = await coordinator.status()
  const isSettled = ({ state, worker }: LeaseStatus): boolean =>
    state === 'held' || (state === 'free' && (worker === 'global/data' || worker === 'global/renamed'))
  return leases.length > 14 && leases.every(isSettled)
}

/** Returns a key as it is written in paths. */
export function inPath(key: string): string {
  return key.replace('/', ':').replace('#', '~')
}

/**
 * Makes a database with three nodes, one of them draining, one that has left with a worker of its own, a lease by name,
 * and some events.
 */
async function photograph(t: Lifetime): Promise<{ path: string; url: string }> {
  const { path, url } = await useSqlite(t)
  const first = await joined(url, 'n1')
  const others = await Promise.all([joined(url, 'n2'), joined(url, 'n3'), joined(url, 'n4', renamed)])
  try {
    const [, third, fourth] = others
    await eventually(() => allHeld(first), { until: 'all leases are held' })
    await fourth?.close()
    await first.operator.drain(third?.nodeId ?? '', by)
    const lease = await first.acquire('by-name')
    await eventually(() => allHeld(first), { until: 'what the others had is held' })
    const film = new BetterSqlite(path)
    film.prepare('vacuum into ?').run(`${path}.photograph`)
    film.close()
    await lease.release()
  } finally {
    await Promise.all([first, ...others].map((node) => node.close()))
  }
  return { path: `${path}.photograph`, url: `${url}.photograph` }
}

const by = { actor: 'mira', reason: 'to be seen' }

async function joined(url: string, node: string, ...more: readonly WorkerDefinition[]): Promise<Coordinator> {
  const coordinator = await createCoordinator({
    database: url,
    identity: { node, cluster: 'c1' },
    pollMs: 50,
  })
  for (const worker of [...workers, ...more]) coordinator.worker(worker)
  await coordinator.start()
  return coordinator
}

/** Makes something to resume and something to rebalance. This also does what is done once for a new file. */
async function arrange({ coordination: { operator } }: FastifyInstance, path: string): Promise<void> {
  await operator.pause('global/month-close', by)
  const database = new BetterSqlite(path)
  database.exec(
    "update coordination_leases set (holder, target) = (select id, id from coordination_nodes where name = 'n1') " +
      "where worker = 'global/consumer'",
  )
  database.close()
}

async function knownIn(app: FastifyInstance, routes: readonly RouteOptions[]): Promise<Known> {
  const { nodes, workers, leases } = await app.coordination.status()
  const byName = [...nodes].sort((a, b) => (a.name < b.name ? -1 : 1))
  const lists = ['/nodes', '/workers', '/leases', '/assignments']
  const pages = await Promise.all(
    lists.map((path) => app.inject({ url: `${prefix}${path}?limit=1`, headers: { 'x-user': 'mira' } })),
  )
  return {
    routes: routes.filter(({ method }) => method !== 'HEAD'),
    leases: leases.map(({ key }) => key).sort(),
    workers: workers.map(({ key }) => key).sort(),
    nodes: byName.map(({ id }) => id),
    cursors: new Map(lists.map((path, index) => [path, String(pages[index]?.json().next)])),
  }
}

function paths(list: string, keys: readonly string[]): string[] {
  return keys.map((key) => `/${list}/${inPath(key)}`)
}

async function readTag(app: FastifyInstance, path: string): Promise<string> {
  const { headers } = await app.inject({ url: `${prefix}${path}`, headers: { 'x-user': 'mira' } })
  return headers.etag ?? '"1"'
}

/** Reads and writes all rows over a connection of its own. */
function keeper(database: Database): Pick<WorldAtRest, 'before' | 'changed' | 'restore'> {
  const tables = database
    .prepare<[], { name: string }>(
      "select name from sqlite_master where type = 'table' and name like 'coordination\\_%' escape '\\' order by name",
    )
    .all()
    .map(({ name }) => name)
  const reads = tables.map((name) => database.prepare<[], Row>(`select * from ${name} order by 1, 2, 3`))
  const rows = database.transaction(() =>
    Object.fromEntries(tables.map((name, index) => [name, reads[index]?.all() ?? []])),
  )
  const before = rows()
  let version = database.pragma('data_version', { simple: true })
  const changed = (): Rows | undefined => {
    const latest = database.pragma('data_version', { simple: true })
    if (latest === version) return undefined
    version = latest
    return rows()
  }
  const restore = database.transaction(() => {
    for (const name of tables) {
      database.exec(`delete from ${name}`)
      for (const row of before[name] ?? []) insert(name, row)
    }
  })
  return { before, changed, restore }

  function insert(table: string, row: Row): void {
    const columns = Object.keys(row)
    const sql = `insert into ${table} (${columns.join(', ')}) values (${columns.map(() => '?').join(', ')})`
    database.prepare(sql).run(...Object.values(row))
  }
}
