/** Tests times that are written down: those of a schedule whose pass cannot begin or end, and those that are claimed. */
import t from 'tap'
import { runChange } from '../../plugin/core/changes/run-change.js'
import { claimTime } from '../../plugin/core/changes/times.js'
import { claimedForMs, pruneLeases } from '../../plugin/core/changes/upkeep.js'
import { silentLog } from '../../plugin/core/log.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'
import { dues, everyMinute, type Fired, minutes, scheduled } from '../support/scheduled.js'
import { World, type WorldNode } from '../support/world.js'
import { answeringChangesLate, losingAnswers } from '../support/wrapped-store.js'

t.test('a change whose answer is lost is written again, and its pass is begun once', async (t) => {
  const world = new World(t)
  const fired: Fired[] = []
  const loss = { next: 0 }
  const a = await world.node('a', { wrap: losingAnswers(loss) })
  scheduled(a, everyMinute, fired)
  await world.start(a)
  await world.advance(30_000)
  loss.next = 3
  await world.advance(90_000)
  t.strictSame(dues(fired), minutes(14, 15))
  t.equal(loss.next, 0, 'answers were lost')
})

t.test('a scheduled pass that its signal ends is told, since its time is not begun again', async (t) => {
  for (const how of ['closed', 'stopped', 'paused', 'drained', 'released', 'stepped down'] as const)
    t.test(how, async (t) => {
      const world = new World(t)
      const fired: Fired[] = []
      const warnings: { readonly fields: object; readonly line: string }[] = []
      const warn = (fields: object, line: string) => void warnings.push({ fields, line })
      const a = await world.node('a', { log: { ...silentLog, warn } })
      let stepDown = (): void => undefined
      const worker = scheduled(a, everyMinute, fired, {
        run: (context) => {
          stepDown = context.stepDown
          return new Promise((_resolve, reject) => {
            context.signal.addEventListener('abort', () => reject(context.signal.reason), { once: true })
          })
        },
      })
      await world.start(a)
      await world.advanceUntil(() => fired.length === 1, 120_000)
      const { operator, nodeId = '' } = a.coordinator
      const { key = '', token = 0 } = (await operator.snapshot()).leases[0] ?? {}
      const by = { actor: 'ops', reason: 'just then' }
      if (how === 'closed') void a.coordinator.close()
      if (how === 'stopped') void worker.stop()
      if (how === 'paused') await operator.pause(key, by)
      if (how === 'drained') await operator.drain(nodeId, by)
      if (how === 'released') await operator.release({ key, token, ...by })
      if (how === 'stepped down') stepDown()
      await world.advance(2_000)
      t.match(warnings, [
        {
          fields: {
            lease: key,
            token,
            dueAtMs: Date.UTC(2023, 10, 14, 22, 14),
            err: { code: 'WCO_LEASE_LOST' },
          },
          line: 'a scheduled pass was ended by its signal, and its time is not begun again',
        },
      ])
      t.same(dues(fired), minutes(14), 'and it is not begun again')
    })
})

t.test('a pass that ends well although its signal has aborted is not warned of', async (t) => {
  const world = new World(t)
  const fired: Fired[] = []
  const warnings: string[] = []
  const warn = (_fields: object, line: string) => void warnings.push(line)
  const a = await world.node('a', { log: { ...silentLog, warn } })
  scheduled(a, everyMinute, fired, {
    run: ({ signal }) =>
      new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true })),
  })
  await world.start(a)
  await world.advanceUntil(() => fired.length === 1, 120_000)
  void a.coordinator.close()
  await world.advance(2_000)
  t.same(warnings, [])
})

t.test('a time that is written when its term ends, before its pass has begun, is taken back', async (t) => {
  for (const how of ['closed', 'stopped', 'paused', 'handed over'] as const)
    t.test(how, async (t) => {
      const world = new World(t)
      const fired: Fired[] = []
      const errors: unknown[] = []
      const answers = { pauseMs: 0 }
      const log = { ...silentLog, error: (fields: object) => void errors.push(fields) }
      const a: WorldNode = await world.node('a', { wrap: answeringChangesLate(() => a, answers), log })
      const worker = scheduled(a, everyMinute, fired)
      await world.start(a)
      const b = await world.node('b')
      scheduled(b, everyMinute, fired)
      await world.start(b)
      const { operator } = b.coordinator
      const { key = '', token = 0 } = (await operator.snapshot()).leases[0] ?? {}
      const by = { actor: 'ops', reason: 'just then' }
      answers.pauseMs = 500
      await world.advanceUntil(
        async () => (await operator.snapshot()).leases[0]?.firedAtMs === Date.UTC(2023, 10, 14, 22, 14),
        60_000,
      )
      if (how === 'closed') void a.coordinator.close()
      if (how === 'stopped') void worker.stop()
      if (how === 'paused') await operator.pause(key, by)
      if (how === 'handed over') await operator.transfer({ key, token, ...by })
      await world.advance(10_000)
      if (how === 'paused') await operator.resume(key, by)
      await world.advance(60_000)
      t.same(dues(fired), minutes(14, 15), 'made up for, once')
      t.same(errors, [])
    })
})

t.test(
  'a time that was written before an outage in which its term ended is taken back after it',
  async (t) => {
    const world = new World(t)
    const fired: Fired[] = []
    const loss = { next: 0 }
    const lines: string[] = []
    const note = (_fields: object, line: string) => void lines.push(line)
    const log = { ...silentLog, info: note, warn: note }
    const a: WorldNode = await world.node('a', { wrap: losingAnswers(loss), log })
    scheduled(a, everyMinute, fired)
    await world.start(a)
    const { operator } = a.coordinator
    await world.advance(39_000)
    loss.next = Number.POSITIVE_INFINITY
    world.freeze(a)
    await world.advance(1_000)
    world.thaw(a)
    await world.advance(100)
    t.equal(
      (await operator.snapshot()).leases[0]?.firedAtMs,
      Date.UTC(2023, 10, 14, 22, 14),
      'it was written',
    )
    t.same(fired, [])
    a.clock.suspend(world.timing.ttlMs)
    await world.advance(5_000)
    t.ok(a.history.includes('trust.expired'))
    t.same(fired, [])
    t.same(a.coordinator.health().unsettled, [], 'no pass has begun, so none goes on')
    loss.next = 0
    await world.advance(10_000)
    t.same(dues(fired), minutes(14))
    t.notMatch(lines.join(), /work .* signal/, 'nor does the log say so')
  },
)

t.test(
  'a time that was written, and whose lease was taken away before its pass began, is told',
  async (t) => {
    const world = new World(t)
    const fired: Fired[] = []
    const errors: object[] = []
    const loss = { next: 0 }
    const log = { ...silentLog, error: (fields: object) => void errors.push(fields) }
    const a: WorldNode = await world.node('a', { wrap: losingAnswers(loss), log })
    const b = await world.node('b')
    scheduled(a, everyMinute, fired)
    await world.start(a, b)
    scheduled(b, everyMinute, fired)
    await world.advance(1_000)
    loss.next = Number.POSITIVE_INFINITY
    const { operator } = b.coordinator
    const due = Date.UTC(2023, 10, 14, 22, 14)
    await world.advanceUntil(async () => (await operator.snapshot()).leases[0]?.firedAtMs === due, 60_000)
    const { key = '', token = 0 } = (await operator.snapshot()).leases[0] ?? {}
    world.freeze(a)
    await world.advance(world.timing.ttlMs * 2, 500)
    loss.next = 0
    world.thaw(a)
    await world.advance(40_000, 500)
    t.same(dues(fired), minutes(15))
    t.match(errors, [{ lease: key, token, due: new Date(due).toISOString() }])
  },
)

t.test('a time whose record was answered only after the session was found lost is told', async (t) => {
  const world = new World(t)
  const fired: Fired[] = []
  const errors: object[] = []
  const answers = { pauseMs: 0 }
  const log = { ...silentLog, error: (fields: object) => void errors.push(fields) }
  const a: WorldNode = await world.node('a', { wrap: answeringChangesLate(() => a, answers), log })
  const b = await world.node('b')
  scheduled(a, everyMinute, fired)
  await world.start(a, b)
  answers.pauseMs = 8_000
  const due = Date.UTC(2023, 10, 14, 22, 14)
  const lease = async () => (await b.coordinator.operator.snapshot()).leases[0]
  await world.advanceUntil(async () => (await lease())?.firedAtMs === due, 60_000)
  const token = (await lease())?.token
  const id = a.coordinator.nodeId ?? ''
  await runChange(b.store, undefined, 0, (change) => change.bury(id))
  await world.advanceUntil(() => a.history.includes('session.lost'), 7_500)
  answers.pauseMs = 0
  await world.advance(40_000)
  t.same(fired, [])
  t.match(errors, [{ token, due: new Date(due).toISOString() }])
})

t.test('no time is claimed under the name of a worker, of whatever kind and wherever it runs', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const [scope, run] = ['global', () => undefined] as const
  a.coordinator.worker({ name: 'one', kind: 'single', scope, run })
  a.coordinator.worker({ name: 'parts', kind: 'partitioned', partitions: 2, scope, run })
  a.coordinator.worker({ name: 'shares', kind: 'coordinated', scope, run })
  await world.start(a, b)
  for (const name of ['one', 'parts', 'shares']) {
    const claimed = b.coordinator.claimTime(name, new Date(1_700_000_000_000))
    await t.rejects(claimed, { code: 'WCO_NAME' }, name)
  }
})

t.test(
  'a time that was claimed is not claimed again, however old, also when its name was cleared away',
  async (t) => {
    const dayMs = 86_400_000
    let nowMs = Date.UTC(2030, 0, 1)
    const database = new MemoryDatabase({ nowMs: () => nowMs, identity: () => 'server' })
    const store = database.open({ namespace: 'default', statementTimeoutMs: 30_000 })
    const claims = async (daysAgo: number): Promise<boolean> =>
      (
        await store.change(undefined, (change) =>
          claimTime(change, 'task', Date.UTC(2030, 0, 1) - daysAgo * dayMs, dayMs + claimedForMs),
        )
      ).result
    const clearAway = () => store.change(undefined, (change) => pruneLeases(change, ['task'], nowMs - dayMs))
    t.equal(await claims(9), false, 'nobody knows any more')
    t.equal(await claims(3), true)
    await clearAway()
    t.equal(await claims(3), false)
    t.equal(await claims(0), true)
    nowMs += 7 * dayMs
    await clearAway()
    t.equal(await claims(0), false)
    nowMs += 2 * dayMs
    await clearAway()
    t.same((await store.snapshot()).leases, [], 'it is cleared away at last')
    t.equal(await claims(0), false)
  },
)
