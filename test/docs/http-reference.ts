/**
 * Makes the tables of {@link documents} from what the routes themselves declare: their schemas, actions and problems.
 *
 * In the document the tables stand between comments that name them. `npm run docs` writes them anew, and a test checks
 * that this has been done.
 */
import Fastify, { type RouteOptions } from 'fastify'
import { problemCodes } from '../../plugin/core/reports/problems.js'
import { actions } from '../../plugin/http/guard/access.js'
import { httpProblems, httpProblemType, typeOf } from '../../plugin/http/http-problems.js'
import { documentedUrl } from '../../plugin/http/keys.js'
import { assignment } from '../../plugin/http/schemas/assignments.js'
import {
  httpProblem,
  key as keyNamed,
  name as nameNamed,
  nodeReference,
} from '../../plugin/http/schemas/common.js'
import { event } from '../../plugin/http/schemas/events.js'
import { explanation, leaseItem, term } from '../../plugin/http/schemas/leases.js'
import { nodeItem } from '../../plugin/http/schemas/nodes.js'
import { statusSchema } from '../../plugin/http/schemas/status.js'
import { workerItem } from '../../plugin/http/schemas/workers.js'
import workerCoordination from '../../plugin/index.js'
import { rules } from '../http/rules.js'

/** The generated parts of the document, by name. */
/** The documents with generated parts. */
export const documents = ['docs/http-api.md', 'docs/testing/http-rules.md'] as const

export type Parts = Readonly<Record<string, string>>

/** The part of JSON schema that the schemas of the routes use. */
interface Schema {
  readonly type?: string
  readonly description?: string
  readonly nullable?: boolean
  readonly enum?: readonly string[]
  readonly pattern?: string
  readonly format?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly items?: Schema
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly examples?: readonly unknown[]
  readonly additionalProperties?: boolean | Schema
}

interface Reply extends Schema {
  readonly content?: Readonly<Record<string, { readonly schema: Schema }>>
}

interface Described {
  readonly summary: string
  readonly description?: string
  readonly params?: Schema
  readonly querystring?: Schema
  readonly headers?: Schema
  readonly body?: Schema
  readonly response: Readonly<Record<string, Reply>>
}

interface Endpoint {
  readonly method: string
  readonly path: string
  readonly action: string
  readonly open: boolean
  readonly schema: Described
}

/** Returns all generated parts, made from an application that registers the plugin in the usual way. */
export async function reference(): Promise<Parts> {
  const endpoints = await endpointsOf()
  return {
    actions: table(
      ['action', 'asked about'],
      actions.map((action) => [code(action), routesOf(endpoints, action)]),
    ),
    endpoints: table(
      ['request', 'action', 'what'],
      endpoints.map(({ method, path, action, open, schema }) => [
        `[\`${method} ${path}\`](#${anchor(`${method} ${path}`)})`,
        open ? `${code(action)}, open` : code(action),
        schema.summary,
      ]),
    ),
    routes: endpoints.map(section).join('\n\n'),
    objects: objects.map(([name, schema]) => `### ${name}\n\n${fieldTable(schema)}`).join('\n\n'),
    problems: table(
      ['`type` ends in', 'status', '`title`'],
      Object.entries(httpProblems).map(([name, { status, title }]) => [code(name), String(status), title]),
    ),
    attention: table(
      ['`code`', '`severity`', 'when'],
      Object.entries(problemCodes).map(([name, { severity, when }]) => [code(name), code(severity), when]),
    ),
    rules: table(
      ['rule', 'test'],
      rules.map(({ rule, test: [file, name] }) => {
        const path = `test/${file}.test.ts`
        return [rule, `[${code(path)}](../../${path}): "${name}"`]
      }),
    ),
  }
}

/** Returns the document with its parts replaced. */
export function filled(document: string, parts: Parts): string {
  return document.replaceAll(
    /(<!-- made: (\w+) -->\n).*?(<!-- end -->)/gs,
    (_all, begin: string, name: string, end: string) => `${begin}\n${parts[name] ?? ''}\n\n${end}`,
  )
}

function routesOf(endpoints: readonly Endpoint[], action: string): string {
  if (action === 'read') return 'everything else'
  const asked = endpoints.filter((each) => each.action === action && !each.open)
  return asked.map(({ method, path }) => code(`${method} ${path}`)).join(', ')
}

async function endpointsOf(): Promise<Endpoint[]> {
  const app = Fastify()
  const found: RouteOptions[] = []
  app.addHook('onRoute', (route) => void found.push(route))
  await app.register(workerCoordination, { database: 'sqlite::memory:', prefix: prefix })
  await app.close()
  // The page and its files are not part of the interface.
  return found
    .filter(({ method, schema }) => method !== 'HEAD' && !schema?.hide)
    .map(endpointOf)
    .sort((a, b) => rank(a) - rank(b))
}

const prefix = '/coordination'

function endpointOf({ method, url, config, schema }: RouteOptions): Endpoint {
  return {
    method: String(method),
    path: documentedUrl(url)
      .slice(prefix.length)
      .replaceAll(/:(\w+)/g, '{$1}'),
    action: config?.coordinationAction ?? '',
    open: config?.coordinationOpen ?? false,
    schema: schema as unknown as Described,
  }
}

/**
 * Returns the place of an endpoint: in the order of the things it is about, and for each thing first what only reads.
 */
function rank({ path, action }: Endpoint): number {
  const things = [
    'status',
    'overview',
    'leaders',
    'leases',
    'nodes',
    'workers',
    'assignments',
    'events',
    'stream',
    'health',
  ]
  const [, thing = ''] = path.split('/')
  const at = things.indexOf(thing)
  return (at < 0 ? things.length : at) * 10 + (action === 'read' ? 0 : 1)
}

function section({ method, path, action, open, schema }: Endpoint): string {
  const { summary, description, params, querystring, headers, body, response } = schema
  const asked = open ? 'Open to everybody.' : `Action ${code(action)}.`
  return [
    `### ${method} ${path}`,
    `${summary}. ${asked}`,
    ...(description === undefined ? [] : [description]),
    ...parameterTables(params, querystring, headers),
    ...bodyOf(body),
    replyTable(response),
    ...exampleOf(response),
  ].join('\n\n')
}

function parameterTables(params: Schema = {}, querystring: Schema = {}, headers: Schema = {}): string[] {
  const rows = [
    ...Object.entries(params.properties ?? {}).map(([name, each]) => ['path', name, each] as const),
    ...Object.entries(querystring.properties ?? {}).map(([name, each]) => ['query', name, each] as const),
    ...Object.entries(headers.properties ?? {}).map(
      ([name, each]) => ['header', canonical(name), each] as const,
    ),
  ]
  if (rows.length === 0) return []
  return [
    table(
      ['parameter', 'in', 'type', 'what'],
      rows.map(([place, name, each]) => [code(name), place, typeName(each), each.description ?? '']),
    ),
  ]
}

function bodyOf(body: Schema | undefined): string[] {
  const fields = Object.entries(body?.properties ?? {})
  if (body === undefined || fields.length === 0) return []
  const rows = fields.map(([name, each]) => [
    code(name),
    typeName(each),
    body.required?.includes(name) ? 'yes' : '',
    each.description ?? '',
  ])
  const example = body.examples?.[0]
  return [
    table(['field of the body', 'type', 'required', 'what'], rows),
    ...(example === undefined ? [] : [json(example)]),
  ]
}

function replyTable(response: Described['response']): string {
  const rows = Object.entries(response).map(([status, reply]) => {
    const ways = reply.content?.[httpProblemType]?.schema.examples
    return [status, ways === undefined ? described(reply) : ways.map(lastWord).map(code).join(', ')]
  })
  return table(['status', 'what, or which problem'], rows)
}

function described(reply: Reply): string {
  const types = Object.keys(reply.content ?? {})
  return [reply.description ?? '', ...types.map(code)].join(', ')
}

function lastWord(example: unknown): string {
  const { type } = example as { type: string }
  return type.slice(typeOf('' as never).length)
}

function exampleOf(response: Described['response']): string[] {
  const [, first] = Object.entries(response).find(([status]) => status.startsWith('2')) ?? []
  const example = first?.examples?.[0]
  return example === undefined ? [] : [json(example)]
}

const statusReply = statusSchema.response as unknown as Described['response']

/** What is returned in several places is described once. */
const objects: [name: string, schema: Schema][] = [
  ['Status', statusReply['200'] as Schema],
  ['Node', nodeItem],
  ['Node reference', nodeReference],
  ['Worker', workerItem],
  ['Lease', leaseItem],
  ['Term', term],
  ['Explanation', explanation],
  ['Assignment', assignment],
  ['Event', event],
  ['Problem', httpProblem],
]

function fieldTable(schema: Schema): string {
  const rows = fieldsOf(schema).map(([name, each]) => [code(name), typeName(each), each.description ?? ''])
  return table(['field', 'type', 'what'], rows)
}

/** Returns the fields of a schema, and the fields of those that are objects without a name. */
function fieldsOf({ properties = {} }: Schema): [path: string, schema: Schema][] {
  return Object.entries(properties).flatMap(([name, each]): [string, Schema][] => {
    if (named(each) !== undefined) return [[name, each]]
    const within = each.items ?? each
    const dots = each.items === undefined ? '.' : '[].'
    const inner = named(within) === undefined ? fieldsOf(within) : []
    return [[name, each], ...inner.map(([path, field]): [string, Schema] => [`${name}${dots}${path}`, field])]
  })
}

/** Returns the name of an object. Its properties identify it, because schemas are spread to describe a field. */
function named({ properties }: Schema): string | undefined {
  return properties && objects.find(([, schema]) => schema.properties === properties)?.[0]
}

function typeName(schema: Schema): string {
  const { nullable = false } = schema
  return `${plainType(schema)}${nullable ? ' or null' : ''}`
}

function plainType(schema: Schema): string {
  const { type, items, pattern, format } = schema
  const word = patterns.get(pattern ?? '')
  const name = named(schema)
  if (name !== undefined) return `[${name}](#${anchor(name)})`
  if (items !== undefined) return `list of ${typeName(items)}`
  if (schema.enum !== undefined) return schema.enum.map(code).join(', ')
  if (word !== undefined) return word
  if (format === 'date-time') return 'time'
  if (type === 'integer') return `number${range(schema.minimum, schema.maximum, '')}`
  if (type === 'string')
    return `text${range(schema.minLength, schema.maxLength, ' characters')}${matching(pattern)}`
  return type ?? 'anything'
}

const patterns: ReadonlyMap<string, string> = new Map([
  [keyNamed.pattern, '[key](#keys)'],
  [nameNamed.pattern, '[name](#keys)'],
])

function range(least: number | undefined, most: number | undefined, unit: string): string {
  if (least === undefined && most === undefined) return ''
  return `, ${least ?? 0} to ${most ?? 'any number'}${unit}`
}

/** Returns the pattern of a field. The patterns of free text only exclude control characters and are left out. */
function matching(pattern: string | undefined): string {
  if (pattern === undefined || pattern.startsWith('^[^')) return ''
  return ` like ${code(pattern.replaceAll('|', '\\|'))}`
}

function canonical(header: string): string {
  return header.replaceAll(/(^|-)[a-z]/g, (first) => first.toUpperCase())
}

function code(text: string): string {
  return `\`${text}\``
}

/** Returns the anchor of a heading, as the usual sites make it. */
function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-')
}

/** Writes JSON. Lists of plain values stay on one line, as formatters of Markdown have them. */
function json(value: unknown): string {
  const plain = String.raw`(?:"(?:[^"\\]|\\.)*"|-?\d+|true|false|null)`
  const list = new RegExp(String.raw`\[\s+(${plain}(?:,\s+${plain})*)\s+\]`, 'g')
  const text = JSON.stringify(value, null, 2).replaceAll(
    list,
    (_all, items: string) => `[${items.replaceAll(/\s*\n\s*/g, ' ')}]`,
  )
  return `\`\`\`json\n${text}\n\`\`\``
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((_cell, at) => Math.max(3, ...[head, ...rows].map((row) => (row[at] ?? '').length)))
  const line = (cells: readonly string[], fill = ' '): string =>
    `| ${widths.map((width, at) => (cells[at] ?? '').padEnd(width, fill)).join(' | ')} |`
  return [line(head), line([], '-'), ...rows.map((row) => line(row))].join('\n')
}
