/** Tests for faults that the simulation and a second reading of the code have found, each by itself. */

import t, { type Test } from 'tap'
import { runChange } from '../../plugin/core/changes/run-change.js'
import { silentLog } from '../../plugin/core/log.js'
import type { Change, Store } from '../../plugin/core/store.js'
import { blockWaitMs } from '../../plugin/core/time/timing.js'
import type { CoordinatedContext, SingleContext, WorkerDefinition } from '../../plugin/core/work/worker.js'
import { gate } from '../../plugin/testing/conformance/world.js'
import { type TestNode, TestWorld } from '../../plugin/testing/index.js'
import { untilAborted } from '../support/workers.js'
import { World, type WorldNode } from '../support/world.js'
import {
  answeringLate,
  counting,
  countingInChanges,
  failing,
  fenced,
  losingAnswers,
} from '../support/wrapped-store.js'

const by = { actor: 'ops', reason: 'a good one' }

async function generationOf(node: WorldNode): Promise<number> {
  const { workers } = await node.coordinator.operator.snapshot()
  return workers.find((worker) => worker.key === 'global/data')?.generation ?? -1
}

/** The nodes that share a coordinated worker. */
class Team {
  /** What each node is running, by its name: a share, `-` for nothing, or `stubborn`. */
  readonly running = new Map<string, string>()
  /** Ends the work that has ignored its signal. */
  release: () => void = () => undefined
}

function coordinated(team: Team, name: string, isStubborn: () => boolean = () => false): WorkerDefinition {
  return {
    name: 'data',
    kind: 'coordinated',
    scope: 'global',
    run: ({ signal, assignment }: CoordinatedContext) => {
      const { running } = team
      running.set(name, `${assignment.index}/${assignment.count}g${assignment.generation}`)
      return new Promise<void>((resolve) => {
        signal.addEventListener(
          'abort',
          () => {
            const stubborn = isStubborn()
            running.set(name, stubborn ? 'stubborn' : '-')
            if (stubborn) team.release = resolve
            else resolve()
          },
          { once: true },
        )
      })
    },
  } as WorkerDefinition
}

t.test('a share whose node ignores its signal for ever is given to others', async (t) => {
  const world = new World(t)
  const team = new Team()
  const { running } = team
  const nodes: WorldNode[] = []
  for (const name of ['a', 'b', 'c', 'd']) {
    const node = await world.node(name)
    nodes.push(node)
    node.coordinator.worker(coordinated(team, name, () => name === 'a'))
  }
  const [a, b, c, d] = nodes as [WorldNode, WorldNode, WorldNode, WorldNode]
  await world.start(a, b)
  await world.advance(1_000)
  await world.start(c)
  await world.advance(180_000, 100)
  await world.start(d)
  await world.advance(180_000, 100)
  const working = nodes
    .filter((n) => /\//.test(running.get(n.name) ?? ''))
    .map((n) => running.get(n.name)?.split('g')[0])
  const count = working[0]?.split('/')[1]
  t.equal(String(working.length), count, `all shares are worked on: ${working}`)
  team.release()
  await world.advance(60_000, 100)
})

t.test('a share that a new plan leaves with its node counts as named by that plan', async (t) => {
  const world = new World(t)
  const team = new Team()
  const nodes: WorldNode[] = []
  const claims: { readonly name: string; readonly key: string; readonly namedForMs: number }[] = []
  for (const name of ['a', 'b', 'c', 'd']) {
    const node = await world.node(name)
    nodes.push(node)
    node.coordinator.worker(coordinated(team, name, () => name === 'a'))
    node.coordinator.on('lease.acquired', ({ key, namedForMs }) => {
      claims.push({ name, key, namedForMs: namedForMs ?? Number.NaN })
    })
  }
  const [a, b, c, d] = nodes as [WorldNode, WorldNode, WorldNode, WorldNode]
  const shareOfA = async () =>
    (await b.coordinator.operator.snapshot()).leases.find(({ target }) => target === a.coordinator.nodeId)
  await world.start(b)
  await world.advance(60_000)
  await world.start(a)
  await world.advance(60_000)
  claims.length = 0
  const before = await shareOfA()
  await world.start(c)
  await world.advance(2_000)
  const ended = await shareOfA()
  t.ok((ended?.targetAtMs ?? 0) > (before?.targetAtMs ?? 0) + 50_000, 'named anew, though its pass goes on')
  await world.start(d)
  await world.advance(2_000)
  const again = await shareOfA()
  t.equal(again?.holder, a.coordinator.nodeId)
  t.equal(again?.targetAtMs, ended?.targetAtMs, 'a further plan does not hide for how long it has gone on')
  team.release()
  await world.advance(2_000)
  const [claim, ...more] = claims.filter(({ name }) => name === 'b')
  t.equal(claim?.key, 'global/data#0')
  t.ok((claim?.namedForMs ?? 0) > 4_000 && (claim?.namedForMs ?? 0) < 6_000, 'since its own term ended')
  t.same(more, [])
})

t.test(
  'a share that keeps its target and is not claimed is passed over after every plan alike',
  async (t) => {
    const world = new World(t)
    const team = new Team()
    const outage = { on: false }
    const nodes: WorldNode[] = []
    for (const name of ['a', 'b', 'c', 'd']) {
      const node = await world.node(name, name === 'a' ? { wrap: failing(outage, 'change') } : {})
      nodes.push(node)
      node.coordinator.worker(coordinated(team, name))
    }
    const [a, b, c, d] = nodes as [WorldNode, WorldNode, WorldNode, WorldNode]
    await world.start(b, c, a)
    await world.advance(1_000)
    outage.on = true
    await world.start(d)
    await world.advanceUntil(
      () => [b, c, d].every(({ name }) => team.running.get(name)?.includes('/3g')),
      world.timing.handoverTimeoutMs + 3 * world.timing.ttlMs,
    )
    t.notOk(a.coordinator.isHeld('data'))
    outage.on = false
    await world.advance(60_000, 250)
  },
)

t.test('a drained node hands over a lease that was fenced when it was drained', async (t) => {
  const world = new World(t)
  const fences = new Set<string>()
  const a = await world.node('a', { wrap: fenced(fences) })
  const b = await world.node('b', { wrap: fenced(fences) })
  for (const n of [a, b]) n.coordinator.worker(untilAborted('w'))
  await world.start(a, b)
  await world.advance(1_000)
  const holder = a.coordinator.isHeld('w') ? a : b
  fences.add('global/w')
  await b.coordinator.operator.drain(holder.coordinator.nodeId ?? '', by)
  await world.advance(1_000)
  fences.clear()
  await world.advance(20_000)
  t.notOk(holder.coordinator.isHeld('w'), 'the drained node has handed over')
})

t.test('a cool-down from a clock that was far ahead is cut down once it has gone back', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const n of [a, b]) n.coordinator.worker(untilAborted('w'))
  await world.start(a, b)
  await world.advance(1_000)
  const dayMs = 86_400_000
  const takeAway = async () => {
    const [lease] = (await a.coordinator.status()).leases
    await a.coordinator.operator.release({ key: 'global/w', token: lease?.token ?? 0, ...by })
    await world.advance(1_000)
  }
  world.clockOffsetMs = 30 * dayMs
  await takeAway()
  world.clockOffsetMs = 0
  await takeAway()
  const events = await a.coordinator.operator.events({ limit: 100 })
  const [cut] = events.filter(({ type }) => type === 'cooldown.shortened')
  t.match(cut, { subject: 'global/w', detail: { toMs: (cut?.atMs ?? 0) + dayMs } })
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

t.test('a fenced share of a dead node does not begin generation after generation', async (t) => {
  const world = new World(t)
  const fences = new Set<string>()
  const team = new Team()
  const nodes: WorldNode[] = []
  for (const name of ['a', 'b', 'c']) {
    const node = await world.node(name, { wrap: fenced(fences) })
    nodes.push(node)
    node.coordinator.worker(coordinated(team, name))
  }
  await world.start(...nodes)
  await world.advance(5_000)
  const [a, b] = nodes as [WorldNode, WorldNode]
  const share = nodes[0]?.coordinator.health().held.find((k) => k.includes('data')) ?? ''
  fences.add(share)
  world.freeze(a)
  await world.advance(20_000)
  const before = await generationOf(b)
  await world.advance(20_000)
  const after = await generationOf(b)
  t.ok(after - before < 3, `generation ${before} became ${after} in 20 s`)
  fences.clear()
  world.thaw(a)
  await world.advance(60_000)
})

t.test('trying for a lease on a drained node answers', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const b = await world.node('b')
  await world.start(a, b)
  await b.coordinator.operator.drain(a.coordinator.nodeId ?? '', by)
  await world.advance(1_000)
  let answered = false
  a.coordinator.tryAcquire('x').then(
    () => {
      answered = true
    },
    () => {
      answered = true
    },
  )
  await world.advance(60_000)
  t.ok(answered)
})

t.test('a single worker that becomes a coordinated one keeps its generations', async (t) => {
  const world = new World(t)
  const old = await world.node('old')
  old.coordinator.worker(untilAborted('data'))
  await world.start(old)
  await world.advance(1_000)
  const closing = old.coordinator.close()
  await world.advanceUntil(() => old.coordinator.state === 'closed', 60_000)
  await closing
  const team = new Team()
  const nodes: WorldNode[] = []
  for (const name of ['a', 'b', 'c']) {
    const node = await world.node(name)
    nodes.push(node)
    node.coordinator.worker(coordinated(team, name))
  }
  const [a, b, c] = nodes as [WorldNode, WorldNode, WorldNode]
  await world.start(a)
  await world.advance(3_000)
  await world.start(b)
  await world.advance(3_000)
  await world.start(c)
  await world.advance(3_000)
  t.equal(await generationOf(a), 3, 'one generation for each node that joined')
})

t.test('a worker registered while the first answer to a join was lost', async (t) => {
  const world = new World(t)
  const a = await world.node('a', { wrap: losingAnswers({ next: 1 }) })
  a.coordinator.worker(untilAborted('one'))
  const starting = a.coordinator.start()
  await world.advance(1, 1)
  a.coordinator.worker(untilAborted('two'))
  await world.advance(5_000)
  await starting
  await world.advance(30_000)
  t.ok(a.coordinator.isHeld('one'))
  t.ok(a.coordinator.isHeld('two'))
})

t.test('nobody works under a new generation while a share of the older one is blocked', async (t) => {
  const world = new World(t)
  const team = new Team()
  const { running } = team
  let stubborn = false
  const nodes: WorldNode[] = []
  for (const name of ['a', 'b', 'c']) {
    const node = await world.node(name)
    nodes.push(node)
    node.coordinator.worker(coordinated(team, name, () => stubborn && name === 'a'))
  }
  const [a, b, c] = nodes as [WorldNode, WorldNode, WorldNode]
  await world.start(a, b, c)
  await world.advance(5_000)
  stubborn = true
  const { leases } = await b.coordinator.operator.snapshot()
  const share = leases.find(({ holder }) => holder === a.coordinator.nodeId)
  await b.coordinator.operator.release({ key: share?.key ?? '', token: share?.token ?? 0, ...by })
  await world.advance(5_000)
  t.same([running.get('b'), running.get('c')], ['-', '-'], 'the others have stopped, and wait')
  team.release()
  await world.advance(30_000, 100)
  t.match(running.get('b'), /of|\//, 'and go on once it has acknowledged')
})

t.test('a node whose work on an earlier share goes on claims no other share of that worker', async (t) => {
  const world = new World(t)
  const team = new Team()
  const { running } = team
  let stubborn = false
  const nodes: WorldNode[] = []
  for (const name of ['a', 'b', 'c']) {
    const node = await world.node(name)
    nodes.push(node)
    node.coordinator.worker(coordinated(team, name, () => stubborn && name === 'a'))
  }
  const [a, b, c] = nodes as [WorldNode, WorldNode, WorldNode]
  await world.start(a, b)
  await world.advance(1_000)
  stubborn = true
  const { leases } = await b.coordinator.operator.snapshot()
  const share = leases.find(({ holder }) => holder === a.coordinator.nodeId)
  const taken = { key: share?.key ?? '', token: share?.token ?? 0, immediate: true, cooldownMs: 1_000 }
  await b.coordinator.operator.release({ ...taken, ...by })
  await world.advance(2_000)
  await world.start(c)
  await world.advance(1_000)
  const now = (await b.coordinator.operator.snapshot()).leases
  const others = now.filter(({ target, key }) => target === a.coordinator.nodeId && key !== taken.key)
  t.equal(others.length, 1, 'it is meant to have another share')
  t.equal(others[0]?.holder, null)
  t.equal(running.get('a'), 'stubborn', 'and has begun nothing')
  team.release()
  await world.advance(1_000)
  t.match(running.get('a'), '/3g')
})

t.test('heartbeats to another server do not count before rows have been read from it', async (t) => {
  const world = new World(t)
  const blind = { on: false }
  const a = await world.node('a', { wrap: failing(blind, 'view', 'change') })
  await world.start(a)
  await world.advance(5_000)
  t.ok(a.coordinator.health().trusted)
  blind.on = true
  world.identity = 'server-2'
  await world.advance(world.timing.ttlMs)
  t.notOk(a.coordinator.health().trusted, 'trust has ended, though heartbeats succeed')
  blind.on = false
  await world.advance(2 * world.timing.ttlMs)
  t.ok(a.coordinator.health().trusted)
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

/** Starts `a`, which holds the lease `k`, and `b`. */
async function holderAndWaiter(t: Test, fences: ReadonlySet<string>) {
  const world = new World(t)
  const a = await world.node('a', { wrap: fenced(fences) })
  const b = await world.node('b', { wrap: fenced(fences) })
  await world.start(a, b)
  const lease = await a.coordinator.tryAcquire('k')
  return { world, a, b, release: () => void lease?.release() }
}

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

t.test('who waits for a lease and stands still is passed over, and is not forgotten', async (t) => {
  const world = new TestWorld()
  t.teardown(() => world.close())
  const [a, b, c] = [world.node('a'), world.node('b'), world.node('c')]
  await world.start()
  const held = await world.settled(a.coordinator.acquire('k'))
  const order: string[] = []
  for (const { name, coordinator } of [b, c]) {
    void coordinator.acquire('k').then((lease) => {
      order.push(name)
      return lease.release()
    })
    await world.advance(500)
  }
  b.freeze()
  await world.settled(held.release())
  await world.advance(8_000)
  t.same(order, ['c'])
  b.thaw()
  await world.advance(500)
  t.same(order, ['c', 'b'])
})

t.test('who stands still and is the only one to wait for a lease remains the next', async (t) => {
  const world = new TestWorld()
  t.teardown(() => world.close())
  const [a, b] = [world.node('a'), world.node('b')]
  await world.start()
  const held = await world.settled(a.coordinator.acquire('k'))
  void b.coordinator.acquire('k').catch(() => undefined)
  await world.advance(500)
  b.freeze()
  await world.settled(held.release())
  await world.advance(8_000)
  b.thaw()
  await world.advance(500)
  t.ok(b.coordinator.isHeld('k'))
})

t.test('who waits for a lease and is drained and taken back has kept its place', async (t) => {
  const { world, a, b, release } = await holderAndWaiter(t, new Set())
  void b.coordinator.acquire('k').catch(() => undefined)
  await world.advance(500)
  await a.coordinator.operator.drain(b.coordinator.nodeId ?? '', by)
  await world.advance(500)
  release()
  await world.advance(500)
  const { leases } = await a.coordinator.operator.snapshot()
  t.match(leases[0], { holder: null, target: null, waiters: [b.coordinator.nodeId] })
  await a.coordinator.operator.undrain(b.coordinator.nodeId ?? '', by)
  await world.advance(500)
  t.ok(b.coordinator.isHeld('k'))
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

const impatient = { handoverTimeoutMs: 10_000 }

/** A worker whose passes do not end before `pass` does, whatever their signal says. */
function deaf(pass: Promise<void>): WorkerDefinition {
  return untilAborted('w', { ...impatient, run: () => pass })
}

t.test('work that ignores its signal does not keep what ended while its node was cut off', async (t) => {
  const world = new World(t)
  const pass = gate()
  const outage = { on: false }
  const [a, b] = [await world.node('a', { wrap: failing(outage) }), await world.node('b')]
  a.coordinator.worker(deaf(pass.opened))
  b.coordinator.worker(untilAborted('w', impatient))
  await world.start(a)
  await world.start(b)
  const kept = await a.coordinator.acquire('name')
  let waited = false
  const waiting = b.coordinator.acquire('name').then((lease) => {
    waited = true
    return lease
  })
  await world.advance(5_000)
  outage.on = true
  await world.advanceUntil(() => a.history.includes('trust.expired'), world.timing.ttlMs)
  outage.on = false
  await world.advance(9_000)
  t.notOk(a.history.includes('session.lost'), 'it has not been buried')
  t.equal((await b.coordinator.status()).leases.find(({ key }) => key === 'global/w')?.holder?.name, 'a')
  const graceMs = blockWaitMs(world.timing)
  await world.advance(1_000 + graceMs)
  t.ok(b.coordinator.isHeld('w'), 'after its time to hand over and a grace period')
  t.same(a.coordinator.health().unsettled.length, 2, 'the work and the handle are still there')
  const [revoked] = await b.coordinator.operator.events({ limit: 1, types: ['lease.revoked'] })
  t.match(revoked, { subject: 'global/w', reason: 'the work under it did not end in time' })
  t.notOk(waited, 'a name has the time that the coordinator sets')
  await world.advance(world.timing.handoverTimeoutMs)
  t.ok(waited)
  pass.open()
  await kept.release()
  await (await waiting).release()
  await world.advance(60_000)
  t.ok(b.coordinator.isHeld('w'))
})

t.test('work that ignores its signal does not keep what was paused and resumed meanwhile', async (t) => {
  const world = new World(t)
  const pass = gate()
  const [a, b] = [await world.node('a'), await world.node('b')]
  a.coordinator.worker(deaf(pass.opened))
  b.coordinator.worker(untilAborted('w', impatient))
  await world.start(a)
  await world.start(b)
  await b.coordinator.operator.pause('global/w', by)
  await world.advance(1_000)
  await b.coordinator.operator.resume('global/w', by)
  await world.advance(10_000)
  const { leases } = await b.coordinator.operator.snapshot()
  const { nodeId } = b.coordinator
  t.match(leases, [{ key: 'global/w', holder: null, blockedNode: a.coordinator.nodeId, target: nodeId }])
  t.notOk(b.coordinator.isHeld('w'), 'the other waits, since the work goes on')
  pass.open()
  await world.advance(1_000)
  t.ok(b.coordinator.isHeld('w'), 'only until that has ended')
})

t.test('the only candidate begins again as soon as its work has ended', async (t) => {
  const world = new World(t)
  const pass = gate()
  const a = await world.node('a')
  a.coordinator.worker(deaf(pass.opened))
  await world.start(a)
  await a.coordinator.operator.pause('global/w', by)
  await world.advance(1_000)
  await a.coordinator.operator.resume('global/w', by)
  await world.advance(120_000)
  t.notOk(a.coordinator.isHeld('w'))
  pass.open()
  await world.advance(1_000)
  t.ok(a.coordinator.isHeld('w'))
})

t.test('work that ignores its signal does not keep a share that a fence kept out of a plan', async (t) => {
  const world = new World(t)
  const fences = new Set<string>()
  const team = new Team()
  const [a, b] = [
    await world.node('a', { wrap: fenced(fences) }),
    await world.node('b', { wrap: fenced(fences) }),
  ]
  for (const node of [a, b]) node.coordinator.worker(coordinated(team, node.name, () => node === a))
  await world.start(a)
  await world.advance(1_000)
  fences.add('global/data#0')
  await world.start(b)
  await world.advance(1_000)
  fences.clear()
  t.equal(team.running.get('a'), 'stubborn')
  await world.advance(world.timing.handoverTimeoutMs + blockWaitMs(world.timing) + 1_000)
  t.match(team.running.get('b'), /^0\/1g/, 'the other has them all')
  team.release()
  await world.advance(60_000)
  t.match([team.running.get('a'), team.running.get('b')].sort(), [/^0\/2g/, /^1\/2g/], 'and later both share')
})

t.test('a lapse of one node does not end the shares of the others', async (t) => {
  const world = new World(t)
  const team = new Team()
  const outage = { on: false }
  const nodes = [
    await world.node('a', { wrap: failing(outage) }),
    await world.node('b'),
    await world.node('c'),
  ] as const
  for (const { coordinator, name } of nodes) coordinator.worker(coordinated(team, name))
  await world.start(...nodes)
  await world.advance(5_000)
  const before = new Map(team.running)
  const [a, b, c] = nodes
  const others = [...b.history, ...c.history]
  outage.on = true
  await world.advanceUntil(() => a.history.includes('trust.expired'), world.timing.ttlMs)
  t.equal(team.running.get('a'), '-')
  outage.on = false
  await world.advance(5_000)
  t.notOk(a.history.includes('session.lost'), 'it has not been buried')
  t.same(team.running, before, 'all work on the same shares, under the same generation')
  t.same([...b.history, ...c.history], others, 'the others have not ended theirs')
  const { leases } = await b.coordinator.operator.snapshot()
  const again = leases.find(({ holder }) => holder === a.coordinator.nodeId)
  t.equal(again?.targetAtMs, again?.acquiredAtMs, 'it counts as named when it was given back')
})

t.test('a node that gives back several leases does not count as having them still', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const a = await world.node('a', { wrap: failing(outage) })
  const b = await world.node('b')
  for (const name of ['one', 'two', 'three']) a.coordinator.worker(untilAborted(name))
  await world.start(a)
  await world.advance(2_000)
  for (const name of ['one', 'two', 'three', 'own']) b.coordinator.worker(untilAborted(name))
  await world.start(b)
  await world.advance(5_000)
  const countOf = async ({ coordinator }: WorldNode): Promise<number> =>
    (await b.coordinator.operator.snapshot()).leases.filter(({ holder }) => holder === coordinator.nodeId)
      .length
  t.same([await countOf(a), await countOf(b)], [3, 1])
  outage.on = true
  await world.advanceUntil(() => a.history.includes('trust.expired'), world.timing.ttlMs)
  outage.on = false
  await world.advance(5_000)
  t.notOk(a.history.includes('session.lost'), 'it has not been buried')
  t.same([await countOf(a), await countOf(b)], [2, 2])
})

t.test('a single worker whose pass steps down goes to another that has as few leases', async (t) => {
  for (const name of ['one', 'two', 'three', 'four']) {
    const world = new World(t)
    const [a, b] = [await world.node('a'), await world.node('b')]
    const stepDown: (() => void)[] = []
    const run = ({ signal, stepDown: step }: SingleContext): Promise<void> => {
      stepDown.push(() => step(0))
      return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
    }
    for (const { coordinator } of [a, b]) coordinator.worker(untilAborted(name, { run }))
    await world.start(a)
    await world.advance(2_000)
    await world.start(b)
    await world.advance(2_000)
    stepDown[0]?.()
    await world.advance(2_000)
    t.equal((await a.coordinator.operator.snapshot()).leases[0]?.holder, b.coordinator.nodeId, name)
  }
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

  const [last] = nodes.filter((node) => node !== first)
  if (last === undefined) return
  world.freeze(last)
  await world.advance(2 * world.timing.ttlMs)
  t.ok(
    nodes.some(({ history }) => history.includes('node.gone')),
    'who is dead is found as before',
  )
  world.thaw(last)
  await world.advance(5_000)
})

t.test('tokens go on when all rows are wiped beneath those who have seen them', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const { coordinator } of [a, b]) coordinator.worker(untilAborted('w'))
  await world.start(a, b)
  world.identity = 'server-2'
  await world.advance(60_000)
  const { operator } = a.coordinator
  const held = async () => (await operator.snapshot()).leases.find(({ key }) => key === 'global/w')
  await operator.pause('global/w', by)
  await world.advance(1_000)
  await operator.resume('global/w', by)
  await world.advance(1_000)
  const before = (await held())?.token ?? 0
  t.ok(before > 1_700_000_500_000, 'since the server was another one, tokens lie ahead of the time')
  world.wipe()
  await world.advanceUntil(async () => ((await held())?.holder ?? null) !== null, 60_000)
  t.ok(((await held())?.token ?? 0) > before)
})

t.test('a standby does not begin at once when all rows are wiped beneath a holder', async (t) => {
  for (let laterMs = 0; laterMs < 3_000; laterMs += 300) {
    const world = new World(t)
    const [a, b] = [await world.node('a'), await world.node('b')]
    for (const { coordinator } of [a, b]) coordinator.worker(untilAborted('w'))
    await world.start(a)
    await world.advance(3_000)
    await world.start(b)
    await world.advance(10_000 + laterMs)
    world.wipe()
    t.equal(await world.mostHolders('global/w', 30_000), 1)
  }
})

t.test('a lease whose row somebody has deleted is not held twice when a node makes it again', async (t) => {
  for (const name of ['w', 'v', 'u', 'z']) {
    const world = new World(t)
    const [a, b, c] = [await world.node('a'), await world.node('b'), await world.node('c')]
    for (const { coordinator } of [a, b, c]) coordinator.worker(untilAborted(name))
    await world.start(a, b)
    await world.advance(2_000)
    const token = async () => (await a.coordinator.operator.snapshot()).leases[0]?.token ?? 0
    const before = await token()
    world.sql('delete from coordination_leases')
    world.clockOffsetMs = -600_000
    await world.start(c)
    t.equal(await world.mostHolders(`global/${name}`, 60_000), 1)
    t.ok((await token()) > before)
  }
})

t.test('a node that makes rows of many workers again takes no more requests than for one', async (t) => {
  const requests: number[] = []
  for (const workers of [1, 50]) {
    const world = new World(t)
    const calls = new Map<string, number>()
    const [a, b] = [await world.node('a'), await world.node('b', { wrap: countingInChanges(calls) })]
    for (const { coordinator } of [a, b])
      for (let each = 0; each < workers; each++) coordinator.worker(untilAborted(`w${each}`))
    await world.start(a)
    await world.advance(2_000)
    world.sql('delete from coordination_leases; delete from coordination_workers')
    const started = b.coordinator.start()
    await world.advance(10)
    await started
    requests.push([...calls.values()].reduce((sum, count) => sum + count, 0))
  }
  t.equal(requests[0], requests[1])
})

t.test(
  'no two generations run when a worker whose row somebody has deleted is registered again',
  async (t) => {
    const world = new World(t)
    let atOnce = 0
    const passes = new Set<{ readonly generation: number }>()
    const run = async ({ signal, assignment: pass }: CoordinatedContext): Promise<void> => {
      passes.add(pass)
      atOnce = Math.max(atOnce, new Set([...passes].map(({ generation }) => generation)).size)
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
      passes.delete(pass)
    }
    const nodes = [await world.node('a'), await world.node('b'), await world.node('c')] as const
    for (const { coordinator } of nodes)
      coordinator.worker({
        name: 'w',
        kind: 'coordinated',
        scope: 'global',
        run,
      } as unknown as WorkerDefinition)
    await world.start(nodes[0], nodes[1])
    await world.advance(5_000)
    world.sql('delete from coordination_workers')
    await world.start(nodes[2])
    await world.advance(60_000)
    t.equal(passes.size, 3)
    t.equal(atOnce, 1)
  },
)

t.test('a registration that a failover has forgotten is made again, and a withdrawal too', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const { coordinator } of [a, b]) coordinator.worker(untilAborted('kept'))
  const old = b.coordinator.worker(untilAborted('old'))
  await world.start(a, b)
  await world.advance(2_000)
  const tables = ['nodes', 'workers', 'leases', 'meta']
  for (const table of tables) world.sql(`create table then_${table} as select * from coordination_${table}`)
  a.coordinator.worker(untilAborted('new'))
  const stopped = old.stop()
  await world.advance(500)
  await stopped
  t.ok(a.coordinator.isHeld('new'))
  for (const table of tables)
    world.sql(
      `delete from coordination_${table}; insert into coordination_${table} select * from then_${table}`,
    )
  world.identity = 'server-2'
  await world.advance(120_000)
  t.ok(a.coordinator.isHeld('new'))
  const { nodes, leases } = await a.coordinator.operator.snapshot()
  t.notOk(nodes.some(({ workers }) => workers.includes('global/old')))
  t.match(
    leases.find(({ key }) => key === 'global/old'),
    { holder: null, target: null },
  )
})

t.test('a node does not claim again and again what its worker does not fit', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const refused: string[] = []
  a.coordinator.on('worker.refused', ({ worker }) => refused.push(worker))
  a.coordinator.worker(untilAborted('w', { kind: 'partitioned', partitions: 3 }))
  b.coordinator.worker(untilAborted('w', { kind: 'partitioned', partitions: 1 }))
  await world.start(a)
  await world.advance(2_000)
  world.sql('delete from coordination_workers')
  await world.start(b)
  await world.advance(60_000)
  t.same(refused, ['global/w'], 'once another node has said otherwise')
  const { operator } = a.coordinator
  const { revision } = (await operator.snapshot()).meta
  await world.advance(10_000)
  t.ok((await operator.snapshot()).meta.revision <= revision + 2)
  const closed = b.coordinator.close()
  await world.advance(60_000)
  await closed
  t.equal(a.coordinator.health().held.length, 3)
})

/** How many partitions each of these nodes has, in their order. */
async function partsOf(...nodes: readonly WorldNode[]): Promise<number[]> {
  const { leases } = await (nodes[0] as WorldNode).coordinator.status()
  return nodes.map(({ name }) => leases.filter(({ holder }) => holder?.name === name).length)
}

const parts = { kind: 'partitioned', partitions: 12 }

/** Nodes that share twelve partitions, all but one of which can be fenced, and the changes they make. */
async function sharing(t: Test) {
  const world = new World(t)
  const fences = new Set<string>()
  const calls = new Map<string, number>()
  const wrap = (store: Store) => counting(calls)(fenced(fences)(store))
  const nodes = await Promise.all(['a', 'b', 'c'].map((name) => world.node(name, { wrap })))
  for (const node of nodes) node.coordinator.worker(untilAborted('data', parts))
  const fenceAll = () => {
    for (let slot = 1; slot < 12; slot++) fences.add(`global/data#${slot}`)
  }
  return { world, fences, calls, fenceAll, nodes: nodes as [WorldNode, WorldNode, WorldNode] }
}

t.test('a node that joins while partitions are fenced gets its part of them afterwards', async (t) => {
  const { world, fences, calls, fenceAll, nodes } = await sharing(t)
  const [a, b, c] = nodes
  const changes = (): number => calls.get('change') ?? 0
  await world.start(a, b)
  await world.advance(1_000)
  t.same(await partsOf(a, b), [6, 6])
  const before = (await a.coordinator.status()).revision
  fenceAll()
  await world.start(c)
  await world.advance(1_000)
  const [, , early = 12] = await partsOf(a, b, c)
  t.ok(early <= 1)
  const { revision } = await a.coordinator.status()
  calls.clear()
  await world.advance(120_000)
  t.ok(changes() <= 26, `${changes()} changes while the fences last: one for each heartbeat of one node`)
  t.equal((await a.coordinator.status()).revision, revision, 'none of which writes anything')
  fences.clear()
  await world.advance(10_000)
  t.same(await partsOf(a, b, c), [4, 4, 4])
  const moved = (await a.coordinator.operator.events({ limit: 1_000 }))
    .filter(({ type, revision: of }) => type === 'assignment.changed' && of > before)
    .reduce((sum, { detail }) => sum + Number(detail?.moved), 0)
  t.equal(moved, 4, 'only what has moved counts as moved')
  calls.clear()
  await world.advance(600_000, 500)
  t.equal(changes(), 0, 'and no more plans are made')
})

t.test('a node that is resumed while partitions are fenced gets its part of them afterwards', async (t) => {
  const { world, fences, fenceAll, nodes } = await sharing(t)
  const [a, b, c] = nodes
  await world.start(a, b, c)
  await world.advance(1_000)
  await a.coordinator.operator.drain(c.coordinator.nodeId ?? '', by)
  await world.advance(5_000)
  t.same(await partsOf(a, b, c), [6, 6, 0])
  fenceAll()
  await a.coordinator.operator.undrain(c.coordinator.nodeId ?? '', by)
  await world.advance(5_000)
  fences.clear()
  await world.advance(10_000)
  t.same(await partsOf(a, b, c), [4, 4, 4])
})

t.test('partitions are shared out evenly again after the cool-down of a node', async (t) => {
  const world = new TestWorld({ ttlMs: 60_000 })
  t.teardown(() => world.close())
  const nodes = ['a', 'b', 'c'].map((name) => world.node(name))
  let broken = true
  let terms = 0
  for (const { name, coordinator } of nodes) {
    const { run } = untilAborted('data') as { run: (context: unknown) => Promise<void> }
    const failing = async (context: unknown) => {
      if (name === 'a' && broken) throw new Error('its disk is full')
      return run(context)
    }
    coordinator.worker(untilAborted('data', { ...parts, run: failing }))
    if (name === 'a') coordinator.on('lease.acquired', () => terms++)
  }
  const counts = async () => {
    const { leases } = await world.snapshot()
    return ['a', 'b', 'c'].map((name) => leases.filter(({ holder }) => holder?.startsWith(name)).length)
  }
  const hourMs = 3_600_000
  await world.start()
  await world.advance(3 * hourMs)
  const earlier = terms
  await world.advance(5 * hourMs)
  t.ok(terms > earlier, 'after the cool-down it is tried again')
  t.ok(terms - earlier <= 24, `while it fails, ever more rarely: ${terms - earlier} times in 5 hours`)
  broken = false
  await world.advance(2 * hourMs)
  t.same(await counts(), [4, 4, 4])
  const { revision } = (await world.snapshot()).meta
  await world.advance(hourMs)
  t.equal((await world.snapshot()).meta.revision, revision, 'and no more plans are made')
})

t.test('partitions are shared out evenly again after a node stood still when it was named', async (t) => {
  const world = new TestWorld()
  t.teardown(() => world.close())
  const [a, b, c] = ['a', 'b', 'c'].map((name) => world.node(name)) as [TestNode, TestNode, TestNode]
  for (const { coordinator } of [a, b, c]) coordinator.worker(untilAborted('data', parts))
  const counts = async () => {
    const { leases } = await world.snapshot()
    return ['a', 'c'].map((name) => leases.filter(({ holder }) => holder?.startsWith(name)).length)
  }
  await world.start()
  c.freeze()
  void b.coordinator.close()
  await world.advance(4_000)
  c.thaw()
  await world.advance(1_000)
  t.same(await counts(), [8, 4], 'what b had has gone to the one that claimed it')
  await world.advance(600_000)
  t.same(await counts(), [6, 6])
  const { revision } = (await world.snapshot()).meta
  await world.advance(600_000)
  t.equal((await world.snapshot()).meta.revision, revision, 'and no more plans are made')
})

/** Three nodes that share the work. Changes see the leases with these keys as fenced. */
async function dividing(
  t: Test,
  fences: ReadonlySet<string> = new Set(),
): Promise<{ world: World; nodes: WorldNode[]; running: () => string[] }> {
  const world = new World(t)
  const running = new Map<string, string>()
  const nodes: WorldNode[] = []
  for (const name of ['a', 'b', 'c']) {
    const node = await world.node(name, { wrap: fenced(fences) })
    const run = async ({ signal, assignment: { index, count } }: CoordinatedContext): Promise<void> => {
      running.set(`${name} ${index}`, `${index} of ${count}`)
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
      running.delete(`${name} ${index}`)
    }
    node.coordinator.worker({ name: 'data', kind: 'coordinated', scope: 'global', run })
    nodes.push(node)
  }
  return { world, nodes, running: () => [...running.values()].sort() }
}

t.test('where somebody has deleted the row of a share, no node keeps two of them', async (t) => {
  const { world, nodes, running } = await dividing(t)
  await world.start(...nodes)
  await world.advance(5_000)
  world.sql("delete from coordination_leases where key = 'global/data#1'")
  const closed = nodes[1]?.coordinator.close()
  await world.advance(60_000)
  await closed
  t.same(running(), ['0 of 2', '1 of 2'])
})

t.test('where somebody has deleted the row of a worker, all its shares belong to one plan', async (t) => {
  const { world, nodes, running } = await dividing(t)
  await world.start(...nodes.slice(0, 2))
  await world.advance(5_000)
  world.sql('delete from coordination_workers')
  await world.start(...nodes.slice(2))
  await world.advance(60_000)
  t.same(running(), ['0 of 3', '1 of 3', '2 of 3'])
})

t.test('a drain beside a fence leaves no share without a node, even where one node remains', async (t) => {
  const fences = new Set<string>()
  const { world, nodes, running } = await dividing(t, fences)
  const [a, b] = nodes as [WorldNode, WorldNode]
  await world.start(a, b)
  await world.advance(5_000)
  fences.add('global/data#1')
  await b.coordinator.operator.drain(a.coordinator.health().node ?? '', by)
  await world.advance(3_000)
  t.same(running(), ['1 of 2'], 'what is fenced cannot be planned')
  fences.clear()
  await world.advance(30_000, 250)
  t.same(running(), ['0 of 1'])
})
