/** Tests whom watchers bury, and when, and how often they ask the database. */
import t from 'tap'
import { silentLog } from '../../plugin/core/log.js'
import { resolveTiming } from '../../plugin/core/time/timing.js'
import { found } from '../../plugin/testing/conformance/world.js'
import { untilAborted } from '../support/workers.js'
import { holders, World, type WorldNode } from '../support/world.js'
import { counting, failing } from '../support/wrapped-store.js'

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

t.test('a watcher that could not renew its own session begins to watch afresh', async (t) => {
  const world = new World(t)
  const readOnly = { a: { on: false }, b: { on: false }, c: { on: false } }
  const nodes = await Promise.all(
    Object.entries(readOnly).map(([name, mode]) =>
      world.node(name, { wrap: failing(mode, 'heartbeat', 'change') }),
    ),
  )
  await world.start(...nodes)
  await world.advance(5_000)
  for (const mode of Object.values(readOnly)) mode.on = true
  await world.advance(3 * world.timing.ttlMs)
  for (const { history } of nodes) t.ok(history.includes('trust.expired'))

  const { watchers } = (await nodes[0]?.coordinator.operator.snapshot())?.meta ?? {}
  const first = nodes.find(({ coordinator }) => watchers?.includes(coordinator.nodeId ?? ''))
  readOnly[first?.name as keyof typeof readOnly].on = false
  await world.advanceUntil(() => first?.coordinator.health().trusted === true, world.timing.ttlMs)
  await world.advance(world.timing.ttlMs / 2)
  for (const mode of Object.values(readOnly)) mode.on = false
  await world.advance(world.timing.ttlMs)
  t.notOk(
    nodes.some(({ history }) => history.includes('session.lost')),
    'the others were as late, and live',
  )

  const last = found(nodes.find((node) => node !== first))
  world.freeze(last)
  await world.advance(2 * world.timing.ttlMs)
  t.ok(
    nodes.some(({ history }) => history.includes('node.gone')),
    'who is dead is found as before',
  )
  world.thaw(last)
  await world.advance(5_000)
})
