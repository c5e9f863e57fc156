/**
 * What the parts of a simulated world share: everything that the seed has decided, and the sites with their present
 * lives.
 */
import type { Coordinator } from '../../plugin/core/coordinator.js'
import { StoreError } from '../../plugin/core/errors.js'
import type { Identity } from '../../plugin/core/identity.js'
import { resolveTiming, type Timing } from '../../plugin/core/time/timing.js'
import type { Schedule } from '../../plugin/core/work/schedule.js'
import type { SimulatedDatabase } from './database.js'
import { type Fault, type Mix, type MixName, mixes, type Plan, planFaults } from './faults.js'
import { History } from './history.js'
import { Layouts, type Registered } from './layouts.js'
import type { RemoteStore } from './network.js'
import type { SimulatedProcess } from './process.js'
import { Chance, type Scheduler } from './scheduler.js'
import { otherScheduleThan, scheduleFor, Times } from './times.js'

/** What to simulate. */
export interface WorldOptions {
  readonly seed: number
  /** The kind of world; default `full`. */
  readonly mix?: MixName
  /** Whether the calm at the end is simulated. Default: drawn from the seed with the probability of the mix. */
  readonly calm?: boolean
  /** Kinds of fault and traits that are left out. */
  readonly without?: ReadonlySet<string>
  /** Selects which of the planned faults happen; default all. */
  readonly only?: (fault: Fault, index: number) => boolean
  /** Whether a history for people is kept; default false. */
  readonly keep?: boolean
}

/** A place where one process after another runs. */
export interface Site {
  readonly index: number
  readonly name: string
  readonly cluster: string
  readonly rate: number
  readonly workers: readonly string[]
  readonly timing: Timing
  readonly baseMs: number
  lives: number
  life: LifeOnSite | undefined
  /** The disturbances that are on, by their fault. */
  readonly disturbed: Map<Fault, Fault>
}

export interface LifeOnSite {
  readonly process: SimulatedProcess
  readonly identity: Identity
  readonly store: RemoteStore
  readonly coordinator: Coordinator
  /** The workers that the process has registered and not stopped. */
  readonly registered: Registered[]
  /** The names of the workers that it is stopping. */
  readonly stopping: Set<string>
  /** Decides which layouts its workers have. */
  readonly versions: Chance
  readonly calls: Map<string, number>
  readonly heartbeatMs: number
  readonly pollMs: number
  closing: boolean
  closed: boolean
}

/** The workers of all worlds. Some worlds also have `ticks`, which has a schedule. */
export const workerNames = ['lead-a', 'lead-b', 'indexing', 'data', 'parts'] as const

/** How much history the nodes of all worlds keep. */
export const retention = { eventsForMs: 600_000, events: 2_000, goneNodesForMs: 30_000 }

export type Stage = 'faults' | 'recovery' | 'calm'

export class Scene {
  readonly seed: number
  readonly mix: Mix
  readonly scheduler: Scheduler
  readonly database: SimulatedDatabase
  readonly history: History
  readonly times: Times
  /**
   * The schedule of the worker `ticks`, with what happens to missed times. Undefined in worlds without such a worker.
   */
  readonly schedule: Schedule | undefined
  /** The longest durations of any node. By these everything must have happened. */
  readonly timing: Timing
  readonly shortest: Timing
  readonly preset: 'fast' | 'default'
  readonly plan: Plan
  readonly faultsMs: number
  readonly sites: readonly Site[]
  readonly layouts: Layouts
  /** The sequences that the parts of the world draw from, one for each part. */
  readonly chances: {
    readonly network: Chance
    readonly work: Chance
    readonly operator: Chance
    readonly writes: Chance
  }
  stage: Stage = 'faults'

  constructor(options: WorldOptions, scheduler: Scheduler, database: SimulatedDatabase) {
    const { seed } = options
    const chance = Chance.of(seed, 'world')
    this.seed = seed
    this.mix = mixes[options.mix ?? 'full']
    this.scheduler = scheduler
    this.database = database
    this.history = new History(() => scheduler.nowMs, options.keep ?? false)
    this.times = new Times(database, this.history)
    const scheduled = Chance.of(seed, 'schedule')
    this.schedule = scheduled.happens(0.3) ? scheduleFor(scheduled.pick(['once', 'skip'])) : undefined
    this.preset = chance.pick(['fast', 'default'])
    const timing = resolveTiming({ preset: this.preset })
    const [least, most] = this.mix.nodes
    const nodes = least + chance.below(most - least + 1)
    this.faultsMs = timing.ttlMs * chance.between(...this.mix.ttls)
    this.plan = planFaults(seed, this.mix, nodes, timing, this.faultsMs, options.without ?? new Set())
    this.layouts = new Layouts(seed, this.plan.traits.has('layouts'))
    this.sites = Array.from({ length: nodes }, (_, index) => this.#makeSite(seed, index, chance, timing))
    const byTtl = this.sites.map((site) => site.timing).sort((a, b) => a.ttlMs - b.ttlMs)
    this.shortest = byTtl[0] ?? timing
    this.timing = byTtl.at(-1) ?? timing
    this.chances = {
      network: Chance.of(seed, 'network'),
      work: Chance.of(seed, 'work'),
      operator: Chance.of(seed, 'operator'),
      writes: Chance.of(seed, 'writes'),
    }
  }

  /** Whether nodes poll for news, because nothing is pushed. */
  get polls(): boolean {
    return this.plan.traits.has('polling')
  }

  /**
   * Returns the schedule with which this process registers `ticks`. In worlds with the trait `schedules` there are two
   * versions of the application that differ in it.
   */
  scheduleOf(label: string): Schedule | undefined {
    const { schedule } = this
    if (schedule === undefined || !this.plan.traits.has('schedules')) return schedule
    if (Chance.of(this.seed, `${label} schedule`).happens(0.5)) return schedule
    this.history.hit('schedules')
    return otherScheduleThan(schedule)
  }

  /**
   * Returns the names under which a process joins. In worlds with the trait `twins` several nodes have one name, and a
   * process may come back in another cluster.
   */
  identityOf({ name, cluster }: Site, label: string): Identity {
    if (!this.plan.traits.has('twins')) return { node: name, cluster }
    const chance = Chance.of(this.seed, `${label} identity`)
    const node = chance.happens(0.7) ? 'twin' : name
    return { node, cluster: chance.happens(0.3) ? chance.pick(['eu', 'us']) : cluster }
  }

  /** Returns the lives that are not closing. */
  living(): LifeOnSite[] {
    return this.sites.flatMap(({ life }) => (life === undefined || life.closing ? [] : [life]))
  }

  #makeSite(seed: number, index: number, chance: Chance, timing: Timing): Site {
    const mixed = Chance.of(seed, `ttl ${index}`)
    const ttlMs = Math.round(timing.ttlMs * mixed.pick([0.5, 1, 2]))
    const drift = this.plan.traits.has('drift') ? chance.between(-0.009, 0.009) : 0
    const workers: string[] = workerNames.filter(() => chance.happens(this.mix.workers))
    if (this.schedule !== undefined && Chance.of(seed, `schedule ${index}`).happens(0.8))
      workers.push('ticks')
    return {
      index,
      name: `n${index}`,
      cluster: chance.pick(['eu', 'eu', 'us']),
      rate: 1 + drift,
      workers,
      timing: this.plan.traits.has('mixed-ttls') ? resolveTiming({ ttlMs }) : timing,
      baseMs: this.plan.traits.has('slow-network') ? chance.magnitude(1, 150) : chance.magnitude(0.2, 5),
      lives: 0,
      life: undefined,
      disturbed: new Map(),
    }
  }
}

/** Returns an error as a line of the history. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const outcome = error instanceof StoreError ? ` (${error.outcome})` : ''
  return `${error.name}: ${error.message}${outcome}${error instanceof StoreError ? '' : `\n${error.stack}`}`
}
