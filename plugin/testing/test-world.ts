/**
 * Nodes in one process, over a database in memory, with a time that a test moves by hand.
 *
 * A takeover of twenty seconds takes milliseconds here, and always happens in the same order. A test can do to a node
 * whatever may happen to one: kill it, freeze it, cut it off, or close it.
 *
 * @example
 * const world = new TestWorld()
 * const [a, b] = [world.node('a'), world.node('b')]
 * for (const { coordinator } of [a, b]) coordinator.worker(indexing)
 * await world.start()
 * world.holderOf('indexing')?.kill()
 * await world.advanceUntil(() => world.holderOf('indexing') !== undefined)
 * await world.close()
 */

import { Coordinator } from '../core/coordinator.js'
import { CoordinationError } from '../core/errors.js'
import { checkCluster } from '../core/identity.js'
import { checkOptions } from '../core/inputs.js'
import { type Log, silentLog } from '../core/log.js'
import { checkName } from '../core/names.js'
import type { Snapshot, Store } from '../core/store.js'
import type { Clock } from '../core/time/clock.js'
import {
  type GivenTiming,
  type Preset,
  resolveTiming,
  type Timing,
  timingProblems,
} from '../core/time/timing.js'
import { Link } from './link.js'
import { comeToRest, ManualClock } from './manual-clock.js'
import { MemoryDatabase } from './memory-store.js'

/**
 * The options of a world. Durations are those of the coordinator: `preset`, `ttlMs` and so on. Longer durations mean
 * fewer heartbeats to go through: for days of a schedule, use a `ttlMs` of minutes.
 */
export interface TestWorldOptions extends GivenTiming {
  readonly preset?: Preset | undefined
  /** The start of the world, by the clock of its database. Default 2030-01-01T00:00:00Z. */
  readonly startsAt?: Date | string | number | undefined
}

/** The options of a node in a world. */
export interface TestNodeOptions {
  /** Default `default`. */
  readonly cluster?: string | undefined
  readonly labels?: Readonly<Record<string, string>> | undefined
  readonly version?: string | undefined
  /** Default: nothing is logged. */
  readonly log?: Log | undefined
}

/** The default limit of {@link TestWorld.advanceUntil}. */
const patienceMs = 3_600_000

const retention = { eventsForMs: 1e12, events: 10_000, goneNodesForMs: 1e12 }

/** The limit for closing. No node takes longer to close than its passes are given to settle. */
const closingMs = 24 * 3_600_000

/** A database, its time, and the nodes around it. */
export class TestWorld implements AsyncDisposable {
  readonly #database: MemoryDatabase
  readonly #timing: Timing
  readonly #nodes: TestNode[] = []
  readonly #bodies: Body[] = []
  #timeMs: number

  /**
   * @throws {CoordinationError} `WCO_OPTIONS` for an unknown option, when durations do not go together, or `startsAt` is
   *   not a time.
   */
  constructor(options: TestWorldOptions = {}) {
    checkOptions('TestWorld', options, ['startsAt', 'preset', ...Object.keys(resolveTiming({}))])
    const { startsAt = '2030-01-01T00:00:00Z', ...timing } = options
    this.#timeMs = new Date(startsAt).getTime()
    if (Number.isNaN(this.#timeMs)) {
      throw new CoordinationError('WCO_OPTIONS', '`startsAt` must be a time, like "2030-01-01T00:00:00Z".')
    }
    this.#timing = resolveTiming(timing)
    const problems = timingProblems(this.#timing)
    if (problems.length > 0) {
      const sentences = problems.map(({ sentence }) => sentence)
      throw new CoordinationError('WCO_OPTIONS', sentences.join('\n'))
    }
    this.#database = new MemoryDatabase({
      nowMs: () => Math.floor(this.#timeMs),
      identity: () => 'test-world',
    })
  }

  /** The time by the clock of the database. */
  get now(): Date {
    return new Date(Math.floor(this.#timeMs))
  }

  /**
   * Adds a node, which has not started yet. Register workers on its coordinator, then call {@link start}.
   *
   * @throws {CoordinationError} `WCO_OPTIONS` for an unknown option, `WCO_NAME` when its name, or that of its cluster, is
   *   not usable.
   */
  node(name: string, options: TestNodeOptions = {}): TestNode {
    checkOptions('node', options, ['cluster', 'labels', 'version', 'log'])
    const { cluster = 'default', labels = {}, version = null, log = silentLog } = options
    const identity = { node: checkName('node', name), cluster: checkCluster('cluster', cluster) }
    const timing = this.#timing
    const body = new Body(this.#open())
    const settings = { namespace: 'default', identity, timing, labels, version, retention }
    const clock = withIds(body.clock, `${name}-${this.#nodes.length}`)
    const node = new TestNode(name, new Coordinator(settings, body.link, clock, log), body)
    this.#nodes.push(node)
    this.#bodies.push(body)
    return node
  }

  /** Starts the nodes that have not been started yet, and gives them time to share out the leases. */
  async start(): Promise<void> {
    for (const { isAlive, coordinator } of this.#nodes) {
      if (isAlive && coordinator.state === 'idle') await this.settled(coordinator.start())
    }
    await this.advance(this.#timing.heartbeatMs)
  }

  /**
   * Returns the node that holds this lease, given by name or key, and whose work may go on; undefined when there is
   * none.
   */
  holderOf(lease: string): TestNode | undefined {
    return this.#nodes.find(({ isAlive, coordinator }) => isAlive && coordinator.isHeld(lease))
  }

  /** Lets time pass for all nodes. Timers that come due on the way fire, each at its time. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#timeMs + ms
    await comeToRest()
    while (this.#timeMs < endMs) await this.#step(endMs - this.#timeMs)
  }

  /**
   * Lets time pass until a condition holds.
   *
   * @param limitMs in the world's time. Default: an hour.
   * @throws {Error} when the condition does not hold by then.
   */
  async advanceUntil(condition: () => boolean | Promise<boolean>, limitMs = patienceMs): Promise<void> {
    if (await this.#comes(condition, limitMs)) return
    throw new Error(`What was waited for did not come within ${limitMs} ms of the world: ${condition}`)
  }

  /**
   * Lets time pass until a promise has settled. Returns its result.
   *
   * @param limitMs in the world's time. Default: an hour.
   * @throws {Error} when the promise has not settled by then.
   */
  async settled<T>(promise: Promise<T>, limitMs = patienceMs): Promise<T> {
    let isSettled = false
    const settle = (): void => {
      isSettled = true
    }
    promise.then(settle, settle)
    if (await this.#comes(() => isSettled, limitMs)) return promise
    throw new Error(`The promise did not settle within ${limitMs} ms of the world.`)
  }

  /** Returns all rows, as the database has them. */
  snapshot(): Promise<Snapshot> {
    return this.#open().snapshot()
  }

  /** Stops all nodes: signals abort, passes settle, and nothing continues afterwards. Harmless when repeated. */
  async close(): Promise<void> {
    for (const body of this.#bodies) body.wakeForTheEnd()
    const closed = Promise.all(this.#nodes.map(({ coordinator }) => coordinator.close()))
    await this.settled(closed, closingMs)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** Lets time pass until a condition holds, and returns whether it came within the limit. */
  async #comes(condition: () => boolean | Promise<boolean>, limitMs: number): Promise<boolean> {
    const endMs = this.#timeMs + limitMs
    await comeToRest()
    while (!(await condition())) {
      if (this.#timeMs >= endMs) return false
      await this.#step(Math.min(endMs - this.#timeMs, this.#timing.heartbeatMs))
    }
    return true
  }

  /** Moves on to the next timer of any node, or by `mostMs` if no timer is due before. */
  async #step(mostMs: number): Promise<void> {
    const ms = Math.min(mostMs, ...this.#bodies.map(({ dueInMs }) => dueInMs))
    this.#timeMs += ms
    for (const body of this.#bodies) body.pass(ms)
    await comeToRest()
  }

  #open(): Store {
    const { statementTimeoutMs } = this.#timing
    return this.#database.open({ namespace: 'default', statementTimeoutMs })
  }
}

/** One node, and the ways to disturb it. */
export class TestNode {
  readonly name: string
  /** The counterpart of `app.coordination` in an application: register the same workers on it. */
  readonly coordinator: Coordinator
  readonly #body: Body

  /**
   * @internal
   * @param body made by the world.
   */
  constructor(name: string, coordinator: Coordinator, body: Body) {
    this.name = name
    this.coordinator = coordinator
    this.#body = body
  }

  /** Whether the node is neither frozen nor killed. */
  get isAlive(): boolean {
    return this.#body.condition === 'alive'
  }

  /**
   * Ends the node's process without notice: it is never heard from again. Application code of the node that waits for
   * anything but the world's time runs on, because it is in the process of the test; its signals abort when the world
   * closes.
   */
  kill(): void {
    this.#body.stop('killed')
  }

  /** Makes the node's process stand still while time passes, as under SIGSTOP or in a long garbage collection. */
  freeze(): void {
    if (this.isAlive) this.#body.stop('frozen')
  }

  /** Lets a frozen node continue where it stopped. It does not know yet how late it is. */
  thaw(): void {
    if (this.#body.condition === 'frozen') this.#body.goOn()
  }

  /** Cuts the node off from the database. */
  disconnect(): void {
    this.#body.link.cut()
  }

  reconnect(): void {
    this.#body.link.mend()
  }
}

/** The surroundings of a node: its clock, and its link to the database. */
class Body {
  readonly clock = new ManualClock()
  readonly link: Link
  condition: 'alive' | 'frozen' | 'killed' = 'alive'

  constructor(store: Store) {
    this.link = new Link(store)
  }

  stop(condition: 'frozen' | 'killed'): void {
    this.condition = condition
    this.link.hold()
  }

  goOn(): void {
    this.condition = 'alive'
    this.link.letGo()
  }

  /** Lets a killed node find out that it must not go on. */
  wakeForTheEnd(): void {
    if (this.condition === 'killed') this.link.cut()
    this.goOn()
  }

  /** The time until something happens here by itself. */
  get dueInMs(): number {
    return (this.condition === 'alive' ? this.clock.dueInMs : undefined) ?? Number.POSITIVE_INFINITY
  }

  pass(ms: number): void {
    this.clock.stall(ms)
    if (this.condition === 'alive') this.clock.fireDue()
  }
}

/**
 * Returns a clock whose ids contain the name of their node. As with the timers of Node, none takes less than 1 ms:
 * otherwise time would never go on for work without a pause.
 */
function withIds(clock: ManualClock, name: string): Clock {
  let lives = 0
  return {
    read: () => clock.read(),
    setTimer: (delayMs, fire) => clock.setTimer(Math.max(1, delayMs), fire),
    random: () => clock.random(),
    uuid: () => `${name}-life-${++lives}`,
  }
}
