/**
 * The handles of the leases that this node holds, and how they follow the database.
 *
 * A view says what the rows are; the handles say what this process is doing. Following a view ends the handles that it
 * no longer covers and begins those that it newly covers. Only the handles and the tokens seen are remembered between
 * views, so a lost or doubled message leaves nothing half done.
 */

import { isOutdated, workerNamed } from '../changes/rows.js'
import type { EndReason } from '../errors.js'
import type { LeaseRow, OwnView, ServerFacts } from '../store.js'
import type { Reading } from '../time/clock.js'
import type { Requests } from '../work/acquire.js'
import { Holding, type Keeper } from '../work/lease.js'
import { type Assignment, makeAssignment, type Runner } from '../work/worker.js'

/** The facts that a comparison takes into account. */
export interface Circumstances {
  /** Session id of this node. */
  readonly node: string
  readonly view: OwnView
  readonly now: Reading
  /** The longest ttl among all nodes. */
  readonly longestTtlMs: number
  /** How long a block must therefore be seen before it may be passed. */
  readonly blockWaitMs: number
  /** False during a new server's grace period, and while this node drains, closes or is not trusted. */
  readonly mayClaim: boolean
  /** Whether this node is closing: it begins nothing new, and releases what it still receives. */
  readonly closing: boolean
  /** The workers registered in this process, by key. */
  readonly runners: ReadonlyMap<string, Runner>
  readonly requests: Requests
  /** Operation numbers of this session's changes that claimed, and the server each was made under. */
  readonly attempts: ReadonlyMap<number, string>
  /** The terms whose release this session has sent, by {@link termOf}. */
  readonly renounced: ReadonlySet<string>
}

/** What the holdings tell their owner. */
export interface HoldingsOwner extends Keeper {
  acquired(holding: Holding): void
  /** This node has a share of a coordinated worker, and its pass is about to begin. */
  assigned(worker: string, assignment: Assignment): void
  released(holding: Holding): void
}

export class Holdings {
  readonly #owner: HoldingsOwner
  readonly #byKey = new Map<string, Holding>()
  #highestToken = 0
  /** The tokens, by key, of the leases that this node did not hold in the last view. */
  #others = new Map<string, number>()

  constructor(owner: HoldingsOwner) {
    this.#owner = owner
  }

  /** The greatest token this process has seen. The database may have lost it since. */
  get highestToken(): number {
    return this.#highestToken
  }

  /** Notes a token that may have been given to some node. */
  sawToken(token: number): void {
    this.#highestToken = Math.max(this.#highestToken, token)
  }

  /** All handles whose lease this node holds or whose work has not settled. */
  all(): Holding[] {
    return [...this.#byKey.values()]
  }

  get(key: string): Holding | undefined {
    return this.#byKey.get(key)
  }

  /** Resolves once all work that is under way now has settled. */
  async whenSettled(): Promise<void> {
    await Promise.all(this.all().map((holding) => holding.whenSettled))
  }

  endAll(reason: EndReason): void {
    for (const holding of this.#byKey.values()) holding.end(reason)
  }

  /**
   * Ends every handle because the session is over and no row is this process's any more. A handle is dropped once its
   * work settles.
   */
  abandon(reason: EndReason): void {
    this.endAll(reason)
    this.forgetSettled(() => false)
    for (const holding of this.all()) void holding.whenSettled.then(() => this.#forget(holding))
  }

  /** Drops handles whose work has settled and whose lease this node does not hold. */
  forgetSettled(isMine: (holding: Holding) => boolean): void {
    for (const holding of this.all()) {
      if (holding.ended !== undefined && holding.settled && !isMine(holding)) this.#forget(holding)
    }
  }

  #forget(holding: Holding): void {
    if (this.#byKey.get(holding.key) !== holding) return
    this.#byKey.delete(holding.key)
    holding.forget()
    this.#owner.released(holding)
  }

  /** Does at once what needs no change: ends handles that are not covered, begins new ones. */
  follow(circumstances: Circumstances): void {
    for (const lease of circumstances.view.leases) this.sawToken(lease.token)
    this.#endUncovered(circumstances)
    for (const lease of circumstances.view.leases) {
      if (lease.holder === circumstances.node) this.#followHeld(lease, circumstances)
    }
    const others = circumstances.view.leases.filter(({ holder }) => holder !== circumstances.node)
    this.#others = new Map(others.map(({ key, token }) => [key, token]))
  }

  #endUncovered({ view, node }: Circumstances): void {
    const rows = new Map(view.leases.map((lease) => [lease.key, lease]))
    for (const holding of this.all()) {
      const row = rows.get(holding.key)
      if (row?.holder === node && row.token === holding.token) continue
      const revoked = row?.blockedNode === node && row.blockedToken === holding.token
      holding.end(revoked ? 'revoked' : 'lost')
    }
    this.forgetSettled((holding) => {
      const row = rows.get(holding.key)
      return row?.holder === node && row.token === holding.token
    })
  }

  /** Handles a row that names this node as holder: its handle goes on, ends, or begins. */
  #followHeld(lease: LeaseRow, circumstances: Circumstances): void {
    const reason = reasonToEnd(lease, circumstances)
    const holding = this.#byKey.get(lease.key)
    if (holding?.token === lease.token && reason !== undefined) holding.end(reason)
    if (holding !== undefined || reason !== undefined || circumstances.closing) return
    if (circumstances.renounced.has(termOf(lease))) return
    if (this.#owner.trusted() && isRecognised(lease, circumstances)) this.#begin(lease, circumstances)
  }

  /** Starts the work for a lease that this node has just got, if it is still wanted. */
  #begin(lease: LeaseRow, circumstances: Circumstances): void {
    const runner = lease.worker === null ? undefined : circumstances.runners.get(lease.worker)
    const request = lease.worker === null ? circumstances.requests.first(lease.key) : undefined
    if (runner === undefined && request === undefined) return
    const holding = new Holding(
      {
        name: runner?.worker.declaration.name ?? request?.name ?? lease.key,
        key: lease.key,
        worker: lease.worker,
        token: lease.token,
        generation: lease.generation,
        holder: circumstances.node,
        namedForMs: namedForMs(lease),
        previousToken: this.#others.get(lease.key) || null,
      },
      this.#owner,
    )
    this.#byKey.set(lease.key, holding)
    runner?.take(holding)
    // Before the application hears of the lease, since it may then end the wait for it.
    if (request !== undefined) circumstances.requests.grant(request, holding)
    this.#owner.acquired(holding)
    if (runner !== undefined) this.#start(runner, holding, lease, circumstances)
  }

  #start(runner: Runner, holding: Holding, lease: LeaseRow, { view }: Circumstances): void {
    const worker = workerNamed(view.workers, lease.worker)
    const coordinated = worker?.kind === 'coordinated'
    const assignment = coordinated ? makeAssignment(lease.slot, worker.slots, lease.generation) : undefined
    if (worker !== undefined && assignment !== undefined && holding.ended === undefined)
      this.#owner.assigned(worker.key, assignment)
    runner.start(holding, assignment, lease)
  }
}

/**
 * Returns for how long this node was the target before it got the lease, in ms. Null for a free lease acquired by name,
 * whose target and holder are set at once.
 */
function namedForMs({ worker, acquiredAtMs, targetAtMs }: LeaseRow): number | null {
  if (acquiredAtMs === null || targetAtMs === null) return null
  if (worker === null && acquiredAtMs === targetAtMs) return null
  return Math.max(0, acquiredAtMs - targetAtMs)
}

/** Returns why this node should end a term of its own; undefined when nothing requires it. */
function reasonToEnd(lease: LeaseRow, { view, node, runners }: Circumstances): EndReason | undefined {
  if (lease.worker !== null) {
    const worker = workerNamed(view.workers, lease.worker)
    const runner = runners.get(lease.worker)
    if (runner === undefined || worker === undefined) return 'stopped'
    // Claimed for an earlier worker of this key, of another kind; the new one would run under it in addition to its own
    // leases.
    if (!runner.fits(worker)) return 'stopped'
    if (worker.paused) return 'paused'
    if (isOutdated(lease, worker)) return view.state === 'draining' ? 'draining' : 'reassigned'
  }
  // Also when this node is still the target, because a fence kept the lease out of the plan.
  if (view.state === 'draining') return 'draining'
  return lease.target === node ? undefined : 'reassigned'
}

/**
 * Returns whether a row that names this node results from a claim of this very session under the present server.
 *
 * A claim under an earlier server may have been used and given back long ago; the failover has lost that, and perhaps a
 * later claim by a node that still trusts.
 */
export function isRecognised(
  { attempt, identity }: LeaseRow,
  { attempts, view }: Pick<Circumstances, 'attempts'> & { readonly view: ServerFacts },
): boolean {
  return attempt !== null && identity === view.serverIdentity && attempts.get(attempt) === identity
}

/** Identifies one term: the key of the lease, and the token. */
export function termOf({ key, token }: { readonly key: string; readonly token: number }): string {
  return `${key}@${token}`
}
