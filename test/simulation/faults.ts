/**
 * What goes wrong in a simulated world, drawn from its seed.
 *
 * Each kind of fault is on in some worlds and off in others, with a rate of its own: what only shows when some kinds
 * are absent would never show if all were always there. The faults of a world are a list, so that a
 * failure can be cut down by leaving entries out.
 */
import type { Timing } from '../../plugin/core/time/timing.js'
import { Chance } from './scheduler.js'

/** Kinds that hit at an instant, or last a while. */
export const timedKinds = [
  'pause',
  'suspend',
  'kill',
  'close',
  'start',
  'away',
  'hang',
  'cut-off',
  'answers-lost',
  'reads-fail',
  'lossy',
  'slow',
  'late-heartbeats',
  'late-changes',
  'clock-jump',
  'clock-blip',
  'restart',
  'failover',
  'revoke',
  'transfer',
  'rebalance',
  'forget',
  'fence',
  'drain',
  'pause-worker',
  'stop-worker',
  'hints-lost',
] as const

/** Kinds that are a trait of the whole world. */
export const traits = [
  'drift',
  'late-timers',
  'stubborn',
  'throwing',
  'stepping-down',
  'late-starts',
  'slow-network',
  'slow-changes',
  'late-connections',
  'mixed-ttls',
  'polling',
] as const

export type TimedKind = (typeof timedKinds)[number]
export type Trait = (typeof traits)[number]

/** One thing that goes wrong. */
export interface Fault {
  readonly kind: TimedKind
  readonly atMs: number
  /** How long it lasts; what it means when it is none of the lasting kinds depends on the kind. */
  readonly forMs: number
  /** Which node it hits, counted from 0; -1 for all. */
  readonly node: number
  /** How often, how much: in [0, 1), for each kind to make its own of. */
  readonly degree: number
}

export interface Plan {
  readonly faults: readonly Fault[]
  readonly traits: ReadonlySet<Trait>
}

/** What a world is like before its seed has decided anything. */
export interface Mix {
  /** How many nodes, from and to. */
  readonly nodes: readonly [number, number]
  /** How likely each node stands for each of the five workers. */
  readonly workers: number
  /** For how many ttls faults happen, from and to. */
  readonly ttls: readonly [number, number]
  /** The kinds of fault that may be on. */
  readonly kinds: ReadonlySet<TimedKind>
  /** How likely each of them is on. */
  readonly on: number
  /** How many faults of a kind there are, against `full`. */
  readonly density: number
  /** How likely the world lives through the calm at the end, which costs as much as all faults. */
  readonly calm: number
  /** Whether the recovery is over as soon as all is well for two ttls; else it is watched to the end. */
  readonly hasty: boolean
}

const full: Mix = {
  nodes: [2, 5],
  workers: 0.85,
  ttls: [10, 30],
  kinds: new Set(timedKinds),
  on: 0.4,
  density: 1,
  calm: 1,
  hasty: false,
}

/** Worlds with many faults of few kinds find what worlds with some of all kinds do not, and the other way round. */
const short: Mix = { ...full, nodes: [2, 4], workers: 0.6, ttls: [3, 9], density: 2, calm: 0.04, hasty: true }

/** The mixes, by name. */
export const mixes = {
  full,
  brief: short,
  servers: {
    ...short,
    kinds: new Set<TimedKind>([
      'failover',
      'restart',
      'away',
      'clock-jump',
      'clock-blip',
      'cut-off',
      'answers-lost',
      'late-changes',
      'pause',
      'kill',
      'start',
      'revoke',
    ]),
    on: 0.6,
  },
  network: {
    ...short,
    kinds: new Set<TimedKind>([
      'pause',
      'suspend',
      'hang',
      'cut-off',
      'answers-lost',
      'reads-fail',
      'lossy',
      'slow',
      'late-heartbeats',
      'late-changes',
      'hints-lost',
      'revoke',
      'drain',
    ]),
    on: 0.5,
  },
  duel: {
    ...short,
    nodes: [2, 3],
    workers: 0.5,
    ttls: [3, 6],
    kinds: new Set<TimedKind>([
      'pause',
      'suspend',
      'kill',
      'cut-off',
      'answers-lost',
      'reads-fail',
      'slow',
      'late-heartbeats',
      'late-changes',
    ]),
    on: 0.6,
    density: 4,
  },
  /** Enough nodes for some to be neither watchers nor those who are watched for. */
  crowd: {
    ...short,
    nodes: [4, 7],
    workers: 0.3,
    ttls: [3, 6],
    kinds: new Set<TimedKind>([
      'pause',
      'suspend',
      'kill',
      'start',
      'cut-off',
      'answers-lost',
      'reads-fail',
      'hang',
      'late-heartbeats',
      'late-changes',
    ]),
    on: 0.5,
    density: 5,
  },
  operators: {
    ...short,
    kinds: new Set<TimedKind>([
      'revoke',
      'transfer',
      'rebalance',
      'forget',
      'fence',
      'drain',
      'pause-worker',
      'stop-worker',
      'kill',
      'close',
      'start',
      'pause',
      'late-changes',
    ]),
    on: 0.6,
  },
} as const satisfies Readonly<Record<string, Mix>>

export type MixName = keyof typeof mixes

/** Which mix a seed has when none is asked for. */
export function mixOf(seed: number): MixName {
  return Chance.of(seed, 'mix').pick([
    'brief',
    'brief',
    'brief',
    'servers',
    'network',
    'duel',
    'operators',
    'crowd',
  ] as const)
}

/** The faults of a seed. */
export function planFaults(
  seed: number,
  mix: Mix,
  nodes: number,
  timing: Timing,
  untilMs: number,
  without: ReadonlySet<string>,
): Plan {
  const faults = timedKinds.flatMap((kind) => {
    const chance = Chance.of(seed, kind)
    const on = chance.happens(mix.on)
    const drawn = on ? faultsOfKind(kind, mix, chance, nodes, timing, untilMs) : []
    return without.has(kind) || !mix.kinds.has(kind) ? [] : drawn
  })
  const chance = Chance.of(seed, 'traits')
  const on = traits.filter((trait) => chance.happens(0.4) && !without.has(trait))
  return { faults: faults.sort((a, b) => a.atMs - b.atMs), traits: new Set(on) }
}

function faultsOfKind(
  kind: TimedKind,
  mix: Mix,
  chance: Chance,
  nodes: number,
  timing: Timing,
  untilMs: number,
): Fault[] {
  const meanGapMs = chance.magnitude(timing.ttlMs / 2, timing.ttlMs * 12) / mix.density
  const longestMs = timing.ttlMs * chance.pick([0.3, 1, 3])
  const faults: Fault[] = []
  for (let atMs = chance.gap(meanGapMs); atMs < untilMs; atMs += chance.gap(meanGapMs)) {
    const node = everywhere.has(kind) && chance.happens(0.3) ? -1 : chance.below(nodes)
    faults.push({ kind, atMs, node, forMs: chance.magnitude(20, longestMs), degree: chance.next() })
    if (faults.length >= 200) break
  }
  return faults
}

/** Kinds that may hit all nodes at once. */
const everywhere: ReadonlySet<TimedKind> = new Set([
  'pause',
  'suspend',
  'answers-lost',
  'lossy',
  'slow',
  'late-heartbeats',
  'late-changes',
  'hints-lost',
  'reads-fail',
])
