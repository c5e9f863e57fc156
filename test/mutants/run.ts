/**
 * Runs the simulation on one mutant after another, and the tests on those that survive it. Prints what found each. A
 * test that is known to find a mutant at once is run first.
 *
 *     npm run mutants -- [--seeds 300] [--jobs 2] [--only "the margin|nobody hears"]
 *
 * Each mutant lives in a copy of the compiled code under `build/`, and is hunted in processes of its own.
 */
import { fork, spawn } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { atLeastOne, optionsOf, refuse } from '../support/command-line.js'
import { endOf, inTurns, interruptible, signalGroup } from '../support/interruptible.js'
import type { Quarry } from './hunt.js'
import { type Mutant, mutants, mutated } from './mutants.js'

const usage = 'npm run mutants -- [--seeds 300] [--jobs 1] [--only "the margin|nobody hears"]'
const values = optionsOf(
  usage,
  { seeds: 300, jobs: 1, only: '' },
  { whole: { seeds: atLeastOne, jobs: atLeastOne } },
)

/** A mutant may loop within one event, where nothing else stops it. */
const longestMs = 600_000

const build = fileURLToPath(new URL('../..', import.meta.url))
const root = join(build, '..')

interface TestFile {
  readonly file: string
  readonly only?: string
}

/**
 * The test files to run: those of the engine, and of its rows in SQLite. `only` selects the subtests that are about
 * these.
 */
const testFiles: readonly TestFile[] = [
  ...[
    'session',
    'trust',
    'timing',
    'watch',
    'token',
    'terms',
    'identity',
    'plan',
    'shares',
    'partitions',
    'fences',
    'ignored-signals',
    'lives',
    'by-hand',
    'queue',
    'acquire',
    'engine',
    'watchers',
    'server',
    'operator',
    'cool-downs',
    'forgetting',
    'schedule',
    'schedule-patterns',
    'times',
    'passes',
    'stopping',
    'closing',
    'outage',
    'log',
    'registrations',
    'upkeep',
    'holdings',
  ].map((name) => ({ file: `core/${name}.test.js` })),
  { file: 'stores/conformance.test.js', only: '/^sqlite$/' },
  { file: 'stores/sqlite.test.js' },
]

const wanted = values.only === '' ? [''] : values.only.split('|').filter(Boolean)
for (const part of wanted)
  if (!mutants.some(({ name }) => name.includes(part))) refuse(usage, `No mutant has "${part}" in its name.`)
const hunted = mutants.filter(({ name }) => wanted.some((part) => name.includes(part)))
if (hunted.length === 0) refuse(usage, `"${values.only}" is no part of a name.`)
for (const mutant of hunted) mutated(mutant, build)
// A missing file would fail, and so seem to find every mutant.
for (const { file } of testFiles) statSync(join(build, 'test', file))
for (const { name, test } of hunted)
  if (test !== undefined && !testFiles.some(({ file }) => file === `${test}.test.js`))
    throw new Error(`"${name}": the test ${test} is not among those that are run.`)
const rows = new Map<Mutant, string>()
let survivors = 0
const acquitted = new Map<string, Promise<void>>()
const copies = mkdtempSync(join(build, 'mutants-'))
// Some tests go on as another user than root.
chmodSync(copies, 0o755)
/** The folder for the temporary files of all tests: a test that is killed leaves its own behind. */
const temporary = join(copies, 'tmp')
await interruptible(async (asked) => {
  try {
    mkdirSync(temporary)
    await inTurns(hunted, values.jobs, asked, huntOne)
  } finally {
    rmSync(copies, { recursive: true, force: true })
  }
  console.log('\n| mutant | place | found by |\n| --- | --- | --- |')
  for (const mutant of hunted) console.log(rows.get(mutant))
  console.log(`\n${hunted.length} mutants, ${hunted.length - survivors} killed`)
  if (survivors > 0) process.exitCode = 1
})

async function huntOne(mutant: Mutant, stop: AbortSignal): Promise<void> {
  const found = await hunt(mutant, stop)
  if (found === undefined) survivors += 1
  const row = `| ${mutant.name} | \`${mutant.file}\` | ${found?.by ?? '**nothing**'} |`
  rows.set(mutant, row)
  console.log(`${row} ${found?.what.slice(0, 160) ?? ''}`)
}

interface Found {
  readonly by: string
  readonly what: string
}

/** Hunts one mutant. Returns undefined when it survives. */
async function hunt(mutant: Mutant, stop: AbortSignal): Promise<Found | undefined> {
  const copy = join(copies, String(mutants.indexOf(mutant)))
  mkdirSync(copy, { recursive: true })
  for (const folder of ['plugin', 'test'])
    cpSync(join(build, folder), join(copy, 'build', folder), { recursive: true })
  for (const beside of ['migrations', 'package.json']) symlinkSync(join(root, beside), join(copy, beside))
  writeFileSync(join(copy, 'build/plugin', `${mutant.file}.js`), mutated(mutant, build))
  try {
    const known = testFiles.filter(({ file }) => file === `${mutant.test}.test.js`)
    const others = testFiles.filter((each) => !known.includes(each))
    return (
      (await huntByTests(copy, known, stop)) ??
      (await huntBySimulation(mutant, copy, stop)) ??
      (await huntByTests(copy, others, stop))
    )
  } finally {
    rmSync(copy, { recursive: true, force: true })
  }
}

async function huntBySimulation(mutant: Mutant, copy: string, stop: AbortSignal): Promise<Found | undefined> {
  const { mix = 'all', from = 1 } = mutant
  const quarry = await setLoose(join(copy, 'build'), mix, values.seeds, from, stop)
  if (quarry === undefined) return { by: 'simulation: it does not end', what: '' }
  if (quarry.killedBy === undefined) return undefined
  await acquit(quarry.killedBy, stop)
  const { rule, seed, what } = quarry.killedBy
  return { by: `simulation: ${rule}, \`--mix ${quarry.killedBy.mix} --seed ${seed}\``, what }
}

/** Returns the first test that fails. */
async function huntByTests(
  copy: string,
  files: readonly TestFile[],
  stop: AbortSignal,
): Promise<Found | undefined> {
  for (const { file, only } of files) {
    const run = await failing(join(copy, 'build/test', file), only, stop)
    if (run === undefined) continue
    await acquitTests(file, only, stop)
    const { output, ended: hasEnded } = run
    const failure = /^ *not ok \d+ - (.*?)(?: # .*)?$/m.exec(output)
    if (failure === null && hasEnded)
      throw new Error(`${file} ended without a test that failed, as code that cannot be loaded does.`)
    const name = failure?.[1] ?? 'it does not end'
    // The test that failed, or the one that did and then never ended.
    const [ended] = output.matchAll(/^(?: {4})*not ok \d+ - (.*?) # time=/gm)
    const begun = [...output.slice(0, failure?.index ?? 0).matchAll(/^# Subtest: (.*)$/gm)].at(-1)
    const test = (ended ?? begun)?.[1] ?? name
    return { by: `test: ${file.replace('.js', '.ts')}, "${test}"`, what: name }
  }
  return undefined
}

/** Returns what a test file printed when it failed, and whether it ended by itself; undefined when it passed. */
async function failing(
  file: string,
  only: string | undefined,
  stop: AbortSignal,
): Promise<{ output: string; ended: boolean } | undefined> {
  const env = {
    ...process.env,
    NODE_V8_COVERAGE: '',
    TAP_TIMEOUT: String(longestMs / 1_000),
    TMPDIR: temporary,
    ...(only === undefined ? {} : { TAP_GREP: only }),
  }
  const child = spawn(process.execPath, [file], { env, stdio: ['ignore', 'pipe', 'ignore'], detached: true })
  const limit = setTimeout(() => signalGroup(child, 'SIGKILL'), longestMs)
  const [output, code] = await Promise.all([text(child.stdout), endOf(child, stop)]).finally(() =>
    clearTimeout(limit),
  )
  return code === 0 ? undefined : { output, ended: code !== null }
}

/** Checks once that a test file which fails with a mutant passes without any. */
function acquitTests(file: string, only: string | undefined, stop: AbortSignal): Promise<void> {
  const control = acquitted.get(file) ?? passes(file, only, stop)
  acquitted.set(file, control)
  return control
}

async function passes(file: string, only: string | undefined, stop: AbortSignal): Promise<void> {
  if ((await failing(join(build, 'test', file), only, stop)) !== undefined)
    throw new Error(`${file} fails without any mutant.`)
}

/** Checks that a seed which breaks with the mutant does not break without it. */
async function acquit({ seed, mix }: NonNullable<Quarry['killedBy']>, stop: AbortSignal): Promise<void> {
  const control = await setLoose(build, mix, 1, seed, stop)
  if (control?.killedBy !== undefined) throw new Error(`Seed ${seed} (${mix}) breaks without any mutant.`)
}

async function setLoose(
  code: string,
  mix: string,
  seeds: number,
  from: number,
  stop: AbortSignal,
): Promise<Quarry | undefined> {
  const child = fork(join(code, 'test/mutants/hunt.js'), [mix, String(seeds), String(from)], {
    execArgv: ['--single-threaded'],
    detached: true,
  })
  let quarry: Quarry | undefined
  child.once('message', (message) => {
    quarry = message as Quarry
  })
  const limit = setTimeout(() => signalGroup(child, 'SIGKILL'), longestMs)
  await endOf(child, stop).finally(() => clearTimeout(limit))
  return quarry
}
