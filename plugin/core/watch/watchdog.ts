/**
 * Ends this process when its event loop stands still for longer than it may act.
 *
 * While the loop is blocked, no timer fires and no signal aborts, so code that never yields would work on under leases
 * that other nodes have by then. A separate thread is told how far trust reaches, and kills the process when that time
 * has passed and the main thread has not noticed.
 *
 *     heartbeat sent                    trust ends         killed           burial by anybody, at the earliest
 *     ├─────────────────────────────────────┤◄─ margin / 2 ─►│                    │
 *
 * An event loop that turns notices by itself, ends what it holds, and calls the watchdog off. It has half a margin for
 * that, so that a loop that is merely busy for a moment is not killed. The other half is left for the thread to be
 * scheduled. The margin begins where trust ends, so no other node has begun yet.
 */
import { Worker } from 'node:worker_threads'
import type { Log } from '../log.js'
import { bootMs } from '../time/clock.js'
import type { Timing } from '../time/timing.js'

/** What the engine tells the watchdog. */
export interface Watchdog {
  /** This process may act on its leases for this much longer, counted from now, in milliseconds. */
  trustFor(leftMs: number): void
  /** A lease is held from now on. While none is, nothing is watched. */
  leaseBegan(): void
  /** A lease that was said to be held has ended. */
  leaseEnded(): void
  /** Ends the thread. */
  stop(): void
}

/** What the thread is given. */
export interface WatchdogOrder {
  readonly memory: SharedArrayBuffer
  /** How often the boot-time clock is checked, because timers stand still while the machine is suspended. */
  readonly lookEveryMs: number
  /** The name of this node, for the last line. */
  readonly node: string
}

/** Starts the thread. It does not keep the process alive. */
export function startWatchdog(node: string, timing: Pick<Timing, 'marginMs'>, log: Log): Watchdog {
  const { marginMs } = timing
  const shared = new SharedDeadline()
  const order: WatchdogOrder = { memory: shared.memory, lookEveryMs: marginMs / 4, node }
  const thread = new Worker(new URL('./watchdog-thread.js', import.meta.url), {
    workerData: order,
    name: 'coordination-watchdog',
    // The application's own Node options, a loader for example, are not for this thread, which has little memory.
    execArgv: [],
    env: {},
    resourceLimits: { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2 },
  })
  thread.unref()
  thread.on('error', (error) =>
    log.error({ err: error }, 'the watchdog has failed: if the event loop blocks, this process is not ended'),
  )
  let held = 0
  return {
    trustFor: (leftMs) => shared.set(leftMs + marginMs / 2),
    leaseBegan() {
      held += 1
      if (held === 1) shared.become('armed')
    },
    leaseEnded() {
      held -= 1
      if (held === 0) shared.become('resting')
    },
    stop: () => shared.become('over'),
  }
}

const states = ['resting', 'armed', 'over'] as const

/** What the main thread writes and the watchdog's thread reads, without either waiting for the other. */
export class SharedDeadline {
  readonly memory: SharedArrayBuffer
  /** By the monotonic and by the boot-time clock, in microseconds; whichever comes first counts. */
  readonly #deadlines: BigInt64Array
  readonly #state: Int32Array

  constructor(memory = new SharedArrayBuffer(24)) {
    this.memory = memory
    this.#deadlines = new BigInt64Array(memory, 0, 2)
    this.#state = new Int32Array(memory, 16, 1)
  }

  get state(): (typeof states)[number] {
    return states[Atomics.load(this.#state, 0)] ?? 'over'
  }

  become(state: (typeof states)[number]): void {
    Atomics.store(this.#state, 0, states.indexOf(state))
    Atomics.notify(this.#state, 0)
  }

  /** Sets the deadline this many milliseconds from now. The thread learns of it when the previous deadline has come. */
  set(leftMs: number): void {
    const left = BigInt(Math.round(leftMs * 1_000))
    readClocks().forEach((now, index) => {
      Atomics.store(this.#deadlines, index, now + left)
    })
  }

  /** Returns what is left, in milliseconds, by the clock that leaves less. */
  leftMs(): number {
    const left = readClocks().map((now, index) => Number(Atomics.load(this.#deadlines, index) - now))
    return Math.min(...left) / 1_000
  }

  /** Blocks the calling thread for this long, or until the state changes. */
  waitWhile(state: (typeof states)[number], ms: number): void {
    Atomics.wait(this.#state, 0, states.indexOf(state), ms)
  }
}

/** Reads both clocks, in microseconds. They are the same in all threads, which those of `performance` are not. */
function readClocks(): readonly [bigint, bigint] {
  const monotonic = process.hrtime.bigint() / 1_000n
  const boot = bootMs()
  return [monotonic, boot === undefined ? monotonic : BigInt(Math.round(boot * 1_000))]
}
