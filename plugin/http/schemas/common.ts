/**
 * The building blocks of the schemas. The schemas document the routes and also guard them: a response field that is not
 * named is not sent, and a request field that is not known is refused.
 */
import { reasonLimits } from '../../core/audit.js'
import { type HttpProblemName, httpProblems, httpProblemType, typeOf } from '../http-problems.js'

export const text = { type: 'string' } as const
export const number = { type: 'integer' } as const
export const flag = { type: 'boolean' } as const
export const time = { type: 'string', format: 'date-time' } as const

/** Time of the reading and latest change. */
export const asOf = {
  now: { ...time, description: "The time of the reading, by the database's clock" },
  revision: { ...number, description: 'Number of the latest change' },
} as const

export const nodeReference = {
  type: 'object',
  nullable: true,
  required: ['id', 'name', 'cluster'],
  properties: { id: text, name: text, cluster: text },
} as const

/** Whether heartbeats arrive in time. */
export const pulse = {
  type: 'string',
  enum: ['steady', 'late', 'silent'],
  description: 'late: two heartbeats are missing; silent: none has come for longer than the ttl',
} as const

/** A name of a node, cluster or worker, or an id. */
export const name = { type: 'string', pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$' } as const

/** A key, in its own form or in the form used in paths. */
export const key = {
  type: 'string',
  pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}[/:][A-Za-z0-9][A-Za-z0-9._-]{0,99}([#~][0-9]{1,9})?$',
  description: 'A key, written with "/" and "#" or with ":" and "~"',
} as const

/** A reason, which is written to the audit trail. */
export const reason = {
  type: 'string',
  ...reasonLimits,
  description: 'The reason, which is recorded in the audit trail',
  examples: ['stuck since 03:10'],
} as const

/** The query parameters that all lists share. */
export const pageQuery = {
  q: {
    type: 'string',
    pattern: '^[ -~]{1,100}$',
    description: 'Only items that contain this text, ignoring case',
  },
  limit: { type: 'integer', minimum: 1, maximum: 500, description: 'Maximum number of items; default 100' },
  cursor: {
    type: 'string',
    pattern: '^[A-Za-z0-9_-]{1,512}$',
    description: 'The `next` of the previous page',
  },
} as const

export const nodeParameters = {
  type: 'object',
  required: ['id'],
  properties: { id: { ...name, description: 'Id of the node, not its name' } },
} as const

/** The schema of a query with these parameters and no others. */
export function query<const Properties extends object>(
  properties: Properties,
): { readonly type: 'object'; readonly additionalProperties: false; readonly properties: Properties } {
  return { type: 'object', additionalProperties: false, properties }
}

/** The schema of a body with these fields and no others. */
export function body<
  const Properties extends object,
  const Required extends readonly (keyof Properties & string)[],
>(
  properties: Properties,
  required: Required,
  example: object,
): {
  readonly type: 'object'
  readonly additionalProperties: false
  readonly required: Required
  readonly properties: Properties
  readonly examples: readonly object[]
} {
  return { type: 'object', additionalProperties: false, required, properties, examples: [example] }
}

/** The schema of a body that may be left out. `@fastify/swagger` calls every body required; the description does not. */
export function optionalBody<const Properties extends object>(
  properties: Properties,
): {
  readonly type: 'object'
  readonly additionalProperties: false
  readonly description: string
  readonly properties: Properties
} {
  return { type: 'object', additionalProperties: false, description: 'May be left out', properties }
}

/** The header is not required here, because the handler checks it with a clearer error message. */
export function matching(what: string): object {
  return {
    type: 'object',
    properties: {
      'if-match': {
        type: 'string',
        description: `The ${what} that the request refers to, in quotes`,
        examples: ['"41"'],
      },
    },
  }
}

/** The schema of a page of such items. */
export function pageOf<const Items extends object>(items: Items, example: object) {
  return {
    description: 'One page of the list',
    type: 'object',
    required: ['now', 'revision', 'items', 'next', 'total'],
    properties: {
      ...asOf,
      items: { type: 'array', items },
      next: { ...text, nullable: true, description: 'The `cursor` of the next page; null on the last page' },
      total: { ...number, description: 'Total number of items on all pages' },
    },
    examples: [{ now: '2026-03-01T03:10:00.000Z', revision: 1207, items: [example], next: null, total: 1 }],
  } as const
}

/** Returns the schema of one object with the time of its reading. */
export function one<const Properties extends object, const Required extends readonly string[]>(
  description: string,
  { properties, required }: { readonly properties: Properties; readonly required: Required },
  example: object,
) {
  return {
    description,
    type: 'object',
    required: ['now', 'revision', ...required],
    properties: { ...asOf, ...properties },
    examples: [{ now: '2026-03-01T03:10:00.000Z', revision: 1207, ...example }],
  } as const
}

export const notModified = { description: 'Not modified', type: 'null' } as const
export const noContent = { description: 'Done', type: 'null' } as const

/** Returns the replies of a route that reads: the given ones and its possible errors. */
export function reads(replies: object, ...further: HttpProblemName[]): object {
  return withHttpProblems(replies, [
    ...refusalsOfReads,
    ...further,
    'internal-error',
    'store-unavailable',
    'unavailable',
  ])
}

/** Like {@link reads}, for a route that answers without the database. */
export function serves(replies: object, ...further: HttpProblemName[]): object {
  return withHttpProblems(replies, [...refusalsOfReads, ...further, 'internal-error'])
}

const refusalsOfReads = [
  'invalid-request',
  'forbidden',
  'authorization-not-configured',
  'host-not-allowed',
] as const

/** Like {@link reads}, for a route that changes something. */
export function writes(replies: object, ...further: HttpProblemName[]): object {
  const usual = ['too-large', 'unsupported-media-type', 'too-many-requests'] as const
  return withHttpProblems(replies, [
    'invalid-request',
    'forbidden',
    'authorization-not-configured',
    'host-not-allowed',
    'cross-site',
    ...further,
    ...usual,
    'internal-error',
    'store-unavailable',
    'unavailable',
  ])
}

export const httpProblem = {
  type: 'object',
  required: ['type', 'title', 'status', 'detail', 'instance'],
  properties: {
    type: text,
    title: text,
    status: number,
    detail: text,
    instance: { ...text, description: 'Id of the request' },
    errors: {
      type: 'array',
      description: 'The individual validation errors',
      items: { type: 'object', required: ['path', 'message'], properties: { path: text, message: text } },
    },
    current: { type: 'object', additionalProperties: true, description: 'The current state' },
    option: { ...text, description: 'The option of the plugin that controls this' },
    retryAfter: { ...number, description: 'Number of seconds after which to try again' },
    allow: { type: 'array', items: text, description: 'The methods that the path accepts' },
    candidates: { type: 'array', items: text, description: 'Ids of nodes that can be named instead' },
    worker: {
      ...text,
      description: 'The worker of that name, which has shares or partitions instead of one lease',
    },
  },
} as const

/** Adds the replies for these HTTP problems, grouped by status. */
export function withHttpProblems(replies: object, names: readonly HttpProblemName[]): object {
  const statuses = new Set(names.map((name) => httpProblems[name].status))
  const failures = [...statuses].map((status) => [
    status,
    httpProblemReply(names.filter((name) => httpProblems[name].status === status)),
  ])
  return { ...replies, ...Object.fromEntries(failures) }
}

/** Returns the reply for one status. */
function httpProblemReply(names: readonly HttpProblemName[]): object {
  const description = names.map((name) => httpProblems[name].title).join('; or: ')
  const examples = names.map((name) => {
    const { status, title } = httpProblems[name]
    return { type: typeOf(name), title, status, detail: `${title}.`, instance: 'req-1' }
  })
  return { description, content: { [httpProblemType]: { schema: { ...httpProblem, examples } } } }
}
