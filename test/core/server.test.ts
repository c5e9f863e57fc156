/** What a node makes of a database server that is another one than before. */
import t from 'tap'
import type { Reading } from '../../plugin/core/clock.js'
import { freshLease } from '../../plugin/core/draft.js'
import { isRecognised } from '../../plugin/core/holdings.js'
import { inOrder } from '../../plugin/core/order.js'
import { KnownServer } from '../../plugin/core/server.js'
import type { ServerFacts } from '../../plugin/core/store.js'
import { blockWaitMs, resolveTiming } from '../../plugin/core/timing.js'
import { World } from '../support/world.js'

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
    const { kind } = await inOrder(store, undefined, 0, async () => void done++)
    kinds.push(kind)
  }
  t.same(kinds, ['done', 'new-server', 'done'])
  t.equal(done, 2)
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
