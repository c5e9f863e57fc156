/**
 * Runs a course on a store and on the reference in memory, and fails where they differ.
 *
 * The store goes first. It tells what belongs to its database, the time and the identity, and the reference is set to
 * the same, so that times written by a change can be compared exactly. Where the test owns the clock, all times can.
 * Elsewhere the time of a heartbeat must lie between the time last heard of the clock and the one in the heartbeat's
 * own answer.
 */
import assert from 'node:assert/strict'
import { inspect } from 'node:util'
import type { EventQuery, LeaseRow, NodeRow, ServerFacts, Snapshot, Store } from '../../plugin/core/store.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'
import {
  type Alteration,
  type Course,
  cast,
  type Heartbeat,
  type Read,
  type Step,
  type Verb,
} from './course.js'
import {
  type Actor,
  alter,
  beat,
  fenceOn,
  milliseconds,
  outcomeOf,
  type Resolved,
  read,
  related,
  type Tally,
  wholeRows,
} from './course-actor.js'

/** Stores to compare with the reference: two of one namespace, and one of another in the same database. */
export interface Tried {
  readonly stores: readonly [Store, Store, Store]
  /** The database's clock, where the test owns it. */
  readonly clock?: { nowMs: number }
  /** What others can do while a change is open without waiting for it. */
  readonly beside: { readonly reads: boolean; readonly heartbeats: boolean }
  /** Deletes all rows. */
  empty(): Promise<void>
  /** Runs work in a transaction of a user. Left out where no such transaction is possible. */
  transaction?(work: (handle: unknown) => Promise<void>): Promise<void>
}

/** Tells where a store and the reference differ. */
export class Difference extends Error {
  constructor(where: string, reference: unknown, store: unknown) {
    super(`${where}\nthe reference: ${shown(reference)}\nthe store: ${shown(store)}`)
    this.name = 'Difference'
  }
}

export function shown(value: unknown): string {
  return inspect(value, { depth: 12, breakLength: 140, maxStringLength: 300, sorted: true })
}

/** Runs a course. Throws a {@link Difference} where the store and the reference differ. */
export async function follow(tried: Tried, course: Course, tally: Tally): Promise<void> {
  await tried.empty()
  const match = new Match(tried, tally)
  const steps = cast(course)
  for (const [place, step] of steps.entries()) await match.step(step, `step ${place + 1} of ${steps.length}`)
  await match.compareRows('at the end')
}

type Via = Step['via']

/** The interval in which a node's latest heartbeat was stamped. */
interface Stamp {
  readonly fromMs: number
  readonly toMs: number
}

class Match {
  readonly #tried: Tried
  readonly #tally: Tally
  readonly #reference: readonly [Store, Store, Store]
  /** The time of the reference. */
  #nowMs = 0
  #identity: string | undefined
  /** The time last heard of the store's clock: before the present step, and up to now. */
  #startMs = 0
  #heardMs = 0
  readonly #stamps = new Map<string, Stamp>()
  /** Nodes whose latest beats an open change may or may not see. */
  #uncertain = new Set<string>()
  #where = ''

  constructor(tried: Tried, tally: Tally) {
    this.#tried = tried
    this.#tally = tally
    const database = new MemoryDatabase({ nowMs: () => this.#nowMs, identity: () => this.#identity ?? '' })
    const open = (namespace: string): Store => database.open({ namespace, statementTimeoutMs: 60_000 })
    this.#reference = [open('one'), open('one'), open('other')]
  }

  async step({ via, passMs, verb }: Step, where: string): Promise<void> {
    this.#where = `${where}, ${JSON.stringify(verb)}`
    const { clock } = this.#tried
    if (clock !== undefined) {
      clock.nowMs += passMs
      this.#nowMs = clock.nowMs
    }
    this.#startMs = this.#heardMs
    await this.#do(via, verb)
  }

  async compareRows(where: string): Promise<void> {
    this.#where = where
    for (const via of [0, 2] as const) await this.#compare(via, wholeRows)
  }

  async #do(via: Via, verb: Verb): Promise<void> {
    const before = await this.#reference[via].snapshot()
    switch (verb.verb) {
      case 'heartbeat':
        return this.#beat(via, verb, beatOf(before, verb))
      case 'prune':
        return this.#prune(via, verb, before)
      case 'fence':
        return this.#fence(via, verb, before)
      case 'change':
        return this.#change(via, verb.change, before)
      case 'race':
        return this.#race(verb.changes, before)
      default:
        await this.#countRead(via, verb, before)
        return this.#compare(via, (actor) => read(actor, verb))
    }
  }

  async #compare(via: Via, ask: (actor: Actor) => Promise<unknown>): Promise<void> {
    const got = await outcomeOf(() => ask(this.#triedActor(via)))
    this.#assertSame(await outcomeOf(() => ask(this.#referenceActor(via))), got)
  }

  async #beat(via: Via, verb: Heartbeat, number: number): Promise<void> {
    const { got, atMs } = await this.#beatTried(via, verb, number)
    this.#assertSame(await this.#beatReference(via, verb, number, atMs), got)
  }

  async #beatTried(
    via: Via,
    verb: Heartbeat,
    number: number,
  ): Promise<{ got: unknown; atMs: number | undefined }> {
    const actor = this.#triedActor(via)
    let atMs: number | undefined
    const heard = (facts: Partial<ServerFacts>): void => {
      actor.heard(facts)
      atMs = facts.nowMs
    }
    const got = await outcomeOf(() => beat({ ...actor, heard }, verb, number))
    if (atMs !== undefined) {
      this.#stamps.set(`${spaceOf(via)} ${verb.node}`, { fromMs: this.#startMs, toMs: atMs })
    }
    return { got, atMs }
  }

  async #beatReference(
    via: Via,
    verb: Heartbeat,
    number: number,
    atMs: number | undefined,
  ): Promise<unknown> {
    const stood = (await this.#reference[via].snapshot()).nodes.find(({ id }) => id === verb.node)
    const why = stood === undefined ? 'unknown' : stood.state === 'gone' ? 'gone' : 'not greater'
    this.#nowMs = atMs ?? this.#nowMs
    const expected = await outcomeOf(() => beat(this.#referenceActor(via), verb, number))
    const { answered } = expected as { answered?: unknown }
    this.#tally.add(answered === undefined ? `heartbeat: ${why}` : `heartbeat: answered ${stood?.state}`)
    return expected
  }

  async #prune(via: Via, verb: Verb & { verb: 'prune' }, before: Snapshot): Promise<void> {
    const store = this.#reference[via]
    const eventsBefore = await store.events({ limit: 1_000 })
    const ownClock = this.#tried.clock !== undefined
    const retention = {
      events: verb.events,
      eventsForMs: milliseconds(verb.eventsFor, ownClock),
      goneNodesForMs: milliseconds(verb.goneNodesFor, ownClock),
    }
    await this.#compare(via, (actor) => actor.store.prune(retention))
    const { nodes } = await store.snapshot()
    if ((await store.events({ limit: 1_000 })).length < eventsBefore.length) this.#tally.add('prune: events')
    if (nodes.length < before.nodes.length) this.#tally.add('prune: nodes')
    const stays = verb.goneNodesFor === 'all' && nodes.some(({ state }) => state === 'gone')
    if (stays) this.#tally.add('prune: a gone node that a lease names stays')
    await this.#compare(via, wholeRows)
  }

  async #fence(via: Via, verb: Verb & { verb: 'fence' }, before: Snapshot): Promise<void> {
    const { transaction } = this.#tried
    if (transaction === undefined) return
    const isWanted = ({ key, holder }: LeaseRow): boolean =>
      verb.key === undefined ? holder !== null : key === verb.key
    const lease = before.leases.find(isWanted)
    const node = verb.node ?? lease?.holder ?? 'nobody'
    const key = verb.key ?? lease?.key ?? 'nothing'
    const claim = { key, node, token: related(lease?.token ?? 0, verb.token) }
    let got: unknown
    await transaction.call(this.#tried, async (handle) => {
      got = await fenceOn(this.#triedActor(via), handle, claim)
    })
    const expected = await fenceOn(this.#referenceActor(via), {}, claim)
    this.#assertSame(expected, got)
    const holder = before.nodes.find(({ id }) => id === node)
    const flaws = {
      'no such lease': lease === undefined,
      'another holder': lease !== undefined && lease.holder !== node,
      'another token': lease?.holder === node && lease.token !== claim.token,
      'its node is gone or unknown': holder === undefined || holder.state === 'gone',
    }
    const [flaw = 'holds'] = Object.entries(flaws).flatMap(([flaw, is]) => (is ? flaw : []))
    this.#tally.add(`fence: ${flaw}`)
  }

  async #change(via: Via, alteration: Alteration, before: Snapshot): Promise<void> {
    const resolved = resolve(alteration, before)
    const { inside, outside } = this.#besides(via, alteration)
    const numbers = new Map(alteration.beside.map((verb) => [verb, beatOf(before, verb)]))
    for (const verb of outside) await this.#besideNow(via, verb, numbers.get(verb))

    this.#uncertain = new Set(inside.flatMap((verb) => (verb.verb === 'heartbeat' ? verb.node : [])))
    let besides: Promise<readonly Beside[]> | undefined
    const half = async (): Promise<readonly Beside[]> => {
      besides ??= this.#besideTried(other(via), inside, numbers)
      return besides
    }
    let atMs = this.#nowMs
    const begun = (nowMs: number): void => {
      atMs = nowMs
    }
    const got = await alter(this.#triedActor(via), alteration, resolved, {
      begun,
      half: async () => void (await half()),
    })
    for (const { verb, got, atMs } of await half()) {
      this.#assertSame(await this.#besideReference(other(via), verb, numbers.get(verb), atMs), got)
    }
    this.#nowMs = atMs
    const expected = await this.#alterReference(via, alteration, resolved)
    this.#assertSame(expected, got)
    this.#uncertain = new Set()
    if (inside.length > 0) this.#tally.add('change: others do something beside it')
  }

  async #alterReference(via: Via, alteration: Alteration, resolved: Resolved): Promise<unknown> {
    const { session } = resolved
    if (session !== undefined) {
      const { nodes } = await this.#reference[via].snapshot()
      const node = nodes.find(({ id }) => id === session.node)
      const state = node === undefined ? 'unknown' : node.state
      const late = node !== undefined && node.operation >= session.operation
      this.#tally.add(`session: ${late && state !== 'gone' ? 'late' : state}`)
    } else this.#tally.add('session: nobody')
    const nothing = { begun: () => undefined, half: async () => undefined }
    const expected = await alter(this.#referenceActor(via), alteration, resolved, nothing)
    const { outcome } = expected as { outcome: { answered?: { committed: boolean }; failed?: string } }
    this.#tally.add(
      `change: ${outcome.failed ?? (outcome.answered?.committed ? 'committed' : 'wrote nothing')}`,
    )
    this.#tally.add(`change: ends ${alteration.end}`)
    this.#tally.add(`change: says ahead ${alteration.ahead}`)
    return expected
  }

  /** Makes two changes at once. The store decides which comes first, but one must come after the other. */
  async #race(changes: readonly [Alteration, Alteration], before: Snapshot): Promise<void> {
    const resolved = changes.map((alteration) => resolve(alteration, before))
    const order: number[] = []
    const times = [this.#nowMs, this.#nowMs]
    const race = changes.map((alteration, place) => {
      const begun = (nowMs: number): void => {
        order.splice(0, order.length, ...order.filter((each) => each !== place), place)
        times[place] = nowMs
      }
      const way = { begun, half: async () => undefined }
      return alter(this.#triedActor(place as Via), alteration, resolved[place] as Resolved, way)
    })
    const got = await Promise.all(race)
    for (const place of new Set([...order, 0, 1])) {
      this.#nowMs = times[place] as number
      const [alteration, own] = [changes[place] as Alteration, resolved[place] as Resolved]
      this.#assertSame(await this.#alterReference(place as Via, alteration, own), got[place])
    }
    this.#tally.add('race: two changes at once')
  }

  /** Splits the verbs of others into those possible while the change is open and those that must come before. */
  #besides(via: Via, alteration: Alteration) {
    const { reads, heartbeats } = this.#tried.beside
    const concerned = JSON.stringify(alteration)
    const fits = (verb: Read | Heartbeat): boolean =>
      verb.verb === 'heartbeat' ? heartbeats && !concerned.includes(JSON.stringify(verb.node)) : reads
    const inside = via === 2 ? [] : alteration.beside.filter(fits)
    return { inside, outside: alteration.beside.filter((verb) => !inside.includes(verb)) }
  }

  async #besideNow(via: Via, verb: Read | Heartbeat, number = 0): Promise<void> {
    if (verb.verb === 'heartbeat') await this.#beat(via, verb, number)
    else await this.#compare(via, (actor) => read(actor, verb))
  }

  async #besideTried(
    via: Via,
    verbs: readonly (Read | Heartbeat)[],
    numbers: ReadonlyMap<Read | Heartbeat, number>,
  ): Promise<readonly Beside[]> {
    const done: Beside[] = []
    for (const verb of verbs) {
      const beside =
        verb.verb === 'heartbeat'
          ? await this.#beatTried(via, verb, numbers.get(verb) ?? 0)
          : { got: await outcomeOf(() => read(this.#triedActor(via), verb)), atMs: undefined }
      done.push({ verb, ...beside })
    }
    return done
  }

  async #besideReference(
    via: Via,
    verb: Read | Heartbeat,
    number = 0,
    atMs: number | undefined,
  ): Promise<unknown> {
    if (verb.verb === 'heartbeat') return this.#beatReference(via, verb, number, atMs)
    return outcomeOf(() => read(this.#referenceActor(via), verb))
  }

  async #countRead(via: Via, verb: Read, { nodes }: Snapshot): Promise<void> {
    if (verb.verb !== 'view' && verb.verb !== 'news') {
      if (verb.verb === 'events') await this.#countEvents(via, verb.query)
      else this.#tally.add(verb.verb)
      return
    }
    this.#tally.add(`${verb.verb}: ${nodes.find(({ id }) => id === verb.node)?.state ?? 'unknown'}`)
  }

  /** Counts which parts of a query leave out events that would come without them. */
  async #countEvents(via: Via, { types, subject, after }: EventQuery): Promise<void> {
    const all = await this.#reference[via].events({ limit: 1_000 })
    const leaves = {
      types: types !== undefined && all.some(({ type }) => !types.includes(type)),
      subject: subject !== undefined && all.some((event) => event.subject !== subject),
      after: after !== undefined && all.some(({ revision }) => revision < after.revision),
    }
    for (const [part, is] of Object.entries(leaves)) if (is) this.#tally.add(`events: left out by ${part}`)
    this.#tally.add(all.length > 0 ? 'events: some' : 'events: none')
  }

  #triedActor(via: Via): Actor {
    return {
      store: this.#tried.stores[via],
      heard: (facts) => this.#hear(facts),
      settled: (row) => this.#settled(via, row),
      tally: undefined,
    }
  }

  #referenceActor(via: Via): Actor {
    return {
      store: this.#reference[via],
      heard: () => undefined,
      settled: (row) => this.#masked(row),
      tally: this.#tally,
    }
  }

  #hear({ nowMs, serverIdentity }: Partial<Pick<ServerFacts, 'nowMs' | 'serverIdentity'>>): void {
    this.#identity ??= serverIdentity
    if (serverIdentity !== undefined && serverIdentity !== this.#identity) {
      throw new Difference(`${this.#where}: the identity of its server`, this.#identity, serverIdentity)
    }
    if (nowMs === undefined) return
    const { clock } = this.#tried
    const isRight =
      clock === undefined ? Number.isInteger(nowMs) && nowMs >= this.#startMs : nowMs === clock.nowMs
    if (!isRight) throw new Difference(`${this.#where}: the time`, clock?.nowMs ?? this.#startMs, nowMs)
    this.#heardMs = clock === undefined ? Math.max(this.#heardMs, nowMs) : nowMs
  }

  /** A node that was forgotten may have been added again: before its first heartbeat no stamp is its own. */
  #settled(via: Via, row: NodeRow): NodeRow {
    const { fromMs, toMs } = this.#stamps.get(`${spaceOf(via)} ${row.id}`) ?? { fromMs: 1, toMs: 0 }
    const isWithin = row.beat > 0 && fromMs <= row.heartbeatAtMs && row.heartbeatAtMs <= toMs
    return this.#masked({ ...row, heartbeatAtMs: isWithin ? toMs : row.heartbeatAtMs })
  }

  #masked(row: NodeRow): NodeRow {
    return this.#uncertain.has(row.id) ? { ...row, beat: 0, heartbeatAtMs: 0 } : row
  }

  #assertSame(expected: unknown, got: unknown): void {
    try {
      assert.deepStrictEqual(got, expected)
    } catch {
      throw new Difference(this.#where, expected, got)
    }
  }
}

interface Beside {
  readonly verb: Read | Heartbeat
  readonly got: unknown
  readonly atMs: number | undefined
}

function spaceOf(via: Via): string {
  return via === 2 ? 'other' : 'one'
}

/** Returns the other store of the same namespace, or the same store when there is no other. */
function other(via: Via): Via {
  return via === 0 ? 1 : via === 1 ? 0 : 2
}

function beatOf({ nodes }: Snapshot, verb: Read | Heartbeat): number {
  if (verb.verb !== 'heartbeat') return 0
  return related(nodes.find(({ id }) => id === verb.node)?.beat ?? 0, verb.beat)
}

function resolve({ session, deeds }: Alteration, { nodes }: Snapshot): Resolved {
  const byId = new Map(nodes.map((node) => [node.id, node]))
  const beats = deeds.flatMap((deed) =>
    deed.deed === 'bury' && deed.beat !== undefined
      ? [[deed, related(byId.get(deed.id)?.beat ?? 0, deed.beat)] as const]
      : [],
  )
  return {
    session: session && {
      node: session.node,
      operation: related(byId.get(session.node)?.operation ?? 0, session.operation),
    },
    beats: new Map(beats),
  }
}
