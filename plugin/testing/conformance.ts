/**
 * The promises of every store, as sentences that can be run.
 *
 * The port in `core/store.ts` says in prose what the engine relies on. Each case here is one such sentence with its
 * proof, which uses only the port itself, on a real database with real concurrent connections. No test runner is
 * assumed: the author of a store for another database supplies a `ConformanceHarness` and runs the cases under any
 * runner.
 *
 *     for (const { promise, run, reasonToSkip } of storeConformance()) {
 *       test(promise, { skip: reasonToSkip(harness) ?? false }, () => run(harness))
 *     }
 *
 * Each case uses its own namespace and closes the stores that it opened, so all cases can share one database. Races
 * are repeated a fixed number of times. A verb that never answers is left to the time limit of the runner.
 */
import { changeCases } from './conformance/changes.js'
import { fenceCases } from './conformance/fences.js'
import type { ConformanceCase } from './conformance/harness.js'
import { heartbeatCases } from './conformance/heartbeats.js'
import { hintCases } from './conformance/hints.js'
import { limitCases } from './conformance/limits.js'
import { readCases } from './conformance/reads.js'
import { rowCases } from './conformance/rows.js'
import { sessionCases } from './conformance/sessions.js'

/** Returns a case for every promise of the port. */
export function storeConformance(): readonly ConformanceCase[] {
  return [
    ...heartbeatCases,
    ...changeCases,
    ...sessionCases,
    ...rowCases,
    ...readCases,
    ...hintCases,
    ...fenceCases,
    ...limitCases,
  ]
}
