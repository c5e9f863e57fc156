/** The queue of a lease by name: who is next keeps that place, whatever happens meanwhile. */
import { getEventListeners } from 'node:events'
import t, { type Test } from 'tap'
import { runChange } from '../../plugin/core/changes/run-change.js'
import type { Lease } from '../../plugin/core/work/lease.js'
import { TestWorld } from '../../plugin/testing/index.js'
import { World, type WorldNode, watched } from '../support/world.js'
import { counting, failing } from '../support/wrapped-store.js'

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

t.test(
  'several who wait on one node get the lease one after another, without waiting for a ttl',
  async (t) => {
    const world = new World(t)
    const [a, b] = [await world.node('a'), await world.node('b')]
    await world.start(a, b)
    const held = await b.coordinator.acquire('rebuild')
    const first = a.coordinator.acquire('rebuild')
    const second = a.coordinator.acquire('rebuild')
    await world.advance(200)
    await held.release()
    await world.advance(200)
    await (await first).release()
    await world.advance(200)
    t.ok(a.coordinator.isHeld('rebuild'))
    await (await second).release()
  },
)

t.test('who waits for a lease by name asks once per ttl, and writes nothing', async (t) => {
  const world = new World(t)
  const calls = new Map<string, number>()
  const holder = await world.node('holder')
  const waiting = await Promise.all(
    ['b', 'c', 'd'].map((name) => world.node(name, { wrap: counting(calls) })),
  )
  await world.start(holder, ...waiting)
  const lease = await holder.coordinator.acquire('critical')
  const inLine = waiting.map(({ coordinator }) => coordinator.acquire('critical'))
  const { ttlMs } = world.timing
  await world.advance(ttlMs)
  const { revision } = (await holder.store.snapshot()).meta
  calls.clear()
  await world.advance(ttlMs * 10)
  t.equal((await holder.store.snapshot()).meta.revision, revision)
  t.ok((calls.get('change') ?? 0) <= 3 * 10, `${calls.get('change')} changes`)
  t.ok((calls.get('change') ?? 0) >= 3 * 9, 'and it does ask')
  for (const next of [lease, ...inLine]) {
    const state = { lease: undefined as Awaited<typeof next> | undefined }
    void Promise.resolve(next).then((held) => {
      state.lease = held
    })
    await world.advanceUntil(() => state.lease !== undefined, ttlMs)
    void state.lease?.release()
  }
  await world.advance(500)
  t.notOk(waiting.some(({ coordinator }) => coordinator.isHeld('critical')))
})

t.test('nodes that waited for a lease and are gone do not stay in its queue', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  await world.start(a)
  await a.coordinator.tryAcquire('rebuild')
  const waiters = async (): Promise<readonly string[]> =>
    (await a.coordinator.operator.snapshot()).leases.find(({ key }) => key === 'global/rebuild')?.waiters ??
    []
  for (let life = 1; life <= 4; life++) {
    const b = await world.node(`b-${life}`)
    await world.start(b)
    const waiting = b.coordinator.acquire('rebuild').catch(() => undefined)
    await world.advance(500)
    t.same(await waiters(), [b.coordinator.nodeId])
    void b.coordinator.close()
    await world.advance(500)
    await waiting
    t.match((await a.coordinator.status()).leases, [{ waiting: 0 }], 'nor do they count')
  }
})

t.test('who stands first in line keeps that place when the holder is drained and taken back', async (t) => {
  const world = new World(t)
  const [a, b, c] = [await world.node('a'), await world.node('b'), await world.node('c')]
  await world.start(a, b, c)
  const held = await a.coordinator.tryAcquire('rebuild')
  const order: string[] = []
  for (const { name, coordinator } of [b, c]) {
    void coordinator.acquire('rebuild').then(async (lease) => {
      order.push(name)
      await lease.release()
    })
    await world.advance(100)
  }
  const by = { actor: 'ops', reason: 'deploy' }
  const id = a.coordinator.nodeId ?? ''
  await b.coordinator.operator.drain(id, by)
  await world.advance(500)
  await b.coordinator.operator.undrain(id, by)
  await world.advance(500)
  void held?.release()
  await world.advance(2_000)
  t.same(order, ['b', 'c'])
})

t.test('a node that joins again stands in line again at once for what it waits for', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  await world.start(a, b)
  await a.coordinator.acquire('rebuild')
  const waiting = b.coordinator.acquire('rebuild')
  await world.advance(100)
  world.freeze(b)
  await world.advance(world.timing.ttlMs * 1.5, 500)
  world.thaw(b)
  await world.advance(world.timing.heartbeatMs * 1.1)
  const [row] = (await a.store.snapshot()).leases
  t.ok(b.history.includes('session.lost'))
  t.same(row?.waiters.at(-1), b.coordinator.nodeId)
  void waiting.catch(() => undefined)
})

t.test('who waits comes before who asks just now, when the one that was named is drained', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const [a, b, c, d] = [
    await world.node('a'),
    await world.node('b', { wrap: failing(outage, 'change') }),
    await world.node('c'),
    await world.node('d'),
  ]
  await world.start(a, b, c, d)
  const held = await a.coordinator.tryAcquire('rebuild')
  for (const { coordinator } of [b, c]) {
    void coordinator.acquire('rebuild').catch(() => undefined)
    await world.advance(100)
  }
  outage.on = true
  void held?.release()
  await world.advance(200)
  await a.coordinator.operator.drain(b.coordinator.nodeId ?? '', { actor: 'ops', reason: 'it hangs' })
  t.equal(await d.coordinator.tryAcquire('rebuild'), undefined)
  await world.advance(1_000)
  t.ok(c.coordinator.isHeld('rebuild'))
  outage.on = false
})

t.test('a node that hangs is passed over though others come and go in the queue meanwhile', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const a = await world.node('a')
  const b = await world.node('b', { wrap: failing(outage, 'change') })
  const [c, d] = [await world.node('c'), await world.node('d')]
  await world.start(a, b, c, d)
  const held = await a.coordinator.acquire('x')
  void b.coordinator.acquire('x').catch(() => undefined)
  await world.advance(1_000)
  const next = watched(c.coordinator.acquire('x'))
  await world.advance(1_000)
  let asking = true
  const askAgain = async (): Promise<void> => {
    while (asking)
      await d.coordinator.acquire('x', { timeoutMs: 1_000 }).then(
        (lease) => lease.release(),
        () => undefined,
      )
  }
  const asked = askAgain()
  await world.advance(2_000)
  outage.on = true
  void held.release()
  await world.advance(20_000)
  t.ok(next.over)
  outage.on = false
  asking = false
  await world.advance(2_000)
  await asked
})

t.test('who waits for a lease and stands still is passed over, and is not forgotten', async (t) => {
  const world = new TestWorld()
  t.teardown(() => world.close())
  const [a, b, c] = [world.node('a'), world.node('b'), world.node('c')]
  await world.start()
  const held = await world.settled(a.coordinator.acquire('k'))
  const order: string[] = []
  for (const { name, coordinator } of [b, c]) {
    void coordinator.acquire('k').then((lease) => {
      order.push(name)
      return lease.release()
    })
    await world.advance(500)
  }
  b.freeze()
  await world.settled(held.release())
  await world.advance(8_000)
  t.same(order, ['c'])
  b.thaw()
  await world.advance(500)
  t.same(order, ['c', 'b'])
})

t.test('who stands still and is the only one to wait for a lease remains the next', async (t) => {
  const world = new TestWorld()
  t.teardown(() => world.close())
  const [a, b] = [world.node('a'), world.node('b')]
  await world.start()
  const held = await world.settled(a.coordinator.acquire('k'))
  void b.coordinator.acquire('k').catch(() => undefined)
  await world.advance(500)
  b.freeze()
  await world.settled(held.release())
  await world.advance(8_000)
  b.thaw()
  await world.advance(500)
  t.ok(b.coordinator.isHeld('k'))
})

t.test('who waits for a lease and is drained and taken back has kept its place', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  await world.start(a, b)
  const held = await a.coordinator.tryAcquire('k')
  void b.coordinator.acquire('k').catch(() => undefined)
  await world.advance(500)
  await a.coordinator.operator.drain(b.coordinator.nodeId ?? '', by)
  await world.advance(500)
  void held?.release()
  await world.advance(500)
  const { leases } = await a.coordinator.operator.snapshot()
  t.match(leases[0], { holder: null, target: null, waiters: [b.coordinator.nodeId] })
  await a.coordinator.operator.undrain(b.coordinator.nodeId ?? '', by)
  await world.advance(500)
  t.ok(b.coordinator.isHeld('k'))
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
