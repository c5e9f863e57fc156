/** Tests work that goes on after its signal: what it keeps, for how long, and what is said of it. */
import t from 'tap'
import { deferred } from '../../plugin/core/time/loop.js'
import { blockWaitMs } from '../../plugin/core/time/timing.js'
import type { WorkerDefinition } from '../../plugin/core/work/worker.js'
import { gate } from '../../plugin/testing/conformance/world.js'
import { single, untilAborted } from '../support/workers.js'
import { World } from '../support/world.js'
import { failing } from '../support/wrapped-store.js'

const by = { actor: 'ops', reason: 'a good one' }

const impatient = { handoverTimeoutMs: 10_000 }

/** A worker whose passes do not end before `pass` does, whatever their signal says. */
function deaf(pass: Promise<void>): WorkerDefinition {
  return untilAborted('w', { ...impatient, run: () => pass })
}

t.test('work that ignores its signal does not keep what ended while its node was cut off', async (t) => {
  const world = new World(t)
  const pass = gate()
  const outage = { on: false }
  const [a, b] = [await world.node('a', { wrap: failing(outage) }), await world.node('b')]
  a.coordinator.worker(deaf(pass.opened))
  b.coordinator.worker(untilAborted('w', impatient))
  await world.start(a)
  await world.start(b)
  const kept = await a.coordinator.acquire('name')
  let waited = false
  const waiting = b.coordinator.acquire('name').then((lease) => {
    waited = true
    return lease
  })
  await world.advance(5_000)
  outage.on = true
  await world.advanceUntil(() => a.history.includes('trust.expired'), world.timing.ttlMs)
  outage.on = false
  await world.advance(9_000)
  t.notOk(a.history.includes('session.lost'), 'it has not been buried')
  t.equal((await b.coordinator.status()).leases.find(({ key }) => key === 'global/w')?.holder?.name, 'a')
  const graceMs = blockWaitMs(world.timing)
  await world.advance(1_000 + graceMs)
  t.ok(b.coordinator.isHeld('w'), 'after its time to hand over and a grace period')
  t.same(a.coordinator.health().unsettled.length, 2, 'the work and the handle are still there')
  const [revoked] = await b.coordinator.operator.events({ limit: 1, types: ['lease.revoked'] })
  t.match(revoked, { subject: 'global/w', reason: 'the work under it did not end in time' })
  t.notOk(waited, 'a name has the time that the coordinator sets')
  await world.advance(world.timing.handoverTimeoutMs)
  t.ok(waited)
  pass.open()
  await kept.release()
  await (await waiting).release()
  await world.advance(60_000)
  t.ok(b.coordinator.isHeld('w'))
})

t.test('work that ignores its signal does not keep what was paused and resumed meanwhile', async (t) => {
  const world = new World(t)
  const pass = gate()
  const [a, b] = [await world.node('a'), await world.node('b')]
  a.coordinator.worker(deaf(pass.opened))
  b.coordinator.worker(untilAborted('w', impatient))
  await world.start(a)
  await world.start(b)
  await b.coordinator.operator.pause('global/w', by)
  await world.advance(1_000)
  await b.coordinator.operator.resume('global/w', by)
  await world.advance(10_000)
  const { leases } = await b.coordinator.operator.snapshot()
  const { nodeId } = b.coordinator
  t.match(leases, [{ key: 'global/w', holder: null, blockedNode: a.coordinator.nodeId, target: nodeId }])
  t.notOk(b.coordinator.isHeld('w'), 'the other waits, since the work goes on')
  pass.open()
  await world.advance(1_000)
  t.ok(b.coordinator.isHeld('w'), 'only until that has ended')
})

t.test('the only candidate begins again as soon as its work has ended', async (t) => {
  const world = new World(t)
  const pass = gate()
  const a = await world.node('a')
  a.coordinator.worker(deaf(pass.opened))
  await world.start(a)
  await a.coordinator.operator.pause('global/w', by)
  await world.advance(1_000)
  await a.coordinator.operator.resume('global/w', by)
  await world.advance(120_000)
  t.notOk(a.coordinator.isHeld('w'))
  pass.open()
  await world.advance(1_000)
  t.ok(a.coordinator.isHeld('w'))
})

t.test('work that goes on after its signal is told, and told when it ends', async (t) => {
  const world = new World(t)
  const lines: string[] = []
  const note = (level: string) => (fields: object, message: string) => {
    if (/goes on|went on/.test(message))
      lines.push(`${level} ${'reason' in fields ? fields.reason : ''}: ${message}`)
  }
  const log = { debug: () => undefined, info: note('info'), warn: note('warn'), error: note('error') }
  const a = await world.node('a', { log })
  const b = await world.node('b')
  const passes = [deferred(), deferred()]
  let begun = 0
  const worker = a.coordinator.worker(single('job', () => passes[begun++]?.promise))
  await world.start(a, b)
  await world.advance(500)
  const token = (await b.coordinator.status()).leases[0]?.token ?? 0
  await b.coordinator.operator.release({ key: 'global/job', token, actor: 'ops', reason: 'it hangs' })
  await world.advance(world.timing.marginMs - 100)
  t.same(lines, [], 'a moment it has')
  await world.advance(world.timing.ttlMs, 500)
  t.same(lines, ['warn revoked: work goes on although its signal has aborted'])
  passes[0]?.resolve()
  await world.advance(world.timing.ttlMs, 500)
  t.same(lines.splice(0).slice(1), ['warn revoked: work that went on after its signal had aborted has ended'])
  t.equal(begun, 2)
  void worker.stop()
  await world.advance(world.timing.ttlMs, 500)
  passes[1]?.resolve()
  await world.advance(500)
  t.same(lines, [
    'info stopped: work goes on although its signal has aborted',
    'info stopped: work that went on after its signal had aborted has ended',
  ])
})
