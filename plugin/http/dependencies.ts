/** What every group of routes needs; `routes.ts` assembles it. */
import type { Coordinator } from '../core/coordinator.js'
import type { Guard } from './guard/guard.js'
import type { Limits } from './limits.js'
import type { SnapshotSource } from './snapshot/snapshot.js'

export interface Dependencies {
  readonly coordinator: Coordinator
  /** Prefix of each operationId. It keeps two registrations in one application apart. */
  readonly name: string
  readonly source: SnapshotSource
  readonly guard: Guard
  readonly limits: Limits
}
