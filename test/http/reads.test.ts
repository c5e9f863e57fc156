/** Tests what can be read, over every database: status, lists, single things, tags and pages. */
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import { silentLog } from '../../plugin/core/log.js'
import { leaderOnly } from '../../plugin/index.js'
import { openStore } from '../../plugin/stores/open.js'
import { eachDatabase, type Lifetime, useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { execute } from '../support/statements.js'
import { listening, mira, threeWorkers, untilAborted, useApp } from './application.js'
import { type Frame, watch } from './room.js'

const isoTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

t.test('everything can be read', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const app = await useApp(t, { url, workers: threeWorkers })
    const { coordination } = app
    await allHeld(app)
    const id = coordination.nodeId ?? ''
    const self = { id, name: 'n1', cluster: 'c1' }
    const lease = await coordination.acquire('by-hand')

    await t.test('GET /status', async (t) => {
      const reply = await app.inject('/coordination/status')
      t.equal(reply.statusCode, 200)
      t.equal(reply.headers['content-type'], 'application/json; charset=utf-8')
      t.equal(reply.headers['cache-control'], 'no-store')
      t.match(reply.json(), {
        now: isoTime,
        revision: Number,
        namespace: 'default',
        self: { ...self, state: 'running' },
        counts: {
          nodes: { active: 1, draining: 0, silent: 0, gone: 0 },
          workers: { running: 3, paused: 0 },
          leases: { held: 15, moving: 0, silent: 0, blocked: 0, unclaimed: 0, free: 0 },
        },
        capabilities: { actor: { id: 'mira', display: 'Mira' }, release: true },
        timing: { ttlMs: 15_000, longestTtlMs: 15_000, blockWaitMs: 19_650 },
      })
      t.strictSame(reply.json().problems, [])
    })

    await t.test('GET /nodes', async (t) => {
      const body = await read(app, '/nodes')
      t.match(body, { now: isoTime, revision: Number, next: null, total: 1 })
      t.match(body.items, [
        { ...self, state: 'active', startedAt: isoTime, heartbeatAt: isoTime, goneAt: null },
      ])
      for (const query of [
        'state=active',
        'name=n1',
        'cluster=c1',
        'q=N1',
        'state=active&name=n1&cluster=c1&q=1',
      ])
        t.equal((await read(app, `/nodes?${query}`)).total, 1, query)
      for (const query of ['state=gone', 'name=n', 'cluster=c2', 'q=n2'])
        t.equal((await read(app, `/nodes?${query}`)).total, 0, query)
      const one = await read(app, `/nodes/${id}`)
      t.match(one, { ...self, watcher: true, workers: ['c1/indexing', 'global/data', 'global/consumer'] })
      t.equal(one.leases.length, 15)
    })

    await t.test('GET /workers', async (t) => {
      const body = await read(app, '/workers')
      t.strictSame(keysOf(body.items), ['c1/indexing', 'global/consumer', 'global/data'])
      t.strictSame(keysOf((await read(app, '/workers?cluster=c1')).items), ['c1/indexing'])
      t.strictSame(keysOf((await read(app, '/workers?q=DATA')).items), ['global/data'])
      t.match(await read(app, '/workers/global:consumer'), {
        key: 'global/consumer',
        kind: 'partitioned',
        slots: 12,
        paused: false,
        candidates: ['n1'],
      })
    })

    await t.test('GET /leases', async (t) => {
      t.equal((await read(app, '/leases')).total, 15)
      const partitions = await read(app, '/leases?worker=global:consumer')
      t.strictSame(
        keysOf(partitions.items),
        Array.from({ length: 12 }, (_, slot) => `global/consumer#${slot}`),
        'in the order of their numbers',
      )
      for (const query of [
        'worker=global/consumer',
        'holder=n1&q=consumer',
        `holder=${id}&q=consumer&state=held`,
      ])
        t.equal((await read(app, `/leases?${query}`)).total, 12, query)
      for (const query of ['holder=n2', 'state=free', 'worker=global:nothing', 'q=%23%23'])
        t.equal((await read(app, `/leases?${query}`)).total, 0, query)
      t.match(await read(app, '/leases/global:by-hand'), {
        key: 'global/by-hand',
        worker: null,
        state: 'held',
        holder: self,
        token: lease.token,
        acquiredAt: isoTime,
        cooldown: null,
      })
    })

    await t.test('GET /leaders answers who leads with curl alone', async (t) => {
      const leaders = await read(app, '/leaders')
      t.strictSame(Object.keys(leaders), ['c1/indexing'])
      const id = app.coordination.nodeId
      t.match(leaders['c1/indexing'], { node: 'n1', id, cluster: 'c1', token: Number, sinceMs: Number })
    })

    await t.test('GET /leases/{key}/history and /explain', async (t) => {
      const { items } = await read(app, '/leases/global:by-hand/history')
      t.match(items, [{ holder: self, token: lease.token, from: isoTime, to: null, ended: null }])
      const why = await read(app, '/leases/global:by-hand/explain')
      t.match(why, {
        key: 'global/by-hand',
        reasons: [{ code: 'held', sentence: String }],
        holder: { node: self },
        lease: { key: 'global/by-hand', state: 'held', kind: null, candidateCount: 0 },
      })
      const { leases } = await read(app, '/overview?q=c1/indexing')
      const { lease: same } = await read(app, '/leases/c1:indexing/explain')
      t.match(same, { kind: 'single', candidateCount: 1, session: { pulse: 'steady' } })
      t.strictSame(
        { ...same, session: null },
        { ...leases.items[0], session: null },
        'as the overview has it',
      )
    })

    await t.test('GET /assignments', async (t) => {
      const { items } = await read(app, '/assignments')
      t.strictSame(
        items.map(({ worker, slots }: { worker: string; slots: unknown[] }) => [worker, slots.length]),
        [
          ['global/consumer', 12],
          ['global/data', 1],
        ],
      )
      t.match(await read(app, '/assignments/global:data'), {
        kind: 'coordinated',
        generation: 1,
        slots: [{ slot: 0, key: 'global/data#0', state: 'owned', owner: self, target: self, token: Number }],
      })
    })

    await t.test('GET /events: the latest, or what came after a place', async (t) => {
      const latest = await read(app, '/events?limit=2')
      t.match(latest.items[0], { type: 'lease.acquired', subject: 'global/by-hand', node: id, at: isoTime })
      t.match(latest.items[0], {
        nodeName: 'n1',
        sentence: `n1 holds it, with token ${lease.token}.`,
      })
      t.equal(latest.next, latest.items[0].id)
      t.strictSame((await read(app, `/events?after=${latest.next}`)).items, [])
      const after = await read(app, `/events?after=${latest.items[1].id}`)
      t.strictSame(after.items, [latest.items[0]])
      t.equal(after.next, latest.next)
      await lease.release()
      const news = await read(
        app,
        `/events?after=${latest.next}&type=lease.released,lease.lost&subject=global:by-hand`,
      )
      t.match(news.items, [{ type: 'lease.released', token: lease.token }])
      const ofNodes = (await read(app, '/events?type=node.')).items
      t.match(ofNodes, [{ type: 'node.joined', sentence: 'n1 joined.' }])
      const oldest = await read(app, '/events?after=0-0&limit=1')
      const all = await read(app, '/events?limit=500')
      t.strictSame(oldest.items, [all.items.at(-1)], 'from the oldest there is')
      const second = await read(app, `/events?after=${oldest.next}&limit=1`)
      t.not(second.items[0].id, oldest.next)
      const { revision } = second
      for (const place of [`${revision + 90}-0`, `${oldest.next.split('-')[0]}-999`, '0-1']) {
        const reply = await app.inject(`/coordination/events?after=${place}`)
        t.equal(reply.statusCode, 410, `${place}, as after a restore`)
        t.match(reply.json(), { type: /cursor-expired$/, detail: /no event at that place.*after=0-0/ })
      }
    })
  }),
)

t.test('who waits for one kind of event goes on from the newest place looked at', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const app = await useApp(t, { url })
    const { operator } = app.coordination
    const take = async (name: string): Promise<void> => {
      const lease = await app.coordination.acquire(name)
      await lease.release()
      await eventually(async () => {
        const [event] = await operator.events({ limit: 1, subject: `global/${name}` })
        return event?.type === 'lease.released'
      })
    }
    await take('one')
    const filter = 'type=lease.revoked,lease.lost&subject=global:two'
    const first = await read(app, `/events?${filter}`)
    t.strictSame(first.items, [])
    t.equal(first.next, (await read(app, '/events?limit=1')).next)

    await take('one')
    const nothing = await read(app, `/events?${filter}&after=${first.next}`)
    t.strictSame(nothing.items, [])
    const newest = await read(app, '/events?limit=1')
    t.equal(nothing.next, newest.items[0].id, 'though nothing has matched')

    const options = { namespace: 'default', statementTimeoutMs: 5_000, migrate: false, push: false }
    const store = await openStore({ database: url, ...options, log: silentLog })
    await store.prune({ eventsForMs: 1e9, events: 1, goneNodesForMs: 1e9 })
    await store.close()
    const stale = `/coordination/events?${filter}&after=${first.next}`
    await eventually(async () => (await app.inject(stale)).statusCode === 410, {
      until: 'it is noticed that what was looked at is cleared away',
    })
    const later = await read(app, `/events?${filter}&after=${nothing.next}`)
    t.equal(later.next, nothing.next, 'who has gone on is not told to begin again')

    await take('two')
    const released = 'type=lease.acquired,lease.released&subject=global:two'
    const page = await read(app, `/events?${released}&limit=1&after=${later.next}`)
    t.match(page.items, [{ type: 'lease.acquired' }])
    t.equal(page.next, page.items[0].id, 'a full page ends where it ends')
    const rest = await read(app, `/events?${released}&limit=1&after=${page.next}`)
    t.match(rest.items, [{ type: 'lease.released' }])
  }),
)

t.test('who has it already is answered 304, until something changes', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const app = await useApp(t, { url, workers: threeWorkers })
    await allHeld(app)
    const paths = [
      '/status',
      '/nodes',
      `/nodes/${app.coordination.nodeId}`,
      '/workers',
      '/workers/global:data',
      '/leases',
      '/leases/global:data~0',
      '/leaders',
      '/assignments',
      '/assignments/global:data',
    ]
    for (const path of paths) {
      const first = await app.inject(`/coordination${path}`)
      const tag = String(first.headers.etag)
      const again = (headers: Record<string, string>) => app.inject({ url: `/coordination${path}`, headers })
      for (const known of [tag, `"other", ${tag}`, `W/${tag.replace(/^W\//, '')}`, '*']) {
        const second = await again({ 'if-none-match': known })
        t.equal(second.statusCode, 304, `${path} ${known}`)
        t.equal(second.headers.etag, tag, path)
        t.equal(second.headers['cache-control'], 'no-store')
        t.equal(second.body, '')
      }
      t.equal((await again({ 'if-none-match': '"other"' })).statusCode, 200, path)
      const head = await app.inject({ method: 'HEAD', url: `/coordination${path}` })
      t.equal(head.headers.etag, tag, `HEAD ${path}`)
    }
    const tags = async (): Promise<unknown[]> =>
      Promise.all(paths.map(async (path) => (await app.inject(`/coordination${path}`)).headers.etag))
    const before = await tags()
    const reply = await app.inject({
      method: 'PUT',
      url: `/coordination/nodes/${app.coordination.nodeId}/drain`,
      payload: { reason: 'a good one' },
    })
    t.equal(reply.statusCode, 202)
    await eventually(async () => (await read(app, '/leases?state=free')).total === 14)
    const after = await tags()
    for (const [index, path] of paths.entries()) t.not(after[index], before[index], path)
  }),
)

t.test('the tag of a lease begins with its token, and tells when it is on its way to somebody else', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const stubborn = new AbortController()
    const app = await useApp(t, {
      url,
      workers: [{ name: 'stubborn', kind: 'single', scope: 'global', run: () => untilAborted(stubborn) }],
    })
    t.teardown(() => stubborn.abort())
    const path = '/coordination/leases/global:stubborn'
    await eventually(async () => (await app.inject(path)).json().state === 'held')
    const held = await app.inject(path)
    const tag = new RegExp(`^W/"${held.json().token}-[\\w-]{22}"$`)
    t.match(held.headers.etag, tag)
    await app.inject({
      method: 'PUT',
      url: '/coordination/workers/global:stubborn/pause',
      payload: { reason: 'test' },
    })
    const moving = await app.inject({ url: path, headers: { 'if-none-match': String(held.headers.etag) } })
    t.equal(moving.statusCode, 200, 'not 304: it is not held as it was')
    t.match(moving.headers.etag, tag)
  }),
)

t.test('who has a lease already is told when its cool-down has passed', async (t) => {
  const app = await useApp(t, { workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('indexing'))
  const path = '/coordination/leases/c1:indexing'
  const send = (tag: string) =>
    app.inject({
      method: 'POST',
      url: `${path}/release`,
      headers: { 'if-match': tag },
      payload: { reason: 'test', cooldownMs: 1_500 },
    })
  const first = await app.inject(path)
  t.equal((await send(String(first.headers.etag))).statusCode, 200, 'the tag as it is does for If-Match')
  const cooling = await eventually(async () => {
    const reply = await app.inject(path)
    return reply.json().state === 'held' && reply.json().cooldown !== null ? reply : undefined
  })
  const again = async () =>
    app.inject({ url: path, headers: { 'if-none-match': String(cooling?.headers.etag) } })
  const later = await eventually(async () => {
    const reply = await again()
    return reply.statusCode === 200 ? reply : undefined
  })
  t.match(later?.json(), { token: cooling?.json().token, state: 'held', cooldown: null })
  t.equal((await send(`"${later?.json().token}"`)).statusCode, 200, 'and so does the token alone')
})

t.test('a list is read a page at a time, and each item is on one page', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const app = await useApp(t, { url, workers: threeWorkers })
    await allHeld(app)
    const seen: string[] = []
    let cursor: string | null = null
    do {
      const suffix: string = cursor === null ? '' : `&cursor=${cursor}`
      const page = await read(app, `/leases?limit=5${suffix}`)
      t.equal(page.total, 14)
      seen.push(...keysOf(page.items))
      cursor = page.next
    } while (cursor !== null)
    t.strictSame(seen, keysOf((await read(app, '/leases?limit=500')).items))
    t.equal(seen.length, 14)
  }),
)

t.test('pages leave out no lease, also beside partitions of the same name', async (t) => {
  const { url } = await useSqlite(t)
  const consumer = { name: 'consumer', scope: 'global', run: untilAborted } as const
  const before = await useApp(t, { url, workers: [{ ...consumer, kind: 'single' }] })
  await eventually(() => before.coordination.isHeld('consumer'))
  await before.close()
  const app = await useApp(t, { url, workers: [{ ...consumer, kind: 'partitioned', partitions: 11 }] })
  await eventually(async () => (await read(app, '/leases')).total === 12)
  const seen: string[] = []
  let cursor: string | null = ''
  while (cursor !== null) {
    const page: Awaited<ReturnType<typeof read>> = await read(app, `/leases?limit=1${cursor}`)
    seen.push(...keysOf(page.items))
    cursor = page.next === null ? null : `&cursor=${page.next}`
  }
  const partitions = Array.from({ length: 11 }, (_, slot) => `global/consumer#${slot}`)
  t.strictSame(seen, ['global/consumer', ...partitions])
})

t.test('a cursor that is not ours is refused', async (t) => {
  const app = await useApp(t, { workers: threeWorkers })
  await allHeld(app)
  const { next } = await read(app, '/leases?limit=2')
  const rows: [what: string, path: string][] = [
    ['cut', `/leases?limit=2&cursor=${next.slice(0, -2)}`],
    ['altered', `/leases?limit=2&cursor=${next.slice(0, -2)}AA`],
    ['made up', '/leases?limit=2&cursor=abc'],
    ['of another list', `/workers?cursor=${next}`],
    ['narrowed down otherwise', `/leases?limit=2&q=data&cursor=${next}`],
    ['empty', '/leases?cursor='],
    ['too long', `/leases?cursor=${'a'.repeat(513)}`],
    ['no text', '/leases?cursor=%00'],
  ]
  for (const [what, path] of rows) {
    const reply = await app.inject(`/coordination${path}`)
    t.equal(reply.statusCode, 400, what)
    t.match(reply.json(), { type: /invalid-request$/ })
  }
})

t.test('what is not as described is refused, and the answer says what it is', async (t) => {
  const app = await useApp(t)
  const rows: [path: string, error: RegExp][] = [
    ['/status?verbose=1', /there is nothing called "verbose"/],
    ['/nodes?state=asleep', /querystring\/state: must be one of "active", "draining", "gone"/],
    ['/nodes?limit=0', /querystring\/limit: must be >= 1/],
    ['/nodes?limit=501', /querystring\/limit: must be <= 500/],
    ['/nodes?limit=ten', /querystring\/limit: must be integer/],
    ['/nodes?limit=1&limit=2', /querystring\/limit: must be integer/],
    [`/nodes?cluster=${'x'.repeat(101)}`, /querystring\/cluster: must match pattern/],
    ['/nodes?cluster=a%20b', /querystring\/cluster: must match pattern/],
    ['/nodes?q=%00', /querystring\/q: must match pattern/],
    ['/nodes?__proto__=1', /there is nothing called "__proto__"/],
    ['/nodes/a%20b', /params\/id: must match pattern/],
    ['/nodes/%00', /params\/id: must match pattern/],
    ['/events?after=yesterday', /querystring\/after: must match pattern/],
    ['/events?after=00-0', /querystring\/after/],
    ['/events?type=lease.revokd', /querystring\/type: .*"lease\.revokd".* There are lease\.acquired, /],
    ['/events?type=lease.,nothing.', /querystring\/type: .*"nothing\."/],
    ['/events?type=%27', /querystring\/type: must match pattern/],
    ['/leases/indexing', /names no key/],
    ['/leases/%00', /names no key/],
    ['/leases/__proto__', /names no key/],
    ['/leases/global%2F__proto__', /names no key/],
    ['/leases/..%2F..%2Fetc', /names no key/],
    ['/leases/global:%3Cscript%3E', /names no key/],
    ['/leases/global:x~y', /names no key/],
    [`/leases/global:${'x'.repeat(101)}`, /names no key/],
    ['/workers/global:x~1', /names no key/],
  ]
  for (const [path, error] of rows) {
    const reply = await app.inject(`/coordination${path}`)
    t.equal(reply.statusCode, 400, path)
    t.equal(reply.headers['content-type'], 'application/problem+json; charset=utf-8', path)
    t.match(reply.json(), { type: /invalid-request$/, status: 400, detail: error, instance: /^req-/ }, path)
  }
})

t.test('what no schema names is not sent, wherever it comes from', async (t) => {
  const app = await useApp(t, { workers: threeWorkers })
  await allHeld(app)
  const { operator, nodeId } = app.coordination
  const [snapshot, events] = [operator.snapshot.bind(operator), operator.events.bind(operator)]
  const more = <Row extends object>(row: Row): Row => ({ ...row, secret: 'hunter2' })
  operator.snapshot = async () => {
    const { meta, nodes, workers, leases, ...rest } = await snapshot()
    const rows = { nodes: nodes.map(more), workers: workers.map(more), leases: leases.map(more) }
    return more({ ...rest, meta: more(meta), ...rows })
  }
  operator.events = async (query) => (await events(query)).map(more)
  const paths = ['/status', '/nodes', `/nodes/${nodeId}`, '/workers', '/workers/global:data', '/leases']
  paths.push('/leases/c1:indexing', '/leases/c1:indexing/history', '/leases/c1:indexing/explain')
  paths.push('/leaders', '/assignments', '/assignments/global:data', '/events')
  for (const path of paths) {
    const reply = await app.inject(`/coordination${path}`)
    t.equal(reply.statusCode, 200, path)
    t.notMatch(reply.body, /secret|hunter2/, path)
  }
  const origin = await listening(app)
  const { id } = (await read(app, '/events?after=0-0&limit=1')).items[0]
  const told = [...(await beginningOf(t, origin, 1)), ...(await beginningOf(t, origin, 2, id))]
  t.match(told, [{ event: 'snapshot' }, { event: 'event' }])
  t.notMatch(JSON.stringify(told), /secret|hunter2/, '/stream')
})

t.test('a stream begins with what GET /status answers, without its lists and capabilities', async (t) => {
  const app = await useApp(t, { workers: threeWorkers })
  await allHeld(app)
  const { now, capabilities, nodes, leases, assignments, ...whole } = await read(app, '/status')
  const [first] = await beginningOf(t, await listening(app), 1)
  t.match(first?.data, { now: isoTime })
  t.strictSame({ ...first?.data, now }, { now, ...whole })
})

t.test('what is not there is a 404', async (t) => {
  const app = await useApp(t)
  const paths = [
    '/nodes/nobody',
    '/workers/global:x',
    '/leases/global:x',
    '/leases/global:x/history',
    '/leases/global:x/explain',
    '/assignments/global:x',
    '/nothing',
    '/leases/global:x/nothing',
  ]
  for (const path of paths) {
    const reply = await app.inject(`/coordination${path}`)
    t.equal(reply.statusCode, 404, path)
    t.match(reply.json(), { type: /not-found$/, status: 404 })
  }
})

t.test('what is not there says what may have been meant', async (t) => {
  const app = await useApp(t, { workers: threeWorkers })
  await allHeld(app)
  const none = 'There is no such lease.'
  const partitions =
    'The worker global/consumer is partitioned: its leases are its partitions, global:consumer~0 to global:consumer~11.'
  const details: [path: string, detail: string][] = [
    [
      '/nodes/n1',
      'There is no such node. Nodes are named by id: GET /nodes?name=n1 lists those that are called so.',
    ],
    ['/nodes/00000000-0000-4000-8000-000000000000', 'There is no such node.'],
    ['/leases/global:x', none],
    ['/leases/global:consumer', `${none} ${partitions}`],
    ['/leases/global:consumer/history', `${none} ${partitions}`],
    ['/leases/global:consumer/explain', `${none} ${partitions}`],
    ['/leases/global:consumer~12', `${none} ${partitions}`],
    [
      '/leases/global:data',
      `${none} The worker global/data is coordinated: its leases are its shares, global:data~0.`,
    ],
    ['/leases/c1:indexing~0', `${none} The worker c1/indexing is single: its lease is c1:indexing.`],
  ]
  for (const [path, detail] of details) {
    const reply = await app.inject(`/coordination${path}`)
    t.match(reply.json(), { status: 404, detail }, path)
    const worker = /its leases are/.test(detail) ? /The worker (\S+)/.exec(detail)?.[1] : undefined
    t.equal(reply.json().worker, worker, path)
  }
  const doing: [way: string, body: object][] = [
    ['release', { reason: 'a good one' }],
    ['step-down', { reason: 'a good one' }],
    ['transfer', { reason: 'a good one', to: 'n2' }],
  ]
  for (const [way, payload] of doing) {
    const url = `/coordination/leases/global:consumer/${way}`
    const reply = await app.inject({ method: 'POST', url, headers: { 'if-match': '"1"' }, payload })
    t.match(reply.json(), { status: 404, detail: `${none} ${partitions}` }, way)
  }
  for (const [method, url, payload] of [
    ['PUT', '/nodes/n1/drain', { reason: 'a good one' }],
    ['DELETE', '/nodes/n1/drain', undefined],
    ['DELETE', '/nodes/n1', undefined],
  ] as const) {
    const reply = await app.inject({ method, url: `/coordination${url}`, ...(payload && { payload }) })
    t.match(reply.json(), { status: 404, detail: / GET \/nodes\?name=n1 / }, `${method} ${url}`)
  }
})

t.test('a method that a path does not take is a 405 that names those it takes', async (t) => {
  const app = await useApp(t)
  const rows: ['GET' | 'POST' | 'PUT' | 'DELETE', path: string, allow: string][] = [
    ['POST', '/status', 'GET, HEAD'],
    ['PUT', '/leases/global:x/release', 'POST'],
    ['GET', '/leases/global%2Fx/release?a=b', 'POST'],
    ['GET', '/workers/global:x/pause', 'DELETE, PUT'],
    ['PUT', '/nodes/x', 'DELETE, GET, HEAD'],
    ['DELETE', '/stream', 'GET'],
  ]
  for (const [method, path, allow] of rows) {
    const reply = await app.inject({ method, url: `/coordination${path}` })
    t.equal(reply.statusCode, 405, `${method} ${path}`)
    t.equal(reply.headers.allow, allow, path)
    t.match(reply.json(), { type: /method-not-allowed$/, allow: allow.split(', ') })
  }
  const options = await app.inject({ method: 'OPTIONS', url: '/coordination/status' })
  t.equal(options.statusCode, 404)
  const unescaped = await app.inject('/coordination/leases/global/x')
  t.match(unescaped.json(), { status: 404, detail: /keys are written with ":" for "\/"/ })
})

t.test('a key as long as keys can be is found', async (t) => {
  const app = await useApp(t)
  const name = `x${'y'.repeat(99)}`
  const lease = await app.coordination.acquire(name, { scope: 'global' })
  t.match(await read(app, `/leases/global:${name}`), { key: lease.key })
  await lease.release()
  const longest = `/leases/${name}:${name}~16383`
  t.equal(
    (await app.inject(`/coordination${longest}`)).statusCode,
    404,
    'and one that could be is looked for',
  )
})

t.test('a database that is away is a 503 that does not say more', (t) =>
  eachDatabase(t, async (t, database) => {
    const app = await useApp(t, { url: database.url, options: { authorize: mira, drainTimeoutMs: 100 } })
    await execute(database, 'drop table coordination_meta')
    const by = { 'if-match': '"1"' }
    const replies = [
      ...['/status', '/nodes', '/leases', '/leaders', '/assignments', '/events'].map((path) =>
        app.inject(`/coordination${path}`),
      ),
      app.inject({
        method: 'PUT',
        url: '/coordination/workers/global:data/pause',
        payload: { reason: 'test' },
      }),
      app.inject({
        method: 'POST',
        url: '/coordination/leases/global:data~0/release',
        payload: { reason: 'test' },
        headers: by,
      }),
    ]
    for (const reply of await Promise.all(replies)) {
      t.equal(reply.statusCode, 503)
      t.equal(reply.headers['retry-after'], '1')
      t.strictSame(reply.json(), {
        type: 'urn:fastify-worker-coordination:problem:store-unavailable',
        title: 'The database is not available',
        status: 503,
        detail:
          'The database cannot be reached, is too slow, or refuses, as when it takes no writes; the log of this node says which.',
        instance: reply.json().instance,
        retryAfter: 1,
      })
    }
  }),
)

t.test('a process whose coordinator is closed answers that it closes, and blames no database', async (t) => {
  const lines: string[] = []
  const logger = { level: 'warn', stream: { write: (line: string) => void lines.push(line) } }
  const app = await useApp(t, {
    app: Fastify({ logger }),
    after: (app) => app.get('/own', { preHandler: leaderOnly(app.coordination, 'indexing') }, () => 'led'),
  })
  await app.coordination.close()
  const paths = ['/status', '/overview', '/nodes', '/events', '/stream'].map((path) => `/coordination${path}`)
  const pause = { method: 'PUT', url: '/coordination/workers/global:data/pause' } as const
  const replies = [
    ...[...paths, '/own'].map((path) => app.inject(path)),
    app.inject({ ...pause, payload: { reason: 'a good one' } }),
  ]
  for (const reply of await Promise.all(replies)) {
    t.equal(reply.statusCode, 503)
    t.match(reply.json(), { type: /:unavailable$/, detail: 'This process is closing.', retryAfter: 10 })
  }
  t.same(lines, [], 'it is no failure')
})

async function allHeld(app: FastifyInstance): Promise<void> {
  await eventually(async () => {
    const { leases } = await app.coordination.status()
    return leases.length >= 14 && leases.every(({ state }) => state === 'held')
  })
}

/** Returns the first frames of a stream, at least so many. With `after` they are what was missed. */
async function beginningOf(t: Lifetime, origin: string, atLeast: number, after?: string): Promise<Frame[]> {
  const viewer = await watch(t, origin, { after })
  await eventually(() => viewer.frames.length >= atLeast)
  return [...viewer.frames]
}

async function read(app: FastifyInstance, path: string) {
  return (await app.inject(`/coordination${path}`)).json()
}

function keysOf(items: readonly { readonly key: string }[]): string[] {
  return items.map(({ key }) => key)
}
