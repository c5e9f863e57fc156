/** Defines a route before it is handed to Fastify: its address, its action, its schema and its handler. */
import type {
  FastifyContextConfig,
  FastifyReply,
  FastifyRequest,
  FastifySchema,
  RouteOptions,
  RouteShorthandOptions,
} from 'fastify'
import type { Action } from './guard/access.js'
import { HttpProblem, type HttpProblemDetails } from './http-problems.js'
import { asDocumented } from './openapi.js'
import type { Typed } from './schemas/typed.js'

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  readonly url: string
  readonly action: Action
  /** Suffix of the operationId, after the name of the registration. */
  readonly id: string
  readonly schema: RouteSchema
  readonly handler: (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>
}

type RouteSchema = NonNullable<RouteShorthandOptions['schema']> & { readonly summary: string }

/** Exceptional properties of a route. */
interface RouteTraits {
  /** Open to every client; `authorize` is not called. */
  readonly open?: boolean
  /** Exempt from the application's rate limits (`@fastify/rate-limit`). */
  readonly uncounted?: boolean
  /** Served even when the application is overloaded. Default: every action but `read`. */
  readonly underPressure?: boolean
}

/**
 * Returns the `config` of a route with this action. Routes without one are refused when they are added.
 *
 * An overloaded application (`@fastify/under-pressure`) turns requests away, but must not turn away interventions or
 * probes.
 */
export function routeConfig(action: Action, traits: RouteTraits = {}): FastifyContextConfig {
  const { open = false, uncounted = false, underPressure = action !== 'read' } = traits
  return {
    coordinationAction: action,
    coordinationOpen: open,
    ...ofOthers({
      ...(underPressure ? { pressureHandler: () => undefined } : {}),
      ...(uncounted ? { rateLimit: false } : {}),
    }),
  }
}

/** Returns a schema that also has the properties that `@fastify/swagger` reads. */
export function routeSchema(schema: FastifySchema & Readonly<Record<string, unknown>>): FastifySchema {
  return ofOthers(schema)
}

/** Prepares the route for the OpenAPI document of an application that has one. */
export function document(route: RouteOptions, security: unknown): void {
  route.schema = ofOthers({ ...route.schema, ...(security === undefined ? {} : { security }) })
  route.config = { ...route.config, ...ofOthers({ swaggerTransform: asDocumented }) }
}

/**
 * Hides properties from the type checker that optional plugins read. Their own types declare them where they are
 * installed, so they cannot be declared here as well.
 */
function ofOthers(properties: object): object {
  return properties
}

/** Returns the query of a request, which its route has validated against this schema. */
export function queryOf<Schema extends { readonly querystring: object }>(
  { query }: FastifyRequest,
  _schema: Schema,
): Typed<Schema['querystring']> {
  return query as Typed<Schema['querystring']>
}

/** Returns the body of a request, which its route has validated against this schema. */
export function bodyOf<Schema extends { readonly body: object }>(
  { body }: FastifyRequest,
  _schema: Schema,
): Typed<Schema['body']> {
  return body as Typed<Schema['body']>
}

/** Returns the id of the node that the request names. */
export function nodeIdOf({ params }: FastifyRequest): string {
  return (params as { id: string }).id
}

/** @throws HttpProblem 404 */
export function found<Value>(value: Value | undefined, what: string): Value {
  if (value !== undefined) return value
  throw notFound(what)
}

/** @param hint a sentence about what was meant instead, if that can be told. */
export function notFound(what: string, hint?: string, details: HttpProblemDetails = {}): HttpProblem {
  const sentences = [`There is no such ${what}.`, ...(hint === undefined ? [] : [hint])]
  return new HttpProblem('not-found', sentences.join(' '), details)
}

/** Returns whether one of the texts contains `q`, ignoring case. Without `q`, every text matches. */
export function mentions(q: string | undefined, ...texts: readonly string[]): boolean {
  const wanted = q?.toLowerCase() ?? ''
  return texts.some((text) => text.toLowerCase().includes(wanted))
}
