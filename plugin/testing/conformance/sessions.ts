/** Cases: what a session sends late, twice, or after its end changes nothing. */
import assert from 'node:assert/strict'
import type { Change, NodeRow, Store } from '../../core/store.js'
import type { ConformanceCase } from './harness.js'
import {
  atOnce,
  commit,
  contents,
  found,
  join,
  leaseOf,
  newLease,
  newNode,
  nodeOf,
  promise,
  rejectionOf,
  saveLeases,
} from './world.js'

export const sessionCases: readonly ConformanceCase[] = [
  promise('a session makes changes under growing numbers, and the latest is recorded', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'])
    for (const operation of [2, 3, 40]) {
      const session = found(await sessionIn(store, 'a', operation))
      assert.deepEqual([session.id, session.operation, session.state], ['a', operation, 'active'])
      assert.equal((await nodeOf(store, 'a')).operation, operation)
    }
    assert.equal((await nodeOf(store, 'b')).operation, 1)
  }),

  promise('a change finds no session when its number is not greater than the latest', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    assert.equal(await sessionIn(store, 'a', 1), undefined)
    found(await sessionIn(store, 'a', 5))
    for (const operation of [5, 4, 2, 1, 0]) assert.equal(await sessionIn(store, 'a', operation), undefined)
    assert.equal((await nodeOf(store, 'a')).operation, 5)
    found(await sessionIn(store, 'a', 6))
  }),

  promise('a change finds no session that is gone or was never there', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    await commit(store, (change) => change.bury('a'))
    const row = await nodeOf(store, 'a')
    assert.equal(await sessionIn(store, 'a', 2), undefined)
    assert.equal(await sessionIn(store, 'nobody', 2), undefined)
    assert.deepEqual(await nodeOf(store, 'a'), row)
  }),

  promise('a change on behalf of nobody has no session', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    const { result } = await store.change(undefined, async (change) => change.session)
    assert.equal(result, undefined)
  }),

  promise('a draining session still makes changes', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    await commit(store, (change) => change.updateNode('a', { state: 'draining' }))
    assert.equal(found(await sessionIn(store, 'a', 2)).state, 'draining')
  }),

  promise('a session joins in a change of its own, under the number it joins with', async (world) => {
    const store = await world.open()
    const { result } = await store.change({ node: 'a', operation: 3 }, async (change) => {
      await change.addNode(newNode('a'), 3)
      return change.session
    })
    assert.equal(result, undefined)
    assert.equal(await sessionIn(store, 'a', 3), undefined)
    found(await sessionIn(store, 'a', 4))
  }),

  promise('a claim that arrives after a newer change of its session finds no session', async (world) => {
    const [early, late] = await world.openMany(2)
    assert(early && late)
    await join(early, ['a'])
    await saveLeases(early, newLease('l', { target: 'a', token: 6 }))
    const release = await early.change({ node: 'a', operation: 3 }, (change) =>
      change.saveLeases([newLease('l', { target: 'a', token: 6 })]),
    )
    assert.equal(release.committed, true)
    const claim = await late.change({ node: 'a', operation: 2 }, async (change) => {
      if (change.session) await change.saveLeases([newLease('l', { holder: 'a', token: 7 })])
    })
    assert.equal(claim.committed, false)
    assert.equal((await leaseOf(early, 'l')).holder, null)
  }),

  promise('of changes of one session under one number only one finds its session', async (world) => {
    const stores = await world.openMany(3)
    const [first] = stores
    assert(first)
    await join(first, ['a'])
    for (const operation of [2, 3, 4, 5, 6]) {
      const sessions = await atOnce(6, (index) => sessionIn(found(stores[index % 3]), 'a', operation))
      assert.equal(sessions.filter((session) => session !== undefined).length, 1)
    }
  }),

  promise('a number is not used up by a change that wrote nothing or was undone', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    const before = await contents(store)
    const idle = await store.change({ node: 'a', operation: 2 }, async (change) => change.session?.operation)
    assert.deepEqual(idle, { result: 2, committed: false })
    const failure = new Error('undone')
    const undone = store.change({ node: 'a', operation: 2 }, async (change) => {
      await touch(change)
      throw failure
    })
    assert.equal(await rejectionOf(undone), failure)
    assert.deepEqual(await contents(store), before)
    found(await sessionIn(store, 'a', 2))
  }),

  promise('a session that is buried in a change of its own is gone after it', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    await store.change({ node: 'a', operation: 2 }, async (change) => {
      found(change.session)
      assert.equal(await change.bury('a'), true)
      assert.equal(await change.view('a'), undefined)
    })
    assert.equal((await nodeOf(store, 'a')).state, 'gone')
    assert.equal(await sessionIn(store, 'a', 3), undefined)
  }),

  promise('two nodes of one name in one cluster are two sessions', async (world) => {
    const store = await world.open()
    await join(store, ['life-1', 'life-2'], { name: 'worker-1', cluster: 'eu-1' })
    found(await store.heartbeat('life-1', 5))
    await sessionIn(store, 'life-2', 9)
    await commit(store, (change) => change.bury('life-1'))
    const { id, state, beat, operation, name } = await nodeOf(store, 'life-2')
    assert.deepEqual([id, state, beat, operation, name], ['life-2', 'active', 0, 9, 'worker-1'])
    assert.equal(await store.heartbeat('life-1', 6), undefined)
    found(await store.heartbeat('life-2', 1))
  }),
]

/** Returns the session that a writing change finds. */
async function sessionIn(store: Store, node: string, operation: number): Promise<NodeRow | undefined> {
  const { result } = await store.change({ node, operation }, async (change) => {
    await touch(change)
    return change.session
  })
  return result
}

async function touch(change: Change): Promise<void> {
  await change.record([{ type: 'thing.happened', subject: 'here' }])
}
