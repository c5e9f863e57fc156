/** What is answered below our prefix where there is no route: who has the path right is told the methods it takes. */
import type { FastifyRequest, RouteOptions } from 'fastify'
import { HttpProblem } from './http-problems.js'
import { documentedUrl } from './keys.js'

export class Paths {
  readonly #methods = new Map<string, Set<string>>()

  /** An `onRoute` hook. */
  add = ({ url, method }: RouteOptions): void => {
    const path = documentedUrl(url)
    const methods = this.#methods.get(path) ?? new Set()
    for (const each of [method].flat()) methods.add(each)
    this.#methods.set(path, methods)
  }

  /**
   * The handler for what has no route. OPTIONS is as unknown as ever: no page of another site is to be told anything.
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
