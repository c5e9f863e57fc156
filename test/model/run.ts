/**
 * Lets spin search every order of events in the model, and then in each mutant of the model, which it must find.
 *
 *     npm run model -- [--only liveness] [--long] [--minutes 60] [--memory 5000]
 *
 * Needs spin and a C compiler. A search that exceeds its minutes or its memory is never reported as complete.
 */
import { spawn, spawnSync } from 'node:child_process'
import { cp, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { atLeastOne, optionsOf, refuse } from '../support/command-line.js'
import { endOf, interruptible, signalGroup } from '../support/interruptible.js'
import { type Search, searches } from './searches.js'

const usage = 'npm run model -- [--only liveness] [--long] [--minutes 60] [--memory 5000]'
const values = optionsOf(
  usage,
  { only: '', long: false, minutes: 60, memory: 5_000 },
  { whole: { memory: atLeastOne } },
)
const chosen = searches.filter(({ name, long }) => name.includes(values.only) && (values.long || !long))
if (chosen.length === 0)
  refuse(
    usage,
    `No search ${values.long ? '' : 'that runs without --long '}has "${values.only}" in its name.`,
  )

for (const program of ['spin', 'cc'])
  if (spawnSync(program, ['--version']).error !== undefined) refuse(usage, `${program} is not installed.`)

interface Found {
  readonly errors: number
  readonly states: number
  readonly transitions: number
  readonly cpuMs: number
  /** Whether it has seen all states. */
  readonly complete: boolean
}

const models = fileURLToPath(new URL('../../../test/model', import.meta.url))

/**
 * How the search is compiled. All questions are about single states, so it looks for no cycles. Every step touches what
 * other processes see, so partial order reduction could leave nothing out. Each state is kept whole: of the hashes that
 * spin can keep instead (HC4) too many were equal, so that only 1 242 979 of 1 289 827 states were told apart.
 */
const compiled = ['-DSAFETY', '-DNOREDUCE', `-DMEMLIM=${values.memory}`]

await interruptible(async (asked) => {
  let wrong = 0
  console.log('| search | nodes | faults | states | transitions | CPU s | result |')
  console.log('| --- | --- | --- | --- | --- | --- | --- |')
  for (const search of chosen) {
    const found = await carryOut(search, asked)
    const asWanted = found.errors > 0 === search.fails
    if (!asWanted) wrong += 1
    console.log(rowOf(search, found, asWanted))
  }
  process.exitCode = wrong === 0 ? 0 : 1
})

function rowOf(
  search: Search,
  { errors, states, transitions, cpuMs, complete }: Found,
  asWanted: boolean,
): string {
  const { name, nodes, crashes, slips, orders } = search
  const seen = complete ? 'all seen' : 'not all seen'
  const result = errors > 0 ? 'violated' : `no violation, ${seen}`
  const faults = `${crashes} crash, ${slips} slip, ${orders} order`
  const figures = [states, transitions].map((figure) => figure.toLocaleString('en-US').replaceAll(',', ' '))
  const seconds = (cpuMs / 1_000).toFixed(1)
  return `| ${name} | ${nodes} | ${faults} | ${figures.join(' | ')} | ${seconds} | ${asWanted ? result : `**${result}**`} |`
}

async function carryOut(search: Search, asked: AbortSignal): Promise<Found> {
  const folder = await mkdtemp(join(tmpdir(), 'coordination-model-'))
  try {
    await cp(models, folder, { recursive: true, filter: (path) => !path.endsWith('.ts') })
    await run('spin', ['-a', ...definitionsOf(search), 'lease.pml'], folder, asked)
    await run('cc', ['-O2', '-o', 'pan', ...compiled, 'pan.c'], folder, asked)
    return await searchIn(folder, asked)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

function definitionsOf({ nodes, crashes, slips, orders, liveness, lateAnswers, mutant }: Search): string[] {
  return [
    `-DN=${nodes}`,
    ...[`-DCRASHES=${crashes}`, `-DSLIPS=${slips}`, `-DORDERS=${orders}`],
    ...(liveness ? ['-DLIVENESS'] : []),
    ...(lateAnswers ? ['-DLATE_ANSWERS'] : []),
    ...(mutant === undefined ? [] : [`-DMUTANT_${mutant}`]),
  ]
}

/**
 * Runs the search in a folder. When its minutes are over it still reports what it has seen so far. The shell around it
 * reports the CPU time.
 */
async function searchIn(folder: string, asked: AbortSignal): Promise<Found> {
  const flags = ['-w24', '-m2000000']
  const script = 'trap : INT; ./pan "$@"; times'
  const search = spawn('sh', ['-c', `{ ${script}; } > out.txt 2>&1`, 'sh', ...flags], {
    cwd: folder,
    detached: true,
  })
  const limit = setTimeout(() => signalGroup(search, 'SIGINT'), values.minutes * 60_000)
  await endOf(search, asked).finally(() => clearTimeout(limit))
  return readFound(await readFile(join(folder, 'out.txt'), 'utf8'))
}

/** Runs a program in the folder, which is also the one of its temporary files. */
async function run(program: string, args: readonly string[], cwd: string, asked: AbortSignal): Promise<void> {
  const env = { ...process.env, TMPDIR: cwd }
  const child = spawn(program, args, { cwd, env, detached: true, stdio: ['ignore', 'ignore', 'pipe'] })
  const [complaints, code] = await Promise.all([text(child.stderr), endOf(child, asked)])
  if (code !== 0) throw new Error(`${program} has failed:\n${complaints}`)
}

function readFound(text: string): Found {
  const figure = (pattern: RegExp): number => Number(pattern.exec(text)?.[1] ?? Number.NaN)
  const errors = figure(/errors: (\d+)/)
  if (Number.isNaN(errors)) throw new Error(`The search has not said what it found:\n${text.slice(-2_000)}`)
  return {
    errors,
    states: figure(/(\S+)\s+states, stored/),
    transitions: figure(/(\S+)\s+transitions/),
    cpuMs: computedMs(text),
    complete: errors === 0 && !/Search not completed|max search depth too small/.test(text),
  }
}

/** Reads the last line of `times`: the user and system time of the shell's children. */
function computedMs(text: string): number {
  const last = text.trimEnd().split('\n').at(-1) ?? ''
  const parts = [...last.matchAll(/(\d+)m([\d.]+)s/g)]
  return parts.reduce(
    (sum, [, minutes, seconds]) => sum + Number(minutes) * 60_000 + Number(seconds) * 1_000,
    0,
  )
}
