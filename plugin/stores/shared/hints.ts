/**
 * Hints within a process, for databases that push nothing to a client: other processes poll for news; those who share
 * a store need not wait for that.
 */

/** Those in this process who are waiting for hints. */
export class Hints {
  readonly #wakers = new Map<string, Set<() => void>>()

  /** Calls `wake` at each hint for `node`, until the answered function is called. */
  listen(node: string, wake: () => void): () => void {
    // A function of its own, so that the same one may be given twice.
    const waker = (): void => wake()
    const wakers = this.#wakers.get(node) ?? new Set()
    this.#wakers.set(node, wakers.add(waker))
    return () => {
      wakers.delete(waker)
      if (wakers.size === 0 && this.#wakers.get(node) === wakers) this.#wakers.delete(node)
    }
  }

  /** A change made here has had news for these nodes. */
  told(nodes: Iterable<string>): void {
    for (const node of nodes) {
      for (const waker of [...(this.#wakers.get(node) ?? [])]) waker()
    }
  }
}
