/**
 * The async context that work belongs to, as `AsyncLocalStorage` sees it.
 *
 * A call into the engine sets work in motion that is not the caller's: the release of a lease within a request makes a
 * turn begin, and in that turn a pass of some worker. Without this file, that pass would see the request's transaction,
 * user and trace for as long as the lease lasts, and keep the request in memory.
 */
import { AsyncLocalStorage } from 'node:async_hooks'

/** Calls `work` in the captured context. */
export type Context = <T>(work: () => T) => T

/** Captures the context in which this function is called. */
export function presentContext(): Context {
  return AsyncLocalStorage.snapshot()
}
