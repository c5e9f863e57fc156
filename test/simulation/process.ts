/** A process in a simulated world: its clocks, and whether it is scheduled at all. */
import type { Clock, Reading, Timer } from '../../plugin/core/time/clock.js'
import type { Chance, Scheduler } from './scheduler.js'

/** How a process stands still. */
export type Standstill = 'paused' | 'suspended'

interface Armed {
  over: boolean
  readonly counted: boolean
}

/** What a machine's clocks are like. */
export interface ClockTraits {
  /** Local milliseconds per true one. */
  readonly rate: number
  /** Timers fire up to so much too late. */
  readonly latestTimerMs: number
}

/**
 * One life of one process. It owns the clock that its engine is handed: everything that reaches the engine comes
 * through {@link SimulatedProcess.deliver}, and nothing while the process is paused, suspended or dead.
 */
export class SimulatedProcess implements Clock {
  readonly label: string
  /** Timers of the engine that have been set and have neither fired nor been cancelled. */
  timers = 0
  dead = false
  /** Since when it has been neither paused, suspended nor just begun. */
  calmSinceMs: number
  readonly #scheduler: Scheduler
  readonly #chance: Chance
  readonly #clocks: ClockTraits
  readonly #bornMs: number
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
    this.#bornMs = scheduler.nowMs
    this.calmSinceMs = scheduler.nowMs
    this.#originMs = Math.floor(chance.between(1_000, 1e9))
  }

  get standstill(): Standstill | undefined {
    return this.#standstill
  }

  read(): Reading {
    const elapsedMs = (this.#scheduler.nowMs - this.#bornMs) * this.#clocks.rate
    const bootMs = this.#originMs + elapsedMs
    return { monoMs: this.#monoMs(), bootMs: Math.floor(bootMs / 10) * 10 }
  }

  /** As Node does it: whole milliseconds, at least one; and sometimes a little early. */
  setTimer(delayMs: number, fire: () => void): Timer {
    this.timers += 1
    return this.#set(delayMs, true, fire)
  }

  /** A timer of the application, or of a driver: one that may be left when the engine has closed. */
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

  /** Whether it was this process that gave something this id. */
  made(id: string): boolean {
    return id.startsWith(`${this.label}-`)
  }

  /** Lets something reach the process: now, or as soon as it goes on. */
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

  /** Answers whether it was still running. */
  halt(how: Standstill): boolean {
    if (this.dead || this.#standstill !== undefined) return false
    this.#standstill = how
    this.#standsSinceMs = this.#scheduler.nowMs
    return true
  }

  /** It goes on: what came meanwhile reaches it in the order it came, or in some other. */
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

  /** The monotonic clock: it stands still while the machine is suspended. */
  #monoMs(): number {
    const { nowMs } = this.#scheduler
    const untilMs = this.#standstill === 'suspended' ? this.#standsSinceMs : nowMs
    return this.#originMs + (untilMs - this.#bornMs) * this.#clocks.rate - this.#suspendedMs
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
