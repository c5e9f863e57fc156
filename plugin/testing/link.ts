/** The link from a node to its store. It can be cut, and it can be held while the node's process is frozen. */
import { StoreError } from '../core/errors.js'
import type {
  Ahead,
  Beat,
  Capabilities,
  Change,
  Changed,
  Claim,
  EventQuery,
  EventRow,
  HeartbeatAnswer,
  LeaseRow,
  Look,
  Neighbour,
  OwnView,
  Retention,
  SessionKey,
  Snapshot,
  Store,
} from '../core/store.js'
import { type Deferred, deferred } from '../core/time/loop.js'

export class Link implements Store {
  readonly #store: Store
  #isCut = false
  #held: Deferred<void> | undefined

  constructor(store: Store) {
    this.#store = store
  }

  /** Refuses every verb from now on. */
  cut(): void {
    this.#isCut = true
  }

  mend(): void {
    this.#isCut = false
  }

  /** Makes every verb wait, and lets no hint through. */
  hold(): void {
    this.#held ??= deferred()
  }

  letGo(): void {
    this.#held?.resolve()
    this.#held = undefined
  }

  get dialect(): string {
    return this.#store.dialect
  }

  get capabilities(): Capabilities {
    return this.#store.capabilities
  }

  get statements(): number {
    return this.#store.statements
  }

  heartbeat(node: string, beat: number): Promise<HeartbeatAnswer | undefined> {
    return this.#through((store) => store.heartbeat(node, beat))
  }

  view(node: string): Promise<OwnView | undefined> {
    return this.#through((store) => store.view(node))
  }

  news(node: string): Promise<number | undefined> {
    return this.#through((store) => store.news(node))
  }

  look(): Promise<Look> {
    return this.#through((store) => store.look())
  }

  beats(after: string, most: number): Promise<Beat[]> {
    return this.#through((store) => store.beats(after, most))
  }

  neighbours(machine: string): Promise<Neighbour[]> {
    return this.#through((store) => store.neighbours(machine))
  }

  snapshot(): Promise<Snapshot> {
    return this.#through((store) => store.snapshot())
  }

  leasesAfter(after: string, most: number): Promise<LeaseRow[]> {
    return this.#through((store) => store.leasesAfter(after, most))
  }

  namespaces(most: number): Promise<string[]> {
    return this.#through((store) => store.namespaces(most))
  }

  events(query: EventQuery): Promise<EventRow[]> {
    return this.#through((store) => store.events(query))
  }

  change<T>(
    session: SessionKey | undefined,
    work: (change: Change) => Promise<T>,
    ahead?: Ahead,
  ): Promise<Changed<T>> {
    return this.#through((store) => store.change(session, work, ahead))
  }

  prune(retention: Retention): Promise<boolean> {
    return this.#through((store) => store.prune(retention))
  }

  listen(node: string, wake: () => void): () => void {
    return this.#store.listen(node, () => {
      if (!this.#isCut && this.#held === undefined) wake()
    })
  }

  /** A fence uses the connection of the user's transaction, and not this link. */
  fence(transaction: unknown, claim: Claim): PromiseLike<void> | void {
    return this.#store.fence(transaction, claim)
  }

  close(): Promise<void> {
    return this.#store.close()
  }

  async #through<T>(verb: (store: Store) => Promise<T>): Promise<T> {
    await this.#held?.promise
    if (this.#isCut) throw new StoreError('This node is cut off from its database.', 'none')
    const answer = await verb(this.#store)
    await this.#held?.promise
    if (this.#isCut) throw new StoreError('This node was cut off before the answer came.', 'unknown')
    return answer
  }
}
