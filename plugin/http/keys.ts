/**
 * Keys in paths. They contain `/` and `#`, which proxies and clients decode at their pleasure, so in a path `:`
 * stands for `/` and `~` for `#`: `global:consumer~12`. Percent-encoded as one segment they are understood as well.
 */
import type { FastifyRequest } from 'fastify'
import { keyFrom } from '../core/names.js'
import { HttpProblem } from './http-problems.js'

/**
 * A segment that is a key. Fastify's router takes no parameter of more than 100 characters, unless the application
 * allows for it; a key may have twice as many, so it is taken in three.
 */
export const keySegment = ':key(^.{1,100}):more(.{0,100}):rest(.{0,100})'

/** What people read instead. */
export function documentedUrl(url: string): string {
  return url.replace(keySegment, ':key')
}

/**
 * The key of the lease that a request is about.
 *
 * @throws HttpProblem 400 when nothing can be called that.
 */
export function leaseKeyOf(request: FastifyRequest): string {
  return parsed(segmentOf(request), leasePattern, 'global:month-close, eu-1:indexing or global:consumer~12')
}

/** As {@link leaseKeyOf}, for workers. */
export function workerKeyOf(request: FastifyRequest): string {
  return parsed(segmentOf(request), workerPattern, 'global:month-close or eu-1:indexing')
}

const name = '[A-Za-z0-9][A-Za-z0-9._-]{0,99}'
const workerPattern = new RegExp(`^${name}/${name}$`)
const leasePattern = new RegExp(`^${name}/${name}(#\\d{1,9})?$`)

function segmentOf({ params }: FastifyRequest): string {
  const { key = '', more = '', rest = '' } = params as { key?: string; more?: string; rest?: string }
  return `${key}${more}${rest}`
}

function parsed(segment: string, pattern: RegExp, examples: string): string {
  const key = keyFrom(segment)
  if (pattern.test(key)) return key
  throw new HttpProblem('invalid-request', `The path names no key. Keys are written like ${examples}.`)
}
