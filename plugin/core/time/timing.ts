/**
 * All durations of the engine, and the inequalities that tie them together.
 *
 *     heartbeat    sent every heartbeatMs ± 10 %, each ending within statementTimeoutMs
 *     trust        ttl·(1 − ρ) − margin after a heartbeat was sent its node stops
 *     standstill   ttl·(1 + ρ) of an unchanged beat, seen by a watcher itself, and the node is buried
 *
 * ρ is how far the rate of a clock may be wrong. Everything here is a pure function; jitter gets its
 * random number as an argument.
 */
import { CoordinationError } from '../errors.js'
import { shown } from '../names.js'

/** How far the rate of any clock may be from the truth, as a fraction: 1 %. Quartz is far better. */
export const clockRateError = 0.01

/** By how much the interval between heartbeats varies, as a fraction: nodes must not march in step. */
export const heartbeatJitter = 0.1

/** The durations an application may choose, in milliseconds. */
export interface Timing {
  /** A session whose heartbeat stands still this long is dead. 500 to 3 600 000; default 15 000. */
  readonly ttlMs: number
  /** How often a session is renewed. Default, and at most, ttl/3. */
  readonly heartbeatMs: number
  /** How long one request to the database, or one change, may take. Default ttl/5. */
  readonly statementTimeoutMs: number
  /**
   * What lies between the end of a lost holder's trust and the earliest start of another: time for work to
   * stop. Default ttl/10, but a second at least, as far as ttl/5 allows.
   */
  readonly marginMs: number
  /** How long a target may take to claim before it is passed over. Default 2 000, ttl/3 at most. */
  readonly claimTimeoutMs: number
  /** How long an old holder may take to hand over before it is revoked. Default 30 000. */
  readonly handoverTimeoutMs: number
  /**
   * How long closing waits for passes to settle, and in that time tries again to give leases back when the database
   * fails; no longer than its trust lasts. Default 20 000.
   */
  readonly drainTimeoutMs: number
  /** How often news is polled where the database cannot push hints. Default 1 000, ttl/5 at most. */
  readonly pollMs: number
}

/** A named set of durations. */
export type Preset = 'default' | 'fast' | 'relaxed'

/**
 * Fills in what is not given: from the preset's table when one is named, in proportion to `ttlMs` when only
 * that is given, and from the `default` table otherwise. In proportion, 15 000 gives the `default` table.
 * Nothing is checked but the preset's name: see {@link timingProblems}.
 *
 * @throws CoordinationError `WCO_OPTIONS` when there is no such preset.
 */
export function resolveTiming(given: Partial<Timing> & { preset?: string }): Timing {
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
  /** The durations it is about: one that is out of range, or several that do not go together. */
  readonly options: readonly (keyof Timing)[]
  /** With its arithmetic, for people. */
  readonly sentence: string
}

/** Every violated rule; empty when all is well. */
export function timingProblems(timing: Timing): readonly TimingProblem[] {
  return [...rangeProblems(timing), ...inequalityProblems(timing)]
}

/** How long a node may act after sending a good heartbeat, in milliseconds: ttl·(1 − ρ) − margin. */
export function trustMs({ ttlMs, marginMs }: Pick<Timing, 'ttlMs' | 'marginMs'>): number {
  return Math.floor(ttlMs * (1 - clockRateError)) - marginMs
}

/** How long a watcher must itself have seen a beat unchanged before it buries: ttl·(1 + ρ). */
export function standstillMs({ ttlMs }: Pick<Timing, 'ttlMs'>): number {
  return Math.ceil(ttlMs * (1 + clockRateError))
}

/**
 * How long a claimant must itself have seen a lease blocked on its revoked holder: {@link standstillMs}, and
 * the longest a change may take on top. Who sees a block while making it sees it before it is committed,
 * and until then heartbeats of the holder succeed without learning of it. A commit that was held up on its
 * way may take effect half a time limit after the limit.
 */
export function blockWaitMs(timing: Pick<Timing, 'ttlMs' | 'statementTimeoutMs'>): number {
  return standstillMs(timing) + Math.ceil(1.5 * timing.statementTimeoutMs)
}

/** How often a watcher looks: ttl/10. */
export function lookEveryMs({ ttlMs }: Pick<Timing, 'ttlMs'>): number {
  return Math.floor(ttlMs / 10)
}

/** `ms` varied evenly by up to `fraction` of it to either side; `random` is in [0, 1). Whole milliseconds. */
export function jittered(ms: number, fraction: number, random: number): number {
  return Math.round(ms * (1 + fraction * (2 * random - 1)))
}

/**
 * The pause before a further attempt: it doubles from `firstMs` to `maxMs`, and chance decides within the
 * upper half of it, so that nodes which failed together do not come back together, yet none comes back
 * at once. `attempt` counts from 1; `random` is in [0, 1). Whole milliseconds.
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

/** The pause before a join, a turn or a start that has failed is tried again: from a twentieth of a heartbeat interval up to a whole one. */
export function retryPauseMs(
  { heartbeatMs }: Pick<Timing, 'heartbeatMs'>,
  attempt: number,
  random: number,
): number {
  return backoffMs(attempt, { firstMs: heartbeatMs / 20, maxMs: heartbeatMs }, random)
}

/** The same for heartbeats, of which two tries must fit into what trust is left: up to half an interval. */
export function heartbeatRetryPauseMs(
  { heartbeatMs }: Pick<Timing, 'heartbeatMs'>,
  attempt: number,
  random: number,
): number {
  return backoffMs(attempt, { firstMs: heartbeatMs / 20, maxMs: heartbeatMs / 2 }, random)
}

/**
 * The least pause before the next look, however much is due by then: 1 ms, and more and more after `failures` in a row, up
 * to `everyMs`. What is due stays due while looks fail, and a database that is away must not be asked without pause.
 */
export function leastPauseMs(failures: number, everyMs: number, random: () => number): number {
  return failures === 0 ? 1 : backoffMs(failures, { firstMs: everyMs / 8, maxMs: everyMs }, random())
}

/** What a choice of durations means in bad weather, in milliseconds. Stated in the log at start. */
export interface TimingFigures {
  /**
   * However badly timed, the database may be away this long without any lease being lost:
   *
   *     ttl·(1 − ρ) − margin − 1.1·heartbeat − statementTimeout
   *
   * It goes away just before a heartbeat that is 1.1·heartbeat younger than the last good one; the try that is
   * under way when it comes back hangs until its time limit; the next one is answered promptly.
   */
  readonly toleratedOutageMs: number
  /**
   * However badly timed, a process may stand still this long without losing a lease:
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
   * It crashes just after a heartbeat; a watcher first sees that beat one look later, buries when the beat
   * has stood still, and the next holder learns of it and claims. 500 ms is for the look, the two
   * changes, and timers. Where the database pushes hints it is less by poll.
   */
  readonly takeoverAfterCrashMs: number
  /**
   * From a clean stop until the next holder holds the lease, counted from when the stopped one's passes have
   * settled (for which they have `drainTimeoutMs`):
   *
   *     poll + 500
   *
   * No expiry is waited for. Where the database pushes hints it is less by poll.
   */
  readonly takeoverAfterStopMs: number
}

/**
 * The four figures for these durations; see {@link TimingFigures} for how each comes about.
 *
 * @param pushed the database pushes hints.
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

/** Statements, changes and timers between an occasion and its effect, generously. */
const handlingMs = 500

/** Less than the 30 s that Kubernetes, for one, gives a process between SIGTERM and SIGKILL. */
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

function baseFor({ preset, ttlMs }: { readonly preset?: string; readonly ttlMs?: number }): Timing {
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

/** What is wrong with the name of a preset, in a sentence that begins with `name`; undefined when there is such a preset. */
export function presetProblem(name: string, preset: unknown): string | undefined {
  return isPreset(preset) ? undefined : noSuchPreset(name, preset)
}

function noSuchPreset(name: string, preset: unknown): string {
  const list = Object.keys(presets).map(shown)
  return `${name}: expected ${list.slice(0, -1).join(', ')} or ${list.at(-1)}, got ${shown(preset)}.`
}

/** Rounded down throughout, so that rounding never breaks an inequality that the fractions keep. */
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

/** Below these, timers and round trips are as long as the duration itself; above, it is a slip of the pen. */
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

/** `Object.entries` forgets which keys there are. */
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
        `3 * heartbeatMs must be at most ttlMs, so that a node of which nothing has come for two thirds of a ttl has ` +
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

/** From one heartbeat to the next, with all of the jitter on the late side. */
function longestHeartbeatGapMs({ heartbeatMs }: Pick<Timing, 'heartbeatMs'>): number {
  return jittered(heartbeatMs, heartbeatJitter, 1)
}
