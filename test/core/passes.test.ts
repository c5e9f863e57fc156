/** Tests passes: what is around them, what becomes of their errors, and in which context they run. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import { silentLog } from '../../plugin/core/log.js'
import type { Lease } from '../../plugin/core/work/lease.js'
import type {
  AroundPass,
  CoordinatedContext,
  Pass,
  SingleContext,
  WorkerDefinition,
} from '../../plugin/core/work/worker.js'
import { partitioned, single, untilAborted } from '../support/workers.js'
import { holders, World } from '../support/world.js'

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

t.test('a pass that fails too often hands the worker to another node', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  let failures = 0
  a.coordinator.worker(
    untilAborted('month-close', {
      maxFailures: 3,
      run: () => {
        failures++
        throw new Error('no')
      },
    }),
  )
  b.coordinator.worker(untilAborted('month-close'))
  await world.start(a, b)
  await world.advance(30_000)
  t.equal(failures, 3)
  t.same(holders(world.nodes, 'month-close'), ['b'])
  t.ok(a.history.includes('lease.ended global/month-close passes-failed'))
  const [released] = await b.coordinator.operator.events({ limit: 1, types: ['lease.released'] })
  t.match(released, { node: a.coordinator.nodeId, reason: 'passes-failed' })
})
