/**
 * Hints within a process. For databases that push nothing to a client this is all: other processes poll for news; those who
 * share a store need not wait for that.
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

  /** The nodes for which anybody waits. */
  nodes(): string[] {
    return [...this.#wakers.keys()]
  }

  isAwaited(node: string): boolean {
    return this.#wakers.has(node)
  }

  /** There is news for these nodes. */
  told(nodes: Iterable<string>): void {
    for (const node of nodes) {
      const wakers = this.#wakers.get(node)
      for (const waker of wakers ?? []) wakeLater(waker, () => wakers?.has(waker) === true)
    }
  }
}

/**
 * Later and not at once, because it is mostly a change that tells: it has been committed, and whatever the waker does must not
 * look like its failure. So what it throws is dropped.
 */
export function wakeLater(wake: () => void, isAwaited: () => boolean): void {
  queueMicrotask(() => {
    try {
      if (isAwaited()) wake()
    } catch {
      // A hint that was lost: news comes all the same.
    }
  })
}
