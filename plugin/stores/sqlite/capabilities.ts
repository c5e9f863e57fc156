/** What SQLite can do and other databases cannot, and the other way round. */
import type { Capabilities } from '../../core/store.js'

/** Hints come from watching the file (see `hints.ts`), or directly within a process. */
export const capabilities: Capabilities = { push: true }
