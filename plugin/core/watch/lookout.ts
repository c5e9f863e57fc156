/**
 * Looks for nodes that have died.
 *
 * The two watchers look at all nodes every tenth of a ttl; every other node sees the watchers' beats in the answers to
 * its own heartbeats. One rule holds for both: a node that has itself seen a beat stand still for long enough buries
 * that node, and the change re-checks the beat. So any node may die, and even all but one, and a healthy cluster pays
 * for two looks and no more. While neither watcher is heard of, the others look at each other (`stand-in.ts`).
 */

import { barrierOpen, isBlocked, isOutdated, leasesOf, workerNamed } from '../changes/rows.js'
import type { Findings } from '../changes/upkeep.js'
import type { Beat, LeaseRow, Look, Store } from '../store.js'
import type { Clock, Reading } from '../time/clock.js'
import { Alarm } from '../time/loop.js'
import { blockWaitMs, leastPauseMs, lookEveryMs, standstillMs, type Timing } from '../time/timing.js'
import { elapsedMs } from '../time/trust.js'
import { StandIn } from './stand-in.js'
import { Standstill } from './watch.js'

/** What acts on a look. `bury` and `attend` reject when the store does; the next look comes anyway. */
export interface LookoutOwner {
  /** Whether this node's own heartbeats are answered. What keeps them away may keep away those of the others. */
  trusted(): boolean
  /** Whether targets can claim at all; they cannot during a new server's grace period. */
  mayClaim(): boolean
  /** The longest ttl among all nodes. */
  longestTtlMs(): number
  /** @param longestTtlMs the ttl by which the nodes were watched. */
  bury(beats: readonly Beat[], longestTtlMs: number): Promise<void>
  /** Has watchers named. Rejects as the others do. */
  nameWatchers(): Promise<void>
  /** Resolves with the keys of the unclaimed leases that a fence keeps from being claimed. */
  attend(findings: Findings): Promise<readonly string[]>
  lookFailed(error: unknown): void
}

/** The fewest nodes to which a failure reduces what is buried in one change. */
const leastAtOnce = 32

export class Lookout {
  readonly #store: Store
  readonly #clock: Clock
  readonly #timing: Timing
  readonly #owner: LookoutOwner
  readonly #self: string
  readonly #alarm: Alarm
  readonly #nodes: Standstill<number>
  readonly #watchers: Standstill<number>
  readonly #unclaimed: Standstill<string>
  readonly #overdue: Standstill<number>
  readonly #standIn: StandIn
  #handoverTimeouts: ReadonlyMap<string, number> = new Map()
  /** The shares that only their own targets block, while the other nodes work. */
  #blockedShares: ReadonlySet<string> = new Set()
  /** What was attended to last, and when it was for the first and for the last time. */
  #attended: { what: string; firstAt: Reading; lastAt: Reading } | undefined
  /** The unclaimed leases that a fence kept from being claimed when they were attended to last. */
  #hindered: ReadonlySet<string> = new Set()
  #suspects: ReadonlySet<string> = new Set()
  /** How many answers in a row have shown no watcher beside this node, although there must be one. */
  #unwatched = 0
  /** Whether this node is having watchers named. While changes are held up, none is to queue behind another. */
  #naming = false
  #onDuty = false
  #alone = false
  #looking = false
  #failures = 0
  /**
   * How many nodes are buried in one change, so that all plans are made once. A change that exceeds its time limit does
   * nothing, however often it is made; so after a failure it is half as many, and after a success twice as many.
   */
  #buriedAtOnce = Number.POSITIVE_INFINITY
  #stopped = false

  /** @param self the session on whose behalf this looks; a node never buries itself. */
  constructor(self: string, store: Store, clock: Clock, timing: Timing, owner: LookoutOwner) {
    this.#self = self
    this.#store = store
    this.#clock = clock
    this.#timing = timing
    this.#owner = owner
    this.#alarm = new Alarm(clock, () => void this.#look())
    const staleAfterMs = timing.ttlMs / 2
    const waitMs = (): number => standstillMs({ ttlMs: owner.longestTtlMs() })
    this.#nodes = new Standstill({ waitMs, staleAfterMs })
    this.#watchers = new Standstill({ waitMs, staleAfterMs: staleAfterMs + timing.heartbeatMs })
    this.#unclaimed = new Standstill({
      waitMs: (key) =>
        this.#blockedShares.has(key)
          ? Math.max(timing.claimTimeoutMs, blockWaitMs({ ...timing, ttlMs: owner.longestTtlMs() }))
          : timing.claimTimeoutMs,
      staleAfterMs,
    })
    this.#overdue = new Standstill({
      waitMs: (key) => this.#handoverTimeouts.get(key) ?? timing.handoverTimeoutMs,
      staleAfterMs,
    })
    this.#standIn = new StandIn(self, store, clock, timing, {
      longestTtlMs: () => owner.longestTtlMs(),
      bury: (beats) =>
        this.#bury(
          beats,
          beats.map(({ id }) => id),
        ),
      lookFailed: (error) => owner.lookFailed(error),
    })
  }

  /** Tells which nodes are the watchers: two, or one where only one node is active. */
  setWatchers(watchers: readonly string[]): void {
    const onDuty = watchers.includes(this.#self)
    const alone = onDuty && watchers.length === 1
    if (this.#stopped || (onDuty === this.#onDuty && alone === this.#alone)) return
    if (onDuty !== this.#onDuty) this.#forget()
    this.#onDuty = onDuty
    this.#alone = alone
    if (onDuty) this.#alarm.set(0)
    else this.#alarm.clear()
  }

  /** Takes in what a heartbeat's answer says of the watchers: the way in which every other node watches them. */
  sawWatchers(beats: readonly Beat[], sentAt: Reading, receivedAt: Reading): void {
    if (this.#stopped) return
    this.#standIn.sawWatchers(this.#onDuty ? [] : beats, sentAt, receivedAt)
    this.#unwatched = this.#alone || beats.length > 0 ? 0 : this.#unwatched + 1
    if (this.#unwatched > 1) void this.#nameWatchers()
    if (this.#onDuty) return
    this.#suspects = new Set(beats.map((beat) => beat.id))
    const still = this.#watchers.observe(this.#others(beats), sentAt, receivedAt)
    if (still.length > 0) void this.#bury(beats, still)
    const dueInMs = this.#watchers.dueInMs(receivedAt)
    const nextHeartbeatMs = this.#timing.heartbeatMs
    if (dueInMs !== undefined && dueInMs < nextHeartbeatMs) this.#alarm.set(dueInMs)
    else this.#alarm.clear()
  }

  /** Forgets what was seen, because the server is another one. */
  reset(): void {
    this.#forget()
    this.#standIn.reset()
  }

  stop(): void {
    this.#stopped = true
    this.#alarm.clear()
    this.#standIn.stop()
  }

  #forget(): void {
    for (const watch of [this.#nodes, this.#watchers, this.#unclaimed, this.#overdue]) watch.reset()
    this.#attended = undefined
    this.#hindered = new Set()
  }

  async #look(): Promise<void> {
    if (this.#stopped || this.#looking) return
    this.#looking = true
    try {
      const sentAt = this.#clock.read()
      const look = await this.#store.look()
      const receivedAt = this.#clock.read()
      this.#failures = 0
      if (this.#stopped) return
      if (this.#onDuty) await this.#judge(look, sentAt, receivedAt)
      else await this.#judgeWatchers(look, sentAt, receivedAt)
    } catch (error) {
      this.#failures += 1
      this.#attended = undefined
      this.#owner.lookFailed(error)
    } finally {
      this.#looking = false
      if (this.#onDuty && !this.#stopped) this.#alarm.set(this.#nextLookInMs())
    }
  }

  async #judge(look: Look, sentAt: Reading, receivedAt: Reading): Promise<void> {
    if (!this.#owner.trusted()) {
      this.#forget()
      return
    }
    const still = this.#nodes.observe(this.#others(look.nodes), sentAt, receivedAt)
    this.#handoverTimeouts = handoverTimeouts(look)
    this.#blockedShares = blockedShares(look)
    const unclaimed = this.#unclaimed.observe(
      this.#owner.mayClaim() ? unclaimedTargets(look) : new Map(),
      sentAt,
      receivedAt,
    )
    const overdue = this.#overdue.observe(lateHolders(look), sentAt, receivedAt)
    const abandoned = look.leases.filter((lease) => lease.holder !== null && look.gone.has(lease.holder))
    await this.#bury(look.nodes, still)
    if (unclaimed.length + overdue.length + abandoned.length === 0) {
      // So what was attended to was not in vain, even if the same is found again soon.
      this.#attended = undefined
      this.#hindered = new Set()
      return
    }
    const byKey = new Map(look.leases.map((lease) => [lease.key, lease]))
    const findings = {
      unclaimed: unclaimed.map((key) => ({
        key,
        target: byKey.get(key)?.target ?? '',
        hindered: this.#hindered.has(key),
      })),
      overdue: overdue.map((key) => ({ key, token: byKey.get(key)?.token ?? 0 })),
      abandoned: abandoned.map((lease) => lease.key),
    }
    if (!this.#isInVain(findings, look, receivedAt))
      this.#hindered = new Set(await this.#owner.attend(findings))
  }

  /**
   * Whether the same has just been attended to among the same nodes, and nothing came of it: there is no other candidate, or
   * a fence is in the way. It is attended to again after as long as it has been so, but once in a heartbeat at least. What
   * a gone node held is not put off.
   */
  #isInVain(findings: Findings, look: Look, now: Reading): boolean {
    const { unclaimed, overdue, abandoned } = findings
    const parts = [...unclaimed, ...overdue, ...abandoned, ...look.nodes.map(({ id }) => id)]
    // Sorted, because a database may return rows in another order after each heartbeat.
    const what = JSON.stringify(parts.map((part) => JSON.stringify(part)).sort())
    const attended = this.#attended?.what === what ? this.#attended : { what, firstAt: now, lastAt: now }
    this.#attended = attended
    const pauseMs = Math.min(this.#timing.heartbeatMs, elapsedMs(attended.firstAt, attended.lastAt))
    if (abandoned.length === 0 && elapsedMs(attended.lastAt, now) < pauseMs) return true
    attended.lastAt = now
    return false
  }

  /** Judges the extra look that a node other than a watcher takes at the very instant a watcher's time is up. */
  async #judgeWatchers(look: Look, sentAt: Reading, receivedAt: Reading): Promise<void> {
    const beats = look.nodes.filter((node) => this.#suspects.has(node.id))
    const still = this.#watchers.observe(this.#others(beats), sentAt, receivedAt)
    await this.#bury(beats, still)
  }

  async #bury(beats: readonly Beat[], ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return
    const longestTtlMs = this.#owner.longestTtlMs()
    const first = new Set(ids.slice(0, this.#buriedAtOnce))
    try {
      await this.#owner.bury(
        beats.filter(({ id }) => first.has(id)),
        longestTtlMs,
      )
      this.#buriedAtOnce *= 2
    } catch (error) {
      this.#buriedAtOnce = Math.max(leastAtOnce, Math.ceil(first.size / 2))
      this.#owner.lookFailed(error)
    }
  }

  /**
   * A change that removes a watcher names another. So where one is missing, somebody has deleted its row; once, it may be
   * that this node has not read yet who is one now.
   */
  async #nameWatchers(): Promise<void> {
    if (this.#naming) return
    this.#naming = true
    try {
      await this.#owner.nameWatchers()
    } catch (error) {
      this.#owner.lookFailed(error)
    } finally {
      this.#naming = false
    }
  }

  #others(beats: readonly Beat[]): Map<string, number> {
    return new Map(beats.filter((beat) => beat.id !== this.#self).map((beat) => [beat.id, beat.beat]))
  }

  /**
   * Returns a tenth of a ttl, or less if something will have stood still for its wait before then. A watcher that is
   * alone looks no more often than it beats, because it is told when another node joins.
   */
  #nextLookInMs(): number {
    const now = this.#clock.read()
    const nobodyElse = this.#alone && this.#nodes.size === 0
    const leastOftenMs = Math.max(lookEveryMs(this.#timing), this.#timing.heartbeatMs)
    const everyMs = nobodyElse ? leastOftenMs : lookEveryMs(this.#timing)
    const due = [this.#nodes, this.#unclaimed, this.#overdue].flatMap((watch) => watch.dueInMs(now) ?? [])
    const leastMs = leastPauseMs(this.#failures, everyMs, () => this.#clock.random())
    return Math.max(leastMs, Math.min(everyMs, ...due))
  }
}

/**
 * Returns the free leases that their targets could claim but have not, with the state to watch; also those whose target
 * is their own blocked node.
 */
function unclaimedTargets(look: Look): Map<string, string> {
  const isGone = (node: string): boolean => look.gone.has(node)
  const targets = new Map<string, string>()
  for (const lease of look.leases) {
    const free = lease.holder === null || isGone(lease.holder)
    if (lease.target === null || !free || lease.holder === lease.target) continue
    const standsInItsOwnWay = lease.target === lease.blockedNode && !isGone(lease.target)
    if (!standsInItsOwnWay && (isBlocked(lease, isGone) || waitsAtBarrier(lease, look, isGone))) continue
    // Not the row's revision: the row is written whenever nodes join or leave its queue.
    const generation = workerNamed(look.workers, lease.worker)?.generation
    const { key, target, targetAtMs, token, blockedToken } = lease
    targets.set(key, `${target}@${targetAtMs} ${token} ${blockedToken} ${generation}`)
  }
  return targets
}

/**
 * Shares of the present generation that were taken by force from nodes that are to have them again. Another plan would
 * end the passes of all other nodes, which could begin again only once the block has ended or been waited out; so a
 * watcher waits for that first.
 */
function blockedShares(look: Look): ReadonlySet<string> {
  const shares = look.leases.filter((lease) => {
    const worker = workerNamed(look.workers, lease.worker)
    const { target } = lease
    const standsInItsOwnWay = target !== null && target === lease.blockedNode && !look.gone.has(target)
    return standsInItsOwnWay && worker?.kind === 'coordinated' && !isOutdated(lease, worker)
  })
  return new Set(shares.map(({ key }) => key))
}

/** A look shows all leases that hold a barrier shut, because these are pending. */
function waitsAtBarrier(lease: LeaseRow, look: Look, isGone: (node: string) => boolean): boolean {
  const worker = workerNamed(look.workers, lease.worker)
  if (worker?.kind !== 'coordinated') return false
  return !barrierOpen(worker, leasesOf(look.leases, worker.key), isGone)
}

/** Holders that are to hand over, by the token they hold. */
function lateHolders(look: Look): Map<string, number> {
  const late = new Map<string, number>()
  for (const lease of look.leases) {
    if (lease.holder === null || look.gone.has(lease.holder)) continue
    const worker = workerNamed(look.workers, lease.worker)
    if (lease.target !== lease.holder || isOutdated(lease, worker)) late.set(lease.key, lease.token)
  }
  return late
}

function handoverTimeouts(look: Look): Map<string, number> {
  const byWorker = new Map(look.workers.map((worker) => [worker.key, worker.handoverTimeoutMs]))
  return new Map(
    look.leases.flatMap((lease) => {
      const timeoutMs = lease.worker === null ? undefined : byWorker.get(lease.worker)
      return timeoutMs === undefined ? [] : [[lease.key, timeoutMs] as const]
    }),
  )
}
