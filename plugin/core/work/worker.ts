/**
 * Workers: what the application defines, and the loop that runs it while authority lasts.
 *
 * To the engine all three kinds are one thing, a set of leases; they differ in which node is the target of which
 * lease. So there is one loop: as long as a lease is held, it calls the worker's `run`, pass after pass, with a
 * signal that aborts when authority ends.
 */
import type { Declaration } from '../changes/declarations.js'
import { hash32 } from '../changes/hash.js'
import { CoordinationError, type EndReason, FencedError, LeaseLostError } from '../errors.js'
import type { Identity } from '../identity.js'
import { checkCooldown, checkItemKey, listed, unknownOptions } from '../inputs.js'
import { type Log, type PassLog, withFields } from '../log.js'
import { checkName, leaseKey, shown } from '../names.js'
import type { LeaseRow, Scope, WorkerRow } from '../store.js'
import type { Clock, Reading } from '../time/clock.js'
import { presentContext } from '../time/context.js'
import { sleep } from '../time/loop.js'
import { backoffMs, type Timing } from '../time/timing.js'
import { elapsedMs } from '../time/trust.js'
import { type Calendar, Firing } from './firing.js'
import type { HeldLease, Holding } from './lease.js'
import { type Schedule, scheduleProblem, type Timetable, timetableOf, writtenSchedule } from './schedule.js'

/** What every pass is given. */
export interface PassContext {
  /** The lease under which this pass runs. */
  readonly lease: HeldLease
  /** Aborts when authority ends; pass it on to everything that takes a signal. The same as `lease.signal`. */
  readonly signal: AbortSignal
  /** The coordinator's log, with the lease and its token on every line. It is called like pino. */
  readonly log: PassLog
  /**
   * Ends this node's term: the signal aborts, and once the pass has settled another node takes over. A pass that goes
   * on for longer than `handoverTimeoutMs` has its lease revoked.
   *
   * @param cooldownMs how long this node should not win the lease again while there are other candidates, in ms, up
   *   to a day. Default: the worker's `cooldownMs`.
   * @throws {CoordinationError} `WCO_OPTIONS` when it is not such a number; the term then goes on.
   */
  stepDown(cooldownMs?: number): void
}

/** A node's share of a coordinated worker. It never changes: a new plan means a new pass. */
export interface Assignment {
  /** From 0 to `count` − 1; no other node has the same index in this generation. */
  readonly index: number
  /** How many nodes share the work. */
  readonly count: number
  /** Number of the plan. No pass of an older generation runs anywhere while this one does. */
  readonly generation: number
  /**
   * Whether a key belongs to this share. The answer is the same on all nodes, in all processes and versions.
   *
   * @throws {CoordinationError} `WCO_OPTIONS` for a key of another type, or NaN.
   */
  owns(key: string | number | bigint): boolean
}

export interface CoordinatedContext extends PassContext {
  readonly assignment: Assignment
}

export interface PartitionedContext extends PassContext {
  /** Number of the partition, from 0 to `partitions` − 1. One pass at a time runs for each. */
  readonly partition: number
}

interface CommonOptions {
  /** Up to 100 letters, digits, `.`, `_`, `-`. */
  readonly name: string
  /**
   * Where uniqueness holds: `cluster` repeats the worker once per cluster. Required, so that it is always written
   * out.
   */
  readonly scope: Scope
  /** Pause between the end of a pass and the start of the next, in ms. Default 1 000. */
  readonly everyMs?: number | undefined
  /** Failed passes of one lease in a row after which this node steps down from it and cools down. Default 5. */
  readonly maxFailures?: number | undefined
  /**
   * How long this node cools down after it has stepped down, in ms. Default 30 000. For a partition that keeps failing
   * on this node, it doubles each time, up to an hour.
   */
  readonly cooldownMs?: number | undefined
  /** How long a pass may take to stop when its lease goes to another node, in ms. Default: the coordinator's. */
  readonly handoverTimeoutMs?: number | undefined
  /** With `false` this node is not a candidate for the worker. Default true. */
  readonly enabled?: boolean | undefined
}

export interface SingleContext extends PassContext {
  /** The time of the schedule that this pass is for, in ms since 1970; null for a worker without a schedule. */
  readonly dueAtMs: number | null
}

/** A worker that runs once per scope: a leader. */
export interface SingleWorker extends CommonOptions {
  readonly kind: 'single'
  /**
   * Starts passes at times of day instead of at intervals: a cron pattern, in UTC unless a time zone is given. For
   * each time one pass begins, on the node that then holds the lease.
   */
  readonly schedule?: string | Schedule | undefined
  run(context: SingleContext): unknown
}

/** A worker that runs once per node; each node has an index and knows the count. */
export interface CoordinatedWorker extends CommonOptions {
  readonly kind: 'coordinated'
  run(context: CoordinatedContext): unknown
}

/** A worker that runs once per partition; the partitions are spread evenly over the nodes. */
export interface PartitionedWorker extends CommonOptions {
  readonly kind: 'partitioned'
  /** How many partitions there are, from 1 to 16 384. Must be the same on every node. */
  readonly partitions: number
  run(context: PartitionedContext): unknown
}

/** A worker, as {@link Coordinator.worker} takes it. */
export type WorkerDefinition = SingleWorker | CoordinatedWorker | PartitionedWorker

/** The state of a worker on this node. */
export type WorkerState =
  /** Registered here, so this node is a candidate. Another node may be at work. */
  | 'candidate'
  /** At work here. */
  | 'working'
  /** Other nodes have registered it differently, so this node is not a candidate; see the event `worker.refused`. */
  | 'refused'
  /** This node is not a candidate. */
  | 'stopped'

/** What {@link Coordinator.worker} returns. */
export interface WorkerHandle extends AsyncDisposable {
  readonly name: string
  /** `global/month-close`, or `eu-1/indexing`. */
  readonly key: string
  readonly state: WorkerState
  /**
   * Ends the candidacy of this node. Resolves once its passes have settled and its leases are given back. A pass
   * that stops its own worker must not wait for that: it would wait for itself.
   */
  stop(): Promise<void>
}

/** One call of `run`, as {@link Coordinator.aroundPasses} sees it. */
export interface Pass {
  readonly lease: HeldLease
  /** Key of the worker. */
  readonly worker: string
  /** The time of the schedule that it is for, in ms since 1970; null for a worker without a schedule. */
  readonly dueAtMs: number | null
}

/**
 * Wraps a pass: it must call `run` once, and return or await its promise. The pass goes on until that promise has
 * settled, whether or not the function waits for it. A pass whose `run` was not called, or called twice, has failed.
 */
export type AroundPass = (pass: Pass, run: () => Promise<void>) => Promise<void>

/** A definition that has been checked, with its defaults filled in. */
export interface Worker {
  readonly declaration: Declaration
  readonly definition: WorkerDefinition
  readonly everyMs: number
  readonly maxFailures: number
  readonly cooldownMs: number
  readonly enabled: boolean
  /** The worker's schedule, which replaces `everyMs`; undefined when it has none. */
  readonly timetable: Timetable | undefined
}

const knownOptions = [
  'name',
  'kind',
  'scope',
  'run',
  'partitions',
  'everyMs',
  'schedule',
  'maxFailures',
  'cooldownMs',
  'handoverTimeoutMs',
  'enabled',
]

/**
 * Checks a definition as a whole and reports everything that is wrong with it at once.
 *
 * @throws {CoordinationError} `WCO_OPTIONS`, or `WCO_NAME` for the name alone.
 */
export function parseWorker(definition: WorkerDefinition, identity: Identity, timing: Timing): Worker {
  if (typeof definition !== 'object' || definition === null) {
    throw new CoordinationError(
      'WCO_OPTIONS',
      `A worker must be an object with name, kind, scope and run, got ${shown(definition)}.`,
    )
  }
  const name = checkName('worker', definition.name)
  const problems = workerProblems(definition)
  if (problems.length > 0) {
    throw new CoordinationError(
      'WCO_OPTIONS',
      `The worker "${name}" cannot be registered: ${problems.join('; ')}.`,
    )
  }
  const { kind, scope } = definition
  const cluster = scope === 'cluster' ? identity.cluster : null
  const schedule = kind === 'single' ? definition.schedule : undefined
  const timetable = schedule === undefined ? undefined : timetableOf(schedule)
  return {
    definition,
    declaration: {
      key: leaseKey(scope, identity.cluster, name),
      name,
      kind,
      scope,
      cluster,
      partitions: kind === 'partitioned' ? definition.partitions : null,
      handoverTimeoutMs: definition.handoverTimeoutMs ?? timing.handoverTimeoutMs,
      schedule: timetable === undefined ? null : writtenSchedule(timetable),
    },
    everyMs: definition.everyMs ?? 1_000,
    maxFailures: definition.maxFailures ?? 5,
    cooldownMs: definition.cooldownMs ?? 30_000,
    enabled: definition.enabled ?? true,
    timetable,
  }
}

/** What a runner reports, and what it asks for. */
export interface RunnerOwner {
  readonly around: AroundPass
  failed(
    holding: Holding,
    failure: { readonly error: unknown; readonly failures: number; readonly dueAtMs: number | null },
  ): void
}

/**
 * Runs the passes of one worker on this node, one loop for each lease held, in the async context of its creation.
 */
export class Runner {
  readonly worker: Worker
  readonly #clock: Clock
  readonly #log: Log
  readonly #calendar: Calendar
  readonly #owner: RunnerOwner
  /** How many passes have failed in a row, by lease. */
  readonly #failures = new Map<string, number>()
  /** Leases from which this node has stepped down: when, and how long it should leave them alone. */
  readonly #steppedDown = new Map<string, { readonly at: Reading; readonly pauseMs: number }>()
  readonly #taken = new WeakSet<Holding>()
  readonly #inContext = presentContext()
  #loops = 0

  constructor(worker: Worker, clock: Clock, log: Log, calendar: Calendar, owner: RunnerOwner) {
    this.worker = worker
    this.#clock = clock
    this.#log = log
    this.#calendar = calendar
    this.#owner = owner
  }

  /** Whether this is the worker that other nodes know by its key: its leases are numbered in the same way. */
  fits({ kind, slots }: Pick<WorkerRow, 'kind' | 'slots'>): boolean {
    const { declaration } = this.worker
    return declaration.kind === kind && (declaration.partitions ?? slots) === slots
  }

  /** Whether any pass loop is under way, even if its lease has ended. */
  get busy(): boolean {
    return this.#loops > 0
  }

  /** Whether this runner, and not another one of the same key, has taken a lease. */
  hasTaken(holding: Holding): boolean {
    return this.#taken.has(holding)
  }

  /**
   * Makes this runner the one that will work under a lease. Called before the application hears of the lease, since
   * it may then stop this worker.
   */
  take(holding: Holding): void {
    this.#taken.add(holding)
  }

  /** Calls `run` again and again until the lease, taken before, ends. The handle settles when the last call has. */
  start(
    holding: Holding,
    assignment: Assignment | undefined,
    { slot: partition, firedAtMs }: Pick<LeaseRow, 'slot' | 'firedAtMs'>,
  ): void {
    const log = withFields(this.#log, { lease: holding.key, token: holding.token })
    const lease: HeldLease = holding
    const context = {
      lease,
      signal: holding.signal,
      log,
      stepDown: (cooldownMs?: number) => this.#stepDown(holding, cooldownMs),
    }
    const { definition } = this.worker
    const run = async (dueAtMs: number | null): Promise<void> => {
      let returned: unknown
      if (definition.kind === 'partitioned') returned = await definition.run({ ...context, partition })
      else if (definition.kind === 'single') returned = await definition.run({ ...context, dueAtMs })
      else if (assignment !== undefined) returned = await definition.run({ ...context, assignment })
      if (isGenerator(returned))
        throw new CoordinationError(
          'WCO_OPTIONS',
          'The pass returned a generator: what it does has not begun.',
        )
    }
    const { timetable, declaration } = this.worker
    const pass = (dueAtMs: number | null): Promise<void> =>
      this.#owner.around({ lease, worker: declaration.key, dueAtMs }, () => run(dueAtMs))
    this.#loops += 1
    const loop = (): Promise<void> =>
      timetable === undefined
        ? this.#loop(holding, () => pass(null), log)
        : this.#fire(
            new Firing(holding, timetable, this.#calendar, this.#clock, firedAtMs),
            holding,
            pass,
            log,
          )
    void this.#inContext(loop).finally(() => {
      this.#loops -= 1
      holding.settle()
    })
  }

  async #loop(holding: Holding, pass: () => Promise<void>, log: Log): Promise<void> {
    const pauseMs = this.#pauseLeftMs(holding)
    if (pauseMs > 0) await sleep(this.#clock, pauseMs, holding.signal)
    while (holding.held) {
      try {
        await pass()
        this.#failures.delete(holding.key)
        await sleep(this.#clock, this.worker.everyMs, holding.signal)
      } catch (error) {
        if (!holding.signal.aborted) await this.#recover(holding, error, log)
        else if (isOfSignal(error)) log.debug({ err: error }, 'pass ended by its signal')
        else log.warn({ err: error }, 'a pass failed after its signal had aborted')
      }
    }
  }

  /**
   * Runs one pass for each due time. A pass that fails is not tried again for the same time. One that resolves after
   * its signal has aborted may have done its work; one that rejects has not, and people must hear of it.
   */
  async #fire(
    firing: Firing,
    holding: Holding,
    pass: (dueAtMs: number) => Promise<void>,
    log: Log,
  ): Promise<void> {
    for (;;) {
      holding.betweenPasses = true
      const dueAtMs = await firing.next()
      holding.betweenPasses = false
      if (dueAtMs === undefined) return
      try {
        await pass(dueAtMs)
        this.#failures.delete(holding.key)
      } catch (error) {
        if (!holding.signal.aborted) this.#noteFailure(holding, error, withFields(log, { dueAtMs }), dueAtMs)
        else
          log.warn(
            { err: error, dueAtMs, reason: holding.ended },
            'a scheduled pass was ended by its signal, and its time is not begun again',
          )
      }
      firing.passed()
    }
  }

  /** Failures are counted across terms, so that a worker that always fails is called ever more rarely. */
  async #recover(holding: Holding, error: unknown, log: Log): Promise<void> {
    const failures = this.#noteFailure(holding, error, log, null)
    await sleep(this.#clock, this.#pauseAfterMs(failures), holding.signal)
  }

  #pauseAfterMs(failures: number): number {
    return backoffMs(failures, { firstMs: 1_000, maxMs: 60_000 }, this.#clock.random())
  }

  #noteFailure(holding: Holding, error: unknown, log: Log, dueAtMs: number | null): number {
    const failures = (this.#failures.get(holding.key) ?? 0) + 1
    this.#failures.set(holding.key, failures)
    log.error({ err: error, failures }, 'pass failed')
    this.#owner.failed(holding, { error, failures, dueAtMs })
    if (failures % this.worker.maxFailures === 0) {
      log.warn(
        { failures },
        'too many passes have failed in a row: this node steps down, so that another tries',
      )
      this.#giveUp(holding, 'passes-failed', this.#cooldownAfterMs(failures), this.#pauseAfterMs(failures))
    }
    return failures
  }

  /**
   * How long this node stands aside after so many failures. Partitions are shared out evenly again after that, so while
   * one keeps failing on this node, the time doubles, up to an hour. Otherwise a node that cannot work would keep its
   * part of the partitions from those that can.
   */
  #cooldownAfterMs(failures: number): number {
    const { cooldownMs, maxFailures, declaration } = this.worker
    if (declaration.kind !== 'partitioned') return cooldownMs
    const doublings = Math.min(failures / maxFailures - 1, 20)
    return Math.max(cooldownMs, Math.min(cooldownMs * 2 ** doublings, longestGrownCooldownMs))
  }

  /**
   * How long this node must still leave a lease alone after it stepped down. Without other candidates, the lease
   * comes back to it at once. It then still keeps the pause between two passes, or the longer one after failures.
   * Otherwise a worker that steps down in every pass would claim and release as fast as the database can.
   */
  #pauseLeftMs({ key }: Holding): number {
    const steppedDown = this.#steppedDown.get(key)
    this.#steppedDown.delete(key)
    if (steppedDown === undefined) return 0
    return Math.max(0, steppedDown.pauseMs - elapsedMs(steppedDown.at, this.#clock.read()))
  }

  #stepDown(holding: Holding, cooldownMs = this.worker.cooldownMs): void {
    checkCooldown('stepDown', cooldownMs)
    this.#giveUp(holding, 'stepped-down', cooldownMs, 0)
  }

  #giveUp(holding: Holding, reason: EndReason, cooldownMs: number, pauseMs: number): void {
    if (holding.ended !== undefined) return
    holding.cooldownMs = cooldownMs
    const leastMs = Math.max(this.worker.everyMs, pauseMs)
    this.#steppedDown.set(holding.key, { at: this.#clock.read(), pauseMs: leastMs })
    holding.end(reason)
  }
}

/** How far a cool-down grows, in ms, unless it is longer from the start. */
const longestGrownCooldownMs = 3_600_000

/** An error may be its own cause. */
const mostCauses = 10

/**
 * Whether work that rejects with this error has only done what its signal asked: it passed on an `AbortError` or the
 * reason of the signal, or was refused because the lease had ended. The error may be the cause of another one.
 */
function isOfSignal(error: unknown): boolean {
  try {
    let each = error
    for (let depth = 0; depth < mostCauses && each instanceof Error; depth++) {
      if (each.name === 'AbortError' || each instanceof LeaseLostError || each instanceof FencedError)
        return true
      each = each.cause
    }
  } catch {
    // An error of the application may throw when it is read.
  }
  return false
}

/** Returns a share, with the rule by which keys belong to shares. */
export function makeAssignment(index: number, count: number, generation: number): Assignment {
  return Object.freeze({
    index,
    count,
    generation,
    owns(key: string | number | bigint) {
      checkItemKey('assignment.owns', key)
      return hash32(String(key)) % count === index
    },
  })
}

function workerProblems(definition: WorkerDefinition): string[] {
  const { kind, scope, run } = definition
  const problems = isPlain(definition) ? unknownOptions(definition, knownOptions) : []
  if (problems.length > 0) problems.push(`the options are ${listed(knownOptions)}`)
  const check = (holds: boolean, expected: string, got: unknown): void => {
    if (!holds) problems.push(`${expected}, got ${shown(got)}`)
  }
  check(
    ['single', 'coordinated', 'partitioned'].includes(kind),
    '`kind` must be "single", "coordinated" or "partitioned"',
    kind,
  )
  check(scope === 'cluster' || scope === 'global', '`scope` must be "cluster" or "global"', scope)
  check(typeof run === 'function', '`run` must be a function', run)
  if (isGenerator(run)) problems.push('`run` must not be a generator: what it does would never begin')
  const partitions = 'partitions' in definition ? definition.partitions : undefined
  if (kind === 'partitioned')
    check(isCount(partitions, 1, 16_384), '`partitions` must be a whole number from 1 to 16384', partitions)
  else check(partitions === undefined, '`partitions` is for partitioned workers alone', partitions)
  const schedule = 'schedule' in definition ? definition.schedule : undefined
  if (schedule !== undefined) {
    const problem = scheduleProblem(schedule)
    if (problem !== undefined) problems.push(problem)
    check(kind === 'single', '`schedule` is for single workers alone', schedule)
    check(definition.everyMs === undefined, '`everyMs` and `schedule` exclude each other', definition.everyMs)
  }
  for (const option of ['everyMs', 'cooldownMs', 'handoverTimeoutMs'] as const) {
    const value = definition[option]
    const least = option === 'handoverTimeoutMs' ? 1 : 0
    check(
      value === undefined || isCount(value, least, dayMs),
      `\`${option}\` must be a whole number of milliseconds from ${least} to ${dayMs}`,
      value,
    )
  }
  const { maxFailures, enabled } = definition
  check(
    maxFailures === undefined || isCount(maxFailures, 1, 1_000_000),
    '`maxFailures` must be a whole number from 1 to 1000000',
    maxFailures,
  )
  check(enabled === undefined || typeof enabled === 'boolean', '`enabled` must be true or false', enabled)
  return problems
}

/** Whether a definition is a plain object; an instance of a class may have any fields it likes. */
function isPlain(definition: object): boolean {
  return [Object.prototype, null].includes(Object.getPrototypeOf(definition))
}

/** Whether this is a generator, or a function that returns one. */
function isGenerator(value: unknown): boolean {
  return /^\[object (Async)?Generator(Function)?\]$/.test(Object.prototype.toString.call(value))
}

const dayMs = 24 * 3_600_000

function isCount(value: unknown, least: number, most: number): boolean {
  return typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most
}
