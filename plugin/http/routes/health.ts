/**
 * Health probes for process supervisors and load balancers: whether this process is alive, whether it takes part, and
 * whether it leads. They are answered from memory alone, because an outage of the database must not look like one of
 * the process.
 *
 * Supervisors have no login. The two routes that name nothing and answer with one word are therefore open.
 */
import type { FastifyInstance, FastifyRequest, RouteOptions } from 'fastify'
import type { Dependencies } from '../dependencies.js'
import { keySegment, leaseKeyOf } from '../keys.js'
import { routeConfig, routeSchema } from '../route.js'
import { query, withHttpProblems } from '../schemas/common.js'

/** Adds `/health`, `/health/ready` and `/health/leader/{key}`. */
export function registerHealth(
  scope: FastifyInstance,
  deps: Pick<Dependencies, 'coordinator' | 'name'>,
): void {
  const { coordinator, name } = deps
  const isAlive = (): boolean => coordinator.state !== 'closed'
  const isReady = (): boolean => {
    const { state, trusted } = coordinator.health()
    return state === 'running' && trusted
  }
  const probes: Probe[] = [
    {
      url: '/health',
      operationId: `${name}Health`,
      summary: 'Check whether this process is alive: not closed, and able to answer',
      words: ['alive', 'closed'],
      open: true,
      holds: isAlive,
    },
    {
      url: '/health/ready',
      operationId: `${name}HealthReady`,
      summary: 'Check whether this process is ready: it has joined and may act',
      words: ['ready', 'not-ready'],
      open: true,
      holds: isReady,
    },
    {
      url: `/health/leader/${keySegment}`,
      operationId: `${name}HealthLeader`,
      summary: 'Check whether this process holds a lease',
      words: ['leader', 'not-leader'],
      open: false,
      holds: (request) => coordinator.isHeld(leaseKeyOf(request)),
    },
  ]
  for (const probe of probes) scope.route(routeOf(probe))
}

interface Probe {
  readonly url: string
  readonly operationId: string
  readonly summary: string
  readonly words: readonly [yes: string, no: string]
  /** Whether the route is open to every client. */
  readonly open: boolean
  readonly holds: (request: FastifyRequest) => boolean
}

const closed = ['forbidden', 'authorization-not-configured', 'host-not-allowed'] as const

/**
 * Probes are served even by an overloaded application and are exempt from rate limits, because load balancers ask
 * often.
 */
function routeOf({ url, operationId, summary, words: [yes, no], open, holds }: Probe): RouteOptions {
  const httpProblems = ['invalid-request', ...(open ? [] : closed), 'internal-error'] as const
  const replies = { 200: word('Yes', yes), 503: word('No', no) }
  return {
    method: 'GET',
    url,
    config: routeConfig('probe', { open, uncounted: true }),
    logLevel: 'warn',
    schema: routeSchema({
      summary,
      tags: ['coordination'],
      operationId,
      querystring: query({}),
      response: withHttpProblems(replies, httpProblems),
    }),
    handler: async (request, reply) => {
      const good = holds(request)
      reply.header('cache-control', 'no-store').code(good ? 200 : 503)
      return reply.send({ status: good ? yes : no })
    },
  }
}

function word(description: string, status: string): object {
  const properties = { status: { type: 'string' } }
  return { description, type: 'object', required: ['status'], properties, examples: [{ status }] }
}
