/**
 * Makes requests from the routes' own schemas: fair ones, and fair ones with one or two tricks applied.
 *
 * A trick knows whether it alone is enough for a refusal. What the schemas refuse is not repeated here: values of all
 * kinds are drawn, and the schemas tell which of them are wrong.
 */
import ajvCompiler from '@fastify/ajv-compiler'
import fc from 'fast-check'
import type { RouteOptions } from 'fastify'
import { documentedUrl } from '../../plugin/http/keys.js'
import { inPath, type Known, strangers } from './fuzz-world.js'

/** A request as it is sent, except for what is known only at that moment. */
export interface FuzzRequest {
  /** Method and address of the route for which the request is meant. */
  readonly route: string
  readonly method: string
  /** The path below the prefix, percent-encoded, with the query. */
  readonly path: string
  readonly headers: Readonly<Record<string, string | readonly string[]>>
  readonly body: string | Buffer | undefined
  /** The path that has the tag for `If-Match`, when the request writes to something that needs it. */
  readonly tagged: string | undefined
  /** The token or revision in `If-Match` minus the one in the tag. Undefined when it is not made from the tag. */
  readonly distance: number | undefined
  /** The key or id that the path names, when it names one that exists. */
  readonly subject: string | undefined
  /** Whether the request comes from an actor of its own, which no other request has. */
  readonly signed: boolean
  readonly remoteAddress: string
  /** `fair`: valid as far as the schemas say. `refused`: must be refused. `open`: may be accepted or refused. */
  readonly verdict: 'fair' | 'refused' | 'open'
  readonly tricks: readonly string[]
  /** Whether the route for which the request is meant answers it. */
  readonly arrives: boolean
}

/** Returns requests to all routes: most often to those that alter something, least often to those of files. */
export function requests(known: Known): fc.Arbitrary<FuzzRequest> {
  const weightOf = ({ method, url }: RouteOptions): number =>
    isWrite(String(method)) ? 12 : url.includes('/ui') ? 2 : 4
  return fc.oneof(
    ...known.routes.map((route) => ({ weight: weightOf(route), arbitrary: requestsTo(route, known) })),
  )
}

/** Returns the name of a route in {@link FuzzRequest.route}. */
export function routeName({ method, url }: RouteOptions): string {
  return `${method} ${documentedUrl(url)}`
}

export function isWrite(method: string): boolean {
  return !['GET', 'HEAD'].includes(method)
}

/** The part of JSON schema that the schemas of requests use. */
interface Schema {
  readonly type?: string
  readonly enum?: readonly string[]
  readonly pattern?: string
  readonly minLength?: number
  readonly maxLength?: number
  readonly minimum?: number
  readonly maximum?: number
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
}

interface RouteSchemas {
  readonly querystring?: Schema
  readonly headers?: Schema
  readonly body?: Schema
}

/** A request in the making. */
interface Draft {
  readonly method: string
  /** Percent-encoded. */
  readonly segment: string
  readonly subject: string | undefined
  readonly query: readonly (readonly [name: string, value: string])[]
  readonly headers: Readonly<Record<string, string | readonly string[]>>
  readonly body: string | Buffer | undefined
  readonly distance: number | undefined
  readonly signed: boolean
  readonly remoteAddress: string
}

/** A manipulation of a draft. */
interface Trick {
  /** Two tricks of one kind would undo each other. */
  readonly kind: string
  readonly what: string
  readonly alter: (draft: Draft) => Draft
  /** Whether the server must refuse the finished draft because of this trick. */
  readonly suffices: (draft: Draft) => boolean
}

/** What is known of a route when requests to it are drawn. */
interface Target {
  readonly method: string
  readonly url: string
  readonly schemas: RouteSchemas
  /** Whether the route answers every caller. */
  readonly open: boolean
  readonly known: Known
}

function requestsTo(route: RouteOptions, known: Known): fc.Arbitrary<FuzzRequest> {
  const target: Target = {
    method: String(route.method),
    url: documentedUrl(route.url).replace(/^\/coordination/, ''),
    schemas: (route.schema ?? {}) as RouteSchemas,
    open: route.config?.coordinationOpen === true,
    known,
  }
  const trick = tricksOn(target)
  const played = fc.oneof(
    { weight: 7, arbitrary: fc.constant<Trick[]>([]) },
    { weight: 9, arbitrary: fc.array(trick, { minLength: 1, maxLength: 1 }) },
    {
      weight: 4,
      arbitrary: fc.uniqueArray(trick, { minLength: 2, maxLength: 2, selector: ({ kind }) => kind }),
    },
  )
  return fc.tuple(fairDrafts(target), played).map(([fair, tricks]) => {
    const draft = tricks.reduce((before, { alter }) => alter(before), fair)
    const isOwn = draft.method === target.method
    const refused = tricks.some(
      ({ kind, suffices }) => (isOwn || ['method', 'actor'].includes(kind)) && suffices(draft),
    )
    const verdict = tricks.length === 0 ? 'fair' : refused ? 'refused' : 'open'
    return finished(target, draft, {
      route: routeName(route),
      verdict,
      tricks: tricks.map(({ what }) => what),
      arrives: !tricks.some(({ kind }) => ['path', 'method'].includes(kind)),
    })
  })
}

function finished(
  { url, schemas }: Target,
  draft: Draft,
  about: Pick<FuzzRequest, 'route' | 'verdict' | 'tricks' | 'arrives'>,
): FuzzRequest {
  const { method, headers, body, signed, remoteAddress, distance, subject } = draft
  const path = url.replace(/:\w+/, () => draft.segment)
  const query = draft.query.map(([name, value]) => `${encoded(name)}=${encoded(value)}`).join('&')
  const isTagged = schemas.headers !== undefined && subject !== undefined
  const tagged = isTagged ? `/${url.split('/')[1]}/${inPath(subject)}` : undefined
  return {
    ...about,
    ...{ method, headers, body, signed, remoteAddress, tagged, distance, subject },
    path: query === '' ? path : `${path}?${query}`,
  }
}

/** Encodes a text for a path. A path cannot contain half of a surrogate pair, so a replacement takes its place. */
function encoded(text: string): string {
  return encodeURIComponent(text.replace(/\p{Cs}/gu, '\ufffd'))
}

function fairDrafts(target: Target): fc.Arbitrary<Draft> {
  const { method, schemas } = target
  return fc
    .record({
      place: places(target),
      query: fairQueries(target),
      body: fairBodies(target),
      written: fc.constantFrom<(key: string) => string>(inPath, encoded),
      distance: fc.oneof(
        { weight: 4, arbitrary: fc.constant(0) },
        { weight: 1, arbitrary: fc.constantFrom(-1, 1, 1_000) },
      ),
    })
    .map(({ place, query, body, written, distance }) => ({
      method,
      segment: written(place ?? ''),
      subject: place,
      query,
      headers: {
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      body,
      distance: schemas.headers === undefined ? undefined : distance,
      signed: true,
      remoteAddress: '127.0.0.1',
    }))
}

/** Returns something that exists, for routes that are about one thing. */
function places({ url, known }: Target): fc.Arbitrary<string | undefined> {
  if (/^\/nodes\/:id/.test(url)) return fc.constantFrom(...known.nodes)
  if (/^\/(workers|assignments)\/:key/.test(url)) return fc.constantFrom(...known.workers)
  if (/:key/.test(url)) return fc.constantFrom(...known.leases)
  return fc.constant(undefined)
}

function fairQueries({ url, schemas, known }: Target): fc.Arbitrary<Draft['query']> {
  const { properties = {} } = schemas.querystring ?? {}
  const { cursor: _, ...others } = properties
  const cursor = known.cursors.get(url)
  const values = Object.fromEntries(
    Object.entries(others).map(([name, schema]) => [name, valuesOf(name, schema, known)]),
  )
  const usual = fc
    .record(values, { requiredKeys: [] })
    .map((each): Draft['query'] => Object.entries(each).map(([name, value]) => [name, String(value)]))
  if (cursor === undefined) return usual
  return fc.oneof(
    { weight: 5, arbitrary: usual },
    { weight: 1, arbitrary: fc.constant([['cursor', cursor]] as const) },
  )
}

function fairBodies({ schemas: { body }, known }: Target): fc.Arbitrary<string | undefined> {
  if (body === undefined) return fc.constant(undefined)
  const { properties = {}, required = [] } = body
  const fields = Object.fromEntries(
    Object.entries(properties).map(([name, schema]) => [name, valuesOf(name, schema, known)]),
  )
  const bodies = fc.record(fields, { requiredKeys: [...required] }).map((each) => JSON.stringify(each))
  return required.length > 0 ? bodies : fc.option(bodies, { nil: undefined })
}

/** Returns mostly values that exist, so that requests find something. */
function valuesOf(name: string, schema: Schema, known: Known): fc.Arbitrary<unknown> {
  const there: Readonly<Record<string, readonly string[]>> = {
    to: known.nodes,
    holder: ['n1', ...known.nodes],
    worker: known.workers,
    cluster: ['c1'],
    subject: [...known.leases, ...known.workers, ...known.nodes],
    type: ['lease.acquired', 'worker.paused,worker.resumed', 'node.joined', 'node.,lease.'],
    q: ['c1', 'GLOBAL', 'n'],
    after: ['1-0', '5-0', '0-0'],
  }
  const existing = there[name]
  if (existing === undefined) return accepted(schema)
  // Types of events must exist, which their schema does not say.
  if (name === 'type') return fc.constantFrom(...existing)
  const others = accepted(schema).map((value) => (name === 'after' ? withoutZeros(String(value)) : value))
  return fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...existing) }, { weight: 1, arbitrary: others })
}

/** Removes leading zeros: a place in the audit trail is written in one way only, which its schema does not say. */
function withoutZeros(place: string): string {
  return place.replace(/(?<!\d)0+(?=\d)/g, '')
}

/** Returns any value that a schema accepts. */
function accepted(schema: Schema): fc.Arbitrary<unknown> {
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum)
  if (schema.type === 'integer')
    return fc.integer({ min: schema.minimum ?? 0, max: schema.maximum ?? 1_000_000 })
  if (schema.type === 'boolean') return fc.boolean()
  const { pattern = '', minLength = 0, maxLength = 1_000 } = schema
  return fc
    .stringMatching(new RegExp(pattern, 'u'))
    .filter((text) => Array.from(text).length >= minLength && Array.from(text).length <= maxLength)
}

function tricksOn(target: Target): fc.Arbitrary<Trick> {
  const { schemas, method } = target
  const has = (condition: boolean, ...tricks: fc.Arbitrary<Trick>[]) => (condition ? tricks : [])
  return fc.oneof(
    ...has(target.url.includes(':'), strangePaths(target), strangePaths(target)),
    ...strangeQueries(target),
    ...has(schemas.headers !== undefined, strangeMatches(target), strangeMatches(target)),
    ...has(schemas.body !== undefined, ...strangeBodies(target), strangeContents()),
    ...has(isWrite(method), otherSites(), hurriedActor(), hurriedActor()),
    ...has(!isWrite(method), knownAlready()),
    strangeHeaders(target),
    strangeActors(target),
    forgedOrigins(target),
    strangeMethods(target),
  )
}

/** Texts that have caused faults in other programs. */
const texts = [
  ...['', ' ', '\u0000', '%00', '%', '%2F', '..', '../../etc/passwd', '__proto__', 'constructor', 'toString'],
  ...['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "' or 1=1 --", '{{7*7}}'],
  ...['a\r\nset-cookie: x=1', '\ud800', '\udfff\ud800', '\u202e', '\ufeff', '😀', 'é', 'ｇlobal', 'null'],
  ...[
    'NaN',
    '-1',
    '1e3',
    '0x10',
    '01',
    '1.5',
    '9'.repeat(30),
    'true',
    '[]',
    '{}',
    '*',
    'a/b/c',
    'a:b~',
    'a#b',
  ],
  ...['a'.repeat(101), `global:${'a'.repeat(101)}`, 'a'.repeat(301), 'x'.repeat(5_000)],
]

const anyText = fc.oneof(
  fc.constantFrom(...texts),
  fc.string({ unit: 'binary', maxLength: 30 }),
  fc.string({ unit: 'grapheme-ascii', maxLength: 250 }),
)

const anyValue = fc.oneof(
  anyText,
  fc.constantFrom<unknown>(null, true, 0, -1, 1.5, 1e300, Number.MAX_SAFE_INTEGER, [], {}, ['a'], { a: 1 }),
  fc.jsonValue({ maxDepth: 3 }),
)

function strangePaths({ url }: Target): fc.Arbitrary<Trick> {
  const raw = [
    '%',
    '%zz',
    '%c3%28',
    '%00',
    '%2F',
    '..%2f..',
    '%2e%2e%2e',
    '%23',
    '%E2%80%AE',
    '%25%30%30',
    'a%20b',
    '',
  ]
  const segments = fc.oneof(
    fc.constantFrom(...raw),
    anyText.map(encoded),
    fc.constantFrom(
      'a',
      'global:nothing',
      'global:data~99',
      'c1:indexing~1',
      'global%2Fdata%23x',
      'GLOBAL:data',
    ),
  )
  // Clients resolve dots by themselves and ask for the path above.
  const sent = segments.filter((segment) => !/^(\.|%2e){1,2}$/i.test(segment))
  return sent.map((segment) => ({
    kind: 'path',
    what: 'a path that leads to nothing that exists',
    alter: (draft) => ({ ...draft, segment, subject: undefined }),
    suffices: () => url !== '/health/leader/:key',
  }))
}

function strangeQueries({ schemas: { querystring } }: Target): fc.Arbitrary<Trick>[] {
  const named = Object.entries(querystring?.properties ?? {})
  const queryTrick = (what: string, alter: (query: Draft['query']) => Draft['query']): Trick => ({
    kind: 'query',
    what,
    alter: (draft) => ({ ...draft, query: alter(draft.query) }),
    suffices: () => querystring !== undefined,
  })
  const unknown = fc
    .constantFrom(
      '__proto__',
      'constructor',
      'x',
      'limit[]',
      'Limit',
      'reason',
      'hasOwnProperty',
      'a'.repeat(3_000),
    )
    .map((name) => queryTrick('a parameter that is not known', (query) => [...query, [name, '1']]))
  const wrong = named.map(([name, schema]) =>
    refusedBy(
      schema,
      anyText.map((text) => text.replace(/\p{Cs}/gu, '\ufffd')),
      true,
    ).map((value) =>
      queryTrick(`a wrong ${name}`, (query) => [
        ...query.filter(([other]) => other !== name),
        [name, String(value)],
      ]),
    ),
  )
  const twice = named.map(([name, schema]) =>
    accepted(schema).map((value) =>
      queryTrick(`two of ${name}`, (query) => [
        ...query.filter(([other]) => other !== name),
        [name, String(value)],
        [name, String(value)],
      ]),
    ),
  )
  return [unknown, ...(named.length === 0 ? [] : [fc.oneof(...wrong), fc.oneof(...twice)])]
}

function strangeMatches({ url }: Target): fc.Arbitrary<Trick> {
  const needed = !url.includes('rebalance')
  const other = fc.constantFrom<string | string[] | undefined>(
    ...[
      undefined,
      '',
      '*',
      '1',
      '"',
      '""',
      '"1" , "2"',
      '"-1"',
      '"1.5"',
      '"99999999999999999999"',
      '"9007199254740993"',
    ],
    ...['"1-HELD"', "'1'", '"__proto__"', '"\u0661"', '"%31"', 'W/"', 'W/1', `"${'1'.repeat(5_000)}"`],
    ...[['"1"', '"2"'], ['"1"', '*'], '"999999"', 'W/"999999"', '"999999-free"', '"0"', '"1"\u0000'],
  )
  return other.map((value) => ({
    kind: 'match',
    what: 'an If-Match that is missing or wrong',
    alter: (draft) => {
      const { 'if-match': _, ...headers } = draft.headers
      return {
        ...draft,
        distance: undefined,
        headers: value === undefined ? headers : { ...headers, 'if-match': value },
      }
    },
    suffices: () => needed || value !== undefined,
  }))
}

function strangeBodies({ schemas: { body = {} } }: Target): fc.Arbitrary<Trick>[] {
  const { properties = {}, required = [] } = body
  const trick = (what: string, alter: (fair: object) => string | Buffer, suffices = true): Trick => ({
    kind: 'body',
    what,
    alter: (draft) => ({
      ...draft,
      headers: { 'content-type': 'application/json', ...draft.headers },
      body: alter(JSON.parse(String(draft.body ?? '{}'))),
    }),
    suffices: () => suffices,
  })
  const whole = fc
    .constantFrom<unknown>(null, 1, 0, true, false, 'text', '', [], [{}], ['reason'], [[[]]])
    .map((value) => trick('a body that is no object', () => JSON.stringify(value)))
  const broken = fc
    .constantFrom(
      '{',
      '}',
      '{"reason":',
      '{"reason":"a good one"',
      "{'reason':'a good one'}",
      '[1,',
      'undefined',
      '\u0000',
    )
    .map((text) => trick('a body that is no JSON', () => text))
  const poison = fc
    .constantFrom('"__proto__":{"x":1}', '"constructor":{"prototype":{"x":1}}', '"\\u005f_proto__":1')
    .map((field) => trick('a body that reaches for prototypes', () => `{"reason":"a good one",${field}}`))
  const extra = fc
    .tuple(
      fc.constantFrom('actor', 'key', 'token', 'x', 'Reason', 'toString', '', 'a'.repeat(1_000)),
      anyValue,
    )
    .filter(([name, value]) => JSON.stringify({ [name]: value }).length < 3_000)
    .map(([name, value]) =>
      trick('a field that is not known', (fair) => JSON.stringify({ ...fair, [name]: value })),
    )
  const large = fc
    .constantFrom(4_097, 5_000, 100_000)
    .map((size) => trick('a body of more than 4 KiB', (fair) => JSON.stringify(fair) + ' '.repeat(size)))
  const bytes = fc
    .constantFrom([0xff, 0xfe], [0xc3, 0x28], [0xed, 0xa0, 0x80], [0xef, 0xbb, 0xbf])
    .map((odd) =>
      trick(
        'bytes that are no text',
        (fair) => Buffer.concat([Buffer.from(odd), Buffer.from(JSON.stringify(fair))]),
        false,
      ),
    )
  const empty = fc
    .constantFrom('', ' ', '\n')
    .map((text) => trick('an empty body', () => text, required.length > 0))
  const wrong = Object.entries(properties).map(([name, schema]) =>
    refusedBy(schema, anyValue, false).map((value) =>
      trick(`a wrong ${name}`, (fair) => JSON.stringify({ ...fair, [name]: value })),
    ),
  )
  const missing = required.map((name) =>
    fc.constant(trick(`no ${name}`, (fair) => JSON.stringify({ ...fair, [name]: undefined }))),
  )
  return [whole, broken, poison, extra, large, bytes, empty, ...wrong, ...missing]
}

function strangeContents(): fc.Arbitrary<Trick> {
  const trick = (what: string, headers: Draft['headers'], suffices: Trick['suffices']): Trick => ({
    kind: 'content',
    what,
    alter: (draft) => ({ ...draft, headers: { ...draft.headers, ...headers } }),
    suffices,
  })
  const hasBody = ({ body }: Draft): boolean => body !== undefined && body.length > 0
  const types = fc
    .constantFrom(
      ...[
        'text/plain',
        'application/x-www-form-urlencoded',
        'multipart/form-data; boundary=x',
        'application/xml',
      ],
      ...[
        'application/problem+json',
        'text/json',
        'json',
        '*/*',
        'application/jsonx',
        'x',
        '\u0000',
        '__proto__',
      ],
    )
    .map((type) => trick(`the content type ${type}`, { 'content-type': type }, hasBody))
  const doubled = fc
    .constantFrom(['application/json', 'text/plain'], ['application/json', 'application/json'])
    .map((type) => trick('two content types', { 'content-type': type }, () => false))
  const lengths = fc
    .constantFrom('1', '0', '-1', 'abc', '1e3', '4097', '99999999999')
    .map((length) => trick(`the content length ${length}`, { 'content-length': length }, () => false))
  const codings = fc
    .constantFrom('gzip', 'br', 'identity', 'x')
    .map((coding) => trick('a content encoding', { 'content-encoding': coding }, () => false))
  return fc.oneof({ weight: 3, arbitrary: types }, doubled, lengths, codings)
}

function otherSites(): fc.Arbitrary<Trick> {
  const attacker = 'https://attacker.example'
  return fc
    .constantFrom<Record<string, string | string[]>>(
      { origin: 'null' },
      { origin: '' },
      { origin: attacker },
      { origin: attacker, authorization: 'Bearer x' },
      { origin: attacker, 'x-forwarded-host': 'attacker.example', 'x-forwarded-proto': 'https' },
      { origin: 'https://localhost:80' },
      { origin: 'http://localhost:81' },
      { origin: 'http://localhost:80.attacker.example' },
      { origin: ['http://localhost:80', attacker] },
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site' },
      { 'sec-fetch-site': 'none' },
      { 'sec-fetch-site': ['same-origin', 'cross-site'] },
      { 'sec-fetch-site': 'SAME-ORIGIN', origin: 'http://localhost:80' },
    )
    .map((headers) => ({
      kind: 'site',
      what: 'a page of another site',
      alter: (draft) => ({ ...draft, headers: { ...draft.headers, ...headers } }),
      suffices: () => true,
    }))
}

/** Adds headers that mean something to some servers and must do no harm. */
function strangeHeaders({ url }: Target): fc.Arbitrary<Trick> {
  const names = [
    ...[
      'if-none-match',
      'last-event-id',
      'accept',
      'x-http-method-override',
      'x-original-url',
      'cookie',
      'range',
    ],
    ...[
      'expect',
      'upgrade',
      'te',
      'traceparent',
      'accept-encoding',
      'x-forwarded-host',
      'x-request-id',
      'request-id',
    ],
  ]
  const value = fc.oneof(
    fc.constantFrom<string | string[]>(
      '*',
      '"1"',
      'W/"x"',
      '1-0',
      '0-0',
      '999999-0',
      'DELETE',
      ['a', 'b'],
      '100-continue',
    ),
    anyText,
  )
  return fc.tuple(fc.constantFrom(...names), value).map(([name, value]) => ({
    kind: `header ${name}`,
    what: `a strange ${name} for ${url}`,
    alter: (draft) => ({ ...draft, headers: { ...draft.headers, [name]: value } }),
    suffices: () => false,
  }))
}

function strangeActors({ open }: Target): fc.Arbitrary<Trick> {
  return fc.constantFrom(...strangers).map((user) => ({
    kind: 'actor',
    what: `an actor who is none: ${user}`,
    alter: (draft) => ({ ...draft, signed: false, headers: { ...draft.headers, 'x-user': user } }),
    suffices: () => !open,
  }))
}

/** Makes an actor ask so often that it is told to wait. */
function hurriedActor(): fc.Arbitrary<Trick> {
  return fc.constant({
    kind: 'actor',
    what: 'an actor in a hurry',
    alter: (draft) => ({ ...draft, signed: false, headers: { ...draft.headers, 'x-user': 'hurried' } }),
    suffices: () => false,
  })
}

/** Asks for an answer on behalf of a client that already has it, and is not sent it again. */
function knownAlready(): fc.Arbitrary<Trick> {
  return fc.constantFrom('*', 'W/"x", *', '"1", "2"').map((tags) => ({
    kind: 'header if-none-match',
    what: `a question whether ${tags} is still true`,
    alter: (draft) => ({ ...draft, headers: { ...draft.headers, 'if-none-match': tags } }),
    suffices: () => false,
  }))
}

/** Names no actor. Such a request is let in only from this machine, and not when it seems to come from elsewhere. */
function forgedOrigins({ open }: Target): fc.Arbitrary<Trick> {
  const trick = (remoteAddress: string, headers: Draft['headers'], suffices: boolean): Trick => ({
    kind: 'actor',
    what: `an unnamed actor from ${remoteAddress} with ${JSON.stringify(headers)}`,
    alter: (draft) => ({ ...draft, signed: false, remoteAddress, headers: { ...draft.headers, ...headers } }),
    suffices: () => suffices && !open,
  })
  return fc.constantFrom(
    trick('127.0.0.1', {}, false),
    trick('10.0.0.7', {}, true),
    trick('10.0.0.7', { host: 'localhost', 'x-forwarded-for': '127.0.0.1' }, true),
    trick('::ffff:10.0.0.7', { host: '127.0.0.1' }, true),
    ...[
      'attacker.example',
      'localhost.attacker.example',
      '127.0.0.1.attacker.example',
      'localhost:80:80',
      '\u0000',
    ].map((host) => trick('127.0.0.1', { host }, true)),
    ...[
      'x-forwarded-for',
      'x-forwarded-host',
      'x-real-ip',
      'forwarded',
      'via',
      'cf-connecting-ip',
      'x-original-host',
    ].map((name) => trick('127.0.0.1', { [name]: '127.0.0.1' }, true)),
  )
}

function strangeMethods({ method }: Target): fc.Arbitrary<Trick> {
  const methods = [
    'OPTIONS',
    'PATCH',
    'TRACE',
    'PROPFIND',
    'LOCK',
    'QUERY',
    'get',
    ...(isWrite(method) ? [] : ['POST']),
  ]
  return fc.constantFrom('HEAD', ...methods).map((other) => ({
    kind: 'method',
    what: `the method ${other}`,
    alter: (draft) => ({ ...draft, method: other }),
    suffices: () => !['HEAD', 'get'].includes(other),
  }))
}

const compilers = [false, true].map((coerceTypes) =>
  ajvCompiler()(
    {},
    {
      customOptions: {
        strict: true,
        allErrors: false,
        removeAdditional: false,
        useDefaults: false,
        coerceTypes,
      },
    },
  ),
)

/** Returns those of the values that the schema refuses. In a query all values are texts, and texts may be numbers. */
function refusedBy<Value>(
  schema: Schema,
  values: fc.Arbitrary<Value>,
  inQuery: boolean,
): fc.Arbitrary<Value> {
  const validate = compilers[Number(inQuery)]?.({
    schema: { type: 'object', properties: { value: schema } },
    method: '',
    url: '',
    httpPart: 'body',
  })
  return values.filter((value) => validate?.({ value }) !== true)
}
