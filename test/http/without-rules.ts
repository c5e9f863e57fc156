/**
 * Takes one rule after another out of a copy of the compiled code, and checks that its test fails.
 *
 *     npm run rules -- [--jobs 2] [--only "streams per"]
 *
 * First each of the tests is run with all rules in place, because a test that fails anyway would prove nothing.
 */
import { spawn } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { atLeastOne, optionsOf, refuse } from '../support/command-line.js'
import { endOf, inTurns, interruptible, signalGroup } from '../support/interruptible.js'
import { type Rule, rules } from './rules.js'

const usage = 'npm run rules -- [--jobs 1] [--only "streams per"]'
const values = optionsOf(usage, { jobs: 1, only: '' }, { whole: { jobs: atLeastOne } })

/**
 * Without a rule its test may not end at all, for example because a stream is never closed. It fails by itself after a
 * while, and says its name only then; what it has open may still keep its process alive.
 */
const patienceMs = 60_000
const longestMs = 2 * patienceMs

const build = fileURLToPath(new URL('../..', import.meta.url))
const root = join(build, '..')

const chosen = rules.filter(({ rule }) => rule.includes(values.only))
if (chosen.length === 0) refuse(usage, `No rule has "${values.only}" in its name.`)
const tests = new Map(chosen.map(({ test }) => [test.join(': '), test]))
const copies = mkdtempSync(join(build, 'without-rules-'))
// As root a server runs as another user, which must be able to reach its data through this folder.
const temporary = mkdtempSync(join(tmpdir(), 'coordination-rules-'))
chmodSync(temporary, 0o755)
await interruptible(async (asked) => {
  try {
    await takeOutEach(asked)
  } finally {
    for (const folder of [copies, temporary]) rmSync(folder, { recursive: true, force: true, maxRetries: 10 })
  }
})

async function takeOutEach(asked: AbortSignal): Promise<void> {
  const whole = copyOf('whole')
  const broken = await inTurns([...tests.values()], values.jobs, asked, async (test, stop) => {
    const failed = await fails(whole, test, stop)
    if (failed) console.log(`fails with all rules in place: ${test.join(': ')}`)
    return failed
  })
  const held = await inTurns(chosen, values.jobs, asked, async (rule, stop) => {
    const copy = copyOf(String(rules.indexOf(rule)), rule)
    const failed = await fails(copy, rule.test, stop)
    rmSync(copy, { recursive: true })
    console.log(`${failed ? 'held ' : 'LOOSE'} ${rule.rule}`)
    return failed
  })
  console.log(`${chosen.length} rules, ${held.filter(Boolean).length} held by their tests`)
  if (broken.some(Boolean) || !held.every(Boolean)) process.exitCode = 1
}

/** Copies the compiled code without the rule into a folder of its own. */
function copyOf(name: string, without?: Rule): string {
  const copy = join(copies, name)
  mkdirSync(join(copy, 'build'), { recursive: true })
  for (const folder of ['plugin', 'test', 'dashboard'])
    cpSync(join(build, folder), join(copy, 'build', folder), { recursive: true })
  for (const beside of ['migrations', 'package.json']) symlinkSync(join(root, beside), join(copy, beside))
  if (without !== undefined)
    writeFileSync(join(copy, 'build/plugin', `${without.file}.js`), sourceWithout(without))
  return copy
}

function sourceWithout({ rule, file, find, replace }: Rule): string {
  const source = readFileSync(join(build, 'plugin', `${file}.js`), 'utf8')
  const found = source.split(find).length - 1
  if (found !== 1) throw new Error(`"${rule}": its place was found ${found} times in ${file}.js, not once.`)
  return source.replace(find, () => replace)
}

/** Returns whether the test fails in this copy. A test that does not end has failed. */
async function fails(copy: string, [file, name]: Rule['test'], stop: AbortSignal): Promise<boolean> {
  const pattern = `^${name.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`
  const child = spawn(process.execPath, [join(copy, `build/test/${file}.test.js`)], {
    env: {
      ...{ ...process.env, TAP_GREP: pattern, TAP_TIMEOUT: String(patienceMs / 1_000) },
      // A test that is killed leaves its temporary files behind.
      TMPDIR: temporary,
    },
    stdio: ['ignore', 'pipe', 'ignore'],
    detached: true,
  })
  const limit = setTimeout(() => signalGroup(child, 'SIGKILL'), longestMs)
  const [output, code] = await Promise.all([text(child.stdout), endOf(child, stop)]).finally(() =>
    clearTimeout(limit),
  )
  if (!output.includes(`# Subtest: ${name}`)) throw new Error(`There is no test "${name}" in ${file}.`)
  return code !== 0
}
