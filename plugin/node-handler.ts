/**
 * A Fastify application as a request handler for other servers: `node:http`, Express, Connect, Koa, Nest.
 *
 * @example
 * import { toNodeHandler } from 'fastify-worker-coordination/node-handler'
 *
 * express().use(toNodeHandler(app))
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyBaseLogger, FastifyInstance, FastifyTypeProvider, RawServerDefault } from 'fastify'
import { checkApplication } from './core/inputs.js'

/** A handler as `node:http` calls it and, with `next`, as Express and Connect do. */
export type NodeHandler = (
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  next?: (error?: unknown) => void,
) => void

/**
 * Returns a handler for an application that does not listen itself, and makes that application ready: register
 * everything before. Requests wait until it is ready; if that fails, each of them is answered with the error, by
 * `next(error)` or with 503. Paths without a route go to `next`, where there is one. The routes of this package also
 * work when an earlier handler has read a JSON body (`express.json()`). Where the server strips part of a path, the
 * application sees the rest.
 *
 * Closing is up to the application, as usual: `await app.close()` hands everything over and ends streams, and the
 * outer server can be closed after it.
 *
 * @throws {CoordinationError} `WCO_OPTIONS` when it is given something else.
 */
export function toNodeHandler<Logger extends FastifyBaseLogger, Provider extends FastifyTypeProvider>(
  app: FastifyInstance<RawServerDefault, IncomingMessage, ServerResponse, Logger, Provider>,
): NodeHandler
export function toNodeHandler(app: FastifyInstance): NodeHandler {
  checkApplication('toNodeHandler', app)
  const passingOn = new WeakMap<IncomingMessage, () => void>()
  passOnWhatLeadsNowhere(app, passingOn)
  const ready = app.ready()
  ready.then(undefined, () => undefined)
  return (incoming, outgoing, next) => {
    const answer = (): void => {
      const { statusCode } = outgoing
      const passOn = (): void => {
        outgoing.statusCode = statusCode
        next?.()
      }
      if (next !== undefined) passingOn.set(incoming, passOn)
      // Koa begins with 404, which Fastify would take for the choice of a route.
      outgoing.statusCode = 200
      app.routing(incoming, outgoing)
    }
    const fail = (error: unknown): void => (next === undefined ? unavailable(outgoing) : next(error))
    ready.then(answer, fail)
  }
}

/**
 * Passes paths without a route on to `next`, before anything of their body is read. An application that has its own
 * handler for them keeps it.
 */
function passOnWhatLeadsNowhere(app: FastifyInstance, passingOn: WeakMap<IncomingMessage, () => void>): void {
  try {
    app.setNotFoundHandler((_request, reply) => reply.code(404).send({ statusCode: 404, error: 'Not Found' }))
  } catch (error) {
    if (String(error).includes('Not found handler already set')) return
    throw error
  }
  app.addHook('onRequest', (request, reply, done) => {
    const next = passingOn.get(request.raw)
    // A plugin may have a handler of its own for unknown paths below its prefix.
    if (next === undefined || !request.is404 || request.server !== app) return done()
    reply.hijack()
    next()
  })
}

function unavailable(outgoing: ServerResponse): void {
  outgoing.writeHead(503, { 'content-type': 'text/plain; charset=utf-8', 'retry-after': '1' })
  outgoing.end('The application could not start.\n')
}
