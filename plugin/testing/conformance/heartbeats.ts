/** Cases: what a heartbeat does to its own row, what it returns, and what it waits for. */
import assert from 'node:assert/strict'
import type { ConformanceCase } from './harness.js'
import {
  atOnce,
  commit,
  compare,
  concurrentTransactions,
  contents,
  found,
  join,
  metaOf,
  newLease,
  newWorker,
  nodeOf,
  openChange,
  promise,
  tables,
  times,
  within,
} from './world.js'

export const heartbeatCases: readonly ConformanceCase[] = [
  promise('a heartbeat stamps its number and the time on its own row, and nothing else', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'])
    const before = await contents(store)
    const { nowMs: earliestMs } = await store.snapshot()
    const answer = found(await store.heartbeat('a', 7))
    const { nowMs: latestMs } = await store.snapshot()
    const row = await nodeOf(store, 'a')
    assert.equal(row.beat, 7)
    for (const atMs of [row.heartbeatAtMs, answer.nowMs]) assert(earliestMs <= atMs && atMs <= latestMs)
    const [a, b] = before.nodes
    const stamped = { ...a, beat: 7, heartbeatAtMs: row.heartbeatAtMs }
    assert.deepEqual(await contents(store), { ...before, nodes: [stamped, b] })
  }),

  promise(
    'a heartbeat that is not greater than the stored one is refused and stamps nothing',
    async (world) => {
      const store = await world.open()
      await join(store, ['a'])
      assert.equal(await store.heartbeat('a', 0), undefined)
      found(await store.heartbeat('a', 5))
      const before = await contents(store)
      assert.equal(await store.heartbeat('a', 5), undefined)
      assert.equal(await store.heartbeat('a', 4), undefined)
      assert.deepEqual(await contents(store), before)
      found(await store.heartbeat('a', 6))
    },
  ),

  promise('a heartbeat of a node that is gone or was never there finds its session lost', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    await commit(store, (change) => change.bury('a'))
    const before = await contents(store)
    assert.equal(await store.heartbeat('a', 1), undefined)
    assert.equal(await store.heartbeat('nobody', 1), undefined)
    assert.deepEqual(await contents(store), before)
  }),

  promise('a draining node heartbeats like any other, and is told that it is draining', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    assert.equal(found(await store.heartbeat('a', 1)).state, 'active')
    await commit(store, (change) => change.updateNode('a', { state: 'draining' }))
    assert.equal(found(await store.heartbeat('a', 2)).state, 'draining')
  }),

  promise('a heartbeat answers the latest change that concerns its node', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'])
    const told = await commit(store, (change) => change.tell(new Set(['a'])))
    await commit(store, (change) => change.tell(new Set(['b'])))
    await commit(store, (change) => change.saveLeases([newLease('l', { holder: 'b' })]))
    assert.equal(found(await store.heartbeat('a', 1)).newsRevision, told)
  }),

  promise('a heartbeat answers the watchers that are not gone, and never its own new beat', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b', 'c', 'd'])
    await commit(store, (change) => change.saveMeta({ watchers: ['a', 'b', 'c', 'nobody'] }))
    await store.heartbeat('b', 8)
    await store.heartbeat('c', 9)
    await commit(store, (change) => change.updateNode('b', { state: 'draining' }))
    assert.deepEqual(await watchersBeside('d', 1), [
      { id: 'a', beat: 0 },
      { id: 'b', beat: 8 },
      { id: 'c', beat: 9 },
    ])
    await commit(store, (change) => change.bury('c'))
    assert.deepEqual(await watchersBeside('a', 3), [{ id: 'b', beat: 8 }])
    assert.deepEqual(await watchersBeside('b', 10), [{ id: 'a', beat: 3 }])

    async function watchersBeside(asking: string, beat: number) {
      const { watchers } = found(await store.heartbeat(asking, beat))
      assert(!watchers.some((watcher) => watcher.id === asking && watcher.beat === beat))
      return watchers.filter(({ id }) => id !== asking).sort((a, b) => compare(a.id, b.id))
    }
  }),

  promise('a heartbeat answers what is recorded of the server, and the longest ttl', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    const { serverIdentity } = found(await store.heartbeat('a', 1))
    assert.notEqual(serverIdentity, '')
    await commit(store, (change) =>
      change.saveMeta({ serverIdentity: 'former', identitySettled: true, longestTtlMs: 7 }),
    )
    assert.deepEqual(await recorded(2), [serverIdentity, 'former', true, 7])
    await commit(store, (change) => change.saveMeta({ serverIdentity, identitySettled: false }))
    assert.deepEqual(await recorded(3), [serverIdentity, serverIdentity, false, 7])

    async function recorded(beat: number) {
      const answer = found(await store.heartbeat('a', beat))
      const { recordedIdentity, identitySettled, longestTtlMs } = answer
      return [answer.serverIdentity, recordedIdentity, identitySettled, longestTtlMs]
    }
  }),

  promise('all stores and verbs name the same life of the database', async (world) => {
    const [one, two] = await world.openMany(2)
    assert(one && two)
    await join(one, ['a'])
    const { serverIdentity } = found(await one.heartbeat('a', 1))
    assert.equal(found(await two.heartbeat('a', 2)).serverIdentity, serverIdentity)
    assert.equal(found(await two.view('a')).serverIdentity, serverIdentity)
    const { result } = await two.change(undefined, async (change) => change.serverIdentity)
    assert.equal(result, serverIdentity)
  }),

  promise('a heartbeat in flight and a burial that names the beat before never both win', async (world) => {
    const [node, watcher] = await world.openMany(2)
    assert(node && watcher)
    await times(60, async (round) => {
      const id = `node-${round}`
      await join(watcher, [id])
      const early = round % 2 === 0 ? node.heartbeat(id, 1) : undefined
      const burial = watcher.change(undefined, (change) => change.bury(id, 0))
      const [answer, { result: buried }] = await Promise.all([early ?? node.heartbeat(id, 1), burial])
      assert.equal(buried, answer === undefined, 'exactly one of the two has won')
      const { state, beat } = await nodeOf(watcher, id)
      assert.deepEqual({ state, beat }, buried ? { state: 'gone', beat: 0 } : { state: 'active', beat: 1 })
    })
  }),

  promise('a heartbeat that meets a change of its node under way tells of it', async (world) => {
    const [node, other] = await world.openMany(2)
    assert(node && other)
    await join(other, ['a'])
    let revision = 0
    const open = await openChange(other, async (change) => {
      await change.updateNode('a', { state: 'draining' })
      await change.tell(new Set(['a']))
      await change.nodes()
      revision = change.revision
    })
    const heartbeat = node.heartbeat('a', 1)
    await open.end()
    const { state, newsRevision } = found(await within(heartbeat, 'the heartbeat is answered'))
    assert.deepEqual([state, newsRevision], ['draining', revision])
  }),

  promise('a heartbeat that meets a burial under way is lost when it commits', async (world) => {
    const [node, watcher] = await world.openMany(2)
    assert(node && watcher)
    await join(watcher, ['a'])
    const burial = await openChange(watcher, (change) => change.bury('a', 0))
    const heartbeat = node.heartbeat('a', 1)
    await burial.end()
    assert.equal(await within(heartbeat, 'the heartbeat is answered'), undefined)
  }),

  promise('a heartbeat that meets a burial under way is answered when it is undone', async (world) => {
    const [node, watcher] = await world.openMany(2)
    assert(node && watcher)
    await join(watcher, ['a'])
    const burial = await openChange(watcher, (change) => change.bury('a', 0))
    const heartbeat = node.heartbeat('a', 1)
    await burial.end(new Error('not after all'))
    found(await within(heartbeat, 'the heartbeat is answered'))
    assert.equal((await nodeOf(node, 'a')).beat, 1)
  }),

  promise(
    'heartbeats run while a change that does not concern their nodes is open',
    async (world) => {
      const [one, two] = await world.openMany(2)
      assert(one && two)
      const ids = Array.from({ length: 20 }, (_, index) => `node-${index}`)
      await join(one, ['changing', ...ids])
      await one.change({ node: 'changing', operation: 2 }, async (change) => {
        await change.updateNode('changing', { workers: ['w'] })
        await change.leases({ nodes: ids })
        await change.saveLeases(ids.map((id) => newLease(`lease-${id}`, { holder: id })))
        await change.saveWorkers([newWorker('w')])
        await change.saveMeta({ watchers: ids.slice(0, 2), tokenFloor: 7 })
        for (const store of [one, two]) {
          const beats = atOnce(ids.length, (index) => store.heartbeat(`node-${index}`, store === one ? 1 : 2))
          for (const answer of await within(beats, 'the heartbeats are answered')) found(answer)
        }
      })
    },
    concurrentTransactions,
  ),

  promise(
    'a heartbeat does not queue behind the changes that its own store has yet to make',
    async (world) => {
      const store = await world.open()
      await join(store, ['a'])
      const first = await openChange(store, (change) => change.saveMeta({ tokenFloor: 1 }))
      const queue = atOnce(30, () => store.change(undefined, (change) => change.saveMeta({ tokenFloor: 2 })))
      found(await within(store.heartbeat('a', 1), 'the heartbeat is answered'))
      await first.end()
      await within(queue, 'the queued changes are made')
    },
    concurrentTransactions,
  ),

  promise(
    'a heartbeat is not undone with a change of the same store that was open meanwhile',
    async (world) => {
      const store = await world.open()
      await join(store, ['a'])
      const open = await openChange(store, (change) => change.saveMeta({ tokenFloor: 1 }))
      const heartbeat = store.heartbeat('a', 1)
      await open.end(new Error('undone'))
      found(await within(heartbeat, 'the heartbeat is answered'))
      assert.equal((await nodeOf(store, 'a')).beat, 1)
      assert.equal((await metaOf(store)).tokenFloor, 0)
    },
  ),

  promise(
    'where the revision row is missing, a node hears what it would hear before the first change',
    async (world) => {
      const store = await world.open()
      await join(store, ['a', 'b'])
      await commit(store, (change) =>
        change.saveMeta({
          watchers: ['b'],
          serverIdentity: 'former',
          identitySettled: false,
          longestTtlMs: 60_000,
        }),
      )
      await world.execute(`delete from coordination_meta where namespace = '${world.namespace}'`)
      for (const answer of [await store.heartbeat('a', 1), await store.view('a')]) {
        const { recordedIdentity, identitySettled, longestTtlMs, watchers } = found(answer)
        assert.deepEqual([recordedIdentity, identitySettled, longestTtlMs, watchers], ['', true, 0, []])
      }
    },
    tables,
  ),

  promise('heartbeats and changes of one node overwrite nothing of each other', async (world) => {
    const [one, two] = await world.openMany(2)
    assert(one && two)
    await join(one, ['a'])
    await Promise.all([
      times(30, async (index) => found(await one.heartbeat('a', index + 1))),
      times(30, async (index) =>
        commit(two, (change) => change.updateNode('a', { workers: [`worker-${index}`] })),
      ),
    ])
    const { beat, workers, state } = await nodeOf(two, 'a')
    assert.deepEqual({ beat, workers, state }, { beat: 30, workers: ['worker-29'], state: 'active' })
  }),

  promise('of heartbeats that arrive in any order the greatest number stays', async (world) => {
    const [one, two] = await world.openMany(2)
    assert(one && two)
    await join(one, ['a'])
    const answers = await atOnce(30, (index) =>
      (index % 2 ? one : two).heartbeat('a', ((index * 7) % 30) + 1),
    )
    assert.equal((await nodeOf(one, 'a')).beat, 30)
    assert(answers.some((answer, index) => answer !== undefined && (index * 7) % 30 === 29))
  }),

  promise('of two heartbeats with one number only one is answered', async (world) => {
    const [one, two] = await world.openMany(2)
    assert(one && two)
    await join(one, ['a'])
    await times(20, async (round) => {
      const answers = await Promise.all([one.heartbeat('a', round + 1), two.heartbeat('a', round + 1)])
      assert.equal(answers.filter((answer) => answer !== undefined).length, 1)
    })
  }),
]
