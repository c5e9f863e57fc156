/**
 * Decides which node should hold what. Pure functions of rows that a change has read.
 *
 * A plan is made inside the change that made it necessary, by the node that makes that change. The result must
 * depend neither on the node that plans nor on the order in which the rows were read. Every choice below therefore
 * ends in a total order (rendezvous score, then id). Every plan interrupts the nodes it concerns, so each function
 * leaves alone what need not move; planning a plan again changes nothing.
 */
import { hash32, rendezvousScore, scoreOfHashes } from './hash.js'

/** A node that is a candidate for a worker. Ids are unique among candidates. */
export interface Candidate {
  readonly id: string
  /** The application's version, as the application states it; null when it states none. */
  readonly version: string | null
  /** The change in which it joined: an age that needs no clock. */
  readonly joinedRevision: number
  /** How many leases name it as target, or as holder if they have no target. */
  readonly load: number
}

/**
 * Returns the successor for one free exclusive right: the candidate with the fewest leases, so that leadership
 * spreads by itself; ties are broken by rendezvous score. Nodes in `avoid` (cooling down, or just passed over) are
 * chosen only when there are no other candidates. Undefined when there are no candidates.
 */
export function chooseSuccessor(
  key: string,
  candidates: readonly Candidate[],
  avoid?: ReadonlySet<string>,
): string | undefined {
  const preferred = preferredOf(candidates, avoid)
  const leastLoad = preferred.reduce((least, { load }) => Math.min(least, load), Number.POSITIVE_INFINITY)
  let best: string | undefined
  for (const { id, load } of preferred) {
    if (load === leastLoad && (best === undefined || inRendezvousOrder(key, id, best) < 0)) best = id
  }
  return best
}

/**
 * Returns the next target after `failed` did not claim in time: the candidate behind it in rendezvous order,
 * wrapping, so that passing over one after another gives every candidate its turn. Load plays no part here: the
 * least loaded candidate may be the very one that hangs, and would be chosen again and again.
 *
 * `failed` need not be a candidate any more. Nodes in `avoid` are chosen only when there are no others except
 * `failed`, and `failed` itself only when it is the only candidate. Undefined when there are none.
 */
export function nextAfter(
  key: string,
  failed: string,
  candidates: readonly Candidate[],
  avoid?: ReadonlySet<string>,
): string | undefined {
  const others = candidates.filter(({ id }) => id !== failed)
  const ring = rendezvousRing(key, preferredOf(others, avoid))
  const behind = ring.find((id) => inRendezvousOrder(key, failed, id) < 0)
  return behind ?? ring[0] ?? candidates[0]?.id
}

/**
 * Plans the shares of a coordinated worker: slot -> node, one slot per candidate.
 *
 * The rule changes the fewest indices: survivors whose index is below the new count keep it; survivors above it move
 * down into the lowest holes, in order; newcomers, oldest first, fill the rest.
 *
 * `changed` says whether the plan differs from `current`, including its count; if so, it needs a new generation.
 */
export function planShares(
  current: readonly (string | null)[],
  candidates: readonly Candidate[],
): { readonly shares: readonly string[]; readonly changed: boolean } {
  const kept = keptShares(current, candidates)
  const waiting = waitingForShare(current, candidates, new Set(kept))
  const shares = kept.map((id) => id ?? waiting.next().value).filter((id) => id !== undefined)
  return { shares, changed: !sameSlots(shares, current) }
}

/**
 * Plans partitions: slot -> node, as many slots as `current` has; all null when there are no candidates. Those in
 * `pending` are about to change hands anyway.
 *
 * The plan is balanced to ±1 with the fewest moves: what can stay, stays. Where that leaves a choice
 *  - of the nodes that have one partition more than the others: first those that already have one more, then nodes
 *    of the newest version (that of the candidate that joined last), then those with fewer leases elsewhere. In a
 *    rolling deployment an old node will soon be gone, and whatever it is given now would have to move a second
 *    time;
 *  - of the partitions a node gives away: first those that are pending, because giving them away interrupts nothing,
 *    then rendezvous score, which also decides which nodes get them.
 *
 * Only loose partitions are scored, and only against a few of the nodes that still want some. That keeps the
 * planning of thousands of partitions short: the change that plans holds up all others.
 */
export function planPartitions(
  current: readonly (string | null)[],
  candidates: readonly Candidate[],
  pending: ReadonlySet<number> = new Set(),
): readonly (string | null)[] {
  const seats = seatsFor(current, candidates)
  setQuotas(seats, current.length)
  const plan: (string | null)[] = current.map(() => null)
  for (const seat of seats) {
    for (const slot of slotsToKeep(seat, pending)) plan[slot] = seat.id
  }
  placeLoose(plan, seats)
  return plan
}

/** Returns the candidates that are not to be avoided; all of them when that leaves none. */
function preferredOf(candidates: readonly Candidate[], avoid?: ReadonlySet<string>): readonly Candidate[] {
  const preferred = candidates.filter(({ id }) => !avoid?.has(id))
  return preferred.length > 0 ? preferred : candidates
}

function rendezvousRing(key: string, candidates: readonly Candidate[]): string[] {
  return candidates.map(({ id }) => id).sort((a, b) => inRendezvousOrder(key, a, b))
}

/** Greatest score first. */
function inRendezvousOrder(key: string, a: string, b: string): number {
  return rendezvousScore(key, b) - rendezvousScore(key, a) || byText(a, b)
}

/** Compares by code units: `localeCompare` depends on each machine's settings. Never called with equal ids. */
function byText(a: string, b: string): number {
  return a < b ? -1 : 1
}

/** Oldest first. */
function byAge(a: Candidate, b: Candidate): number {
  return a.joinedRevision - b.joinedRevision || byText(a.id, b.id)
}

/** Returns the new shares as far as survivors keep theirs; null is a hole. A node keeps at most one share. */
function keptShares(
  current: readonly (string | null)[],
  candidates: readonly Candidate[],
): (string | null)[] {
  const unplaced = new Set(candidates.map(({ id }) => id))
  return candidates.map((_, slot) => {
    const id = current[slot] ?? null
    return id !== null && unplaced.delete(id) ? id : null
  })
}

/**
 * Returns the candidates without a share, as many as there are holes: first those that had one, by its index, then
 * newcomers by age.
 */
function waitingForShare(
  current: readonly (string | null)[],
  candidates: readonly Candidate[],
  placed: ReadonlySet<string | null>,
): Iterator<string, undefined> {
  const slots = new Map(current.map((id, slot) => [id, slot]))
  const slotOf = (id: string): number => slots.get(id) ?? current.length
  return candidates
    .filter(({ id }) => !placed.has(id))
    .sort((a, b) => slotOf(a.id) - slotOf(b.id) || byAge(a, b))
    .map(({ id }) => id)
    .values()
}

function sameSlots(a: readonly (string | null)[], b: readonly (string | null)[]): boolean {
  return a.length === b.length && a.every((id, slot) => id === b[slot])
}

/** A candidate while partitions are being planned. */
interface Seat {
  readonly id: string
  readonly hash: number
  readonly newest: boolean
  readonly load: number
  /** The partitions it has now. */
  readonly held: number[]
  /** How many partitions it should have. */
  quota: number
}

/** Returns the seats in the order of ids, so that the order in which candidates were read does not matter. */
function seatsFor(current: readonly (string | null)[], candidates: readonly Candidate[]): Seat[] {
  const newest = [...candidates].sort(byAge).at(-1)?.version
  const seats = [...candidates]
    .sort((a, b) => byText(a.id, b.id))
    .map(({ id, version, load }) => ({
      id,
      hash: hash32(id),
      newest: version === newest,
      load,
      held: [] as number[],
      quota: 0,
    }))
  const seatOf = new Map<string | null, Seat>(seats.map((seat) => [seat.id, seat]))
  for (const [slot, id] of current.entries()) seatOf.get(id)?.held.push(slot)
  return seats
}

/**
 * Gives each node the whole part of the fair share, and one more to as many nodes as the remainder says. Nodes
 * already above the fair share come first, which makes the moves fewest: each of them then gives away one partition
 * less.
 */
function setQuotas(seats: readonly Seat[], partitions: number): void {
  const fairShare = Math.floor(partitions / seats.length)
  const remainder = partitions % seats.length
  const remainderHash = hash32(String(partitions))
  const rank = ({ held, newest }: Seat): number => Number(held.length > fairShare) * 2 + Number(newest)
  const elsewhere = ({ load, held }: Seat): number => load - held.length
  const ranked = [...seats].sort(
    (a, b) =>
      rank(b) - rank(a) ||
      elsewhere(a) - elsewhere(b) ||
      scoreOfHashes(remainderHash, b.hash) - scoreOfHashes(remainderHash, a.hash),
  )
  for (const [place, seat] of ranked.entries()) seat.quota = fairShare + Number(place < remainder)
}

function slotsToKeep({ held, quota, hash }: Seat, pending: ReadonlySet<number>): readonly number[] {
  if (held.length <= quota) return held
  return held
    .map((slot) => ({ slot, last: Number(pending.has(slot)), score: scoreOfHashes(slotHash(slot), hash) }))
    .sort((a, b) => a.last - b.last || b.score - a.score)
    .slice(0, quota)
    .map(({ slot }) => slot)
}

function slotHash(slot: number): number {
  return hash32(String(slot))
}

/** A node that should have more partitions than it has. */
interface Wanting {
  readonly id: string
  readonly hash: number
  wants: number
}

/** Gives each loose partition to the node with the best score for it among those that want some. */
function placeLoose(plan: (string | null)[], seats: readonly Seat[]): void {
  const wanting: Wanting[] = seats
    .map(({ id, hash, held, quota }) => ({ id, hash, wants: quota - held.length }))
    .filter(({ wants }) => wants > 0)
  for (const [slot, id] of plan.entries()) {
    if (id !== null) continue
    const best = bestFor(slotHash(slot), wanting)
    if (best === undefined) return
    plan[slot] = best.id
    best.wants -= 1
    if (best.wants === 0) wanting.splice(wanting.indexOf(best), 1)
  }
}

/** The most nodes that are scored for a loose partition. */
const choices = 32

/**
 * The innermost loop, run for each loose partition, and therefore plain. Where there are many nodes, only a few are
 * scored; the partition itself decides which. Ties go to the first.
 */
function bestFor(keyHash: number, wanting: readonly Wanting[]): Wanting | undefined {
  const first = wanting.length > choices ? keyHash % wanting.length : 0
  const count = Math.min(choices, wanting.length)
  let best: Wanting | undefined
  let bestScore = -1
  for (let choice = 0; choice < count; choice++) {
    const seat = wanting[(first + choice) % wanting.length]
    if (seat === undefined) continue
    const score = scoreOfHashes(keyHash, seat.hash)
    if (score <= bestScore) continue
    best = seat
    bestScore = score
  }
  return best
}
