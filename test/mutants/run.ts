/**
 * Lets the simulation loose on one mutant after another, and prints which seed found each.
 *
 *     npm run mutants -- [--seeds 2000] [--jobs 2] [--only "the margin"]
 *
 * Each mutant lives in a copy of the compiled code under `build/mutants`, and is hunted in a process of its own.
 */
import { fork } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { Quarry } from './hunt.js'
import { type Mutant, mutants } from './mutants.js'

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '2000' },
    jobs: { type: 'string', default: '1' },
    only: { type: 'string', default: '' },
  },
})

/** A mutant may go round in circles within one event, where nothing else stops it. */
const longestMs = 600_000

const build = fileURLToPath(new URL('../..', import.meta.url))
const root = join(build, '..')
const copies = join(build, 'mutants')

const hunted = mutants.filter(({ name }) => name.includes(values.only))
for (const mutant of hunted) apply(mutant)
const rows = new Map<Mutant, string>()
let survivors = 0
const waiting = [...hunted]
rmSync(copies, { recursive: true, force: true })
await Promise.all(Array.from({ length: Number(values.jobs) }, huntOn))
rmSync(copies, { recursive: true, force: true })
console.log(
  '\n| mutant | place | broke | seed | after seeds | CPU s |\n| --- | --- | --- | --- | --- | --- |',
)
for (const mutant of hunted) console.log(rows.get(mutant))
console.log(`\n${hunted.length} mutants, ${hunted.length - survivors} killed`)
if (survivors > 0) process.exitCode = 1

async function huntOn(): Promise<void> {
  for (let mutant = waiting.shift(); mutant !== undefined; mutant = waiting.shift()) {
    const quarry = await hunt(mutant)
    const row = rowOf(mutant, quarry)
    if (quarry?.killedBy === undefined && quarry !== undefined) survivors += 1
    rows.set(mutant, row)
    console.log(quarry?.killedBy === undefined ? row : `${row} ${quarry.killedBy.what.slice(0, 160)}`)
  }
}

function rowOf({ name, file }: Mutant, quarry: Quarry | undefined): string {
  if (quarry === undefined) return `| ${name} | \`${file}\` | does not end | – | – | ${longestMs / 1_000} |`
  const { killedBy, seeds, cpuMs } = quarry
  const found =
    killedBy === undefined ? '**survived** | –' : `${killedBy.rule} | ${killedBy.mix} ${killedBy.seed}`
  return `| ${name} | \`${file}\` | ${found} | ${seeds} | ${(cpuMs / 1_000).toFixed(1)} |`
}

/** The mutated source of the mutant's file. */
function apply({ name, file, find, replace }: Mutant): string {
  const source = readFileSync(join(build, 'plugin', `${file}.js`), 'utf8')
  const found = source.split(find).length - 1
  if (found !== 1) throw new Error(`"${name}": its place was found ${found} times in ${file}.js, not once.`)
  return source.replace(find, () => replace)
}

/** Undefined: it did not end. */
async function hunt(mutant: Mutant): Promise<Quarry | undefined> {
  const copy = join(copies, String(mutants.indexOf(mutant)))
  mkdirSync(copy, { recursive: true })
  for (const folder of ['plugin', 'test/simulation', 'test/mutants'])
    cpSync(join(build, folder), join(copy, 'build', folder), { recursive: true })
  for (const beside of ['migrations', 'package.json']) symlinkSync(join(root, beside), join(copy, beside))
  writeFileSync(join(copy, 'build/plugin', `${mutant.file}.js`), apply(mutant))
  const quarry = await setLoose(join(copy, 'build'), mutant.mix ?? 'all', Number(values.seeds), 1)
  rmSync(copy, { recursive: true, force: true })
  if (quarry?.killedBy !== undefined) await acquit(quarry.killedBy)
  return quarry
}

/** What a mutant broke must not break without it. */
async function acquit({ seed, mix }: NonNullable<Quarry['killedBy']>): Promise<void> {
  const control = await setLoose(build, mix, 1, seed)
  if (control?.killedBy !== undefined) throw new Error(`Seed ${seed} (${mix}) breaks without any mutant.`)
}

async function setLoose(code: string, mix: string, seeds: number, from: number): Promise<Quarry | undefined> {
  const child = fork(join(code, 'test/mutants/hunt.js'), [mix, String(seeds), String(from)])
  const timer = setTimeout(() => child.kill('SIGKILL'), longestMs)
  const quarry = await new Promise<Quarry | undefined>((resolve) => {
    child.once('message', (message) => resolve(message as Quarry))
    child.once('exit', () => resolve(undefined))
  })
  clearTimeout(timer)
  return quarry
}
