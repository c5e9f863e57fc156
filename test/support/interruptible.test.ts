/** The commands beside the tests, asked to end: each ends by the signal, and leaves no process and no file behind. */
import { spawn, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { eventually, latest } from './eventually.js'

t.setTimeout(300_000)

const withoutProc = existsSync('/proc/self/environ') ? false : 'there is no /proc'
const missing = ['spin', 'cc'].filter((program) => spawnSync(program, ['--version']).error !== undefined)

type Case = readonly [file: string, typed: readonly string[], started: string]

/** Each command with its arguments, and a part of the command line of a process that it must have started. */
const cases: Readonly<Record<string, Case>> = {
  model: ['model/run.js', ['--long', '--only', 'safety, late answers, all faults'], './pan'],
  simulate: ['simulation/simulate.js', ['--seeds', '1000000', '--jobs', '2'], '--part'],
  mutants: ['mutants/run.js', ['--only', 'trust counts from the answer'], 'core/session.test.js'],
  rules: ['http/without-rules.js', ['--only', 'streams per'], 'stream.test.js'],
  chaos: ['chaos/main.js', ['--database', 'sqlite', '--nodes', '2'], 'chaos/node.js'],
}

for (const [command, given] of Object.entries(cases)) {
  const skip = withoutProc || (command === 'model' && missing.length > 0 && `${missing} cannot be found`)
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    t.test(`${command} leaves nothing behind after ${signal}`, { skip }, async (t) => {
      const { child, ended, nothingIsLeft } = await begin(t, given, process.execPath, [])
      child.kill(signal)
      t.same(await ended, [null, signal], 'it ends by the signal')
      await nothingIsLeft()
    })
}

t.test('a command ends with the npm that has started it', { skip: withoutProc }, async (t) => {
  const script = ['-c', '"$0" "$@"; true', process.execPath]
  const given = cases.chaos
  if (given === undefined) throw new Error('there is no such command')
  const { child, nothingIsLeft } = await begin(t, given, 'sh', script, { npm_lifecycle_event: 'chaos' })
  child.kill('SIGKILL')
  await nothingIsLeft()
})

/** Starts a command, and waits until the process is there that it must start. */
async function begin(
  t: Test,
  [file, typed, started]: Case,
  program: string,
  before: readonly string[],
  more: NodeJS.ProcessEnv = {},
) {
  const mark = randomUUID()
  const folder = mkdtempSync(join(tmpdir(), 'coordination-left-'))
  // As root a server runs as another user, which must be able to reach its data through this folder.
  chmodSync(folder, 0o755)
  t.teardown(() => {
    for (const { pid } of marked(mark)) process.kill(pid, 'SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  })
  const env = {
    ...process.env,
    NODE_OPTIONS: '',
    NODE_V8_COVERAGE: '',
    TMPDIR: folder,
    LEFT_BY: mark,
    ...more,
  }
  const path = fileURLToPath(new URL(`../${file}`, import.meta.url))
  const kept = file.startsWith('chaos') ? ['history'] : []
  const history = kept.flatMap((name) => ['--history', join(folder, name)])
  const child = spawn(program, [...before, path, ...typed, ...history], { env, stdio: 'ignore' })
  const ended = once(child, 'exit')
  await eventually(() => marked(mark).some(({ line }) => line.includes(started)), {
    ...{ timeoutMs: 90_000, everyMs: 50, until: `${started} runs` },
  })
  const nothingIsLeft = async (): Promise<void> => {
    t.same(
      await latest(
        () => marked(mark),
        ({ length }) => length === 0,
      ),
      [],
      'no process is left',
    )
    t.same(readdirSync(folder), kept, 'no file is left')
  }
  return { child, ended, nothingIsLeft }
}

/** Returns the processes in whose environment the mark is. */
function marked(mark: string): { readonly pid: number; readonly line: string }[] {
  return readdirSync('/proc').flatMap((name) => {
    try {
      if (!readFileSync(`/proc/${name}/environ`, 'utf8').includes(mark)) return []
      return [
        { pid: Number(name), line: readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ') },
      ]
    } catch {
      return []
    }
  })
}
