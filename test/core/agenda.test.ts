/** Tests how long a node takes to compare what the rows say with what it does. */
import t from 'tap'
import { Agendas } from '../../plugin/core/session/agenda.js'
import { Holdings } from '../../plugin/core/session/holdings.js'
import type { LeaseRow } from '../../plugin/core/store.js'
import { resolveTiming } from '../../plugin/core/time/timing.js'
import { Requests } from '../../plugin/core/work/acquire.js'
import type { Runner } from '../../plugin/core/work/worker.js'
import { newLease, newWorker } from '../../plugin/testing/conformance/world.js'

const timing = resolveTiming({})
const nodes = ['me', 'b', 'c', 'd']
const ignore = () => undefined

/**
 * Compares while this node is to claim a share of each of so many workers. Returns how often it read which worker a
 * lease belongs to.
 */
function compare(count: number): { readonly claims: number; readonly reads: number } {
  let reads = 0
  const keys = Array.from({ length: count }, (_, each) => `global/w${each}`)
  const leases = keys.flatMap((worker) =>
    nodes.map((target, slot): LeaseRow => {
      const row = newLease(`${worker}#${slot}`, { slot, target })
      return Object.defineProperty(row, 'worker', {
        get: () => {
          reads += 1
          return worker
        },
      })
    }),
  )
  const holdings = new Holdings({
    ...{ acquired: ignore, assigned: ignore, released: ignore, ended: ignore, changed: ignore },
    fence: ignore,
    trusted: () => true,
  })
  const { wishes } = new Agendas(holdings, timing).draw({
    node: 'me',
    view: {
      nowMs: 0,
      serverIdentity: 'one',
      recordedIdentity: 'one',
      identitySettled: true,
      longestTtlMs: timing.ttlMs,
      state: 'active',
      newsRevision: 1,
      watchers: [],
      leases,
      workers: keys.map((key) => newWorker(key, { kind: 'coordinated', slots: nodes.length })),
      gone: new Set<string>(),
    },
    now: { monoMs: 0, bootMs: 0 },
    longestTtlMs: timing.ttlMs,
    blockWaitMs: timing.ttlMs,
    mayClaim: true,
    closing: false,
    runners: new Map(keys.map((key) => [key, {} as Runner])),
    requests: new Requests(),
    attempts: new Map(),
    renounced: new Set(),
  })
  return { claims: wishes.claim.length, reads }
}

t.test('a comparison takes no longer for each worker where a node has many', async (t) => {
  const [few, many] = [compare(40), compare(400)]
  t.same([few.claims, many.claims], [40, 400])
  t.equal(many.reads, 10 * few.reads)
})
