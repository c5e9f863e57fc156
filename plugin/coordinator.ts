/**
 * Coordination without Fastify.
 *
 * @example
 * import { createCoordinator } from 'fastify-worker-coordination/coordinator'
 *
 * await using coordinator = await createCoordinator({ database: 'postgres://…' })
 * await coordinator.start()
 */

import { type CoordinatorOptions, readCoordinatorOptions } from './coordinator-options.js'
import type { Coordinator } from './core/coordinator.js'
import { silentLog } from './core/log.js'
import { openCoordinator } from './open.js'

export type { CoordinatorOptions, TimingOptions } from './coordinator-options.js'
export type { Instruction, Move, Rebalanced, Revoked, Transferred } from './core/changes/operations.js'
export type {
  AcquireOptions,
  Coordinator,
  CoordinatorSettings,
  TryAcquireOptions,
} from './core/coordinator.js'
export {
  CoordinationError,
  type EndReason,
  type ErrorCode,
  FencedError,
  LeaseLostError,
  type Outcome,
  PendingMigrationsError,
  StoreError,
} from './core/errors.js'
export type { AboutLease, CoordinatorEvents, EventName, Listener } from './core/events.js'
export { type Identity, type IdentitySource, identityFromEnvironment } from './core/identity.js'
export type { Log, LogMethod, PassLog } from './core/log.js'
export type { Operator, RebalanceOrder, ReleaseOrder, TransferOrder } from './core/operator.js'
export type { CoordinatorState, Health } from './core/reports/health.js'
export type {
  AssignmentStatus,
  LeaseState,
  LeaseStatus,
  NodeReference,
  NodeStatus,
  Status,
  WorkerStatus,
} from './core/reports/status.js'
export type {
  EventQuery,
  EventRow,
  Kind,
  LeaseRow,
  MetaRow,
  NodeRow,
  NodeState,
  Retention,
  Scope,
  Snapshot,
  WorkerRow,
} from './core/store.js'
export type { Preset, Timing } from './core/time/timing.js'
export {
  type ClassOptions,
  GloballyCoordinatedWorker,
  type SingleClassOptions,
  SingleInstanceClusterWorker,
  SingleInstanceGlobalWorker,
} from './core/work/base-classes.js'
export type { HeldLease, Lease } from './core/work/lease.js'
export type { Schedule, ScheduleStatus } from './core/work/schedule.js'
export type {
  AroundPass,
  Assignment,
  CoordinatedContext,
  CoordinatedWorker,
  PartitionedContext,
  PartitionedWorker,
  Pass,
  PassContext,
  SingleContext,
  SingleWorker,
  WorkerDefinition,
  WorkerHandle,
  WorkerState,
} from './core/work/worker.js'
export { type Dialect, migrationSql } from './stores/shared/migrate.js'

/**
 * Connects to the database, brings its tables up to date, and returns a coordinator that has not started: register
 * workers, then call its `start()`. Nothing is left open when this fails.
 *
 * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_DRIVER_MISSING`, `WCO_STORE`, `WCO_SCHEMA_NEWER` or
 *   `WCO_SCHEMA_PENDING`, each with a sentence that says what to do; an error thrown by the application's own
 *   identity function is passed on unchanged.
 */
export async function createCoordinator(options: CoordinatorOptions): Promise<Coordinator> {
  const { log = silentLog, ...config } = await readCoordinatorOptions(options)
  return openCoordinator(config, log)
}
