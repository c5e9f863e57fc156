/**
 * The machine this process runs on, insofar as it can tell whether other processes there have ended.
 *
 * Silence proves nothing: a process may be stopped, starved or cut off, and then continue. But if the kernel that both
 * processes run on no longer knows a process, that process has certainly ended.
 */
import { createHash } from 'node:crypto'
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs'
import { hostname, networkInterfaces } from 'node:os'

/** What can be known of the other processes on this machine. */
export interface Machine {
  /** The same for processes that can see one another, and different for any two that cannot. */
  readonly name: string
  /** Identifies this process among all that ever ran on this machine. */
  readonly process: string
  /** Returns whether a process on this machine has certainly ended. A process that is merely silent has not. */
  hasEnded(process: string): boolean
}

/**
 * Returns this machine, or undefined where it cannot be identified. Works on Linux, by reading `/proc`.
 *
 * All processes that can see one another share a boot of the kernel and a namespace of process ids, and they see the
 * same start times only within one namespace of clocks. A clone of a running virtual machine copies all of these. So
 * the name also contains the host's name and its network addresses, which a clone is given anew.
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

/** Returns the namespace of clocks; empty in kernels before 5.6, where all processes share one. */
function clocks(): string {
  return readdirSync('/proc/self/ns').includes('time') ? readlinkSync('/proc/self/ns/time') : ''
}

/**
 * Compares start times, in ticks since boot, because a process id may be reused. A process whose entry cannot be read,
 * for example because it belongs to another user, counts as running unless the kernel denies that it exists.
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

/**
 * Returns whether the kernel knows no such process. Signal 0 is not delivered to any process; sending it to a process
 * of another user is refused, and only where no such process exists does it fail with ESRCH.
 */
function isUnknown(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return false
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ESRCH'
  }
}

/**
 * Parses `/proc/<pid>/stat`. Its second field is the program's name in parentheses, which may contain any character.
 */
function statOf(pid: number): { readonly state: string; readonly startedAt: number } {
  const text = statText(pid)
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const [state = '', startedAt] = [fields[0], Number(fields[19])]
  if (!Number.isInteger(startedAt)) throw new Error(`/proc/${pid}/stat: expected a start time, got ${text}`)
  return { state, startedAt }
}

/** Large enough: a name has at most 16 bytes, and each of the fifty numbers fewer than 20 digits. */
const statBytes = Buffer.alloc(2_048)

/**
 * Reads by hand because this runs several times each second, and `readFileSync` takes twice as long for so short a
 * file.
 */
function statText(pid: number): string {
  const file = openSync(`/proc/${pid}/stat`, 'r')
  try {
    return statBytes.toString('latin1', 0, readSync(file, statBytes, 0, statBytes.length, 0))
  } finally {
    closeSync(file)
  }
}

/** Returns the number of threads. When the first thread of a process has ended, others may go on. */
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
