/**
 * The rows of one namespace, in maps, and the queries on them.
 *
 * There are no database statements here, so this is the shortest complete description of what a store returns. Rows
 * are never modified in place: a row that was read stays as it was.
 */
import {
  type Beat,
  beforeAnyChange,
  type EventQuery,
  type EventRow,
  type LeaseFilter,
  type LeaseRow,
  type Load,
  type Look,
  type MetaRow,
  type Neighbour,
  type NodeRow,
  type OwnView,
  prunedAtOnce,
  type Retention,
  type ServerFacts,
  type Snapshot,
  type WorkerRow,
} from '../core/store.js'
import { byCodePoints } from '../stores/shared/code-points.js'

/** What a read finds. The caller adds the clock and the identity of the server. */
type Unstamped<T extends ServerFacts | Snapshot> = Omit<T, 'nowMs' | 'serverIdentity'>

/** One state of a namespace. A change works on a copy, which replaces the original when the change commits. */
export class Rows {
  meta: MetaRow = beforeAnyChange
  nodes = new Map<string, NodeRow>()
  workers = new Map<string, WorkerRow>()
  leases = new Map<string, LeaseRow>()
  events: EventRow[] = []

  copy(): Rows {
    const copy = new Rows()
    copy.meta = this.meta
    copy.nodes = new Map(this.nodes)
    copy.workers = new Map(this.workers)
    copy.leases = new Map(this.leases)
    copy.events = [...this.events]
    return copy
  }

  /** Returns undefined when the node is gone or unknown. */
  living(id: string | null): NodeRow | undefined {
    const node = id === null ? undefined : this.nodes.get(id)
    return node?.state === 'gone' ? undefined : node
  }

  /** Returns the nodes that are not gone, oldest first. */
  allLiving(): NodeRow[] {
    return this.oldestFirst().filter(({ state }) => state !== 'gone')
  }

  recorded(): Pick<ServerFacts, 'recordedIdentity' | 'identitySettled' | 'longestTtlMs'> {
    const { serverIdentity: recordedIdentity, identitySettled, longestTtlMs } = this.meta
    return { recordedIdentity, identitySettled, longestTtlMs }
  }

  /** Returns the watchers other than this node. */
  watchersBeside(node: string): Beat[] {
    return this.meta.watchers.flatMap((id) => {
      const watcher = id === node ? undefined : this.living(id)
      return watcher === undefined ? [] : [{ id, beat: watcher.beat }]
    })
  }

  view(node: string): Unstamped<OwnView> | undefined {
    const own = this.living(node)
    if (own === undefined) return undefined
    const standsFor = new Set(own.workers)
    const isOurs = ({ worker, holder, target, blockedNode }: LeaseRow): boolean =>
      [holder, target, blockedNode].includes(node) ||
      (worker !== null && standsFor.has(worker) && this.workers.get(worker)?.kind === 'coordinated')
    const leases = this.#leasesWhere(isOurs)
    const { state, newsRevision } = own
    const { watchers } = this.meta
    return {
      state,
      newsRevision,
      watchers,
      leases,
      ...this.recorded(),
      ...this.#relatedTo(leases, own.workers),
    }
  }

  look(): Look {
    const isGone = (id: string | null): boolean => id !== null && this.nodes.get(id)?.state === 'gone'
    const leases = this.#leasesWhere(({ pending, holder }) => pending || isGone(holder))
    return { nodes: this.allLiving().map(beatOf), leases, ...this.#relatedTo(leases) }
  }

  beats(after: string, most: number): Beat[] {
    return this.allLiving()
      .filter(({ id }) => byCodePoints(id, after) > 0)
      .sort((a, b) => byCodePoints(a.id, b.id))
      .slice(0, most)
      .map(beatOf)
  }

  neighbours(machine: string): Neighbour[] {
    return this.allLiving()
      .flatMap(({ id, process, machine: on }) =>
        on === machine && process !== null ? [{ id, process }] : [],
      )
      .sort((a, b) => byCodePoints(a.id, b.id))
  }

  snapshot(): Unstamped<Snapshot> {
    return {
      meta: this.meta,
      nodes: this.oldestFirst(),
      workers: [...this.workers.values()].sort(byKey),
      leases: this.#leasesWhere(() => true),
    }
  }

  leasesAfter(after: string, most: number): LeaseRow[] {
    return this.#leasesWhere(({ key }) => byCodePoints(key, after) > 0).slice(0, most)
  }

  workersOf(keys: readonly string[]): WorkerRow[] {
    return [...new Set(keys)].flatMap((key) => this.workers.get(key) ?? []).sort(byKey)
  }

  leasesOf({ keys = [], workers = [], nodes = [] }: LeaseFilter): LeaseRow[] {
    const wanted = { keys: new Set(keys), workers: new Set(workers), nodes: new Set(nodes) }
    return this.#leasesWhere(
      ({ key, worker, holder, target, blockedNode }) =>
        wanted.keys.has(key) ||
        (worker !== null && wanted.workers.has(worker)) ||
        [holder, target, blockedNode].some((node) => node !== null && wanted.nodes.has(node)),
    )
  }

  loads(): Load[] {
    const counts = new Map<string | null, number>()
    for (const { target, holder } of this.leases.values()) {
      const bearer = target ?? holder
      counts.set(bearer, (counts.get(bearer) ?? 0) + 1)
    }
    return this.allLiving().map(({ id }) => ({ node: id, leases: counts.get(id) ?? 0 }))
  }

  highestToken(): number {
    let highest = 0
    for (const { token } of this.leases.values()) highest = Math.max(highest, token)
    return highest
  }

  eventsOf({ limit, after, types, subject }: EventQuery): EventRow[] {
    const matching = this.events.filter(
      (event) =>
        (after === undefined || isAfter(event, after)) &&
        (types === undefined || types.includes(event.type)) &&
        (subject === undefined || event.subject === subject),
    )
    return (after === undefined ? matching.reverse() : matching).slice(0, limit)
  }

  prune({ eventsForMs, events, goneNodesForMs }: Retention, nowMs: number): boolean {
    const surplus = this.events.length - events
    const oldEvents = this.events
      .filter(({ atMs }, index) => index < surplus || atMs < nowMs - eventsForMs)
      .slice(0, prunedAtOnce)
    const deleted = new Set(oldEvents)
    this.events = this.events.filter((event) => !deleted.has(event))
    const named = new Set(
      [...this.leases.values()].flatMap(({ holder, target, blockedNode }) => [holder, target, blockedNode]),
    )
    const longGone = [...this.nodes.values()]
      .filter(({ id, goneAtMs }) => goneAtMs !== null && goneAtMs < nowMs - goneNodesForMs && !named.has(id))
      .slice(0, prunedAtOnce)
    for (const { id } of longGone) this.nodes.delete(id)
    return Math.max(oldEvents.length, longGone.length) === prunedAtOnce
  }

  /** Returns all nodes, gone ones included. */
  oldestFirst(): NodeRow[] {
    return [...this.nodes.values()].sort(
      (a, b) => a.joinedRevision - b.joinedRevision || byCodePoints(a.id, b.id),
    )
  }

  #leasesWhere(matches: (lease: LeaseRow) => boolean): LeaseRow[] {
    return [...this.leases.values()].filter(matches).sort(byKey)
  }

  /** Returns the workers of these leases, and which of their holders and blocked nodes are gone or unknown. */
  #relatedTo(
    leases: readonly LeaseRow[],
    alsoWorkers: readonly string[] = [],
  ): Pick<Look, 'workers' | 'gone'> {
    const keys = [...alsoWorkers, ...leases.flatMap(({ worker }) => worker ?? [])]
    const named = leases.flatMap(({ holder, blockedNode }) => [holder ?? [], blockedNode ?? []].flat())
    const gone = new Set(named.filter((id) => this.living(id) === undefined))
    return { workers: this.workersOf(keys), gone }
  }
}

function beatOf({ id, beat }: NodeRow): Beat {
  return { id, beat }
}

function isAfter(event: EventRow, place: Pick<EventRow, 'revision' | 'position'>): boolean {
  return event.revision === place.revision ? event.position > place.position : event.revision > place.revision
}

function byKey(a: { readonly key: string }, b: { readonly key: string }): number {
  return byCodePoints(a.key, b.key)
}
