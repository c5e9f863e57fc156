/**
 * Ends this process when its event loop stands still for longer than it may act.
 *
 * No timer fires and no signal aborts while the loop is blocked, so code that never yields would work on under
 * leases that others have by then. A thread of its own sees the time go by all the same: it is told how
 * far trust reaches, and kills the process when that has passed and nobody here has noticed.
 *
 *     heartbeat sent                    trust ends         killed           burial by anybody, at the earliest
 *     ├─────────────────────────────────────┤◄─ margin / 2 ─►│                    │
 *
 * A loop that turns notices by itself, ends what it holds, and calls the watchdog off. That it is given half a
 * margin for that keeps a loop that is merely busy for a moment alive; the other half is left for the
 * thread to be scheduled. The margin begins to count where trust ends, so nobody else has begun.
 */
import { Worker } from 'node:worker_threads'
import type { Log } from '../log.js'
import { bootMs } from '../time/clock.js'
import type { Timing } from '../time/timing.js'

/** What the watchdog is told. */
export interface Watchdog {
  /** Leases may be acted on for so much longer, counted from now, in milliseconds. */
  trustFor(leftMs: number): void
  /** A lease is held from now on. While none is, nothing is watched. */
  leaseBegan(): void
  /** Nothing acts on a lease any more that was said to be held. */
  leaseEnded(): void
  /** The thread ends. */
  stop(): void
}

/** What the thread is given. */
export interface WatchdogOrder {
  readonly memory: SharedArrayBuffer
  /** Timers stand still while the machine is suspended: the boot-time clock is looked at this often. */
  readonly lookEveryMs: number
  /** Who it is that ends, for the last line. */
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
    // What the application runs under, a loader say, is not for this thread: it must do with little.
    execArgv: [],
    env: {},
    resourceLimits: { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2 },
  })
  thread.unref()
  thread.on('error', (error) =>
    log.error({ err: error }, 'the watchdog has failed: an event loop that is blocked is not ended any more'),
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

/** What the main thread writes and the watchdog's reads, without either waiting for the other. */
export class SharedDeadline {
  readonly memory: SharedArrayBuffer
  /** By the monotonic and by the boot-time clock, in microseconds: whichever comes first. */
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

  /** A deadline so many milliseconds from now. The thread learns of it when the one before has come. */
  set(leftMs: number): void {
    const left = BigInt(Math.round(leftMs * 1_000))
    readClocks().forEach((now, index) => {
      Atomics.store(this.#deadlines, index, now + left)
    })
  }

  /** What is left, in milliseconds, by the clock that leaves less. */
  leftMs(): number {
    const left = readClocks().map((now, index) => Number(Atomics.load(this.#deadlines, index) - now))
    return Math.min(...left) / 1_000
  }

  /** Blocks the calling thread for so long, or until the state is another one. */
  waitWhile(state: (typeof states)[number], ms: number): void {
    Atomics.wait(this.#state, 0, states.indexOf(state), ms)
  }
}

/** Both clocks in microseconds, the same in all threads, as those of `performance` are not. */
function readClocks(): readonly [bigint, bigint] {
  const monotonic = process.hrtime.bigint() / 1_000n
  const boot = bootMs()
  return [monotonic, boot === undefined ? monotonic : BigInt(Math.round(boot * 1_000))]
}
