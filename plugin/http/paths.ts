/**
 * Answers requests below our prefix that match no route. When the path exists, the response lists the methods it
 * accepts.
 */
import type { FastifyRequest, RouteOptions } from 'fastify'
import { HttpProblem } from './http-problems.js'
import { documentedUrl } from './keys.js'

export class Paths {
  readonly #methods = new Map<string, Set<string>>()

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
    const [path = ''] = url.split('?')
    const found = [...this.#methods].filter(([pattern]) => fits(path.split('/'), pattern.split('/')))
    const allow = [...new Set(found.flatMap(([, methods]) => [...methods]))].sort()
    if (allow.length > 0 && method !== 'OPTIONS' && !allow.includes(method))
      throw new HttpProblem('method-not-allowed', `This path takes only ${allow.join(', ')}.`, { allow })
    throw new HttpProblem(
      'not-found',
      'There is nothing here. In paths keys are written with ":" for "/" and "~" for "#".',
    )
  }
}

function fits(path: readonly string[], pattern: readonly string[]): boolean {
  return (
    path.length === pattern.length &&
    pattern.every((each, at) => (each.startsWith(':') ? path[at] !== '' : each === path[at]))
  )
}
