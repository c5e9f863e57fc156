/** Who paused each worker that is paused, when and why, as far as the audit trail still tells. */
import type { Operator } from '../../core/operator.js'
import type { WorkerStatus } from '../../core/reports/status.js'
import type { EventRow, Snapshot } from '../../core/store.js'

type Pausings = ReadonlyMap<string, EventRow>

const known = new WeakMap<Snapshot, Pausings>()

/** Undefined when the worker is not paused, or when that has been cleared away. */
export function pauseOf(
  { key, paused }: Pick<WorkerStatus, 'key' | 'paused'>,
  snapshot: Snapshot,
): EventRow | undefined {
  return paused ? known.get(snapshot)?.get(key) : undefined
}

/** Who is not among so many was paused long ago. */
const mostPausings = 500

export class Pauses {
  readonly #operator: Operator
  #of = ''
  #pausings: Pausings = new Map()

  constructor(operator: Operator) {
    this.#operator = operator
  }

  /** Has {@link pauseOf} know. Nothing is read unless a worker has been paused since, or altered while it was. */
  async tell(snapshot: Snapshot): Promise<void> {
    const paused = snapshot.workers.filter((worker) => worker.paused)
    const of = paused.map(({ key, revision }) => `${key} ${revision}`).join()
    if (of !== '' && of !== this.#of) {
      // For showing only: where it cannot be read, the rest is told all the same.
      const events = await this.#operator
        .events({ types: ['worker.paused'], limit: mostPausings })
        .catch(() => undefined)
      if (events === undefined) return
      this.#pausings = new Map(events.reverse().map((event) => [event.subject, event]))
    }
    this.#of = of
    known.set(snapshot, this.#pausings)
  }
}
