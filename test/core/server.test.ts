/** Tests what a node does when its database has become another server. */
import t from 'tap'
import { freshLease } from '../../plugin/core/changes/rows.js'
import { runChange } from '../../plugin/core/changes/run-change.js'
import { doubtServer, isRecordOf, settleServer } from '../../plugin/core/changes/server-record.js'
import { settle, type Wishes } from '../../plugin/core/changes/wishes.js'
import { Agendas } from '../../plugin/core/session/agenda.js'
import { type Circumstances, Holdings, isRecognised } from '../../plugin/core/session/holdings.js'
import { KnownServer } from '../../plugin/core/session/server.js'
import type { LeaseRow, OwnView, ServerFacts, Store } from '../../plugin/core/store.js'
import type { Reading } from '../../plugin/core/time/clock.js'
import { blockWaitMs, resolveTiming } from '../../plugin/core/time/timing.js'
import { Requests } from '../../plugin/core/work/acquire.js'
import type { Runner } from '../../plugin/core/work/worker.js'
import {
  commit,
  join,
  leaseOf,
  metaOf,
  newLease,
  newWorker,
  saveLeases,
} from '../../plugin/testing/conformance/world.js'
import { Link } from '../../plugin/testing/link.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'
import { untilAborted } from '../support/workers.js'
import { holders, World } from '../support/world.js'
import { around, failing } from '../support/wrapped-store.js'

const timing = resolveTiming({ ttlMs: 15_000 })

function facts(more: Partial<ServerFacts>): ServerFacts {
  return {
    nowMs: 0,
    serverIdentity: 'one',
    recordedIdentity: 'one',
    identitySettled: true,
    longestTtlMs: 15_000,
    ...more,
  }
}

const other = { serverIdentity: 'two', recordedIdentity: 'two', identitySettled: false }

function at(ms: number): Reading {
  return { monoMs: ms, bootMs: ms }
}

t.test(
  'the grace period goes by the longest ttl ever heard of, though the new server has lost it',
  async (t) => {
    const server = new KnownServer(timing)
    server.learn(facts({ longestTtlMs: 60_000 }), at(0))
    server.learn(facts({ ...other, longestTtlMs: 15_000 }), at(1_000))
    const graceMs = blockWaitMs({ ...timing, ttlMs: 60_000 })
    t.equal(server.graceLeftMs(at(1_000)), graceMs)
    t.equal(server.graceLeftMs(at(1_000 + graceMs)), 0)
    t.notOk(server.mayClaim)
    server.learn(facts({ ...other, identitySettled: true }), at(2_000))
    t.ok(server.mayClaim)
  },
)

t.test(
  'who knew a server before says under the next one what it has seen, and who did not need not',
  async (t) => {
    const server = new KnownServer(timing)
    server.learn(facts({}), at(0))
    t.notOk(server.mustSayTokens)
    server.learn(facts({ serverIdentity: 'two' }), at(1))
    t.notOk(server.mustSayTokens, 'the server is recorded first')
    server.learn(facts(other), at(2))
    t.ok(server.mustSayTokens)
    server.saidTokens('one')
    t.ok(server.mustSayTokens, 'what was said under the one before does not count')
    server.saidTokens('two')
    t.notOk(server.mustSayTokens)
  },
)

t.test('the first change under another server records it, and does nothing else', async (t) => {
  const world = new World(t)
  const { store } = await world.node('a')
  const kinds: string[] = []
  let done = 0
  for (const identity of ['server-1', 'server-2', 'server-2']) {
    world.identity = identity
    const { kind } = await runChange(store, undefined, 0, async () => void done++)
    kinds.push(kind)
  }
  t.same(kinds, ['done', 'new-server', 'done'])
  t.equal(done, 2)
})

t.test('a start gives up where each try to join reaches another server', async (t) => {
  const world = new World(t)
  let servers = 0
  class Switching extends Link {
    override change: Link['change'] = (...order) => {
      world.identity = `server-${++servers}`
      return super.change(...order)
    }
  }
  const a = await world.node('a', { wrap: (store) => new Switching(store) })
  await runChange(a.store, undefined, 0, async () => undefined)
  const started = a.coordinator.start().then(
    () => undefined,
    (error: unknown) => error,
  )
  await world.advance(3 * world.timing.ttlMs)
  t.equal(a.coordinator.state, 'idle')
  t.match(await started, { code: 'WCO_STORE', message: /reached a different database server/ })
})

t.test('a claim counts under the server it was made under, and under no other', async (t) => {
  const claimed = { ...freshLease('w', 'w', 0), holder: 'n', attempt: 3, identity: 'one' }
  const under = (serverIdentity: string): boolean =>
    isRecognised(claimed, {
      view: facts({ serverIdentity }),
      attempts: new Map([[3, 'one']]),
    })
  t.ok(under('one'))
  t.notOk(under('two'), 'it may long have been used and given back, which the failover has lost')
})

/** Returns a store with a lease whose revoked holder may still be at work. Its target is the candidate `next`. */
async function blocked() {
  const server = { identity: 'one' }
  const store = new MemoryDatabase({ identity: () => server.identity }).open({
    namespace: 'default',
    statementTimeoutMs: 30_000,
  })
  await join(store, ['old', 'next'], { workers: ['w'] })
  await commit(store, async (change) => {
    await change.saveMeta({ longestTtlMs: timing.ttlMs, serverIdentity: 'one' })
    await change.saveWorkers([newWorker('w')])
  })
  await saveLeases(store, blockedLease)
  return { store, server }
}

const blockedLease = newLease('w', {
  worker: 'w',
  target: 'next',
  token: 7,
  blockedNode: 'old',
  blockedToken: 7,
})

/** Claims the lease for `next`, which has waited for the block to pass, and returns the holder. */
async function claimOver(store: Store, operation: number, waited: Partial<Wishes>): Promise<string | null> {
  const wishes: Wishes = {
    release: [],
    revoke: [],
    acknowledge: [],
    claim: ['w'],
    acquire: [],
    withdraw: [],
    replan: [],
    waived: [{ key: 'w', token: 7 }],
    longestTtlMs: timing.ttlMs,
    identity: 'one',
    ...waited,
  }
  await store.change({ node: 'next', operation }, (change) => settle(change, 'next', wishes))
  return (await leaseOf(store, 'w')).holder
}

t.test('a block waited for by a shorter ttl than the longest is not passed', async (t) => {
  const { store } = await blocked()
  t.equal(await claimOver(store, 2, { longestTtlMs: timing.ttlMs - 1 }), null)
  t.equal(await claimOver(store, 3, {}), 'next')
})

t.test('a block waited for under another server is not passed', async (t) => {
  const { store, server } = await blocked()
  server.identity = 'two'
  t.equal(await claimOver(store, 2, { identity: 'one' }), null)
  t.equal(await claimOver(store, 3, { identity: 'two' }), 'next')
})

t.test('a block that was seen under one server must be seen as long under the next', async (t) => {
  const holdings = holdingNothing()
  const agendas = new Agendas(holdings, timing)
  const waived = (identity: string, ms: number): number =>
    agendas.draw(circumstances({ identity, ms, leases: [blockedLease] })).wishes.waived.length
  const waitMs = 1.05 * blockWaitMs(timing)
  t.equal(waived('one', 0), 0)
  t.equal(waived('two', waitMs), 0, 'the second server is seen for the first time')
  t.equal(waived('two', 2 * waitMs), 1)
})

t.test('a grace period that was waited out for one server settles no other', async (t) => {
  const { store } = await blocked()
  await commit(store, (change) => change.saveMeta({ identitySettled: false }))
  await store.change(undefined, (change) => settleServer(change, 'an earlier one'))
  t.notOk((await metaOf(store)).identitySettled)
  await store.change(undefined, (change) => settleServer(change, 'one'))
  t.ok((await metaOf(store)).identitySettled)
})

t.test('a grace period that was waited out for a server settles no later doubt about it', async (t) => {
  const { store } = await blocked()
  const doubt = async (): Promise<string> => {
    await store.change(undefined, doubtServer)
    return (await metaOf(store)).serverIdentity
  }
  const settle = async (waitedFor: string): Promise<boolean> => {
    await store.change(undefined, (change) => settleServer(change, waitedFor))
    return (await metaOf(store)).identitySettled
  }
  const [first, second] = [await doubt(), await doubt()]
  t.ok(isRecordOf(first, 'one') && isRecordOf(second, 'one'))
  t.notOk(isRecordOf(first, 'on') || isRecordOf('one', 'one#'), 'an identity is compared as a whole')
  t.notOk(await settle('one'))
  t.notOk(await settle(first))
  t.ok(await settle(second))
})

t.test('a node remembers the greatest token of any lease it has read', async (t) => {
  const holdings = holdingNothing()
  holdings.follow(circumstances({ leases: [newLease('x', { holder: 'old', token: 9 }), blockedLease] }))
  holdings.follow(circumstances({ leases: [] }))
  t.equal(holdings.highestToken, 9)
})

function holdingNothing(): Holdings {
  const ignore = () => undefined
  return new Holdings({
    acquired: ignore,
    assigned: ignore,
    released: ignore,
    ended: ignore,
    changed: ignore,
    fence: ignore,
    trusted: () => true,
  })
}

/** Returns what the node `next` is told. It is a candidate for the worker and may claim. */
function circumstances(told: { identity?: string; ms?: number; leases: readonly LeaseRow[] }): Circumstances {
  const view = {
    ...facts({ serverIdentity: told.identity ?? 'one' }),
    state: 'active',
    newsRevision: 1,
    watchers: [],
    leases: told.leases,
    workers: [newWorker('w')],
    gone: new Set<string>(),
  } as const
  return {
    node: 'next',
    view,
    now: at(told.ms ?? 0),
    longestTtlMs: timing.ttlMs,
    blockWaitMs: blockWaitMs(timing),
    mayClaim: true,
    closing: false,
    runners: new Map([['w', {} as Runner]]),
    requests: new Requests(),
    attempts: new Map(),
    renounced: new Set(),
  }
}

t.test('the time by the database, counted on, has no fraction of a millisecond', async (t) => {
  const server = new KnownServer(timing)
  server.learn(facts({ nowMs: 5_000 }), { monoMs: 10.25, bootMs: 10 })
  t.equal(server.nowMs({ monoMs: 12.5, bootMs: 10 }), 5_002)
})

t.test('where reads and changes reach different servers, turns make pauses', async (t) => {
  const world = new World(t)
  const split = { on: false, views: 0 }
  const a = await world.node('a', {
    wrap: around(async (run) => {
      const view = await run()
      split.views += split.on ? 1 : 0
      // Without this, a turn that never pauses would stop the test as well.
      if (split.views > 1_000) split.on = false
      return split.on ? { ...(view as OwnView), serverIdentity: 'replica' } : view
    }, 'view'),
  })
  const failures: unknown[] = []
  a.coordinator.on('store.failed', ({ error }) => failures.push(error))
  await world.start(a)
  split.on = true
  await world.start(await world.node('b'))
  const lease = a.coordinator.acquire('x')
  await world.advance(20_000)
  t.ok(split.views > 6, 'it goes on trying')
  t.ok(split.views < 200, `${split.views} views in 20 s`)
  t.match(failures[0], { outcome: 'none', message: /a different database server/ })
  split.on = false
  await world.advance(30_000)
  t.ok((await lease).held)
})

t.test('a close whose changes reach another server each time ends all the same', async (t) => {
  const world = new World(t)
  let [closing, servers] = [false, 0]
  const a = await world.node('a', {
    wrap: around((run) => {
      // Without this, a close that never gives up would stop the test as well.
      if (closing && servers < 1_000) world.identity = `other-${++servers}`
      return run()
    }, 'change'),
  })
  await world.start(a)
  await world.advance(1_000)
  closing = true
  void a.coordinator.close()
  await world.advance(60_000)
  t.equal(a.coordinator.state, 'closed')
  t.ok(servers < 100, `${servers} changes`)
})

t.test('a new server identity: nobody claims until the old trust has surely ended', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const node of [a, b]) node.coordinator.worker(untilAborted('month-close'))
  await world.start(a, b)
  const before = (await a.coordinator.status()).leases[0]?.token ?? 0
  world.identity = 'server-2'
  await world.advance(world.timing.heartbeatMs * 1.5)
  t.same(holders(world.nodes, 'month-close'), ['a'], 'who held goes on holding')
  const closed = a.coordinator.close()
  await world.advance(1_000)
  await closed
  t.same(holders([b], 'month-close'), [])
  await world.advance(
    world.timing.ttlMs * 1.01 + 1.5 * world.timing.statementTimeoutMs + world.timing.heartbeatMs,
  )
  t.same(holders([b], 'month-close'), ['b'])
  const after = (await b.coordinator.status()).leases[0]?.token ?? 0
  t.ok(after > before + 1e9, 'tokens leap ahead of everything the old server may have given')
})

t.test('what a watcher saw under one server buries nobody under the next', async (t) => {
  const world = new World(t)
  const nodes = [await world.node('a'), await world.node('b'), await world.node('c')] as const
  await world.start(...nodes)
  const { ttlMs, heartbeatMs } = world.timing
  const buried = (): boolean => nodes.some(({ history }) => history.includes('node.gone'))
  await world.advance(ttlMs)
  world.freeze(nodes[2])
  await world.advance(ttlMs * 0.7)
  world.identity = 'server-2'
  await world.advance(ttlMs)
  t.notOk(buried(), 'it has stood still for 1.7 ttl, but not yet for one under this server')
  await world.advance(heartbeatMs * 1.1 + ttlMs * 0.2)
  t.ok(buried())
})

t.test('nobody is passed over while a new server is waited out', async (t) => {
  const world = new World(t)
  const nodes = [await world.node('a'), await world.node('b'), await world.node('c')] as const
  for (const node of nodes) node.coordinator.worker(untilAborted('month-close'))
  await world.start(...nodes)
  await world.advance(1_000)
  const holder = nodes.find((node) => node.coordinator.isHeld('month-close')) ?? nodes[0]
  const others = nodes.filter((node) => node !== holder)
  world.identity = 'server-2'
  await world.advance(world.timing.heartbeatMs * 1.5)
  const closed = holder.coordinator.close()
  await world.advance(world.timing.ttlMs)
  await closed
  t.same(holders(others, 'month-close'), [], 'the grace period goes on')
  const passedOver = async () => {
    const events = (await others[0]?.coordinator.operator.events({ limit: 100 })) ?? []
    return events.filter(({ type }) => type === 'target.passed-over')
  }
  t.same(await passedOver(), [], 'who is named cannot claim yet')
  await world.advance(world.timing.ttlMs * 0.5 + 1.5 * world.timing.statementTimeoutMs)
  t.equal(holders(others, 'month-close').length, 1)
  t.same(await passedOver(), [])
})

t.test('heartbeats to another server do not count before rows have been read from it', async (t) => {
  const world = new World(t)
  const blind = { on: false }
  const a = await world.node('a', { wrap: failing(blind, 'view', 'change') })
  await world.start(a)
  await world.advance(5_000)
  t.ok(a.coordinator.health().trusted)
  blind.on = true
  world.identity = 'server-2'
  await world.advance(world.timing.ttlMs)
  t.notOk(a.coordinator.health().trusted, 'trust has ended, though heartbeats succeed')
  blind.on = false
  await world.advance(2 * world.timing.ttlMs)
  t.ok(a.coordinator.health().trusted)
})
