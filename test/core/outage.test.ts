/** Tests what counts as a failure of the database, what is said of it, and what it costs. */
import t from 'tap'
import { type CoordinationError, StoreError } from '../../plugin/core/errors.js'
import { Events } from '../../plugin/core/events.js'
import { type Log, silentLog } from '../../plugin/core/log.js'
import { Outage } from '../../plugin/core/outage.js'
import { systemClock } from '../../plugin/core/time/clock.js'
import type { PassContext } from '../../plugin/core/work/worker.js'
import { thrownBy } from '../support/errors.js'
import { aborted, untilAborted } from '../support/workers.js'
import { World } from '../support/world.js'
import { failing } from '../support/wrapped-store.js'

t.test('only what the database has failed at is told as its failure; the rest is for the log', async (t) => {
  const lines: string[] = []
  const told: unknown[] = []
  const events = new Events(() => undefined)
  events.on('store.failed', ({ error }) => void told.push(error))
  const log = { ...silentLog, error: (_fields: object, message: string) => void lines.push(message) }
  const outage = new Outage({ heartbeatMs: 1_000 }, systemClock, log, events)
  outage.failed(new RangeError('too large a token'), 'turn')
  t.same(told, [])
  t.same(lines, ['a turn failed'])
  t.equal(outage.error, undefined)
  const error = new StoreError('The database is away.', 'none')
  outage.failed(error, 'turn')
  t.same(told, [error])
  t.same(lines, ['a turn failed'])
  t.equal(outage.error, error)
})

/** Returns a log that keeps each line as `level: message`. */
function writing(lines: string[]): Log {
  const note = (level: string) => (_fields: object, message: string) => {
    lines.push(`${level}: ${message}`)
  }
  return { debug: () => undefined, info: note('info'), warn: note('warn'), error: note('error') }
}

t.test('an outage is told when it begins and when it is over, whatever fails in between', async (t) => {
  const world = new World(t)
  const lines: string[] = []
  const outage = { on: false }
  const log = writing(lines)
  const a = await world.node('a', {
    log,
    wrap: failing(outage),
  })
  await world.start(a)
  await world.advance(1_000)
  lines.length = 0
  outage.on = true
  await world.advance(world.timing.ttlMs / 2)
  const late = a.coordinator.acquire('critical', { timeoutMs: 1_000 }).catch((error: unknown) => error)
  await world.advance(2_000)
  const error = (await late) as CoordinationError
  t.match(error, { code: 'WCO_ACQUIRE_TIMEOUT', message: /the database does not answer/ })
  t.match(error.cause, { message: 'The database is away.' })
  outage.on = false
  await world.advance(world.timing.ttlMs)
  t.same(
    lines.filter((line) => /database/.test(line)),
    [
      'warn: the database does not answer: a heartbeat failed, and is tried again',
      'info: the database answers again',
    ],
  )
})

t.test(
  'requests that fail while heartbeats are answered are told once, and once when none fails',
  async (t) => {
    const world = new World(t)
    const lines: string[] = []
    const outage = { on: false }
    const log = writing(lines)
    const a = await world.node('a', { log, wrap: failing(outage, 'look') })
    const b = await world.node('b')
    await world.start(a, b)
    lines.length = 0
    outage.on = true
    await world.advance(world.timing.ttlMs * 4, 500)
    t.same(lines, ['warn: a look at the other nodes failed, and is tried again'])
    outage.on = false
    await world.advance(world.timing.ttlMs * 2, 500)
    t.same(lines.slice(1), ['info: requests to the database succeed again'])
  },
)

t.test('an outage is told though something else has failed before', async (t) => {
  const world = new World(t)
  const lines: string[] = []
  const broken = { on: false }
  const outage = { on: false }
  const log = writing(lines)
  const a = await world.node('a', {
    log,
    wrap: (store) => failing(outage)(failing(broken, 'look')(store)),
  })
  await world.start(a, await world.node('b'))
  lines.length = 0
  broken.on = true
  await world.advance(world.timing.heartbeatMs)
  outage.on = true
  await world.advance(world.timing.heartbeatMs * 2)
  broken.on = outage.on = false
  await world.advance(world.timing.heartbeatMs * 2)
  t.same(
    lines.filter((line) => /failed|database/.test(line)),
    [
      'warn: a look at the other nodes failed, and is tried again',
      'warn: the database does not answer: a heartbeat failed, and is tried again',
      'info: the database answers again',
    ],
  )
})

t.test('a time of a schedule that cannot be written down is told', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const a = await world.node('a', { wrap: failing(outage, 'change') })
  const failures: unknown[] = []
  let ran = 0
  a.coordinator.worker({
    name: 'nightly',
    kind: 'single',
    scope: 'global',
    schedule: '* * * * *',
    run: () => void ran++,
  })
  a.coordinator.on('store.failed', ({ error }) => failures.push(error))
  await world.start(a)
  await world.advance(61_000, 250)
  t.equal(ran, 1)
  outage.on = true
  await world.advance(61_000, 250)
  t.equal(ran, 1)
  t.ok(failures.length > 0)
  outage.on = false
  await world.advance(10_000, 250)
  t.equal(ran, 2, 'and written down and acted upon when it can')
})

t.test(
  'the database away for less than the trust window costs nothing; for longer, all work stops and comes back',
  async (t) => {
    const world = new World(t)
    const outage = { on: false }
    const flaky = await world.node('a', { wrap: failing(outage) })
    let lost: unknown
    let thrown: unknown
    flaky.coordinator.worker(
      untilAborted('month-close', {
        run: async ({ lease, signal }: PassContext) => {
          await aborted(signal)
          lost = signal.reason
          thrown = thrownBy(() => lease.assertHeld())
        },
      }),
    )
    await world.start(flaky)
    outage.on = true
    await world.advance(world.timing.ttlMs - world.timing.marginMs - world.timing.heartbeatMs * 1.2)
    t.ok(flaky.coordinator.isHeld('month-close'))
    outage.on = false
    await world.advance(world.timing.heartbeatMs * 1.5)
    t.ok(flaky.coordinator.isHeld('month-close'))
    t.notOk(flaky.history.includes('trust.expired'))
    outage.on = true
    await world.advance(world.timing.ttlMs)
    t.notOk(flaky.coordinator.isHeld('month-close'))
    t.match(lost, { code: 'WCO_LEASE_LOST', reason: 'trust-expired' })
    t.match(thrown, { code: 'WCO_LEASE_LOST' })
    outage.on = false
    await world.advance(world.timing.heartbeatMs * 2)
    t.ok(flaky.coordinator.isHeld('month-close'), 'nobody buried it, so it goes on under a new token')
  },
)

t.test('a start waits for a database that is away, for two ttls', async (t) => {
  const world = new World(t)
  const outage = { on: true }
  const a = await world.node('a', { wrap: failing(outage) })
  const { ttlMs, heartbeatMs } = world.timing
  const started = a.coordinator.start()
  await world.advance(ttlMs * 1.9)
  t.equal(a.coordinator.state, 'starting')
  outage.on = false
  await world.advance(heartbeatMs)
  await started
  t.equal(a.coordinator.state, 'running')

  outage.on = true
  const b = await world.node('b', { wrap: failing(outage) })
  const refused = t.rejects(b.coordinator.start(), { code: 'WCO_STORE' })
  await world.advance(ttlMs * 2 + heartbeatMs)
  await refused
  t.equal(b.coordinator.state, 'idle', 'it may be tried again')
  outage.on = false
  await world.start(b)
  t.equal(b.coordinator.state, 'running')
})
