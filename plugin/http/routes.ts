/**
 * The HTTP routes, in a Fastify scope of their own. The application's compilers, parsers, hooks and error handler stay
 * as they are, and the routes do not depend on the application's choices.
 */
import { Readable } from 'node:stream'
import ajvCompiler from '@fastify/ajv-compiler'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import type { Coordinator } from '../core/coordinator.js'
import { CoordinationError } from '../core/errors.js'
import { shown } from '../core/names.js'
import { registerAssets } from './assets.js'
import type { Dependencies } from './dependencies.js'
import { type Access, type Authorize, actions } from './guard/access.js'
import { Guard } from './guard/guard.js'
import { answerHttpProblem } from './http-problems.js'
import { usualLimits } from './limits.js'
import { type MetricsRegistry, registerMetrics } from './metrics/metrics.js'
import { Paths } from './paths.js'
import { document, type Route, routeConfig } from './route.js'
import { assignmentRoutes } from './routes/assignments.js'
import { eventRoutes } from './routes/events.js'
import { registerHealth } from './routes/health.js'
import { interventionRoutes } from './routes/interventions.js'
import { leaseRoutes } from './routes/leases.js'
import { nodeRoutes } from './routes/nodes.js'
import { statusRoutes, streamBodies } from './routes/status.js'
import { workerRoutes } from './routes/workers.js'
import { serializerFor } from './serializer.js'
import { snapshotSourceOf } from './snapshot/snapshot.js'
import { registerStream } from './stream/stream.js'

/** The dependencies and settings of the routes. */
export interface RoutesOptions {
  readonly coordinator: Coordinator
  /** Prefix of each operationId. It keeps two registrations in one application apart. */
  readonly name: string
  readonly authorize?: Authorize | undefined
  readonly access?: Access | undefined
  readonly allowedOrigins?: readonly string[] | undefined
  /** Security requirements for the OpenAPI document. They name schemes that the application declares there. */
  readonly security?: Security | undefined
  /** The application's own registry, to which the metrics are added as well. */
  readonly registry?: MetricsRegistry | undefined
}

/** Security requirements as in OpenAPI: `[{ bearer: [] }]`. */
export type Security = readonly Readonly<Record<string, readonly string[]>>[]

/**
 * The plugin with all routes, to be registered with a `prefix` and without `fastify-plugin`.
 *
 * @throws {CoordinationError} `WCO_OPTIONS` when there are already routes under the prefix.
 */
export async function routes(scope: FastifyInstance, options: RoutesOptions): Promise<void> {
  refuseTakenPrefix(scope)
  const dependencies = dependenciesOf(options)
  useOwnCompilers(scope)
  takeOnlyJson(scope)
  scope.setErrorHandler(answerHttpProblem)
  const paths = new Paths(scope.initialConfig)
  scope.addHook('onRoute', paths.add)
  scope.addHook('onRoute', (route) => complete(route, options.security))
  scope.addHook('preParsing', forNoCache)
  scope.addHook('preParsing', forNoOtherSite)
  scope.addHook('preParsing', dependencies.guard.check)
  scope.addHook('preParsing', restoreBody)
  scope.addHook('preValidation', useEmptyBody)
  scope.setNotFoundHandler(paths.answer)
  for (const route of routeTable(dependencies)) add(scope, route, options.name)
  registerStream(scope, { ...dependencies, bodies: streamBodies(dependencies) })
  registerHealth(scope, dependencies)
  await registerAssets(scope)
  await registerMetrics(scope, { ...dependencies, registry: options.registry })
}

/** Checks one path as a sample for all, because every registration has the same paths. */
function refuseTakenPrefix(scope: FastifyInstance): void {
  const url = `${scope.prefix}/status`
  if (!scope.hasRoute({ method: 'GET', url })) return
  throw new CoordinationError(
    'WCO_OPTIONS',
    `prefix: this Fastify instance already has a route ${shown(url)}, from another registration or from the ` +
      'application itself. Give this registration a prefix of its own, say `prefix: "/jobs"`.',
  )
}

/** Returns all routes except the stream, health, metrics and the dashboard. */
export function routeTable(dependencies: Dependencies): Route[] {
  return [
    ...statusRoutes(dependencies),
    ...nodeRoutes(dependencies),
    ...workerRoutes(dependencies),
    ...leaseRoutes(dependencies),
    ...interventionRoutes(dependencies),
    ...assignmentRoutes(dependencies),
    ...eventRoutes(dependencies),
  ]
}

function dependenciesOf({
  coordinator,
  name,
  authorize,
  access = {},
  allowedOrigins = [],
}: RoutesOptions): Dependencies {
  const guard = new Guard({ authorize, access, allowedOrigins, limits: usualLimits })
  return { coordinator, name, source: snapshotSourceOf(coordinator), guard, limits: usualLimits }
}

function add(
  scope: FastifyInstance,
  { method, url, action, id, schema, handler }: Route,
  name: string,
): void {
  const described = { ...schema, operationId: `${name}${id}`, tags: ['coordination'] }
  scope.route({ method, url, schema: described, config: routeConfig(action), handler })
}

/** Completes every route of this scope, both those of the table and those that are registered separately. */
function complete(route: RouteOptions, security: Security | undefined): void {
  const { coordinationAction: action } = route.config ?? {}
  if (action === undefined || !actions.includes(action))
    throw new Error(`The route ${route.url} names no action`)
  document(route, security)
}

/** Forbids caching, whatever the application's own headers say, unless the route itself sets another value. */
async function forNoCache(_request: FastifyRequest, reply: FastifyReply): Promise<void> {
  reply.header('cache-control', 'no-store')
}

/**
 * Keeps pages of other sites from embedding an answer. They could not read it, but a browser tells them whether it was an
 * error, and so whether a lease exists or this process leads. Headers that the application has set itself stay.
 */
async function forNoOtherSite(_request: FastifyRequest, reply: FastifyReply): Promise<void> {
  for (const [name, value] of Object.entries(embeddedNowhere))
    if (!reply.hasHeader(name)) reply.header(name, value)
}

const embeddedNowhere = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'x-frame-options': 'DENY',
  'x-content-type-options': 'nosniff',
  'cross-origin-resource-policy': 'same-origin',
} as const

/**
 * Installs validators that drop and add nothing: a request that does not match its schema is refused. Values are
 * converted only in queries, which contain only strings.
 */
function useOwnCompilers(scope: FastifyInstance): void {
  const strict = { strict: true, allErrors: false, removeAdditional: false, useDefaults: false } as const
  const compile = ajvCompiler()({}, { customOptions: { ...strict, coerceTypes: false } })
  const compileQuery = ajvCompiler()({}, { customOptions: { ...strict, coerceTypes: true } })
  scope.setValidatorCompiler((part) => (part.httpPart === 'querystring' ? compileQuery(part) : compile(part)))
  scope.setSerializerCompiler(({ schema }) => serializerFor(schema))
  // A reply serializer of the application would take precedence over the schemas. Null is Fastify's own value for none.
  scope.setReplySerializer(null as never)
}

/** Accepts only JSON bodies. A page of another site can send a form or plain text without a preflight request. */
function takeOnlyJson(scope: FastifyInstance): void {
  const parse = scope.getDefaultJsonParser('error', 'error')
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser<string>(
    'application/json',
    { parseAs: 'string', bodyLimit: bodyLimitBytes },
    (request, body, done) => {
      if (body.trim() === '') done(null)
      else parse(request, body, done)
    },
  )
}

const bodyLimitBytes = 4_096

/**
 * Restores a body that has already been read. Another server in which the application is mounted may have read and
 * parsed the body; nothing would be left to read, and Fastify would wait for it forever.
 */
async function restoreBody(request: FastifyRequest, _reply: unknown, payload: unknown): Promise<unknown> {
  const { raw } = request
  const body: unknown = 'body' in raw ? raw.body : undefined
  if (!raw.readableEnded || body === undefined) return payload
  const text = Buffer.from(JSON.stringify(body))
  const receivedEncodedLength = Number(raw.headers['content-length'] ?? text.length)
  return Object.assign(Readable.from([text], { objectMode: false }), { receivedEncodedLength })
}

/** Treats a missing body as empty, so that it may be omitted where no field is required. */
async function useEmptyBody(request: FastifyRequest): Promise<void> {
  if (request.body === undefined && request.method !== 'GET' && request.method !== 'HEAD') request.body = {}
}
