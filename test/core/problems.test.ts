/** Tests from when on something is a problem that a person should see. */
import t from 'tap'
import type { CoordinatorSettings } from '../../plugin/core/coordinator.js'
import { StoreError } from '../../plugin/core/errors.js'
import { explain } from '../../plugin/core/reports/explain.js'
import { overdueAtMs } from '../../plugin/core/reports/overdue.js'
import { problemsIn } from '../../plugin/core/reports/problems.js'
import { describe, type Status } from '../../plugin/core/reports/status.js'
import { drainOf, Trail } from '../../plugin/core/reports/trail.js'
import { vacancyOf } from '../../plugin/core/reports/vacancy.js'
import {
  beforeAnyChange,
  type EventQuery,
  type EventRow,
  type LeaseRow,
  type NodeRow,
  type Snapshot,
} from '../../plugin/core/store.js'
import { deferred } from '../../plugin/core/time/loop.js'
import { resolveTiming } from '../../plugin/core/time/timing.js'
import { timetableOf, writtenSchedule } from '../../plugin/core/work/schedule.js'
import { SnapshotSource } from '../../plugin/http/snapshot/snapshot.js'
import { join, newLease, newWorker, nodeOf, saveLeases } from '../../plugin/testing/conformance/world.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'
import { World, type WorldNode } from '../support/world.js'

const own = { state: 'running', node: 'b', trusted: true, trustLeftMs: 1, held: [], unsettled: [] } as const

t.test('a node is silent once its heartbeat has stood still for longer than its ttl', async (t) => {
  const store = new MemoryDatabase().open({ namespace: 'default', statementTimeoutMs: 30_000 })
  await join(store, ['a'], { ttlMs: 15_000 })
  const node = await nodeOf(store, 'a')
  t.same(codesOf(node, 15_000), [])
  t.same(codesOf(node, 15_001), ['node-silent'])
})

t.test('a sentence stays the same while what it tells of does', async (t) => {
  const store = new MemoryDatabase().open({ namespace: 'default', statementTimeoutMs: 30_000 })
  await join(store, ['a', 'b'])
  await saveLeases(store, newLease('unclaimed', { target: 'a', targetAtMs: 1 }))
  await saveLeases(store, newLease('moving', { target: 'a', targetAtMs: 1, holder: 'b', token: 1 }))
  const snapshot = await store.snapshot()
  const told = (nowMs: number): string[] => {
    const settings = { namespace: 'default', identity: { node: 'b', cluster: 'c1' } } as CoordinatorSettings
    const status = describe({ ...snapshot, nowMs }, settings, 'b', 'running')
    const problems = problemsIn({ ...snapshot, nowMs }, status, { ...own, statements: 0 }, resolveTiming({}))
    return problems.map(({ sentence }) => sentence)
  }
  const anHourLaterMs = snapshot.nowMs + 3_600_000
  const sentences = told(anHourLaterMs)
  t.equal(sentences.length, 4, 'two nodes are silent, a lease is not claimed, and one not handed over')
  t.match(sentences.join(), /^(?=.*since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\.)(?=.*1970-01-01 00:00:00 UTC)/)
  t.same(told(anHourLaterMs + 1_000), sentences)
})

t.test('nodes that pass a lease between themselves and cannot claim it hide nothing', async (t) => {
  const world = new World(t)
  const [a, b, c] = [await world.node('a'), await world.node('b'), await world.node('c')]
  const stuck: (() => void)[] = []
  t.teardown(() => {
    for (const settle of stuck) settle()
  })
  const run = (): Promise<void> => new Promise((resolve) => void stuck.push(resolve))
  for (const { coordinator } of [a, b])
    coordinator.worker({ name: 'stuck', kind: 'single', scope: 'global', run })
  await world.start(a, b, c)
  await world.advance(1_000)
  const { operator } = c.coordinator
  const seen = async () => {
    const { snapshot, status } = await new SnapshotSource(c.coordinator).status()
    return problemsIn(snapshot, status, c.coordinator.health(), world.timing)
  }
  t.same(await seen(), [])
  for (const _ of [a, b]) {
    const [lease] = (await operator.snapshot()).leases
    const { token = 0, key = '' } = lease ?? {}
    await operator.release({ key, token, actor: 'ops', reason: 'it hangs', immediate: true })
    await world.advance(4_000)
  }
  await world.advance(60_000)
  const named = new Set<string | undefined>()
  for (let times = 0; times < 8; times++) {
    await world.advance(1_000)
    const [problem] = await seen()
    named.add((await operator.snapshot()).leases[0]?.target ?? '')
    t.match(problem, {
      code: 'lease-unclaimed',
      severity: 'error',
      subject: 'global/stuck',
      sentence:
        /"a", "b" were named in turn and did not claim it\. It has been free since [-\d]+ [\d:]+ UTC\.$/,
    })
  }
  const snapshot = await operator.snapshot()
  const vacancy = await vacancyOf(snapshot.leases[0] as LeaseRow, (query) => operator.events(query))
  const why = explain(snapshot, 'global/stuck', { timing: world.timing, revokedAtMs: null, vacancy })
  t.match(why?.reasons[0], { code: 'unclaimed', sentence: /^Nobody has held it for 1 min .*Named in turn/ })
})

t.test('a pass that takes its time over a handover is not told to be restarted', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const pass = deferred()
  t.teardown(() => pass.resolve())
  for (const { coordinator } of [a, b])
    coordinator.worker({ name: 'slow', kind: 'single', scope: 'global', run: () => pass.promise })
  await world.start(a, b)
  await world.advance(1_000)
  const codes = async () => {
    const { snapshot, status } = await new SnapshotSource(a.coordinator).status()
    return problemsIn(snapshot, status, a.coordinator.health(), world.timing).map(({ code }) => code)
  }
  const by = { actor: 'ops', reason: 'deploy' }
  await b.coordinator.operator.drain(a.coordinator.nodeId ?? '', by)
  await world.advance(5_000)
  t.same(a.coordinator.health().unsettled, ['global/slow'])
  t.same(await codes(), ['node-draining'], 'the lease is still its own')
  await world.advance(world.timing.handoverTimeoutMs)
  t.match(await codes(), ['work-unsettled'], 'it was taken away by now')
})

t.test('a pass that hangs past the next time of its schedule is told, until it ends', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const passes: (() => void)[] = []
  t.teardown(() => {
    for (const end of passes) end()
  })
  a.coordinator.worker({
    name: 'report',
    kind: 'single',
    scope: 'global',
    schedule: '* * * * *',
    run: () => new Promise<void>((resolve) => void passes.push(resolve)),
  })
  await world.start(a)
  const problems = async () => {
    const { snapshot, status } = await new SnapshotSource(a.coordinator).status()
    return problemsIn(snapshot, status, a.coordinator.health(), world.timing)
  }
  await world.advance(60_000)
  t.equal(passes.length, 1, 'a pass has begun for the first time')
  t.same(await problems(), [])
  await world.advance(60_000 + world.timing.statementTimeoutMs)
  t.equal(passes.length, 1, 'no second pass runs beside it')
  const told = await problems()
  t.match(told, [
    {
      code: 'schedule-overdue',
      severity: 'warning',
      subject: 'global/report',
      sentence:
        /^The schedule of "global\/report" was due at [-\d]+ [\d:]+:00 UTC, and node "a" has begun no pass/,
    },
  ])
  await world.advance(1_000)
  t.same(await problems(), told, 'the sentence stays the same')
  await a.coordinator.operator.pause('global/report', { actor: 'ops', reason: 'it hangs' })
  t.same(
    (await problems()).map(({ code }) => code),
    ['worker-paused'],
  )
  await a.coordinator.operator.resume('global/report', { actor: 'ops', reason: 'it hangs' })
  passes[0]?.()
  await world.advance(1_000)
  t.equal(passes.length, 2, 'one pass makes up for what was missed')
  t.same(await problems(), [])
})

t.test('whoever takes over has time to begin the pass that is due', (t) => {
  const schedule = writtenSchedule(timetableOf('* * * * *'))
  const worker = newWorker('w', { schedule })
  const dueAtMs = 1_700_000_040_000
  const timing = { statementTimeoutMs: 5_000 }
  const overdue = (nowMs: number, acquiredAtMs: number) =>
    overdueAtMs(newLease('w', { firedAtMs: dueAtMs - 60_000, acquiredAtMs }), worker, nowMs, timing)
  t.equal(overdue(dueAtMs + 5_001, dueAtMs - 60_000), dueAtMs)
  t.equal(overdue(dueAtMs + 5_000, dueAtMs - 60_000), null)
  t.equal(overdue(dueAtMs + 20_000, dueAtMs + 20_000), null)
  t.equal(overdue(dueAtMs + 25_001, dueAtMs + 20_000), dueAtMs)
  t.end()
})

t.test('a drain is told with who asked for it, and is read once', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const pass = deferred()
  t.teardown(() => pass.resolve())
  a.coordinator.worker({ name: 'slow', kind: 'single', scope: 'global', run: () => pass.promise })
  await world.start(a, b)
  await world.advance(1_000)
  const { operator } = b.coordinator
  const queries: EventQuery[] = []
  const trail = new Trail((query) => {
    queries.push(query)
    return operator.events(query)
  })
  const told = async (): Promise<string[]> => {
    const snapshot = await operator.snapshot()
    await trail.tell(snapshot)
    const settings = { namespace: 'default', identity: { node: 'b', cluster: 'c1' } } as CoordinatorSettings
    const status = describe(snapshot, settings, 'b', 'running')
    const problems = problemsIn(snapshot, status, { ...own, statements: 0 }, world.timing)
    return problems.map(({ sentence }) => sentence)
  }
  t.same(await told(), [])
  const id = a.coordinator.nodeId ?? ''
  await operator.drain(id, { actor: 'otto', reason: 'deploy 1.4' })
  const said =
    /^Node "a" hands everything over and takes nothing new\. otto asked for it at [-\d]+ [\d:]+ UTC: “deploy 1\.4”\.$/
  const sentences = await told()
  t.match(sentences[0], /^No active node is a candidate .*: every node that has registered it is draining\.$/)
  t.match(sentences[1], said)
  await world.advance(1_000)
  t.same(await told(), sentences)
  t.same(queries, [{ types: ['node.draining'], subject: id, limit: 1 }])
  await operator.undrain(id, { actor: 'otto', reason: 'deployed' })
  t.same(await told(), [])
  const closed = a.coordinator.close()
  await world.advance(1_000)
  t.match(
    (await told()).join(),
    /Node "a" hands everything over .* It has been closing since [-\d]+ [\d:]+ UTC\./,
  )
  pass.resolve()
  await world.advanceUntil(() => a.coordinator.state === 'closed', 60_000)
  await closed
  const forgettable =
    /^No active node is a candidate for the worker "global\/slow"\. The last one was node "a", gone since [-\d]+ [\d:]+ UTC\. If no program registers it any more, forget it\.$/
  t.match(await told(), [forgettable])
})

t.test('rows that somebody has deleted are told, until a node makes them again', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const register = ({ coordinator }: WorldNode): void => {
    const run = async () => undefined
    coordinator.worker({ name: 'one', kind: 'single', scope: 'global', run })
    coordinator.worker({ name: 'many', kind: 'partitioned', scope: 'global', partitions: 3, run })
    coordinator.worker({ name: 'all', kind: 'coordinated', scope: 'global', run })
  }
  register(a)
  await world.start(a)
  await world.advance(1_000)
  const problems = async () => {
    const { snapshot, status } = await new SnapshotSource(a.coordinator).status()
    const found = problemsIn(snapshot, status, a.coordinator.health(), world.timing)
    return found.filter(({ code }) => code === 'rows-missing').map(({ sentence }) => sentence)
  }
  t.same(await problems(), [])
  world.sql("delete from coordination_leases where key in ('global/many#0', 'global/many#2', 'global/all#0')")
  world.sql("delete from coordination_workers where key = 'global/one'")
  const why = 'though node "a" has registered it: somebody has deleted them. Restart one node'
  t.match(await problems(), [
    `Rows of 1 of the 1 leases of the worker "global/all" are missing, ${why}`,
    `Rows of 2 of the 3 leases of the worker "global/many" are missing, ${why}`,
    `Rows of the worker "global/one" are missing, ${why}`,
  ])
  register(b)
  await world.start(b)
  await world.advance(1_000)
  t.same(await problems(), [])
  world.sql(`delete from coordination_nodes where id = '${b.coordinator.nodeId}'`)
  world.sql("update coordination_leases set holder = 'b-life-1' where key = 'global/one'")
  t.match(await problems(), [
    'The row of the node that holds "global/one" is missing: somebody has deleted it. Release it, or restart one ' +
      'node that registers the worker "global/one", and it goes to another node.',
  ])
})

t.test(
  'what the audit trail no longer tells is asked once; what could not be read is asked again',
  async (t) => {
    const nodes = ['a', 'b'].map((id) => ({ id, state: 'draining', revision: 3 }))
    const snapshot = () => ({ nodes, workers: [], leases: [] }) as unknown as Snapshot
    const drain = { type: 'node.draining', subject: 'b' } as EventRow
    const asked: unknown[] = []
    let isDown = true
    const trail = new Trail(async ({ subject }) => {
      asked.push(subject)
      if (subject === 'b' && isDown) throw new StoreError('down', 'none')
      return subject === 'b' ? [drain] : []
    })
    const told = async (): Promise<unknown[]> => {
      const now = snapshot()
      await trail.tell(now)
      return now.nodes.map((node) => drainOf(node, now))
    }
    t.same(await told(), [undefined, undefined])
    isDown = false
    t.same(await told(), [undefined, drain])
    t.same(await told(), [undefined, drain])
    t.same(asked, ['a', 'b', 'b'])
  },
)

/** Returns the problems of a namespace with only this node, so long after its last heartbeat. */
function codesOf(node: NodeRow, silentMs: number): string[] {
  const nowMs = node.heartbeatAtMs + silentMs
  const snapshot = { nowMs, meta: beforeAnyChange, nodes: [node], workers: [], leases: [] }
  const status = { self: { name: 'b' }, workers: [], leases: [] } as unknown as Status
  return problemsIn(snapshot, status, { ...own, statements: 0 }, resolveTiming({})).map(({ code }) => code)
}
