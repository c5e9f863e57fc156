/** Tests the routes as a whole: each is guarded, and they affect nothing outside them. */
import { createServer, request } from 'node:http'
import Fastify, { type RouteOptions } from 'fastify'
import t from 'tap'
import { actions, alters } from '../../plugin/http/guard/access.js'
import { routes } from '../../plugin/http/routes.js'
import workerCoordination from '../../plugin/index.js'
import { useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { listening, over, threeWorkers, useApp } from './application.js'

t.test('every route names what it does, and none that alters something calls it reading', async (t) => {
  const all = await routesOf(t)
  t.ok(all.length > 25)
  for (const { method, url, config } of all) {
    const action = config?.coordinationAction
    t.ok(action !== undefined && actions.includes(action), `${method} ${url}`)
    t.equal(
      action !== undefined && alters(action),
      !['GET', 'HEAD'].includes(String(method)),
      `${method} ${url}: ${action}`,
    )
    t.equal(action === 'probe', url.includes('/health'), `${method} ${url}: ${action}`)
  }
})

t.test('a route that does not is refused when it is added', async (t) => {
  const app = await useApp(t, { options: { http: false } })
  const other = Fastify()
  t.teardown(() => other.close())
  other.register(async (scope) => {
    await routes(scope, { coordinator: app.coordination, name: 'x' })
    scope.get('/more', async () => 'unguarded')
  })
  await t.rejects(async () => other.ready(), { message: 'The route /more names no action' })
})

t.test(
  'every route answers a stranger 403, but for the two that say a word about their process',
  async (t) => {
    const all = await routesOf(t)
    const open = ['/coordination/health', '/coordination/health/ready']
    const app = await useApp(t, { options: { authorize: () => false } })
    for (const { method, url } of all) {
      const path = url.replace(/:key.*?(?=\/|$)(\(.*?\))*/, 'c1:x').replace(':id', 'x')
      const reply = await app.inject({ method: method as 'GET', url: path })
      t.equal(reply.statusCode, open.includes(path) ? 200 : 403, `${method} ${path}`)
    }
  },
)

t.test(
  "an application's own compilers, parsers, hooks and error handler are its own, and ours are ours",
  async (t) => {
    const app = await useApp(t, {
      options: {},
      before: (app) => {
        app.setValidatorCompiler<unknown>(({ schema }) => {
          if (schema !== 'theirs') throw new Error('Only schemas of another language')
          return () => ({ value: { theirs: true } })
        })
        app.setSerializerCompiler<unknown>(({ schema }) => {
          if (schema !== 'theirs') throw new Error('Only schemas of another language')
          return () => '"theirs"'
        })
        app.setErrorHandler((_error, _request, reply) => reply.code(418).send())
        app.addContentTypeParser('application/json', { parseAs: 'string' }, async () => 'parsed by them')
        app.post(
          '/theirs',
          { schema: { body: 'theirs', response: { 200: 'theirs' } } },
          async ({ body }) => body,
        )
        app.post('/text', async ({ body }) => ({ body }))
        app.get('/broken', async () => {
          throw new Error('broken')
        })
      },
    })
    t.equal((await app.inject('/coordination/status')).statusCode, 200)
    t.equal((await app.inject('/coordination/status?x=1')).statusCode, 400)
    t.equal((await app.inject({ method: 'POST', url: '/theirs', payload: {} })).body, '"theirs"')
    const headers = { 'content-type': 'text/plain' }
    t.match((await app.inject({ method: 'POST', url: '/text', payload: 'x', headers })).json(), { body: 'x' })
    t.equal((await app.inject('/broken')).statusCode, 418)
    const stranger = { url: '/broken', remoteAddress: '10.0.0.7' }
    t.equal((await app.inject(stranger)).statusCode, 418, 'not guarded by us')
    t.match((await app.inject('/nothing')).json(), { statusCode: 404, error: 'Not Found' })
  },
)

t.test('a failure of ours is a 500 whose cause is in the log only', async (t) => {
  const lines: string[] = []
  const stream = { write: (line: string) => void lines.push(line) }
  const app = await useApp(t, { app: Fastify({ logger: { level: 'error', stream } }) })
  app.coordination.operator.snapshot = () => Promise.reject(new Error('a secret'))
  const reply = await app.inject('/coordination/status')
  t.equal(reply.statusCode, 500)
  t.match(reply.json(), { type: /internal-error$/, instance: /^req-/ })
  t.notMatch(reply.body, 'secret')
  t.match(lines.join(''), 'a secret')
})

t.test('what the application and its plugins refuse keeps its status', async (t) => {
  for (const status of [401, 402, 429, 503]) {
    const app = await useApp(t, {
      before: (app) =>
        app.addHook('onRequest', async (_request, reply) => {
          reply.header('www-authenticate', 'Basic')
          throw Object.assign(new Error('refused by them'), { statusCode: status })
        }),
    })
    const reply = await app.inject('/coordination/status')
    t.equal(reply.statusCode, status)
    t.equal(reply.headers['www-authenticate'], 'Basic')
    t.match(reply.json(), { type: 'about:blank', status })
    t.equal(reply.body.includes('refused by them'), status < 500)
  }
})

t.test('a refusal has the status that the application would give it on routes of its own', async (t) => {
  const who = (of: object = {}) => Object.assign(new Error('Who are you?'), of)
  const ways: Readonly<Record<string, readonly [expected: number, replied: number, thrown: unknown]>> = {
    'the reply has one': [401, 401, who()],
    'the error has one': [401, 200, who({ statusCode: 401 })],
    'the error has one by its short name': [401, 200, who({ status: 401 })],
    'both have one': [403, 401, who({ statusCode: 403 })],
    'what is thrown is no error': [401, 401, 'Who are you?'],
    'what the error has is no such status': [401, 401, who({ statusCode: 200, status: 'no' })],
  }
  for (const [name, [expected, replied, thrown]] of Object.entries(ways)) {
    const lines: string[] = []
    const stream = { write: (line: string) => void lines.push(line) }
    const app = await useApp(t, {
      app: Fastify({ logger: { level: 'error', stream } }),
      before: (app) => {
        app.addHook('onRequest', async (_request, reply) => {
          reply.code(replied)
          throw thrown
        })
        app.get('/theirs', async () => 'well')
      },
    })
    t.equal((await app.inject('/theirs')).statusCode, expected, `${name}: theirs`)
    const reply = await app.inject('/coordination/status')
    t.equal(reply.statusCode, expected, `${name}: ours`)
    t.match(reply.json(), { type: 'about:blank', status: expected }, name)
    t.strictSame(lines, [], `${name}: no line in the log`)
  }
})

t.test('http: false mounts nothing', async (t) => {
  const app = await useApp(t, { options: { http: false } })
  t.equal((await app.inject('/coordination/status')).statusCode, 404)
})

t.test('the prefix is that of the option, below that of the scope it is registered in', async (t) => {
  const { url } = await useSqlite(t)
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(
    async (scope) => {
      const identity = { node: 'n1', cluster: 'c1' }
      await scope.register(workerCoordination, { database: url, identity, prefix: '/desk/leases' })
    },
    { prefix: '/api' },
  )
  t.equal((await app.inject('/api/desk/leases/status')).statusCode, 200)
})

t.test('the log level of the routes can be their own', async (t) => {
  const lines: string[] = []
  const stream = { write: (line: string) => void lines.push(line) }
  const app = await useApp(t, {
    app: Fastify({ logger: { level: 'info', stream } }),
    options: { logLevel: 'warn' },
  })
  await app.inject('/coordination/status')
  t.notMatch(lines.join(''), '/coordination/status')
  t.match(lines.join(''), 'coordination is connected', 'the engine still reports')
})

t.test('behind a proxy that decodes paths, keys with ":" and "~" arrive as they were meant', async (t) => {
  const app = await useApp(t, { workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('consumer'))
  const origin = await listening(app)
  const proxy = createServer((incoming, outgoing) => {
    const path = decodeURIComponent(incoming.url ?? '/').replaceAll('#', '%23')
    const { method, headers } = incoming
    const passed = request(`${origin}${path}`, { method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 0, answer.headers)
      answer.pipe(outgoing)
    })
    incoming.pipe(passed)
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  t.teardown(() => proxy.close())
  const address = proxy.address()
  if (address === null || typeof address === 'string') throw new Error('No port')
  const through = `http://127.0.0.1:${address.port}`
  const status = async (at: string, key: string) =>
    (await over(at, { path: `/coordination/leases/${key}` })).status
  for (const key of ['global:consumer~3', 'global%3Aconsumer%7E3', 'c1:indexing']) {
    t.equal(await status(origin, key), 200, key)
    t.equal(await status(through, key), 200, `${key} through the proxy`)
  }
  t.equal(await status(origin, 'global%2Fconsumer%233'), 200, 'one percent-encoded segment')
  t.equal(await status(through, 'global%2Fconsumer%233'), 404, 'which such a proxy takes apart')
})

t.test('mounted in a server that has read the body already, nothing waits for it', async (t) => {
  const app = await useApp(t)
  const server = createServer((incoming, outgoing) => {
    const parts: Buffer[] = []
    incoming.on('data', (part: Buffer) => parts.push(part))
    incoming.on('end', () => {
      const text = Buffer.concat(parts).toString()
      Object.assign(incoming, { body: text === '' ? {} : JSON.parse(text) })
      setImmediate(() => app.routing(incoming, outgoing))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('No port')
  const put = (body: object) =>
    over(`http://127.0.0.1:${address.port}`, {
      method: 'PUT',
      path: '/coordination/workers/global:x/pause',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body, null, 1),
    })
  t.equal((await put({ reason: 'a good one' })).status, 404, 'it is read, and there is no such worker')
  t.equal((await put({ reason: 'ab' })).status, 400)
  t.equal((await put({ reason: 'x'.repeat(5_000) })).status, 413)
})

/** Returns the routes as Fastify was told of them. */
async function routesOf(t: Parameters<typeof useApp>[0]): Promise<RouteOptions[]> {
  const all: RouteOptions[] = []
  await useApp(t, { before: (app) => app.addHook('onRoute', (route) => void all.push(route)) })
  return all
}
