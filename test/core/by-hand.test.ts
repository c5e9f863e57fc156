/** What happens when somebody deletes rows by hand, and when all nodes have died before a deploy. */
import t, { type Test } from 'tap'
import type { CoordinationError } from '../../plugin/core/errors.js'
import { blockWaitMs } from '../../plugin/core/time/timing.js'
import type { CoordinatedContext, WorkerDefinition, WorkerHandle } from '../../plugin/core/work/worker.js'
import { aborted, untilAborted } from '../support/workers.js'
import { World, type WorldNode } from '../support/world.js'
import { countingInChanges } from '../support/wrapped-store.js'

const parts = (partitions: number): WorkerDefinition =>
  untilAborted('parts', { kind: 'partitioned', partitions })

async function nodesWith(
  t: Test,
  definition: WorkerDefinition,
): Promise<[World, WorldNode, WorldNode, WorldNode]> {
  const world = new World(t)
  const nodes = [await world.node('a'), await world.node('b'), await world.node('c')] as const
  for (const { coordinator } of nodes) coordinator.worker(definition)
  return [world, ...nodes]
}

t.test('a node that starts after all have died with another layout joins once they are silent', async (t) => {
  const world = new World(t)
  const [old, next] = [await world.node('old'), await world.node('next')]
  old.coordinator.worker(parts(3))
  next.coordinator.worker(parts(4))
  await world.start(old)
  await world.advance(1_000)
  world.freeze(old)
  await world.advance(world.timing.ttlMs - 2_000)
  const hasty = await world.node('hasty')
  hasty.coordinator.worker(parts(4))
  await t.rejects(world.start(hasty), {
    code: 'WCO_WORKER_CONFLICT',
    message: /by 1 other node\(s\), among them "old".*If they have died, start again in 1 s\.$/,
  })
  await world.advance(3_000)
  const refused: unknown[] = []
  next.coordinator.on('worker.refused', ({ error }) => refused.push((error as CoordinationError).message))
  await world.start(next)
  await world.advance(1_000)
  t.match(refused, [
    /They have been silent for longer than their ttl\. It is registered as soon as they are gone\.$/,
  ])
  await world.advance(3 * world.timing.ttlMs)
  t.ok([0, 1, 2, 3].every((slot) => next.coordinator.isHeld(`global/parts#${slot}`)))
})

t.test('a clock of the database that was set back makes no node silent for ever', async (t) => {
  const world = new World(t)
  const [old, next] = [await world.node('old'), await world.node('next')]
  old.coordinator.worker(parts(3))
  next.coordinator.worker(parts(4))
  await world.start(old)
  world.freeze(old)
  world.clockOffsetMs = -3_600_000
  await world.start(next)
  await world.advance(3 * world.timing.ttlMs)
  t.ok(next.coordinator.isHeld('global/parts#3'))
})

t.test('a holder whose row somebody has deleted has stopped before another begins', async (t) => {
  for (const name of ['w', 'v', 'u', 'z']) {
    const [world, a, b, c] = await nodesWith(t, untilAborted(name))
    await world.start(a, b, c)
    await world.advance(2_000)
    const holder = world.nodes.find(({ coordinator }) => coordinator.isHeld(name)) ?? a
    const id = holder.coordinator.nodeId
    world.freeze(holder)
    world.sql(`delete from coordination_nodes where id = '${id}'`)
    const other = [a, b, c].find((node) => node !== holder) ?? a
    await Promise.all([other.coordinator.close(), world.advance(500)])
    t.equal(await world.mostHolders(name, 60_000), 1)
    t.ok(world.nodes.some((node) => node !== holder && node.coordinator.isHeld(name)))
    const asked = [a, b, c].find((node) => node !== holder && node !== other) ?? a
    const events = await asked.coordinator.operator.events({ limit: 100 })
    t.match(
      events.filter(({ type }) => type === 'rows.missed'),
      [{ subject: id }],
    )
  }
})

t.test('rows that are missed while a grace period goes on are waited for anew', async (t) => {
  const world = new World(t)
  const nodes = [
    await world.node('a'),
    await world.node('b'),
    await world.node('c'),
    await world.node('d'),
  ] as const
  const [a, b, c, d] = nodes
  for (const { coordinator } of nodes) for (const name of ['w', 'v']) coordinator.worker(untilAborted(name))
  await world.start(a, b)
  await world.advance(2_000)
  const holder = a.coordinator.isHeld('v') ? a : b
  world.sql("delete from coordination_leases where key = 'global/w'")
  await world.start(c)
  const waitMs = blockWaitMs(world.timing)
  await world.advance(waitMs - 1_000)
  t.ok(holder.coordinator.isHeld('v'))
  world.freeze(holder)
  world.sql("delete from coordination_leases where key = 'global/v'")
  await world.start(d)
  let passedMs = 0
  for (; !nodes.some((node) => node !== holder && node.coordinator.isHeld('v')); passedMs += 100) {
    await world.advance(100)
    t.ok(passedMs < 60_000, 'somebody gets it')
  }
  t.ok(passedMs > waitMs - 1_000, `nobody gets it before ${waitMs} ms, but after ${passedMs} ms`)
  t.notOk(holder.coordinator.isHeld('v'))
})

t.test(
  'a node that makes its own worker again gives greater tokens, far ahead of the clock too',
  async (t) => {
    const world = new World(t)
    const a = await world.node('a')
    const { coordinator } = a
    for (const name of ['w', 'v']) coordinator.worker(untilAborted(name))
    await world.start(a)
    world.identity = 'server-2'
    await world.advance(60_000)
    const token = async (): Promise<number> => {
      const { leases } = await coordinator.operator.snapshot()
      return leases.find(({ key }) => key === 'global/w')?.token ?? 0
    }
    const by = { actor: 'me', reason: 'to see a greater token' }
    await coordinator.operator.release({ key: 'global/w', token: await token(), cooldownMs: 0, ...by })
    await world.advance(60_000)
    const before = await token()
    world.sql("delete from coordination_leases where key = 'global/w'")
    world.sql("delete from coordination_workers where key = 'global/w'")
    await coordinator.operator.pause('global/v', by)
    await world.advance(60_000)
    t.ok(coordinator.isHeld('w'))
    t.ok((await token()) > before)
  },
)

t.test('a share whose row somebody has deleted is not passed over by the next plan', async (t) => {
  const all: WorkerDefinition = {
    name: 'all',
    kind: 'coordinated',
    scope: 'global',
    run: ({ signal }) => aborted(signal),
  }
  const [world, a, b, c] = await nodesWith(t, all)
  await world.start(a, b, c)
  await world.advance(5_000)
  const shareOf = (node: WorldNode): number =>
    [0, 1, 2].findIndex((slot) => node.coordinator.isHeld(`global/all#${slot}`))
  const share = shareOf(b)
  t.ok(share >= 0)
  world.freeze(b)
  world.sql(`delete from coordination_leases where key = 'global/all#${share}'`)
  void c.coordinator.close()
  const begun = a.history.length
  while (b.coordinator.isHeld(`global/all#${share}`)) await world.advance(100)
  t.notOk(a.history.slice(begun).includes('lease.acquired global/all#0'), 'nobody begins beside it')
  await world.advance(60_000)
  t.ok(a.coordinator.isHeld('global/all#0'))
})

t.test('a share is not passed over where a cool-down is first to name its missing holder', async (t) => {
  const all: WorkerDefinition = {
    name: 'all',
    kind: 'coordinated',
    scope: 'global',
    run: ({ signal }) => aborted(signal),
  }
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const { coordinator } of [a, b]) coordinator.worker(all)
  await world.start(a, b)
  await world.advance(1_000)
  const { operator, nodeId } = b.coordinator
  const by = { actor: 'me', reason: 'it is to cool down' }
  const shareOf = async (node: string | undefined) => {
    const { leases } = await operator.snapshot()
    const share = leases.find(({ holder }) => holder === node)
    return { key: share?.key ?? '', token: share?.token ?? 0, ...by }
  }
  for (const node of [nodeId, a.coordinator.nodeId]) {
    await operator.release({ ...(await shareOf(node)), cooldownMs: 3_600_000 })
    await world.advance(1_000)
  }
  // Both cool down, so both may have a share again, and each has that in whose row the other cools down.
  await operator.rebalance({ key: 'global/all', ...by })
  await world.advance(1_000)
  t.equal(await world.mostHolders('all', 1_000), 2)
  world.freeze(a)
  world.sql(`delete from coordination_nodes where id = '${a.coordinator.nodeId}'`)
  t.match(await operator.release({ ...(await shareOf(nodeId)), cooldownMs: 0 }), { kind: 'revoked' })
  await world.advance(50)
  t.equal(await world.mostHolders('all', 60_000), 1)
  t.ok(b.coordinator.isHeld('all'))
})

t.test('where the rows of both watchers are gone, others are named', async (t) => {
  const world = new World(t)
  const nodes = await Promise.all(['a', 'b', 'c', 'd'].map((name) => world.node(name)))
  await world.start(...nodes)
  await world.advance(5_000)
  const { meta } = await (nodes[0] as WorldNode).coordinator.operator.snapshot()
  t.equal(meta.watchers.length, 2)
  const [watchers, rest] = [
    nodes.filter(({ coordinator }) => meta.watchers.includes(coordinator.nodeId ?? '')),
    nodes.filter(({ coordinator }) => !meta.watchers.includes(coordinator.nodeId ?? '')),
  ]
  for (const node of watchers) {
    world.freeze(node)
    world.sql(`delete from coordination_nodes where id = '${node.coordinator.nodeId}'`)
  }
  const [left, dying] = rest as [WorldNode, WorldNode]
  await world.advance(world.timing.ttlMs)
  world.freeze(dying)
  await world.advance(2 * world.timing.ttlMs)
  t.ok(left.history.includes('node.gone'))
})

t.test('where the row of one watcher is gone, another is named in its place', async (t) => {
  const world = new World(t)
  const nodes = await Promise.all(['a', 'b', 'c'].map((name) => world.node(name)))
  await world.start(...nodes)
  await world.advance(5_000)
  const watchersBy = async ({ coordinator }: WorldNode): Promise<readonly string[]> =>
    (await coordinator.operator.snapshot()).meta.watchers
  const named = await watchersBy(nodes[0] as WorldNode)
  const idOf = ({ coordinator }: WorldNode): string => coordinator.nodeId ?? ''
  const [missing, other, left] = [
    nodes.find((node) => idOf(node) === named[0]),
    nodes.find((node) => idOf(node) === named[1]),
    nodes.find((node) => !named.includes(idOf(node))),
  ] as [WorldNode, WorldNode, WorldNode]
  world.freeze(missing)
  world.sql(`delete from coordination_nodes where id = '${idOf(missing)}'`)
  await world.advance(world.timing.ttlMs)
  t.same([...(await watchersBy(other))].sort(), [idOf(other), idOf(left)].sort())
})

t.test('the change that misses the row of a holder does not give its lease away', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  await world.start(a, b)
  const held = a.coordinator.acquire('name')
  await world.advance(1_000)
  t.ok((await held).held)
  world.freeze(a)
  world.sql(`delete from coordination_nodes where id = '${a.coordinator.nodeId}'`)
  const tried = b.coordinator.tryAcquire('name')
  await world.advance(1_000)
  t.equal(await tried, undefined)
  const waited = b.coordinator.acquire('name')
  t.equal(await world.mostHolders('name', 60_000), 1)
  t.ok((await waited).held)
  t.ok(b.coordinator.isHeld('name'))
})

t.test('an operator can release a lease whose holder has no row', async (t) => {
  for (const definition of [untilAborted('w'), parts(1)]) {
    const [world, a, b, c] = await nodesWith(t, definition)
    await world.start(a, b, c)
    await world.advance(2_000)
    const key = definition.kind === 'single' ? 'w' : 'global/parts#0'
    const holder = world.nodes.find(({ coordinator }) => coordinator.isHeld(key)) ?? a
    const id = holder.coordinator.nodeId
    const { operator } = (holder === b ? c : b).coordinator
    const token = (await operator.snapshot()).leases[0]?.token ?? 0
    world.freeze(holder)
    world.sql(`delete from coordination_nodes where id = '${id}'`)
    const by = { actor: 'me', reason: 'its holder is missing' }
    const order = { key: definition.kind === 'single' ? 'global/w' : key, token, immediate: true, ...by }
    t.match(await operator.release(order), { kind: 'revoked', previousHolder: id, blocked: true })
    t.match(await operator.release(order), { kind: 'stale', lease: { holder: null } })
    t.equal(await world.mostHolders(key, 60_000), 1)
    t.ok(world.nodes.some((node) => node !== holder && node.coordinator.isHeld(key)))
  }
})

t.test(
  'a worker is not given away when it is forgotten while the row of its holder is missing',
  async (t) => {
    for (const definition of [untilAborted('w'), parts(1)]) {
      const world = new World(t)
      const [a, b] = [await world.node('a'), await world.node('b')]
      await world.start(a, b)
      a.coordinator.worker(definition)
      await world.advance(2_000)
      const key = definition.kind === 'single' ? 'w' : 'global/parts#0'
      t.ok(a.coordinator.isHeld(key))
      world.freeze(a)
      world.sql(`delete from coordination_nodes where id = '${a.coordinator.nodeId}'`)
      const by = { actor: 'me', reason: 'nobody has it any more' }
      t.equal(await b.coordinator.operator.forgetWorker(`global/${definition.name}`, by), 'done')
      b.coordinator.worker(definition)
      t.equal(await world.mostHolders(key, 60_000), 1)
      t.ok(b.coordinator.isHeld(key))
    }
  },
)

for (const [name, end, tables = ['leases', 'workers']] of [
  [
    'tokens go on where the last node that has a worker stops it before it misses its rows',
    ({ stop }) => stop(),
  ],
  [
    'tokens go on where the last node that has a worker leaves before it misses its rows',
    (_handle, { coordinator }) => coordinator.close(),
  ],
  [
    'tokens go on where the last node that has a worker dies before it misses its rows',
    (_handle, node, world) => world.freeze(node),
  ],
  [
    'tokens go on where the last node that has a worker leaves and it is forgotten',
    (_handle, { coordinator }) => coordinator.close(),
    ['leases'],
  ],
] as [string, (handle: WorkerHandle, node: WorldNode, world: World) => Promise<void> | void, string[]?][])
  t.test(name, async (t) => {
    const world = new World(t)
    const [a, b] = [await world.node('a'), await world.node('b')]
    await world.start(a, b)
    const handle = a.coordinator.worker(untilAborted('w'))
    await world.advance(1_000)
    // From now on tokens lie ahead of the clock.
    world.identity = 'server-2'
    await world.advance(60_000)
    const { operator } = b.coordinator
    const token = async (): Promise<number> =>
      (await operator.snapshot()).leases.find(({ key }) => key === 'global/w')?.token ?? 0
    const by = { actor: 'me', reason: 'to see a greater token' }
    await operator.release({ key: 'global/w', token: await token(), cooldownMs: 0, ...by })
    await world.advance(60_000)
    const before = await token()
    for (const table of tables) world.sql(`delete from coordination_${table} where key = 'global/w'`)
    void end(handle, a, world)
    await world.advance(60_000)
    if (tables.length === 1) t.equal(await operator.forgetWorker('global/w', by), 'done')
    b.coordinator.worker(untilAborted('w'))
    await world.advance(60_000)
    t.ok(b.coordinator.isHeld('w'))
    t.ok((await token()) > before)
  })

t.test('a wait that began before all rows were deleted does not count for what was held then', async (t) => {
  for (const laterMs of [12_000, 15_000, 18_000]) {
    const [world, a, b] = await nodesWith(t, untilAborted('w'))
    await world.start(a)
    await world.advance(2_000)
    await world.start(b)
    world.identity = 'server-2'
    await world.advance(laterMs)
    t.ok(a.coordinator.isHeld('w'))
    world.freeze(a)
    world.wipe()
    t.equal(await world.mostHolders('w', 60_000), 1)
    t.ok(b.coordinator.isHeld('w'))
  }
})

const by = { actor: 'ops', reason: 'a good one' }

t.test('tokens go on when all rows are wiped beneath those who have seen them', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const { coordinator } of [a, b]) coordinator.worker(untilAborted('w'))
  await world.start(a, b)
  world.identity = 'server-2'
  await world.advance(60_000)
  const { operator } = a.coordinator
  const held = async () => (await operator.snapshot()).leases.find(({ key }) => key === 'global/w')
  await operator.pause('global/w', by)
  await world.advance(1_000)
  await operator.resume('global/w', by)
  await world.advance(1_000)
  const before = (await held())?.token ?? 0
  t.ok(before > 1_700_000_500_000, 'since the server was another one, tokens lie ahead of the time')
  world.wipe()
  await world.advanceUntil(async () => ((await held())?.holder ?? null) !== null, 60_000)
  t.ok(((await held())?.token ?? 0) > before)
})

t.test('a standby does not begin at once when all rows are wiped beneath a holder', async (t) => {
  for (let laterMs = 0; laterMs < 3_000; laterMs += 300) {
    const world = new World(t)
    const [a, b] = [await world.node('a'), await world.node('b')]
    for (const { coordinator } of [a, b]) coordinator.worker(untilAborted('w'))
    await world.start(a)
    await world.advance(3_000)
    await world.start(b)
    await world.advance(10_000 + laterMs)
    world.wipe()
    t.equal(await world.mostHolders('global/w', 30_000), 1)
  }
})

t.test('a lease whose row somebody has deleted is not held twice when a node makes it again', async (t) => {
  for (const name of ['w', 'v', 'u', 'z']) {
    const world = new World(t)
    const [a, b, c] = [await world.node('a'), await world.node('b'), await world.node('c')]
    for (const { coordinator } of [a, b, c]) coordinator.worker(untilAborted(name))
    await world.start(a, b)
    await world.advance(2_000)
    const token = async () => (await a.coordinator.operator.snapshot()).leases[0]?.token ?? 0
    const before = await token()
    world.sql('delete from coordination_leases')
    world.clockOffsetMs = -600_000
    await world.start(c)
    t.equal(await world.mostHolders(`global/${name}`, 60_000), 1)
    t.ok((await token()) > before)
  }
})

t.test('a node that makes rows of many workers again takes no more requests than for one', async (t) => {
  const requests: number[] = []
  for (const workers of [1, 50]) {
    const world = new World(t)
    const calls = new Map<string, number>()
    const [a, b] = [await world.node('a'), await world.node('b', { wrap: countingInChanges(calls) })]
    for (const { coordinator } of [a, b])
      for (let each = 0; each < workers; each++) coordinator.worker(untilAborted(`w${each}`))
    await world.start(a)
    await world.advance(2_000)
    world.sql('delete from coordination_leases; delete from coordination_workers')
    const started = b.coordinator.start()
    await world.advance(10)
    await started
    requests.push([...calls.values()].reduce((sum, count) => sum + count, 0))
  }
  t.equal(requests[0], requests[1])
})

t.test(
  'no two generations run when a worker whose row somebody has deleted is registered again',
  async (t) => {
    const world = new World(t)
    let atOnce = 0
    const passes = new Set<{ readonly generation: number }>()
    const run = async ({ signal, assignment: pass }: CoordinatedContext): Promise<void> => {
      passes.add(pass)
      atOnce = Math.max(atOnce, new Set([...passes].map(({ generation }) => generation)).size)
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
      passes.delete(pass)
    }
    const nodes = [await world.node('a'), await world.node('b'), await world.node('c')] as const
    for (const { coordinator } of nodes)
      coordinator.worker({
        name: 'w',
        kind: 'coordinated',
        scope: 'global',
        run,
      } as unknown as WorkerDefinition)
    await world.start(nodes[0], nodes[1])
    await world.advance(5_000)
    world.sql('delete from coordination_workers')
    await world.start(nodes[2])
    await world.advance(60_000)
    t.equal(passes.size, 3)
    t.equal(atOnce, 1)
  },
)

t.test('a node does not claim again and again what its worker does not fit', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const refused: string[] = []
  a.coordinator.on('worker.refused', ({ worker }) => refused.push(worker))
  a.coordinator.worker(untilAborted('w', { kind: 'partitioned', partitions: 3 }))
  b.coordinator.worker(untilAborted('w', { kind: 'partitioned', partitions: 1 }))
  await world.start(a)
  await world.advance(2_000)
  world.sql('delete from coordination_workers')
  await world.start(b)
  await world.advance(60_000)
  t.same(refused, ['global/w'], 'once another node has said otherwise')
  const { operator } = a.coordinator
  const { revision } = (await operator.snapshot()).meta
  await world.advance(10_000)
  t.ok((await operator.snapshot()).meta.revision <= revision + 2)
  const closed = b.coordinator.close()
  await world.advance(60_000)
  await closed
  t.equal(a.coordinator.health().held.length, 3)
})
