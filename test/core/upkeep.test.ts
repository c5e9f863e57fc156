/**
 * Tests what watchers do for all nodes, change by change: which they bury, which they pass over, and which watch next.
 */
import t from 'tap'
import { join } from '../../plugin/core/changes/membership.js'
import { attend, bury, buryEnded, nameWatchers } from '../../plugin/core/changes/upkeep.js'
import type { Beat, Change, LeaseRow, Store } from '../../plugin/core/store.js'
import {
  commit,
  join as joinRows,
  leaseOf,
  metaOf,
  newLease,
  newNode,
  nodeOf,
  saveLeases,
} from '../../plugin/testing/conformance/world.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'

const ttlMs = 15_000

/** Joins nodes by the rules of the engine. All are candidates for one coordinated worker. */
async function joinAll(store: Store, ids: readonly string[], more: { ttlMs?: number } = {}): Promise<void> {
  const declaration = {
    key: 'data',
    name: 'data',
    kind: 'coordinated',
    scope: 'global',
    cluster: null,
    partitions: null,
    handoverTimeoutMs: 30_000,
    schedule: null,
  } as const
  for (const id of ids) {
    const { workers: _, ...node } = newNode(id, { ttlMs, ...more })
    await commit(store, (change) => join(change, node, [declaration], undefined))
  }
}

const nowMs = 1_700_000_000_000

function opened({ clock = { nowMs } } = {}): Store {
  return new MemoryDatabase({ nowMs: () => clock.nowMs }).open({
    namespace: 'default',
    statementTimeoutMs: 30_000,
  })
}

/** Returns the result of one change, whether or not it has written anything. */
async function answerOf<T>(store: Store, work: (change: Change) => Promise<T>): Promise<T> {
  return (await store.change(undefined, work)).result
}

async function statesOf(store: Store): Promise<Record<string, string>> {
  return Object.fromEntries((await store.snapshot()).nodes.map(({ id, state }) => [id, state]))
}

async function edit(store: Store, key: string, patch: Partial<LeaseRow>): Promise<void> {
  await saveLeases(store, { ...newLease(key), ...(await leaseOf(store, key)), ...patch })
}

t.test('nobody is buried by a shorter ttl than the longest of those who live', async (t) => {
  const store = opened()
  await joinAll(store, ['watcher', 'silent'])
  const beats: Beat[] = [{ id: 'silent', beat: 0 }]
  await joinAll(store, ['patient'], { ttlMs: 60_000 })
  t.same(await answerOf(store, (change) => bury(change, beats, ttlMs, 'watcher')), [])
  t.equal((await nodeOf(store, 'silent')).state, 'active', 'it was watched for less than a minute')
  t.match(await answerOf(store, (change) => bury(change, beats, 60_000, 'watcher')), [{ id: 'silent' }])
  t.equal((await nodeOf(store, 'silent')).state, 'gone')
})

t.test('a heartbeat that came in the meantime saves its node from burial', async (t) => {
  const store = opened()
  await joinAll(store, ['watcher', 'slow'])
  await store.heartbeat('slow', 1)
  t.same(await answerOf(store, (change) => bury(change, [{ id: 'slow', beat: 0 }], ttlMs, 'watcher')), [])
  t.equal((await nodeOf(store, 'slow')).state, 'active')
})

t.test('a node of that id on another machine, or in another process, is left alone', async (t) => {
  const store = opened()
  const rows = {
    here: { machine: 'here', process: '7' },
    elsewhere: { machine: 'elsewhere', process: '7' },
    restarted: { machine: 'here', process: '8' },
    unknown: { machine: null, process: null },
  }
  for (const [id, as] of Object.entries(rows)) await joinRows(store, [id], as)
  const ended = Object.keys(rows).map((id) => ({ id, process: '7' }))
  const buried = await answerOf(store, (change) => buryEnded(change, ended, 'here', 'watcher'))
  t.same(
    buried?.map(({ id }) => id),
    ['here'],
  )
  t.same(await statesOf(store), {
    here: 'gone',
    elsewhere: 'active',
    restarted: 'active',
    unknown: 'active',
  })
})

t.test('a cool-down that an operator asked for stays when another node is passed over', async (t) => {
  const store = opened()
  await joinAll(store, ['a', 'b', 'c'])
  const asked = { cooldownNode: 'b', cooldownUntilMs: nowMs + 3_600_000 }
  await edit(store, 'data#0', asked)
  const target = (await leaseOf(store, 'data#0')).target ?? ''
  await attending(store, [{ key: 'data#0', target }])
  t.match(await leaseOf(store, 'data#0'), asked)
  t.equal(
    (await leaseOf(store, 'data#1')).cooldownNode,
    target,
    'the one passed over is noted at another share',
  )
})

t.test('a node that is the only candidate is not passed over', async (t) => {
  const store = opened()
  await joinAll(store, ['a'])
  const before = await leaseOf(store, 'data#0')
  t.equal(before.target, 'a')
  await attending(store, [{ key: 'data#0', target: 'a' }])
  t.same(await leaseOf(store, 'data#0'), before)
})

t.test('a free place among the watchers goes to whoever was heard of last', async (t) => {
  const clock = { nowMs: 1_000_000 }
  const store = opened({ clock })
  await joinAll(store, ['a', 'b', 'c', 'd', 'e'])
  t.same([...(await metaOf(store)).watchers].sort(), ['a', 'b'])
  for (const id of ['e', 'c']) {
    clock.nowMs += 1_000
    await store.heartbeat(id, 1)
  }
  const beats = ['a', 'b'].map((id) => ({ id, beat: 0 }))
  await answerOf(store, (change) => bury(change, beats, ttlMs, 'nobody'))
  t.same([...(await metaOf(store)).watchers], ['c', 'e'])
})

async function attending(store: Store, unclaimed: { key: string; target: string }[]): Promise<void> {
  const findings = {
    unclaimed: unclaimed.map((each) => ({ ...each, hindered: false })),
    overdue: [],
    abandoned: [],
  }
  await answerOf(store, (change) => attend(change, findings))
}

t.test('watchers are named where one on record is missing, and where none is on record', async (t) => {
  const store = opened()
  await joinAll(store, ['a', 'b', 'c'])
  for (const watchers of [['a', 'missing'], []]) {
    await commit(store, (change) => change.saveMeta({ watchers }))
    await commit(store, nameWatchers)
    t.equal((await metaOf(store)).watchers.length, 2)
  }
  const { committed } = await store.change(undefined, nameWatchers)
  t.notOk(committed, 'while all are there, nothing is written')
})

t.test('of all nodes that find no watchers, only the first reads the others', async (t) => {
  const store = opened()
  await joinAll(store, ['a', 'b', 'c'])
  await commit(store, (change) => change.saveMeta({ watchers: ['missing', 'and missing'] }))
  const readAll: string[] = []
  for (const node of ['b', 'c'])
    await store.change({ node, operation: 2 }, (change) => {
      const nodes = change.nodes.bind(change)
      change.nodes = () => {
        readAll.push(node)
        return nodes()
      }
      return nameWatchers(change)
    })
  t.strictSame(readAll, ['b'])
  t.match((await metaOf(store)).watchers, { length: 2, 0: 'b' })
})
