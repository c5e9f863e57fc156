/**
 * Describes the routes in the OpenAPI document of an application that has `@fastify/swagger`.
 *
 * The schemas are plain JSON schemas. An application that writes its schemas in another language transforms them for
 * its document, and that transformation would fail on ours. Therefore our routes bring their own.
 */
import { documentedUrl, keySegment } from './keys.js'

/** What `@fastify/swagger` passes to the `swaggerTransform` of a route. */
interface Documented {
  readonly schema?: object | undefined
  readonly url: string
  readonly openapiObject?: { readonly openapi?: string }
}

/** The `swaggerTransform` of every route. */
export function asDocumented({ schema = {}, url, openapiObject }: Documented): {
  schema: object
  url: string
} {
  const described = withoutEmptyBody(schema)
  const complete = url.includes(keySegment) ? { ...described, params: keyParameters } : described
  const isNew = /^3\.[1-9]/.test(openapiObject?.openapi ?? '')
  return { schema: isNew ? withNullTypes(complete) : withOneExample(complete), url: documentedUrl(url) }
}

const keyParameters = {
  type: 'object',
  required: ['key'],
  properties: {
    key: {
      type: 'string',
      description: 'A key, written with ":" for "/" and "~" for "#"',
      examples: ['global:consumer~12'],
    },
  },
} as const

/** Drops a body without fields. It need not be sent, but a document that describes it would require it. */
function withoutEmptyBody(schema: object): object {
  const { body, ...rest }: { body?: { readonly properties?: object } } = schema
  return Object.keys(body?.properties ?? {}).length === 0 ? rest : schema
}

/** Before OpenAPI 3.1 a schema has one `example`. */
function withOneExample<Value>(value: Value): Value
function withOneExample(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((each: unknown) => withOneExample(each))
  if (typeof value !== 'object' || value === null) return value
  const { examples, ...rest }: { examples?: unknown } = value
  const entries = Object.entries(rest).map(([key, each]) => [key, withOneExample(each)])
  return Object.fromEntries(Array.isArray(examples) ? [...entries, ['example', examples[0]]] : entries)
}

/** Since OpenAPI 3.1, `nullable` is gone and null is a type. */
function withNullTypes<Value>(value: Value): Value
function withNullTypes(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((each: unknown) => withNullTypes(each))
  if (typeof value !== 'object' || value === null) return value
  const { nullable, ...rest }: { nullable?: unknown; type?: unknown } = value
  const entries = Object.entries(rest).map(([key, each]) => [
    key,
    key === 'examples' ? each : withNullTypes(each),
  ])
  return Object.fromEntries(nullable === true ? [...entries, ['type', [rest.type, 'null']]] : entries)
}
