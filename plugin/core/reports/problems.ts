/**
 * Finds the problems of a namespace that an operator should see. Pure: from one snapshot of the rows and this node's
 * health.
 */
import { barrierOpen, leasesOf, workerNamed } from '../changes/rows.js'
import type { EventRow, LeaseRow, NodeRow, Snapshot, WorkerRow } from '../store.js'
import { blockWaitMs, lookEveryMs, type Timing } from '../time/timing.js'
import type { Health } from './health.js'
import { overdueAtMs } from './overdue.js'
import { pulseOf } from './pulse.js'
import { rowsOf } from './rows.js'
import type { LeaseStatus, Status } from './status.js'
import { drainOf, isClosing, pauseOf, vacancyIn } from './trail.js'

/** All severities, the worst first. */
export const severities = ['error', 'warning', 'info'] as const

/** All problems, by code: how bad each is, and when it is there. A code keeps its meaning; sentences may be improved. */
export const problemCodes = {
  'trust-expired': {
    severity: 'error',
    when: 'The node that answers reads the database, but cannot renew its session in it',
  },
  'work-unsettled': {
    severity: 'error',
    when: 'Work goes on in the process that answers although its lease has ended',
  },
  'node-silent': { severity: 'error', when: 'No heartbeat of the node has come for longer than its ttl' },
  'lease-unclaimed': {
    severity: 'error',
    when: 'Nobody has claimed the lease in time, though nodes could',
  },
  'rows-missing': {
    severity: 'error',
    when: 'Somebody has deleted the row of a registered worker, rows of its leases, or that of a holder',
  },
  'server-changed': {
    severity: 'warning',
    when: 'The database was restarted or restored, is another one, or lost rows: nobody claims for a while',
  },
  'worker-without-candidates': { severity: 'warning', when: 'No active node has registered the worker' },
  'lease-blocked': {
    severity: 'warning',
    when: 'The lease was taken away, and its holder has not said that it has stopped',
  },
  'lease-moving': { severity: 'warning', when: 'Its holder has not handed the lease over in time' },
  'schedule-overdue': {
    severity: 'warning',
    when: 'A time of the schedule has come, and the holder has begun no pass for it',
  },
  'node-draining': { severity: 'info', when: 'The node hands everything over and takes nothing new' },
  'worker-paused': { severity: 'info', when: 'Somebody has paused the worker: nobody runs it' },
} as const satisfies Record<string, { severity: (typeof severities)[number]; when: string }>

export type ProblemCode = keyof typeof problemCodes

/** A condition that an operator should see. */
export interface Problem {
  readonly code: ProblemCode
  readonly severity: (typeof severities)[number]
  /** Key of a lease or worker, id of a node, or "database". */
  readonly subject: string
  readonly sentence: string
}

function problem(code: ProblemCode, subject: string, sentence: string): Problem {
  return { code, severity: problemCodes[code].severity, subject, sentence }
}

/** Returns all problems, the worst first; within a severity, those of the whole namespace first, then by subject. */
export function problemsIn(snapshot: Snapshot, status: Status, own: Health, timing: Timing): Problem[] {
  const found = [
    ...ofThisNode(own, snapshot, status),
    ...ofServer(snapshot, timing),
    ...snapshot.nodes.flatMap((node) => ofNode(node, snapshot)),
    ...ofMissing(snapshot),
    ...ofMissingHolders(snapshot),
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
  const untrusted =
    state === 'running' && !trusted ? [problem('trust-expired', node ?? 'this node', sentence)] : []
  const { nodes, leases } = rowsOf(snapshot)
  const row = nodes.get(node ?? '')
  // A pass that ends its term in good order has time for that, and the lease stays with its node meanwhile.
  const isHandingOver = (key: string): boolean => trusted && leases.get(key)?.holder === node
  const since = row === undefined ? '' : `, which joined at ${second(row.startedAtMs)}`
  return [
    ...untrusted,
    ...unsettled
      .filter((key) => !isHandingOver(key))
      .map((key) => {
        const sentence =
          `The lease "${key}" has ended on node "${self.name}", but the work under it ignores its signal and goes on ` +
          `there: restart that process${since}.`
        return problem('work-unsettled', key, sentence)
      }),
  ]
}

function ofServer(snapshot: Snapshot, timing: Timing): Problem[] {
  if (!isServerNew(snapshot)) return []
  const ttlMs = Math.max(timing.ttlMs, snapshot.meta.longestTtlMs)
  const sentence =
    'The database was restarted or restored, is another one, or lost rows, so it may have forgotten who holds what: holders go on, ' +
    `and nobody claims a lease until ${Math.ceil(blockWaitMs({ ...timing, ttlMs }) / 1_000)} s after a node noticed.`
  return [problem('server-changed', 'database', sentence)]
}

/** Returns whether a new server is being waited out. */
function isServerNew({ meta }: Snapshot): boolean {
  return !meta.identitySettled && meta.serverIdentity !== ''
}

function ofNode(node: NodeRow, snapshot: Snapshot): Problem[] {
  const { id, name, state, heartbeatAtMs } = node
  if (state === 'gone') return []
  if (pulseOf(node, snapshot.nowMs) === 'silent') {
    const sentence = `No heartbeat of node "${name}" has come since ${second(heartbeatAtMs)}.`
    return [problem('node-silent', id, sentence)]
  }
  if (state !== 'draining') return []
  const sentence = `Node "${name}" hands everything over and takes nothing new.${whyDraining(node, snapshot)}`
  return [problem('node-draining', id, sentence)]
}

function whyDraining(node: NodeRow, snapshot: Snapshot): string {
  const drain = drainOf(node, snapshot)
  if (drain === undefined) return ''
  if (isClosing(node, drain)) return ` It has been closing since ${second(drain.atMs)}.`
  return ` ${drain.actor} asked for it at ${second(drain.atMs)}: “${drain.reason}”.`
}

/** A gone node keeps its row as long as a lease names it. Leases by name are free for whoever acquires them next. */
function ofMissingHolders(snapshot: Snapshot): Problem[] {
  const ids = new Set(snapshot.nodes.map(({ id }) => id))
  return snapshot.leases.flatMap(({ key, worker, holder }) => {
    if (worker === null || holder === null || ids.has(holder)) return []
    const sentence =
      `The row of the node that holds "${key}" is missing: somebody has deleted it. Release it, or restart one node ` +
      `that registers the worker "${worker}", and it goes to another node.`
    return [problem('rows-missing', key, sentence)]
  })
}

/** A node registers a worker together with the rows of the worker and of its leases, so all are there or none. */
function ofMissing(snapshot: Snapshot): Problem[] {
  const workers = new Map(snapshot.workers.map((worker) => [worker.key, worker]))
  const active = snapshot.nodes.filter(({ state }) => state === 'active')
  const registered = new Map(active.flatMap(({ name, workers }) => workers.map((key) => [key, name])))
  return [...registered].flatMap(([key, node]) => {
    const missing = missingOf(key, workers.get(key), snapshot)
    if (missing === undefined) return []
    const sentence =
      `${missing}, though node "${node}" has registered it: somebody has deleted them. Restart one node that ` +
      'registers it, and they are made again.'
    return [problem('rows-missing', key, sentence)]
  })
}

function missingOf(key: string, worker: WorkerRow | undefined, snapshot: Snapshot): string | undefined {
  if (worker === undefined) return `Rows of the worker "${key}" are missing`
  const { slots } = worker
  const leases = leasesOf(snapshot.leases, key)
  const lacks = slots - leases.filter(({ slot }) => slot < slots).length
  return lacks > 0 ? `Rows of ${lacks} of the ${slots} leases of the worker "${key}" are missing` : undefined
}

function ofWorker({ key, paused, candidates }: Status['workers'][number], snapshot: Snapshot): Problem[] {
  if (paused) {
    const sentence = `The worker "${key}" is paused: nobody runs it.${whoPaused(pauseOf({ key, paused }, snapshot))}`
    return [problem('worker-paused', key, sentence)]
  }
  if (candidates.length > 0) return []
  const why = isRegistered(key, snapshot)
    ? ': every node that has registered it is draining.'
    : `.${whoHadIt(key, snapshot)}${mayBeForgotten(key, snapshot) ? ' If no program registers it any more, forget it.' : ''}`
  const sentence = `No active node is a candidate for the worker "${key}"${why}`
  return [problem('worker-without-candidates', key, sentence)]
}

/** As a rule a worker lacks candidates because its last node has ended, and not because it was renamed. */
function whoHadIt(worker: string, { nodes }: Snapshot): string {
  const past = nodes.filter(({ goneAtMs, workers }) => goneAtMs !== null && workers.includes(worker))
  const [last] = past.sort((a, b) => Number(b.goneAtMs) - Number(a.goneAtMs))
  if (last === undefined) return ''
  return ` The last one was node "${last.name}", gone since ${second(Number(last.goneAtMs))}.`
}

/**
 * Returns whether an operator may want to forget a worker. Where no node is left, or one that closes has registered it,
 * it most likely comes back.
 */
export function mayBeForgotten(worker: string, snapshot: Snapshot): boolean {
  return snapshot.nodes.some(({ state }) => state === 'active') && !isRegistered(worker, snapshot)
}

function isRegistered(worker: string, { nodes }: Snapshot): boolean {
  return nodes.some(({ state, workers }) => state !== 'gone' && workers.includes(worker))
}

function whoPaused(pause: EventRow | undefined): string {
  return pause === undefined ? '' : ` ${pause.actor} paused it at ${second(pause.atMs)}: “${pause.reason}”.`
}

function ofLeases(snapshot: Snapshot, { leases }: Status, timing: Timing): Problem[] {
  const rows = rowsOf(snapshot).leases
  const workers = new Map(snapshot.workers.map((worker) => [worker.key, worker]))
  return leases.flatMap((lease) => {
    const row = rows.get(lease.key)
    const worker = workers.get(lease.worker ?? '')
    const { handoverTimeoutMs } = worker ?? timing
    if (row === undefined) return []
    return [
      ...ofVacant(lease, row, snapshot, timing),
      ...ofLease(lease, row, snapshot.nowMs, handoverTimeoutMs),
      ...(worker === undefined ? [] : ofSchedule(lease, row, worker, snapshot, timing)),
    ]
  })
}

/** Where something else keeps the holder from beginning a pass, only that is told. */
function ofSchedule(
  { key, holder, target }: LeaseStatus,
  row: LeaseRow,
  worker: WorkerRow,
  snapshot: Snapshot,
  timing: Timing,
): Problem[] {
  const { nowMs } = snapshot
  const node = rowsOf(snapshot).nodes.get(holder?.id ?? '')
  if (node === undefined || node.id !== target?.id || pulseOf(node, nowMs) === 'silent') return []
  const dueAtMs = worker.paused || isServerNew(snapshot) ? null : overdueAtMs(row, worker, nowMs, timing)
  if (dueAtMs === null) return []
  const sentence =
    `The schedule of "${key}" was due at ${second(dueAtMs)}, and node "${node.name}" has begun no pass for that ` +
    'time: as a rule an earlier pass still runs there. If it hangs, release the lease.'
  return [problem('schedule-overdue', key, sentence)]
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
  const unclaimed = (sentence: string): Problem[] => [problem('lease-unclaimed', key, sentence)]
  const since = sinceMs === null ? '' : ` It has been free since ${second(sinceMs)}.`
  if (target === null) {
    if (sinceMs === null || snapshot.nowMs - sinceMs <= patienceMs) return []
    return unclaimed(`Nobody holds the lease "${key}", or is meant to, though there are candidates.${since}`)
  }
  const { nodes } = rowsOf(snapshot)
  const named = [...new Set([...passedOver, target.id])].map((id) => `"${nodes.get(id)?.name ?? id}"`)
  if (named.length > 1) {
    const names = named.sort().join(', ')
    return unclaimed(
      `Nobody holds the lease "${key}": ${names} were named in turn and did not claim it.${since}`,
    )
  }
  const namedAtMs = targetAtMs ?? snapshot.nowMs
  if (snapshot.nowMs - namedAtMs <= patienceMs && passedOver.length === 0) return []
  return unclaimed(
    `Node "${target.name}" has been meant to hold the lease "${key}" since ${second(namedAtMs)}, and has not claimed it.`,
  )
}

/**
 * Returns whether a claim is possible: no node claims while a new server is waited out, or before a barrier is open.
 */
function mayBeClaimed(key: string | null, snapshot: Snapshot): boolean {
  if (isServerNew(snapshot)) return false
  const worker = workerNamed(snapshot.workers, key)
  if (worker?.kind !== 'coordinated') return true
  const { nodes } = rowsOf(snapshot)
  const isGone = (id: string): boolean => (nodes.get(id)?.state ?? 'gone') === 'gone'
  return barrierOpen(worker, leasesOf(snapshot.leases, worker.key), isGone)
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
    return [problem('lease-blocked', key, sentence)]
  }
  if (state === 'moving' && holder?.id !== target?.id && namedMs > handoverMs) {
    const sentence = `Node "${holder?.name}" was asked for the lease "${key}" at ${second(namedAtMs)}, and has not handed it over.`
    return [problem('lease-moving', key, sentence)]
  }
  return []
}

/**
 * Sentences contain times rather than durations: one that changes every second would be sent again at every reading.
 */
function second(atMs: number): string {
  return `${new Date(atMs).toISOString().slice(0, 19).replace('T', ' ')} UTC`
}
