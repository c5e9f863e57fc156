/**
 * What follows from the declaration of a worker: its row and the rows of its leases, and whether other nodes contradict
 * it.
 */
import { CoordinationError } from '../errors.js'
import { slotKey } from '../names.js'
import type { Kind, LeaseRow, LockedLease, NodeRow, Scope, WorkerRow } from '../store.js'
import type { Draft } from './draft.js'
import { freshLease } from './rows.js'

/** A worker as a node registers it. */
export interface Declaration {
  readonly key: string
  readonly name: string
  readonly kind: Kind
  readonly scope: Scope
  readonly cluster: string | null
  /** Number of partitions; null for the other kinds, which have one lease, or one for each candidate. */
  readonly partitions: number | null
  readonly handoverTimeoutMs: number
  /** See {@link WorkerRow.schedule}. */
  readonly schedule: string | null
}

/**
 * A worker whose last registration has a different schedule, while other nodes are candidates for it. This is normal
 * during a deployment that changes the schedule.
 */
export interface OtherSchedule {
  readonly worker: string
  /** The schedule of the last registration; see {@link WorkerRow.schedule}. */
  readonly registered: string | null
  readonly ours: string | null
}

/** What became of declarations. */
interface Declared {
  /** Keys of the workers that were written, or were as declared already. */
  readonly workers: readonly string[]
  /** The workers of which nothing was written, because other nodes are candidates for a different one. */
  readonly refused: readonly Contradiction[]
  readonly otherSchedules: readonly OtherSchedule[]
}

/**
 * Writes the declarations of workers. Nothing is written of those that are refused, nor of those for which a lease
 * would have to change that a user's transaction fences.
 */
export async function declare(
  draft: Draft,
  node: string,
  declarations: readonly Declaration[],
): Promise<Declared> {
  const workers: string[] = []
  const refused: Contradiction[] = []
  const otherSchedules: OtherSchedule[] = []
  const keys = declarations.map((declaration) => declaration.key)
  await draft.loadWorkers(keys)
  await draft.load({ keys, workers: keys })
  await loadLeft(draft, declarations)
  for (const declaration of declarations) {
    const known = draft.worker(declaration.key)
    if (known !== undefined) {
      const contradiction = await contradictionOf(draft, node, known, declaration)
      if (contradiction !== undefined) {
        refused.push(contradiction)
        continue
      }
      otherSchedules.push(...(await otherSchedule(draft, node, known, declaration)))
    }
    const { missing, taken, surplus } = layout(draft, declaration)
    if ([...taken, ...surplus].some(({ fenced }) => fenced)) continue
    workers.push(declaration.key)
    if (await hasLostRows(draft, known, declaration)) draft.doubt(declaration.key)
    putDeclared(draft, known, declaration, [...draft.leasesOf(declaration.key), ...taken])
    // Who leads goes by its own schedule, and then writes that one.
    if (known !== undefined && known.schedule !== declaration.schedule)
      draft.concern(draft.leasesOf(known.key).map(({ holder }) => holder))
    for (const lease of missing) draft.add(lease)
    for (const { key } of taken) draft.edit(key, { worker: declaration.key, waiters: [] })
    for (const { key } of surplus) draft.edit(key, { worker: null, target: null, targetAtMs: null })
  }
  return { workers, refused, otherSchedules }
}

/**
 * Whether somebody has deleted the row of a worker that nodes have registered, this one or others, or rows of its leases.
 * Those of shares are missed when they are planned, which follows.
 */
async function hasLostRows(
  draft: Draft,
  known: WorkerRow | undefined,
  declared: Declaration,
): Promise<boolean> {
  const arePlanned = known?.kind === 'coordinated' && declared.kind === 'coordinated'
  if (known !== undefined) return !arePlanned && draft.lacksLeases(known)
  return (await draft.nodesWith(declared.key)).length > 0
}

async function contradictionOf(
  draft: Draft,
  node: string,
  known: WorkerRow,
  declared: Declaration,
): Promise<Contradiction | undefined> {
  if (isSameLayout(known, declared)) return undefined
  const others = await othersStandingFor(draft, node, known.key)
  if (others.length === 0) return undefined
  const { nowMs } = draft.change
  const leftMs = Math.max(...others.map((other) => other.ttlMs - Math.abs(nowMs - other.heartbeatAtMs)))
  return new Contradiction(known, declared, others, leftMs)
}

/** Other nodes have registered a worker as another kind, or with another number of partitions. */
export class Contradiction extends CoordinationError {
  /** Key of the worker. */
  readonly worker: string
  /**
   * Whether none of those nodes has been heard of for its ttl, by the database's clock: they have probably died, and
   * where all nodes have, nobody is there to bury them.
   */
  readonly bySilent: boolean

  /** @param leftMs how long until none of the nodes has been heard of for its ttl. */
  constructor(known: WorkerRow, declared: Declaration, others: readonly NodeRow[], leftMs: number) {
    const is = known.kind === 'partitioned' ? `partitioned with ${known.slots} partitions` : known.kind
    const wants =
      declared.partitions === null ? declared.kind : `${declared.kind} with ${declared.partitions} partitions`
    const bySilent = leftMs <= 0
    const advice = bySilent
      ? 'They have been silent for longer than their ttl. It is registered as soon as they are gone.'
      : 'Stop those first, or give the new one another name. If they have died, start again in ' +
        `${Math.ceil(leftMs / 1_000)} s.`
    super(
      'WCO_WORKER_CONFLICT',
      `The worker "${known.key}" is registered here as ${wants}, but as ${is} by ${others.length} other node(s), ` +
        `among them "${others[0]?.name}". ${advice}`,
    )
    this.worker = known.key
    this.bySilent = bySilent
  }
}

/** How many rows are looked for at once, because servers limit the size of a request. */
const keysAtOnce = 16_384

/**
 * Loads the rows that workers already have although they do not belong to them now, because they had another kind or
 * fewer partitions in between, or were forgotten. Their tokens still count, and so do their holders. A change has no
 * time to look for thousands of workers one after another, so it looks for all at once. How many shares a worker had is
 * not known: they have been numbered without a gap, and twice as many are looked for each time.
 */
async function loadLeft(draft: Draft, declarations: readonly Declaration[]): Promise<void> {
  const changed = declarations.filter((declared) => {
    const known = draft.worker(declared.key)
    return known === undefined || !isSameLayout(known, declared)
  })
  await loadKeys(draft, changed.flatMap(partitionsOf))
  let growing = changed.filter(({ kind }) => kind === 'coordinated').map(({ key }) => key)
  for (let first = 0, end = 1; growing.length > 0; [first, end] = [end, 2 * end + 1]) {
    const slots = Array.from({ length: end - first }, (_, index) => first + index)
    await loadKeys(
      draft,
      growing.flatMap((worker) => slots.map((slot) => slotKey(worker, slot))),
    )
    growing = growing.filter((worker) => sharesOf(draft, worker).length >= end)
  }
}

async function loadKeys(draft: Draft, keys: readonly string[]): Promise<void> {
  for (let first = 0; first < keys.length; first += keysAtOnce)
    await draft.load({ keys: keys.slice(first, first + keysAtOnce) })
}

/** Whether the leases that a worker has are those that it is declared with. */
export function isSameLayout(known: WorkerRow, { kind, partitions }: Declaration): boolean {
  return known.kind === kind && (partitions === null || partitions === known.slots)
}

function partitionsOf({ key, partitions }: Declaration): string[] {
  return Array.from({ length: partitions ?? 0 }, (_, slot) => slotKey(key, slot))
}

/** The keys of the shares that have been loaded, from the first on. */
function sharesOf(draft: Draft, worker: string): string[] {
  const keys: string[] = []
  for (let key = slotKey(worker, 0); draft.lease(key) !== undefined; key = slotKey(worker, keys.length))
    keys.push(key)
  return keys
}

/** A different schedule is reported, not refused: every deployment that changes it has both for a while. */
async function otherSchedule(
  draft: Draft,
  node: string,
  { key, schedule: registered }: WorkerRow,
  { schedule: ours }: Declaration,
): Promise<OtherSchedule[]> {
  if (registered === ours) return []
  const others = await othersStandingFor(draft, node, key)
  return others.length === 0 ? [] : [{ worker: key, registered, ours }]
}

async function othersStandingFor(draft: Draft, node: string, worker: string): Promise<NodeRow[]> {
  return (await draft.nodesWith(worker)).filter(({ id }) => id !== node)
}

/**
 * Where the worker has leases but no row any more, its generations go on from theirs: a plan of a lower one would leave
 * passes of the old plan running beside those of the new one.
 */
function putDeclared(
  draft: Draft,
  known: WorkerRow | undefined,
  declared: Declaration,
  left: readonly LeaseRow[],
): void {
  const { key, name, kind, scope, cluster, partitions, handoverTimeoutMs, schedule } = declared
  const slots = partitions ?? (kind === 'single' ? 1 : known?.kind === 'coordinated' ? known.slots : 0)
  const row = {
    key,
    name,
    kind,
    scope,
    cluster,
    slots,
    handoverTimeoutMs,
    schedule,
    generation: known?.generation ?? Math.max(0, ...left.map((lease) => lease.generation)),
    paused: known?.paused ?? false,
    revision: known?.revision ?? 0,
  }
  if (known === undefined || !sameWorker(known, row)) draft.putWorker(row)
}

function sameWorker(a: WorkerRow, b: WorkerRow): boolean {
  const equal = ['kind', 'slots', 'handoverTimeoutMs', 'schedule'] as const
  return equal.every((column) => a[column] === b[column])
}

/**
 * Compares the leases that a worker needs with the existing rows. `missing` leases have no row, `taken` rows belong
 * to another worker or to none, and `surplus` rows are no longer needed.
 */
function layout(
  draft: Draft,
  declared: Declaration,
): { missing: LockedLease[]; taken: LockedLease[]; surplus: LockedLease[] } {
  const keys = {
    single: () => [declared.key],
    coordinated: () => sharesOf(draft, declared.key),
    partitioned: () => partitionsOf(declared),
  }[declared.kind]()
  const missing = keys.flatMap((key, slot) =>
    draft.lease(key) === undefined ? [freshLease(key, declared.key, slot)] : [],
  )
  const known = keys.flatMap((key) => draft.lease(key) ?? [])
  const wanted = new Set(keys)
  const isShare = (lease: LeaseRow): boolean =>
    declared.kind === 'coordinated' && lease.key === slotKey(declared.key, lease.slot)
  return {
    missing,
    taken: known.filter((lease) => lease.worker !== declared.key),
    surplus: draft.leasesOf(declared.key).filter((lease) => !wanted.has(lease.key) && !isShare(lease)),
  }
}
