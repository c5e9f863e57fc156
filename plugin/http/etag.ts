/** Tags of what is answered, and of what a request is about. */
import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { HttpProblem } from './http-problems.js'

/** A tag of everything in an answer but the time of asking. */
export function contentTag(body: object): string {
  return `W/"${digestOf({ ...body, now: undefined })}"`
}

/**
 * The tag of a lease or an assignment: its token or plan revision, to be given back in `If-Match`, and after a dash what
 * else there is to tell of it, so that who asks whether anything is new is not told no. Changes of other things make
 * no other one.
 */
export function matchTag(number: number, body: object): string {
  return `W/"${number}-${digestOf({ ...body, now: undefined, revision: undefined })}"`
}

function digestOf(content: object): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('base64url').slice(0, 22)
}

/** Answers 304 to who has it already. */
export function sendTagged(
  request: FastifyRequest,
  reply: FastifyReply,
  tag: string,
  body: object,
): FastifyReply {
  reply.header('etag', tag)
  const { 'if-none-match': known } = request.headers
  return known !== undefined && names(known, tag) ? reply.code(304).send() : reply.send(body)
}

/**
 * The token or revision that a write is about.
 *
 * @throws HttpProblem 428 when it is missing, 400 when it is no such thing.
 */
export function matchOf(request: FastifyRequest, what: string): number {
  const { 'if-match': given } = request.headers
  if (given === undefined)
    throw new HttpProblem(
      'precondition-required',
      `The header If-Match must name the ${what}: If-Match: "<${what}>".`,
    )
  const [, digits] = /^\s*(?:W\/)?"(\d{1,16})(?:-[\w-]+)?"\s*$/.exec(given) ?? []
  const number = Number(digits)
  if (digits !== undefined && Number.isSafeInteger(number)) return number
  throw new HttpProblem(
    'invalid-request',
    `The header If-Match must be one ${what} in quotes: If-Match: "<${what}>".`,
  )
}

function names(known: string, tag: string): boolean {
  if (known.trim() === '*') return true
  const tags: readonly string[] = known.match(/"[^"]*"/g) ?? []
  return tags.includes(tag.replace(/^W\//, ''))
}
