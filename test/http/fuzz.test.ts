/**
 * Tests all routes with thousands of fair and malicious requests made from their own schemas. The requests are the same
 * in each run, or those of `FUZZ_SEED`. A failure shows the smallest request that still breaks the rule.
 */
import { once } from 'node:events'
import ajvCompiler from '@fastify/ajv-compiler'
import fc from 'fast-check'
import type { InjectOptions } from 'fastify'
import t from 'tap'
import { httpProblems, typeOf } from '../../plugin/http/http-problems.js'
import { eventually } from '../support/eventually.js'
import { type FuzzRequest, isWrite, requests, routeName } from './fuzz-requests.js'
import {
  allHeld,
  inPath,
  prefix,
  type Row,
  type Rows,
  useLivingWorld,
  useWorldAtRest,
  type World,
} from './fuzz-world.js'

const seed = Number(process.env.FUZZ_SEED ?? 1_000)

const atRest = 5_000
const living = 1_000

t.test('whatever is asked of a world at rest, only what is allowed to changes it', async (t) => {
  t.comment(`FUZZ_SEED=${seed}, ${atRest} requests`)
  const world = await useWorldAtRest(t)
  const tally = new Tally()
  let changes = 0
  await fuzz(world, atRest, async (request) => {
    const answer = await send(world, request)
    tally.count(request, answer)
    const after = world.changed()
    if (after === undefined) return flawsOf(world, request, answer)
    world.restore()
    changes += 1
    return [...flawsOf(world, request, answer), ...flawsOfChange(request, answer, world.before, after)]
  })
  t.comment(tally.toString())
  t.ok(changes > 100, `${changes} requests have changed something`)
  for (const status of [200, 202, 204, 304, 400, 403, 404, 409, 410, 412, 413, 415, 428, 429, 503])
    t.ok(tally.statuses.has(status), `some requests are answered ${status}`)
  for (const route of world.known.routes.map(routeName)) {
    t.ok(
      tally.of(route, 'accepted') > 0 || /health\/(ready|leader)/.test(route),
      `${route} has accepted requests`,
    )
    t.ok(tally.of(route, 'refused') > 0, `${route} has refused requests`)
  }
  t.strictSame(Object.keys(Object.prototype), [], 'no prototype has been reached')
})

t.test('a living world outlasts whatever is asked of it', async (t) => {
  t.comment(`FUZZ_SEED=${seed}, ${living} requests`)
  const world = await useLivingWorld(t)
  const { app, known } = world
  const leading = await Promise.all(
    known.leases.map((key) => app.inject(`${prefix}/health/leader/${inPath(key)}`)),
  )
  t.ok(
    leading.some(({ statusCode }) => statusCode === 200),
    'it leads, before anything is asked',
  )
  const tally = new Tally()
  const writers = new Set<string>()
  await fuzz(world, living, async (request) => {
    const answer = await send(world, request)
    tally.count(request, answer)
    if (isAcceptedWrite(request, answer)) writers.add(answer.actor)
    return flawsOf(world, request, answer)
  })
  t.comment(tally.toString())
  t.ok(tally.of('GET /coordination/health/ready', 'accepted') > 0, 'it has said that it is ready')

  const events = await app.coordination.operator.events({ limit: 100_000 })
  const actors = new Set(events.flatMap(({ actor }) => actor ?? []))
  t.ok(actors.size > 20, `${actors.size} actors are in the audit trail`)
  t.strictSame(
    [...actors].filter((actor) => !writers.has(actor)),
    [],
    'nobody else is but those whose requests were accepted',
  )

  await recover(world)
  await eventually(() => allHeld(app.coordination), { until: 'each lease has a holder again' })
  await app.close()
  t.equal(app.coordination.state, 'closed')
})

/** Sends `count` requests one by one, and fails with the smallest request that has flaws. */
async function fuzz(
  { known }: World,
  count: number,
  flawsOf: (request: FuzzRequest) => Promise<readonly string[]>,
): Promise<void> {
  const property = fc.asyncProperty(requests(known), async (request) => {
    const flaws = await flawsOf(request)
    if (flaws.length > 0) throw new Error(flaws.join('\n'))
  })
  await fc.assert(property, { seed, numRuns: count })
}

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: string
  /** The actor of the request. */
  readonly actor: string
  /** Whether the request named the present token or revision, where it had to name one. */
  readonly wasUpToDate: boolean
}

let sent = 0

/** Sends a request. Each signed request has an actor of its own, so that none is refused because of another one. */
async function send({ app, tagOf }: World, request: FuzzRequest): Promise<Answer> {
  const { method, path, body, signed, tagged, distance, remoteAddress } = request
  sent += 1
  const tag = tagged === undefined ? undefined : await tagOf(tagged)
  const actor = signed ? `actor-${sent}` : String(request.headers['x-user'] ?? 'loopback')
  const headers = {
    ...request.headers,
    ...(signed ? { 'x-user': actor } : {}),
    ...(tag === undefined || distance === undefined ? {} : { 'if-match': `"${numberIn(tag) + distance}"` }),
  }
  const options = {
    ...{ method, headers, remoteAddress, url: `${prefix}${path}`, payloadAsStream: true, validate: false },
    ...(body === undefined ? {} : { body }),
  } as InjectOptions
  const reply = await app.inject(options)
  const { statusCode: status, headers: answered } = reply
  const isStream = answered['content-type'] === 'text/event-stream'
  const text = isStream ? await beginningOf(reply) : await allOf(reply.stream())
  const match = 'if-match' in headers ? String(headers['if-match']) : undefined
  const wasUpToDate = tag === undefined || (match !== undefined && numberIn(match) === numberIn(tag))
  return { status, headers: answered, body: text, actor, wasUpToDate }
}

/** Returns the token or revision in a tag. */
function numberIn(tag: string): number {
  return Number(/\d+/.exec(tag)?.[0])
}

type Reply = Awaited<ReturnType<World['app']['inject']>>

/** Returns the first part of a stream. Then its reader leaves. */
async function beginningOf(reply: Reply): Promise<string> {
  const [first] = await once(reply.stream(), 'data')
  const gone = once(reply.raw.res, 'close')
  reply.raw.res.destroy()
  await gone
  return String(first)
}

async function allOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const parts: Buffer[] = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts).toString()
}

function isAccepted({ status }: Answer): boolean {
  return status < 400
}

function isAcceptedWrite({ method }: FuzzRequest, answer: Answer): boolean {
  return isWrite(method) && isAccepted(answer)
}

/** Returns what is wrong with an answer, whatever the request has done. */
function flawsOf({ known }: World, request: FuzzRequest, answer: Answer): string[] {
  const schema = (known.routes.find((each) => routeName(each) === request.route)?.schema ?? {}) as Described
  const flaws = [
    ...flawsOfStatus(request, answer, schema),
    ...(answer.status < 400 || isNoYet(request, answer)
      ? flawsOfReply(request, answer, schema)
      : flawsOfProblem(request, answer)),
  ]
  return flaws.length === 0
    ? []
    : [...flaws, `It was answered ${answer.status} ${answer.body.slice(0, 1_000)}`]
}

interface Described {
  /** Files are not described. */
  readonly hide?: boolean
  readonly response?: Readonly<Record<string, { readonly content?: object }>>
}

function flawsOfStatus(
  request: FuzzRequest,
  { status }: Answer,
  { response = {}, hide = false }: Described,
): string[] {
  const { verdict, arrives } = request
  const unfair = [400, 403, 413, 415, 428, 429].includes(status)
  return [
    ...flaw(status >= 500 && !isNoYet(request, { status }), 'it must not fail'),
    ...flaw(verdict === 'refused' && status < 400, 'it must be refused'),
    ...flaw(verdict === 'fair' && unfair, 'nothing is wrong with it'),
    ...flaw(arrives && !hide && !(status in response), `it is not described to answer ${status}`),
  ]
}

/** Returns whether a route for health tells that this process does not take part or does not lead. */
function isNoYet({ route }: FuzzRequest, { status }: Pick<Answer, 'status'>): boolean {
  return status === 503 && route.includes('/health')
}

function flawsOfReply(
  { method, arrives }: FuzzRequest,
  { status, headers, body }: Answer,
  { response = {}, hide = false }: Described,
): string[] {
  if ([204, 304].includes(status) || method === 'HEAD') return flaw(body !== '', 'there is nothing to say')
  const { [status]: schema = {} } = response
  if (!arrives || hide) return []
  const type = String(headers['content-type'])
  const types = Object.keys(schema.content ?? { 'application/json; charset=utf-8': {} })
  const validate = compile({ schema: 'content' in schema ? {} : schema, ...anyPart })
  return [
    ...flaw(!types.some((each) => type.startsWith(each)), `it is of type ${type}`),
    ...flaw(
      schema.content === undefined && validate(JSON.parse(body)) !== true,
      `it is not as described: ${JSON.stringify(validate.errors)}`,
    ),
  ]
}

const anyPart = { method: '', url: '', httpPart: '' }
const compile = ajvCompiler()({}, { customOptions: { strict: false, coerceTypes: false } })

/** Words that only drivers, databases and stack traces use. */
const leak = /sqlite|drizzle|node_modules|\.[jt]s:\d|\n\s+at |\bselect\b|\binsert\b|coordination_/i

function flawsOfProblem({ method, path }: FuzzRequest, { status, headers, body }: Answer): string[] {
  const type = String(headers['content-type'])
  if (method === 'HEAD') return flaw(body !== '', 'there is nothing to say')
  const problem = parsed(body)
  if (status === 414 || isOutOfReach(method, path))
    return flaw(leak.test(body) || status >= 500, 'Fastify did not turn it away')
  const known = Object.entries(httpProblems).find(
    ([name]) => typeOf(name as keyof typeof httpProblems) === problem.type,
  )
  return [
    ...flaw(type !== 'application/problem+json; charset=utf-8', `it is of type ${type}`),
    ...flaw(known === undefined && problem.type !== 'about:blank', 'its type is not known'),
    ...flaw(known !== undefined && known[1].status !== status, 'its type has another status'),
    ...flaw(
      typeof problem.title !== 'string' || typeof problem.detail !== 'string',
      'it does not say what is wrong',
    ),
    ...flaw(problem.status !== status, 'it tells another status'),
    ...flaw(typeof problem.instance !== 'string', 'it does not name the request'),
    ...flaw(leak.test(body), 'it tells of what is behind'),
  ]
}

/**
 * Returns whether Fastify itself refuses a request that it cannot route, before any plugin sees it. It does the same
 * with 414.
 */
function isOutOfReach(method: string, path: string): boolean {
  return (
    !['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE'].includes(method) ||
    !isDecodable(path)
  )
}

function isDecodable(path: string): boolean {
  try {
    return decodeURI(path) !== ''
  } catch {
    return false
  }
}

function parsed(body: string): Readonly<Record<string, unknown>> {
  try {
    return JSON.parse(body)
  } catch {
    return {}
  }
}

/** Returns what a change should not have done. */
function flawsOfChange(request: FuzzRequest, answer: Answer, before: Rows, after: Rows): string[] {
  if (!isAcceptedWrite(request, answer))
    return [`it has changed something, and was answered ${answer.status}`]
  if (/"dryRun":true/.test(String(request.body))) return ['a dry run has changed something']
  const [meta] = rowsOf(before, 'meta')
  const revision = Number(meta?.revision) + 1
  const lasting = new Set(rowsOf(before, 'events').map((row) => JSON.stringify(row)))
  const events = rowsOf(after, 'events').filter((row) => !lasting.has(JSON.stringify(row)))
  const { reason } = parsed(String(request.body ?? '{}'))
  const told = events.filter(({ actor }) => actor !== null)
  const subject = request.subject ?? ''
  return [
    ...flaw(!answer.wasUpToDate, 'it was about what has changed since'),
    ...flaw(rowsOf(after, 'meta')[0]?.revision !== revision, 'it was not one change'),
    ...flaw(
      events.length !== rowsOf(after, 'events').length - lasting.size,
      'it has changed the audit trail',
    ),
    ...flaw(!events.every((event) => event.revision === revision), 'its events are of another revision'),
    ...flaw(told.length !== 1 || told[0]?.actor !== answer.actor, 'the audit trail does not tell who it was'),
    ...flaw(told[0]?.subject !== subject, 'the audit trail does not tell what it was done to'),
    ...flaw(reason !== undefined && told[0]?.reason !== reason, 'the audit trail does not tell why'),
    ...beyondReach(request, before, after).map((row) => `it has changed ${row}`),
  ]
}

/** Returns what a request has changed besides its subject. A drain moves whatever its node has. */
function beyondReach({ route, subject = '' }: FuzzRequest, before: Rows, after: Rows): string[] {
  const worker = String(rowsOf(before, 'leases').find(({ key }) => key === subject)?.worker ?? subject)
  const ofNode = route.includes('/nodes/')
  const drains = route.endsWith('/drain')
  return [
    ...changedIn('workers', before, after).filter((row) => !drains && row.key !== worker),
    ...changedIn('leases', before, after).filter(
      (row) => !drains && row.key !== subject && row.worker !== worker,
    ),
    ...changedIn('nodes', before, after).filter((row) => !ofNode || row.id !== subject),
  ].map((row) => JSON.stringify(row))
}

/** Returns the rows that are gone, new or altered. Being told of a change is not a change of the node. */
function changedIn(table: string, before: Rows, after: Rows): Row[] {
  const written = (row: Row): string => JSON.stringify({ ...row, revision: 0, news_revision: 0 })
  const [old, present] = [rowsOf(before, table), rowsOf(after, table)]
  const [known, left] = [new Set(old.map(written)), new Set(present.map(written))]
  return [
    ...old.filter((row) => !left.has(written(row))),
    ...present.filter((row) => !known.has(written(row))),
  ]
}

function rowsOf(rows: Rows, table: string): readonly Row[] {
  return rows[`coordination_${table}`] ?? []
}

function flaw(is: boolean, what: string): string[] {
  return is ? [what] : []
}

/** Takes back the drains and pauses that requests asked for, over the same interface. */
async function recover({ app, known }: World): Promise<void> {
  const headers = { 'x-user': 'mira' }
  for (const key of known.workers)
    await app.inject({ method: 'DELETE', url: `${prefix}/workers/${encodeURIComponent(key)}/pause`, headers })
  const { nodes } = await app.coordination.status()
  for (const { id } of nodes.filter(({ state }) => state === 'draining'))
    await app.inject({ method: 'DELETE', url: `${prefix}/nodes/${id}/drain`, headers })
}

/** Counts the answers by status and by route. */
class Tally {
  readonly statuses = new Map<number, number>()
  readonly #routes = new Map<string, number>()
  count(request: FuzzRequest, answer: Answer): void {
    const { status } = answer
    this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1)
    const how = `${request.route} ${isAccepted(answer) ? 'accepted' : 'refused'}`
    if (request.arrives) this.#routes.set(how, (this.#routes.get(how) ?? 0) + 1)
  }

  of(route: string, how: 'accepted' | 'refused'): number {
    return this.#routes.get(`${route} ${how}`) ?? 0
  }

  toString(): string {
    const counts = [...this.statuses].sort(([a], [b]) => a - b)
    return `answers by status: ${counts.map(([status, count]) => `${status} × ${count}`).join(', ')}`
  }
}
