/** A process in a simulated world: its clocks, its timers, and whether it is scheduled. */
import type { Clock, Reading, Timer } from '../../plugin/core/time/clock.js'
import type { Chance, Scheduler } from './scheduler.js'

/** How a process stands still. */
export type Standstill = 'paused' | 'suspended'

interface Armed {
  over: boolean
  readonly counted: boolean
}

/** The properties of a machine's clocks. */
export interface ClockTraits {
  /** Local milliseconds per true millisecond. */
  readonly rate: number
  /** The most by which timers fire late, in ms. */
  readonly latestTimerMs: number
}

/**
 * One life of one process, and the clock of its engine. Everything that reaches the engine goes through
 * {@link SimulatedProcess.deliver}, and nothing does while the process is paused, suspended or dead.
 */
export class SimulatedProcess implements Clock {
  readonly label: string
  /** Timers of the engine that have neither fired nor been cancelled. */
  timers = 0
  dead = false
  /** The time since when it has been running, neither paused nor suspended. */
  calmSinceMs: number
  readonly #scheduler: Scheduler
  readonly #chance: Chance
  readonly #clocks: ClockTraits
  /** When it started, in true time. */
  readonly bornMs: number
  readonly #originMs: number
  readonly #failed: (error: unknown) => void
  #standstill: Standstill | undefined
  #standsSinceMs = 0
  #suspendedMs = 0
  #waiting: (() => void)[] = []
  #ids = 0

  constructor(
    label: string,
    scheduler: Scheduler,
    chance: Chance,
    clocks: ClockTraits,
    failed: (error: unknown) => void,
  ) {
    this.label = label
    this.#scheduler = scheduler
    this.#chance = chance
    this.#clocks = clocks
    this.#failed = failed
    this.bornMs = scheduler.nowMs
    this.calmSinceMs = scheduler.nowMs
    this.#originMs = Math.floor(chance.between(1_000, 1e9))
  }

  get standstill(): Standstill | undefined {
    return this.#standstill
  }

  read(): Reading {
    const elapsedMs = (this.#scheduler.nowMs - this.bornMs) * this.#clocks.rate
    const bootMs = this.#originMs + elapsedMs
    return { monoMs: this.#monoMs(), bootMs: Math.floor(bootMs / 10) * 10 }
  }

  /** Sets a timer as Node.js does: in whole milliseconds, at least one. Timers sometimes fire slightly early. */
  setTimer(delayMs: number, fire: () => void): Timer {
    this.timers += 1
    return this.#set(delayMs, true, fire)
  }

  /**
   * Sets a timer of the application or of a driver. It is not counted, because it may be left when the engine has
   * closed.
   */
  later(delayMs: number, fire: () => void): Timer {
    return this.#set(delayMs, false, fire)
  }

  #set(delayMs: number, counted: boolean, fire: () => void): Timer {
    const dueMs = this.#dueMs(delayMs)
    const timer: Armed = { over: false, counted }
    this.#arm(dueMs, timer, fire)
    return {
      cancel: () => {
        if (timer.over) return
        timer.over = true
        if (counted) this.timers -= 1
      },
    }
  }

  #dueMs(delayMs: number): number {
    const wholeMs = Math.max(1, Math.trunc(delayMs))
    const slackMs = this.#chance.between(-0.9, this.#clocks.latestTimerMs)
    return this.#monoMs() + Math.max(0.05, wholeMs + slackMs)
  }

  random(): number {
    return this.#chance.next()
  }

  uuid(): string {
    this.#ids += 1
    return `${this.label}-${this.#ids}`
  }

  /** Returns whether this process created this id. */
  made(id: string): boolean {
    return id.startsWith(`${this.label}-`)
  }

  /** Delivers something to the process: now, or as soon as it runs again. */
  deliver(work: () => void): void {
    if (this.dead) return
    if (this.#standstill !== undefined) {
      this.#waiting.push(work)
      return
    }
    try {
      work()
    } catch (error) {
      this.#failed(error)
    }
  }

  /** Stops the process from running. Returns whether it was running. */
  halt(how: Standstill): boolean {
    if (this.dead || this.#standstill !== undefined) return false
    this.#standstill = how
    this.#standsSinceMs = this.#scheduler.nowMs
    return true
  }

  /** Lets the process run again. What arrived meanwhile is delivered in the order of arrival, or shuffled. */
  goOn(): void {
    if (this.dead || this.#standstill === undefined) return
    if (this.#standstill === 'suspended')
      this.#suspendedMs += (this.#scheduler.nowMs - this.#standsSinceMs) * this.#clocks.rate
    this.#standstill = undefined
    this.calmSinceMs = this.#scheduler.nowMs
    const waiting = this.#waiting
    this.#waiting = []
    const shuffled = this.#chance.happens(0.5)
    for (const work of waiting)
      this.#scheduler.after(shuffled ? this.#chance.between(0, 2) : 0, () => this.deliver(work))
  }

  kill(): void {
    this.dead = true
    this.#waiting = []
  }

  /** The monotonic clock, which stands still while the machine is suspended. */
  #monoMs(): number {
    const { nowMs } = this.#scheduler
    const untilMs = this.#standstill === 'suspended' ? this.#standsSinceMs : nowMs
    return this.#originMs + (untilMs - this.bornMs) * this.#clocks.rate - this.#suspendedMs
  }

  #arm(dueMs: number, timer: Armed, fire: () => void): void {
    this.#scheduler.after((dueMs - this.#monoMs()) / this.#clocks.rate, () => {
      if (timer.over && this.#standstill === undefined) return 'nothing'
      this.deliver(() => {
        if (timer.over) return
        if (this.#monoMs() < dueMs - 0.001) return this.#arm(dueMs, timer, fire)
        timer.over = true
        if (timer.counted) this.timers -= 1
        fire()
      })
      return
    })
  }
}
