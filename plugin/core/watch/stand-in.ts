/**
 * Stands in for the watchers when both have fallen silent.
 *
 * When both watchers die, and other nodes with them, the next two watchers have seen nothing yet and would find the
 * others a second ttl later. So a node that sees neither watcher's beat move in time begins to look for itself, without
 * taking their place. It looks at the nodes that come next by their ids, in a ring. So the cost to each node does not
 * grow with their number, and a dead node is missed only where all that look at it are dead as well. It buries by the
 * same rule and in the same way as a watcher.
 *
 * It ends when a watcher turns out to be alive, or when all nodes it began to look at have moved or are gone.
 */

import type { Beat, Store } from '../store.js'
import type { Clock, Reading } from '../time/clock.js'
import { Alarm } from '../time/loop.js'
import { leastPauseMs, standstillMs, type Timing } from '../time/timing.js'
import { Standstill } from './watch.js'

/** How many nodes each node looks at. */
const nodesInView = 32

/**
 * Returns for how long both watchers must be silent. For a node with the longest ttl, their heartbeats come at least as
 * often as its own, and one interval is enough, however short. For others the time exceeds the longest interval: a
 * third of a ttl and a tenth of that.
 */
function silenceMs({ ttlMs, heartbeatMs }: Timing, longestTtlMs: number): number {
  return ttlMs < longestTtlMs ? longestTtlMs * 0.4 : heartbeatMs * 0.7
}

/** What acts on a look. */
export interface StandInOwner {
  /** The longest ttl among all nodes. */
  longestTtlMs(): number
  /** Buries nodes whose beats have stood still for their wait. Never rejects. */
  bury(beats: readonly Beat[]): Promise<void>
  lookFailed(error: unknown): void
}

export class StandIn {
  readonly #self: string
  readonly #store: Store
  readonly #clock: Clock
  readonly #owner: StandInOwner
  readonly #everyMs: number
  readonly #watch: Standstill<number>
  readonly #alarm: Alarm
  readonly #silence: Standstill<number>
  #watchers: ReadonlyMap<string, number> = new Map()
  /** The beats that the first look showed; undefined before it. */
  #first: ReadonlyMap<string, number> | undefined
  #active = false
  #looking = false
  #failures = 0

  constructor(self: string, store: Store, clock: Clock, timing: Timing, owner: StandInOwner) {
    this.#self = self
    this.#store = store
    this.#clock = clock
    this.#owner = owner
    this.#everyMs = Math.floor(timing.ttlMs / 4)
    this.#watch = new Standstill({
      waitMs: () => standstillMs({ ttlMs: owner.longestTtlMs() }),
      staleAfterMs: timing.ttlMs / 2,
    })
    this.#silence = new Standstill({
      waitMs: () => silenceMs(timing, owner.longestTtlMs()),
      staleAfterMs: timing.ttlMs,
    })
    this.#alarm = new Alarm(clock, () => void this.#look())
  }

  /** Takes in what an answer says of the watchers; `beats` is empty when this node is one. */
  sawWatchers(beats: readonly Beat[], sentAt: Reading, receivedAt: Reading): void {
    const before = this.#watchers
    this.#watchers = new Map(beats.map(({ id, beat }) => [id, beat]))
    const silent = this.#silence.observe(this.#watchers, sentAt, receivedAt)
    if (beats.some(({ id, beat }) => (before.get(id) ?? beat) !== beat)) this.#end()
    else if (beats.length > 0 && silent.length === beats.length) this.#begin()
  }

  reset(): void {
    this.#watchers = new Map()
    this.#silence.reset()
    this.#watch.reset()
  }

  stop(): void {
    this.#end()
  }

  #begin(): void {
    if (this.#active) return
    this.#active = true
    this.#alarm.set(0)
  }

  #end(): void {
    this.#active = false
    this.#first = undefined
    this.#watch.reset()
    this.#alarm.clear()
  }

  async #look(): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    try {
      const sentAt = this.#clock.read()
      const beats = await this.#beats()
      const receivedAt = this.#clock.read()
      this.#failures = 0
      if (!this.#active) return
      this.#first ??= beats
      const still = this.#watch.observe(beats, sentAt, receivedAt)
      if (still.length > 0) await this.#owner.bury(still.map((id) => ({ id, beat: beats.get(id) ?? 0 })))
      else if (![...beats].some(([id, beat]) => this.#first?.get(id) === beat)) this.#end()
    } catch (error) {
      this.#failures += 1
      this.#owner.lookFailed(error)
    } finally {
      this.#looking = false
      if (this.#active) this.#alarm.set(this.#nextLookInMs())
    }
  }

  async #beats(): Promise<ReadonlyMap<string, number>> {
    const next = await this.#store.beats(this.#self, nodesInView)
    const round = next.length < nodesInView ? await this.#store.beats('', nodesInView - next.length) : []
    const others = [...next, ...round].filter(({ id }) => id !== this.#self)
    return new Map(others.map(({ id, beat }) => [id, beat]))
  }

  #nextLookInMs(): number {
    const leastMs = leastPauseMs(this.#failures, this.#everyMs, () => this.#clock.random())
    const dueInMs = this.#watch.dueInMs(this.#clock.read()) ?? this.#everyMs
    return Math.max(leastMs, Math.min(this.#everyMs, dueInMs))
  }
}
