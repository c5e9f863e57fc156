/**
 * Routes that only the leader answers: a `preHandler` for the application's own routes.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Coordinator } from '../core/coordinator.js'
import { CoordinationError } from '../core/errors.js'
import { keysMeant } from '../core/names.js'
import type { NodeStatus, Status, WorkerStatus } from '../core/reports/status.js'
import { answerHttpProblem, HttpProblem } from './http-problems.js'
import { snapshotSourceOf } from './snapshot/snapshot.js'

/** How {@link leaderOnly} answers for others. */
export interface LeaderOnlyOptions {
  /**
   * Send requests on to the leader: with 307 to the same path below the `url` among its labels. Where it has none,
   * or nobody leads, and without this option, the answer is 421 or 503. Default `false`.
   */
  readonly redirect?: boolean | undefined
}

/**
 * Lets a request through where this node leads, which costs no question to the database.
 *
 * Elsewhere the answer is 421 with the leader's name, or 307; and 503 while nobody leads, or this node has ceased to and
 * its pass has not ended. Between the check and the end of the handler leadership may end: what must not be done by two
 * is for the worker itself, whose pass has the lease to fence with.
 *
 * @param worker name or key of a `single` worker that this node stands for.
 * @throws {CoordinationError} `WCO_OPTIONS` when the options are not as described.
 *
 * @example app.post('/orders', { preHandler: leaderOnly(app.coordination, 'orders', { redirect: true }) }, …)
 */
export function leaderOnly(
  coordinator: Coordinator,
  worker: string,
  options: LeaderOnlyOptions = {},
): (request: FastifyRequest, reply: FastifyReply) => Promise<void> {
  const { redirect = false } = options
  if (!isCoordinator(coordinator) || typeof worker !== 'string' || typeof redirect !== 'boolean') {
    throw new CoordinationError(
      'WCO_OPTIONS',
      'leaderOnly: expected a coordinator, the name of a worker and { redirect: true or false }.',
    )
  }
  const source = snapshotSourceOf(coordinator)
  let isToldOf = false
  const tellOnce = (request: FastifyRequest, { workers, namespace }: Status): void => {
    if (isToldOf) return
    isToldOf = true
    const known = workers.filter(({ kind }) => kind === 'single').map(({ key }) => key)
    request.log.warn(
      { worker, namespace, known: known.slice(0, shownAtMost) },
      'leaderOnly: no node has registered a worker of this name, so nobody answers these requests',
    )
  }
  return async (request, reply) => {
    const own = coordinator.keyOfSingle(worker)
    if (own !== undefined && coordinator.isHeld(own)) return
    try {
      const { status } = await source.status()
      const meant = workerIn(status, own ?? worker)
      if (meant === undefined) tellOnce(request, status)
      const leader = leaderOf(status, meant)
      // By the rows a node leads until its pass has settled. One whose term has ended must not be sent to itself.
      if (leader === undefined || leader.id === status.self.id)
        throw meant === undefined ? unknown(worker) : nobody(worker)
      const url = redirect ? addressOf(leader.labels.url, request.raw.url ?? '/') : undefined
      if (url === undefined) throw elsewhere(worker, leader.name)
      reply.code(307).header('location', url).header('cache-control', 'no-store').send()
    } catch (error) {
      answerHttpProblem(error, request, reply)
    }
  }
}

/** Before the plugin's registration has been awaited there is no `app.coordination`. */
function isCoordinator(given: unknown): boolean {
  return typeof given === 'object' && given !== null && 'keyOfSingle' in given
}

/** So many workers are named in a line of the log. */
const shownAtMost = 20

/** Of several workers of that name the one of this node's cluster. */
function workerIn({ self, workers }: Status, name: string): WorkerStatus | undefined {
  const singles = new Map(workers.filter(({ kind }) => kind === 'single').map((each) => [each.key, each]))
  const key = keysMeant(name, self.cluster).find((each) => singles.has(each))
  return key === undefined ? undefined : singles.get(key)
}

function leaderOf({ nodes, leases }: Status, meant: WorkerStatus | undefined): NodeStatus | undefined {
  const holder = leases.find(({ worker, slot }) => worker === meant?.key && slot === 0)?.holder
  return nodes.find(({ id }) => id === holder?.id)
}

/** The label is what a node says of itself: only a web address will do. */
function addressOf(label: string | undefined, path: string): string | undefined {
  const isAddress = label !== undefined && /^https?:\/\/[^\s/?#]+(\/[^\s?#]*)?$/.test(label)
  return isAddress && path.startsWith('/') ? `${label.replace(/\/$/, '')}${path}` : undefined
}

function elsewhere(worker: string, leader: string): HttpProblem {
  return new HttpProblem('misdirected', `"${worker}" is led by the node "${leader}".`)
}

function nobody(worker: string): HttpProblem {
  return new HttpProblem('unavailable', `Nobody leads "${worker}" at the moment.`, { retryAfter: 1 })
}

/** Another version of the application may bring it along, so it is for now only. */
function unknown(worker: string): HttpProblem {
  return new HttpProblem('unavailable', `No node has registered a worker "${worker}".`, { retryAfter: 1 })
}
