/**
 * Lets a request through or refuses it with the reason. The rules are the same for every route, whether or not the
 * requested thing exists.
 *
 * Without `authorize`, only reading is possible, only from this machine, and never in production. A proxy that adds no
 * headers makes every client look like this machine, so that rule must never allow a change.
 */
import type { FastifyRequest } from 'fastify'
import { actorLimits, isWithin } from '../../core/audit.js'
import { shown } from '../../core/names.js'
import { HttpProblem } from '../http-problems.js'
import type { Limits } from '../limits.js'
import { type Access, type Action, type Actor, type Authorize, alters } from './access.js'
import { cannotBeRebound, hostsOf, isDirectLoopback, isProduction } from './loopback.js'
import { RateLimit } from './rate-limit.js'

/** The application's settings for access. */
export interface GuardOptions {
  readonly authorize: Authorize | undefined
  readonly access: Access
  /** Additional origins whose pages may write, in browsers that do not send `Sec-Fetch-Site`. */
  readonly allowedOrigins: readonly string[]
  readonly limits: Limits
}

export class Guard {
  readonly #options: GuardOptions
  #hasNoticedNothing = false
  readonly #writes: RateLimit
  readonly #actors = new WeakMap<FastifyRequest, Actor>()

  constructor(options: GuardOptions) {
    const { writesAtOnce, writesPerMinute } = options.limits
    this.#options = options
    this.#writes = new RateLimit(writesAtOnce, writesPerMinute)
  }

  /**
   * A `preParsing` hook. It runs after all `onRequest` hooks of the application, including those added after this
   * plugin, and before a body is read.
   *
   * @throws HttpProblem 403, 429
   */
  check = async (request: FastifyRequest): Promise<void> => {
    const action = actionOf(request)
    const writes = alters(action) || !isSafe(request.method)
    if (writes) this.#refuseCrossSite(request)
    const actor = await this.#admit(request, action)
    if (actor !== undefined) this.#actors.set(request, actor)
    if (writes) this.#count(actor?.id ?? '')
  }

  /** Returns the author of an admitted request; undefined where `authorize` was not called. */
  actorOf(request: FastifyRequest): Actor | undefined {
    return this.#actors.get(request)
  }

  /**
   * Returns whether the author of the request might also perform this action. For display only: it decides nothing when
   * the action is attempted. The dashboard asks every other second, so denials and errors are not logged.
   */
  async mightDo(request: FastifyRequest, action: Action): Promise<boolean> {
    return (await this.#ask(request, action)) !== undefined
  }

  async #admit(request: FastifyRequest, action: Action): Promise<Actor | undefined> {
    const { authorize, access } = this.#options
    if (request.routeOptions.config.coordinationOpen === true) return undefined
    const isPublic = !alters(action) && access.read === 'public'
    if (isPublic || access.allowedHosts !== undefined) this.#refuseRebound(request)
    if (isPublic) return undefined
    if (authorize === undefined) return admitLoopback(request, action)
    const actor = await this.#ask(request, action, request.log)
    if (actor === undefined) throw new HttpProblem('forbidden', 'You may not do this.')
    return actor
  }

  async #ask(
    request: FastifyRequest,
    action: Action,
    log?: FastifyRequest['log'],
  ): Promise<Actor | undefined> {
    const { authorize } = this.#options
    if (authorize === undefined) return undefined
    try {
      const answer: unknown = await authorize(request, action)
      if (answer === false) return undefined
      if (isActor(answer)) return copied(answer)
      if (answer === undefined) this.#noticeNothing(request, action)
      else
        log?.error(
          { action },
          'authorize returned neither false nor an actor { id } of 1 to 200 printable characters: the request is denied',
        )
    } catch (error) {
      log?.warn({ err: error, action }, 'authorize threw: the request is denied')
    }
    return undefined
  }

  /**
   * Warns once about an `authorize` that returns undefined. That denies the request, as `false` does, but the usual
   * cause is a forgotten `return`, which a 403 alone would not reveal.
   */
  #noticeNothing(request: FastifyRequest, action: Action): void {
    if (this.#hasNoticedNothing) return
    this.#hasNoticedNothing = true
    request.log.warn(
      { action },
      'authorize returned undefined, which denies the request. Is a return missing? Return false to deny; this is logged once',
    )
  }

  /**
   * Refuses unknown host names, so that foreign web pages cannot use a visitor's browser: where reading is public, and
   * everywhere once the names are listed, because `authorize` may go by the client's address.
   */
  #refuseRebound(request: FastifyRequest): void {
    const { allowedHosts = [] } = this.#options.access
    const hosts = hostsOf(request.raw)
    const known = (host: string): boolean =>
      cannotBeRebound(host) || allowedHosts.includes(host.replace(/:\d+$/, '').toLowerCase())
    if (hosts.length > 0 && hosts.every(known)) return
    throw new HttpProblem(
      'host-not-allowed',
      'This server is not known by that name: the option `access.allowedHosts` lists the names it has.',
      { option: 'access' },
    )
  }

  /**
   * Refuses writes from pages of other sites. Browsers state on whose behalf they write; other clients state nothing.
   */
  #refuseCrossSite(request: FastifyRequest): void {
    const { 'sec-fetch-site': site, origin } = request.raw.headers
    const ours =
      site === undefined ? origin === undefined || this.#isOurs(request, origin) : site === 'same-origin'
    if (ours) return
    const sentence = 'A page of another site cannot do this with your browser: expected'
    if (site !== undefined)
      throw new HttpProblem('cross-site', `${sentence} Sec-Fetch-Site: same-origin, got ${shown(site)}.`)
    throw new HttpProblem(
      'cross-site',
      `${sentence} an Origin that is this server's own or listed in the option \`allowedOrigins\`, got ${shown(origin)}.`,
      { option: 'allowedOrigins' },
    )
  }

  #isOurs(request: FastifyRequest, origin: string): boolean {
    const scheme = 'encrypted' in request.raw.socket ? 'https' : 'http'
    const own = hostsOf(request.raw).map((host) => `${scheme}://${host}`.toLowerCase())
    return [...own, ...this.#options.allowedOrigins].includes(origin.toLowerCase())
  }

  #count(actor: string): void {
    const waitMs = this.#writes.take(actor)
    if (waitMs === 0) return
    const retryAfter = Math.ceil(waitMs / 1_000)
    const { writesPerMinute } = this.#options.limits
    throw new HttpProblem(
      'too-many-requests',
      `At most ${writesPerMinute} of these a minute are carried out.`,
      {
        retryAfter,
      },
    )
  }
}

/**
 * Decides without `authorize`: changes are refused, and reading needs a direct loopback connection outside production.
 */
function admitLoopback(request: FastifyRequest, action: Action): Actor {
  if (alters(action))
    throw new HttpProblem(
      'authorization-not-configured',
      'Nobody may do this until the option `authorize` says who may.',
      { option: 'authorize' },
    )
  if (!isProduction() && isDirectLoopback(request.raw)) return { id: 'loopback', display: 'this machine' }
  throw new HttpProblem(
    'authorization-not-configured',
    'Until the option `authorize` says who may read this, it is answered only to a direct connection from the ' +
      'machine itself (http://localhost or http://127.0.0.1, through no proxy), and not when NODE_ENV is "production".',
    { option: 'authorize' },
  )
}

/** Returns the action of the route. Unknown paths count as `read`, so that a stranger cannot tell which paths exist. */
function actionOf(request: FastifyRequest): Action {
  return request.routeOptions.config.coordinationAction ?? 'read'
}

function isSafe(method: string): boolean {
  return method === 'GET' || method === 'HEAD'
}

function isActor(answer: unknown): answer is Actor {
  if (typeof answer !== 'object' || answer === null) return false
  const { id, display }: { id?: unknown; display?: unknown } = answer
  return (
    isWithin(actorLimits, id) &&
    (display === undefined || isWithin({ ...actorLimits, minLength: 0 }, display))
  )
}

/**
 * Takes nothing but the actor from the answer: applications return whole records of their users, which may hold secrets,
 * or values that cannot be written as JSON.
 */
function copied({ id, display }: Actor): Actor {
  return display === undefined ? { id } : { id, display }
}
