/**
 * What people may do to a namespace, from whichever node they reach.
 *
 * Nothing here needs a session of this node, which may be the very one in trouble. Everything that alters
 * something names who asked and why, and that goes into the audit trail in the same transaction; without them, or where
 * something else of an order is wrong, it is refused with `WCO_OPTIONS`.
 *
 * None throws because things are otherwise than its caller believed. What concerns a node or a worker as a whole (drain, undrain,
 * forget, pause, resume) answers a word, `'done'` when something has changed; what concerns leases (release, transfer,
 * rebalance) answers an object, whose `kind` is that word.
 */

import {
  drain,
  forget,
  type Instruction,
  pause,
  type Rebalanced,
  type Revoked,
  rebalance,
  revoke,
  type Transferred,
  transfer,
} from './changes/operations.js'
import { changeWithoutSession } from './changes/order.js'
import { checkCooldown, checkInstruction, checkKey, checkNode, checkOrder, checkToken } from './inputs.js'
import type { Change, EventQuery, EventRow, Snapshot, Store } from './store.js'

/** How a lease is taken away; see {@link Operator.release}. */
export interface ReleaseOrder extends Instruction {
  /** Key of the lease, like `global/month-close` or `eu-1/consumer#3`. */
  readonly key: string
  /** The token it is about: a newer holder is not touched. */
  readonly token: number
  /**
   * Whether the next holder may begin without waiting for the old one to have stopped. Both may be at work for a while then, and
   * only fences and tokens keep them apart. Default false.
   */
  readonly immediate?: boolean | undefined
  /** How long the old holder should not win again while there are other candidates, in ms. Default 60 000. */
  readonly cooldownMs?: number | undefined
}

/** How a term is ended in good order; see {@link Operator.transfer}. */
export interface TransferOrder extends Instruction {
  /** Key of the lease, like `global/month-close`. */
  readonly key: string
  /** The token it is about: a newer holder is not touched. */
  readonly token: number
  /**
   * Session id of the node that is to have it next, one of the candidates. Not for coordinated workers. Default: the plan
   * chooses.
   */
  readonly to?: string | null | undefined
  /** How long the old holder should not win again while there are other candidates, in ms. Default 60 000. */
  readonly cooldownMs?: number | undefined
}

/** How a plan is made afresh; see {@link Operator.rebalance}. */
export interface RebalanceOrder extends Instruction {
  /** Key of the worker, like `global/consumer`. */
  readonly key: string
  /** Only answers what would move. Default false. */
  readonly dryRun?: boolean | undefined
  /** Only if neither the worker nor any of its leases has changed since this revision. Default: whatever has. */
  readonly revision?: number | undefined
}

/** After a release by force or a transfer the old holder does not win again for so long, while others stand. */
const defaultCooldownMs = 60_000

/**
 * What people may do to a namespace; see {@link Coordinator.operator}. Works on a coordinator that has not been started, too.
 *
 * Each method asks the database, and rejects with a {@link StoreError} (`WCO_STORE`) when that does not answer: what was asked for
 * may have been done all the same, unless its `outcome` is `'none'`.
 */
export class Operator {
  readonly #store: Store
  readonly #highestToken: () => number

  /**
   * @internal
   * @param highestToken the greatest token this process has ever seen.
   */
  constructor(store: Store, highestToken: () => number) {
    this.#store = store
    this.#highestToken = highestToken
  }

  /**
   * The whole namespace as of one instant, row by row.
   *
   * @throws {StoreError} `WCO_STORE`
   */
  snapshot(): Promise<Snapshot> {
    return this.#store.snapshot()
  }

  /**
   * The namespaces in this database in which anything was ever changed, ordered by name.
   *
   * @param most how many of them at most: the first. Default 1 000.
   * @throws {StoreError} `WCO_STORE`
   */
  namespaces(most = 1_000): Promise<string[]> {
    return this.#store.namespaces(most)
  }

  /**
   * The audit trail: newest first, or, with `after`, what came later, oldest first.
   *
   * @throws {StoreError} `WCO_STORE`
   */
  events(query: EventQuery): Promise<EventRow[]> {
    return this.#store.events(query)
  }

  /**
   * Asks a node to hand everything over and to take nothing new, until {@link undrain}.
   *
   * @param node session id of the node.
   * @returns `unchanged` when it was draining already, `gone` when it is gone or unknown.
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`
   */
  async drain(node: string, by: Instruction): Promise<'done' | 'unchanged' | 'gone'> {
    checkInstruction('operator.drain', by)
    checkNode('operator.drain', node)
    return this.#change((change) => drain(change, node, true, by))
  }

  /**
   * Takes a {@link drain} back.
   *
   * @param node session id of the node.
   * @returns `unchanged` when it was not draining, `gone` when it is gone or unknown.
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`
   */
  async undrain(node: string, by: Instruction): Promise<'done' | 'unchanged' | 'gone'> {
    checkInstruction('operator.undrain', by)
    checkNode('operator.undrain', node)
    return this.#change((change) => drain(change, node, false, by))
  }

  /**
   * Removes a node that is gone from the list.
   *
   * @param node session id of the node.
   * @returns `unknown` when there is no such node, `alive` when it is not gone, `named` while a lease still names it as its holder,
   *   its target or a holder that has not acknowledged; nothing was removed then.
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`
   */
  async forget(node: string, by: Instruction): Promise<'done' | 'unknown' | 'alive' | 'named'> {
    checkInstruction('operator.forget', by)
    checkNode('operator.forget', node)
    return this.#change((change) => forget(change, node, by))
  }

  /**
   * Nobody runs a worker until it is resumed; survives restarts.
   *
   * @param key of the worker, like `global/month-close`.
   * @returns `unchanged` when it was paused already, `unknown` when there is no such worker.
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`
   */
  async pause(key: string, by: Instruction): Promise<'done' | 'unchanged' | 'unknown'> {
    checkInstruction('operator.pause', by)
    checkKey('operator.pause', key)
    return this.#change((change) => pause(change, key, true, by))
  }

  /**
   * Takes a {@link pause} back.
   *
   * @param key of the worker, like `global/month-close`.
   * @returns `unchanged` when it was not paused, `unknown` when there is no such worker.
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`
   */
  async resume(key: string, by: Instruction): Promise<'done' | 'unchanged' | 'unknown'> {
    checkInstruction('operator.resume', by)
    checkKey('operator.resume', key)
    return this.#change((change) => pause(change, key, false, by))
  }

  /**
   * Takes a lease away from its holder by force, if it still has the given token. Unless `immediate` the next holder begins when
   * the old one has stopped, is gone, or cannot trust any more. A release that still waits ends its wait when it is repeated with
   * `immediate`.
   *
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`
   */
  async release(order: ReleaseOrder): Promise<Revoked> {
    checkOrder('operator.release', order)
    checkToken('operator.release', order.token)
    const { cooldownMs = defaultCooldownMs, immediate = false } = order
    checkCooldown('operator.release', cooldownMs)
    return this.#change((change) => revoke(change, { ...order, cooldownMs, immediate }))
  }

  /**
   * Asks the holder to end its term, if it still has the given token: its signal aborts, and once its pass has
   * settled the next one begins, `to` if it is given.
   *
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`
   */
  async transfer(order: TransferOrder): Promise<Transferred> {
    checkOrder('operator.transfer', order)
    checkToken('operator.transfer', order.token)
    const { cooldownMs = defaultCooldownMs, to = null } = order
    checkCooldown('operator.transfer', cooldownMs)
    return this.#change((change) => transfer(change, { ...order, cooldownMs, to }))
  }

  /**
   * Plans the leases of a worker afresh.
   *
   * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_STORE`
   */
  async rebalance(order: RebalanceOrder): Promise<Rebalanced> {
    checkOrder('operator.rebalance', order)
    const { key, dryRun = false, revision = null, ...by } = order
    return this.#change((change) => rebalance(change, key, { ...by, dryRun, revision }))
  }

  #change<T>(work: (change: Change) => Promise<T>): Promise<T> {
    return changeWithoutSession(this.#store, this.#highestToken, work)
  }
}
