/**
 * Tests the plugin in applications that have chosen something that affects all of their routes. Neither their own
 * routes nor those of the plugin may suffer from it.
 */
import { once } from 'node:events'
import { createServer, get, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { connect, type OutgoingHttpHeaders } from 'node:http2'
import { connect as connectPlainly } from 'node:net'
import helmet from '@fastify/helmet'
import rateLimit, { type RateLimitPluginOptions } from '@fastify/rate-limit'
import swagger from '@fastify/swagger'
import {
  registerAjvFormats,
  Type,
  type TypeBoxTypeProvider,
  TypeBoxValidatorCompiler,
} from '@fastify/type-provider-typebox'
import underPressure from '@fastify/under-pressure'
import { Validator } from '@seriousme/openapi-schema-validator'
import express from 'express'
import Fastify, { type FastifyInstance, type FastifyServerOptions, type InjectOptions } from 'fastify'
import {
  jsonSchemaTransform,
  jsonSchemaTransformObject,
  serializerCompiler,
  validatorCompiler,
  type ZodTypeProvider,
} from 'fastify-type-provider-zod'
import t, { type Test } from 'tap'
import { z } from 'zod'
import { assetHeaders } from '../../plugin/http/assets.js'
import { eventually } from '../support/eventually.js'
import { over, stopTime, threeWorkers, type Use, useApp } from './application.js'

const pause: InjectOptions = {
  method: 'PUT',
  url: '/coordination/workers/global:month-close/pause',
  payload: { reason: 'a good one' },
}
/** The status of {@link pause} once it has been let through: there is no such worker. */
const letThrough = 404

t.test('an application that validates with zod does so, and our schemas are not zod', async (t) => {
  const app = await useApp(t, { before: withZod })
  const double = (payload: object) => app.inject({ method: 'POST', url: '/theirs', payload })
  t.strictSame((await double({ amount: '21', more: 1 })).json(), { doubled: 42 }, 'converted by zod')
  t.match((await double({ amount: 'x' })).json(), { statusCode: 400, code: 'FST_ERR_VALIDATION' })
  t.match((await double({ amount: 600 })).json(), { statusCode: 500 }, 'their replies are checked by zod')
  await asEver(t, app)
})

t.test("zod's transformation of the OpenAPI document is for the application's routes only", async (t) => {
  for (const version of ['3.0.3', '3.1.0']) {
    const openapi = { openapi: version, info: { title: 'An application', version: '1.0.0' } }
    const app = await useApp(t, {
      before: async (app) => {
        app.register(swagger, {
          openapi,
          transform: jsonSchemaTransform,
          transformObject: jsonSchemaTransformObject,
        })
        await app.after()
        withZod(app)
      },
    })
    const document = JSON.parse(JSON.stringify(app.swagger()))
    const { valid, errors } = await new Validator().validate(document)
    t.ok(valid, `${version}: ${JSON.stringify(errors)}`)
    const schemaOf = (path: string, method: string) =>
      document.paths[path][method].requestBody.content['application/json'].schema
    t.ok(schemaOf('/theirs', 'post').properties.amount, version)
    t.strictSame(schemaOf('/coordination/workers/{key}/pause', 'put').required, ['reason'], version)
  }
})

t.test('an application that writes its schemas with TypeBox uses them as ever, and so do we', async (t) => {
  for (const compiles of [false, true]) {
    const app = await useApp(t, {
      before: (app) => {
        registerAjvFormats()
        if (compiles) app.setValidatorCompiler(TypeBoxValidatorCompiler)
        const body = Type.Object({
          amount: Type.Number({ maximum: 500 }),
          at: Type.String({ format: 'date' }),
        })
        const schema = { body, response: { 200: Type.Object({ doubled: Type.Number() }) } }
        app
          .withTypeProvider<TypeBoxTypeProvider>()
          .post('/theirs', { schema }, async ({ body }) => ({ doubled: 2 * body.amount, more: 1 }))
      },
    })
    const double = (amount: unknown, at = '2026-03-01') =>
      app.inject({ method: 'POST', url: '/theirs', payload: { amount, at } })
    t.strictSame((await double(21)).json(), { doubled: 42 })
    t.match((await double(600)).json(), { statusCode: 400, code: 'FST_ERR_VALIDATION' })
    t.equal((await double(21, 'soon')).statusCode, 400)
    t.equal((await double('21')).statusCode, compiles ? 400 : 200, 'only Fastify itself converts in bodies')
    await asEver(t, app)
  }
})

t.test("an application's settings of validation and serialization are for its own routes", async (t) => {
  const app = await useApp(t, {
    app: Fastify({
      ajv: { customOptions: { removeAdditional: 'all', coerceTypes: 'array', useDefaults: true } },
      schemaErrorFormatter: () => Object.assign(new Error('in their words'), { statusCode: 422 }),
      serializerOpts: { rounding: 'ceil' },
      bodyLimit: 20,
      exposeHeadRoutes: false,
      onProtoPoisoning: 'remove',
      onConstructorPoisoning: 'ignore',
    }),
    before: (app) => {
      app.post('/theirs', { schema: { body: amounts } }, async ({ body }) => body)
    },
  })
  const send = (payload: object) => app.inject({ method: 'POST', url: '/theirs', payload })
  t.strictSame((await send({ b: 1 })).json(), { amounts: [1] }, 'dropped and filled in')
  t.strictSame((await send({ amounts: '7' })).json(), { amounts: [7] }, 'converted')
  t.match((await send({ amounts: 0 })).json(), { statusCode: 422, message: 'in their words' })
  t.equal((await send({ amounts: [10, 11, 12] })).statusCode, 413)
  await asEver(t, app)
})

t.test('an application that wraps its replies wraps none of ours', async (t) => {
  const app = await useApp(t, {
    before: (app) => {
      app.setReplySerializer((payload) => JSON.stringify({ wrapped: payload }))
      app.get('/theirs', async () => ({ theirs: true }))
    },
  })
  t.strictSame((await app.inject('/theirs')).json(), { wrapped: { theirs: true } })
  await asEver(t, app)
})

const amounts = {
  type: 'object',
  properties: { amounts: { type: 'array', items: { type: 'integer', minimum: 1 }, default: [1] } },
}

t.test('@fastify/helmet guards our routes as it guards those of the application', async (t) => {
  const helmeted: Use['before'] = (app) => {
    app.register(helmet)
    app.get('/theirs', async () => ({ theirs: true }))
  }
  const app = await useApp(t, { before: helmeted })
  const alone = Fastify()
  t.teardown(() => alone.close())
  await helmeted(alone)
  const { date: _1, ...theirs } = (await app.inject('/theirs')).headers
  const { date: _2, ...before } = (await alone.inject('/theirs')).headers
  t.strictSame(theirs, before, 'nothing of ours on their routes')

  const own = new Set(['content-type', 'content-length', 'connection'])
  const guards = Object.entries(before).filter(([name]) => !own.has(name))
  t.ok(guards.length > 8)
  const { origin } = await served(t, (incoming, outgoing) => app.routing(incoming, outgoing))
  const stream = await watching(t, origin)
  for (const [path, { headers }] of [
    ['/status', await app.inject('/coordination/status')],
    ['/nothing', await app.inject('/coordination/nothing')],
    ['/metrics', await app.inject('/coordination/metrics')],
    ['/stream', stream],
  ] as const) {
    for (const [name, value] of guards) t.equal(headers[name], value, `${path}: ${name}`)
    t.match(headers['cache-control'], path === '/stream' ? /no-cache/ : /^no-store$/, path)
  }
  t.match(stream.headers, { 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' })

  const page = await app.inject('/coordination/ui')
  t.match(page.headers, assetHeaders, 'where the page is stricter, that holds')
  for (const [name, value] of guards) if (!(name in assetHeaders)) t.equal(page.headers[name], value, name)
  t.not(page.headers['content-security-policy'], before['content-security-policy'])
})

t.test('what an application lets caches keep does not include ours', async (t) => {
  const app = await useApp(t, {
    before: (app) => {
      app.addHook('onRequest', async (_request, reply) => {
        reply.header('cache-control', 'public, max-age=600')
      })
      app.get('/theirs', async () => 'theirs')
    },
  })
  t.equal((await app.inject('/theirs')).headers['cache-control'], 'public, max-age=600')
  for (const path of ['/status', '/health', '/metrics', '/nothing', '/status?x=1'])
    t.equal((await app.inject(`/coordination${path}`)).headers['cache-control'], 'no-store', path)
})

t.test('@fastify/rate-limit counts what is asked of us, and its refusal is a problem', async (t) => {
  const builders: RateLimitPluginOptions[] = [
    {},
    { errorResponseBuilder: (_request, { statusCode }) => ({ statusCode, message: 'theirs' }) },
    { errorResponseBuilder: () => Object.assign(new Error('theirs'), { statusCode: 429 }) },
  ]
  for (const options of builders) {
    const app = await useApp(t, {
      before: async (app) => {
        await app.register(rateLimit, { max: 3, ...options })
      },
    })
    const first = await app.inject('/coordination/status')
    t.match([first.statusCode, first.headers['x-ratelimit-remaining']], [200, '2'])
    t.equal((await app.inject(pause)).statusCode, letThrough)
    t.equal((await app.inject('/coordination/leases')).statusCode, 200)
    for (const request of [pause, { url: '/coordination/leases' }]) {
      const refused = await app.inject(request)
      t.equal(refused.statusCode, 429)
      t.equal(refused.headers['content-type'], 'application/problem+json; charset=utf-8')
      t.equal(refused.headers['retry-after'], '60')
      t.match(refused.json(), { type: 'about:blank', status: 429, title: 'Too Many Requests' })
      if (options.errorResponseBuilder !== undefined) t.match(refused.json(), { detail: 'theirs' })
    }
    for (let n = 0; n < 5; n++)
      for (const path of ['/health', '/metrics'])
        t.equal((await app.inject(`/coordination${path}`)).statusCode, 200, `${path} is not counted`)
  }
})

t.test('a generous limit of the application leaves ours on writes as it is, and the reverse', async (t) => {
  const app = await useApp(t, {
    before: async (app) => {
      await app.register(rateLimit, { max: 33 })
    },
  })
  stopTime(t)
  for (let n = 0; n < 30; n++) t.equal((await app.inject(pause)).statusCode, letThrough)
  const ours = await app.inject(pause)
  t.match([ours.statusCode, ours.headers['x-ratelimit-remaining']], [429, '2'])
  t.match(ours.json(), { type: /too-many-requests$/, retryAfter: 2 })
  t.equal(ours.headers['retry-after'], '2')
  t.equal((await app.inject('/coordination/status')).statusCode, 200)
  t.equal((await app.inject('/coordination/status')).statusCode, 200)
  t.match((await app.inject('/coordination/status')).json(), { type: 'about:blank', status: 429 })
})

t.test('@fastify/under-pressure turns readers away, but not those who help or ask how we are', async (t) => {
  let healthy = true
  const app = await useApp(t, {
    before: async (app) => {
      await app.register(underPressure, {
        healthCheck: async () => healthy,
        healthCheckInterval: 10,
        exposeStatusRoute: '/pressure',
      })
      app.get('/theirs', async () => 'theirs')
    },
  })
  await asEver(t, app)
  healthy = false
  await eventually(() => app.isUnderPressure())
  t.match((await app.inject('/theirs')).json(), { code: 'FST_UNDER_PRESSURE', statusCode: 503 })
  for (const path of ['/status', '/stream', '/nothing']) {
    const refused = await app.inject(`/coordination${path}`)
    t.equal(refused.statusCode, 503, path)
    t.equal(refused.headers['retry-after'], '10', path)
    t.equal(refused.headers['content-type'], 'application/problem+json; charset=utf-8', path)
    t.match(refused.json(), { type: 'about:blank', status: 503, title: 'Service Unavailable' }, path)
  }
  t.equal((await app.inject(pause)).statusCode, letThrough, 'an operator')
  t.equal((await app.inject('/coordination/health')).statusCode, 200)
  t.equal((await app.inject('/coordination/health/ready')).statusCode, 200)
  t.match((await app.inject('/coordination/metrics')).body, 'coordination_database_up 1')
  healthy = true
  await eventually(() => !app.isUnderPressure())
  t.equal((await app.inject('/coordination/status')).statusCode, 200)
})

t.test("an application's own handlers are for its own errors, whenever they are set", async (t) => {
  const handlers: Use['before'] = (app) => {
    app.setErrorHandler((error: Error, _request, reply) => reply.code(418).send({ theirs: error.message }))
    app.setNotFoundHandler((_request, reply) => reply.code(410).send({ theirs: 'nothing' }))
    app.get('/theirs', async () => {
      throw new Error('broken')
    })
  }
  for (const when of ['before', 'after'] as const) {
    const app = await useApp(t, { [when]: handlers })
    for (const [url, status, answer] of [
      ['/theirs', 418, { theirs: 'broken' }],
      ['/nothing', 410, { theirs: 'nothing' }],
      ['/coordinationx', 410, { theirs: 'nothing' }],
    ] as const) {
      const reply = await app.inject(url)
      t.strictSame([reply.statusCode, reply.json()], [status, answer], `${when}: ${url}`)
    }
    await asEver(t, app)
  }
})

t.test('hooks that an application adds later still come before ours', async (t) => {
  const order: string[] = []
  const app = await useApp(t, {
    options: {
      authorize: ({ headers }) => {
        order.push('authorize')
        return { id: String(headers['x-user']) }
      },
    },
    after: (app) => {
      app.addHook('onRequest', async (request) => {
        order.push('theirs')
        const { 'x-token': token } = request.headers
        if (token !== 'right') throw Object.assign(new Error('Who are you?'), { statusCode: 401 })
        request.headers['x-user'] = 'mira'
      })
    },
  })
  const refused = await app.inject({ ...pause, payload: '{' })
  t.match([refused.statusCode, refused.json()], [401, { type: 'about:blank', detail: 'Who are you?' }])
  t.strictSame(order.splice(0), ['theirs'], 'we are not even asked')
  const headers = { 'x-token': 'right' }
  const { capabilities } = (await app.inject({ url: '/coordination/status', headers })).json()
  t.match(capabilities.actor, { id: 'mira' }, 'what they found out is there for us')
  t.strictSame(order.slice(0, 2), ['theirs', 'authorize'])
})

const ways: [what: string, options: FastifyServerOptions][] = [
  ['routes without regard to case', { routerOptions: { caseSensitive: false } }],
  ['routes with or without a slash', { routerOptions: { ignoreTrailingSlash: true } }],
  ['routes with doubled slashes', { routerOptions: { ignoreDuplicateSlashes: true } }],
  ['rewrites addresses', { rewriteUrl: ({ url = '/' }) => url.replace(/^\/v1/, '') }],
  ['trusts its proxy', { trustProxy: true }],
  ['names its requests', { requestIdHeader: 'x-id', genReqId: () => 'theirs' }],
  ['limits how long a handler takes', { handlerTimeout: 30_000 }],
  ['gives up on slow requests', { requestTimeout: 30_000, connectionTimeout: 30_000 }],
  ['does not wait for plugins', { pluginTimeout: 0 }],
]

for (const [what, options] of ways)
  t.test(`an application that ${what} has us all the same`, async (t) => {
    await asEver(t, await useApp(t, { app: Fastify(options) }))
  })

t.test(
  'a client that never finishes its request is let go after requestTimeout, and streams go on',
  async (t) => {
    const app = await useApp(t, {
      app: Fastify({ requestTimeout: 200, http: { headersTimeout: 200, connectionsCheckingInterval: 20 } }),
    })
    const origin = await app.listen({ port: 0, host: '127.0.0.1' })
    const stream = await watching(t, origin)
    const { hostname, port } = new URL(origin)
    const head = `PUT ${pause.url} HTTP/1.1\r\nhost: ${hostname}:${port}\r\n`
    const unfinished: [what: string, text: string][] = [
      ['headers', head],
      ['a body', `${head}content-type: application/json\r\ncontent-length: 40\r\n\r\n{"reason":`],
    ]
    for (const [what, text] of unfinished) {
      const socket = connectPlainly(Number(port), hostname)
      t.teardown(() => socket.destroy())
      socket.write(text)
      const answer = Buffer.concat(await socket.toArray()).toString()
      t.match(answer, /^HTTP\/1\.1 408 /, what)
    }
    t.notOk(stream.ended, 'its request is complete')
    t.match(stream.text, 'event: snapshot')
  },
)

t.test('an application that speaks HTTP/2 has us all the same', async (t) => {
  const app = await useApp(t, {
    app: Fastify({ http2: true }) as unknown as FastifyInstance,
    workers: threeWorkers,
  })
  const session = connect(await app.listen({ port: 0, host: '127.0.0.1' }))
  t.teardown(() => session.destroy())
  await once(session, 'connect')
  const ask = (headers: OutgoingHttpHeaders, body = '') => {
    const request = session.request(headers, { endStream: false }).setEncoding('utf8')
    request.end(body)
    return request
  }
  const answer = async (headers: OutgoingHttpHeaders, body?: string) => {
    const request = ask(headers, body)
    const [{ ':status': status }] = await once(request, 'response')
    return [status, JSON.parse((await request.toArray()).join(''))]
  }
  t.match(await answer({ ':path': '/coordination/status' }), [200, { namespace: 'default' }])
  const put = { ':method': 'PUT', ':path': String(pause.url), 'content-type': 'application/json' }
  t.match(await answer(put, '{"reason":"a good one"}'), [letThrough, { type: /not-found$/ }])
  t.match(await answer(put, '{'), [400, { type: /invalid-request$/ }])
  const stream = ask({ ':path': '/coordination/stream' })
  const [headers] = await once(stream, 'response')
  t.match(headers, { ':status': 200, 'content-type': 'text/event-stream' })
  const [beginning] = await once(stream, 'data')
  t.match(beginning, 'event: snapshot')
  const closing = app.close()
  await eventually(() => stream.closed, { until: 'closing has ended the stream' })
  // Fastify itself waits until all sessions have ended, with or without the plugin.
  session.destroy()
  await closing
})

t.test(
  'where a slash at the end makes no difference, the dashboard is still found below its own path',
  async (t) => {
    for (const ignoreTrailingSlash of [false, true]) {
      const caseSensitive = false
      const app = await useApp(t, { app: Fastify({ routerOptions: { ignoreTrailingSlash, caseSensitive } }) })
      for (const page of ['ui', 'UI', 'ui?x=1']) {
        const { statusCode, headers } = await app.inject(`/coordination/${page}`)
        t.strictSame([statusCode, headers.location], [308, 'ui/'], 'by a relative address')
      }
      t.equal((await app.inject('/coordination/ui/')).statusCode, 200)
      t.equal((await app.inject('/coordination/status/')).statusCode, ignoreTrailingSlash ? 200 : 404)
    }
  },
)

t.test('however the router takes a path to be spelt, a wrong method is told which are right', async (t) => {
  const ways: [routerOptions: object, url: string][] = [
    [{ caseSensitive: false }, '/coordination/STATUS'],
    [{ ignoreTrailingSlash: true }, '/coordination/status/'],
    [{ ignoreDuplicateSlashes: true }, '/coordination///status'],
    [{ useSemicolonDelimiter: true }, '/coordination/status;'],
  ]
  for (const [routerOptions, url] of ways) {
    const app = await useApp(t, { app: Fastify({ routerOptions }) })
    t.equal((await app.inject(url)).statusCode, 200, url)
    const { statusCode, headers } = await app.inject({ method: 'POST', url })
    t.strictSame([statusCode, headers.allow], [405, 'GET, HEAD'], url)
    const strict = await useApp(t)
    t.equal((await strict.inject({ method: 'POST', url })).statusCode, 404, `${url} is no path as a rule`)
  }
})

t.test('a ready application handles the requests of an Express server', async (t) => {
  const ways: [what: string, handle: (app: FastifyInstance) => express.RequestHandler][] = [
    ['app.routing', (app) => (incoming, outgoing) => app.routing(incoming, outgoing)],
    [
      "app.server's own event",
      (app) => (incoming, outgoing) => void app.server.emit('request', incoming, outgoing),
    ],
  ]
  for (const [what, handle] of ways)
    for (const parses of [false, true])
      await t.test(`${what}, ${parses ? 'behind express.json()' : 'first'}`, async (t) => {
        const app = await useApp(t, { workers: threeWorkers })
        const outer = express()
        if (parses) outer.use(express.json(), express.urlencoded())
        outer.get('/theirs', (_request, response) => void response.json({ theirs: true }))
        outer.use('/coordination', (incoming, outgoing, next) => {
          incoming.url = incoming.originalUrl
          return handle(app)(incoming, outgoing, next)
        })
        const { origin } = await served(t, outer)
        await worksFrom(t, origin, app)
        t.strictSame(JSON.parse((await over(origin, { path: '/theirs' })).body), { theirs: true })
        t.equal((await over(origin, { path: '/nothing' })).status, 404, 'answered by Express')
      })
})

t.test(
  'closing ends the streams that a server of somebody else serves, and what comes then is refused',
  async (t) => {
    const app = await useApp(t, { workers: threeWorkers })
    const outer = express()
    outer.use((incoming, outgoing) => app.routing(incoming, outgoing))
    const { origin, server } = await served(t, outer)
    await eventually(() => app.coordination.isHeld('consumer'))
    const stream = await watching(t, origin)
    await app.close()
    await eventually(() => stream.ended)
    t.equal(app.coordination.state, 'closed', 'everything is handed over')
    const refused = await over(origin, { path: '/coordination/status' })
    t.equal(refused.status, 503)
    await new Promise((resolve) => server.close(resolve))
  },
)

/** Adds a route with zod schemas on both sides. It doubles amounts, and cannot answer more than 1 000. */
function withZod(app: FastifyInstance): void {
  app.setValidatorCompiler(validatorCompiler)
  app.setSerializerCompiler(serializerCompiler)
  const body = z.object({ amount: z.coerce.number() })
  const schema = { body, response: { 200: z.object({ doubled: z.number().max(1_000) }) } }
  app
    .withTypeProvider<ZodTypeProvider>()
    .post('/theirs', { schema }, async ({ body }) => ({ doubled: 2 * body.amount }))
}

/** Checks that the plugin's routes read, check and answer as in an application that has chosen nothing. */
async function asEver(t: Test, app: FastifyInstance): Promise<void> {
  const { url = '' } = pause
  const cases: [what: string, request: InjectOptions, status: number, answer: object][] = [
    [
      'a reading',
      { url: '/coordination/status' },
      200,
      { namespace: 'default', counts: { nodes: { active: 1 } } },
    ],
    [
      'a query with a number',
      { url: '/coordination/nodes?limit=5' },
      200,
      { total: 1, items: [{ name: 'n1' }] },
    ],
    ['an unknown query', { url: '/coordination/status?x=1' }, 400, { errors: [{ path: 'querystring' }] }],
    ['no such thing', { url: '/coordination/leases/global:none' }, 404, { type: /not-found$/ }],
    ['no such path', { url: '/coordination/nothing' }, 404, { type: /not-found$/ }],
    ['a writing', pause, letThrough, { type: /not-found$/ }],
    ['too little', { ...pause, payload: {} }, 400, { errors: [{ path: 'body' }] }],
    ['too much', { ...pause, payload: { reason: 'good', x: 1 } }, 400, { errors: [{ path: 'body' }] }],
    ['another type', { ...pause, payload: { reason: 12_345 } }, 400, { errors: [{ path: 'body/reason' }] }],
    ['no JSON', { method: 'PUT', url, payload: 'x', headers: { 'content-type': 'text/plain' } }, 415, {}],
  ]
  for (const [what, request, status, answer] of cases) {
    const reply = await app.inject(request)
    t.equal(reply.statusCode, status, `${what}: ${reply.body}`)
    t.match(reply.json(), answer, what)
    t.match(
      reply.headers['content-type'],
      status === 200 ? /^application\/json/ : /^application\/problem\+json/,
    )
  }
}

/** Checks reading, writing and watching over a socket. */
async function worksFrom(t: Test, origin: string, app: FastifyInstance): Promise<void> {
  const status = await over(origin, { path: '/coordination/status' })
  t.match([status.status, JSON.parse(status.body)], [200, { namespace: 'default' }])
  const stream = await watching(t, origin)
  t.match(stream.headers['content-type'], 'text/event-stream')
  await eventually(() => stream.text.includes('event: snapshot'))

  const worker = { path: '/coordination/workers/global:consumer/pause' }
  const headers = { 'content-type': 'application/json' }
  const put = (body: object) =>
    over(origin, { ...worker, method: 'PUT', headers, body: JSON.stringify(body) })
  t.equal((await put({ reason: 'ab' })).status, 400)
  t.equal((await put({ reason: 'a good one' })).status, 202)
  t.ok((await app.coordination.status()).workers.find(({ key }) => key === 'global/consumer')?.paused)
  await eventually(() => stream.text.includes('worker.paused'))
  t.equal((await over(origin, { ...worker, method: 'DELETE' })).status, 204, 'a writing without a body')
}

async function served(
  t: Test,
  handle: (incoming: IncomingMessage, outgoing: ServerResponse) => unknown,
): Promise<{ origin: string; server: Server }> {
  const server = createServer((incoming, outgoing) => void handle(incoming, outgoing))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('No port')
  return { origin: `http://127.0.0.1:${address.port}`, server }
}

async function watching(t: Test, origin: string) {
  const request = get(`${origin}/coordination/stream`, { agent: false })
  t.teardown(() => request.destroy())
  const [reply] = (await once(request, 'response')) as [IncomingMessage]
  const seen = { headers: reply.headers, text: '', ended: false }
  reply.setEncoding('utf8').on('data', (chunk: string) => {
    seen.text += chunk
  })
  reply.on('end', () => {
    seen.ended = true
  })
  return seen
}
