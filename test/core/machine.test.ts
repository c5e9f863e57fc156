/** Tests, with real processes, how a node learns whether a process of its machine has ended. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { platform } from 'node:os'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { type Machine, thisMachine } from '../../plugin/core/watch/machine.js'
import { eventually } from '../support/eventually.js'

const machine = thisMachine()
const skip = platform() !== 'linux' && 'only Linux tells'

t.test('a process that runs, or is stopped, has not ended; one that is gone has', { skip }, async (t) => {
  const child = start(t, 'exec sleep 1000')
  const name = nameOf(child.pid)
  t.equal(here().hasEnded(here().process), false)
  t.equal(here().hasEnded(name), false)
  child.kill('SIGSTOP')
  await eventually(() => stateOf(child.pid) === 'T', { until: 'it is stopped' })
  t.equal(here().hasEnded(name), false, 'it may go on')
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.equal(here().hasEnded(name), true)
})

t.test('one that nobody has buried has ended all the same', { skip }, async (t) => {
  const parent = start(t, 'sleep 1000 & echo $!; exec sleep 1000')
  const [line] = await once(createInterface(lines(parent)), 'line')
  const pid = Number(line)
  const name = nameOf(pid)
  t.equal(here().hasEnded(name), false)
  // Until then its parent is a shell, which buries its children.
  const program = (): string => readFileSync(`/proc/${parent.pid}/comm`, 'utf8').trim()
  await eventually(() => program() === 'sleep', { until: 'its parent is no shell any more' })
  process.kill(pid, 'SIGKILL')
  await eventually(() => stateOf(pid) === 'Z', { until: 'it is a zombie' })
  t.equal(here().hasEnded(name), true)
})

t.test('another process under the same number is another one', { skip }, async (t) => {
  const [pid, startedAt] = here().process.split('@').map(Number)
  t.equal(here().hasEnded(`${pid}@${Number(startedAt) - 1}`), true)
})

t.test(
  'a process that sees the numbers of another namespace knows of nobody that has ended',
  {
    skip:
      skip ||
      (spawnSync('unshare', ['--pid', '--fork', 'true']).status !== 0 && 'no numbers can be set apart here'),
  },
  async (t) => {
    const module = new URL('../../plugin/core/watch/machine.js', import.meta.url)
    const program = `import { thisMachine } from '${module}'; console.log(typeof thisMachine())`
    const seenBy = (...options: string[]): string => {
      const evaluated = [process.execPath, '--input-type=module', '--eval', program]
      return execFileSync('unshare', ['--pid', '--fork', ...options, ...evaluated], {
        encoding: 'utf8',
      }).trim()
    }
    t.equal(seenBy(), 'undefined')
    t.equal(seenBy('--mount-proc'), 'object')
  },
)

t.test('what is no name of a process has not been seen to end', { skip }, async (t) => {
  const { pid } = process
  const unreadable = [`${pid}`, `${pid}@`, `${pid}@x`, `${pid}@NaN`, `${pid}@1.5`, `${pid}@1@1`]
  for (const name of ['', '@', '0@1', '-1@1', 'x@1', '1.5@1', ...unreadable])
    t.equal(here().hasEnded(name), false, name)
})

t.test(
  'processes that do not see the same start times are not on the same machine',
  {
    skip:
      skip || (spawnSync('unshare', ['--time', 'true']).status !== 0 && 'no clocks can be set apart here'),
  },
  async (t) => {
    const module = new URL('../../plugin/core/watch/machine.js', import.meta.url)
    const program = `import { thisMachine } from '${module}'; console.log(thisMachine().name)`
    const nameSeenBy = (...command: string[]): string => {
      const [first = '', ...rest] = [...command, process.execPath, '--input-type=module', '--eval', program]
      return execFileSync(first, rest, { encoding: 'utf8' }).trim()
    }
    // Other tests set up network interfaces meanwhile, whose addresses are part of the name.
    const isOurs = (): boolean => nameSeenBy() === thisMachine()?.name
    await eventually(isOurs, { until: 'a process like this one gives the same name' })
    t.not(nameSeenBy('unshare', '--time', '--boottime', '100000', '--fork'), here().name)
  },
)

function here(): Machine {
  if (machine === undefined) throw new Error('This machine cannot be told.')
  return machine
}

function start(t: Test, script: string): ChildProcess {
  const child = spawn('sh', ['-c', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  return child
}

function lines({ stdout }: ChildProcess): NonNullable<ChildProcess['stdout']> {
  if (stdout === null) throw new Error('It was started without an output.')
  return stdout
}

/** Returns the name of a process as the process itself gives it: its id and its start time. */
function nameOf(pid: number | undefined): string {
  return `${pid}@${fieldsOf(pid)[19]}`
}

function stateOf(pid: number | undefined): string | undefined {
  return fieldsOf(pid)[0]
}

function fieldsOf(pid: number | undefined): string[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  return text.slice(text.lastIndexOf(')') + 2).split(' ')
}
