/**
 * The async context that work belongs to, as `AsyncLocalStorage` sees it.
 *
 * Whoever calls the engine sets work in motion that is not theirs: the release of a lease within a request makes a turn begin,
 * and in that turn a pass of some worker. Without this, that pass would see the request's transaction, user and trace for as
 * long as the lease lasts, and keep the request in memory.
 */
import { AsyncLocalStorage } from 'node:async_hooks'

/** Calls `work` in the context that was taken. */
export type Context = <T>(work: () => T) => T

/** Takes the context in which this is called. */
export function presentContext(): Context {
  return AsyncLocalStorage.snapshot()
}
