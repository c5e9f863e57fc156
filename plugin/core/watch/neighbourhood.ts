/**
 * Looks at the other processes on this machine.
 *
 * A node that ends without a word is found by its silence, a ttl later (`lookout.ts`). On its own machine this is known
 * at once: the kernel no longer has the process, so no node needs to wait for what it might still do.
 *
 * The nodes of a machine form a ring, ordered by id, and each looks at the next one; a node that finds an ended process
 * looks at all. So the cost to each does not grow with their number, and when many end together, the node before them
 * finds them all. In case that node is frozen, each also looks at one more every time, going round.
 */

import type { Neighbour, Store } from '../store.js'
import type { Clock, Reading } from '../time/clock.js'
import { Alarm } from '../time/loop.js'
import { leastPauseMs } from '../time/timing.js'
import { elapsedMs } from '../time/trust.js'
import type { Machine } from './machine.js'

/** How often a node looks at the next process, and one more. */
const lookEveryMs = 250

/** What acts on a look. `bury` may reject; the next look comes anyway. */
export interface NeighbourhoodOwner {
  /** Called as each look begins, so that what else is due that often needs no timer of its own. */
  looks(): void
  /** Buries nodes whose processes have certainly ended. */
  bury(ended: readonly Neighbour[]): Promise<void>
  lookFailed(error: unknown): void
}

export class Neighbourhood {
  readonly #self: string
  readonly #machine: Machine
  readonly #store: Store
  readonly #clock: Clock
  readonly #rereadMs: number
  readonly #owner: NeighbourhoodOwner
  readonly #alarm: Alarm
  #neighbours: readonly Neighbour[] = []
  #readAt: Reading | undefined
  #newsSince = true
  #looks = 0
  #failures = 0
  #stopped = false

  /**
   * @param self the session on whose behalf this looks.
   * @param rereadMs the neighbours are read again when there was news, but no more often than this.
   */
  constructor(
    self: string,
    { machine, store, clock }: { machine: Machine; store: Store; clock: Clock },
    rereadMs: number,
    owner: NeighbourhoodOwner,
  ) {
    this.#self = self
    this.#machine = machine
    this.#store = store
    this.#clock = clock
    this.#rereadMs = rereadMs
    this.#owner = owner
    this.#alarm = new Alarm(clock, () => void this.#look())
  }

  start(): void {
    if (!this.#stopped) this.#alarm.set(0)
  }

  /** Notes that a node may have joined. */
  noteNews(): void {
    this.#newsSince = true
    // With neighbours it looks anyway.
    if (this.#readAt !== undefined && this.#neighbours.length === 0) this.#setAlarm()
  }

  stop(): void {
    this.#stopped = true
    this.#alarm.clear()
  }

  async #look(): Promise<void> {
    this.#owner.looks()
    try {
      if (this.#newsSince && this.#untilRereadMs() === 0) await this.#read()
      const ended = this.#ended()
      if (ended.length > 0 && !this.#stopped) await this.#owner.bury(ended)
      this.#failures = 0
    } catch (error) {
      this.#failures += 1
      this.#owner.lookFailed(error)
    }
    if (this.#neighbours.length > 0 || this.#newsSince) this.#setAlarm()
  }

  #setAlarm(): void {
    if (this.#stopped) return
    const dueInMs = this.#neighbours.length > 0 ? lookEveryMs : this.#untilRereadMs()
    const leastMs = leastPauseMs(this.#failures, this.#rereadMs, () => this.#clock.random())
    this.#alarm.set(Math.max(leastMs, dueInMs))
  }

  #untilRereadMs(): number {
    if (this.#readAt === undefined) return 0
    return Math.max(0, this.#rereadMs - elapsedMs(this.#readAt, this.#clock.read()))
  }

  async #read(): Promise<void> {
    this.#newsSince = false
    this.#readAt = this.#clock.read()
    try {
      const all = await this.#store.neighbours(this.#machine.name)
      this.#neighbours = all.filter(({ id }) => id !== this.#self)
    } catch (error) {
      this.#newsSince = true
      throw error
    }
  }

  /** Checks the next neighbour and one more. Only if one of these has ended, checks and returns all that have. */
  #ended(): Neighbour[] {
    const hasEnded = ({ process }: Neighbour): boolean => this.#machine.hasEnded(process)
    const next = this.#neighbours.find(({ id }) => id > this.#self) ?? this.#neighbours[0]
    const another = this.#neighbours[this.#looks++ % this.#neighbours.length]
    if (![...new Set([next, another])].some((each) => each !== undefined && hasEnded(each))) return []
    const ended = this.#neighbours.filter(hasEnded)
    // Whether burying succeeds or not, the neighbours are read again.
    this.#newsSince = true
    this.#readAt = undefined
    return ended
  }
}
