/**
 * Chance and time of a simulated world: one seed decides everything, and time goes from event to event.
 */
import { setFlagsFromString } from 'node:v8'

/** Numbers that look random and are the same for the same seed, for ever. */
export class Chance {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
    for (let round = 0; round < 4; round++) this.next()
  }

  /** Another sequence that does not depend on how many numbers were drawn from this one since. */
  static of(seed: number, what: string): Chance {
    let hash = seed >>> 0
    for (const character of what) hash = Math.imul(hash ^ character.charCodeAt(0), 0x01000193) >>> 0
    return new Chance(hash ^ 0x9e3779b9)
  }

  /** In [0, 1): mulberry32. */
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

  /** Small and great magnitudes alike. */
  magnitude(least: number, most: number): number {
    return least * (most / least) ** this.next()
  }

  below(count: number): number {
    return Math.floor(this.next() * count)
  }

  /** From a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    const picked = list[this.below(list.length)]
    if (picked === undefined) throw new RangeError('nothing to pick from')
    return picked
  }

  /** The distance to the next of events that come at random. */
  gap(meanMs: number): number {
    return -meanMs * Math.log(1 - this.next())
  }
}

/** What happens at an instant. It may answer `nothing`: that nothing did, as when a timer comes due that was cancelled. */
type Event = () => unknown

/** Something that will happen. */
export interface Planned {
  readonly atMs: number
  readonly order: number
  readonly run: Event
  cancelled: boolean
}

/** Something goes on and on. */
export class RanHot extends Error {}

/**
 * A heap of events by time, then by the order in which they were planned. Between two of them everything
 * that only waits for promises comes to rest, so the course of things depends on nothing but the seed.
 */
export class Scheduler {
  /** True time since the beginning, in ms. No node can read it. */
  nowMs = 0
  events = 0
  /** Folds in every event's time: two runs of one seed must agree on it. */
  fingerprint = 0
  /** Called when an event has come to rest. */
  afterEach: () => void = () => undefined
  /** A world with more events than this has run hot. */
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

  /** Takes time to `endMs`. To be called from {@link onItsOwn} only: elsewhere nothing would come to rest. */
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
 * Runs work from the event loop itself, outside of all promises, so that it may let others come to rest. What
 * nobody has caught by its end is reported before this resolves.
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
 * Runs everything that only waits for promises. A turn of the event loop would do the same, at five times the price of
 * an ordinary event; V8's own way to ask for it is a native function, for which a flag is on while this is made.
 */
const comeToRest = ((): (() => void) => {
  setFlagsFromString('--allow-natives-syntax')
  const made = new Function('%PerformMicrotaskCheckpoint()') as () => void
  made()
  setFlagsFromString('--no-allow-natives-syntax')
  return made
})()
