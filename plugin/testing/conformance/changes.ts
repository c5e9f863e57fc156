/** Cases: changes are made one after another, whole or not at all, whichever store makes them. */
import assert from 'node:assert/strict'
import { StoreError } from '../../core/errors.js'
import type { Change, LeaseRow, Store } from '../../core/store.js'
import type { ConformanceCase } from './harness.js'
import {
  atOnce,
  commit,
  contents,
  found,
  gate,
  join,
  leaseOf,
  metaOf,
  newLease,
  newNode,
  newWorker,
  nodeOf,
  openChange,
  promise,
  rejectionOf,
  saveLeases,
  tables,
  times,
  within,
} from './world.js'

export const changeCases: readonly ConformanceCase[] = [
  promise('a namespace begins empty, and its first change is number 1', async (world) => {
    const store = await world.open()
    const { meta, nodes, workers, leases } = await store.snapshot()
    assert.deepEqual(
      { ...meta, identitySettled: undefined },
      {
        revision: 0,
        watchers: [],
        longestTtlMs: 0,
        tokenFloor: 0,
        serverIdentity: '',
        identitySettled: undefined,
      },
    )
    assert.deepEqual([nodes, workers, leases, await store.events({ limit: 10 })], [[], [], [], []])
    const { result } = await store.change(undefined, async (change) => change.meta.serverIdentity)
    assert.equal(result, '')
    assert.equal(await join(store, ['a']), 1)
    assert.equal((await metaOf(store)).revision, 1)
  }),

  promise('two stores that make the first change of a namespace at once make two changes', async (world) => {
    const stores = await world.openMany(4)
    const numbers = await Promise.all(
      stores.map((store) => commit(store, (change) => change.saveMeta({ tokenFloor: 1 }))),
    )
    assert.deepEqual(numbers.sort(), [1, 2, 3, 4])
  }),

  promise('changes of many stores get distinct and dense numbers and lose no update', async (world) => {
    const stores = await world.openMany(4)
    const [first] = stores
    await saveLeases(found(first), newLease('counter'))
    const numbers = await Promise.all(stores.map((store) => times(25, () => increment(store, 'counter'))))
    assert.deepEqual(
      numbers.flat().sort((a, b) => a - b),
      Array.from({ length: 100 }, (_, index) => index + 2),
    )
    assert.equal((await leaseOf(found(first), 'counter')).token, 100)
  }),

  promise(
    'of changes made at once, in one store or many, one begins when another has ended',
    async (world) => {
      const stores = await world.openMany(3)
      let inside = 0
      await atOnce(45, (index) =>
        commit(found(stores[index % 3]), async (change) => {
          inside += 1
          try {
            assert.equal(inside, 1, 'two changes were open at once')
            await change.leases({ keys: ['l'] })
            await change.saveLeases([newLease('l', { token: index })])
            assert.equal(inside, 1, 'two changes were open at once')
          } finally {
            inside -= 1
          }
        }),
      )
    },
  ),

  promise('a change that wrote nothing leaves no trace, its number included', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'])
    await commit(store, (change) => change.bury('b'))
    const before = await contents(store)
    const works: ((change: Change) => Promise<unknown>)[] = [
      async () => 'nothing at all',
      (change) => change.leases({ keys: ['l'], workers: ['w'], nodes: ['a'] }),
      (change) => change.nodes(),
      (change) => change.nodesById(['a']),
      (change) => change.view('a'),
      (change) => change.loads(),
      (change) => change.highestToken(),
      (change) => change.workers(['w']),
      (change) => change.saveLeases([]),
      (change) => change.saveWorkers([]),
      (change) => change.deleteLeases([]),
      (change) => change.record([]),
      (change) => change.tell(new Set()),
      (change) => change.bury('a', 17),
      (change) => change.bury('b'),
      (change) => change.bury('nobody'),
    ]
    for (const work of works) {
      assert.equal((await store.change(undefined, work)).committed, false, `${work} wrote something`)
      assert.equal((await store.change({ node: 'a', operation: 9 }, work)).committed, false)
    }
    assert.deepEqual(await contents(store), before)
    assert.equal(await join(store, ['c']), before.meta.revision + 1)
  }),

  promise('each verb that writes makes the change a committed one', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'])
    await saveLeases(store, newLease('l'))
    const works: ((change: Change) => Promise<unknown>)[] = [
      (change) => change.addNode(newNode('c'), 1),
      (change) => change.updateNode('a', { workers: ['w'] }),
      (change) => change.bury('b'),
      (change) => change.forgetNode('b'),
      (change) => change.saveWorkers([newWorker('w')]),
      (change) => change.forgetWorker('w'),
      (change) => change.saveLeases([newLease('l')]),
      (change) => change.deleteLeases(['l']),
      (change) => change.saveMeta({ tokenFloor: 1 }),
      (change) => change.record([{ type: 'thing.happened', subject: 'a' }]),
      (change) => change.tell(new Set(['a'])),
    ]
    const { revision } = await metaOf(store)
    for (const [index, work] of works.entries()) {
      assert.equal(await commit(store, work), revision + index + 1)
      assert.equal((await metaOf(store)).revision, revision + index + 1)
    }
  }),

  promise('a change answers what its work answered, whether or not it wrote', async (world) => {
    const store = await world.open()
    const result = { some: 'thing' }
    assert.equal((await store.change(undefined, async () => result)).result, result)
    const written = await store.change(undefined, async (change) => {
      await change.addNode(newNode('a'), 1)
      return result
    })
    assert.equal(written.result, result)
    assert.equal(written.committed, true)
  }),

  promise('a change whose work throws leaves nothing, and its error comes out unchanged', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    await saveLeases(store, newLease('l', { holder: 'a', token: 3 }))
    const before = await contents(store)
    const failures = [new Error('of the work'), new StoreError('of the work', 'unknown'), 'a text', undefined]
    for (const failure of failures) {
      const failed = store.change({ node: 'a', operation: 2 }, async (change) => {
        await writeEverything(change)
        throw failure
      })
      await failed.then(
        () => assert.fail('it must throw'),
        (error: unknown) => assert.equal(error, failure),
      )
      assert.deepEqual(await contents(store), before)
    }
    assert.equal(await increment(store, 'l'), before.meta.revision + 1)
  }),

  promise('a change sees what it has written itself', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'])
    await saveLeases(store, newLease('old', { token: 5 }))
    await commit(store, async (change) => {
      await writeEverything(change)
      await change.bury('b')
      await change.updateNode('a', { state: 'draining', workers: ['w'] })
      await change.deleteLeases(['old'])
      await change.saveMeta({ serverIdentity: 'another', identitySettled: true })
      await change.tell(new Set(['a']))
      assert.deepEqual(
        (await change.nodes()).map(({ id, state }) => [id, state]),
        [
          ['a', 'draining'],
          ['added', 'active'],
        ],
      )
      assert.deepEqual(
        (await change.nodesById(['b'])).map(({ state }) => state),
        ['gone'],
      )
      assert.deepEqual(
        (await change.workers(['w'])).map(({ key }) => key),
        ['w'],
      )
      const [lease] = await change.leases({ keys: ['l', 'old'] })
      assert.equal(lease?.token, 77)
      assert.equal(await change.highestToken(), 77)
      assert.deepEqual(
        (await change.loads()).filter(({ leases }) => leases > 0),
        [{ node: 'a', leases: 1 }],
      )
      const view = found(await change.view('a'))
      assert.equal(view.newsRevision, change.revision)
      assert.equal(view.recordedIdentity, 'another')
      assert.equal(view.identitySettled, true)
      assert.deepEqual([view.state, view.watchers], ['draining', ['a', 'b']])
      assert.deepEqual(
        view.leases.map(({ key, revision }) => [key, revision]),
        [['l', change.revision]],
      )
      assert.deepEqual([...view.gone], ['b'])
    })
  }),

  promise('every row that a change writes bears its number', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b', 'c', 'untouched'])
    await saveLeases(store, newLease('untouched'))
    await commit(store, (change) => change.saveWorkers([newWorker('untouched')]))
    const before = await store.snapshot()
    const revision = await commit(store, async (change) => {
      await writeEverything(change)
      await change.updateNode('a', { workers: ['w'] })
      await change.bury('b')
    })
    const after = await store.snapshot()
    assert.equal(after.meta.revision, revision)
    const rows = [...after.nodes, ...after.workers, ...after.leases].filter(
      (row) => row.revision === revision,
    )
    assert.deepEqual(rows.map((row) => ('id' in row ? row.id : row.key)).sort(), [
      'a',
      'added',
      'b',
      'l',
      'w',
    ])
    assert.equal((await nodeOf(store, 'added')).joinedRevision, revision)
    assert((await store.events({ limit: 10 })).every((event) => event.revision === revision))
    for (const key of ['untouched']) {
      assert.deepEqual(await leaseOf(store, key), found(before.leases.find((lease) => lease.key === key)))
    }
  }),

  promise('nobody sees anything of a change before it commits', async (world) => {
    const [one, two] = await world.openMany(2)
    assert(one && two)
    await join(one, ['a'])
    const before = await contents(one)
    const open = await openChange(one, async (change) => {
      await writeEverything(change)
      await change.tell(new Set(['a']))
    })
    const reads = [one, two].flatMap((store) => [
      contents(store).then((seen) => assert.deepEqual(seen, before)),
      store.news('a').then((news) => assert.equal(news, before.nodes[0]?.newsRevision)),
      store.view('a').then((view) => assert.deepEqual([view?.leases, view?.watchers], [[], []])),
      store.look().then((look) => assert.deepEqual([look.nodes.length, look.leases], [1, []])),
    ])
    await open.end(new Error('undone'))
    await within(Promise.all(reads), 'the reads are answered')
  }),

  promise('a change that has been answered is seen by every store', async (world) => {
    const [one, two] = await world.openMany(2)
    assert(one && two)
    await times(20, async (index) => {
      const [writer, reader] = index % 2 ? [one, two] : [two, one]
      const revision = await saveLeases(writer, newLease('l', { token: index }))
      assert.equal((await metaOf(reader)).revision, revision)
      assert.equal((await leaseOf(reader, 'l')).token, index)
    })
  }),

  promise('a change finds the revision row as the previous change left it', async (world) => {
    const store = await world.open()
    const meta = {
      watchers: ['a', 'b'],
      longestTtlMs: 15_000,
      tokenFloor: 12,
      serverIdentity: 'x',
      identitySettled: true,
    }
    await commit(store, (change) => change.saveMeta(meta))
    await commit(store, async (change) => {
      assert.deepEqual({ ...change.meta, revision: 0 }, { ...meta, revision: 0 })
      await change.saveMeta({ tokenFloor: 13 })
    })
    const { result } = await store.change(undefined, async (change) => ({ ...change.meta, revision: 0 }))
    assert.deepEqual(result, { ...meta, tokenFloor: 13, revision: 0 })
  }),

  promise('what a change is to read ahead is as it is when its turn has come', async (world) => {
    const [one, two] = await world.openMany(2)
    assert(one && two)
    await join(one, ['a', 'b'])
    await commit(one, (change) =>
      change.saveLeases(Array.from({ length: 10 }, (_, index) => newLease(`l${index}`, { holder: 'a' }))),
    )
    const keys = Array.from({ length: 10 }, (_, index) => `l${index}`)
    const ahead = { leases: { keys }, nodes: true }
    const takeNext = (store: Store): Promise<unknown> =>
      store.change(
        undefined,
        async (change) => {
          const next = (await change.leases({ keys })).find((lease) => lease.holder === 'a')
          assert.deepEqual((await change.nodes()).map(({ id }) => id).sort(), ['a', 'b'])
          const loads = new Map((await change.loads()).map(({ node, leases }) => [node, leases]))
          assert(next)
          await change.saveLeases([{ ...next, holder: 'b', token: (loads.get('b') ?? 0) + 1 }])
        },
        ahead,
      )
    await Promise.all(Array.from({ length: 10 }, (_, index) => takeNext(index % 2 ? one : two)))
    const { leases } = await one.snapshot()
    assert.deepEqual(
      leases.map(({ holder, token }) => [holder, token]),
      leases.map((_, index) => ['b', index + 1]),
    )
  }),

  promise('what is read ahead is forgotten once the change has written', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'])
    await commit(store, (change) => change.saveWorkers([newWorker('w')]))
    await commit(store, (change) => change.saveLeases([newLease('l', { worker: 'w', holder: 'a' })]))
    await store.change(
      undefined,
      async (change) => {
        assert.equal((await change.leases({ keys: ['l'] })).length, 1)
        await change.nodes()
        await change.saveWorkers([newWorker('w', { slots: 7 })])
        assert.deepEqual(
          (await change.workers(['w'])).map(({ slots }) => slots),
          [7],
        )
        assert.equal((await change.leases({ keys: ['l'] })).length, 1)
        await change.nodes()
        await change.bury('a')
        assert.deepEqual(
          (await change.nodesById(['a'])).map(({ state }) => state),
          ['gone'],
        )
        await change.saveLeases([newLease('l', { worker: 'w', holder: 'b', token: 9 })])
        assert.deepEqual(
          (await change.nodes()).map(({ id }) => id),
          ['b'],
        )
        assert.deepEqual(await change.loads(), [{ node: 'b', leases: 1 }])
        assert.deepEqual(
          (await change.leases({ keys: ['l'] })).map(({ token }) => token),
          [9],
        )
      },
      { leases: { keys: ['l'] }, nodes: true },
    )
  }),

  promise('the last view of a change sees what it has written, and all of it is committed', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    const { result, committed } = await store.change(undefined, async (change) => {
      await change.saveLeases([newLease('l', { holder: 'a', token: 7 })])
      await change.record([{ type: 'lease.acquired', subject: 'l' }])
      await change.tell(new Set(['a']))
      return { view: found(await change.view('a', true)), revision: change.revision }
    })
    assert.equal(committed, true)
    assert.deepEqual(
      result.view.leases.map(({ token }) => token),
      [7],
    )
    assert.equal(result.view.newsRevision, result.revision)
    assert.equal((await leaseOf(store, 'l')).token, 7)
    assert.equal((await nodeOf(store, 'a')).newsRevision, result.revision)
    const before = await contents(store)
    const idle = await store.change(undefined, (change) => change.view('a', true))
    assert.equal(idle.committed, false)
    assert.deepEqual(await contents(store), before)
  }),

  promise('a change knows the time of the database', async (world) => {
    const store = await world.open()
    const { nowMs: earliestMs } = await store.snapshot()
    const { result } = await store.change(undefined, async (change) => change.nowMs)
    const { nowMs: latestMs } = await store.snapshot()
    assert(Number.isSafeInteger(result))
    assert(earliestMs <= result && result <= latestMs)
  }),

  promise(
    'a change in which a statement failed never claims to have committed what it did not',
    async (world) => {
      const store = await world.open()
      await join(store, ['a'])
      const outcome = await store
        .change(undefined, async (change) => {
          await change.saveLeases([newLease('l')])
          assert((await rejectionOf(change.addNode(newNode('a'), 1))) instanceof StoreError)
        })
        .then(
          ({ committed }) => committed,
          (error: unknown) => {
            assert(error instanceof StoreError, `expected a StoreError, got ${error}`)
            return false
          },
        )
      assert.equal((await store.snapshot()).leases.length === 1, outcome)
      await saveLeases(store, newLease('m'))
    },
  ),

  promise('of many nodes racing for one free lease exactly one claims it', async (world) => {
    const stores = await world.openMany(6)
    const [first] = stores
    assert(first)
    await saveLeases(first, newLease('l'))
    let latest = 0
    await times(15, async () => {
      const claims = await Promise.all(stores.map((store, index) => claim(store, `node-${index}`)))
      const [winner, ...others] = claims.flatMap((token, index) => (token ? [{ token, index }] : []))
      assert(winner && others.length === 0, 'exactly one claims')
      assert(winner.token > latest, 'tokens grow')
      latest = winner.token
      const { holder, token } = await leaseOf(first, 'l')
      assert.deepEqual({ holder, token }, { holder: `node-${winner.index}`, token: latest })
      await commit(first, (change) => change.saveLeases([newLease('l', { token: latest })]))
    })

    async function claim(store: Store, holder: string): Promise<number | undefined> {
      const { result } = await store.change(undefined, async (change) => {
        const lease = await read(change, 'l')
        if (lease.holder !== null) return undefined
        await change.saveLeases([{ ...lease, holder, token: lease.token + 1 }])
        return lease.token + 1
      })
      return result
    }
  }),

  promise(
    'a node that is silent but not buried is there, and so is all that it holds',
    async (world) => {
      const store = await world.open()
      await join(store, ['silent', 'other'])
      await saveLeases(store, newLease('l', { holder: 'silent', target: 'silent', token: 4 }))
      await world.execute(
        `update coordination_nodes set heartbeat_at_ms = 0 where namespace = '${world.namespace}' and id = 'silent'`,
      )
      const look = await store.look()
      assert.deepEqual(look.nodes.map(({ id }) => id).sort(), ['other', 'silent'])
      assert.deepEqual([look.leases, [...look.gone]], [[], []])
      await store.change(undefined, async (change) => {
        assert.equal((await read(change, 'l')).holder, 'silent')
        assert.deepEqual(
          (await change.nodes()).map(({ state }) => state),
          ['active', 'active'],
        )
      })
      await store.prune({ eventsForMs: 0, events: 0, goneNodesForMs: 0 })
      found(await store.heartbeat('silent', 1))
      assert.equal(found(await store.view('silent')).leases.length, 1)
    },
    tables,
  ),

  promise('changes go on while others read without pause', async (world) => {
    const [writer, reader] = await world.openMany(2)
    assert(writer && reader)
    await join(writer, ['a'])
    await saveLeases(writer, newLease('counter', { holder: 'a' }))
    const reads = [
      () => reader.snapshot(),
      () => reader.look(),
      () => reader.view('a'),
      () => reader.events({ limit: 5 }),
    ]
    const activities = [
      times(30, () => increment(writer, 'counter')),
      ...reads.map((read) => times<unknown>(60, read)),
    ]
    await within(Promise.all<unknown>(activities), 'all is written and read')
    assert.equal((await leaseOf(reader, 'counter')).token, 30)
  }),

  promise('a change of which the work waits for something else keeps its rows to itself', async (world) => {
    const [one, two] = await world.openMany(2)
    assert(one && two)
    await saveLeases(one, newLease('counter'))
    const pause = gate()
    const slow = one.change(undefined, async (change) => {
      const { token } = await read(change, 'counter')
      await pause.opened
      await change.saveLeases([newLease('counter', { token: token + 1 })])
    })
    const other = increment(two, 'counter')
    pause.open()
    await within(Promise.all([slow, other]), 'both changes are made')
    assert.equal((await leaseOf(one, 'counter')).token, 2)
  }),
]

/** Uses every verb that writes, on rows of its own. Needs a node `a` to refer to. */
async function writeEverything(change: Change): Promise<void> {
  await change.addNode(newNode('added'), 1)
  await change.saveWorkers([newWorker('w')])
  await change.saveLeases([newLease('l', { holder: 'a', token: 77, blockedNode: 'b', pending: true })])
  await change.saveMeta({ watchers: ['a', 'b'], tokenFloor: 99 })
  await change.record([{ type: 'thing.happened', subject: 'l' }])
}

async function read(change: Change, key: string): Promise<LeaseRow> {
  const [lease] = await change.leases({ keys: [key] })
  return found(lease)
}

async function increment(store: Store, key: string): Promise<number> {
  return commit(store, async (change) => {
    const lease = await read(change, key)
    await change.saveLeases([{ ...lease, token: lease.token + 1 }])
  })
}
