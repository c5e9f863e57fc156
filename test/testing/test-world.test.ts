/** Tests the testing kit as users use it: their workers, their failovers, no database and no waiting. */
import { mock } from 'node:test'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { leaderOnly, type SingleWorker } from '../../plugin/index.js'
import { TestWorld, type TestWorldOptions } from '../../plugin/testing/index.js'

function useWorld(t: Test, options: TestWorldOptions = {}): TestWorld {
  const world = new TestWorld(options)
  t.teardown(() => world.close())
  return world
}

/** Returns a worker that notes who began and who ended, and works until its signal aborts. */
function leading(log: string[], by: string): SingleWorker {
  return {
    name: 'indexing',
    kind: 'single',
    scope: 'global',
    async run({ signal }) {
      log.push(`${by} begins`)
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
      log.push(`${by} ends`)
    },
  }
}

function useTwo(t: Test, options?: TestWorldOptions) {
  const world = useWorld(t, options)
  const log: string[] = []
  const [a, b] = [world.node('a'), world.node('b')]
  for (const { name, coordinator } of [a, b]) coordinator.worker(leading(log, name))
  return { world, log, a, b }
}

/** Returns a function that counts the timers of the machine that have fired since. */
function countingTimers(t: Test): () => number {
  const { setTimeout } = globalThis
  let rung = 0
  globalThis.setTimeout = ((ring: () => void, delayMs?: number) =>
    setTimeout(() => {
      rung += 1
      ring()
    }, delayMs)) as typeof setTimeout
  t.teardown(() => {
    globalThis.setTimeout = setTimeout
  })
  return () => rung
}

t.test('a node is killed, time goes by, and the other one leads', async (t) => {
  const { world, log, a, b } = useTwo(t)
  await world.start()
  t.equal(world.holderOf('indexing'), a)
  const { leases } = await world.snapshot()
  const before = world.now.getTime()
  const rung = countingTimers(t)
  a.kill()
  t.equal(world.holderOf('indexing'), undefined, 'the dead hold nothing')
  await world.advanceUntil(() => world.holderOf('indexing') === b)
  t.ok(world.now.getTime() - before > 14_000, 'the world had to wait for a ttl')
  t.equal(rung(), 0, 'no timer of the machine had to')
  t.strictSame(log, ['a begins', 'b begins'], 'who is killed does not notice')
  const [was, is] = [leases[0]?.token ?? 0, (await world.snapshot()).leases[0]?.token ?? 0]
  t.ok(is > was, 'under a greater token')
})

t.test('a closed node hands over at once', async (t) => {
  const { world, log, a, b } = useTwo(t)
  await world.start()
  const before = world.now.getTime()
  await world.settled(a.coordinator.close())
  await world.advanceUntil(() => world.holderOf('indexing') === b)
  t.ok(world.now.getTime() - before < 1_000)
  t.strictSame(log, ['a begins', 'a ends', 'b begins'])
})

t.test('a frozen node is replaced, and finds out when it goes on', async (t) => {
  const { world, log, a, b } = useTwo(t)
  await world.start()
  a.freeze()
  await world.advanceUntil(() => world.holderOf('indexing') === b)
  t.strictSame(log, ['a begins', 'b begins'])
  t.notOk(a.coordinator.isHeld('indexing'), 'whoever asks is told the truth, however late it is')
  a.thaw()
  await world.advance(1_000)
  t.strictSame(log, ['a begins', 'b begins', 'a ends'])
  t.equal(world.holderOf('indexing'), b)
})

t.test('a node that is cut off stops before the other one begins', async (t) => {
  const { world, log, a, b } = useTwo(t)
  await world.start()
  a.disconnect()
  await world.advanceUntil(() => world.holderOf('indexing') === b)
  t.strictSame(log, ['a begins', 'a ends', 'b begins'])
  a.reconnect()
  await world.settled(b.coordinator.close())
  await world.advanceUntil(() => world.holderOf('indexing') === a)
})

t.test('a day of a schedule goes by in no time', async (t) => {
  // Long durations mean fewer heartbeats to simulate.
  const world = useWorld(t, { startsAt: '2030-03-31T00:00:00Z', ttlMs: 600_000 })
  const due: string[] = []
  for (const name of ['a', 'b']) {
    world.node(name).coordinator.worker({
      name: 'report',
      kind: 'single',
      scope: 'global',
      schedule: '0 */6 * * *',
      run: ({ dueAtMs }) => void due.push(new Date(dueAtMs ?? 0).toISOString().slice(11, 16)),
    })
  }
  await world.start()
  await world.advance(7 * 3_600_000)
  world.holderOf('report')?.kill()
  await world.advance(16 * 3_600_000)
  t.strictSame(due, ['06:00', '12:00', '18:00'])
})

t.test('time goes on even for a worker without a pause between its passes', async (t) => {
  const world = useWorld(t)
  let passes = 0
  world.node('a').coordinator.worker({
    name: 'polling',
    kind: 'single',
    scope: 'global',
    everyMs: 0,
    run: () => {
      passes += 1
      if (passes > 100_000) throw new Error('time stands still')
    },
  })
  await world.start()
  await world.advance(100)
  t.ok(passes > 50)
})

t.test('timers that a test runner fakes are those of the work, and not those of the world', async (t) => {
  mock.timers.enable()
  t.teardown(() => mock.timers.reset())
  const world = useWorld(t)
  const { coordinator } = world.node('a')
  let done = 0
  const run = async (): Promise<void> => {
    await new Promise<void>((resolve) => setTimeout(resolve, 60_000))
    done += 1
  }
  coordinator.worker({ name: 'indexing', kind: 'single', scope: 'global', run })
  await world.start()
  await world.advance(120_000)
  t.equal(done, 0, 'the pass waits for a timer of its own')
  mock.timers.tick(60_000)
  await world.advanceUntil(() => done === 1, 0)
})

t.test('leases by name and fences can be rehearsed', async (t) => {
  const { world, a, b } = useTwo(t)
  await world.start()
  const lease = await world.settled(a.coordinator.acquire('cache'))
  await lease.fence({})
  t.equal(await world.settled(b.coordinator.tryAcquire('cache')), undefined)
  const waiting = b.coordinator.acquire('cache')
  a.freeze()
  const next = await world.settled(waiting)
  t.ok(next.token > lease.token)
  await t.rejects(async () => lease.fence({}), { code: 'WCO_FENCED' })
  t.throws(() => next.fence('a text' as never), { code: 'WCO_FENCE_TARGET' })
  await world.settled(next.release())
})

t.test("an application's own routes can be rehearsed with it", async (t) => {
  const { world, a, b } = useTwo(t)
  const app = Fastify()
  app.decorate('coordination', b.coordinator)
  app.get('/who', { preHandler: leaderOnly(app.coordination, 'indexing') }, async () => 'b')
  await world.start()
  t.equal((await app.inject('/who')).statusCode, 421)
  a.kill()
  await world.advanceUntil(() => world.holderOf('indexing') === b)
  t.equal((await app.inject('/who')).body, 'b')
})

t.test('a world says what is wrong with it', async (t) => {
  t.throws(() => new TestWorld({ ttlMs: 15_000, heartbeatMs: 14_000 }), { code: 'WCO_OPTIONS' })
  t.throws(() => new TestWorld({ startsAt: 'noon' }), { code: 'WCO_OPTIONS' })
  t.throws(() => new TestWorld({ ttl: 600_000 } as object), {
    code: 'WCO_OPTIONS',
    message: /no option `ttl` \(did you mean `ttlMs`\?\)/,
  })
  const { world } = useTwo(t)
  t.throws(() => world.node('no blanks'), { code: 'WCO_NAME' })
  t.throws(() => world.node('a', { clusters: 'eu-1' } as object), { code: 'WCO_OPTIONS' })
  t.throws(() => world.node('a', { cluster: 'Global' }), {
    code: 'WCO_NAME',
    message: /the scope of all clusters/,
  })
  await t.rejects(
    world.advanceUntil(() => false, 100),
    /did not come within 100 ms/,
  )
  await t.rejects(world.settled(new Promise(() => undefined), 100), {
    message: 'The promise did not settle within 100 ms of the world.',
  })
})

t.test('a world ends, whatever has happened to its nodes', async (t) => {
  const { world, log, a, b } = useTwo(t)
  const c = world.node('c')
  await world.start()
  a.kill()
  b.disconnect()
  c.freeze()
  await world.close()
  await world.close()
  t.strictSame(log, ['a begins', 'a ends'])
  for (const { coordinator } of [a, b, c]) t.equal(coordinator.state, 'closed')
})
