/**
 * Makes the calls of a course on a store, and returns the answers in a form in which two stores can be compared.
 *
 * What the port leaves open is removed here: the order of rows where none is promised, and the database's own clock and
 * identity. Those are handed to the code that compares.
 */
import { isDeepStrictEqual } from 'node:util'
import { CoordinationError, FencedError, StoreError } from '../../plugin/core/errors.js'
import type {
  Change,
  Claim,
  EventRow,
  LeaseRow,
  NodeRow,
  ServerFacts,
  SessionKey,
  Store,
} from '../../plugin/core/store.js'
import { newLease } from '../../plugin/testing/conformance/world.js'
import type { Age, Alteration, Deed, Heartbeat, Read, Relation } from './course.js'

/** A store, and what a course needs besides it. */
export interface Actor {
  readonly store: Store
  /** Receives what the store says of its database. */
  heard(facts: Partial<Pick<ServerFacts, 'nowMs' | 'serverIdentity'>>): void
  /** Returns a node's row with the time of its heartbeat in a form that can be compared. */
  settled(row: NodeRow): NodeRow
  /** Undefined for the store under test: only what the reference does is counted. */
  readonly tally: Tally | undefined
}

/** Counts how often each thing has happened. */
export class Tally {
  readonly counts = new Map<string, number>()

  add(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1)
  }
}

/** The numbers that a change gives relative to what is stored, worked out. */
export interface Resolved {
  readonly session: SessionKey | undefined
  /** The beats that burials name, by deed. */
  readonly beats: ReadonlyMap<Deed, number>
}

/** Returns the number that has this relation to the stored one, kept between 0 and the greatest exact integer. */
export function related(stored: number, relation: Relation): number {
  const by = { next: 1, far: 2 ** 33, same: 0, older: -1 }[relation]
  return Math.max(0, Math.min(Number.MAX_SAFE_INTEGER, stored + by))
}

/** The result of a verb: its answer, or how it failed. The messages of the library's errors are not compared. */
export type Outcome = { readonly answered: unknown } | { readonly failed: string }

export async function outcomeOf(verb: () => Promise<unknown>): Promise<Outcome> {
  try {
    return { answered: await verb() }
  } catch (error) {
    return { failed: failureOf(error) }
  }
}

function failureOf(error: unknown): string {
  if (error instanceof StoreError) return `StoreError, ${error.outcome}`
  if (error instanceof FencedError) return 'FencedError'
  if (error instanceof CoordinationError) return error.code
  return error === thrown ? 'what its work threw' : String(error)
}

const thrown = new Error('thrown by the work of a change')

export async function read(actor: Actor, read: Read): Promise<unknown> {
  const { store } = actor
  switch (read.verb) {
    case 'view':
      return viewFound(actor, await store.view(read.node))
    case 'news':
      return store.news(read.node)
    case 'look':
      return lookedAt(actor)
    case 'beats':
      return followed(
        (after, most) => store.beats(after, most),
        ({ id }) => id,
        read,
      )
    case 'leasesAfter':
      return followed(
        (after, most) => store.leasesAfter(after, most),
        ({ key }) => key,
        read,
      )
    case 'neighbours':
      return store.neighbours(read.machine)
    case 'snapshot':
      return wholeRows(actor)
    case 'events':
      return (await store.events(read.query)).map(storable)
  }
}

export async function beat({ store, heard }: Actor, { node }: Heartbeat, number: number): Promise<unknown> {
  const answer = await store.heartbeat(node, number)
  if (answer === undefined) return undefined
  const { nowMs, serverIdentity, watchers, ...rest } = answer
  heard({ nowMs, serverIdentity })
  return { ...rest, watchers: byText(watchers, ({ id }) => id) }
}

export async function prune(
  { store }: Actor,
  events: number,
  eventsForMs: number,
  goneNodesForMs: number,
): Promise<boolean> {
  return store.prune({ events, eventsForMs, goneNodesForMs })
}

/** Returns an age in ms. Where the test does not own the clock, no row is too old by an age in ms. */
export function milliseconds(age: Age, ownClock: boolean): number {
  if (age === 'all') return -1
  return age === 'none' || !ownClock ? 1e12 : age
}

/** Returns all that is stored, events included. */
export async function wholeRows(actor: Actor): Promise<unknown> {
  const { nowMs, meta, nodes, workers, leases } = await actor.store.snapshot()
  actor.heard({ nowMs })
  const events = await actor.store.events({ limit: 1_000 })
  return {
    meta,
    nodes: nodes.map(actor.settled),
    workers: byKey(workers),
    leases: byKey(leases),
    events: events.map(storable),
  }
}

async function lookedAt({ store, tally }: Actor): Promise<unknown> {
  const { nodes, leases, workers, gone } = await store.look()
  tally?.add(leases.length > 0 ? 'look: leases to see to' : 'look: nothing but beats')
  if (leases.some(({ pending }) => !pending)) tally?.add('look: a holder that is gone')
  if (gone.size > 0) tally?.add('look: some named that are gone')
  return {
    nodes: byText(nodes, ({ id }) => id),
    leases: byKey(leases),
    workers: byKey(workers),
    gone: [...gone].sort(),
  }
}

function viewFound({ heard, tally }: Actor, view: Awaited<ReturnType<Store['view']>>): unknown {
  if (view === undefined) return undefined
  const { nowMs, serverIdentity, leases, workers, gone, ...rest } = view
  heard({ nowMs, serverIdentity })
  if (leases.length > 0) tally?.add('view: leases')
  if (workers.length > 0) tally?.add('view: workers')
  if (gone.size > 0) tally?.add('view: some named that are gone')
  return { ...rest, leases: byKey(leases), workers: byKey(workers), gone: [...gone].sort() }
}

/**
 * Compares which rows there are, and whether the rows asked for are those that follow in the store's own order. The
 * port leaves this order open, as long as it stays the same. The place of a name that does not exist is open as well.
 */
async function followed<T>(
  ask: (after: string, most: number) => Promise<T[]>,
  nameOf: (row: T) => string,
  { after, most }: { readonly after: string; readonly most: number },
): Promise<unknown> {
  const all = await ask('', 1_000)
  const some = await ask(after, most)
  const place = all.findIndex((row) => nameOf(row) === after)
  const starts = place >= 0 ? [place + 1] : after === '' ? [0] : [...all.keys(), all.length]
  const follow = starts.some((start) => isDeepStrictEqual(all.slice(start, start + most), some))
  return { all: byText(all, nameOf), follow: follow ? 'in the order of all' : some }
}

/** Follows a change deed by deed. */
export interface Course {
  /** Called with the time of the change as soon as it has begun, and again when the store begins it anew. */
  begun(nowMs: number): void
  /** Called when half of the deeds are done. */
  half(): Promise<void>
}

export async function alter(
  actor: Actor,
  alteration: Alteration,
  { session, beats }: Resolved,
  { begun, half }: Course,
): Promise<unknown> {
  const { store, heard } = actor
  const { deeds, end } = alteration
  let kept: Change | undefined
  let began: unknown
  let answers: Outcome[] = []
  const outcome = await outcomeOf(async () => {
    const { committed } = await store.change(
      session,
      async (change) => {
        kept = change
        answers = []
        const { nowMs, serverIdentity, revision, meta } = change
        heard({ nowMs, serverIdentity })
        begun(nowMs)
        // The revision in this row only says which change this is, and that is noted already.
        began = { revision, meta: { ...meta, revision: 0 }, session: settledSession(actor, change) }
        for (const [place, deed] of deeds.entries()) {
          if (place === Math.floor(deeds.length / 2)) await half()
          const doing = () => doDeed(actor, change, deed, beats.get(deed))
          const answer = end === 'goes on' ? await outcomeOf(doing) : { answered: await doing() }
          // After a deed has failed, the change fails too, and the answers to further deeds are open.
          if (!answers.some((each) => 'failed' in each)) answers.push(answer)
        }
        if (deeds.length === 0) await half()
        if (end === 'throws') throw thrown
        if (end === 'with a last view')
          answers.push({ answered: await viewIn(actor, change, session?.node ?? '', true) })
      },
      aheadOf(alteration),
    )
    return { committed }
  })
  const late = end === 'asks when it is over' && kept !== undefined ? await askedLate(kept) : []
  return { began, answers, outcome, late }
}

/** Asks a change that has ended, which must answer nothing and write nothing. */
async function askedLate(change: Change): Promise<unknown[]> {
  return [
    await outcomeOf(() => change.nodes()),
    await outcomeOf(() => change.saveLeases([newLease('late')])),
    await outcomeOf(() => change.bury('late')),
  ]
}

function settledSession({ settled }: Actor, { session }: Change): NodeRow | undefined {
  return session && settled(session)
}

function aheadOf({ ahead, deeds }: Alteration) {
  if (ahead === 'nothing') return undefined
  if (ahead === 'something else') return { leases: { keys: ['nothing of the kind'] }, nodes: true }
  const first = deeds.find((deed) => deed.deed === 'leases' || deed.deed === 'edit')
  const leases = first?.deed === 'leases' ? first.filter : first?.deed === 'edit' ? { keys: [first.key] } : {}
  return { leases, nodes: deeds.some(({ deed }) => deed === 'nodes' || deed === 'loads') }
}

async function doDeed(actor: Actor, change: Change, deed: Deed, beat: number | undefined): Promise<unknown> {
  const { settled, tally } = actor
  await tallyOf(change, deed, beat, tally)
  switch (deed.deed) {
    case 'nodes':
      return (await change.nodes()).map(settled)
    case 'nodesById':
      return byText((await change.nodesById(deed.ids)).map(settled), ({ id }) => id)
    case 'workers':
      return byKey(await change.workers(deed.keys))
    case 'leases':
      return change.leases(deed.filter)
    case 'loads':
      return byText(await change.loads(), ({ node }) => node)
    case 'highestToken':
      return change.highestToken()
    case 'view':
      return viewIn(actor, change, deed.node)
    case 'addNode':
      return change.addNode(deed.node, deed.operation)
    case 'updateNode':
      return change.updateNode(deed.id, deed.patch)
    case 'bury':
      return change.bury(deed.id, beat)
    case 'forgetNode':
      return change.forgetNode(deed.id)
    case 'forgetWorker':
      return change.forgetWorker(deed.key)
    case 'saveWorkers':
      return change.saveWorkers(deed.rows)
    case 'saveLeases':
      return change.saveLeases(deed.rows)
    case 'edit':
      return edit(change, deed)
    case 'deleteLeases':
      return change.deleteLeases(deed.keys)
    case 'saveMeta':
      return change.saveMeta(deed.patch)
    case 'record':
      return change.record(deed.events)
    case 'tell':
      return change.tell(new Set(deed.nodes))
  }
}

async function viewIn(actor: Actor, change: Change, node: string, last?: boolean): Promise<unknown> {
  return viewFound(actor, await change.view(node, last))
}

/** Reads a lease and writes all of it, as the engine does. */
async function edit(change: Change, { key, as, other, number }: Deed & { deed: 'edit' }): Promise<unknown> {
  const [found] = await change.leases({ keys: [key] })
  const row = found ?? newLease(key)
  const { nowMs, serverIdentity } = change
  const vacated = { holder: null, attempt: null, identity: null, acquiredAtMs: null }
  const untilMs = nowMs + number
  const patches: Record<typeof as, Partial<LeaseRow>> = {
    plan: { target: other, targetAtMs: nowMs, pending: row.holder !== other },
    claim: {
      ...{
        holder: row.target ?? other,
        token: Math.min(row.token + 1, Number.MAX_SAFE_INTEGER),
        pending: false,
      },
      ...{ attempt: change.session?.operation ?? number, identity: serverIdentity, acquiredAtMs: nowMs },
    },
    release: { ...vacated, pending: true },
    revoke: { ...vacated, blockedNode: row.holder ?? other, blockedToken: row.token, pending: true },
    acknowledge: { blockedNode: null, blockedToken: null },
    queue: { waiters: [...row.waiters, other] },
    withdraw: { waiters: row.waiters.filter((each) => each !== other) },
    cool: { cooldownNode: row.holder ?? other, cooldownUntilMs: Math.min(untilMs, Number.MAX_SAFE_INTEGER) },
    warm: { cooldownNode: null, cooldownUntilMs: null },
    fire: { firedAtMs: number },
    belong: { worker: other, slot: number % 2 ** 31 },
    clear: { worker: null, target: null, targetAtMs: null, firedAtMs: null },
  }
  await change.saveLeases([{ ...row, ...patches[as] }])
  return found
}

/** Returns whether a claim is true, in a transaction of a user. */
export function fenceOn(actor: Actor, handle: unknown, claim: Claim): Promise<unknown> {
  return outcomeOf(async () => actor.store.fence(handle, claim))
}

/**
 * Returns an event without what some databases cannot store in free text: NUL, halves of surrogate pairs, and code
 * points that are no characters. How many marks replace them is open.
 */
function storable(event: EventRow): EventRow {
  const { actor, reason, detail } = event
  return {
    ...event,
    ...(replaced({ actor, reason, detail }) as Pick<EventRow, 'actor' | 'reason' | 'detail'>),
  }
}

function replaced(value: unknown): unknown {
  if (typeof value === 'string')
    return value.replace(/[\p{Surrogate}\0\ufdd0-\ufdef\ufffd\uffff]+/gu, '\ufffd')
  if (Array.isArray(value)) return value.map(replaced)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, replaced(each)]))
}

function byKey<T extends { readonly key: string }>(rows: readonly T[]): T[] {
  return byText(rows, ({ key }) => key)
}

function byText<T>(rows: readonly T[], textOf: (row: T) => string): T[] {
  return [...rows].sort((a, b) => (textOf(a) < textOf(b) ? -1 : 1))
}

/** Counts what a deed is about to meet. Only the reference is asked, where an additional look is possible. */
async function tallyOf(
  change: Change,
  deed: Deed,
  beat: number | undefined,
  tally: Tally | undefined,
): Promise<void> {
  if (tally === undefined) return
  try {
    for (const met of await metBy(change, deed, beat)) tally.add(`${deed.deed}: ${met}`)
  } catch {
    tally.add('change: goes on after a deed that failed')
  }
}

async function metBy(change: Change, deed: Deed, beat: number | undefined): Promise<string[]> {
  const stateOf = async (id: string): Promise<string> => {
    const [node] = await change.nodesById([id])
    return node?.state ?? 'unknown'
  }
  switch (deed.deed) {
    case 'nodes':
      return [(await change.nodes()).length > 1 ? 'several' : 'few']
    case 'loads':
      return loadsMet(change)
    case 'highestToken':
      return [(await change.highestToken()) > 0 ? 'some' : 'none']
    case 'nodesById':
      return Promise.all(deed.ids.map(stateOf))
    case 'workers':
      return [(await change.workers(deed.keys)).length > 0 ? 'found' : 'not found']
    case 'leases':
      return leasesMet(change, deed)
    case 'view':
      return [await stateOf(deed.node)]
    case 'addNode':
      return [(await stateOf(deed.node.id)) === 'unknown' ? 'joins' : 'is there already']
    case 'updateNode':
      return [...Object.keys(deed.patch), await stateOf(deed.id)]
    case 'bury': {
      const [node] = await change.nodesById([deed.id])
      if (node === undefined || node.state === 'gone') return [node?.state ?? 'unknown']
      if (beat === undefined) return ['whatever its beat']
      return [node.beat === beat ? 'with its beat' : 'with another beat']
    }
    case 'forgetNode':
      return [await stateOf(deed.id)]
    case 'forgetWorker':
      return [(await change.workers([deed.key])).length > 0 ? 'found' : 'not found']
    case 'saveWorkers':
      return savedOver(await change.workers(deed.rows.map(({ key }) => key)), deed.rows)
    case 'saveLeases':
      return savedOver(await change.leases({ keys: deed.rows.map(({ key }) => key) }), deed.rows)
    case 'edit':
      return [deed.as, (await change.leases({ keys: [deed.key] })).length > 0 ? 'a lease' : 'a new lease']
    case 'deleteLeases':
      return [(await change.leases({ keys: deed.keys })).length > 0 ? 'found' : 'not found']
    case 'saveMeta':
      return Object.keys(deed.patch).length > 0 ? Object.keys(deed.patch) : ['nothing']
    case 'record':
      return deed.events.length > 0 ? deed.events.flatMap((event) => Object.keys(event)) : ['nothing']
    case 'tell':
      return deed.nodes.length > 0 ? Promise.all(deed.nodes.map(stateOf)) : ['nobody']
  }
}

async function loadsMet(change: Change): Promise<string[]> {
  const ids = (await change.nodes()).map(({ id }) => id)
  const leases = await change.leases({ nodes: ids })
  const stand = (...named: readonly (string | null)[]): boolean =>
    named.every((id) => id !== null && ids.includes(id))
  const isMoving = ({ holder, target }: LeaseRow): boolean => holder !== target && stand(holder, target)
  if (leases.some(isMoving)) return ['one that is to change hands']
  return [leases.some(({ holder, target }) => stand(target ?? holder)) ? 'some' : 'none']
}

async function leasesMet(change: Change, { filter }: Deed & { deed: 'leases' }): Promise<string[]> {
  const { keys, workers, nodes } = filter
  const ways = [{ keys: keys ?? [] }, { workers: workers ?? [] }, { nodes: nodes ?? [] }]
  const met = await Promise.all(
    ways.map(async (way) => ((await change.leases(way)).length > 0 ? `by ${Object.keys(way)}` : [])),
  )
  return met.flat().length > 0 ? met.flat() : ['not found']
}

/** Returns which columns were empty and are filled now, and which were filled and are empty now. */
function savedOver<T extends { readonly key: string }>(before: readonly T[], rows: readonly T[]): string[] {
  return rows.flatMap((row) => {
    const old = before.find(({ key }) => key === row.key)
    if (old === undefined) return ['new']
    const columns = (Object.keys(row) as (keyof T & string)[]).flatMap((column) => {
      if ((row[column] === null) === (old[column] === null)) return []
      return `${column} ${row[column] === null ? 'emptied' : 'filled'}`
    })
    return ['replaced', ...columns]
  })
}
