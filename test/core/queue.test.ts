/** The queue of a lease by name: who is next keeps that place, whatever an operator asks for meanwhile. */
import { getEventListeners } from 'node:events'
import t, { type Test } from 'tap'
import { runChange } from '../../plugin/core/changes/run-change.js'
import type { Lease } from '../../plugin/core/work/lease.js'
import { World, type WorldNode } from '../support/world.js'

const by = { actor: 'ops', reason: 'a good one' }
const key = 'global/k'

interface Line {
  readonly world: World
  readonly nodes: readonly [WorldNode, WorldNode, WorldNode, WorldNode]
  readonly held: Lease
  /** The nodes that have been served, in order, and their leases. */
  readonly served: string[]
  readonly leases: Lease[]
}

/** The first node holds the lease, and `b` and `c` stand in line. */
async function line(t: Test): Promise<Line> {
  const world = new World(t)
  const nodes = [
    await world.node('a'),
    await world.node('b'),
    await world.node('c'),
    await world.node('d'),
  ] as const
  await world.start(...nodes)
  const held = (await nodes[0].coordinator.tryAcquire('k')) as Lease
  const scene = { world, nodes, held, served: [], leases: [] }
  await wait(scene, nodes[1])
  await wait(scene, nodes[2])
  return scene
}

async function wait({ world, served, leases }: Line, { name, coordinator }: WorldNode): Promise<void> {
  const acquired = (lease: Lease): void => {
    served.push(name)
    leases.push(lease)
  }
  coordinator.acquire('k').then(acquired, () => undefined)
  await world.advance(500)
}

async function release({ world, leases }: Line): Promise<void> {
  void leases.at(-1)?.release()
  await world.advance(1_000)
}

async function rowOf({ nodes }: Line) {
  const { leases } = await nodes[3].coordinator.operator.snapshot()
  return leases.find((lease) => lease.key === key)
}

t.test('who is next and is drained makes room, and is next again when it is taken back', async (t) => {
  const scene = await line(t)
  const { world, nodes, held, served } = scene
  const [a, b, c, d] = nodes
  const [idOfB, idOfC] = [b.coordinator.nodeId ?? '', c.coordinator.nodeId]
  await d.coordinator.operator.drain(a.coordinator.nodeId ?? '', by)
  t.match(await rowOf(scene), { target: idOfB, waiters: [idOfC] })
  await d.coordinator.operator.drain(idOfB, by)
  t.match(await rowOf(scene), { target: idOfC, waiters: [idOfB] })
  await wait(scene, d)
  t.match(await rowOf(scene), { target: idOfC, waiters: [idOfB, d.coordinator.nodeId] })
  await d.coordinator.operator.undrain(idOfB, by)
  void held.release()
  await world.advance(1_000)
  await release(scene)
  await release(scene)
  t.same(served, ['c', 'b', 'd'])
})

t.test('a transfer that is asked for twice names the same node twice', async (t) => {
  const scene = await line(t)
  const { nodes, held, served } = scene
  const [, b, c, d] = nodes
  const transfer = (to: string | null = null) =>
    d.coordinator.operator.transfer({ key, token: held.token, to, ...by })
  t.match(await transfer(), { kind: 'asked', to: b.coordinator.nodeId })
  t.match(await transfer(), { kind: 'asked', to: b.coordinator.nodeId })
  t.same((await rowOf(scene))?.waiters, [c.coordinator.nodeId])
  void held.release()
  await scene.world.advance(1_000)
  await release(scene)
  t.same(served, ['b', 'c'])
})

t.test('the only node that waits may be named again once it is next', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  await world.start(a, b)
  const held = await a.coordinator.acquire('k')
  const waiting = b.coordinator.acquire('k')
  await world.advance(500)
  const to = b.coordinator.nodeId ?? ''
  for (const named of [null, null, to])
    t.match(await a.coordinator.operator.transfer({ key, token: held.token, to: named, ...by }), {
      kind: 'asked',
      to,
    })
  await held.release()
  await world.advance(1_000)
  await (await waiting).release()
})

t.test('who is next comes after a node that the operator chooses instead', async (t) => {
  const scene = await line(t)
  const { world, nodes, held, served } = scene
  const [, b, c, d] = nodes
  await wait(scene, d)
  const transfer = (to: string | null) =>
    d.coordinator.operator.transfer({ key, token: held.token, to, ...by })
  t.match(await transfer(null), { kind: 'asked', to: b.coordinator.nodeId })
  const chosen = d.coordinator.nodeId ?? ''
  t.match(await transfer(chosen), { kind: 'asked', to: chosen })
  t.match((await rowOf(scene))?.waiters.slice(0, 2), [b.coordinator.nodeId, c.coordinator.nodeId])
  void held.release()
  await world.advance(1_000)
  await release(scene)
  await release(scene)
  t.same(served, ['d', 'b', 'c'])
})

t.test(
  'who is next and asks again does not wait as well, and keeps its place when it is drained',
  async (t) => {
    const scene = await line(t)
    const { world, nodes, held, served } = scene
    const [a, b, c, d] = nodes
    const { operator } = d.coordinator
    const [idOfB = '', idOfC = ''] = [b.coordinator.nodeId, c.coordinator.nodeId]
    for (const node of [a, b, c]) await operator.drain(node.coordinator.nodeId ?? '', by)
    t.match(await rowOf(scene), { target: null })
    t.same((await rowOf(scene))?.waiters, [idOfC, idOfB])
    await operator.undrain(idOfC, by)
    await world.advance(1_000)
    t.match(await rowOf(scene), { target: idOfC })
    t.same((await rowOf(scene))?.waiters, [idOfB])
    await operator.drain(idOfC, by)
    t.same((await rowOf(scene))?.waiters, [idOfC, idOfB])
    await operator.undrain(idOfC, by)
    await operator.undrain(idOfB, by)
    void held.release()
    await world.advance(1_000)
    await release(scene)
    t.same(served, ['c', 'b'])
  },
)

t.test('who is next and goes on with its work of before is not named again and again', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  await world.start(a, b)
  const kept = await a.coordinator.tryAcquire('k')
  const again = a.coordinator.acquire('k')
  await world.advance(1_000)
  const row = async () => (await b.coordinator.operator.snapshot()).leases[0]
  // As a failover may set a row back: to when the node was next.
  await runChange(b.store, undefined, 0, async (change) => {
    const [lease] = await change.leases({ keys: [key] })
    if (lease !== undefined) await change.saveLeases([{ ...lease, holder: null, targetAtMs: change.nowMs }])
    await change.tell(new Set([a.coordinator.nodeId ?? '']))
  })
  await world.advance(30_000)
  t.notOk(kept?.held)
  t.match(await row(), { holder: null, target: null })
  const events = await b.store.events({ limit: 50 })
  t.same(events.filter(({ type }) => type === 'target.passed-over').length, 0)
  void kept?.release()
  t.ok((await again).held, 'it asks again once that work has ended')
})

t.test('any number of calls may wait with one signal, and leave nothing on it', async (t) => {
  const { world, nodes, held } = await line(t)
  const [, , , { coordinator }] = nodes
  const stop = new AbortController()
  const listening = (): number => getEventListeners(stop.signal, 'abort').length
  const refusal = (timeoutMs?: number): Promise<unknown> =>
    coordinator.acquire('k', { signal: stop.signal, timeoutMs }).catch((error: unknown) => error)
  const late = refusal(1_000)
  const waiting = Array.from({ length: 20 }, () => refusal())
  t.equal(listening(), 1, 'more than ten would make Node warn of a leak')
  await world.advance(1_500)
  t.match(await late, { code: 'WCO_ACQUIRE_TIMEOUT' })
  t.equal(listening(), 1, 'the others still wait')
  const reason = new Error('the request was cancelled')
  stop.abort(reason)
  t.same(new Set(await Promise.all(waiting)), new Set([reason]))
  t.equal(listening(), 0)

  const again = new AbortController()
  const served = nodes[0].coordinator.acquire('k2', { signal: again.signal })
  await world.advance(500)
  t.equal((await served).held, true)
  t.equal(getEventListeners(again.signal, 'abort').length, 0)
  void held.release()
})
