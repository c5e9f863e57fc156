/**
 * Explains why a lease has the holder it has, or why it has none: in sentences, and as facts.
 *
 * Pure, from one snapshot of the rows. It states what the rules of `targets.ts`, `wishes.ts` and `plan.ts` say about
 * these rows, in the order in which they apply. What no row tells (a transaction that fences the lease, work that ignores
 * its signal, a node that hangs) is stated as possible, not as known.
 */
import { barrierOpen, isBlocked, isOutdated, leasesOf, maxCooldownMs } from '../changes/rows.js'
import type { EventRow, LeaseRow, NodeRow, Snapshot, WorkerRow } from '../store.js'
import { blockWaitMs, standstillMs, type Timing } from '../time/timing.js'
import { type ScheduleStatus, scheduleStatus } from '../work/schedule.js'
import { overdueAtMs } from './overdue.js'
import { isSilent, pulseOf } from './pulse.js'
import type { NodeReference } from './status.js'
import { drainOf, isClosing } from './trail.js'
import type { Vacancy } from './vacancy.js'

/** Why something is so, for programs. Codes keep their meaning; sentences may be improved. */
export type ExplanationCode =
  /** A node holds it. */
  | 'held'
  /** Its holder should hand it over. */
  | 'handing-over'
  /** It is held under an older plan than the one in force. */
  | 'outdated'
  /** No heartbeat of its holder has come for longer than usual. */
  | 'silent'
  /** The row still names a holder that is gone. */
  | 'holder-gone'
  /** A time of its schedule has come, and its pass has not begun although a node leads. */
  | 'overdue'
  /** Its worker is paused. */
  | 'paused'
  /** A revoked holder has not acknowledged. */
  | 'blocked'
  /** Shares of an older plan are still held or blocked. */
  | 'barrier'
  /** A new server was recorded, after which no node claims for a while. */
  | 'server-changed'
  /** A node is its target, and was named a moment ago or cannot claim yet. */
  | 'named'
  /** A node is its target, and has not claimed in time. */
  | 'unclaimed'
  /** A transaction of the application may fence it. */
  | 'perhaps-fenced'
  /** No node may hold it. */
  | 'no-candidates'
  /** The plan in force has no use for it. */
  | 'not-planned'
  /** It is acquired by name, and no node asks for it. */
  | 'not-asked-for'
  /** Nodes wait for it. */
  | 'awaited'
  /** A node should not win it again for a while. */
  | 'cooling-down'
  /** How many nodes may hold it, and why others may not. */
  | 'candidates'

/** Why a node may not hold a lease now. */
export type Obstacle =
  /** It did not register the worker, or does not wait for the lease. */
  | 'not-registered'
  | 'draining'
  | 'paused'
  /** It may, but only if there are no other candidates. */
  | 'cooling-down'

export interface ExplanationReason {
  readonly code: ExplanationCode
  readonly sentence: string
}

/** A node, and whether it may hold the lease. */
export interface Candidacy {
  readonly node: NodeReference
  /** Empty when nothing prevents it. */
  readonly obstacles: readonly Obstacle[]
  /** For how long it still cools down, in ms; null when it does not. */
  readonly coolingForMs: number | null
}

export interface Explanation {
  readonly key: string
  /** The most important reason first. */
  readonly reasons: readonly ExplanationReason[]
  readonly holder: {
    readonly node: NodeReference
    readonly token: number
    readonly acquiredAtMs: number | null
    /** How long ago its session was last renewed, in ms by the database's clock. */
    readonly heartbeatAgoMs: number
  } | null
  /** The node that is meant to hold it. */
  readonly target: {
    readonly node: NodeReference
    readonly namedAtMs: number | null
    /** How long it has not claimed, in ms; null when it holds the lease, or when another node still does. */
    readonly unclaimedForMs: number | null
  } | null
  readonly paused: boolean
  /** The state of its worker's schedule; null when there is none. */
  readonly schedule: ScheduleStatus | null
  /** A revoked holder that has not acknowledged, and the time from which no node needs to wait for it any more. */
  readonly block: {
    readonly node: NodeReference
    readonly token: number
    /** Null when it is not known when the block began. */
    readonly untilMs: number | null
  } | null
  /** Nodes that hold shares of an older plan or on which shares are blocked; all new shares wait for them. */
  readonly barrier: readonly NodeReference[]
  /** How many nodes have no obstacle. */
  readonly candidateCount: number
  /** Those nodes first, then the others; at most {@link mostCandidates}. */
  readonly candidates: readonly Candidacy[]
  /** Nodes that wait for it by name, in the order in which they asked; at most {@link mostCandidates}. */
  readonly waiting: readonly NodeReference[]
}

/** What the rows do not tell. */
export interface ExplanationCircumstances {
  readonly timing: Pick<Timing, 'ttlMs' | 'statementTimeoutMs' | 'claimTimeoutMs'>
  /** When the present block began, from the audit trail; null when that is not known. */
  readonly revokedAtMs: number | null
  /** The event by which its worker was paused, from the audit trail; undefined when that is not known. */
  readonly pause?: Pick<EventRow, 'atMs' | 'actor' | 'reason'> | undefined
  /** Since when no node holds it, from the audit trail; undefined when that is not known. */
  readonly vacancy?: Vacancy | undefined
}

/** How many nodes an explanation lists at most. */
export const mostCandidates = 100

/** Explains one lease. Returns undefined when there is no such lease. */
export function explain(
  snapshot: Snapshot,
  key: string,
  circumstances: ExplanationCircumstances,
): Explanation | undefined {
  const lease = snapshot.leases.find((each) => each.key === key)
  if (lease === undefined) return undefined
  const scene = sceneOf(snapshot, lease, circumstances)
  const candidates = candidaciesIn(scene)
  return {
    key,
    reasons: [...whyHeldOrNot(scene, candidates), ...whyOthers(scene, candidates)],
    holder: holderIn(scene),
    target: targetIn(scene),
    paused: scene.worker?.paused ?? false,
    schedule: scheduleStatus(scene.worker?.schedule ?? null, lease.firedAtMs, snapshot.nowMs),
    block: blockIn(scene),
    barrier: scene.barrier.map((id) => referenceTo(scene, id)),
    candidateCount: candidates.filter(isFit).length,
    candidates: candidates.slice(0, mostCandidates),
    waiting: scene.waiting.slice(0, mostCandidates).map((id) => referenceTo(scene, id)),
  }
}

/** Everything from which the sentences are made. */
interface Scene {
  readonly snapshot: Snapshot
  readonly lease: LeaseRow
  /** Undefined for a lease that is acquired by name, and where somebody has deleted the row. */
  readonly worker: WorkerRow | undefined
  /** All leases of its worker. */
  readonly siblings: readonly LeaseRow[]
  readonly nodes: ReadonlyMap<string, NodeRow>
  readonly isGone: (node: string) => boolean
  /** Nodes for which the shares of a new plan wait. */
  readonly barrier: readonly string[]
  /** Nodes that wait for it by name. The row may also name nodes that are gone. */
  readonly waiting: readonly string[]
  readonly circumstances: ExplanationCircumstances
}

function sceneOf(snapshot: Snapshot, lease: LeaseRow, circumstances: ExplanationCircumstances): Scene {
  const nodes = new Map(snapshot.nodes.map((node) => [node.id, node]))
  const isGone = (node: string): boolean => (nodes.get(node)?.state ?? 'gone') === 'gone'
  const worker = snapshot.workers.find((each) => each.key === lease.worker)
  const siblings = worker === undefined ? [] : leasesOf(snapshot.leases, worker.key)
  const barrier = worker?.kind === 'coordinated' ? nodesAtBarrier(worker, siblings, isGone) : []
  const waiting = lease.waiters.filter((id) => !isGone(id))
  return { snapshot, lease, worker, siblings, nodes, isGone, barrier, waiting, circumstances }
}

function nodesAtBarrier(
  worker: WorkerRow,
  leases: readonly LeaseRow[],
  isGone: (node: string) => boolean,
): string[] {
  const shut = leases.filter((lease) => !barrierOpen(worker, [lease], isGone))
  const named = shut.map((lease) => (isBlocked(lease, isGone) ? lease.blockedNode : lease.holder))
  return [...new Set(named)].filter((id) => id !== null)
}

function whyHeldOrNot(scene: Scene, candidates: readonly Candidacy[]): ExplanationReason[] {
  const { holder } = scene.lease
  if (holder !== null && !scene.isGone(holder)) return whyHeld(scene, holder)
  return [...abandoned(scene), ...whyFree(scene, candidates)]
}

function whyHeld(scene: Scene, holder: string): ExplanationReason[] {
  const { lease, worker, snapshot } = scene
  const forMs = lease.acquiredAtMs === null ? null : snapshot.nowMs - lease.acquiredAtMs
  const since = forMs === null ? '' : ` for ${span(forMs)}`
  const what = `${nameOf(scene, holder)} has held it${since}, with token ${lease.token}.`
  const outdated = isOutdated(lease, worker)
  const moving = lease.target !== holder
  const silent = isSilent({ id: holder }, snapshot)
  return [
    ...(silent ? silence(scene, holder) : []),
    reason('held', moving || outdated || silent ? what : `${what} ${whyKept(scene)}`),
    ...when(worker?.paused === true, 'paused', pausedSentence(scene)),
    ...when(
      outdated,
      'outdated',
      `It holds a share of plan ${lease.generation}; plan ${worker?.generation} is in force. Its pass is to ` +
        'end first, and the new shares wait for that.',
    ),
    ...when(moving && worker?.paused !== true, 'handing-over', handingOver(scene, holder)),
    ...(silent || worker?.paused === true ? [] : overdue(scene, holder)),
    ...(silent ? [] : silence(scene, holder)),
  ]
}

function overdue(scene: Scene, holder: string): ExplanationReason[] {
  const { lease, worker, snapshot, circumstances } = scene
  const dueAtMs = overdueAtMs(lease, worker, snapshot.nowMs, circumstances.timing)
  if (dueAtMs === null) return []
  return [
    reason(
      'overdue',
      `A time of its schedule came ${span(snapshot.nowMs - dueAtMs)} ago, and no pass has begun for it. As a rule an ` +
        `earlier pass still runs on ${nameOf(scene, holder)}, since two never run at once: if it hangs, release the ` +
        'lease. Or a transaction of the application fences the lease.',
    ),
  ]
}

/** A lease that is acquired by name has no worker; the row of any other's has been deleted. */
const workerMissing =
  'The row of its worker is missing: somebody has deleted it. Restart one node that registers it, and it is made again.'

function whyKept({ lease, worker }: Scene): string {
  if (worker === undefined && lease.worker !== null) return workerMissing
  if (worker === undefined) return 'It asked for the lease by name, and keeps it until it gives it back.'
  if (worker.kind === 'single') return 'The plan is to leave it there: a healthy holder is not moved.'
  const what = worker.kind === 'coordinated' ? 'share' : 'partition'
  const plan = worker.kind === 'coordinated' ? ` in plan ${lease.generation}` : ''
  return `The plan gives it the lease: ${what} ${lease.slot} of ${worker.slots}${plan}.`
}

/** A lease acquired by name has no handover timeout on record. */
function handingOver(scene: Scene, holder: string): string {
  const { lease, worker, snapshot } = scene
  const why =
    scene.nodes.get(holder)?.state === 'draining' ? ` Its node is draining${whyDraining(scene, holder)}.` : ''
  const namedMs = lease.targetAtMs === null ? null : snapshot.nowMs - lease.targetAtMs
  const since = namedMs === null ? '' : `, which was chosen ${span(namedMs)} ago`
  const next =
    lease.target === null
      ? 'It is to give it up, and nobody is meant to have it next.'
      : `It is to hand over to ${nameOf(scene, lease.target)}${since}.`
  const limit =
    worker === undefined
      ? ''
      : ` Its pass has to end first; if that takes longer than ${span(worker.handoverTimeoutMs)} it is revoked.`
  return `${next}${why}${limit}`
}

/** Returns the rest of a sentence that ends with "draining". */
function whyDraining({ nodes, snapshot }: Scene, id: string): string {
  const node = nodes.get(id)
  const drain = node && drainOf(node, snapshot)
  if (node === undefined || drain === undefined) return ''
  if (isClosing(node, drain)) return ', since it is closing'
  return `: ${drain.actor} asked for it ${span(snapshot.nowMs - drain.atMs)} ago, “${drain.reason}”`
}

function silence(scene: Scene, holder: string): ExplanationReason[] {
  const { nowMs } = scene.snapshot
  const node = scene.nodes.get(holder)
  if (node === undefined) return []
  const pulse = pulseOf(node, nowMs)
  const agoMs = nowMs - node.heartbeatAtMs
  const stillMs = standstillMs({ ttlMs: longestTtlMs(scene) })
  const stopped = pulse === 'silent' ? ' It cannot act on the lease any more: nobody works under it.' : ''
  return when(
    pulse !== 'steady',
    'silent',
    `The last heartbeat of ${nameOf(scene, holder)} came ${span(agoMs)} ago.${stopped} It is declared gone once a ` +
      `watcher has itself seen no newer one for ${span(stillMs)}, which requires a database that can be ` +
      'written to.',
  )
}

function abandoned(scene: Scene): ExplanationReason[] {
  const { holder } = scene.lease
  if (holder === null) return []
  return [
    reason(
      'holder-gone',
      `${nameOf(scene, holder)} held it and is gone. A watcher clears the lease at its next look; a transaction ` +
        'of the application that fences it may delay that until it has ended.',
    ),
  ]
}

function whyFree(scene: Scene, candidates: readonly Candidacy[]): ExplanationReason[] {
  const { lease, worker, snapshot } = scene
  const { target } = lease
  const obstacles = [
    ...when(worker?.paused === true, 'paused', pausedSentence(scene)),
    ...blockade(scene),
    ...when(
      worker !== undefined && scene.barrier.length > 0,
      'barrier',
      `No share of plan ${worker?.generation} begins before the older ones have ended. Still at work or not heard ` +
        `from: ${listed(scene.barrier.map((id) => nameOf(scene, id)))}.`,
    ),
    ...when(
      !snapshot.meta.identitySettled,
      'server-changed',
      'The database is another server than before, or was restarted or restored, and may have forgotten who holds ' +
        `what. Nobody claims anything until ${span(waitMs(scene))} have passed since a node noticed.`,
    ),
  ]
  if (target !== null) return [...obstacles, ...whyUnclaimed(scene, target, obstacles.length > 0)]
  return [...obstacles, ...whyUnplanned(scene, candidates)]
}

/** A claim that nothing prevents takes milliseconds. */
function whyUnclaimed(scene: Scene, target: string, hindered: boolean): ExplanationReason[] {
  const { lease, snapshot, circumstances } = scene
  const { claimTimeoutMs } = circumstances.timing
  const forMs = lease.targetAtMs === null ? 0 : snapshot.nowMs - lease.targetAtMs
  const who = nameOf(scene, target)
  const { sinceMs = null, passedOver = [] } = circumstances.vacancy ?? {}
  const free = sinceMs === null ? '' : `Nobody has held it for ${span(snapshot.nowMs - sinceMs)}. `
  const named = `${who} was chosen as the next holder ${span(forMs)} ago.`
  if (!hindered && passedOver.length > 0) {
    const others = listed(passedOver.map((id) => nameOf(scene, id)))
    const sentence =
      `${free}Named in turn, and passed over because no claim came in time: ${others}. Now ${named} Work of an ` +
      'earlier term may still go on there, its signal ignored: then only a restart of that process helps.'
    return [reason('unclaimed', sentence), perhapsFenced]
  }
  if (hindered) return [reason('named', `${named} It claims the lease when nothing prevents that.`)]
  if (forMs <= claimTimeoutMs) return [reason('named', `${named} It is about to claim it.`)]
  return [
    reason(
      'unclaimed',
      `${who} was chosen as the next holder ${span(forMs)} ago and has not claimed it. It may be hanging, or work of ` +
        'an earlier term may still go on there. After ' +
        `${span(claimTimeoutMs)} a watcher skips it, if there is another candidate.`,
    ),
    perhapsFenced,
  ]
}

const perhapsFenced = reason(
  'perhaps-fenced',
  'Or a transaction of the application fences the lease: nobody can take it before that transaction has ended. ' +
    'The database does not show whether there is one.',
)

function whyUnplanned(scene: Scene, candidates: readonly Candidacy[]): ExplanationReason[] {
  const { lease, worker, waiting } = scene
  if (worker === undefined && lease.worker !== null) return [reason('no-candidates', workerMissing)]
  if (worker === undefined) {
    return when(
      waiting.length === 0,
      'not-asked-for',
      'It is a lease that is acquired by name, and nobody asks for it.',
    )
  }
  if (worker.kind !== 'single' && lease.slot >= worker.slots) {
    return [
      reason(
        'not-planned',
        `It is left over from an older plan; the one in force has ${worker.slots} ` +
          `${worker.slots === 1 ? 'slot' : 'slots'}.`,
      ),
    ]
  }
  if (worker.paused) return []
  return when(
    !candidates.some(({ obstacles }) => obstacles.length === 0 || obstacles.join() === 'cooling-down'),
    'no-candidates',
    candidates.some(isDraining)
      ? 'No node can take it: every node that has registered its worker is draining. End a drain, or start a node.'
      : 'No node can take it: no active node has registered its worker.',
  )
}

/** Whether it could hold the lease if it were not draining. */
function isDraining({ obstacles }: Candidacy): boolean {
  return obstacles.includes('draining') && !obstacles.includes('not-registered')
}

function blockade(scene: Scene): ExplanationReason[] {
  const { lease, snapshot } = scene
  const block = blockIn(scene)
  if (block === null) return []
  const limit =
    block.untilMs === null
      ? `when the next holder has itself seen that for ${span(waitMs(scene))}`
      : `in ${span(block.untilMs - snapshot.nowMs)} at the latest`
  return [
    reason(
      'blocked',
      `It was taken from ${nameOf(scene, lease.blockedNode ?? '')}, which held it with token ${block.token} and has ` +
        `not acknowledged that it has stopped. It becomes free when that node does so or is gone, or ${limit}.`,
    ),
  ]
}

function whyOthers(scene: Scene, candidates: readonly Candidacy[]): ExplanationReason[] {
  return [...coolingDown(scene), ...awaited(scene), ...countOf(scene, candidates)]
}

function coolingDown(scene: Scene): ExplanationReason[] {
  return [...coolingIn(scene)].map(([id, forMs]) =>
    reason(
      'cooling-down',
      `${nameOf(scene, id)} should not win it again for ${span(forMs)}, as long as there is another candidate.`,
    ),
  )
}

function awaited({ waiting: { length } }: Scene): ExplanationReason[] {
  return when(length > 0, 'awaited', `${counted(length, 'node waits', 'nodes wait')} for it.`)
}

function countOf(scene: Scene, candidates: readonly Candidacy[]): ExplanationReason[] {
  if (scene.worker === undefined || scene.worker.paused) return []
  const registered = candidates.filter(({ obstacles }) => !obstacles.includes('not-registered'))
  const draining = candidates.filter(isDraining).map(({ node }) => node.id)
  const may = registered.length - draining.length
  const others = candidates.length - registered.length
  const notes = [
    ...(draining.length > 0 ? [drainingNote(scene, draining, may > 0)] : []),
    ...(others > 0 ? [`${counted(others, 'node has', 'nodes have')} not registered its worker`] : []),
  ]
  const rest = notes.length === 0 ? '' : `; ${notes.join(', ')}`
  return [reason('candidates', `${counted(may, 'node is a candidate', 'nodes are candidates')}${rest}.`)]
}

/** Names draining nodes while they are few, and says who asked for a drain if there is only one. */
function drainingNote(scene: Scene, ids: readonly string[], besides: boolean): string {
  const [id = '', ...more] = ids
  if (more.length === 0) return `${nameOf(scene, id)} is draining${whyDraining(scene, id)}`
  if (ids.length > mostNamed) return `${ids.length}${besides ? ' more' : ''} are draining`
  return `${ids.map((each) => nameOf(scene, each)).join(' and ')} are draining`
}

/** How many draining nodes are named. */
const mostNamed = 2

/**
 * Returns the nodes that are not gone: first those that may hold the lease, then those with the fewest obstacles.
 */
function candidaciesIn(scene: Scene): Candidacy[] {
  const cooling = coolingIn(scene)
  return scene.snapshot.nodes
    .filter((node) => node.state !== 'gone')
    .map((node) => candidacyOf(scene, node, cooling.get(node.id) ?? null))
    .sort((a, b) => weightOf(a) - weightOf(b))
}

function candidacyOf(scene: Scene, node: NodeRow, coolingForMs: number | null): Candidacy {
  const { lease, worker } = scene
  const registered =
    worker === undefined
      ? [lease.holder, lease.target, ...lease.waiters].includes(node.id)
      : node.workers.includes(worker.key)
  const obstacles: Obstacle[] = [
    ...(registered ? [] : (['not-registered'] as const)),
    ...(node.state === 'draining' ? (['draining'] as const) : []),
    ...(worker?.paused === true ? (['paused'] as const) : []),
    ...(coolingForMs === null ? [] : (['cooling-down'] as const)),
  ]
  return { node: referenceTo(scene, node.id), obstacles, coolingForMs }
}

function weightOf({ obstacles }: Candidacy): number {
  return obstacles.includes('not-registered') ? 100 : obstacles.length
}

function isFit({ obstacles }: Candidacy): boolean {
  return obstacles.length === 0
}

/**
 * Returns how long each node still cools down, in ms. Shares are planned as a whole, so the cool-down of any share
 * counts.
 */
function coolingIn({ snapshot, lease, worker, siblings }: Scene): Map<string, number> {
  const leases = worker?.kind === 'coordinated' ? siblings : [lease]
  const cooling = new Map<string, number>()
  for (const { cooldownNode, cooldownUntilMs } of leases) {
    const forMs = Math.min((cooldownUntilMs ?? 0) - snapshot.nowMs, maxCooldownMs)
    if (cooldownNode !== null && forMs > (cooling.get(cooldownNode) ?? 0)) cooling.set(cooldownNode, forMs)
  }
  return cooling
}

function holderIn(scene: Scene): Explanation['holder'] {
  const { lease, snapshot } = scene
  const node = lease.holder === null ? undefined : scene.nodes.get(lease.holder)
  if (node === undefined || node.state === 'gone') return null
  return {
    node: referenceTo(scene, node.id),
    token: lease.token,
    acquiredAtMs: lease.acquiredAtMs,
    heartbeatAgoMs: Math.max(0, snapshot.nowMs - node.heartbeatAtMs),
  }
}

function targetIn(scene: Scene): Explanation['target'] {
  const { lease, snapshot } = scene
  if (lease.target === null) return null
  const held = lease.holder !== null && !scene.isGone(lease.holder)
  const unclaimedForMs =
    held || lease.targetAtMs === null ? null : Math.max(0, snapshot.nowMs - lease.targetAtMs)
  return { node: referenceTo(scene, lease.target), namedAtMs: lease.targetAtMs, unclaimedForMs }
}

function blockIn(scene: Scene): Explanation['block'] {
  const { lease, circumstances } = scene
  if (lease.blockedNode === null || !isBlocked(lease, scene.isGone)) return null
  const { revokedAtMs } = circumstances
  return {
    node: referenceTo(scene, lease.blockedNode),
    token: lease.blockedToken ?? 0,
    untilMs: revokedAtMs === null ? null : revokedAtMs + waitMs(scene),
  }
}

/** How long a block, or a new server, is waited out. */
function waitMs(scene: Scene): number {
  return blockWaitMs({ ...scene.circumstances.timing, ttlMs: longestTtlMs(scene) })
}

function longestTtlMs({ snapshot, circumstances }: Scene): number {
  return Math.max(circumstances.timing.ttlMs, snapshot.meta.longestTtlMs)
}

function referenceTo({ nodes }: Scene, id: string): NodeReference {
  const node = nodes.get(id)
  return { id, name: node?.name ?? '', cluster: node?.cluster ?? '' }
}

/** The rows of nodes long gone are deleted; then only the id is left. */
function nameOf({ nodes }: Scene, id: string): string {
  const node = nodes.get(id)
  return node === undefined ? `${id} (gone)` : `${node.name} (${node.cluster})`
}

function pausedSentence({ snapshot, circumstances: { pause } }: Scene): string {
  const who =
    pause && ` ${pause.actor} paused it ${span(snapshot.nowMs - pause.atMs)} ago: “${pause.reason}”.`
  return `Its worker is paused: nobody runs it until it is resumed.${who ?? ''}`
}

function reason(code: ExplanationCode, sentence: string): ExplanationReason {
  return { code, sentence }
}

function when(holds: boolean, code: ExplanationCode, sentence: string): ExplanationReason[] {
  return holds ? [reason(code, sentence)] : []
}

function counted(count: number, one: string, many: string): string {
  return count === 0 ? `No ${one}` : `${count} ${count === 1 ? one : many}`
}

/** Lists at most five names, so that they fit into a sentence. */
function listed(names: readonly string[]): string {
  const shownNames = names.slice(0, 5)
  const more = names.length - shownNames.length
  return [...shownNames, ...(more > 0 ? [`${more} more`] : [])].join(', ')
}

/** Formats a duration for people: `350 ms`, `4.2 s`, `3 min 4 s`, `5 h 12 min`, `3 d 4 h`. */
function span(ms: number): string {
  const seconds = Math.max(0, ms) / 1_000
  if (seconds < 1) return `${Math.round(seconds * 1_000)} ms`
  if (seconds < 60) return `${Math.floor(seconds * 10) / 10} s`
  const [unit, size, part, partSize] =
    seconds < 3_600
      ? (['min', 60, 's', 1] as const)
      : seconds < 86_400
        ? (['h', 3_600, 'min', 60] as const)
        : (['d', 86_400, 'h', 3_600] as const)
  const rest = Math.floor((seconds % size) / partSize)
  return `${Math.floor(seconds / size)} ${unit}${rest === 0 ? '' : ` ${rest} ${part}`}`
}
