/**
 * What the audit trail tells about the rows of a snapshot, and the rows themselves do not: who paused a worker, who
 * asked a node to hand over, since when a lease has had no holder. It is for display only, so when the trail cannot be
 * read, or no longer says, everything else is still reported.
 */
import { closingReason } from '../changes/operations.js'
import type { EventQuery, EventRow, LeaseRow, NodeRow, Snapshot, WorkerRow } from '../store.js'
import { rowsOf } from './rows.js'
import { type Vacancy, vacancyOf } from './vacancy.js'

type Events = (query: EventQuery) => Promise<readonly EventRow[]>

/** A question about some rows of a snapshot. */
interface Question<Row, Fact> {
  /** The rows it is about. */
  rows(snapshot: Snapshot): readonly Row[]
  idOf(row: Row): string
  /** Reads what there is to tell about these rows, by their ids. A row that could not be read is missing. */
  read(rows: readonly Row[], events: Events): Promise<ReadonlyMap<string, Fact | undefined>>
}

/** Where each row needs a read of its own and there are more, these are example enough. */
const mostRead = 20

/** A worker missing from this many pauses was paused long ago. */
const mostPauses = 500

const pauses: Question<WorkerRow, EventRow> = {
  rows: ({ workers }) => workers.filter(({ paused }) => paused),
  idOf: ({ key }) => key,
  read: async (workers, events) => {
    const latest = await events({ types: ['worker.paused'], limit: mostPauses }).catch(() => undefined)
    if (latest === undefined) return new Map()
    const of = new Map([...latest].reverse().map((event) => [event.subject, event]))
    return new Map(workers.map(({ key }) => [key, of.get(key)]))
  },
}

const drains: Question<NodeRow, EventRow> = {
  rows: ({ nodes }) => nodes.filter(({ state }) => state === 'draining').slice(0, mostRead),
  idOf: ({ id }) => id,
  read: (nodes, events) =>
    eachOf(nodes, drains.idOf, async ({ id }) => {
      const [latest] = await events({ types: ['node.draining'], subject: id, limit: 1 })
      return latest
    }),
}

const vacancies: Question<LeaseRow, Vacancy> = {
  rows: (snapshot) => vacantIn(snapshot).slice(0, mostRead),
  idOf: ({ key }) => key,
  read: (leases, events) => eachOf(leases, vacancies.idOf, (lease) => vacancyOf(lease, events)),
}

async function eachOf<Row, Fact>(
  rows: readonly Row[],
  idOf: (row: Row) => string,
  read: (row: Row) => Promise<Fact>,
): Promise<ReadonlyMap<string, Fact>> {
  const found = await Promise.all(
    rows.map((row) =>
      read(row).then(
        (fact) => [[idOf(row), fact] as const],
        () => [],
      ),
    ),
  )
  return new Map(found.flat())
}

/** Returns vacant leases that have a target or could have one: an active node is a candidate for the worker. */
function vacantIn(snapshot: Snapshot): LeaseRow[] {
  const { nodes } = rowsOf(snapshot)
  const isGone = (id: string): boolean => (nodes.get(id)?.state ?? 'gone') === 'gone'
  const workers = new Map(snapshot.workers.map((worker) => [worker.key, worker]))
  const stood = new Set(snapshot.nodes.flatMap((node) => (node.state === 'active' ? node.workers : [])))
  return snapshot.leases.filter((lease) => {
    const { holder, target } = lease
    if (holder !== null && !isGone(holder)) return false
    const worker = workers.get(lease.worker ?? '')
    if (worker === undefined) return lease.worker === null && target !== null
    return !worker.paused && lease.slot < worker.slots && stood.has(worker.key)
  })
}

interface Told {
  readonly pauses: ReadonlyMap<string, EventRow>
  readonly drains: ReadonlyMap<string, EventRow>
  readonly vacancies: ReadonlyMap<string, Vacancy>
}

const told = new WeakMap<Snapshot, Told>()

/** Returns the event of the pause; undefined when the worker is not paused or the event is not known. */
export function pauseOf(
  { key, paused }: Pick<WorkerRow, 'key' | 'paused'>,
  snapshot: Snapshot,
): EventRow | undefined {
  return paused ? told.get(snapshot)?.pauses.get(key) : undefined
}

type Draining = Pick<NodeRow, 'id' | 'name' | 'state'>

/** Returns the event of the drain; undefined when the node is not draining or the event is not known. */
export function drainOf({ id, state }: Draining, snapshot: Snapshot): EventRow | undefined {
  return state === 'draining' ? told.get(snapshot)?.drains.get(id) : undefined
}

/** Returns whether the node drains because it closes: then it wrote the event itself. */
export function isClosing({ name }: Draining, drain: EventRow | undefined): boolean {
  return drain?.actor === name && drain.reason === closingReason
}

/** Returns the vacancy of a lease; undefined when the lease is held, need not be held, or its vacancy is not known. */
export function vacancyIn(snapshot: Snapshot, key: string): Vacancy | undefined {
  return told.get(snapshot)?.vacancies.get(key)
}

export class Trail {
  readonly #pauses: Answers<WorkerRow, EventRow>
  readonly #drains: Answers<NodeRow, EventRow>
  readonly #vacancies: Answers<LeaseRow, Vacancy>

  /** @param events reads the audit trail; see {@link Operator.events}. */
  constructor(events: Events) {
    this.#pauses = new Answers(pauses, events)
    this.#drains = new Answers(drains, events)
    this.#vacancies = new Answers(vacancies, events)
  }

  /**
   * Prepares {@link pauseOf}, {@link drainOf} and {@link vacancyIn} for this snapshot. A row that has not changed is not
   * read again.
   */
  async tell(snapshot: Snapshot): Promise<void> {
    const [pauses, drains, vacancies] = await Promise.all([
      this.#pauses.about(snapshot),
      this.#drains.about(snapshot),
      this.#vacancies.about(snapshot),
    ])
    told.set(snapshot, { pauses, drains, vacancies })
  }
}

/** The answers to one question, kept for as long as the rows do not change. */
class Answers<Row extends { readonly revision: number }, Fact> {
  readonly #question: Question<Row, Fact>
  readonly #events: Events
  #known: ReadonlyMap<string, { readonly revision: number; readonly fact: Fact | undefined }> = new Map()

  constructor(question: Question<Row, Fact>, events: Events) {
    this.#question = question
    this.#events = events
  }

  async about(snapshot: Snapshot): Promise<ReadonlyMap<string, Fact>> {
    const { rows, idOf, read } = this.#question
    const before = this.#known
    const all = rows(snapshot)
    const unread = all.filter((row) => before.get(idOf(row))?.revision !== row.revision)
    const facts = unread.length === 0 ? new Map<string, Fact>() : await read(unread, this.#events)
    const known = all.flatMap((row) => {
      const id = idOf(row)
      const { revision } = row
      if (facts.has(id)) return [[id, { revision, fact: facts.get(id) }] as const]
      const last = before.get(id)
      return last?.revision === revision ? [[id, last] as const] : []
    })
    this.#known = new Map(known)
    return new Map(known.flatMap(([id, { fact }]) => (fact === undefined ? [] : [[id, fact] as const])))
  }
}
