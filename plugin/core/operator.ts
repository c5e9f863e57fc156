/**
 * What people may do to a namespace, from whichever node they reach.
 *
 * Nothing here needs a session of this node, which may be the very one in trouble. Everything that alters
 * something names who asked and why, and that goes into the audit trail in the same transaction; without them, or where
 * something else of an order is wrong, it is refused with `WCO_OPTIONS`.
 */
import { checkCooldown, checkInstruction, checkKey, checkNode, checkOrder, checkToken } from './inputs.js'
import {
  drain,
  forget,
  type Instruction,
  pause,
  type Rebalanced,
  type Revocation,
  type Revoked,
  rebalance,
  revoke,
  type Transfer,
  type Transferred,
  transfer,
} from './operations.js'
import { changeWithoutSession } from './order.js'
import type { Change, EventQuery, EventRow, Snapshot, Store } from './store.js'

/** How a lease is taken away; see {@link Operator.release}. */
export type ReleaseOrder = Omit<Revocation, 'cooldownMs' | 'immediate'> &
  Partial<Pick<Revocation, 'cooldownMs' | 'immediate'>>

/** How a term is ended in good order; see {@link Operator.transfer}. */
export type TransferOrder = Omit<Transfer, 'cooldownMs' | 'to'> & Partial<Pick<Transfer, 'cooldownMs' | 'to'>>

/** How a plan is made afresh; see {@link Operator.rebalance}. */
export interface RebalanceOrder extends Instruction {
  readonly key: string
  /** Only answers what would move. Default false. */
  readonly dryRun?: boolean
  /** Only if no lease of the worker has changed since this revision. Default: whatever has. */
  readonly revision?: number
}

/** After a release by force or a transfer the old holder does not win again for so long, while others stand. */
const defaultCooldownMs = 60_000

export class Operator {
  readonly #store: Store
  readonly #highestToken: () => number

  /** @param highestToken the greatest token this process has ever seen. */
  constructor(store: Store, highestToken: () => number) {
    this.#store = store
    this.#highestToken = highestToken
  }

  /** The whole namespace as of one instant, row by row. */
  snapshot(): Promise<Snapshot> {
    return this.#store.snapshot()
  }

  /** The namespaces in this database, ordered by name, of thousands only the first `most`. */
  namespaces(most = 1_000): Promise<string[]> {
    return this.#store.namespaces(most)
  }

  /** The audit trail: newest first, or from a place onwards. */
  events(query: EventQuery): Promise<EventRow[]> {
    return this.#store.events(query)
  }

  /** Asks a node to hand everything over and to take nothing new. */
  async drain(node: string, by: Instruction): Promise<'done' | 'unchanged' | 'gone'> {
    checkInstruction('operator.drain', by)
    checkNode('operator.drain', node)
    return this.#change((change) => drain(change, node, true, by))
  }

  /** Takes a {@link drain} back. */
  async undrain(node: string, by: Instruction): Promise<'done' | 'unchanged' | 'gone'> {
    checkInstruction('operator.undrain', by)
    checkNode('operator.undrain', node)
    return this.#change((change) => drain(change, node, false, by))
  }

  /** Removes a node that is gone from the list, if no lease names it any more. */
  async forget(node: string, by: Instruction): Promise<'done' | 'unknown' | 'alive' | 'named'> {
    checkInstruction('operator.forget', by)
    checkNode('operator.forget', node)
    return this.#change((change) => forget(change, node, by))
  }

  /** Nobody runs a worker until it is resumed; survives restarts. The key is like `global/month-close`. */
  async pause(key: string, by: Instruction): Promise<'done' | 'unchanged' | 'unknown'> {
    checkInstruction('operator.pause', by)
    checkKey('operator.pause', key)
    return this.#change((change) => pause(change, key, true, by))
  }

  /** Takes a {@link pause} back. */
  async resume(key: string, by: Instruction): Promise<'done' | 'unchanged' | 'unknown'> {
    checkInstruction('operator.resume', by)
    checkKey('operator.resume', key)
    return this.#change((change) => pause(change, key, false, by))
  }

  /**
   * Takes a lease away from its holder by force, if it still has the given token. Unless `immediate` (default
   * false) the next holder begins when the old one has stopped, is gone, or cannot trust any more. For
   * `cooldownMs` (default 60 000) the old holder does not win again while there are other candidates. A release that
   * still waits ends its wait when it is repeated with `immediate`.
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
   * settled the next one begins, `to` if it is given. `cooldownMs` as in {@link release}.
   */
  async transfer(order: TransferOrder): Promise<Transferred> {
    checkOrder('operator.transfer', order)
    checkToken('operator.transfer', order.token)
    const { cooldownMs = defaultCooldownMs, to = null } = order
    checkCooldown('operator.transfer', cooldownMs)
    return this.#change((change) => transfer(change, { ...order, cooldownMs, to }))
  }

  /** Plans the leases of a worker afresh. */
  async rebalance(order: RebalanceOrder): Promise<Rebalanced> {
    checkOrder('operator.rebalance', order)
    const { key, dryRun = false, revision = null, ...by } = order
    return this.#change((change) => rebalance(change, key, { ...by, dryRun, revision }))
  }

  #change<T>(work: (change: Change) => Promise<T>): Promise<T> {
    return changeWithoutSession(this.#store, this.#highestToken, work)
  }
}
