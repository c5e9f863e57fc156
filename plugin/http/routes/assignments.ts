/** Routes for shares and partitions: listing them and planning them afresh. */
import type { Rebalanced } from '../../core/changes/operations.js'
import type { AssignmentStatus } from '../../core/reports/status.js'
import type { Snapshot } from '../../core/store.js'
import type { Dependencies } from '../dependencies.js'
import { contentTag, matchOf, matchTag, sendTagged } from '../etag.js'
import { instructionOf } from '../guard/instruction.js'
import { HttpProblem } from '../http-problems.js'
import { keySegment, workerKeyOf } from '../keys.js'
import { pageOf } from '../paging.js'
import { bodyOf, found, mentions, queryOf, type Route } from '../route.js'
import { getAssignmentSchema, listAssignmentsSchema, rebalanceSchema } from '../schemas/assignments.js'
import { asOf, assignmentBody, reference } from '../snapshot/presenters.js'

export function assignmentRoutes({ coordinator, source, guard }: Dependencies): Route[] {
  const bodyFor = async (key: string) => {
    const { snapshot, status } = await source.status()
    const assignment = status.assignments.find(({ worker }) => worker === key)
    return { ...asOf(snapshot), ...assignmentBody(found(assignment, 'assignment'), snapshot) }
  }

  return [
    {
      method: 'GET',
      url: '/assignments',
      action: 'read',
      id: 'ListAssignments',
      schema: listAssignmentsSchema,
      handler: async (request, reply) => {
        const { cluster, q, ...page } = queryOf(request, listAssignmentsSchema)
        const { snapshot, status } = await source.status()
        const assignments = status.assignments.filter(
          ({ worker }) => (cluster === undefined || worker.startsWith(`${cluster}/`)) && mentions(q, worker),
        )
        const place = ({ worker }: AssignmentStatus): string => worker
        const { items, ...rest } = pageOf(
          assignments,
          place,
          JSON.stringify(['assignments', cluster, q]),
          page,
        )
        const body = {
          ...asOf(snapshot),
          items: items.map((item) => assignmentBody(item, snapshot)),
          ...rest,
        }
        return sendTagged(request, reply, contentTag(body), body)
      },
    },
    {
      method: 'GET',
      url: `/assignments/${keySegment}`,
      action: 'read',
      id: 'GetAssignment',
      schema: getAssignmentSchema,
      handler: async (request, reply) => {
        const body = await bodyFor(workerKeyOf(request))
        return sendTagged(request, reply, matchTag(body.planRevision, body), body)
      },
    },
    {
      method: 'POST',
      url: `/assignments/${keySegment}/rebalance`,
      action: 'rebalance',
      id: 'Rebalance',
      schema: rebalanceSchema,
      handler: async (request, reply) => {
        const key = workerKeyOf(request)
        const { reason, dryRun = false } = bodyOf(request, rebalanceSchema)
        const needed = !dryRun || request.headers['if-match'] !== undefined
        const revision = needed ? { revision: matchOf(request, 'revision') } : {}
        const by = instructionOf(request, guard, reason)
        const done = await coordinator.operator.rebalance({ key, dryRun, ...revision, ...by })
        source.outdate()
        if (done.kind === 'unknown') return found(undefined, 'assignment')
        if (done.kind === 'stale')
          throw new HttpProblem('token-mismatch', 'The assignment has changed since.', {
            current: await bodyFor(key),
          })
        const status = dryRun || done.moves.length === 0 ? 200 : 202
        return reply.code(status).send(movesBody(key, dryRun, done, await source.current()))
      },
    },
  ]
}

function movesBody(
  worker: string,
  dryRun: boolean,
  { generation, moves }: Extract<Rebalanced, { kind: 'planned' }>,
  snapshot: Snapshot,
) {
  const named = (id: string | null) => (id === null ? null : reference(snapshot, id))
  return {
    ...asOf(snapshot),
    worker,
    dryRun,
    generation,
    moves: moves.map(({ slot, from, to }) => ({ slot, from: named(from), to: named(to) })),
  }
}
