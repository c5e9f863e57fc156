/** Tests streams over real sockets and real databases: what they tell, what they cost, and how they end. */
import { once } from 'node:events'
import { get } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import BetterSqlite from 'better-sqlite3'
import t, { type Test } from 'tap'
import { StoreError } from '../../plugin/core/errors.js'
import { silentLog } from '../../plugin/core/log.js'
import type { Store } from '../../plugin/core/store.js'
import { resolveTiming } from '../../plugin/core/time/timing.js'
import { registerStream } from '../../plugin/http/stream/stream.js'
import type { StreamPace } from '../../plugin/http/stream/viewer.js'
import { openStore } from '../../plugin/stores/open.js'
import { NodeProcess, shortTtlMs } from '../process/processes.js'
import { type Database, eachDatabase, useSqlite } from '../support/databases.js'
import { eventually, latest } from '../support/eventually.js'
import { useNginx, withNginx } from '../support/nginx.js'
import { untilAborted } from '../support/workers.js'
import { bodies, byHeader, type Client, type Frame, type Room, useRoom, watch } from './room.js'

// For all of them together: on a server that is slow to become ready, each test takes many seconds.
t.setTimeout(300_000)

const by = { actor: 'ops', reason: 'a good one' }
const key = 'global/month-close'
const calm = resolveTiming({})

t.test('a viewer is shown everything, and from then on what happens', (t) =>
  eachDatabase(t, async (t, database) => {
    const room = await useStream(t, database)
    const viewer = await watch(t, room.origin)
    t.equal(viewer.status, 200)
    t.match(viewer.headers, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
      connection: 'close',
    })
    const [first] = await framesOf(viewer, 1)
    t.match(first, { event: 'snapshot', id: /^\d+-\d+$/, data: { namespace: 'default', revision: Number } })
    t.match(viewer.text, /^retry: \d+\n\n/)

    await room.coordinator.operator.pause(key, by)
    const events = await eventsOf(viewer, 'worker.paused')
    t.match(
      events.find(({ type }) => type === 'worker.paused'),
      { subject: key, ...by },
    )
    const changed = await eventually(() => viewer.frames.find(({ event }) => event === 'change'))
    t.match(changed, {
      id: undefined,
      data: { now: String, revision: Number, counts: Object, problems: Number },
    })
    t.ok(Number(changed?.data.revision) > Number(first?.data.revision))
    t.strictSame([...new Set(ids(viewer))], ids(viewer), 'no place comes twice')
  }),
)

t.test('one reading is for all who come, and one loop for all who watch', async (t) => {
  const still = await useStream(t, await useSqlite(t), { everyMs: 3_600_000 })
  const before = reads(still)
  still.delayMs = 300
  const viewers = await Promise.all(users(20).map((user) => watch(t, still.origin, { user })))
  for (const viewer of viewers) await framesOf(viewer, 1)
  t.ok(reads(still) - before <= 3, `${reads(still) - before} readings for 20 viewers`)

  const ticks = useTicks(t)
  const busy = await useStream(t, await useSqlite(t), { everyMs: ticks.everyMs })
  const watching = await Promise.all(users(20).map((user) => watch(t, busy.origin, { user })))
  for (const viewer of watching) await framesOf(viewer, 1)
  t.equal(ticks.count, 1, 'one loop')
  await busy.coordinator.operator.pause(key, by)
  const from = reads(busy)
  let rounds = 0
  await eventually(() => {
    ticks.tick()
    rounds += 1
    return watching.every((viewer) => types(viewer).includes('worker.paused'))
  })
  t.ok(reads(busy) - from <= 2 * rounds, `${reads(busy) - from} readings in ${rounds} rounds, and 20 viewers`)

  for (const viewer of watching) viewer.leave()
  t.equal(await latest(() => connections(busy), isZero), 0)
  t.equal(await latest(() => ticks.count, isZero), 0, 'nothing is read while nobody watches')
  t.match(
    await framesOf(await watch(t, busy.origin), 1),
    [{ event: 'snapshot' }],
    'who comes later is shown how it is',
  )
})

t.test('who comes back is told what was missed, once each and in order', (t) =>
  eachDatabase(t, async (t, database) => {
    const room = await useStream(t, database)
    const { operator } = room.coordinator
    const first = await watch(t, room.origin)
    await framesOf(first, 1)
    await operator.pause(key, by)
    await eventsOf(first, 'worker.paused')
    const after = first.lastId
    first.leave()
    for (const _ of [1, 2, 3]) {
      await operator.resume(key, by)
      await operator.pause(key, by)
    }
    const second = await watch(t, room.origin, { after })
    await eventually(() => types(second).filter((type) => type === 'worker.paused').length >= 3)
    t.strictSame(
      types(second).filter((type) => type.startsWith('worker.')),
      [1, 2, 3].flatMap(() => ['worker.resumed', 'worker.paused']),
    )
    await eventually(() => second.frames.some(({ event }) => event === 'change'))
    t.notOk(second.frames.some(({ event }) => event === 'snapshot' || event === 'reset'))

    const third = await watch(t, room.origin, { after: second.lastId })
    t.match(await framesOf(third, 1), [{ event: 'change' }], 'nothing was missed')
    const all = await operator.events({ limit: 1_000 })
    t.strictSame(
      [...new Set([...ids(first), ...ids(second)])],
      all
        .map(({ revision, position }) => `${revision}-${position}`)
        .filter((id) => ids(first).concat(ids(second)).includes(id))
        .reverse(),
    )
  }),
)

t.test('where what was missed cannot be told it says so, and shows everything anew', (t) =>
  eachDatabase(t, async (t, database) => {
    const room = await useStream(t, database)
    const first = await watch(t, room.origin)
    await framesOf(first, 1)
    for (const after of ['nonsense', '999999999-0', '0-0', '1-999', `1-${'9'.repeat(200)}`]) {
      const viewer = await watch(t, room.origin, { user: after.slice(0, 20), after })
      const frames = await framesOf(viewer, 2)
      t.strictSame(
        frames.slice(0, 2).map(({ event }) => event),
        ['reset', 'snapshot'],
        after.slice(0, 20),
      )
      t.match(frames[1]?.id, /^\d+-\d+$/)
      viewer.leave()
    }
    const after = first.lastId
    await room.coordinator.operator.pause(key, by)
    await eventsOf(first, 'worker.paused')
    first.leave()
    await prune(database)
    const late = await watch(t, room.origin, { after })
    t.strictSame(
      (await framesOf(late, 2)).slice(0, 2).map(({ event }) => event),
      ['reset', 'snapshot'],
    )
  }),
)

t.test('a database that was set back is shown anew to those who watch', async (t) => {
  const database = await useSqlite(t)
  const room = await useStream(t, database)
  const viewer = await watch(t, room.origin)
  await framesOf(viewer, 1)
  const file = new BetterSqlite(database.path)
  file.prepare('update coordination_meta set revision = 1').run()
  file.close()
  await eventually(() => viewer.frames.some(({ event }) => event === 'reset'))
  const at = viewer.frames.findIndex(({ event }) => event === 'reset')
  await framesOf(viewer, at + 2)
  t.match(viewer.frames[at + 1], { event: 'snapshot', data: { revision: 1 } })
})

t.test('of 60 streams 50 are served, and of one actor 4; who leaves makes room', async (t) => {
  const room = await useStream(t, await useSqlite(t))
  const viewers = await Promise.all(users(60, 3).map((user) => watch(t, room.origin, { user })))
  const served = viewers.filter(({ status }) => status === 200)
  const refused = viewers.filter(({ status }) => status === 503)
  t.equal(served.length, 50)
  t.equal(refused.length, 10)
  for (const { headers } of refused) {
    t.match(headers, { 'content-type': /^application\/problem\+json/, 'retry-after': '10' })
  }
  for (const viewer of served) viewer.leave()
  await eventually(() => isAnswered(t, room, 200))

  const other = await useStream(t, await useSqlite(t))
  const own = []
  for (const _ of [1, 2, 3, 4]) own.push(await watch(t, other.origin, { user: 'mira' }))
  t.strictSame(
    own.map(({ status }) => status),
    [200, 200, 200, 200],
  )
  const fifth = await watch(t, other.origin, { user: 'mira' })
  t.equal(fifth.status, 429)
  await eventually(() => fifth.text)
  t.match(JSON.parse(fifth.text), { status: 429, retryAfter: 10 })
  t.equal((await watch(t, other.origin, { user: 'ben' })).status, 200, 'others are not kept out')
  own[0]?.leave()
  await eventually(async () => (await watch(t, other.origin, { user: 'mira' })).status === 200)
})

t.test('who leaves while authorize is still deciding keeps no seat', async (t) => {
  const undecided: (() => void)[] = []
  let isSlow = true
  const authorize: typeof byHeader = async (request, action) => {
    if (isSlow) await new Promise<void>((resolve) => undecided.push(resolve))
    return byHeader(request, action)
  }
  const departures: Promise<unknown>[] = []
  const register = (scope: Room['app']): void => {
    scope.addHook('onRequest', async (_request, { raw }) => void departures.push(once(raw, 'close')))
  }
  const room = await useStream(t, await useSqlite(t), {}, { authorize, register })
  for (const nth of [1, 2, 3, 4]) {
    const request = get(`${room.origin}/coordination/stream`, { headers: { 'x-user': 'mira' }, agent: false })
    request.on('error', () => undefined)
    await eventually(() => undecided.length === nth)
    request.destroy()
    await departures[nth - 1]
  }
  isSlow = false
  for (const decide of undecided) decide()
  await eventually(async () => (await watch(t, room.origin)).status === 200)
})

t.test('who may not read gets no stream, and nothing else is served there', async (t) => {
  const room = await useStream(t, await useSqlite(t))
  t.equal((await watch(t, room.origin, { user: 'stranger' })).status, 403)
  t.equal(
    (await fetch(`${room.origin}/coordination/stream?x=1`, { headers: { 'x-user': 'mira' } })).status,
    400,
  )
  const head = await fetch(`${room.origin}/coordination/stream`, {
    method: 'HEAD',
    headers: { 'x-user': 'mira' },
  })
  t.equal(head.status, 404)
})

t.test('nobody watches for long who may not any more', async (t) => {
  let may = true
  const authorize: typeof byHeader = (request, action) => may && byHeader(request, action)
  const room = await useStream(t, await useSqlite(t), { everyMs: 20, lifeMs: 400 }, { authorize })
  const viewer = await watch(t, room.origin)
  await framesOf(viewer, 1)
  await eventually(() => viewer.ended)
  const again = await watch(t, room.origin, { after: viewer.lastId })
  t.equal(again.status, 200, 'who still may goes on where it was')
  t.not((await framesOf(again, 1))[0]?.event, 'reset')
  may = false
  await eventually(() => again.ended)
  t.equal((await watch(t, room.origin, { after: viewer.lastId })).status, 403)
})

t.test('a reader that is too slow is disconnected, and keeps nobody else from anything', async (t) => {
  const database = await useSqlite(t)
  const room = await useStream(t, database, { everyMs: 20, stuckMs: 1e9, lifeMs: 1e9 })
  const record = await recorder(t, database)
  const slow = await watch(t, room.origin, { user: 'slow', pause: true })
  const quick = await watch(t, room.origin, { user: 'quick' })
  t.equal(slow.status, 200)
  await framesOf(quick, 1)
  t.equal(await connections(room), 2)
  for (let times = 0; (await connections(room)) === 2; times++) {
    if (times > 100) throw new Error('it is still served')
    await record('worker.paused', 500_000)
    await eventually(() => types(quick).filter((type) => type.startsWith('worker.')).length > times)
  }
  t.notOk(quick.ended)
})

t.test('a reader that takes nothing for a while is disconnected, however little there was', async (t) => {
  const pace = { everyMs: 20, stuckMs: 300, unreadBytes: 1e9, lifeMs: 1e9 }
  const database = await useSqlite(t)
  const room = await useStream(t, database, pace)
  const record = await recorder(t, database)
  const slow = await watch(t, room.origin, { pause: true })
  t.equal(slow.status, 200)
  for (let times = 0; times < 40 && (await connections(room)) === 1; times++)
    await record('worker.paused', 1_000_000)
  t.equal(await latest(() => connections(room), isZero), 0, 'it is gone')
})

t.test('a quiet stream is kept alive by comments', async (t) => {
  const room = await useStream(t, await useSqlite(t), { everyMs: 20, heartbeatMs: 50 })
  const viewer = await watch(t, room.origin)
  await eventually(() => viewer.text.match(/^:$/gm)?.length === 3)
  t.ok(viewer.frames.length >= 1)
})

t.test('close() ends every stream, also of those who do not read, and waits for nobody', (t) =>
  eachDatabase(t, async (t, database) => {
    const room = await useStream(t, database, { everyMs: 20 })
    const viewers = await Promise.all(users(8).map((user) => watch(t, room.origin, { user })))
    await watch(t, room.origin, { user: 'slow', pause: true })
    // In all more than sockets buffer for a reader, in pieces that every database accepts.
    const record = await recorder(t, database)
    for (let times = 0; times < 10; times++)
      await record(times < 9 ? 'worker.paused' : 'worker.resumed', 60_000)
    await eventually(() => viewers.every((viewer) => types(viewer).includes('worker.resumed')))
    const closed = room.app.close().then(() => 'closed')
    t.equal(await Promise.race([closed, delay(20_000, 'hangs', { ref: false })]), 'closed')
    await eventually(() => viewers.every(({ ended }) => ended))
    await room.app.close()
  }),
)

t.test('a coordinator that was closed by itself ends the streams', async (t) => {
  const room = await useStream(t, await useSqlite(t), { everyMs: 20 })
  const viewer = await watch(t, room.origin)
  await framesOf(viewer, 1)
  await room.coordinator.close()
  await eventually(() => viewer.ended)
  t.equal((await watch(t, room.origin)).status, 503)
})

t.test('while the database is away streams stay open, and go on when it is back', async (t) => {
  const room = await useStream(t, await useSqlite(t), { everyMs: 20 })
  const viewer = await watch(t, room.origin)
  await framesOf(viewer, 1)
  room.failure = new StoreError('It is away.', 'none')
  await eventually(() => isAnswered(t, room, 503))
  room.failure = undefined
  await room.coordinator.operator.pause(key, by)
  await eventsOf(viewer, 'worker.paused')
  t.notOk(viewer.ended)
  t.equal(viewer.frames.filter(({ event }) => event === 'snapshot').length, 1)
})

t.test('a leader that dies is seen to be gone, and then its successor', (t) =>
  eachDatabase(t, async (t, database) => {
    const timing = resolveTiming({ ttlMs: shortTtlMs(database) })
    const leader = await NodeProcess.start(t, {
      database: database.url,
      namespace: 'default',
      node: 'n0',
      cluster: 'c1',
      timing,
      workers: [{ name: 'month-close', kind: 'single', scope: 'global' }],
    })
    await leader.heard('worked')
    const room = await useStream(t, database, { everyMs: 100 }, { timing })
    const viewer = await watch(t, room.origin)
    await framesOf(viewer, 1)
    await leader.kill()
    await eventually(
      () => viewer.frames.find(({ data }) => data.type === 'node.gone' && data.subject === leader.id),
      { timeoutMs: 240_000 },
    )
    await eventually(() => happened(viewer, 'lease.acquired', key), { timeoutMs: 240_000 })
    const seen = viewer.frames.map(({ data }) => `${data.type} ${data.subject}`)
    const order = [`node.gone ${leader.id}`, `lease.lost ${key}`, `lease.acquired ${key}`].map((what) =>
      seen.indexOf(what),
    )
    t.strictSame(
      order,
      [...order].sort((a, b) => a - b),
    )
    t.ok(order.every((at) => at >= 0))
    await eventually(() => viewer.frames.some(({ event }) => event === 'change'))
  }),
)

t.test('a reverse proxy that buffers passes it on at once', withNginx, async (t) => {
  const room = await useStream(t, await useSqlite(t), {}, { register: withBufferedStream })
  const front = await useNginx(
    t,
    `location / { proxy_pass ${room.origin}; proxy_buffering on; proxy_set_header Host $host; }
       location /buffered { proxy_pass ${room.origin}/coordination/buffered; proxy_set_header x-user mira; }`,
  )
  const buffered = get(`${front}/buffered`, { agent: false })
  buffered.on('error', () => undefined)
  t.teardown(() => buffered.destroy())
  let arrived = ''
  buffered.on('response', (reply) =>
    reply.on('data', (chunk) => {
      arrived += chunk
    }),
  )
  const viewer = await watch(t, front)
  t.equal(viewer.status, 200)
  await framesOf(viewer, 1)
  await room.coordinator.operator.pause(key, by)
  // The last event of the pause: an event after the viewer has left would be the first one shown later.
  await eventsOf(viewer, 'lease.released')
  t.equal(arrived, '', 'what does not ask for it is kept back by this very proxy')
  viewer.leave()
  t.match(await framesOf(await watch(t, front, { after: viewer.lastId }), 1), [{ event: 'change' }])
  t.equal(
    await Promise.race([room.app.close().then(() => 'closed'), delay(20_000, 'hangs', { ref: false })]),
    'closed',
  )
})

function isZero(count: number): boolean {
  return count === 0
}

/** Runs the loops of streams with this pace when the test says so, and at no other time. */
function useTicks(t: Test) {
  const everyMs = 2 ** 31 - 2
  const { setInterval: begin, clearInterval: end } = globalThis
  const loops = new Map<unknown, () => void>()
  t.intercept(globalThis, 'setInterval', {
    value: (fire: () => void, ms: number) => {
      const loop = begin(fire, ms)
      if (ms === everyMs) loops.set(loop, fire)
      return loop
    },
  })
  t.intercept(globalThis, 'clearInterval', {
    value: (loop: NodeJS.Timeout) => {
      loops.delete(loop)
      end(loop)
    },
  })
  return {
    everyMs,
    get count(): number {
      return loops.size
    },
    tick: (): void => {
      for (const fire of loops.values()) fire()
    },
  }
}

/** Starts a node that leads `global/month-close`, and its stream. */
async function useStream(
  t: Test,
  database: Database,
  pace: Partial<StreamPace> = {},
  {
    timing = calm,
    authorize = byHeader,
    register = () => undefined,
  }: { timing?: typeof calm; authorize?: typeof byHeader; register?: (scope: Room['app']) => void } = {},
): Promise<Room> {
  const room = await useRoom(
    t,
    database,
    (scope, deps) => {
      register(scope)
      registerStream(scope, { ...deps, bodies, pace: { everyMs: 50, ...pace } })
    },
    { timing, authorize, workers: [untilAborted('month-close')] },
  )
  await eventually(async () =>
    (await room.coordinator.status()).leases.some(({ state, target }) => state === 'held' && target !== null),
  )
  return room
}

/** Adds a stream that says nothing of buffers, to show that the proxy has some. */
function withBufferedStream(scope: Room['app']): void {
  const open = new Set<{ destroy(): void }>()
  scope.get('/buffered', async (_request, reply) => {
    reply.hijack()
    reply.raw.writeHead(200, { 'content-type': 'text/event-stream' })
    reply.raw.write('data: anything\n\n')
    open.add(reply.raw)
  })
  scope.addHook('preClose', async () => {
    for (const raw of open) raw.destroy()
  })
}

/**
 * Returns a function that writes events into the audit trail. Their reasons may be longer than an operator may give.
 */
async function recorder(
  t: Test,
  database: Database,
): Promise<(type: string, length: number) => Promise<unknown>> {
  const store = await openedFor(database)
  t.teardown(() => store.close())
  return (type, length) => {
    const event = { type, subject: key, actor: 'ops', reason: 'x'.repeat(length) } as const
    return store.change(undefined, (change) => change.record([event]))
  }
}

/** Deletes everything in the audit trail. */
async function prune(database: Database): Promise<void> {
  const store = await openedFor(database)
  await store.prune({ eventsForMs: 0, events: 0, goneNodesForMs: 1e9 })
  await store.close()
}

function openedFor({ url }: Database): Promise<Store> {
  return openStore({
    database: url,
    namespace: 'default',
    statementTimeoutMs: 5_000,
    migrate: false,
    push: false,
    log: silentLog,
  })
}

/** Returns whether a viewer that comes now gets this status. */
async function isAnswered(t: Test, { origin }: Room, status: number): Promise<boolean> {
  const viewer = await watch(t, origin, { user: 'late' })
  viewer.leave()
  return viewer.status === status
}

/** Returns names of users, each of which watches `each` streams. */
function users(count: number, each = 4): string[] {
  return Array.from({ length: count }, (_, at) => `user-${Math.floor(at / each)}`)
}

function reads({ calls }: Room): number {
  return (calls.get('snapshot') ?? 0) + (calls.get('events') ?? 0)
}

function connections({ app }: Room): Promise<number> {
  return promisify(app.server.getConnections.bind(app.server))()
}

async function framesOf(viewer: Client, count: number): Promise<readonly Frame[]> {
  return eventually(() => (viewer.frames.length >= count ? viewer.frames : undefined), {
    until: `${count} events have come; there were: ${viewer.text.slice(0, 500)}`,
  }) as Promise<readonly Frame[]>
}

/** Returns the events of the audit trail that have arrived, once there is one of this type. */
async function eventsOf(viewer: Client, type: string): Promise<Frame['data'][]> {
  await eventually(() => types(viewer).includes(type), { until: `${type} has come` })
  return viewer.frames.filter(({ event }) => event === 'event').map(({ data }) => data)
}

function types({ frames }: Client): string[] {
  return frames.filter(({ event }) => event === 'event').map(({ data }) => data.type as string)
}

function happened({ frames }: Client, type: string, subject: string): boolean {
  return frames.some(({ data }) => data.type === type && data.subject === subject)
}

function ids({ frames }: Client): string[] {
  return frames.flatMap(({ event, id }) => (event === 'event' && id !== undefined ? [id] : []))
}
