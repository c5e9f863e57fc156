/** Tests how workers are registered: how many at once, and what becomes of one that is refused or was forgotten. */
import t from 'tap'
import { CoordinationError, StoreError } from '../../plugin/core/errors.js'
import { silentLog } from '../../plugin/core/log.js'
import type { Store, WorkerRow } from '../../plugin/core/store.js'
import type { WorkerDefinition } from '../../plugin/core/work/worker.js'
import { partitioned, single, untilAborted } from '../support/workers.js'
import { World, type WorldNode } from '../support/world.js'
import { inChanges, losingAnswers, overriding } from '../support/wrapped-store.js'

function worker(name: string, partitions?: number): WorkerDefinition {
  const run = ({ signal }: { signal: AbortSignal }): Promise<void> =>
    new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
  const kind = partitions === undefined ? { kind: 'single' } : { kind: 'partitioned', partitions }
  return { name, scope: 'global', run, ...kind } as WorkerDefinition
}

const names = (count: number): string[] => Array.from({ length: count }, (_, each) => `w${each}`)

/** Counts the changes of each session, and checks what they write of workers. */
class Changes {
  readonly #made: string[] = []
  readonly #check: (rows: readonly WorkerRow[]) => void

  constructor(check: (rows: readonly WorkerRow[]) => void = () => undefined) {
    this.#check = check
  }

  /** How many changes the present session of a node has tried to make. */
  madeBy({ coordinator }: WorldNode): number {
    return this.#made.filter((id) => id === coordinator.nodeId).length
  }

  readonly wrap = (store: Store): Store => {
    const checked = this.#checking(store)
    return overriding(checked, {
      change: (session, work, ahead) => {
        this.#made.push(session?.node ?? '')
        return checked.change(session, work, ahead)
      },
    })
  }

  readonly #checking = inChanges((change) =>
    overriding(change, {
      saveWorkers: (rows) => {
        this.#check(rows)
        return change.saveWorkers(rows)
      },
    }),
  )
}

/** Notes which workers are refused, with the codes of the errors. */
function refusalsOf({ coordinator }: WorldNode): string[] {
  const told: string[] = []
  coordinator.on('worker.refused', ({ worker, error }) =>
    told.push(`${worker} ${error instanceof CoordinationError ? error.code : (error as Error).message}`),
  )
  return told
}

t.test('workers that are registered or stopped together are one change, however many', async (t) => {
  const world = new World(t)
  const changes = new Changes()
  const a = await world.node('a', { wrap: changes.wrap })
  await world.start(a)
  const before = changes.madeBy(a)
  const handles = names(50).map((name) => a.coordinator.worker(worker(name)))
  await world.advance(1_000)
  t.ok(names(50).every((name) => a.coordinator.isHeld(name)))
  t.equal(changes.madeBy(a) - before, 2, 'one that registers, and one that claims')
  const stopped = Promise.all(handles.map((handle) => handle.stop()))
  await world.advance(1_000)
  await stopped
  t.ok(changes.madeBy(a) - before <= 4, 'one that withdraws, and one that releases')
})

t.test('a worker that is refused does not keep back those registered with it', async (t) => {
  const world = new World(t)
  const changes = new Changes()
  const [a, b] = [await world.node('a'), await world.node('b', { wrap: changes.wrap })]
  for (const name of ['p', 'q']) a.coordinator.worker(worker(name, 3))
  await world.start(a, b)
  await world.advance(1_000)
  const told = refusalsOf(b)
  const before = changes.madeBy(b)
  const registered = [worker('one'), worker('p', 4), worker('two'), worker('q', 5), worker('three')]
  const handles = registered.map((definition) => b.coordinator.worker(definition))
  await world.advance(1_000)
  t.equal(changes.madeBy(b) - before, 2)
  const refused = ['global/p WCO_WORKER_CONFLICT', 'global/q WCO_WORKER_CONFLICT']
  t.same(told, refused, 'each is told by itself')
  t.same(
    handles.map(({ state }) => state),
    ['working', 'refused', 'working', 'refused', 'working'],
  )
  const { workers } = await a.coordinator.operator.snapshot()
  t.ok(workers.filter(({ kind }) => kind === 'partitioned').every(({ slots }) => slots === 3))
  void a.coordinator.close()
  await world.advance(2 * world.timing.ttlMs)
  t.ok(handles.every(({ state }) => state === 'working'))
  t.same(told, refused, 'and once only')
})

t.test('a node that joins again beside a worker that is refused registers the others at once', async (t) => {
  const world = new World(t)
  const changes = new Changes()
  const [a, b] = [await world.node('a', { wrap: changes.wrap }), await world.node('b')]
  for (const name of names(20)) a.coordinator.worker(worker(name))
  a.coordinator.worker(worker('p', 3))
  await world.start(a, b)
  world.freeze(a)
  await world.advance(2 * world.timing.ttlMs)
  b.coordinator.worker(worker('p', 4))
  await world.advance(1_000)
  const told = refusalsOf(a)
  world.thaw(a)
  await world.advance(5_000)
  t.ok(names(20).every((name) => a.coordinator.isHeld(name)))
  t.same(told, ['global/p WCO_WORKER_CONFLICT'])
  t.equal(changes.madeBy(a), 4, 'a join with workers, one without, one that registers, and one that claims')
})

t.test('where a change has no time for all workers, fewer are registered at once', async (t) => {
  const world = new World(t)
  const changes = new Changes((rows) => {
    if (rows.length > 8) throw new StoreError('A change did not end within 3000 ms.', 'none')
  })
  const a = await world.node('a', { wrap: changes.wrap })
  await world.start(a)
  const handles = names(50).map((name) => a.coordinator.worker(worker(name)))
  await world.advance(world.timing.ttlMs)
  t.ok(handles.every(({ state }) => state === 'working'))
})

t.test('workers whose registration had no answer are not withdrawn by one of fewer', async (t) => {
  const world = new World(t)
  const loss = { next: 0 }
  const [a, b] = [await world.node('a'), await world.node('b', { wrap: losingAnswers(loss) })]
  const shared = names(4).map((name) => ({ ...worker(name), kind: 'coordinated' }) as WorkerDefinition)
  for (const definition of shared) a.coordinator.worker(definition)
  await world.start(a, b)
  await world.advance(1_000)
  const generations = async () => (await a.coordinator.status()).workers.map(({ generation }) => generation)
  t.same(await generations(), [1, 1, 1, 1])
  loss.next = 1
  for (const definition of shared) b.coordinator.worker(definition)
  await world.advance(world.timing.ttlMs)
  t.ok(names(4).every((name) => b.coordinator.isHeld(name)))
  t.same(await generations(), [2, 2, 2, 2], 'one new plan each')
})

t.test('who declares schedules again in several changes keeps all workers that it leads', async (t) => {
  const world = new World(t)
  let most = 50
  const changes = new Changes((rows) => {
    if (rows.length > most) throw new StoreError('A change did not end within 3000 ms.', 'none')
  })
  const [a, b] = [await world.node('a', { wrap: changes.wrap }), await world.node('b')]
  for (const name of names(50)) {
    a.coordinator.worker({ ...worker(name), schedule: '* * * * *' } as WorkerDefinition)
    b.coordinator.worker({ ...worker(name), schedule: '0 * * * *' } as WorkerDefinition)
  }
  await world.start(a)
  await world.advance(1_000)
  most = 8
  await world.start(b)
  await world.advance(world.timing.ttlMs)
  t.ok(names(50).every((name) => a.coordinator.isHeld(name)))
  t.notOk(a.history.some((event) => event.startsWith('lease.ended')))
  const { workers } = await a.coordinator.status()
  t.ok(workers.every(({ schedule }) => schedule?.cron === '* * * * *'))
})

t.test('of workers that are registered together, the one that cannot be is found', async (t) => {
  const world = new World(t)
  const changes = new Changes((rows) => {
    if (rows.some(({ name }) => name === 'w5')) throw new TypeError('it cannot be written')
  })
  const a = await world.node('a', { wrap: changes.wrap })
  await world.start(a)
  const told = refusalsOf(a)
  const handles = names(9).map((name) => a.coordinator.worker(worker(name)))
  await world.advance(1_000)
  t.same(told, ['global/w5 it cannot be written'])
  t.same(
    handles.map(({ state }) => state),
    names(9).map((name) => (name === 'w5' ? 'refused' : 'working')),
  )
})

t.test('nodes that live fail a start, though silent ones contradict another worker', async (t) => {
  const world = new World(t)
  const [silent, living, next] = [await world.node('a'), await world.node('b'), await world.node('c')]
  silent.coordinator.worker(worker('p', 3))
  living.coordinator.worker(worker('q', 3))
  await world.start(silent, living)
  await world.advance(1_000)
  world.freeze(silent)
  const id = silent.coordinator.nodeId
  await world.advanceUntil(async () => {
    const { nodes, nowMs } = await living.coordinator.operator.snapshot()
    return nodes.some((node) => node.id === id && nowMs - node.heartbeatAtMs > world.timing.ttlMs)
  }, 2 * world.timing.ttlMs)
  for (const name of ['p', 'q']) next.coordinator.worker(worker(name, 4))
  await t.rejects(world.start(next), { code: 'WCO_WORKER_CONFLICT', message: /"global\/q".*among them "b"/ })
})

t.test(
  'a node whose worker others contradict loses its session, and does the rest of its work again',
  async (t) => {
    const world = new World(t)
    const [a, b] = [await world.node('a'), await world.node('b')]
    a.coordinator.worker(partitioned(4, () => undefined))
    b.coordinator.worker(single('other', () => undefined))
    await world.start(a, b)
    const refused: string[] = []
    const failures: unknown[] = []
    b.coordinator.on('worker.refused', ({ worker, error }) =>
      refused.push(`${worker} ${(error as CoordinationError).code}`),
    )
    const parts = b.coordinator.worker(partitioned(8, () => undefined))
    t.equal(parts.state, 'candidate')
    await world.advance(2_000)
    t.same(refused, ['global/parts WCO_WORKER_CONFLICT'])
    t.equal(parts.state, 'refused')
    b.coordinator.on('store.failed', ({ error }) => failures.push(error))
    world.freeze(b)
    await world.advance(world.timing.ttlMs * 2, 500)
    world.thaw(b)
    await world.advance(world.timing.ttlMs * 2, 500)
    t.ok(b.history.includes('session.lost'))
    t.ok(b.coordinator.isHeld('other'), 'it works again')
    t.same(refused.slice(1), ['global/parts WCO_WORKER_CONFLICT'], 'and says once more what it does not')
    t.same(failures, [], 'the database did answer')
    await parts.stop()
    t.equal(parts.state, 'stopped')
  },
)

t.test('a node whose worker others have with another schedule warns of it, and stands for it', async (t) => {
  const world = new World(t)
  const warnings: object[] = []
  const warn = (fields: object, message: string): void => {
    if (message === 'a worker is registered here with a different schedule than it was last registered with')
      warnings.push(fields)
  }
  const settings = { log: { ...silentLog, warn } }
  const [a, b, c] = [
    await world.node('a', settings),
    await world.node('b', settings),
    await world.node('c', settings),
  ]
  const [three, four] = ['0 3 * * *', '0 4 * * *']
  const report = (name: string, schedule?: string): WorkerDefinition => ({
    ...{ name, kind: 'single', scope: 'global', schedule, run: () => undefined },
  })
  a.coordinator.worker(report('early', three))
  b.coordinator.worker(report('early', four))
  await world.start(a, b, c)
  const written = (cron: string): string => JSON.stringify({ cron, timeZone: 'UTC', missed: 'once' })
  const ofB = { node: 'b', cluster: 'default', ours: written(four) }
  const ofC = { ...ofB, node: 'c' }
  const early = { ...ofB, worker: 'global/early', registered: written(three) }
  t.same(warnings, [early])
  c.coordinator.worker(report('early', four))
  c.coordinator.worker(report('late'))
  await world.advance(2_000)
  t.same(warnings, [early, { ...early, ...ofC }], 'who leads has declared its own once more')
  b.coordinator.worker(report('same', three))
  c.coordinator.worker(report('same', three))
  await world.advance(2_000)
  t.equal(warnings.length, 2, 'what is the same is nothing to warn of')
  const late = b.coordinator.worker(report('late', four))
  await world.advance(2_000)
  t.same(warnings.slice(2), [{ ...ofB, worker: 'global/late', registered: null }])
  t.equal(late.state, 'candidate')
})

t.test('a node that was away joins again though others have registered its worker differently', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  a.coordinator.worker(partitioned(4, () => undefined))
  a.coordinator.worker(single('other', () => undefined))
  await world.start(a, b)
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  b.coordinator.worker(partitioned(8, () => undefined))
  await world.advance(2_000)
  world.thaw(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  t.ok(a.coordinator.isHeld('other'))
  t.equal((await b.coordinator.status()).workers.find(({ key }) => key === 'global/parts')?.slots, 8)
})

t.test('a worker that was refused is taken once nobody contradicts it any more', async (t) => {
  const world = new World(t)
  const errors: string[] = []
  const error = (_fields: object, message: string): void => void errors.push(message)
  const [a, b] = [await world.node('a'), await world.node('b', { log: { ...silentLog, error } })]
  a.coordinator.worker(partitioned(4, () => undefined))
  await world.start(a, b)
  let ran = 0
  let refused = 0
  b.coordinator.on('worker.refused', () => void refused++)
  const parts = b.coordinator.worker(partitioned(8, () => void ran++))
  await world.advance(world.timing.ttlMs * 3, 500)
  t.equal(parts.state, 'refused')
  t.same([refused, errors], [1, ['a worker was refused']], 'which is told once')
  void a.coordinator.close()
  await world.advance(world.timing.ttlMs * 2, 500)
  t.equal(parts.state, 'working')
  t.ok(ran > 0)
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
