/**
 * All durations of the engine, and the inequalities that tie them together.
 *
 *     heartbeat    sent every heartbeatMs ± 10 %, each ending within statementTimeoutMs
 *     trust        a node stops ttl·(1 − ρ) − margin after it sent its last good heartbeat
 *     standstill   a watcher buries a node whose beat it has itself seen unchanged for ttl·(1 + ρ)
 *
 * ρ is how far the rate of a clock may be wrong. Everything here is a pure function; jitter gets its random number as
 * an argument.
 */
import { CoordinationError } from '../errors.js'
import { shown } from '../names.js'

/** The largest error assumed for the rate of any clock, as a fraction: 1 %. Quartz is far better. */
export const clockRateError = 0.01

/** By how much the interval between heartbeats varies, as a fraction, so that nodes do not beat in step. */
export const heartbeatJitter = 0.1

/**
 * When a lease's row says that times further ahead than this (in ms) have been dealt with, the clock was wrong when
 * that was written, and the row's time is ignored. If it is less far ahead, the clock was set back and is waited
 * for.
 */
export const clockMistakeMs = 24 * 3_600_000

/** The durations that an application may choose, in milliseconds. The defaults below apply without a preset. */
export interface Timing {
  /** How long a heartbeat may stand still before its session counts as dead. 500 to 3 600 000; default 15 000. */
  readonly ttlMs: number
  /** How often a node renews its session. Default, and maximum, ttl/3. */
  readonly heartbeatMs: number
  /** How long one request to the database, or one change, may take. Default ttl/5. */
  readonly statementTimeoutMs: number
  /**
   * The least time between the end of a lost holder's trust and the earliest start of another, for work to stop.
   * Default ttl/10, but at least 1 000 as far as ttl/5 allows.
   */
  readonly marginMs: number
  /** How long a target may take to claim before it is passed over. Default 2 000, or ttl/3 if that is less. */
  readonly claimTimeoutMs: number
  /** How long an old holder may take to hand over before its lease is revoked. Default 30 000. */
  readonly handoverTimeoutMs: number
  /**
   * How long closing waits for passes to settle, and in that time, while trust lasts, retries giving leases back when
   * the database fails. Default 20 000.
   */
  readonly drainTimeoutMs: number
  /** How often a node polls its news where the database cannot push hints. Default 1 000, or ttl/5 if that is less. */
  readonly pollMs: number
}

/** The name of a predefined set of durations. */
export type Preset = 'default' | 'fast' | 'relaxed'

/** Durations of which each may be left out or be undefined, which is the same. */
export type GivenTiming = { readonly [Name in keyof Timing]?: Timing[Name] | undefined }

/**
 * Fills in the durations that are not given: from the preset's table when one is named, in proportion to `ttlMs` when
 * only that is given, and otherwise from the `default` table. In proportion, 15 000 gives the `default` table. Checks
 * only the preset's name; see {@link timingProblems} for the rest.
 *
 * @throws CoordinationError `WCO_OPTIONS` when there is no such preset.
 */
export function resolveTiming(given: GivenTiming & { readonly preset?: string | undefined }): Timing {
  const base = baseFor(given)
  return Object.freeze({
    ttlMs: given.ttlMs ?? base.ttlMs,
    heartbeatMs: given.heartbeatMs ?? base.heartbeatMs,
    statementTimeoutMs: given.statementTimeoutMs ?? base.statementTimeoutMs,
    marginMs: given.marginMs ?? base.marginMs,
    claimTimeoutMs: given.claimTimeoutMs ?? base.claimTimeoutMs,
    handoverTimeoutMs: given.handoverTimeoutMs ?? base.handoverTimeoutMs,
    drainTimeoutMs: given.drainTimeoutMs ?? base.drainTimeoutMs,
    pollMs: given.pollMs ?? base.pollMs,
  })
}

/** A violated rule. */
export interface TimingProblem {
  /** The durations concerned: one that is out of range, or several that do not fit together. */
  readonly options: readonly (keyof Timing)[]
  /** A sentence for people, with the arithmetic. */
  readonly sentence: string
}

/** Returns every violated rule; empty when there is none. */
export function timingProblems(timing: Timing): readonly TimingProblem[] {
  return [...rangeProblems(timing), ...inequalityProblems(timing)]
}

/** Returns how long a node may act after it sent a good heartbeat, in milliseconds: ttl·(1 − ρ) − margin. */
export function trustMs({ ttlMs, marginMs }: Pick<Timing, 'ttlMs' | 'marginMs'>): number {
  return Math.floor(ttlMs * (1 - clockRateError)) - marginMs
}

/** Returns how long a watcher must itself have seen a beat unchanged before it buries the node: ttl·(1 + ρ). */
export function standstillMs({ ttlMs }: Pick<Timing, 'ttlMs'>): number {
  return Math.ceil(ttlMs * (1 + clockRateError))
}

/**
 * Returns how long a claimant must itself have seen a lease blocked on its revoked holder: {@link standstillMs}, plus
 * the longest a change may take. The node that makes a block sees it before the commit, and until then heartbeats of
 * the holder succeed without learning of it. A commit that was held up on its way may take effect half a time limit
 * after the limit.
 */
export function blockWaitMs(timing: Pick<Timing, 'ttlMs' | 'statementTimeoutMs'>): number {
  return standstillMs(timing) + Math.ceil(1.5 * timing.statementTimeoutMs)
}

/** Returns how often a watcher looks: ttl/10. */
export function lookEveryMs({ ttlMs }: Pick<Timing, 'ttlMs'>): number {
  return Math.floor(ttlMs / 10)
}

/** Varies `ms` evenly by up to `fraction` of it to either side. `random` is in [0, 1). Returns whole milliseconds. */
export function jittered(ms: number, fraction: number, random: number): number {
  return Math.round(ms * (1 + fraction * (2 * random - 1)))
}

/**
 * Returns the pause before a further attempt, in whole milliseconds. Its bound doubles from `firstMs` to `maxMs`, and
 * chance decides within the upper half, so that nodes that failed together do not come back together, yet none comes
 * back at once. `attempt` counts from 1; `random` is in [0, 1).
 */
export function backoffMs(
  attempt: number,
  options: { readonly firstMs: number; readonly maxMs: number },
  random: number,
): number {
  const doublings = Math.max(0, attempt - 1)
  const ceilingMs = Math.min(options.maxMs, options.firstMs * 2 ** doublings)
  return Math.round((ceilingMs * (1 + random)) / 2)
}

/**
 * Returns the pause before a failed join, turn or start is tried again: a twentieth of a heartbeat interval up to a
 * whole one.
 */
export function retryPauseMs(
  { heartbeatMs }: Pick<Timing, 'heartbeatMs'>,
  attempt: number,
  random: number,
): number {
  return backoffMs(attempt, { firstMs: heartbeatMs / 20, maxMs: heartbeatMs }, random)
}

/** The same for heartbeats, but at most half an interval, because two tries must fit into the remaining trust. */
export function heartbeatRetryPauseMs(
  { heartbeatMs }: Pick<Timing, 'heartbeatMs'>,
  attempt: number,
  random: number,
): number {
  return backoffMs(attempt, { firstMs: heartbeatMs / 20, maxMs: heartbeatMs / 2 }, random)
}

/**
 * Returns the least pause before the next look, however much is due by then: 1 ms, and more and more after `failures`
 * in a row, up to `everyMs`. What is due stays due while looks fail, and an unavailable database must not be asked
 * without pause.
 */
export function leastPauseMs(failures: number, everyMs: number, random: () => number): number {
  return failures === 0 ? 1 : backoffMs(failures, { firstMs: everyMs / 8, maxMs: everyMs }, random())
}

/** What a choice of durations means under failure, in milliseconds. Logged at start. */
export interface TimingFigures {
  /**
   * The longest outage of the database that costs no lease, in the worst case:
   *
   *     ttl·(1 − ρ) − margin − 1.1·heartbeat − statementTimeout
   *
   * The database goes away just before a heartbeat that is 1.1·heartbeat younger than the last good one. The try under
   * way when it comes back hangs until its time limit; the next one is answered promptly.
   */
  readonly toleratedOutageMs: number
  /**
   * The longest standstill of a process that costs no lease, in the worst case:
   *
   *     ttl·(1 − ρ) − margin − 1.1·heartbeat
   *
   * It stops just before a heartbeat is due; the one it sends when it goes on is answered promptly.
   */
  readonly toleratedStallMs: number
  /**
   * From the crash of a holder until the next one holds its lease, while the database and a watcher are well:
   *
   *     ttl·(1 + ρ) + ttl/10 + poll + 500
   *
   * It crashes just after a heartbeat. A watcher first sees that beat one look later and buries when it has stood
   * still; the next holder learns of it and claims. 500 ms is for the look, the two changes, and timers. Less by poll
   * where the database pushes hints.
   */
  readonly takeoverAfterCrashMs: number
  /**
   * From a clean stop until the next holder holds the lease, counted from when the passes of the stopped one have
   * settled (for which they have `drainTimeoutMs`):
   *
   *     poll + 500
   *
   * No expiry is waited for. Less by poll where the database pushes hints.
   */
  readonly takeoverAfterStopMs: number
}

/**
 * Returns the four figures for these durations; see {@link TimingFigures} for how each is derived.
 *
 * @param pushed whether the database pushes hints.
 */
export function timingFigures(timing: Timing, pushed = false): TimingFigures {
  const toleratedStallMs = trustMs(timing) - longestHeartbeatGapMs(timing)
  const takeoverAfterStopMs = (pushed ? 0 : timing.pollMs) + handlingMs
  return {
    toleratedOutageMs: toleratedStallMs - timing.statementTimeoutMs,
    toleratedStallMs,
    takeoverAfterCrashMs: standstillMs(timing) + lookEveryMs(timing) + takeoverAfterStopMs,
    takeoverAfterStopMs,
  }
}

/** A generous allowance for statements, changes and timers between a cause and its effect. */
const handlingMs = 500

/** Less than the 30 s that Kubernetes, for example, gives a process between SIGTERM and SIGKILL. */
const usualDrainTimeoutMs = 20_000

const presets: Readonly<Record<Preset, Timing>> = {
  default: {
    ttlMs: 15_000,
    heartbeatMs: 5_000,
    statementTimeoutMs: 3_000,
    marginMs: 1_500,
    claimTimeoutMs: 2_000,
    handoverTimeoutMs: 30_000,
    drainTimeoutMs: usualDrainTimeoutMs,
    pollMs: 1_000,
  },
  fast: {
    ttlMs: 6_000,
    heartbeatMs: 2_000,
    statementTimeoutMs: 1_000,
    marginMs: 1_000,
    claimTimeoutMs: 1_000,
    handoverTimeoutMs: 10_000,
    drainTimeoutMs: 10_000,
    pollMs: 250,
  },
  relaxed: {
    ttlMs: 60_000,
    heartbeatMs: 20_000,
    statementTimeoutMs: 10_000,
    marginMs: 6_000,
    claimTimeoutMs: 5_000,
    handoverTimeoutMs: 60_000,
    drainTimeoutMs: usualDrainTimeoutMs,
    pollMs: 5_000,
  },
}

function baseFor({
  preset,
  ttlMs,
}: Pick<GivenTiming, 'ttlMs'> & { readonly preset?: string | undefined }): Timing {
  if (preset !== undefined) return presetNamed(preset)
  return ttlMs === undefined ? presets.default : inProportionTo(ttlMs)
}

function presetNamed(preset: string): Timing {
  if (isPreset(preset)) return presets[preset]
  throw new CoordinationError('WCO_OPTIONS', noSuchPreset('preset', preset))
}

function isPreset(name: unknown): name is Preset {
  return typeof name === 'string' && Object.hasOwn(presets, name)
}

/**
 * Returns what is wrong with a preset's name, as a sentence beginning with `name`; undefined when there is such a
 * preset.
 */
export function presetProblem(name: string, preset: unknown): string | undefined {
  return isPreset(preset) ? undefined : noSuchPreset(name, preset)
}

function noSuchPreset(name: string, preset: unknown): string {
  const list = Object.keys(presets).map(shown)
  return `${name}: expected ${list.slice(0, -1).join(', ')} or ${list.at(-1)}, got ${shown(preset)}.`
}

/** Rounds down throughout, so that rounding never breaks an inequality that the fractions satisfy. */
function inProportionTo(ttlMs: number): Timing {
  const part = (divisor: number): number => Math.floor(ttlMs / divisor)
  return {
    ttlMs,
    heartbeatMs: part(3),
    statementTimeoutMs: part(5),
    marginMs: Math.min(Math.max(1_000, part(10)), part(5)),
    claimTimeoutMs: Math.min(2_000, part(3)),
    handoverTimeoutMs: 30_000,
    drainTimeoutMs: usualDrainTimeoutMs,
    pollMs: Math.min(1_000, part(5)),
  }
}

const hourMs = 3_600_000
const dayMs = 24 * hourMs

/** Below these, timers and round trips take as long as the duration itself; above, the value is probably a mistake. */
const ranges: Readonly<Record<keyof Timing, { readonly leastMs: number; readonly mostMs: number }>> = {
  ttlMs: { leastMs: 500, mostMs: hourMs },
  heartbeatMs: { leastMs: 100, mostMs: hourMs },
  statementTimeoutMs: { leastMs: 50, mostMs: hourMs },
  marginMs: { leastMs: 50, mostMs: hourMs },
  claimTimeoutMs: { leastMs: 1, mostMs: hourMs },
  handoverTimeoutMs: { leastMs: 1, mostMs: dayMs },
  drainTimeoutMs: { leastMs: 1, mostMs: dayMs },
  pollMs: { leastMs: 1, mostMs: hourMs },
}

function rangeProblems(timing: Timing): TimingProblem[] {
  return entriesOf(ranges).flatMap(([name, { leastMs, mostMs }]) => {
    const ms = timing[name]
    if (Number.isInteger(ms) && ms >= leastMs && ms <= mostMs) return []
    const expected = `a whole number of milliseconds from ${leastMs} to ${mostMs}`
    return [{ options: [name], sentence: `${name}: expected ${expected}, got ${shown(ms)}.` }]
  })
}

/** `Object.entries` with the types of the keys preserved. */
function entriesOf<Key extends string, Value>(record: Readonly<Record<Key, Value>>): [Key, Value][] {
  return Object.entries(record) as [Key, Value][]
}

function inequalityProblems(timing: Timing): TimingProblem[] {
  const { ttlMs, heartbeatMs, statementTimeoutMs, marginMs } = timing
  if (![ttlMs, heartbeatMs, statementTimeoutMs, marginMs].every(Number.isFinite)) return []
  const problems: TimingProblem[] = []

  if (3 * heartbeatMs > ttlMs) {
    problems.push({
      options: ['heartbeatMs', 'ttlMs'],
      sentence:
        `3 * heartbeatMs must be at most ttlMs, so that a node from which nothing has come for two thirds of a ttl has ` +
        `missed two heartbeats: 3 * ${heartbeatMs} = ${3 * heartbeatMs} is more than ${ttlMs}.`,
    })
  }

  const roomMs = (ttlMs - heartbeatMs) / 2
  if (statementTimeoutMs >= roomMs) {
    problems.push({
      options: ['statementTimeoutMs', 'ttlMs', 'heartbeatMs'],
      sentence:
        `statementTimeoutMs must be less than (ttlMs - heartbeatMs) / 2, so that two tries fit: ` +
        `${statementTimeoutMs} is not less than (${ttlMs} - ${heartbeatMs}) / 2 = ${roomMs}.`,
    })
  }

  const gapMs = longestHeartbeatGapMs(timing)
  const triesMs = 2 * statementTimeoutMs
  const neededMs = gapMs + triesMs + marginMs
  const usableMs = Math.floor(ttlMs * (1 - clockRateError))
  if (neededMs > usableMs) {
    problems.push({
      options: ['heartbeatMs', 'statementTimeoutMs', 'marginMs', 'ttlMs'],
      sentence:
        `1.1 * heartbeatMs + 2 * statementTimeoutMs + marginMs must be at most 0.99 * ttlMs, so that one ` +
        `slow heartbeat costs no lease: ${gapMs} + ${triesMs} + ${marginMs} = ${neededMs} is more than ${usableMs}.`,
    })
  }
  return problems
}

/** The longest time from one heartbeat to the next, with all of the jitter on the late side. */
function longestHeartbeatGapMs({ heartbeatMs }: Pick<Timing, 'heartbeatMs'>): number {
  return jittered(heartbeatMs, heartbeatJitter, 1)
}
