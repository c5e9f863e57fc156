/** Cases: a node that is told of news is woken without polling, as long as nothing fails. */
import assert from 'node:assert/strict'
import type { Store } from '../../core/store.js'
import type { ConformanceCase, ConformanceHarness } from './harness.js'
import { commit, eventually, fragileConnections, join, metaOf, promise } from './world.js'

export const hintCases: readonly ConformanceCase[] = [
  promise('a store says whether hints arrive by themselves', async (world) => {
    const { capabilities } = await world.open()
    assert.equal(capabilities.push, world.harness.capabilities.push)
  }),

  promise(
    'a hint wakes the node that is told, in another store, and the news is there by then',
    async (world) => {
      const [teller, listener] = await world.openMany(2)
      assert(teller && listener)
      await join(teller, ['a'])
      await heard(teller, listener, 'a')
    },
    push,
  ),

  promise(
    'a hint wakes the node that is told, in the store that tells',
    async (world) => {
      const store = await world.open()
      await join(store, ['a'])
      await heard(store, store, 'a')
    },
    push,
  ),

  promise(
    'hints wake each of many nodes in one store, and each of many stores',
    async (world) => {
      const [teller, ...listeners] = await world.openMany(4)
      assert(teller)
      await join(teller, ['a', 'b', 'c'])
      await Promise.all(
        listeners.flatMap((store) => ['a', 'b', 'c'].map((node) => heard(teller, store, node))),
      )
    },
    push,
  ),

  promise(
    'hints wake a node of any name',
    async (world) => {
      const [teller, listener] = await world.openMany(2)
      assert(teller && listener)
      const ids = ["it's", '\u00f6'.repeat(100), 'with blank', '{"a":1}', ',', '"', '\\']
      await join(teller, ids)
      for (const id of ids) await heard(teller, listener, id)
    },
    push,
  ),

  promise(
    'one change wakes a thousand nodes as well as one',
    async (world) => {
      const [teller, listener] = await world.openMany(2)
      assert(teller && listener)
      const ids = Array.from(
        { length: 1_000 },
        (_, index) => `a node with a rather long name, number ${index}`,
      )
      await join(teller, ids)
      await heard(teller, listener, 'a node with a rather long name, number 999', new Set(ids))
    },
    push,
  ),

  promise(
    'who has stopped listening is not woken any more, and may stop twice',
    async (world) => {
      const [teller, listener] = await world.openMany(2)
      assert(teller && listener)
      await join(teller, ['a'])
      let woken = 0
      const stop = listener.listen('a', () => {
        woken += 1
      })
      stop()
      stop()
      await heard(teller, listener, 'a')
      assert.equal(woken, 0)
    },
    push,
  ),

  promise(
    'who listens is woken again after the connection has broken',
    async (world) => {
      const teller = await world.open()
      const { store: listener, cut } = await world.openFragile()
      await join(teller, ['a'])
      const ear = listen(listener, 'a')
      await told(teller, ear)
      cut()
      await told(teller, ear)
      ear.stop()
    },
    (harness) => push(harness) ?? fragileConnections(harness),
  ),

  promise('a waker that throws fails no change, and keeps nobody else from being woken', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'])
    store.listen('a', () => {
      throw new Error('as no waker should')
    })
    const both = new Set(['a', 'b'])
    const revision = await commit(store, (change) => change.tell(both))
    assert.equal((await metaOf(store)).revision, revision)
    const ear = listen(store, 'b')
    if (world.harness.capabilities.push) await told(store, ear, both)
    ear.stop()
  }),

  promise('a hint does not wake the node that makes the change', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'])
    let woken = 0
    const stop = store.listen('a', () => {
      woken += 1
    })
    const ear = listen(store, 'b')
    if (world.harness.capabilities.push) await told(store, ear, new Set(['a', 'b']))
    for (let operation = 2; ; operation += 1) {
      const before = woken
      const { result: revision } = await store.change({ node: 'a', operation }, async (change) => {
        assert(change.session)
        await change.tell(new Set(['a', 'b']))
        return change.revision
      })
      await eventually(() => ear.newsRevision() >= revision, world.harness.capabilities.push ? 3_000 : 100)
      if (woken === before) break
      // A late hint may have woken the node.
      assert(operation < 10, 'a node is woken by its own changes')
    }
    stop()
    ear.stop()
  }),

  promise(
    'listening may begin before the node has joined, and end after the store has closed',
    async (world) => {
      const store = await world.open()
      const stop = store.listen('a', () => undefined)
      await join(store, ['a'])
      await store.close()
      stop()
    },
  ),
]

function push({ capabilities }: ConformanceHarness): string | undefined {
  return capabilities.push ? undefined : 'the stores of this database have no hints of their own'
}

/** Tells a node until its hint arrives and the news is found there. */
async function heard(teller: Store, listener: Store, node: string, nodes = new Set([node])): Promise<void> {
  const ear = listen(listener, node)
  await told(teller, ear, nodes)
  ear.stop()
}

/** A listener for one node. */
interface Ear {
  readonly node: string
  /** The number of the latest change that was there when a hint came. */
  newsRevision(): number
  stop(): void
}

function listen(store: Store, node: string): Ear {
  let newsRevision = 0
  const stop = store.listen(node, () => {
    store.news(node).then(
      (revision = 0) => {
        newsRevision = Math.max(newsRevision, revision)
      },
      () => undefined,
    )
  })
  return { node, stop, newsRevision: () => newsRevision }
}

/**
 * One hint may be lost, for example because listening takes a moment to begin. On an otherwise idle database, this
 * many in a row must not be lost.
 */
async function told(teller: Store, ear: Ear, nodes = new Set([ear.node])): Promise<void> {
  for (let attempt = 1; attempt <= 10; attempt += 1) {
    const revision = await commit(teller, (change) => change.tell(nodes))
    if (await eventually(() => ear.newsRevision() >= revision, 3_000)) return
  }
  assert.fail('ten hints in a row were lost')
}
