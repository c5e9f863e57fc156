/**
 * A few nodes in one process, over one real SQLite database in memory, with clocks that tests move by hand.
 *
 * Each node has a clock of its own, so that one can stand still or be suspended while the others go on.
 */
import Database from 'better-sqlite3'
import type { Test } from 'tap'
import { Coordinator, type CoordinatorSettings } from '../../plugin/core/coordinator.js'
import type { EventName } from '../../plugin/core/events.js'
import { type Log, silentLog } from '../../plugin/core/log.js'
import type { Store } from '../../plugin/core/store.js'
import { resolveTiming, type Timing } from '../../plugin/core/time/timing.js'
import type { Machine } from '../../plugin/core/watch/machine.js'
import type { Lease } from '../../plugin/core/work/lease.js'
import type { WorkerDefinition } from '../../plugin/core/work/worker.js'
import { openSqliteStoreOver } from '../../plugin/stores/sqlite/index.js'
import { ManualClock } from '../../plugin/testing/manual-clock.js'

export interface WorldNode {
  readonly name: string
  readonly coordinator: Coordinator
  readonly clock: ManualClock
  readonly store: Store
  /** What happened, in order, each as the event, its key and its reason. */
  readonly history: string[]
}

export class World {
  readonly #database = new Database(':memory:')
  readonly timing: Timing
  readonly nodes: WorldNode[] = []
  /** The difference between the database's clock and true time. */
  clockOffsetMs = 0
  identity = 'server-1'
  #timeMs = 1_700_000_000_000
  readonly #frozen = new Set<WorldNode>()

  constructor(t: Test, timing: Partial<Timing> = {}) {
    this.timing = resolveTiming({ ttlMs: 15_000, ...timing })
    t.teardown(async () => {
      for (const node of this.nodes) this.thaw(node)
      const closed = Promise.all(this.nodes.map((node) => node.coordinator.close()))
      await this.advanceUntil(
        () => this.nodes.every((node) => node.coordinator.state === 'closed'),
        120_000,
        500,
      )
      await closed
      this.#database.close()
    })
  }

  async node(
    name: string,
    settings: Partial<CoordinatorSettings> & {
      cluster?: string
      wrap?: (store: Store) => Store
      log?: Log
      machine?: Machine
    } = {},
  ): Promise<WorldNode> {
    const clock = new ManualClock()
    const opened = await openSqliteStoreOver(this.#database, {
      namespace: settings.namespace ?? 'default',
      statementTimeoutMs: this.timing.statementTimeoutMs,
      migrate: true,
      nowMs: () => Math.round(this.#timeMs + this.clockOffsetMs),
      identity: () => this.identity,
    })
    const store = settings.wrap?.(opened) ?? opened
    const coordinator = new Coordinator(
      {
        namespace: 'default',
        identity: { node: name, cluster: settings.cluster ?? 'default' },
        timing: this.timing,
        labels: {},
        version: null,
        retention: { eventsForMs: 1e9, events: 10_000, goneNodesForMs: 86_400_000 },
        ...settings,
      },
      store,
      uniqueIds(clock, name),
      settings.log ?? silentLog,
      { machine: settings.machine },
    )
    const history: string[] = []
    for (const event of [
      'lease.acquired',
      'lease.ended',
      'lease.released',
      'session.lost',
      'trust.expired',
      'node.gone',
    ] as EventName[]) {
      coordinator.on(event, (what) =>
        history.push(
          [event, 'key' in what ? what.key : '', 'reason' in what ? what.reason : ''].join(' ').trim(),
        ),
      )
    }
    const node = { name, coordinator, clock, store, history }
    this.nodes.push(node)
    return node
  }

  /** Lets time pass for all nodes. Frozen nodes notice only afterwards. */
  async advance(ms: number, stepMs = 50): Promise<void> {
    for (let passedMs = 0; passedMs < ms; passedMs += stepMs) {
      this.#timeMs += stepMs
      for (const node of this.nodes) {
        if (this.#frozen.has(node)) node.clock.stall(stepMs)
        else await node.clock.advance(stepMs)
      }
    }
  }

  async advanceUntil(
    condition: () => boolean | Promise<boolean>,
    limitMs: number,
    stepMs = 50,
  ): Promise<void> {
    for (let passedMs = 0; !(await condition()); passedMs += stepMs) {
      if (passedMs >= limitMs)
        throw new Error(`what was waited for did not come within ${limitMs} ms of the clocks`)
      await this.advance(stepMs, stepMs)
    }
  }

  /** Lets time pass, and returns how many nodes at most trusted at once that they hold a lease, by its key or name. */
  async mostHolders(name: string, ms: number): Promise<number> {
    let most = 0
    for (let passedMs = 0; passedMs < ms; passedMs += 50) {
      await this.advance(50)
      most = Math.max(most, this.nodes.filter(({ coordinator }) => coordinator.isHeld(name)).length)
    }
    return most
  }

  /** Deletes all rows, as somebody may who cleans up by hand. */
  wipe(): void {
    for (const table of ['nodes', 'workers', 'leases', 'events', 'meta'])
      this.sql(`delete from coordination_${table}`)
  }

  /** Runs a statement on the database, as somebody may by hand. */
  sql(statement: string): void {
    this.#database.exec(statement)
  }

  /** Stops the timers of a process. What has been asked for is still answered, and hints still arrive. */
  freeze(node: WorldNode): void {
    this.#frozen.add(node)
  }

  thaw(node: WorldNode): void {
    this.#frozen.delete(node)
  }

  async start(...nodes: WorldNode[]): Promise<void> {
    for (const node of nodes) await node.coordinator.start()
    await this.advance(50)
  }
}

function uniqueIds(clock: ManualClock, name: string): ManualClock {
  let lives = 0
  clock.uuid = () => `${name}-life-${++lives}`
  return clock
}

/** Starts three nodes that have the worker, and lets a second pass. */
export async function startedWith(t: Test, definition: () => WorkerDefinition) {
  const world = new World(t)
  const nodes = [await world.node('a'), await world.node('b'), await world.node('c')] as const
  for (const node of nodes) node.coordinator.worker(definition())
  await world.start(...nodes)
  await world.advance(1_000)
  return { world, nodes }
}

/** Returns the token of a lease; 0 when there is none. */
export async function tokenOf(node: WorldNode, key: string): Promise<number> {
  const { leases } = await node.coordinator.status()
  return leases.find((lease) => lease.key === key)?.token ?? 0
}

/** Returns the names of those nodes that trust that they hold a lease, by its key or name. */
export function holders(nodes: readonly WorldNode[], name: string): string[] {
  return nodes.filter(({ coordinator }) => coordinator.isHeld(name)).map((node) => node.name)
}

/** Returns a state whose `over` becomes true when the promise is fulfilled. Does not wait for it. */
export function watched(promise: Promise<unknown>): { over: boolean } {
  const state = { over: false }
  void promise.then(() => {
    state.over = true
  })
  return state
}

/** Lets time pass until a lease has come, and returns it. */
export async function acquired(world: World, promise: Promise<Lease>): Promise<Lease> {
  const state = watched(promise)
  await world.advanceUntil(() => state.over, 5_000)
  return promise
}
