/**
 * Tools for tests: a world in which the failover of a worker takes milliseconds, and the promises of a store as
 * sentences that can be run.
 *
 * @example import { TestWorld } from 'fastify-worker-coordination/testing'
 */

export type {
  Ahead,
  Beat,
  Capabilities,
  Change,
  Changed,
  Claim,
  EventQuery,
  EventRow,
  HeartbeatAnswer,
  LeaseFilter,
  LeaseRow,
  Load,
  LockedLease,
  Look,
  MetaRow,
  Neighbour,
  NewEvent,
  NewNode,
  NodePatch,
  NodeRow,
  OwnView,
  Retention,
  ServerFacts,
  SessionKey,
  Snapshot,
  Store,
  WorkerRow,
} from '../core/store.js'
export type { Clock, Reading, Timer } from '../core/time/clock.js'
export type {
  ConformanceCase,
  ConformanceHarness,
  ConformanceUser,
  FragileStore,
  HarnessCapabilities,
  StoreOptions,
} from './conformance/harness.js'
export { storeConformance } from './conformance.js'
export { ManualClock } from './manual-clock.js'
export { MemoryDatabase, type MemoryDatabaseOptions, type MemoryStoreOptions } from './memory-store.js'
export { type TestNode, type TestNodeOptions, TestWorld, type TestWorldOptions } from './test-world.js'
