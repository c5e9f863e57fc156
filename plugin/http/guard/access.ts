/** Access control: the types in which the application, the routes and the guard say who may do what. */
import type { FastifyRequest } from 'fastify'
import { isDirectLoopback, isProduction } from './loopback.js'

/** The actions that change something. */
export const interventions = ['release', 'drain', 'pause', 'rebalance', 'forget'] as const

/**
 * Every action that a request may ask for. `probe` asks for the health of this process in one word, `read` for any
 * other information; all others are interventions.
 */
export const actions = ['read', 'probe', ...interventions] as const

/** What a request asks for; see {@link actions}. `release` includes stepping down and transferring. */
export type Action = (typeof actions)[number]

/** The author of a request. The id is written to the audit trail, and rate limits count by it. */
export interface Actor {
  /** 1 to 200 printable characters. */
  readonly id: string
  /** Name shown to people. Default: the id. */
  readonly display?: string | undefined
}

/**
 * Decides about one request, after the application's own `onRequest` hooks and before a body is read. Throwing, or
 * returning anything but an actor, denies the request.
 */
export type Authorize = (
  request: FastifyRequest,
  action: Action,
) => Actor | false | undefined | Promise<Actor | false | undefined>

/** Access that is granted without calling {@link Authorize}. */
export interface Access {
  /**
   * `public`: every client that can reach the application may read names of nodes and workers, labels, and the audit
   * trail.
   */
  readonly read?: 'public' | undefined
  /**
   * Host names, without ports, by which clients may address the application. Numeric addresses and `localhost` are always
   * accepted. A foreign web page could have pointed any other name here, to use the browser of somebody who can reach the
   * application (DNS rebinding). Default: any name when `authorize` decides, none when reading is public.
   */
  readonly allowedHosts?: readonly string[] | undefined
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The action of a route of the coordination interface. Every such route names one. */
    coordinationAction?: Action
    /** Open to every client, without `authorize`. Only for routes that reveal nothing useful to a stranger. */
    coordinationOpen?: boolean
  }
}

/**
 * Returns an `authorize` for development and tests: direct connections from this machine may do everything. It denies
 * everything when `NODE_ENV` is `production`, because a reverse proxy may look just like that; the first such refusal
 * is logged as a warning.
 */
export function allowLoopback(): Authorize {
  let hasWarned = false
  return ({ raw, log }) => {
    if (isProduction()) {
      if (!hasWarned)
        log.warn(
          'allowLoopback() denies every request, because NODE_ENV is "production"; this is logged once',
        )
      hasWarned = true
      return false
    }
    return isDirectLoopback(raw) && { id: 'loopback', display: 'this machine' }
  }
}

/** Returns whether the action changes something. */
export function alters(action: Action): boolean {
  return interventions.some((intervention) => intervention === action)
}
