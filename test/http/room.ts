/**
 * The routes under test in an application of their own, over a real database whose calls are counted, and clients that
 * read streams as browsers do.
 */
import { once } from 'node:events'
import { get, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import ajvCompiler from '@fastify/ajv-compiler'
import Fastify, { type FastifyInstance } from 'fastify'
import { Coordinator } from '../../plugin/core/coordinator.js'
import { silentLog } from '../../plugin/core/log.js'
import type { HeartbeatAnswer } from '../../plugin/core/store.js'
import { systemClock } from '../../plugin/core/time/clock.js'
import { resolveTiming } from '../../plugin/core/time/timing.js'
import type { WorkerDefinition } from '../../plugin/core/work/worker.js'
import type { Dependencies } from '../../plugin/http/dependencies.js'
import type { Authorize } from '../../plugin/http/guard/access.js'
import { Guard } from '../../plugin/http/guard/guard.js'
import { answerHttpProblem } from '../../plugin/http/http-problems.js'
import { usualLimits } from '../../plugin/http/limits.js'
import { SnapshotSource } from '../../plugin/http/snapshot/snapshot.js'
import type { StreamBodies } from '../../plugin/http/stream/feed.js'
import { openStore } from '../../plugin/stores/open.js'
import type { Database, Lifetime } from '../support/databases.js'
import { around, counting, type Wrap } from '../support/wrapped-store.js'

/** What the events of a stream contain here. */
export const bodies: StreamBodies = {
  snapshot: ({ namespace, revision, nodes, leases }) =>
    JSON.stringify({ namespace, revision, nodes, leases }),
  event: ({ revision, position, ...event }) => JSON.stringify({ id: `${revision}-${position}`, ...event }),
  summary: ({ revision, nodes }) => ({ revision, counts: { nodes: nodes.length }, problems: 0 }),
  now: ({ nowMs }) => new Date(nowMs).toISOString(),
}

export interface Room {
  readonly app: FastifyInstance
  readonly coordinator: Coordinator
  /** How often each verb of the store was called. */
  readonly calls: Map<string, number>
  /** While set, every verb of the store but `close` and `listen` fails with it. */
  failure: Error | undefined
  /** How much longer it takes to read a snapshot or the audit trail. */
  delayMs: number
  /** What is added to the database's time in the answers to heartbeats. */
  clockOffsetMs: number
  /** The origin at which the application listens. */
  readonly origin: string
}

/** The header `x-user` names the actor. Without it, and as `stranger`, nothing is allowed. */
export const byHeader: Authorize = ({ headers }) => {
  const { 'x-user': id } = headers
  return typeof id === 'string' && id !== 'stranger' && { id }
}

/** Starts a node, puts its routes below `/coordination` and listens. */
export async function useRoom(
  t: Lifetime,
  { url }: Database,
  register: (scope: FastifyInstance, deps: Dependencies) => unknown,
  {
    app = Fastify({ forceCloseConnections: false }),
    authorize = byHeader as Authorize | undefined,
    timing = resolveTiming({ ttlMs: 2_000 }),
    workers = [] as WorkerDefinition[],
  } = {},
): Promise<Room> {
  const calls = new Map<string, number>()
  const weather: Weather = { failure: undefined, clockOffsetMs: 0, delayMs: 0 }
  const opened = await openStore({
    database: url,
    namespace: 'default',
    statementTimeoutMs: timing.statementTimeoutMs,
    migrate: true,
    push: false,
    log: silentLog,
  })
  const settings = {
    namespace: 'default',
    identity: { node: 'n1', cluster: 'c1' },
    timing,
    labels: {},
    version: null,
    retention: { eventsForMs: 1e9, events: 10_000, goneNodesForMs: 1e9 },
  }
  const store = counting(calls)(under(weather)(opened))
  const coordinator = new Coordinator(settings, store, systemClock, silentLog)
  for (const worker of workers) coordinator.worker(worker)
  const guard = new Guard({ authorize, access: {}, allowedOrigins: [], limits: usualLimits })
  const source = new SnapshotSource(coordinator)
  const deps = { coordinator, name: 'coordination', source, guard, limits: usualLimits }
  app.register(
    async (scope) => {
      const customOptions = { coerceTypes: false, removeAdditional: false, useDefaults: false } as const
      scope.setValidatorCompiler(ajvCompiler()({}, { customOptions }))
      scope.setErrorHandler(answerHttpProblem)
      scope.addHook('preParsing', guard.check)
      await register(scope, deps)
    },
    { prefix: '/coordination' },
  )
  t.teardown(async () => {
    weather.failure = undefined
    await app.close()
    await coordinator.close()
  })
  await app.ready()
  await coordinator.start()
  const origin = await app.listen({ port: 0, host: '127.0.0.1' })
  return Object.assign(weather, { app, coordinator, calls, origin })
}

/** One server-sent event. */
export interface Frame {
  readonly event: string
  readonly id: string | undefined
  readonly data: Record<string, unknown>
}

/** A client of a stream. */
export interface Client {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** Everything that has arrived, comments included. */
  readonly text: string
  readonly frames: readonly Frame[]
  readonly ended: boolean
  /** The id that a browser would send when it reconnects. */
  readonly lastId: string | undefined
  leave(): void
}

/** Connects a client and resolves when the headers have arrived. The client leaves when the test ends. */
export async function watch(
  t: Lifetime,
  origin: string,
  {
    user = 'mira',
    after,
    pause = false,
  }: { user?: string; after?: string | undefined; pause?: boolean } = {},
): Promise<Client> {
  const headers = { 'x-user': user, ...(after === undefined ? {} : { 'last-event-id': after }) }
  const request = get(`${origin}/coordination/stream`, { headers, agent: false })
  request.on('error', () => undefined)
  t.teardown(() => request.destroy())
  const [reply] = (await once(request, 'response')) as [IncomingMessage]
  let text = ''
  let ended = false
  reply.setEncoding('utf8')
  reply.on('error', () => undefined)
  reply.once('close', () => {
    ended = true
  })
  if (pause) reply.socket.pause()
  else
    reply.on('data', (chunk: string) => {
      text += chunk
    })
  return {
    status: reply.statusCode ?? 0,
    headers: reply.headers,
    get text() {
      return text
    },
    get frames() {
      return framesIn(text)
    },
    get ended() {
      return ended
    },
    get lastId() {
      return framesIn(text)
        .map(({ id }) => id)
        .filter((id) => id !== undefined)
        .at(-1)
    },
    leave: () => void request.destroy(),
  }
}

function framesIn(text: string): Frame[] {
  const blocks = text.split('\n\n').slice(0, -1)
  return blocks.flatMap((block) => {
    const fields = new Map(
      block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]),
    )
    const event = fields.get('event')
    if (event === undefined) return []
    return [{ event, id: fields.get('id'), data: JSON.parse(fields.get('data') ?? '{}') }]
  })
}

/** The behaviour of a room's database. */
type Weather = Pick<Room, 'failure' | 'clockOffsetMs' | 'delayMs'>

/** Lets requests fail, and reads and clocks be late, as the weather says. */
function under(weather: Weather): Wrap {
  return around(async (run, request) => {
    if (weather.failure !== undefined) throw weather.failure
    const answer = await run()
    if (weather.delayMs > 0 && (request === 'snapshot' || request === 'events')) await delay(weather.delayMs)
    if (request !== 'heartbeat' || answer === undefined) return answer
    const heartbeat = answer as HeartbeatAnswer
    return { ...heartbeat, nowMs: heartbeat.nowMs + weather.clockOffsetMs }
  })
}
