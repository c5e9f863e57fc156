/**
 * The operator of a simulated world. It gives orders, checks that they are obeyed and recorded, and takes them back
 * after the faults.
 */
import type { Coordinator } from '../../plugin/core/coordinator.js'
import { StoreError } from '../../plugin/core/errors.js'
import { blockWaitMs, type Timing } from '../../plugin/core/time/timing.js'
import type { Commits } from './commits.js'
import type { SimulatedDatabase } from './database.js'
import type { Fault, TimedKind } from './faults.js'
import type { History } from './history.js'
import { describe, type Scene } from './scene.js'
import type { Chance, Scheduler } from './scheduler.js'

export class Operator {
  readonly #scene: Scene
  readonly #commits: Commits
  readonly #scheduler: Scheduler
  readonly #database: SimulatedDatabase
  readonly #history: History
  readonly #timing: Timing
  readonly #chance: Chance
  #orders = 0
  #takingBack = false

  constructor(scene: Scene, commits: Commits) {
    this.#scene = scene
    this.#commits = commits
    this.#scheduler = scene.scheduler
    this.#database = scene.database
    this.#history = scene.history
    this.#timing = scene.timing
    this.#chance = scene.chances.operator
  }

  order({ kind, degree, forMs }: Fault): void {
    if (kind === 'revoke') this.#orderRelease(degree)
    if (kind === 'transfer') this.#orderTransfer(degree)
    if (kind === 'rebalance') this.#orderRebalance(degree)
    if (kind === 'forget') this.#orderForget()
    if (kind === 'forget-worker') this.#orderForgetWorker()
    if (kind === 'fence') this.#fence(forMs)
    if (kind === 'drain') this.#orderDrain(degree)
    if (kind === 'pause-worker') this.#orderPause(degree)
  }

  #orderRelease(degree: number): void {
    const held = this.#database.leases().filter((lease) => lease.holder !== null)
    if (held.length === 0) return
    const { key, token } = this.#chance.pick(held)
    const cooldownMs = degree < 0.3 ? 0 : 60_000
    const immediate = degree > 0.8
    if (immediate) this.#history.excuse(key, token)
    const { past } = this.#database
    void this.#command(`release ${key}@${token}`, async (coordinator, by) => {
      const answer = await coordinator.operator.release({ key, token, cooldownMs, immediate, ...by })
      return answer.kind === 'revoked' ? 'done' : answer.kind
    }).then((done) => {
      if (!done) return
      const safeInMs = blockWaitMs(this.#timing) * 1.01
      this.#scheduler.after(safeInMs, () => {
        // A failover may have lost the revocation, or somebody deleted it.
        if (past === this.#database.past && this.#history.isTrusted(key, token))
          this.#history.violate(
            'S5',
            `${key}@${token} was revoked and is still trusted when it should be safe`,
          )
      })
    })
  }

  #orderTransfer(degree: number): void {
    const held = this.#database.leases().filter((lease) => lease.holder !== null)
    const nodes = this.#database.nodes()
    if (held.length === 0 || nodes.length === 0) return
    const { key, token } = this.#chance.pick(held)
    const to = degree < 0.5 ? null : this.#chance.pick(nodes).id
    const cooldownMs = (degree * 2) % 1 < 0.5 ? 0 : 60_000
    if (to !== null) this.#commits.named(key, to)
    this.#commits.placed(key)
    void this.#command(`transfer ${key}@${token}`, async (coordinator, by) => {
      const answer = await coordinator.operator.transfer({ key, token, to, cooldownMs, ...by })
      return answer.kind === 'asked' ? 'done' : answer.kind
    })
  }

  #orderRebalance(degree: number): void {
    const workers = this.#database.workers()
    if (workers.length === 0) return
    const { key } = this.#chance.pick(workers)
    const dryRun = degree < 0.3
    void this.#command(`rebalance ${key}`, async (coordinator, by) => {
      const answer = await coordinator.operator.rebalance({ key, dryRun, ...by })
      if (answer.kind === 'planned') this.#history.hit('rebalance')
      return answer.kind === 'planned' && !dryRun && answer.moves.length > 0 ? 'done' : answer.kind
    })
  }

  #orderForget(): void {
    const ids = this.#database.goneNodes()
    if (ids.length === 0) return
    const id = this.#chance.pick(ids)
    void this.#command(`forget ${id}`, (coordinator, by) => coordinator.operator.forget(id, by))
  }

  /** Forgets a worker; most often one that no node has registered, because any other is refused. */
  #orderForgetWorker(): void {
    const workers = this.#database.workers().map((worker) => worker.key)
    const registered = this.#database.nodes().flatMap((node) => JSON.parse(node.workers) as string[])
    const left = workers.filter((key) => !registered.includes(key))
    const keys = left.length > 0 && this.#chance.happens(0.8) ? left : workers
    if (keys.length === 0) return
    const key = this.#chance.pick(keys)
    void this.#command(`forget-worker ${key}`, (coordinator, by) =>
      coordinator.operator.forgetWorker(key, by),
    )
  }

  /** Fences a lease, as a transaction of the application does. The fence stays when its process ends. */
  #fence(forMs: number): void {
    const held = this.#database.leases().filter(({ key, token }) => this.#history.isTrusted(key, token))
    if (held.length === 0) return
    const { key, token } = this.#chance.pick(held)
    this.#history.note(() => `${key}@${token} is fenced for ${forMs.toFixed(0)} ms`)
    this.#scheduler.after(forMs, this.#database.fence(key))
  }

  #orderDrain(degree: number): void {
    const nodes = this.#database.nodes()
    if (nodes.length === 0) return
    const { id } = this.#chance.pick(nodes)
    const drains = degree < 0.6
    void this.#command(`drain ${id}`, (coordinator, by) =>
      drains ? coordinator.operator.drain(id, by) : coordinator.operator.undrain(id, by),
    ).then((done) => {
      this.takeLateOrdersBack()
      const draining = (): boolean =>
        this.#database.nodes().some((node) => node.id === id && node.state === 'draining')
      if (done && drains && draining())
        this.#commits.expectObedience('drain', draining, ({ session }) => session?.id === id)
    })
  }

  #orderPause(degree: number): void {
    const workers = this.#database.workers()
    if (workers.length === 0) return
    const { key } = this.#chance.pick(workers)
    const pauses = degree < 0.5
    void this.#command(`pause ${key}`, (coordinator, by) =>
      pauses ? coordinator.operator.pause(key, by) : coordinator.operator.resume(key, by),
    ).then((done) => {
      this.takeLateOrdersBack()
      const paused = (): boolean =>
        this.#database.workers().some((each) => each.key === key && each.paused === 1)
      if (done && pauses && paused())
        this.#commits.expectObedience('pause', paused, ({ worker }) => worker === key)
    })
  }

  /** Takes all orders back after the faults, so that every worker may run everywhere again. */
  takeOrdersBack(): void {
    if (this.#takingBack) return
    this.#takingBack = true
    this.#takeNextOrderBack()
  }

  /** Takes back one order at a time: giving all these orders at once, again and again, would be another fault. */
  #takeNextOrderBack(): void {
    const verb = this.#nextToTakeBack()
    if (verb === undefined) {
      this.#takingBack = false
      return
    }
    void this.#command(...verb).then(() => this.#scheduler.after(100, () => this.#takeNextOrderBack()))
  }

  #nextToTakeBack(): [string, Verb] | undefined {
    const paused = this.#database.workers().find((worker) => worker.paused)
    if (paused !== undefined)
      return [`resume ${paused.key}`, (coordinator, by) => coordinator.operator.resume(paused.key, by)]
    const drained = this.#database
      .nodes()
      .find((node) => node.state === 'draining' && !this.#isClosing(node.id))
    if (drained === undefined) return undefined
    return [`undrain ${drained.id}`, (coordinator, by) => coordinator.operator.undrain(drained.id, by)]
  }

  /** Takes back orders that were on their way when the faults ended, or whose drained process joins again only now. */
  takeLateOrdersBack(): void {
    if (this.#scene.stage !== 'faults') this.takeOrdersBack()
  }

  #isClosing(id: string): boolean {
    return this.#scene.sites.some(({ life }) => life?.coordinator.nodeId === id && life.closing)
  }

  /**
   * Gives an order through a running node. Returns whether it was done or needless. When done, it must have one event.
   */
  async #command(what: string, verb: Verb): Promise<boolean> {
    const life = this.#scene
      .living()
      .find(({ coordinator, process }) => coordinator.state === 'running' && process.standstill === undefined)
    if (life === undefined) return false
    this.#orders += 1
    const by = { actor: 'operator', reason: `order ${this.#orders}` }
    const { past } = this.#database
    try {
      const answer = await verb(life.coordinator, by)
      this.#history.note(() => `the operator's ${what} through ${life.process.label}: ${answer}`)
      if (answer !== 'done') return ['unchanged', 'gone', 'unknown'].includes(answer)
      const [order = ''] = what.split(' ')
      this.#history.count(`done: ${order}`)
      this.#history.hit(kindOfOrder[order] ?? order)
      const events = this.#database.eventsWithReason(by.reason)
      if (events !== 1 && past === this.#database.past)
        this.#history.violate('S6', `${what} was acknowledged and has ${events} events`)
      return true
    } catch (error) {
      this.#history.note(() => `the operator's ${what} failed: ${describe(error)}`)
      if (!(error instanceof StoreError)) this.#history.violate('X2', `${what}: ${describe(error)}`)
      return false
    }
  }
}

/** The kind of fault that an order belongs to, where the two have different names. */
const kindOfOrder: Readonly<Record<string, TimedKind>> = {
  release: 'revoke',
  pause: 'pause-worker',
  resume: 'pause-worker',
  undrain: 'drain',
}

type Verb = (
  coordinator: Coordinator,
  by: { readonly actor: string; readonly reason: string },
) => Promise<string>
