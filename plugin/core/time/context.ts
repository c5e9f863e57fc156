/**
 * The async context that work belongs to, as `AsyncLocalStorage` sees it.
 *
 * A call into the engine can set work in motion that does not belong to the caller. For example, when a lease is
 * released within a request, a turn begins, and that turn may start a pass of some worker. Unless the engine restores
 * the right context, that pass would see the request's transaction, user and trace for as long as the lease lasts, and
 * would keep the request in memory.
 */
import { AsyncLocalStorage } from 'node:async_hooks'

/** Calls `work` in the captured context. */
export type Context = <T>(work: () => T) => T

/** Captures the context in which this function is called. */
export function presentContext(): Context {
  return AsyncLocalStorage.snapshot()
}
