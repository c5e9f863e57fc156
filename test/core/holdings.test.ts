/** Tests what a node begins, and does not begin, under a row that names it. */
import t from 'tap'
import { type Circumstances, Holdings, termOf } from '../../plugin/core/session/holdings.js'
import { blockWaitMs, resolveTiming } from '../../plugin/core/time/timing.js'
import { Requests } from '../../plugin/core/work/acquire.js'
import { newLease } from '../../plugin/testing/conformance/world.js'

const timing = resolveTiming({})
const attempt = 3
const identity = 'one'
const lease = newLease('global/rebuild', { holder: 'me', target: 'me', token: 7, attempt, identity })

/**
 * Returns the terms that a node begins. The application asks it for the lease, and a row says that its own claim was
 * carried out.
 */
function follow(differing: Partial<Circumstances>): string[] {
  const begun: string[] = []
  const ignore = () => undefined
  const holdings = new Holdings({
    acquired: ({ key, token }) => begun.push(`${key}@${token}`),
    assigned: ignore,
    released: ignore,
    ended: ignore,
    changed: ignore,
    fence: ignore,
    trusted: () => true,
  })
  const requests = new Requests()
  requests.add(lease.key, 'rebuild', true)
  const view = {
    nowMs: 0,
    serverIdentity: identity,
    recordedIdentity: identity,
    identitySettled: true,
    longestTtlMs: timing.ttlMs,
    state: 'active',
    newsRevision: 1,
    watchers: [],
    leases: [lease],
    workers: [],
    gone: new Set<string>(),
  } as const
  holdings.follow({
    node: 'me',
    view,
    now: { monoMs: 0, bootMs: 0 },
    longestTtlMs: timing.ttlMs,
    blockWaitMs: blockWaitMs(timing),
    mayClaim: true,
    closing: false,
    runners: new Map(),
    requests,
    attempts: new Map([[attempt, identity]]),
    renounced: new Set(),
    ...differing,
  })
  return begun
}

t.test('a lease that this node has claimed is begun', async (t) => {
  t.same(follow({}), ['global/rebuild@7'])
})

t.test('what was asked to be given back is not begun, though the row still names this node', async (t) => {
  t.same(follow({ renounced: new Set([termOf(lease)]) }), [])
})

t.test('a row that names this node without a claim of this session is not begun', async (t) => {
  t.same(follow({ attempts: new Map() }), [])
  t.same(follow({ attempts: new Map([[attempt, 'an earlier server']]) }), [])
})

t.test('a node that closes begins nothing', async (t) => {
  t.same(follow({ closing: true }), [])
})
