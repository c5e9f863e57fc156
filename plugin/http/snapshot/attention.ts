/**
 * Finds the problems of a namespace that an operator should see. Pure: from one snapshot of the rows and this node's
 * health.
 */
import { barrierOpen } from '../../core/changes/rows.js'
import type { Health } from '../../core/reports/health.js'
import type { LeaseStatus, Status } from '../../core/reports/status.js'
import type { EventRow, LeaseRow, NodeRow, Snapshot } from '../../core/store.js'
import { lookEveryMs, type Timing } from '../../core/time/timing.js'
import { pauseOf } from './pauses.js'
import { pulseOf } from './pulse.js'
import { rowsOf } from './rows.js'
import { vacancyIn } from './vacancies.js'

/** All severities, the worst first. */
export const severities = ['error', 'warning', 'info'] as const

/** Codes of problems. A code keeps its meaning; sentences may be improved. */
export type ProblemCode =
  /** A node has not sent a heartbeat for longer than its ttl. */
  | 'node-silent'
  | 'node-draining'
  /** No active node is a candidate for a worker. */
  | 'worker-without-candidates'
  | 'worker-paused'
  /** A lease is free although a node is its target or could be: the target has not claimed it in time. */
  | 'lease-unclaimed'
  /** The holder of a revoked lease has not acknowledged. */
  | 'lease-blocked'
  /** A holder has not handed its lease over in time. */
  | 'lease-moving'
  /** The database is a different one or came back from a crash: no node claims for a while. */
  | 'server-changed'
  /** This node cannot renew its session. */
  | 'trust-expired'
  /** Work goes on in this process although its lease has ended. */
  | 'work-unsettled'

/** A condition that an operator should see. */
export interface Problem {
  readonly code: ProblemCode
  readonly severity: (typeof severities)[number]
  /** Key of a lease or worker, id of a node, or "database". */
  readonly subject: string
  readonly sentence: string
}

/** Returns all problems, the worst first; within a severity, those of the whole namespace first, then by subject. */
export function problemsIn(snapshot: Snapshot, status: Status, own: Health, timing: Timing): Problem[] {
  const found = [
    ...ofThisNode(own, snapshot, status),
    ...ofServer(snapshot),
    ...snapshot.nodes.flatMap((node) => ofNode(node, snapshot.nowMs)),
    ...status.workers.flatMap((worker) => ofWorker(worker, snapshot)),
    ...ofLeases(snapshot, status, timing),
  ]
  // A cause comes before its consequences.
  const rank = ({ code, severity }: Problem): number =>
    2 * severities.indexOf(severity) + (code === 'trust-expired' || code === 'server-changed' ? 0 : 1)
  return found.sort((a, b) => rank(a) - rank(b) || (a.subject < b.subject ? -1 : 1))
}

/** The sentences name this node, because the reader may not know which node has answered. */
function ofThisNode(
  { state, node, trusted, unsettled }: Health,
  snapshot: Snapshot,
  { self }: Status,
): Problem[] {
  const sentence =
    `The database can be read, but node "${self.name}", which answers, cannot renew its session in it, and holds ` +
    'nothing meanwhile. Perhaps the database takes no writes.'
  const untrusted: Problem[] =
    state === 'running' && !trusted
      ? [{ code: 'trust-expired', severity: 'error', subject: node ?? 'this node', sentence }]
      : []
  const { nodes, leases } = rowsOf(snapshot)
  const row = nodes.get(node ?? '')
  // A pass that ends its term in good order has time for that, and the lease stays with its node meanwhile.
  const isHandingOver = (key: string): boolean => trusted && leases.get(key)?.holder === node
  const since = row === undefined ? '' : `, which joined at ${second(row.startedAtMs)}`
  return [
    ...untrusted,
    ...unsettled
      .filter((key) => !isHandingOver(key))
      .map((key): Problem => {
        const sentence =
          `The lease "${key}" has ended on node "${self.name}", but the work under it ignores its signal and goes on ` +
          `there: restart that process${since}.`
        return { code: 'work-unsettled', severity: 'error', subject: key, sentence }
      }),
  ]
}

function ofServer({ meta }: Snapshot): Problem[] {
  if (meta.identitySettled || meta.serverIdentity === '') return []
  const sentence =
    'The database has restarted after a crash or is another one: nobody claims a lease for a while.'
  return [{ code: 'server-changed', severity: 'warning', subject: 'database', sentence }]
}

function ofNode(node: NodeRow, nowMs: number): Problem[] {
  const { id, name, state, heartbeatAtMs } = node
  if (state === 'gone') return []
  if (pulseOf(node, nowMs) === 'silent') {
    const sentence = `No heartbeat of node "${name}" has come since ${second(heartbeatAtMs)}.`
    return [{ code: 'node-silent', severity: 'error', subject: id, sentence }]
  }
  if (state !== 'draining') return []
  const sentence = `Node "${name}" hands everything over and takes nothing new.`
  return [{ code: 'node-draining', severity: 'info', subject: id, sentence }]
}

function ofWorker({ key, paused, candidates }: Status['workers'][number], snapshot: Snapshot): Problem[] {
  if (paused) {
    const sentence = `The worker "${key}" is paused: nobody runs it.${whoPaused(pauseOf({ key, paused }, snapshot))}`
    return [{ code: 'worker-paused', severity: 'info', subject: key, sentence }]
  }
  if (candidates.length > 0) return []
  const sentence = `No active node is a candidate for the worker "${key}".`
  return [{ code: 'worker-without-candidates', severity: 'warning', subject: key, sentence }]
}

function whoPaused(pause: EventRow | undefined): string {
  return pause === undefined ? '' : ` ${pause.actor} paused it at ${second(pause.atMs)}: “${pause.reason}”.`
}

function ofLeases(snapshot: Snapshot, { leases }: Status, timing: Timing): Problem[] {
  const rows = rowsOf(snapshot).leases
  const patience = new Map(snapshot.workers.map(({ key, handoverTimeoutMs }) => [key, handoverTimeoutMs]))
  return leases.flatMap((lease) => {
    const row = rows.get(lease.key)
    const handoverMs = patience.get(lease.worker ?? '') ?? timing.handoverTimeoutMs
    if (row === undefined) return []
    return [...ofVacant(lease, row, snapshot, timing), ...ofLease(lease, row, snapshot.nowMs, handoverMs)]
  })
}

/**
 * A lease is judged by how long it has had no holder. When no target can claim and they take turns, each became target
 * only a moment ago.
 */
function ofVacant(
  { key, worker, state, target }: LeaseStatus,
  { targetAtMs }: LeaseRow,
  snapshot: Snapshot,
  timing: Timing,
): Problem[] {
  if ((state !== 'unclaimed' && state !== 'free') || !mayBeClaimed(worker, snapshot)) return []
  const { sinceMs = null, passedOver = [] } = vacancyIn(snapshot, key) ?? {}
  const patienceMs = timing.claimTimeoutMs + 2 * lookEveryMs(timing) + timing.pollMs
  const problem = (sentence: string): Problem[] => [
    { code: 'lease-unclaimed', severity: 'error', subject: key, sentence },
  ]
  const since = sinceMs === null ? '' : ` It has been free since ${second(sinceMs)}.`
  if (target === null) {
    if (sinceMs === null || snapshot.nowMs - sinceMs <= patienceMs) return []
    return problem(`Nobody holds the lease "${key}", or is meant to, though there are candidates.${since}`)
  }
  const { nodes } = rowsOf(snapshot)
  const named = [...new Set([...passedOver, target.id])].map((id) => `"${nodes.get(id)?.name ?? id}"`)
  if (named.length > 1) {
    const names = named.sort().join(', ')
    return problem(
      `Nobody holds the lease "${key}": ${names} were named in turn and did not claim it.${since}`,
    )
  }
  const namedAtMs = targetAtMs ?? snapshot.nowMs
  if (snapshot.nowMs - namedAtMs <= patienceMs && passedOver.length === 0) return []
  return problem(
    `Node "${target.name}" has been meant to hold the lease "${key}" since ${second(namedAtMs)}, and has not claimed it.`,
  )
}

/**
 * Returns whether a claim is possible: no node claims while a new server is waited out, or before a barrier is open.
 */
function mayBeClaimed(key: string | null, snapshot: Snapshot): boolean {
  if (!snapshot.meta.identitySettled && snapshot.meta.serverIdentity !== '') return false
  const worker = snapshot.workers.find((each) => each.key === key)
  if (worker?.kind !== 'coordinated') return true
  const { nodes, leasesOf } = rowsOf(snapshot)
  const isGone = (id: string): boolean => (nodes.get(id)?.state ?? 'gone') === 'gone'
  return barrierOpen(worker, leasesOf.get(worker.key) ?? [], isGone)
}

function ofLease(
  { key, state, holder, target, blockedNode }: LeaseStatus,
  { targetAtMs }: LeaseRow,
  nowMs: number,
  handoverMs: number,
): Problem[] {
  const namedAtMs = targetAtMs ?? nowMs
  const namedMs = nowMs - namedAtMs
  if (state === 'blocked') {
    const sentence = `The lease "${key}" was taken from node "${blockedNode?.name}", which has not said that it has stopped.`
    return [{ code: 'lease-blocked', severity: 'warning', subject: key, sentence }]
  }
  if (state === 'moving' && holder?.id !== target?.id && namedMs > handoverMs) {
    const sentence = `Node "${holder?.name}" was asked for the lease "${key}" at ${second(namedAtMs)}, and has not handed it over.`
    return [{ code: 'lease-moving', severity: 'warning', subject: key, sentence }]
  }
  return []
}

/**
 * Sentences contain times rather than durations: one that changes every second would be sent again at every reading.
 */
function second(atMs: number): string {
  return `${new Date(atMs).toISOString().slice(0, 19).replace('T', ' ')} UTC`
}
