/**
 * Determines what this node wishes to change about its own leases.
 *
 * Once the handles have followed a view (`holdings.ts`), the rest is a comparison: release what has ended and settled,
 * acknowledge blocks, claim what this node is the target of. The wishes of one comparison go into one change, as many
 * as it has time for.
 */
import { barrierOpen, isBlocked, leasesOf, workerNamed } from '../changes/rows.js'
import type { Held } from '../changes/rules.js'
import type { Wishes } from '../changes/wishes.js'
import type { LeaseRow, WorkerRow } from '../store.js'
import type { Reading } from '../time/clock.js'
import type { Timing } from '../time/timing.js'
import { surelyElapsedMs } from '../time/trust.js'
import { type Circumstances, type Holdings, isRecognised, termOf } from './holdings.js'

/** What is left to do. */
export interface Agenda {
  readonly wishes: Wishes
  /** When to compare again if nothing else happens, in ms; undefined for never. */
  readonly dueInMs: number | undefined
}

/** Draws up agendas, and remembers since when conditions have held that must last for a while. */
export class Agendas {
  readonly #holdings: Holdings
  readonly #timing: Timing
  readonly #firstSeen = new Map<string, Reading>()
  /**
   * Partitioned workers that this node is to have planned again, because a fence hindered the last plan. A fenced row
   * cannot be written, so only this node knows. Nothing is lost with it: what the fence withholds is the part of a node
   * that has just become a candidate, and this is that node; or that of a node that has cooled down, and its cool-down
   * then stays in the rows.
   */
  readonly #unfinished = new Set<string>()

  constructor(holdings: Holdings, timing: Timing) {
    this.#holdings = holdings
    this.#timing = timing
  }

  /** Notes a change that made these plans, as far as they are known, and left these unfinished. */
  planned(made: readonly string[], unfinished: readonly string[]): void {
    for (const worker of made) this.#unfinished.delete(worker)
    for (const worker of unfinished) this.#unfinished.add(worker)
  }

  /** Compares a view that the handles have followed with what they do. */
  draw(circumstances: Circumstances): Agenda {
    return new Comparison(
      this.#holdings,
      circumstances,
      this.#firstSeen,
      this.#unfinished,
      this.#timing,
    ).agenda()
  }
}

export function isEmpty(wishes: Wishes): boolean {
  const { release, revoke, acknowledge, claim, acquire, withdraw, replan } = wishes
  return [release, revoke, acknowledge, claim, acquire, withdraw, replan].every((list) => list.length === 0)
}

/** One comparison in progress: gathers wishes, and when to compare again. */
class Comparison {
  readonly #holdings: Holdings
  readonly #in: Circumstances
  readonly #timing: Timing
  readonly #firstSeen: Map<string, Reading>
  readonly #unfinished: Set<string>
  /** The workers for which there are handles. A lease by name counts as null. */
  readonly #busy: ReadonlySet<string | null>
  /** Those of them whose handles have ended, and whose leases are still to be given back. */
  readonly #ending: ReadonlySet<string | null>
  readonly #stillSeen = new Set<string>()
  readonly #release: Wishes['release'][number][] = []
  readonly #revoke: Wishes['revoke'][number][] = []
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
    unfinished: Set<string>,
    timing: Timing,
  ) {
    this.#holdings = holdings
    this.#in = circumstances
    this.#firstSeen = firstSeen
    this.#unfinished = unfinished
    this.#timing = timing
    const handles = holdings.all()
    this.#busy = new Set(handles.map(({ worker }) => worker))
    this.#ending = new Set(handles.filter(({ ended }) => ended !== undefined).map(({ worker }) => worker))
  }

  agenda(): Agenda {
    // A block counts from its first sight, whether or not this node could claim yet.
    for (const lease of this.#in.view.leases)
      if (lease.blockedNode !== this.#in.node && isBlocked(lease, (id) => this.#in.view.gone.has(id)))
        this.#hasStoodForBlockWait(lease)
    for (const lease of this.#in.view.leases) {
      if (lease.holder === this.#in.node) this.#compareHeld(lease)
      else this.#compareUnheld(lease)
    }
    this.#compareRequests()
    this.#compareShares()
    this.#comparePartitions()
    for (const seen of [...this.#firstSeen.keys()])
      if (!this.#stillSeen.has(seen)) this.#firstSeen.delete(seen)
    const wishes = {
      release: this.#release,
      revoke: this.#revoke,
      acknowledge: this.#acknowledge,
      claim: this.#claim,
      acquire: this.#acquire,
      withdraw: this.#withdraw,
      replan: this.#replan,
      waived: this.#waived,
      longestTtlMs: this.#in.longestTtlMs,
      identity: this.#in.view.serverIdentity,
    }
    return { wishes, dueInMs: this.#dueInMs }
  }

  /**
   * Releases what has ended and settled, and a row that names this node as holder without a handle for it. What has
   * ended and does not settle in time is revoked: the row alone may look healthy, so no watcher would do it.
   */
  #compareHeld(lease: LeaseRow): void {
    const { key, token } = lease
    const holding = this.#holdings.get(key)
    if (holding?.token === token) {
      const done = holding.ended !== undefined && holding.settled
      if (done) this.#release.push({ key, token, reason: holding.ended, cooldownMs: holding.cooldownMs })
      else if (holding.ended !== undefined && this.#isLate(lease))
        this.#revoke.push({ key, token, cooldownMs: holding.cooldownMs })
    } else {
      this.#release.push({ key, token, reason: isRecognised(lease, this.#in) ? 'released' : 'lost' })
    }
  }

  /** Returns whether work has gone on after the end of its term for longer than a holder may take to hand over. */
  #isLate(lease: LeaseRow): boolean {
    const { handoverTimeoutMs } = this.#workerOf(lease) ?? this.#timing
    return this.#hasLasted(handoverTimeoutMs, `unsettled:${termOf(lease)}`)
  }

  /**
   * Handles a row that does not name this node as holder: acknowledges a block, claims, or steps out of line while work of
   * an earlier term goes on.
   */
  #compareUnheld(lease: LeaseRow): void {
    const { node, view } = this.#in
    if (lease.blockedNode === node && lease.blockedToken !== null)
      this.#acknowledgeWhenSettled(lease, lease.blockedToken)
    if (lease.target !== node || !this.#in.mayClaim) return
    const free = lease.holder === null || view.gone.has(lease.holder)
    if (!free) return
    if (this.#isDirty(lease)) {
      // The only one in line would be named again and again.
      if (lease.worker === null) this.#withdraw.push(lease.key)
    } else if (lease.worker === null) this.#claimByName(lease)
    else if (this.#in.runners.has(lease.worker)) this.#claimForWorker(lease)
  }

  /**
   * Asks for names that callers want and no row has led to a wish for yet; withdraws from those that all callers gave
   * up.
   */
  #compareRequests(): void {
    const { requests } = this.#in
    const asked = new Set(this.#acquire.map((wish) => wish.key))
    for (const key of requests.keys) {
      if (asked.has(key) || this.#holdings.get(key) !== undefined || !this.#in.mayClaim) continue
      if (requests.unasked(key) || this.#isDueEvery(this.#timing.ttlMs, `asked:${key}`)) {
        this.#acquire.push({ key, wait: requests.wouldWait(key) })
      }
    }
    this.#withdraw.push(...requests.abandoned.filter((key) => !requests.has(key)))
  }

  /**
   * Asks for a new plan, after a while, when this node is a candidate for a coordinated worker without a share of it,
   * for instance because it cooled down; or when a share has no target because of a fence during the last plan.
   */
  #compareShares(): void {
    const { view, node, runners, mayClaim } = this.#in
    if (!mayClaim || view.state !== 'active') return
    for (const worker of view.workers) {
      if (worker.kind !== 'coordinated' || worker.paused || !runners.has(worker.key)) continue
      // Work of an earlier term goes on, so no share could be claimed.
      if (this.#ending.has(worker.key)) continue
      const leases = leasesOf(view.leases, worker.key)
      const inUse = leases.filter((lease) => lease.slot < worker.slots)
      if (inUse.every(({ target }) => target !== null) && inUse.some(({ target }) => target === node))
        continue
      const coolsForMs = Math.max(0, ...leases.map((lease) => this.#coolsForMs(lease)))
      const waitMs = Math.max(coolsForMs, this.#timing.ttlMs)
      if (this.#isDueEvery(waitMs, `share:${worker.key}`)) this.#replan.push(worker.key)
    }
  }

  /**
   * Asks for a new plan of partitions while fences keep the last one from being carried out in full; and after the
   * cool-down of another node, in place of which this one has a partition. A plan that is as it should be clears such
   * cool-downs, so this ends by itself.
   */
  #comparePartitions(): void {
    if (!this.#in.mayClaim) return
    for (const key of this.#unfinished)
      if (this.#mayReplan(key) && this.#isDueEvery(this.#timing.heartbeatMs, `plan:${key}`))
        this.#replan.push(key)
    for (const [key, coolsForMs] of this.#inPlaceOfOthers()) {
      if (this.#unfinished.has(key) || !this.#mayReplan(key)) continue
      if (!this.#isDueEvery(Math.max(coolsForMs, this.#timing.ttlMs), `cooled:${key}`)) continue
      this.#replan.push(key)
      // If the answer is lost, nobody knows whether a fence hindered this plan. The next change answers that.
      this.#unfinished.add(key)
    }
  }

  #mayReplan(key: string): boolean {
    const worker = workerNamed(this.#in.view.workers, key)
    return worker?.kind === 'partitioned' && !worker.paused
  }

  /** The workers of which this node has a lease in place of a node that cools down, with how long it still does so. */
  #inPlaceOfOthers(): Map<string, number> {
    const { node, view } = this.#in
    const found = new Map<string, number>()
    for (const { worker, target, cooldownNode, cooldownUntilMs } of view.leases) {
      if (worker === null || target !== node || cooldownNode === null || cooldownNode === node) continue
      found.set(worker, Math.max(found.get(worker) ?? 0, (cooldownUntilMs ?? 0) - view.nowMs))
    }
    return found
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

  /** Returns whether work of an earlier term has not settled; for a coordinated worker, of any share. */
  #isDirty(lease: LeaseRow): boolean {
    if (this.#holdings.get(lease.key) !== undefined) return true
    const worker = this.#workerOf(lease)
    if (worker?.kind !== 'coordinated') return false
    return this.#busy.has(worker.key)
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
    const leases = leasesOf(view.leases, worker.key)
    const isGone = (node: string): boolean => view.gone.has(node)
    const handedOver = barrierOpen(worker, leases, isGone, () => true)
    if (handedOver && this.#mayPassBlocks(leases)) this.#claim.push(lease.key)
  }

  /**
   * Returns whether this node has itself seen every block among these leases for as long as its holder could have
   * trusted.
   */
  #mayPassBlocks(leases: readonly LeaseRow[]): boolean {
    const { view } = this.#in
    const blocked = leases.filter((lease) => isBlocked(lease, (node) => view.gone.has(node)))
    const passed = blocked.filter((lease) => this.#hasStoodForBlockWait(lease))
    if (passed.length < blocked.length) return false
    this.#waived.push(...passed.map((lease) => ({ key: lease.key, token: lease.blockedToken ?? 0 })))
    return true
  }

  /** The key includes the server: another one may have forgotten that the same block was lifted in between. */
  #hasStoodForBlockWait({ key, blockedToken }: LeaseRow): boolean {
    const { view, blockWaitMs } = this.#in
    return this.#hasLasted(blockWaitMs, `block:${key}@${blockedToken} ${view.serverIdentity}`)
  }

  /**
   * Returns whether a condition has lasted for `waitMs` by this node's own clocks; if not, sets when to compare again.
   */
  #hasLasted(waitMs: number, what: string): boolean {
    const since = this.#firstSeen.get(what) ?? this.#in.now
    this.#firstSeen.set(what, since)
    this.#stillSeen.add(what)
    const leftMs = waitMs - surelyElapsedMs(since, this.#in.now)
    if (leftMs > 0) this.#dueInMs = Math.min(this.#dueInMs ?? leftMs, leftMs)
    return leftMs <= 0
  }

  /** The same as `#hasLasted`, but once in each `everyMs`: the time then begins anew. */
  #isDueEvery(everyMs: number, what: string): boolean {
    const isDue = this.#hasLasted(everyMs, what)
    if (isDue) this.#firstSeen.set(what, this.#in.now)
    return isDue
  }

  #workerOf(lease: LeaseRow): WorkerRow | undefined {
    return workerNamed(this.#in.view.workers, lease.worker)
  }
}
