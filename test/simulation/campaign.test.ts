/**
 * A share of the simulation: the same seeds on each run, or those from `SIMULATION_SEED` on. A failure prints its seed.
 * `npm run simulate -- --seed N` repeats it exactly; a long world also needs `--mix full`.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { simulate } from './world.js'

t.setTimeout(600_000)

const firstSeed = Number(process.env.SIMULATION_SEED ?? 1_000)
const longWorlds = 10
/** As many as fit into two minutes of a slow processor. `npm run simulate` takes any number. */
const campaignSeeds = 500

t.test('all promises hold in long worlds with all kinds of fault', async (t) => {
  for (let seed = firstSeed; seed < firstSeed + longWorlds; seed++) {
    const { violations } = await simulate({ seed, mix: 'full' })
    t.same(violations, [], `seed ${seed}`)
  }
})

/**
 * Runs in a process of its own. The coverage that tap measures would make it twice as slow, and would cover nothing
 * new.
 */
t.test('all promises hold through a campaign of faults', async (t) => {
  const command = fileURLToPath(new URL('simulate.js', import.meta.url))
  const typed = ['--single-threaded', command, '--seeds', String(campaignSeeds), '--from', String(firstSeed)]
  const env = { ...process.env, NODE_OPTIONS: '', NODE_V8_COVERAGE: '' }
  const campaign = spawn(process.execPath, typed, { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const [output, [code]] = await Promise.all([text(campaign.stdout), once(campaign, 'exit')])
  for (const line of output.trimEnd().split('\n')) t.comment(line)
  t.match(output, `${campaignSeeds} seeds, 0 with violations`, 'no promise was broken')
  t.notMatch(output, 'not shown: ', 'nothing was left untried')
  t.equal(code, 0)
})
