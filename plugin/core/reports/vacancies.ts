/** Finds since when leases that some node should hold have had no holder. */
import type { EventQuery, EventRow, LeaseRow, Snapshot } from '../store.js'
import { rowsOf } from './rows.js'
import { type Vacancy, vacancyOf } from './vacancy.js'

const known = new WeakMap<Snapshot, ReadonlyMap<string, Vacancy>>()

/** Returns the vacancy of a lease; undefined when the lease is held, need not be held, or its vacancy is unknown. */
export function vacancyIn(snapshot: Snapshot, key: string): Vacancy | undefined {
  return known.get(snapshot)?.get(key)
}

/** Each lease needs a read of its own. When more are vacant, these are example enough. */
const mostRead = 20

export class Vacancies {
  readonly #events: (query: EventQuery) => Promise<readonly EventRow[]>
  #vacancies: ReadonlyMap<string, { readonly revision: number; readonly vacancy: Vacancy }> = new Map()

  /** @param events reads the audit trail; see {@link Operator.events}. */
  constructor(events: (query: EventQuery) => Promise<readonly EventRow[]>) {
    this.#events = events
  }

  /** Prepares {@link vacancyIn} for this snapshot. A lease that has not changed is not read again. */
  async tell(snapshot: Snapshot): Promise<void> {
    const before = this.#vacancies
    const found = await Promise.all(
      vacantIn(snapshot).map(async (lease) => {
        const { key, revision } = lease
        const last = before.get(key)
        if (last?.revision === revision) return [key, last] as const
        // For display only: when it cannot be read, everything else is still reported.
        const vacancy = await vacancyOf(lease, this.#events).catch(() => undefined)
        return vacancy === undefined ? undefined : ([key, { revision, vacancy }] as const)
      }),
    )
    this.#vacancies = new Map(found.filter((each) => each !== undefined))
    known.set(snapshot, new Map([...this.#vacancies].map(([key, { vacancy }]) => [key, vacancy])))
  }
}

/** Returns vacant leases that have a target or could have one: an active node is a candidate for the worker. */
function vacantIn(snapshot: Snapshot): LeaseRow[] {
  const { nodes } = rowsOf(snapshot)
  const isGone = (id: string): boolean => (nodes.get(id)?.state ?? 'gone') === 'gone'
  const workers = new Map(snapshot.workers.map((worker) => [worker.key, worker]))
  const stood = new Set(snapshot.nodes.flatMap((node) => (node.state === 'active' ? node.workers : [])))
  const vacant = snapshot.leases.filter((lease) => {
    const { holder, target } = lease
    if (holder !== null && !isGone(holder)) return false
    const worker = workers.get(lease.worker ?? '')
    if (worker === undefined) return lease.worker === null && target !== null
    return !worker.paused && lease.slot < worker.slots && stood.has(worker.key)
  })
  return vacant.slice(0, mostRead)
}
