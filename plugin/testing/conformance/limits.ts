/** Cases: every verb ends, even when the store closes, others are in the way, or the connection fails. */
import assert from 'node:assert/strict'
import { StoreError } from '../../core/errors.js'
import type { Store } from '../../core/store.js'
import type { ConformanceCase } from './harness.js'
import {
  atOnce,
  contents,
  found,
  fragileConnections,
  gate,
  join,
  newLease,
  nodeOf,
  openChange,
  promise,
  rejectionOf,
  saveLeases,
  storeErrorOf,
  within,
} from './world.js'

export const limitCases: readonly ConformanceCase[] = [
  promise('closing a store again, or twice at once, is harmless', async (world) => {
    const store = await world.open()
    await within(Promise.all([store.close(), store.close()]), 'the store has closed')
    await within(store.close(), 'the store has closed')
    const unused = await world.open()
    await within(unused.close(), 'the store has closed')
  }),

  promise('a store that has closed refuses every verb with a StoreError', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    await store.close()
    for (const [name, verb] of Object.entries(verbs)) {
      await storeErrorOf((async () => verb(store))(), name)
    }
  }),

  promise('closing one store leaves the others alone', async (world) => {
    const [one, two] = await world.openMany(2)
    assert(one && two)
    await join(one, ['a'])
    await one.close()
    found(await two.heartbeat('a', 1))
    await join(two, ['b'])
  }),

  promise('verbs that are under way when the store closes are finished', async (world) => {
    const [closing, staying] = await world.openMany(2)
    assert(closing && staying)
    await join(staying, ['a'])
    const underway = [
      ...Object.values(verbs).map((verb) => verb(closing)),
      ...Array.from({ length: 10 }, (_, index) => saveLeases(closing, newLease(`lease-${index}`))),
    ]
    const closed = closing.close()
    await within(Promise.all(underway), 'all verbs have ended')
    await within(closed, 'the store has closed')
    assert.equal((await staying.snapshot()).leases.length, 10)
  }),

  promise('a change that is open when its store closes ends, and what it claims is so', async (world) => {
    const [closing, staying] = await world.openMany(2)
    assert(closing && staying)
    await join(staying, ['a'])
    const proceed = gate()
    const begun = gate()
    const change = closing.change(undefined, async (change) => {
      await change.saveLeases([newLease('l')])
      begun.open()
      await proceed.opened
      await change.saveMeta({ tokenFloor: 1 })
    })
    const outcome = rejectionOf(change)
    await within(Promise.race([begun.opened, outcome]), 'the change has begun')
    const closed = closing.close()
    proceed.open()
    const error = await within(outcome, 'the change has ended')
    await within(closed, 'the store has closed')
    const { leases, meta } = await staying.snapshot()
    assert.deepEqual([leases.length, meta.tokenFloor], leases.length ? [1, 1] : [0, 0])
    if (error === undefined) assert.equal(leases.length, 1)
    else assertHonest(error, leases.length === 1)
    await join(staying, ['b'])
  }),

  promise('a change that gets no turn in time rejects, and the store goes on', async (world) => {
    const patient = await world.open()
    const hurried = await world.open({ statementTimeoutMs: 1_000 })
    await join(patient, ['a'])
    const open = await openChange(patient, (change) => change.saveMeta({ tokenFloor: 1 }))
    const error = await storeErrorOf(saveLeases(hurried, newLease('l')), 'a change that gets no turn')
    await open.end()
    await recovered(() => saveLeases(hurried, newLease('m')))
    const { leases } = await recovered(() => hurried.snapshot())
    assertHonest(
      error,
      leases.some(({ key }) => key === 'l'),
    )
  }),

  promise('a heartbeat that is kept waiting too long by a change of its node rejects', async (world) => {
    const patient = await world.open()
    const hurried = await world.open({ statementTimeoutMs: 1_000 })
    await join(patient, ['a'])
    const open = await openChange(patient, (change) => change.updateNode('a', { state: 'draining' }))
    await storeErrorOf(hurried.heartbeat('a', 1), 'a heartbeat that is kept waiting')
    await open.end()
    let beat = 1
    found(await recovered(() => hurried.heartbeat('a', ++beat)))
    assert.equal((await nodeOf(patient, 'a')).beat, beat)
  }),

  promise(
    'a change whose work does not end in time is undone and rejects, and others go on',
    async (world) => {
      const patient = await world.open()
      const hurried = await world.open({ statementTimeoutMs: 1_000 })
      const before = await contents(patient)
      const never = gate()
      const dawdling = hurried.change(undefined, async (change) => {
        await change.saveMeta({ tokenFloor: 1 })
        await never.opened
        await change.saveMeta({ tokenFloor: 2 })
      })
      const outcome = storeErrorOf(dawdling, 'a change whose work does not end')
      await outcome
      await within(join(patient, ['a']), 'another change is made')
      never.open()
      await join(hurried, ['b'])
      const { meta } = await contents(patient)
      assert.deepEqual([meta.tokenFloor, meta.revision], [before.meta.tokenFloor, before.meta.revision + 2])
    },
  ),

  promise('many more verbs at once than connections all end', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    const changes = atOnce(60, (index) => saveLeases(store, newLease(`lease-${index}`)))
    const reads = atOnce<unknown>(60, (index) => (index % 2 ? store.view('a') : store.snapshot()))
    const beats = atOnce(60, (index) => store.heartbeat('a', index + 1))
    await within(Promise.all<unknown>([changes, reads, beats]), 'all verbs have ended')
    assert.equal((await store.snapshot()).leases.length, 60)
  }),

  promise(
    'a change whose answer is lost is neither denied nor made twice',
    async (world) => {
      const sound = await world.open()
      const { store, loseAnswerTo } = await world.openFragile()
      await join(store, ['a'])
      loseAnswerTo('change')
      const lost = store.change({ node: 'a', operation: 2 }, (change) => change.saveLeases([newLease('l')]))
      const error = await storeErrorOf(lost, 'a change whose answer is lost')
      assert.equal(error.outcome, 'unknown')
      assert.doesNotMatch(error.message, outOfTime, 'it is told when its connection ends')
      const { leases, meta } = await sound.snapshot()
      assert.deepEqual([leases.length, meta.revision], [1, 2], 'it was made, and made once')
      const again = await recovered(() =>
        store.change({ node: 'a', operation: 2 }, async (change) => change.session),
      )
      assert.equal(again.result, undefined, 'the same change tried again finds that it was made')
    },
    fragileConnections,
  ),

  promise(
    'a heartbeat whose answer is lost is neither denied nor made twice',
    async (world) => {
      const sound = await world.open()
      const { store, loseAnswerTo } = await world.openFragile()
      await join(store, ['a'])
      found(await store.heartbeat('a', 1))
      loseAnswerTo('heartbeat')
      const error = await storeErrorOf(store.heartbeat('a', 2), 'a heartbeat whose answer is lost')
      assert.equal(error.outcome, 'unknown')
      assert.doesNotMatch(error.message, outOfTime, 'it is told when its connection ends')
      assert.equal((await nodeOf(sound, 'a')).beat, 2)
      found(await recovered(() => store.heartbeat('a', 3)))
    },
    fragileConnections,
  ),

  promise(
    'a change whose connection breaks half-way leaves nothing, and the store recovers',
    async (world) => {
      const sound = await world.open()
      const { store, cut } = await world.openFragile()
      await join(store, ['a'])
      const before = await contents(sound)
      const broken = store.change({ node: 'a', operation: 2 }, async (change) => {
        await change.saveLeases([newLease('l')])
        cut()
        await change.saveLeases([newLease('m')])
      })
      await storeErrorOf(broken, 'a change whose connection breaks')
      assert.deepEqual(await contents(sound), before)
      assert.equal(await within(join(sound, ['b']), 'another change is made'), before.meta.revision + 1)
      const { committed } = await recovered(() =>
        store.change({ node: 'a', operation: 2 }, (change) => change.saveLeases([newLease('l')])),
      )
      assert.equal(committed, true)
    },
    fragileConnections,
  ),

  promise(
    'connections that break while nobody uses them disturb nobody',
    async (world) => {
      const { store, cut } = await world.openFragile()
      await join(store, ['a'])
      const stop = store.listen('a', () => undefined)
      let beat = 0
      for (const round of [1, 2, 3]) {
        found(await recovered(() => store.heartbeat('a', ++beat)))
        cut()
        found(await recovered(() => store.heartbeat('a', ++beat)))
        assert.equal((await recovered(() => store.snapshot())).meta.revision, 1, `round ${round}`)
      }
      stop()
    },
    fragileConnections,
  ),

  promise(
    'verbs on a connection that has gone silent reject in time, and the store recovers',
    async (world) => {
      const sound = await world.open()
      const { store, goSilent, cut } = await world.openFragile({ statementTimeoutMs: 500 })
      await join(store, ['a'])
      found(await store.heartbeat('a', 1))
      goSilent()
      const silent = Object.entries(verbs).map(([name, verb]) =>
        storeErrorOf(verb(store), `${name} in silence`),
      )
      await Promise.all(silent)
      cut()
      await within(join(sound, ['b']), 'another change is made')
      found(await recovered(async () => store.heartbeat('a', (await nodeOf(sound, 'a')).beat + 1)))
      await recovered(() => saveLeases(store, newLease('l')))
    },
    fragileConnections,
  ),

  promise(
    'a store closes though its connection has gone silent',
    async (world) => {
      const { store, goSilent } = await world.openFragile({ statementTimeoutMs: 500 })
      await join(store, ['a'])
      const stop = store.listen('a', () => undefined)
      goSilent()
      const underway = rejectionOf(store.heartbeat('a', 1))
      await within(store.close(), 'the store has closed')
      await within(underway, 'the heartbeat has ended')
      stop()
    },
    fragileConnections,
  ),
]

/** Every verb, with something to do for a node `a`. */
const verbs: Readonly<Record<string, (store: Store) => Promise<unknown>>> = {
  heartbeat: (store) => store.heartbeat('a', 1_000),
  view: (store) => store.view('a'),
  news: (store) => store.news('a'),
  look: (store) => store.look(),
  beats: (store) => store.beats('', 1),
  neighbours: (store) => store.neighbours('a machine'),
  snapshot: (store) => store.snapshot(),
  leasesAfter: (store) => store.leasesAfter('', 1),
  namespaces: (store) => store.namespaces(1),
  events: (store) => store.events({ limit: 1 }),
  change: (store) => store.change(undefined, (change) => change.saveMeta({ tokenFloor: 1 })),
  prune: (store) => store.prune({ eventsForMs: 0, events: 0, goneNodesForMs: 0 }),
}

/** How a store reports that it has waited until its own limit. */
const outOfTime = /did not end within/

/**
 * An error that claims that nothing happened must be right; with the outcome `unknown`, the change may have been
 * written.
 */
function assertHonest(error: unknown, written: boolean): void {
  assert(error instanceof StoreError, `expected a StoreError, got ${error}`)
  if (written) assert.equal(error.outcome, 'unknown')
}

/** Retries, because a store may have to find out, one connection after another, that all of them broke. */
async function recovered<T>(verb: () => Promise<T>): Promise<T> {
  for (let attempt = 1; attempt < 20; attempt += 1) {
    const [result] = await Promise.allSettled([verb()])
    if (result.status === 'fulfilled') return result.value
    assert(result.reason instanceof StoreError, `expected a StoreError, got ${result.reason}`)
  }
  return verb()
}
