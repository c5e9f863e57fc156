/** Times that must each be used once: those of a schedule, and those that callers claim under a name. */
import { CoordinationError, StoreError } from '../errors.js'
import type { Change } from '../store.js'
import { clockMistakeMs } from '../time/timing.js'
import { Draft } from './draft.js'
import { freshLease } from './rows.js'
import type { Held } from './rules.js'

/** The outcome of recording a time of a schedule. */
export type Fired =
  | 'written'
  /** The lease is no longer held under this token. */
  | 'lost'
  /** A user's transaction fences the lease, or the server has changed: the caller should try again. */
  | 'not-yet'

/** Records that every time of a schedule up to `firedAtMs` has been dealt with. */
export async function fire(
  change: Change,
  node: string,
  { key, token }: Held,
  firedAtMs: number,
): Promise<Fired> {
  const draft = new Draft(change)
  await draft.load({ keys: [key] })
  const lease = draft.lease(key)
  if (lease?.holder !== node || lease.token !== token) return 'lost'
  if (lease.fenced) return 'not-yet'
  draft.edit(key, { firedAtMs })
  await draft.write()
  return 'written'
}

/**
 * Claims a time if it is later than every time claimed under this name before, and returns whether it did. A time
 * far ahead of the database's clock comes from a clock that was wrong: it is refused, and ignored where one is
 * recorded. A time older than `rememberedForMs` is refused too, because the record of its claim may have been
 * deleted.
 */
export async function claimTime(
  change: Change,
  key: string,
  atMs: number,
  rememberedForMs: number,
): Promise<boolean> {
  const draft = new Draft(change)
  await draft.load({ keys: [key] })
  // Only a single worker has a lease of its own name.
  await draft.loadWorkers([key])
  const lease = draft.lease(key) ?? freshLease(key, null, 0)
  const isMistaken = (timeMs: number): boolean => timeMs > change.nowMs + clockMistakeMs
  const claimedMs = lease.firedAtMs
  if (lease.worker !== null || draft.worker(key) !== undefined) {
    throw new CoordinationError('WCO_NAME', `"${key}" is a worker's, so no times can be claimed under it.`)
  }
  if (isMistaken(atMs) || atMs < change.nowMs - rememberedForMs) return false
  if (claimedMs !== null && claimedMs >= atMs && !isMistaken(claimedMs)) return false
  if (lease.fenced) throw new StoreError(`The lease "${key}" is fenced by a transaction.`, 'none')
  draft.add({ ...lease, firedAtMs: atMs })
  await draft.write()
  return true
}
