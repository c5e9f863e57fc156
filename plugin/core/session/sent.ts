/**
 * What this node has asked for in changes of one session. The answer to a change may be lost, so a view is judged by
 * what was sent and not by what was answered.
 */
import type { Wishes } from '../changes/wishes.js'
import type { OwnView } from '../store.js'
import { termOf } from './holdings.js'

export class Sent {
  readonly #attempts = new Map<number, string>()
  readonly #renounced = new Set<string>()
  #lastDone = 0

  /** Operation numbers of the changes that asked for leases, with the server they were made under. */
  get attempts(): ReadonlyMap<number, string> {
    return this.#attempts
  }

  /** The terms whose release was sent. */
  get renounced(): ReadonlySet<string> {
    return this.#renounced
  }

  /** Notes the wishes of a change that is about to be sent to this server, and which leases were this node's before. */
  sending(operation: number, wishes: Wishes, server: string, view: OwnView | undefined): void {
    this.#noteAttempt(operation, wishes, server)
    this.#noteRenounced(wishes, view)
  }

  /** Notes that a change has succeeded. Its view is compared next. */
  done(operation: number): void {
    this.#lastDone = operation
  }

  /**
   * A claim is recognised by its operation number and its server. Once a later change has succeeded and its view was
   * compared, an earlier one can no longer be carried out.
   */
  #noteAttempt(operation: number, { claim, acquire }: Wishes, server: string): void {
    for (const earlier of this.#attempts.keys()) if (earlier < this.#lastDone) this.#attempts.delete(earlier)
    if (claim.length + acquire.length > 0) this.#attempts.set(operation, server)
  }

  /**
   * A release without an answer may still be carried out while this node makes no other change. Until its row is gone,
   * no work may begin under its token, even if trust has come back.
   */
  #noteRenounced({ release }: Wishes, view: OwnView | undefined): void {
    const current = new Set(view?.leases.map(termOf))
    for (const term of this.#renounced) if (!current.has(term)) this.#renounced.delete(term)
    for (const wish of release) this.#renounced.add(termOf(wish))
  }
}
