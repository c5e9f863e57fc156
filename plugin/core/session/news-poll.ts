/** Polls the news where hints are not pushed: reads one row by its primary key. */
import type { Store } from '../store.js'
import type { Clock } from '../time/clock.js'
import { Alarm } from '../time/loop.js'
import type { Timing } from '../time/timing.js'

export interface NewsPollOwner {
  /** What was read; undefined when the node has no row. */
  read(news: number | undefined): void
  failed(error: unknown): void
}

export class NewsPoll {
  readonly #node: string
  readonly #store: Store
  readonly #timing: Timing
  readonly #owner: NewsPollOwner
  readonly #alarm: Alarm
  #polls = false
  #stopped = false

  constructor(node: string, store: Store, clock: Clock, timing: Timing, owner: NewsPollOwner) {
    this.#node = node
    this.#store = store
    this.#timing = timing
    this.#owner = owner
    this.#alarm = new Alarm(clock, () => void this.#poll())
  }

  /** Called repeatedly, because a store may begin to push hints, and cease to. */
  pollWhereNothingIsPushed(): void {
    if (this.#polls || this.#stopped || this.#store.capabilities.push) return
    this.#polls = true
    this.#alarm.set(this.#timing.pollMs)
  }

  stop(): void {
    this.#stopped = true
    this.#alarm.clear()
  }

  async #poll(): Promise<void> {
    try {
      const news = await this.#store.news(this.#node)
      if (!this.#stopped) this.#owner.read(news)
    } catch (error) {
      this.#owner.failed(error)
    }
    this.#polls = false
    this.pollWhereNothingIsPushed()
  }
}
