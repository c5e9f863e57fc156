/** Finds who asked each draining node to hand over, when and why, as far as the audit trail still records it. */
import { closingReason } from '../changes/operations.js'
import type { EventQuery, EventRow, NodeRow, Snapshot } from '../store.js'

type Draining = Pick<NodeRow, 'id' | 'name' | 'state'>

const known = new WeakMap<Snapshot, ReadonlyMap<string, EventRow>>()

/** Returns the event of the drain; undefined when the node is not draining or the event was cleared away. */
export function drainOf({ id, state }: Draining, snapshot: Snapshot): EventRow | undefined {
  return state === 'draining' ? known.get(snapshot)?.get(id) : undefined
}

/** Returns whether the node drains because it closes: then it wrote the event itself. */
export function isClosing({ name }: Draining, drain: EventRow | undefined): boolean {
  return drain?.actor === name && drain.reason === closingReason
}

/** Each node needs a read of its own. When more drain, these are example enough. */
const mostRead = 20

export class Drains {
  readonly #events: (query: EventQuery) => Promise<readonly EventRow[]>
  #drains: ReadonlyMap<string, { readonly revision: number; readonly drain: EventRow }> = new Map()

  /** @param events reads the audit trail; see {@link Operator.events}. */
  constructor(events: (query: EventQuery) => Promise<readonly EventRow[]>) {
    this.#events = events
  }

  /** Prepares {@link drainOf} for this snapshot. A node that has not changed is not read again. */
  async tell(snapshot: Snapshot): Promise<void> {
    const before = this.#drains
    const draining = snapshot.nodes.filter(({ state }) => state === 'draining').slice(0, mostRead)
    const found = await Promise.all(
      draining.map(async ({ id, revision }) => {
        const last = before.get(id)
        if (last?.revision === revision) return [id, last] as const
        // For display only: when it cannot be read, everything else is still reported.
        const query = { types: ['node.draining'], subject: id, limit: 1 }
        const [drain] = await this.#events(query).catch(() => [])
        return drain === undefined ? undefined : ([id, { revision, drain }] as const)
      }),
    )
    this.#drains = new Map(found.filter((each) => each !== undefined))
    known.set(snapshot, new Map([...this.#drains].map(([id, { drain }]) => [id, drain])))
  }
}
