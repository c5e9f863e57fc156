/** What a route is, before it is one of Fastify's: its address, what it does, how it is described. */
import type {
  FastifyContextConfig,
  FastifyReply,
  FastifyRequest,
  FastifySchema,
  RouteOptions,
  RouteShorthandOptions,
} from 'fastify'
import type { Action } from './guard/access.js'
import { HttpProblem } from './http-problems.js'
import { asDocumented } from './openapi.js'
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

/** How a route differs from most. */
interface RouteTraits {
  /** Anybody may, and nobody is asked. */
  readonly open?: boolean
  /** An application that counts requests (`@fastify/rate-limit`) need not count these. */
  readonly uncounted?: boolean
  /** Served however busy the application is, although it alters nothing. */
  readonly underPressure?: boolean
}

/**
 * The `config` of a route that does this. Routes without one are refused when they are added.
 *
 * An overloaded application (`@fastify/under-pressure`) turns requests away; not those of who came to help, nor of who asks how it is.
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

/** A schema with what `@fastify/swagger` wants to know besides. */
export function routeSchema(schema: FastifySchema & Readonly<Record<string, unknown>>): FastifySchema {
  return ofOthers(schema)
}

/** Lets the route appear in the document of an application that has one. */
export function document(route: RouteOptions, security: unknown): void {
  route.schema = ofOthers({ ...route.schema, ...(security === undefined ? {} : { security }) })
  route.config = { ...route.config, ...ofOthers({ swaggerTransform: asDocumented }) }
}

/**
 * What plugins read that the application may have or not. Their types declare it where they are installed; it cannot be declared here
 * as well.
 */
function ofOthers(properties: object): object {
  return properties
}

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
