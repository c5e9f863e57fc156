/** What the groups of routes are made of; `routes.ts` puts it together. */
import type { Coordinator } from '../core/coordinator.js'
import type { Guard } from './guard/guard.js'
import type { Limits } from './limits.js'
import type { SnapshotSource } from './snapshot/snapshot.js'

export interface Dependencies {
  readonly coordinator: Coordinator
  /** Begins each operationId, so that two registrations in one application stay apart. */
  readonly name: string
  readonly source: SnapshotSource
  readonly guard: Guard
  readonly limits: Limits
}
