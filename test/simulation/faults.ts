/**
 * What goes wrong in a simulated world, drawn from its seed.
 *
 * Each kind of fault is on in some worlds and off in others, with a rate of its own: what only shows when some kinds
 * are absent would never show if all were always there. The faults of a world are a list, so that a
 * failure can be cut down by leaving entries out.
 */
import type { Timing } from '../../plugin/core/timing.js'
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

/** The faults of a seed. */
export function planFaults(
  seed: number,
  nodes: number,
  timing: Timing,
  untilMs: number,
  without: ReadonlySet<string>,
): Plan {
  const faults = timedKinds.flatMap((kind) => {
    const chance = Chance.of(seed, kind)
    const drawn = chance.happens(0.4) ? faultsOfKind(kind, chance, nodes, timing, untilMs) : []
    return without.has(kind) ? [] : drawn
  })
  const chance = Chance.of(seed, 'traits')
  const on = traits.filter((trait) => chance.happens(0.4) && !without.has(trait))
  return { faults: faults.sort((a, b) => a.atMs - b.atMs), traits: new Set(on) }
}

function faultsOfKind(
  kind: TimedKind,
  chance: Chance,
  nodes: number,
  timing: Timing,
  untilMs: number,
): Fault[] {
  const meanGapMs = chance.magnitude(timing.ttlMs / 2, timing.ttlMs * 12)
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
