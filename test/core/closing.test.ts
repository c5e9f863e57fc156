/** Tests starting and closing a coordinator: what is handed over, what is waited for, and what is said of it. */
import t from 'tap'
import { silentLog } from '../../plugin/core/log.js'
import { deferred } from '../../plugin/core/time/loop.js'
import type { Lease } from '../../plugin/core/work/lease.js'
import { gate } from '../../plugin/testing/conformance/world.js'
import { single, untilAborted } from '../support/workers.js'
import { World, type WorldNode, watched } from '../support/world.js'
import { answeringLate, failing } from '../support/wrapped-store.js'

/** Returns how many events of this type each change has written, in the order of the changes. */
async function perChange(node: WorldNode, type: string): Promise<number[]> {
  const counts = new Map<number, number>()
  for (const { revision } of await node.store.events({ limit: 10_000, types: [type] }))
    counts.set(revision, (counts.get(revision) ?? 0) + 1)
  return [...counts].sort(([one], [other]) => one - other).map(([, count]) => count)
}

t.test('a clean stop is one change, which says that its leases were released', async (t) => {
  for (const count of [1, 3]) {
    const world = new World(t)
    const [a, b] = [await world.node('a'), await world.node('b')]
    const names = Array.from({ length: count }, (_, index) => `lead-${index}`)
    for (const name of names) a.coordinator.worker(single(name, () => undefined))
    await world.start(a)
    await world.advance(500)
    for (const name of names) b.coordinator.worker(single(name, () => undefined))
    await world.start(b)
    await world.advance(500)
    const closed = watched(a.coordinator.close())
    await world.advanceUntil(() => closed.over, 5_000)
    await world.advance(500)
    const events = await b.coordinator.operator.events({ limit: 100 })
    const left = events.find(({ type }) => type === 'node.left')
    const inIt = events.filter(({ revision }) => revision === left?.revision)
    t.same(
      inIt
        .filter(({ type }) => type === 'lease.released')
        .map(({ subject, reason }) => `${subject} ${reason}`)
        .sort(),
      names.map((name) => `global/${name} closing`),
      `${count} leases, one change`,
    )
    t.notOk(
      events.some(({ type }) => type === 'lease.lost'),
      'nobody was lost',
    )
    t.same(
      names.filter((name) => b.coordinator.isHeld(name)),
      names,
    )
  }
})

t.test('a clean stop stays one though requests fail for some seconds', async (t) => {
  for (const how of ['work that ends at once', 'work that takes its time'] as const) {
    t.test(how, async (t) => {
      const world = new World(t)
      const outage = { on: false }
      const a = await world.node('a', { wrap: failing(outage, 'change') })
      const pass = deferred()
      const run = (): unknown => (how === 'work that ends at once' ? undefined : pass.promise)
      a.coordinator.worker(single('job', run))
      await world.start(a)
      const b = await world.node('b')
      b.coordinator.worker(single('job', () => undefined))
      await world.start(b)
      await world.advance(1_000)
      t.ok(a.coordinator.isHeld('job'))
      outage.on = true
      const closed = watched(a.coordinator.close())
      await world.advance(2_000)
      pass.resolve()
      await world.advance(2_000)
      t.notOk(closed.over)
      outage.on = false
      await world.advance(2_500)
      t.ok(closed.over)
      t.ok(b.coordinator.isHeld('job'), 'long before a ttl has passed')
      t.notOk(b.history.includes('node.gone'), 'nobody had to find out')
    })
  }
})

t.test('a stop does not outlast the trust of a node whose database is away', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const a = await world.node('a', { wrap: failing(outage) })
  a.coordinator.worker(single('job', () => undefined))
  await world.start(a)
  await world.advance(1_000)
  outage.on = true
  const closed = watched(a.coordinator.close())
  await world.advance(world.timing.ttlMs, 500)
  t.ok(closed.over)
})

t.test('closing between two sessions waits for work that has not settled', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const pass = deferred()
  a.coordinator.worker(single('job', () => pass.promise))
  await world.start(a)
  const b = await world.node('b')
  await world.start(b)
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advance(world.timing.heartbeatMs, 500)
  t.ok(a.history.includes('session.lost'))
  const closed = watched(a.coordinator.close())
  await world.advance(world.timing.drainTimeoutMs / 2, 500)
  t.notOk(closed.over)
  pass.resolve()
  await world.advance(500)
  t.ok(closed.over)
})

t.test('what is too much for one change is claimed and given back in several', async (t) => {
  const world = new World(t)
  const outage = { on: true }
  const a = await world.node('a', { wrap: failing(outage, 'change') })
  const b = await world.node('b')
  outage.on = false
  await world.start(a, b)
  outage.on = true
  const names = Array.from({ length: 1_200 }, (_, index) => `job-${index}`)
  let got = 0
  const workUnder = (lease: Lease): void => {
    got += 1
    lease.signal.addEventListener('abort', () => void lease.release())
  }
  for (const name of names) void a.coordinator.acquire(name).then(workUnder)
  await world.advance(3_000)
  outage.on = false
  await world.advanceUntil(() => got === names.length, 30_000)
  const claimed = await perChange(a, 'lease.acquired')
  t.ok((claimed[0] ?? 0) < 256, 'fewer after changes that failed')
  t.equal(Math.max(...claimed), 512, 'more again after those that did not, and no more than that')
  const closed = watched(a.coordinator.close())
  await world.advanceUntil(() => closed.over, world.timing.drainTimeoutMs)
  const released = await perChange(b, 'lease.released')
  t.equal(
    released.reduce((sum, count) => sum + count, 0),
    names.length,
  )
  t.ok(Math.max(...released) <= 512)
})

t.test('closing gives work its time to end, also while the database cannot be changed', async (t) => {
  const world = new World(t)
  const blind = { on: false }
  const a = await world.node('a', { wrap: failing(blind, 'view', 'change') })
  let settle: () => void = () => undefined
  a.coordinator.worker(untilAborted('one', { run: () => new Promise<void>((resolve) => (settle = resolve)) }))
  await world.start(a)
  await world.advance(1_000)
  t.ok(a.coordinator.isHeld('one'))
  blind.on = true
  let closed = false
  const closing = a.coordinator.close().then(() => {
    closed = true
  })
  await world.advance(world.timing.ttlMs)
  t.notOk(closed, 'its pass goes on')
  settle()
  await world.advance(world.timing.drainTimeoutMs)
  await closing
})

t.test('a heartbeat that finds the session left while the node closes reports no loss', async (t) => {
  const world = new World(t)
  const answers = new Map<string, Promise<void>>()
  const warnings: string[] = []
  const log = { ...silentLog, warn: (_fields: object, line: string) => void warnings.push(line) }
  const a = await world.node('a', { wrap: answeringLate((request) => answers.get(request)), log })
  await world.start(a)
  const change = gate()
  answers.set('change', change.opened)
  void a.coordinator.close()
  await world.advance(world.timing.heartbeatMs * 1.2)
  const left: string[] = []
  a.coordinator.on('node.left', ({ node }) => left.push(node))
  change.open()
  await world.advance(500)
  t.same([left, a.history, warnings], [['a-life-1'], [], []])
  t.equal(a.coordinator.state, 'closed')
})

t.test('a node that was declared gone while it closed does not say that it left', async (t) => {
  const world = new World(t)
  const lines: string[] = []
  const note = (_fields: object, message: string): void => void lines.push(message)
  const [a, b] = [
    await world.node('a', { log: { ...silentLog, info: note, warn: note } }),
    await world.node('b'),
  ]
  let left = 0
  a.coordinator.on('node.left', () => {
    left += 1
  })
  a.coordinator.worker(untilAborted('report', { run: () => new Promise(() => undefined) }))
  await world.start(a, b)
  const closed = a.coordinator.close()
  await world.advance(500)
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  t.ok(b.history.includes('node.gone'))
  world.thaw(a)
  await world.advanceUntil(() => a.coordinator.state === 'closed', 60_000, 500)
  await closed
  t.equal(left, 0)
  t.notOk(lines.includes('left'))
  t.ok(lines.some((line) => line.includes('declared gone')))
})

t.test('the workers of a coordinator that is closed are stopped', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const worker = a.coordinator.worker(untilAborted('w'))
  await world.start(a)
  await world.advance(500)
  t.equal(worker.state, 'working')
  await a.coordinator.close()
  t.equal(worker.state, 'stopped')
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
  await t.rejects(a.store.snapshot(), { code: 'WCO_STORE', message: /closed/ })
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
  t.match(await a.coordinator.status(), { self: { state: 'closing' } })
  await closed
  await refusesAs('closed')
  const { operator } = a.coordinator
  const refusal = { code: 'WCO_NOT_RUNNING', message: 'The coordinator is closed.' }
  const by = { actor: 'ops', reason: 'a good one' }
  await t.rejects(a.coordinator.status(), refusal)
  await t.rejects(operator.snapshot(), refusal)
  await t.rejects(operator.namespaces(), refusal)
  await t.rejects(operator.events({ limit: 1 }), refusal)
  await t.rejects(operator.pause('global/indexing', by), refusal)
})
