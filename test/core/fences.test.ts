/** Tests what waits while a user's transaction holds the row of a lease, and goes on afterwards. */
import t, { type Test } from 'tap'
import { runChange } from '../../plugin/core/changes/run-change.js'
import { untilAborted } from '../support/workers.js'
import { holders, World } from '../support/world.js'
import { fenced } from '../support/wrapped-store.js'

const by = { actor: 'ops', reason: 'a good one' }

/** Starts `a`, which holds the lease `k`, and `b`. */
async function holderAndWaiter(t: Test, fences: ReadonlySet<string>) {
  const world = new World(t)
  const a = await world.node('a', { wrap: fenced(fences) })
  const b = await world.node('b', { wrap: fenced(fences) })
  await world.start(a, b)
  const lease = await a.coordinator.tryAcquire('k')
  return { world, a, b, release: () => void lease?.release() }
}

t.test('a drained node hands over a lease that was fenced when it was drained', async (t) => {
  const world = new World(t)
  const fences = new Set<string>()
  const a = await world.node('a', { wrap: fenced(fences) })
  const b = await world.node('b', { wrap: fenced(fences) })
  for (const n of [a, b]) n.coordinator.worker(untilAborted('w'))
  await world.start(a, b)
  await world.advance(1_000)
  t.ok(a.coordinator.isHeld('w'))
  fences.add('global/w')
  await b.coordinator.operator.drain(a.coordinator.nodeId ?? '', by)
  await world.advance(1_000)
  fences.clear()
  await world.advance(20_000)
  t.same(holders(world.nodes, 'w'), ['b'], 'the drained node has handed over')
})

t.test('a pause reaches a holder whose lease was fenced when it was ordered', async (t) => {
  const world = new World(t)
  const fences = new Set<string>()
  const a = await world.node('a', { wrap: fenced(fences) })
  a.coordinator.worker(untilAborted('w'))
  await world.start(a)
  await world.advance(1_000)
  fences.add('global/w')
  await a.coordinator.operator.pause('global/w', by)
  await world.advance(1_000)
  t.match(a.history, ['lease.acquired global/w', 'lease.ended global/w paused'])
  fences.clear()
  await world.advance(20_000)
  t.equal((await a.coordinator.status()).leases[0]?.holder, null, 'it is given back once the fence is gone')
})

t.test('a block is acknowledged once, when the fence of its row has ended', async (t) => {
  const fences = new Set<string>()
  const { world, a, b, release } = await holderAndWaiter(t, fences)
  await world.advance(500)
  const { leases } = await a.coordinator.operator.snapshot()
  const token = leases[0]?.token ?? 0
  await b.coordinator.operator.release({ key: 'global/k', token, ...by })
  fences.add('global/k')
  await world.advance(500)
  release()
  await world.advance(3_000)
  const acknowledged = async () =>
    (await a.coordinator.operator.events({ limit: 100 })).filter(({ type }) => type === 'lease.acknowledged')
  t.same(await acknowledged(), [])
  fences.clear()
  await world.advance(500)
  t.equal((await acknowledged()).length, 1)
})

t.test('a cool-down that is too long is left alone while its row is fenced', async (t) => {
  const fences = new Set<string>()
  const { world, a, b } = await holderAndWaiter(t, fences)
  const lease = (await a.coordinator.operator.snapshot()).leases[0]
  if (lease === undefined) throw new Error('there is no lease')
  const cooldown = { cooldownNode: 'x', cooldownUntilMs: 9e12 }
  await runChange(a.store, undefined, 0, (change) => change.saveLeases([{ ...lease, ...cooldown }]))
  const shortened = async () =>
    (await a.coordinator.operator.events({ limit: 100 })).filter(({ type }) => type === 'cooldown.shortened')
  fences.add('global/k')
  void b.coordinator.acquire('k').catch(() => undefined)
  await world.advance(1_000)
  t.same(await shortened(), [])
  fences.clear()
  await world.advance(500)
  t.equal((await shortened()).length, 1)
})

t.test('who asks for a lease while its row is fenced gets it once it is free', async (t) => {
  const fences = new Set(['global/k'])
  const { world, b, release } = await holderAndWaiter(t, fences)
  const answers: string[] = []
  void b.coordinator.acquire('k').then(() => answers.push('acquired'))
  void b.coordinator.acquire('k', { timeoutMs: 0 }).catch(({ code }) => answers.push(code))
  await world.advance(500)
  t.same(answers, ['WCO_ACQUIRE_TIMEOUT'], 'who does not wait is declined')
  fences.clear()
  await world.advance(300)
  const { leases } = await b.coordinator.operator.snapshot()
  t.same(leases[0]?.waiters, [b.coordinator.nodeId], 'it stands in the queue')
  release()
  await world.advance(500)
  t.ok(b.coordinator.isHeld('k'))
})
