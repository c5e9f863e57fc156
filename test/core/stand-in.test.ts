/** Tests standing in for silent watchers: at which nodes a node looks, and for how long. */
import t, { type Test } from 'tap'
import type { Store } from '../../plugin/core/store.js'
import { resolveTiming } from '../../plugin/core/time/timing.js'
import { StandIn } from '../../plugin/core/watch/stand-in.js'
import { commit, join } from '../../plugin/testing/conformance/world.js'
import { ManualClock } from '../../plugin/testing/manual-clock.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'

const timing = resolveTiming({ ttlMs: 15_000 })

t.test('a node that stands in looks at the 32 nodes that come after it, going round', async (t) => {
  const ids = Array.from({ length: 40 }, (_, index) => `n${10 + index}`)
  const { clock, buried } = await standingIn(t, 'n30', ids)
  await clock.advance(timing.ttlMs * 1.1)
  const place = ids.indexOf('n30')
  t.same(buried, [...ids.slice(place + 1), ...ids.slice(0, place)].slice(0, 32))
})

t.test('standing in ends when all that were looked at have moved', async (t) => {
  const { clock, store, looks, buried } = await standingIn(t, 'a', ['a', 'b', 'c'])
  await clock.advance(timing.ttlMs / 2)
  t.ok(looks() > 0)
  for (const id of ['b', 'c']) await store.heartbeat(id, 1)
  await clock.advance(timing.ttlMs / 4)
  const asked = looks()
  await clock.advance(timing.ttlMs * 3)
  t.equal(looks(), asked)
  t.same(buried, [])
})

t.test('standing in ends when all that were looked at are gone', async (t) => {
  const { clock, looks, buried } = await standingIn(t, 'a', ['a', 'b', 'c'])
  await clock.advance(timing.ttlMs * 1.5)
  t.same(buried, ['b', 'c'])
  const asked = looks()
  await clock.advance(timing.ttlMs * 3)
  t.equal(looks(), asked)
})

/** Returns a node that stands in, because it has heard nothing of the watchers for two heartbeats. */
async function standingIn(t: Test, self: string, ids: readonly string[]) {
  const store = new MemoryDatabase().open({ namespace: 'default', statementTimeoutMs: 30_000 })
  await join(store, ids)
  let looks = 0
  const counting: Pick<Store, 'beats'> = {
    beats(after, most) {
      looks += 1
      return store.beats(after, most)
    },
  }
  const clock = new ManualClock()
  const buried: string[] = []
  const standIn = new StandIn(self, counting as Store, clock, timing, {
    longestTtlMs: () => timing.ttlMs,
    async bury(beats) {
      for (const { id, beat } of beats)
        await commit(store, async (change) => {
          if (await change.bury(id, beat)) buried.push(id)
        })
    },
    lookFailed: (error) => t.error(error),
  })
  t.teardown(() => standIn.stop())
  const silent = [{ id: 'watcher', beat: 1 }]
  for (let heartbeats = 0; heartbeats < 2; heartbeats += 1) {
    standIn.sawWatchers(silent, clock.read(), clock.read())
    await clock.advance(timing.heartbeatMs)
  }
  return { clock, store, buried, looks: () => looks }
}
