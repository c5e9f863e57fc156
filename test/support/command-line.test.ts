/** The commands beside the tests, given wrong options: each names the mistake in a line, and does nothing. */
import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const commands = {
  simulate: 'simulation/simulate.js',
  mutants: 'mutants/run.js',
  model: 'model/run.js',
  chaos: 'chaos/main.js',
  rules: 'http/without-rules.js',
} as const

type Command = keyof typeof commands

t.test('an option that there is not is named, and the command does nothing', async (t) => {
  for (const command of Object.keys(commands) as Command[]) {
    const { code, errors, output } = await run(command, ['--nonsense'])
    t.equal(code, 2, command)
    t.match(errors, "Unknown option '--nonsense'")
    t.match(errors, `npm run ${command} -- `, 'how it is used')
    t.notMatch(errors, /^ +at /m, 'no stack')
    t.equal(output, '')
  }
})

t.test('a number that is none is refused', async (t) => {
  const wrong: readonly [Command, string, string][] = [
    ['simulate', '--seeds', 'many'],
    ['simulate', '--seed', ''],
    ['mutants', '--jobs=-1', ''],
    ['chaos', '--ttl', '3s'],
  ]
  for (const [command, option, value] of wrong) {
    const { code, errors } = await run(command, [option, ...(option.includes('=') ? [] : [value])])
    t.equal(code, 2, `${command} ${option} ${value}`)
    t.match(errors, /^--\w+ takes a number that is 0 or more, not ".*"\./)
  }
})

t.test('a name that there is not is refused with those that there are', async (t) => {
  const wrong: readonly [Command, string, RegExp][] = [
    ['simulate', '--mix', /^There is no mix "nonsense", only all, full, brief, /],
    ['simulate', '--without', /^There is no kind of fault "nonsense", only pause, suspend, /],
    ['chaos', '--only', /^There is no kind of fault "nonsense", only .*pause/],
  ]
  for (const [command, option, said] of wrong) {
    const { code, errors } = await run(command, [option, 'nonsense'])
    t.equal(code, 2, `${command} ${option}`)
    t.match(errors, said)
    t.notMatch(errors, /^ +at /m, 'no stack')
  }
})

async function run(command: Command, typed: readonly string[]) {
  const file = fileURLToPath(new URL(`../${commands[command]}`, import.meta.url))
  const env = { ...process.env, NODE_OPTIONS: '', NODE_V8_COVERAGE: '' }
  const child = spawn(process.execPath, [file, ...typed], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const [output, errors, code] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise<number | null>((resolve) => child.once('exit', resolve)),
  ])
  return { output, errors, code }
}
