/** Runs many seeds and adds up their outcomes. */
import { type MixName, mixes, mixOf, timedKinds, traits } from './faults.js'
import { type Outcome, simulate } from './world.js'

/** Which seeds to simulate, and in which kind of world. */
export interface CampaignOptions {
  readonly from: number
  readonly seeds: number
  /** The distance from one seed to the next; default 1. */
  readonly step?: number
  /** The mix of all seeds; with `all`, each seed has a mix of its own. */
  readonly mix: MixName | 'all'
  readonly without?: ReadonlySet<string>
  /** No further seed begins after this many minutes; default: no limit. */
  readonly minutes?: number
  /** Called for each seed that has broken a promise. Returns whether to go on. */
  readonly broken?: (seed: number, outcome: Outcome) => boolean
}

/** The sum of a campaign. It is plain data, so that processes can send it to one another. */
export interface Tally {
  seeds: number
  failed: number
  events: number
  simulatedMs: number
  nodeMs: number
  cpuMs: number
  slowestRecoveryMs: number
  readonly counts: Record<string, number>
  /** The seeds that broke a rule, by rule. */
  readonly broken: Record<string, number[]>
}

export function emptyTally(): Tally {
  const nothing = {
    seeds: 0,
    failed: 0,
    events: 0,
    simulatedMs: 0,
    nodeMs: 0,
    cpuMs: 0,
    slowestRecoveryMs: 0,
  }
  return { ...nothing, counts: {}, broken: {} }
}

/** Simulates one seed after another. */
export async function runCampaign(options: CampaignOptions): Promise<Tally> {
  const { from, seeds, step = 1, mix, without = new Set(), minutes = Number.POSITIVE_INFINITY } = options
  const tally = emptyTally()
  const endMs = performance.now() + minutes * 60_000
  const cpu = process.cpuUsage()
  for (let seed = from; seed < from + seeds && performance.now() < endMs; seed += step) {
    const outcome = await simulate({ seed, without, mix: mixFor(seed, mix) })
    addOutcome(tally, seed, outcome)
    if (outcome.violations.length > 0 && options.broken?.(seed, outcome) === false) break
  }
  const { user, system } = process.cpuUsage(cpu)
  tally.cpuMs = (user + system) / 1_000
  return tally
}

export function mixFor(seed: number, mix: MixName | 'all'): MixName {
  return mix === 'all' ? mixOf(seed) : mix
}

function addOutcome(tally: Tally, seed: number, outcome: Outcome): void {
  tally.seeds += 1
  tally.events += outcome.events
  tally.simulatedMs += outcome.simulatedMs
  tally.nodeMs += outcome.simulatedMs * outcome.nodes
  tally.slowestRecoveryMs = Math.max(tally.slowestRecoveryMs, outcome.recoveredMs.singles)
  for (const [what, times] of outcome.counts) tally.counts[what] = (tally.counts[what] ?? 0) + times
  if (outcome.violations.length > 0) tally.failed += 1
  for (const rule of new Set(outcome.violations.map((each) => each.rule))) brokenBy(tally, rule).push(seed)
}

export function addTally(sum: Tally, part: Tally): void {
  for (const field of ['seeds', 'failed', 'events', 'simulatedMs', 'nodeMs', 'cpuMs'] as const)
    sum[field] += part[field]
  sum.slowestRecoveryMs = Math.max(sum.slowestRecoveryMs, part.slowestRecoveryMs)
  for (const [what, times] of Object.entries(part.counts)) sum.counts[what] = (sum.counts[what] ?? 0) + times
  for (const [rule, seeds] of Object.entries(part.broken)) brokenBy(sum, rule).push(...seeds)
}

function brokenBy(tally: Tally, rule: string): number[] {
  tally.broken[rule] ??= []
  return tally.broken[rule]
}

/** Refusals that must have occurred; without them a campaign has shown little. */
const refusals = [
  'stale write refused',
  'fenced write refused',
  'late heartbeat refused',
  'late change refused',
]

/**
 * Returns the enabled faults that never had an effect, and the refusals that never occurred. A campaign that has any of
 * these has proved little.
 */
export function vacuities(tally: Tally, mix: MixName | 'all', without: ReadonlySet<string>): string[] {
  const enabled = mix === 'all' ? timedKinds : timedKinds.filter((kind) => mixes[mix].kinds.has(kind))
  const idle = [...enabled, ...traits].filter((kind) => !without.has(kind) && !tally.counts[`hit ${kind}`])
  return [
    ...idle.map((kind) => `no ${kind} ever did anything`),
    ...refusals.filter((what) => !tally.counts[what]).map((what) => `no ${what}`),
  ]
}

/** Returns the whole tally as lines for people. */
export function report(tally: Tally): string[] {
  const { seeds, failed, events, simulatedMs, nodeMs, cpuMs, counts, broken, slowestRecoveryMs } = tally
  const hits = Object.entries(counts).filter(([what]) => what.startsWith('hit '))
  const faults = hits.reduce((sum, [, times]) => sum + times, 0)
  const listed = (entries: [string, number][]): string =>
    entries
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([what, times]) => `${what.replace('hit ', '')} ${times}`)
      .join(', ')
  return [
    `${seeds} seeds, ${failed} with violations`,
    `${(nodeMs / 3_600_000).toFixed(1)} node-hours in ${(simulatedMs / 3_600_000).toFixed(1)} simulated hours, ${events} events`,
    `${(cpuMs / 1_000).toFixed(1)} s of CPU: ${((seeds / cpuMs) * 60_000).toFixed(0)} seeds a minute`,
    `slowest recovery of a single worker: ${slowestRecoveryMs} ms`,
    `${faults} effects of faults: ${listed(hits)}`,
    `else: ${listed(Object.entries(counts).filter(([what]) => !/^(hit|fault) /.test(what)))}`,
    ...Object.entries(broken).map(
      ([rule, list]) => `${rule}: ${list.length} seeds: ${list.slice(0, 20).join(' ')}`,
    ),
  ]
}
