/**
 * Draws from a seed what goes wrong in a simulated world.
 *
 * Each kind of fault is on in some worlds and off in others, and has a rate of its own. Some errors show only where
 * certain kinds are absent, so a world with all kinds would never show them. The faults of a world are a list, so that
 * a failing world can be minimised by leaving entries out.
 */
import type { Timing } from '../../plugin/core/time/timing.js'
import { Chance } from './scheduler.js'

/** Kinds that happen at an instant or last for a while. */
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
  'register-worker',
  'forget-worker',
  'delete-rows',
  'wipe',
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
  'layouts',
  'schedules',
  'twins',
  'claimed-times',
  'kept-leases',
] as const

export type TimedKind = (typeof timedKinds)[number]
export type Trait = (typeof traits)[number]

/** One fault. */
export interface Fault {
  readonly kind: TimedKind
  readonly atMs: number
  /** How long it lasts, in ms. For kinds that do not last, the meaning depends on the kind. */
  readonly forMs: number
  /** The index of the node it hits, from 0; -1 for all nodes. */
  readonly node: number
  /** How strong or how frequent it is, in [0, 1). Each kind interprets this in its own way. */
  readonly degree: number
}

export interface Plan {
  readonly faults: readonly Fault[]
  readonly traits: ReadonlySet<Trait>
}

/** The kind of a world, before its seed has decided anything. */
export interface Mix {
  /** The least and the greatest number of nodes. */
  readonly nodes: readonly [number, number]
  /** The probability that a node is a candidate for a worker, for each of the five workers. */
  readonly workers: number
  /** The least and the greatest number of ttls for which faults happen. */
  readonly ttls: readonly [number, number]
  /** The kinds of fault that may be on. */
  readonly kinds: ReadonlySet<TimedKind>
  /** The probability that each of them is on. */
  readonly on: number
  /** The rate of faults of each kind, relative to `full`. */
  readonly density: number
  /** The probability that the calm at the end is simulated, which costs as much as all faults. */
  readonly calm: number
  /** Whether the recovery ends as soon as all has been well for two ttls. Otherwise it is watched to its end. */
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

/**
 * Short worlds with many faults of few kinds. They find what worlds with some faults of all kinds do not, and vice
 * versa.
 */
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
  /** Enough nodes that some are not watchers. */
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
  /** Workers come, go and change, and rows are deleted by hand. */
  deploys: {
    ...short,
    kinds: new Set<TimedKind>([
      'kill',
      'close',
      'start',
      'pause',
      'cut-off',
      'answers-lost',
      'late-heartbeats',
      'late-changes',
      'restart',
      'failover',
      'fence',
      'pause-worker',
      'drain',
      'stop-worker',
      'register-worker',
      'forget-worker',
      'delete-rows',
      'wipe',
    ]),
    on: 0.6,
  },
} as const satisfies Readonly<Record<string, Mix>>

export type MixName = keyof typeof mixes

/** Returns the mix of a seed for which none was asked for. */
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
    'deploys',
  ] as const)
}

/** Draws the faults of a seed. */
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
