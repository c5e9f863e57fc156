/** Routes that take leases away from their holders, by force or in good order. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Transferred } from '../../core/changes/operations.js'
import type { NodeReference, NodeStatus } from '../../core/reports/status.js'
import type { EventRow } from '../../core/store.js'
import { blockWaitMs } from '../../core/time/timing.js'
import type { Dependencies } from '../dependencies.js'
import { matchOf } from '../etag.js'
import { instructionOf } from '../guard/instruction.js'
import { HttpProblem } from '../http-problems.js'
import { keySegment, leaseKeyOf } from '../keys.js'
import { bodyOf, type Route } from '../route.js'
import { releaseSchema, stepDownSchema, transferSchema } from '../schemas/leases.js'
import { eventId } from '../snapshot/event-places.js'
import { isoTime, leaseBody, reference } from '../snapshot/presenters.js'
import { leaseIn, noLease } from './leases.js'

export function interventionRoutes(dependencies: Dependencies): Route[] {
  return [
    {
      method: 'POST',
      url: `/leases/${keySegment}/release`,
      action: 'release',
      id: 'ReleaseLease',
      schema: releaseSchema,
      handler: async (request) => release(dependencies, request),
    },
    {
      method: 'POST',
      url: `/leases/${keySegment}/step-down`,
      action: 'release',
      id: 'StepDown',
      schema: stepDownSchema,
      handler: async (request, reply) => {
        const { reason = 'asked to step down', ...more } = bodyOf(request, stepDownSchema)
        return endTerm(dependencies, request, reply, { reason, ...more })
      },
    },
    {
      method: 'POST',
      url: `/leases/${keySegment}/transfer`,
      action: 'release',
      id: 'TransferLease',
      schema: transferSchema,
      handler: async (request, reply) =>
        endTerm(dependencies, request, reply, bodyOf(request, transferSchema)),
    },
  ]
}

async function release(dependencies: Dependencies, request: FastifyRequest) {
  const { coordinator, source, guard } = dependencies
  const key = leaseKeyOf(request)
  const token = matchOf(request, 'token')
  const { reason, ...how } = bodyOf(request, releaseSchema)
  const done = await coordinator.operator.release({
    key,
    token,
    ...how,
    ...instructionOf(request, guard, reason),
  })
  source.outdate()
  if (done.kind === 'unknown') return refuseUnknown(dependencies, key)
  if (done.kind === 'fenced') return refuseFenced()
  if (done.kind === 'revoked') return released(dependencies, key, token, !done.blocked)
  if (done.kind === 'repeated') return released(dependencies, key, token, false)
  if (done.lease.holder !== null || done.lease.token !== token) return refuseStale(dependencies, key)
  return released(dependencies, key, token, true)
}

/**
 * Builds the response from the event that the release has written, so that repeated requests get the same response.
 * Without such an event the lease had no holder, and there was nothing to release.
 */
async function released({ coordinator, source }: Dependencies, key: string, token: number, settled: boolean) {
  const [event, ...earlier] = await releasesOf(coordinator, key, token)
  const snapshot = await source.current()
  const { timing } = coordinator.settings
  const ttlMs = Math.max(timing.ttlMs, snapshot.meta.longestTtlMs)
  const waitMs = event === undefined ? 0 : blockWaitMs({ ...timing, ttlMs })
  const holder = event?.node ?? null
  const previousHolder = holder === null ? null : reference(snapshot, holder)
  const immediate = event?.detail?.immediate === true
  const acknowledged = settled && !immediate
  return {
    released: event !== undefined,
    previousHolder,
    previousToken: token,
    // The holder has been told to stop since the earliest release.
    safeAt: isoTime(((earlier.at(-1) ?? event)?.atMs ?? snapshot.nowMs) + waitMs),
    acknowledged,
    eventId: event === undefined ? null : eventId(event),
    sentence:
      event === undefined
        ? 'Nobody held it: there was nothing to release.'
        : releaseSentence(previousHolder?.name ?? 'The holder', { acknowledged, immediate }, event.detail),
  }
}

function releaseSentence(
  holder: string,
  { acknowledged, immediate }: { readonly acknowledged: boolean; readonly immediate: boolean },
  detail: EventRow['detail'],
): string {
  const cooldownMs = detail?.cooldownMs
  const how = acknowledged
    ? `${holder} has stopped.`
    : immediate
      ? `The lease can be claimed at once. ${holder} has not confirmed that it has stopped, and may still be at work.`
      : `${holder} has not confirmed that it has stopped. The lease can be claimed at the end of this wait at the latest.`
  return typeof cooldownMs === 'number' && cooldownMs > 0
    ? `${how} For ${Math.ceil(cooldownMs / 1_000)} s it will not get the lease back while another node is available.`
    : how
}

/** The latest first: a release that waits may be followed by an immediate one. */
async function releasesOf(
  { operator }: Dependencies['coordinator'],
  key: string,
  token: number,
): Promise<EventRow[]> {
  const events = await operator.events({ limit: 20, types: ['lease.revoked'], subject: key })
  return events.filter((event) => event.token === token)
}

async function endTerm(
  dependencies: Dependencies,
  request: FastifyRequest,
  reply: FastifyReply,
  order: { readonly reason: string; readonly to?: string; readonly cooldownMs?: number },
): Promise<FastifyReply> {
  const { coordinator, source, guard } = dependencies
  const key = leaseKeyOf(request)
  const token = matchOf(request, 'token')
  const by = instructionOf(request, guard, order.reason)
  const done = await coordinator.operator.transfer({ ...order, key, token, ...by })
  source.outdate()
  if (done.kind !== 'asked') return refuseTransfer(dependencies, key, done, order)
  const snapshot = await source.current()
  const from = reference(snapshot, done.from)
  const to = done.to === null ? null : reference(snapshot, done.to)
  const next = `${to?.name ?? 'Another node'} is to have it next, once its pass has ended.`
  const sentence = `${from?.name ?? 'The holder'} has been asked. ${next}`
  return reply.code(202).send({ key, token, from, to, sentence })
}

async function refuseTransfer(
  dependencies: Dependencies,
  key: string,
  done: Exclude<Transferred, { kind: 'asked' }>,
  { to, cooldownMs }: { readonly to?: string; readonly cooldownMs?: number },
): Promise<never> {
  if (done.kind === 'unknown') return refuseUnknown(dependencies, key)
  if (done.kind === 'fenced') return refuseFenced()
  if (done.kind === 'stale') return refuseStale(dependencies, key)
  const { status } = await dependencies.source.status()
  const { holder, worker } = leaseIn(status, key)
  const isShare = status.workers.find((each) => each.key === worker)?.kind === 'coordinated'
  const wanted = status.nodes.find(({ id }) => id === to)
  const detail = transferSentence(done.candidates, { to, wanted, cooldownMs, holder, isShare })
  const canBeNamed = !isShare && done.candidates.length > 0
  throw new HttpProblem('conflict', detail, canBeNamed ? { candidates: done.candidates } : {})
}

function transferSentence(
  candidates: readonly string[],
  { to, wanted, cooldownMs, holder, isShare }: Unfulfilled,
): string {
  if (to !== undefined && to === holder?.id) return `"${holder.name}" holds the lease already.`
  if (to !== undefined && isShare)
    return 'A share of a coordinated worker cannot be given to a node of your choice: step-down makes its holder give it up, and the plan chooses who follows.'
  if (candidates.length === 0) return 'No other node is a candidate for the lease.'
  if (wanted !== undefined) {
    const why = wanted.state === 'active' ? '' : `: it is ${wanted.state}`
    return `"${wanted.name}" is not a candidate for the lease${why}.`
  }
  if (to !== undefined)
    return `"${to}" cannot have the lease: \`to\` must be the id of one of the candidates.`
  const other =
    cooldownMs === 0 ? 'With a `cooldownMs` it goes to another node.' : 'All other candidates cool down.'
  return `The plan would give the lease back to its holder. ${other}`
}

/** A transfer that was refused, and the lease that it was about. */
interface Unfulfilled {
  readonly to: string | undefined
  /** The node with this id. It may have begun to drain since it was offered. */
  readonly wanted: NodeStatus | undefined
  readonly cooldownMs: number | undefined
  readonly holder: NodeReference | null
  readonly isShare: boolean
}

async function refuseUnknown({ source }: Dependencies, key: string): Promise<never> {
  const { status } = await source.status()
  throw noLease(status, key)
}

function refuseFenced(): never {
  throw new HttpProblem(
    'conflict',
    'A transaction of the application fences this lease, so it cannot be taken from its holder: nothing was done. ' +
      'Try again when it has ended.',
    { retryAfter: 1 },
  )
}

async function refuseStale({ source }: Dependencies, key: string): Promise<never> {
  const { snapshot, status } = await source.status()
  const lease = leaseIn(status, key)
  const detail =
    lease.holder === null
      ? `Nobody holds the lease any more; its latest token is ${lease.token}.`
      : `By now the lease is held by node "${lease.holder.name}" with token ${lease.token}.`
  throw new HttpProblem('token-mismatch', detail, { current: leaseBody(lease, snapshot) })
}
