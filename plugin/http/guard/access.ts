/** Who may do what: the words in which the application, the routes and the guard speak of it. */
import type { FastifyRequest } from 'fastify'
import { isDirectLoopback, isProduction } from './loopback.js'

/** What alters something. */
export const interventions = ['release', 'drain', 'pause', 'rebalance', 'forget'] as const

/**
 * What a request wants to do. `probe` asks this process for a word about its health, `read` for anything else there is
 * to know; each other one is an intervention.
 */
export const actions = ['read', 'probe', ...interventions] as const

/** See {@link actions}. `release` also stands for stepping down and transferring. */
export type Action = (typeof actions)[number]

/** Who does it. The id goes into the audit trail, and requests are counted by it. */
export interface Actor {
  /** 1 to 200 printable characters. */
  readonly id: string
  /** How people call them. Default: the id. */
  readonly display?: string | undefined
}

/**
 * Decides about one request. Asked after the application's own `onRequest` hooks and before a body is read.
 * Throwing, or returning anything but an actor, denies the request.
 */
export type Authorize = (
  request: FastifyRequest,
  action: Action,
) => Actor | false | undefined | Promise<Actor | false | undefined>

/** What is open without asking {@link Authorize}. */
export interface Access {
  /** Anybody who reaches the application may read: names of nodes and workers, labels, the audit trail. */
  readonly read?: 'public' | undefined
  /**
   * Names by which the application may be addressed where reading is public, without ports. Numeric addresses
   * and `localhost` always may. Any other name could have been pointed here by a web page from elsewhere, to
   * read with the browser of somebody who can reach the application.
   */
  readonly allowedHosts?: readonly string[] | undefined
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What a route of the coordination interface does; each names it. */
    coordinationAction?: Action
    /** Anybody may, and nobody is asked: for what tells nothing that a stranger could use. */
    coordinationOpen?: boolean
  }
}

/**
 * An `authorize` for development and tests: direct connections from the machine itself may do everything. Not
 * when `NODE_ENV` is `production`, because a reverse proxy may look just like that.
 */
export function allowLoopback(): Authorize {
  return ({ raw }) => !isProduction() && isDirectLoopback(raw) && { id: 'loopback', display: 'this machine' }
}

/** Whether it alters something. */
export function alters(action: Action): boolean {
  return interventions.some((intervention) => intervention === action)
}
