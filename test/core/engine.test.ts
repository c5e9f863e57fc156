import t from 'tap'
import { silentLog } from '../../plugin/core/log.js'
import { resolveTiming } from '../../plugin/core/time/timing.js'
import type { Lease } from '../../plugin/core/work/lease.js'
import type { Assignment, PassContext, WorkerDefinition } from '../../plugin/core/work/worker.js'
import { gate, rejectionOf } from '../../plugin/testing/conformance/world.js'
import { aborted, untilAborted } from '../support/workers.js'
import { holders, World, type WorldNode } from '../support/world.js'
import { answeringLate, counting, failing } from '../support/wrapped-store.js'

function caught(work: () => void): unknown {
  try {
    return void work()
  } catch (error) {
    return error
  }
}

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

t.test('a node that stands still is buried after a ttl, and its work goes to another', async (t) => {
  const world = new World(t)
  const lines: string[] = []
  const log = { ...silentLog, warn: (_fields: object, line: string) => void lines.push(line) }
  const [a, b, c] = [await world.node('a'), await world.node('b', { log }), await world.node('c', { log })]
  for (const node of [a, b, c]) node.coordinator.worker(untilAborted('month-close'))
  await world.start(a, b, c)
  world.freeze(a)
  await world.advance(world.timing.ttlMs - 1_000)
  t.same(holders([b, c], 'month-close'), [], 'nobody takes over while the old leader may still trust')
  await world.advance(world.timing.ttlMs / 10 + 2_500)
  t.equal(holders([b, c], 'month-close').length, 1)
  t.same(lines, ['another node is gone: the heartbeat of a stood still for a ttl'])
  world.thaw(a)
  t.notOk(a.coordinator.isHeld('month-close'), 'the one that stood still knows at once')
  await world.advance(5_000)
  t.ok(a.history.includes('trust.expired'))
  t.ok(a.history.includes('session.lost'))
  t.equal(holders(world.nodes, 'month-close').length, 1, 'it joined again and took nothing back')
})

t.test('a node with a longer ttl is judged by that, whatever the ttl of those who watch', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const patient = await world.node('patient', { timing: resolveTiming({ ttlMs: 60_000 }) })
  patient.coordinator.worker(untilAborted('month-close'))
  await world.start(a, b, patient)
  a.coordinator.worker(untilAborted('month-close'))
  await world.advance(500)
  world.freeze(patient)
  await world.advance(world.timing.ttlMs * 3)
  t.same(holders([a, b], 'month-close'), [], 'it may still trust, and nobody buries it')
  await world.advance(20_000)
  t.same(holders([a, b], 'month-close'), ['a'])
  world.thaw(patient)
})

t.test('both watchers may die, and all nodes but one', async (t) => {
  const world = new World(t)
  const nodes = await Promise.all(['a', 'b', 'c', 'd'].map((name) => world.node(name)))
  for (const node of nodes) node.coordinator.worker(untilAborted('month-close'))
  await world.start(...nodes)
  const [a, b, c, d] = nodes as [WorldNode, WorldNode, WorldNode, WorldNode]
  for (const node of [a, b, c]) world.freeze(node)
  const { ttlMs, heartbeatMs } = world.timing
  const buried = (): number => d.history.filter((line) => line === 'node.gone').length
  await world.advance(ttlMs * 0.9)
  t.equal(buried(), 0)
  await world.advance(ttlMs * 0.11 + heartbeatMs * 1.1 + 500)
  t.ok(buried() >= 2, 'the last one buries both watchers')
  await world.advance(heartbeatMs * 1.1)
  t.equal(buried(), 3, 'and whoever died with them two heartbeats after a ttl, not two of those')
  t.same(holders([d], 'month-close'), ['d'])
})

t.test('who hears nothing of the watchers looks at others, until they turn out to live', async (t) => {
  const world = new World(t)
  const calls = new Map<string, number>()
  const looks = (): number => calls.get('beats') ?? 0
  const watchers = await Promise.all(['a', 'b'].map((name) => world.node(name)))
  const others = await Promise.all(['c', 'd'].map((name) => world.node(name, { wrap: counting(calls) })))
  const silent = await world.node('e')
  const nodes = [...watchers, ...others, silent]
  await world.start(...nodes)
  const { ttlMs, heartbeatMs } = world.timing
  await world.advance(ttlMs)
  t.equal(looks(), 0, 'nobody does while all is well')
  for (const node of [...watchers, silent]) world.freeze(node)
  await world.advance(heartbeatMs * 2.2)
  t.ok(looks() > 0)
  for (const node of watchers) world.thaw(node)
  await world.advance(heartbeatMs * 1.2)
  const asked = looks()
  await world.advance(ttlMs / 2)
  t.equal(looks(), asked, 'somebody else is silent still, and it is for the watchers to look')
  world.thaw(silent)
  await world.advance(ttlMs * 2)
  t.equal(looks(), asked)
  t.same(
    nodes.flatMap(({ history }) => history.filter((line) => line === 'node.gone')),
    [],
  )
})

t.test(
  'a node whose ttl is shorter does not take the rarer heartbeats of watchers for silence',
  async (t) => {
    const world = new World(t)
    const calls = new Map<string, number>()
    const timing = resolveTiming({ ttlMs: 60_000 })
    const patient = await Promise.all(['a', 'b'].map((name) => world.node(name, { timing })))
    const hasty = await world.node('c', { wrap: counting(calls) })
    await world.start(...patient, hasty)
    await world.advance(timing.ttlMs * 4)
    t.ok((calls.get('heartbeat') ?? 0) > 30)
    t.notOk(calls.get('beats'))
  },
)

t.test('a database that is away is not asked without pause by those who watch', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const calls = new Map<string, number>()
  const a = await world.node('a', { wrap: (store) => counting(calls)(failing(outage)(store)) })
  const [b, c] = [await world.node('b'), await world.node('c')]
  await world.start(a, b, c)
  const { ttlMs } = world.timing
  await world.advance(ttlMs)
  outage.on = true
  calls.clear()
  await world.advance(ttlMs * 4)
  const asked = [...calls.values()].reduce((sum, count) => sum + count, 0)
  t.ok(asked > 40 && asked < 200, `it was asked ${asked} times in four ttls`)
})

t.test('who is alone looks as often as it beats, and at once when somebody comes', async (t) => {
  const world = new World(t)
  const calls = new Map<string, number>()
  const looks = (): number => calls.get('look') ?? 0
  const a = await world.node('a', { wrap: counting(calls) })
  await world.start(a)
  const { ttlMs, heartbeatMs } = world.timing
  await world.advance(heartbeatMs)
  calls.clear()
  await world.advance(heartbeatMs * 6)
  t.ok(looks() >= 5 && looks() <= 7, `${looks()} looks`)
  const b = await world.node('b')
  calls.clear()
  await world.start(b)
  await world.advance(100)
  t.ok(looks() >= 1, 'before its own next heartbeat')
  world.freeze(b)
  await world.advance(ttlMs * 1.01 + ttlMs / 10)
  t.ok(a.history.includes('node.gone'), 'and then the other is found as soon as by any watcher')
  calls.clear()
  await world.advance(heartbeatMs * 6)
  t.ok(looks() >= 5 && looks() <= 7, `${looks()} looks once it is alone again`)
})

t.test('a start waits for a database that is away, for two ttls', async (t) => {
  const world = new World(t)
  const outage = { on: true }
  const a = await world.node('a', { wrap: failing(outage) })
  const { ttlMs, heartbeatMs } = world.timing
  const started = a.coordinator.start()
  await world.advance(ttlMs * 1.9)
  t.equal(a.coordinator.state, 'starting')
  outage.on = false
  await world.advance(heartbeatMs)
  await started
  t.equal(a.coordinator.state, 'running')

  outage.on = true
  const b = await world.node('b', { wrap: failing(outage) })
  const refused = t.rejects(b.coordinator.start(), { code: 'WCO_STORE' })
  await world.advance(ttlMs * 2 + heartbeatMs)
  await refused
  t.equal(b.coordinator.state, 'idle', 'it may be tried again')
  outage.on = false
  await world.start(b)
  t.equal(b.coordinator.state, 'running')
})

t.test('shares of a coordinated worker: no two generations run at once', async (t) => {
  const world = new World(t)
  const running = new Map<string, Assignment>()
  const seen: string[] = []
  const define = (name: string): WorkerDefinition => ({
    name: 'data',
    kind: 'coordinated',
    scope: 'global',
    run: async ({ assignment, signal }) => {
      running.set(name, assignment)
      const generations = new Set([...running.values()].map((each) => each.generation))
      const indices = new Set([...running.values()].map((each) => each.index))
      if (generations.size > 1 || indices.size < running.size)
        seen.push(`overlap ${JSON.stringify([...running])}`)
      await aborted(signal)
      running.delete(name)
    },
  })
  const nodes = [await world.node('a'), await world.node('b'), await world.node('c')]
  for (const node of nodes) node.coordinator.worker(define(node.name))
  await world.start(...nodes)
  await world.advance(500)
  t.same([...running.values()].map((each) => [each.index, each.count]).sort(), [
    [0, 3],
    [1, 3],
    [2, 3],
  ])
  const closed = nodes[1]?.coordinator.close()
  await world.advance(500)
  await closed
  t.same([...running].map(([name, each]) => [name, each.index, each.count]).sort(), [
    ['a', 0, 2],
    ['c', 1, 2],
  ])
  t.same(seen, [])
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

t.test('leases by name: one holds, the others wait their turn, and trying is an answer', async (t) => {
  const world = new World(t)
  const [a, b, c] = [await world.node('a'), await world.node('b'), await world.node('c')]
  await world.start(a, b, c)
  const first = await a.coordinator.tryAcquire('rebuild')
  t.ok(first?.held)
  t.equal(await b.coordinator.tryAcquire('rebuild'), undefined)
  t.equal(await a.coordinator.tryAcquire('rebuild'), undefined, 'not even this node twice')
  const [row] = (await a.store.snapshot()).leases
  t.same(row?.waiters, [], 'who only tries does not queue')
  const order: string[] = []
  const second = b.coordinator.acquire('rebuild').then((lease) => {
    order.push('b')
    return lease
  })
  await world.advance(100)
  const third = c.coordinator.acquire('rebuild').then((lease) => {
    order.push('c')
    return lease
  })
  await world.advance(100)
  t.same(order, [])
  await first?.release()
  t.notOk(first?.held)
  await world.advance(100)
  t.same(order, ['b'])
  const held = await second
  t.ok(held.token > (first?.token ?? 0))
  await held.release()
  await world.advance(100)
  t.same(order, ['b', 'c'])
  await (await third).release()
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

t.test('waiting for a lease ends by its timeout and its signal', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  await world.start(a, b)
  const held = await a.coordinator.acquire('rebuild')
  const timedOut = t.rejects(b.coordinator.acquire('rebuild', { timeoutMs: 1_000 }), {
    code: 'WCO_ACQUIRE_TIMEOUT',
  })
  const controller = new AbortController()
  const stopped = t.rejects(b.coordinator.acquire('rebuild', { signal: controller.signal }), {
    message: 'enough',
  })
  await world.advance(1_100)
  controller.abort(new Error('enough'))
  await Promise.all([timedOut, stopped])
  await world.advance(100)
  await held.release()
  const status = await a.coordinator.status()
  t.match(status.leases, [{ key: 'global/rebuild', state: 'free', waiting: 0 }])
})

t.test('a lease that is free is acquired without time to wait, and one that is held is not', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const a = await world.node('a')
  const b = await world.node('b', {
    wrap: failing(outage, 'change'),
  })
  await world.start(a, b)
  const atOnce = async (node: WorldNode): Promise<unknown> => {
    const outcome = node.coordinator.acquire('rebuild', { timeoutMs: 0 }).catch((error: unknown) => error)
    await world.advance(100)
    return outcome
  }
  const held = (await atOnce(a)) as Lease
  t.ok(held.held)
  const refused = {
    code: 'WCO_ACQUIRE_TIMEOUT',
    message:
      /^The lease "global\/rebuild" could not be acquired at once: it is held, another node is next, or /,
  }
  t.match(await atOnce(b), refused)
  t.match(await atOnce(a), refused, 'also by another caller of the same process')
  t.match((await a.coordinator.status()).leases, [{ waiting: 0 }], 'nobody is in the queue')
  const aborted = new AbortController()
  aborted.abort(new Error('enough'))
  await t.rejects(a.coordinator.acquire('rebuild', { timeoutMs: 0, signal: aborted.signal }), {
    message: 'enough',
  })
  void held.release()
  await world.advance(500)
  outage.on = true
  t.match(await atOnce(b), {
    code: 'WCO_ACQUIRE_TIMEOUT',
    message: /: the database does not answer\.$/,
    cause: { code: 'WCO_STORE' },
  })
  outage.on = false
  await world.advance(1_000)
  t.ok(((await atOnce(b)) as Lease).held)
})

t.test('who had no time to ask for a lease is not told that it is held', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  await world.start(a)
  await a.coordinator.operator.drain(a.coordinator.nodeId ?? '', { actor: 'ops', reason: 'a deploy' })
  await world.advance(1_000)
  const outcome = rejectionOf(a.coordinator.acquire('rebuild', { timeoutMs: 1_000 }))
  await world.advance(2_000)
  t.match(await outcome, {
    message: /within 1000 ms: by then this node had no answer to whether it is free\.$/,
  })
})

t.test('a listener that ends the wait for a lease which has just come does not keep the lease', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  await world.start(a, b)
  const waiting = new AbortController()
  a.coordinator.once('lease.acquired', () => waiting.abort(new Error('changed its mind')))
  const outcome = a.coordinator.acquire('rebuild', { signal: waiting.signal }).then(
    (lease) => lease.release(),
    () => undefined,
  )
  await world.advance(500)
  await outcome
  t.notOk(a.coordinator.isHeld('rebuild'))
  const next = b.coordinator.tryAcquire('rebuild')
  await world.advance(500)
  const lease = await next
  t.ok(lease, 'another node can have it')
  void lease?.release()
})

t.test(
  'a listener that closes the coordinator at a lease by name leaves no lease without an owner',
  async (t) => {
    const world = new World(t)
    const a = await world.node('a')
    await world.start(a)
    a.coordinator.once('lease.acquired', () => void a.coordinator.close())
    const outcome = a.coordinator.acquire('rebuild').then(
      (lease) => lease.release(),
      () => undefined,
    )
    await world.advance(1_000)
    await outcome
    t.equal(a.coordinator.state, 'closed', 'it did not wait for work that nobody does')
  },
)

t.test('who gives up while the database is being asked does not stay in the queue', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const answers = gate()
  let isSlow = false
  const b = await world.node('b', {
    wrap: answeringLate(() => (isSlow ? answers.opened : undefined), 'change'),
  })
  await world.start(a, b)
  const lease = await a.coordinator.acquire('rebuild')
  const queue = async (): Promise<readonly string[] | undefined> => {
    const { leases } = await a.coordinator.operator.snapshot()
    return leases.find(({ key }) => key === 'global/rebuild')?.waiters
  }
  isSlow = true
  const late = t.rejects(b.coordinator.acquire('rebuild', { timeoutMs: 200 }), {
    code: 'WCO_ACQUIRE_TIMEOUT',
  })
  await world.advance(100)
  t.same(await queue(), [b.coordinator.nodeId])
  await world.advance(200)
  await late
  isSlow = false
  answers.open()
  await world.advance(500)
  t.same(await queue(), [])
  void lease.release()
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

t.test('a pass that fails too often hands the worker to another node', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  let failures = 0
  a.coordinator.worker(
    untilAborted('month-close', {
      maxFailures: 3,
      run: () => {
        failures++
        throw new Error('no')
      },
    }),
  )
  b.coordinator.worker(untilAborted('month-close'))
  await world.start(a, b)
  await world.advance(30_000)
  t.equal(failures, 3)
  t.same(holders(world.nodes, 'month-close'), ['b'])
  t.ok(a.history.includes('lease.ended global/month-close passes-failed'))
  const [released] = await b.coordinator.operator.events({ limit: 1, types: ['lease.released'] })
  t.match(released, { node: a.coordinator.nodeId, reason: 'passes-failed' })
})

t.test(
  'the database away for less than the trust window costs nothing; for longer, all work stops and comes back',
  async (t) => {
    const world = new World(t)
    const outage = { on: false }
    const flaky = await world.node('a', { wrap: failing(outage) })
    let lost: unknown
    let thrown: unknown
    flaky.coordinator.worker(
      untilAborted('month-close', {
        run: async ({ lease, signal }: PassContext) => {
          await aborted(signal)
          lost = signal.reason
          thrown = caught(() => lease.assertHeld())
        },
      }),
    )
    await world.start(flaky)
    outage.on = true
    await world.advance(world.timing.ttlMs - world.timing.marginMs - world.timing.heartbeatMs * 1.2)
    t.ok(flaky.coordinator.isHeld('month-close'))
    outage.on = false
    await world.advance(world.timing.heartbeatMs * 1.5)
    t.ok(flaky.coordinator.isHeld('month-close'))
    t.notOk(flaky.history.includes('trust.expired'))
    outage.on = true
    await world.advance(world.timing.ttlMs)
    t.notOk(flaky.coordinator.isHeld('month-close'))
    t.match(lost, { code: 'WCO_LEASE_LOST', reason: 'trust-expired' })
    t.match(thrown, { code: 'WCO_LEASE_LOST' })
    outage.on = false
    await world.advance(world.timing.heartbeatMs * 2)
    t.ok(flaky.coordinator.isHeld('month-close'), 'nobody buried it, so it goes on under a new token')
  },
)

t.test('a new server identity: nobody claims until the old trust has surely ended', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const node of [a, b]) node.coordinator.worker(untilAborted('month-close'))
  await world.start(a, b)
  const before = (await a.coordinator.status()).leases[0]?.token ?? 0
  world.identity = 'server-2'
  await world.advance(world.timing.heartbeatMs * 1.5)
  t.same(holders(world.nodes, 'month-close'), ['a'], 'who held goes on holding')
  const closed = a.coordinator.close()
  await world.advance(1_000)
  await closed
  t.same(holders([b], 'month-close'), [])
  await world.advance(
    world.timing.ttlMs * 1.01 + 1.5 * world.timing.statementTimeoutMs + world.timing.heartbeatMs,
  )
  t.same(holders([b], 'month-close'), ['b'])
  const after = (await b.coordinator.status()).leases[0]?.token ?? 0
  t.ok(after > before + 1e9, 'tokens leap ahead of everything the old server may have given')
})

t.test('what a watcher saw under one server buries nobody under the next', async (t) => {
  const world = new World(t)
  const nodes = [await world.node('a'), await world.node('b'), await world.node('c')] as const
  await world.start(...nodes)
  const { ttlMs, heartbeatMs } = world.timing
  const buried = (): boolean => nodes.some(({ history }) => history.includes('node.gone'))
  await world.advance(ttlMs)
  world.freeze(nodes[2])
  await world.advance(ttlMs * 0.7)
  world.identity = 'server-2'
  await world.advance(ttlMs)
  t.notOk(buried(), 'it has stood still for 1.7 ttl, but not yet for one under this server')
  await world.advance(heartbeatMs * 1.1 + ttlMs * 0.2)
  t.ok(buried())
})

t.test('nobody is passed over while a new server is waited out', async (t) => {
  const world = new World(t)
  const nodes = [await world.node('a'), await world.node('b'), await world.node('c')] as const
  for (const node of nodes) node.coordinator.worker(untilAborted('month-close'))
  await world.start(...nodes)
  await world.advance(1_000)
  const holder = nodes.find((node) => node.coordinator.isHeld('month-close')) ?? nodes[0]
  const others = nodes.filter((node) => node !== holder)
  world.identity = 'server-2'
  await world.advance(world.timing.heartbeatMs * 1.5)
  const closed = holder.coordinator.close()
  await world.advance(world.timing.ttlMs)
  await closed
  t.same(holders(others, 'month-close'), [], 'the grace period goes on')
  const passedOver = async () => {
    const events = (await others[0]?.coordinator.operator.events({ limit: 100 })) ?? []
    return events.filter(({ type }) => type === 'target.passed-over')
  }
  t.same(await passedOver(), [], 'who is named cannot claim yet')
  await world.advance(world.timing.ttlMs * 0.5 + 1.5 * world.timing.statementTimeoutMs)
  t.equal(holders(others, 'month-close').length, 1)
  t.same(await passedOver(), [])
})

t.test('start and close, in any order and number', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  await Promise.all([a.coordinator.start(), a.coordinator.start()])
  await Promise.all([a.coordinator.close(), a.coordinator.close()])
  await t.rejects(a.coordinator.start(), { code: 'WCO_NOT_RUNNING' })
  const b = await world.node('b')
  const early = { code: 'WCO_NOT_RUNNING', message: /call start\(\) first/ }
  await t.rejects(b.coordinator.tryAcquire('rebuild-cache'), early, 'says what must come before')
  await b.coordinator.close()
  const c = await world.node('c')
  const starting = c.coordinator.start()
  await c.coordinator.close()
  await starting
  t.same(
    world.nodes.map((node) => node.coordinator.state),
    ['closed', 'closed', 'closed'],
  )
  t.same(await a.store.snapshot().catch(() => undefined), undefined, 'the store is closed')
})

t.test('a coordinator that is closing, and one that is closed, say which of the two they are', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  await world.start(a)
  const refusesAs = async (state: 'closing' | 'closed'): Promise<void> => {
    const refusal = { code: 'WCO_NOT_RUNNING', message: new RegExp(`^The coordinator is ${state}\\b`) }
    const late = { name: 'late', kind: 'single', scope: 'global', run: () => undefined } as const
    t.equal(a.coordinator.state, state)
    await t.rejects(a.coordinator.start(), refusal)
    await t.rejects(a.coordinator.acquire('rebuild-cache'), refusal)
    await t.rejects(a.coordinator.tryAcquire('rebuild-cache'), refusal)
    await t.rejects(a.coordinator.claimTime('backup', new Date(0)), refusal)
    t.throws(() => a.coordinator.worker(late), refusal)
  }
  let settle: (() => void) | undefined
  a.coordinator.worker({
    name: 'indexing',
    kind: 'single',
    scope: 'global',
    run: () => new Promise<void>((resolve) => (settle = resolve)),
  })
  await world.advance(500)
  const closed = a.coordinator.close()
  await refusesAs('closing')
  settle?.()
  await closed
  await refusesAs('closed')
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
