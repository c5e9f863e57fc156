/** Entity tags: those of responses, and those that a request names in `If-Match`. */
import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { HttpProblem } from './http-problems.js'

/** Returns a tag of the whole body except the time at which it was read. */
export function contentTag(body: object): string {
  return `W/"${digestOf({ ...body, now: undefined })}"`
}

/**
 * Returns the tag of a lease or an assignment: its token or plan revision, which `If-Match` must repeat, a dash, and a
 * digest of the body. The digest lets conditional reads notice changes that keep the number. Changes to other things do
 * not alter the tag.
 */
export function matchTag(number: number, body: object): string {
  return `W/"${number}-${digestOf({ ...body, now: undefined, revision: undefined })}"`
}

function digestOf(content: object): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('base64url').slice(0, 22)
}

/** Sends the body, or 304 when the client already has it. */
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
 * Returns the token or revision that a write names in `If-Match`.
 *
 * @throws HttpProblem 428 when the header is missing, 400 when it is malformed.
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
