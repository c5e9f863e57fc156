/**
 * Lets a request through, or says why not. The same for every route, whether what it asks for exists or not.
 *
 * Without `authorize` only reading is possible, from this machine itself, and never in production: a proxy that
 * says nothing of itself makes all the world look like this machine, so that rule must open nothing that alters.
 */
import type { FastifyRequest } from 'fastify'
import { actorLimits, isWithin } from '../../core/audit.js'
import { shown } from '../../core/names.js'
import { HttpProblem } from '../http-problems.js'
import type { Limits } from '../limits.js'
import { type Access, type Action, type Actor, type Authorize, alters } from './access.js'
import { cannotBeRebound, hostsOf, isDirectLoopback, isProduction } from './loopback.js'
import { RateLimit } from './rate-limit.js'

/** What the application has said about access. */
export interface GuardOptions {
  readonly authorize: Authorize | undefined
  readonly access: Access
  /** Further origins whose pages may write, in browsers that send no `Sec-Fetch-Site`. */
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
   * A `preParsing` hook: it runs after all of the application's own `onRequest` hooks, also those that were added
   * after this plugin, and before a body is read.
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

  /** Who has been let through; undefined where reading is open and nobody was asked. */
  actorOf(request: FastifyRequest): Actor | undefined {
    return this.#actors.get(request)
  }

  /**
   * Whether who asks might do this as well. For showing only: it counts for nothing when they try. A page asks every
   * other second, and nothing is denied by it, so the log hears of no answer.
   */
  async mightDo(request: FastifyRequest, action: Action): Promise<boolean> {
    return (await this.#ask(request, action)) !== undefined
  }

  async #admit(request: FastifyRequest, action: Action): Promise<Actor | undefined> {
    const { authorize, access } = this.#options
    if (request.routeOptions.config.coordinationOpen === true) return undefined
    if (!alters(action) && access.read === 'public') return this.#refuseRebound(request)
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
    try {
      const answer: unknown = await this.#options.authorize?.(request, action)
      if (answer === false) return undefined
      if (isActor(answer)) return answer
      if (answer === undefined) this.#noticeNothing(request, action)
      else
        log?.error({ action }, 'authorize returned neither false nor an actor { id }: the request is denied')
    } catch (error) {
      log?.warn({ err: error, action }, 'authorize threw: the request is denied')
    }
    return undefined
  }

  /**
   * An `authorize` that returns nothing denies, as one that returns `false` does. More often it has forgotten its `return`, which
   * nobody would find out from a 403.
   */
  #noticeNothing(request: FastifyRequest, action: Action): void {
    if (this.#hasNoticedNothing) return
    this.#hasNoticedNothing = true
    request.log.warn(
      { action },
      'authorize returned undefined, which denies the request. Is a return missing? Return false to deny; this is said once',
    )
  }

  /** Reading that is open to whoever reaches this server must not be open to web pages from elsewhere. */
  #refuseRebound(request: FastifyRequest): undefined {
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

  /** A browser tells on whose behalf it writes. Who says nothing is no browser. */
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
      `${sentence} an Origin that is this server's own or among the option \`allowedOrigins\`, got ${shown(origin)}.`,
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

/** Nothing that alters, and only where it is safe to guess. */
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

/** Paths that lead nowhere are guarded as well, so that a stranger cannot tell which do. */
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
