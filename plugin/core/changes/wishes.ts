/**
 * What a node does about its own leases: it gives back what has ended, acknowledges blocks, claims what it is the target
 * of, and asks for leases by name.
 */
import type { EndReason } from '../errors.js'
import type { Ahead, Change, LockedLease } from '../store.js'
import { Draft } from './draft.js'
import { barrierOpen, freshLease, unblocked, vacated } from './rows.js'
import {
  freeIfAbandoned,
  type Held,
  isFencedOff,
  isFree,
  isWaived,
  revokeLate,
  standAsideMs,
  unname,
} from './rules.js'
import { planByName, replan } from './targets.js'
import { nextToken } from './token.js'

/** What a node wants done about its own leases. All of it goes into one change. */
export interface Wishes {
  readonly release: readonly (Held & { readonly reason: EndReason; readonly cooldownMs?: number })[]
  /** Terms that have ended, and whose work has not settled in the time a holder has to hand over. */
  readonly revoke: readonly (Held & { readonly cooldownMs: number })[]
  /** Blocks on this node after a revocation. Its work has stopped, so the next node may claim. */
  readonly acknowledge: readonly Held[]
  /** Leases of workers that name this node as target. */
  readonly claim: readonly string[]
  /** Leases by name. A free one is claimed; for any other the node joins the queue when `wait` is set. */
  readonly acquire: readonly { readonly key: string; readonly wait: boolean }[]
  /** Leases by name for which this node no longer waits. */
  readonly withdraw: readonly string[]
  /**
   * Coordinated workers of which this node has no share, although it is a candidate and nothing prevents it; and
   * partitioned ones whose last plan a fence or a cool-down kept from being carried out in full.
   */
  readonly replan: readonly string[]
  /** Blocks that this node has itself observed for the whole block wait. */
  readonly waived: readonly Held[]
  /** The longest ttl on which the wait was based. If a longer one has been recorded since, the wait is void. */
  readonly longestTtlMs: number
  /**
   * The server under which the node waited. Another server may have forgotten that a block was lifted in between.
   */
  readonly identity: string
}

/** What a node cannot learn from its view about the leases by name that it asked for. */
export interface Settled {
  /** Names that cannot be acquired because they belong to workers. */
  readonly refused: readonly string[]
  /** Leases whose queue the node could not join, because a user's transaction fences the row. */
  readonly hindered: readonly string[]
  /** Workers to be planned again; see {@link Draft.unfinished}. */
  readonly unfinished: readonly string[]
}

/**
 * Does what a node wishes about its own leases. Wishes that the rows no longer allow are skipped; the node learns of
 * it from its view.
 */
export async function settle(change: Change, node: string, wishes: Wishes): Promise<Settled> {
  const draft = new Draft(change)
  await loadWhatIsNeeded(draft, wishes)
  const freed = wishes.release.filter((wish) => release(draft, node, wish)).map((wish) => wish.key)
  const withdrawn = wishes.withdraw.filter((key) => withdraw(draft, node, key))
  for (const wish of wishes.acknowledge) acknowledge(draft, node, wish)
  const revoked = wishes.revoke.filter((wish) => revokeOwn(draft, node, wish)).map((wish) => wish.key)
  await replan(draft, [...freed, ...withdrawn, ...revoked], wishes.replan)
  const refused = wishes.acquire
    .filter(({ key }) => (draft.lease(key)?.worker ?? null) !== null)
    .map(({ key }) => key)
  // The node may have connected only after a failover, and not know about it yet.
  if (change.session?.state === 'active' && draft.mayClaim) {
    const waited =
      change.meta.longestTtlMs <= wishes.longestTtlMs && change.serverIdentity === wishes.identity
    const waived = waited ? wishes.waived : []
    for (const key of wishes.claim) claim(draft, node, key, waived)
    for (const wish of wishes.acquire) {
      if (!refused.includes(wish.key)) await acquire(draft, node, wish, waived)
    }
  }
  // A node that only asks again whether it is still in the queue, and is, causes no write.
  if (draft.alters) draft.concern([node])
  await draft.write()
  const hindered = wishes.acquire.map(({ key }) => key).filter((key) => isKeptOut(draft, node, key))
  return { refused, hindered, unfinished: [...draft.unfinished] }
}

/** Whether a node has no place in the queue of a lease by name because the row is fenced. */
function isKeptOut(draft: Draft, node: string, key: string): boolean {
  const lease = draft.lease(key)
  return lease?.fenced === true && ![lease.holder, lease.target, ...lease.waiters].includes(node)
}

/** The rows that {@link settle} is going to read. A lease given up is planned anew, which needs all nodes. */
export function aheadOf(wishes: Wishes): Ahead {
  return { leases: { keys: keysOf(wishes) }, nodes: wishes.release.length + wishes.revoke.length > 0 }
}

function keysOf(wishes: Wishes): string[] {
  const { release, revoke, acknowledge, acquire } = wishes
  const keys = [...release, ...revoke, ...acknowledge, ...acquire].map((wish) => wish.key)
  return [...new Set([...keys, ...wishes.claim, ...wishes.withdraw])]
}

/** Coordinated workers are judged as a whole, so all their leases are loaded. */
async function loadWhatIsNeeded(draft: Draft, wishes: Wishes): Promise<void> {
  await draft.load({ keys: keysOf(wishes) })
  const coordinated = draft
    .leasesWhere((lease) => draft.isCoordinated(lease))
    .flatMap((lease) => lease.worker ?? [])
  if (coordinated.length > 0) await draft.load({ workers: [...new Set(coordinated)] })
}

function release(draft: Draft, node: string, wish: Wishes['release'][number]): boolean {
  const lease = heldBy(draft, node, wish)
  if (lease === undefined) return false
  draft.edit(lease.key, vacated)
  draft.coolDown(lease.key, node, wish.cooldownMs ?? 0)
  unname(draft, lease, node)
  draft.record({ type: 'lease.released', subject: lease.key, node, token: lease.token, reason: wish.reason })
  return true
}

/**
 * Takes a lease from this very node, whose work under it does not settle. Until it does, this node cannot claim the
 * lease again; so if no other has been named yet, it stands aside.
 */
function revokeOwn(draft: Draft, node: string, wish: Wishes['revoke'][number]): boolean {
  const lease = heldBy(draft, node, wish)
  if (lease === undefined) return false
  const { cooldownMs } = wish
  const standsAside = lease.target === node && lease.worker !== null && !draft.isCoordinated(lease)
  const forMs = standsAside ? Math.max(cooldownMs, standAsideMs) : cooldownMs
  revokeLate(draft, lease, 'the work under it did not end in time', forMs)
  return true
}

/** Returns the lease if the node holds it under this token and no transaction fences it. */
function heldBy(draft: Draft, node: string, { key, token }: Held): LockedLease | undefined {
  const lease = draft.lease(key)
  return lease?.holder === node && lease.token === token && !lease.fenced ? lease : undefined
}

function acknowledge(draft: Draft, node: string, block: Held): void {
  const lease = draft.lease(block.key)
  if (lease?.blockedNode !== node || lease.blockedToken !== block.token || lease.fenced) return
  draft.edit(lease.key, unblocked)
  draft.record({ type: 'lease.acknowledged', subject: lease.key, node, token: block.token })
}

/** Ends the node's wait for a lease, and returns whether the lease is now free for another node. */
function withdraw(draft: Draft, node: string, key: string): boolean {
  const lease = draft.lease(key)
  if (lease === undefined || lease.worker !== null) return false
  if (lease.waiters.includes(node))
    draft.edit(key, { waiters: lease.waiters.filter((waiter) => waiter !== node) })
  if (lease.target !== node || lease.holder === node) return false
  draft.assign(key, null)
  return true
}

/** Lets a target claim its lease if nothing prevents it. */
function claim(draft: Draft, node: string, key: string, waived: readonly Held[]): void {
  freeIfAbandoned(draft, key)
  const lease = draft.lease(key)
  const worker = lease && draft.workerOf(lease)
  if (lease === undefined || worker === undefined || worker.paused || lease.target !== node) return
  if (!isFree(draft, lease, waived)) return
  if (worker.kind === 'coordinated') {
    if (isFencedOff(draft, worker)) return
    const open = barrierOpen(worker, draft.leasesOf(worker.key), draft.isGone, (each) =>
      isWaived(each, waived),
    )
    if (!open) return
  }
  grant(draft, node, lease, worker.generation)
}

/** First come, first served: a free lease goes to the node that asks, unless another node is already its target. */
async function acquire(
  draft: Draft,
  node: string,
  wish: Wishes['acquire'][number],
  waived: readonly Held[],
): Promise<void> {
  if (draft.lease(wish.key) === undefined) draft.add(freshLease(wish.key, null, 0))
  freeIfAbandoned(draft, wish.key)
  await planInPlaceOfAbsent(draft, node, wish.key)
  const lease = draft.lease(wish.key)
  if (lease === undefined || lease.holder === node) return
  const mayHave = lease.target === null || lease.target === node
  if (mayHave && isFree(draft, lease, waived)) return grant(draft, node, lease, 0)
  if (!wish.wait) return
  const vacant = lease.holder === null || draft.isGone(lease.holder)
  if (mayHave && vacant) return draft.assign(lease.key, node)
  if (lease.target === node || lease.waiters.includes(node)) return
  // Gone nodes leave the queue. Otherwise it would only grow, over months of restarts.
  const present = new Set((await draft.presentNodes()).map(({ id }) => id))
  draft.edit(lease.key, { waiters: [...lease.waiters.filter((waiter) => present.has(waiter)), node] })
}

/**
 * If the lease has no target, or one that can no longer hold it, waiting nodes come before the node that asks now.
 */
async function planInPlaceOfAbsent(draft: Draft, node: string, key: string): Promise<void> {
  const lease = draft.lease(key)
  if (lease === undefined || lease.target === node) return
  if (lease.target === null && lease.waiters.length === 0) return
  await planByName(draft, key)
}

function grant(draft: Draft, node: string, lease: LockedLease, generation: number): void {
  const { change } = draft
  const token = nextToken(lease.token, change.meta.tokenFloor, change.nowMs)
  draft.assign(lease.key, node)
  draft.edit(lease.key, {
    holder: node,
    token,
    generation,
    attempt: change.session?.operation ?? null,
    identity: change.serverIdentity,
    acquiredAtMs: change.nowMs,
    ...unblocked,
    waiters: lease.waiters.filter((waiter) => waiter !== node),
  })
  draft.record({ type: 'lease.acquired', subject: lease.key, node, token })
}
