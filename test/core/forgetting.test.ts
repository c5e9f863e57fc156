/** Tests what is forgotten of nodes and workers that are gone, and what is kept of them. */
import t from 'tap'
import * as membership from '../../plugin/core/changes/membership.js'
import { forget, forgetWorker } from '../../plugin/core/changes/operations.js'
import type { WorkerDefinition } from '../../plugin/core/work/worker.js'
import {
  commit,
  idsOf,
  join,
  leaseOf,
  metaOf,
  newLease,
  newNode,
  newWorker,
  saveLeases,
} from '../../plugin/testing/conformance/world.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'
import { untilAborted } from '../support/workers.js'
import { startedWith, tokenOf, World, type WorldNode } from '../support/world.js'

const by = { actor: 'ops', reason: 'a good one' }

t.test('a node that is gone can be forgotten; one that lives cannot', async (t) => {
  const { world, nodes } = await startedWith(t, () => untilAborted('month-close'))
  const [a, b, c] = nodes
  const { operator } = b.coordinator
  t.equal(await operator.forget(a.coordinator.nodeId ?? '', by), 'alive')
  t.equal(await operator.forget('nobody', by), 'unknown')
  const id = c.coordinator.nodeId ?? ''
  const closed = c.coordinator.close()
  await world.advance(500)
  await closed
  t.equal(await operator.forget(id, by), 'done')
  t.notOk((await a.coordinator.status()).nodes.some((node) => node.id === id))
})

t.test('a worker that no node registers any more can be forgotten, and begins anew', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const renamed = () =>
    untilAborted('renamed', { kind: 'partitioned', partitions: 3 } as Partial<WorkerDefinition>)
  const key = 'global/renamed'
  b.coordinator.worker(renamed())
  await world.start(a, b)
  await world.advance(1_000)
  const { operator } = a.coordinator
  const tokens = async (): Promise<number[]> => {
    const { leases } = await operator.snapshot()
    return leases.flatMap(({ worker, token }) => (worker === key ? [token] : []))
  }
  const before = await tokens()
  t.equal(before.length, 3)
  t.equal(await operator.forgetWorker('global/other', by), 'unknown')
  t.equal(await operator.forgetWorker(key, by), 'registered')
  t.same(await tokens(), before)

  const closed = b.coordinator.close()
  await world.advance(500)
  await closed
  const { revision } = (await operator.snapshot()).meta
  t.equal(await operator.forgetWorker(key, by), 'done')
  const { meta, workers, leases } = await operator.snapshot()
  t.equal(meta.revision, revision + 1)
  t.same([workers, leases], [[], []])
  t.match(await operator.events({ limit: 1 }), [{ type: 'worker.forgotten', subject: key, ...by }])
  t.equal(await operator.forgetWorker(key, by), 'unknown')

  a.coordinator.worker(renamed())
  await world.advance(1_000)
  const after = await tokens()
  t.equal(after.length, 3)
  t.ok(Math.min(...after) > Math.max(...before), 'tokens grow')
})

t.test('a worker is not forgotten while a node holds its lease, or a transaction fences it', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  await world.start(a, b)
  const { operator } = a.coordinator
  const key = 'global/month-close'
  const acquired = a.coordinator.acquire('month-close')
  await world.advance(500)
  const lease = await acquired
  b.coordinator.worker(untilAborted('month-close'))
  await world.advance(1_000)
  const closed = b.coordinator.close()
  await world.advance(500)
  await closed
  t.equal(await operator.forgetWorker(key, by), 'named')
  const released = lease.release()
  await world.advance(500)
  await released
  t.equal(await operator.forgetWorker(key, by), 'done')

  const store = new MemoryDatabase().open({ namespace: 'default', statementTimeoutMs: 30_000 })
  await join(store, ['a', 'b'])
  await commit(store, (change) => change.saveWorkers([newWorker('w')]))
  const forgotten = async () =>
    (await store.change(undefined, (change) => forgetWorker(change, 'w', by))).result
  for (const named of [{ holder: 'a', token: 7 }, { target: 'a' }, { blockedNode: 'a', blockedToken: 7 }]) {
    await saveLeases(store, newLease('l', { worker: 'w', ...named }))
    t.equal(await forgotten(), 'named', Object.keys(named).join())
  }
  await saveLeases(store, newLease('l', { worker: 'w', holder: 'a', token: 9 }))
  await commit(store, (change) => change.bury('a'))
  t.equal(await forgotten(), 'done', 'a holder that is gone keeps nothing')
  t.ok((await metaOf(store)).tokenFloor >= 9)
})

t.test('tokens grow also of a partition that a worker had once, before it was forgotten', async (t) => {
  const world = new World(t)
  const [a, b, c] = [await world.node('a'), await world.node('b'), await world.node('c')]
  const data = (partitions: number) =>
    untilAborted('data', { kind: 'partitioned', partitions } as Partial<WorkerDefinition>)
  const left = async (node: WorldNode): Promise<void> => {
    const closed = node.coordinator.close()
    await world.advance(500)
    await closed
  }
  a.coordinator.worker(data(4))
  await world.start(a)
  world.identity = 'server-2'
  await world.advance(60_000)
  const key = 'global/data#3'
  const last = async () => tokenOf(a, key)
  for (let times = 0; times < 5; times++) {
    await a.coordinator.operator.release({ key, token: await last(), cooldownMs: 0, ...by })
    await world.advance(1_000)
  }
  const before = await last()
  await left(a)
  b.coordinator.worker(data(2))
  await world.start(b)
  await left(b)
  await world.start(c)
  t.equal(await c.coordinator.operator.forgetWorker('global/data', by), 'done')
  c.coordinator.worker(data(4))
  await world.advance(5_000)
  const { leases } = await c.coordinator.operator.snapshot()
  const now = leases.find((lease) => lease.key === key)
  t.equal(now?.holder, c.coordinator.nodeId)
  t.ok((now?.token ?? 0) > before)
})

t.test('a node that is gone is not forgotten while a lease names it', async (t) => {
  const store = new MemoryDatabase().open({ namespace: 'default', statementTimeoutMs: 30_000 })
  await join(store, ['a', 'b'])
  await commit(store, (change) => change.bury('a'))
  const forgotten = async () => (await store.change(undefined, (change) => forget(change, 'a', by))).result
  for (const named of [{ holder: 'a', token: 7 }, { target: 'a' }, { blockedNode: 'a', blockedToken: 7 }]) {
    await saveLeases(store, newLease('month-close', named))
    t.equal(await forgotten(), 'named', Object.keys(named).join())
  }
  await saveLeases(store, newLease('month-close', { holder: 'b', token: 8 }))
  t.equal(await forgotten(), 'done')
  t.same(idsOf((await store.snapshot()).nodes), ['b'])
})

t.test('a node whose row was deleted, and that joins after all, is a candidate', async (t) => {
  for (const named of ['cooldownNode', 'holder'] as const) {
    const store = new MemoryDatabase().open({ namespace: 'default', statementTimeoutMs: 30_000 })
    await commit(store, (change) => change.saveWorkers([newWorker('w')]))
    const row = { worker: 'w', token: 7, cooldownUntilMs: Date.now() + 600_000, [named]: 'a' }
    await saveLeases(store, newLease('w', row))
    const { name, kind, scope, cluster, handoverTimeoutMs, schedule } = newWorker('w')
    const declared = {
      ...{ key: 'w', name, kind, scope, cluster, handoverTimeoutMs, schedule },
      partitions: null,
    }
    const session = { node: 'a', operation: 1 }
    await store.change(session, (change) => membership.join(change, newNode('a'), [declared], undefined))
    t.match(await leaseOf(store, 'w'), { target: 'a', holder: null }, named)
  }
})

t.test('what nobody needs any more is cleared away within the hour, and tokens do not go back', async (t) => {
  const world = new World(t, { ttlMs: 600_000, heartbeatMs: 100_000 })
  const retention = { eventsForMs: 60_000, events: 10, goneNodesForMs: 60_000 }
  const a = await world.node('a', { retention })
  await world.start(a)
  const lease = await a.coordinator.acquire('one-off')
  await lease.release()
  await world.advance(3 * 3_600_000, 10_000)
  t.same((await a.coordinator.status()).leases, [])
  t.same(await a.coordinator.operator.events({ limit: 10 }), [])
  const again = await a.coordinator.acquire('one-off')
  t.ok(again.token > lease.token)
  await again.release()
})
