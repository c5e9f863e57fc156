/** Tests how the methods of a coordinator refuse wrong input from an application. */
import t from 'tap'
import { maxCooldownMs } from '../../plugin/core/changes/rows.js'
import { CoordinationError } from '../../plugin/core/errors.js'
import {
  GloballyCoordinatedWorker,
  SingleInstanceClusterWorker,
} from '../../plugin/core/work/base-classes.js'
import { makeAssignment, type PassContext } from '../../plugin/core/work/worker.js'
import { leaderOnly } from '../../plugin/http/leader-only.js'
import { runCoordinator } from '../../plugin/node-cron.js'
import { instrument } from '../../plugin/opentelemetry.js'
import { World } from '../support/world.js'

/** A value as a program without types would use it. */
// biome-ignore lint/suspicious/noExplicitAny: no type allows what must be tried here
type Untyped = any

async function refusal(work: () => Promise<unknown>): Promise<CoordinationError> {
  const error = await work().then(
    () => undefined,
    (failure: unknown) => failure,
  )
  if (error instanceof CoordinationError) return error
  throw new Error(`expected a CoordinationError, got ${error}`)
}

t.test('a scope that is none is refused, and no other lease taken instead', async (t) => {
  const world = new World(t)
  const a = await world.node('a', { cluster: 'eu' })
  await world.start(a)
  const coordinator = a.coordinator as Untyped
  const verbs: Record<string, () => Promise<unknown>> = {
    acquire: () => coordinator.acquire('billing', { scope: 'Global' }),
    tryAcquire: () => coordinator.tryAcquire('billing', { scope: 'Global' }),
    claimTime: () => coordinator.claimTime('billing', new Date(), { scope: 'Global' }),
  }
  for (const [verb, call] of Object.entries(verbs)) {
    const { code, message } = await refusal(call)
    t.equal(code, 'WCO_OPTIONS')
    t.equal(message, `${verb}: \`scope\` must be "cluster" or "global", got "Global".`)
  }
  t.throws(() => runCoordinator(coordinator, { scope: 'all' } as Untyped), {
    message: 'runCoordinator: `scope` must be "cluster" or "global", got "all".',
  })
  t.same((await a.coordinator.status()).leases, [])
})

t.test('a worker or its handle is not taken for a name', async (t) => {
  const { coordinator } = await new World(t).node('a')
  const handle: Untyped = coordinator.worker({
    name: 'w',
    kind: 'single',
    scope: 'global',
    run: () => undefined,
  })
  for (const given of [handle, undefined, '']) {
    const message = /: the first argument must be a name or a key, got /
    t.throws(() => coordinator.isHeld(given), { code: 'WCO_OPTIONS', message })
    t.throws(() => coordinator.keyOfSingle(given), { code: 'WCO_OPTIONS', message })
  }
})

t.test('where a coordinator is expected, one that is not there yet is refused', async (t) => {
  for (const given of [undefined, {}]) {
    const calls: Readonly<Record<string, () => unknown>> = {
      runCoordinator: () => runCoordinator(given as Untyped),
      instrument: () => instrument(given as Untyped),
      leaderOnly: () => leaderOnly(given as Untyped, 'orders'),
    }
    for (const [name, call] of Object.entries(calls))
      t.throws(call, {
        code: 'WCO_OPTIONS',
        message: `${name}: expected a coordinator, got ${given === undefined ? 'undefined' : 'an object'}. There is no \`app.coordination\` until the registration of the plugin has been awaited.`,
      })
  }
})

t.test('options that are wrong, or that there are not, are refused with what was expected', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  await world.start(a)
  const coordinator = a.coordinator as Untyped
  const wrong: readonly [string, () => Promise<unknown>, RegExp][] = [
    [
      'a typing error',
      () => coordinator.acquire('q', { timeout: 1 }),
      /no option `timeout` \(did you mean `timeoutMs`\?\); there are `scope`, `signal`, `timeoutMs`/,
    ],
    [
      'an option of another',
      () => coordinator.tryAcquire('q', { timeoutMs: 1 }),
      /tryAcquire: there is no option `timeoutMs`; there is `scope`/,
    ],
    ['no object', () => coordinator.acquire('q', 5), /acquire: expected an object with options, got 5/],
    ['null', () => coordinator.acquire('q', null), /got null/],
    [
      'a text',
      () => coordinator.acquire('q', { timeoutMs: '3s' }),
      /`timeoutMs` must be a whole number of milliseconds from 0 to 2147483647, got "3s"/,
    ],
    ['no number', () => coordinator.acquire('q', { timeoutMs: Number.NaN }), /got NaN/],
    ['less than nothing', () => coordinator.acquire('q', { timeoutMs: -1 }), /got -1/],
    ['more than a timer holds', () => coordinator.acquire('q', { timeoutMs: 2 ** 31 }), /got 2147483648/],
    ['no signal', () => coordinator.acquire('q', { signal: 5 }), /`signal` must be an AbortSignal, got 5/],
    ['no time', () => coordinator.claimTime('q', '2026-01-01'), /the time must be a Date, got "2026-01-01"/],
    ['a Date that is none', () => coordinator.claimTime('q', new Date('soon')), /got one that is no time/],
  ]
  for (const [what, call, expected] of wrong) {
    const { code, message } = await refusal(call)
    t.equal(code, 'WCO_OPTIONS', what)
    t.match(message, expected)
  }
})

t.test('a worker that asks for too many failures is told how many there may be', async (t) => {
  const world = new World(t)
  const { coordinator } = await world.node('a')
  const job = { name: 'job', kind: 'single', scope: 'global', run: () => undefined } as const
  for (const maxFailures of [0, 1_000_001, Number.POSITIVE_INFINITY])
    t.throws(() => coordinator.worker({ ...job, maxFailures }), {
      code: 'WCO_OPTIONS',
      message: new RegExp(`must be a whole number from 1 to 1000000, got ${maxFailures}\\.$`),
    })
  t.ok(coordinator.worker({ ...job, maxFailures: 1_000_000 }))
})

t.test('a worker whose function is a generator is refused: calling it begins nothing', async (t) => {
  const world = new World(t)
  const { coordinator } = await world.node('a')
  const job = { name: 'job', kind: 'single', scope: 'global' } as const
  const generators = {
    async *later() {
      yield await coordinator.status()
    },
    *atOnce() {
      yield coordinator.health()
    },
  }
  for (const run of Object.values(generators))
    t.throws(() => coordinator.worker({ ...job, run }), {
      code: 'WCO_OPTIONS',
      message: /`run` must not be a generator: what it does would never begin/,
    })
})

t.test('a pass that returns a generator has failed: what it does has not begun', async (t) => {
  const world = new World(t)
  const { coordinator } = await world.node('a')
  async function* later() {
    yield await coordinator.status()
  }
  class OfCluster extends SingleInstanceClusterWorker {
    override executeLeaderWork = later
  }
  class Coordinated extends GloballyCoordinatedWorker {
    override executeCoordinatedWork = later
  }
  const failures = new Map<string, unknown>()
  coordinator.on('pass.failed', ({ key, error }) => failures.set(key, error))
  coordinator.worker(new OfCluster('of-cluster'))
  coordinator.worker(new Coordinated('coordinated'))
  coordinator.worker({
    name: 'hidden',
    kind: 'partitioned',
    scope: 'global',
    partitions: 1,
    run: () => later(),
  })
  await coordinator.start()
  await world.advance(1_000)
  t.same([...failures.keys()].sort(), ['default/of-cluster', 'global/coordinated#0', 'global/hidden#0'])
  for (const error of failures.values())
    t.match(error, {
      code: 'WCO_OPTIONS',
      message: 'The pass returned a generator: what it does has not begun.',
    })
})

t.test('a cool-down may be drawn by chance, and is refused where it is no number', async (t) => {
  const world = new World(t)
  const [a, b] = [await world.node('a'), await world.node('b')]
  const errors: unknown[] = []
  let stepDown: PassContext['stepDown'] | undefined
  for (const node of [a, b])
    node.coordinator.worker({
      name: 'job',
      kind: 'single',
      scope: 'global',
      run: (context) => {
        if (node === a) stepDown ??= context.stepDown
      },
    })
  await world.start(a, b)
  await world.advance(500)
  for (const cooldownMs of [Number.NaN, -1, maxCooldownMs + 1, '60s' as Untyped])
    try {
      stepDown?.(cooldownMs)
    } catch (error) {
      errors.push(error)
    }
  t.equal(errors.length, 4)
  for (const error of errors)
    t.match(error, {
      code: 'WCO_OPTIONS',
      message: /^stepDown: `cooldownMs` must be a number of milliseconds from 0 to 86400000, got /,
    })
  t.ok(a.coordinator.isHeld('job'), 'and the term goes on')
  stepDown?.(1_500.5)
  await world.advance(500)
  t.ok(b.coordinator.isHeld('job'))
  const snapshot = await b.store.snapshot()
  t.ok(Number.isInteger(snapshot.leases[0]?.cooldownUntilMs), 'and what is written is whole')
})

t.test('an operator is told of a cool-down that is none', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  await world.start(a)
  const order = { key: 'global/job', token: 1, actor: 'ops', reason: 'a test' }
  const { operator } = a.coordinator
  for (const call of [
    () => operator.release({ ...order, cooldownMs: Number.NaN }),
    () => operator.transfer({ ...order, cooldownMs: Number.POSITIVE_INFINITY }),
  ]) {
    const { code, message } = await refusal(call)
    t.equal(code, 'WCO_OPTIONS')
    t.match(message, /^operator\.\w+: `cooldownMs` must be a number of milliseconds from 0 to 86400000, got /)
  }
})

t.test('an operator who does not say who asks and why is told so, and nothing happens', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  a.coordinator.worker({ name: 'job', kind: 'single', scope: 'global', run: () => undefined })
  await world.start(a)
  const operator = a.coordinator.operator as Untyped
  const key = 'global/job'
  const calls: readonly [() => Promise<unknown>, RegExp][] = [
    [
      () => operator.pause(key),
      /^operator\.pause: `actor`: expected 1 to 200 characters, .*got undefined\.$/,
    ],
    [
      () => operator.resume(key, { actor: 'ops', reason: '' }),
      /^operator\.resume: `reason`: expected 3 to 200/,
    ],
    [() => operator.drain('n', { actor: 'a\nb', reason: 'a test' }), /got "a\\nb"/],
    [() => operator.undrain('n', {}), /^operator\.undrain: `actor`/],
    [() => operator.forget('n', { actor: 'ops' }), /^operator\.forget: `reason`.*got undefined/],
    [() => operator.forgetWorker(key, { actor: 'ops' }), /^operator\.forgetWorker: `reason`.*got undefined/],
    [() => operator.release({ key, token: 1 }), /^operator\.release: `actor`/],
    [
      () => operator.transfer({ key, token: 1, actor: 'ops', reason: 5 }),
      /^operator\.transfer: `reason`.*got 5/,
    ],
    [() => operator.rebalance({ key }), /^operator\.rebalance: `actor`/],
  ]
  for (const [call, expected] of calls) {
    const { code, message } = await refusal(call)
    t.equal(code, 'WCO_OPTIONS')
    t.match(message, expected)
  }
  t.notOk((await a.coordinator.status()).workers[0]?.paused)
})

t.test(
  'an order that does not say which term, or whose, is refused and not taken for an old one',
  async (t) => {
    const world = new World(t)
    const a = await world.node('a')
    await world.start(a)
    const operator = a.coordinator.operator as Untyped
    const by = { actor: 'ops', reason: 'a test' }
    const key = 'global/job'
    const calls: readonly [() => Promise<unknown>, string][] = [
      [
        () => operator.release({ ...by, key }),
        'operator.release: `token` must be a whole number, got undefined.',
      ],
      [
        () => operator.transfer({ ...by, key, token: '7' }),
        'operator.transfer: `token` must be a whole number, got "7".',
      ],
      [
        () => operator.release({ ...by, token: 7 }),
        'operator.release: `key` must be a key like "global/month-close", got undefined.',
      ],
      [
        () => operator.release({ ...by, key, token: 7, immediate: 'no' }),
        'operator.release: `immediate` must be true or false, got "no".',
      ],
      [
        () => operator.transfer({ ...by, key, token: 7, to: 5 }),
        'operator.transfer: `to` must be the id of a node, got 5.',
      ],
      [
        () => operator.rebalance({ ...by, key, dryRun: 1 }),
        'operator.rebalance: `dryRun` must be true or false, got 1.',
      ],
      [
        () => operator.rebalance({ ...by, key, revision: 0.5 }),
        'operator.rebalance: `revision` must be a whole number, got 0.5.',
      ],
      [
        () => operator.pause(undefined, by),
        'operator.pause: the first argument must be a key like "global/month-close", got undefined.',
      ],
      [() => operator.drain('', by), 'operator.drain: the first argument must be the id of a node, got "".'],
      [
        () => operator.resume('global/job\0', by),
        'operator.resume: the first argument must be a key like "global/month-close", got "global/job\\u0000".',
      ],
    ]
    for (const [call, expected] of calls) {
      const { code, message } = await refusal(call)
      t.equal(code, 'WCO_OPTIONS')
      t.equal(message, expected)
    }
  },
)

t.test('an order with a part that there is not is refused, and nothing is done', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  a.coordinator.worker({ name: 'job', kind: 'single', scope: 'global', run: () => undefined })
  await world.start(a)
  const operator = a.coordinator.operator as Untyped
  const by = { actor: 'ops', reason: 'a test' }
  const [key, token] = ['global/job', (await operator.snapshot()).leases[0].token]
  const calls: readonly [() => Promise<unknown>, RegExp][] = [
    [
      () => operator.release({ ...by, key, token, imediate: true }),
      /^operator\.release: there is no option `imediate` \(did you mean `immediate`\?\); there are `key`, `token`/,
    ],
    [() => operator.release({ ...by, key, token, to: 'a' }), /^operator\.release: there is no option `to`/],
    [() => operator.transfer({ ...by, key, token, dryRun: true }), /^operator\.transfer: .* `dryRun`/],
    [() => operator.rebalance({ ...by, key, dryrun: true }), /did you mean `dryRun`\?/],
    [
      () => operator.pause(key, { ...by, forMs: 1 }),
      /^operator\.pause: .* `forMs`; there are `actor`, `reason`/,
    ],
    [() => operator.resume(key, { ...by, key }), /^operator\.resume: there is no option `key`/],
    [
      () => operator.drain(a.coordinator.nodeId, { ...by, immediate: true }),
      /^operator\.drain: .* `immediate`/,
    ],
    [() => operator.undrain(a.coordinator.nodeId, { ...by, '\n': 1 }), /there is no option "\\n"/],
    [() => operator.forget('n', { ...by, force: true }), /^operator\.forget: there is no option `force`/],
  ]
  for (const [call, expected] of calls) {
    const { code, message } = await refusal(call)
    t.equal(code, 'WCO_OPTIONS')
    t.match(message, expected)
  }
  t.ok(a.coordinator.isHeld('job'))
  t.same(
    (await a.coordinator.operator.events({ limit: 50 })).filter(({ actor }) => actor === 'ops'),
    [],
  )
})

t.test('a question about events that makes no sense is refused and not answered', async (t) => {
  const world = new World(t)
  const a = await world.node('a')
  await world.start(a)
  const operator = a.coordinator.operator as Untyped
  const calls: readonly [() => Promise<unknown>, RegExp][] = [
    [() => operator.events(), /^operator\.events: expected an object with options, got undefined\.$/],
    [() => operator.events({}), /`limit` must be a whole number from 1 to 2147483647, got undefined/],
    [() => operator.events({ limit: 'x' }), /`limit` .* got "x"/],
    [() => operator.events({ limit: -1 }), /`limit` .* got -1/],
    [() => operator.events({ limit: 0 }), /`limit` .* got 0/],
    [() => operator.events({ limit: 1.5 }), /`limit` .* got 1\.5/],
    [
      () => operator.events({ limit: 1, after: '1-0' }),
      /`after` must be \{ revision, position \}.* got "1-0"/,
    ],
    [() => operator.events({ limit: 1, after: { revision: 1 } }), /`after` .* got an object/],
    [() => operator.events({ limit: 1, after: null }), /`after` .* got null/],
    [
      () => operator.events({ limit: 1, after: { revision: 1, position: 2 ** 31 } }),
      /`after` .* got an object/,
    ],
    [() => operator.events({ limit: 1, type: 'node.left' }), /no option `type` \(did you mean `types`\?\)/],
    [() => operator.events({ limit: 1, types: 'node.left' }), /`types` must be a list .* got "node.left"/],
    [() => operator.events({ limit: 1, types: [1] }), /`types` .* got an array/],
    [() => operator.events({ limit: 1, types: ['node.\0'] }), /`types` .* got an array/],
    [() => operator.events({ limit: 1, subject: 5 }), /`subject` must be the key .* got 5/],
    [() => operator.events({ limit: 1, subject: '\0' }), /`subject` must be the key .* got "\\u0000"/],
    [() => operator.namespaces('all'), /^operator\.namespaces: the first argument must be .* got "all"/],
  ]
  for (const [call, expected] of calls) {
    const { code, message } = await refusal(call)
    t.equal(code, 'WCO_OPTIONS')
    t.match(message, expected)
  }
  const [latest] = await a.coordinator.operator.events({ limit: 1 })
  t.match(latest, { type: 'node.joined' })
  t.same(
    await operator.events({ limit: 1, after: latest, types: undefined, subject: undefined }),
    [],
    'an event will do as a place',
  )
})

t.test('an option of a worker that there is not is refused, with the one that was meant', async (t) => {
  const world = new World(t)
  const { coordinator } = await world.node('a')
  const job = { name: 'job', kind: 'single', scope: 'global', run: () => undefined } as const
  t.throws(() => coordinator.worker({ ...job, maxFailure: 3 } as Untyped), {
    message: /there is no option `maxFailure` \(did you mean `maxFailures`\?\)/,
  })
  t.throws(() => coordinator.worker({ ...job, interval: 3 } as Untyped), {
    message: /there is no option `interval`; the options are `name`, .*`everyMs`/,
  })
})

t.test('who listens for an event that there is not, or with no function, is told so', async (t) => {
  const world = new World(t)
  const coordinator = (await world.node('a')).coordinator as Untyped
  for (const method of ['on', 'once', 'off']) {
    t.throws(() => coordinator[method]('lease.aquired', () => undefined), {
      code: 'WCO_OPTIONS',
      message:
        /^\w+: there is no event "lease\.aquired"; there are "node\.joined", .*"lease\.acquired", .*\.$/,
    })
    t.throws(() => coordinator[method]('constructor', () => undefined), { code: 'WCO_OPTIONS' })
    t.throws(() => coordinator[method]('lease.acquired', 3), {
      code: 'WCO_OPTIONS',
      message: `${method}: the listener of "lease.acquired" must be a function, got 3.`,
    })
  }
})

t.test('who wraps passes in no function is told so', async (t) => {
  const world = new World(t)
  const coordinator = (await world.node('a')).coordinator as Untyped
  t.throws(() => coordinator.aroundPasses(undefined), {
    code: 'WCO_OPTIONS',
    message: 'aroundPasses: the first argument must be a function, got undefined.',
  })
})

t.test('who acquires before the start is told when there will have been one', async (t) => {
  const world = new World(t)
  const { coordinator } = await world.node('a')
  const { code, message } = await refusal(() => coordinator.acquire('billing'))
  t.equal(code, 'WCO_NOT_RUNNING')
  t.match(message, /wait until the application is ready \(or listens, with autoStart: 'listen'\)\.$/)
})

t.test('a key that is none is refused, since one share would own all such items', async (t) => {
  const assignment = makeAssignment(0, 1, 1)
  for (const key of ['a', '', 0, 1.5, 7n]) t.equal(assignment.owns(key), true)
  const { owns }: Untyped = assignment
  for (const key of [undefined, null, Number.NaN, {}, true, ['a']])
    t.throws(() => owns(key), {
      code: 'WCO_OPTIONS',
      message: /^assignment\.owns: the key must be a string, a number or a bigint, got /,
    })
})
