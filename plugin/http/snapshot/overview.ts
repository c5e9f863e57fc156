/**
 * Builds what one page can show of a namespace of any size. Pure: from one snapshot of the rows.
 *
 * Lists are cut to what a person can take in, and items that need attention come first. Beyond that, each node and
 * partition is sent as a letter and a number, for a map: a page that polls every other second must not be sent a
 * megabyte of names.
 */

import { mayBeForgotten, type Problem, severities } from '../../core/reports/problems.js'
import { isSilent, type Pulse, pulseOf } from '../../core/reports/pulse.js'
import { rowsOf } from '../../core/reports/rows.js'
import type { LeaseState, LeaseStatus, NodeReference, NodeStatus, Status } from '../../core/reports/status.js'
import type { NodeRow, Snapshot } from '../../core/store.js'
import { mentions } from '../route.js'
import { leaseBody, nodeBody, ownership, pauseBody, scheduleBody } from './presenters.js'

/** The filter and the sizes of the lists. */
export interface OverviewQuery {
  /** Only items that contain this text. Leases also match by the name of their holder. */
  readonly q?: string | undefined
  /** Maximum number of rows of each list. Default of the first three: {@link usualRows}. */
  readonly nodes?: number | undefined
  readonly leases?: number | undefined
  readonly assignments?: number | undefined
  readonly problems?: number | undefined
}

/** Default number of rows: one look's worth. */
export const usualRows = 12

/** Default number of problems shown of each code. */
const mostAlike = 10

/** Maximum numbers of nodes and of partitions on the map. */
const mostMapped = 4_096
const mostCells = 8_192

/** Returns the lists and totals of a page. */
export function overviewOf(
  snapshot: Snapshot,
  status: Status,
  problems: readonly Problem[],
  { q, nodes = usualRows, leases = usualRows, assignments = usualRows }: OverviewQuery,
) {
  const scene = sceneOf(snapshot, status, problems)
  return {
    totals: totalsOf(status, snapshot),
    roster: rosterOf(scene),
    versions: versionsOf(status),
    nodes: nodesIn(scene, q, nodes),
    leases: leasesIn(scene, q, leases),
    assignments: assignmentsIn(scene, q, assignments),
  }
}

/**
 * Returns some problems of each code, so that many of one do not hide the others, and their numbers. Each has what is
 * needed to act on it, whatever the lists show.
 *
 * @param most shows about this many, or a few more; by default ten of each code.
 */
export function problemsShown(
  snapshot: Snapshot,
  { leases, workers }: Status,
  problems: readonly Problem[],
  most?: number,
) {
  const remedyFor = ({ code, subject }: Problem) => {
    const lease = leases.find(({ key }) => key === subject)
    const worker = workers.find(({ key }) => key === lease?.worker)
    return {
      lease: lease === undefined ? null : leaseDetail(lease, snapshot, worker),
      forgettable: code === 'worker-without-candidates' && mayBeForgotten(subject, snapshot),
    }
  }
  const codes = new Map<string, Problem[]>()
  for (const problem of problems) {
    const alike = codes.get(problem.code)
    if (alike === undefined) codes.set(problem.code, [problem])
    else alike.push(problem)
  }
  const countOf = (severity: string): number => problems.filter((each) => each.severity === severity).length
  const each = most === undefined ? mostAlike : Math.ceil(most / codes.size)
  const limit = most !== undefined && problems.length <= most ? most : each
  return {
    problems: [...codes.values()].flatMap((alike) =>
      alike.slice(0, limit).map((problem, at) => ({
        ...problem,
        ...remedyFor(problem),
        more: at === limit - 1 ? alike.length - limit : 0,
      })),
    ),
    problemCodes: [...codes].map(([code, { length }]) => ({ code, count: length })),
    problemCounts: Object.fromEntries(severities.map((severity) => [severity, countOf(severity)])),
  }
}

/** Returns totals, whatever the filter. Leases of an older plan do not count, nor do silent holders. */
function totalsOf({ leases, assignments }: Status, snapshot: Snapshot) {
  const own = leases.filter((lease) => !isSlot(lease) && !isUnwanted(lease))
  const slots = assignments.flatMap((assignment) => assignment.slots)
  return {
    leases: own.length,
    held: own.filter(({ holder }) => holder !== null && !isSilent(holder, snapshot)).length,
    slots: slots.length,
    owned: slots.filter((slot) => ownership(slot, snapshot) === 'owned').length,
  }
}

/** A lease by name that no node holds or waits for is no problem. */
function isUnwanted({ worker, state }: LeaseStatus): boolean {
  return worker === null && state === 'free'
}

/** The rows indexed by name, so that no list is searched for each item of another list. */
interface Scene {
  readonly snapshot: Snapshot
  readonly status: Status
  readonly nodeRows: ReadonlyMap<string, NodeRow>
  readonly workers: ReadonlyMap<string, Status['workers'][number]>
  /** Returns the severity of the worst problem of a subject; smaller is worse, 3 is none. */
  readonly alarm: (subject: string) => number
  readonly held: ReadonlyMap<string, Held>
  /** Number of shares or partitions of each worker that every candidate would have if all had the same. */
  readonly fair: ReadonlyMap<string, number>
  /** Index of each node in the roster. */
  readonly places: ReadonlyMap<string, number>
}

/** The leases that a node holds. */
interface Held {
  readonly leads: string[]
  slots: number
}

function sceneOf(snapshot: Snapshot, status: Status, problems: readonly Problem[]): Scene {
  const workers = new Map(status.workers.map((worker) => [worker.key, worker]))
  const severity = { error: 0, warning: 1, info: 2 }
  const alarms = new Map(
    [...problems].reverse().map((problem) => [problem.subject, severity[problem.severity]]),
  )
  return {
    snapshot,
    status,
    workers,
    nodeRows: rowsOf(snapshot).nodes,
    alarm: (subject) => alarms.get(subject) ?? 3,
    held: heldBy(status),
    fair: new Map(status.workers.map(({ key, slots, candidates }) => [key, slots / candidates.length])),
    places: new Map(mapped(status).map(({ id }, place) => [id, place])),
  }
}

function heldBy({ leases }: Status): Map<string, Held> {
  const held = new Map<string, Held>()
  for (const lease of leases) {
    if (lease.holder === null) continue
    const own = held.get(lease.holder.id) ?? { leads: [], slots: 0 }
    if (isSlot(lease)) own.slots += 1
    else own.leads.push(lease.key)
    held.set(lease.holder.id, own)
  }
  return held
}

/** Shares and partitions have a section of their own on the page. */
function isSlot({ key }: LeaseStatus): boolean {
  return key.includes('#')
}

/** Returns the nodes of the map in a stable order, so that each node keeps its place. Nodes that are gone come last. */
function mapped({ nodes }: Status): NodeStatus[] {
  const isGone = ({ state }: NodeStatus): number => Number(state === 'gone')
  return [...nodes]
    .sort((a, b) => isGone(a) - isGone(b) || (placeOf(a) < placeOf(b) ? -1 : 1))
    .slice(0, mostMapped)
}

function placeOf({ cluster, name, id }: NodeStatus): string {
  return `${cluster}/${name}/${id}`
}

function rosterOf({ status, nodeRows, snapshot }: Scene) {
  const nodes = mapped(status)
  return {
    ids: nodes.map(({ id }) => id),
    names: nodes.map(({ name }) => name),
    states: nodes.map((node) => letterOf(node, pulseOf(nodeRows.get(node.id), snapshot.nowMs))).join(''),
  }
}

function letterOf({ state }: NodeStatus, pulse: Pulse): string {
  if (state === 'gone') return 'g'
  if (pulse !== 'steady') return pulse === 'late' ? 'l' : 's'
  return state === 'draining' ? 'd' : 'a'
}

/** Returns the versions of all nodes but those that are gone, the most common first. */
function versionsOf({ nodes }: Status) {
  const counts = new Map<string, number>()
  for (const { state, version } of nodes)
    if (state !== 'gone' && version !== null) counts.set(version, (counts.get(version) ?? 0) + 1)
  const sorted = [...counts].sort(([, a], [, b]) => b - a)
  return sorted.slice(0, 10).map(([version, count]) => ({ version, count }))
}

function nodesIn(scene: Scene, q: string | undefined, limit: number) {
  const found = scene.status.nodes.filter(({ id, name, cluster }) => mentions(q, id, name, cluster))
  const ranked = inOrder(found, (node) => rankOfNode(node, scene), placeOf)
  return { items: ranked.slice(0, limit).map((node) => nodeItem(node, scene)), total: found.length }
}

/** Ranks nodes: silent, late, with an error or warning, draining, leading something, all others, gone. */
function rankOfNode({ id, state }: NodeStatus, { held, nodeRows, snapshot, alarm }: Scene): number {
  const holds = held.get(id)
  if (state === 'gone') return 9
  const pulse = pulseOf(nodeRows.get(id), snapshot.nowMs)
  if (pulse !== 'steady') return pulse === 'silent' ? 0 : 1
  if (alarm(id) < 2) return 2
  if (state === 'draining') return 3
  return holds === undefined || holds.leads.length === 0 ? 5 : 4
}

function nodeItem(node: NodeStatus, { held, fair, nodeRows, snapshot, workers }: Scene) {
  const row = nodeRows.get(node.id)
  const { leads, slots } = held.get(node.id) ?? { leads: [], slots: 0 }
  const own = node.state === 'active' ? node.workers : []
  const shared = own.filter((key) => workers.get(key)?.kind !== 'single')
  const fairSlots = shared.reduce((sum, key) => sum + (fair.get(key) ?? 0), 0)
  return {
    ...nodeBody(node),
    ttlMs: row?.ttlMs ?? 0,
    pulse: pulseOf(row, snapshot.nowMs),
    leads: leads.slice(0, mostLed),
    leadCount: leads.length,
    slotCount: slots,
    fairSlotCount: Math.round(10 * fairSlots) / 10,
  }
}

const mostLed = 20

function leasesIn(scene: Scene, q: string | undefined, limit: number) {
  const { status, alarm, nodeRows, snapshot, workers } = scene
  const found = status.leases.filter((lease) =>
    q === undefined ? !isSlot(lease) : mentions(q, lease.key, ...[lease.holder?.name ?? []].flat()),
  )
  const rank = (lease: LeaseStatus): number => {
    const { key, worker, holder } = lease
    const pulse = pulseOf(nodeRows.get(holder?.id ?? ''), snapshot.nowMs)
    const alarmed = Math.min(alarm(key), alarm(worker ?? key), pulses.indexOf(pulse))
    if (alarmed < 2) return alarmed
    return 2 + (isUnwanted(lease) ? leaseOrder.length : leaseOrder.indexOf(lease.state))
  }
  const ranked = inOrder(found, rank, ({ key }) => key.replace(/\d+$/, (digits) => digits.padStart(9, '0')))
  const items = ranked
    .slice(0, limit)
    .map((lease) => leaseDetail(lease, snapshot, workers.get(lease.worker ?? '')))
  return { items, total: found.length }
}

/** All pulses, the worst first. */
const pulses: readonly Pulse[] = ['silent', 'late', 'steady']

const leaseOrder: readonly LeaseState[] = ['unclaimed', 'blocked', 'free', 'moving', 'held']

/** Returns one lease with all details. */
export function leaseDetail(
  lease: LeaseStatus,
  snapshot: Snapshot,
  worker: Status['workers'][number] | undefined,
) {
  const holder = rowsOf(snapshot).nodes.get(lease.holder?.id ?? '')
  return {
    ...leaseBody(lease, snapshot),
    kind: worker?.kind ?? null,
    paused: worker?.paused ?? false,
    inUse: worker === undefined || lease.slot < worker.slots,
    candidateCount: worker?.candidates.length ?? lease.waiting,
    schedule: worker?.schedule ? scheduleBody(worker.schedule) : null,
    session:
      holder === undefined
        ? null
        : {
            pulse: pulseOf(holder, snapshot.nowMs),
            ttlMs: holder.ttlMs,
            heartbeatAt: new Date(holder.heartbeatAtMs).toISOString(),
          },
  }
}

function assignmentsIn(scene: Scene, q: string | undefined, limit: number) {
  const found = scene.status.assignments.filter(({ worker }) => mentions(q, worker))
  const counted = found.map((assignment) => ({
    ...assignment,
    ...countsOf(assignment.slots, scene.snapshot),
  }))
  const rank = ({ slots, unowned, moving }: (typeof counted)[number]): number =>
    unowned > 0 || slots.length === 0 ? 0 : moving > 0 ? 1 : 2
  const ranked = inOrder(counted, rank, ({ worker }) => worker).slice(0, limit)
  let cells = 0
  const items = ranked.map(({ slots, ...assignment }) => {
    cells += slots.length
    const worker = scene.workers.get(assignment.worker)
    return {
      ...assignment,
      slots: slots.length,
      paused: worker?.paused ?? false,
      pause: worker === undefined ? null : pauseBody(worker, scene.snapshot),
      candidateCount: worker?.candidates.length ?? 0,
      map: cells > mostCells ? null : mapOf(slots, scene),
    }
  })
  return { items, total: found.length }
}

type Slots = Status['assignments'][number]['slots']

/** `least` and `most` cover only nodes that own any. */
function countsOf(slots: Slots, snapshot: Snapshot) {
  const counts = { owned: 0, moving: 0, unowned: 0 }
  const byOwner = new Map<string, number>()
  for (const slot of slots) {
    const { holder } = slot
    counts[ownership(slot, snapshot)] += 1
    if (holder !== null) byOwner.set(holder.id, (byOwner.get(holder.id) ?? 0) + 1)
  }
  const each = [...byOwner.values()]
  const bounds =
    each.length === 0 ? { least: 0, most: 0 } : { least: least(each), most: -least(each.map((n) => -n)) }
  return { ...counts, owners: byOwner.size, ...bounds }
}

function least(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => Math.min(a, b))
}

/** Returns one letter for each slot, and the index of its owner in the roster. */
function mapOf(slots: Slots, { places, snapshot }: Scene) {
  const place = (node: NodeReference | null): number => (node === null ? -1 : (places.get(node.id) ?? -1))
  return {
    states: slots.map((slot) => ownership(slot, snapshot).charAt(0)).join(''),
    owners: slots.map(({ holder }) => place(holder)),
  }
}

/** Ranks are computed once per item, because sorting compares far more often. */
function inOrder<Item>(
  items: readonly Item[],
  rankOf: (item: Item) => number,
  nameOf: (item: Item) => string,
): Item[] {
  return items
    .map((item) => ({ item, rank: rankOf(item), name: nameOf(item) }))
    .sort((a, b) => a.rank - b.rank || (a.name < b.name ? -1 : 1))
    .map(({ item }) => item)
}
