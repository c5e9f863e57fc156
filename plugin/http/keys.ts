/**
 * Keys in paths. Keys contain `/` and `#`, which proxies and clients decode inconsistently. In a path, `:` therefore
 * stands for `/` and `~` for `#`: `global:consumer~12`. A key that is percent-encoded as one segment is accepted as
 * well.
 */
import type { FastifyRequest } from 'fastify'
import { keyFrom } from '../core/names.js'
import { HttpProblem } from './http-problems.js'

/**
 * A path segment that is a key. By default, Fastify's router limits a parameter to 100 characters. A key may have twice
 * as many, so it is matched as three parameters.
 */
export const keySegment = ':key(^.{1,100}):more(.{0,100}):rest(.{0,100})'

/** Returns the URL as the documentation shows it. */
export function documentedUrl(url: string): string {
  return url.replace(keySegment, ':key')
}

/**
 * Returns the key of the lease that a request names.
 *
 * @throws HttpProblem 400 when it is not a valid key.
 */
export function leaseKeyOf(request: FastifyRequest): string {
  return parsed(segmentOf(request), leasePattern, 'global:month-close, eu-1:indexing or global:consumer~12')
}

/** Like {@link leaseKeyOf}, for workers. */
export function workerKeyOf(request: FastifyRequest): string {
  return parsed(segmentOf(request), workerPattern, 'global:month-close or eu-1:indexing')
}

/** Returns a key in the form that it has in paths. */
export function keyInPath(key: string): string {
  return key.replace('/', ':').replace('#', '~')
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
