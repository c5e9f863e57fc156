/**
 * Health, for those who restart processes or send them requests: whether this process is alive, whether it takes part,
 * and whether it leads. Answered from memory alone: an outage of the database must not look like one of the process.
 */
import type { FastifyInstance, FastifyReply, RouteOptions } from 'fastify'
import { does } from './access.js'
import type { Dependencies } from './dependencies.js'
import { keySegment, leaseKeyOf } from './keys.js'
import { asDocumented } from './openapi.js'
import { query, reads } from './schemas/common.js'

/** `/health`, `/health/ready` and `/health/leader/{key}`. */
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
  scope.route({
    ...probe(
      '/health',
      `${name}Health`,
      'Whether this process is alive: not closed, and able to answer',
      'alive',
    ),
    handler: async (_request, reply) => answer(reply, isAlive(), 'alive', 'closed'),
  })
  scope.route({
    ...probe('/health/ready', `${name}HealthReady`, 'Whether this process has joined and may act', 'ready'),
    handler: async (_request, reply) => answer(reply, isReady(), 'ready', 'not-ready'),
  })
  scope.route({
    ...probe(
      `/health/leader/${keySegment}`,
      `${name}HealthLeader`,
      'Whether this process holds a lease',
      'leader',
    ),
    handler: async (request, reply) =>
      answer(reply, coordinator.isHeld(leaseKeyOf(request)), 'leader', 'not-leader'),
  })
}

/** An overloaded application still says how it is, and balancers ask often. */
const undisturbed = { ...does('read'), pressureHandler: () => undefined, rateLimit: false }

function probe(
  url: string,
  operationId: string,
  summary: string,
  good: string,
): Omit<RouteOptions, 'handler'> {
  const status = { type: 'object', required: ['status'], properties: { status: { type: 'string' } } }
  const yes = { description: 'Yes', ...status, examples: [{ status: good }] }
  const no = {
    description: 'No',
    ...status,
    examples: [{ status: url === '/health' ? 'closed' : `not-${good}` }],
  }
  const replies = { ...reads({ 200: yes }), 503: no }
  return {
    method: 'GET',
    url,
    config: { ...undisturbed, swaggerTransform: asDocumented } as object,
    logLevel: 'warn',
    schema: {
      summary,
      tags: ['coordination'],
      operationId,
      querystring: query({}),
      response: replies,
    } as object,
  }
}

async function answer(reply: FastifyReply, holds: boolean, yes: string, no: string): Promise<FastifyReply> {
  reply.header('cache-control', 'no-store').code(holds ? 200 : 503)
  return reply.send({ status: holds ? yes : no })
}
