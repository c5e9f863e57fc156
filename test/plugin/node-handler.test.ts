/** Tests a Fastify application inside other servers, over real sockets. */
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import express from 'express'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { deferred } from '../../plugin/core/time/loop.js'
import workerCoordination from '../../plugin/index.js'
import { toNodeHandler } from '../../plugin/node-handler.js'
import { mira, over, threeWorkers } from '../http/application.js'
import { useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'

async function useUnready(t: Test) {
  const { url } = await useSqlite(t)
  const app = Fastify()
  t.teardown(() => app.close())
  const identity = { node: 'n1', cluster: 'c1' }
  await app.register(workerCoordination, { database: url, identity, authorize: mira })
  for (const worker of threeWorkers) app.coordination.worker(worker)
  return app
}

async function served(t: Test, listener: RequestListener): Promise<{ origin: string; server: Server }> {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => new Promise((resolve) => server.close(resolve)))
  return { origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server }
}

const pause = {
  method: 'PUT',
  path: '/coordination/workers/global:data/pause',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ reason: 'for a look' }),
}

t.test('an Express server answers with it, reads bodies first, and keeps its other paths', async (t) => {
  const app = await useUnready(t)
  const outer = express()
  outer.use(express.json())
  outer.use(toNodeHandler(app))
  outer.get('/theirs', (_request, response) => void response.json({ theirs: true }))
  const { origin } = await served(t, outer)
  t.equal(
    (await over(origin, { path: '/coordination/status' })).status,
    200,
    'it has waited until it was ready',
  )
  t.equal((await over(origin, pause)).status, 202)
  t.strictSame(JSON.parse((await over(origin, { path: '/theirs' })).body), { theirs: true })
  const nothing = await over(origin, { path: '/nothing' })
  t.match(nothing, { status: 404, headers: { 'x-powered-by': 'Express' } })
  const ours = await over(origin, { path: '/coordination/nothing' })
  t.match(ours, { status: 404, headers: { 'content-type': /problem\+json/ } }, 'below our prefix we say so')
})

t.test('applications with loggers and type providers of their own are taken', async (t) => {
  const loggerInstance = Object.assign(Fastify().log, { own: true })
  const plain = Fastify({ loggerInstance })
  const typed = Fastify({ loggerInstance }).withTypeProvider<TypeBoxTypeProvider>()
  plain.get('/', async () => 'here')
  typed.get('/', async () => 'here')
  // What matters most is that this line compiles.
  for (const handler of [toNodeHandler(plain), toNodeHandler(typed)]) {
    const { origin } = await served(t, handler)
    t.match(await over(origin, { path: '/' }), { status: 200, body: 'here' })
  }
  t.teardown(() => Promise.all([plain.close(), typed.close()]))
})

t.test('anything but a Fastify application is refused', async (t) => {
  for (const [given, got] of [
    [undefined, 'undefined'],
    [{}, 'an object'],
    [express(), 'a function'],
  ]) {
    const message = `toNodeHandler: expected a Fastify application, got ${got}.`
    t.throws(() => toNodeHandler(given as never), { code: 'WCO_OPTIONS', message })
  }
})

t.test('what goes on to an Express server has its body still, whatever has been read of it', async (t) => {
  const app = await useUnready(t)
  const orders: express.RequestHandler = (request, response) => void response.json({ got: request.body })
  const outer = (...handlers: express.RequestHandler[]): RequestListener => {
    const server = express()
    for (const handler of handlers) server.use(handler)
    server.all('/orders', orders)
    return server
  }
  const ours = toNodeHandler(app)
  const text = 'x'.repeat(2_000_000)
  const json = { 'content-type': 'application/json' }
  const cases: [
    string,
    RequestListener,
    { method: string; headers: Record<string, string>; body: string },
  ][] = [
    ['read before', outer(express.json(), ours), { method: 'POST', headers: json, body: '{"a":1}' }],
    ['deleted', outer(express.json(), ours), { method: 'DELETE', headers: json, body: '{"a":1}' }],
    ['read after', outer(ours, express.json()), { method: 'POST', headers: json, body: '{"a":1}' }],
    [
      'more than we would read',
      outer(ours, express.text({ limit: '5mb' })),
      { method: 'POST', headers: { 'content-type': 'text/plain' }, body: text },
    ],
  ]
  for (const [what, listener, request] of cases) {
    const { origin } = await served(t, listener)
    const headers = { ...request.headers, 'content-length': String(request.body.length) }
    const { status, body } = await over(origin, { path: '/orders', ...request, headers })
    t.equal(status, 200, what)
    t.strictSame(JSON.parse(body).got, request.body === text ? text : { a: 1 }, what)
  }
  const { origin } = await served(t, outer(ours, express.json()))
  t.equal((await over(origin, { method: 'POST', path: '/orders', headers: json, body: '{' })).status, 400)
})

t.test('other paths are answered while the application hands over, if Fastify is told so', async (t) => {
  const { url } = await useSqlite(t)
  const app = Fastify({ return503OnClosing: false })
  const end = deferred()
  t.teardown(() => end.resolve())
  await app.register(workerCoordination, { database: url, identity: { node: 'n1', cluster: 'c1' } })
  app.coordination.worker({ name: 'slow', kind: 'single', scope: 'global', run: () => end.promise })
  const outer = express()
  outer.use(toNodeHandler(app))
  outer.get('/theirs', (_request, response) => void response.json({ theirs: true }))
  const { origin } = await served(t, outer)
  await eventually(() => app.coordination.isHeld('slow'))
  const closed = app.close()
  await eventually(() => app.coordination.state === 'closing')
  t.equal((await over(origin, { path: '/theirs' })).status, 200)
  end.resolve()
  await closed
  t.equal((await over(origin, { path: '/theirs' })).status, 200)
  t.equal((await over(origin, { path: '/coordination/status' })).status, 503)
})

t.test('node:http answers with it alone, and streams come as they are sent', async (t) => {
  const app = await useUnready(t)
  const { origin } = await served(t, toNodeHandler(app))
  t.equal((await over(origin, pause)).status, 202)
  t.equal((await over(origin, { path: '/nothing' })).status, 404)
  const stream = await fetch(`${origin}/coordination/stream`)
  const reader = stream.body?.pipeThrough(new TextDecoderStream()).getReader()
  t.match((await reader?.read())?.value, /event: snapshot/)
  const rest = (async () => {
    while (!(await reader?.read())?.done);
    return 'ended'
  })()
  await app.close()
  t.equal(await rest, 'ended', 'closing the application ends its streams')
  t.equal((await over(origin, { path: '/coordination/status' })).status, 503)
})

t.test(
  'an application that cannot start is an error for each request, and none for the server',
  async (t) => {
    const broken = () => {
      const app = Fastify()
      app.register(async () => {
        throw new Error('no database today')
      })
      return app
    }
    const outer = express()
    outer.use(toNodeHandler(broken()))
    const caught: unknown[] = []
    const handler: express.ErrorRequestHandler = (error, _request, response, _next) => {
      caught.push(error)
      response.status(500).end()
    }
    outer.use(handler)
    const { origin } = await served(t, outer)
    t.equal((await over(origin)).status, 500)
    t.match(caught, [{ message: 'no database today' }])
    const plain = await served(t, toNodeHandler(broken()))
    t.equal((await over(plain.origin)).status, 503)
  },
)

t.test('a status that an earlier handler has set is not ours, and is still there for the next', async (t) => {
  const app = await useUnready(t)
  const outer = express()
  outer.use((_request, response, next) => {
    response.status(418)
    next()
  })
  outer.use(toNodeHandler(app))
  outer.use((_request, response) => void response.end('theirs'))
  const { origin } = await served(t, outer)
  t.equal((await over(origin, { path: '/coordination/status' })).status, 200)
  t.match(await over(origin, { path: '/theirs' }), { status: 418, body: 'theirs' })
})

t.test('an application with a handler of its own for unknown paths keeps it', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  app.setNotFoundHandler((_request, reply) => reply.code(404).send('mine'))
  const { origin } = await served(t, toNodeHandler(app))
  t.equal((await over(origin)).body, 'mine')
})
