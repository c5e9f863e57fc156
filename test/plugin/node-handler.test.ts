/** Tests a Fastify application inside other servers, over real sockets. */
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import express from 'express'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import workerCoordination from '../../plugin/index.js'
import { toNodeHandler } from '../../plugin/node-handler.js'
import { mira, over, threeWorkers } from '../http/application.js'
import { useSqlite } from '../support/databases.js'

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
