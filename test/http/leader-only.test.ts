/** Tests routes that only the leader answers. */
import { Type, type TypeBoxTypeProvider, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { deferred } from '../../plugin/core/time/loop.js'
import { leaderOnly } from '../../plugin/index.js'
import { useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { mira, untilAborted, useApp } from './application.js'

type Workers = NonNullable<NonNullable<Parameters<typeof useApp>[1]>['workers']>

/** Starts two applications on one database, with a route for leaders only. */
async function useTwo(t: Test, labels: Readonly<Record<string, string>>, redirect: boolean) {
  const { url } = await useSqlite(t)
  const start = (node: string) =>
    useApp(t, {
      url,
      node,
      app: Fastify(),
      options: { authorize: mira, labels },
      workers: [{ name: 'orders', kind: 'single', scope: 'cluster', run: untilAborted }],
      after: (app) => {
        const preHandler = leaderOnly(app.coordination, 'orders', { redirect })
        app.post('/orders', { preHandler }, async () => ({ by: node }))
      },
    })
  const [leader, other] = [await start('n1'), await start('n2')]
  await eventually(() => leader.coordination.isHeld('orders'))
  return { leader, other }
}

const orders = Type.Object({ by: Type.Optional(Type.String()) })
const order = { method: 'POST', url: '/orders?express=1' } as const

t.test('the leader answers; elsewhere the answer says who leads', async (t) => {
  const { leader, other } = await useTwo(t, { url: 'https://n1.example/base/' }, false)
  t.strictSame((await leader.inject(order)).json(), { by: 'n1' })
  const answer = await other.inject(order)
  t.equal(answer.statusCode, 421)
  t.match(answer.json(), { detail: '"orders" is led by the node "n1".' })
})

t.test('elsewhere it is sent on to the address the leader has given itself', async (t) => {
  const { other } = await useTwo(t, { url: 'https://n1.example/base/' }, true)
  const answer = await other.inject(order)
  t.equal(answer.statusCode, 307)
  t.equal(answer.headers.location, 'https://n1.example/base/orders?express=1')
})

t.test('elsewhere the handler is not called, however long hooks hold the answer back', async (t) => {
  for (const redirect of [false, true]) {
    const { url } = await useSqlite(t)
    const handled: string[] = []
    const start = (node: string) =>
      useApp(t, {
        url,
        node,
        app: Fastify(),
        options: { authorize: mira, labels: { url: 'https://n1.example' } },
        workers: [{ name: 'orders', kind: 'single', scope: 'cluster', run: untilAborted }],
        after: (app) => {
          app.addHook('onSend', () => new Promise((resolve) => setImmediate(resolve)))
          const preHandler = leaderOnly(app.coordination, 'orders', { redirect })
          app.post('/orders', { preHandler }, async () => void handled.push(node))
        },
      })
    const [leader, other] = [await start('n1'), await start('n2')]
    await eventually(() => leader.coordination.isHeld('orders'))
    t.equal((await other.inject(order)).statusCode, redirect ? 307 : 421)
    await leader.inject(order)
    t.strictSame(handled, ['n1'])
  }
})

t.test('many routes for leaders read the database once for all who ask at the same time', async (t) => {
  const gate = deferred()
  let entered = 0
  const { url } = await useSqlite(t)
  const app = await useApp(t, {
    url,
    app: Fastify(),
    options: { authorize: mira, autoStart: false },
    after: (app) => {
      for (const path of ['/orders', '/invoices', '/reports']) {
        const count = async (): Promise<void> => {
          entered += 1
        }
        app.get(path, { preHandler: [count, leaderOnly(app.coordination, 'orders')] }, async () => ({}))
      }
    },
  })
  let readings = 0
  const { operator } = app.coordination
  const snapshot = operator.snapshot.bind(operator)
  operator.snapshot = async () => {
    readings += 1
    await gate.promise
    return snapshot()
  }
  const answers = ['/orders', '/invoices', '/reports'].map(async (path) => app.inject(path))
  await eventually(() => entered === 3)
  await new Promise((resolve) => setImmediate(resolve))
  gate.resolve()
  for (const { statusCode } of await Promise.all(answers)) t.equal(statusCode, 503)
  t.equal(readings, 1)
})

t.test('applications of every kind accept it: HTTP/1.1, HTTPS, HTTP/2, with type providers', async (t) => {
  const { leader, other } = await useTwo(t, {}, false)
  for (const [{ coordination }, status] of [
    [leader, 200],
    [other, 421],
  ] as const) {
    const preHandler = leaderOnly(coordination, 'orders')
    const logger = { level: 'silent' }
    // What matters most is that each of these lines compiles.
    const typed = Fastify()
      .setValidatorCompiler(TypeBoxValidatorCompiler)
      .withTypeProvider<TypeBoxTypeProvider>()
    const apps = [
      Fastify({ logger }).get('/orders', { preHandler }, async () => 'done'),
      Fastify({ https: {} }).get('/orders', { preHandler: [preHandler] }, async () => 'done'),
      Fastify({ http2: true, logger }).get('/orders', { preHandler }, async () => 'done'),
      Fastify({ http2: true, https: {} }).get('/orders', { preHandler: [preHandler] }, async () => 'done'),
      Fastify({ http2: true })
        .addHook('preHandler', preHandler)
        .get('/orders', async () => 'done'),
      typed.get(
        '/orders',
        { preHandler, schema: { querystring: orders } },
        async ({ query }) => query.by ?? 'done',
      ),
    ]
    for (const app of apps) {
      t.teardown(() => app.close())
      const answer = await app.inject({ method: 'GET', url: '/orders' })
      t.equal(answer.statusCode, status)
    }
  }
})

t.test('another lease that is called the same lets no request through', async (t) => {
  const { url } = await useSqlite(t)
  const start = (node: string, workers: Workers) =>
    useApp(t, {
      url,
      node,
      app: Fastify(),
      options: { authorize: mira },
      workers,
      after: (app) => {
        app.post('/orders', { preHandler: leaderOnly(app.coordination, 'orders') }, async () => ({
          by: node,
        }))
        const preHandler = leaderOnly(app.coordination, 'global/orders')
        app.post('/global', { preHandler }, async () => ({ by: node }))
      },
    })
  const single = { name: 'orders', kind: 'single', run: untilAborted } as const
  const leader = await start('n1', [{ ...single, scope: 'global' }])
  await eventually(() => leader.coordination.isHeld('global/orders'))

  const other = await start('n2', [])
  const lease = await other.coordination.acquire('orders', { scope: 'cluster' })
  t.ok(other.coordination.isHeld('orders'), 'a name means every lease called so')
  t.notOk(other.coordination.isHeld('global/orders'))
  t.match((await other.inject(order)).json(), { status: 421, detail: '"orders" is led by the node "n1".' })
  await lease.release()

  const both = await start('n3', [{ ...single, scope: 'cluster' }])
  await eventually(() => both.coordination.isHeld('c1/orders'))
  t.strictSame((await both.inject(order)).json(), { by: 'n3' }, 'of two the one of its cluster is meant')
  t.equal((await both.inject({ ...order, url: '/global' })).statusCode, 421, 'unless the other one is named')
  t.match(
    (await other.inject(order)).json(),
    { status: 421, detail: '"orders" is led by the node "n3".' },
    'and so for a node that stands for neither',
  )
})

t.test('a leader without a usable address is named instead', async (t) => {
  const unusable = [
    'javascript:alert(1)',
    'https://n1.example/?x=',
    'https://n1.example/€',
    'https://knöten.example',
  ]
  for (const labels of [{}, ...unusable.map((url) => ({ url }))]) {
    const { other } = await useTwo(t, labels, true)
    t.equal((await other.inject(order)).statusCode, 421, JSON.stringify(labels))
  }
})

t.test('a leader whose pass outlasts its term is not sent to itself', async (t) => {
  const pass = deferred()
  const app = await useApp(t, {
    options: { authorize: mira, labels: { url: 'https://n1.example' } },
    workers: [{ name: 'orders', kind: 'single', scope: 'cluster', run: () => pass.promise }],
    after: (app) => {
      const preHandler = leaderOnly(app.coordination, 'orders', { redirect: true })
      app.post('/orders', { preHandler }, async () => ({}))
    },
  })
  // The teardown registered last runs first: closing waits for the pass.
  t.teardown(() => pass.resolve())
  const { coordination } = app
  await eventually(() => coordination.isHeld('orders'))
  const ended = new Promise((resolve) => coordination.once('lease.ended', resolve))
  await coordination.operator.pause('c1/orders', { actor: 'ops', reason: 'a deploy' })
  await ended
  const answer = await app.inject(order)
  const { leases } = await coordination.status()
  t.match(leases, [{ key: 'c1/orders', holder: { name: 'n1' } }], 'by its rows it still leads')
  t.equal(answer.statusCode, 503)
  t.equal(answer.headers['retry-after'], '1')
  t.equal(answer.headers.location, undefined)
})

t.test('while nobody leads it is unavailable', async (t) => {
  const app = await useApp(t, {
    after: (app) => {
      const preHandler = leaderOnly(app.coordination, 'orders')
      app.post('/orders', { preHandler }, async () => ({}))
    },
  })
  const answer = await app.inject(order)
  t.equal(answer.statusCode, 503)
  t.equal(answer.headers['retry-after'], '1')
  for (const worker of [7, '', 'a\0b'])
    t.throws(() => leaderOnly(app.coordination, worker as never), {
      code: 'WCO_OPTIONS',
      message: /^leaderOnly: the second argument must be a name or a key, got/,
    })
  t.throws(() => leaderOnly(app.coordination, 'orders', { redirect: 1 as never }), { code: 'WCO_OPTIONS' })
  t.throws(() => leaderOnly(undefined as never, 'orders'), { code: 'WCO_OPTIONS' }, 'not registered yet')
  const misspelt = { redirects: true } as object
  t.throws(() => leaderOnly(app.coordination, 'orders', misspelt), {
    code: 'WCO_OPTIONS',
    message: /^leaderOnly: there is no option `redirects` \(did you mean `redirect`\?\)/,
  })
  t.throws(() => leaderOnly(app.coordination, 'orders', null as never), { code: 'WCO_OPTIONS' })
  t.doesNotThrow(() => leaderOnly(app.coordination, 'orders', { redirect: undefined }))
})

t.test(
  'a worker that nobody has registered is told of once, and no request leaves a stack in the log',
  async (t) => {
    const lines: { readonly level: number; readonly msg: string }[] = []
    const stream = { write: (line: string) => void lines.push(JSON.parse(line)) }
    const app = await useApp(t, {
      app: Fastify({ pluginTimeout: 60_000, logger: { level: 'info', stream } }),
      workers: [{ name: 'orders', kind: 'single', scope: 'cluster', run: untilAborted }],
      after: (app) => {
        const preHandler = leaderOnly(app.coordination, 'oders')
        app.post('/orders', { preHandler }, async () => ({}))
      },
    })
    await eventually(() => app.coordination.isHeld('orders'))
    for (let request = 1; request <= 3; request++) {
      const answer = await app.inject(order)
      t.equal(answer.statusCode, 503)
      t.match(answer.json(), { detail: 'No node has registered a worker "oders".' })
    }
    const grave = lines.filter(({ level }) => level > 30)
    t.match(grave, [
      { level: 40, msg: /^leaderOnly: no node/, worker: 'oders', namespace: 'default', known: ['c1/orders'] },
    ])
    t.equal(grave.length, 1)
  },
)
