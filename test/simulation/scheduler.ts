/** Chance and time of a simulated world. One seed decides everything, and time goes from event to event. */
import { setFlagsFromString } from 'node:v8'

/** A sequence of numbers that look random. The same seed always gives the same sequence. */
export class Chance {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
    for (let round = 0; round < 4; round++) this.next()
  }

  /** Returns the sequence for `what` under a seed. It does not depend on the numbers drawn from any other sequence. */
  static of(seed: number, what: string): Chance {
    let hash = seed >>> 0
    for (const character of what) hash = Math.imul(hash ^ character.charCodeAt(0), 0x01000193) >>> 0
    return new Chance(hash ^ 0x9e3779b9)
  }

  /** Returns the next number in [0, 1), by mulberry32. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }

  happens(probability: number): boolean {
    return this.next() < probability
  }

  between(least: number, most: number): number {
    return least + (most - least) * this.next()
  }

  /** Draws small and great magnitudes with equal probability. */
  magnitude(least: number, most: number): number {
    return least * (most / least) ** this.next()
  }

  below(count: number): number {
    return Math.floor(this.next() * count)
  }

  /** Draws from a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    const picked = list[this.below(list.length)]
    if (picked === undefined) throw new RangeError('nothing to pick from')
    return picked
  }

  /** Draws the time until the next of events that come at random, with this mean. */
  gap(meanMs: number): number {
    return -meanMs * Math.log(1 - this.next())
  }
}

/**
 * What happens at an instant. It returns `'nothing'` when nothing happened, for example when a cancelled timer comes
 * due.
 */
type Event = () => unknown

/** An event that will happen. */
export interface Planned {
  readonly atMs: number
  readonly order: number
  readonly run: Event
  cancelled: boolean
}

/** Thrown when something repeats without end. */
export class RanHot extends Error {}

/**
 * A heap of events, ordered by time and then by the order in which they were planned. Between two events all code that
 * waits only for promises runs to its end, so that the course of events depends on nothing but the seed.
 */
export class Scheduler {
  /** True time since the beginning, in ms. No node can read it. */
  nowMs = 0
  events = 0
  /** A hash of the times and the order of all events. Two runs of one seed must have the same. */
  fingerprint = 0
  /** Called after each event, once all promises have settled. */
  afterEach: () => void = () => undefined
  /** A world with more events than this throws {@link RanHot}. */
  mostEvents = Number.POSITIVE_INFINITY
  readonly #heap: Planned[] = []
  #order = 0

  after(delayMs: number, run: Event): Planned {
    return this.at(this.nowMs + Math.max(0, delayMs), run)
  }

  at(atMs: number, run: Event): Planned {
    const planned = { atMs: Math.max(atMs, this.nowMs), order: this.#order++, run, cancelled: false }
    this.#push(planned)
    return planned
  }

  /**
   * Runs all events up to `endMs`. Must be called within {@link onItsOwn}, because promises would not settle elsewhere.
   */
  runUntil(endMs: number): void {
    comeToRest()
    for (let next = this.#heap[0]; next !== undefined && next.atMs <= endMs; next = this.#heap[0]) {
      this.#pop()
      if (next.cancelled) continue
      this.nowMs = next.atMs
      this.events += 1
      if (this.events > this.mostEvents) throw new RanHot(`there were more than ${this.mostEvents} events`)
      this.fingerprint = (Math.imul(this.fingerprint, 31) + Math.floor(next.atMs * 1_000) + next.order) >>> 0
      if (next.run() === 'nothing') continue
      comeToRest()
      this.afterEach()
    }
    this.nowMs = endMs
  }

  #push(planned: Planned): void {
    const heap = this.#heap
    let at = heap.length
    heap.push(planned)
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = heap[parent]
      if (above === undefined || !isBefore(planned, above)) break
      heap[at] = above
      at = parent
    }
    heap[at] = planned
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      const [left, right] = [heap[child], heap[child + 1]]
      if (left === undefined) break
      if (right !== undefined && isBefore(right, left)) child += 1
      const below = heap[child]
      if (below === undefined || !isBefore(below, last)) break
      heap[at] = below
      at = child
    }
    heap[at] = last
  }
}

function isBefore(a: Planned, b: Planned): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}

/**
 * Runs work from the event loop itself, outside of all promises, so that it can let promises settle. Unhandled
 * rejections are reported before this resolves.
 */
export async function onItsOwn<T>(work: () => T): Promise<T> {
  const result = await new Promise<T>((resolve, reject) => {
    setImmediate(() => {
      try {
        resolve(work())
      } catch (error) {
        reject(error)
      }
    })
  })
  await new Promise((resolve) => setImmediate(resolve))
  return result
}

/**
 * Runs everything that waits only for promises. A turn of the event loop would do the same at five times the cost of an
 * ordinary event. V8 offers this as a native function, for which a flag must be on while this function is made.
 */
const comeToRest = ((): (() => void) => {
  setFlagsFromString('--allow-natives-syntax')
  const made = new Function('%PerformMicrotaskCheckpoint()') as () => void
  made()
  setFlagsFromString('--no-allow-natives-syntax')
  return made
})()
