/** Routes that show leases and explain their state. */

import { keyFrom } from '../../core/names.js'
import { explain } from '../../core/reports/explain.js'
import { isSilent } from '../../core/reports/pulse.js'
import type { LeaseStatus, Status, WorkerStatus } from '../../core/reports/status.js'
import { termEvents, termsOf } from '../../core/reports/terms.js'
import { pauseOf, vacancyIn } from '../../core/reports/trail.js'
import type { Dependencies } from '../dependencies.js'
import { contentTag, matchTag, sendTagged } from '../etag.js'
import type { HttpProblem } from '../http-problems.js'
import { keyInPath, keySegment, leaseKeyOf } from '../keys.js'
import { pageOf, usualLimit } from '../paging.js'
import { found, mentions, notFound, queryOf, type Route } from '../route.js'
import {
  explainSchema,
  getLeaseSchema,
  historySchema,
  leadersSchema,
  listLeasesSchema,
} from '../schemas/leases.js'
import { leaseDetail } from '../snapshot/overview.js'
import { asOf, explanationBody, leaseBody, termBody } from '../snapshot/presenters.js'

export function leaseRoutes({ coordinator, source }: Dependencies): Route[] {
  const { operator } = coordinator

  return [
    {
      method: 'GET',
      url: '/leases',
      action: 'read',
      id: 'ListLeases',
      schema: listLeasesSchema,
      handler: async (request, reply) => {
        const { state, holder, worker, q, ...page } = queryOf(request, listLeasesSchema)
        const { snapshot, status } = await source.status()
        const workerKey = worker === undefined ? undefined : keyFrom(worker)
        const leases = status.leases.filter(
          (lease) =>
            (state === undefined || lease.state === state) &&
            (holder === undefined || [lease.holder?.id, lease.holder?.name].includes(holder)) &&
            (workerKey === undefined || lease.worker === workerKey) &&
            mentions(q, lease.key),
        )
        const list = JSON.stringify(['leases', state, holder, worker, q])
        const { items, ...rest } = pageOf(leases, placeOf, list, page)
        const bodies = items.map((lease) => leaseBody(lease, snapshot))
        const body = { ...asOf(snapshot), items: bodies, ...rest }
        return sendTagged(request, reply, contentTag(body), body)
      },
    },
    {
      method: 'GET',
      url: '/leaders',
      action: 'read',
      id: 'ListLeaders',
      schema: leadersSchema,
      handler: async (request, reply) => {
        const { snapshot, status } = await source.status()
        const single = new Set(status.workers.filter(({ kind }) => kind === 'single').map(({ key }) => key))
        const led = status.leases.filter(
          ({ worker, holder }) => worker !== null && single.has(worker) && !isSilent(holder, snapshot),
        )
        const leaders = new Map(led.flatMap((lease) => leaderOf(lease, status.nowMs)))
        const lasting = [...leaders].map(([key, { id, token }]) => [key, id, token])
        return sendTagged(request, reply, contentTag({ lasting }), Object.fromEntries(leaders))
      },
    },
    {
      method: 'GET',
      url: `/leases/${keySegment}`,
      action: 'read',
      id: 'GetLease',
      schema: getLeaseSchema,
      handler: async (request, reply) => {
        const { snapshot, status } = await source.status()
        const lease = leaseIn(status, leaseKeyOf(request))
        const body = { ...asOf(snapshot), ...leaseBody(lease, snapshot) }
        return sendTagged(request, reply, matchTag(lease.token, body), body)
      },
    },
    {
      method: 'GET',
      url: `/leases/${keySegment}/history`,
      action: 'read',
      id: 'GetLeaseHistory',
      schema: historySchema,
      handler: async (request) => {
        const { limit = usualLimit } = queryOf(request, historySchema)
        const key = leaseKeyOf(request)
        const { snapshot, status } = await source.status()
        leaseIn(status, key)
        const query = { limit, types: termEvents, subject: key }
        const terms = termsOf(await source.shared(['terms', query], () => operator.events(query)))
        return { ...asOf(snapshot), items: terms.map((term) => termBody(term, snapshot)) }
      },
    },
    {
      method: 'GET',
      url: `/leases/${keySegment}/explain`,
      action: 'read',
      id: 'ExplainLease',
      schema: explainSchema,
      handler: async (request) => {
        const key = leaseKeyOf(request)
        const { snapshot, status } = await source.status()
        const lease = leaseIn(status, key)
        const worker = status.workers.find((each) => each.key === lease.worker)
        const query = { limit: 1, types: ['lease.revoked'], subject: key }
        const [revoked] = await source.shared(['revoked', query], () => operator.events(query))
        const { timing } = coordinator.settings
        const pause = worker === undefined ? undefined : pauseOf(worker, snapshot)
        const vacancy = vacancyIn(snapshot, key)
        const circumstances = { timing, revokedAtMs: revoked?.atMs ?? null, pause, vacancy }
        return {
          ...asOf(snapshot),
          ...explanationBody(found(explain(snapshot, key, circumstances), 'lease')),
          lease: leaseDetail(lease, snapshot, worker),
        }
      },
    },
  ]
}

/** @throws HttpProblem 404 */
export function leaseIn(status: Status, key: string): LeaseStatus {
  const lease = status.leases.find((each) => each.key === key)
  if (lease === undefined) throw noLease(status, key)
  return lease
}

/** Returns the problem of a key without a lease, which is often that of a worker with several leases. */
export function noLease({ workers }: Status, key: string): HttpProblem {
  const worker = workers.find((each) => each.key === key.replace(/#\d+$/, ''))
  if (worker === undefined) return notFound('lease')
  return notFound('lease', leasesOf(worker), worker.kind === 'single' ? {} : { worker: worker.key })
}

function leasesOf({ key, kind, slots }: WorkerStatus): string {
  const path = keyInPath(key)
  const those = kind === 'partitioned' ? 'partitions' : 'shares'
  if (kind === 'single') return `The worker ${key} is single: its lease is ${path}.`
  if (slots === 0)
    return `The worker ${key} is coordinated, and has no shares: no node is a candidate for it.`
  const last = slots === 1 ? '' : ` to ${path}~${slots - 1}`
  return `The worker ${key} is ${kind}: its leases are its ${those}, ${path}~0${last}.`
}

/** Returns the place of a lease in the list; shares and partitions are ordered by number. */
function placeOf({ key }: LeaseStatus): string {
  return key.replace(/#(\d+)$/, (_all, slot: string) => `#${slot.padStart(9, '0')}`)
}

interface Leader {
  readonly node: string
  readonly id: string
  readonly cluster: string
  readonly token: number
  readonly sinceMs: number | null
}

function leaderOf({ key, holder, token, acquiredAtMs }: LeaseStatus, nowMs: number): [string, Leader][] {
  if (holder === null) return []
  const sinceMs = acquiredAtMs === null ? null : Math.max(0, nowMs - acquiredAtMs)
  return [[key, { node: holder.name, id: holder.id, cluster: holder.cluster, token, sinceMs }]]
}
