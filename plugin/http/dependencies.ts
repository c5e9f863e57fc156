/** What the groups of routes are made of; `routes.ts` puts it together. */
import type { Coordinator } from '../core/coordinator.js'
import type { Guard } from './guard.js'
import type { SnapshotSource } from './snapshot.js'

export interface Dependencies {
  readonly coordinator: Coordinator
  /** Begins each operationId, so that two registrations in one application stay apart. */
  readonly name: string
  readonly source: SnapshotSource
  readonly guard: Guard
  readonly limits: Limits
}

/** How much one process serves. */
export interface Limits {
  /** Open streams altogether, and of one actor. */
  readonly streams: number
  readonly streamsPerActor: number
  /** Interventions of one actor: so many at once, and so many a minute in the long run. */
  readonly writesAtOnce: number
  readonly writesPerMinute: number
}

export const usualLimits: Limits = { streams: 50, streamsPerActor: 4, writesAtOnce: 30, writesPerMinute: 30 }
