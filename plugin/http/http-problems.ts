/**
 * Turns errors into `application/problem+json` responses (RFC 9457), with the id of the request and without any text
 * from the database or its driver.
 *
 * Such a response is an HTTP problem. A "problem" alone is a condition that an operator should see:
 * `core/reports/problems.ts`.
 */
import { STATUS_CODES } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { reasonLimits } from '../core/audit.js'
import { CoordinationError, StoreError } from '../core/errors.js'
import { shown } from '../core/names.js'

/** The media type of every error response. */
export const httpProblemType = 'application/problem+json'

/** Every way in which a request can fail, by the last part of its `type`. A name never changes its meaning. */
export const httpProblems = {
  'invalid-request': { status: 400, title: 'The request is not as described' },
  forbidden: { status: 403, title: 'Not allowed' },
  'authorization-not-configured': { status: 403, title: 'Authorization is not configured' },
  'cross-site': { status: 403, title: 'Asked for by another site' },
  'host-not-allowed': { status: 403, title: 'Unknown host name' },
  'not-found': { status: 404, title: 'Not found' },
  'method-not-allowed': { status: 405, title: 'Method not allowed' },
  conflict: { status: 409, title: 'Not possible at the moment' },
  'cursor-expired': { status: 410, title: 'The cursor has expired' },
  'token-mismatch': { status: 412, title: 'Changed in the meantime' },
  'too-large': { status: 413, title: 'Too large' },
  'unsupported-media-type': { status: 415, title: 'Not JSON' },
  misdirected: { status: 421, title: 'Another node leads' },
  'precondition-required': { status: 428, title: 'If-Match is missing' },
  'too-many-requests': { status: 429, title: 'Too many requests' },
  'internal-error': { status: 500, title: 'Internal error' },
  'not-installed': { status: 501, title: 'Not installed' },
  'store-unavailable': { status: 503, title: 'The database is not available' },
  unavailable: { status: 503, title: 'Not available' },
} as const

export type HttpProblemName = keyof typeof httpProblems

/** The fields of every HTTP problem. */
export interface HttpProblemBody {
  /** A URN that ends in the name of the HTTP problem; `about:blank` for a refusal by the application itself. */
  readonly type: string
  readonly title: string
  readonly status: number
  /** One sentence for people to read. */
  readonly detail: string
  /** Id of the request, as it appears in the application's log. */
  readonly instance: string
}

/** Additional fields that an HTTP problem may have. */
export interface HttpProblemDetails {
  /** The individual faults of the request. Values from the request are not repeated. */
  readonly errors?: readonly { readonly path: string; readonly message: string }[]
  /** The current state, when the request referred to an older one. */
  readonly current?: object
  /** The option of the plugin that decides about it. */
  readonly option?: string
  /** Number of seconds after which a retry may succeed. */
  readonly retryAfter?: number
  /** Methods that the path accepts. */
  readonly allow?: readonly string[]
  /** Ids of nodes that could be named instead. */
  readonly candidates?: readonly string[]
  /** Key of the worker that has this name, where that has shares or partitions instead of a lease of its own. */
  readonly worker?: string
}

/** A response that reports a failure; thrown in a hook or handler, sent by {@link answerHttpProblem}. */
export class HttpProblem extends Error {
  override readonly name = 'HttpProblem'

  constructor(
    readonly problem: HttpProblemName,
    readonly detail: string,
    readonly details: HttpProblemDetails = {},
  ) {
    super(detail)
  }

  get status(): number {
    return httpProblems[this.problem].status
  }
}

/**
 * The error handler of our routes. It logs unexpected failures (5xx), which only the application can fix. It does not
 * log HTTP problems that are thrown on purpose and may repeat: that something is not installed, that no node leads, or
 * that this process is closing.
 * That the database is not available fails every request until it is back, so it is logged once in a while.
 */
export function answerHttpProblem(
  thrown: unknown,
  request: Pick<FastifyRequest, 'id' | 'log'>,
  reply: FastifyReply,
): FastifyReply {
  const error = isNotRunning(thrown) ? closing() : thrown
  const { details, ...problem } = asHttpProblem(error, reply)
  if (error instanceof StoreError) {
    const level = failuresOf(reply.server).isNew(error) ? 'error' : 'debug'
    request.log[level]({ err: error }, notAvailable)
  } else if (problem.status >= 500 && !(error instanceof HttpProblem)) {
    request.log.error({ err: error }, problem.detail)
  }
  if (details.allow !== undefined) reply.header('allow', details.allow.join(', '))
  if (details.retryAfter !== undefined) reply.header('retry-after', details.retryAfter)
  const body: HttpProblemBody = { ...problem, instance: String(request.id), ...details }
  return reply.code(problem.status).type(httpProblemType).header('cache-control', 'no-store').send(body)
}

/** Whether the coordinator is closed: it then refuses whatever needs the database. */
export function isNotRunning(error: unknown): boolean {
  return error instanceof CoordinationError && error.code === 'WCO_NOT_RUNNING'
}

/** What a process answers from when it closes; later another one may answer. */
export function closing(): HttpProblem {
  return new HttpProblem('unavailable', 'This process is closing.', { retryAfter: 10 })
}

const notAvailable =
  'the database is not available, so requests over HTTP are answered 503; the same reason is not logged again for a minute'

/** How long the same failure of the database is not logged again. One open dashboard asks every two seconds. */
const silentForMs = 60_000

/** More reasons than one outage has. */
const mostReasons = 20

/** Decides which failures of the database are logged: in a long outage, a line for each request would hide all others. */
export class Failures {
  readonly #nowMs: () => number
  readonly #loggedAtMs = new Map<string, number>()

  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs
  }

  /** Whether this failure is to be logged: no other with the same reason has been for a while. */
  isNew({ message }: Pick<Error, 'message'>): boolean {
    const nowMs = this.#nowMs()
    const loggedAtMs = this.#loggedAtMs.get(message)
    if (loggedAtMs !== undefined && nowMs - loggedAtMs < silentForMs) return false
    if (this.#loggedAtMs.size >= mostReasons) this.#loggedAtMs.clear()
    this.#loggedAtMs.set(message, nowMs)
    return true
  }
}

const failures = new WeakMap<object, Failures>()

function failuresOf(server: object): Failures {
  const known = failures.get(server) ?? new Failures()
  failures.set(server, known)
  return known
}

/** Returns the `type` of an HTTP problem. */
export function typeOf(problem: HttpProblemName): string {
  return `urn:fastify-worker-coordination:problem:${problem}`
}

/** The causes are not told apart, so that nothing of what the database said is repeated. */
const storeUnavailable =
  'The database cannot be reached, is too slow, or refuses, as when it takes no writes; the log of this node says which.'

type Answered = Omit<HttpProblemBody, 'instance'> & { readonly details: HttpProblemDetails }

function asHttpProblem(error: unknown, reply: FastifyReply): Answered {
  if (error instanceof HttpProblem) return named(error)
  if (error instanceof StoreError)
    return named(new HttpProblem('store-unavailable', storeUnavailable, { retryAfter: 1 }))
  const refusal = (error ?? {}) as Refusal
  const status = statusOf(refusal, reply)
  if (status !== undefined) return refused(status, refusal)
  return named(new HttpProblem('internal-error', 'The request failed; the log of the application says why.'))
}

function named({ problem, status, detail, details }: HttpProblem): Answered {
  return { type: typeOf(problem), title: httpProblems[problem].title, status, detail, details }
}

/**
 * Errors with a status, as Fastify and the hooks of applications and their plugins throw them. They may throw anything,
 * even a string.
 */
interface Refusal {
  readonly statusCode?: unknown
  readonly status?: unknown
  readonly message?: unknown
  readonly validation?: readonly Flaw[]
  readonly validationContext?: string
}

/** One fault, as the validator reports it. */
interface Flaw {
  readonly instancePath: string
  readonly message?: string
  readonly params: Readonly<Record<string, unknown>>
}

/** Returns the status as Fastify's own error handler does: the error's status takes precedence over the reply's. */
function statusOf({ statusCode, status }: Refusal, reply: FastifyReply): number | undefined {
  return [statusCode, status, reply.statusCode].find(
    (each): each is number => typeof each === 'number' && each >= 400 && each < 600,
  )
}

function refused(status: number, { message, validation, validationContext }: Refusal): Answered {
  if (validation !== undefined) return named(invalid(validation, validationContext))
  if (status === 413) return named(new HttpProblem('too-large', 'The body may have at most 4 096 bytes.'))
  if (status === 415)
    return named(
      new HttpProblem('unsupported-media-type', 'The body must be JSON: content-type: application/json.'),
    )
  const title = STATUS_CODES[status] ?? 'Refused'
  const detail = typeof message === 'string' && status < 500 ? message : `${title}.`
  if (status === 400) return named(new HttpProblem('invalid-request', detail))
  return { type: 'about:blank', title, status, detail, details: {} }
}

function invalid(validation: readonly Flaw[], context = 'request'): HttpProblem {
  const errors = validation.map((flaw) => ({
    path: `${context}${flaw.instancePath}`,
    message: messageOf(flaw),
  }))
  const detail = errors.map(({ path, message }) => `${path}: ${message}`).join('; ')
  return new HttpProblem('invalid-request', `${detail}.`, { errors })
}

/** Adds what the validator's own message omits: the superfluous field or the allowed values. */
function messageOf({ message = 'is not as described', params }: Flaw): string {
  const { additionalProperty: name, allowedValues, pattern } = params
  if (pattern === reasonLimits.pattern)
    return 'must say something, without line breaks and other control characters'
  if (name !== undefined) return `there is nothing called ${shown(name)}`
  return Array.isArray(allowedValues) ? `must be one of ${allowedValues.map(shown).join(', ')}` : message
}
