/**
 * Tests which objects outlive others: handles their session and their coordinator, workers their registration, and a
 * node its refused workers.
 */

import { AsyncLocalStorage } from 'node:async_hooks'
import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import type { CoordinationError } from '../../plugin/core/errors.js'
import { type Log, silentLog } from '../../plugin/core/log.js'
import { deferred } from '../../plugin/core/time/loop.js'
import type { Lease } from '../../plugin/core/work/lease.js'
import type {
  AroundPass,
  CoordinatedContext,
  Pass,
  SingleContext,
  WorkerDefinition,
} from '../../plugin/core/work/worker.js'
import { rejectionOf } from '../../plugin/testing/conformance/world.js'
import { partitioned, single } from '../support/workers.js'
import { acquired, World, type WorldNode, watched } from '../support/world.js'
import { answeringChangesLate, around, failing, overriding } from '../support/wrapped-store.js'

t.test(
  'a node whose worker others contradict loses its session, and does the rest of its work again',
  async (t) => {
    const world = new World(t)
    const [a, b] = [await world.node('a'), await world.node('b')]
    a.coordinator.worker(partitioned(4, () => undefined))
    b.coordinator.worker(single('other', () => undefined))
    await world.start(a, b)
    const refused: string[] = []
    const failures: unknown[] = []
    b.coordinator.on('worker.refused', ({ worker, error }) =>
      refused.push(`${worker} ${(error as CoordinationError).code}`),
    )
    const parts = b.coordinator.worker(partitioned(8, () => undefined))
    t.equal(parts.state, 'candidate')
    await world.advance(2_000)
    t.same(refused, ['global/parts WCO_WORKER_CONFLICT'])
    t.equal(parts.state, 'refused')
    b.coordinator.on('store.failed', ({ error }) => failures.push(error))
    world.freeze(b)
    await world.advance(world.timing.ttlMs * 2, 500)
    world.thaw(b)
    await world.advance(world.timing.ttlMs * 2, 500)
    t.ok(b.history.includes('session.lost'))
    t.ok(b.coordinator.isHeld('other'), 'it works again')
    t.same(refused.slice(1), ['global/parts WCO_WORKER_CONFLICT'], 'and says once more what it does not')
    t.same(failures, [], 'the database did answer')
    await parts.stop()
    t.equal(parts.state, 'stopped')
  },
)

t.test('a node whose worker others have with another schedule warns of it, and stands for it', async (t) => {
  const world = new World(t)
  const warnings: object[] = []
  const warn = (fields: object, message: string): void => {
    if (message === 'a worker is registered here with a different schedule than it was last registered with')
      warnings.push(fields)
  }
  const settings = { log: { ...silentLog, warn } }
  const [a, b, c] = [
    await world.node('a', settings),
    await world.node('b', settings),
    await world.node('c', settings),
  ]
  const [three, four] = ['0 3 * * *', '0 4 * * *']
  const report = (name: string, schedule?: string): WorkerDefinition => ({
    ...{ name, kind: 'single', scope: 'global', schedule, run: () => undefined },
  })
  a.coordinator.worker(report('early', three))
  b.coordinator.worker(report('early', four))
  await world.start(a, b, c)
  const written = (cron: string): string => JSON.stringify({ cron, timeZone: 'UTC', missed: 'once' })
  const ofB = { node: 'b', cluster: 'default', ours: written(four) }
  const ofC = { ...ofB, node: 'c' }
  const early = { ...ofB, worker: 'global/early', registered: written(three) }
  t.same(warnings, [early])
  c.coordinator.worker(report('early', four))
  c.coordinator.worker(report('late'))
  await world.advance(2_000)
  t.same(warnings, [early, { ...early, ...ofC }], 'who leads has declared its own once more')
  b.coordinator.worker(report('same', three))
  c.coordinator.worker(report('same', three))
  await world.advance(2_000)
  t.equal(warnings.length, 2, 'what is the same is nothing to warn of')
  const late = b.coordinator.worker(report('late', four))
  await world.advance(2_000)
  t.same(warnings.slice(2), [{ ...ofB, worker: 'global/late', registered: null }])
  t.equal(late.state, 'candidate')
})

t.test('a node that was away joins again though others have registered its worker differently', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  a.coordinator.worker(partitioned(4, () => undefined))
  a.coordinator.worker(single('other', () => undefined))
  await world.start(a, b)
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  b.coordinator.worker(partitioned(8, () => undefined))
  await world.advance(2_000)
  world.thaw(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  t.ok(a.coordinator.isHeld('other'))
  t.equal((await b.coordinator.status()).workers.find(({ key }) => key === 'global/parts')?.slots, 8)
})

t.test('a worker that is stopped and registered again in one breath is the new one', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const ran: string[] = []
  const old = a.coordinator.worker(single('job', () => ran.push('old')))
  await world.start(a)
  await world.advance(3_000)
  const stopped = watched(old.stop())
  const now = a.coordinator.worker(single('job', () => ran.push('new')))
  const before = ran.length
  await world.advance(5_000)
  t.ok(stopped.over, 'stop() resolves')
  t.equal(old.state, 'stopped')
  t.equal(now.state, 'working')
  t.same([...new Set(ran.slice(before))], ['new'])
})

t.test('the new one waits until the pass of the old one has settled', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const pass = deferred()
  let ran = 0
  const old = a.coordinator.worker(single('job', () => pass.promise))
  await world.start(a)
  await world.advance(1_000)
  const stopped = watched(old.stop())
  a.coordinator.worker(single('job', () => void ran++))
  await world.advance(world.timing.ttlMs, 500)
  t.equal(ran, 0)
  t.notOk(stopped.over)
  pass.resolve()
  await world.advance(2_000)
  t.ok(stopped.over)
  t.ok(ran > 0)
})

t.test('what a worker is declared as anew is written', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const running = new Set<number>()
  const old = a.coordinator.worker(partitioned(2, () => undefined))
  await world.start(a)
  await world.advance(1_000)
  void old.stop()
  a.coordinator.worker(partitioned(4, ({ partition }) => void running.add(partition)))
  await world.advance(3_000)
  t.equal((await a.coordinator.status()).workers[0]?.slots, 4)
  t.same([...running].sort(), [0, 1, 2, 3])
})

t.test('a lease that outlasts its coordinator is released all the same', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  await world.start(a)
  const lease = await acquired(world, a.coordinator.acquire('critical'))
  const closed = watched(a.coordinator.close())
  await world.advanceUntil(() => closed.over, world.timing.drainTimeoutMs * 2, 500)
  t.notOk(lease.held)
  const released = watched(lease.release())
  await world.advance(100)
  t.ok(released.over)
})

t.test('a worker whose coordinator has closed can be stopped once its pass has settled', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const pass = deferred()
  const worker = a.coordinator.worker(single('job', () => pass.promise))
  await world.start(a)
  await world.advance(500)
  const closed = watched(a.coordinator.close())
  await world.advanceUntil(() => closed.over, world.timing.drainTimeoutMs * 2, 500)
  const stopped = watched(worker.stop())
  await world.advance(100)
  t.notOk(stopped.over, 'its pass goes on')
  pass.resolve()
  await world.advance(100)
  t.ok(stopped.over)
})

t.test('a lease that was lost is released though the database is away', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const [a, b] = [await world.node('a', { wrap: failing(outage) }), await world.node('b')]
  await world.start(a, b)
  const lease = await acquired(world, a.coordinator.acquire('critical'))
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advanceUntil(() => a.history.includes('session.lost'), world.timing.ttlMs)
  outage.on = true
  const released = watched(lease.release())
  await world.advance(1_000)
  t.ok(released.over)
  outage.on = false
})

t.test('a clean stop is one change, which says that its leases were released', async (t) => {
  for (const count of [1, 3]) {
    const world = new World(t)
    const [a, b] = [await world.node('a'), await world.node('b')]
    const names = Array.from({ length: count }, (_, index) => `lead-${index}`)
    for (const name of names) a.coordinator.worker(single(name, () => undefined))
    await world.start(a)
    await world.advance(500)
    for (const name of names) b.coordinator.worker(single(name, () => undefined))
    await world.start(b)
    await world.advance(500)
    const closed = watched(a.coordinator.close())
    await world.advanceUntil(() => closed.over, 5_000)
    await world.advance(500)
    const events = await b.coordinator.operator.events({ limit: 100 })
    const left = events.find(({ type }) => type === 'node.left')
    const inIt = events.filter(({ revision }) => revision === left?.revision)
    t.same(
      inIt
        .filter(({ type }) => type === 'lease.released')
        .map(({ subject, reason }) => `${subject} ${reason}`)
        .sort(),
      names.map((name) => `global/${name} closing`),
      `${count} leases, one change`,
    )
    t.notOk(
      events.some(({ type }) => type === 'lease.lost'),
      'nobody was lost',
    )
    t.same(
      names.filter((name) => b.coordinator.isHeld(name)),
      names,
    )
  }
})

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

/** Returns a log that keeps each line as `level: message`. */
function writing(lines: string[]): Log {
  const note = (level: string) => (_fields: object, message: string) => {
    lines.push(`${level}: ${message}`)
  }
  return { debug: () => undefined, info: note('info'), warn: note('warn'), error: note('error') }
}

t.test('a worker may be stopped by its own pass, from its first line on', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const signals: AbortSignal[] = []
  let ran = 0
  const stopped: ReturnType<typeof watched>[] = []
  const old = a.coordinator.worker({
    name: 'job',
    kind: 'single',
    scope: 'global',
    run: ({ signal }) => {
      signals.push(signal)
      stopped.push(watched(old.stop()))
      a.coordinator.worker(single('job', () => void ran++))
    },
  })
  await world.start(a)
  await world.advance(3_000)
  t.same(
    signals.map(({ aborted }) => aborted),
    [true],
  )
  t.same(stopped, [{ over: true }])
  t.ok(ran > 0, 'and the one that was registered in its place runs')
})

t.test('who asked for a lease while a start was under way hears of its failure', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  a.coordinator.worker(partitioned(4, () => undefined))
  await world.start(a)
  b.coordinator.worker(partitioned(8, () => undefined))
  const started = b.coordinator.start()
  const asked = [b.coordinator.acquire('critical'), b.coordinator.tryAcquire('other')]
  await t.rejects(started, { code: 'WCO_WORKER_CONFLICT' })
  for (const answer of asked) await t.rejects(answer, { code: 'WCO_WORKER_CONFLICT' })
})

t.test('who waits for a lease is told when the coordinator closes', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  await world.start(a, b)
  await a.coordinator.acquire('rebuild')
  const waiting = rejectionOf(b.coordinator.acquire('rebuild'))
  const over = watched(waiting)
  await world.advance(100)
  t.notOk(over.over)
  const closed = b.coordinator.close()
  await world.advance(100)
  t.ok(over.over)
  t.match(await waiting, { code: 'WCO_NOT_RUNNING' })
  await closed
})

t.test('a node that joins again stands in line again at once for what it waits for', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  await world.start(a, b)
  await a.coordinator.acquire('rebuild')
  const waiting = b.coordinator.acquire('rebuild')
  await world.advance(100)
  world.freeze(b)
  await world.advance(world.timing.ttlMs * 1.5, 500)
  world.thaw(b)
  await world.advance(world.timing.heartbeatMs * 1.1)
  const [row] = (await a.store.snapshot()).leases
  t.ok(b.history.includes('session.lost'))
  t.same(row?.waiters.at(-1), b.coordinator.nodeId)
  void waiting.catch(() => undefined)
})

t.test('what is put around passes is called from the first that was given to the last', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const order: string[] = []
  for (const name of ['first', 'second'])
    a.coordinator.aroundPasses(async (_pass, run) => {
      order.push(`${name} begins`)
      await run()
      order.push(`${name} ends`)
    })
  a.coordinator.worker({ ...single('w', () => order.push('pass')), everyMs: 60_000 })
  await world.start(a)
  t.same(order, ['first begins', 'second begins', 'pass', 'second ends', 'first ends'])
})

t.test('a pass goes on until its run has ended, even if what is around it does not wait', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const running = new Set<string>()
  let most = 0
  let fails = false
  const failures: unknown[] = []
  const end = new Map<string, () => void>()
  a.coordinator.on('pass.failed', ({ error }) => failures.push(error))
  for (const { name, coordinator } of [a, b]) {
    coordinator.aroundPasses((async (_pass: Pass, run: () => Promise<void>) => {
      void run()
    }) satisfies AroundPass)
    coordinator.worker(
      single('w', async () => {
        running.add(name)
        most = Math.max(most, running.size)
        await new Promise<void>((resolve) => end.set(name, resolve))
        running.delete(name)
        if (fails) throw new Error('no')
      }),
    )
  }
  await world.start(a)
  await world.start(b)
  await world.advance(10_000)
  t.same([...running], ['a'])
  void a.coordinator.operator.drain(a.coordinator.nodeId ?? '', { actor: 'ops', reason: 'a deploy' })
  await world.advance(2_000)
  t.same([...running], ['a'], 'nobody begins before its pass has ended')
  t.ok(a.coordinator.health().unsettled.length > 0)
  end.get('a')?.()
  await world.advance(2_000)
  t.same([...running], ['b'])
  t.equal(most, 1)
  fails = true
  end.get('b')?.()
  await world.advance(500)
  t.same(failures, [], 'it was not the pass of a')
})

t.test('an error of a pass fails it, even if what is around it does not pass it on', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const failures: unknown[] = []
  a.coordinator.on('pass.failed', ({ error }) => failures.push((error as Error).message))
  const wrappers: readonly ((run: () => Promise<void>) => Promise<void> | void)[] = [
    (run) => void run(),
    async (run) => {
      await run().catch(() => undefined)
    },
    async (run) => {
      const running = run()
      await Promise.race([running, Promise.reject(new Error('too slow'))])
    },
    () => {
      throw new Error('not today')
    },
  ]
  let wrapper = 0
  a.coordinator.aroundPasses(async (_pass, run) => wrappers[wrapper++ % wrappers.length]?.(run))
  a.coordinator.worker({
    ...single('w', async () => {
      throw new Error('no')
    }),
    maxFailures: 100,
  })
  await world.start(a)
  await world.advanceUntil(() => failures.length === 4, 120_000)
  t.same(failures, ['no', 'no', 'too slow', 'not today'])
})

t.test('what is around passes must call run once: otherwise they fail, and say why', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const failures: object[] = []
  let passes = 0
  let late: (() => Promise<void>) | undefined
  a.coordinator.on('pass.failed', ({ error }) => failures.push(error as object))
  const wrappers: readonly ((run: () => Promise<void>) => Promise<void> | void)[] = [
    (run) => {
      late = run
    },
    async (run) => {
      await run()
      await run()
    },
    (run) => {
      void run()
      void run()
    },
  ]
  let wrapper = 0
  a.coordinator.aroundPasses(async (_pass, run) => wrappers[wrapper++ % wrappers.length]?.(run))
  a.coordinator.worker({ ...single('w', () => void passes++), maxFailures: 100 })
  await world.start(a)
  t.equal(passes, 0)
  await t.rejects(late?.() ?? Promise.resolve(), { message: /called run after it had ended\.$/ })
  await world.advanceUntil(() => failures.length === 3, 120_000)
  t.equal(passes, 2)
  const said = 'aroundPasses: the function around passes'
  t.match(failures, [
    { code: 'WCO_OPTIONS', message: `${said} did not call run.` },
    { code: 'WCO_OPTIONS', message: `${said} called run a second time.` },
    { code: 'WCO_OPTIONS', message: `${said} called run a second time.` },
  ])
})

t.test('an error after the signal is warned of, unless it only says that the signal aborted', async (t) => {
  const world = new World(t)
  const warnings: object[] = []
  const warn = (fields: { err?: object }, line: string): void => {
    if (line === 'a pass failed after its signal had aborted') warnings.push(fields.err ?? {})
  }
  const a = await world.node('a', { log: { ...silentLog, warn } })
  const aborted = (signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
  const ends: Record<string, (context: SingleContext) => unknown> = {
    reason: ({ signal }) => signal.throwIfAborted(),
    asserted: ({ lease }) => lease.assertHeld(),
    fenced: ({ lease }) => lease.fence({}),
    wrapped: ({ signal }) => Promise.reject(new Error('import ended', { cause: signal.reason })),
    aborted: () => Promise.reject(new DOMException('This operation was aborted', 'AbortError')),
    cleanUp: () => {
      const error = new Error('the file is still open')
      error.cause = error
      return Promise.reject(error)
    },
  }
  for (const [name, end] of Object.entries(ends))
    a.coordinator.worker({
      ...{ name, kind: 'single', scope: 'global' },
      run: async (context: SingleContext) => {
        await aborted(context.signal)
        await end(context)
      },
    } as WorkerDefinition)
  await world.start(a)
  void a.coordinator.close()
  await world.advance(2_000)
  t.match(warnings, [{ message: 'the file is still open' }])
  t.equal(warnings.length, 1)
})

t.test('an error that cannot be looked at does not end the work', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const get = (): never => {
    throw new Error('not to be looked at')
  }
  let passes = 0
  a.coordinator.worker({
    name: 'report',
    kind: 'single',
    scope: 'global',
    everyMs: 10,
    run: ({ stepDown }: SingleContext) => {
      passes += 1
      stepDown(0)
      throw Object.defineProperty(new Error('boom'), 'cause', { get })
    },
  })
  await world.start(a)
  await world.advance(2_000)
  t.ok(passes > 1, `${passes} passes`)
})

t.test('a log that throws at each line does not disturb the node', async (t) => {
  const world = new World(t)
  const broken = (): never => {
    throw new Error('the log is closed')
  }
  const log: Log = { debug: broken, info: broken, warn: broken, error: broken }
  const outage = { on: false }
  const [a, b] = [await world.node('a', { log, wrap: failing(outage) }), await world.node('b')]
  const terms: SingleContext[] = []
  let passes = 0
  a.coordinator.worker({
    name: 'report',
    kind: 'single',
    scope: 'global',
    run: (context: SingleContext) => {
      passes += 1
      if (passes === 1) throw new Error('boom')
      if (terms.at(-1)?.lease !== context.lease) terms.push(context)
      return new Promise<void>((resolve) => {
        context.signal.addEventListener('abort', () => resolve())
      })
    },
  })
  await world.start(a, b)
  await world.advance(3_000)
  t.equal(terms.length, 1, 'work goes on after a pass that failed')
  outage.on = true
  await world.advance(world.timing.ttlMs - 100, 100)
  t.ok(terms[0]?.signal.aborted, 'its signal aborts when trust ends')
  outage.on = false
  await world.advance(world.timing.ttlMs * 2, 100)
  t.equal(terms[0]?.lease.held, false, 'that term has ended for good')
  t.equal(terms.length, 2, 'and another has begun')
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  t.ok(a.history.includes('session.lost'))
  t.equal(terms.length, 3, 'a node whose session was lost joins again')
  t.ok(a.coordinator.isHeld('report'))
})

t.test('work may hand its signal to any number of calls at a time', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const signals: AbortSignal[] = []
  a.coordinator.worker({
    ...{ name: 'w', kind: 'single', scope: 'global' },
    run: ({ signal }: SingleContext) => void signals.push(signal),
  } as WorkerDefinition)
  await world.start(a)
  const lease = await a.coordinator.acquire('rebuild')
  const warnings: string[] = []
  const note = ({ name }: Error): void => void warnings.push(name)
  process.on('warning', note)
  t.teardown(() => process.off('warning', note))
  for (const signal of [...signals, lease.signal])
    for (let call = 0; call < 20; call++) signal.addEventListener('abort', () => undefined)
  await setImmediate()
  t.same(warnings, [])
  t.equal(signals.length, 1)
})

t.test('failures that are not in a row do not hand a worker on', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  let passes = 0
  const failing = (): void => {
    passes += 1
    if (passes % 3 !== 0) throw new Error('no')
  }
  a.coordinator.worker({ ...single('w', failing), maxFailures: 3 })
  b.coordinator.worker(single('w', () => undefined))
  await world.start(a, b)
  await world.advanceUntil(() => passes >= 12, 120_000)
  t.ok(a.coordinator.isHeld('w'))
})

t.test('a pass that fails again and again is tried after ever longer pauses, up to a minute', async (t) => {
  for (const maxFailures of [1_000, 1]) {
    t.test(`maxFailures ${maxFailures}`, async (t) => {
      const world = new World(t)
      const a = await world.node('a')
      const begunAtMs: number[] = []
      const failing = (): void => {
        begunAtMs.push(a.clock.nowMs)
        throw new Error('no')
      }
      a.coordinator.worker({ ...single('w', failing), everyMs: 0, maxFailures } as WorkerDefinition)
      await world.start(a)
      await world.advanceUntil(() => begunAtMs.length >= 9, 600_000, 1_000)
      const pausesMs = begunAtMs.slice(1).map((atMs, index) => atMs - (begunAtMs[index] ?? 0))
      const bounds = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
      for (const [index, mostMs] of bounds.entries()) {
        const pauseMs = pausesMs[index] ?? 0
        t.ok(pauseMs > mostMs / 4 && pauseMs <= mostMs, `${pauseMs} of ${mostMs} ms`)
      }
    })
  }
})

t.test('tryAcquire answers in an outage even when trust has lapsed', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const a = await world.node('a', { wrap: failing(outage) })
  await world.start(a)
  outage.on = true
  await world.advance(world.timing.ttlMs * 2, 500)
  t.ok(a.history.includes('trust.expired'))
  await t.rejects(a.coordinator.tryAcquire('critical'), { code: 'WCO_STORE' })
  outage.on = false
  await world.advance(world.timing.ttlMs)
  t.ok(await a.coordinator.tryAcquire('critical'))
})

t.test('tryAcquire answers while another server is waited out', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  await world.start(a)
  world.identity = 'server-2'
  await world.advance(world.timing.heartbeatMs * 1.2)
  t.equal(await a.coordinator.tryAcquire('critical'), undefined)
  await world.advance(world.timing.ttlMs * 2, 500)
  t.ok(await a.coordinator.tryAcquire('critical'))
})

t.test('tryAcquire answers while the work of a lost session settles', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const b = await world.node('b')
  await world.start(a, b)
  await acquired(world, a.coordinator.acquire('critical'))
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advanceUntil(() => a.history.includes('session.lost'), world.timing.ttlMs)
  t.equal(await a.coordinator.tryAcquire('other'), undefined)
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

t.test('a lease of a worker cannot be released by its pass, only stepped down from', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const answers: unknown[] = []
  let running = 0
  a.coordinator.worker({
    name: 'job',
    kind: 'single',
    scope: 'global',
    run: async ({ lease, signal }) => {
      running++
      await (lease as Lease).release().catch((error: unknown) => answers.push(error))
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
      running--
    },
  })
  await world.start(a)
  await world.advance(5_000)
  t.match(answers, [{ code: 'WCO_OPTIONS', message: /stepDown\(\)/ }])
  t.equal(running, 1)
})

t.test('who steps down from what nobody else stands for keeps the pause between passes', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  let passes = 0
  a.coordinator.worker({
    name: 'job',
    kind: 'single',
    scope: 'global',
    everyMs: 1_000,
    run: ({ stepDown }) => {
      passes++
      stepDown(60_000)
    },
  })
  await world.start(a)
  await world.advance(10_000)
  t.ok(passes >= 9 && passes <= 11, `${passes} passes in 10 s`)
})

t.test('failures are counted for each partition by itself', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const failed = new Map<number, number>()
  const ended: string[] = []
  for (const node of [a, b]) {
    const parts = partitioned(8, ({ partition }) => {
      const failures = failed.get(partition) ?? 0
      // One partition fails on every node but `b`. The others fail once.
      if (node === b || (partition !== poisoned && failures > 0)) return
      failed.set(partition, failures + 1)
      throw new Error('no')
    })
    node.coordinator.worker({ ...parts, maxFailures: 3, cooldownMs: 600_000 })
  }
  let poisoned = -1
  a.coordinator.on('lease.acquired', ({ key }) => {
    if (poisoned < 0) poisoned = Number(key.split('#')[1])
  })
  a.coordinator.on('lease.ended', ({ key, reason }) => {
    if (reason === 'passes-failed') ended.push(key)
  })
  await world.start(a, b)
  await world.advance(60_000, 250)
  t.same(ended, [`global/parts#${poisoned}`], 'what always fails is handed on, and nothing else')
  t.ok(b.coordinator.isHeld(`global/parts#${poisoned}`))
})

t.test('a node hears of each share it gets', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const heard: string[] = []
  for (const { name, coordinator } of [a, b]) {
    coordinator.worker({ name: 'crawl', kind: 'coordinated', scope: 'global', run: () => undefined })
    coordinator.on('assignment.changed', ({ worker, index, count }) =>
      heard.push(`${name} ${worker} ${index}/${count}`),
    )
  }
  await world.start(a)
  await world.advance(1_000)
  await world.start(b)
  await world.advance(2_000)
  t.same(heard.toSorted(), ['a global/crawl 0/1', 'a global/crawl 0/2', 'b global/crawl 1/2'])
})

t.test('who waits comes before who asks just now, when the one that was named is drained', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const [a, b, c, d] = [
    await world.node('a'),
    await world.node('b', { wrap: failing(outage, 'change') }),
    await world.node('c'),
    await world.node('d'),
  ]
  await world.start(a, b, c, d)
  const held = await a.coordinator.tryAcquire('rebuild')
  for (const { coordinator } of [b, c]) {
    void coordinator.acquire('rebuild').catch(() => undefined)
    await world.advance(100)
  }
  outage.on = true
  void held?.release()
  await world.advance(200)
  await a.coordinator.operator.drain(b.coordinator.nodeId ?? '', { actor: 'ops', reason: 'it hangs' })
  t.equal(await d.coordinator.tryAcquire('rebuild'), undefined)
  await world.advance(1_000)
  t.ok(c.coordinator.isHeld('rebuild'))
  outage.on = false
})

t.test(
  'a join that was answered late is followed by a heartbeat at once, and what it begins goes on',
  async (t) => {
    const world = new World(t)
    const outage = { on: true }
    const a = await world.node('a', { wrap: failing(outage, 'change') })
    const started = watched(a.coordinator.start())
    let passes = 0
    a.coordinator.worker(single('job', () => void passes++))
    await world.advance(world.timing.ttlMs * 0.8, 500)
    outage.on = false
    await world.advanceUntil(() => started.over, world.timing.ttlMs)
    await world.advance(world.timing.ttlMs, 500)
    t.ok(passes > 0)
    t.same(
      a.history.filter((event) => event !== 'lease.acquired global/job'),
      [],
      'neither trust nor the lease was lost',
    )
  },
)

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

/** Lets pending promises proceed by `count` steps. */
async function steps(count: number): Promise<void> {
  for (let step = 0; step < count; step++) await Promise.resolve()
}

t.test('a session that is lost leaves no timer, at whatever step of a turn that is learnt', async (t) => {
  for (let step = 0; step < 12; step++) {
    const world = new World(t)
    const view = { asked: deferred(), answer: deferred(), held: false }
    const heartbeat = { answer: deferred(), held: false }
    let wake = (): void => undefined
    const a = await world.node('a', {
      wrap: (store) =>
        overriding(store, {
          listen: (node, poke) => {
            wake = poke
            return store.listen(node, poke)
          },
          view: async (node) => {
            const answer = await store.view(node)
            if (view.held) {
              view.asked.resolve()
              await view.answer.promise
            }
            return answer
          },
          heartbeat: async (node, beat) => {
            if (!heartbeat.held) return store.heartbeat(node, beat)
            await heartbeat.answer.promise
            return undefined
          },
        }),
    })
    a.coordinator.worker(single('job', () => undefined))
    await world.start(a)
    // A turn now waits for the end of the grace period in which nothing is claimed on a new server.
    world.identity = 'server-2'
    await world.advance(world.timing.heartbeatMs * 2)
    view.held = true
    heartbeat.held = true
    await world.advance(world.timing.heartbeatMs * 2)
    wake()
    await view.asked.promise
    view.answer.resolve()
    await steps(step)
    heartbeat.answer.resolve()
    await steps(100)
    t.ok(a.history.includes('session.lost'), `lost at step ${step}`)
    view.held = false
    heartbeat.held = false
    const closed = a.coordinator.close()
    await steps(1_000)
    await closed
    t.equal(a.clock.dueInMs, undefined, `nothing is left to ring after step ${step}`)
  }
})

t.test('a clean stop stays one though requests fail for some seconds', async (t) => {
  for (const how of ['work that ends at once', 'work that takes its time'] as const) {
    t.test(how, async (t) => {
      const world = new World(t)
      const outage = { on: false }
      const a = await world.node('a', { wrap: failing(outage, 'change') })
      const pass = deferred()
      const run = (): unknown => (how === 'work that ends at once' ? undefined : pass.promise)
      a.coordinator.worker(single('job', run))
      await world.start(a)
      const b = await world.node('b')
      b.coordinator.worker(single('job', () => undefined))
      await world.start(b)
      await world.advance(1_000)
      t.ok(a.coordinator.isHeld('job'))
      outage.on = true
      const closed = watched(a.coordinator.close())
      await world.advance(2_000)
      pass.resolve()
      await world.advance(2_000)
      t.notOk(closed.over)
      outage.on = false
      await world.advance(2_500)
      t.ok(closed.over)
      t.ok(b.coordinator.isHeld('job'), 'long before a ttl has passed')
      t.notOk(b.history.includes('node.gone'), 'nobody had to find out')
    })
  }
})

t.test('a stop does not outlast the trust of a node whose database is away', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const a = await world.node('a', { wrap: failing(outage) })
  a.coordinator.worker(single('job', () => undefined))
  await world.start(a)
  await world.advance(1_000)
  outage.on = true
  const closed = watched(a.coordinator.close())
  await world.advance(world.timing.ttlMs, 500)
  t.ok(closed.over)
})

t.test('who tries for a lease that this process is just getting is told that it is not free', async (t) => {
  const world = new World(t)
  const held = deferred()
  const asked = deferred()
  let holds = false
  const a = await world.node('a', {
    wrap: around(async (run) => {
      if (holds) {
        asked.resolve()
        await held.promise
      }
      return run()
    }, 'change'),
  })
  await world.start(a)
  holds = true
  const first = a.coordinator.tryAcquire('job')
  await asked.promise
  const second = watched(a.coordinator.tryAcquire('job').then((lease) => t.equal(lease, undefined)))
  holds = false
  held.resolve()
  await world.advance(1_000)
  t.ok(await first)
  t.ok(second.over)
})

t.test('a process that was drained is drained also after it has lost its session', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  for (const { coordinator } of [a, b]) coordinator.worker(partitioned(4, () => undefined))
  await world.start(a, b)
  await world.advance(3_000)
  const by = { actor: 'ops', reason: 'it is to be exchanged' }
  t.equal(await b.coordinator.operator.drain(a.coordinator.nodeId ?? '', by), 'done')
  await world.advance(3_000)
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advance(world.timing.ttlMs, 500)
  t.ok(a.history.includes('session.lost'))
  const { nodes } = await b.coordinator.status()
  const present = nodes.filter(({ state }) => state !== 'gone').map(({ name, state }) => `${name} ${state}`)
  t.same(present.sort(), ['a draining', 'b active'])
  t.notOk(a.coordinator.isHeld('parts'))
  t.equal(await b.coordinator.operator.undrain(a.coordinator.nodeId ?? '', by), 'done')
  await world.advance(3_000)
  t.ok(a.coordinator.isHeld('parts'), 'until that is called off')
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advance(world.timing.ttlMs, 500)
  t.ok(a.coordinator.isHeld('parts'), 'for good')
})

t.test('closing between two sessions waits for work that has not settled', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  const pass = deferred()
  a.coordinator.worker(single('job', () => pass.promise))
  await world.start(a)
  const b = await world.node('b')
  await world.start(b)
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advance(world.timing.heartbeatMs, 500)
  t.ok(a.history.includes('session.lost'))
  const closed = watched(a.coordinator.close())
  await world.advance(world.timing.drainTimeoutMs / 2, 500)
  t.notOk(closed.over)
  pass.resolve()
  await world.advance(500)
  t.ok(closed.over)
})

/** Returns how many events of this type each change has written, in the order of the changes. */
async function perChange(node: WorldNode, type: string): Promise<number[]> {
  const counts = new Map<number, number>()
  for (const { revision } of await node.store.events({ limit: 10_000, types: [type] }))
    counts.set(revision, (counts.get(revision) ?? 0) + 1)
  return [...counts].sort(([one], [other]) => one - other).map(([, count]) => count)
}

t.test('what is too much for one change is claimed and given back in several', async (t) => {
  const world = new World(t)
  const outage = { on: true }
  const a = await world.node('a', { wrap: failing(outage, 'change') })
  const b = await world.node('b')
  outage.on = false
  await world.start(a, b)
  outage.on = true
  const names = Array.from({ length: 1_200 }, (_, index) => `job-${index}`)
  let got = 0
  const workUnder = (lease: Lease): void => {
    got += 1
    lease.signal.addEventListener('abort', () => void lease.release())
  }
  for (const name of names) void a.coordinator.acquire(name).then(workUnder)
  await world.advance(3_000)
  outage.on = false
  await world.advanceUntil(() => got === names.length, 30_000)
  const claimed = await perChange(a, 'lease.acquired')
  t.ok((claimed[0] ?? 0) < 256, 'fewer after changes that failed')
  t.equal(Math.max(...claimed), 512, 'more again after those that did not, and no more than that')
  const closed = watched(a.coordinator.close())
  await world.advanceUntil(() => closed.over, world.timing.drainTimeoutMs)
  const released = await perChange(b, 'lease.released')
  t.equal(
    released.reduce((sum, count) => sum + count, 0),
    names.length,
  )
  t.ok(Math.max(...released) <= 512)
})

t.test(
  'passes and listeners see the context in which they were registered, whoever pokes the engine',
  async (t) => {
    const context = new AsyncLocalStorage<string>()
    const world = new World(t)
    const [a, b] = await context.run('creation', async () => [await world.node('a'), await world.node('b')])
    const seen = new Set<unknown>()
    const note = (what: string) => (): void => void seen.add(`${what}: ${context.getStore()}`)
    const pass = note('pass')
    const untilAborted = note('aborted')
    context.run('registration', () => {
      for (const { coordinator } of [a, b]) {
        coordinator.on('lease.acquired', note('acquired'))
        coordinator.on('lease.ended', note('ended'))
        coordinator.on('heartbeat.answered', note('heartbeat'))
        coordinator.worker({ ...single('often', pass), everyMs: 100 } as WorkerDefinition)
        coordinator.worker({ ...single('by-times', pass), schedule: '* * * * * *' } as WorkerDefinition)
        coordinator.worker({
          ...{ name: 'shares', kind: 'coordinated', scope: 'global' },
          run: ({ signal }: CoordinatedContext) => {
            pass()
            signal.addEventListener('abort', untilAborted, { once: true })
          },
        })
      }
    })
    await context.run('a start', () => world.start(a, b))
    await context.run('a request', async () => {
      const leases = a.coordinator.acquire('x')
      await world.advance(500)
      const release = (await leases).release()
      void b.coordinator.tryAcquire('x').then((lease) => lease?.release())
      await world.advance(500)
      await release
      const late = b.coordinator.worker(single('late', note('late')))
      const { nodeId = '' } = a.coordinator
      void b.coordinator.operator.drain(nodeId, { actor: 'ops', reason: 'a request' })
      await world.advance(world.timing.ttlMs, 500)
      void late.stop()
      await world.advance(1_000)
    })
    await context.run('a close', async () => {
      void a.coordinator.close()
      await world.advance(world.timing.ttlMs, 500)
      world.freeze(b)
      await world.advance(world.timing.ttlMs * 2, 500)
      world.thaw(b)
      await world.advance(world.timing.ttlMs, 500)
    })
    t.ok(b.history.includes('trust.expired'))
    t.same([...seen].sort(), [
      'aborted: creation',
      'acquired: registration',
      'ended: registration',
      'heartbeat: registration',
      'late: a request',
      'pass: registration',
    ])
  },
)

t.test('a worker that is stopped by a listener of its own lease begins no pass', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  let ran = 0
  const run = (): void => void ran++
  const job = a.coordinator.worker(single('job', run))
  const shares = a.coordinator.worker({ name: 'shares', kind: 'coordinated', scope: 'global', run })
  const stopped: { over: boolean }[] = []
  a.coordinator.on('lease.acquired', ({ worker }) => {
    if (worker === 'global/job') stopped.push(watched(job.stop()))
  })
  a.coordinator.on('assignment.changed', () => void stopped.push(watched(shares.stop())))
  await world.start(a)
  await world.advance(5_000)
  t.equal(ran, 0)
  t.same(stopped, [{ over: true }, { over: true }])
  t.same(
    (await a.coordinator.status()).leases.map(({ holder }) => holder),
    [null, null],
  )
})

t.test(
  'a worker that is stopped while a lease is claimed for it is stopped when that is given back',
  async (t) => {
    const world = new World(t)
    const answers = { pauseMs: 0 }
    const a: WorldNode = await world.node('a', { wrap: answeringChangesLate(() => a, answers) })
    const b = await world.node('b')
    await world.start(a, b)
    answers.pauseMs = 500
    let ran = 0
    const job = a.coordinator.worker(single('job', () => void ran++))
    const holders = async () => (await b.coordinator.operator.snapshot()).leases.map(({ holder }) => holder)
    await world.advanceUntil(async () => (await holders()).some((holder) => holder !== null), 10_000)
    let heldAtTheEnd: unknown
    const stopped = watched(
      job.stop().then(async () => {
        heldAtTheEnd = await holders()
      }),
    )
    await world.advanceUntil(() => stopped.over, 10_000)
    t.same(heldAtTheEnd, [null])
    t.equal(ran, 0)
  },
)

t.test('a worker that is stopped while it claims is stopped when its session is lost, too', async (t) => {
  const world = new World(t)
  const answers = { pauseMs: 0 }
  const a: WorldNode = await world.node('a', { wrap: answeringChangesLate(() => a, answers) })
  const b = await world.node('b')
  await world.start(a, b)
  answers.pauseMs = 500
  const job = a.coordinator.worker(single('job', () => undefined))
  const holders = async () => (await b.coordinator.operator.snapshot()).leases.map(({ holder }) => holder)
  await world.advanceUntil(async () => (await holders()).some((holder) => holder !== null), 10_000)
  const stopped = watched(job.stop())
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advanceUntil(() => stopped.over, 10_000)
  t.pass('it does not wait for a life that is over')
})

t.test('a lease that was claimed for a worker of another kind is not worked under', async (t) => {
  const world = new World(t)
  const answers = { pauseMs: 0 }
  const a: WorldNode = await world.node('a', { wrap: answeringChangesLate(() => a, answers) })
  await world.start(a)
  answers.pauseMs = 500
  const old = a.coordinator.worker(single('parts', () => undefined))
  const { operator } = a.coordinator
  await world.advanceUntil(
    async () => (await operator.snapshot()).leases.some(({ holder }) => holder !== null),
    10_000,
  )
  void old.stop()
  const keys = new Set<string>()
  let [running, most] = [0, 0]
  a.coordinator.worker(
    partitioned(1, async ({ lease }) => {
      keys.add(lease.key)
      running += 1
      most = Math.max(most, running)
      await new Promise<void>((resolve) => a.clock.setTimer(5_000, resolve))
      running -= 1
    }),
  )
  await world.advance(10_000)
  answers.pauseMs = 0
  await world.advance(5_000)
  t.same([...keys], ['global/parts#0'])
  t.equal(most, 1)
})

t.test('a worker that was refused is taken once nobody contradicts it any more', async (t) => {
  const world = new World(t)
  const errors: string[] = []
  const error = (_fields: object, message: string): void => void errors.push(message)
  const [a, b] = [await world.node('a'), await world.node('b', { log: { ...silentLog, error } })]
  a.coordinator.worker(partitioned(4, () => undefined))
  await world.start(a, b)
  let ran = 0
  let refused = 0
  b.coordinator.on('worker.refused', () => void refused++)
  const parts = b.coordinator.worker(partitioned(8, () => void ran++))
  await world.advance(world.timing.ttlMs * 3, 500)
  t.equal(parts.state, 'refused')
  t.same([refused, errors], [1, ['a worker was refused']], 'which is told once')
  void a.coordinator.close()
  await world.advance(world.timing.ttlMs * 2, 500)
  t.equal(parts.state, 'working')
  t.ok(ran > 0)
})

t.test('a node that hangs is passed over though others come and go in the queue meanwhile', async (t) => {
  const world = new World(t)
  const outage = { on: false }
  const a = await world.node('a')
  const b = await world.node('b', { wrap: failing(outage, 'change') })
  const [c, d] = [await world.node('c'), await world.node('d')]
  await world.start(a, b, c, d)
  const held = await a.coordinator.acquire('x')
  void b.coordinator.acquire('x').catch(() => undefined)
  await world.advance(1_000)
  const next = watched(c.coordinator.acquire('x'))
  await world.advance(1_000)
  let asking = true
  const askAgain = async (): Promise<void> => {
    while (asking)
      await d.coordinator.acquire('x', { timeoutMs: 1_000 }).then(
        (lease) => lease.release(),
        () => undefined,
      )
  }
  const asked = askAgain()
  await world.advance(2_000)
  outage.on = true
  void held.release()
  await world.advance(20_000)
  t.ok(next.over)
  outage.on = false
  asking = false
  await world.advance(2_000)
  await asked
})
