/** Tests what operators may do, over every database: the answers, and the effects. */

import BetterSqlite from 'better-sqlite3'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { silentLog } from '../../plugin/core/log.js'
import { openStore } from '../../plugin/stores/open.js'
import { eachDatabase, useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { post, revisionOf, single, threeWorkers, untilAborted, useApp } from './application.js'

const reason = 'stuck since 03:10'

function methodBody(method: 'PUT' | 'DELETE'): { payload?: object } {
  return method === 'PUT' ? { payload: { reason } } : {}
}

/** Returns what is stored, except for heartbeats and the time, which goes on. */
async function contentsOf(app: FastifyInstance): Promise<object> {
  const { meta, nodes, workers, leases } = await app.coordination.operator.snapshot()
  const standing = nodes.map(({ id, state, newsRevision }) => ({ id, state, newsRevision }))
  return { meta, nodes: standing, workers, leases }
}

// For all of them together: on a server that is slow to become ready, each test takes many seconds.
t.setTimeout(600_000)

t.test('the holder steps down after its pass, or in favour of one node', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const worker = single('global/report', untilAborted)
    const [first, second, third] = [
      await useApp(t, { url, node: 'n1', workers: [worker] }),
      await useApp(t, { url, node: 'n2', workers: [worker] }),
      await useApp(t, { url, node: 'n3', workers: [worker] }),
    ]
    const path = '/coordination/leases/global:report'
    await eventually(() => first.coordination.isHeld('report'))
    const { token } = (await first.inject(path)).json()
    const to = third.coordination.nodeId
    const transfer = (body: object, tag = `"${token}"`) => post(second, `${path}/transfer`, body, tag)

    const refused = await transfer({ to: 'nobody', reason })
    t.equal(refused.statusCode, 409)
    t.match(
      refused.json().detail,
      /^"nobody" cannot have the lease: `to` must be the id of one of the candidates/,
    )
    t.strictSame(
      refused.json().candidates.sort(),
      [second, third].map((app) => app.coordination.nodeId).sort(),
    )
    const itself = await transfer({ to: first.coordination.nodeId, reason })
    t.match(itself.json(), { status: 409, detail: '"n1" holds the lease already.' })
    t.ok(itself.json().candidates.includes(to), 'who could be named')
    const drain = `/coordination/nodes/${to}/drain`
    await first.inject({ method: 'PUT', url: drain, payload: { reason } })
    const draining = await transfer({ to, reason })
    t.match(draining.json(), {
      ...{ status: 409, detail: '"n3" is not a candidate for the lease: it is draining.' },
      candidates: [second.coordination.nodeId],
    })
    await first.inject({ method: 'DELETE', url: drain })
    const late = await transfer({ to, reason }, '"1"')
    t.equal(late.statusCode, 412)
    t.equal(late.json().detail, `By now the lease is held by node "n1" with token ${token}.`)
    const moved = await transfer({ to, reason })
    t.equal(moved.statusCode, 202)
    t.strictSame(moved.json(), {
      key: 'global/report',
      token,
      from: { id: first.coordination.nodeId, name: 'n1', cluster: 'c1' },
      to: { id: to, name: 'n3', cluster: 'c1' },
      sentence: 'n1 has been asked. n3 is to have it next, once its pass has ended.',
    })
    await eventually(() => third.coordination.isHeld('report'))
    const next = (await first.inject(path)).json()
    const stepped = await post(second, `${path}/step-down`, undefined, `"${next.token}"`)
    t.equal(stepped.statusCode, 202, 'without a body')
    await eventually(() => first.coordination.isHeld('report') || second.coordination.isHeld('report'))
    const events = (await first.inject('/coordination/events?type=lease.transferred')).json().items
    t.strictSame(
      events.map(({ actor, reason: why }: { actor: string; reason: string }) => [actor, why]),
      [
        ['mira', 'asked to step down'],
        ['mira', reason],
      ],
    )
  }),
)

t.test('stepping down needs somebody who follows', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const app = await useApp(t, { url, workers: [single('global/report', untilAborted)] })
    await eventually(() => app.coordination.isHeld('report'))
    const path = '/coordination/leases/global:report'
    const { token } = (await app.inject(path)).json()
    const reply = await post(app, `${path}/step-down`, { reason }, `"${token}"`)
    t.equal(reply.statusCode, 409)
    t.match(reply.json(), { detail: 'No other node is a candidate for the lease.' })
    t.notOk('candidates' in reply.json())
    const to = app.coordination.nodeId
    const itself = await post(app, `${path}/transfer`, { reason, to }, `"${token}"`)
    t.match(itself.json(), { status: 409, detail: '"n1" holds the lease already.' })
  }),
)

t.test('a share of a coordinated worker goes where the plan has it go', async (t) => {
  const { url } = await useSqlite(t)
  const [first, second] = [
    await useApp(t, { url, node: 'n1', workers: threeWorkers }),
    await useApp(t, { url, node: 'n2', workers: threeWorkers }),
  ]
  const shares = async () => (await first.inject('/coordination/leases?worker=global:data')).json().items
  const held = ({ state }: { state: string }): boolean => state === 'held'
  await eventually(async () => (await shares()).length === 2 && (await shares()).every(held))
  const [{ key, token, holder }] = await shares()
  const path = `/coordination/leases/${key.replace('/', ':').replace('#', '~')}`
  const ids = [first, second].map(({ coordination }) => coordination.nodeId)
  for (const to of ids) {
    const reply = await post(first, `${path}/transfer`, { reason, to }, `"${token}"`)
    const detail = to === holder.id ? /^"n\d" holds the lease already\.$/ : /^A share .* step-down /
    t.match(reply.json(), { status: 409, detail })
    t.notOk('candidates' in reply.json(), 'no other node could be named')
  }
})

t.test('each needs the token it is about', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const app = await useApp(t, { url, workers: threeWorkers })
    await eventually(() => app.coordination.isHeld('indexing'))
    const { token } = (await app.inject('/coordination/leases/c1:indexing')).json()
    const bodies = { release: { reason }, 'step-down': { reason }, transfer: { reason, to: 'n2' } }
    for (const [what, body] of Object.entries(bodies)) {
      const path = `/coordination/leases/c1:indexing/${what}`
      const missing = await post(app, path, body)
      t.equal(missing.statusCode, 428, what)
      t.match(missing.json(), { type: /precondition-required$/, detail: /If-Match: "<token>"/ })
      for (const tag of ['*', `${token}`, '"x"', `"${token}", "1"`, '"99999999999999999"', '""'])
        t.equal((await post(app, path, body, tag)).statusCode, 400, `${what} ${tag}`)
      const other = await post(app, path, body, '"1"')
      t.equal(other.statusCode, 412, what)
      t.match(other.json(), { current: { key: 'c1/indexing', token } })
      t.equal((await post(app, `/coordination/leases/global:x/${what}`, body, '"1"')).statusCode, 404, what)
    }
    t.ok(app.coordination.isHeld('indexing'))
    const weak = await post(app, '/coordination/leases/c1:indexing/release', { reason }, `W/"${token}-held"`)
    t.equal(weak.statusCode, 200, 'a proxy that compresses makes tags weak')
  }),
)

t.test('a node is drained, and its progress can be watched; the drain can be withdrawn', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const first = await useApp(t, { url, node: 'n1', workers: threeWorkers })
    await eventually(() => first.coordination.isHeld('indexing'))
    const second = await useApp(t, { url, node: 'n2', workers: threeWorkers })
    const id = first.coordination.nodeId
    const path = `/coordination/nodes/${id}`
    const drained = await second.inject({ method: 'PUT', url: `${path}/drain`, payload: { reason } })
    t.equal(drained.statusCode, 202)
    t.match(drained.json(), { id, state: 'draining' })
    const again = await second.inject({ method: 'PUT', url: `${path}/drain`, payload: { reason } })
    t.equal(again.statusCode, 202, 'repeating it is harmless')
    await eventually(async () => (await second.inject(path)).json().leases.length === 0)
    await eventually(() => second.coordination.isHeld('indexing'))
    t.equal((await second.inject({ method: 'DELETE', url: path })).statusCode, 409, 'it is alive')

    const withdrawn = 'the deploy & all of it is off'
    for (const why of [`?reason=${encodeURIComponent(withdrawn)}`, ''])
      t.equal((await second.inject({ method: 'DELETE', url: `${path}/drain${why}` })).statusCode, 204)
    t.equal((await second.inject(path)).json().state, 'active')
    const types = '/coordination/events?type=node.draining,node.resumed'
    t.match((await second.inject(types)).json().items, [
      { type: 'node.resumed', actor: 'mira', reason: withdrawn, subject: id },
      { type: 'node.draining', actor: 'mira', reason, subject: id },
    ])

    await first.close()
    const gone = await second.inject({ method: 'PUT', url: `${path}/drain`, payload: { reason } })
    t.equal(gone.statusCode, 409)
    t.equal((await second.inject({ method: 'DELETE', url: `${path}/drain` })).statusCode, 409)
    const forget = { method: 'DELETE', url: `${path}?reason=replaced` } as const
    await eventually(async () => (await second.inject(forget)).statusCode === 204)
    t.match((await second.inject('/coordination/events?type=node.forgotten')).json().items, [
      { actor: 'mira', reason: 'replaced', subject: id },
    ])
    t.equal((await second.inject(path)).statusCode, 404)
    for (const method of ['PUT', 'DELETE'] as const)
      t.equal((await second.inject({ method, url: `${path}/drain`, ...methodBody(method) })).statusCode, 404)
    t.equal((await second.inject({ method: 'DELETE', url: path })).statusCode, 404)
  }),
)

t.test('a worker is paused until it is resumed, also across a restart', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const app = await useApp(t, { url, workers: threeWorkers })
    await eventually(() => app.coordination.isHeld('indexing'))
    const path = '/coordination/workers/c1:indexing'
    const isoTime = /^\d{4}-.*Z$/
    for (const why of [reason, 'another reason']) {
      const reply = await app.inject({ method: 'PUT', url: `${path}/pause`, payload: { reason: why } })
      t.equal(reply.statusCode, 202)
      const pause = { since: isoTime, actor: 'mira', reason }
      t.match(reply.json(), { key: 'c1/indexing', paused: true, pause }, 'the first reason stays')
    }
    await eventually(() => !app.coordination.isHeld('indexing'))
    t.match((await app.inject('/coordination/status')).json().problems, [
      {
        code: 'worker-paused',
        severity: 'info',
        subject: 'c1/indexing',
        sentence: new RegExp(`nobody runs it\\. mira paused it at [-\\d]+ [:\\d]+ UTC: “${reason}”\\.$`),
      },
    ])
    await app.close()
    const next = await useApp(t, { url, node: 'n2', workers: threeWorkers })
    await eventually(() => next.coordination.isHeld('consumer'))
    t.notOk(next.coordination.isHeld('indexing'))
    const told = async (): Promise<unknown[]> => [
      (await next.inject(path)).json().pause?.actor,
      (await next.inject('/coordination/leases/c1:indexing/explain')).json().reasons[0].sentence,
    ]
    t.match(await told(), ['mira', new RegExp(`mira paused it .* ago: “${reason}”`)])
    await next.inject({
      method: 'PUT',
      url: '/coordination/workers/global:consumer/pause',
      payload: { reason: 'another one' },
    })
    const overview = (await next.inject('/coordination/overview')).json()
    const { pause } = overview.assignments.items.find(
      ({ worker }: { worker: string }) => worker === 'global/consumer',
    )
    t.match(pause, { since: isoTime, actor: 'mira', reason: 'another one' })
    const options = { namespace: 'default', statementTimeoutMs: 5_000, migrate: false, push: false }
    const store = await openStore({ database: url, ...options, log: silentLog })
    await store.prune({ eventsForMs: 1e9, events: 1, goneNodesForMs: 1e9 })
    await store.close()
    const third = await useApp(t, { url, node: 'n3', workers: threeWorkers })
    t.match((await third.inject(path)).json(), { paused: true, pause: null }, 'who knows by whom')
    await third.close()
    for (let times = 0; times < 2; times++)
      t.equal((await next.inject({ method: 'DELETE', url: `${path}/pause` })).statusCode, 204)
    await eventually(() => next.coordination.isHeld('indexing'))
    for (const method of ['PUT', 'DELETE'] as const) {
      const url = '/coordination/workers/global:x/pause'
      t.equal((await next.inject({ method, url, ...methodBody(method) })).statusCode, 404)
    }
  }),
)

t.test('a worker that no program registers any more is forgotten', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const old = await useApp(t, { url, workers: threeWorkers })
    await eventually(() => old.coordination.isHeld('indexing'))
    const app = await useApp(t, { url, node: 'n2' })
    const path = '/coordination/workers/c1:indexing'
    const forget = { method: 'DELETE', url: `${path}?reason=renamed` } as const
    t.equal((await app.inject(forget)).statusCode, 409, 'a node has registered it')
    await old.close()
    const problems = async () => (await app.inject('/coordination/overview?q=nothing')).json().problems
    const subject = 'c1/indexing'
    const sentence = /^No active node is a candidate .*\. If no program registers it any more, forget it\.$/
    t.match(
      (await problems()).find((each: { subject: string }) => each.subject === subject),
      {
        code: 'worker-without-candidates',
        sentence,
        forgettable: true,
        lease: { key: subject, holder: null },
      },
    )
    t.equal((await app.inject(forget)).statusCode, 204)
    t.equal((await app.inject(path)).statusCode, 404)
    t.notOk((await problems()).some((each: { subject: string }) => each.subject === subject))
    t.match((await app.inject('/coordination/events?type=worker.forgotten')).json().items, [
      { actor: 'mira', reason: 'renamed', subject, sentence: 'It was removed from the list.' },
    ])
    t.equal((await app.inject(forget)).statusCode, 404)
  }),
)

t.test('an assignment is planned afresh; a dry run only tells what would move', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const first = await useApp(t, { url, node: 'n1', workers: threeWorkers })
    const second = await useApp(t, { url, node: 'n2', workers: threeWorkers })
    const path = '/coordination/assignments/global:consumer'
    const owned = async (): Promise<number> => {
      const { slots } = (await first.inject(path)).json()
      return slots.filter(({ state }: { state: string }) => state === 'owned').length
    }
    const sharedOut = async (): Promise<boolean> =>
      first.coordination.isHeld('consumer') &&
      second.coordination.isHeld('consumer') &&
      (await owned()) === 12
    await eventually(sharedOut)
    const mine = (await first.inject('/coordination/leases?worker=global:consumer&holder=n1')).json().items
    for (const { key, token } of mine) {
      const body = { reason, cooldownMs: 0 }
      const at = `/coordination/leases/${key.replace('/', ':').replace('#', '~')}/step-down`
      t.equal((await post(first, at, body, `"${token}"`)).statusCode, 202)
    }
    await eventually(async () => (await owned()) === 12 && !first.coordination.isHeld('consumer'))

    const rebalance = (body: object, tag?: string) => post(second, `${path}/rebalance`, body, tag)
    const before = await first.inject(path)
    const tag = String(before.headers.etag)
    const revision = await revisionOf(first)
    const dry = await rebalance({ reason, dryRun: true })
    t.equal(dry.statusCode, 200)
    t.match(dry.json(), { worker: 'global/consumer', dryRun: true })
    t.equal(dry.json().moves.length, 6)
    t.match(dry.json().moves[0], { slot: Number, from: { name: 'n2' }, to: { name: 'n1' } })
    t.equal(await revisionOf(first), revision)

    t.equal((await rebalance({ reason })).statusCode, 428)
    const stale = await rebalance({ reason }, '"1"')
    t.equal(stale.statusCode, 412)
    t.match(stale.json(), { current: { planRevision: before.json().planRevision } })
    const done = await rebalance({ reason }, tag)
    t.equal(done.statusCode, 202)
    t.strictSame(done.json().moves, dry.json().moves)
    t.equal((await rebalance({ reason }, tag)).statusCode, 412, 'it is another plan now')
    await eventually(sharedOut)
    const now = String((await first.inject(path)).headers.etag)
    const nothing = await rebalance({ reason }, now)
    t.equal(nothing.statusCode, 200)
    t.strictSame(nothing.json().moves, [])
    const [event] = (await first.inject('/coordination/events?type=worker.rebalanced')).json().items
    t.match(event, { subject: 'global/consumer', actor: 'mira', reason, detail: { moves: 6 } })
    for (const key of ['global:x', 'c1:indexing']) {
      const at = `/coordination/assignments/${key}`
      t.equal((await first.inject(at)).statusCode, 404, key)
    }
    t.equal(
      (await post(first, '/coordination/assignments/global:x/rebalance', { reason }, '"1"')).statusCode,
      404,
    )
  }),
)

t.test('what cannot be written to the audit trail is not done', async (t) => {
  const { url, path } = await useSqlite(t)
  const app = await useApp(t, { url, workers: threeWorkers })
  const gone = await useApp(t, { url, node: 'n2' })
  const goneId = gone.coordination.nodeId
  await gone.close()
  await eventually(async () => {
    const { leases } = await app.coordination.status()
    return leases.length === 14 && leases.every(({ state }) => state === 'held')
  })
  const { token } = (await app.inject('/coordination/leases/c1:indexing')).json()
  const plan = await app.inject('/coordination/assignments/global:consumer')
  const tags: Record<string, string> = { release: `"${token}"`, rebalance: String(plan.headers.etag) }
  const before = await contentsOf(app)

  const file = new BetterSqlite(path)
  t.teardown(() => file.close())
  file.exec(`create trigger full before insert on coordination_events begin select raise(abort, 'full'); end`)
  const rows: [method: 'PUT' | 'POST' | 'DELETE', path: string, what?: string][] = [
    ['POST', '/leases/c1:indexing/release', 'release'],
    ['PUT', `/nodes/${app.coordination.nodeId}/drain`],
    ['PUT', '/workers/c1:indexing/pause'],
    ['DELETE', `/nodes/${goneId}`],
  ]
  for (const [method, at, what = ''] of rows) {
    const tag = tags[what]
    const headers = tag === undefined ? {} : { 'if-match': tag }
    const payload = method === 'DELETE' ? {} : { reason }
    const reply = await app.inject({ method, url: `/coordination${at}`, headers, payload })
    t.equal(reply.statusCode, 503, at)
    t.strictSame(await contentsOf(app), before, at)
  }
  file.exec('drop trigger full')
  const [method, at] = ['PUT', '/coordination/workers/c1:indexing/pause'] as const
  t.equal((await app.inject({ method, url: at, payload: { reason } })).statusCode, 202)
})

t.test('whoever a request says it is from, the actor is the one whom authorize has named', async (t) => {
  const app = await useApp(t, { workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('indexing'))
  const names = ['actor', 'x-actor', 'from', 'user', 'x-user', 'x-remote-user', 'x-forwarded-user']
  const headers = {
    ...Object.fromEntries(names.map((name) => [name, 'noah'])),
    authorization: `Basic ${Buffer.from('noah:x').toString('base64')}`,
    cookie: 'actor=noah; user=noah',
  }
  const at = '/coordination/workers/c1:indexing/pause'
  t.equal((await app.inject({ method: 'PUT', url: at, payload: { reason }, headers })).statusCode, 202)
  t.equal((await app.inject({ method: 'DELETE', url: `${at}?reason=no`, headers })).statusCode, 400)
  t.equal((await app.inject({ method: 'DELETE', url: at, headers })).statusCode, 204)
  for (const url of [`${at}?actor=noah`, `${at}?by=noah`])
    t.equal((await app.inject({ method: 'PUT', url, payload: { reason }, headers })).statusCode, 400)
  const { items } = (
    await app.inject('/coordination/events?type=worker.paused,worker.resumed&subject=c1:indexing')
  ).json()
  t.strictSame(
    items.map((event: Record<string, string>) => [event.type, event.actor, event.reason]),
    [
      ['worker.resumed', 'mira', 'resumed'],
      ['worker.paused', 'mira', reason],
    ],
  )
})

t.test('a body that is not as described changes nothing', async (t) => {
  const { url } = await useSqlite(t)
  const app = await useApp(t, { url, workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('indexing'))
  const { token } = (await app.inject('/coordination/leases/c1:indexing')).json()
  const revision = await revisionOf(app)
  const json = 'application/json'
  const rows: [what: string, type: string | undefined, body: string, status: number, error?: RegExp][] = [
    ['nothing', undefined, '', 400, /required property 'reason'/],
    ['an empty text', json, '', 400, /required property 'reason'/],
    ['no object', json, '[]', 400, /body: must be object/],
    ['null', json, 'null', 400, /body: must be object/],
    ['no JSON', json, '{', 400],
    ['a short reason', json, '{"reason":"ab"}', 400, /body\/reason: must NOT have fewer than 3/],
    [
      'a long reason',
      json,
      JSON.stringify({ reason: 'x'.repeat(201) }),
      400,
      /body\/reason: must NOT have more/,
    ],
    [
      'a reason with a line break',
      json,
      JSON.stringify({ reason: 'a\nb c' }),
      400,
      /body\/reason: must say something, without line breaks/,
    ],
    [
      'a reason with NUL',
      json,
      JSON.stringify({ reason: 'a\0b c' }),
      400,
      /body\/reason: must say something, without line breaks/,
    ],
    [
      'a reason with a line separator',
      json,
      JSON.stringify({ reason: 'a\u2028b c' }),
      400,
      /body\/reason: must say something, without line breaks/,
    ],
    [
      'a reason that turns the direction of writing',
      json,
      JSON.stringify({ reason: 'not \u202edesaeler\u202c' }),
      400,
      /body\/reason: must say something, without line breaks/,
    ],
    ['a reason of spaces', json, '{"reason":"    "}', 400, /body\/reason: must say something/],
    [
      'half a character',
      json,
      '{"reason":"ab\\ud800"}',
      400,
      /body\/reason: must say something, without line breaks/,
    ],
    ['a number for a reason', json, '{"reason":12345}', 400, /body\/reason: must be string/],
    ['an unknown field', json, '{"reason":"abc","force":true}', 400, /there is nothing called "force"/],
    ['an actor', json, '{"reason":"abc","actor":"noah"}', 400, /there is nothing called "actor"/],
    [
      'a text for a flag',
      json,
      '{"reason":"abc","immediate":"true"}',
      400,
      /body\/immediate: must be boolean/,
    ],
    [
      'a text for a number',
      json,
      '{"reason":"abc","cooldownMs":"1"}',
      400,
      /body\/cooldownMs: must be integer/,
    ],
    ['less than nothing', json, '{"reason":"abc","cooldownMs":-1}', 400, /body\/cooldownMs: must be >= 0/],
    ['more than a day', json, '{"reason":"abc","cooldownMs":86400001}', 400, /body\/cooldownMs: must be <=/],
    ['a prototype', json, '{"reason":"abc","__proto__":{"a":1}}', 400],
    ['too much', json, JSON.stringify({ reason: 'x'.repeat(4_100) }), 413],
    ['a text', 'text/plain', '{"reason":"abc"}', 415],
    ['a form', 'application/x-www-form-urlencoded', 'reason=abc', 415],
    ['JSON under another name', 'text/json', '{"reason":"abc"}', 415],
    ['no type', undefined, '{"reason":"abc"}', 415],
  ]
  for (const [what, type, payload, status, error = /./] of rows) {
    const reply = await app.inject({
      method: 'POST',
      url: '/coordination/leases/c1:indexing/release',
      payload,
      headers: { 'if-match': `"${token}"`, ...(type === undefined ? {} : { 'content-type': type }) },
    })
    t.equal(reply.statusCode, status, what)
    t.equal(reply.headers['content-type'], 'application/problem+json; charset=utf-8', what)
    t.match(reply.json(), { status, detail: error }, what)
  }
  const withoutNeed: [method: 'POST' | 'DELETE', path: string][] = [
    ['POST', '/leases/c1:indexing/step-down'],
    ['DELETE', '/workers/c1:indexing/pause'],
    ['DELETE', `/nodes/${app.coordination.nodeId}/drain`],
    ['DELETE', `/nodes/${app.coordination.nodeId}`],
  ]
  for (const [method, path] of withoutNeed) {
    const headers = { 'if-match': `"${token}"` }
    const reply = await app.inject({
      method,
      url: `/coordination${path}`,
      headers,
      payload: { actor: 'noah' },
    })
    t.equal(reply.statusCode, 400, path)
    t.match(reply.json(), { detail: /there is nothing called "actor"/ }, path)
  }
  t.ok(app.coordination.isHeld('indexing'))
  t.equal(await revisionOf(app), revision)
})
