/** Tests cool-downs: whom a lease is kept from, for how long, and when one gives way. */
import t, { type Test } from 'tap'
import { rebalance, transfer } from '../../plugin/core/changes/operations.js'
import type { Store } from '../../plugin/core/store.js'
import type { PassContext, WorkerDefinition } from '../../plugin/core/work/worker.js'
import {
  commit,
  join,
  leaseOf,
  newLease,
  newWorker,
  saveLeases,
} from '../../plugin/testing/conformance/world.js'
import { Link } from '../../plugin/testing/link.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'
import { untilAborted } from '../support/workers.js'
import { holders, startedWith, tokenOf, World, type WorldNode } from '../support/world.js'

const by = { actor: 'ops', reason: 'a good one' }

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
