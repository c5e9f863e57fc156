/**
 * How this node itself is doing, without asking the database.
 */
import type { Holding } from '../work/lease.js'

export type CoordinatorState = 'idle' | 'starting' | 'running' | 'closing' | 'closed'

export interface Health {
  readonly state: CoordinatorState
  /** Id of the session; null while this node has not joined, or has lost its session and not joined again. */
  readonly node: string | null
  /** Whether it may act on its leases right now. */
  readonly trusted: boolean
  /** For how long it may do so without another good heartbeat. */
  readonly trustLeftMs: number
  /** Keys of the leases it holds right now. */
  readonly held: readonly string[]
  /** Keys of leases that have ended here while work under them goes on. */
  readonly unsettled: readonly string[]
  /** How many statements this node has sent to its database. The number only grows. */
  readonly statements: number
}

export function healthOf(
  state: CoordinatorState,
  life: { readonly id: string; trusted(): boolean; readonly trustLeftMs: number } | undefined,
  holdings: readonly Holding[],
  statements: number,
): Health {
  const trusted = life?.trusted() ?? false
  return {
    state,
    node: life?.id ?? null,
    trusted,
    trustLeftMs: life?.trustLeftMs ?? 0,
    held: holdings.filter((holding) => holding.held).map((holding) => holding.key),
    unsettled: holdings.filter(({ unsettled }) => unsettled).map(({ key }) => key),
    statements,
  }
}
