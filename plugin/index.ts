/**
 * Leader election, leases and work assignment for Fastify applications, kept in the database they already have.
 *
 * @example
 * import Fastify from 'fastify'
 * import workerCoordination from 'fastify-worker-coordination'
 *
 * const app = Fastify()
 * await app.register(workerCoordination, { database: 'sqlite:coordination.db' })
 */
export * from './coordinator.js'
export { type Access, type Action, type Actor, type Authorize, allowLoopback } from './http/guard/access.js'
export {
  type LeaderOnlyOptions,
  type LeaderOnlyReply,
  type LeaderOnlyRequest,
  leaderOnly,
} from './http/leader-only.js'
export type { MetricsRegistry } from './http/metrics/metrics.js'
export type { Security } from './http/routes.js'
export type { AutoStart, MetricsOptions, RequestLogLevel, WorkerCoordinationOptions } from './options.js'
export { workerCoordination as default } from './plugin.js'
