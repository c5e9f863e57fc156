/**
 * What this node holds, and what it wishes to change about that.
 *
 * The database says what is so (a view); the handles say what this process is doing. Comparing the
 * two gives everything the node has to do next: end handles that are not covered any more, give
 * back what has ended and settled, and claim what it is meant to have. Nothing is remembered from
 * one comparison to the next but how long something has been seen, so a lost or doubled message
 * cannot leave anything half done.
 */
import type { Requests } from './acquire.js'
import type { Held, Wishes } from './changes.js'
import type { Reading } from './clock.js'
import { barrierOpen, isBlocked } from './draft.js'
import type { EndReason } from './errors.js'
import { Holding, type Keeper } from './lease.js'
import type { LeaseRow, OwnView, WorkerRow } from './store.js'
import { blockWaitMs, type Timing } from './timing.js'
import { surelyElapsedMs } from './trust.js'
import { makeAssignment, type Runner } from './worker.js'

/** What a comparison is made in the light of. */
export interface Circumstances {
  /** Session id of this node. */
  readonly node: string
  readonly view: OwnView
  readonly now: Reading
  /** No claims while a new server is being waited out, or this node is closing. */
  readonly mayClaim: boolean
  /** The workers this node stands for, by key. */
  readonly runners: ReadonlyMap<string, Runner>
  readonly requests: Requests
  /** Numbers of the changes in which this session asked for leases, and the server they were made under. */
  readonly attempts: ReadonlyMap<number, string>
}

/** What is to be done. */
export interface Agenda {
  readonly wishes: Wishes
  /** When to compare again, if nothing else happens; undefined for never. */
  readonly dueInMs: number | undefined
}

/** What the owner hears of. */
export interface HoldingsOwner extends Keeper {
  acquired(holding: Holding): void
  ended(holding: Holding): void
  released(holding: Holding): void
}

export class Holdings {
  readonly #timing: Timing
  readonly #owner: HoldingsOwner
  readonly #byKey = new Map<string, Holding>()
  readonly #firstSeen = new Map<string, Reading>()
  #highestToken = 0

  constructor(timing: Timing, owner: HoldingsOwner) {
    this.#timing = timing
    this.#owner = owner
  }

  /** The greatest token this process has ever seen; the database may have lost it since. */
  get highestToken(): number {
    return this.#highestToken
  }

  /** All handles whose lease is held here or whose work has not settled. */
  all(): Holding[] {
    return [...this.#byKey.values()]
  }

  get(key: string): Holding | undefined {
    return this.#byKey.get(key)
  }

  /** Authority over everything ends now. */
  endAll(reason: EndReason): void {
    for (const holding of this.#byKey.values()) this.#end(holding, reason)
  }

  /** The session is over: nothing in the database is this process's any more. */
  abandon(reason: EndReason): void {
    this.endAll(reason)
    this.forgetSettled(() => false)
  }

  /** Drops handles whose work has settled and whose lease is not this node's. */
  forgetSettled(isMine: (holding: Holding) => boolean): void {
    for (const holding of this.all()) {
      if (holding.ended === undefined || !holding.settled || isMine(holding)) continue
      this.#byKey.delete(holding.key)
      holding.forget()
      this.#owner.released(holding)
    }
  }

  /** Compares what is so with what is being done. */
  compare(circumstances: Circumstances): Agenda {
    for (const lease of circumstances.view.leases)
      this.#highestToken = Math.max(this.#highestToken, lease.token)
    const comparison = new Comparison(this, circumstances, this.#firstSeen, this.#timing)
    this.#endUncovered(circumstances)
    for (const lease of circumstances.view.leases) {
      if (lease.holder === circumstances.node) this.#compareHeld(lease, circumstances, comparison)
    }
    for (const lease of circumstances.view.leases) {
      if (lease.holder !== circumstances.node) comparison.compareUnheld(lease)
    }
    comparison.compareRequests()
    comparison.compareShares()
    return comparison.agenda()
  }

  /** Ends handles that the database does not cover any more. */
  #endUncovered({ view, node }: Circumstances): void {
    const rows = new Map(view.leases.map((lease) => [lease.key, lease]))
    for (const holding of this.all()) {
      const row = rows.get(holding.key)
      if (row?.holder === node && row.token === holding.token) continue
      const revoked = row?.blockedNode === node && row.blockedToken === holding.token
      this.#end(holding, revoked ? 'revoked' : 'lost')
    }
    this.forgetSettled((holding) => {
      const row = rows.get(holding.key)
      return row?.holder === node && row.token === holding.token
    })
  }

  /** A row that names this node: go on, hand over, begin, or give back what is not recognised. */
  #compareHeld(lease: LeaseRow, circumstances: Circumstances, comparison: Comparison): void {
    const holding = this.#byKey.get(lease.key)
    if (holding?.token === lease.token) {
      const reason = reasonToEnd(lease, circumstances)
      if (reason !== undefined) this.#end(holding, reason)
      if (holding.ended !== undefined && holding.settled) {
        comparison.release({
          key: lease.key,
          token: lease.token,
          reason: holding.ended,
          cooldownMs: holding.cooldownMs,
        })
      }
      return
    }
    const recognised = circumstances.attempts.get(lease.attempt ?? -1) === lease.identity
    if (recognised && holding === undefined && this.#begin(lease, circumstances)) return
    comparison.release({ key: lease.key, token: lease.token, reason: recognised ? 'released' : 'lost' })
  }

  /** Starts the work for a lease this node has just got. Answers false when there is no use for it any more. */
  #begin(lease: LeaseRow, circumstances: Circumstances): boolean {
    if (reasonToEnd(lease, circumstances) !== undefined || !this.#owner.trusted()) return false
    const runner = lease.worker === null ? undefined : circumstances.runners.get(lease.worker)
    const request = lease.worker === null ? circumstances.requests.first(lease.key) : undefined
    if (runner === undefined && request === undefined) return false
    const holding = new Holding(
      {
        name: runner?.worker.declaration.name ?? request?.name ?? lease.key,
        key: lease.key,
        worker: lease.worker,
        token: lease.token,
        generation: lease.generation,
        holder: circumstances.node,
      },
      this.#owner,
    )
    this.#byKey.set(lease.key, holding)
    this.#owner.acquired(holding)
    if (runner !== undefined) this.#start(runner, holding, lease, circumstances)
    if (request !== undefined) circumstances.requests.grant(request, holding)
    return true
  }

  #start(runner: Runner, holding: Holding, lease: LeaseRow, { view }: Circumstances): void {
    const worker = view.workers.find((each) => each.key === lease.worker)
    const coordinated = worker?.kind === 'coordinated'
    const assignment = coordinated ? makeAssignment(lease.slot, worker.slots, lease.generation) : undefined
    runner.start(holding, assignment, lease.slot)
  }

  #end(holding: Holding, reason: EndReason): void {
    if (holding.ended !== undefined) return
    holding.end(reason)
    this.#owner.ended(holding)
  }
}

/** Why this node should stop holding a lease that is its own; undefined when nothing speaks against it. */
function reasonToEnd(lease: LeaseRow, { view, node, runners }: Circumstances): EndReason | undefined {
  if (lease.worker !== null) {
    const worker = view.workers.find((each) => each.key === lease.worker)
    if (!runners.has(lease.worker) || worker === undefined) return 'stopped'
    if (worker.paused) return 'paused'
    if (lease.generation < worker.generation) return view.state === 'draining' ? 'draining' : 'reassigned'
  }
  if (lease.target === node) return undefined
  return view.state === 'draining' ? 'draining' : 'reassigned'
}

/** One comparison under way: gathers wishes, and when to look again. */
class Comparison {
  readonly #holdings: Holdings
  readonly #in: Circumstances
  readonly #timing: Timing
  readonly #firstSeen: Map<string, Reading>
  readonly #stillSeen = new Set<string>()
  readonly #release: Wishes['release'][number][] = []
  readonly #acknowledge: Held[] = []
  readonly #claim: string[] = []
  readonly #acquire: Wishes['acquire'][number][] = []
  readonly #withdraw: string[] = []
  readonly #replan: string[] = []
  readonly #waived: Held[] = []
  #dueInMs: number | undefined

  constructor(
    holdings: Holdings,
    circumstances: Circumstances,
    firstSeen: Map<string, Reading>,
    timing: Timing,
  ) {
    this.#holdings = holdings
    this.#in = circumstances
    this.#firstSeen = firstSeen
    this.#timing = timing
  }

  agenda(): Agenda {
    for (const seen of [...this.#firstSeen.keys()])
      if (!this.#stillSeen.has(seen)) this.#firstSeen.delete(seen)
    const wishes = {
      release: this.#release,
      acknowledge: this.#acknowledge,
      claim: this.#claim,
      acquire: this.#acquire,
      withdraw: this.#withdraw,
      replan: this.#replan,
      waived: this.#waived,
    }
    return { wishes, dueInMs: this.#dueInMs }
  }

  release(wish: Wishes['release'][number]): void {
    this.#release.push(wish)
  }

  /** A row that does not name this node as its holder: acknowledge a block, or claim. */
  compareUnheld(lease: LeaseRow): void {
    const { node, view } = this.#in
    if (lease.blockedNode === node && lease.blockedToken !== null)
      this.#acknowledgeWhenSettled(lease, lease.blockedToken)
    if (lease.target !== node || !this.#in.mayClaim || this.#isDirty(lease)) return
    const free = lease.holder === null || view.gone.has(lease.holder)
    if (!free) return
    if (lease.worker === null) this.#claimByName(lease)
    else if (this.#in.runners.has(lease.worker)) this.#claimForWorker(lease)
  }

  /** Names that somebody here asks for and that no row speaks of yet. */
  compareRequests(): void {
    const { requests } = this.#in
    for (const key of requests.keys) {
      const asked = this.#acquire.some((wish) => wish.key === key)
      if (asked || this.#holdings.get(key) !== undefined || !this.#in.mayClaim) continue
      if (requests.unasked(key) || this.#overdue(`asked:${key}`, this.#timing.ttlMs)) {
        this.#acquire.push({ key, wait: requests.wouldWait(key) })
      }
    }
    this.#withdraw.push(...requests.abandoned.filter((key) => !requests.has(key)))
  }

  /**
   * A node that stands for a coordinated worker and has no share of it, say because it cooled down,
   * asks for a new plan after a while.
   */
  compareShares(): void {
    const { view, node, runners, mayClaim } = this.#in
    if (!mayClaim || view.state !== 'active') return
    for (const worker of view.workers) {
      if (worker.kind !== 'coordinated' || worker.paused || !runners.has(worker.key)) continue
      const leases = view.leases.filter((lease) => lease.worker === worker.key)
      if (leases.some((lease) => lease.target === node)) continue
      const coolsForMs = Math.max(0, ...leases.map((lease) => this.#coolsForMs(lease)))
      const waitMs = Math.max(coolsForMs, this.#timing.ttlMs)
      if (this.#overdue(`share:${worker.key}`, waitMs)) this.#replan.push(worker.key)
    }
  }

  #coolsForMs(lease: LeaseRow): number {
    const cools = lease.cooldownNode === this.#in.node && lease.cooldownUntilMs !== null
    return cools ? (lease.cooldownUntilMs ?? 0) - this.#in.view.nowMs : 0
  }

  #acknowledgeWhenSettled(lease: LeaseRow, token: number): void {
    const holding = this.#holdings.get(lease.key)
    if (holding !== undefined && holding.token === token && !holding.settled) return
    this.#acknowledge.push({ key: lease.key, token })
  }

  /** Work of an earlier term has not settled; for coordinated workers, of any share. */
  #isDirty(lease: LeaseRow): boolean {
    if (this.#holdings.get(lease.key) !== undefined) return true
    const worker = this.#workerOf(lease)
    if (worker?.kind !== 'coordinated') return false
    return this.#holdings.all().some((holding) => holding.worker === worker.key)
  }

  #claimByName(lease: LeaseRow): void {
    const { requests } = this.#in
    if (!requests.has(lease.key)) this.#withdraw.push(lease.key)
    else if (this.#mayPassBlocks([lease]))
      this.#acquire.push({ key: lease.key, wait: requests.wouldWait(lease.key) })
  }

  #claimForWorker(lease: LeaseRow): void {
    const { view } = this.#in
    const worker = this.#workerOf(lease)
    if (worker === undefined || worker.paused) return
    if (worker.kind !== 'coordinated') {
      if (this.#mayPassBlocks([lease])) this.#claim.push(lease.key)
      return
    }
    const leases = view.leases.filter((each) => each.worker === worker.key)
    const isGone = (node: string): boolean => view.gone.has(node)
    const handedOver = barrierOpen(worker, leases, isGone, () => true)
    if (handedOver && this.#mayPassBlocks(leases)) this.#claim.push(lease.key)
  }

  /** Whether every block among these leases has been seen, here, for as long as its holder could have trusted. */
  #mayPassBlocks(leases: readonly LeaseRow[]): boolean {
    const { view } = this.#in
    const blocked = leases.filter((lease) => isBlocked(lease, (node) => view.gone.has(node)))
    const waitMs = blockWaitMs(this.#timing)
    const passed = blocked.filter((lease) =>
      this.#overdue(`block:${lease.key}@${lease.blockedToken}`, waitMs),
    )
    if (passed.length < blocked.length) return false
    this.#waived.push(...passed.map((lease) => ({ key: lease.key, token: lease.blockedToken ?? 0 })))
    return true
  }

  /** Whether this has been so for `waitMs` by this node's own clock; else it is looked at again then. */
  #overdue(what: string, waitMs: number): boolean {
    const since = this.#firstSeen.get(what) ?? this.#in.now
    this.#firstSeen.set(what, since)
    this.#stillSeen.add(what)
    const leftMs = waitMs - surelyElapsedMs(since, this.#in.now)
    if (leftMs <= 0) {
      this.#firstSeen.set(what, what.startsWith('block:') ? since : this.#in.now)
      return true
    }
    this.#dueInMs = Math.min(this.#dueInMs ?? leftMs, leftMs)
    return false
  }

  #workerOf(lease: LeaseRow): WorkerRow | undefined {
    return this.#in.view.workers.find((worker) => worker.key === lease.worker)
  }
}

/** Whether there is anything in it at all. */
export function isEmpty(wishes: Wishes): boolean {
  const { release, acknowledge, claim, acquire, withdraw, replan } = wishes
  return [release, acknowledge, claim, acquire, withdraw, replan].every((list) => list.length === 0)
}
