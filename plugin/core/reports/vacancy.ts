/**
 * Since when no node holds a lease, and which nodes were passed over meanwhile, from the audit trail. Rows tell only
 * the present target.
 */
import type { EventQuery, EventRow, LeaseRow } from '../store.js'

export interface Vacancy {
  /** When the last term ended; null when it is not known, or the lease was never held. */
  readonly sinceMs: number | null
  /** Ids of the nodes that have been passed over since then, the earliest first, each once. */
  readonly passedOver: readonly string[]
}

const mostPasses = 50

/** @param events reads the audit trail; see {@link Operator.events}. */
export async function vacancyOf(
  { key, target }: Pick<LeaseRow, 'key' | 'target'>,
  events: (query: EventQuery) => Promise<readonly EventRow[]>,
): Promise<Vacancy> {
  const types = ['lease.acquired', 'lease.released', 'lease.revoked', 'lease.lost']
  const [last] = await events({ subject: key, types, limit: 1 })
  const passes =
    target === null ? [] : await events({ subject: key, types: ['target.passed-over'], limit: mostPasses })
  const since = passes.filter(({ revision }) => revision > (last?.revision ?? 0)).reverse()
  const passedOver = new Set(since.flatMap(({ node }) => node ?? []))
  return {
    sinceMs: last === undefined || last.type === 'lease.acquired' ? null : last.atMs,
    passedOver: [...passedOver],
  }
}
