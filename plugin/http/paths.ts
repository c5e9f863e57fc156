/**
 * Answers requests below our prefix that match no route. When the path exists, the response lists the methods it
 * accepts.
 */
import type { FastifyInstance, FastifyRequest, RouteOptions } from 'fastify'
import { HttpProblem } from './http-problems.js'
import { documentedUrl } from './keys.js'

export class Paths {
  readonly #methods = new Map<string, Set<string>>()
  readonly #partsOf: (path: string) => string[]

  /** @param config the options of the application's router, which may take several spellings for one path. */
  constructor(config: FastifyInstance['initialConfig']) {
    this.#partsOf = partsAs({ ...config, ...config.routerOptions })
  }

  /** An `onRoute` hook that records the route. */
  add = ({ url, method }: RouteOptions): void => {
    const path = documentedUrl(url)
    const methods = this.#methods.get(path) ?? new Set()
    for (const each of [method].flat()) methods.add(each)
    this.#methods.set(path, methods)
  }

  /**
   * The handler for requests without a route. OPTIONS gets 404 even on known paths, so that pages of other sites learn
   * nothing.
   *
   * @throws HttpProblem 404, 405
   */
  answer = ({ url, method }: FastifyRequest): never => {
    const parts = this.#partsOf(url)
    const found = [...this.#methods].filter(([pattern]) => fits(parts, this.#partsOf(pattern)))
    const allow = [...new Set(found.flatMap(([, methods]) => [...methods]))].sort()
    if (allow.length > 0 && method !== 'OPTIONS' && !allow.includes(method))
      throw new HttpProblem('method-not-allowed', `This path takes only ${allow.join(', ')}.`, { allow })
    throw new HttpProblem(
      'not-found',
      'There is nothing here. In paths keys are written with ":" for "/" and "~" for "#".',
    )
  }
}

/** Returns a function that splits an address into what the router compares. */
function partsAs({
  caseSensitive,
  ignoreDuplicateSlashes,
  ignoreTrailingSlash,
  useSemicolonDelimiter,
}: FastifyInstance['initialConfig']): (url: string) => string[] {
  return (url) => {
    const [path = ''] = url.split(useSemicolonDelimiter ? /[?;]/ : '?')
    const cased = caseSensitive === false ? path.toLowerCase() : path
    const single = ignoreDuplicateSlashes ? cased.replace(/\/{2,}/g, '/') : cased
    return (ignoreTrailingSlash ? single.replace(/(.)\/$/, '$1') : single).split('/')
  }
}

function fits(path: readonly string[], pattern: readonly string[]): boolean {
  return (
    path.length === pattern.length &&
    pattern.every((each, at) => (each.startsWith(':') ? path[at] !== '' : each === path[at]))
  )
}
