/**
 * A simulated world: a few nodes, their workers, an operator, and everything that goes wrong.
 *
 * The engine and its store are the real ones. What is simulated is what lies around them: time, chance, the
 * network, the machines. A world runs through three stages: faults, recovery, and a calm in which nothing
 * may happen that costs anything.
 */
import { Coordinator, type CoordinatorSettings } from '../../plugin/core/coordinator.js'
import { StoreError } from '../../plugin/core/errors.js'
import type { HeldLease, Lease } from '../../plugin/core/lease.js'
import { silentLog } from '../../plugin/core/log.js'
import { Session } from '../../plugin/core/session.js'
import { blockWaitMs, lookEveryMs, resolveTiming, type Timing } from '../../plugin/core/timing.js'
import type { PassContext, WorkerDefinition, WorkerHandle } from '../../plugin/core/worker.js'
import { SimulatedDatabase, type StoredLease } from './database.js'
import { type Fault, type Mix, type MixName, mixes, type Plan, planFaults, type TimedKind } from './faults.js'
import { History, type Term, type Violation } from './history.js'
import { type Course, RemoteStore, type Weather } from './network.js'
import { SimulatedProcess } from './process.js'
import { Chance, onItsOwn, RanHot, Scheduler } from './scheduler.js'

/** What to simulate. */
export interface WorldOptions {
  readonly seed: number
  /** What kind of world it is; default `full`. */
  readonly mix?: MixName
  /** Whether the calm at the end is lived through; default as the mix and the seed have it. */
  readonly calm?: boolean
  /** Kinds of fault that are left out. */
  readonly without?: ReadonlySet<string>
  /** Which of the planned faults happen; default all. */
  readonly only?: (fault: Fault, index: number) => boolean
  /** Whether a history for people is kept. */
  readonly keep?: boolean
}

/** What came of it. */
export interface Outcome {
  readonly violations: readonly Violation[]
  readonly lines: readonly string[]
  readonly counts: ReadonlyMap<string, number>
  readonly plan: Plan
  readonly events: number
  readonly simulatedMs: number
  readonly fingerprint: number
  readonly preset: string
  readonly nodes: number
  /** From the end of all faults until every single worker, and every share and partition, was held. */
  readonly recoveredMs: { readonly singles: number; readonly all: number }
}

/** Simulates one seed from beginning to end. */
export async function simulate(options: WorldOptions): Promise<Outcome> {
  const scheduler = new Scheduler()
  const database = await SimulatedDatabase.open(() => scheduler.nowMs)
  const world = new World(options, scheduler, database)
  const { stackTraceLimit } = Error
  // Errors are part of the weather here, and a stack is the dearest part of an error.
  if (!options.keep) Error.stackTraceLimit = 0
  const uncaught = (error: unknown): void => world.nobodyCaught(error)
  process.on('unhandledRejection', uncaught)
  try {
    await onItsOwn(() => world.run())
    return world.outcome()
  } finally {
    process.off('unhandledRejection', uncaught)
    Error.stackTraceLimit = stackTraceLimit
    world.dispose()
  }
}

/** Sessions by id, so that the checker can ask how long each trusts. They show themselves when they join. */
const sessions = new Map<string, Session>()
const joined = Session.prototype.joined
Session.prototype.joined = function (this: Session, ...facts) {
  sessions.set(this.id, this)
  joined.apply(this, facts)
}

/** A place where one process after another runs under the same name. */
interface Site {
  readonly index: number
  readonly name: string
  readonly cluster: string
  readonly rate: number
  readonly workers: readonly string[]
  readonly timing: Timing
  readonly baseMs: number
  lives: number
  life: LifeOnSite | undefined
  /** Disturbances that are on, by their fault. */
  readonly disturbed: Map<Fault, Fault>
}

interface LifeOnSite {
  readonly process: SimulatedProcess
  readonly store: RemoteStore
  readonly coordinator: Coordinator
  readonly handles: WorkerHandle[]
  readonly calls: Map<string, number>
  readonly heartbeatMs: number
  readonly pollMs: number
  closing: boolean
  closed: boolean
}

/** Ten times as many as the busiest worlds have: something must be running hot. */
const mostEvents = 1_000_000

type Stage = 'faults' | 'recovery' | 'calm'

/** What somebody could hold, or should have found, and has not. */
interface Unserved {
  readonly key: string
  readonly single: boolean
  readonly why: string
}

class World {
  readonly #options: WorldOptions
  readonly #mix: Mix
  readonly #scheduler: Scheduler
  readonly #database: SimulatedDatabase
  readonly #history: History
  /** The longest durations of any node: by these everything must have happened. */
  readonly #timing: Timing
  readonly #shortest: Timing
  readonly #preset: 'fast' | 'default'
  readonly #plan: Plan
  readonly #faultsMs: number
  readonly #sites: Site[]
  readonly #network: Chance
  readonly #work: Chance
  readonly #operator: Chance
  readonly #writes: Chance
  readonly #waiting = new Map<object, { readonly who: string; readonly sinceMs: number }>()
  /** Leases and nodes that an operator has named for them, who need not have cooled down. */
  readonly #named = new Set<string>()
  #stage: Stage = 'faults'
  #orders = 0
  /** Tell of orders whether they are in force; those of which one was taken back meanwhile are not among them. */
  readonly #inForce = new Set<() => boolean>()
  #takingBack = false
  #clockMovedAtMs = 0
  #recorded = { identity: '', settled: true, sinceMs: 0 }
  #lastSinglesMs = 0
  #lapsedAtMs = 0
  #lastAllMs = 0

  constructor(options: WorldOptions, scheduler: Scheduler, database: SimulatedDatabase) {
    const { seed } = options
    const chance = Chance.of(seed, 'world')
    this.#options = options
    this.#mix = mixes[options.mix ?? 'full']
    this.#scheduler = scheduler
    this.#database = database
    this.#history = new History(() => scheduler.nowMs, options.keep ?? false)
    this.#preset = chance.pick(['fast', 'default'])
    const timing = resolveTiming({ preset: this.#preset })
    const [least, most] = this.#mix.nodes
    const nodes = least + chance.below(most - least + 1)
    this.#faultsMs = timing.ttlMs * chance.between(...this.#mix.ttls)
    this.#plan = planFaults(seed, this.#mix, nodes, timing, this.#faultsMs, options.without ?? new Set())
    this.#sites = Array.from({ length: nodes }, (_, index) => this.#makeSite(index, chance, timing))
    const byTtl = this.#sites.map((site) => site.timing).sort((a, b) => a.ttlMs - b.ttlMs)
    this.#shortest = byTtl[0] ?? timing
    this.#timing = byTtl.at(-1) ?? timing
    this.#network = Chance.of(seed, 'network')
    this.#work = Chance.of(seed, 'work')
    this.#operator = Chance.of(seed, 'operator')
    this.#writes = Chance.of(seed, 'writes')
    scheduler.afterEach = () => this.#check()
    scheduler.mostEvents = mostEvents
  }

  run(): void {
    try {
      this.#live()
    } catch (error) {
      if (!(error instanceof RanHot)) throw error
      this.#history.violate('C1', error.message)
    }
  }

  #live(): void {
    this.#begin()
    this.#scheduler.runUntil(this.#faultsMs)
    this.#recover()
    if (this.#options.calm ?? Chance.of(this.#options.seed, 'calm').happens(this.#mix.calm)) this.#beCalm()
    this.#end()
  }

  nobodyCaught(error: unknown): void {
    this.#history.violate('X2', `nobody caught ${describe(error)}`)
  }

  dispose(): void {
    sessions.clear()
    for (const { life } of this.#sites) {
      life?.process.kill()
      life?.store.disconnect()
    }
  }

  outcome(): Outcome {
    const { violations, lines, counts } = this.#history
    const { events, fingerprint, nowMs } = this.#scheduler
    return {
      violations,
      lines,
      counts,
      plan: this.#plan,
      events,
      simulatedMs: nowMs,
      fingerprint,
      preset: this.#preset,
      nodes: this.#sites.length,
      recoveredMs: { singles: this.#lastSinglesMs, all: this.#lastAllMs },
    }
  }

  // ---------------------------------------------------------------- stages

  #begin(): void {
    const late = this.#plan.traits.has('late-starts')
    for (const trait of ['drift', 'late-timers', 'late-starts', 'slow-network', 'mixed-ttls'] as const)
      if (this.#plan.traits.has(trait)) this.#history.hit(trait)
    for (const site of this.#sites)
      this.#scheduler.after(this.#work.between(0, late ? this.#faultsMs / 2 : 2_000), () =>
        this.#startLife(site),
      )
    for (const [index, fault] of this.#plan.faults.entries())
      if (this.#options.only?.(fault, index) ?? true)
        this.#scheduler.at(fault.atMs, () => this.#strike(fault))
  }

  /** All faults are over: who is dead stays dead or comes back, and everything finds its holder. */
  #recover(): void {
    this.#stage = 'recovery'
    this.#history.note(() => '---- the faults are over ----')
    this.#database.away = 'no'
    this.#database.forgetLate()
    this.#database.endFences()
    for (const site of this.#sites) {
      site.disturbed.clear()
      site.life?.process.goOn()
      if (site.life === undefined && this.#work.happens(0.5)) this.#startLife(site)
    }
    const [first] = this.#sites
    if (first !== undefined && this.#sites.every((site) => site.life === undefined)) this.#startLife(first)
    this.#takeOrdersBack()
    const { ttlMs, claimTimeoutMs, handoverTimeoutMs } = this.#timing
    const fromMs = this.#scheduler.nowMs
    const singlesMs = 3 * ttlMs + claimTimeoutMs
    const allMs = singlesMs + handoverTimeoutMs
    const watchMs = allMs + 2 * ttlMs
    for (let passedMs = 250; passedMs <= watchMs + this.#lapsedAfterMs(fromMs); passedMs += 250) {
      this.#scheduler.runUntil(fromMs + passedMs)
      const unserved = this.#unserved()
      if (unserved.some(({ single }) => single)) this.#lastSinglesMs = passedMs
      if (unserved.length > 0) this.#lastAllMs = passedMs
      this.#judgeUnserved(unserved, passedMs - this.#lapsedAfterMs(fromMs), { singlesMs, allMs })
      if (this.#mix.hasty && passedMs - this.#lastAllMs > 2 * ttlMs && this.#isAtRest()) break
    }
    for (const { who, sinceMs } of this.#waiting.values())
      this.#history.violate('L4', `${who} waits in vain since ${sinceMs.toFixed(0)}`)
    for (const { life } of this.#sites)
      if (life?.closing && !life.closed)
        this.#history.violate('L3', `${life.process.label} does not come to close`)
  }

  /**
   * How long after the faults trust has lapsed for the last time, in ms. Where the network is slow for good that happens without any, and
   * what is to be found again then has its time anew; but not for ever.
   */
  #lapsedAfterMs(fromMs: number): number {
    if (!this.#plan.traits.has('slow-network')) return 0
    return Math.min(Math.max(0, this.#lapsedAtMs - fromMs), 20 * this.#timing.ttlMs)
  }

  #judgeUnserved(
    unserved: readonly Unserved[],
    passedMs: number,
    { singlesMs, allMs }: { readonly singlesMs: number; readonly allMs: number },
  ): void {
    const isDue = (ms: number): boolean => passedMs >= ms && passedMs < ms + 250
    for (const { key, why, single } of unserved) {
      if (single && isDue(singlesMs))
        this.#history.violate('L1', `${key} is not held ${singlesMs} ms after the last fault: ${why}`)
      if (!single && isDue(allMs))
        this.#history.violate('L2', `${key} is not held ${allMs} ms after the last fault: ${why}`)
    }
  }

  /** Nobody waits for anything that the recovery has to bring. */
  #isAtRest(): boolean {
    return this.#waiting.size === 0 && this.#sites.every(({ life }) => !life?.closing || life.closed)
  }

  /** Cool-downs pass; then a healthy fleet costs one statement per node and heartbeat, and two watchers' looks. */
  #beCalm(): void {
    const { ttlMs } = this.#timing
    this.#scheduler.runUntil(this.#scheduler.nowMs + 65_000 + ttlMs)
    this.#stage = 'calm'
    this.#history.note(() => '---- calm ----')
    const living = this.#living()
    for (const lease of living.length === 0 ? [] : this.#database.leases())
      if (lease.pending)
        this.#history.violate('L5', `${lease.key} is pending for ever: ${JSON.stringify(lease)}`)
    for (const life of living) life.calls.clear()
    const { nowMs } = this.#database
    // A cool-down that was given before the database's clock was set back lasts longer than this calm.
    const cooling = this.#database.leases().some(({ cooldownUntilMs }) => (cooldownUntilMs ?? 0) > nowMs)
    const periodMs = this.#timing.heartbeatMs * 10
    this.#scheduler.runUntil(this.#scheduler.nowMs + periodMs)
    const looks = 2 * (periodMs / lookEveryMs(this.#shortest) + 2)
    let looked = 0
    let stoodIn = 0
    for (const { process, calls, heartbeatMs, pollMs } of living) {
      const intervals = periodMs / heartbeatMs
      const heartbeats = calls.get('heartbeat') ?? 0
      const polls = this.#polls ? periodMs / pollMs + 1 : 0
      looked += calls.get('look') ?? 0
      stoodIn += calls.get('beats') ?? 0
      if (heartbeats < intervals * 0.8 || heartbeats > intervals * 1.2)
        this.#history.violate(
          'C1',
          `${process.label} made ${heartbeats} heartbeats in ${intervals} intervals`,
        )
      if ((calls.get('news') ?? 0) > polls)
        this.#history.violate('C1', `${process.label} polled ${calls.get('news')} times`)
      // Once an hour one node clears away old rows, for which it asks everything at once and makes a change.
      const expected = new Set(['heartbeat', 'look', 'beats', 'news', 'prune', 'snapshot'])
      if (calls.has('snapshot')) expected.add('change')
      for (const [verb, count] of calls)
        if (!cooling && !expected.has(verb))
          this.#history.violate('C1', `${process.label} asked for ${count} × ${verb} in a calm`)
    }
    if (looked > looks)
      this.#history.violate('C1', `there were ${looked} looks, more than ${looks.toFixed(0)}`)
    // Heartbeats are not even: now and then two in a row of one node lie between two of both watchers.
    if (stoodIn > 4 + 2 * living.length)
      this.#history.violate('C1', `nodes stood in for watchers that live, with ${stoodIn} looks`)
  }

  /** Everybody closes, and leaves nothing behind. */
  #end(): void {
    for (const site of this.#sites) this.#closeLife(site)
    const last = this.#sites.flatMap(({ life }) => life ?? [])
    this.#scheduler.runUntil(this.#scheduler.nowMs + this.#timing.drainTimeoutMs)
    for (const { process, closed } of last)
      if (!closed) this.#history.violate('L3', `${process.label} does not come to close`)
    for (const node of last.length === 0 ? [] : this.#database.nodes())
      this.#history.violate('L3', `${node.id} is still ${node.state} although all have closed`)
  }

  #check(): void {
    this.#history.check()
    for (const { life } of this.#sites) if (life !== undefined) this.#history.checkLapses(life.process)
  }

  #living(): LifeOnSite[] {
    return this.#sites.flatMap(({ life }) => (life === undefined || life.closing ? [] : [life]))
  }

  /** Leases that somebody could hold and nobody holds. */
  #unserved(): Unserved[] {
    const ids = new Map(this.#living().map((life) => [life.coordinator.nodeId, life]))
    const nodes = this.#database.nodes()
    const leases = this.#database.leases()
    const found: Unserved[] = []
    for (const { process, coordinator } of this.#living())
      if (!nodes.some((node) => node.id === coordinator.nodeId))
        found.push({ key: process.label, single: false, why: 'it has not joined' })
    // Where the last ones have closed without being heard, nobody is left to bury them.
    for (const node of ids.size === 0 ? [] : nodes)
      if (!ids.has(node.id)) found.push({ key: node.id, single: false, why: 'it is not buried' })
    for (const worker of this.#database.workers()) {
      const candidates = nodes.filter(
        (node) => ids.has(node.id) && (JSON.parse(node.workers) as string[]).includes(worker.key),
      )
      if (worker.paused || candidates.length === 0) continue
      const single = worker.kind === 'single'
      const slots = leases.filter((lease) => lease.worker === worker.key && lease.slot < worker.slots)
      if (slots.length < worker.slots || worker.slots === 0)
        found.push({ key: worker.key, single, why: `it has ${slots.length} of ${worker.slots} leases` })
      for (const lease of slots) {
        const held =
          lease.holder !== null && ids.has(lease.holder) && this.#history.isTrusted(lease.key, lease.token)
        if (held && (worker.kind !== 'coordinated' || lease.generation === worker.generation)) continue
        found.push({ key: lease.key, single, why: JSON.stringify(lease) })
      }
    }
    return found
  }

  // ---------------------------------------------------------------- lives

  get #polls(): boolean {
    return this.#plan.traits.has('polling')
  }

  #makeSite(index: number, chance: Chance, timing: Timing): Site {
    const mixed = Chance.of(this.#options.seed, `ttl ${index}`)
    const ttlMs = Math.round(timing.ttlMs * mixed.pick([0.5, 1, 2]))
    const drift = this.#plan.traits.has('drift') ? chance.between(-0.009, 0.009) : 0
    const workers = ['lead-a', 'lead-b', 'indexing', 'data', 'parts'].filter(() =>
      chance.happens(this.#mix.workers),
    )
    return {
      index,
      name: `n${index}`,
      cluster: chance.pick(['eu', 'eu', 'us']),
      rate: 1 + drift,
      workers,
      timing: this.#plan.traits.has('mixed-ttls') ? resolveTiming({ ttlMs }) : timing,
      baseMs: this.#plan.traits.has('slow-network') ? chance.magnitude(1, 150) : chance.magnitude(0.2, 5),
      lives: 0,
      life: undefined,
      disturbed: new Map(),
    }
  }

  #startLife(site: Site): void {
    if (site.life !== undefined) return
    site.lives += 1
    const label = `${site.name}.${site.lives}`
    this.#history.note(
      () => `${label} starts (${site.cluster}, rate ${site.rate.toFixed(4)}): ${site.workers.join(' ')}`,
    )
    const clocks = {
      rate: site.rate,
      latestTimerMs: this.#plan.traits.has('late-timers') ? this.#work.magnitude(2, 300) : 2,
    }
    const chance = Chance.of(this.#options.seed, label)
    const process = new SimulatedProcess(label, this.#scheduler, chance, clocks, (error) =>
      this.#history.violate('X2', `${label} threw ${describe(error)}`),
    )
    const calls = new Map<string, number>()
    const store = new RemoteStore(
      process,
      this.#database,
      this.#scheduler,
      this.#weatherOf(site, label, calls),
      site.timing.statementTimeoutMs,
      !this.#polls,
    )
    const coordinator = new Coordinator(this.#settingsOf(site), store, process, silentLog)
    const { heartbeatMs, pollMs } = site.timing
    const state = { closing: false, closed: false }
    const life = { process, store, coordinator, handles: [], calls, heartbeatMs, pollMs, ...state }
    site.life = life
    this.#listenTo(life)
    for (const name of site.workers) this.#register(life, name)
    this.#tryToStart(life)
    this.#askForNames(life, Chance.of(this.#options.seed, `${label} names`))
  }

  #startAgain(site: Site): void {
    if (this.#stage === 'faults') this.#startLife(site)
  }

  #settingsOf(site: Site): CoordinatorSettings {
    return {
      namespace: 'default',
      identity: { node: site.name, cluster: site.cluster },
      timing: site.timing,
      labels: {},
      version: site.lives % 2 === 0 ? 'v2' : 'v1',
      retention: { eventsForMs: 600_000, events: 2_000, goneNodesForMs: 30_000 },
    }
  }

  #listenTo(life: LifeOnSite): void {
    const { process, coordinator } = life
    coordinator.on('lease.acquired', ({ key, token }) => {
      const id = coordinator.nodeId ?? ''
      this.#history.began(
        process,
        sessions.get(id),
        { key, token },
        {
          marginMs: coordinator.settings.timing.marginMs,
          buried: () => this.#database.wasBuried(id),
        },
      )
      if (coordinator.state === 'closing')
        this.#history.violate('X5', `${process.label} begins ${key}@${token} while it closes`)
    })
    coordinator.on('lease.ended', ({ key, token, reason }) =>
      this.#history.ended(process, key, token, reason),
    )
    coordinator.on('lease.released', ({ key, token }) =>
      this.#history.note(() => `${process.label} is done with ${key}@${token}`),
    )
    coordinator.on('node.joined', ({ node }) =>
      this.#history.note(() => `${process.label} has joined as ${node}`),
    )
    coordinator.on('node.gone', ({ node }) => {
      this.#history.count('buried')
      this.#history.note(() => `${process.label} buries ${node}`)
    })
    coordinator.on('session.lost', ({ node }) => {
      this.#history.count('session lost')
      this.#history.note(() => `${process.label} has lost session ${node}`)
    })
    coordinator.on('trust.expired', ({ node }) => {
      this.#lapsedAtMs = this.#scheduler.nowMs
      this.#history.count('trust expired')
      this.#history.note(() => `${process.label} trusts no more as ${node}`)
    })
    coordinator.on('store.failed', ({ error }) => {
      this.#history.count('store failed')
      this.#history.note(() => `${process.label} hears: ${describe(error)}`)
      if (!(error instanceof StoreError)) this.#history.violate('X2', `${process.label}: ${describe(error)}`)
    })
  }

  #tryToStart(life: LifeOnSite): void {
    const { coordinator, process } = life
    coordinator.start().then(
      () => undefined,
      (error: unknown) => {
        this.#history.note(() => `${process.label} could not start: ${describe(error)}`)
        if (!(error instanceof StoreError) && !life.closing)
          this.#history.violate('X2', `${process.label} could not start: ${describe(error)}`)
        process.later(1_000, () => !life.closing && this.#tryToStart(life))
      },
    )
  }

  #killLife(site: Site): void {
    const { life } = site
    if (life === undefined) return
    this.#history.note(() => `${life.process.label} is killed`)
    life.process.kill()
    this.#bury(site, life)
  }

  #closeLife(site: Site): void {
    const { life } = site
    if (life === undefined || life.closing) return
    life.closing = true
    this.#history.note(() => `${life.process.label} closes`)
    life.process.deliver(() => {
      life.coordinator.close().then(
        () => {
          life.closed = true
          const { label, timers } = life.process
          this.#history.note(() => `${label} has closed`)
          if (timers > 0) this.#history.violate('X3', `${label} has closed and left ${timers} timers`)
          if (site.life === life) this.#bury(site, life)
        },
        (error: unknown) =>
          this.#history.violate('X2', `${life.process.label} could not close: ${describe(error)}`),
      )
    })
  }

  #bury(site: Site, life: LifeOnSite): void {
    life.store.disconnect()
    this.#history.died(life.process)
    for (const who of this.#waiting.keys()) if (who === life) this.#waiting.delete(who)
    for (const [request, { who }] of this.#waiting)
      if (who.startsWith(`${life.process.label} `)) this.#waiting.delete(request)
    site.life = undefined
  }

  // ---------------------------------------------------------------- work

  #register(life: LifeOnSite, name: string): void {
    life.handles.push(life.coordinator.worker(this.#definition(life.process, name)))
  }

  #definition(process: SimulatedProcess, name: string): WorkerDefinition {
    const run = (context: PassContext): Promise<void> => this.#pass(process, context)
    const common = {
      name,
      everyMs: this.#work.pick([300, 1_000, 4_000]),
      maxFailures: 3,
      cooldownMs: 10_000,
      run,
    }
    if (name === 'data') return { ...common, kind: 'coordinated', scope: 'global' }
    if (name === 'parts') return { ...common, kind: 'partitioned', scope: 'global', partitions: 5 }
    return { ...common, kind: 'single', scope: name === 'indexing' ? 'cluster' : 'global' }
  }

  /** A pass that works until its signal aborts, or does one of the other things that passes do. */
  async #pass(process: SimulatedProcess, context: PassContext): Promise<void> {
    const faults = this.#stage === 'faults'
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

  /**
   * What a pass writes may arrive when others have long begun: at a resource that refuses lower tokens than it has
   * seen, and, in a fenced transaction, at the database itself.
   */
  #write(process: SimulatedProcess, { key, token, holder }: HeldLease): void {
    const lateMs = this.#writes.magnitude(1, this.#stage === 'faults' ? 40_000 : 10)
    this.#scheduler.after(lateMs, () => {
      const name = `a write of ${process.label} under ${key}@${token}`
      this.#history.written(process, key, token, name)
      if (this.#database.away !== 'no' || this.#database.busyUntilMs > this.#scheduler.nowMs) return
      const fenced = this.#database.writeFenced({ key, token, node: holder })
      this.#history.fenced(key, token, fenced, name)
    })
  }

  /** Waits by the clock of the process; after the faults all waiting is short. */
  #wait(process: SimulatedProcess, delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const leftMs = { ms: delayMs }
      const tick = (): void => {
        if (signal?.aborted || leftMs.ms <= 0 || this.#stage !== 'faults') {
          resolve()
          return
        }
        const stepMs = Math.min(1_000, leftMs.ms)
        leftMs.ms -= stepMs
        process.later(stepMs, tick)
      }
      tick()
      signal?.addEventListener('abort', () => resolve(), { once: true })
    })
  }

  /** Application code that takes leases by name, now and then, and gives them back. */
  #askForNames(life: LifeOnSite, chance: Chance): void {
    const { process, coordinator } = life
    const again = (): void => {
      process.later(chance.gap(4_000), () => {
        if (life.closing || this.#stage !== 'faults') return
        again()
        if (coordinator.state !== 'running') return
        const name = chance.pick(['one', 'two', 'three'])
        const answer = chance.happens(0.3) ? coordinator.tryAcquire(name) : this.#acquire(life, name, chance)
        answer.then(
          (lease) => lease && this.#use(process, lease, chance),
          () => undefined,
        )
      })
    }
    again()
  }

  async #acquire({ coordinator, process }: LifeOnSite, name: string, chance: Chance): Promise<Lease> {
    const request = {}
    this.#waiting.set(request, { who: `${process.label} for ${name}`, sinceMs: this.#scheduler.nowMs })
    try {
      const options = chance.happens(0.4) ? { timeoutMs: Math.ceil(chance.magnitude(20, 30_000)) } : {}
      return await coordinator.acquire(name, options)
    } finally {
      this.#waiting.delete(request)
    }
  }

  async #use(process: SimulatedProcess, lease: Lease, chance: Chance): Promise<void> {
    this.#history.count('acquired by name')
    const pass = { process, lease, obedient: true }
    if (lease.held) {
      this.#history.passBegan(pass)
      await this.#wait(process, chance.magnitude(5, 8_000), lease.signal)
      this.#history.passEnded(pass)
    }
    await lease.release()
  }

  // ---------------------------------------------------------------- weather

  #weatherOf(site: Site, label: string, calls: Map<string, number>): Weather {
    const chance = this.#network
    return {
      course: (verb) => this.#course(site, verb),
      hintMs: () => {
        const lost = this.#disturbance(site, 'hints-lost')
        if (lost !== undefined && chance.happens(lost.degree)) {
          this.#history.hit('hints-lost')
          return undefined
        }
        return chance.between(0.1, 3)
      },
      sent: (verb) => {
        calls.set(verb, (calls.get(verb) ?? 0) + 1)
        if (verb === 'news') this.#history.hit('polling')
        this.#history.count(verb)
      },
      committed: (leases) => {
        this.#history.count('changes')
        this.#checkGrace()
        for (const inForce of this.#inForce) if (!inForce()) this.#inForce.delete(inForce)
        for (const lease of leases) this.#checkNamed(lease, this.#history.stored(lease.key))
        const isStanding = (id: string): boolean => this.#database.nodes().some((node) => node.id === id)
        this.#history.committed(leases, isStanding, (lease, before) => {
          this.#checkCooldown(lease, before)
          this.#checkPermission(lease)
        })
      },
      hit: (kind) => this.#history.hit(kind),
      cameLate: (verb, refused) => {
        this.#history.count(`late ${verb}${refused ? ' refused' : ''}`)
        const what = refused ? 'refused: it came too late' : 'carried out although it was given up'
        this.#history.note(() => `a ${verb} of ${label} is ${what}`)
      },
      answerLost: (verb) => {
        this.#history.count('answer lost')
        this.#history.note(() => `the answer to a ${verb} of ${label} is lost`)
      },
    }
  }

  #course(site: Site, verb: string): Course {
    const chance = this.#network
    const slow = this.#hitBy(site, 'slow')
    const factor = slow === undefined ? 1 : 10 ** (slow.degree * 3)
    const trip = (): number =>
      Math.min(site.baseMs * chance.magnitude(0.5, 3) * factor, this.#timing.ttlMs * 2)
    const holdsMs = this.#plan.traits.has('slow-changes') ? chance.magnitude(0.5, 800) : 0
    const connectsLate = this.#plan.traits.has('late-connections') && chance.happens(0.5)
    const course = { thereMs: trip(), backMs: trip(), noticed: chance.happens(0.5), holdsMs, connectsLate }
    if (this.#hitBy(site, 'cut-off')) return { ...course, thereMs: undefined }
    const isRead = verb === 'view' || verb === 'look'
    const failing = this.#disturbance(site, 'reads-fail')
    if (failing && isRead && chance.happens(0.2 + failing.degree)) {
      this.#history.hit('reads-fail')
      return { ...course, thereMs: undefined }
    }
    if (this.#hitBy(site, 'answers-lost')) return { ...course, backMs: undefined }
    const lossy = this.#disturbance(site, 'lossy')
    const lost = lossy !== undefined && chance.happens(lossy.degree / 2)
    const unanswered = lossy !== undefined && !lost && chance.happens(lossy.degree / 2)
    if (lost || unanswered) this.#history.hit('lossy')
    if (lost) return { ...course, thereMs: undefined }
    if (unanswered) return { ...course, backMs: undefined }
    const late = this.#disturbance(site, verb === 'heartbeat' ? 'late-heartbeats' : 'late-changes')
    if (late === undefined || isRead || !chance.happens(late.degree)) return course
    this.#history.hit(late.kind)
    return { ...course, thereMs: chance.magnitude(50, 40_000) }
  }

  #hitBy(site: Site, kind: TimedKind): Fault | undefined {
    const fault = this.#disturbance(site, kind)
    if (fault !== undefined) this.#history.hit(kind)
    return fault
  }

  #disturbance(site: Site, kind: Fault['kind']): Fault | undefined {
    for (const fault of site.disturbed.values()) if (fault.kind === kind) return fault
    return undefined
  }

  // ---------------------------------------------------------------- faults

  #strike(fault: Fault): void {
    const struck = fault.node < 0 ? this.#sites : this.#sites.filter(({ index }) => index === fault.node)
    const { kind, forMs, degree } = fault
    this.#history.count(`fault ${kind}`)
    this.#history.note(
      () =>
        `FAULT ${kind} ${struck.map(({ name }) => name).join(' ')} for ${forMs.toFixed(0)} ms, degree ${degree.toFixed(2)}`,
    )
    for (const site of struck) this.#strikeSite(site, fault)
    this.#strikeDatabase(fault)
    this.#order(fault)
  }

  #strikeSite(site: Site, fault: Fault): void {
    const { kind, forMs, degree } = fault
    const { life } = site
    switch (kind) {
      case 'pause':
      case 'suspend':
        if (life?.process.halt(kind === 'pause' ? 'paused' : 'suspended')) this.#history.hit(kind)
        this.#scheduler.after(forMs, () => life?.process.goOn())
        return
      case 'kill':
        if (life !== undefined) this.#history.hit(kind)
        this.#killLife(site)
        if (degree < 0.8) this.#scheduler.after(forMs, () => this.#startAgain(site))
        return
      case 'close':
        if (life?.closing === false) this.#history.hit(kind)
        this.#closeLife(site)
        if (degree < 0.8) this.#scheduler.after(forMs + 100, () => this.#startAgain(site))
        return
      case 'start':
        if (life === undefined) this.#history.hit(kind)
        this.#startLife(site)
        return
      case 'stop-worker':
        this.#stopWorker(site, fault)
        return
      case 'cut-off':
      case 'answers-lost':
      case 'reads-fail':
      case 'lossy':
      case 'slow':
      case 'late-heartbeats':
      case 'late-changes':
      case 'hints-lost':
        site.disturbed.set(fault, fault)
        this.#scheduler.after(forMs, () => void site.disturbed.delete(fault))
    }
  }

  #stopWorker({ life }: Site, { forMs }: Fault): void {
    if (life === undefined || life.closing || life.handles.length === 0) return
    const handle = this.#operator.pick(life.handles)
    if (handle.state === 'stopped') return
    life.handles.splice(life.handles.indexOf(handle), 1)
    this.#history.hit('stop-worker')
    this.#history.note(() => `${life.process.label} stops ${handle.key}`)
    life.process.deliver(() => {
      void handle.stop().then(() =>
        life.process.later(forMs, () => {
          if (life.closing) return
          this.#history.note(() => `${life.process.label} registers ${handle.key} again`)
          this.#register(life, handle.name)
        }),
      )
    })
  }

  #strikeDatabase({ kind, forMs, degree }: Fault): void {
    const database = this.#database
    switch (kind) {
      case 'away':
      case 'hang':
        database.away = kind === 'away' ? 'refuses' : 'hangs'
        this.#scheduler.after(forMs, () => {
          database.away = 'no'
        })
        return
      case 'clock-jump':
      case 'clock-blip': {
        const byMs = (degree < 0.5 ? -1 : 1) * 10 ** (((degree * 2) % 1) * 5 + 2)
        this.#history.hit(kind)
        this.#moveClock(byMs)
        if (kind === 'clock-blip') this.#scheduler.after(forMs, () => this.#moveClock(-byMs))
        return
      }
      case 'restart':
        this.#history.hit(kind)
        database.restart()
        return
      case 'failover': {
        const backup = database.backup()
        this.#scheduler.after(forMs, () => {
          if (this.#stage !== 'faults' || backup === undefined) return
          this.#history.note(() => `the database fails over and loses ${forMs.toFixed(0)} ms`)
          this.#history.hit(kind)
          database.restart(backup)
          this.#recorded = { ...database.record(), sinceMs: this.#scheduler.nowMs }
          this.#history.rolledBack(database.leases())
        })
      }
    }
  }

  #moveClock(byMs: number): void {
    this.#history.note(() => `the database's clock jumps by ${(byMs / 1_000).toFixed(1)} s`)
    this.#clockMovedAtMs = this.#scheduler.nowMs
    this.#database.jumpClock(byMs)
  }

  // ---------------------------------------------------------------- the operator

  #order({ kind, degree, forMs }: Fault): void {
    if (kind === 'revoke') this.#orderRelease(degree)
    if (kind === 'transfer') this.#orderTransfer(degree)
    if (kind === 'rebalance') this.#orderRebalance(degree)
    if (kind === 'forget') this.#orderForget()
    if (kind === 'fence') this.#fence(forMs)
    if (kind === 'drain') this.#orderDrain(degree)
    if (kind === 'pause-worker') this.#orderPause(degree)
  }

  #orderRelease(degree: number): void {
    const held = this.#database.leases().filter((lease) => lease.holder !== null)
    if (held.length === 0) return
    const { key, token } = this.#operator.pick(held)
    const cooldownMs = degree < 0.3 ? 0 : 60_000
    const immediate = degree > 0.8
    if (immediate) this.#history.excuse(key, token)
    const server = this.#database.identity
    void this.#command(`release ${key}@${token}`, async (coordinator, by) => {
      const answer = await coordinator.operator.release({ key, token, cooldownMs, immediate, ...by })
      return answer.kind === 'revoked' ? 'done' : answer.kind
    }).then((done) => {
      if (!done) return
      const safeInMs = blockWaitMs(this.#timing) * 1.01
      this.#scheduler.after(safeInMs, () => {
        // A failover may have lost the revocation.
        if (server === this.#database.identity && this.#history.isTrusted(key, token))
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
    const { key, token } = this.#operator.pick(held)
    const to = degree < 0.5 ? null : this.#operator.pick(nodes).id
    const cooldownMs = (degree * 2) % 1 < 0.5 ? 0 : 60_000
    if (to !== null) this.#named.add(`${key} ${to}`)
    void this.#command(`transfer ${key}@${token}`, async (coordinator, by) => {
      const answer = await coordinator.operator.transfer({ key, token, to, cooldownMs, ...by })
      return answer.kind === 'asked' ? 'done' : answer.kind
    })
  }

  #orderRebalance(degree: number): void {
    const workers = this.#database.workers()
    if (workers.length === 0) return
    const { key } = this.#operator.pick(workers)
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
    const id = this.#operator.pick(ids)
    void this.#command(`forget ${id}`, (coordinator, by) => coordinator.operator.forget(id, by))
  }

  /** A transaction of the application ties itself to a lease, and goes on whatever becomes of its process. */
  #fence(forMs: number): void {
    const held = this.#database.leases().filter(({ key, token }) => this.#history.isTrusted(key, token))
    if (held.length === 0) return
    const { key, token } = this.#operator.pick(held)
    this.#history.note(() => `${key}@${token} is fenced for ${forMs.toFixed(0)} ms`)
    this.#scheduler.after(forMs, this.#database.fence(key))
  }

  #orderDrain(degree: number): void {
    const nodes = this.#database.nodes()
    if (nodes.length === 0) return
    const { id } = this.#operator.pick(nodes)
    const drains = degree < 0.6
    void this.#command(`drain ${id}`, (coordinator, by) =>
      drains ? coordinator.operator.drain(id, by) : coordinator.operator.undrain(id, by),
    ).then((done) => {
      this.#takeLateOrdersBack()
      const draining = (): boolean =>
        this.#database.nodes().some((node) => node.id === id && node.state === 'draining')
      if (done && drains && draining())
        this.#expectObedience('drain', draining, ({ session }) => session?.id === id)
    })
  }

  #orderPause(degree: number): void {
    const workers = this.#database.workers()
    if (workers.length === 0) return
    const { key } = this.#operator.pick(workers)
    const pauses = degree < 0.5
    void this.#command(`pause ${key}`, (coordinator, by) =>
      pauses ? coordinator.operator.pause(key, by) : coordinator.operator.resume(key, by),
    ).then((done) => {
      this.#takeLateOrdersBack()
      const paused = (): boolean =>
        this.#database.workers().some((each) => each.key === key && each.paused === 1)
      if (done && pauses && paused()) this.#expectObedience('pause', paused, ({ worker }) => worker === key)
    })
  }

  /** After the faults: everything may run everywhere again. */
  #takeOrdersBack(): void {
    if (this.#takingBack) return
    this.#takingBack = true
    this.#takeNextOrderBack()
  }

  /** One at a time: an operator who asked for everything at once, again and again, would be a fault of their own. */
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

  /** An order that was on its way when the faults ended. */
  #takeLateOrdersBack(): void {
    if (this.#stage !== 'faults') this.#takeOrdersBack()
  }

  #isClosing(id: string): boolean {
    return this.#sites.some(({ life }) => life?.coordinator.nodeId === id && life.closing)
  }

  /** Gives an order through some node. Answers whether it was acknowledged as done; then its event must be there. */
  async #command(what: string, verb: Verb): Promise<boolean> {
    const life = this.#living().find(
      ({ coordinator, process }) => coordinator.state === 'running' && process.standstill === undefined,
    )
    if (life === undefined) return false
    this.#orders += 1
    const by = { actor: 'operator', reason: `order ${this.#orders}` }
    const server = this.#database.identity
    try {
      const answer = await verb(life.coordinator, by)
      this.#history.note(() => `the operator's ${what} through ${life.process.label}: ${answer}`)
      if (answer !== 'done') return ['unchanged', 'gone', 'unknown'].includes(answer)
      const [order = ''] = what.split(' ')
      this.#history.count(`done: ${order}`)
      this.#history.hit(kindOfOrder[order] ?? order)
      const events = this.#database.eventsWithReason(by.reason)
      if (events !== 1 && server === this.#database.identity)
        this.#history.violate('S6', `${what} was acknowledged and has ${events} events`)
      return true
    } catch (error) {
      this.#history.note(() => `the operator's ${what} failed: ${describe(error)}`)
      if (!(error instanceof StoreError)) this.#history.violate('X2', `${what}: ${describe(error)}`)
      return false
    }
  }

  /** Nobody says that a new server has been waited out before its whole grace period is over. */
  #checkGrace(): void {
    const { nowMs } = this.#scheduler
    const record = this.#database.record()
    if (record.identity !== this.#recorded.identity) this.#recorded = { ...record, sinceMs: nowMs }
    else if (record.settled && !this.#recorded.settled) {
      const waitedMs = nowMs - this.#recorded.sinceMs
      this.#recorded = { ...record, sinceMs: nowMs }
      if (waitedMs < blockWaitMs(this.#shortest) / 1.01)
        this.#history.violate('X4', `${record.identity} was settled after ${waitedMs.toFixed(0)} ms`)
    }
  }

  /** Nobody is granted a worker that is paused, nor anything while handing over. */
  #checkPermission({ key, worker, holder }: StoredLease): void {
    if (this.#database.workers().some((each) => each.key === worker && each.paused))
      this.#history.violate('S7', `${key} was granted to ${holder} while ${worker} is paused`)
    if (this.#database.nodes().some((each) => each.id === holder && each.state !== 'active'))
      this.#history.violate('S7', `${key} was granted to ${holder}, which is not active`)
  }

  /** Nobody is meant to have a lease who hands over or is gone. */
  #checkNamed({ key, target }: StoredLease, before: StoredLease | undefined): void {
    if (target === null || target === before?.target) return
    const { state = 'gone' } = this.#database.nodes().find((each) => each.id === target) ?? {}
    if (state !== 'active') this.#history.violate('S7', `${key} is meant for ${target}, which is ${state}`)
  }

  /**
   * An order reaches a holder before its trust is renewed again, or its trust ends: after a ttl nobody trusts what
   * the order forbids, unless it was taken back, by whatever came however late, or a failover has lost it.
   */
  #expectObedience(what: string, inForce: () => boolean, forbids: (term: Term) => boolean): void {
    const server = this.#database.identity
    this.#inForce.add(inForce)
    this.#scheduler.after(this.#timing.ttlMs * 1.02, () => {
      if (!this.#inForce.delete(inForce) || server !== this.#database.identity || !inForce()) return
      for (const { key, token, process } of this.#history.trustedWhere(forbids))
        this.#history.violate('S7', `${process.label} still trusts ${key}@${token} a ttl after the ${what}`)
    })
  }

  /** Who cools down does not win while a healthy other could. */
  #checkCooldown(lease: StoredLease, before: StoredLease | undefined): void {
    const { ttlMs } = this.#timing
    const { nowMs } = this.#scheduler
    if (before === undefined || before.cooldownNode !== lease.holder || before.cooldownUntilMs === null)
      return
    if (this.#named.has(`${lease.key} ${lease.holder}`)) return
    if (before.cooldownUntilMs <= this.#database.nowMs || nowMs - this.#clockMovedAtMs < ttlMs * 20) return
    const worker = this.#database.workers().find(({ key }) => key === lease.worker)
    if (worker?.kind !== 'single' || this.#plan.traits.has('stubborn')) return
    const healthy = this.#database.nodes().filter((node) => {
      if (node.state !== 'active' || node.id === lease.holder) return false
      if (!(JSON.parse(node.workers) as string[]).includes(worker.key)) return false
      const site = this.#sites.find(({ life }) => life?.coordinator.nodeId === node.id)
      const process = site?.life?.process
      if (site === undefined || process === undefined || site.disturbed.size > 0 || site.life?.closing)
        return false
      return process.standstill === undefined && nowMs - process.calmSinceMs > 2 * ttlMs
    })
    if (healthy.length > 0)
      this.#history.violate(
        'S5',
        `${lease.holder} wins ${lease.key} while it cools down and ${healthy[0]?.id} stands`,
      )
  }
}

/** The kind of fault that an order belongs to, where it is not called the same. */
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

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const outcome = error instanceof StoreError ? ` (${error.outcome})` : ''
  return `${error.name}: ${error.message}${outcome}${error instanceof StoreError ? '' : `\n${error.stack}`}`
}
