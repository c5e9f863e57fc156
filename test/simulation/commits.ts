/** Checks commits by the rules that need more than leases: which nodes are active, and what was ordered. */
import type { Identity } from '../../plugin/core/identity.js'
import { blockWaitMs, type Timing } from '../../plugin/core/time/timing.js'
import { Claims } from './claims.js'
import type { Committed, SimulatedDatabase, StoredLease } from './database.js'
import type { Plan } from './faults.js'
import type { History, Term } from './history.js'
import { Interruptions } from './interruptions.js'
import { Moves } from './moves.js'
import { Queues } from './queues.js'
import type { Scene, Site } from './scene.js'
import type { Scheduler } from './scheduler.js'
import { Spread, unrememberedIn } from './spread.js'
import type { Times } from './times.js'
import { Trail } from './trail.js'

/** For this long after a node was passed over, nodes that are cooling down may be granted the lease before it. */
const passedOverForMs = 30_000

export class Commits {
  readonly claims: Claims
  readonly interruptions: Interruptions
  readonly #scheduler: Scheduler
  readonly #database: SimulatedDatabase
  readonly #history: History
  readonly #timing: Timing
  readonly #shortest: Timing
  readonly #plan: Plan
  readonly #times: Times
  readonly #trail: Trail
  readonly #queues: Queues
  readonly #spread: Spread
  readonly #moves: Moves
  readonly #sites: readonly Site[]
  /** Pairs of lease and node that an operator or a plan has named as target. These nodes need not have cooled down. */
  readonly #named = new Set<string>()
  readonly #placed = new Set<string>()
  /** The nodes that have given back a lease last, where its row remembers the cool-down of another node. */
  readonly #unremembered = new Map<string, string>()
  /** When each node was passed over for each lease. */
  readonly #passedOver = new Map<string, number>()
  /**
   * For each order that is awaited: whether it is in force now. An order that was ever taken back meanwhile is removed.
   */
  readonly #inForce = new Set<() => boolean>()
  clockMovedAtMs = Number.NEGATIVE_INFINITY
  /** When rows that had been deleted by hand were last made again. */
  doubtedAtMs = Number.NEGATIVE_INFINITY
  /** Sessions of which the database has forgotten that they joined, with a ttl longer than those it knows. */
  readonly #joinsForgotten = new Map<string, { readonly atMs: number; readonly ttlMs: number }>()
  /** When a lease last got another holder or target. */
  handedOverAtMs = Number.NEGATIVE_INFINITY
  #hasFailedOver = false
  /** Whether somebody has deleted all rows, and no change has been made since. */
  #isWiped = false
  /** Whether tokens may have begun anew since. */
  #hasForgottenAll = false
  /** The processes that have heard that they have joined, by their labels, with the number of the latest id. */
  readonly #joined = new Map<string, number>()
  /** The leases whose rows somebody has deleted by hand. */
  readonly #deleted = new Set<string>()
  /** Those of which no other row was left, so that nothing could tell which tokens they had. */
  readonly #unknown = new Set<string>()
  readonly #joinedAfterEnd = new Set<string>()
  #recorded = { identity: '', settled: true, sinceMs: 0 }

  constructor(scene: Scene) {
    this.#scheduler = scene.scheduler
    this.#database = scene.database
    this.#history = scene.history
    this.#timing = scene.timing
    this.#shortest = scene.shortest
    this.#plan = scene.plan
    this.#times = scene.times
    this.#trail = new Trail(scene.database, scene.history)
    this.#queues = new Queues(scene.database, scene.history)
    this.#spread = new Spread(scene.database, scene.history)
    this.#moves = new Moves(scene.database, scene.history)
    this.interruptions = new Interruptions(scene)
    this.#sites = scene.sites
    this.claims = new Claims(scene, () => this.clockMovedAtMs)
  }

  /** Checks a committed change. */
  committed(change: Committed): void {
    const { leases, deleted } = change
    this.#checkFirst(change)
    this.#checkGrace()
    for (const { type, subject } of change.events)
      if (type === 'worker.forgotten')
        for (const key of this.#deleted) if (workerOf(key) === subject) this.#deleted.delete(key)
    this.#noteUnknown()
    this.#trail.committed(change)
    this.#queues.committed(change)
    this.#spread.committed(change)
    this.#moves.committed(change)
    this.interruptions.committed(change)
    this.forgotten(deleted)
    for (const lease of leases) {
      const before = this.#history.stored(lease.key)
      this.#checkNamed(lease, before)
      this.#noteUnremembered(lease, before)
      this.#noteOthers(lease, before)
      if (lease.holder !== before?.holder || lease.target !== before?.target)
        this.handedOverAtMs = this.#scheduler.nowMs
      this.#times.committed(lease, before)
      this.claims.committed(lease, before)
      if (lease.holder !== null && lease.token !== before?.token)
        this.#excuseForgotten(lease.key, lease.holder)
    }
    const joined = change.events.flatMap(({ type, subject }) => (type === 'node.joined' ? subject : []))
    if (this.#isEnd()) for (const id of joined) this.#joinedAfterEnd.add(id)
    // The row of a node that joins was missing before, even if the node holds something: somebody had deleted it.
    const isGone = (id: string): boolean =>
      joined.includes(id) || !this.#database.nodes().some((node) => node.id === id)
    const isTokenForgotten = (holder: string, key: string): boolean =>
      this.#isTokenForgotten(holder) || this.#unknown.has(key) || this.#hasForgottenAll
    this.#history.committed(leases, isGone, isTokenForgotten, (lease, before) => {
      this.#checkCooldown(lease, before)
      this.#checkPermission(lease)
    })
  }

  /**
   * Whether a node has joined when all processes were closing already, its own included, and that one has not heard of
   * it: nobody need bury the node.
   */
  hasJoinedAfterEnd(node: string): boolean {
    return this.#joinedAfterEnd.has(node)
  }

  #isEnd(): boolean {
    return this.#sites.flatMap(({ life }) => life ?? []).every(({ closing }) => closing)
  }

  /**
   * Whether nothing is left that could know of a token: a failover has lost its row and the floor, its holder has
   * ended, and the database's clock was set back. Growing tokens are promised only while one of these is left.
   */
  #isTokenForgotten(holder: string): boolean {
    const isLeft = this.#sites.some(({ life }) => life?.process.made(holder))
    return this.#hasFailedOver && this.#database.isClockBehind && !isLeft
  }

  /**
   * Excuses a term that the claimant could not know how long to wait for: a failover has lost the join of its node,
   * whose ttl is longer than all others, and the claimant started only after that. The guarantees name this limit.
   */
  #excuseForgotten(key: string, claimant: string): void {
    const born = this.#sites.find(({ life }) => life?.process.made(claimant))?.life?.process.bornMs ?? 0
    for (const term of this.#history.trusting(key)) {
      const forgotten = this.#joinsForgotten.get(term.session?.id ?? '')
      if (forgotten === undefined || born < forgotten.atMs || forgotten.ttlMs <= this.#ttlMsOf(claimant))
        continue
      this.#history.count('longer ttl forgotten by all')
      this.#history.excuse(key, term.token)
    }
  }

  /** Notes the sessions whose join a failover has lost, if their ttl is longer than those of all nodes that are left. */
  #noteForgottenJoins(): void {
    const left = this.#database.nodes().map(({ id }) => id)
    const longestMs = Math.max(0, ...left.map((id) => this.#ttlMsOf(id)))
    for (const { session } of this.#history.trustedWhere(() => true)) {
      if (session === undefined || left.includes(session.id)) continue
      const ttlMs = this.#ttlMsOf(session.id)
      if (ttlMs > longestMs) this.#joinsForgotten.set(session.id, { atMs: this.#scheduler.nowMs, ttlMs })
    }
  }

  #ttlMsOf(node: string): number {
    return this.#sites.find(({ name }) => node.startsWith(`${name}.`))?.timing.ttlMs ?? 0
  }

  /** Called when the database has failed over to an earlier state. */
  failedOver(): void {
    this.#hasFailedOver = true
    this.#noteForgottenJoins()
    this.#recorded = { ...this.#database.record(), sinceMs: this.#scheduler.nowMs }
    this.#history.rolledBack(this.#database.leases())
    this.#times.rolledBack(this.#database.leases())
    this.#look()
    this.interruptions.rolledBack()
  }

  /** Notes that somebody has deleted all rows. */
  wiped(): void {
    this.#isWiped = true
    this.#noteForgottenJoins()
    this.#recorded = { identity: '', settled: true, sinceMs: this.#scheduler.nowMs }
    this.#history.rolledBack([])
    this.#times.rolledBack([])
    this.#look()
  }

  /**
   * Checks the first change after all rows were deleted. A node that has been a member before takes the empty tables for
   * another server. One that has started since cannot know of the past: for what was held then nothing is promised.
   */
  #checkFirst({ by, events }: Committed): void {
    if (!this.#isWiped) return
    this.#isWiped = false
    const { settled } = this.#database.record()
    // A request to join that comes late was sent when its node had no past: under an id before the one that has joined.
    const heard = by === undefined ? undefined : this.#joined.get(labelOf(by))
    const isLate = events.some(({ type }) => type === 'node.joined') && numberOf(by ?? '') <= (heard ?? 0)
    const isNew = by !== undefined && (isLate || heard === undefined)
    if (settled && !isNew)
      this.#history.violate('X4', `${by ?? 'an operator'} takes the emptied tables for new ones`)
    if (settled) this.#history.count('past forgotten by all')
    // The node that comes first knows only the tokens that it has seen.
    if (settled || this.#database.isClockBehind) this.#hasForgottenAll = true
    if (settled) this.#history.excuseAll()
  }

  /** Notes that the process of this node has heard that it has joined, and checks by which names. */
  joined(node: string, identity: Identity): void {
    this.#joined.set(labelOf(node), numberOf(node))
    this.#joinedAfterEnd.delete(node)
    const { name, cluster } = this.#database.nodes().find(({ id }) => id === node) ?? {}
    if (name !== undefined && (name !== identity.node || cluster !== identity.cluster))
      this.#history.violate(
        'N1',
        `${node} has joined as ${name} of ${cluster}: ${identity.node} of ${identity.cluster}`,
      )
  }

  /** Notes that somebody has deleted rows by hand, of these leases or others. */
  deletedByHand(leases: readonly string[]): void {
    for (const key of leases) this.#deleted.add(key)
    this.#noteUnknown()
    this.forgotten(leases)
  }

  /** Notes the leases of which somebody has deleted every row that could have told that they have existed. */
  #noteUnknown(): void {
    for (const key of this.#deleted) {
      const worker = workerOf(key)
      const isKnown =
        this.#database.leases().some((lease) => lease.key === key) ||
        this.#database.workers().some((row) => row.key === worker) ||
        this.#database.nodes().some((node) => (JSON.parse(node.workers) as string[]).includes(worker))
      if (!isKnown) this.#unknown.add(key)
    }
  }

  /** Notes that the rows of these leases have been deleted. */
  forgotten(leases: readonly string[]): void {
    for (const inForce of this.#inForce) if (!inForce()) this.#inForce.delete(inForce)
    this.#history.forget(leases)
    this.#times.forget(leases)
    this.#look()
  }

  /** Takes what is stored as given, whoever has written it. */
  #look(): void {
    this.#trail.look()
    this.#moves.look()
    this.interruptions.look()
  }

  clockMoved(): void {
    this.clockMovedAtMs = this.#scheduler.nowMs
  }

  /** Notes that the operator has moved a lease. Its worker's leases may not be shared out evenly then. */
  placed(key: string): void {
    this.#placed.add(workerOf(key))
  }

  /** Whether the operator has moved leases of this worker. */
  isPlaced(worker: string): boolean {
    return this.#placed.has(worker)
  }

  /** Notes that this node was named as target of this lease. */
  named(key: string, node: string): void {
    this.#named.add(`${key} ${node}`)
  }

  /** A new server, or one that is doubted, is recorded as waited out only after its whole grace period. */
  #checkGrace(): void {
    const { nowMs } = this.#scheduler
    const record = this.#database.record()
    if (record.identity !== this.#recorded.identity) {
      if (record.identity.includes('#')) this.doubtedAtMs = nowMs
      this.#recorded = { ...record, sinceMs: nowMs }
    } else if (record.settled && !this.#recorded.settled) {
      const waitedMs = nowMs - this.#recorded.sinceMs
      this.#recorded = { ...record, sinceMs: nowMs }
      if (waitedMs < blockWaitMs(this.#shortest) / 1.01)
        this.#history.violate('X4', `${record.identity} was settled after ${waitedMs.toFixed(0)} ms`)
    }
  }

  /** No lease of a paused worker is granted, and none to a node that is not active or is of another cluster. */
  #checkPermission({ key, worker, holder }: StoredLease): void {
    if (this.#database.workers().some((each) => each.key === worker && each.paused))
      this.#history.violate('S7', `${key} was granted to ${holder} while ${worker} is paused`)
    if (this.#database.nodes().some((each) => each.id === holder && each.state !== 'active'))
      this.#history.violate('S7', `${key} was granted to ${holder}, which is not active`)
    this.#checkCluster(key, holder)
  }

  /** Only an active node is named as target. */
  #checkNamed({ key, target }: StoredLease, before: StoredLease | undefined): void {
    if (target === null || target === before?.target) return
    const { state = 'gone' } = this.#database.nodes().find((each) => each.id === target) ?? {}
    if (state !== 'active') this.#history.violate('S7', `${key} is meant for ${target}, which is ${state}`)
    this.#checkCluster(key, target)
  }

  /** A lease of a cluster concerns only the nodes of that cluster. */
  #checkCluster(key: string, node: string | null): void {
    const scope = key.slice(0, key.indexOf('/'))
    const { cluster = scope } = this.#database.nodes().find(({ id }) => id === node) ?? {}
    if (scope !== 'global' && scope !== cluster)
      this.#history.violate('N1', `${key} is given to ${node}, which is in ${cluster}`)
  }

  /**
   * Checks after a ttl that an order is obeyed: it reaches a holder before its trust is renewed, or that trust ends.
   * Orders that were taken back, even by a late request, or lost in a failover are left out.
   */
  expectObedience(what: string, inForce: () => boolean, forbids: (term: Term) => boolean): void {
    const { past } = this.#database
    this.#inForce.add(inForce)
    this.#scheduler.after(this.#timing.ttlMs * 1.02, () => {
      if (!this.#inForce.delete(inForce) || past !== this.#database.past || !inForce()) return
      for (const { key, token, process } of this.#history.trustedWhere(forbids))
        this.#history.violate('S7', `${process.label} still trusts ${key}@${token} a ttl after the ${what}`)
    })
  }

  /**
   * Notes a new target: one named for a lease that is to be handed over, or one named in place of a target that did not
   * claim.
   */
  #noteOthers({ key, holder, target }: StoredLease, before: StoredLease | undefined): void {
    if (before === undefined || target === before.target || holder !== before.holder) return
    if (holder !== null && target !== null) this.named(key, target)
    if (holder === null && before.target !== null)
      this.#passedOver.set(`${key} ${before.target}`, this.#scheduler.nowMs)
  }

  /** Notes who has given back a lease last, if its row does not remember that this node cools down. */
  #noteUnremembered(lease: StoredLease, before: StoredLease | undefined): void {
    if (before === undefined || before.holder === null || before.holder === lease.holder) return
    const node = unrememberedIn(lease, before)
    if (node === undefined) this.#unremembered.delete(lease.key)
    else this.#unremembered.set(lease.key, node)
  }

  /** A node that is cooling down is granted no lease while a healthy node, not recently passed over, could take it. */
  #checkCooldown(lease: StoredLease, before: StoredLease | undefined): void {
    const { ttlMs } = this.#timing
    const { nowMs } = this.#scheduler
    if (before === undefined || before.cooldownNode !== lease.holder || before.cooldownUntilMs === null)
      return
    if (this.#named.has(`${lease.key} ${lease.holder}`)) return
    if (before.cooldownUntilMs <= this.#database.nowMs || nowMs - this.clockMovedAtMs < ttlMs * 20) return
    const worker = this.#database.workers().find(({ key }) => key === lease.worker)
    if (worker?.kind !== 'single' || this.#plan.traits.has('stubborn')) return
    const healthy = this.#database.nodes().filter((node) => {
      if (node.state !== 'active' || node.id === lease.holder) return false
      if (this.#unremembered.get(lease.key) === node.id) return false
      if (
        nowMs - (this.#passedOver.get(`${lease.key} ${node.id}`) ?? Number.NEGATIVE_INFINITY) <
        passedOverForMs
      )
        return false
      if (!(JSON.parse(node.workers) as string[]).includes(worker.key)) return false
      const site = this.#sites.find(({ life }) => life?.coordinator.nodeId === node.id)
      const process = site?.life?.process
      if (site === undefined || process === undefined || site.disturbed.size > 0 || site.life?.closing)
        return false
      return process.standstill === undefined && nowMs - process.calmSinceMs > 2 * ttlMs
    })
    if (healthy.length > 0)
      this.#history.violate(
        'S5',
        `${lease.holder} wins ${lease.key} while it cools down and ${healthy[0]?.id} is a candidate`,
      )
  }
}

/** The worker that a lease belongs to, by its key. */
function workerOf(lease: string): string {
  return lease.replace(/#\d+$/, '')
}

/** The label of the process that made this id of a node. */
function labelOf(node: string): string {
  return node.replace(/-\d+$/, '')
}

/** The number of an id of a node among those that its process has made. */
function numberOf(node: string): number {
  return Number(node.replace(/^.*-/, ''))
}
