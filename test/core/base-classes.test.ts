import t from 'tap'
import {
  GloballyCoordinatedWorker,
  SingleInstanceClusterWorker,
  SingleInstanceGlobalWorker,
} from '../../plugin/core/work/base-classes.js'
import type { CoordinatedContext, PassContext } from '../../plugin/core/work/worker.js'
import { World } from '../support/world.js'

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}

class Indexing extends SingleInstanceClusterWorker {
  readonly #leading: string[]

  constructor(leading: string[]) {
    super('indexing', { everyMs: 5_000, maxFailures: 3 })
    this.#leading = leading
  }

  override async executeLeaderWork({ lease, signal }: PassContext): Promise<void> {
    this.#leading.push(lease.key)
    await untilAborted(signal)
  }
}

class MonthClose extends SingleInstanceGlobalWorker {
  passes = 0

  override executeGlobalLeaderWork(): void {
    this.passes += 1
  }
}

class DataProcessor extends GloballyCoordinatedWorker {
  override executeCoordinatedWork({ signal }: CoordinatedContext): Promise<void> {
    return untilAborted(signal)
  }

  get share(): readonly [number | undefined, number | undefined] {
    return [this.globalWorkerIndex, this.globalWorkerCount]
  }
}

t.test('a cluster worker leads once in each cluster', async (t) => {
  const world = new World(t)
  const leading: string[] = []
  const nodes = [await world.node('a', { cluster: 'eu' }), await world.node('b', { cluster: 'us' })]
  for (const node of nodes) node.coordinator.worker(new Indexing(leading))
  await world.start(...nodes)
  await world.advance(500)
  t.same(leading.sort(), ['eu/indexing', 'us/indexing'])
})

t.test('a global worker leads once, pass after pass, with the options it was given', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const [mine, other] = [new MonthClose('month-close', { everyMs: 10_000 }), new MonthClose('month-close')]
  a.coordinator.worker(mine)
  b.coordinator.worker(other)
  await world.start(a, b)
  await world.advance(35_000)
  t.equal(mine.passes, 4, 'at once, and then every ten seconds')
  t.equal(other.passes, 0)
})

t.test(
  'a coordinated worker knows its index and count while it has a share, and has no default',
  async (t) => {
    const world = new World(t)
    const [a, b] = [await world.node('a'), await world.node('b')]
    const [first, second] = [new DataProcessor('data'), new DataProcessor('data')]
    a.coordinator.worker(first)
    b.coordinator.worker(second)
    t.same(first.share, [undefined, undefined])
    await world.start(a, b)
    await world.advance(1_000)
    t.same(
      [first.share, second.share],
      [
        [0, 2],
        [1, 2],
      ],
    )
    const closed = b.coordinator.close()
    await world.advance(1_000)
    await closed
    t.same(first.share, [0, 1])
    t.same(second.share, [undefined, undefined])
  },
)

t.test('an option that a class does not know is refused, since it would be ignored', async (t) => {
  t.throws(() => new MonthClose('month-close', { shedule: '0 3 1 * *' } as object), {
    code: 'WCO_OPTIONS',
    message: /^MonthClose: there is no option `shedule` \(did you mean `schedule`\?\)/,
  })
  t.throws(() => new DataProcessor('data', { name: 'other' } as object), { code: 'WCO_OPTIONS' })
  t.throws(() => new MonthClose('month-close', null as never), { code: 'WCO_OPTIONS' })
  const anonymous = class extends SingleInstanceGlobalWorker {
    override executeGlobalLeaderWork(): void {}
  }
  t.ok(new anonymous('w', { everyMs: 5, schedule: undefined }))
})
