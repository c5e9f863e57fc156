/** Tests the shares of coordinated workers: no two generations at once, and no share that nobody works on. */
import t, { type Test } from 'tap'
import { blockWaitMs } from '../../plugin/core/time/timing.js'
import type { Assignment, CoordinatedContext, WorkerDefinition } from '../../plugin/core/work/worker.js'
import { found } from '../../plugin/testing/conformance/world.js'
import { aborted, untilAborted } from '../support/workers.js'
import { World, type WorldNode } from '../support/world.js'
import { failing, fenced } from '../support/wrapped-store.js'

const by = { actor: 'ops', reason: 'a good one' }

async function generationOf(node: WorldNode): Promise<number> {
  const { workers } = await node.coordinator.operator.snapshot()
  return found(workers.find((worker) => worker.key === 'global/data')).generation
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

/** Nodes that share the work. Changes see the leases with these keys as fenced. */
async function dividing(
  t: Test,
  fences: ReadonlySet<string> = new Set(),
  names: readonly string[] = ['a', 'b', 'c'],
): Promise<{ world: World; nodes: WorldNode[]; running: () => string[] }> {
  const world = new World(t)
  const running = new Map<string, string>()
  const nodes: WorldNode[] = []
  for (const name of names) {
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

/** Takes the share of `a` by force, whose work ignores its signal, and looks how long the work of the others goes on. */
async function blockOne(t: Test, claimTimeoutMs: number): Promise<void> {
  const world = new World(t, { claimTimeoutMs })
  const team = new Team()
  const nodes: WorldNode[] = []
  for (const name of ['a', 'b', 'c']) {
    const node = await world.node(name)
    nodes.push(node)
    node.coordinator.worker(coordinated(team, name, () => name === 'a'))
  }
  const [a, b, c] = nodes as [WorldNode, WorldNode, WorldNode]
  await world.start(b, c)
  await world.start(a)
  await world.advance(1_000)
  const sharesOfOthers = () =>
    [team.running.get('b'), team.running.get('c')].map((share) => share?.slice(0, 3))
  const before = sharesOfOthers()
  t.same(before, ['0/3', '1/3'])
  const { operator } = b.coordinator
  const { leases } = await operator.snapshot()
  const { key = '', token = 0 } = leases.find(({ holder }) => holder === a.coordinator.nodeId) ?? {}
  await operator.release({ key, token, cooldownMs: 0, ...by })
  const waitMs = Math.max(claimTimeoutMs, blockWaitMs(world.timing))
  for (let passedMs = 0; passedMs < waitMs - 1_000; passedMs += 1_000) {
    await world.advance(1_000)
    t.same(sharesOfOthers(), before, `after ${passedMs} ms`)
  }
  await world.advance(4_000)
  t.same(sharesOfOthers(), ['0/2', '1/2'], 'and then they do the work of all')
  team.release()
}

t.test('work that ignores its signal leaves the others theirs while its share is blocked', (t) =>
  blockOne(t, 2_000),
)

t.test('a blocked share is not planned anew before any other would be', (t) => blockOne(t, 40_000))

t.test(
  'a blocked share of a node that is gone is given to others as soon as its fence has ended',
  async (t) => {
    const world = new World(t)
    const fences = new Set<string>()
    const team = new Team()
    const nodes: WorldNode[] = []
    for (const name of ['a', 'b', 'c']) {
      const node = await world.node(name, { wrap: fenced(fences) })
      nodes.push(node)
      node.coordinator.worker(coordinated(team, name, () => name === 'a'))
    }
    const [a, b, c] = nodes as [WorldNode, WorldNode, WorldNode]
    await world.start(b, c, a)
    await world.advance(3_000)
    const { operator } = b.coordinator
    const { leases } = await operator.snapshot()
    const { key = '', token = 0 } = leases.find(({ holder }) => holder === a.coordinator.nodeId) ?? {}
    await operator.release({ key, token, cooldownMs: 0, ...by })
    await world.advance(500)
    fences.add(key)
    world.freeze(a)
    await world.advance(60_000)
    const running = () => ['b', 'c'].map((name) => team.running.get(name)?.slice(0, 3)).sort()
    t.same(running(), ['0/3', '1/3'])
    fences.clear()
    await world.advanceUntil(() => running().join() === '0/2,1/2', world.timing.heartbeatMs)
    team.release()
  },
)

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
  fences.add(found(a.coordinator.health().held.find((key) => key.includes('data'))))
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

t.test('who waits for the fenced share of a dead node does not stand aside', async (t) => {
  const fences = new Set<string>()
  const { world, nodes, running } = await dividing(t, fences, ['a', 'b', 'c', 'd', 'e'])
  const [a, b, c, d, e] = nodes as [WorldNode, WorldNode, WorldNode, WorldNode, WorldNode]
  await world.start(a, b, c)
  await world.advance(1_000)
  fences.add('global/data#0')
  await world.start(d)
  world.freeze(a)
  await world.advance(40_000)
  t.same(running(), [], 'its transaction may still write')
  await world.start(e)
  fences.clear()
  await world.advance(5_000)
  t.same(running(), ['0 of 4', '1 of 4', '2 of 4', '3 of 4'])
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

/** Three nodes that share a worker. After `ignoreSignals`, the work of `a` goes on after its signal. */
async function teamWithStubborn(t: Test) {
  const world = new World(t)
  const team = new Team()
  let stubborn = false
  const nodes = [await world.node('a'), await world.node('b'), await world.node('c')] as const
  for (const { name, coordinator } of nodes)
    coordinator.worker(coordinated(team, name, () => stubborn && name === 'a'))
  const ignoreSignals = (): void => {
    stubborn = true
  }
  return { world, team, nodes, ignoreSignals }
}

t.test('nobody works under a new generation while a share of the older one is blocked', async (t) => {
  const { world, team, nodes, ignoreSignals } = await teamWithStubborn(t)
  const { running } = team
  const [a, b, c] = nodes
  await world.start(a, b, c)
  await world.advance(5_000)
  ignoreSignals()
  const { leases } = await b.coordinator.operator.snapshot()
  const share = leases.find(({ holder }) => holder === a.coordinator.nodeId)
  await b.coordinator.operator.release({ key: share?.key ?? '', token: share?.token ?? 0, ...by })
  await world.advance(5_000)
  t.same([running.get('b'), running.get('c')], ['-', '-'], 'the others have stopped, and wait')
  team.release()
  await world.advance(30_000, 100)
  t.match(running.get('b'), /\//, 'and go on once it has acknowledged')
})

t.test('a node whose work on an earlier share goes on claims no other share of that worker', async (t) => {
  const { world, team, nodes, ignoreSignals } = await teamWithStubborn(t)
  const { running } = team
  const [a, b, c] = nodes
  await world.start(a, b)
  await world.advance(1_000)
  ignoreSignals()
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

t.test('a node hears of each share it gets', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const heard: string[] = []
  for (const { name, coordinator } of [a, b]) {
    coordinator.worker({ name: 'crawl', kind: 'coordinated', scope: 'global', run: () => undefined })
    coordinator.on('assignment.changed', ({ worker, index, count }) =>
      heard.push(`${name} ${worker} ${index}/${count}`),
    )
  }
  await world.start(a)
  await world.advance(1_000)
  await world.start(b)
  await world.advance(2_000)
  t.same(heard.toSorted(), ['a global/crawl 0/1', 'a global/crawl 0/2', 'b global/crawl 1/2'])
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
