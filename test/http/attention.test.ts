/** From when on something is a problem that a person should see. */
import t from 'tap'
import type { Status } from '../../plugin/core/status.js'
import { beforeAnyChange, type NodeRow } from '../../plugin/core/store.js'
import { resolveTiming } from '../../plugin/core/timing.js'
import { problemsIn } from '../../plugin/http/attention.js'
import { join, nodeOf } from '../../plugin/testing/conformance/world.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'

const own = { state: 'running', node: 'b', trusted: true, trustLeftMs: 1, held: [], unsettled: [] } as const

t.test('a node is silent once its heartbeat has stood still for longer than its ttl', async (t) => {
  const store = new MemoryDatabase().open({ namespace: 'default', statementTimeoutMs: 30_000 })
  await join(store, ['a'], { ttlMs: 15_000 })
  const node = await nodeOf(store, 'a')
  t.same(codesOf(node, 15_000), [])
  t.same(codesOf(node, 15_001), ['node-silent'])
})

/** What there is to be said of a namespace with this node only, so long after its heartbeat. */
function codesOf(node: NodeRow, silentMs: number): string[] {
  const nowMs = node.heartbeatAtMs + silentMs
  const snapshot = { nowMs, meta: beforeAnyChange, nodes: [node], workers: [], leases: [] }
  const status = { workers: [], leases: [] } as unknown as Status
  return problemsIn(snapshot, status, { ...own, statements: 0 }, resolveTiming({})).map(({ code }) => code)
}
