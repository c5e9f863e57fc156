/** The commands beside the tests, given wrong options: each names the mistake in a line, and does nothing. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { freePort } from './ports.js'

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

t.test('with --help each says how it is used, and does nothing else', async (t) => {
  for (const command of Object.keys(commands) as Command[]) {
    const { code, errors, output } = await run(command, ['--help'])
    t.equal(code, 0, command)
    t.match(output, `npm run ${command} -- `)
    t.equal(errors, '')
  }
})

t.test('options that do not go together are refused, with those that do', async (t) => {
  const ofSeed = 'only --mix, --without, --history, --minimise do.'
  const wrong: readonly [Command, readonly string[], string][] = [
    ['simulate', ['--seed', '1', '--seeds', '2'], `--seeds does not go with --seed; ${ofSeed}`],
    ['simulate', ['--jobs', '2', '--seed', '1'], `--jobs does not go with --seed; ${ofSeed}`],
    ['simulate', ['--seed', '1', '--minutes', '2'], `--minutes does not go with --seed; ${ofSeed}`],
    ['simulate', ['--seed', '1', '--from', '2'], `--from does not go with --seed; ${ofSeed}`],
    ['simulate', ['--seed', '1', '--record', 'x'], `--record does not go with --seed; ${ofSeed}`],
    ['simulate', ['--seeds', '1', '--history'], '--history goes only with --seed.'],
    ['simulate', ['--minimise'], '--minimise goes only with --seed.'],
    [
      'simulate',
      ['--report', 'x', '--mix', 'full'],
      '--mix does not go with --report; no other option does.',
    ],
    ['simulate', ['--mix', 'full,brief'], '--mix takes one name, not "full,brief".'],
    ['simulate', ['--seed', '1', '--seed', '2'], '--seed is given twice.'],
    ['simulate', ['--part', '0'], '--part is for the processes that --jobs starts.'],
    [
      'chaos',
      ['--check', 'x', '--seconds', '9'],
      '--seconds does not go with --check; no other option does.',
    ],
    ['model', ['--only', ''], '--only is given without a value.'],
    ['mutants', ['--only', 'beat', '--only', 'margin'], '--only is given twice.'],
  ]
  for (const [command, typed, said] of wrong) {
    const { code, errors, output } = await run(command, typed)
    t.equal(code, 2, `${command} ${typed.join(' ')}`)
    t.equal(errors.split('\n')[0], said)
    t.equal(output, '')
  }
})

t.test('a campaign without a seed has not passed', async (t) => {
  const { code, output } = await run('simulate', ['--minutes', '0'])
  t.equal(code, 1)
  t.match(output, /^0 seeds,/)
})

t.test('a server that cannot be reached is named in one line, and no history is begun', async (t) => {
  const port = await freePort()
  for (const scheme of ['postgres', 'mysql', 'mssql']) {
    const typed = ['--database', `${scheme}://nobody:secret@127.0.0.1:${port}/none`]
    const { code, errors, output } = await run('chaos', typed)
    t.equal(code, 2, scheme)
    t.match(errors, new RegExp(`^--database: the server cannot be used: .*127\\.0\\.0\\.1:${port}.*\n$`))
    t.notMatch(errors, 'secret')
    t.equal(output, '')
  }
})

t.test('a number that is none, or not one of those that are meant, is refused', async (t) => {
  const wrong: readonly [Command, readonly string[], string][] = [
    ['simulate', ['--seeds', 'many'], '--seeds takes a whole number that is 1 or more, not "many".'],
    ['simulate', ['--seed', ''], '--seed takes a whole number from 0 to 4294967295, not "".'],
    ['simulate', ['--seed', '1.5'], '--seed takes a whole number from 0 to 4294967295, not "1.5".'],
    ['simulate', ['--minutes=-1'], '--minutes takes a number that is 0 or more, not "-1".'],
    ['mutants', ['--jobs=-1'], '--jobs takes a whole number that is 1 or more, not "-1".'],
    ['mutants', ['--jobs', '0'], '--jobs takes a whole number that is 1 or more, not "0".'],
    ['rules', ['--jobs', '0'], '--jobs takes a whole number that is 1 or more, not "0".'],
    ['model', ['--memory', '0.5'], '--memory takes a whole number that is 1 or more, not "0.5".'],
    ['chaos', ['--ttl', '3s'], '--ttl takes a whole number from 500 to 3600000, not "3s".'],
    [
      'chaos',
      ['--seed', '4294967296'],
      '--seed takes a whole number from 0 to 4294967295, not "4294967296".',
    ],
  ]
  for (const [command, typed, said] of wrong) {
    const { code, errors, output } = await run(command, typed)
    t.equal(code, 2, `${command} ${typed.join(' ')}`)
    t.equal(errors.split('\n')[0], said)
    t.equal(output, '')
  }
})

t.test('a seed that would repeat another, or a range that reaches one, is refused', async (t) => {
  const wrong: readonly [readonly string[], string][] = [
    [['--seed', '4294967296'], '--seed takes a whole number from 0 to 4294967295, not "4294967296".'],
    [['--from', '4294967296'], '--from takes a whole number from 0 to 4294967295, not "4294967296".'],
    [
      ['--from', '4294967295', '--seeds', '2'],
      '--from 4294967295 --seeds 2 ends at seed 4294967296; the last seed is 4294967295.',
    ],
  ]
  for (const [typed, said] of wrong) {
    const { code, errors, output } = await run('simulate', typed)
    t.equal(code, 2, typed.join(' '))
    t.equal(errors.split('\n')[0], said)
    t.equal(output, '')
  }
  for (const typed of [
    ['--seed', '4294967295'],
    ['--from', '4294967295', '--seeds', '1'],
  ]) {
    t.equal((await run('simulate', typed)).code, 0, typed.join(' '))
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

t.test(
  'a part of a name that none has is refused: nothing would be tried, and all would seem well',
  async (t) => {
    const wrong: readonly [Command, string, string][] = [
      ['mutants', 'the margin is 0|nonsense', 'No mutant has "nonsense" in its name.'],
      ['rules', 'nonsense', 'No rule has "nonsense" in its name.'],
      ['model', 'nonsense', 'No search that runs without --long has "nonsense" in its name.'],
    ]
    for (const [command, only, said] of wrong) {
      const { code, errors, output } = await run(command, ['--only', only])
      t.equal(code, 2, command)
      t.equal(errors.split('\n')[0], said)
      t.equal(output, '')
    }
  },
)

t.test('a database that there is not is refused, and no history is begun', async (t) => {
  for (const [database, why] of [
    ['nonsense', 'expected postgres, mariadb, sqlite, mysql, mssql or a URL, got "nonsense"'],
    ['mysql', 'TEST_MYSQL_URL names no server'],
  ] as const) {
    const { code, errors, output } = await run('chaos', ['--database', database], { TEST_MYSQL_URL: '' })
    t.equal(code, 2, database)
    t.equal(errors.split('\n')[0], `--database: ${why}.`)
    t.equal(output, '')
  }
})

t.test('a file that cannot be used is refused before anything begins', async (t) => {
  const nowhere = join(t.testdir(), 'no-folder', 'file')
  const wrong: readonly [Command, string][] = [
    ['simulate', '--report'],
    ['simulate', '--record'],
    ['chaos', '--check'],
    ['chaos', '--history'],
  ]
  for (const [command, option] of wrong) {
    const { code, errors, output } = await run(command, [option, nowhere])
    t.equal(code, 2, `${command} ${option}`)
    t.match(errors.split('\n')[0], new RegExp(`^${option}: ENOENT: .*no-folder`))
    t.notMatch(errors, /^ +at /m, 'no stack')
    t.equal(output, '')
  }
})

t.test('a file that is no history, or no record, is not judged to be without fault', async (t) => {
  const folder = t.testdir({ empty: '', prose: '# Not JSON\n', other: '{"t":"other"}\n' })
  for (const name of ['empty', 'prose', 'other']) {
    const file = join(folder, name)
    const checked = await run('chaos', ['--check', file])
    t.equal(checked.code, 2, `chaos --check ${name}`)
    t.equal(checked.errors.split('\n')[0], `--check: ${file} is no history of a campaign.`)
    t.equal(checked.output, '')
    const reported = await run('simulate', ['--report', file])
    t.equal(reported.code, 2, `simulate --report ${name}`)
    t.equal(reported.errors.split('\n')[0], `--report: ${file} is no record of a campaign.`)
    t.equal(reported.output, '')
  }
})

async function run(command: Command, typed: readonly string[], more: NodeJS.ProcessEnv = {}) {
  const file = fileURLToPath(new URL(`../${commands[command]}`, import.meta.url))
  const env = { ...process.env, NODE_OPTIONS: '', NODE_V8_COVERAGE: '', ...more }
  const child = spawn(process.execPath, [file, ...typed], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const [output, errors, code] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise<number | null>((resolve) => child.once('exit', resolve)),
  ])
  return { output, errors, code }
}
