/**
 * Tests the OpenAPI document of an application that has `@fastify/swagger`: it contains every route of the plugin,
 * described so that it can be used without experiments.
 */
import ajvCompiler from '@fastify/ajv-compiler'
import serializerCompiler from '@fastify/fast-json-stringify-compiler'
import swagger from '@fastify/swagger'
import { Validator } from '@seriousme/openapi-schema-validator'
import Fastify, { type FastifyInstance, type RouteOptions } from 'fastify'
import t, { type Test } from 'tap'
import { httpProblems, httpProblemType, typeOf } from '../../plugin/http/http-problems.js'
import workerCoordination from '../../plugin/index.js'
import { useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { mira, threeWorkers, type Use, useApp } from './application.js'

for (const version of ['3.0.3', '3.1.0'])
  t.test(`OpenAPI ${version}`, async (t) => {
    const { app, document, operations, routes } = await describedApp(t, { version, workers: threeWorkers })

    await t.test('the document is valid, and has every route but those of the dashboard', async (t) => {
      t.strictSame(await flaws(document), [])
      const named = routes.map(({ method, url }) => `${method} ${documentedPath(url)}`)
      const hidden = new Set(named.filter((_, index) => isHidden(routes[index])))
      for (const route of hidden) t.match(route, /^GET \/coordination(\/?$|\/ui(\/|$))/)
      const shown = operations.map(({ method, path }) => `${method} ${path}`)
      t.strictSame(shown.sort(), named.filter((route) => !hidden.has(route)).sort())
      t.ok(shown.length > 25)
    })

    await t.test('every operation has a name of its own, a tag and a sentence', async (t) => {
      for (const { name, operationId, tags, summary, security } of operations) {
        t.match(operationId, /^coordination[A-Z][A-Za-z]+$/, name)
        t.strictSame(tags, ['coordination'], name)
        t.match(summary, /^[A-Z].{3,}[^.]$/, name)
        t.equal(security, undefined, `${name}: no scheme that the application does not have`)
      }
      t.equal(new Set(operations.map(({ operationId }) => operationId)).size, operations.length)
    })

    await t.test('every parameter is described', async (t) => {
      for (const { name, method, path, parameters = [], responses } of operations) {
        const inPath = parameters
          .filter((parameter) => parameter.in === 'path')
          .map((parameter) => parameter.name)
        t.strictSame(
          inPath,
          [...path.matchAll(/\{(\w+)\}/g)].map(([, parameter]) => parameter),
          name,
        )
        for (const { in: place, schema, description, required } of parameters) {
          t.ok(schema.type, name)
          if (place === 'path') t.ok(required === true && description, name)
        }
        const matches = parameters.some(
          (parameter) => parameter.in === 'header' && parameter.name === 'if-match',
        )
        t.equal(matches, '428' in responses, `${name}: If-Match is where it is missed`)
        if (matches) t.ok(method !== 'GET' && '412' in responses, name)
      }
    })

    await t.test('every body has an example, which is as its schema says', async (t) => {
      for (const { name, method, requestBody, responses } of operations) {
        if (method === 'GET' || method === 'DELETE') t.equal(requestBody, undefined, name)
        else exemplary(t, name, requestBody?.content, 'application/json')
        if (requestBody !== undefined) {
          const { required = [] } = requestBody.content['application/json']?.schema ?? {}
          // `@fastify/swagger` writes of every body that it is required.
          t.equal(requestBody.description, required.length === 0 ? 'May be left out' : undefined, name)
        }
        const successes = Object.entries(responses).filter(([status]) => Number(status) < 400)
        t.ok(
          successes.some(([status]) => /^2/.test(status)),
          name,
        )
        for (const [status, { description, content }] of successes) {
          t.ok(description, `${name}: ${status}`)
          if (['204', '304'].includes(status)) t.equal(content, undefined, `${name}: ${status}`)
          else if (isText(content)) t.equal(examplesOf(content)[0]?.schema.type, 'string', name)
          else exemplary(t, `${name}: ${status}`, content, 'application/json')
        }
      }
    })

    await t.test('every way to fail is a problem, with an example of it', async (t) => {
      for (const { name, method, path, responses } of operations) {
        const probes = path.includes('/health')
        // While the database is away the metrics say so.
        const answersAlways = path.endsWith('/metrics')
        if (answersAlways) t.notOk(responses['503'], name)
        const expected = [
          '400',
          '500',
          ...(probes ? [] : ['403']),
          ...(probes || answersAlways ? [] : ['503']),
          ...(path.includes('{key}/') ? ['404'] : []),
        ]
        const writes = method === 'GET' ? [] : ['413', '415', '429']
        for (const status of [...expected, ...writes]) t.ok(responses[status], `${name}: ${status}`)
        for (const [status, { description, content }] of Object.entries(responses)) {
          if (Number(status) < 400) continue
          t.ok(description, `${name}: ${status}`)
          // A probe of health wants a readable body in any case, and 503 is one of its two answers.
          if (probes && status === '503') exemplary(t, `${name}: ${status}`, content, 'application/json')
          else
            for (const { type, title, status: said } of exemplary(
              t,
              `${name}: ${status}`,
              content,
              httpProblemType,
            )) {
              t.equal(String(said), status, name)
              const known = Object.entries(httpProblems).find(
                ([problem]) => type === typeOf(problem as 'conflict'),
              )
              t.match(known?.[1], { status: Number(status), title }, `${name}: ${type}`)
            }
        }
      }
    })

    await t.test('what is sent as described is taken, and answered as described', async (t) => {
      await eventually(() =>
        ['consumer', 'data', 'indexing'].every((worker) => app.coordination.isHeld(worker)),
      )
      const { self } = await app.coordination.status()
      for (const { name, method, path, requestBody, responses } of operations) {
        if (isText(responses['200']?.content)) continue
        const [example] = examplesOf(requestBody?.content).flatMap(({ examples }) => examples)
        const reply = await app.inject({
          method,
          url: path.replace('{key}', keyFor(path)).replace('{id}', self?.id ?? ''),
          ...(example === undefined ? {} : { payload: example }),
          headers: { 'if-match': '"0"' },
        })
        const described = responses[reply.statusCode]
        t.ok(described, `${name}: ${reply.statusCode} ${reply.body}`)
        t.notOk([400, 415, 428, 500].includes(reply.statusCode), `${name}: ${reply.body}`)
        const [mediaType = ''] = String(reply.headers['content-type'] ?? '').split(';')
        if (described?.content === undefined) t.equal(reply.body, '', name)
        else accepts(t, name, described.content[mediaType]?.schema, reply.json())
      }
    })
  })

t.test('null is written as each version has it', async (t) => {
  for (const [version, type, nullable] of [
    ['3.0.3', 'object', true],
    ['3.1.0', ['object', 'null'], undefined],
  ] as const) {
    const { operations } = await describedApp(t, { version })
    const release = operations.find(({ operationId }) => operationId === 'coordinationReleaseLease')
    const { previousHolder } =
      release?.responses['200']?.content?.['application/json']?.schema.properties ?? {}
    t.strictSame([previousHolder?.type, previousHolder?.nullable], [type, nullable], version)
  }
})

t.test("a transformation of the application's own is not for our routes", async (t) => {
  const transform = (): never => {
    throw new Error('Only schemas of another language')
  }
  const { operations } = await describedApp(t, { version: '3.1.0', transform })
  t.ok(operations.length > 25)
})

t.test('a security scheme is named only when it is asked for', async (t) => {
  const { document, operations } = await describedApp(t, {
    version: '3.1.0',
    components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
    options: { authorize: mira, security: [{ bearer: [] }] },
  })
  t.strictSame(await flaws(document), [])
  for (const { name, security } of operations) t.strictSame(security, [{ bearer: [] }], name)
})

t.test(
  'the document follows the prefix, and two registrations do not get in the way of each other',
  async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(swagger, { openapi: { info } })
    const prefixes = ['/desk/leases', '/jobs']
    const names = ['coordination', 'jobs']
    for (const [index, prefix] of prefixes.entries()) {
      const { url: database } = await useSqlite(t)
      const identity = { node: 'n1', cluster: 'c1' }
      const options = { database, identity, prefix, decorateAs: names[index], autoStart: false } as const
      await app.register(async (scope) => scope.register(workerCoordination, options), { prefix: '/api' })
    }
    await app.ready()
    const document = documentOf(app)
    t.strictSame(await flaws(document), [])
    const operations = operationsOf(document)
    for (const [index, prefix] of prefixes.entries()) {
      const below = operations.filter(({ path }) => path.startsWith(`/api${prefix}/`))
      t.ok(below.length > 25, prefix)
      for (const { name, operationId } of below) t.ok(operationId.startsWith(names[index] ?? ''), name)
      t.equal(2 * below.length, operations.length)
    }
    t.equal(new Set(operations.map(({ operationId }) => operationId)).size, operations.length)
  },
)

const info = { title: 'An application', version: '1.0.0' }

interface Schema {
  readonly type?: string | readonly string[]
  readonly nullable?: boolean
  readonly example?: Example
  readonly examples?: readonly Example[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
}

type Example = Readonly<Record<string, unknown>>

type Content = Readonly<
  Record<string, { readonly schema: Schema; readonly example?: Example; readonly examples?: object }>
>

interface Operation {
  readonly operationId: string
  readonly tags: readonly string[]
  readonly summary: string
  readonly security?: unknown
  readonly parameters?: readonly {
    readonly in: string
    readonly name: string
    readonly schema: Schema
    readonly description?: string
    readonly required?: boolean
  }[]
  readonly requestBody?: { readonly description?: string; readonly content: Content }
  readonly responses: Readonly<Record<string, { readonly description: string; readonly content?: Content }>>
}

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
}

type Placed = Operation & {
  readonly name: string
  readonly path: string
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
}

interface Description extends Pick<Use, 'options' | 'workers'> {
  readonly version: string
  readonly components?: object
  readonly transform?: () => never
}

/** Returns an application with its document, and the plugin's routes as Fastify was told of them. */
async function describedApp(
  t: Test,
  { version: openapi, components = {}, transform, ...use }: Description,
): Promise<{ app: FastifyInstance; document: Document; operations: Placed[]; routes: RouteOptions[] }> {
  const routes: RouteOptions[] = []
  const app = await useApp(t, {
    ...use,
    before: (app) => {
      app.register(swagger, { openapi: { openapi, info, components }, ...(transform && { transform }) })
      app.addHook('onRoute', (route) => {
        if (route.method !== 'HEAD') routes.push(route)
      })
    },
  })
  const document = documentOf(app)
  return { app, document, operations: operationsOf(document), routes }
}

function documentOf(app: FastifyInstance): Document {
  return JSON.parse(JSON.stringify(app.swagger()))
}

function operationsOf({ paths }: Document): Placed[] {
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([key, operation]) => {
      const method = key.toUpperCase() as Placed['method']
      return { ...operation, path, method, name: `${method} ${path}` }
    }),
  )
}

/** Returns what is wrong with a document, according to the schema of OpenAPI itself. */
async function flaws(document: Document): Promise<unknown[]> {
  const { valid, errors = [] } = await new Validator().validate({ ...document })
  return valid ? [] : [errors].flat()
}

/** Returns a path as OpenAPI writes it, without the patterns of parameters. */
function documentedPath(url: string): string {
  return url.replace(/:(\w+)(\(.*?\))*(?=\/|$)/g, '{$1}')
}

function isHidden(route: RouteOptions | undefined): boolean {
  return route?.schema !== undefined && 'hide' in route.schema && route.schema.hide === true
}

function isText(content: Content = {}): boolean {
  return Object.keys(content).some((type) => type.startsWith('text/'))
}

function keyFor(path: string): string {
  return path.includes('/leases/') || path.includes('/leader/') ? 'global:consumer~0' : 'global:consumer'
}

/** Returns the schema of each media type, and its examples, wherever this version of OpenAPI keeps them. */
function examplesOf(content: Content = {}): { type: string; schema: Schema; examples: Example[] }[] {
  return Object.entries(content).map(([type, { schema, example }]) => ({
    type,
    schema,
    examples: [example ?? [], schema.example ?? [], schema.examples ?? []].flat() as Example[],
  }))
}

/** Returns the examples, after checking that they fit their schema and name nothing beyond it. */
function exemplary(t: Test, name: string, content: Content | undefined, mediaType: string): Example[] {
  const described = examplesOf(content)
  t.strictSame(
    described.map(({ type }) => type),
    [mediaType],
    name,
  )
  for (const { schema, examples } of described) {
    t.ok(examples.length > 0, `${name}: an example`)
    const serialize = serializes({ schema, method: 'GET', url: '/', httpStatus: '200' })
    for (const example of examples) {
      accepts(t, name, schema, example)
      t.strictSame(JSON.parse(serialize(example)), example, `${name}: nothing else`)
    }
  }
  return described.flatMap(({ examples }) => examples)
}

function accepts(t: Test, name: string, schema: Schema | undefined, value: unknown): void {
  if (schema === undefined) return void t.fail(`${name}: not described`)
  const validate = validates({ schema, method: 'GET', url: '/', httpPart: 'body' })
  t.strictSame([validate(value), validate.errors ?? []], [true, []], name)
}

const validates = ajvCompiler()(
  {},
  { customOptions: { strict: false, coerceTypes: false, removeAdditional: false } },
)
const serializes = serializerCompiler()({}, {})
