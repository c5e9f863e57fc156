/**
 * What operators may do to a namespace, from any node they reach.
 *
 * Nothing here needs a session of this node, which may be the very one in trouble. Every order that alters something
 * states its actor and reason, which go into the audit trail in the same transaction. Without them, or with another
 * mistake, it is refused with `WCO_OPTIONS`.
 *
 * No method throws because the state is not what its caller believed. What concerns a node or a worker as a whole
 * (drain, undrain, forget, forgetWorker, pause, resume) returns a word, `'done'` when something has changed; what
 * concerns leases (release, transfer, rebalance) returns an object whose `kind` is such a word.
 */

import {
  drain,
  forget,
  forgetWorker,
  type Instruction,
  pause,
  type Rebalanced,
  type Revoked,
  rebalance,
  revoke,
  type Transferred,
  transfer,
  usualCooldownMs,
} from './changes/operations.js'
import { changeWithoutSession } from './changes/run-change.js'
import {
  checkCooldown,
  checkEventQuery,
  checkInstruction,
  checkKey,
  checkMost,
  checkNode,
  checkOrder,
  checkToken,
} from './inputs.js'
import type { Change, EventQuery, EventRow, Snapshot, Store } from './store.js'

/** How a lease is taken away; see {@link Operator.release}. */
export interface ReleaseOrder extends Instruction {
  /** Key of the lease, like `global/month-close` or `eu-1/consumer#3`. */
  readonly key: string
  /** The token of the term to end: a newer holder is not affected. */
  readonly token: number
  /**
   * Whether the next holder may begin without waiting for the old one to stop. Both may then be at work for a while,
   * and only fences and tokens keep them apart. Default false.
   */
  readonly immediate?: boolean | undefined
  /** How long the old holder should not win again while there are other candidates, in ms. Default 60 000. */
  readonly cooldownMs?: number | undefined
}

/** How a term is ended in good order; see {@link Operator.transfer}. */
export interface TransferOrder extends Instruction {
  /** Key of the lease, like `global/month-close`. */
  readonly key: string
  /** The token of the term to end: a newer holder is not affected. */
  readonly token: number
  /**
   * Session id of the node that is to have the lease next, one of the candidates. A cool-down of that node for this lease
   * ends. Not for coordinated workers. Default: the plan chooses.
   */
  readonly to?: string | null | undefined
  /**
   * How long the old holder should not win again while there are other candidates, in ms. Default 60 000; with `to` for
   * a partition 0, because partitions are shared out evenly again after it.
   */
  readonly cooldownMs?: number | undefined
}

/** How a plan is made afresh; see {@link Operator.rebalance}. */
export interface RebalanceOrder extends Instruction {
  /** Key of the worker, like `global/consumer`. */
  readonly key: string
  /** Only returns what would move. Default false. */
  readonly dryRun?: boolean | undefined
  /** Plans only if neither the worker nor any of its leases has changed since this revision. Default: in any case. */
  readonly revision?: number | undefined
}

/**
 * What operators may do to a namespace; see {@link Coordinator.operator}. Works on a coordinator that was not started,
 * too.
 *
 * Each method asks the database, and rejects with a {@link StoreError} (`WCO_STORE`) when that does not answer. The
 * request may nevertheless have been carried out, unless the error's `outcome` is `'none'`. Once the coordinator is
 * closed, each rejects with `WCO_NOT_RUNNING`.
 */
export class Operator {
  readonly #store: () => Store
  readonly #highestToken: () => number

  /**
   * @internal
   * @param store returns the store, or throws once it may not be used any more.
   * @param highestToken returns the greatest token this process has ever seen.
   */
  constructor(store: () => Store, highestToken: () => number) {
    this.#store = store
    this.#highestToken = highestToken
  }

  /**
   * Returns the whole namespace as of one instant, row by row.
   *
   * @throws {CoordinationError} `WCO_STORE`, `WCO_NOT_RUNNING`
   */
  async snapshot(): Promise<Snapshot> {
    return this.#store().snapshot()
  }

  /**
   * Returns the namespaces in this database that ever had a change, ordered by name.
   *
   * @param most how many to return at most: the first ones. Default 1 000.
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`, `WCO_NOT_RUNNING`
   */
  async namespaces(most = 1_000): Promise<string[]> {
    checkMost('operator.namespaces', 'the first argument', most)
    return this.#store().namespaces(most)
  }

  /**
   * Returns events of the audit trail: newest first or, with `after`, those after that place, oldest first.
   *
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`, `WCO_NOT_RUNNING`
   */
  async events(query: EventQuery): Promise<EventRow[]> {
    checkEventQuery('operator.events', query)
    return this.#store().events(query)
  }

  /**
   * Asks a node to hand everything over and to take nothing new, until {@link undrain}.
   *
   * @param node session id of the node.
   * @returns `unchanged` when it was already draining, `gone` when it is gone or unknown.
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`, `WCO_NOT_RUNNING`
   */
  async drain(node: string, by: Instruction): Promise<'done' | 'unchanged' | 'gone'> {
    const instruction = checkInstruction('operator.drain', by)
    checkNode('operator.drain', node)
    return this.#change((change) => drain(change, node, true, instruction))
  }

  /**
   * Reverses a {@link drain}.
   *
   * @param node session id of the node.
   * @returns `unchanged` when it was not draining, `gone` when it is gone or unknown.
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`, `WCO_NOT_RUNNING`
   */
  async undrain(node: string, by: Instruction): Promise<'done' | 'unchanged' | 'gone'> {
    const instruction = checkInstruction('operator.undrain', by)
    checkNode('operator.undrain', node)
    return this.#change((change) => drain(change, node, false, instruction))
  }

  /**
   * Removes a node that is gone from the list.
   *
   * @param node session id of the node.
   * @returns `unknown` when there is no such node, `alive` when it is not gone, `named` while a lease still names it as
   *   its holder, its target or a holder that has not acknowledged; nothing was removed then.
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`, `WCO_NOT_RUNNING`
   */
  async forget(node: string, by: Instruction): Promise<'done' | 'unknown' | 'alive' | 'named'> {
    const instruction = checkInstruction('operator.forget', by)
    checkNode('operator.forget', node)
    return this.#change((change) => forget(change, node, instruction))
  }

  /**
   * Removes a worker that no program registers any more, with its leases and the last time of its schedule. If a node
   * registers it again, it begins as a new worker; its tokens still grow.
   *
   * @param key of the worker, like `global/month-close`.
   * @returns `unknown` when there is no such worker, `registered` while a node that is not gone has registered it,
   *   `named` while such a node still holds one of its leases, or a transaction fences one; nothing was removed then.
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`, `WCO_NOT_RUNNING`
   */
  async forgetWorker(key: string, by: Instruction): Promise<'done' | 'unknown' | 'registered' | 'named'> {
    const instruction = checkInstruction('operator.forgetWorker', by)
    checkKey('operator.forgetWorker', key)
    return this.#change((change) => forgetWorker(change, key, instruction))
  }

  /**
   * Stops a worker on all nodes until it is resumed. Survives restarts.
   *
   * @param key of the worker, like `global/month-close`.
   * @returns `unchanged` when it was already paused, `unknown` when there is no such worker.
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`, `WCO_NOT_RUNNING`
   */
  async pause(key: string, by: Instruction): Promise<'done' | 'unchanged' | 'unknown'> {
    const instruction = checkInstruction('operator.pause', by)
    checkKey('operator.pause', key)
    return this.#change((change) => pause(change, key, true, instruction))
  }

  /**
   * Reverses a {@link pause}.
   *
   * @param key of the worker, like `global/month-close`.
   * @returns `unchanged` when it was not paused, `unknown` when there is no such worker.
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`, `WCO_NOT_RUNNING`
   */
  async resume(key: string, by: Instruction): Promise<'done' | 'unchanged' | 'unknown'> {
    const instruction = checkInstruction('operator.resume', by)
    checkKey('operator.resume', key)
    return this.#change((change) => pause(change, key, false, instruction))
  }

  /**
   * Takes a lease away from its holder by force, if the holder still has the given token.
   *
   * Unless `immediate`, the next holder begins when the old one has stopped, is gone, or can no longer trust. A release
   * that still waits stops waiting when it is repeated with `immediate`.
   *
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`, `WCO_NOT_RUNNING`
   */
  async release(order: ReleaseOrder): Promise<Revoked> {
    checkOrder('operator.release', order, ['token', 'immediate', 'cooldownMs'])
    checkToken('operator.release', order.token)
    const { cooldownMs = usualCooldownMs, immediate = false } = order
    checkCooldown('operator.release', cooldownMs)
    return this.#change((change) => revoke(change, { ...order, cooldownMs, immediate }))
  }

  /**
   * Asks the holder to end its term, if it still has the given token.
   *
   * Its signal aborts, and once its pass has settled the next holder begins: `to`, if given.
   *
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`, `WCO_NOT_RUNNING`
   */
  async transfer(order: TransferOrder): Promise<Transferred> {
    checkOrder('operator.transfer', order, ['token', 'to', 'cooldownMs'])
    checkToken('operator.transfer', order.token)
    const { cooldownMs = null, to = null } = order
    if (cooldownMs !== null) checkCooldown('operator.transfer', cooldownMs)
    return this.#change((change) => transfer(change, { ...order, cooldownMs, to }))
  }

  /**
   * Plans the leases of a worker afresh.
   *
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`, `WCO_NOT_RUNNING`
   */
  async rebalance(order: RebalanceOrder): Promise<Rebalanced> {
    checkOrder('operator.rebalance', order, ['dryRun', 'revision'])
    const { key, dryRun = false, revision = null, ...by } = order
    return this.#change((change) => rebalance(change, key, { ...by, dryRun, revision }))
  }

  async #change<T>(work: (change: Change) => Promise<T>): Promise<T> {
    return changeWithoutSession(this.#store(), this.#highestToken, work)
  }
}
