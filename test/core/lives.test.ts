/** Tests what one life of a node leaves to the next. */
import t from 'tap'
import { runChange } from '../../plugin/core/changes/run-change.js'
import type { Change } from '../../plugin/core/store.js'
import { deferred } from '../../plugin/core/time/loop.js'
import { gate } from '../../plugin/testing/conformance/world.js'
import { partitioned, single, untilAborted } from '../support/workers.js'
import { World, watched } from '../support/world.js'
import { answeringLate, failing, overriding } from '../support/wrapped-store.js'

/** Lets pending promises proceed by `count` steps. */
async function steps(count: number): Promise<void> {
  for (let step = 0; step < count; step++) await Promise.resolve()
}

t.test('a process that was drained is drained also after it has lost its session', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const { coordinator } of [a, b]) coordinator.worker(partitioned(4, () => undefined))
  await world.start(a, b)
  await world.advance(3_000)
  const by = { actor: 'ops', reason: 'it is to be exchanged' }
  t.equal(await b.coordinator.operator.drain(a.coordinator.nodeId ?? '', by), 'done')
  await world.advance(3_000)
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advance(world.timing.ttlMs, 500)
  t.ok(a.history.includes('session.lost'))
  const { nodes } = await b.coordinator.status()
  const present = nodes.filter(({ state }) => state !== 'gone').map(({ name, state }) => `${name} ${state}`)
  t.same(present.sort(), ['a draining', 'b active'])
  t.notOk(a.coordinator.isHeld('parts'))
  t.equal(await b.coordinator.operator.undrain(a.coordinator.nodeId ?? '', by), 'done')
  await world.advance(3_000)
  t.ok(a.coordinator.isHeld('parts'), 'until that is called off')
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advance(world.timing.ttlMs, 500)
  t.ok(a.coordinator.isHeld('parts'), 'for good')
})

t.test('a session that is lost leaves no timer, at whatever step of a turn that is learnt', async (t) => {
  for (let step = 0; step < 12; step++) {
    const world = new World(t)
    const view = { asked: deferred(), answer: deferred(), held: false }
    const heartbeat = { answer: deferred(), held: false }
    let wake = (): void => undefined
    const a = await world.node('a', {
      wrap: (store) =>
        overriding(store, {
          listen: (node, poke) => {
            wake = poke
            return store.listen(node, poke)
          },
          view: async (node) => {
            const answer = await store.view(node)
            if (view.held) {
              view.asked.resolve()
              await view.answer.promise
            }
            return answer
          },
          heartbeat: async (node, beat) => {
            if (!heartbeat.held) return store.heartbeat(node, beat)
            await heartbeat.answer.promise
            return undefined
          },
        }),
    })
    a.coordinator.worker(single('job', () => undefined))
    await world.start(a)
    // A turn now waits for the end of the grace period in which nothing is claimed on a new server.
    world.identity = 'server-2'
    await world.advance(world.timing.heartbeatMs * 2)
    view.held = true
    heartbeat.held = true
    await world.advance(world.timing.heartbeatMs * 2)
    wake()
    await view.asked.promise
    view.answer.resolve()
    await steps(step)
    heartbeat.answer.resolve()
    await steps(100)
    t.ok(a.history.includes('session.lost'), `lost at step ${step}`)
    view.held = false
    heartbeat.held = false
    const closed = a.coordinator.close()
    await steps(1_000)
    await closed
    t.equal(a.clock.dueInMs, undefined, `nothing is left to ring after step ${step}`)
  }
})

t.test(
  'what is answered after the end of a life renews no trust, and ends nothing of the next one',
  async (t) => {
    const world = new World(t)
    const answers = new Map<string, Promise<void>>()
    const a = await world.node('a', { wrap: answeringLate((request) => answers.get(request)) })
    const b = await world.node('b')
    a.coordinator.worker(untilAborted('one'))
    await world.start(a, b)
    await world.advance(1_000)
    const id = a.coordinator.nodeId ?? ''
    const tell = (): Promise<unknown> =>
      runChange(b.store, undefined, 0, (change) => change.tell(new Set([id])))
    const [view, change] = [gate(), gate()]
    answers.set('view', view.opened)
    await tell()
    await world.advance(100)
    a.coordinator.worker(untilAborted('two'))
    answers.set('change', change.opened)
    await tell()
    await world.advance(world.timing.heartbeatMs * 1.2)
    view.open()
    await world.advance(100)
    answers.clear()
    await runChange(b.store, undefined, 0, (burial) => burial.bury(id))
    await world.advance(world.timing.heartbeatMs)
    t.ok(a.history.includes('session.lost'))
    t.ok(a.coordinator.isHeld('one'), 'it has joined again')
    change.open()
    await world.advance(world.timing.ttlMs)
    t.notOk(a.history.includes('trust.expired'))
    t.ok(a.coordinator.isHeld('one'))
  },
)

t.test(
  'a join that was answered late is followed by a heartbeat at once, and what it begins goes on',
  async (t) => {
    const world = new World(t)
    const outage = { on: true }
    const a = await world.node('a', { wrap: failing(outage, 'change') })
    const started = watched(a.coordinator.start())
    let passes = 0
    a.coordinator.worker(single('job', () => void passes++))
    await world.advance(world.timing.ttlMs * 0.8, 500)
    outage.on = false
    await world.advanceUntil(() => started.over, world.timing.ttlMs)
    await world.advance(world.timing.ttlMs, 500)
    t.ok(passes > 0)
    t.same(
      a.history.filter((event) => event !== 'lease.acquired global/job'),
      [],
      'neither trust nor the lease was lost',
    )
  },
)

t.test('a change that arrives twice is made once, and none is made for a session that is gone', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const node = { id: 'n', name: 'n', cluster: 'c', workers: [], labels: {}, version: null }
  const joining = { ...node, machine: null, process: null, ttlMs: 15_000 }
  await runChange(a.store, { node: 'n', operation: 1 }, 0, (change) => change.addNode(joining, 1))
  const made: number[] = []
  const make = async (operation: number): Promise<string> => {
    const work = async (change: Change): Promise<void> => {
      made.push(change.revision)
      await change.saveMeta({ longestTtlMs: 15_000 })
    }
    return (await runChange(a.store, { node: 'n', operation }, 0, work)).kind
  }
  t.equal(await make(2), 'done')
  t.equal(await make(2), 'no-session', 'a later copy of it')
  await a.store.change(undefined, (change) => change.bury('n'))
  t.equal(await make(3), 'no-session')
  t.equal(made.length, 1)
})
