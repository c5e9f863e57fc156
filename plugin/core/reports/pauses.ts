/** Finds who paused each paused worker, when and why, as far as the audit trail still records it. */
import type { EventQuery, EventRow, Snapshot } from '../store.js'
import type { WorkerStatus } from './status.js'

type Pausings = ReadonlyMap<string, EventRow>

const known = new WeakMap<Snapshot, Pausings>()

/** Returns the event of the pause; undefined when the worker is not paused or the event was cleared away. */
export function pauseOf(
  { key, paused }: Pick<WorkerStatus, 'key' | 'paused'>,
  snapshot: Snapshot,
): EventRow | undefined {
  return paused ? known.get(snapshot)?.get(key) : undefined
}

/** A worker missing from this many pauses was paused long ago. */
const mostPausings = 500

export class Pauses {
  readonly #events: (query: EventQuery) => Promise<readonly EventRow[]>
  #of = ''
  #pausings: Pausings = new Map()

  /** @param events reads the audit trail; see {@link Operator.events}. */
  constructor(events: (query: EventQuery) => Promise<readonly EventRow[]>) {
    this.#events = events
  }

  /**
   * Prepares {@link pauseOf} for this snapshot. It reads nothing unless the set of paused workers, or one of them, has
   * changed.
   */
  async tell(snapshot: Snapshot): Promise<void> {
    const paused = snapshot.workers.filter((worker) => worker.paused)
    const of = paused.map(({ key, revision }) => `${key} ${revision}`).join()
    if (of !== '' && of !== this.#of) {
      // For display only: when it cannot be read, everything else is still reported.
      const query = { types: ['worker.paused'], limit: mostPausings }
      const events = await this.#events(query).catch(() => undefined)
      if (events === undefined) return
      this.#pausings = new Map([...events].reverse().map((event) => [event.subject, event]))
    }
    this.#of = of
    known.set(snapshot, this.#pausings)
  }
}
