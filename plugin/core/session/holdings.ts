/**
 * What this node holds: the handles, and how they follow what the database says.
 *
 * A view says what is so, the handles say what this process is doing. Following a view ends the
 * handles it does not cover any more and begins those it newly covers. Nothing is remembered from one
 * view to the next but the handles themselves, so a message lost or doubled leaves nothing half done.
 */

import { isOutdated } from '../changes/draft.js'
import type { EndReason } from '../errors.js'
import type { LeaseRow, OwnView, ServerFacts, WorkerRow } from '../store.js'
import type { Reading } from '../time/clock.js'
import type { Requests } from '../work/acquire.js'
import { Holding, type Keeper } from '../work/lease.js'
import { type Assignment, makeAssignment, type Runner } from '../work/worker.js'

/** What a comparison is made in the light of. */
export interface Circumstances {
  /** Session id of this node. */
  readonly node: string
  readonly view: OwnView
  readonly now: Reading
  /** The longest ttl among all nodes, and how long a block must therefore be seen before it may be passed. */
  readonly longestTtlMs: number
  readonly blockWaitMs: number
  /** No claims while a new server is being waited out, or this node is closing. */
  readonly mayClaim: boolean
  /** Nothing new is begun: what this node is still given it gives back. */
  readonly closing: boolean
  /** The workers this node stands for, by key. */
  readonly runners: ReadonlyMap<string, Runner>
  readonly requests: Requests
  /** Numbers of the changes in which this session asked for leases, and the server they were made under. */
  readonly attempts: ReadonlyMap<number, string>
  /** Terms that this session has asked to give back, by {@link termOf}. */
  readonly renounced: ReadonlySet<string>
}

/** What the owner hears of. */
export interface HoldingsOwner extends Keeper {
  acquired(holding: Holding): void
  /** This node has a share of a coordinated worker; its pass begins. */
  assigned(worker: string, assignment: Assignment): void
  released(holding: Holding): void
}

export class Holdings {
  readonly #owner: HoldingsOwner
  readonly #byKey = new Map<string, Holding>()
  #highestToken = 0
  /** The tokens of leases that were not this node's when the view was followed last, by key. */
  #others = new Map<string, number>()

  constructor(owner: HoldingsOwner) {
    this.#owner = owner
  }

  /** The greatest token this process has ever seen; the database may have lost it since. */
  get highestToken(): number {
    return this.#highestToken
  }

  /** A token that may have been given to somebody. */
  sawToken(token: number): void {
    this.#highestToken = Math.max(this.#highestToken, token)
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
    for (const holding of this.#byKey.values()) holding.end(reason)
  }

  /** The session is over: nothing in the database is this process's any more. What still goes on is forgotten when it settles. */
  abandon(reason: EndReason): void {
    this.endAll(reason)
    this.forgetSettled(() => false)
    for (const holding of this.all()) void holding.whenSettled.then(() => this.#forget(holding))
  }

  /** Drops handles whose work has settled and whose lease is not this node's. */
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

  /** Does at once what needs no change: ends handles that are not covered, begins those that are new. */
  follow(circumstances: Circumstances): void {
    for (const lease of circumstances.view.leases) this.sawToken(lease.token)
    this.#endUncovered(circumstances)
    for (const lease of circumstances.view.leases) {
      if (lease.holder === circumstances.node) this.#followHeld(lease, circumstances)
    }
    const others = circumstances.view.leases.filter(({ holder }) => holder !== circumstances.node)
    this.#others = new Map(others.map(({ key, token }) => [key, token]))
  }

  /** Ends handles that the database does not cover any more. */
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

  /** A row that names this node: go on, hand over, or begin. */
  #followHeld(lease: LeaseRow, circumstances: Circumstances): void {
    const reason = reasonToEnd(lease, circumstances)
    const holding = this.#byKey.get(lease.key)
    if (holding?.token === lease.token && reason !== undefined) holding.end(reason)
    if (holding !== undefined || reason !== undefined || circumstances.closing) return
    if (circumstances.renounced.has(termOf(lease))) return
    if (this.#owner.trusted() && isRecognised(lease, circumstances)) this.#begin(lease, circumstances)
  }

  /** Starts the work for a lease this node has just got, if there is still a use for it. */
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
    this.#owner.acquired(holding)
    if (runner !== undefined) this.#start(runner, holding, lease, circumstances)
    if (request !== undefined) circumstances.requests.grant(request, holding)
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

const indices = new WeakMap<readonly WorkerRow[], ReadonlyMap<string | null, WorkerRow>>()

/** One of many, asked for again and again: a search each time would take as long as all of them squared. */
export function workerNamed(workers: readonly WorkerRow[], key: string | null): WorkerRow | undefined {
  const index = indices.get(workers) ?? new Map(workers.map((worker) => [worker.key, worker]))
  indices.set(workers, index)
  return index.get(key)
}

/** A lease by name that is free is granted to whoever asks, who is named in that very moment. */
function namedForMs({ worker, acquiredAtMs, targetAtMs }: LeaseRow): number | null {
  if (acquiredAtMs === null || targetAtMs === null) return null
  if (worker === null && acquiredAtMs === targetAtMs) return null
  return Math.max(0, acquiredAtMs - targetAtMs)
}

/** Why this node should stop holding a lease that is its own; undefined when nothing speaks against it. */
function reasonToEnd(lease: LeaseRow, { view, node, runners }: Circumstances): EndReason | undefined {
  if (lease.worker !== null) {
    const worker = workerNamed(view.workers, lease.worker)
    const runner = runners.get(lease.worker)
    if (runner === undefined || worker === undefined) return 'stopped'
    // Claimed for the one before it, which was of another kind: under this lease it would work beside its own.
    if (!runner.fits(worker)) return 'stopped'
    if (worker.paused) return 'paused'
    if (isOutdated(lease, worker)) return view.state === 'draining' ? 'draining' : 'reassigned'
  }
  // Also what it is still meant to hold, because it was fenced when the others' plan was made.
  if (view.state === 'draining') return 'draining'
  return lease.target === node ? undefined : 'reassigned'
}

/**
 * Whether a row that names this node is the outcome of a claim of this very session, made under the
 * server that is there now. A claim made under an earlier one may long have been used and given
 * back: the failover has lost that, and with it perhaps a later claim by a node that still trusts.
 */
export function isRecognised(
  { attempt, identity }: LeaseRow,
  { attempts, view }: Pick<Circumstances, 'attempts'> & { readonly view: ServerFacts },
): boolean {
  return attempt !== null && identity === view.serverIdentity && attempts.get(attempt) === identity
}

/** A key, and the token it had: a lease in one pair of hands. */
export function termOf({ key, token }: { readonly key: string; readonly token: number }): string {
  return `${key}@${token}`
}
