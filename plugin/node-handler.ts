/**
 * A Fastify application as a request handler for other servers: `node:http`, Express, Connect, Koa, Nest.
 *
 * @example
 * import { toNodeHandler } from 'fastify-worker-coordination/node-handler'
 *
 * express().use(toNodeHandler(app))
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyInstance } from 'fastify'

/** As `node:http` calls it, and, with `next`, as Express and Connect do. */
export type NodeHandler = (
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  next?: (error?: unknown) => void,
) => void

/**
 * Makes a handler of an application that does not listen itself, and makes that application ready: register
 * everything before. Requests wait until it is; if it fails to get there, each of them is answered with that error, by
 * `next(error)` or with 503. Paths that lead nowhere in it go to `next`, where there is one. A JSON body that an
 * earlier handler has read (`express.json()`) is not missed by the routes of this package. Where the server strips a
 * path, the application sees what is left.
 *
 * Closing is the application's business as ever: `await app.close()` hands everything over and ends streams,
 * and the outer server can be closed after it.
 */
export function toNodeHandler(app: FastifyInstance): NodeHandler {
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
      // Koa begins with 404, and Fastify would take that for what a route has chosen.
      outgoing.statusCode = 200
      app.routing(incoming, outgoing)
    }
    const fail = (error: unknown): void => (next === undefined ? unavailable(outgoing) : next(error))
    ready.then(answer, fail)
  }
}

/** An application that has a handler of its own for such paths keeps it. */
function passOnWhatLeadsNowhere(app: FastifyInstance, passingOn: WeakMap<IncomingMessage, () => void>): void {
  try {
    app.setNotFoundHandler((request, reply) => {
      const next = passingOn.get(request.raw)
      if (next === undefined) return reply.code(404).send({ statusCode: 404, error: 'Not Found' })
      reply.hijack()
      next()
      return reply
    })
  } catch (error) {
    if (!String(error).includes('Not found handler already set')) throw error
  }
}

function unavailable(outgoing: ServerResponse): void {
  outgoing.writeHead(503, { 'content-type': 'text/plain; charset=utf-8', 'retry-after': '1' })
  outgoing.end('The application could not start.\n')
}
