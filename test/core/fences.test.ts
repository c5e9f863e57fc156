/** Tests what waits while a user's transaction holds the row of a lease, and goes on afterwards. */
import t, { type Test } from 'tap'
import { runChange } from '../../plugin/core/changes/run-change.js'
import { lookEveryMs } from '../../plugin/core/time/timing.js'
import { untilAborted } from '../support/workers.js'
import { holders, tokenOf, World, type WorldNode } from '../support/world.js'
import { around, counting, failing, fenced, type Wrap } from '../support/wrapped-store.js'

const by = { actor: 'ops', reason: 'a good one' }

/** Starts `a`, which holds the lease `k`, and `b`. */
async function holderAndWaiter(t: Test, fences: ReadonlySet<string>, watched: Wrap = (store) => store) {
  const world = new World(t)
  const wrap: Wrap = (store) => watched(fenced(fences)(store))
  const a = await world.node('a', { wrap })
  const b = await world.node('b', { wrap })
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

t.test('who could not claim because of a fence is not passed over when that ends', async (t) => {
  const world = new World(t)
  const fences = new Set<string>()
  const key = 'global/w'
  let endsWithNextLook = false
  const looked = around((run) => {
    if (endsWithNextLook) fences.delete(key)
    return run()
  }, 'look')
  const wrap: Wrap = (store) => looked(fenced(fences)(store))
  const nodes = await Promise.all(['a', 'b', 'c'].map((name) => world.node(name, { wrap })))
  for (const { coordinator } of nodes) coordinator.worker(untilAborted('w'))
  const [a, b, c] = nodes as [WorldNode, WorldNode, WorldNode]
  await world.start(c, b, a)
  await world.advanceUntil(() => c.coordinator.isHeld('w'), 1_000)
  const { operator, nodeId = '' } = a.coordinator
  const token = (await operator.snapshot()).leases.find((lease) => lease.key === key)?.token ?? 0
  world.freeze(c)
  await operator.transfer({ key, token, to: nodeId, ...by })
  fences.add(key)
  await world.advance(60_000)
  endsWithNextLook = true
  await world.advanceUntil(() => !fences.has(key), 10_000)
  await world.advance(2 * world.timing.pollMs)
  t.ok(a.coordinator.isHeld('w'))
  const events = await operator.events({ limit: 1_000 })
  t.same(
    events.filter(({ type }) => type === 'target.passed-over'),
    [],
  )
})

t.test('who is gone when a fence ends is given no more time to claim', async (t) => {
  const world = new World(t)
  const fences = new Set<string>()
  const outage = { on: false }
  const key = 'global/w'
  const dying: Wrap = (store) => failing(outage)(fenced(fences)(store))
  const [a, b, c, d] = [
    await world.node('a', { wrap: fenced(fences) }),
    await world.node('b', { wrap: fenced(fences) }),
    await world.node('c', { wrap: dying }),
    await world.node('d', { wrap: dying }),
  ]
  for (const { coordinator } of [a, b, c, d]) coordinator.worker(untilAborted('w'))
  await world.start(c, a, b, d)
  await world.advanceUntil(() => c.coordinator.isHeld('w'), 1_000)
  const { operator } = a.coordinator
  const token = await tokenOf(a, key)
  world.freeze(c)
  await operator.transfer({ key, token, to: d.coordinator.nodeId ?? '', ...by })
  fences.add(key)
  outage.on = true
  await world.advance(60_000)
  t.match((await operator.snapshot()).leases, [{ target: /^d/ }], 'it could not be given another target')
  fences.clear()
  await world.advanceUntil(() => a.coordinator.isHeld('w') || b.coordinator.isHeld('w'), 1_500)
  outage.on = false
})

t.test('who is kept from claiming tries again often until a watcher may know of the fence', async (t) => {
  const fences = new Set<string>()
  const tries: number[] = []
  const noting: Wrap = (store) =>
    around((run) => {
      if (fences.size > 0) tries.push(a.clock.read().monoMs)
      return run()
    }, 'change')(store)
  const { world, a, release } = await holderAndWaiter(t, fences, noting)
  fences.add('global/k')
  release()
  const { claimTimeoutMs } = world.timing
  await world.advance(claimTimeoutMs + lookEveryMs(world.timing))
  t.ok(tries.length > 2)
  const gaps = tries.slice(1).map((atMs, place) => atMs - (tries[place] ?? 0))
  t.ok(Math.max(...gaps) <= 300, `every ${Math.max(...gaps)} ms at least`)
})

t.test('what a fence keeps from being done is tried ever less often', async (t) => {
  const calls = new Map<string, number>()
  const fences = new Set<string>()
  const { world, a, release } = await holderAndWaiter(t, fences, counting(calls))
  fences.add('global/k')
  release()
  await world.advance(30_000)
  calls.clear()
  await world.advance(60_000)
  const { heartbeatMs } = world.timing
  const changes = calls.get('change') ?? 0
  t.ok(changes > 0)
  t.ok(changes <= 60_000 / heartbeatMs + 1, `once in a heartbeat at most: ${changes}`)
  fences.clear()
  await world.advance(heartbeatMs)
  t.equal((await a.coordinator.operator.snapshot()).leases[0]?.holder, null)
})
