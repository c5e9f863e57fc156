/** Tests from when trust counts: what a session does with late answers, and with news that it has not read. */
import t, { type Test } from 'tap'
import { StoreError } from '../../plugin/core/errors.js'
import { Session } from '../../plugin/core/session/session.js'
import type { HeartbeatAnswer, OwnView, Store } from '../../plugin/core/store.js'
import { resolveTiming, trustMs } from '../../plugin/core/time/timing.js'
import { ManualClock } from '../../plugin/testing/manual-clock.js'
import { World } from '../support/world.js'
import { losingAnswers } from '../support/wrapped-store.js'

const timing = resolveTiming({ ttlMs: 15_000 })
const { heartbeatMs } = timing

const facts = {
  nowMs: 0,
  serverIdentity: 'server-1',
  recordedIdentity: 'server-1',
  identitySettled: true,
  longestTtlMs: timing.ttlMs,
  state: 'active',
} as const

/** Returns a session that has just joined. The test says when its database answers, and what. */
function joined(t: Test, chance: () => number = () => 0.5) {
  const clock = new ManualClock(chance)
  const sentAtMs: number[] = []
  const said = { lateMs: 0, news: 1, failing: false }
  const told: string[] = []
  const tell = (what: string) => () => void told.push(what)
  const heartbeat = async (): Promise<HeartbeatAnswer> => {
    sentAtMs.push(clock.nowMs)
    const { news, failing } = said
    if (said.lateMs > 0) await new Promise<void>((resolve) => clock.setTimer(said.lateMs, resolve))
    if (failing) throw new StoreError('The connection broke.', 'unknown')
    return { ...facts, newsRevision: news, watchers: [] }
  }
  const session = new Session('a', { heartbeat } as unknown as Store, clock, timing, {
    answered: () => ({ mustReadAgain: false }),
    newsArrived: tell('news'),
    heartbeatFailed: tell('failed'),
    trustExpired: tell('expired'),
    trustRenewed: tell('renewed'),
    trustBegan: tell('began'),
    sessionLost: tell('lost'),
  })
  session.joined(viewOf(1), clock.read())
  t.teardown(() => session.stop())
  return { session, clock, said, told, sentAtMs }
}

function viewOf(newsRevision: number): OwnView {
  return { ...facts, newsRevision, watchers: [], leases: [], workers: [], gone: new Set() }
}

t.test('a heartbeat counts from when it was sent, however late its answer', async (t) => {
  const { session, clock, said } = joined(t)
  said.lateMs = 2_000
  await clock.advance(heartbeatMs + 1_999)
  t.equal(
    session.trustLeftMs,
    trustMs(timing) - heartbeatMs - 1_999,
    'without the answer only the join counts',
  )
  await clock.advance(1)
  t.equal(session.trustLeftMs, trustMs(timing) - 2_000)
})

t.test('a heartbeat whose news has not been read does not count', async (t) => {
  const { session, clock, said, told } = joined(t)
  said.news = 2
  await clock.advance(heartbeatMs)
  t.equal(session.trustLeftMs, trustMs(timing) - heartbeatMs)
  t.ok(told.includes('news'), 'it is to be read')
  await clock.advance(timing.ttlMs)
  t.notOk(session.trusted(), 'heartbeats that succeed do not keep trust going')
  t.notOk(told.includes('lost'))
})

t.test('a view makes the heartbeat before it count, from when that was sent', async (t) => {
  const { session, clock, said } = joined(t)
  said.news = 2
  await clock.advance(heartbeatMs)
  const { credit } = session
  await clock.advance(3_000)
  session.caughtUp(viewOf(2), credit)
  t.equal(session.trustLeftMs, trustMs(timing) - 3_000)
  session.caughtUp(viewOf(2), undefined)
  t.equal(session.trustLeftMs, trustMs(timing) - 3_000, 'a view alone counts for nothing')
})

t.test('a heartbeat answered while a view is under way counts with the next view', async (t) => {
  const { session, clock, said } = joined(t)
  said.news = 2
  await clock.advance(heartbeatMs)
  const { credit } = session
  await clock.advance(heartbeatMs)
  session.caughtUp(viewOf(2), credit)
  t.equal(session.trustLeftMs, trustMs(timing) - heartbeatMs, 'the one before the view counts')
  session.caughtUp(viewOf(2), session.credit)
  t.equal(session.trustLeftMs, trustMs(timing), 'and then the one that came during it')
})

t.test('heartbeats are sent as often when their answers are slow', async (t) => {
  const { clock, said, sentAtMs } = joined(t)
  const startedAtMs = clock.nowMs
  said.lateMs = heartbeatMs / 2
  await clock.advance(3 * heartbeatMs)
  t.same(
    sentAtMs.map((atMs) => atMs - startedAtMs),
    [1, 2, 3].map((times) => times * heartbeatMs),
  )
})

t.test('a heartbeat that fails is tried again and again, never later than half an interval', async (t) => {
  const { clock, said, sentAtMs } = joined(t)
  said.failing = true
  await clock.advance(4 * heartbeatMs)
  const pausesMs = sentAtMs.slice(1).map((atMs, index) => atMs - (sentAtMs[index] ?? 0))
  t.ok(pausesMs.length > 5)
  t.ok((pausesMs[0] ?? 0) <= heartbeatMs / 20, 'soon at first')
  t.ok(
    pausesMs.every((pauseMs) => pauseMs <= heartbeatMs / 2),
    pausesMs.join(' '),
  )
})

t.test('heartbeats come up to a tenth sooner or later, as chance has it', async (t) => {
  for (const [chance, factor] of [
    [0, 0.9],
    [1, 1.1],
  ] as const) {
    const { clock, sentAtMs } = joined(t, () => chance)
    const startedAtMs = clock.nowMs
    await clock.advance(2 * factor * heartbeatMs + 1)
    t.same(
      sentAtMs.map((atMs) => Math.round(atMs - startedAtMs)),
      [factor * heartbeatMs, 2 * factor * heartbeatMs],
    )
  }
})

t.test('after a suspension work hears within a quarter of the margin that its trust is over', async (t) => {
  const { clock, said, told } = joined(t)
  said.lateMs = timing.ttlMs
  await clock.advance(heartbeatMs)
  clock.suspend(timing.ttlMs)
  t.notOk(told.includes('expired'))
  await clock.advance(timing.marginMs / 4)
  t.ok(told.includes('expired'))
})

t.test('whoever checks trust more often spares the session its own timer', async (t) => {
  const { session, clock, told } = joined(t)
  const quarterMs = timing.marginMs / 4
  await clock.advance(quarterMs - 100)
  session.checkTrust()
  t.equal(clock.dueInMs, quarterMs, 'the timer is put off')
  clock.suspend(timing.ttlMs)
  session.checkTrust()
  t.ok(told.includes('expired'), 'and the check is the same')
})

t.test('news that goes back is news', async (t) => {
  const { clock, said, told } = joined(t)
  said.news = 0
  await clock.advance(heartbeatMs)
  t.ok(told.includes('news'))
})

t.test('what has lapsed ends before an answer begins it anew', async (t) => {
  const { session, clock, said, told } = joined(t)
  said.failing = true
  await clock.advance(heartbeatMs)
  said.failing = false
  clock.stall(timing.ttlMs)
  told.length = 0
  await clock.advance(heartbeatMs)
  t.same(told.slice(0, 3), ['expired', 'renewed', 'began'])
  t.ok(session.trusted())
})

t.test('a join counts from its first try, also when another was answered', async (t) => {
  const loss = { next: 0 }
  const world = new World(t)
  const node = await world.node('a', { wrap: losingAnswers(loss) })
  loss.next = 1
  const startedAtMs = node.clock.nowMs
  const started = node.coordinator.start().catch(() => node.coordinator.start())
  await world.advanceUntil(() => node.coordinator.state === 'running', 30_000)
  await started
  const passedMs = node.clock.nowMs - startedAtMs
  t.ok(
    node.coordinator.health().trustLeftMs <= trustMs(world.timing) - passedMs,
    `${passedMs} ms have passed`,
  )
})
