/** Hunts one mutant: simulates seeds until a promise breaks. `run.ts` runs this in a copy of the compiled code. */
import { mixFor, runCampaign } from '../simulation/campaign.js'
import type { MixName } from '../simulation/faults.js'

/** The result of a hunt. */
export interface Quarry {
  readonly seeds: number
  readonly cpuMs: number
  readonly killedBy:
    | { readonly seed: number; readonly mix: MixName; readonly rule: string; readonly what: string }
    | undefined
}

const [mix = 'all', seeds = '1000', from = '1'] = process.argv.slice(2)
let killedBy: Quarry['killedBy']
const tally = await runCampaign({
  from: Number(from),
  seeds: Number(seeds),
  mix: mix as MixName | 'all',
  broken: (seed, { violations }) => {
    const [first] = violations
    if (first !== undefined)
      killedBy = { seed, mix: mixFor(seed, mix as MixName), rule: first.rule, what: first.what }
    return false
  },
})
const quarry: Quarry = { seeds: tally.seeds, cpuMs: tally.cpuMs, killedBy }
process.send?.(quarry)
process.disconnect?.()
