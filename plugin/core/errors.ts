/**
 * Every error that a user can meet: class, code, sentence.
 *
 * Codes are part of the public interface and never change their meaning; sentences may be improved. That a lease is
 * held elsewhere is a result and not an error, so it is not here.
 */

/** Codes of {@link CoordinationError}s. */
export type ErrorCode =
  /** An option is missing, wrong, unknown, or does not fit with another. */
  | 'WCO_OPTIONS'
  /** A name cannot be used as the name of a node, cluster, worker or lease. */
  | 'WCO_NAME'
  /** The database cannot be reached, or did not answer in time. */
  | 'WCO_STORE'
  /** The driver for this database is not installed. */
  | 'WCO_DRIVER_MISSING'
  /** The database's schema is newer than this version of the library. */
  | 'WCO_SCHEMA_NEWER'
  /** Migrations are pending, and must not or cannot be run. */
  | 'WCO_SCHEMA_PENDING'
  /** The same worker is registered twice, or differently by another node. */
  | 'WCO_WORKER_CONFLICT'
  /** `acquire` did not get the lease within its `timeoutMs`. */
  | 'WCO_ACQUIRE_TIMEOUT'
  /** The lease is no longer held here. */
  | 'WCO_LEASE_LOST'
  /** A fence found that the lease has been lost. */
  | 'WCO_FENCED'
  /** A fence was not given an open transaction of the coordinator's database. */
  | 'WCO_FENCE_TARGET'
  /** The coordinator has not been started, is closing, or is closed. */
  | 'WCO_NOT_RUNNING'
  /** The coordinator's decorator is already taken in this Fastify instance. */
  | 'WCO_DECORATOR_TAKEN'

/**
 * The base of all errors that this library throws, except for a `RangeError` when a fencing token would exceed the safe
 * integers.
 */
export class CoordinationError extends Error {
  override readonly name: string = 'CoordinationError'

  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}

/**
 * What is known about a request that failed: certainly nothing happened (`none`), or something may have (`unknown`).
 */
export type Outcome = 'none' | 'unknown'

/** The database is unavailable, too slow, or refused a request. */
export class StoreError extends CoordinationError {
  override readonly name = 'StoreError'

  constructor(
    message: string,
    readonly outcome: Outcome,
    options?: ErrorOptions,
  ) {
    super('WCO_STORE', message, options)
  }
}

/** The tables are older than this version of the library needs, and the missing migrations have not been run. */
export class PendingMigrationsError extends CoordinationError {
  override readonly name = 'PendingMigrationsError'

  constructor(
    /** The names of the migrations that are pending, oldest first. */
    readonly pending: readonly string[],
    message: string,
    options?: ErrorOptions,
  ) {
    super('WCO_SCHEMA_PENDING', message, options)
  }
}

/** A fence found that its lease has been lost: the transaction must not commit. */
export class FencedError extends CoordinationError {
  override readonly name = 'FencedError'

  constructor(
    readonly lease: string,
    readonly token: number,
    detail = 'it has been released, revoked or taken over',
  ) {
    super(
      'WCO_FENCED',
      `The lease "${lease}" is no longer held with token ${token}: ${detail}. Roll this transaction back.`,
    )
  }
}

/** Why the signal of a pass or lease aborted. */
export type EndReason =
  /** The trust window ended without a good heartbeat: the database was unavailable, or this process stood still. */
  | 'trust-expired'
  /**
   * The session was buried, or the row does not name this node any more: another node may hold the lease. Also after an
   * operator's `immediate` release by force, which frees the row at once and does not tell the holder why.
   */
  | 'lost'
  /** The lease was taken away by force, and the next holder waits for this one to stop. */
  | 'revoked'
  /** The plan gave the lease to another node. */
  | 'reassigned'
  /** The holder itself gave the lease up. */
  | 'stepped-down'
  /** The holder gave the lease up because too many passes had failed in a row. */
  | 'passes-failed'
  /** The worker is paused. */
  | 'paused'
  /** The node is draining. */
  | 'draining'
  /** The coordinator is closing. */
  | 'closing'
  /** The worker was stopped in this process. */
  | 'stopped'
  /** The lease was released by its holder. */
  | 'released'

const endSentences: Record<EndReason, string> = {
  'trust-expired': 'this node could not renew its session within the trust window',
  lost: 'this node has lost it, and another one may hold it now',
  revoked: 'it was released by force',
  reassigned: 'it was given to another node',
  'stepped-down': 'this node stepped down',
  'passes-failed': 'too many of its passes failed in a row',
  paused: 'its worker was paused',
  draining: 'this node is draining',
  closing: 'this node is closing',
  stopped: 'its worker was stopped in this process',
  released: 'it was released',
}

/** The reason that a lease's signal carries, and what its `assertHeld` throws. */
export class LeaseLostError extends CoordinationError {
  override readonly name = 'LeaseLostError'

  constructor(
    readonly lease: string,
    readonly token: number,
    readonly reason: EndReason,
  ) {
    super('WCO_LEASE_LOST', `The lease "${lease}" has ended: ${endSentences[reason]}.`)
  }
}
