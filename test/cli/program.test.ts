/** Tests the command line as a program of its own. What it says is tested in `cli.test.ts`. */
import { execFile, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync } from 'node:fs'
import { userInfo } from 'node:os'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { eachDatabase, usePostgres, useSqlite } from '../support/databases.js'
import { type Ended, key, nodeAtWork } from './scene.js'

// For all of them together: on a server that is slow to become ready, each test takes many seconds.
t.setTimeout(600_000)

const path = fileURLToPath(new URL('../../plugin/cli/main.js', import.meta.url))

function program(database: string, ...typed: readonly string[]): Promise<Ended> {
  return ended(database, process.execPath, [path, ...typed])
}

/**
 * Runs it as the user of this number. What tap puts into NODE_OPTIONS would write where that user may not.
 */
function programAs(id: number, database: string, ...typed: readonly string[]): Promise<Ended> {
  const typedWhole = ['-u', 'NODE_OPTIONS', process.execPath, path, ...typed]
  return ended(database, 'env', typedWhole, { uid: id, gid: id })
}

function ended(
  database: string,
  file: string,
  typed: readonly string[],
  user: { readonly uid?: number; readonly gid?: number } = {},
): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(file, typed, { ...user, env: bare(database) }, (error, out, err) =>
      resolve({ code: typeof error?.code === 'number' ? error.code : 0, out, err }),
    )
  })
}

/** Returns this process's environment without what tap adds to it. */
function bare(database: string): NodeJS.ProcessEnv {
  return { ...process.env, NODE_OPTIONS: '', NODE_V8_COVERAGE: '', DATABASE_URL: database }
}

t.test('every command ends by itself, with its code, and says nothing aside', (t) =>
  eachDatabase(t, async (t, database) => {
    const why = ['--reason', 'a deploy']
    t.match(await program(database.url, 'migrate'), { code: 0, out: 'The tables are up to date.\n', err: '' })
    const coordinator = await nodeAtWork(t, database)
    const runs: [string[], code: number, out: RegExp][] = [
      [['status'], 0, /^n1 +c1 +active /m],
      [['leaders', '--json'], 0, /"node": "n1"/],
      [['explain', key], 0, /^n1 \(c1\) has held it/],
      [
        ['release', key, '--token', '1', ...why],
        1,
        /^Nothing was released: by now n1 holds it, with token \d+\.$/m,
      ],
      [['pause', key, ...why], 0, /^Nobody runs it/],
      [['resume', key], 0, /^Its nodes run it again\./],
      [['drain', 'n1', ...why], 0, /^It hands over/],
      [['undrain', 'n1'], 0, /^It takes part again\./],
      [['check', '--preset', 'relaxed'], 0, /^ok +connection and tables/m],
    ]
    for (const [typed, code, out] of runs)
      t.match(await program(database.url, ...typed), { code, out, err: '' }, typed.join(' '))
    const asked = await program(database.url, 'elect')
    t.match(asked, { code: 2, out: '', err: /^There is no command "elect"/ })
    const [paused] = await coordinator.operator.events({ types: ['worker.paused'], limit: 1 })
    t.equal(paused?.actor, userInfo().username)
  }),
)

t.test(
  'a user whom this machine has no name for can do all of it, and is written down by number',
  { skip: process.geteuid?.() === 0 ? false : 'only root can run something as another user' },
  async (t) => {
    const database = await usePostgres(t)
    const coordinator = await nodeAtWork(t, database)
    const nameless = (...typed: string[]): Promise<Ended> => programAs(54_321, database.url, ...typed)
    t.match(await nameless('--help'), { code: 0, out: /^Usage/, err: '' })
    t.match(await nameless('status'), { code: 0, out: /^n1 /m, err: '' })
    t.match(await nameless('pause', key, '--reason', 'a deploy'), { code: 0, err: '' })
    t.match(await nameless('resume', key, '--reason', 'a deploy', '--actor', 'mira'), { code: 0, err: '' })
    const events = await coordinator.operator.events({
      limit: 100,
      types: ['worker.paused', 'worker.resumed'],
    })
    t.strictSame(
      events.map(({ actor }) => actor),
      ['mira', 'uid 54321'],
    )
  },
)

t.test('colours are for people who look at a terminal', async (t) => {
  const { url } = await useSqlite(t)
  await program(url, 'migrate')
  const onTerminal = (environment: Readonly<Record<string, string>>): Promise<string> =>
    new Promise((resolve) => {
      const command = `'${process.execPath}' '${path}' check`
      const env = { ...bare(url), NO_COLOR: '', ...environment }
      execFile('script', ['-qec', command, '/dev/null'], { env }, (_error, out) => resolve(out))
    })
  t.match(await onTerminal({}), '\u001b[32mok')
  t.notMatch(await onTerminal({ NO_COLOR: '1' }), '\u001b')
  t.notMatch((await program(url, 'check')).out, '\u001b')
})

t.test(
  'an answer that cannot be written is no answer',
  { skip: existsSync('/dev/full') ? false : 'only Linux has a file that is always full' },
  async (t) => {
    const { url } = await useSqlite(t)
    const file = openSync('/dev/full', 'w')
    t.teardown(() => closeSync(file))
    const ended = async (full: 'out' | 'err' | 'both', ...typed: string[]): Promise<unknown[]> => {
      const stdio = (name: 'out' | 'err') => (full === name || full === 'both' ? file : 'pipe')
      const child = spawn(process.execPath, [path, ...typed], {
        env: bare(url),
        stdio: ['ignore', stdio('out'), stdio('err')],
      })
      let said = ''
      for (const output of [child.stdout, child.stderr])
        output?.on('data', (chunk: Buffer) => {
          said += chunk.toString()
        })
      return [await new Promise((resolve) => child.once('close', resolve)), said]
    }
    const said =
      'The answer could not be written: ENOSPC: no space left on device, write. What was asked for may have been done.\n'
    t.strictSame(await ended('out', 'migrate'), [4, said])
    t.strictSame(await ended('out', 'status'), [4, said])
    t.strictSame(await ended('both', 'status'), [4, ''])
    t.strictSame(
      await ended('err', 'elect'),
      [2, ''],
      'nobody can be told, and the code is that of what happened',
    )
  },
)

t.test('who reads no further ends it quietly', async (t) => {
  const ended = async (end: 'stdout' | 'stderr', ...typed: string[]): Promise<unknown[]> => {
    const child = spawn(process.execPath, [path, ...typed], { stdio: ['ignore', 'pipe', 'pipe'] })
    child[end].destroy()
    let said = ''
    child[end === 'stdout' ? 'stderr' : 'stdout'].on('data', (chunk: Buffer) => {
      said += chunk.toString()
    })
    return [await new Promise((resolve) => child.once('close', resolve)), said]
  }
  t.strictSame(await ended('stdout', '--help'), [0, ''])
  t.strictSame(await ended('stderr', 'elect'), [2, ''], 'the code is that of what happened')
})
