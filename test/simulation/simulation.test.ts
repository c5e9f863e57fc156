/**
 * A share of the simulation: the same seeds on each run, or those from `SIMULATION_SEED` on. A failure prints its seed;
 * `node build/test/simulation/simulate.js --seed N` repeats it exactly.
 */
import t from 'tap'
import { timedKinds } from './faults.js'
import { simulate } from './world.js'

t.setTimeout(600_000)

/** Seeds that have once found a fault in the engine; each stands for the rule it broke then. */
const regressions: Readonly<Record<string, readonly number[]>> = {
  'a claim from before a failover is not begun a second time': [12, 69, 146],
  'nothing begins while a node closes': [25],
  'trust that has lapsed does not come back': [113, 148],
  'work that slept through the end of its trust is told when it wakes': [123, 161],
  'many nodes that die together are buried together': [10, 27, 33, 76],
  'a grace period is waited out by somebody': [87, 2125],
  'trust that returns is made use of': [20302],
  'shares given up before the database clock jumped come back': [30059],
}

/** Found after more kinds of fault had been added. */
const laterRegressions: Readonly<Record<string, readonly number[]>> = {
  'nobody claims in a grace period, over whichever connection': [700160, 700161],
  'a plan for many shares does not begin as many generations': [700685],
}

/** Kinds of fault, and traits, that the worlds of the first regressions did not have. */
const later = new Set([
  'transfer',
  'rebalance',
  'forget',
  'fence',
  'slow-changes',
  'late-connections',
  'mixed-ttls',
  'polling',
])

const freshSeeds = 30

for (const [rule, seeds] of Object.entries(regressions)) {
  t.test(rule, async (t) => {
    for (const seed of seeds) await holds(t, seed, later)
  })
}

for (const [rule, seeds] of Object.entries(laterRegressions)) {
  t.test(rule, async (t) => {
    for (const seed of seeds) await holds(t, seed)
  })
}

t.test('all promises hold through a campaign of faults', async (t) => {
  const first = Number(process.env.SIMULATION_SEED ?? 1_000)
  t.comment(`seeds ${first} to ${first + freshSeeds - 1}`)
  const struck = new Map<string, number>()
  for (let seed = first; seed < first + freshSeeds; seed++) {
    for (const [kind, times] of await holds(t, seed)) struck.set(kind, (struck.get(kind) ?? 0) + times)
  }
  const idle = timedKinds.filter((kind) => !struck.has(`fault ${kind}`))
  t.ok(idle.length < timedKinds.length / 2, `most kinds of fault have struck, all but ${idle.join(', ')}`)
})

async function holds(
  t: { ok(condition: boolean, message: string): void; comment(text: string): void },
  seed: number,
  without: ReadonlySet<string> = new Set(),
) {
  const outcome = await simulate({ seed, without })
  const [worst] = outcome.violations
  t.ok(
    worst === undefined,
    `seed ${seed}${worst === undefined ? '' : ` breaks ${worst.rule}: ${worst.what}`}`,
  )
  return outcome.counts
}
