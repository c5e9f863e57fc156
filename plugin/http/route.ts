/** What a route is, before it is one of Fastify's: its address, what it does, how it is described. */
import type { FastifyReply, FastifyRequest, RouteShorthandOptions } from 'fastify'
import type { Action } from './access.js'
import { HttpProblem } from './http-problems.js'
import type { Typed } from './schemas/typed.js'

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  readonly url: string
  readonly action: Action
  /** Follows the name of the registration in the operationId. */
  readonly id: string
  readonly schema: RouteSchema
  readonly handler: (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>
}

type RouteSchema = NonNullable<RouteShorthandOptions['schema']> & { readonly summary: string }

/** The query of a request, which its route has checked against this schema. */
export function queryOf<Schema extends { readonly querystring: object }>(
  { query }: FastifyRequest,
  _schema: Schema,
): Typed<Schema['querystring']> {
  return query as Typed<Schema['querystring']>
}

/** The body of a request, which its route has checked against this schema. */
export function bodyOf<Schema extends { readonly body: object }>(
  { body }: FastifyRequest,
  _schema: Schema,
): Typed<Schema['body']> {
  return body as Typed<Schema['body']>
}

/** Id of the node that a request is about. */
export function nodeIdOf({ params }: FastifyRequest): string {
  return (params as { id: string }).id
}

/** @throws HttpProblem 404 */
export function found<Value>(value: Value | undefined, what: string): Value {
  if (value !== undefined) return value
  throw new HttpProblem('not-found', `There is no such ${what}.`)
}

/** Whether one of these texts contains what is looked for, whatever its case. */
export function mentions(q: string | undefined, ...texts: readonly string[]): boolean {
  const wanted = q?.toLowerCase() ?? ''
  return texts.some((text) => text.toLowerCase().includes(wanted))
}
