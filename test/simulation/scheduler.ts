/**
 * Chance and time of a simulated world: one seed decides everything, and time goes from event to event.
 */

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

/** Something that will happen. */
export interface Planned {
  readonly atMs: number
  readonly order: number
  readonly run: () => void | Promise<void>
  cancelled: boolean
}

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
  readonly #heap: Planned[] = []
  #order = 0

  after(delayMs: number, run: () => void | Promise<void>): Planned {
    return this.at(this.nowMs + Math.max(0, delayMs), run)
  }

  at(atMs: number, run: () => void | Promise<void>): Planned {
    const planned = { atMs: Math.max(atMs, this.nowMs), order: this.#order++, run, cancelled: false }
    this.#push(planned)
    return planned
  }

  /** Takes time to `endMs`; `afterEach` is called when each event has come to rest. */
  async runUntil(endMs: number, afterEach: () => void): Promise<void> {
    for (let next = this.#heap[0]; next !== undefined && next.atMs <= endMs; next = this.#heap[0]) {
      this.#pop()
      if (next.cancelled) continue
      this.nowMs = next.atMs
      this.events += 1
      this.fingerprint = (Math.imul(this.fingerprint, 31) + Math.floor(next.atMs * 1_000) + next.order) >>> 0
      await next.run()
      await comeToRest()
      afterEach()
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

/** A macrotask comes only after all microtasks, however long their chains are. */
function comeToRest(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
