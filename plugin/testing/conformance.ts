/**
 * What every store promises, as sentences that can be run.
 *
 * The port in `core/store.ts` says in prose what the engine relies on. Each case here is one such sentence
 * and the proof of it, by nothing but the port itself, on a real database with real concurrent
 * connections. No test runner is assumed: whoever writes a store for another database gives a
 * `ConformanceHarness` and runs the cases under the runner they have.
 *
 *     for (const { promise, run, reasonToSkip } of storeConformance()) {
 *       test(promise, { skip: reasonToSkip(harness) ?? false }, () => run(harness))
 *     }
 *
 * Each case uses a namespace of its own and closes the stores that it opened, so all of them can share one
 * database. Races are repeated by count, and whatever hangs is given up after a minute.
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

/** All promises of the port. */
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
