/**
 * `GET /stream`: server-sent events, for pages that want to see things as they happen.
 *
 * - `snapshot`: everything, as `GET /status` has it; the first thing a new viewer gets.
 * - `event`: something was written to the audit trail, as `GET /events` has it. Its id is its place there.
 * - `change`: there is a new revision, or something else about the whole has changed: only counts, no lists.
 * - `reset`: what was missed cannot be told; a `snapshot` follows.
 *
 * One loop looks at the database about every second, while anybody watches, however many they are: what one viewer
 * costs beyond that is a connection, and, when it comes back after a break, one reading of what it has missed.
 *
 * A viewer that reads too slowly is disconnected, and comes again. So is each that was let in by name, after a
 * minute: then all that decides about access (the application's hooks, its sessions, `authorize`) is asked anew, and
 * nobody goes on watching for longer who may not any more.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import type { Dependencies } from '../dependencies.js'
import { routeConfig, routeSchema } from '../route.js'
import { query, reads } from '../schemas/common.js'
import { Feed, type FeedDependencies } from './feed.js'
import { Seats } from './seats.js'
import { type StreamPace, usualPace, Viewer } from './viewer.js'

/** What the stream needs. */
export interface StreamDependencies
  extends FeedDependencies,
    Pick<Dependencies, 'name' | 'guard' | 'limits'> {
  /** Only tests are in more of a hurry. */
  readonly pace?: Partial<StreamPace>
}

/** Adds the route, and ends all streams before the application closes: an open one would keep it from closing. */
export function registerStream(scope: FastifyInstance, deps: StreamDependencies): void {
  const pace = { ...usualPace, ...deps.pace }
  const feed = new Feed(deps, pace, (error) =>
    scope.log.warn(
      { err: error },
      'the stream could not be kept up to date; it goes on when the database answers',
    ),
  )
  const seats = new Seats(deps.limits)
  scope.addHook('preClose', async () => feed.close())
  scope.route({
    ...streamRoute(deps.name),
    handler: async (request, reply) => {
      const actor = deps.guard.actorOf(request)
      const leave = seats.take(actor?.id)
      reply.raw.once('close', leave)
      const viewer = new Viewer(reply.raw, pace, actor === undefined ? Number.POSITIVE_INFINITY : pace.lifeMs)
      try {
        const beginning = await feed.admit(viewer, lastEventId(request))
        reply.hijack()
        viewer.open(streamHeaders(request, reply), `retry: ${pace.retryMs}\n\n${beginning}`)
      } catch (error) {
        feed.dismiss(viewer)
        leave()
        throw error
      }
    },
  })
}

function streamRoute(name: string): Omit<RouteOptions, 'handler'> {
  return {
    method: 'GET',
    url: '/stream',
    exposeHeadRoute: false,
    config: routeConfig('read'),
    schema: routeSchema({
      summary: 'What happens, as server-sent events',
      description:
        '`snapshot` (as GET /status), `event` (as in GET /events; its id is its place), `change` (a new revision, with ' +
        'counts) and `reset` (what was missed cannot be told; a `snapshot` follows). With `Last-Event-ID`, which ' +
        'browsers send by themselves, it goes on after that event.',
      operationId: `${name}Stream`,
      tags: ['coordination'],
      querystring: query({}),
      response: reads(
        {
          200: {
            description: 'A stream without end',
            content: { 'text/event-stream': { schema: { type: 'string' } } },
          },
        },
        'too-many-requests',
        'unavailable',
      ),
    }),
  }
}

/**
 * Buffers in between are told to let everything through at once. The connection is used for nothing else, so that a
 * server that closes need not wait for it to go idle. What the application's own hooks have set is kept.
 */
function streamHeaders(
  request: FastifyRequest,
  reply: FastifyReply,
): Record<string, number | string | string[]> {
  const theirs = Object.entries(reply.getHeaders()).filter(([, value]) => value !== undefined)
  return {
    ...(Object.fromEntries(theirs) as Record<string, number | string | string[]>),
    'content-type': 'text/event-stream',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
    ...(request.raw.httpVersionMajor === 1 ? { connection: 'close' } : {}),
  }
}

function lastEventId({ headers }: FastifyRequest): string | undefined {
  const id = headers['last-event-id']
  return typeof id === 'string' && id !== '' ? id : undefined
}
