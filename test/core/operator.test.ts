import t, { type Test } from 'tap'
import * as membership from '../../plugin/core/changes/membership.js'
import { forget, forgetWorker, rebalance, transfer } from '../../plugin/core/changes/operations.js'
import type { Store } from '../../plugin/core/store.js'
import { blockWaitMs } from '../../plugin/core/time/timing.js'
import type { PassContext, WorkerDefinition } from '../../plugin/core/work/worker.js'
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
import { Link } from '../../plugin/testing/link.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'
import { untilAborted } from '../support/workers.js'
import { holders, World, type WorldNode } from '../support/world.js'
import { counting } from '../support/wrapped-store.js'

const by = { actor: 'ops', reason: 'a good one' }

async function tokenOf(node: WorldNode, key: string): Promise<number> {
  const { leases } = await node.coordinator.status()
  return leases.find((lease) => lease.key === key)?.token ?? 0
}

async function startedWith(t: Test, definition: () => WorkerDefinition) {
  const world = new World(t)
  const nodes = [await world.node('a'), await world.node('b'), await world.node('c')] as const
  for (const node of nodes) node.coordinator.worker(definition())
  await world.start(...nodes)
  await world.advance(1_000)
  return { world, nodes }
}

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

t.test('a target that cools down gives way to another candidate, unless it holds the lease', async (t) => {
  const store = new MemoryDatabase().open({ namespace: 'default', statementTimeoutMs: 30_000 })
  await join(store, ['a', 'b'])
  await commit(store, async (change) => {
    for (const id of ['a', 'b']) await change.updateNode(id, { workers: ['w'] })
    await change.saveWorkers([newWorker('w')])
  })
  const cooling = { worker: 'w', target: 'a', cooldownNode: 'a', cooldownUntilMs: Date.now() + 600_000 }
  const planned = async (more: object) => {
    await saveLeases(store, newLease('w', { ...cooling, ...more }))
    await store.change(undefined, (change) =>
      rebalance(change, 'w', { ...by, dryRun: false, revision: null }),
    )
    return (await leaseOf(store, 'w')).target
  }
  t.equal(await planned({}), 'b')
  t.equal(await planned({ holder: 'a', token: 7 }), 'a')
})

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

t.test(
  'a lease that is transferred to whoever comes next does not go to a node that cools down',
  async (t) => {
    const nowMs = 1_700_000_000_000
    const database = new MemoryDatabase({ nowMs: () => nowMs })
    const store = database.open({ namespace: 'default', statementTimeoutMs: 30_000 })
    const names = Array.from({ length: 10 }, (_, index) => `worker-${index}`)
    await join(store, ['a', 'b', 'c'], { workers: names })
    await commit(store, (change) => change.saveWorkers(names.map((name) => newWorker(name))))
    const cooling = { cooldownNode: 'b', cooldownUntilMs: nowMs + 3_600_000 }
    for (const key of names) {
      await saveLeases(store, newLease(key, { worker: key, holder: 'a', target: 'a', token: 7, ...cooling }))
      const order = { key, token: 7, to: null, cooldownMs: 0, ...by }
      await store.change(undefined, (change) => transfer(change, order))
      t.equal((await leaseOf(store, key)).target, 'c', key)
    }
  },
)

t.test(
  'a partition does not come back to the node it was taken from while that one cools down',
  async (t) => {
    const { world, nodes } = await startedWith(t, () =>
      untilAborted('consumer', { kind: 'partitioned', partitions: 3 } as Partial<WorkerDefinition>),
    )
    const [a, b] = nodes
    const id = a.coordinator.nodeId
    const own = async () => (await b.coordinator.status()).leases.filter(({ holder }) => holder?.id === id)
    const [lease] = await own()
    const { key = '', token = 0 } = lease ?? {}
    await b.coordinator.operator.release({ key, token, cooldownMs: 60_000, ...by })
    await world.advance(1_000)
    t.same(await own(), [])
    t.equal(holders(world.nodes, key).length, 1, 'another node has it')
    await b.coordinator.operator.rebalance({ key: 'global/consumer', ...by })
    await world.advance(1_000)
    t.same(await own(), [], 'nor does a new plan bring it back')
    await world.advance(60_000)
    await b.coordinator.operator.rebalance({ key: 'global/consumer', ...by })
    await world.advance(1_000)
    t.equal((await own()).length, 1, 'afterwards it may')
  },
)

t.test('a shorter cool-down of the next holder does not end a longer one', async (t) => {
  for (const kind of ['single', 'partitioned', 'coordinated'] as const)
    await t.test(kind, async (t) => {
      const stepDown = new Map<string, () => void>()
      const { world, nodes } = await startedWith(t, () =>
        untilAborted('poisoned', {
          kind,
          ...(kind === 'partitioned' ? { partitions: 6 } : {}),
          run: (context: PassContext) => {
            stepDown.set(context.lease.key, () => context.stepDown(30_000))
            return new Promise<void>((resolve) =>
              context.signal.addEventListener('abort', () => resolve(), { once: true }),
            )
          },
        } as Partial<WorkerDefinition>),
      )
      const heldBy = (name: string) =>
        nodes
          .filter((node) => node.name === name)
          .flatMap((node) => keys.filter((key) => node.coordinator.isHeld(key)))
      const { leases } = await nodes[0].coordinator.status()
      const keys = leases.map(({ key }) => key)
      const first = leases[0]?.holder?.name ?? ''
      const taken = heldBy(first)
      // It may be given other partitions, but no other share.
      const won = () => heldBy(first).filter((key) => kind === 'coordinated' || taken.includes(key))
      const others = nodes.filter(({ name }) => name !== first)
      const [observer] = others
      // Of two that might lead, the one with fewer leases would.
      for (const { name, coordinator } of others) await coordinator.acquire(`of-${name}`)
      for (const key of taken)
        await observer?.coordinator.operator.release({
          ...{ key, token: await tokenOf(observer, key), cooldownMs: 3_600_000 },
          ...by,
        })
      await world.advance(1_000)
      for (const key of taken) stepDown.get(key)?.()
      await world.advance(1_000)
      t.same(won(), [], 'a third node is a candidate')
      await observer?.coordinator.operator.rebalance({ key: 'global/poisoned', ...by })
      await world.advance(60_000)
      await observer?.coordinator.operator.rebalance({ key: 'global/poisoned', ...by })
      await world.advance(1_000)
      t.same(won(), [], 'the cool-down of the second is over, that of the first is not')
      const [holder] = taken.flatMap((key) => holders(world.nodes, key))
      const third = nodes.find(({ name }) => name === holder)?.coordinator.nodeId ?? ''
      await observer?.coordinator.operator.drain(third, by)
      await world.advance(1_000)
      t.same(won(), [])
      t.ok(
        taken.some((key) => holders(world.nodes, key).length > 0),
        'but the second wins again',
      )
    })
})

/** Nodes that are candidates for one worker, and the steps by which its lease goes from one to the next. */
async function withStepDown(t: Test, names: readonly string[], kind: WorkerDefinition['kind'] = 'single') {
  const world = new World(t)
  let stepDown: PassContext['stepDown'] = () => undefined
  const definition = untilAborted('poisoned', {
    kind,
    run: (context: PassContext) => {
      stepDown = context.stepDown
      return new Promise<void>((resolve) =>
        context.signal.addEventListener('abort', () => resolve(), { once: true }),
      )
    },
  } as Partial<WorkerDefinition>)
  const nodes = await Promise.all(names.map((name) => world.node(name)))
  for (const { coordinator } of nodes) coordinator.worker(definition)
  await world.start(...nodes)
  await world.advance(1_000)
  const key = kind === 'single' ? 'global/poisoned' : 'global/poisoned#0'
  const holder = (): WorldNode => nodes.find(({ coordinator }) => coordinator.isHeld(key)) as WorldNode
  const release = async (from: WorldNode, how: { cooldownMs?: number; immediate?: boolean }) => {
    const token = await tokenOf(from, key)
    await from.coordinator.operator.release({ key, token, ...how, ...by })
    await world.advance(1_000)
  }
  const stepsDown = async (cooldownMs: number) => {
    stepDown(cooldownMs)
    await world.advance(1_000)
  }
  return { world, nodes, key, holder, release, stepsDown }
}

t.test('a shorter cool-down of the same node does not end a longer one', async (t) => {
  const { world, nodes, holder, release, stepsDown } = await withStepDown(t, ['a', 'b', 'c'])
  const first = holder()
  await release(first, { cooldownMs: 3_600_000 })
  const others = nodes.filter((node) => node !== first)
  const { operator } = first.coordinator
  const idOf = ({ coordinator }: WorldNode): string => coordinator.nodeId ?? ''
  for (const node of others) await operator.drain(idOf(node), by)
  await world.advance(1_000)
  t.equal(holder(), first, 'there is no other candidate')
  for (const node of others) await operator.undrain(idOf(node), by)
  await world.advance(1_000)
  await stepsDown(30_000)
  const second = holder()
  t.not(second, first)
  // Of two that might lead, the one with fewer leases would.
  for (const node of others) await node.coordinator.acquire(`of-${node.name}`)
  await world.advance(60_000)
  await stepsDown(30_000)
  t.equal(
    holder(),
    others.find((node) => node !== second),
    'the hour is not over',
  )
})

t.test('a release that is made immediate keeps the cool-down that was asked for', async (t) => {
  const { nodes, key, holder, release } = await withStepDown(t, ['a', 'b'])
  const first = holder()
  const [other = first] = nodes.filter((node) => node !== first)
  const { operator } = other.coordinator
  const token = await tokenOf(other, key)
  await operator.release({ key, token, cooldownMs: 3_600_000, ...by })
  t.match(await operator.release({ key, token, immediate: true, ...by }), { kind: 'revoked' })
  const { leases, nowMs } = await operator.snapshot()
  t.ok((leases.find((lease) => lease.key === key)?.cooldownUntilMs ?? 0) - nowMs > 3_000_000)
  await release(other, {})
})

t.test('the cool-down of a node that has gone does not hide that of another', async (t) => {
  const { world, nodes, holder, release, stepsDown } = await withStepDown(t, ['a', 'b', 'c', 'd'])
  const first = holder()
  await release(first, { cooldownMs: 3_600_000 })
  await Promise.all([first.coordinator.close(), world.advance(1_000)])
  const second = holder()
  const [fourth = first] = nodes.filter((node) => node !== first && node !== second)
  // Of two that might lead, the one with fewer leases would.
  for (const name of ['x', 'y']) await fourth.coordinator.acquire(name)
  await stepsDown(30_000)
  const third = holder()
  t.notOk([first, second, fourth].includes(third))
  await stepsDown(30_000)
  t.equal(holder(), fourth, 'both others have stepped down a moment ago')
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

t.test('whom an operator names as next gets the lease, though it was to cool down for it', async (t) => {
  for (const kind of ['single', 'partitioned'] as const)
    await t.test(kind, async (t) => {
      let isSlow = false
      let handOver: () => void = () => undefined
      const run = ({ signal }: PassContext): Promise<void> =>
        new Promise((resolve) => {
          const ended = (): void => {
            if (isSlow) handOver = resolve
            else resolve()
          }
          signal.addEventListener('abort', ended, { once: true })
        })
      const partitions = kind === 'partitioned' ? { partitions: 1 } : {}
      const definition = untilAborted('poisoned', { kind, ...partitions, run } as Partial<WorkerDefinition>)
      const world = new World(t)
      const [a, b, c] = [await world.node('a'), await world.node('b'), await world.node('c')]
      for (const { coordinator } of [a, b, c]) coordinator.worker(definition)
      await world.start(a, b)
      await world.advance(1_000)
      const key = kind === 'single' ? 'global/poisoned' : 'global/poisoned#0'
      const { operator } = a.coordinator
      const order = async () => ({ key, token: await tokenOf(a, key), ...by })
      const [first, second] = a.coordinator.isHeld(key) ? [a, b] : [b, a]
      await operator.release({ ...(await order()), cooldownMs: 3_600_000 })
      await world.advance(1_000)
      t.same(holders(world.nodes, key), [second.name])
      isSlow = true
      const to = first.coordinator.nodeId ?? ''
      t.match(await operator.transfer({ ...(await order()), to }), { kind: 'asked', to })
      await world.start(c)
      isSlow = false
      handOver()
      await world.advance(1_000)
      t.same(holders(world.nodes, key), [first.name], 'also where nodes join before it is handed over')
    })
})

t.test('who steps down has no share at once again, though all others cool down', async (t) => {
  const { world, nodes, holder, release, stepsDown } = await withStepDown(t, ['a', 'b'], 'coordinated')
  const first = holder()
  await release(first, { cooldownMs: 3_600_000 })
  const [second = first] = nodes.filter((node) => node !== first)
  t.same(holders(world.nodes, 'poisoned'), [second.name])
  await stepsDown(30_000)
  t.same(holders(world.nodes, 'poisoned'), [first.name])
})

t.test('a candidate that does not claim gives way, even to one that cools down', async (t) => {
  const world = new World(t)
  const links: Link[] = []
  const linked = (store: Store): Link => {
    const link = new Link(store)
    links.push(link)
    return link
  }
  const a = await world.node('a')
  const b = await world.node('b', { wrap: linked })
  for (const node of [a, b]) {
    node.coordinator.worker(untilAborted('month-close'))
    await world.start(node)
  }
  const key = 'global/month-close'
  t.same(holders(world.nodes, key), ['a'])
  links[0]?.cut()
  const order = { key, token: await tokenOf(a, key), cooldownMs: 3_600_000 }
  t.match(await a.coordinator.operator.release({ ...order, ...by }), { kind: 'revoked' })
  await world.advance(1_000)
  t.same(holders(world.nodes, key), [], 'the other may still claim')
  await world.advance(5_000)
  t.same(holders(world.nodes, key), ['a'])
  links[0]?.mend()
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
