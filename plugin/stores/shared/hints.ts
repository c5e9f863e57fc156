/**
 * Hints within one process. For databases that push nothing to a client, these are the only hints: other processes
 * poll for news, but nodes that share a store need not wait for a poll.
 */

/** The listeners for hints in this process. */
export class Hints {
  readonly #wakers = new Map<string, Set<() => void>>()

  /** Calls `wake` at each hint for `node`, until the returned function is called. */
  listen(node: string, wake: () => void): () => void {
    // Wrapped in a new function, so that the same `wake` can be registered twice.
    const waker = (): void => wake()
    const wakers = this.#wakers.get(node) ?? new Set()
    this.#wakers.set(node, wakers.add(waker))
    return () => {
      wakers.delete(waker)
      if (wakers.size === 0 && this.#wakers.get(node) === wakers) this.#wakers.delete(node)
    }
  }

  /** The nodes that have a listener. */
  nodes(): string[] {
    return [...this.#wakers.keys()]
  }

  isAwaited(node: string): boolean {
    return this.#wakers.has(node)
  }

  /** Wakes the listeners of these nodes, because there is news for them. */
  told(nodes: Iterable<string>): void {
    for (const node of nodes) {
      const wakers = this.#wakers.get(node)
      for (const waker of wakers ?? []) wakeLater(waker, () => wakers?.has(waker) === true)
    }
  }
}

/**
 * Calls `wake` in a microtask. The caller is usually a change that has just committed, and a failure of `wake` must
 * not look like a failure of that change. An error that `wake` throws is therefore dropped.
 */
export function wakeLater(wake: () => void, isAwaited: () => boolean): void {
  queueMicrotask(() => {
    try {
      if (isAwaited()) wake()
    } catch {
      // The hint is lost. The news still arrives with the next heartbeat.
    }
  })
}
