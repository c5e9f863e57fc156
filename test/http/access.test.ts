/** Tests access: each rule by which a request is refused. */
import { request as httpsRequest } from 'node:https'
import { connect } from 'node:net'
import Fastify, { type FastifyInstance, type InjectOptions } from 'fastify'
import t from 'tap'
import { type Authorize, allowLoopback } from '../../plugin/index.js'
import { listening, mira, over, stopTime, useApp, useEnvironment } from './application.js'

const pause: InjectOptions = {
  method: 'PUT',
  url: '/coordination/workers/global:month-close/pause',
  payload: { reason: 'a good one' },
}
/** The status of {@link pause} once it has been let through: there is no such worker. */
const letThrough = 404

const strangers: [what: string, request: { remoteAddress?: string; headers?: Record<string, string> }][] = [
  ['another machine', { remoteAddress: '10.0.0.7' }],
  ['another machine that calls us localhost', { remoteAddress: '10.0.0.7', headers: { host: 'localhost' } }],
  ['another machine in IPv6', { remoteAddress: '::ffff:10.0.0.7' }],
  ['a name that was rebound to this machine', { headers: { host: 'attacker.example' } }],
  ['a name that begins like loopback', { headers: { host: 'localhost.attacker.example' } }],
  ['a number that begins like loopback', { headers: { host: '127.0.0.1.attacker.example' } }],
  ['a proxy: x-forwarded-for', { headers: { 'x-forwarded-for': '127.0.0.1' } }],
  ['a proxy: x-forwarded-host', { headers: { 'x-forwarded-host': 'localhost' } }],
  ['a proxy: forwarded', { headers: { forwarded: 'for=127.0.0.1' } }],
  ['a proxy: via', { headers: { via: '1.1 proxy' } }],
  ['a proxy: x-real-ip', { headers: { 'x-real-ip': '127.0.0.1' } }],
  ['a proxy: cf-connecting-ip', { headers: { 'cf-connecting-ip': '127.0.0.1' } }],
  ['a proxy: x-client-ip', { headers: { 'x-client-ip': '127.0.0.1' } }],
  ['a proxy: x-cluster-client-ip', { headers: { 'x-cluster-client-ip': '127.0.0.1' } }],
  ['a proxy: x-original-host', { headers: { 'x-original-host': 'localhost' } }],
  ['a proxy: x-amzn-trace-id', { headers: { 'x-amzn-trace-id': 'Root=1' } }],
  ['a proxy: true-client-ip', { headers: { 'true-client-ip': '127.0.0.1' } }],
  ['a proxy: fly-client-ip', { headers: { 'fly-client-ip': '127.0.0.1' } }],
  ['a proxy: fastly-client-ip', { headers: { 'fastly-client-ip': '127.0.0.1' } }],
  ['a proxy: cdn-loop', { headers: { 'cdn-loop': 'cloudflare' } }],
  ['a proxy: x-envoy-external-address', { headers: { 'x-envoy-external-address': '127.0.0.1' } }],
]

t.test('without authorize only a direct connection from the machine itself may read', async (t) => {
  const app = await useApp(t, { options: {} })
  const insiders: [what: string, request: { remoteAddress?: string; headers?: Record<string, string> }][] = [
    ['loopback', {}],
    ['loopback by number', { headers: { host: '127.0.0.1:3000' } }],
    ['loopback by another number', { remoteAddress: '127.8.8.8', headers: { host: '127.8.8.8' } }],
    ['IPv6', { remoteAddress: '::1', headers: { host: '[::1]:3000' } }],
    ['IPv4 in IPv6', { remoteAddress: '::ffff:127.0.0.1' }],
  ]
  for (const [what, request] of insiders)
    t.equal(await statusOf(app, '/coordination/status', request), 200, what)
  for (const [what, request] of strangers)
    t.equal(await statusOf(app, '/coordination/status', request), 403, what)
})

t.test('without authorize nobody may write, and the answer names the option', async (t) => {
  const app = await useApp(t, { options: {} })
  const reply = await app.inject(pause)
  t.equal(reply.statusCode, 403)
  t.match(reply.json(), { type: /authorization-not-configured$/, option: 'authorize' })
})

t.test('without authorize nobody may read in production', async (t) => {
  useEnvironment(t, 'production')
  const app = await useApp(t, { options: {} })
  const reply = await app.inject('/coordination/status')
  t.equal(reply.statusCode, 403)
  t.equal(reply.headers['content-type'], 'application/problem+json; charset=utf-8')
  t.match(reply.json(), { option: 'authorize', detail: /production/, instance: /^req-/ })
})

t.test('who does not name the server at all is not let in by where it comes from', async (t) => {
  for (const options of [{}, { access: { read: 'public' } as const }, { authorize: allowLoopback() }]) {
    const app = await useApp(t, { options })
    const { port } = new URL(await listening(app))
    const ask = (headers: string): Promise<string> =>
      new Promise((resolve, reject) => {
        const socket = connect(Number(port), '127.0.0.1')
        let answer = ''
        socket.on('error', reject).on('data', (part) => {
          answer += part
        })
        socket.on('close', () => resolve(answer.slice('HTTP/1.1 '.length, 'HTTP/1.1 200'.length)))
        socket.end(`GET /coordination/leases HTTP/1.0\r\n${headers}\r\n`)
      })
    t.equal(await ask('host: localhost\r\n'), '200')
    t.equal(await ask(''), '403')
  }
})

t.test('forged forwarding headers open nothing over a real socket, with trustProxy or without', async (t) => {
  const ways = [false, true].flatMap((trustProxy) =>
    [{}, { authorize: allowLoopback() }].map((options) => ({ trustProxy, options })),
  )
  for (const { trustProxy, options } of ways) {
    const app = await useApp(t, { app: Fastify({ trustProxy }), options })
    const origin = await listening(app)
    const forged = {
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-host': 'localhost',
      'x-forwarded-proto': 'https',
    }
    t.equal((await over(origin, { path: '/coordination/status' })).status, 200)
    t.equal((await over(origin, { path: '/coordination/status', headers: forged })).status, 403)
    t.equal(
      (await over(origin, { path: '/coordination/status', headers: { host: 'attacker.example' } })).status,
      403,
    )
    const stranger = { remoteAddress: '10.0.0.7', headers: { host: 'localhost', ...forged } }
    t.equal(await statusOf(app, '/coordination/status', stranger), 403, `trustProxy: ${trustProxy}`)
  }
})

t.test('allowLoopback lets the machine itself do everything, and nobody else anything', async (t) => {
  const app = await useApp(t, { options: { authorize: allowLoopback() } })
  t.equal(await statusOf(app, '/coordination/status'), 200)
  t.equal((await app.inject(pause)).statusCode, letThrough)
  for (const [what, request] of strangers) {
    t.equal(await statusOf(app, '/coordination/status', request), 403, what)
    t.equal((await app.inject({ ...pause, ...request })).statusCode, 403, what)
  }
  useEnvironment(t, 'production')
  t.equal(await statusOf(app, '/coordination/status'), 403, 'in production nobody')
})

t.test('allowLoopback says once in the log why it denies everything in production', async (t) => {
  const lines: { readonly level: number; readonly msg: string }[] = []
  const stream = { write: (line: string) => void lines.push(JSON.parse(line)) }
  const app = await useApp(t, {
    app: Fastify({ pluginTimeout: 60_000, logger: { level: 'warn', stream } }),
    options: { authorize: allowLoopback() },
  })
  const warnings = () => lines.filter(({ msg }) => msg.startsWith('allowLoopback'))
  const [[, stranger] = ['', {}]] = strangers
  t.equal(await statusOf(app, '/coordination/status', stranger), 403)
  t.strictSame(warnings(), [], 'a stranger is no reason to warn')
  useEnvironment(t, 'production')
  for (let times = 0; times < 2; times++) {
    const reply = await app.inject('/coordination/status')
    t.match(reply.json(), { status: 403, detail: 'You may not do this.' }, 'a stranger is told no more')
  }
  t.match(warnings(), [
    { level: 40, msg: /^allowLoopback\(\) denies every request, because NODE_ENV is "production"/ },
  ])
})

t.test('authorize is asked with the action of the route, and its no is a 403', async (t) => {
  const asked: string[] = []
  const authorize: Authorize = (_request, action) => {
    asked.push(action)
    return action === 'read' ? { id: 'guest' } : false
  }
  const app = await useApp(t, { options: { authorize } })
  const rows: ['GET' | 'POST' | 'PUT' | 'DELETE', path: string, action: string][] = [
    ['GET', '/leases', 'read'],
    ['GET', '/health/leader/global:x', 'probe'],
    ['POST', '/leases/global:x/release', 'release'],
    ['POST', '/leases/global:x/step-down', 'release'],
    ['POST', '/leases/global:x/transfer', 'release'],
    ['PUT', '/nodes/x/drain', 'drain'],
    ['DELETE', '/nodes/x/drain', 'drain'],
    ['DELETE', '/nodes/x', 'forget'],
    ['DELETE', '/workers/global:x', 'forget'],
    ['PUT', '/workers/global:x/pause', 'pause'],
    ['DELETE', '/workers/global:x/pause', 'pause'],
    ['POST', '/assignments/global:x/rebalance', 'rebalance'],
  ]
  for (const [method, path, action] of rows) {
    asked.length = 0
    const reply = await app.inject({ method, url: `/coordination${path}` })
    t.strictSame(asked, [action], `${method} ${path}`)
    t.equal(reply.statusCode, action === 'read' ? 200 : 403, `${method} ${path}`)
  }
})

t.test('an authorize that throws, or answers what is no actor, has said no', async (t) => {
  const rows: Record<string, () => unknown> = {
    throws: () => {
      throw new Error('the session store is away')
    },
    rejects: () => Promise.reject(new Error('the session store is away')),
    true: () => true,
    nothing: () => undefined,
    'a text': () => 'mira',
    'no id': () => ({ name: 'mira' }),
    'an empty id': () => ({ id: '' }),
    'a number': () => ({ id: 7 }),
    'an id that is too long': () => ({ id: 'm'.repeat(201) }),
    'an id with a line break': () => ({ id: 'mira\nroot' }),
    'a display name with a line break': () => ({ id: 'mira', display: 'Mira\nroot' }),
    'a display name that is none': () => ({ id: 'mira', display: 7 }),
  }
  for (const [what, authorize] of Object.entries(rows)) {
    const app = await useApp(t, { options: { authorize: authorize as Authorize } })
    t.equal(await statusOf(app, '/coordination/status'), 403, what)
    t.equal((await app.inject(pause)).statusCode, 403, what)
  }
})

t.test('an authorize that answers nothing is said to, once', async (t) => {
  const lines: { level: number; msg: string }[] = []
  const stream = { write: (line: string) => void lines.push(JSON.parse(line)) }
  const app = Fastify({ pluginTimeout: 60_000, logger: { level: 'warn', stream } })
  const authorize = (() => undefined) as Authorize
  await useApp(t, { app, options: { authorize } })
  for (let round = 0; round < 2; round++) t.equal(await statusOf(app, '/coordination/status'), 403)
  t.match(lines, [{ level: 40, msg: /^authorize returned undefined/ }])
  t.equal(lines.length, 1)
})

t.test('without authorize there is no answer of it to wonder about', async (t) => {
  const lines: object[] = []
  const stream = { write: (line: string) => void lines.push(JSON.parse(line)) }
  const app = Fastify({ pluginTimeout: 60_000, logger: { level: 'warn', stream } })
  await useApp(t, { app })
  for (const path of ['/status', '/overview']) t.equal(await statusOf(app, `/coordination${path}`), 200, path)
  t.strictSame(lines, [])
})

t.test('who only looks is not told of in the log, whatever authorize throws about the rest', async (t) => {
  const lines: { action: string; msg: string }[] = []
  const stream = { write: (line: string) => void lines.push(JSON.parse(line)) }
  const app = Fastify({ pluginTimeout: 60_000, logger: { level: 'warn', stream } })
  const authorize: Authorize = (_request, action) => {
    if (action === 'read') return { id: 'guest' }
    throw new Error('not you')
  }
  await useApp(t, { app, options: { authorize } })
  for (const path of ['/status', '/overview']) t.equal(await statusOf(app, `/coordination${path}`), 200, path)
  t.strictSame(lines, [], 'nothing was denied')
  t.equal((await app.inject(pause)).statusCode, 403)
  t.match(lines, [{ action: 'pause', msg: 'authorize threw: the request is denied' }])
})

t.test('who has been refused cannot tell what exists', async (t) => {
  const app = await useApp(t, { options: { authorize: () => false } })
  const lease = await app.coordination.acquire('by-hand')
  const there = await app.inject('/coordination/status')
  const refusedAlike = async (request: InjectOptions): Promise<void> => {
    const reply = await app.inject(request)
    const what = `${request.method ?? 'GET'} ${request.url}`
    t.equal(reply.statusCode, 403, what)
    t.strictSame({ ...reply.json(), instance: '' }, { ...there.json(), instance: '' }, what)
  }
  const paths = [
    '/leases/global:by-hand',
    '/leases/global:x',
    `/nodes/${app.coordination.nodeId}`,
    '/nodes/x',
  ]
  paths.push('/nothing', '/leases/%00', '/nodes/%00', '/status?x=1', '/nodes?limit=x', '/events?after=0-0')
  for (const path of paths) await refusedAlike({ url: `/coordination${path}` })
  for (const key of ['global:by-hand', 'global:x', '%00']) {
    const url = `/coordination/leases/${key}/release`
    for (const payload of [{ reason: 'a good one' }, { reason: '' }, { more: 1 }])
      for (const tag of [`"${lease.token}"`, '"1"', 'x'])
        await refusedAlike({ method: 'POST', url, payload, headers: { 'if-match': tag } })
  }
  t.ok(lease.held)
  await lease.release()
})

t.test('authorize is asked however a path is spelt, whatever the router makes equal', async (t) => {
  const equal = { ignoreTrailingSlash: true, ignoreDuplicateSlashes: true, useSemicolonDelimiter: true }
  const spelt = ['/coordination/leaders', '/%63oordination/leaders', '/coordination/%6ceaders?x=1']
  const loosely = ['//coordination//leaders', '/COORDINATION/Leaders/', '/coordination/leaders;x=1']
  for (const routerOptions of [{}, { ...equal, caseSensitive: false }]) {
    const asked: string[] = []
    const authorize: Authorize = ({ url }) => {
      asked.push(url)
      return false
    }
    const app = await useApp(t, { app: Fastify({ routerOptions }), options: { authorize } })
    const paths = 'caseSensitive' in routerOptions ? [...spelt, ...loosely] : spelt
    for (const url of paths)
      for (const method of ['GET', 'HEAD'] as const)
        t.equal((await app.inject({ method, url })).statusCode, 403, `${method} ${url}`)
    t.strictSame(
      asked,
      paths.flatMap((url) => [url, url]),
    )
  }
})

t.test('authorize sees what hooks that were added after the plugin have found out', async (t) => {
  const authorize: Authorize = ({ headers }) => headers['x-found'] === 'mira' && { id: 'mira' }
  const app = await useApp(t, {
    options: { authorize },
    after: (app) =>
      app.addHook('onRequest', async (request) => {
        request.headers['x-found'] = 'mira'
      }),
  })
  t.equal(await statusOf(app, '/coordination/status'), 200)
})

t.test('what the application itself refuses is refused', async (t) => {
  const app = await useApp(t, {
    before: (app) =>
      app.addHook('onRequest', async (_request, reply) => reply.code(401).send({ mine: true })),
  })
  const reply = await app.inject('/coordination/status')
  t.equal(reply.statusCode, 401)
  t.strictSame(reply.json(), { mine: true })
})

t.test('who may not write is told so before sending a body', async (t) => {
  const app = await useApp(t, { options: { authorize: () => false } })
  const origin = await listening(app)
  const headers = { 'content-type': 'application/json', 'content-length': 4_000 }
  const { status } = await over(origin, { method: 'PUT', path: String(pause.url), headers, body: undefined })
  t.equal(status, 403)
})

t.test('reading can be opened to everybody, by the names that are listed', async (t) => {
  const app = await useApp(t, {
    options: { access: { read: 'public', allowedHosts: ['coordination.example'] } },
  })
  const from = (host: string) => ({ remoteAddress: '10.0.0.7', headers: { host } })
  for (const host of [
    '10.0.0.1:3000',
    '[fe80::1]',
    'localhost',
    'coordination.example',
    'Coordination.Example:443',
  ]) {
    t.equal(await statusOf(app, '/coordination/leases', from(host)), 200, host)
  }
  for (const host of [
    'attacker.example',
    'coordination.example.attacker.example',
    '10.0.0.1.attacker.example',
  ]) {
    t.equal(await statusOf(app, '/coordination/leases', from(host)), 403, host)
  }
  t.equal((await app.inject({ ...pause, ...from('10.0.0.1') })).statusCode, 403, 'writing stays closed')
  useEnvironment(t, 'production')
  t.equal(await statusOf(app, '/coordination/leases', from('10.0.0.1')), 200, 'also in production')
})

t.test(
  'with authorize the name does not matter: what it asks for does not travel to other names',
  async (t) => {
    const app = await useApp(t)
    t.equal(await statusOf(app, '/coordination/status', { headers: { host: 'coordination.example' } }), 200)
  },
)

t.test('where names are listed, nobody is let in by another one, whatever authorize says', async (t) => {
  const authorize: Authorize = ({ ip }) => ip === '10.0.0.7' && { id: 'intranet' }
  const app = await useApp(t, { options: { authorize, access: { allowedHosts: ['coordination.example'] } } })
  const from = (host: string) => ({
    remoteAddress: '10.0.0.7',
    headers: { host, origin: `http://${host}` },
  })
  for (const host of ['coordination.example:3000', '10.0.0.1']) {
    t.equal(await statusOf(app, '/coordination/status', from(host)), 200, host)
    t.equal((await app.inject({ ...pause, ...from(host) })).statusCode, letThrough, host)
  }
  for (const request of [{ url: '/coordination/status' }, { url: '/coordination/nothing' }, pause]) {
    const reply = await app.inject({ ...request, ...from('attacker.example') })
    t.equal(reply.statusCode, 403)
    t.match(reply.json(), { type: /host-not-allowed$/, option: 'access' })
  }
  t.equal(await statusOf(app, '/coordination/health', from('attacker.example')), 200, 'a probe is open')
})

t.test('pages of other sites cannot write', async (t) => {
  const app = await useApp(t, {
    app: Fastify({ trustProxy: true }),
    options: { authorize: mira, allowedOrigins: ['https://intranet.example'] },
  })
  const rows: [headers: Record<string, string>, status: number][] = [
    [{}, letThrough],
    [{ 'sec-fetch-site': 'same-origin', origin: 'https://anything.example' }, letThrough],
    [{ 'sec-fetch-site': 'same-site' }, 403],
    [{ 'sec-fetch-site': 'cross-site' }, 403],
    [{ 'sec-fetch-site': 'none' }, 403],
    [{ 'sec-fetch-site': 'cross-site', origin: 'https://intranet.example' }, 403],
    [{ 'sec-fetch-site': 'cross-site', authorization: 'Bearer x' }, 403],
    [{ origin: 'http://coordination.example:8080' }, letThrough],
    [{ origin: 'http://coordination.example' }, 403],
    [{ origin: 'https://coordination.example:8080' }, 403],
    [{ origin: 'https://intranet.example' }, letThrough],
    [{ origin: 'http://intranet.example' }, 403],
    [{ origin: 'https://attacker.example' }, 403],
    [{ origin: 'https://attacker.example', authorization: 'Basic bWlyYTp4' }, 403],
    [{ origin: 'http://attacker.example', 'x-forwarded-host': 'attacker.example' }, 403],
    [{ origin: 'http://attacker.example', forwarded: 'host=attacker.example;proto=http' }, 403],
    [{ origin: 'https://coordination.example:8080', 'x-forwarded-proto': 'https' }, 403],
    [{ origin: 'null' }, 403],
    [{ origin: '' }, 403],
  ]
  for (const [headers, status] of rows) {
    const reply = await app.inject({ ...pause, headers: { host: 'coordination.example:8080', ...headers } })
    t.equal(reply.statusCode, status, JSON.stringify(headers))
    if (status !== 403) continue
    const { 'sec-fetch-site': site, origin } = headers
    const { type, detail, option } = reply.json()
    t.match(type, /cross-site$/)
    t.match(detail, JSON.stringify(site ?? origin), 'what came')
    t.match(
      detail,
      site === undefined ? '`allowedOrigins`' : 'expected Sec-Fetch-Site: same-origin',
      'what should',
    )
    t.equal(option, site === undefined ? 'allowedOrigins' : undefined, 'only where the option would help')
  }
  const reading = await app.inject({
    url: '/coordination/status',
    headers: { 'sec-fetch-site': 'cross-site' },
  })
  t.equal(reading.statusCode, 200, 'a link from elsewhere may be followed')
})

t.test('behind TLS the own origin begins with https', async (t) => {
  const https = { ...sharedKey, pskCallback: () => psk }
  const app = await useApp(t, { app: Fastify({ https }) as unknown as FastifyInstance })
  const origin = await listening(app)
  const { host } = new URL(origin)
  const paused = (from: string): Promise<number> =>
    new Promise((resolve, reject) => {
      const headers = { origin: from, 'content-type': 'application/json' }
      const known = { pskCallback: () => ({ psk, identity: 'client' }), checkServerIdentity: () => undefined }
      const options = { method: 'PUT', headers, agent: false, ...sharedKey, ...known }
      const sent = httpsRequest(`${origin}${pause.url}`, options, (response) => {
        response.resume()
        resolve(response.statusCode ?? 0)
      })
      sent.on('error', reject)
      sent.end(JSON.stringify(pause.payload))
    })
  t.equal(await paused(`https://${host}`), letThrough)
  t.equal(await paused(`http://${host}`), 403)
})

t.test('no other origin is invited: there are no CORS headers, and OPTIONS is not answered', async (t) => {
  const app = await useApp(t)
  const headers = { origin: 'https://attacker.example', 'access-control-request-method': 'PUT' }
  for (const method of ['GET', 'OPTIONS'] as const) {
    const reply = await app.inject({ method, url: '/coordination/status', headers })
    t.notOk(Object.keys(reply.headers).some((name) => name.startsWith('access-control')))
    if (method === 'OPTIONS') t.not(reply.statusCode, 200)
  }
})

t.test('pages of other sites cannot embed an answer', async (t) => {
  const own = ['x-frame-options', 'SAMEORIGIN'] as const
  const app = await useApp(t)
  const theirs = await useApp(t, {
    before: (app) => app.addHook('onRequest', async (_request, reply) => void reply.header(...own)),
  })
  for (const path of ['status', 'leases/c1:nothing', 'health', 'metrics', 'nothing', 'status?x=1']) {
    const { headers } = await app.inject(`/coordination/${path}`)
    t.match(
      headers,
      {
        'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
        'x-frame-options': 'DENY',
        'x-content-type-options': 'nosniff',
        'cross-origin-resource-policy': 'same-origin',
      },
      path,
    )
    const [name, value] = own
    t.equal((await theirs.inject(`/coordination/${path}`)).headers[name], value, 'what they have set stays')
  }
})

t.test('writes of one actor are limited, and those of another go on', async (t) => {
  const authorize: Authorize = ({ headers }) => ({ id: String(headers['x-user']) })
  const app = await useApp(t, { options: { authorize } })
  stopTime(t)
  const as = (user: string) => app.inject({ ...pause, headers: { 'x-user': user } })
  const replies = await Promise.all(Array.from({ length: 31 }, () => as('mira')))
  t.equal(replies.filter(({ statusCode }) => statusCode === letThrough).length, 30)
  const [refused] = replies.filter(({ statusCode }) => statusCode === 429)
  t.match(refused?.headers, { 'retry-after': /^\d+$/ })
  t.match(refused?.json(), { type: /too-many-requests$/, retryAfter: Number })
  t.equal((await as('noah')).statusCode, letThrough)
  const reading = await app.inject({ url: '/coordination/status', headers: { 'x-user': 'mira' } })
  t.equal(reading.statusCode, 200, 'who may not write at the moment may still look')
})

t.test('a word about the process is for everybody, and nobody is asked', async (t) => {
  let asked = 0
  const authorize: Authorize = () => {
    asked += 1
    return false
  }
  for (const options of [{}, { authorize }, { access: { read: 'public' } as const }]) {
    const app = await useApp(t, { options })
    useEnvironment(t, 'production')
    for (const [path, status] of [
      ['/health', 'alive'],
      ['/health/ready', 'ready'],
    ]) {
      for (const [what, request] of strangers) {
        const reply = await app.inject({ url: `/coordination${path}`, ...request })
        t.equal(reply.statusCode, 200, `${path} ${what}`)
        t.strictSame(reply.json(), { status }, 'and no name')
        t.notOk(Object.keys(reply.headers).some((name) => name.startsWith('access-control')))
      }
      const more = await app.inject(`/coordination${path}?verbose=1`)
      t.equal(more.statusCode, 400, 'nor is there more to ask')
      const other = await app.inject({ method: 'POST', url: `/coordination${path}` })
      t.equal(other.statusCode, 'read' in (options.access ?? {}) ? 405 : 403, 'nor to do')
    }
  }
  t.equal(asked, 2, 'but about what is no route')
})

t.test('who leads is told only to those who may probe, and they need not be allowed to read', async (t) => {
  const leader = '/coordination/health/leader/global:x'
  const authorize: Authorize = ({ headers }, action) => action === headers['x-may'] && { id: 'balancer' }
  const app = await useApp(t, { options: { authorize } })
  const asked = (url: string, may: string) => statusOf(app, url, { headers: { 'x-may': may } })
  t.equal(await asked(leader, 'probe'), 503)
  t.equal(await asked('/coordination/leases', 'probe'), 403)
  t.equal(await asked(leader, 'read'), 403)
  const silent = await useApp(t, { options: {} })
  t.equal(await statusOf(silent, leader), 503, 'without authorize, the machine itself')
  for (const [what, request] of strangers) t.equal(await statusOf(silent, leader, request), 403, what)
  const open = await useApp(t, { options: { access: { read: 'public' } } })
  t.equal(await statusOf(open, leader, { remoteAddress: '10.0.0.7', headers: { host: '10.0.0.1' } }), 503)
})

t.test('the status asks about each action once, and each other route about its own only', async (t) => {
  const asked: string[] = []
  const authorize: Authorize = (_request, action) => {
    asked.push(action)
    return { id: 'mira' }
  }
  const app = await useApp(t, { options: { authorize } })
  await app.inject('/coordination/status')
  t.strictSame(asked.sort(), ['drain', 'forget', 'pause', 'read', 'rebalance', 'release'])
  for (const path of ['/nodes', '/leases', '/leaders', '/events', '/assignments', '/metrics']) {
    asked.length = 0
    await app.inject(`/coordination${path}`)
    t.strictSame(asked, ['read'], path)
  }
})

t.test('the status tells who asks and what they may do', async (t) => {
  const authorize: Authorize = (_request, action) => ['read', 'drain'].includes(action) && { id: 'noah' }
  const app = await useApp(t, { options: { authorize } })
  const { capabilities } = (await app.inject('/coordination/status')).json()
  t.strictSame(capabilities, {
    actor: { id: 'noah' },
    read: true,
    release: false,
    drain: true,
    pause: false,
    rebalance: false,
    forget: false,
  })
})

t.test('of the record of a user that authorize answers, only the actor is used', async (t) => {
  const record: { readonly id: string; [field: string]: unknown } = { id: 'noah', hash: 'hunter2', row: 10n }
  record.self = record
  const app = await useApp(t, { options: { authorize: () => record } })
  for (const path of ['status', 'overview']) {
    const reply = await app.inject(`/coordination/${path}`)
    t.equal(reply.statusCode, 200, path)
    t.strictSame(reply.json().capabilities.actor, { id: 'noah' }, path)
  }
})

async function statusOf(
  app: FastifyInstance,
  url: string,
  request: { remoteAddress?: string; headers?: Record<string, string> } = {},
): Promise<number> {
  return (await app.inject({ url, ...request })).statusCode
}

/** Encryption without certificates: both ends know the same bytes. */
const sharedKey = { ciphers: 'PSK', maxVersion: 'TLSv1.2' } as const
const psk = Buffer.alloc(32)
