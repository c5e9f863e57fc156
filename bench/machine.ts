/**
 * Reads from the kernel the CPU time and memory of processes, including their children.
 *
 * CPU time is reliable on a busy machine, unlike latencies and closed loops. Ratios of cost are therefore computed from
 * it.
 */
import { readdirSync, readFileSync } from 'node:fs'

/** Returns the CPU time of a process and all its children, running and reaped, in ms. */
export function cpuMsOf(pid: number): number {
  return withChildren(pid).reduce((sum, each) => sum + ownCpuMs(each) + reapedCpuMs(each), 0)
}

/** Returns the memory of a process and its children in MB. Memory that several of them share is counted once. */
export function memoryMbOf(pid: number): number {
  const kilobytes = withChildren(pid).map((each) => {
    const found = /^Pss:\s+(\d+)/m.exec(read(`/proc/${each}/smaps_rollup`))
    return Number(found?.[1] ?? 0)
  })
  return kilobytes.reduce((sum, each) => sum + each, 0) / 1_024
}

/** Returns a function that returns how busy all cores have been since its last call, from 0 to 1. */
export function busyness(): () => number {
  let before = cores()
  return () => {
    const now = cores()
    const busy = 1 - (now.idle - before.idle) / Math.max(1, now.all - before.all)
    before = now
    return busy
  }
}

function withChildren(pid: number): number[] {
  const children = new Map<number, number[]>()
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    const parent = Number(statOf(Number(entry))[1])
    children.set(parent, [...(children.get(parent) ?? []), Number(entry)])
  }
  const found = [pid]
  for (const each of found) found.push(...(children.get(each) ?? []))
  return found
}

/** The kernel reports it in nanoseconds for each thread; `stat` counts in hundredths of a second. */
function ownCpuMs(pid: number): number {
  const folder = `/proc/${pid}/task`
  const threads = quietly(() => readdirSync(folder)) ?? []
  return threads.reduce((sum, thread) => {
    const [ranNs = '0'] = read(`${folder}/${thread}/schedstat`).split(' ')
    return sum + Number(ranNs) / 1e6
  }, 0)
}

/** Returns the CPU time of children that have ended. */
function reapedCpuMs(pid: number): number {
  const fields = statOf(pid)
  return (Number(fields[13] ?? 0) + Number(fields[14] ?? 0)) * 10
}

/** Returns the fields of `stat` from the third on. The second, the name, may contain anything. */
function statOf(pid: number): string[] {
  const text = read(`/proc/${pid}/stat`)
  return text.slice(text.lastIndexOf(')') + 2).split(' ')
}

function cores(): { idle: number; all: number } {
  const [, ...ticks] = (read('/proc/stat').split('\n')[0] ?? '').split(/\s+/)
  const numbers = ticks.map(Number)
  return { idle: (numbers[3] ?? 0) + (numbers[4] ?? 0), all: numbers.reduce((sum, each) => sum + each, 0) }
}

function read(path: string): string {
  return quietly(() => readFileSync(path, 'utf8')) ?? ''
}

/** A process may end while it is examined. */
function quietly<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch {
    return undefined
  }
}
