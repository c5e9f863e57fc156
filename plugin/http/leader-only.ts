/** A `preHandler` for the application's own routes that only the leader may serve. */
import type { IncomingMessage } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Coordinator } from '../core/coordinator.js'
import { CoordinationError } from '../core/errors.js'
import { checkCoordinator, checkNameOrKey, checkOptions } from '../core/inputs.js'
import { keysMeant, shown } from '../core/names.js'
import type { NodeStatus, Status, WorkerStatus } from '../core/reports/status.js'
import { answerHttpProblem, HttpProblem } from './http-problems.js'
import { snapshotSourceOf } from './snapshot/snapshot.js'

/** How {@link leaderOnly} responds on nodes that do not lead. */
export interface LeaderOnlyOptions {
  /**
   * Redirect requests to the leader: 307 to the same path below the `url` in the leader's labels. Without this option,
   * or when the leader has no such label, the response is 421; when no node leads, it is 503. Default `false`.
   */
  readonly redirect?: boolean | undefined
}

/**
 * A request, as far as {@link leaderOnly} looks at it. Requests over HTTP/1.1, HTTPS and HTTP/2 all fit, whatever the
 * type provider and the logger of the application.
 */
export type LeaderOnlyRequest = Pick<FastifyRequest, 'id' | 'log'> & {
  readonly raw: Pick<IncomingMessage, 'url'>
}

/** The reply to a {@link LeaderOnlyRequest}. */
export type LeaderOnlyReply = Pick<FastifyReply, 'sent' | 'statusCode'>

/**
 * Returns a `preHandler` that lets a request through only on the node that leads, where it needs no database query.
 *
 * On other nodes the response is 421 with the leader's name, or 307 with `redirect`. It is 503 while no node leads, and
 * on a node whose term has ended while its pass goes on. Leadership may end between the check and the end of the
 * handler. Work that two nodes must not do at once belongs in the worker itself, whose pass has the lease to fence
 * with.
 *
 * @param worker name or key of a `single` worker; this node need not be a candidate for it.
 * @throws {CoordinationError} `WCO_OPTIONS` when the options are not as described.
 *
 * @example app.post('/orders', { preHandler: leaderOnly(app.coordination, 'orders', { redirect: true }) }, …)
 */
export function leaderOnly(
  coordinator: Coordinator,
  worker: string,
  options: LeaderOnlyOptions = {},
): (request: LeaderOnlyRequest, reply: LeaderOnlyReply) => Promise<unknown> {
  checkCoordinator('leaderOnly', coordinator)
  checkOptions('leaderOnly', options, ['redirect'])
  checkNameOrKey('leaderOnly', worker, 'the second argument')
  const { redirect = false } = options
  if (typeof redirect !== 'boolean') {
    throw new CoordinationError(
      'WCO_OPTIONS',
      `leaderOnly: \`redirect\` must be true or false, got ${shown(redirect)}.`,
    )
  }
  const source = snapshotSourceOf(coordinator)
  let isToldOf = false
  const tellOnce = (request: LeaderOnlyRequest, { workers, namespace }: Status): void => {
    if (isToldOf) return
    isToldOf = true
    const known = workers.filter(({ kind }) => kind === 'single').map(({ key }) => key)
    request.log.warn(
      { worker, namespace, known: known.slice(0, shownAtMost) },
      'leaderOnly: no node has registered a worker of this name, so nobody answers these requests',
    )
  }
  return async (request, given) => {
    const reply = given as FastifyReply
    const own = coordinator.keyOfSingle(worker)
    if (own !== undefined && coordinator.isHeld(own)) return undefined
    try {
      const { status } = await source.status()
      const meant = workerIn(status, own ?? worker)
      if (meant === undefined) tellOnce(request, status)
      const leader = leaderOf(status, meant)
      // By the rows, a node leads until its pass has settled. A node whose term has ended must not be redirected to
      // itself.
      if (leader === undefined || leader.id === status.self.id)
        throw meant === undefined ? unknown(worker) : nobody(worker)
      const url = redirect ? addressOf(leader.labels.url, request.raw.url ?? '/') : undefined
      if (url === undefined) throw elsewhere(worker, leader.name)
      // Returned, because Fastify would otherwise call the handler while an `onSend` hook still waits.
      return reply.code(307).header('location', url).header('cache-control', 'no-store').send()
    } catch (error) {
      return answerHttpProblem(error, request, reply)
    }
  }
}

/** Maximum number of workers in one log line. */
const shownAtMost = 20

/** Returns the worker of that name; of several, the one in this node's own cluster. */
function workerIn({ self, workers }: Status, name: string): WorkerStatus | undefined {
  const singles = new Map(workers.filter(({ kind }) => kind === 'single').map((each) => [each.key, each]))
  const key = keysMeant(name, self.cluster).find((each) => singles.has(each))
  return key === undefined ? undefined : singles.get(key)
}

function leaderOf({ nodes, leases }: Status, meant: WorkerStatus | undefined): NodeStatus | undefined {
  const holder = leases.find(({ worker, slot }) => worker === meant?.key && slot === 0)?.holder
  return nodes.find(({ id }) => id === holder?.id)
}

/**
 * Returns the address to redirect to. Nodes choose their own labels, so only a web address is accepted, and only one that
 * a header can hold.
 */
function addressOf(label: string | undefined, path: string): string | undefined {
  const isAddress =
    label !== undefined && /^https?:\/\/[^/?#]+(\/[^?#]*)?$/.test(label) && /^[!-~]+$/.test(label)
  return isAddress && path.startsWith('/') ? `${label.replace(/\/$/, '')}${path}` : undefined
}

function elsewhere(worker: string, leader: string): HttpProblem {
  return new HttpProblem('misdirected', `"${worker}" is led by the node "${leader}".`)
}

function nobody(worker: string): HttpProblem {
  return new HttpProblem('unavailable', `Nobody leads "${worker}" at the moment.`, { retryAfter: 1 })
}

/** The status is temporary, because another version of the application may register the worker. */
function unknown(worker: string): HttpProblem {
  return new HttpProblem('unavailable', `No node has registered a worker "${worker}".`, { retryAfter: 1 })
}
