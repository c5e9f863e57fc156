/** `GET /status` returns the state of the namespace; `GET /overview` returns what one page can show of it. */
import type { FastifyRequest } from 'fastify'
import type { Coordinator } from '../../core/coordinator.js'
import { problemsIn } from '../../core/reports/problems.js'
import type { Status } from '../../core/reports/status.js'
import type { Snapshot } from '../../core/store.js'
import { blockWaitMs } from '../../core/time/timing.js'
import type { Dependencies } from '../dependencies.js'
import { contentTag, sendTagged } from '../etag.js'
import { interventions } from '../guard/access.js'
import type { Guard } from '../guard/guard.js'
import { queryOf, type Route } from '../route.js'
import { event } from '../schemas/events.js'
import { overviewSchema } from '../schemas/overview.js'
import { statusSchema, streamedState } from '../schemas/status.js'
import { serializerFor } from '../serializer.js'
import { countsOf } from '../snapshot/counts.js'
import { overviewOf, problemsShown } from '../snapshot/overview.js'
import { asOf, assignmentBody, eventBody, leaseBody, nodeBody, nodeNames } from '../snapshot/presenters.js'
import type { StreamBodies } from '../stream/feed.js'

export function statusRoutes({ coordinator, source, guard }: Dependencies): Route[] {
  return [
    {
      method: 'GET',
      url: '/status',
      action: 'read',
      id: 'Status',
      schema: statusSchema,
      handler: async (request, reply) => {
        const { snapshot, status } = await source.status()
        const body = {
          ...asOf(snapshot),
          ...stateOf(coordinator, status, snapshot),
          capabilities: await capabilitiesOf(request, guard),
          ...firstOf(status, snapshot),
        }
        return sendTagged(request, reply, contentTag(body), body)
      },
    },
    {
      method: 'GET',
      url: '/overview',
      action: 'read',
      id: 'Overview',
      schema: overviewSchema,
      handler: async (request, reply) => {
        const query = queryOf(request, overviewSchema)
        const { snapshot, status } = await source.status()
        const state = stateOf(coordinator, status, snapshot)
        const body = {
          ...asOf(snapshot),
          ...state,
          ...problemsShown(snapshot, status, state.problems, query.problems),
          capabilities: await capabilitiesOf(request, guard),
          ...overviewOf(snapshot, status, state.problems, query),
        }
        return sendTagged(request, reply, contentTag(body), body)
      },
    },
  ]
}

/**
 * Returns the bodies that the stream sends. They are the same for every viewer. Fastify does not serialize what a stream
 * sends, so it is done here, by the schemas of the routes.
 */
export function streamBodies({ coordinator }: Dependencies): StreamBodies {
  const serializeState = serializerFor(streamedState)
  const serializeEvent = serializerFor(event)
  return {
    snapshot: (status, snapshot) =>
      serializeState({ ...asOf(snapshot), ...stateOf(coordinator, status, snapshot) }),
    summary: (status, snapshot) => ({
      revision: snapshot.meta.revision,
      counts: countsOf(status, snapshot),
      problems: problemsOf(coordinator, status, snapshot).length,
    }),
    event: (row, snapshot) => serializeEvent(eventBody(row, nodeNames(snapshot, [row]))),
    now: (snapshot) => asOf(snapshot).now,
  }
}

function stateOf(coordinator: Coordinator, status: Status, snapshot: Snapshot) {
  const { timing } = coordinator.settings
  return {
    namespace: status.namespace,
    self: status.self,
    counts: countsOf(status, snapshot),
    problems: problemsOf(coordinator, status, snapshot),
    timing: { ...timing, ...waits(snapshot.meta.longestTtlMs, timing) },
  }
}

function problemsOf(coordinator: Coordinator, status: Status, snapshot: Snapshot) {
  return problemsIn(snapshot, status, coordinator.health(), coordinator.settings.timing)
}

function waits(
  recordedMs: number,
  timing: { readonly ttlMs: number; readonly statementTimeoutMs: number },
): { longestTtlMs: number; blockWaitMs: number } {
  const longestTtlMs = Math.max(recordedMs, timing.ttlMs)
  return { longestTtlMs, blockWaitMs: blockWaitMs({ ...timing, ttlMs: longestTtlMs }) }
}

/** Enough to show a small namespace completely. The separate lists return the rest, page by page. */
const shownAtMost = 100

function firstOf(status: Status, snapshot: Snapshot) {
  const goneLast = [...status.nodes].sort((a, b) => Number(a.state === 'gone') - Number(b.state === 'gone'))
  return {
    nodes: goneLast.slice(0, shownAtMost).map(nodeBody),
    leases: status.leases.slice(0, shownAtMost).map((lease) => leaseBody(lease, snapshot)),
    assignments: status.assignments.slice(0, shownAtMost).map((each) => assignmentBody(each, snapshot)),
  }
}

/**
 * Returns what the client may do, so that a page need not offer what would be refused. `authorize` is called for all
 * interventions concurrently, once for each. Its results are not kept for the next poll: they may depend on anything in
 * a request, and a client must not be shown a right that it has lost.
 */
async function capabilitiesOf(request: FastifyRequest, guard: Guard) {
  const allowed = interventions.map(async (action) => [action, await guard.mightDo(request, action)])
  const capabilities = Object.fromEntries(await Promise.all(allowed))
  return { actor: guard.actorOf(request) ?? null, read: true, ...capabilities }
}
