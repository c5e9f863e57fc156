/**
 * Simulates one seed after another, and reports what was broken.
 *
 *     npm run simulate -- --seeds 1000 [--from 1] [--jobs 2] [--minutes 10] [--mix all] [--without kill,drift]
 *     npm run simulate -- --seed 42                one seed; with its history when it fails, or with --history
 *     npm run simulate -- --seed 42 --minimise     leaves out faults for as long as it still fails
 *     npm run simulate -- --seeds 1000000 --record runs.ndjson     appends a line for each 250 seeds
 *     npm run simulate -- --report runs.ndjson                     adds those lines up
 *
 * Without `--mix` each seed has a mix of its own. A failure prints the mix, and the same seed has the same mix again.
 */
import { fork } from 'node:child_process'
import { appendFileSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import {
  atLeastOne,
  mustOpen,
  namesIn,
  optionsOf,
  refuse,
  seedCount,
  seeds,
} from '../support/command-line.js'
import { aborted, interruptible } from '../support/interruptible.js'
import { addTally, emptyTally, mixFor, report, runCampaign, type Tally, vacuities } from './campaign.js'
import { type MixName, mixes, timedKinds, traits } from './faults.js'
import { type Outcome, simulate } from './world.js'

const mixNames = ['all', ...(Object.keys(mixes) as MixName[])] as const

const usage = `
npm run simulate -- --seeds 200 [--from 1] [--jobs 1] [--minutes N] [--mix all] [--without kind,kind] [--record FILE]
npm run simulate -- --seed N [--mix all] [--without kind,kind] [--history] [--minimise]
npm run simulate -- --report FILE
`

const values = optionsOf(
  usage,
  {
    seeds: 200,
    from: 1,
    jobs: 1,
    minutes: Number.POSITIVE_INFINITY,
    mix: 'all',
    without: '',
    minimise: false,
    history: false,
  },
  {
    texts: ['record', 'report'],
    // `part`: the number of this process among the jobs.
    numbers: ['seed', 'part'],
    ways: [
      ['seeds', 'from', 'jobs', 'minutes', 'mix', 'without', 'record', 'part'],
      ['seed', 'mix', 'without', 'history', 'minimise'],
      ['report'],
    ],
    whole: {
      seed: seeds,
      from: seeds,
      seeds: atLeastOne,
      jobs: atLeastOne,
      part: [0, Number.MAX_SAFE_INTEGER],
    },
  },
)
const lastSeed = values.from + values.seeds - 1
if (values.seed === undefined && lastSeed >= seedCount)
  refuse(
    usage,
    `--from ${values.from} --seeds ${values.seeds} ends at seed ${lastSeed}; the last seed is ${seedCount - 1}.`,
  )

/** With fewer seeds than this, what did not happen in them is no reason to fail. */
const manySeeds = 300

/** How many seeds a process simulates for one line of a record. */
const seedsALine = 250

const without: ReadonlySet<string> = new Set(
  namesIn(usage, values.without, 'kind of fault', [...timedKinds, ...traits]),
)
const [mix = 'all', ...moreMixes] = namesIn(usage, values.mix, 'mix', mixNames)
if (moreMixes.length > 0) refuse(usage, `--mix takes one name, not "${values.mix}".`)
if (values.part !== undefined && process.send === undefined)
  refuse(usage, '--part is for the processes that --jobs starts.')
if (values.report !== undefined) conclude(recorded(values.report))
else await interruptible((asked) => Promise.race([simulated(asked), aborted(asked)]))

async function simulated(asked: AbortSignal): Promise<void> {
  const { seed, part } = values
  if (part !== undefined) {
    process.once('disconnect', () => process.exit())
    process.send?.(await share(part, values.jobs))
  } else if (seed === undefined) await campaign(asked)
  else if (values.minimise) await minimise(seed)
  else await replay(seed)
}

async function campaign(asked: AbortSignal): Promise<void> {
  if (values.record !== undefined) mustOpen(usage, 'record', values.record, 'a')
  const { jobs } = values
  const tally = emptyTally()
  const parts =
    jobs === 1 ? [share(0, 1)] : Array.from({ length: jobs }, (_, part) => shareElsewhere(part, asked))
  for (const part of await Promise.all(parts)) addTally(tally, part)
  conclude(tally)
}

function recorded(path: string): Tally {
  mustOpen(usage, 'report', path, 'r')
  const sum = emptyTally()
  const lines = readFileSync(path, 'utf8').split('\n').filter(Boolean)
  try {
    for (const line of lines) addTally(sum, JSON.parse(line) as Tally)
  } catch {
    sum.seeds = 0
  }
  if (sum.seeds === 0) refuse(usage, `--report: ${path} is no record of a campaign.`)
  return sum
}

function conclude(tally: Tally): void {
  for (const line of report(tally)) console.log(line)
  const idle = vacuities(tally, mix, without)
  for (const what of idle) console.log(`not shown: ${what}`)
  if (tally.seeds === 0 || tally.failed > 0 || (tally.seeds >= manySeeds && idle.length > 0))
    process.exitCode = 1
}

async function share(part: number, jobs: number): Promise<Tally> {
  const { record } = values
  const endMs = performance.now() + values.minutes * 60_000
  const seeds = Math.ceil((values.seeds - part) / jobs)
  const sum = emptyTally()
  for (let done = 0; done < seeds && performance.now() < endMs; done += seedsALine) {
    const from = values.from + part + done * jobs
    const minutes = (endMs - performance.now()) / 60_000
    const tally = await some(from, Math.min(seedsALine, seeds - done), jobs, minutes)
    addTally(sum, tally)
    if (record !== undefined) appendFileSync(record, `${JSON.stringify({ from, step: jobs, ...tally })}\n`)
  }
  return sum
}

function some(from: number, seeds: number, step: number, minutes: number): Promise<Tally> {
  return runCampaign({
    from,
    seeds: seeds * step,
    step,
    mix,
    without,
    minutes,
    broken: (seed, { violations }) => {
      const [worst] = violations
      console.log(`seed ${seed} (${mixFor(seed, mix)}): ${worst?.rule}: ${worst?.what.slice(0, 200)}`)
      return true
    },
  })
}

/** Simulates one share of the seeds in another process, which ends with this one. */
function shareElsewhere(part: number, asked: AbortSignal): Promise<Tally> {
  const typed = [...process.argv.slice(2), '--part', String(part)]
  const child = fork(fileURLToPath(import.meta.url), typed, {
    ...{ signal: asked, killSignal: 'SIGKILL' },
  })
  return new Promise((resolve, reject) => {
    child.once('message', (tally) => {
      resolve(tally as Tally)
      child.disconnect()
    })
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`process ${part} ended with ${code}`)))
  })
}

async function replay(seed: number): Promise<void> {
  const outcome = await simulate({ seed, without, keep: true, mix: mixFor(seed, mix) })
  if (values.history || outcome.violations.length > 0) for (const line of outcome.lines) console.log(line)
  summarise(outcome, seed)
}

async function minimise(seed: number): Promise<void> {
  const world = { seed, without, mix: mixFor(seed, mix) }
  const whole = await simulate(world)
  const [violation] = whole.violations
  if (violation === undefined) return replay(seed)
  const { rule } = violation
  let kept = whole.plan.faults.map((_, index) => index)
  const fails = async (indices: readonly number[]): Promise<boolean> => {
    const set = new Set(indices)
    const outcome = await simulate({ ...world, only: (_, index) => set.has(index) })
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
  const outcome = await simulate({ ...world, only: (_, index) => set.has(index), keep: true })
  for (const line of outcome.lines) console.log(line)
  summarise(outcome, seed)
}

function summarise(outcome: Outcome, seed: number): void {
  const { preset, nodes, events, simulatedMs, plan, fingerprint } = outcome
  console.log(
    `mix ${mixFor(seed, mix)}, ${preset} timing, ${nodes} nodes, ${plan.faults.length} faults, traits: ${[...plan.traits].join(' ') || 'none'}`,
  )
  console.log(
    `${events} events in ${(simulatedMs / 1_000).toFixed(0)} simulated seconds, fingerprint ${fingerprint}`,
  )
  for (const { rule, atMs, what } of outcome.violations.slice(0, 20))
    console.log(`${rule} at ${(atMs / 1_000).toFixed(3)}: ${what}`)
  if (outcome.violations.length > 0) process.exitCode = 1
  else console.log('all promises kept')
}
