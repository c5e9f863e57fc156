/** Tests what operators ask for: it leaves an event, and holds whatever the nodes do. */
import t from 'tap'
import { rebalance } from '../../plugin/core/changes/operations.js'
import { blockWaitMs } from '../../plugin/core/time/timing.js'
import type { WorkerDefinition } from '../../plugin/core/work/worker.js'
import { commit, join, newLease, newWorker, saveLeases } from '../../plugin/testing/conformance/world.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'
import { untilAborted } from '../support/workers.js'
import { holders, startedWith, tokenOf, World, type WorldNode } from '../support/world.js'
import { counting } from '../support/wrapped-store.js'

const by = { actor: 'ops', reason: 'a good one' }

t.test('every action of an operator leaves an event with actor and reason', async (t) => {
  const { world, nodes } = await startedWith(t, () => untilAborted('month-close'))
  const [a, b, c] = nodes
  const { operator } = b.coordinator
  const key = 'global/month-close'
  b.coordinator.worker(untilAborted('consumer', { kind: 'partitioned', partitions: 2 }))
  await operator.pause(key, by)
  await operator.resume(key, by)
  await world.advance(500)
  await operator.drain(a.coordinator.nodeId ?? '', by)
  await operator.undrain(a.coordinator.nodeId ?? '', by)
  await world.advance(500)
  await operator.transfer({ key, token: await tokenOf(a, key), ...by })
  await world.advance(500)
  await operator.release({ key, token: await tokenOf(a, key), ...by })
  a.coordinator.worker(untilAborted('consumer', { kind: 'partitioned', partitions: 2 }))
  await world.advance(500)
  const slot = (await operator.snapshot()).leases.find(
    ({ worker, holder }) => worker === 'global/consumer' && holder === a.coordinator.nodeId,
  )
  await operator.transfer({ key: slot?.key ?? '', token: slot?.token ?? 0, cooldownMs: 0, ...by })
  await world.advance(500)
  await operator.rebalance({ key: 'global/consumer', ...by })
  const gone = c.coordinator.nodeId ?? ''
  const closed = c.coordinator.close()
  await world.advance(500)
  await closed
  await operator.forget(gone, by)
  const events = await operator.events({ limit: 100 })
  const mine = events.filter((event) => event.actor === 'ops')
  t.same(mine.map((event) => event.type).reverse(), [
    'worker.paused',
    'worker.resumed',
    'node.draining',
    'node.resumed',
    'lease.transferred',
    'lease.revoked',
    'lease.transferred',
    'worker.rebalanced',
    'node.forgotten',
  ])
  t.ok(mine.every((event) => event.reason === 'a good one'))
})

t.test('a share that is released by force does not end those of the others', async (t) => {
  const { world, nodes } = await startedWith(t, () => untilAborted('indexing', { kind: 'coordinated' }))
  const [a, b, c] = nodes
  const shareOf = async ({ coordinator }: WorldNode) =>
    (await c.coordinator.operator.snapshot()).leases.find(({ holder }) => holder === coordinator.nodeId)
  const before = await shareOf(a)
  const others = [...b.history, ...c.history]
  for (const immediate of [false, true]) {
    const { key = '', token = 0 } = (await shareOf(a)) ?? {}
    await c.coordinator.operator.release({ key, token, immediate, cooldownMs: 0, ...by })
    await world.advance(5_000)
    t.same([...b.history, ...c.history], others, 'the others go on')
    const again = await shareOf(a)
    t.match(again, { slot: before?.slot, generation: before?.generation }, 'it has the same share again')
    t.ok((again?.token ?? 0) > token, 'under a new token')
  }
  const { key = '', token = 0 } = (await shareOf(a)) ?? {}
  await c.coordinator.operator.release({ key, token, cooldownMs: 60_000, ...by })
  await world.advance(5_000)
  t.equal(await shareOf(a), undefined, 'a node that cools down stands aside')
})

t.test('where nobody else can take a lease, the watchers do not try all the time', async (t) => {
  const world = new World(t)
  const calls = new Map<string, number>()
  const wrap = counting(calls)
  const [a, b] = [await world.node('a', { wrap }), await world.node('b', { wrap })]
  let settle = (): void => undefined
  const ignoresItsSignal = new Promise<void>((resolve) => {
    settle = resolve
  })
  a.coordinator.worker(untilAborted('w', { run: () => ignoresItsSignal } as Partial<WorkerDefinition>))
  await world.start(a, b)
  await world.advance(1_000)
  const key = 'global/w'
  await b.coordinator.operator.release({ key, token: await tokenOf(b, key), cooldownMs: 0, ...by })
  await world.advance(60_000)
  calls.clear()
  const periodMs = 300_000
  await world.advance(periodMs)
  const changes = calls.get('change') ?? 0
  t.ok(changes > 0, 'they go on trying')
  t.ok(changes <= (2 * periodMs) / world.timing.heartbeatMs, `each once in a heartbeat at most: ${changes}`)
  const c = await world.node('c')
  c.coordinator.worker(untilAborted('w'))
  await world.start(c)
  await world.advanceUntil(() => c.coordinator.isHeld('w'), blockWaitMs(world.timing) + 1_000)
  settle()
})

t.test(
  'a partition that was given to a node stays there, and is not shared out again after a while',
  async (t) => {
    const { world, nodes } = await startedWith(t, () =>
      untilAborted('consumer', { kind: 'partitioned', partitions: 6 } as Partial<WorkerDefinition>),
    )
    const [a, b, c] = nodes
    const { operator } = b.coordinator
    const { leases } = await operator.snapshot()
    const lease = leases.find(({ holder }) => holder === a.coordinator.nodeId)
    const { key = '', token = 0 } = lease ?? {}
    const to = c.coordinator.nodeId ?? ''
    t.match(await operator.transfer({ key, token, to, ...by }), { kind: 'asked', to })
    await world.advance(600_000)
    t.same(holders(world.nodes, key), ['c'])
    const held = (node: WorldNode) => node.coordinator.health().held.length
    t.same([held(a), held(b), held(c)], [1, 2, 3])
  },
)

t.test('a transfer names the next holder, who stays it; the old one does not come back', async (t) => {
  const { world, nodes } = await startedWith(t, () => untilAborted('month-close'))
  const [a, b, c] = nodes
  const key = 'global/month-close'
  const token = await tokenOf(a, key)
  const { operator } = b.coordinator
  const to = c.coordinator.nodeId ?? ''
  t.match(await operator.transfer({ key, token: token - 1, to, ...by }), { kind: 'stale' })
  t.match(await operator.transfer({ key, token, to: 'nobody', ...by }), { kind: 'no-candidate' })
  t.match(await operator.transfer({ key: 'global/nothing', token, ...by }), { kind: 'unknown' })
  t.match(await operator.transfer({ key, token, to, ...by }), { kind: 'asked', to })
  await world.advance(500)
  t.same(holders(world.nodes, key), ['c'])
  t.ok(a.history.includes(`lease.ended ${key} reassigned`))
  const d = await world.node('d')
  d.coordinator.worker(untilAborted('month-close'))
  await world.start(d)
  await world.advance(5_000)
  t.same(holders(world.nodes, key), ['c'])
})

t.test(
  'a lease by name that is transferred is not taken from a holder that has not given it back',
  async (t) => {
    const world = new World(t, { handoverTimeoutMs: 600_000 })
    const [a, b] = [await world.node('a'), await world.node('b')]
    await world.start(a, b)
    const lease = await a.coordinator.acquire('one-off')
    const waiting = b.coordinator.acquire('one-off')
    await world.advance(1_000)
    const { key, token } = lease
    const to = b.coordinator.nodeId
    t.match(await b.coordinator.operator.transfer({ key, token, ...by }), { kind: 'asked', to })
    await world.advance(4 * world.timing.ttlMs, 500)
    t.ok(lease.signal.aborted)
    t.notOk(b.coordinator.isHeld('one-off'), 'although it was named, and has asked again')
    await lease.release()
    await world.advance(1_000)
    await (await waiting).release()
  },
)

t.test('a holder whose lease is freed at once is told, although no row names it any more', async (t) => {
  const { world, nodes } = await startedWith(t, () => untilAborted('month-close'))
  const [a, b] = nodes
  const key = 'global/month-close'
  const token = await tokenOf(a, key)
  await b.coordinator.operator.release({ key, token, immediate: true, cooldownMs: 600_000, ...by })
  await world.advance(2 * world.timing.heartbeatMs)
  t.notOk(holders(world.nodes, key).includes('a'))
  t.match(a.history, ['lease.acquired global/month-close', 'lease.ended global/month-close lost'])
})

t.test('a share that is transferred goes out of the plan for as long as its node cools down', async (t) => {
  const { world, nodes } = await startedWith(t, () => untilAborted('data', { kind: 'coordinated' }))
  const [a, b] = nodes
  const { leases } = await a.coordinator.status()
  const own = leases.find((lease) => lease.holder?.name === 'a')
  await b.coordinator.operator.transfer({
    key: own?.key ?? '',
    token: own?.token ?? 0,
    cooldownMs: 30_000,
    ...by,
  })
  await world.advance(1_000)
  t.same(holders(world.nodes, 'data'), ['b', 'c'])
  await world.advance(60_000, 200)
  t.same(holders(world.nodes, 'data'), ['a', 'b', 'c'], 'and comes back into it afterwards')
})

t.test('planning afresh: a dry run answers the moves and changes nothing', async (t) => {
  const { world, nodes } = await startedWith(t, () =>
    untilAborted('consumer', { kind: 'partitioned', partitions: 6 }),
  )
  const [a, b] = nodes
  const key = 'global/consumer'
  const mine = (await a.coordinator.status()).leases.filter((lease) => lease.holder?.name === 'a')
  for (const { key, token } of mine)
    await b.coordinator.operator.transfer({ key, token, cooldownMs: 0, ...by })
  await world.advance(1_000)
  t.notOk(a.coordinator.isHeld('consumer'))
  const before = (await a.coordinator.status()).revision
  const dry = await b.coordinator.operator.rebalance({ key, dryRun: true, ...by })
  t.match(dry, { kind: 'planned' })
  t.equal(dry.kind === 'planned' && dry.moves.length, 2)
  t.equal((await a.coordinator.status()).revision, before)
  t.match(await b.coordinator.operator.rebalance({ key, revision: 1, ...by }), { kind: 'stale' })
  t.same(await b.coordinator.operator.rebalance({ key, ...by }), dry)
  await world.advance(1_000)
  t.ok(a.coordinator.isHeld('consumer'))
})

t.test('a dry run names the plan in force, not the one that would follow', async (t) => {
  const store = new MemoryDatabase().open({ namespace: 'default', statementTimeoutMs: 30_000 })
  await join(store, ['a', 'b'])
  await commit(store, async (change) => {
    for (const id of ['a', 'b']) await change.updateNode(id, { workers: ['global/data'] })
    await change.saveWorkers([newWorker('global/data', { kind: 'coordinated', generation: 4, slots: 1 })])
  })
  await saveLeases(store, newLease('global/data#0', { worker: 'global/data', target: 'a' }))
  const plan = async (dryRun: boolean) =>
    (
      await store.change(undefined, (change) =>
        rebalance(change, 'global/data', { ...by, dryRun, revision: null }),
      )
    ).result
  const moves = [{ slot: 1, from: null, to: 'b' }]
  t.strictSame(await plan(true), { kind: 'planned', moves, generation: 4 })
  t.strictSame(await plan(false), { kind: 'planned', moves, generation: 5 })
})

t.test('a release that waits for its holder can be made immediate', async (t) => {
  const { world, nodes } = await startedWith(t, () =>
    untilAborted('month-close', { run: () => new Promise<void>(() => undefined) }),
  )
  const [a, b] = nodes
  const key = 'global/month-close'
  const token = await tokenOf(a, key)
  const { operator } = b.coordinator
  t.match(await operator.release({ key, token, ...by }), { kind: 'revoked', blocked: true })
  t.match(await operator.release({ key, token, ...by }), { kind: 'repeated' })
  await world.advance(1_000)
  t.same(holders(world.nodes, key), [], 'the work of the old holder goes on')
  const cooldownMs = 600_000
  const why = { actor: 'ops', reason: 'it is dead' }
  const lifted = await operator.release({ key, token, immediate: true, cooldownMs, ...why })
  t.match(lifted, { kind: 'revoked', previousHolder: a.coordinator.nodeId, blocked: false })
  const row = (await operator.snapshot()).leases.find((lease) => lease.key === key)
  const leftMs = (row?.cooldownUntilMs ?? 0) - (row?.targetAtMs ?? 0)
  t.ok(leftMs >= cooldownMs, 'and it cools down for as long as was asked for at last')
  await world.advance(1_000)
  t.equal(holders(world.nodes, key).length, 1)
  const events = (await operator.events({ limit: 100 })).filter(({ type }) => type === 'lease.revoked')
  t.same(
    events.map(({ reason }) => reason),
    ['it is dead', 'a good one'],
  )
})

t.test('a share whose holder would get it again is not transferred', async (t) => {
  const { nodes } = await startedWith(t, () => untilAborted('data', { kind: 'coordinated' }))
  const [a, b] = nodes
  const own = (await a.coordinator.status()).leases.find((lease) => lease.holder?.name === 'a')
  const order = { key: own?.key ?? '', token: own?.token ?? 0, cooldownMs: 0, ...by }
  t.match(await b.coordinator.operator.transfer(order), { kind: 'no-candidate' })
  const events = await b.coordinator.operator.events({ limit: 100 })
  t.notOk(events.some(({ type }) => type === 'lease.transferred'))
})

t.test('a lease by name that is transferred goes to who has waited longest', async (t) => {
  const world = new World(t)
  const nodes = []
  for (const name of ['a', 'b', 'c', 'd']) nodes.push(await world.node(name))
  await world.start(...nodes)
  const [a, ...others] = nodes as [WorldNode, ...WorldNode[]]
  for (const name of ['one', 'two', 'three', 'four', 'five', 'six']) {
    const held = await a.coordinator.acquire(name)
    held.signal.addEventListener('abort', () => void held.release(), { once: true })
    const served: string[] = []
    for (const { coordinator, name: node } of others) {
      void coordinator.acquire(name).then((lease) => {
        served.push(node)
        return lease.release()
      })
      await world.advance(500)
    }
    await a.coordinator.operator.transfer({ key: `global/${name}`, token: held.token, ...by })
    await world.advance(5_000)
    t.same(served, ['b', 'c', 'd'], name)
  }
})
