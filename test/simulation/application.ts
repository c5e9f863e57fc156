/** The application of each node in a simulated world: what its workers do, and which leases it acquires by name. */

import type { Scope } from '../../plugin/core/store.js'
import type { Timing } from '../../plugin/core/time/timing.js'
import type { HeldLease, Lease } from '../../plugin/core/work/lease.js'
import type { PassContext, SingleContext, WorkerDefinition } from '../../plugin/core/work/worker.js'
import type { SimulatedDatabase } from './database.js'
import type { Plan } from './faults.js'
import type { History } from './history.js'
import type { Layout } from './layouts.js'
import type { SimulatedProcess } from './process.js'
import type { LifeOnSite, Scene } from './scene.js'
import type { Chance, Scheduler } from './scheduler.js'

interface Request {
  readonly process: SimulatedProcess
  readonly key: string
  readonly sinceMs: number
}

export class Application {
  readonly #scene: Scene
  readonly #scheduler: Scheduler
  readonly #database: SimulatedDatabase
  readonly #history: History
  readonly #timing: Timing
  readonly #plan: Plan
  readonly #work: Chance
  readonly #writes: Chance
  readonly #waiting = new Map<object, Request>()
  /** The leases by name that are never given back as long as their nodes are well. */
  readonly #kept = new Set<HeldLease>()

  constructor(scene: Scene) {
    this.#scene = scene
    this.#scheduler = scene.scheduler
    this.#database = scene.database
    this.#history = scene.history
    this.#timing = scene.timing
    this.#plan = scene.plan
    this.#work = scene.chances.work
    this.#writes = scene.chances.writes
  }

  /** The requests that are waiting for a lease at this moment. */
  get waiting(): readonly Request[] {
    return [...this.#waiting.values()]
  }

  /** Those that wait although nobody keeps the lease, and their own process does not go on working under it. */
  get waitingInVain(): readonly Request[] {
    const kept = [...this.#kept]
    return this.waiting.filter(
      ({ process, key }) =>
        !kept.some(
          (lease) =>
            lease.key === key && (process.made(lease.holder) || this.#history.isTrusted(key, lease.token)),
        ),
    )
  }

  /** The keys of the leases that a process has lost and goes on working under, never to stop. */
  unsettled({ coordinator }: LifeOnSite): readonly string[] {
    const { unsettled } = coordinator.health()
    return [...this.#kept].map(({ key }) => key).filter((key) => unsettled.includes(key))
  }

  /** Whether a lease by name was taken from a process that goes on working under it. The block stays until others ask. */
  isWithheld(key: string): boolean {
    return this.#scene.living().some((life) => this.unsettled(life).includes(key))
  }

  /** Whether a process keeps a lease. */
  keeps(process: SimulatedProcess): boolean {
    return [...this.#kept].some(({ holder }) => process.made(holder))
  }

  /** Drops the requests of a process that has ended. */
  forget(process: SimulatedProcess): void {
    for (const [request, { process: asking }] of this.#waiting)
      if (asking === process) this.#waiting.delete(request)
    for (const lease of this.#kept) if (process.made(lease.holder)) this.#kept.delete(lease)
  }

  definition(process: SimulatedProcess, name: string, layout: Layout): WorkerDefinition {
    const schedule = this.#scene.scheduleOf(process.label)
    if (name === 'ticks' && schedule !== undefined) {
      const run = (context: SingleContext): Promise<void> => this.#tick(process, context)
      return { name, kind: 'single', scope: 'global', schedule, maxFailures: 3, cooldownMs: 10_000, run }
    }
    const run = (context: PassContext): Promise<void> => this.#pass(process, context)
    const common = {
      name,
      everyMs: this.#work.pick([300, 1_000, 4_000]),
      maxFailures: 3,
      cooldownMs: 10_000,
      run,
    }
    return { ...common, ...layout, scope: name === 'indexing' ? 'cluster' : 'global' }
  }

  /** A pass: it works until its signal aborts, or it ends early, ignores its signal, throws or steps down. */
  async #pass(process: SimulatedProcess, context: PassContext): Promise<void> {
    const faults = this.#scene.stage === 'faults'
    const { traits } = this.#plan
    const stubborn = faults && traits.has('stubborn') && this.#work.happens(0.2)
    const pass = { process, lease: context.lease, obedient: !stubborn }
    this.#history.passBegan(pass)
    this.#write(process, context.lease)
    try {
      if (faults && this.#work.happens(0.3))
        await this.#wait(process, this.#work.magnitude(10, 20_000), context.signal)
      else await aborted(context.signal)
      if (context.signal.aborted && stubborn) {
        this.#history.hit('stubborn')
        await this.#wait(process, this.#work.magnitude(50, 2 * this.#timing.handoverTimeoutMs))
      }
      if (faults && traits.has('throwing') && this.#work.happens(0.3)) {
        this.#history.hit('throwing')
        throw new Error('as passes do')
      }
      if (faults && traits.has('stepping-down') && !context.signal.aborted && this.#work.happens(0.2)) {
        this.#history.hit('stepping-down')
        context.stepDown(this.#work.pick([0, 1_000, 30_000]))
      }
    } finally {
      this.#history.passEnded(pass)
      this.#write(process, context.lease)
    }
  }

  /** A pass for a time of the schedule. It may be short, or last beyond the next time. */
  async #tick(process: SimulatedProcess, { lease, signal, dueAtMs }: SingleContext): Promise<void> {
    const pass = { process, lease, obedient: true }
    this.#history.passBegan(pass)
    this.#scene.times.began(process, lease.key, dueAtMs ?? Number.NaN)
    try {
      const faults = this.#scene.stage === 'faults'
      if (faults && this.#work.happens(0.5))
        await this.#wait(process, this.#work.magnitude(10, 12_000), signal)
      if (faults && this.#plan.traits.has('throwing') && this.#work.happens(0.3))
        throw new Error('as passes do')
    } finally {
      this.#history.passEnded(pass)
    }
  }

  /**
   * Lets a write arrive later, perhaps long after other holders have begun: at a resource that refuses tokens lower
   * than one it has seen, and, in a fenced transaction, at the database itself.
   */
  #write(process: SimulatedProcess, { key, token, holder }: HeldLease): void {
    const lateMs = this.#writes.magnitude(1, this.#scene.stage === 'faults' ? 40_000 : 10)
    this.#scheduler.after(lateMs, () => {
      const name = `a write of ${process.label} under ${key}@${token}`
      this.#history.written(process, key, token, name)
      if (this.#database.away !== 'no' || this.#database.busyUntilMs > this.#scheduler.nowMs) return
      const fenced = this.#database.writeFenced({ key, token, node: holder })
      this.#history.fenced(key, token, fenced, name)
    })
  }

  /** Waits by the clock of the process, until the signal aborts or the faults are over. */
  #wait(process: SimulatedProcess, delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const leftMs = { ms: delayMs }
      const done = (): void => {
        signal?.removeEventListener('abort', done)
        resolve()
      }
      const tick = (): void => {
        if (signal?.aborted || leftMs.ms <= 0 || this.#scene.stage !== 'faults') {
          done()
          return
        }
        const stepMs = Math.min(1_000, leftMs.ms)
        leftMs.ms -= stepMs
        process.later(stepMs, tick)
      }
      signal?.addEventListener('abort', done)
      tick()
    })
  }

  /** Lets application code acquire leases by name from time to time, use them and release them. */
  askForNames(life: LifeOnSite, chance: Chance): void {
    const { process, coordinator } = life
    const again = (): void => {
      process.later(chance.gap(4_000), () => {
        if (life.closing || this.#scene.stage !== 'faults') return
        again()
        if (coordinator.state !== 'running') return
        const name = chance.pick(['one', 'two', 'three'])
        const scope = this.#plan.traits.has('twins') && chance.happens(0.5) ? 'cluster' : 'global'
        const answer = chance.happens(0.3)
          ? coordinator.tryAcquire(name, { scope })
          : this.#acquire(life, name, scope, chance)
        answer.then(
          (lease) => lease && this.#use(process, lease, chance),
          () => undefined,
        )
      })
    }
    again()
  }

  async #acquire(
    { coordinator, process, identity }: LifeOnSite,
    name: string,
    scope: Scope,
    chance: Chance,
  ): Promise<Lease> {
    const request = {}
    const key = `${scope === 'global' ? scope : identity.cluster}/${name}`
    this.#waiting.set(request, { process, key, sinceMs: this.#scheduler.nowMs })
    try {
      const options = chance.happens(0.4) ? { timeoutMs: Math.ceil(chance.magnitude(20, 30_000)) } : {}
      return await coordinator.acquire(name, { scope, ...options })
    } finally {
      this.#waiting.delete(request)
    }
  }

  async #use(process: SimulatedProcess, lease: Lease, chance: Chance): Promise<void> {
    this.#history.count('acquired by name')
    if (this.#plan.traits.has('kept-leases') && chance.happens(0.2)) return this.#keep(process, lease, chance)
    const pass = { process, lease, obedient: true }
    if (lease.held) {
      this.#history.passBegan(pass)
      await this.#wait(process, chance.magnitude(5, 8_000), lease.signal)
      this.#history.passEnded(pass)
    }
    await lease.release()
  }

  /**
   * Holds a lease for as long as its node is well. When it has to be given back, that takes its time, or is never done.
   */
  async #keep(process: SimulatedProcess, lease: Lease, chance: Chance): Promise<void> {
    const pass = { process, lease, obedient: false }
    if (!lease.held) return lease.release()
    this.#history.passBegan(pass)
    this.#kept.add(lease)
    await aborted(lease.signal)
    this.#history.hit('kept-leases')
    if (chance.happens(0.5)) return
    await this.#wait(process, chance.magnitude(50, 2 * this.#timing.handoverTimeoutMs))
    this.#kept.delete(lease)
    this.#history.passEnded(pass)
    await lease.release()
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
