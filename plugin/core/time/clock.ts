/**
 * Time, timers and randomness, as the engine sees them.
 *
 * Apart from the watchdog, this is the only file of the engine that uses the ambient ones. All other code is handed a
 * {@link Clock}, so that a test or a simulation can control time and chance. `test/tidy/layers.test.ts` enforces this.
 */
import { randomUUID } from 'node:crypto'
import { openSync, readSync } from 'node:fs'
import { platform, uptime } from 'node:os'

/**
 * An instant on the two clocks that nobody can set, in milliseconds since an unspecified origin. The monotonic clock is
 * exact but stands still while the machine is suspended; the boot-time clock runs on but is coarse. See `trust.ts` for
 * what has elapsed between two readings.
 */
export interface Reading {
  readonly monoMs: number
  readonly bootMs: number
}

/** A timer that has been set. Cancelling it twice, or after it has fired, is harmless. */
export interface Timer {
  cancel(): void
}

/** The world outside the engine, as far as time and randomness are concerned. */
export interface Clock {
  /** Reads both clocks. */
  read(): Reading
  /** Calls `fire` once after `delayMs` (0 or more). Never calls it synchronously. */
  setTimer(delayMs: number, fire: () => void): Timer
  /** Returns a number in [0, 1), for jitter. */
  random(): number
  /** Returns a new identifier for a session. */
  uuid(): string
}

/** `setTimeout` turns a longer delay into 1 ms; a longer timer is set again when this much has passed. */
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

/** The open file `/proc/uptime`, and a buffer for its content. Linux only. */
let uptimeFile: number | undefined
const uptimeText = Buffer.alloc(64)

/**
 * Returns the milliseconds since the machine was booted, including those in which it was suspended. Returns undefined
 * on macOS, where the monotonic clock itself runs on during sleep, and this one counts whole seconds: too coarse for
 * short trust windows. Node's own `uptime()` opens the file anew each time, which takes three times as long, and work
 * that checks its lease before each step calls this often.
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
