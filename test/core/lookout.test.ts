/** Tests what a watcher does with what it has seen. */
import t, { type Test } from 'tap'
import { freshLease } from '../../plugin/core/changes/rows.js'
import { StoreError } from '../../plugin/core/errors.js'
import type { Look, Store } from '../../plugin/core/store.js'
import { deferred } from '../../plugin/core/time/loop.js'
import { lookEveryMs, resolveTiming } from '../../plugin/core/time/timing.js'
import { elapsedMs } from '../../plugin/core/time/trust.js'
import { Lookout, type LookoutOwner } from '../../plugin/core/watch/lookout.js'
import { ManualClock } from '../../plugin/testing/manual-clock.js'

const timing = resolveTiming({})

t.test('a watcher buries in the end also more nodes than one change has time for', async (t) => {
  const present = new Set(Array.from({ length: 1_000 }, (_, each) => `n${each}`))
  const portions: number[] = []
  const look = async (): Promise<Look> => ({
    nodes: [...present].map((id) => ({ id, beat: 1 })),
    leases: [],
    workers: [],
    gone: new Set(),
  })
  const clock = new ManualClock()
  const lookout = useLookout(t, 'watcher', { look }, clock, {
    async bury(beats) {
      portions.push(beats.length)
      if (beats.length > 300) throw new StoreError('A change did not end within 3000 ms.', 'none')
      for (const { id } of beats) present.delete(id)
    },
  })
  lookout.setWatchers(['watcher', 'another'])
  await clock.advance(2 * timing.ttlMs)
  t.equal(present.size, 0)
  t.same(portions.slice(0, 3), [1_000, 500, 250], 'all at once while there is time')
})

t.test('a watcher has another named where it hears of none, unless it is alone', async (t) => {
  const clock = new ManualClock()
  let named = 0
  const lookout = useLookout(t, 'node', {}, clock, {
    nameWatchers: async () => void named++,
  })
  const hears = (...beats: { id: string; beat: number }[]): void =>
    lookout.sawWatchers(beats, clock.read(), clock.read())
  for (const [watchers, times] of [
    [['node'], 0],
    [['node', 'another'], 1],
  ] as const) {
    lookout.setWatchers(watchers)
    hears()
    t.equal(named, 0, 'once, it may only not have read yet who is one')
    hears()
    t.equal(named, times)
  }
  lookout.setWatchers(['node', 'third'])
  for (const beat of [1, 2, 3]) {
    hears({ id: 'third', beat })
    hears()
  }
  t.equal(named, 1)
})

t.test('watchers are named by one change at a time, however long it takes', async (t) => {
  const clock = new ManualClock()
  const changes: { resolve(): void; reject(error: unknown): void }[] = []
  const lookout = useLookout(t, 'node', {}, clock, {
    nameWatchers: () => {
      const change = deferred()
      changes.push(change)
      return change.promise
    },
  })
  const answered = async (times: number): Promise<void> => {
    for (let time = 0; time < times; time++) {
      await clock.advance(timing.heartbeatMs)
      lookout.sawWatchers([], clock.read(), clock.read())
    }
  }
  await answered(5)
  t.equal(changes.length, 1)
  changes[0]?.reject(new StoreError('A change did not end within 3000 ms.', 'none'))
  await answered(3)
  t.equal(changes.length, 2, 'after a failure it is tried again')
})

t.test(
  'a node that hangs is passed over without delay also when its turn comes again and again',
  async (t) => {
    const clock = new ManualClock()
    let token = 1
    let freeAt = clock.read()
    const waitedMs: number[] = []
    const look = async (): Promise<Look> => ({
      nodes: ['watcher', 'another', 'hangs'].map((id) => ({ id, beat: clock.read().monoMs })),
      leases: [{ ...freshLease('l', null, 0), target: 'hangs', targetAtMs: 0, token, pending: true }],
      workers: [],
      gone: new Set(),
    })
    const lookout = useLookout(t, 'watcher', { look }, clock, {
      // Who is next claims, and releases at once.
      async attend() {
        waitedMs.push(elapsedMs(freeAt, clock.read()))
        token += 1
        freeAt = clock.read()
        return []
      },
    })
    lookout.setWatchers(['watcher', 'another'])
    const mostMs = timing.claimTimeoutMs + lookEveryMs(timing)
    await clock.advance(6 * mostMs)
    t.ok(waitedMs.length > 4, `${waitedMs.length} times`)
    for (const ms of waitedMs) t.ok(ms <= mostMs, `${ms} ms`)
  },
)

t.test('what is in vain is tried less often in whatever order the nodes and leases are read', async (t) => {
  const clock = new ManualClock()
  let looks = 0
  let tries = 0
  const turned = <Row>(rows: Row[]): Row[] => (looks % 2 === 0 ? rows : rows.reverse())
  const look = async (): Promise<Look> => {
    looks += 1
    const stuck = { target: 'hangs', targetAtMs: 0, token: 1, pending: true }
    return {
      nodes: turned(['watcher', 'another', 'hangs'].map((id) => ({ id, beat: looks }))),
      leases: turned(['l', 'm'].map((key) => ({ ...freshLease(key, null, 0), ...stuck }))),
      workers: [],
      gone: new Set(),
    }
  }
  const lookout = useLookout(t, 'watcher', { look }, clock, {
    async attend() {
      tries += 1
      return []
    },
  })
  lookout.setWatchers(['watcher', 'another'])
  await clock.advance(60_000)
  tries = 0
  await clock.advance(300_000)
  t.ok(tries > 0)
  t.ok(tries <= 300_000 / timing.heartbeatMs, `once in a heartbeat at most: ${tries}`)
})

t.test('a fence that kept one target from claiming excuses none that is named later', async (t) => {
  const clock = new ManualClock()
  let token = 1
  let free = true
  const found: boolean[] = []
  const look = async (): Promise<Look> => ({
    nodes: ['watcher', 'another', 'hangs'].map((id) => ({ id, beat: clock.read().monoMs })),
    leases: free
      ? [{ ...freshLease('l', null, 0), target: 'hangs', targetAtMs: 0, token, pending: true }]
      : [],
    workers: [],
    gone: new Set(),
  })
  const lookout = useLookout(t, 'watcher', { look }, clock, {
    async attend({ unclaimed }) {
      found.push(...unclaimed.map(({ hindered }) => hindered))
      return token === 1 ? ['l'] : []
    },
  })
  lookout.setWatchers(['watcher', 'another'])
  await clock.advance(timing.ttlMs)
  t.same(found.slice(0, 2), [false, true])
  free = false
  await clock.advance(timing.ttlMs)
  found.length = 0
  token = 2
  free = true
  await clock.advance(timing.ttlMs)
  t.equal(found[0], false)
})

/** Returns a lookout that ends with the test. Its owner trusts, may claim, and does only what is given. */
function useLookout(
  t: Test,
  self: string,
  store: Partial<Store>,
  clock: ManualClock,
  owner: Partial<LookoutOwner>,
): Lookout {
  const lookout = new Lookout(self, store as Store, clock, timing, {
    trusted: () => true,
    mayClaim: () => true,
    longestTtlMs: () => timing.ttlMs,
    bury: async () => undefined,
    nameWatchers: async () => undefined,
    attend: async () => [],
    lookFailed: () => undefined,
    ...owner,
  })
  t.teardown(() => lookout.stop())
  return lookout
}
