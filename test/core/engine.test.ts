/**
 * Tests a few nodes as a whole: who works, and who is next when a holder closes, is drained, steps down or loses its
 * lease.
 */
import t from 'tap'
import type { SingleContext, WorkerDefinition } from '../../plugin/core/work/worker.js'
import { aborted, untilAborted } from '../support/workers.js'
import { holders, World, type WorldNode } from '../support/world.js'
import { counting, failing } from '../support/wrapped-store.js'

const by = { actor: 'ops', reason: 'a good one' }

t.test('a single worker runs on one node, and on the next when that one closes', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const node of [a, b]) node.coordinator.worker(untilAborted('month-close'))
  await world.start(a, b)
  t.same(holders(world.nodes, 'month-close'), ['a'])
  const closed = a.coordinator.close()
  await world.advance(200)
  await closed
  t.same(holders(world.nodes, 'month-close'), ['b'])
  t.same(a.history, [
    'lease.acquired global/month-close',
    'lease.ended global/month-close closing',
    'lease.released global/month-close',
  ])
})

t.test('a cluster worker runs once per cluster', async (t) => {
  const world = new World(t)
  const nodes = [
    await world.node('a', { cluster: 'eu' }),
    await world.node('b', { cluster: 'eu' }),
    await world.node('c', { cluster: 'us' }),
  ]
  for (const node of nodes) node.coordinator.worker(untilAborted('indexing', { scope: 'cluster' }))
  await world.start(...nodes)
  t.same(holders(nodes, 'eu/indexing'), ['a'])
  t.same(holders(nodes, 'us/indexing'), ['c'])
})

t.test('a forced release: the holder is alive and does not work', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  let stuck = true
  const release: (() => void)[] = []
  const stubborn: WorkerDefinition = {
    name: 'month-close',
    kind: 'single',
    scope: 'global',
    run: ({ signal }) =>
      stuck ? new Promise((resolve) => release.push(() => resolve(undefined))) : aborted(signal),
  }
  for (const node of [a, b]) node.coordinator.worker(stubborn)
  await world.start(a, b)
  t.same(holders(world.nodes, 'month-close'), ['a'])
  const lease = (await a.coordinator.status()).leases[0]
  const order = { key: 'global/month-close', token: lease?.token ?? 0, actor: 'ops', reason: 'stuck' }
  t.match(await b.coordinator.operator.release({ ...order, token: order.token - 1 }), { kind: 'stale' })
  t.match(await b.coordinator.operator.release(order), {
    kind: 'revoked',
    previousHolder: a.coordinator.nodeId,
  })
  t.match(await b.coordinator.operator.release(order), { kind: 'repeated' })
  stuck = false
  await world.advance(world.timing.heartbeatMs * 2)
  t.ok(a.history.includes('lease.ended global/month-close revoked'))
  t.same(holders(world.nodes, 'month-close'), [], 'blocked while the old holder may still be at work')
  await world.advance(world.timing.ttlMs * 1.01 + 1.5 * world.timing.statementTimeoutMs)
  t.same(holders(world.nodes, 'month-close'), ['b'], 'claimed once nobody can trust any more')
  for (const settle of release) settle()
})

t.test('a forced release is acknowledged by a holder that listens to its signal', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const node of [a, b]) node.coordinator.worker(untilAborted('month-close'))
  await world.start(a, b)
  const token = (await a.coordinator.status()).leases[0]?.token ?? 0
  await b.coordinator.operator.release({ key: 'global/month-close', token, actor: 'ops', reason: 'stuck' })
  await world.advance(500)
  t.same(holders(world.nodes, 'month-close'), ['b'])
  await world.advance(30_000)
  t.same(holders(world.nodes, 'month-close'), ['b'], 'the old holder does not win again')
})

t.test('pause stops a worker everywhere and survives restarts; resume brings it back', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const node of [a, b]) node.coordinator.worker(untilAborted('month-close'))
  await world.start(a, b)
  const by = { actor: 'ops', reason: 'maintenance' }
  t.equal(await b.coordinator.operator.pause('global/month-close', by), 'done')
  t.equal(await b.coordinator.operator.pause('global/month-close', by), 'unchanged')
  t.equal(await b.coordinator.operator.pause('global/nothing', by), 'unknown')
  await world.advance(500)
  t.same(holders(world.nodes, 'month-close'), [])
  const { revision } = await a.coordinator.status()
  await world.advance(30_000)
  t.equal((await a.coordinator.status()).revision, revision, 'nobody is named for it, or passed over')
  const c = await world.node('c')
  c.coordinator.worker(untilAborted('month-close'))
  await world.start(c)
  await world.advance(500)
  t.same(holders(world.nodes, 'month-close'), [])
  t.equal(await b.coordinator.operator.resume('global/month-close', by), 'done')
  await world.advance(500)
  t.equal(holders(world.nodes, 'month-close').length, 1)
})

t.test('a draining node hands everything over and takes nothing', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const node of [a, b]) {
    node.coordinator.worker(untilAborted('one'))
    node.coordinator.worker(untilAborted('two'))
  }
  await world.start(a, b)
  await world.advance(500)
  const by = { actor: 'ops', reason: 'deploy' }
  t.equal(await b.coordinator.operator.drain(a.coordinator.nodeId ?? '', by), 'done')
  await world.advance(500)
  t.same([holders(world.nodes, 'one'), holders(world.nodes, 'two')], [['b'], ['b']])
  t.equal(await b.coordinator.operator.undrain(a.coordinator.nodeId ?? '', by), 'done')
  await world.advance(500)
  t.same(
    [holders(world.nodes, 'one'), holders(world.nodes, 'two')],
    [['b'], ['b']],
    'healthy holders are not moved',
  )
})

t.test('1 000 leases on one node cost one statement per heartbeat', async (t) => {
  const world = new World(t)
  const calls = new Map<string, number>()
  const counted = await world.node('a', {
    wrap: counting(calls),
  })
  counted.coordinator.worker({
    name: 'consumer',
    kind: 'partitioned',
    scope: 'global',
    partitions: 1_000,
    run: ({ signal }) => aborted(signal),
  })
  await world.start(counted)
  await world.advance(1_000)
  t.equal((await counted.coordinator.status()).leases.filter((lease) => lease.state === 'held').length, 1_000)
  calls.clear()
  await world.advance(world.timing.heartbeatMs * 6)
  const heartbeats = calls.get('heartbeat') ?? 0
  t.ok(heartbeats >= 5 && heartbeats <= 7, `${heartbeats} heartbeats`)
  t.same([...calls.keys()].sort(), ['heartbeat', 'look'])
})

t.test('a node that gives back several leases does not count as having them still', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const a = await world.node('a', { wrap: failing(outage) })
  const b = await world.node('b')
  for (const name of ['one', 'two', 'three']) a.coordinator.worker(untilAborted(name))
  await world.start(a)
  await world.advance(2_000)
  for (const name of ['one', 'two', 'three', 'own']) b.coordinator.worker(untilAborted(name))
  await world.start(b)
  await world.advance(5_000)
  const countOf = async ({ coordinator }: WorldNode): Promise<number> =>
    (await b.coordinator.operator.snapshot()).leases.filter(({ holder }) => holder === coordinator.nodeId)
      .length
  t.same([await countOf(a), await countOf(b)], [3, 1])
  outage.on = true
  await world.advanceUntil(() => a.history.includes('trust.expired'), world.timing.ttlMs)
  outage.on = false
  await world.advance(5_000)
  t.notOk(a.history.includes('session.lost'), 'it has not been buried')
  t.same([await countOf(a), await countOf(b)], [2, 2])
})

t.test('a single worker whose pass steps down goes to another that has as few leases', async (t) => {
  for (const name of ['one', 'two', 'three', 'four']) {
    const world = new World(t)
    const [a, b] = [await world.node('a'), await world.node('b')]
    const stepDown: (() => void)[] = []
    const run = ({ signal, stepDown: step }: SingleContext): Promise<void> => {
      stepDown.push(() => step(0))
      return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
    }
    for (const { coordinator } of [a, b]) coordinator.worker(untilAborted(name, { run }))
    await world.start(a)
    await world.advance(2_000)
    await world.start(b)
    await world.advance(2_000)
    stepDown[0]?.()
    await world.advance(2_000)
    t.equal((await a.coordinator.operator.snapshot()).leases[0]?.holder, b.coordinator.nodeId, name)
  }
})

t.test('a cool-down from a clock that was far ahead is cut down once it has gone back', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const n of [a, b]) n.coordinator.worker(untilAborted('w'))
  await world.start(a, b)
  await world.advance(1_000)
  const dayMs = 86_400_000
  const takeAway = async () => {
    const [lease] = (await a.coordinator.status()).leases
    await a.coordinator.operator.release({ key: 'global/w', token: lease?.token ?? 0, ...by })
    await world.advance(1_000)
  }
  world.clockOffsetMs = 30 * dayMs
  await takeAway()
  world.clockOffsetMs = 0
  await takeAway()
  const events = await a.coordinator.operator.events({ limit: 100 })
  const [cut] = events.filter(({ type }) => type === 'cooldown.shortened')
  t.match(cut, { subject: 'global/w', detail: { toMs: (cut?.atMs ?? 0) + dayMs } })
})
