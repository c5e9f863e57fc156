/**
 * What happens in a simulated world, in true time, and whether it was allowed.
 *
 * The checker knows more than any node can: at each instant it sees which processes trust that they hold which lease,
 * by their own clocks, whether or not they are scheduled at that instant.
 */

import type { Session } from '../../plugin/core/session/session.js'
import type { HeldLease } from '../../plugin/core/work/lease.js'
import type { StoredLease } from './database.js'
import type { SimulatedProcess } from './process.js'

/** A broken promise. */
export interface Violation {
  readonly rule: string
  readonly atMs: number
  readonly what: string
}

/** One term of one lease on one node, from the creation of its handle to its end. */
export interface Term {
  readonly process: SimulatedProcess
  readonly session: Session | undefined
  readonly key: string
  readonly token: number
  readonly worker: string | null
  readonly generation: number
  /** The promised time between the end of its work and the beginning of work elsewhere, in ms. */
  readonly marginMs: number
  /** Whether other nodes have declared its session gone. */
  readonly buried: () => boolean
  ended: boolean
  /** Whether its trust was seen to have ended. */
  lapsed: boolean
}

/** One call of a worker's `run`. */
export interface Pass {
  readonly process: SimulatedProcess
  readonly lease: HeldLease
  /** Whether it stops as soon as its signal aborts. */
  readonly obedient: boolean
}

interface Grant {
  readonly node: string
  readonly worker: string | null
  readonly generation: number
}

export class History {
  readonly violations: Violation[] = []
  readonly lines: string[] = []
  readonly counts = new Map<string, number>()
  readonly #nowMs: () => number
  readonly #keep: boolean
  readonly #termsByKey = new Map<string, Set<Term>>()
  readonly #termsByProcess = new Map<SimulatedProcess, Set<Term>>()
  readonly #contested = new Set<string>()
  readonly #passes = new Map<string, Set<Pass>>()
  readonly #grants = new Map<string, Grant>()
  /** The greatest token of each lease, and the node it was granted to. */
  readonly #highest = new Map<string, { readonly token: number; readonly holder: string }>()
  readonly #handles = new Set<string>()
  /** Terms whose token was granted after a greater or equal one that nothing was left to know of. */
  readonly #forgotten = new Set<string>()
  readonly #written = new Map<string, { readonly token: number; readonly process: SimulatedProcess }>()
  /** The last term of each lease whose trust ran out. */
  readonly #lapses = new Map<string, { readonly term: Term; readonly token: number; readonly atMs: number }>()
  readonly #excused = new Set<string>()
  #stored = new Map<string, StoredLease>()
  #checkedMs = 0
  #checkedBeforeMs = 0

  constructor(nowMs: () => number, keep: boolean) {
    this.#nowMs = nowMs
    this.#keep = keep
  }

  /** Adds a line for people. The line is made only when histories are kept. */
  note(line: () => string): void {
    if (this.#keep) this.lines.push(`${(this.#nowMs() / 1_000).toFixed(3).padStart(9)}  ${line()}`)
  }

  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by)
  }

  /** Counts a fault that had an effect, as opposed to one that was only ordered. */
  hit(kind: string): void {
    this.count(`hit ${kind}`)
  }

  violate(rule: string, what: string): void {
    this.note(() => `VIOLATION ${rule}: ${what}`)
    this.violations.push({ rule, atMs: this.#nowMs(), what })
  }

  /** Notes that an operator has allowed the next holder to begin at once, whatever this term still does. */
  excuse(key: string, token: number): void {
    this.#excused.add(`${key}@${token}`)
  }

  /** Excuses all terms that have been granted, also those whose node is yet to hear of it. */
  excuseAll(): void {
    for (const name of this.#grants.keys()) this.#excused.add(name)
  }

  /** Notes that the database has lost its latest writes. From now on these rows count, but tokens must still grow. */
  rolledBack(leases: readonly StoredLease[]): void {
    this.#stored = new Map(leases.map((lease) => [lease.key, lease]))
  }

  /** Notes that these rows have been deleted. */
  forget(leases: readonly string[]): void {
    for (const key of leases) this.#stored.delete(key)
  }

  stored(key: string): StoredLease | undefined {
    return this.#stored.get(key)
  }

  /** Checks a committed change that touched these leases. */
  committed(
    leases: readonly StoredLease[],
    isGone: (node: string) => boolean,
    isTokenForgotten: (holder: string, key: string) => boolean,
    granted: (lease: StoredLease, before?: StoredLease) => void,
  ): void {
    for (const lease of leases) {
      const before = this.#stored.get(lease.key)
      this.#stored.set(lease.key, lease)
      if (before !== undefined) this.#checkGivenBack(before, lease, isGone)
      if (lease.holder === null || (before?.holder === lease.holder && before.token === lease.token)) continue
      this.#checkToken(lease, isTokenForgotten)
      this.#checkClaim(lease)
      this.#checkClean(lease)
      this.#checkMargin(lease)
      granted(lease, before)
    }
  }

  /** Notes that a node has created a handle. */
  began(
    process: SimulatedProcess,
    session: Session | undefined,
    { key, token }: { readonly key: string; readonly token: number },
    bounds: Pick<Term, 'marginMs' | 'buried'>,
  ): void {
    const name = `${key}@${token}`
    const grant = this.#grants.get(name)
    this.note(() => `${process.label} holds ${name}${grant ? ` generation ${grant.generation}` : ''}`)
    this.count('terms')
    if (grant === undefined || grant.node !== session?.id)
      this.violate('S2', `${process.label} holds ${name}, which was granted to ${grant?.node ?? 'nobody'}`)
    if (this.#handles.has(name) && !this.#forgotten.has(name))
      this.violate('S2', `${name} is held for the second time`)
    this.#handles.add(name)
    const { worker = null, generation = 0 } = grant ?? {}
    const state = { ended: false, lapsed: false }
    const term: Term = { process, session, key, token, worker, generation, ...bounds, ...state }
    const others = setOf(this.#termsByKey, key)
    others.add(term)
    setOf(this.#termsByProcess, process).add(term)
    if (others.size > 1) this.#contested.add(key)
    this.#checkGenerations(term)
  }

  ended(process: SimulatedProcess, key: string, token: number, reason: string): void {
    this.note(() => `${process.label} ends ${key}@${token}: ${reason}`)
    for (const term of this.#termsByKey.get(key) ?? [])
      if (term.process === process && term.token === token) {
        if (reason === 'trust-expired') this.#lapse(term, this.#checkedMs)
        this.#drop(term)
      }
  }

  /** Notes that a process has ended, and so trusts nothing. */
  died(process: SimulatedProcess): void {
    for (const term of this.#termsByProcess.get(process) ?? []) this.#drop(term)
    for (const passes of this.#passes.values())
      for (const pass of passes) if (pass.process === process) passes.delete(pass)
  }

  passBegan(pass: Pass): void {
    const { lease, process } = pass
    this.count('passes')
    if (!lease.held) this.violate('S3', `${process.label} begins a pass of ${lease.key} without holding it`)
    const passes = setOf(this.#passes, lease.key)
    for (const other of passes) {
      if (other.process === process)
        this.violate('S3', `two passes of ${lease.key} run on ${process.label} at once`)
      else if (!this.#isExcused(lease) && !this.#isExcused(other.lease) && this.#shouldHaveStopped(other))
        this.violate(
          'S3',
          `${process.label} begins a pass of ${lease.key} while one runs on ${other.process.label}`,
        )
    }
    passes.add(pass)
  }

  passEnded(pass: Pass): void {
    this.#passes.get(pass.lease.key)?.delete(pass)
  }

  get runningPasses(): Pass[] {
    return [...this.#passes.values()].flatMap((passes) => [...passes])
  }

  /** Notes a write with a token that arrives at a resource. The resource refuses tokens lower than one it has seen. */
  written(process: SimulatedProcess, key: string, token: number, name: string): void {
    const last = this.#written.get(key)
    if (last !== undefined && last.token > token) {
      this.count('stale write refused')
      return
    }
    this.count('write accepted')
    if (last?.token === token && last.process !== process && !this.#forgotten.has(`${key}@${token}`))
      this.violate('S2', `${name} is accepted after one of ${last.process.label} with the same token`)
    this.#written.set(key, { token, process })
  }

  /** Notes that a transaction of the application tried to fence a lease. */
  fenced(key: string, token: number, succeeded: boolean, name: string): void {
    this.count(succeeded ? 'fenced write done' : 'fenced write refused')
    const stored = this.#stored.get(key)
    if (succeeded && stored?.token !== token)
      this.violate('S2', `${name} passes its fence, but the lease is at ${stored?.token}`)
    // A token greater than the stored one was granted by a write that a failover has lost, together with the fence.
    // One that was granted when nothing was left to know of greater ones says nothing about the order.
    const others = this.trusting(key).filter(
      (term) => term.token < token && !this.#isExcused(term) && !this.#forgotten.has(`${key}@${term.token}`),
    )
    if (succeeded && others.length > 0)
      this.violate('S1', `${name} passes its fence while ${others.map(nameOf).join(' and ')} trusts it`)
  }

  /** Returns the terms of a lease that are trusted at this instant. */
  trusting(key: string): Term[] {
    return [...(this.#termsByKey.get(key) ?? [])].filter(trusts)
  }

  /** Returns the trusted terms of any lease that match. */
  trustedWhere(matches: (term: Term) => boolean): Term[] {
    return [...this.#termsByKey.values()].flatMap((terms) => [...terms].filter(trusts).filter(matches))
  }

  /** Whether a certain term is trusted at this instant. */
  isTrusted(key: string, token: number): boolean {
    return this.trusting(key).some((term) => term.token === token)
  }

  /** Checks after every event that no lease is trusted twice. */
  check(): void {
    this.#checkedBeforeMs = this.#checkedMs
    this.#checkedMs = this.#nowMs()
    for (const key of this.#contested) {
      const trusting = this.trusting(key).filter((term) => !this.#isExcused(term))
      if (trusting.length < 2) continue
      this.violate('S1', `${key} is trusted by ${trusting.map(nameOf).join(' and ')}`)
      this.#contested.delete(key)
    }
  }

  /** Checks after every event that the lapsed trust of a process does not return. */
  checkLapses(process: SimulatedProcess): void {
    for (const term of this.#termsByProcess.get(process) ?? []) {
      if (!trusts(term)) this.#lapse(term, this.#checkedBeforeMs)
      else if (term.lapsed) {
        term.lapsed = false
        this.violate('X1', `the lapsed trust of ${nameOf(term)} has come back`)
      }
    }
  }

  /** A node that releases a lease by itself has stopped working under it. */
  #checkGivenBack(before: StoredLease, now: StoredLease, isGone: (node: string) => boolean): void {
    const { key, holder, token } = before
    const givenBack =
      holder !== null && now.holder !== holder && now.blockedNode !== holder && !isGone(holder)
    if (!givenBack || this.#isExcused(before)) return
    for (const pass of this.#passes.get(key) ?? [])
      if (pass.lease.token === token && !pass.process.dead)
        this.violate('S3', `${key}@${token} is given back while its pass on ${pass.process.label} goes on`)
  }

  /** A lease taken from a buried holder is granted at least half a margin after that holder's trust has ended. */
  #checkMargin({ key, holder }: StoredLease): void {
    const lapse = this.#lapses.get(key)
    if (lapse === undefined || this.#isExcused({ key, token: lapse.token })) return
    const { term, atMs } = lapse
    const sinceMs = this.#nowMs() - atMs
    if (!term.process.dead && term.buried() && sinceMs < term.marginMs / 2)
      this.violate(
        'S4',
        `${key} was granted to ${holder} only ${sinceMs.toFixed(0)} ms after the trust of ${nameOf(term)}`,
      )
  }

  /**
   * The term was last seen trusted at `atMs`. If everything stood still since then, the trust may have ended long ago.
   */
  #lapse(term: Term, atMs: number): void {
    if (term.lapsed) return
    term.lapsed = true
    this.#lapses.set(term.key, { term, token: term.token, atMs })
  }

  #checkToken(lease: StoredLease, isForgotten: (holder: string, key: string) => boolean): void {
    const highest = this.#highest.get(lease.key) ?? { token: 0, holder: '' }
    const name = `${lease.key}@${lease.token}`
    this.note(() => `granted ${name} to ${lease.holder}`)
    this.count('grants')
    if (lease.token > highest.token)
      this.#highest.set(lease.key, { token: lease.token, holder: lease.holder ?? '' })
    else if (isForgotten(highest.holder, lease.key)) {
      this.count('token forgotten by all')
      this.#forgotten.add(name)
    } else this.violate('S2', `${name} was granted to ${lease.holder} after ${highest.token}`)
    const { worker, generation } = lease
    this.#grants.set(name, { node: lease.holder ?? '', worker, generation })
  }

  #checkClaim(lease: StoredLease): void {
    for (const term of this.trusting(lease.key).filter((each) => !this.#isExcused(each)))
      this.violate('S4', `${lease.key} was granted to ${lease.holder} while ${nameOf(term)} trusted it`)
  }

  /**
   * No node claims a lease under which its own earlier work still goes on: nothing could begin, and the lease would
   * only be released again.
   */
  #checkClean({ key, token, holder }: StoredLease): void {
    for (const { process } of this.#passes.get(key) ?? [])
      if (holder !== null && !process.dead && process.made(holder))
        this.violate('S3', `${key}@${token} was granted to ${holder} while an earlier pass there goes on`)
  }

  /** No two generations of a worker are at work at once, nor its shares beside the lease it has as another kind. */
  #checkGenerations(term: Term): void {
    if (term.worker === null) return
    for (const terms of this.#termsByKey.values()) {
      for (const other of terms) {
        if (other.worker !== term.worker || !trusts(other)) continue
        if (this.#isExcused(term) || this.#isExcused(other)) continue
        if (isWhole(other) !== isWhole(term))
          this.violate('S3', `${nameOf(term)} and ${nameOf(other)} are of different kinds`)
        else if (term.generation !== 0 && other.generation !== term.generation)
          this.violate('S3', `${nameOf(term)} and ${nameOf(other)} are of different generations`)
      }
    }
  }

  #isExcused({ key, token }: { readonly key: string; readonly token: number }): boolean {
    return this.#excused.has(`${key}@${token}`)
  }

  /** Whether a pass should have stopped. One that obeys its signal has only one excuse: its process stood still. */
  #shouldHaveStopped(pass: Pass): boolean {
    if (pass.process.dead || !pass.obedient) return false
    const { standstill, calmSinceMs } = pass.process
    return standstill === undefined && this.#nowMs() - calmSinceMs > 600
  }

  #drop(term: Term): void {
    term.ended = true
    const terms = this.#termsByKey.get(term.key)
    terms?.delete(term)
    if (terms !== undefined && terms.size < 2) this.#contested.delete(term.key)
    this.#termsByProcess.get(term.process)?.delete(term)
  }
}

function trusts(term: Term): boolean {
  return !term.ended && !term.process.dead && (term.session?.trustLeftMs ?? 0) > 0
}

/** Whether the lease is that of a single worker. */
function isWhole(term: Term): boolean {
  return term.key === term.worker
}

function nameOf(term: Term): string {
  return `${term.process.label} (${term.key}@${term.token}, generation ${term.generation})`
}

function setOf<K, V>(map: Map<K, Set<V>>, key: K): Set<V> {
  const set = map.get(key) ?? new Set<V>()
  map.set(key, set)
  return set
}
