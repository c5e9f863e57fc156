/**
 * The HTTP routes, in a Fastify scope of their own: the application's compilers, parsers, hooks and error handler
 * stay as they are, and ours do not depend on what it has chosen.
 */
import { Readable } from 'node:stream'
import ajvCompiler from '@fastify/ajv-compiler'
import serializerCompiler from '@fastify/fast-json-stringify-compiler'
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
import { snapshotSourceOf } from './snapshot/snapshot.js'
import { registerStream } from './stream/stream.js'

/** What the routes are made of. */
export interface RoutesOptions {
  readonly coordinator: Coordinator
  /** Begins each operationId, so that two registrations in one application stay apart. */
  readonly name: string
  readonly authorize?: Authorize | undefined
  readonly access?: Access | undefined
  readonly allowedOrigins?: readonly string[] | undefined
  /** Security requirements for the OpenAPI document, by schemes that the application declares there. */
  readonly security?: Security | undefined
  /** The application's own registry, which then has the metrics as well. */
  readonly registry?: MetricsRegistry | undefined
}

/** As in OpenAPI: `[{ bearer: [] }]`. */
export type Security = readonly Readonly<Record<string, readonly string[]>>[]

/**
 * To be registered with a `prefix`, and without `fastify-plugin`.
 *
 * @throws {CoordinationError} `WCO_OPTIONS` when there are routes under the prefix already.
 */
export async function routes(scope: FastifyInstance, options: RoutesOptions): Promise<void> {
  refuseTakenPrefix(scope)
  const dependencies = dependenciesOf(options)
  useOwnCompilers(scope)
  takeOnlyJson(scope)
  scope.setErrorHandler(answerHttpProblem)
  const paths = new Paths()
  scope.addHook('onRoute', paths.add)
  scope.addHook('onRoute', (route) => complete(route, options.security))
  scope.addHook('preParsing', forNoCache)
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

/** One path stands for all of them: two registrations have the same. */
function refuseTakenPrefix(scope: FastifyInstance): void {
  const url = `${scope.prefix}/status`
  if (!scope.hasRoute({ method: 'GET', url })) return
  throw new CoordinationError(
    'WCO_OPTIONS',
    `prefix: this Fastify instance already has a route ${shown(url)}, from another registration or from the ` +
      'application itself. Give this registration a prefix of its own, say `prefix: "/jobs"`.',
  )
}

/** Everything there is but streams, health, metrics and the dashboard. */
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

/** What all routes have in common, ours and those of our neighbours in this scope. */
function complete(route: RouteOptions, security: Security | undefined): void {
  const { coordinationAction: action } = route.config ?? {}
  if (action === undefined || !actions.includes(action))
    throw new Error(`The route ${route.url} names no action`)
  document(route, security)
}

/** Nothing here is for a cache, whatever the application says of its own, unless the route itself says otherwise. */
async function forNoCache(_request: FastifyRequest, reply: FastifyReply): Promise<void> {
  reply.header('cache-control', 'no-store')
}

/**
 * Nothing is dropped or filled in: what is not as described is refused. Nor is anything converted, but for queries,
 * in which there are only texts.
 */
function useOwnCompilers(scope: FastifyInstance): void {
  const strict = { strict: true, allErrors: false, removeAdditional: false, useDefaults: false } as const
  const compile = ajvCompiler()({}, { customOptions: { ...strict, coerceTypes: false } })
  const compileQuery = ajvCompiler()({}, { customOptions: { ...strict, coerceTypes: true } })
  scope.setValidatorCompiler((part) => (part.httpPart === 'querystring' ? compileQuery(part) : compile(part)))
  const compileSerializer = serializerCompiler()({}, {})
  scope.setSerializerCompiler((route) => compileSerializer({ ...route, httpStatus: route.httpStatus ?? '' }))
  // One for all replies would come before the schemas. Null is what there is where nobody has set one.
  scope.setReplySerializer(null as never)
}

/** What a form or a plain text says could have been sent by a page of another site without being asked about. */
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
 * Where the application is mounted in another server, that one may have read and parsed the body already; then there
 * is nothing left to read, and Fastify would wait for it for ever.
 */
async function restoreBody(request: FastifyRequest, _reply: unknown, payload: unknown): Promise<unknown> {
  const { raw } = request
  const body: unknown = 'body' in raw ? raw.body : undefined
  if (!raw.readableEnded || body === undefined) return payload
  const text = Buffer.from(JSON.stringify(body))
  const receivedEncodedLength = Number(raw.headers['content-length'] ?? text.length)
  return Object.assign(Readable.from([text], { objectMode: false }), { receivedEncodedLength })
}

/** Who sends nothing where nothing is needed has sent what is needed. */
async function useEmptyBody(request: FastifyRequest): Promise<void> {
  if (request.body === undefined && request.method !== 'GET' && request.method !== 'HEAD') request.body = {}
}
