/** Cases: what a node, a watcher and an observer read, and that all of it was true at one instant. */
import assert from 'node:assert/strict'
import {
  type EventQuery,
  type EventRow,
  type LeaseRow,
  type Look,
  type OwnView,
  prunedAtOnce,
  type Store,
} from '../../core/store.js'
import type { ConformanceCase } from './harness.js'
import {
  commit,
  compare,
  concurrentTransactions,
  contents,
  found,
  idsOf,
  join,
  keysOf,
  leaseOf,
  metaOf,
  newLease,
  newNode,
  newWorker,
  nodeOf,
  openChange,
  promise,
  saveLeases,
  tables,
  times,
  within,
} from './world.js'

export const readCases: readonly ConformanceCase[] = [
  promise('each statement is counted, those of a heartbeat too, and nothing else is', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    const sentBy = async (ask: () => unknown): Promise<number> => {
      const before = store.statements
      await ask()
      return store.statements - before
    }
    const { statementsPerHeartbeat = 1 } = world.harness.capabilities
    assert.equal(await sentBy(() => store.heartbeat('a', 1)), statementsPerHeartbeat)
    assert.equal(await sentBy(() => store.heartbeat('a', 1)), 1, 'one that is refused is sent all the same')
    const asking = [
      () => store.view('a'),
      () => store.news('a'),
      () => store.look(),
      () => store.beats('', 1),
      () => store.neighbours('here'),
      () => store.snapshot(),
      () => store.leasesAfter('', 1),
      () => store.namespaces(1),
      () => store.events({ limit: 1 }),
      () => store.change(undefined, async () => undefined),
      () => commit(store, (change) => change.tell(new Set(['a']))),
      () => store.prune({ eventsForMs: 1e9, events: 10, goneNodesForMs: 1e9 }),
    ]
    for (const ask of asking) assert((await sentBy(ask)) > 0, String(ask))
    const other = await world.open()
    assert.equal(await sentBy(() => other.heartbeat('a', 2)), 0, 'each store counts its own')
  }),

  promise(
    'beats are those of the nodes after an id that are not gone, so many and no more',
    async (world) => {
      const store = await world.open()
      const names = ['a', 'b', 'c', 'd', 'e']
      await join(store, names)
      await commit(store, (change) => change.bury('c'))
      await store.heartbeat('d', 7)
      const other = await world.open({ namespace: `${world.namespace}-other` })
      await join(other, ['f'])
      const beats = (ids: readonly string[]): { id: string; beat: number }[] =>
        ids.map((id) => ({ id, beat: id === 'd' ? 7 : 0 }))
      assert.deepEqual(await store.beats('', 10), beats(['a', 'b', 'd', 'e']))
      assert.deepEqual(await store.beats('b', 10), beats(['d', 'e']))
      assert.deepEqual(await store.beats('', 2), beats(['a', 'b']))
      assert.deepEqual(await store.beats('a', 2), beats(['b', 'd']))
      assert.deepEqual(await store.beats('e', 2), [])
    },
  ),

  promise('all leases can be read by portions, each row once and whole', async (world) => {
    const store = await world.open()
    await seedViews(store)
    const odd = ['B', 'a ', 'z%', 'é', '😀', '\uff5e'].map((key) => newLease(key, { waiters: ['a'] }))
    await saveLeases(store, ...odd)
    const other = await world.open({ namespace: `${world.namespace}-other` })
    await saveLeases(other, newLease('m'))
    const { leases } = await store.snapshot()
    const read: LeaseRow[] = []
    for (;;) {
      const portion = await store.leasesAfter(read.at(-1)?.key ?? '', 2)
      assert(portion.length <= 2)
      read.push(...portion)
      if (portion.length < 2) break
    }
    const inOrderOf = (all: readonly LeaseRow[]) =>
      read.map(({ key }) => all.find((each) => each.key === key))
    assert.equal(read.length, leases.length)
    assert.deepEqual(read, inOrderOf(leases))
    assert.deepEqual(await store.leasesAfter('', 100), read, 'the order stays the same')
    assert.deepEqual(await store.leasesAfter(read[2]?.key ?? '', 3), read.slice(3, 6))
    assert.deepEqual(await store.leasesAfter(read.at(-1)?.key ?? '', 3), [])
  }),

  promise('neighbours are the nodes on one machine that are not gone, by id', async (world) => {
    const store = await world.open()
    const here = { machine: 'here' }
    await commit(store, async (change) => {
      await change.addNode(newNode('b', { ...here, process: '2@1' }), 1)
      await change.addNode(newNode('B', { ...here, process: '3@1' }), 1)
      await change.addNode(newNode('unknown', here), 1)
      await change.addNode(newNode('gone', { ...here, process: '4@1' }), 1)
      await change.addNode(newNode('elsewhere', { machine: 'there', process: '2@1' }), 1)
      await change.addNode(newNode('nowhere'), 1)
      await change.bury('gone')
    })
    const other = await world.open({ namespace: `${world.namespace}-other` })
    await commit(other, (change) => change.addNode(newNode('a', { ...here, process: '2@1' }), 1))
    assert.deepEqual(await store.neighbours('here'), [
      { id: 'B', process: '3@1' },
      { id: 'b', process: '2@1' },
    ])
    assert.deepEqual(await store.neighbours('anywhere'), [])
  }),

  promise(
    'namespaces are those in which anything was ever changed, by name, so many and no more',
    async (world) => {
      const names = ['B', 'a', '\uff5e', '😀', 'untouched'].map((name) => `${world.namespace}-${name}`)
      const [B, a, tilde, smiley, untouched] = await Promise.all(
        names.map((namespace) => world.open({ namespace })),
      )
      assert(B && a && tilde && smiley && untouched)
      for (const store of [smiley, tilde, a, B])
        await commit(store, (change) => change.saveMeta({ tokenFloor: 1 }))
      await untouched.snapshot()
      await untouched.change(undefined, async (change) => change.nodes())
      const undone = untouched.change(undefined, async (change) => {
        await change.saveMeta({ tokenFloor: 1 })
        throw new Error('undone')
      })
      await assert.rejects(undone, /undone/)
      const known = await untouched.namespaces(1e6)
      assert.deepEqual(
        known.filter((name) => names.includes(name)),
        names.slice(0, 4),
      )
      assert.deepEqual(await a.namespaces(1), known.slice(0, 1))
    },
  ),

  promise('a view holds the leases that name its node, and all of its coordinated workers', async (world) => {
    const store = await world.open()
    await seedViews(store)
    const view = found(await store.view('a'))
    assert.deepEqual(keysOf(view.leases), ['blocked', 'held', 'own-share', 'share', 'target'])
    for (const lease of view.leases) assert.deepEqual(lease, await leaseOf(store, lease.key))
    assert.deepEqual(keysOf(found(await store.view('bystander')).leases), [])
  }),

  promise('a view holds the workers its node stands for, and those of its leases', async (world) => {
    const store = await world.open()
    await seedViews(store)
    const view = found(await store.view('a'))
    assert.deepEqual(keysOf(view.workers), ['coordinated', 'elsewhere', 'single'])
    const { workers } = await store.snapshot()
    for (const worker of view.workers) {
      assert.deepEqual(worker, found(workers.find(({ key }) => key === worker.key)))
    }
  }),

  promise('a view names the holders and blocked nodes that are gone or unknown', async (world) => {
    const store = await world.open()
    await seedViews(store)
    assert.deepEqual([...found(await store.view('a')).gone].sort(), ['buried', 'unknown'])
    assert.deepEqual([...found(await store.view('bystander')).gone], [])
  }),

  promise('a view says how its node stands and what is recorded of the server', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'])
    const meta = {
      watchers: ['b', 'a'],
      serverIdentity: 'former',
      identitySettled: true,
      longestTtlMs: 60_000,
    }
    await commit(store, (change) => change.saveMeta(meta))
    const told = await commit(store, (change) => change.tell(new Set(['a'])))
    await commit(store, (change) => change.updateNode('a', { state: 'draining' }))
    const { nowMs: earliestMs } = await store.snapshot()
    const { nowMs, serverIdentity, ...view } = found(await store.view('a'))
    const { nowMs: latestMs } = await store.snapshot()
    assert(earliestMs <= nowMs && nowMs <= latestMs)
    assert.equal(serverIdentity, found(await store.heartbeat('a', 1)).serverIdentity)
    assert.deepEqual(view, {
      state: 'draining',
      newsRevision: told,
      watchers: ['b', 'a'],
      recordedIdentity: 'former',
      identitySettled: true,
      longestTtlMs: 60_000,
      leases: [],
      workers: [],
      gone: new Set(),
    })
  }),

  promise('a view in a change is the view that is had outside of it', async (world) => {
    const store = await world.open()
    await seedViews(store)
    const outside = found(await store.view('a'))
    const { result } = await store.change(undefined, (change) => change.view('a'))
    assert.deepEqual(timeless(found(result)), timeless(outside))
    const { result: buried } = await store.change(undefined, (change) => change.view('buried'))
    assert.equal(buried, undefined)
  }),

  promise('there is no view and no news of a node that is gone or was never there', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    await saveLeases(store, newLease('l', { holder: 'a' }))
    await commit(store, (change) => change.bury('a'))
    for (const id of ['a', 'nobody']) {
      assert.equal(await store.view(id), undefined)
      assert.equal(await store.news(id), undefined)
    }
  }),

  promise('news is the number of the latest change that concerns the node', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'])
    const first = await commit(store, (change) => change.tell(new Set(['a', 'b'])))
    const second = await commit(store, (change) => change.tell(new Set(['b'])))
    await saveLeases(store, newLease('l', { holder: 'a' }))
    await store.heartbeat('a', 1)
    assert.deepEqual([await store.news('a'), await store.news('b')], [first, second])
  }),

  promise('a watcher sees the beats of all nodes that are not gone', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b', 'c'])
    await store.heartbeat('a', 6)
    await commit(store, async (change) => {
      await change.updateNode('b', { state: 'draining' })
      await change.bury('c')
    })
    const { nodes } = await store.look()
    assert.deepEqual(
      [...nodes].sort((a, b) => compare(a.id, b.id)),
      [
        { id: 'a', beat: 6 },
        { id: 'b', beat: 0 },
      ],
    )
  }),

  promise(
    'a watcher sees the leases that are pending or whose holder is gone, and nothing else',
    async (world) => {
      const store = await world.open()
      await join(store, ['a', 'buried', 'revoked'])
      await commit(store, (change) => change.saveWorkers(['w', 'v', 'unused'].map((key) => newWorker(key))))
      await saveLeases(
        store,
        newLease('healthy', { holder: 'a', target: 'a', worker: 'unused' }),
        newLease('free', { target: 'buried', cooldownNode: 'buried', waiters: ['buried'] }),
        newLease('pending', { pending: true, target: 'buried', worker: 'w' }),
        newLease('blocked', { pending: true, holder: 'a', blockedNode: 'revoked', worker: 'v' }),
        newLease('waiting', { pending: true, holder: 'a', blockedNode: 'unknown' }),
        newLease('abandoned', { holder: 'buried', worker: 'w' }),
        newLease('of nobody known', { holder: 'unknown' }),
      )
      await commit(store, async (change) => {
        await change.bury('buried')
        await change.bury('revoked')
      })
      const look = await store.look()
      assert.deepEqual(keysOf(look.leases), ['abandoned', 'blocked', 'pending', 'waiting'])
      for (const lease of look.leases) assert.deepEqual(lease, await leaseOf(store, lease.key))
      assert.deepEqual(keysOf(look.workers), ['v', 'w'])
      assert.deepEqual([...look.gone].sort(), ['buried', 'revoked', 'unknown'])
      assert.deepEqual(idsOf(look.nodes), ['a'])
    },
  ),

  promise('in a healthy namespace a watcher sees nothing but beats', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    await commit(store, (change) => change.saveWorkers([newWorker('w')]))
    await saveLeases(store, newLease('l', { holder: 'a', target: 'a', worker: 'w' }))
    const expected: Look = { nodes: [{ id: 'a', beat: 0 }], leases: [], workers: [], gone: new Set() }
    assert.deepEqual(await store.look(), expected)
  }),

  promise('a snapshot holds the whole namespace, gone nodes included', async (world) => {
    const store = await world.open()
    await seedViews(store)
    const { nowMs, meta, nodes, workers, leases } = await store.snapshot()
    assert(Number.isSafeInteger(nowMs))
    assert.deepEqual(idsOf(nodes), ['a', 'buried', 'bystander', 'other'])
    assert.deepEqual(keysOf(workers), ['coordinated', 'elsewhere', 'foreign', 'single'])
    assert.deepEqual(keysOf(leases), ['blocked', 'foreign', 'held', 'own-share', 'share', 'target', 'theirs'])
    assert.equal(
      meta.revision,
      Math.max(...[...nodes, ...workers, ...leases].map(({ revision }) => revision)),
    )
  }),

  promise('a snapshot is one instant, also while changes are made', async (world) => {
    const [writer, reader] = await world.openMany(2)
    assert(writer && reader)
    await seedBalance(writer)
    const reads = times(60, async () => {
      const { meta, nodes, workers, leases } = await reader.snapshot()
      const [worker] = workers
      assert(worker)
      assertBalanced(leases, worker.generation)
      assert.equal(meta.revision, worker.revision)
      assert.equal(nodes.find(({ id }) => id === 'a')?.newsRevision, meta.revision)
    })
    await within(Promise.all([reads, times(60, (round) => moveBalance(writer, round))]), 'all is read')
  }),

  promise('a view is one instant, also while changes are made', async (world) => {
    const [writer, reader] = await world.openMany(2)
    assert(writer && reader)
    await seedBalance(writer)
    const reads = times(60, async () => {
      const { leases, workers, newsRevision, gone } = found(await reader.view('a'))
      const [worker] = workers
      assert(worker)
      assertBalanced(leases, worker.generation)
      assert.equal(newsRevision, worker.revision)
      assert.deepEqual([...gone], [])
    })
    await within(Promise.all([reads, times(60, (round) => moveBalance(writer, round))]), 'all is read')
  }),

  promise('what a watcher sees is one instant, also while changes are made', async (world) => {
    const [writer, reader] = await world.openMany(2)
    assert(writer && reader)
    await seedBalance(writer)
    const reads = times(60, async () => {
      const { nodes, leases, workers, gone } = await reader.look()
      const [worker] = workers
      assert(worker)
      assertBalanced(leases, worker.generation)
      assert.deepEqual([...gone], [])
      for (const { holder } of leases) assert(nodes.some(({ id }) => id === holder))
    })
    await within(Promise.all([reads, times(60, (round) => moveBalance(writer, round))]), 'all is read')
  }),

  promise('nothing that only reads leaves a trace', async (world) => {
    const store = await world.open()
    await seedViews(store)
    const before = await contents(store)
    await store.view('a')
    await store.news('a')
    await store.look()
    await store.snapshot()
    await store.leasesAfter('', 1)
    await store.events({ limit: 1 })
    assert.deepEqual(await contents(store), before)
  }),

  promise(
    'when the database is set back, what is read and made is what is stored then',
    async (world) => {
      const [one, two] = await world.openMany(2)
      assert(one && two)
      await join(one, ['a'])
      const told = await commit(one, (change) => change.tell(new Set(['a'])))
      await times(5, (token) => saveLeases(one, newLease('l', { holder: 'a', token: token + 10 })))
      await commit(two, (change) => change.tell(new Set(['a'])))
      const where = `where namespace = '${world.namespace}'`
      await world.execute(`update coordination_meta set revision = ${told} ${where}`)
      await world.execute(`update coordination_nodes set news_revision = ${told} ${where}`)
      await world.execute(`update coordination_leases set token = 10, revision = ${told} ${where}`)
      for (const store of [one, two]) {
        assert.equal((await metaOf(store)).revision, told)
        assert.equal(await store.news('a'), told)
        const view = found(await store.view('a'))
        assert.deepEqual([view.newsRevision, view.leases[0]?.token], [told, 10])
      }
      assert.equal(found(await one.heartbeat('a', 1)).newsRevision, told)
      assert.equal(await commit(two, (change) => change.tell(new Set(['a']))), told + 1)
      assert.equal(await one.news('a'), told + 1)
    },
    tables,
  ),

  promise('events are found by type and subject, as many as are asked for', async (world) => {
    const store = await world.open()
    await seedEvents(store)
    const expected: [EventQuery, string[]][] = [
      [{ limit: 9, types: ['x'] }, ['5', '3', '1']],
      [{ limit: 2, types: ['x'] }, ['5', '3']],
      [{ limit: 9, types: ['x', 'y', 'unknown'] }, ['5', '4', '3', '2', '1']],
      [{ limit: 9, subject: 'm' }, ['4', '3']],
      [{ limit: 9, types: ['x'], subject: 'm' }, ['3']],
      [{ limit: 9, types: ['y'], subject: 'unknown' }, []],
    ]
    for (const [query, reasons] of expected) assert.deepEqual(reasonsOf(await store.events(query)), reasons)
  }),

  promise(
    'events after a place come oldest first, so that nobody who follows them misses one',
    async (world) => {
      const store = await world.open()
      await seedEvents(store)
      const [oldest, ...later] = (await store.events({ limit: 9 })).reverse()
      assert(oldest)
      let place = oldest
      for (const next of later) {
        const [event, ...others] = await store.events({ limit: 1, after: place })
        assert.deepEqual([event, others], [next, []])
        place = next
      }
      assert.deepEqual(await store.events({ limit: 9, after: place }), [])
      const fromTheBeginning = { limit: 3, after: { revision: 0, position: 0 } }
      assert.deepEqual(reasonsOf(await store.events(fromTheBeginning)), ['1', '2', '3'])
      assert.deepEqual(reasonsOf(await store.events({ limit: 9, after: oldest, types: ['x'] })), ['3', '5'])
      assert.deepEqual(reasonsOf(await store.events({ limit: 9, after: oldest, subject: 'm' })), ['3', '4'])
    },
  ),

  promise('two namespaces in one database know nothing of each other', async (world) => {
    const mine = await world.open()
    const theirs = await world.open({ namespace: `${world.namespace}-too` })
    for (const store of [mine, theirs]) await seedViews(store)
    const before = await contents(theirs)
    await commit(mine, async (change) => {
      await change.updateNode('a', { state: 'draining', workers: [] })
      await change.bury('other')
      await change.addNode(newNode('new'), 1)
      await change.saveWorkers([newWorker('single', { paused: true }), newWorker('new')])
      await change.saveLeases([newLease('held', { token: 2 ** 40 }), newLease('new')])
      await change.deleteLeases(['share'])
      await change.saveMeta({
        watchers: ['a'],
        longestTtlMs: 3,
        tokenFloor: 5,
        serverIdentity: 'x',
        identitySettled: true,
      })
      await change.record([{ type: 'thing.happened', subject: 'a' }])
      await change.tell(new Set(['a', 'bystander']))
    })
    found(await mine.heartbeat('a', 9))
    await mine.change({ node: 'a', operation: 9 }, (change) => change.saveMeta({ tokenFloor: 6 }))
    await mine.prune({ eventsForMs: 0, events: 0, goneNodesForMs: 0 })
    assert.deepEqual(await contents(theirs), before)
    assert.equal(await theirs.view('new'), undefined)
    assert.equal(await theirs.news('new'), undefined)
    assert.equal(await theirs.heartbeat('new', 1), undefined)
    await theirs.change(undefined, async (change) => {
      assert(!idsOf(await change.nodes()).includes('new'))
      assert.deepEqual(await change.nodesById(['new']), [])
      assert.deepEqual(await change.workers(['new']), [])
      assert.deepEqual(await change.leases({ keys: ['new'] }), [])
      assert((await change.highestToken()) < 2 ** 40)
      assert(!(await change.loads()).some(({ node }) => node === 'new'))
      assert.equal(await change.bury('new'), false)
    })
    assert(!idsOf((await theirs.look()).nodes).includes('new'))
    found(await theirs.heartbeat('a', 1))
    assert.equal(await saveLeases(theirs, newLease('held')), before.meta.revision + 1)
  }),

  promise(
    'a change in one namespace does not wait for one in another',
    async (world) => {
      const mine = await world.open()
      const theirs = await world.open({ namespace: `${world.namespace}-too` })
      for (const store of [mine, theirs]) await join(store, ['a'])
      const open = await openChange(mine, (change) => change.updateNode('a', { state: 'draining' }))
      await within(
        commit(theirs, (change) => change.updateNode('a', { state: 'draining' })),
        'the other change is made',
      )
      await open.end()
    },
    concurrentTransactions,
  ),

  promise('namespaces of any name are kept apart', async (world) => {
    const endings = ['', ' ', 'x', 'X', "'", '"', '%', '_', '\\', "' or '1'='1", '\u00e1', 'a\u0301', '😀']
    for (const ending of endings) {
      const store = await world.open({ namespace: `${world.namespace}${ending}` })
      assert.equal((await metaOf(store)).revision, 0)
      await join(store, [`node of ${ending}`])
      assert.deepEqual(idsOf((await store.snapshot()).nodes), [`node of ${ending}`])
      await store.close()
    }
  }),

  promise('pruning leaves as many events as it is told to, the newest', async (world) => {
    const store = await world.open()
    for (const type of ['1', '2', '3']) {
      await commit(store, (change) =>
        change.record(['a', 'b'].map((half) => ({ type: `${type}${half}`, subject: 'x' }))),
      )
    }
    const before = await contents(store)
    await store.prune({ eventsForMs: aDayMs, events: 100, goneNodesForMs: aDayMs })
    assert.deepEqual(await contents(store), before)
    await store.prune({ eventsForMs: aDayMs, events: 3, goneNodesForMs: aDayMs })
    assert.deepEqual(
      (await store.events({ limit: 10 })).map(({ type }) => type),
      ['3b', '3a', '2b'],
    )
    assert.deepEqual({ ...(await contents(store)), events: before.events }, before)
  }),

  promise(
    'what is more than can be pruned at once is pruned by portions, and each says whether it was the last',
    async (world) => {
      const store = await world.open()
      const events = Array.from({ length: 2 * prunedAtOnce + 1 }, () => ({ type: 'surplus', subject: 'x' }))
      await commit(store, (change) => change.record(events))
      await commit(store, (change) => change.record([{ type: 'newest', subject: 'x' }]))
      const left = async (): Promise<number> => (await store.events({ limit: 3 * prunedAtOnce })).length
      const retention = { eventsForMs: aDayMs, events: 1, goneNodesForMs: aDayMs }
      assert.equal(await store.prune(retention), true)
      assert.equal(await left(), prunedAtOnce + 2)
      assert.equal(await store.prune(retention), true)
      assert.equal(await left(), 2)
      assert.equal(await store.prune(retention), false)
      assert.deepEqual(
        (await store.events({ limit: 10 })).map(({ type }) => type),
        ['newest'],
      )
    },
  ),

  promise('nodes that are gone are pruned by portions, too', async (world) => {
    const store = await world.open()
    const ids = Array.from({ length: prunedAtOnce + 1 }, (_, index) => `${index}`)
    await join(store, ids)
    await commit(store, async (change) => {
      for (const id of ids) await change.bury(id)
    })
    const left = async (): Promise<number> => (await store.snapshot()).nodes.length
    const ofAnyAge = { eventsForMs: aDayMs, events: 100, goneNodesForMs: -1 }
    assert.equal(await store.prune(ofAnyAge), true)
    assert.equal(await left(), 1)
    assert.equal(await store.prune(ofAnyAge), false)
    assert.equal(await left(), 0)
  }),

  promise('what is exactly as old as it may be is kept, and pruned once it is older', async (world) => {
    const store = await world.open()
    for (const id of Array.from({ length: 20 }, (_, round) => `${round}`)) {
      await join(store, [id])
      await commit(store, async (change) => {
        await change.bury(id)
        await change.record([{ type: 'aged', subject: id }])
      })
      const { goneAtMs } = await nodeOf(store, id)
      const sinceMs = found(goneAtMs ?? undefined)
      const mostMs = (await store.snapshot()).nowMs - sinceMs + 2
      let left = 2
      while (left > 0) {
        const before = await store.snapshot()
        await store.prune({ eventsForMs: mostMs, events: 100, goneNodesForMs: mostMs })
        const after = await store.snapshot()
        const nodes = after.nodes.length
        const events = (await store.events({ limit: 100 })).length
        if (nodes + events < left) assert(after.nowMs - sinceMs > mostMs, 'nothing is pruned too early')
        else assert(before.nowMs - sinceMs <= mostMs, 'nothing is kept for too long')
        left = nodes + events
      }
    }
  }),

  promise(
    'pruning leaves no events that are older than it is told',
    async (world) => {
      const store = await world.open()
      await commit(store, (change) => change.record([{ type: 'old', subject: 'x' }]))
      await commit(store, (change) => change.record([{ type: 'young', subject: 'x' }]))
      await world.execute(
        `update coordination_events set at_ms = at_ms - ${aDayMs} where namespace = '${world.namespace}' and type = 'old'`,
      )
      await store.prune({ eventsForMs: aDayMs / 2, events: 100, goneNodesForMs: aDayMs })
      assert.deepEqual(
        (await store.events({ limit: 10 })).map(({ type }) => type),
        ['young'],
      )
    },
    tables,
  ),

  promise(
    'pruning deletes nodes that have long been gone, unless they are holder, target or blocked node of a lease',
    async (world) => {
      const store = await world.open()
      const longGone = ['holder', 'target', 'blocked', 'forgotten', 'cooling', 'waiting']
      await join(store, [...longGone, 'gone of late', 'silent'])
      await saveLeases(
        store,
        newLease('1', { holder: 'holder' }),
        newLease('2', { target: 'target' }),
        newLease('3', { blockedNode: 'blocked' }),
        newLease('4', { cooldownNode: 'cooling', waiters: ['waiting'] }),
      )
      await commit(store, async (change) => {
        for (const id of [...longGone, 'gone of late']) await change.bury(id)
      })
      const longAgo = longGone.map((id) => `'${id}'`).join()
      for (const [column, ids] of [
        ['gone_at_ms', longAgo],
        ['heartbeat_at_ms', "'silent'"],
        ['started_at_ms', "'silent'"],
      ] as const) {
        await world.execute(
          `update coordination_nodes set ${column} = ${column} - ${aDayMs} where namespace = '${world.namespace}' and id in (${ids})`,
        )
      }
      const { revision } = await metaOf(store)
      await store.prune({ eventsForMs: aDayMs, events: 100, goneNodesForMs: aDayMs / 2 })
      const { nodes, meta } = await store.snapshot()
      assert.deepEqual(idsOf(nodes), ['blocked', 'gone of late', 'holder', 'silent', 'target'])
      assert.equal(meta.revision, revision)
      assert.equal((await nodeOf(store, 'silent')).state, 'active')
      await commit(store, (change) => change.deleteLeases(['1', '2', '3']))
      await store.prune({ eventsForMs: aDayMs, events: 100, goneNodesForMs: aDayMs / 2 })
      assert.deepEqual(idsOf((await store.snapshot()).nodes), ['gone of late', 'silent'])
    },
    tables,
  ),
]

const aDayMs = 24 * 3_600_000

/** Events of two changes, numbered by their reasons. */
async function seedEvents(store: Store): Promise<void> {
  await commit(store, (change) =>
    change.record([
      { type: 'x', subject: 'l', reason: '1' },
      { type: 'y', subject: 'l', reason: '2' },
      { type: 'x', subject: 'm', reason: '3' },
    ]),
  )
  await commit(store, (change) =>
    change.record([
      { type: 'y', subject: 'm', reason: '4' },
      { type: 'x', subject: 'l', reason: '5' },
    ]),
  )
}

function reasonsOf(events: readonly EventRow[]): (string | null)[] {
  return events.map(({ reason }) => reason)
}

/** A node `a` that is a candidate for two workers, and leases that concern it in every possible way. */
async function seedViews(store: Store): Promise<void> {
  await join(store, ['a'], { workers: ['single', 'coordinated', 'not yet stored'] })
  await join(store, ['bystander', 'other', 'buried'])
  await commit(store, (change) =>
    change.saveWorkers([
      newWorker('single'),
      newWorker('coordinated', { kind: 'coordinated', slots: 2 }),
      newWorker('elsewhere', { kind: 'partitioned', slots: 8 }),
      newWorker('foreign', { kind: 'coordinated' }),
    ]),
  )
  await saveLeases(
    store,
    newLease('held', { holder: 'a', target: 'other', worker: 'elsewhere' }),
    newLease('target', { target: 'a', holder: 'unknown', worker: 'elsewhere' }),
    newLease('blocked', { blockedNode: 'a', holder: 'other' }),
    newLease('share', {
      worker: 'coordinated',
      slot: 0,
      holder: 'other',
      blockedNode: 'buried',
      target: 'other',
    }),
    newLease('own-share', { worker: 'coordinated', slot: 1, holder: 'a', target: 'a' }),
    newLease('foreign', { worker: 'foreign', holder: 'other', blockedNode: 'long gone' }),
    newLease('theirs', {
      worker: 'single',
      holder: 'other',
      target: 'other',
      waiters: ['a'],
      cooldownNode: 'a',
    }),
  )
  await commit(store, (change) => change.bury('buried'))
}

/**
 * Two leases of one worker whose tokens add up to a thousand at every instant. Their holder joins and is buried in
 * the same changes that name it and replace it.
 */
async function seedBalance(store: Store): Promise<void> {
  await join(store, ['a'], { workers: ['w'] })
  await moveBalance(store, 0)
}

async function moveBalance(store: Store, round: number): Promise<void> {
  await commit(store, async (change) => {
    const holder = `holder-${change.revision}`
    await change.addNode(newNode(holder), 1)
    await change.saveLeases([
      newLease('x', { worker: 'w', holder, blockedNode: holder, token: round, pending: true }),
    ])
    await change.saveWorkers([newWorker('w', { kind: 'coordinated', generation: round })])
    await change.saveLeases([newLease('y', { worker: 'w', holder, token: 1_000 - round, pending: true })])
    await change.bury(`holder-${change.revision - 1}`)
    await change.tell(new Set(['a']))
  })
}

function assertBalanced(
  leases: readonly { readonly key: string; readonly token: number }[],
  moved: number,
): void {
  const [x, y] = [...leases].sort((a, b) => compare(a.key, b.key))
  assert.deepEqual([leases.length, x?.token, y?.token], [2, moved, 1_000 - moved])
}

function timeless({ leases, workers, nowMs: _, ...view }: OwnView) {
  const byKey = <T extends { readonly key: string }>(rows: readonly T[]) =>
    [...rows].sort((a, b) => compare(a.key, b.key))
  return { ...view, leases: byKey(leases), workers: byKey(workers) }
}
