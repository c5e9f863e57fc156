/**
 * The machine this process runs on, as far as it can tell whether other processes there have ended.
 *
 * Silence proves nothing: a process may be stopped, starved or cut off, and go on. But that the kernel both run on
 * knows no such process any more does prove that it has ended.
 */
import { createHash } from 'node:crypto'
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs'
import { hostname, networkInterfaces } from 'node:os'

/** What can be known of the processes beside this one. */
export interface Machine {
  /** The same for processes that can see one another, and different for any two that cannot. */
  readonly name: string
  /** Names this process among all that ever ran there. */
  readonly process: string
  /** Whether a process there has certainly ended. A process that is merely silent has not. */
  hasEnded(process: string): boolean
}

/**
 * This machine, where it can be told: on Linux, from its `/proc`. A boot of the kernel and a namespace of
 * process ids are the same for all who can see one another, and only within one namespace of clocks do they see the same
 * start times. A running virtual machine that is cloned takes all of these along; so the host's name and its network addresses,
 * which clones are given anew, are part of the name, too.
 */
export function thisMachine(): Machine | undefined {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    const processes = readlinkSync('/proc/self/ns/pid')
    const { pid } = process
    return {
      name: digest([boot, processes, clocks(), hostname(), ...hardwareAddresses()]),
      process: `${pid}@${statOf(pid).startedAt}`,
      hasEnded,
    }
  } catch {
    return undefined
  }
}

/** The namespace of clocks; none in kernels before 5.6, where all processes go by the same. */
function clocks(): string {
  return readdirSync('/proc/self/ns').includes('time') ? readlinkSync('/proc/self/ns/time') : ''
}

/**
 * A process id may be given again, so its start time, in ticks since boot, must be the same. A process whose
 * entry cannot be read, because it is another user's, has not been seen to end.
 */
function hasEnded(name: string): boolean {
  const [, pid, startedAt] = /^([1-9]\d*)@(\d+)$/.exec(name)?.map(Number) ?? []
  if (pid === undefined) return false
  try {
    const stat = statOf(pid)
    return stat.startedAt !== startedAt || (stat.state === 'Z' && threadsOf(pid) === 1)
  } catch {
    return isUnknown(pid)
  }
}

/** Signal 0 reaches nobody. It is refused for a process of another user, and fails only where there is none. */
function isUnknown(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return false
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ESRCH'
  }
}

/** The second field is the program's name in parentheses, and may contain anything. */
function statOf(pid: number): { readonly state: string; readonly startedAt: number } {
  const text = statText(pid)
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const [state = '', startedAt] = [fields[0], Number(fields[19])]
  if (!Number.isInteger(startedAt)) throw new Error(`/proc/${pid}/stat: expected a start time, got ${text}`)
  return { state, startedAt }
}

/** A name has 16 bytes at most, and each of the fifty numbers fewer than 20 digits. */
const statBytes = Buffer.alloc(2_048)

/** Several times each second, so by hand: `readFileSync` takes twice as long for so short a file. */
function statText(pid: number): string {
  const file = openSync(`/proc/${pid}/stat`, 'r')
  try {
    return statBytes.toString('latin1', 0, readSync(file, statBytes, 0, statBytes.length, 0))
  } finally {
    closeSync(file)
  }
}

/** A process whose first thread has ended may have others that go on. */
function threadsOf(pid: number): number {
  return readdirSync(`/proc/${pid}/task`).length
}

function hardwareAddresses(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? [])
  return [...new Set(all.map(({ mac }) => mac))].sort()
}

function digest(parts: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('base64url')
}
