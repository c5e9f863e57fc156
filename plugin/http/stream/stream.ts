/**
 * `GET /stream`: server-sent events, for pages that show things as they happen.
 *
 * - `snapshot`: the state of the namespace as in `GET /status`, without its lists and capabilities; the first event
 *   that a new viewer receives.
 * - `event`: an entry of the audit trail, as in `GET /events`. Its id is its place there.
 * - `change`: a new revision, or another change to the whole; it carries only counts, no lists.
 * - `reset`: what the viewer has missed cannot be sent; a `snapshot` follows.
 *
 * One loop reads the database about once a second while there are viewers, regardless of their number. Each further
 * viewer costs one connection and, when it returns after an interruption, one reading of what it has missed.
 *
 * A viewer that reads too slowly is disconnected and reconnects. A viewer that was admitted by name is disconnected
 * after at most a minute. Everything that decides about access (the application's hooks, its sessions, `authorize`) is
 * then checked again, so that nobody watches for longer after losing access.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import type { Dependencies } from '../dependencies.js'
import { routeConfig, routeSchema } from '../route.js'
import { query, reads } from '../schemas/common.js'
import { Feed, type FeedDependencies } from './feed.js'
import { Seats } from './seats.js'
import { type StreamPace, usualPace, Viewer } from './viewer.js'

/** The dependencies of the stream. */
export interface StreamDependencies
  extends FeedDependencies,
    Pick<Dependencies, 'name' | 'guard' | 'limits'> {
  /** Overrides for tests, which are less patient. */
  readonly pace?: Partial<StreamPace>
}

/**
 * Adds the route. It also ends all streams before the application closes: an open stream would keep it from closing.
 */
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
      const viewer = new Viewer(reply.raw, pace, actor === undefined ? Number.POSITIVE_INFINITY : pace.lifeMs)
      // The client may have left while `authorize` or a hook of the application was deciding.
      viewer.whenGone(leave)
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
      summary: 'Stream what happens, as server-sent events',
      description:
        '`snapshot` (as GET /status), `event` (as in GET /events; its id is its place), `change` (a new revision, with ' +
        'counts) and `reset` (what was missed cannot be sent; a `snapshot` follows). With `Last-Event-ID`, ' +
        'which browsers send by themselves, the stream continues after that event.',
      operationId: `${name}Stream`,
      tags: ['coordination'],
      querystring: query({}),
      response: reads(
        {
          200: {
            description: 'A stream that does not end',
            content: { 'text/event-stream': { schema: { type: 'string' } } },
          },
        },
        'too-many-requests',
      ),
    }),
  }
}

/**
 * Returns the headers of a stream. They tell intermediate buffers to pass everything on at once. The connection is used
 * for nothing else, so a closing server need not wait for it to become idle. Headers set by the application's hooks are
 * kept.
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
