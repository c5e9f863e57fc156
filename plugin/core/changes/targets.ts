/** Names the targets of leases in a draft: for those of workers `plan.ts` decides, for those by name their queue. */
import { slotKey } from '../names.js'
import type { LeaseRow, WorkerRow } from '../store.js'
import type { Draft } from './draft.js'
import { type Candidate, chooseSuccessor, planPartitions, planShares } from './plan.js'
import { freshLease, isOutdated, isPending, uncooled } from './rows.js'

/**
 * Chooses the next targets of leases that have become free, and plans further workers with them. A lease that
 * already has a target needs no planning. Shares are the exception: they are planned as a whole, and one that was
 * fenced may have missed the last plan.
 */
export async function replan(
  draft: Draft,
  freed: readonly string[],
  workers: readonly string[] = [],
): Promise<void> {
  const leases = freed.flatMap((key) => draft.lease(key) ?? [])
  const unplanned = leases.filter((lease) => lease.target === null || draft.isCoordinated(lease))
  await planWorkers(draft, [...workers, ...unplanned.flatMap((lease) => lease.worker ?? [])])
  for (const { key, worker } of leases) if (worker === null) await planByName(draft, key)
}

/** Chooses the targets of these workers' leases anew. */
export async function planWorkers(draft: Draft, workerKeys: Iterable<string>): Promise<void> {
  const keys = [...new Set(workerKeys)]
  if (keys.length === 0) return
  await draft.loadWorkers(keys)
  await draft.load({ workers: keys })
  for (const key of keys) {
    const worker = draft.worker(key)
    if (worker !== undefined) await planWorker(draft, worker)
  }
}

/**
 * Chooses the next target of a lease acquired by name: the first waiter that is still active. Draining nodes keep
 * their places, gone ones do not. A target that drains had the first place, and gets it back.
 */
export async function planByName(draft: Draft, key: string): Promise<void> {
  const lease = draft.lease(key)
  if (lease === undefined || (lease.holder !== null && lease.holder === lease.target)) return
  const present = new Map((await draft.presentNodes()).map((node) => [node.id, node.state]))
  const isActive = (node: string): boolean => present.get(node) === 'active'
  if (lease.target !== null && isActive(lease.target)) return
  if (lease.target !== null && present.has(lease.target)) queueFirst(draft, key, lease.target)
  const { waiters } = draft.lease(key) ?? lease
  const next = waiters.find(isActive) ?? null
  draft.edit(key, { waiters: waiters.filter((node) => present.has(node) && node !== next) })
  draft.assign(key, next)
}

/** Puts a node first in the queue of a lease by name, unless it holds the lease or still has its place there. */
export function queueFirst(draft: Draft, key: string, node: string): void {
  const lease = draft.lease(key)
  if (lease === undefined || lease.holder === node || lease.waiters.includes(node)) return
  draft.edit(key, { waiters: [node, ...lease.waiters] })
}

async function planWorker(draft: Draft, worker: WorkerRow): Promise<void> {
  const candidates = await draft.candidates(worker)
  if (worker.kind === 'single') assignSingle(draft, worker, candidates)
  else if (worker.kind === 'coordinated') assignShares(draft, worker, candidates)
  else assignPartitions(draft, worker, candidates)
}

/**
 * A healthy holder is never moved, unless another node has been named as target to follow it. A target that is
 * still a candidate is kept, unless it cools down and has not claimed yet when another candidate appears.
 */
function assignSingle(draft: Draft, worker: WorkerRow, candidates: readonly Candidate[]): void {
  const lease = draft.lease(worker.key)
  if (lease === undefined) return
  const cooling = draft.cooling([lease], candidates)
  const isCandidate = (node: string | null): node is string =>
    candidates.some((candidate) => candidate.id === node)
  const current = [lease.target, lease.holder].filter(isCandidate)
  const kept =
    current.find((node) => !cooling.has(node)) ?? (isCandidate(lease.holder) ? current[0] : undefined)
  draft.assign(lease.key, kept ?? successor(draft, lease, candidates, cooling) ?? null)
}

/** Chooses the next target of a single worker; of equals not the one that has just had the lease. */
function successor(
  draft: Draft,
  { key }: LeaseRow,
  candidates: readonly Candidate[],
  cooling: ReadonlySet<string>,
): string | undefined {
  const last = draft.before(key)?.holder
  const ranked = candidates.map((each) => (each.id === last ? { ...each, load: each.load + 0.5 } : each))
  return chooseSuccessor(key, ranked, cooling)
}

/**
 * Begins a new generation when the set of nodes has changed. A node that cools down for any of the shares stands
 * aside while there are others. Where somebody has deleted the row of a share, the barrier cannot see who holds it.
 */
function assignShares(draft: Draft, worker: WorkerRow, candidates: readonly Candidate[]): void {
  const leases = draft.leasesOf(worker.key)
  const aside = draft.cooling(leases, candidates)
  const willing = candidates.filter((candidate) => !aside.has(candidate.id))
  // By their numbers: somebody may have deleted a row in between, and what it named is to be planned again.
  const targets = new Map(leases.map((lease) => [lease.slot, lease.target]))
  const current = Array.from({ length: worker.slots }, (_, slot) => targets.get(slot) ?? null)
  const { shares, changed } = planShares(current, willing.length > 0 ? willing : candidates)
  if (!changed) return
  // A fenced lease cannot get its new target. If a generation began now, plan and rows would differ again at once,
  // and generation would follow generation.
  if (leases.some((lease) => lease.fenced && lease.target !== (shares[lease.slot] ?? null))) return
  if (draft.lacksLeases(worker)) draft.doubt(worker.key)
  draft.putWorker({ ...worker, generation: worker.generation + 1, slots: shares.length })
  const slots = Math.max(shares.length, ...leases.map(({ slot }) => slot + 1))
  for (let slot = 0; slot < slots; slot++) {
    const key = slotKey(worker.key, slot)
    const before = draft.lease(key)
    if (before === undefined) draft.add(freshLease(key, worker.key, slot))
    draft.assign(key, shares[slot] ?? null)
    if (before !== undefined && before.holder !== null) nameAnew(draft, before, worker)
  }
  draft.concern(candidates.map((candidate) => candidate.id))
  draft.record({
    type: 'assignment.changed',
    subject: worker.key,
    detail: { generation: worker.generation + 1, count: shares.length },
  })
}

/**
 * Writes a share that is held, even if its target stays: a new generation makes it pending, and its term ends. It is
 * to be claimed again, so its target counts as named now, unless an earlier generation had ended that term already.
 */
function nameAnew(draft: Draft, share: LeaseRow, before: WorkerRow): void {
  const target = draft.lease(share.key)?.target ?? null
  const endsNow = target !== null && !isOutdated(share, before)
  draft.edit(share.key, endsNow ? { targetAtMs: draft.change.nowMs } : {})
}

function assignPartitions(draft: Draft, worker: WorkerRow, candidates: readonly Candidate[]): void {
  const leases = draft.leasesOf(worker.key)
  const planned = planPartitions(
    leases.map((lease) => lease.target ?? lease.holder),
    candidates,
    new Set(leases.flatMap((lease, slot) => (isPending(lease, worker) ? [slot] : []))),
  )
  const counts = new Map<string, number>()
  for (const node of planned) if (node !== null) counts.set(node, (counts.get(node) ?? 0) + 1)
  const targets = leases.map((lease, slot) =>
    unlessCooling(draft, lease, planned[slot] ?? null, candidates, counts),
  )
  const differing = leases.filter(({ target }, slot) => target !== targets[slot])
  for (const [slot, lease] of leases.entries()) draft.assign(lease.key, targets[slot] ?? null)
  const moved = differing.filter(({ fenced }) => !fenced).length
  if (moved > 0) draft.record({ type: 'assignment.changed', subject: worker.key, detail: { moved } })
  if (moved < differing.length) draft.unfinished.add(worker.key)
  else forgetCooldowns(draft, leases)
}

/**
 * Clears the cool-downs that are over, once a plan without regard to them is in force. Until then each stays in its
 * row, where the node that has the partition instead sees that there is a plan to be made.
 */
function forgetCooldowns(draft: Draft, partitions: readonly LeaseRow[]): void {
  for (const { key, cooldownNode, cooldownUntilMs } of partitions)
    if (cooldownNode !== null && (cooldownUntilMs ?? 0) <= draft.change.nowMs) draft.edit(key, uncooled)
}

/**
 * Keeps a partition from returning to the node it was taken from while that node cools down. It stays where it is if
 * that node has not more than its part then, or goes to the one that has the fewest by these counts, which follow.
 */
function unlessCooling(
  draft: Draft,
  lease: LeaseRow,
  planned: string | null,
  candidates: readonly Candidate[],
  counts: Map<string, number>,
): string | null {
  const aside = draft.cooling([lease], candidates)
  if (planned === null || planned === lease.holder || !aside.has(planned)) return planned
  const countOf = (node: string): number => counts.get(node) ?? 0
  const others = candidates
    .filter(({ id }) => !aside.has(id))
    .map((each) => ({ ...each, load: countOf(each.id) }))
  const sum = [...counts.values()].reduce((total, count) => total + count, 0)
  const part = Math.ceil(sum / others.length)
  const current = others.find(({ id, load }) => id === (lease.target ?? lease.holder) && load < part)
  const instead = current?.id ?? chooseSuccessor(lease.key, others) ?? planned
  counts.set(planned, countOf(planned) - 1)
  counts.set(instead, countOf(instead) + 1)
  return instead
}
