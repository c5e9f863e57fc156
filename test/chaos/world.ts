/**
 * What a campaign disturbs: nodes, the ways between them and their database, and the database. A node that ends is
 * started again.
 */
import { execFileSync } from 'node:child_process'
import { accessSync, existsSync, mkdirSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import BetterSqlite from 'better-sqlite3'
import { silentLog } from '../../plugin/core/log.js'
import { Operator } from '../../plugin/core/operator.js'
import { describe, type Status } from '../../plugin/core/reports/status.js'
import type { Store } from '../../plugin/core/store.js'
import type { Lifetime } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { type TcpProxy, useProxy } from '../support/proxy.js'
import { ChaosNode } from './fleet.js'
import { type Entry, type History, monotonicMs } from './history.js'
import { Links } from './links.js'
import { createRegister, openRegister } from './register.js'
import type { DatabaseServer, ServerPlan } from './server.js'
import { dialectOf, Versions } from './versions.js'

/**
 * `server` and `file` are a server and a SQLite file of the campaign's own; `url` is a database elsewhere. `diskMb` is
 * the size of a disk of its own, which faults may fill.
 */
export type Place =
  | { readonly at: 'server'; readonly diskMb?: number; create(plan: ServerPlan): Promise<DatabaseServer> }
  | { readonly at: 'file'; readonly diskMb: number }
  | { readonly at: 'url'; readonly url: string }

export interface WorldPlan {
  readonly place: Place
  readonly nodes: number
  readonly ttlMs: number
  /** Removed with all its contents when the world ends. */
  readonly folder: string
  readonly history: History
  readonly random: () => number
}

/** The way of each node to its database; undefined where the database is a file. */
type Proxies = readonly (TcpProxy | undefined)[]

export class World {
  readonly plan: WorldPlan
  readonly faketime: string | undefined = findFaketime()
  /** A folder on a small disk of its own, where one can be mounted. */
  readonly smallDisk: string | undefined
  server: DatabaseServer | undefined
  /** The network between nodes and their database, where one can be built. */
  links: Links | undefined
  /** The reason why there is no network. */
  withoutLinks: string | undefined
  /** How often the ways were led to another server. */
  moves = 0
  readonly #lifetime: Undo
  readonly #nodes: (ChaosNode | undefined)[] = []
  readonly #busy = new Set<number>()
  readonly #visitors = new Set<ChaosNode>()
  #proxies: Proxies = []
  #target = { host: '127.0.0.1', port: 0 }
  #store: Store | undefined
  #versions: Versions | undefined
  /** The version that is started under the name of each node. */
  readonly #running: number[] = []
  #started = 0
  #orders = 0
  #closing = false

  private constructor(plan: WorldPlan, lifetime: Undo) {
    this.plan = plan
    this.#lifetime = lifetime
    this.smallDisk = mountSmallDisk(plan, lifetime)
  }

  static async start(plan: WorldPlan): Promise<World> {
    const lifetime = new Undo()
    lifetime.teardown(() => rm(plan.folder, { recursive: true, force: true }))
    const world = new World(plan, lifetime)
    try {
      await world.#begin()
      return world
    } catch (error) {
      await world.end()
      throw error
    }
  }

  async #begin(): Promise<void> {
    const { place, nodes } = this.plan
    if (place.at === 'server') {
      const folder = join(this.serverFolder, 'server')
      this.server = await place.create({ folder, faketime: this.faketime })
      this.#lifetime.teardown(() => this.server?.remove())
    }
    this.#versions = new Versions(this.plan.folder, dialectOf(this.directUrl))
    await this.observe()
    await createRegister(this.directUrl)
    await this.#buildWays(nodes)
    for (let index = 0; index < nodes; index++) this.#spawn(index)
  }

  /** The URL that leads straight to the database, past all faults. */
  get directUrl(): string {
    const { place } = this.plan
    if (place.at === 'url') return place.url
    return this.server?.url ?? `sqlite:${this.path}`
  }

  /** The folder that contains the folders of servers. */
  get serverFolder(): string {
    return this.smallDisk ?? this.plan.folder
  }

  /** The path of the SQLite file. */
  get path(): string {
    return join(this.smallDisk ?? this.plan.folder, 'coordination.db')
  }

  get ttlMs(): number {
    return this.plan.ttlMs
  }

  /** Returns a random time of `from` to `to` ttls, in ms. */
  ttls(from: number, to: number): number {
    return Math.round(this.ttlMs * (from + (to - from) * this.plan.random()))
  }

  pick<T>(items: readonly T[]): T | undefined {
    return items[Math.floor(this.plan.random() * items.length)]
  }

  add(entry: Entry): void {
    this.plan.history.add(entry)
  }

  pause(ms: number): Promise<void> {
    return sleep(ms)
  }

  get nodes(): ChaosNode[] {
    return this.#nodes.filter((node) => node !== undefined)
  }

  /** Disturbs a node that no other fault disturbs at present. Returns 0 when there is none. */
  async withNode(work: (node: ChaosNode, index: number) => Promise<number>): Promise<number> {
    const free = this.#nodes.flatMap((node, index) =>
      node?.alive && node.joined && !this.#busy.has(index) ? [index] : [],
    )
    const index = this.pick(free)
    const node = index === undefined ? undefined : this.#nodes[index]
    if (index === undefined || node === undefined) return 0
    this.#busy.add(index)
    try {
      return await work(node, index)
    } finally {
      this.#busy.delete(index)
    }
  }

  /** Disturbs the way of one node. Returns 0 when the node has no connection through it. */
  withWay(work: (way: TcpProxy) => Promise<number>): Promise<number> {
    return this.withConnected((_index, way) => work(way))
  }

  /** The same, with the index of the node. */
  withConnected(work: (index: number, way: TcpProxy) => Promise<number>): Promise<number> {
    return this.withNode(async (_node, index) => {
      const way = this.#proxies[index]
      return way === undefined || way.connections === 0 ? 0 : work(index, way)
    })
  }

  get ways(): TcpProxy[] {
    return this.#proxies.filter((way) => way !== undefined)
  }

  /** Starts an additional node for a while, under its own name or under that of an existing node. */
  visitor(name: string, version = this.#running[0]): ChaosNode {
    const node = this.#make(name, 0, version)
    this.#visitors.add(node)
    return node
  }

  get versions(): Versions {
    if (this.#versions === undefined) throw new Error('There is no database yet')
    return this.#versions
  }

  /** Starts a node in this version from now on. Returns its present process, which the caller must end. */
  replace(index: number, version: number): ChaosNode | undefined {
    this.#running[index] = version
    const node = this.#nodes[index]
    node?.expectEnd()
    return node
  }

  /** Ends all nodes of older versions. Once refused, they would never come back. */
  async replaceOlder(version: number): Promise<void> {
    const older = this.nodes.flatMap((_node, index) => ((this.#running[index] ?? 0) < version ? [index] : []))
    await Promise.all(older.map((index) => this.replace(index, version)?.kill()))
  }

  /** Whether the database has all migrations that this version adds. */
  async hasMigrated(version: number): Promise<boolean> {
    return this.versions.isAmong(version, await this.#migrations())
  }

  async #migrations(): Promise<string[]> {
    const register = openRegister(this.directUrl)
    return register.migrations().finally(() => register.close())
  }

  /** Observes the database from outside; called again when the database has been replaced. */
  async observe(): Promise<void> {
    await this.#store?.close().catch(() => undefined)
    this.#store = await eventually(() => this.#open())
  }

  /** Opens a store with the oldest version that the database admits. Which one that is may change meanwhile. */
  async #open(): Promise<Store> {
    const there = await this.#migrations().catch(() => [])
    const open = await this.versions.openerOf(this.versions.knowing(there))
    return open({
      database: this.directUrl,
      namespace: 'default',
      statementTimeoutMs: 5_000,
      migrate: true,
      push: false,
      log: silentLog,
    })
  }

  /** Leads all ways to another server from now on. */
  async moveTo(server: DatabaseServer): Promise<void> {
    this.moves += 1
    this.server = server
    this.#target.port = server.port
    for (const way of this.ways) way.cut()
    await this.observe()
  }

  get operator(): Operator {
    return new Operator(
      () => this.#observer,
      () => 0,
    )
  }

  async status(): Promise<Status> {
    const settings = { namespace: 'default', identity: { node: 'observer', cluster: 'none' } }
    return describe(await this.#observer.snapshot(), settings, undefined, 'idle')
  }

  /** Gives an order under a unique reason, and records it when it was acknowledged. Returns whether it was. */
  async order(
    what: string,
    give: (by: { actor: string; reason: string }) => Promise<string>,
  ): Promise<boolean> {
    const reason = `${what} ${++this.#orders}`
    const outcome = await give({ actor: 'campaign', reason }).catch(() => 'failed')
    if (!['done', 'revoked', 'transferred', 'released', 'blocked', 'asked'].includes(outcome)) return false
    this.add({ t: 'ordered', atMs: monotonicMs(), what, reason })
    return true
  }

  /** Undoes what faults may have left behind, and waits until everything has found its place. */
  async settle(limitMs: number): Promise<boolean> {
    for (const node of this.nodes) node.thaw()
    for (const way of this.ways) way.cut()
    for (const node of this.#visitors) await node.kill()
    this.#visitors.clear()
    await this.#undoOrders(await eventually(() => this.status()))
    this.add({ t: 'quiet', atMs: monotonicMs() })
    let last = 'nothing could be read'
    const ok = await eventually(
      async () => {
        const status = await this.status()
        last = whatIsMissing(status, this.#nodes)
        // A drained node that was gone a moment ago is still drained when it joins again.
        await this.#undoOrders(status)
        return last === ''
      },
      { timeoutMs: limitMs, everyMs: 50, until: 'everything has found its place' },
    ).catch(() => false)
    this.add({ t: 'settled', atMs: monotonicMs(), ok, detail: last })
    return ok
  }

  /** Records the final contents of the database. */
  async takeStock(): Promise<void> {
    const register = openRegister(this.directUrl)
    this.add({ t: 'written', rows: await register.rows() })
    await register.close()
    const events = await this.#observer.events({ limit: 1_000_000 })
    this.add({ t: 'events', reasons: events.flatMap(({ reason }) => reason ?? []) })
  }

  async end(): Promise<void> {
    this.#closing = true
    await Promise.all([...this.nodes, ...this.#visitors].map((node) => node.kill()))
    await this.#store?.close().catch(() => undefined)
    await this.#lifetime.undo()
  }

  get #observer(): Store {
    if (this.#store === undefined) throw new Error('Nobody looks at the database')
    return this.#store
  }

  async #buildWays(nodes: number): Promise<void> {
    const { place } = this.plan
    if (place.at === 'file') return
    const { hostname, port, protocol } = new URL(this.directUrl)
    this.#target = { host: hostname, port: Number(port || usualPorts[protocol]) }
    const laid = await Links.lay(nodes, this.#lifetime)
    if ('links' in laid) this.links = laid.links
    else this.withoutLinks = laid.why
    this.#proxies = await Promise.all(
      Array.from({ length: nodes }, () => useProxy(this.#lifetime, this.#target, this.links?.host)),
    )
  }

  #urlFor(index: number): string {
    const way = this.#proxies[index]
    if (way === undefined) return this.directUrl
    const url = new URL(this.directUrl)
    url.hostname = way.host
    url.port = String(way.port)
    return url.href
  }

  #make(name: string, index: number, version = 0): ChaosNode {
    const { ttlMs, folder, history } = this.plan
    const identity = { node: name, cluster: index % 2 === 0 ? 'c1' : 'c2' }
    const watchdog = index % 3 === 2
    const node = new ChaosNode(
      {
        order: {
          by: `${name}.${++this.#started}`,
          history: history.path,
          options: {
            database: this.#urlFor(index),
            namespace: 'default',
            ttlMs,
            identity,
            watchdog,
            watchProcesses: index % 2 === 0,
            keepEvents: 1_000_000,
          },
          writeEveryMs: 150,
        },
        folder,
        program: this.versions.fileOf(version, 'build/test/chaos/node.js'),
        faketime: this.faketime,
        namespace: this.links?.namespaceOf(index),
      },
      history,
    )
    // The watchdog ends a process whose loop stands still on a busy machine, and is right to do so.
    if (watchdog) node.expectEnd()
    return node
  }

  /** Starts a node, and starts it again whenever it ends, as a platform does. */
  #spawn(index: number): void {
    if (this.#closing) return
    const node = this.#make(`n${index + 1}`, index, this.#running[index])
    this.#nodes[index] = node
    void node.ended().then(async () => {
      await sleep(100)
      this.#spawn(index)
    })
  }

  async #undoOrders({ nodes, workers }: Status): Promise<void> {
    const by = { actor: 'campaign', reason: 'the faults are over' }
    for (const { id, state } of nodes) {
      if (state === 'draining') await eventually(() => this.operator.undrain(id, by))
    }
    for (const { key, paused } of workers) {
      if (paused) await eventually(() => this.operator.resume(key, by))
    }
  }
}

/** Returns what is not in its place; empty when every node is active and every lease of a worker is held. */
function whatIsMissing(status: Status, nodes: readonly (ChaosNode | undefined)[]): string {
  const names = nodes.flatMap((node) => (node?.alive && node.joined ? [node.name] : [])).sort()
  if (names.length < nodes.length) return `only ${names.join(' ')} have joined`
  const active = status.nodes.filter(({ state }) => state === 'active').map(({ name }) => name)
  if (active.sort().join() !== names.join()) return `${active.join(' ')} are active`
  const wanted = status.leases.filter(({ worker, target }) => worker !== null && target !== null)
  const wrong = wanted.filter(({ state }) => state !== 'held').map(({ key, state }) => `${key} is ${state}`)
  if (wrong.length > 0) return wrong.join(', ')
  const counts = new Map<string, number>()
  for (const { worker } of wanted) counts.set(worker ?? '', (counts.get(worker ?? '') ?? 0) + 1)
  const unmanned = status.workers.filter(({ key, slots }) => (counts.get(key) ?? 0) < slots)
  return unmanned.map(({ key, slots }) => `${key} has ${counts.get(key) ?? 0} of ${slots}`).join(', ')
}

/** The ports of servers whose URL names none. */
const usualPorts: Readonly<Record<string, number>> = {
  'mysql:': 3306,
  'mssql:': 1433,
  'postgres:': 5432,
  'postgresql:': 5432,
}

/** Undoes what was set up, in the opposite order. */
export class Undo implements Lifetime {
  readonly #work: (() => unknown)[] = []

  teardown(work: () => unknown): void {
    this.#work.push(work)
  }

  async undo(): Promise<void> {
    for (const work of this.#work.splice(0).reverse()) await work()
  }
}

/**
 * Returns the path of the library that fakes the time of day, as Debian installs it. It is the one for threads, which
 * holds back signals while it reads the time. With the other one a process of PostgreSQL hangs for ever when a timer
 * goes off meanwhile: both read the file of the clock, and the second waits for the first.
 */
export function findFaketime(): string | undefined {
  return ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib', '/usr/local/lib']
    .map((folder) => `${folder}/faketime/libfaketimeMT.so.1`)
    .find((path) => existsSync(path))
}

/** Mounts the small disk of a place, which only root can do. */
function mountSmallDisk({ folder, place }: WorldPlan, lifetime: Lifetime): string | undefined {
  if (place.at === 'url' || place.diskMb === undefined) return undefined
  const disk = join(folder, 'disk')
  mkdirSync(disk, { recursive: true })
  try {
    accessSync(disk)
    const options = `size=${place.diskMb}m,mode=755`
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'coordination-chaos', disk], { stdio: 'ignore' })
  } catch {
    return undefined
  }
  lifetime.teardown(() => execFileSync('umount', ['-l', disk], { stdio: 'ignore' }))
  return disk
}

/** Whether the file can be written to at this moment. */
export function canWrite(path: string, timeoutMs = 0): boolean {
  const file = new BetterSqlite(path, { timeout: timeoutMs })
  try {
    file.exec('begin immediate')
    return true
  } catch {
    return false
  } finally {
    file.close()
  }
}
