/** What a node makes of a database server that is another one than before. */
import t from 'tap'
import type { Reading } from '../../plugin/core/clock.js'
import { KnownServer } from '../../plugin/core/server.js'
import type { ServerFacts } from '../../plugin/core/store.js'
import { blockWaitMs, resolveTiming } from '../../plugin/core/timing.js'

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
