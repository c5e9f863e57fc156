/** Tests how workers are registered after the start: how many at once, and what becomes of one that is refused. */

import t from 'tap'
import { CoordinationError, StoreError } from '../../plugin/core/errors.js'
import type { Store, WorkerRow } from '../../plugin/core/store.js'
import type { WorkerDefinition } from '../../plugin/core/work/worker.js'
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
