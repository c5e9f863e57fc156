/** Checks commits by the rules that need more than leases: which nodes are active, and what was ordered. */
import { blockWaitMs, type Timing } from '../../plugin/core/time/timing.js'
import type { SimulatedDatabase, StoredLease } from './database.js'
import type { Plan } from './faults.js'
import type { History, Term } from './history.js'
import type { Scene, Site } from './scene.js'
import type { Scheduler } from './scheduler.js'
import type { Times } from './times.js'

/** For this long after a node was passed over, nodes that are cooling down may be granted the lease before it. */
const passedOverForMs = 30_000

export class Commits {
  readonly #scheduler: Scheduler
  readonly #database: SimulatedDatabase
  readonly #history: History
  readonly #timing: Timing
  readonly #shortest: Timing
  readonly #plan: Plan
  readonly #times: Times
  readonly #sites: readonly Site[]
  /** Pairs of lease and node that an operator or a plan has named as target. These nodes need not have cooled down. */
  readonly #named = new Set<string>()
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
  #recorded = { identity: '', settled: true, sinceMs: 0 }

  constructor(scene: Scene) {
    this.#scheduler = scene.scheduler
    this.#database = scene.database
    this.#history = scene.history
    this.#timing = scene.timing
    this.#shortest = scene.shortest
    this.#plan = scene.plan
    this.#times = scene.times
    this.#sites = scene.sites
  }

  /** Checks a committed change that touched these leases, and deleted those of these keys. */
  committed(leases: readonly StoredLease[], deleted: readonly string[]): void {
    this.#checkGrace()
    this.forgotten(deleted)
    for (const lease of leases) {
      const before = this.#history.stored(lease.key)
      this.#checkNamed(lease, before)
      this.#noteOthers(lease, before)
      if (lease.holder !== before?.holder || lease.target !== before?.target)
        this.handedOverAtMs = this.#scheduler.nowMs
      this.#times.committed(lease, before)
      if (lease.holder !== null && lease.token !== before?.token)
        this.#excuseForgotten(lease.key, lease.holder)
    }
    const isGone = (id: string): boolean => !this.#database.nodes().some((node) => node.id === id)
    const isTokenForgotten = (holder: string): boolean => this.#isTokenForgotten(holder)
    this.#history.committed(leases, isGone, isTokenForgotten, (lease, before) => {
      this.#checkCooldown(lease, before)
      this.#checkPermission(lease)
    })
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
  }

  /** Notes that the rows of these leases have been deleted, or other rows by hand. */
  forgotten(leases: readonly string[]): void {
    for (const inForce of this.#inForce) if (!inForce()) this.#inForce.delete(inForce)
    this.#history.forget(leases)
    this.#times.forget(leases)
  }

  clockMoved(): void {
    this.clockMovedAtMs = this.#scheduler.nowMs
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

  /** No lease of a paused worker is granted, and none to a node that is not active. */
  #checkPermission({ key, worker, holder }: StoredLease): void {
    if (this.#database.workers().some((each) => each.key === worker && each.paused))
      this.#history.violate('S7', `${key} was granted to ${holder} while ${worker} is paused`)
    if (this.#database.nodes().some((each) => each.id === holder && each.state !== 'active'))
      this.#history.violate('S7', `${key} was granted to ${holder}, which is not active`)
  }

  /** Only an active node is named as target. */
  #checkNamed({ key, target }: StoredLease, before: StoredLease | undefined): void {
    if (target === null || target === before?.target) return
    const { state = 'gone' } = this.#database.nodes().find((each) => each.id === target) ?? {}
    if (state !== 'active') this.#history.violate('S7', `${key} is meant for ${target}, which is ${state}`)
  }

  /**
   * Checks after a ttl that an order is obeyed: it reaches a holder before its trust is renewed, or that trust ends.
   * Orders that were taken back, even by a late request, or lost in a failover are left out.
   */
  expectObedience(what: string, inForce: () => boolean, forbids: (term: Term) => boolean): void {
    const server = this.#database.identity
    this.#inForce.add(inForce)
    this.#scheduler.after(this.#timing.ttlMs * 1.02, () => {
      if (!this.#inForce.delete(inForce) || server !== this.#database.identity || !inForce()) return
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
