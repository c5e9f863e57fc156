/**
 * Time, timers and chance, as the engine sees them.
 *
 * This is the only file of the engine that touches the ambient ones: everything else is handed a
 * {@link Clock}, so that a test or a simulation can be the world. `test/tidy/layers.test.ts` keeps
 * it so.
 */
import { randomUUID } from 'node:crypto'
import { openSync, readSync } from 'node:fs'
import { platform, uptime } from 'node:os'

/**
 * An instant on the two clocks nobody can set, in milliseconds since some unknown origin.
 *
 * The monotonic clock is exact but stands still while the machine is suspended; the boot-time clock
 * runs on but is coarse. What has elapsed between two readings is the larger of the two
 * differences (see `trust.ts`).
 */
export interface Reading {
  readonly monoMs: number
  readonly bootMs: number
}

/** A timer that has been set. Cancelling it twice, or after it fired, is harmless. */
export interface Timer {
  cancel(): void
}

/** The world outside the engine, as far as time and chance go. */
export interface Clock {
  /** Reads both clocks now. */
  read(): Reading
  /** Calls `fire` once after `delayMs` (0 or more). Never calls it synchronously. */
  setTimer(delayMs: number, fire: () => void): Timer
  /** A number in [0, 1), for jitter. */
  random(): number
  /** A fresh identifier for a session. */
  uuid(): string
}

/** `setTimeout` turns a longer delay into 1 ms; a timer beyond it is set again when it comes due. */
const longestTimeoutMs = 2 ** 31 - 1

/** The clock of the machine. A timer keeps the process alive until it fires or is cancelled. */
export const systemClock: Clock = {
  read: readSystemClocks,
  setTimer: setSystemTimer,
  random: Math.random,
  uuid: randomUUID,
}

function readSystemClocks(): Reading {
  const monoMs = performance.now()
  return { monoMs, bootMs: bootMs() ?? monoMs }
}

/** An open file of Linux's `proc`, and room for what it says. */
let uptimeFile: number | undefined
const uptimeText = Buffer.alloc(64)

/**
 * Milliseconds since the machine was booted, also those in which it was suspended. Undefined on macOS, where the monotonic
 * clock runs on during sleep by itself, and this one counts whole seconds, which would be too coarse for short
 * trust windows. Node's own `uptime()` opens the file anew each time, which takes three times as long; and work that asks
 * before each step whether it may go on asks often.
 */
export function bootMs(): number | undefined {
  if (platform() === 'darwin') return undefined
  if (platform() !== 'linux') return uptime() * 1_000
  try {
    uptimeFile ??= openSync('/proc/uptime', 'r')
    const length = readSync(uptimeFile, uptimeText, 0, uptimeText.length, 0)
    return Number.parseFloat(uptimeText.toString('latin1', 0, length)) * 1_000
  } catch {
    return uptime() * 1_000
  }
}

function setSystemTimer(delayMs: number, fire: () => void): Timer {
  let remainingMs = Math.max(0, delayMs)
  let handle: NodeJS.Timeout
  const arm = (): void => {
    const stepMs = Math.min(remainingMs, longestTimeoutMs)
    remainingMs -= stepMs
    handle = setTimeout(() => (remainingMs > 0 ? arm() : fire()), stepMs)
  }
  arm()
  return { cancel: () => clearTimeout(handle) }
}
