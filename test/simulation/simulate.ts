/**
 * Simulates seed after seed, and says what was broken.
 *
 *     node build/test/simulation/simulate.js --seeds 1000 [--seed 1] [--without kill,drift]
 *     node build/test/simulation/simulate.js --seed 42              one seed, with its history when it fails
 *     node build/test/simulation/simulate.js --seed 42 --minimise   leaves out faults as long as it still fails
 */
import { parseArgs } from 'node:util'
import { timedKinds } from './faults.js'
import { type Outcome, simulate } from './world.js'

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '1' },
    without: { type: 'string', default: '' },
    minimise: { type: 'boolean', default: false },
    history: { type: 'boolean', default: false },
    seconds: { type: 'string', default: 'Infinity' },
  },
})

const without = new Set(values.without.split(',').filter(Boolean))
const first = Number(values.seed)
const count = Number(values.seeds)
if (values.minimise) await minimise(first)
else if (count === 1) await replay(first)
else await campaign(first, count, Number(values.seconds))

async function campaign(from: number, seeds: number, seconds: number): Promise<void> {
  const totals = new Map<string, number>()
  const broken = new Map<string, number[]>()
  const recovered: number[] = []
  let [events, simulatedMs, failed, done] = [0, 0, 0, 0]
  const startedAt = performance.now()
  for (let seed = from; seed < from + seeds; seed++) {
    if (performance.now() - startedAt > seconds * 1_000) break
    const outcome = await simulate({ seed, without })
    done += 1
    events += outcome.events
    simulatedMs += outcome.simulatedMs
    recovered.push(outcome.recoveredMs.singles)
    for (const [what, times] of outcome.counts) totals.set(what, (totals.get(what) ?? 0) + times)
    if (outcome.violations.length === 0) continue
    failed += 1
    const rules = new Set(outcome.violations.map(({ rule }) => rule))
    for (const rule of rules) broken.set(rule, [...(broken.get(rule) ?? []), seed])
    const [worst] = outcome.violations
    console.log(`seed ${seed}: ${[...rules].join(' ')}: ${worst?.what.slice(0, 200)}`)
  }
  const spentMs = performance.now() - startedAt
  console.log(`${done} seeds, ${failed} with violations, in ${(spentMs / 1_000).toFixed(1)} s`)
  console.log(
    `${(simulatedMs / 3_600_000).toFixed(1)} simulated hours, ${events} events, ${Math.round((events / spentMs) * 1_000)} a second`,
  )
  for (const [rule, list] of broken)
    console.log(`${rule}: ${list.length} seeds: ${list.slice(0, 20).join(' ')}`)
  recovered.sort((a, b) => a - b)
  const share = (part: number): number => recovered[Math.floor((recovered.length - 1) * part)] ?? 0
  console.log(`recovery of single workers, ms: p50 ${share(0.5)} p99 ${share(0.99)} max ${share(1)}`)
  console.log(
    [...totals]
      .sort()
      .map(([what, times]) => `${what} ${times}`)
      .join(', '),
  )
  const never = timedKinds.filter((kind) => !without.has(kind) && !totals.has(`fault ${kind}`))
  if (never.length > 0) console.log(`never happened: ${never.join(', ')}`)
  if (failed > 0 || (done >= 100 && never.length > 0)) process.exitCode = 1
}

async function replay(seed: number): Promise<void> {
  const outcome = await simulate({ seed, without, keep: true })
  if (values.history || outcome.violations.length > 0) for (const line of outcome.lines) console.log(line)
  summarise(outcome)
}

async function minimise(seed: number): Promise<void> {
  const whole = await simulate({ seed, without })
  const [violation] = whole.violations
  if (violation === undefined) return summarise(whole)
  const { rule } = violation
  let kept = whole.plan.faults.map((_, index) => index)
  const fails = async (indices: readonly number[]): Promise<boolean> => {
    const set = new Set(indices)
    const outcome = await simulate({ seed, without, only: (_, index) => set.has(index) })
    return outcome.violations.some((each) => each.rule === rule)
  }
  for (let size = Math.ceil(kept.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < kept.length; ) {
      const fewer = [...kept.slice(0, at), ...kept.slice(at + size)]
      if (await fails(fewer)) kept = fewer
      else at += size
    }
  }
  const set = new Set(kept)
  const outcome = await simulate({ seed, without, only: (_, index) => set.has(index), keep: true })
  for (const line of outcome.lines) console.log(line)
  summarise(outcome)
}

function summarise(outcome: Outcome): void {
  const { preset, nodes, events, simulatedMs, plan, fingerprint } = outcome
  console.log(
    `${preset} timing, ${nodes} nodes, ${plan.faults.length} faults, traits: ${[...plan.traits].join(' ') || 'none'}`,
  )
  console.log(
    `${events} events in ${(simulatedMs / 1_000).toFixed(0)} simulated seconds, fingerprint ${fingerprint}`,
  )
  for (const { rule, atMs, what } of outcome.violations.slice(0, 20))
    console.log(`${rule} at ${(atMs / 1_000).toFixed(3)}: ${what}`)
  if (outcome.violations.length > 0) process.exitCode = 1
  else console.log('all promises kept')
}
