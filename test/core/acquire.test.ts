/** Tests what whoever asks for a lease by name is told, and when. */
import t from 'tap'
import { deferred } from '../../plugin/core/time/loop.js'
import { elapsedMs } from '../../plugin/core/time/trust.js'
import type { Lease } from '../../plugin/core/work/lease.js'
import { gate, rejectionOf } from '../../plugin/testing/conformance/world.js'
import { partitioned } from '../support/workers.js'
import { acquired, World, type WorldNode, watched } from '../support/world.js'
import { answeringLate, around, failing } from '../support/wrapped-store.js'

const by = { actor: 'ops', reason: 'a good one' }

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

t.test('a lease that outlasts its coordinator is released all the same', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  await world.start(a)
  const lease = await acquired(world, a.coordinator.acquire('critical'))
  const closed = watched(a.coordinator.close())
  await world.advanceUntil(() => closed.over, world.timing.drainTimeoutMs * 2, 500)
  t.notOk(lease.held)
  const released = watched(lease.release())
  await world.advance(100)
  t.ok(released.over)
})

t.test('a lease that was lost is released though the database is away', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const [a, b] = [await world.node('a', { wrap: failing(outage) }), await world.node('b')]
  await world.start(a, b)
  const lease = await acquired(world, a.coordinator.acquire('critical'))
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advanceUntil(() => a.history.includes('session.lost'), world.timing.ttlMs)
  outage.on = true
  const released = watched(lease.release())
  await world.advance(1_000)
  t.ok(released.over)
  outage.on = false
})

t.test('who asked for a lease while a start was under way hears of its failure', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  a.coordinator.worker(partitioned(4, () => undefined))
  await world.start(a)
  b.coordinator.worker(partitioned(8, () => undefined))
  const started = b.coordinator.start()
  const asked = [b.coordinator.acquire('critical'), b.coordinator.tryAcquire('other')]
  await t.rejects(started, { code: 'WCO_WORKER_CONFLICT' })
  for (const answer of asked) await t.rejects(answer, { code: 'WCO_WORKER_CONFLICT' })
})

t.test('who waits for a lease is told when the coordinator closes', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  await world.start(a, b)
  await a.coordinator.acquire('rebuild')
  const waiting = rejectionOf(b.coordinator.acquire('rebuild'))
  const over = watched(waiting)
  await world.advance(100)
  t.notOk(over.over)
  const closed = b.coordinator.close()
  await world.advance(100)
  t.ok(over.over)
  t.match(await waiting, { code: 'WCO_NOT_RUNNING' })
  await closed
})

t.test('tryAcquire answers in an outage even when trust has lapsed', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const a = await world.node('a', { wrap: failing(outage) })
  await world.start(a)
  outage.on = true
  await world.advance(world.timing.ttlMs * 2, 500)
  t.ok(a.history.includes('trust.expired'))
  await t.rejects(a.coordinator.tryAcquire('critical'), { code: 'WCO_STORE' })
  outage.on = false
  await world.advance(world.timing.ttlMs)
  t.ok(await a.coordinator.tryAcquire('critical'))
})

t.test('tryAcquire answers while another server is waited out', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  await world.start(a)
  world.identity = 'server-2'
  await world.advance(world.timing.heartbeatMs * 1.2)
  t.equal(await a.coordinator.tryAcquire('critical'), undefined)
  await world.advance(world.timing.ttlMs * 2, 500)
  t.ok(await a.coordinator.tryAcquire('critical'))
})

t.test('tryAcquire answers while the work of a lost session settles', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const b = await world.node('b')
  await world.start(a, b)
  await acquired(world, a.coordinator.acquire('critical'))
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advanceUntil(() => a.history.includes('session.lost'), world.timing.ttlMs)
  t.equal(await a.coordinator.tryAcquire('other'), undefined)
})

t.test('who tries for a lease that this process is just getting is told that it is not free', async (t) => {
  const world = new World(t)
  const held = deferred()
  const asked = deferred()
  let holds = false
  const a = await world.node('a', {
    wrap: around(async (run) => {
      if (holds) {
        asked.resolve()
        await held.promise
      }
      return run()
    }, 'change'),
  })
  await world.start(a)
  holds = true
  const first = a.coordinator.tryAcquire('job')
  await asked.promise
  const second = watched(a.coordinator.tryAcquire('job').then((lease) => t.equal(lease, undefined)))
  holds = false
  held.resolve()
  await world.advance(1_000)
  t.ok(await first)
  t.ok(second.over)
})

t.test(
  'trying is answered soon however often and for however long others on this node try, too',
  async (t) => {
    const world = new World(t)
    const delays: number[] = []
    const attempt = async ({ clock, coordinator }: WorldNode): Promise<void> => {
      const askedAt = clock.read()
      if ((await coordinator.tryAcquire('k')) === undefined) delays.push(elapsedMs(askedAt, clock.read()))
    }
    let trying = false
    const a: WorldNode = await world.node('a', {
      // The next attempt begins while the answer to the one before is on its way.
      wrap: answeringLate(() => {
        if (trying) void attempt(a)
        return undefined
      }, 'change'),
    })
    const b = await world.node('b')
    await world.start(a, b)
    await b.coordinator.tryAcquire('k')
    trying = true
    void attempt(a)
    await world.advance(30_000)
    trying = false
    await world.advance(1_000)
    t.ok(delays.length > 100, `${delays.length} times`)
    t.ok(Math.max(...delays) <= 300, `within ${Math.max(...delays)} ms`)
  },
)

t.test('trying for a lease on a drained node answers', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const b = await world.node('b')
  await world.start(a, b)
  await b.coordinator.operator.drain(a.coordinator.nodeId ?? '', by)
  await world.advance(1_000)
  let answer: unknown = 'none yet'
  void a.coordinator.tryAcquire('x').then((lease) => {
    answer = lease
  })
  await world.advance(1_000)
  t.equal(answer, undefined)
})
