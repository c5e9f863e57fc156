/** Cases: rows come back as they were given, whatever they contain, and verbs touch only the rows that they name. */
import assert from 'node:assert/strict'
import { StoreError } from '../../core/errors.js'
import type { LeaseFilter, LeaseRow, LockedLease, WorkerRow } from '../../core/store.js'
import type { ConformanceCase } from './harness.js'
import {
  commit,
  contents,
  found,
  idsOf,
  join,
  keysOf,
  leaseOf,
  metaOf,
  names,
  newLease,
  newNode,
  newWorker,
  nodeOf,
  promise,
  rejectionOf,
  saveLeases,
} from './world.js'

export const rowCases: readonly ConformanceCase[] = [
  promise('a node comes back as it joined: active, with beat 0', async (world) => {
    const store = await world.open()
    await join(store, ['first'])
    const { nowMs: earliestMs } = await store.snapshot()
    const node = newNode('a', {
      name: 'worker-1',
      cluster: 'eu-1',
      workers: ['global/b', 'eu-1/a'],
      labels: { zone: 'x' },
      version: '1.2.3',
      machine: 'boot-1/pid:[4026531836]',
      process: '4711@99',
      ttlMs: 2 ** 31,
    })
    const revision = await commit(store, (change) => change.addNode(node, 4))
    const { nowMs: latestMs } = await store.snapshot()
    const row = await nodeOf(store, 'a')
    const { startedAtMs, heartbeatAtMs, newsRevision, ...rest } = row
    assert.deepEqual(rest, {
      ...node,
      state: 'active',
      operation: 4,
      beat: 0,
      goneAtMs: null,
      joinedRevision: revision,
      revision,
    })
    assert(earliestMs <= startedAtMs && startedAtMs <= latestMs)
    assert(startedAtMs <= heartbeatAtMs && heartbeatAtMs <= latestMs)
    assert(newsRevision <= revision)
    assert.equal((await nodeOf(store, 'first')).version, null)
  }),

  promise('an id joins once: another node of that id is refused', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    const before = await contents(store)
    assert((await rejectionOf(join(store, ['b', 'a'], { name: 'impostor' }))) instanceof StoreError)
    assert.deepEqual(await contents(store), before)
  }),

  promise('a node is altered in what is named, and nowhere else', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'], { workers: ['w'], labels: { some: 'label' } })
    await store.heartbeat('a', 6)
    const [a, b] = (await contents(store)).nodes
    assert(a && b)
    const first = await commit(store, (change) => change.updateNode('a', { state: 'draining' }))
    assert.deepEqual(await nodeOf(store, 'a'), { ...a, state: 'draining', revision: first })
    const second = await commit(store, (change) => change.updateNode('a', { workers: ['x', 'y'] }))
    const workers = ['x', 'y']
    assert.deepEqual(await nodeOf(store, 'a'), { ...a, state: 'draining', workers, revision: second })
    const third = await commit(store, (change) => change.updateNode('a', { state: 'active', workers: [] }))
    assert.deepEqual(await nodeOf(store, 'a'), { ...a, workers: [], revision: third })
    assert.deepEqual(await nodeOf(store, 'b'), b)
  }),

  promise('a node that is gone is altered no more, and stays as old as it was', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    await commit(store, (change) => change.bury('a'))
    const buried = await nodeOf(store, 'a')
    await commit(store, (change) => change.updateNode('a', { state: 'active', workers: ['w'] }))
    assert.deepEqual(await nodeOf(store, 'a'), buried)
  }),

  promise('a burial wins once, and only while the beat is the one it names', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b'])
    await store.heartbeat('a', 3)
    const bury = async (id: string, beat?: number) =>
      (await store.change(undefined, (change) => change.bury(id, beat))).result
    assert.equal(await bury('a', 2), false)
    assert.equal(await bury('a', 4), false)
    assert.equal(await bury('nobody', 0), false)
    assert.equal((await nodeOf(store, 'a')).state, 'active')
    const { nowMs } = await store.snapshot()
    assert.equal(await bury('a', 3), true)
    assert.equal(await bury('a', 3), false)
    assert.equal(await bury('a'), false)
    const { state, goneAtMs, beat } = await nodeOf(store, 'a')
    assert.deepEqual([state, beat], ['gone', 3])
    assert(goneAtMs !== null && nowMs <= goneAtMs)
    assert.equal(await bury('b'), true)
    assert.equal((await nodeOf(store, 'b')).state, 'gone')
  }),

  promise('a node is forgotten when it is gone, and no other is', async (world) => {
    const store = await world.open()
    await join(store, ['active', 'draining', 'gone', 'also gone'])
    await commit(store, async (change) => {
      await change.updateNode('draining', { state: 'draining' })
      for (const id of ['gone', 'also gone']) await change.bury(id)
    })
    await store.change(undefined, async (change) => {
      for (const id of ['active', 'draining', 'gone', 'nobody']) await change.forgetNode(id)
      assert.deepEqual(await change.nodesById(['gone']), [])
    })
    assert.deepEqual(idsOf((await store.snapshot()).nodes), ['active', 'also gone', 'draining'])
    assert.equal(await store.heartbeat('gone', 1), undefined)
  }),

  promise('the nodes that are not gone come oldest first', async (world) => {
    const store = await world.open()
    await join(store, ['m', 'c'])
    await join(store, ['z', 'b', 'k'])
    await join(store, ['a'])
    await commit(store, async (change) => {
      await change.updateNode('z', { state: 'draining' })
      await change.bury('k')
    })
    const { result } = await store.change(undefined, (change) => change.nodes())
    assert.deepEqual(
      result.map(({ id }) => id),
      ['c', 'm', 'b', 'z', 'a'],
    )
    const { nodes } = await store.snapshot()
    assert.deepEqual(
      nodes.map(({ joinedRevision }) => joinedRevision),
      [1, 1, 2, 2, 2, 3],
    )
  }),

  promise('nodes are found by their ids, gone ones too, each once', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b', 'c'])
    await commit(store, (change) => change.bury('b'))
    const b = await nodeOf(store, 'b')
    await store.change(undefined, async (change) => {
      assert.deepEqual(idsOf(await change.nodesById(['b', 'nobody', 'a', 'a'])), ['a', 'b'])
      assert.deepEqual(await change.nodesById(['b']), [b])
      assert.deepEqual(await change.nodesById([]), [])
    })
  }),

  promise('workers come back as they were saved, and are replaced as a whole', async (world) => {
    const store = await world.open()
    const plain = newWorker('global/plain')
    const full = newWorker('eu-1/full', {
      name: 'full',
      kind: 'coordinated',
      scope: 'cluster',
      cluster: 'eu-1',
      generation: 2 ** 40,
      slots: 2 ** 31 - 1,
      paused: true,
      handoverTimeoutMs: 2 ** 33,
      schedule: '{"cron":"0 3 * * *"}',
    })
    const bare = { ...newWorker('eu-1/full'), kind: 'partitioned' } as const
    for (const second of [full, bare, full]) {
      const revision = await commit(store, (change) => change.saveWorkers([plain, second]))
      const expected = [
        { ...second, revision },
        { ...plain, revision },
      ]
      assert.deepEqual((await contents(store)).workers, expected)
      await store.change(undefined, async (change) => {
        const rows = await change.workers([plain.key, second.key, 'unknown', plain.key])
        assert.deepEqual(sorted(rows), expected)
        assert.deepEqual(await change.workers([]), [])
      })
    }
  }),

  promise('leases come back as they were saved, with every column empty or filled', async (world) => {
    const store = await world.open()
    const full = newLease('l', {
      worker: 'global/consumer',
      slot: 12,
      generation: 2 ** 35,
      target: 'a',
      targetAtMs: 1_700_000_000_001,
      holder: 'b',
      token: 1_700_000_000_002,
      attempt: 2 ** 34,
      identity: 'the server',
      acquiredAtMs: 1_700_000_000_003,
      blockedNode: 'c',
      blockedToken: 1_700_000_000_004,
      cooldownNode: 'd',
      cooldownUntilMs: 1_700_000_000_005,
      firedAtMs: 1_700_000_000_006,
      waiters: ['z', 'a', 'm'],
      pending: true,
    })
    for (const lease of [newLease('l'), full, newLease('l'), { ...full, waiters: [], token: 0 }]) {
      const revision = await saveLeases(store, lease)
      assert.deepEqual(await leaseOf(store, 'l'), { ...lease, revision })
      await store.change(undefined, async (change) => {
        assert.deepEqual(await change.leases({ keys: ['l'] }), [{ ...lease, revision, fenced: false }])
      })
    }
  }),

  promise('a lease can be saved as it was read in a change', async (world) => {
    const store = await world.open()
    await saveLeases(store, newLease('l', { token: 4 }))
    const revision = await commit(store, async (change) => {
      const [lease] = await change.leases({ keys: ['l'] })
      const altered: LockedLease = { ...found(lease), holder: 'a' }
      await change.saveLeases([altered])
    })
    assert.deepEqual(await leaseOf(store, 'l'), newLease('l', { token: 4, holder: 'a', revision }))
  }),

  promise('numbers beyond 2^31 and up to 2^53 - 1 come back exact', async (world) => {
    const store = await world.open()
    await join(store, ['a'])
    for (const number of [2, 2 ** 31 - 1, 2 ** 31, 2 ** 32 + 1, 2 ** 52 + 1, Number.MAX_SAFE_INTEGER]) {
      const numbers = {
        token: number,
        generation: number,
        targetAtMs: number,
        attempt: number,
        acquiredAtMs: number,
        blockedToken: number,
        cooldownUntilMs: number,
        firedAtMs: number,
      }
      const event = { type: 'thing.happened', subject: 'l', token: number, detail: { number } }
      const { committed } = await store.change({ node: 'a', operation: number }, async (change) => {
        await change.saveLeases([newLease('l', numbers)])
        await change.saveWorkers([newWorker('w', { generation: number, handoverTimeoutMs: number })])
        await change.saveMeta({ tokenFloor: number })
        await change.record([event])
        assert.equal(await change.highestToken(), number)
      })
      assert.equal(committed, true)
      const { leases, workers, meta, nodes } = await store.snapshot()
      const revision = meta.revision
      assert.deepEqual(leases, [newLease('l', { ...numbers, revision })])
      assert.deepEqual(
        workers.map(({ generation, handoverTimeoutMs }) => [generation, handoverTimeoutMs]),
        [[number, number]],
      )
      assert.deepEqual([meta.tokenFloor, nodes[0]?.operation], [number, number])
      const [latest] = await store.events({ limit: 1 })
      assert.deepEqual([latest?.token, latest?.detail], [number, { number }])
      found(await store.heartbeat('a', number))
      assert.equal((await nodeOf(store, 'a')).beat, number)
    }
  }),

  promise('texts of every kind are distinct keys, come back exact and alter no statement', async (world) => {
    const store = await world.open()
    await commit(store, async (change) => {
      for (const name of names) {
        await change.addNode(newNode(name, { name, cluster: name, version: name, workers: [name] }), 1)
      }
      await change.saveWorkers(names.map((name) => newWorker(name, { name, cluster: name })))
      await change.saveLeases(
        names.map((name, index) =>
          newLease(name, { holder: name, worker: name, identity: name, waiters: [name], token: index + 1 }),
        ),
      )
      await change.record(names.map((name) => ({ type: name, subject: name, actor: name, reason: name })))
      await change.saveMeta({ watchers: names, serverIdentity: names.join() })
    })
    const { nodes, workers, leases, meta } = await store.snapshot()
    assert.deepEqual(new Set(idsOf(nodes)), new Set(names))
    assert.deepEqual(new Set(keysOf(workers)), new Set(names))
    assert.deepEqual(new Set(keysOf(leases)), new Set(names))
    assert.deepEqual([meta.watchers, meta.serverIdentity], [names, names.join()])
    assert.deepEqual(
      new Set((await store.events({ limit: 1_000 })).map(({ type, reason }) => `${type} ${reason}`)),
      new Set(names.map((name) => `${name} ${name}`)),
    )
    await store.change(undefined, async (change) => {
      for (const [index, name] of names.entries()) {
        const filters: LeaseFilter[] = [{ keys: [name] }, { workers: [name] }, { nodes: [name] }]
        for (const filter of filters) {
          const [lease, ...others] = await change.leases(filter)
          assert.deepEqual([lease?.key, lease?.token, others.length], [name, index + 1, 0])
        }
        assert.deepEqual(idsOf(await change.nodesById([name])), [name])
        assert.deepEqual(keysOf(await change.workers([name])), [name])
      }
    })
  }),

  promise('each verb finds a node of any name, and no other', async (world) => {
    const store = await world.open()
    await join(store, names)
    for (const [index, name] of names.entries()) {
      found(await store.heartbeat(name, index + 1))
      const revision = await commit(store, (change) => change.tell(new Set([name])))
      assert.equal(await store.news(name), revision)
      assert.equal(found(await store.view(name)).newsRevision, revision)
    }
    const { nodes } = await store.snapshot()
    for (const { id, beat } of nodes) assert.equal(beat, names.indexOf(id) + 1)
  }),

  promise('lists and objects come back as they were given', async (world) => {
    const store = await world.open()
    const labels = Object.fromEntries([
      ...names.map((name) => [name, name]),
      ['empty', ''],
      ['10', 'ten'],
      ['9', ''],
    ])
    const details = [
      {},
      { nested: { list: [1, -2.5, 'x', true, false, null, [], {}] } },
      {
        number: Number.MAX_SAFE_INTEGER,
        small: 1e-7,
        text: 'a\nb\t"c" \\ \u0001 \u2028 \ue101\ue122\ue15c 😀',
        none: null,
      },
      null,
    ]
    await commit(store, async (change) => {
      await change.addNode(newNode('a', { labels, workers: names }), 1)
      await change.addNode(newNode('b', { labels: {}, workers: [] }), 1)
      await change.record(details.map((detail) => ({ type: 'thing.happened', subject: 'a', detail })))
    })
    const [a, b] = (await contents(store)).nodes
    assert.deepEqual([a?.labels, a?.workers], [labels, names])
    assert.deepEqual([b?.labels, b?.workers], [{}, []])
    const events = await store.events({ limit: 10 })
    assert.deepEqual(events.map(({ detail }) => detail).reverse(), details)
  }),

  promise(
    'leases are found by key, by worker and by node, each once and in the order of their keys',
    async (world) => {
      const store = await world.open()
      const by: [string, Partial<LeaseRow>][] = [
        ['b', { worker: 'w' }],
        ['a', { worker: 'w', holder: 'n' }],
        ['d', { target: 'n' }],
        ['c', { blockedNode: 'n' }],
        ['e', { holder: 'other', target: 'other', blockedNode: 'other', worker: 'other' }],
        ['f', { cooldownNode: 'n', waiters: ['n'] }],
        ['g', { holder: 'n', target: 'n', blockedNode: 'n', worker: 'w' }],
      ]
      await saveLeases(store, ...by.map(([key, as]) => newLease(key, as)))
      const expected: [LeaseFilter, string][] = [
        [{}, ''],
        [{ keys: [], workers: [], nodes: [] }, ''],
        [{ keys: ['e', 'b', 'unknown', 'e'] }, 'be'],
        [{ workers: ['w'] }, 'abg'],
        [{ nodes: ['n'] }, 'acdg'],
        [{ keys: ['e'], workers: ['w'] }, 'abeg'],
        [{ keys: ['a', 'f'], workers: ['w', 'unknown'], nodes: ['n', 'nobody'] }, 'abcdfg'],
        [{ keys: ['a'], workers: [], nodes: [] }, 'a'],
      ]
      await store.change(undefined, async (change) => {
        for (const [filter, keys] of expected) {
          const rows = await change.leases(filter)
          assert.equal(rows.map(({ key }) => key).join(''), keys, JSON.stringify(filter))
          assert(rows.every(({ fenced }) => fenced === false))
        }
      })
    },
  ),

  promise(
    'leases, nodes and workers come in the order of their code points, whatever language the database speaks',
    async (world) => {
      const store = await world.open()
      const keys = [
        'A',
        'B',
        'Z',
        '_',
        'a',
        'a b',
        'a#1',
        'a#10',
        'a#2',
        'a-1',
        'a/1',
        'aa',
        'b',
        'z',
        '\u00e9',
        '\u00f6',
        '\uff5e',
        '😀',
      ]
      const shuffled = keys.map((_, index) => found(keys[(index * 7) % keys.length]))
      await join(store, shuffled)
      await commit(store, (change) => change.saveWorkers(shuffled.map((key) => newWorker(key))))
      await saveLeases(store, ...shuffled.map((key) => newLease(key, { worker: key, holder: key })))
      await store.change(undefined, async (change) => {
        const ids = (await change.nodes()).map(({ id }) => id)
        const leases = (await change.leases({ keys })).map(({ key }) => key)
        const workers = (await change.workers(shuffled)).map(({ key }) => key)
        const byId = (await change.nodesById(shuffled)).map(({ id }) => id)
        assert.deepEqual([ids, leases, workers, byId], [keys, keys, keys, keys])
      })
    },
  ),

  promise('the load of a node is what it is meant to hold, or holds with nobody meant to', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b', 'idle', 'buried'])
    await commit(store, (change) => change.updateNode('b', { state: 'draining' }))
    await saveLeases(
      store,
      newLease('1', { target: 'a' }),
      newLease('2', { target: 'a', holder: 'a' }),
      newLease('3', { target: 'a', holder: 'b' }),
      newLease('4', { holder: 'b' }),
      newLease('5', { target: 'buried', holder: 'a' }),
      newLease('6', { blockedNode: 'idle', cooldownNode: 'idle', waiters: ['idle'] }),
      newLease('7', { target: 'nobody' }),
    )
    await commit(store, (change) => change.bury('buried'))
    const { result } = await store.change(undefined, (change) => change.loads())
    const loads = Object.fromEntries(result.map(({ node, leases }) => [node, leases]))
    assert.deepEqual(loads, { a: 3, b: 1, idle: 0 })
  }),

  promise('the highest token is that of any lease, held or free', async (world) => {
    const store = await world.open()
    const highest = async () => (await store.change(undefined, (change) => change.highestToken())).result
    assert.equal(await highest(), 0)
    await saveLeases(store, newLease('free', { token: 2 ** 33 }), newLease('held', { holder: 'a', token: 5 }))
    assert.equal(await highest(), 2 ** 33)
    await commit(store, (change) => change.deleteLeases(['free']))
    assert.equal(await highest(), 5)
  }),

  promise('leases that are deleted are gone, and no others', async (world) => {
    const store = await world.open()
    await saveLeases(store, newLease('a'), newLease('b'), newLease('c'))
    await commit(store, (change) => change.deleteLeases(['c', 'unknown', 'a']))
    assert.deepEqual(keysOf((await store.snapshot()).leases), ['b'])
    const revision = await saveLeases(store, newLease('a', { token: 1 }))
    assert.deepEqual(await leaseOf(store, 'a'), newLease('a', { token: 1, revision }))
  }),

  promise('a worker that is forgotten is gone, and no other', async (world) => {
    const store = await world.open()
    const other = await world.open({ namespace: 'other' })
    await commit(other, (change) => change.saveWorkers([newWorker('b')]))
    await commit(store, (change) => change.saveWorkers([newWorker('a'), newWorker('b'), newWorker('B')]))
    await commit(store, (change) => change.forgetWorker('b'))
    assert.deepEqual(keysOf((await store.snapshot()).workers), ['B', 'a'])
    assert.deepEqual(keysOf((await other.snapshot()).workers), ['b'])
    await commit(store, async (change) => {
      await change.saveWorkers([newWorker('c')])
      await change.forgetWorker('c')
      assert.deepEqual(await change.workers(['c']), [])
      await change.forgetWorker('unknown')
    })
    assert.deepEqual(keysOf((await store.snapshot()).workers), ['B', 'a'])
  }),

  promise('of the revision row only what is named is altered', async (world) => {
    const store = await world.open()
    const full = {
      watchers: ['a', 'b'],
      longestTtlMs: 15_000,
      tokenFloor: 2 ** 41,
      serverIdentity: 'x',
      identitySettled: true,
    }
    const patches: Partial<typeof full>[] = [
      full,
      { watchers: [] },
      { tokenFloor: 3 },
      { longestTtlMs: 60_000 },
      { serverIdentity: 'y' },
      { identitySettled: false },
    ]
    let expected = full
    for (const patch of patches) {
      expected = { ...expected, ...patch }
      const revision = await commit(store, (change) => change.saveMeta(patch))
      assert.deepEqual(await metaOf(store), { ...expected, revision })
    }
    const revision = await commit(store, async (change) => {
      await change.saveMeta({ watchers: ['c'] })
      await change.saveMeta({ tokenFloor: 9 })
    })
    assert.deepEqual(await metaOf(store), { ...expected, watchers: ['c'], tokenFloor: 9, revision })
  }),

  promise('events come newest first, as many as are asked for', async (world) => {
    const store = await world.open()
    const full = {
      type: 'lease.acquired',
      subject: 'l',
      node: 'a',
      token: 7,
      actor: 'someone',
      reason: 'some reason',
      detail: { more: 1 },
    }
    const { nowMs: earliestMs } = await store.snapshot()
    const first = await commit(store, async (change) => {
      await change.record([{ type: 'one', subject: '1' }, full])
      await change.record([{ type: 'three', subject: '3' }])
    })
    const second = await commit(store, (change) => change.record([{ type: 'four', subject: '4' }]))
    const { nowMs: latestMs } = await store.snapshot()
    const events = await store.events({ limit: 10 })
    assert.deepEqual(
      events.map(({ revision, type }) => [revision, type]),
      [
        [second, 'four'],
        [first, 'three'],
        [first, 'lease.acquired'],
        [first, 'one'],
      ],
    )
    assert.equal(new Set(events.map(({ revision, position }) => `${revision}.${position}`)).size, 4)
    assert(events.every(({ atMs }) => earliestMs <= atMs && atMs <= latestMs))
    const [, , recorded, sparse] = events
    assert.deepEqual({ ...recorded, ...full }, recorded)
    const { node, token, actor, reason, detail } = found(sparse)
    assert.deepEqual([node, token, actor, reason, detail], [null, null, null, null, null])
    assert.deepEqual(await store.events({ limit: 2 }), events.slice(0, 2))
  }),

  promise('five thousand leases are saved, found, counted and deleted in one change', async (world) => {
    const store = await world.open()
    const rows = Array.from({ length: 5_000 }, (_, index) =>
      newLease(`lease-${String(index).padStart(4, '0')}`, {
        worker: 'w',
        slot: index,
        holder: 'a',
        token: index,
      }),
    )
    const keys = rows.map(({ key }) => key)
    await join(store, ['a'])
    const revision = await commit(store, async (change) => {
      await change.saveLeases(rows)
      for (const filter of [{ keys }, { workers: ['w'] }, { nodes: ['a'] }, { keys, workers: ['w'] }]) {
        assert.deepEqual(
          (await change.leases(filter)).map(({ key }) => key),
          keys,
        )
      }
      assert.deepEqual(await change.loads(), [{ node: 'a', leases: 5_000 }])
      await change.record(rows.map(({ key }) => ({ type: 'lease.acquired', subject: key })))
    })
    assert.equal(found(await store.view('a')).leases.length, 5_000)
    const { leases } = await store.snapshot()
    assert.deepEqual(
      sorted(leases),
      rows.map((row) => ({ ...row, revision })),
    )
    assert.equal((await store.events({ limit: 10_000 })).length, 5_000)
    await commit(store, (change) => change.saveLeases(rows.map((row) => ({ ...row, token: row.token + 1 }))))
    assert((await store.snapshot()).leases.every(({ token, slot }) => token === slot + 1))
    await commit(store, (change) => change.deleteLeases(keys))
    assert.deepEqual((await store.snapshot()).leases, [])
  }),

  promise('a thousand nodes and workers are read, told and looked at in one go', async (world) => {
    const store = await world.open()
    const ids = Array.from({ length: 1_000 }, (_, index) => `node-${index}`)
    await join(store, ids)
    const revision = await commit(store, async (change) => {
      await change.saveWorkers(ids.map((id) => newWorker(id)))
      await change.tell(new Set(ids))
      assert.equal((await change.nodesById(ids)).length, 1_000)
      assert.equal((await change.workers(ids)).length, 1_000)
      await change.updateNode('node-7', { workers: ids })
    })
    const { nodes } = await store.snapshot()
    assert(nodes.every(({ newsRevision }) => newsRevision === revision))
    assert.equal((await store.look()).nodes.length, 1_000)
    assert.equal(found(await store.view('node-7')).workers.length, 1_000)
  }),

  promise('only the nodes that are told have news', async (world) => {
    const store = await world.open()
    await join(store, ['a', 'b', 'c', 'buried'])
    await commit(store, (change) => change.bury('buried'))
    const before = await contents(store)
    const revision = await commit(store, (change) => change.tell(new Set(['a', 'c', 'nobody', 'buried'])))
    const { nodes } = await contents(store)
    assert.deepEqual(
      nodes.map(({ id, newsRevision }) => [id, newsRevision]),
      before.nodes.map(({ id, newsRevision }) => [id, 'ac'.includes(id) ? revision : newsRevision]),
    )
    assert.deepEqual(
      [await store.news('a'), await store.news('b')],
      [revision, before.nodes[1]?.newsRevision],
    )
  }),
]

function sorted<T extends LeaseRow | WorkerRow>(rows: readonly T[]): T[] {
  return [...rows].sort((a, b) => (a.key < b.key ? -1 : 1))
}
