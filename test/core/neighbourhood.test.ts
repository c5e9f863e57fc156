/** Tests looking at the processes of the same machine, with a store in memory and a clock that is moved by hand. */
import t, { type Test } from 'tap'
import { buryEnded } from '../../plugin/core/changes/upkeep.js'
import { Neighbourhood } from '../../plugin/core/watch/neighbourhood.js'
import { join } from '../../plugin/testing/conformance/world.js'
import { Link } from '../../plugin/testing/link.js'
import { ManualClock } from '../../plugin/testing/manual-clock.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'
import { World } from '../support/world.js'

const rereadMs = 5_000

t.test('a neighbour that has ended is buried at the next look', async (t) => {
  const { clock, ended, buried } = await useNeighbourhood(t)
  await clock.advance(10_000)
  t.same(buried, [])
  ended.add('b')
  await clock.advance(250)
  t.same(buried, ['b'])
})

t.test('while the database is away it is asked less and less about one that has ended', async (t) => {
  const { clock, link, ended, buried, failures } = await useNeighbourhood(t)
  await clock.advance(10_000)
  link.cut()
  ended.add('b')
  await clock.advance(1_000)
  t.ok(failures.length > 0, 'it does ask')
  await clock.advance(59_000)
  t.ok(failures.length <= 20, `${failures.length} times in a minute`)
  link.mend()
  await clock.advance(rereadMs)
  t.same(buried, ['b'], 'and buries it soon after the database is back')
  ended.add('c')
  await clock.advance(250)
  t.same(buried, ['b', 'c'], 'then it looks as often as before')
})

t.test('a node that looks at its neighbours has no timer for its trust beside that', async (t) => {
  const world = new World(t)
  const machine = { name: 'here', process: 'here', hasEnded: () => false }
  const [a, b] = [await world.node('a', { machine }), await world.node('b', { machine })]
  await world.start(a, b)
  await world.advance(2 * rereadMs)
  const wokenAtMs = wakings(a.clock)
  await world.advance(10_000)
  const looks = 10_000 / 250
  const heartbeatsAndLooksOfAWatcher = 2 + 7
  t.ok(wokenAtMs.size >= looks - 1, 'it looks')
  t.ok(wokenAtMs.size <= looks + heartbeatsAndLooksOfAWatcher, `it woke ${wokenAtMs.size} times`)
})

/** Returns the instants at which timers of this clock fire, of those that are set from now on. */
function wakings(clock: ManualClock): ReadonlySet<number> {
  const firedAtMs = new Set<number>()
  const setTimer = clock.setTimer.bind(clock)
  clock.setTimer = (delayMs, fire) =>
    setTimer(delayMs, () => {
      firedAtMs.add(clock.nowMs)
      fire()
    })
  return firedAtMs
}

/** Starts the neighbourhood of node `a`, whose neighbours are `b` and `c`. Processes are named like their nodes. */
async function useNeighbourhood(t: Test) {
  const store = new MemoryDatabase().open({ namespace: 'default', statementTimeoutMs: 30_000 })
  for (const id of ['a', 'b', 'c']) await join(store, [id], { machine: 'here', process: id })
  const link = new Link(store)
  const clock = new ManualClock()
  const ended = new Set<string>()
  const buried: string[] = []
  const failures: unknown[] = []
  const machine = { name: 'here', process: 'a', hasEnded: (process: string) => ended.has(process) }
  const neighbourhood = new Neighbourhood('a', { machine, store: link, clock }, rereadMs, {
    looks: () => undefined,
    async bury(neighbours) {
      const { result } = await link.change(undefined, (change) =>
        buryEnded(change, neighbours, machine.name, 'a'),
      )
      buried.push(...result.map(({ id }) => id))
    },
    lookFailed: (error) => void failures.push(error),
  })
  t.teardown(() => neighbourhood.stop())
  neighbourhood.start()
  return { clock, link, ended, buried, failures }
}
