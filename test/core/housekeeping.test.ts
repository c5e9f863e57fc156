/** Tests housekeeping, on a store in memory and with a clock that is moved by hand. */
import t, { type Test } from 'tap'
import { Housekeeping, leasesAtOnce } from '../../plugin/core/changes/housekeeping.js'
import { type Log, silentLog } from '../../plugin/core/log.js'
import { prunedAtOnce, type Store } from '../../plugin/core/store.js'
import { commit, join, newLease, saveLeases } from '../../plugin/testing/conformance/world.js'
import { ManualClock } from '../../plugin/testing/manual-clock.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'

const hourMs = 3_600_000
const pauseMs = 100
const retention = { eventsForMs: 1e12, events: 10, goneNodesForMs: 1_000 }

/** The time by the database's clock, which stands still. */
const nowMs = 1_700_000_000_000

t.test('what is more than one portion goes soon after, not an hour later', async (t) => {
  const { store, clock } = await houseWith(t, { events: 2 * prunedAtOnce + 15 })
  await clock.advance(hourMs / 2)
  t.equal(await eventsIn(store), prunedAtOnce + 15, 'one portion')
  await clock.advance(pauseMs)
  t.equal(await eventsIn(store), 15, 'another')
  await clock.advance(pauseMs)
  t.equal(await eventsIn(store), 10, 'the last')
  await addEvents(store, 1)
  await clock.advance(hourMs - 1)
  t.equal(await eventsIn(store), 11, 'then there is an hour of rest')
  await clock.advance(1)
  t.equal(await eventsIn(store), 10)
})

t.test('stopping ends it between two portions', async (t) => {
  const { store, clock, housekeeping } = await houseWith(t, { events: 3 * prunedAtOnce })
  await clock.advance(hourMs / 2)
  housekeeping.stop()
  await clock.advance(2 * hourMs)
  t.equal(await eventsIn(store), 2 * prunedAtOnce)
  t.equal(clock.dueInMs, undefined, 'no timer is left')
})

t.test('who is not the first watcher any more leaves the rest to another', async (t) => {
  const house = await houseWith(t, { events: 3 * prunedAtOnce })
  const { store, clock } = house
  await clock.advance(hourMs / 2)
  house.ours = false
  await clock.advance(2 * hourMs)
  t.equal(await eventsIn(store), 2 * prunedAtOnce)
  house.ours = true
  await clock.advance(hourMs)
  t.equal(await eventsIn(store), 10)
})

t.test('a failure is told, and it is tried again in an hour', async (t) => {
  const warnings: string[] = []
  const log: Log = { ...silentLog, warn: (_details: object, message: string) => void warnings.push(message) }
  const { store, clock, housekeeping } = await houseWith(t, { events: 20, log })
  const prune = store.prune.bind(store)
  store.prune = () => Promise.reject(new Error('the disk is full'))
  await clock.advance(hourMs / 2)
  t.same(warnings, ['could not clear away old rows; it is tried again in an hour'])
  store.prune = prune
  await clock.advance(hourMs)
  t.equal(await eventsIn(store), 10)
  housekeeping.stop()
})

t.test('names that nobody uses go by portions, too', async (t) => {
  const { store, clock } = await houseWith(t)
  await saveLeases(store, ...Array.from({ length: leasesAtOnce + 1 }, (_, index) => newLease(`x/${index}`)))
  await clock.advance(hourMs / 2)
  t.equal(await leasesIn(store), 1)
  await clock.advance(pauseMs)
  t.equal(await leasesIn(store), 0)
})

t.test('names that nobody uses go also where there are more leases than can be read at once', async (t) => {
  const { store, clock } = await houseWith(t)
  const all = Array.from({ length: 2 * leasesAtOnce + 2 }, (_, index) =>
    newLease(`x/${index}`, index % 2 === 0 ? {} : { holder: 'a' }),
  )
  await saveLeases(store, ...all)
  const read = store.leasesAfter.bind(store)
  store.snapshot = () => Promise.reject(new Error('Taking a snapshot did not end within 3000 ms'))
  await clock.advance(hourMs / 2)
  await clock.advance(pauseMs)
  await clock.advance(pauseMs)
  const left = await read('', 1e6)
  t.equal(left.length, leasesAtOnce + 1, 'those that are held')
  t.ok(left.every(({ holder }) => holder === 'a'))
  t.equal(clock.dueInMs, hourMs, 'then there is an hour of rest')
})

t.test('a name for which only nodes wait that are gone goes as well', async (t) => {
  const { store, clock } = await houseWith(t)
  await join(store, ['a', 'b'])
  await commit(store, (change) => change.bury('b'))
  await saveLeases(store, newLease('x/a', { waiters: ['b', 'a'] }), newLease('x/b', { waiters: ['b', 'c'] }))
  await clock.advance(hourMs / 2)
  t.same(
    (await store.snapshot()).leases.map(({ key }) => key),
    ['x/a'],
  )
})

t.test('a name that is used after it was looked for is left alone', async (t) => {
  const { store, clock } = await houseWith(t)
  await join(store, ['a'])
  const unused = ['idle', 'claimed', 'acquired', 'awaited', 'blocked'].map((name) => newLease(`x/${name}`))
  await saveLeases(store, ...unused)
  const look = store.leasesAfter.bind(store)
  store.leasesAfter = async (...asked) => {
    const seen = await look(...asked)
    await saveLeases(
      store,
      newLease('x/claimed', { firedAtMs: nowMs }),
      newLease('x/acquired', { token: nowMs }),
      newLease('x/awaited', { waiters: ['a'] }),
      newLease('x/blocked', { blockedNode: 'a', blockedToken: 1 }),
    )
    return seen
  }
  await clock.advance(hourMs / 2)
  const { leases } = await store.snapshot()
  t.same(
    leases.map(({ key }) => key),
    ['x/acquired', 'x/awaited', 'x/blocked', 'x/claimed'],
  )
})

interface House {
  readonly store: Store
  readonly clock: ManualClock
  readonly housekeeping: Housekeeping
  ours: boolean
}

/** Starts housekeeping whose first round is half an hour away. */
async function houseWith(t: Test, { events = 0, log = silentLog } = {}): Promise<House> {
  const store = new MemoryDatabase({ nowMs: () => nowMs }).open({
    namespace: 'default',
    statementTimeoutMs: 30_000,
  })
  const clock = new ManualClock()
  const housekeeping = new Housekeeping(store, clock, log, retention, {
    isOurs: () => house.ours,
    nowMs: () => nowMs,
    highestToken: () => 0,
  })
  const house: House = { store, clock, housekeeping, ours: true }
  t.teardown(() => housekeeping.stop())
  if (events > 0) await addEvents(store, events)
  housekeeping.start(0.5)
  return house
}

async function addEvents(store: Store, count: number): Promise<void> {
  await commit(store, (change) =>
    change.record(Array.from({ length: count }, () => ({ type: 'x', subject: 'y' }))),
  )
}

async function eventsIn(store: Store): Promise<number> {
  return (await store.events({ limit: 1e6 })).length
}

async function leasesIn(store: Store): Promise<number> {
  return (await store.snapshot()).leases.length
}
