/** Tests how partitions are spread, and when they are spread again. */
import t, { type Test } from 'tap'
import type { Store } from '../../plugin/core/store.js'
import type { WorkerDefinition } from '../../plugin/core/work/worker.js'
import { gate } from '../../plugin/testing/conformance/world.js'
import { type TestNode, TestWorld } from '../../plugin/testing/index.js'
import { aborted, untilAborted } from '../support/workers.js'
import { World, type WorldNode } from '../support/world.js'
import { counting, fenced } from '../support/wrapped-store.js'

const by = { actor: 'ops', reason: 'a good one' }

/** How many partitions each of these nodes has, in their order. */
async function partsOf(...nodes: readonly WorldNode[]): Promise<number[]> {
  const { leases } = await (nodes[0] as WorldNode).coordinator.status()
  return nodes.map(({ name }) => leases.filter(({ holder }) => holder?.name === name).length)
}

const parts = { kind: 'partitioned', partitions: 12 }

/** Nodes that share twelve partitions, all but one of which can be fenced, and the changes they make. */
async function sharing(t: Test) {
  const world = new World(t)
  const fences = new Set<string>()
  const calls = new Map<string, number>()
  const wrap = (store: Store) => counting(calls)(fenced(fences)(store))
  const nodes = await Promise.all(['a', 'b', 'c'].map((name) => world.node(name, { wrap })))
  for (const node of nodes) node.coordinator.worker(untilAborted('data', parts))
  const fenceAll = () => {
    for (let slot = 1; slot < 12; slot++) fences.add(`global/data#${slot}`)
  }
  return { world, fences, calls, fenceAll, nodes: nodes as [WorldNode, WorldNode, WorldNode] }
}

t.test('a node that joins while partitions are fenced gets its part of them afterwards', async (t) => {
  const { world, fences, calls, fenceAll, nodes } = await sharing(t)
  const [a, b, c] = nodes
  const changes = (): number => calls.get('change') ?? 0
  await world.start(a, b)
  await world.advance(1_000)
  t.same(await partsOf(a, b), [6, 6])
  const before = (await a.coordinator.status()).revision
  fenceAll()
  await world.start(c)
  await world.advance(1_000)
  const [, , early = 12] = await partsOf(a, b, c)
  t.ok(early <= 1)
  const { revision } = await a.coordinator.status()
  calls.clear()
  await world.advance(120_000)
  t.ok(changes() <= 26, `${changes()} changes while the fences last: one for each heartbeat of one node`)
  t.equal((await a.coordinator.status()).revision, revision, 'none of which writes anything')
  fences.clear()
  await world.advance(10_000)
  t.same(await partsOf(a, b, c), [4, 4, 4])
  const moved = (await a.coordinator.operator.events({ limit: 1_000 }))
    .filter(({ type, revision: of }) => type === 'assignment.changed' && of > before)
    .reduce((sum, { detail }) => sum + Number(detail?.moved), 0)
  t.equal(moved, 4, 'only what has moved counts as moved')
  calls.clear()
  await world.advance(600_000, 500)
  t.equal(changes(), 0, 'and no more plans are made')
})

t.test('a node that is resumed while partitions are fenced gets its part of them afterwards', async (t) => {
  const { world, fences, fenceAll, nodes } = await sharing(t)
  const [a, b, c] = nodes
  await world.start(a, b, c)
  await world.advance(1_000)
  await a.coordinator.operator.drain(c.coordinator.nodeId ?? '', by)
  await world.advance(5_000)
  t.same(await partsOf(a, b, c), [6, 6, 0])
  fenceAll()
  await a.coordinator.operator.undrain(c.coordinator.nodeId ?? '', by)
  await world.advance(5_000)
  fences.clear()
  await world.advance(10_000)
  t.same(await partsOf(a, b, c), [4, 4, 4])
})

t.test('partitions that a node has yet to get are given away before those that it works on', async (t) => {
  const world = new World(t)
  const [a, b, c] = (await Promise.all(['a', 'b', 'c'].map((name) => world.node(name)))) as [
    WorldNode,
    WorldNode,
    WorldNode,
  ]
  const ending = gate()
  let end: Promise<void> | undefined
  const { run } = untilAborted('data') as { run: (context: unknown) => Promise<void> }
  const takesLong = (context: unknown) => run(context).then(() => end)
  for (const { coordinator } of [a, b, c])
    coordinator.worker(untilAborted('data', { ...parts, run: takesLong }))
  await world.start(a, b)
  await world.advance(1_000)
  const { operator, nodeId } = b.coordinator
  const workedOnBy = async (node: string | undefined) => {
    const { leases } = await operator.snapshot()
    return leases.filter(({ holder, target }) => holder === node && target === node)
  }
  end = ending.opened
  for (const { key, token } of await workedOnBy(a.coordinator.nodeId))
    await operator.transfer({ key, token, to: nodeId, ...by })
  t.equal((await workedOnBy(nodeId)).length, 6, 'and it is to get the others')
  await world.start(c)
  t.equal((await workedOnBy(nodeId)).length, 4, 'its part')
  ending.open()
})

t.test('partitions are shared out evenly again after the cool-down of a node', async (t) => {
  const world = new TestWorld({ ttlMs: 60_000 })
  t.teardown(() => world.close())
  const nodes = ['a', 'b', 'c'].map((name) => world.node(name))
  let broken = true
  let terms = 0
  for (const { name, coordinator } of nodes) {
    const { run } = untilAborted('data') as { run: (context: unknown) => Promise<void> }
    const failing = async (context: unknown) => {
      if (name === 'a' && broken) throw new Error('its disk is full')
      return run(context)
    }
    coordinator.worker(untilAborted('data', { ...parts, run: failing }))
    if (name === 'a') coordinator.on('lease.acquired', () => terms++)
  }
  const counts = async () => {
    const { leases } = await world.snapshot()
    return ['a', 'b', 'c'].map((name) => leases.filter(({ holder }) => holder?.startsWith(name)).length)
  }
  const hourMs = 3_600_000
  await world.start()
  await world.advance(3 * hourMs)
  const earlier = terms
  await world.advance(5 * hourMs)
  t.ok(terms > earlier, 'after the cool-down it is tried again')
  t.ok(terms - earlier <= 24, `while it fails, ever more rarely: ${terms - earlier} times in 5 hours`)
  broken = false
  await world.advance(2 * hourMs)
  t.same(await counts(), [4, 4, 4])
  const { revision } = (await world.snapshot()).meta
  await world.advance(hourMs)
  t.equal((await world.snapshot()).meta.revision, revision, 'and no more plans are made')
})

t.test('partitions are shared out evenly again after a node stood still when it was named', async (t) => {
  const world = new TestWorld()
  t.teardown(() => world.close())
  const [a, b, c] = ['a', 'b', 'c'].map((name) => world.node(name)) as [TestNode, TestNode, TestNode]
  for (const { coordinator } of [a, b, c]) coordinator.worker(untilAborted('data', parts))
  const counts = async () => {
    const { leases } = await world.snapshot()
    return ['a', 'c'].map((name) => leases.filter(({ holder }) => holder?.startsWith(name)).length)
  }
  await world.start()
  c.freeze()
  void b.coordinator.close()
  await world.advance(4_000)
  c.thaw()
  await world.advance(1_000)
  t.same(await counts(), [8, 4], 'what b had has gone to the one that claimed it')
  await world.advance(600_000)
  t.same(await counts(), [6, 6])
  const { revision } = (await world.snapshot()).meta
  await world.advance(600_000)
  t.equal((await world.snapshot()).meta.revision, revision, 'and no more plans are made')
})

t.test('partitions are spread evenly, and only those that must move do', async (t) => {
  const world = new World(t)
  const owners = new Map<number, string>()
  const starts = new Map<number, number>()
  const define = (name: string): WorkerDefinition => ({
    name: 'consumer',
    kind: 'partitioned',
    scope: 'global',
    partitions: 12,
    run: async ({ partition, signal }) => {
      if (owners.has(partition)) t.fail(`partition ${partition} runs twice`)
      owners.set(partition, name)
      starts.set(partition, (starts.get(partition) ?? 0) + 1)
      await aborted(signal)
      owners.delete(partition)
    },
  })
  const nodes = [await world.node('a'), await world.node('b'), await world.node('c')]
  for (const node of nodes) node.coordinator.worker(define(node.name))
  await world.start(...nodes)
  await world.advance(1_000)
  const count = (name: string): number => [...owners.values()].filter((owner) => owner === name).length
  t.same(
    nodes.map((node) => count(node.name)),
    [4, 4, 4],
  )
  const before = new Map(starts)
  const moving = [...owners].filter(([, owner]) => owner === 'c').map(([partition]) => partition)
  const closed = nodes[2]?.coordinator.close()
  await world.advance(1_000)
  await closed
  t.same([count('a'), count('b')], [6, 6])
  const moved = [...starts]
    .filter(([partition, times]) => times !== before.get(partition))
    .map(([partition]) => partition)
  t.same(moved.sort(), moving.sort())
})
