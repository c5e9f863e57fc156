/**
 * A simulated world: a few nodes, their workers, an operator, and everything that goes wrong.
 *
 * The engine and its store are the real ones. What surrounds them is simulated: time, chance, the network and the
 * machines. A world has three stages: faults, recovery, and a calm in which nothing may happen that costs anything
 * beyond heartbeats, looks and times of a schedule.
 */
import { Coordinator, type CoordinatorSettings } from '../../plugin/core/coordinator.js'
import { StoreError } from '../../plugin/core/errors.js'
import type { Identity } from '../../plugin/core/identity.js'
import { type Log, silentLog } from '../../plugin/core/log.js'
import { Session } from '../../plugin/core/session/session.js'
import { lookEveryMs, type Timing } from '../../plugin/core/time/timing.js'
import { Application } from './application.js'
import { Climate } from './climate.js'
import { Commits } from './commits.js'
import { SimulatedDatabase } from './database.js'
import type { Fault, Plan } from './faults.js'
import type { History, Violation } from './history.js'
import { Inspection, type Unserved } from './inspection.js'
import { RemoteStore } from './network.js'
import { Operator } from './operator.js'
import { SimulatedProcess } from './process.js'
import { Reports } from './reports.js'
import {
  describe,
  type LifeOnSite,
  retention,
  Scene,
  type Site,
  type WorldOptions,
  workerNames,
} from './scene.js'
import { Chance, onItsOwn, RanHot, Scheduler } from './scheduler.js'
import { rarerTimesEveryMs, timesEveryMs } from './times.js'

/** The result of a simulation. */
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
  /**
   * The time in ms from the end of all faults until every single worker was held, and until every share and partition
   * was.
   */
  readonly recoveredMs: { readonly singles: number; readonly all: number }
}

/** Simulates one seed from beginning to end. */
export async function simulate(options: WorldOptions): Promise<Outcome> {
  const scheduler = new Scheduler()
  const database = await SimulatedDatabase.open(() => scheduler.nowMs)
  const world = new World(options, scheduler, database)
  const { stackTraceLimit } = Error
  // Errors are frequent here, and making a stack is the most expensive part of an error.
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

/** All sessions by id, so that the checker can ask how long each trusts. A session is added when it joins. */
const sessions = new Map<string, Session>()
const joined = Session.prototype.joined
Session.prototype.joined = function (this: Session, ...facts) {
  sessions.set(this.id, this)
  joined.apply(this, facts)
}

/** Ten times as many as the busiest worlds have. A world with more repeats something without end. */
const mostEvents = 1_000_000

class World {
  readonly #options: WorldOptions
  readonly #scene: Scene
  readonly #scheduler: Scheduler
  readonly #database: SimulatedDatabase
  readonly #history: History
  readonly #timing: Timing
  readonly #plan: Plan
  readonly #sites: readonly Site[]
  readonly #work: Chance
  readonly #application: Application
  readonly #commits: Commits
  readonly #climate: Climate
  readonly #operator: Operator
  readonly #reports: Reports
  readonly #inspection: Inspection
  #lastSinglesMs = 0
  #lapsedAtMs = 0
  #failedAtMs = 0
  /**
   * The processes that join later than others. Those that have lost a session while they keep a lease give that work time
   * to end; those that contradict nodes that have died wait until these are silent by a clock that has been set back.
   */
  readonly #joiningLate = new Set<SimulatedProcess>()
  #joinedLateAtMs = 0
  #lastAllMs = 0
  /** The keys that were already reported as unserved. */
  readonly #judged = new Set<string>()

  constructor(options: WorldOptions, scheduler: Scheduler, database: SimulatedDatabase) {
    const scene = new Scene(options, scheduler, database)
    this.#options = options
    this.#scene = scene
    this.#scheduler = scheduler
    this.#database = database
    this.#history = scene.history
    this.#timing = scene.timing
    this.#plan = scene.plan
    this.#sites = scene.sites
    this.#work = scene.chances.work
    this.#application = new Application(scene)
    this.#commits = new Commits(scene)
    this.#climate = new Climate(scene, this.#commits)
    this.#operator = new Operator(scene, this.#commits)
    this.#reports = new Reports(scene, this.#application)
    this.#inspection = new Inspection(scene, this.#commits)
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
    this.#scheduler.runUntil(this.#scene.faultsMs)
    this.#recover()
    if (this.#options.calm ?? Chance.of(this.#options.seed, 'calm').happens(this.#scene.mix.calm))
      this.#beCalm()
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
      preset: this.#scene.preset,
      nodes: this.#sites.length,
      recoveredMs: { singles: this.#lastSinglesMs, all: this.#lastAllMs },
    }
  }

  // ---------------------------------------------------------------- stages

  #begin(): void {
    const late = this.#plan.traits.has('late-starts')
    for (const trait of [
      'drift',
      'late-timers',
      'late-starts',
      'slow-network',
      'mixed-ttls',
      'layouts',
    ] as const)
      if (this.#plan.traits.has(trait)) this.#history.hit(trait)
    for (const site of this.#sites)
      this.#scheduler.after(this.#work.between(0, late ? this.#scene.faultsMs / 2 : 2_000), () =>
        this.#startLife(site),
      )
    for (const [index, fault] of this.#plan.faults.entries())
      if (this.#options.only?.(fault, index) ?? true)
        this.#scheduler.at(fault.atMs, () => this.#strike(fault))
  }

  /** Ends all faults. Some processes are started again, and everything must find its holder in time. */
  #recover(): void {
    this.#scene.stage = 'recovery'
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
    this.#operator.takeOrdersBack()
    const { ttlMs, claimTimeoutMs, handoverTimeoutMs } = this.#timing
    const fromMs = this.#scheduler.nowMs
    const singlesMs = 3 * ttlMs + claimTimeoutMs
    const allMs = singlesMs + handoverTimeoutMs
    const watchMs = allMs + 2 * ttlMs
    let sinceMs = new Map<string, number>()
    for (let passedMs = 250; passedMs <= watchMs + this.#delayedMs(fromMs); passedMs += 250) {
      this.#haveRowsMade()
      this.#scheduler.runUntil(fromMs + passedMs)
      const unserved = this.#inspection.unserved()
      if (unserved.some(({ single }) => single)) this.#lastSinglesMs = passedMs
      if (unserved.length > 0) this.#lastAllMs = passedMs
      sinceMs = new Map(unserved.map(({ key }) => [key, sinceMs.get(key) ?? passedMs]))
      const dueMs = passedMs - this.#delayedMs(fromMs)
      for (const found of unserved)
        if (dueMs >= (found.single ? singlesMs : allMs))
          this.#judgeUnserved(found, passedMs, sinceMs.get(found.key) ?? 0)
      if (this.#scene.mix.hasty && passedMs - this.#lastAllMs > 2 * ttlMs && this.#isAtRest()) break
    }
    if (this.#scheduler.nowMs - fromMs - this.#lastAllMs > 2 * ttlMs) this.#checkTimes()
    for (const { process, key, sinceMs } of this.#application.waitingInVain)
      this.#history.violate('L4', `${process.label} waits in vain for ${key} since ${sinceMs.toFixed(0)}`)
    for (const { life } of this.#sites)
      if (life?.closing && !life.closed)
        this.#history.violate('L3', `${life.process.label} does not come to close`)
  }

  /**
   * Restarts a node for each worker that lacks rows, as the operations page says: what was deleted by hand is made when a
   * node joins that has registered the worker.
   */
  #haveRowsMade(): void {
    const workers = this.#database.workers()
    const leases = this.#database.leases()
    const nodes = this.#database.nodes()
    const known = [...nodes.map(({ id }) => id), ...this.#database.goneNodes()]
    const isWhole = (key: string): boolean => {
      const worker = workers.find((each) => each.key === key)
      const own = leases.filter((each) => each.worker === key && each.slot < (worker?.slots ?? 0))
      const isHolderKnown = own.every(({ holder }) => holder === null || known.includes(holder))
      return worker !== undefined && own.length >= worker.slots && isHolderKnown
    }
    for (const node of nodes) {
      const site = this.#sites.find(({ life }) => life?.coordinator.nodeId === node.id)
      if (site === undefined || (JSON.parse(node.workers) as string[]).every(isWhole)) continue
      this.#closeLife(site, () => this.#startLife(site))
    }
  }

  /**
   * No time is overdue for a lease that is held. A holder that waits for a time reads the database's clock once a
   * minute, so the check is left out soon after a jump of that clock.
   */
  #checkTimes(): void {
    if (this.#scheduler.nowMs - this.#commits.clockMovedAtMs < 65_000) return
    const areTwo = this.#plan.traits.has('schedules')
    const patienceMs = 2 * this.#timing.ttlMs + (areTwo ? rarerTimesEveryMs - timesEveryMs : 0)
    for (const worker of this.#database.workers().filter(({ key }) => key === 'global/ticks'))
      for (const lease of this.#database.leases().filter((each) => each.worker === worker.key))
        if (lease.holder !== null && this.#history.isTrusted(lease.key, lease.token))
          if (this.#scene.times.isOverdue(lease, patienceMs, areTwo))
            this.#history.violate('T3', `a time of ${lease.key} is overdue: ${JSON.stringify(lease)}`)
  }

  /**
   * Returns how long after the faults something last began that takes its own time, in ms. In a network that is always
   * slow, requests fail and trust lapses without faults, which counts for at most 20 ttls; a grace period begins where rows that were
   * deleted by hand are made again; and some processes join only later.
   */
  #delayedMs(fromMs: number): number {
    const slow = this.#plan.traits.has('slow-network')
    const troubledAtMs = Math.max(this.#lapsedAtMs, this.#failedAtMs)
    const troubledMs = slow ? Math.min(troubledAtMs - fromMs, 20 * this.#timing.ttlMs) : 0
    return Math.max(0, troubledMs, this.#commits.doubtedAtMs - fromMs, this.#joinedLateAtMs - fromMs)
  }

  /**
   * Reports what should be held by now. A lease that changes hands just now, as shares do after a cool-down, does not
   * count; one that nobody has held for a whole ttl does.
   */
  #judgeUnserved({ key, why, single, toleratedMs }: Unserved, passedMs: number, sinceMs: number): void {
    if (passedMs - sinceMs < (toleratedMs ?? this.#timing.ttlMs) || this.#judged.has(key)) return
    this.#judged.add(key)
    this.#history.violate(
      single ? 'L1' : 'L2',
      `${key} is not held ${passedMs} ms after the last fault, since ${sinceMs} ms: ${why}`,
    )
  }

  /** Whether no request waits for a lease, and every process that was told to close has closed. */
  #isAtRest(): boolean {
    return (
      this.#application.waitingInVain.length === 0 &&
      this.#sites.every(({ life }) => !life?.closing || life.closed)
    )
  }

  /**
   * After the cool-downs a healthy cluster costs one statement per node and heartbeat, and the looks of two watchers.
   */
  #beCalm(): void {
    const { ttlMs } = this.#timing
    this.#scheduler.runUntil(this.#scheduler.nowMs + 65_000 + ttlMs)
    this.#scene.stage = 'calm'
    this.#history.note(() => '---- calm ----')
    const living = this.#scene.living().filter(({ coordinator }) => coordinator.state === 'running')
    // At the end of a cool-down a lease may change hands at this very moment.
    const pendingOnes = (): string[] =>
      this.#database
        .leases()
        .filter(({ key, pending, blockedNode }) => {
          const isWithheld = blockedNode !== null && this.#application.isWithheld(key)
          return pending && !isWithheld
        })
        .map((lease) => JSON.stringify(lease))
    const pending = living.length === 0 ? [] : pendingOnes()
    const { nowMs } = this.#database
    // Some cool-downs last for minutes, or longer where the database's clock went back. The node that has a partition
    // in place of one that cooled down has them planned anew at most one of its ttls after that.
    const overMs = nowMs - 2 * ttlMs
    const cooling = this.#database.leases().some(({ cooldownUntilMs }) => (cooldownUntilMs ?? 0) > overMs)
    // The answer to a change of a moment ago may still be on its way, or be lost and read back.
    const handingOver = this.#scheduler.nowMs - this.#commits.handedOverAtMs < ttlMs
    // In a network that is always slow, heartbeats come late without a fault.
    if (!cooling && !handingOver && !this.#plan.traits.has('slow-network')) this.#reports.readCalm()
    for (const life of living) life.calls.clear()
    const periodMs = this.#timing.heartbeatMs * 10
    const fromMs = this.#scheduler.nowMs
    this.#scheduler.runUntil(fromMs + periodMs)
    // In a network that is always slow, trust may lapse without a fault, also just before. What was held is then claimed
    // again.
    const lapsed = this.#plan.traits.has('slow-network') && this.#lapsedAtMs >= fromMs - ttlMs
    const looks = 2 * (periodMs / lookEveryMs(this.#scene.shortest) + 2)
    let looked = 0
    let stoodIn = 0
    for (const { process, calls, registered, heartbeatMs, pollMs } of living) {
      const intervals = periodMs / heartbeatMs
      const heartbeats = calls.get('heartbeat') ?? 0
      const polls = this.#scene.polls ? periodMs / pollMs + 1 : 0
      looked += calls.get('look') ?? 0
      stoodIn += calls.get('beats') ?? 0
      if (heartbeats < intervals * 0.8 || heartbeats > intervals * 1.2)
        this.#history.violate(
          'C1',
          `${process.label} made ${heartbeats} heartbeats in ${intervals} intervals`,
        )
      if ((calls.get('news') ?? 0) > polls)
        this.#history.violate('C1', `${process.label} polled ${calls.get('news')} times`)
      // Once an hour one node deletes old rows. For this it reads all leases in portions and makes a change.
      const expected = new Set(['heartbeat', 'look', 'beats', 'news', 'prune', 'leasesAfter'])
      // Each time of a schedule is a change by the holder of its lease.
      const times = this.#scene.schedule === undefined ? 0 : periodMs / timesEveryMs + 2
      // A refused worker is tried again once per ttl.
      const refused = registered.filter(({ handle }) => handle.state === 'refused').length
      const tries = refused * (periodMs / this.#scene.shortest.ttlMs + 1)
      // Who waits for leases by name asks once per ttl whether it is still in line.
      const waits = this.#application.waiting.filter((each) => each.process === process).length
      const asks = waits * (periodMs / this.#scene.shortest.ttlMs + 1)
      if (calls.has('leasesAfter') || (calls.get('change') ?? 0) <= times + tries + asks)
        expected.add('change')
      // Where the answer to such a try is lost, the view is read again.
      const reads = this.#plan.traits.has('slow-network') ? tries : 0
      if ((calls.get('view') ?? 0) <= times + reads) expected.add('view')
      for (const [verb, count] of calls)
        if (!cooling && !handingOver && !lapsed && !expected.has(verb))
          this.#history.violate('C1', `${process.label} asked for ${count} × ${verb} in a calm`)
    }
    if (living.length > 0) this.#checkTimes()
    for (const lease of pendingOnes())
      if (pending.includes(lease)) this.#history.violate('L5', `it is pending for ever: ${lease}`)
    if (!cooling && !handingOver && !lapsed)
      for (const { key, why } of this.#inspection.unserved())
        this.#history.violate('L2', `${key} is not held in a calm: ${why}`)
    if (looked > looks)
      this.#history.violate('C1', `there were ${looked} looks, more than ${looks.toFixed(0)}`)
    // Heartbeats are not evenly spaced: sometimes two in a row of one node fall between two heartbeats of both
    // watchers.
    if (stoodIn > 4 + 2 * living.length)
      this.#history.violate('C1', `nodes stood in for watchers that live, with ${stoodIn} looks`)
  }

  /** Closes all nodes, and checks that they leave nothing behind. */
  #end(): void {
    for (const site of this.#sites) this.#closeLife(site)
    const last = this.#sites.flatMap(({ life }) => life ?? [])
    // What is never given back is waited for that long; then the node leaves.
    const { drainTimeoutMs, statementTimeoutMs } = this.#timing
    const leavesMs = this.#plan.traits.has('kept-leases') ? 2 * statementTimeoutMs : 0
    this.#scheduler.runUntil(this.#scheduler.nowMs + drainTimeoutMs + leavesMs)
    for (const { process, closed } of last)
      if (!closed) this.#history.violate('L3', `${process.label} does not come to close`)
    for (const node of last.length === 0 ? [] : this.#database.nodes())
      if (!this.#commits.hasJoinedAfterEnd(node.id))
        this.#history.violate('L3', `${node.id} is still ${node.state} although all have closed`)
  }

  #check(): void {
    this.#history.check()
    for (const { life } of this.#sites) if (life !== undefined) this.#history.checkLapses(life.process)
  }

  // ---------------------------------------------------------------- lives

  #startLife(site: Site): void {
    if (site.life !== undefined) return
    site.lives += 1
    const label = `${site.name}.${site.lives}`
    const identity = this.#scene.identityOf(site, label)
    if (this.#scene.living().some((life) => life.identity.node === identity.node)) this.#history.hit('twins')
    this.#history.note(
      () =>
        `${label} starts (${identity.node}, ${identity.cluster}, rate ${site.rate.toFixed(4)}): ${site.workers.join(' ')}`,
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
      this.#climate.of(site, label, calls),
      site.timing.statementTimeoutMs,
      !this.#scene.polls,
    )
    const coordinator = new Coordinator(this.#settingsOf(site, identity), store, process, this.#logOf(label))
    const { heartbeatMs, pollMs } = site.timing
    const life: LifeOnSite = {
      process,
      identity,
      store,
      coordinator,
      registered: [],
      stopping: new Set(),
      versions: Chance.of(this.#options.seed, `${label} versions`),
      calls,
      heartbeatMs,
      pollMs,
      closing: false,
      closed: false,
    }
    site.life = life
    this.#listenTo(life)
    for (const name of site.workers) this.#register(life, name)
    this.#tryToStart(life)
    this.#application.askForNames(life, Chance.of(this.#options.seed, `${label} names`))
    this.#commits.claims.begin(life, Chance.of(this.#options.seed, `${label} times`))
  }

  /**
   * The engine logs as errors what it tries again although the database is not at fault. Expected are failures of
   * passes, refused workers, and times lost with a lease that was taken away.
   */
  #logOf(label: string): Log {
    return {
      ...silentLog,
      error: (fields, message) => {
        if (['failures', 'worker', 'due'].some((field) => field in fields)) return
        const error = 'err' in fields ? describe(fields.err) : ''
        this.#history.violate('X2', `${label}: ${message}: ${error}`)
      },
    }
  }

  #startAgain(site: Site): void {
    if (this.#scene.stage === 'faults') this.#startLife(site)
  }

  #settingsOf(site: Site, identity: Identity): CoordinatorSettings {
    return {
      namespace: 'default',
      identity,
      timing: site.timing,
      labels: {},
      version: site.lives % 2 === 0 ? 'v2' : 'v1',
      retention,
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
          // A node that was buried and forgotten before it heard of its join may have joined once more under this id.
          buried: () =>
            this.#database.wasBuried(id) && !this.#database.nodes().some((node) => node.id === id),
        },
      )
      if (coordinator.state === 'closing')
        this.#history.violate('X5', `${process.label} begins ${key}@${token} while it closes`)
    })
    coordinator.on('lease.ended', ({ key, token, reason }) => {
      this.#history.ended(process, key, token, reason)
      this.#commits.interruptions.ended(life, key, token, reason)
    })
    coordinator.on('lease.released', ({ key, token }) =>
      this.#history.note(() => `${process.label} is done with ${key}@${token}`),
    )
    coordinator.on('node.joined', ({ node }) => {
      this.#history.note(() => `${process.label} has joined as ${node}`)
      this.#commits.joined(node, life.identity)
      if (this.#joiningLate.delete(process)) this.#joinedLateAtMs = this.#scheduler.nowMs
      this.#operator.takeLateOrdersBack()
    })
    coordinator.on('node.gone', ({ node }) => {
      this.#history.count('buried')
      this.#history.note(() => `${process.label} buries ${node}`)
    })
    coordinator.on('session.lost', ({ node }) => {
      this.#history.count('session lost')
      this.#history.note(() => `${process.label} has lost session ${node}`)
      if (this.#application.keeps(process)) this.#joiningLate.add(process)
    })
    coordinator.on('trust.expired', ({ node }) => {
      this.#lapsedAtMs = this.#scheduler.nowMs
      this.#history.count('trust expired')
      this.#history.note(() => `${process.label} trusts no more as ${node}`)
    })
    coordinator.on('store.failed', ({ error }) => {
      this.#failedAtMs = this.#scheduler.nowMs
      this.#history.count('store failed')
      this.#history.note(() => `${process.label} hears: ${describe(error)}`)
    })
  }

  #tryToStart(life: LifeOnSite): void {
    const { coordinator, process } = life
    coordinator.start().then(
      () => undefined,
      (error: unknown) => {
        this.#history.note(() => `${process.label} could not start: ${describe(error)}`)
        if (!(error instanceof StoreError) && !this.#isRefused(error) && !life.closing)
          this.#history.violate('X2', `${process.label} could not start: ${describe(error)}`)
        if (this.#isRefused(error) && this.#commits.clockMovedAtMs > 0) this.#joiningLate.add(process)
        process.later(1_000, () => !life.closing && this.#tryToStart(life))
      },
    )
  }

  /** Whether a process could not start because its workers contradict those of others. It is told so, and tries again. */
  #isRefused(error: unknown): boolean {
    return this.#plan.traits.has('layouts') && (error as { code?: unknown }).code === 'WCO_WORKER_CONFLICT'
  }

  #killLife(site: Site): void {
    const { life } = site
    if (life === undefined) return
    this.#history.note(() => `${life.process.label} is killed`)
    life.process.kill()
    this.#bury(site, life)
  }

  #closeLife(site: Site, then?: () => void): void {
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
          then?.()
        },
        (error: unknown) =>
          this.#history.violate('X2', `${life.process.label} could not close: ${describe(error)}`),
      )
    })
  }

  #bury(site: Site, life: LifeOnSite): void {
    life.store.disconnect()
    this.#history.died(life.process)
    this.#application.forget(life.process)
    site.life = undefined
  }

  #register(life: LifeOnSite, name: string): void {
    const { registered, stopping } = life
    if (stopping.has(name) || registered.some(({ handle }) => handle.name === name)) return
    const layout = this.#scene.layouts.draw(name, life.versions)
    const definition = this.#application.definition(life.process, name, layout)
    const handle = life.coordinator.worker(definition)
    registered.push({ handle, layout, sinceMs: this.#scheduler.nowMs })
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
    this.#reports.read()
    for (const site of struck) this.#strikeSite(site, fault)
    this.#strikeDatabase(fault)
    this.#operator.order(fault)
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
      case 'register-worker':
        this.#registerWorker(site)
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
    if (life === undefined || life.closing || life.registered.length === 0) return
    const stopped = this.#scene.chances.operator.pick(life.registered)
    const { handle } = stopped
    if (handle.state === 'stopped') return
    life.registered.splice(life.registered.indexOf(stopped), 1)
    this.#history.hit('stop-worker')
    this.#history.note(() => `${life.process.label} stops ${handle.key}`)
    life.stopping.add(handle.name)
    life.process.deliver(() => {
      void handle.stop().then(() => {
        life.stopping.delete(handle.name)
        life.process.later(forMs, () => {
          if (life.closing) return
          this.#history.note(() => `${life.process.label} registers ${handle.key} again`)
          this.#register(life, handle.name)
        })
      })
    })
  }

  /** Registers a worker that the process has not had from its start. */
  #registerWorker({ life }: Site): void {
    if (life === undefined || life.closing) return
    const name = this.#scene.chances.operator.pick(workerNames)
    if (life.stopping.has(name) || life.registered.some(({ handle }) => handle.name === name)) return
    this.#history.hit('register-worker')
    this.#history.note(() => `${life.process.label} registers ${name}`)
    life.process.deliver(() => {
      if (!life.closing) this.#register(life, name)
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
      case 'delete-rows':
        this.#deleteRow(degree)
        return
      case 'wipe':
        this.#wipe(degree)
        return
      case 'failover': {
        const backup = database.backup()
        this.#scheduler.after(forMs, () => {
          if (this.#scene.stage !== 'faults' || backup === undefined) return
          this.#history.note(() => `the database fails over and loses ${forMs.toFixed(0)} ms`)
          this.#history.hit(kind)
          database.restart(backup)
          this.#commits.failedOver()
        })
      }
    }
  }

  /**
   * Deletes the row of a node, of a worker, or of a lease of one. In the middle of a handover nothing is promised, so only a
   * lease is deleted that stays where it is. A row that a transaction fences cannot be deleted.
   */
  #deleteRow(degree: number): void {
    const table = degree < 0.2 ? 'nodes' : degree < 0.4 ? 'workers' : 'leases'
    const keys = {
      nodes: () => this.#database.nodes().map(({ id }) => id),
      workers: () => this.#database.workers().map(({ key }) => key),
      leases: () =>
        this.#database
          .leases()
          .filter(({ worker, holder, pending }) => worker !== null && holder !== null && !pending)
          .map(({ key }) => key)
          .filter((key) => !this.#database.isFenced(key)),
    }[table]()
    if (keys.length === 0) return
    const key = this.#scene.chances.operator.pick(keys)
    this.#history.hit('delete-rows')
    this.#history.note(() => `somebody deletes ${key} from the ${table}`)
    this.#database.deleteRow(table, key)
    if (table === 'nodes') this.#inspection.deletedNode(key)
    this.#commits.deletedByHand(table === 'leases' ? [key] : [])
  }

  /** Deletes all rows, which happens rarely: most of what else goes wrong would be lost in it. */
  #wipe(degree: number): void {
    if (degree > 0.2 || this.#database.backup() === undefined || !this.#database.wipe()) return
    this.#history.hit('wipe')
    this.#history.note(() => 'somebody deletes all rows')
    this.#commits.wiped()
  }

  #moveClock(byMs: number): void {
    this.#history.note(() => `the database's clock jumps by ${(byMs / 1_000).toFixed(1)} s`)
    this.#commits.clockMoved()
    this.#database.jumpClock(byMs)
  }
}
