/**
 * The machine this process runs on, as far as it can tell whether other processes there have ended.
 *
 * Silence proves nothing: a process may be stopped, starved or cut off, and then go on. But a process that the kernel
 * of both no longer knows has certainly ended.
 */
import { createHash } from 'node:crypto'
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs'
import { hostname, networkInterfaces } from 'node:os'

/** What can be known of the other processes on this machine. */
export interface Machine {
  /** The same for processes that can see one another, and different for any two that cannot. */
  readonly name: string
  /** Identifies this process among all that ever ran there. */
  readonly process: string
  /** Returns whether a process there has certainly ended. A process that is merely silent has not. */
  hasEnded(process: string): boolean
}

/**
 * Returns this machine, or undefined where it cannot be identified. Reads Linux's `/proc`.
 *
 * Processes that can see one another share a boot of the kernel and a namespace of process ids, and they see the same
 * start times only within one namespace of clocks. A clone of a running virtual machine has all of these in common with
 * the original, but is given a new host name and network addresses; so these are part of the name, too.
 */
export function thisMachine(): Machine | undefined {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    const processes = readlinkSync('/proc/self/ns/pid')
    const { pid } = process
    // In a namespace of its own without a `/proc` of its own, numbers there would lead to other processes.
    if (readlinkSync('/proc/self') !== String(pid)) return undefined
    return {
      name: digest([boot, processes, clocks(), hostname(), ...hardwareAddresses()]),
      process: `${pid}@${statOf(pid).startedAt}`,
      hasEnded,
    }
  } catch {
    return undefined
  }
}

/** The namespace of clocks; empty in kernels before 5.6, where all processes share one. */
function clocks(): string {
  return readdirSync('/proc/self/ns').includes('time') ? readlinkSync('/proc/self/ns/time') : ''
}

/**
 * Compares start times, in ticks since boot, because process ids are reused. A process whose entry cannot be read,
 * because it is another user's, has not been seen to end.
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
 * Returns whether there is no such process. Signal 0 is not delivered; it is refused for a process of another user, and
 * fails with ESRCH only where there is none.
 */
function isUnknown(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return false
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ESRCH'
  }
}

/** The second field is the program's name in parentheses, and may contain any character. */
function statOf(pid: number): { readonly state: string; readonly startedAt: number } {
  const text = statText(pid)
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const [state = '', startedAt] = [fields[0], Number(fields[19])]
  if (!Number.isInteger(startedAt)) throw new Error(`/proc/${pid}/stat: expected a start time, got ${text}`)
  return { state, startedAt }
}

/** Large enough: a name has at most 16 bytes, and each of the fifty numbers fewer than 20 digits. */
const statBytes = Buffer.alloc(2_048)

/** By hand, because it runs several times a second: `readFileSync` takes twice as long for so short a file. */
function statText(pid: number): string {
  const file = openSync(`/proc/${pid}/stat`, 'r')
  try {
    return statBytes.toString('latin1', 0, readSync(file, statBytes, 0, statBytes.length, 0))
  } finally {
    closeSync(file)
  }
}

/** Returns the number of threads: when the first thread of a process has ended, others may go on. */
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
