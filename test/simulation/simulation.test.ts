/** Simulates the worlds that once found a fault. `npm run simulate -- --seed N --mix M` shows one by itself. */
import t from 'tap'
import type { MixName } from './faults.js'
import { simulate } from './world.js'

t.setTimeout(600_000)

/** One world each, by what it has shown. */
type Worlds = Readonly<Record<string, { readonly mix: MixName; readonly seed: number }>>

/** Seeds that once found a fault in the engine, by the rule that they broke. */
const regressions: Readonly<Record<string, readonly number[]>> = {
  'a claim from before a failover is not begun a second time': [12, 69, 146],
  'nothing begins while a node closes': [25],
  'trust that has lapsed does not come back': [113, 148],
  'work that slept through the end of its trust is told when it wakes': [123, 161],
  'many nodes that die together are buried together': [10, 27, 33, 76],
  'a grace period is waited out by somebody': [87, 2125],
  'trust that returns is made use of': [20302],
  'a world whose passes throw and step down, which was broken once, why is not known, stays whole': [30059],
}

/** Seeds that found a fault after more kinds of fault had been added. */
const laterRegressions: Readonly<Record<string, readonly number[]>> = {
  'nobody claims in a grace period, over whichever connection': [700160, 700161],
  'a plan for many shares does not begin as many generations': [700685],
  'who has survived several failovers says which tokens it has seen': [700325],
  'what lapses in a network that is slow for good is found again': [700580],
  'shares that change hands at the end of a cool-down are not lost': [910000105],
}

/** Traits that did not exist when any of these seeds was found. */
const newest = new Set(['twins', 'claimed-times', 'kept-leases'])

/** These, and what did not exist when the first regressions in other mixes were found. */
const latest = new Set([
  ...newest,
  'register-worker',
  'forget-worker',
  'delete-rows',
  'layouts',
  'wipe',
  'schedules',
])

/** These, and what did not exist when the first regressions were found. */
const later = new Set([
  ...latest,
  'transfer',
  'rebalance',
  'forget',
  'fence',
  'slow-changes',
  'late-connections',
  'mixed-ttls',
  'polling',
])

/** Seeds that found a fault in worlds other than `full` ones. */
const mixedRegressions: Worlds = {
  'what a node has asked to give back it does not begin after all': { mix: 'brief', seed: 7000596 },
  'a turn that was under way when a node closed leaves no timer': { mix: 'brief', seed: 9000000 },
  'what is answered after the end of a life renews no trust': { mix: 'operators', seed: 200000345 },
  'a node with a short ttl does not take rarer heartbeats for silence': { mix: 'network', seed: 200001611 },
  'a schedule goes on after a clock that was ahead': { mix: 'brief', seed: 7002609 },
  'what was buried, forgotten and has joined again is not taken for buried': {
    mix: 'brief',
    seed: 1400002485,
  },
  'a network that is slow for good is not calm where trust lapses': { mix: 'brief', seed: 60007442 },
  'a plan after a long cool-down comes up to a ttl later': { mix: 'full', seed: 76000607 },
}

/** Seeds that found a fault in worlds with all kinds of fault, before the newest traits. */
const latestRegressions: Worlds = {
  'the rows of a worker are missed when the last node that has it stops it': { mix: 'full', seed: 76000910 },
  'where answers are lost for good, the view is read after each try of a refused worker': {
    mix: 'full',
    seed: 76000582,
  },
  'floors of servers that follow each other at once do not pile up': { mix: 'deploys', seed: 77008421 },
  'who is next and asks again does not wait as well': { mix: 'brief', seed: 77001268 },
  'who is next and asks again does not wait as well, in a bad network': { mix: 'network', seed: 77003592 },
  'a late join of a node whose row was deleted gives nothing back': { mix: 'brief', seed: 77007215 },
  'a join that arrives after all have closed is not left behind by them': { mix: 'crowd', seed: 77011598 },
}

/** Seeds that found a fault since there are the newest traits. */
const newestRegressions: Worlds = {
  'what a node gives back does not count for it when the next is chosen': { mix: 'brief', seed: 91000028 },
  'who is next and goes on with its work of before steps out of line': { mix: 'full', seed: 91000001 },
  'who has given back a lease stands aside, though its row remembers another node': {
    mix: 'brief',
    seed: 78000888,
  },
  'of two that cool down the one that does so longer may win': { mix: 'network', seed: 78000338 },
  'a share that is taken by force does not end those of the others': { mix: 'operators', seed: 6012 },
  'a worker that is to be registered once more is not withdrawn first': { mix: 'deploys', seed: 20139 },
  'who contradicts nodes that have died joins later where the clock was set back': {
    mix: 'servers',
    seed: 80502647,
  },
  "a join that nobody has heard of when all close is nobody's to bury": { mix: 'crowd', seed: 81000637 },
  'a share of an older plan does not stand for one that was deleted': { mix: 'brief', seed: 81008529 },
  'who leads by a version that skips times has more time after a takeover': {
    mix: 'deploys',
    seed: 82006450,
  },
  'a worker may be withdrawn by a request that is older than its registration': {
    mix: 'brief',
    seed: 82501857,
  },
}

/** Seeds that meet a limit which the guarantees name, by the word under which the checker counts what it excuses. */
const excused: Worlds = {
  'token forgotten by all': { mix: 'servers', seed: 40001614 },
  'longer ttl forgotten by all': { mix: 'brief', seed: 4100004283 },
}

for (const [rule, seeds] of Object.entries(regressions)) {
  t.test(rule, async (t) => {
    for (const seed of seeds) await holds(t, seed, later)
  })
}

for (const [rule, seeds] of Object.entries(laterRegressions)) {
  t.test(rule, async (t) => {
    for (const seed of seeds) await holds(t, seed, latest)
  })
}

for (const [worlds, without] of [
  [mixedRegressions, latest],
  [latestRegressions, newest],
  [newestRegressions, new Set<string>()],
] as const) {
  for (const [rule, { mix, seed }] of Object.entries(worlds)) {
    t.test(rule, async (t) => {
      await holds(t, seed, without, mix)
    })
  }
}

for (const [what, { mix, seed }] of Object.entries(excused)) {
  t.test(`excused and counted: ${what}`, async (t) => {
    const counts = await holds(t, seed, latest, mix)
    t.equal(counts.get(what), 1)
  })
}

async function holds(
  t: { ok(condition: boolean, message: string): void },
  seed: number,
  without: ReadonlySet<string> = new Set(),
  mix: MixName = 'full',
): Promise<ReadonlyMap<string, number>> {
  const outcome = await simulate({ seed, without, mix })
  const [worst] = outcome.violations
  t.ok(
    worst === undefined,
    `seed ${seed}${worst === undefined ? '' : ` breaks ${worst.rule}: ${worst.what}`}`,
  )
  return outcome.counts
}
