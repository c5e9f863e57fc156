/** Routes for workers: listing, pausing and resuming them, and forgetting those that no node registers. */
import { usualReasons } from '../../core/audit.js'
import type { Dependencies } from '../dependencies.js'
import { contentTag, sendTagged } from '../etag.js'
import { instructionOf } from '../guard/instruction.js'
import { HttpProblem } from '../http-problems.js'
import { keySegment, workerKeyOf } from '../keys.js'
import { pageOf } from '../paging.js'
import { bodyOf, found, mentions, queryOf, type Route } from '../route.js'
import {
  forgetWorkerSchema,
  getWorkerSchema,
  listWorkersSchema,
  pauseWorkerSchema,
  resumeWorkerSchema,
} from '../schemas/workers.js'
import { asOf, workerBody } from '../snapshot/presenters.js'

export function workerRoutes({ coordinator, source, guard }: Dependencies): Route[] {
  const { operator } = coordinator

  const bodyFor = async (key: string) => {
    const { snapshot, status } = await source.status()
    const worker = status.workers.find((each) => each.key === key)
    return { ...asOf(snapshot), ...workerBody(found(worker, 'worker'), snapshot) }
  }

  return [
    {
      method: 'GET',
      url: '/workers',
      action: 'read',
      id: 'ListWorkers',
      schema: listWorkersSchema,
      handler: async (request, reply) => {
        const { cluster, q, ...page } = queryOf(request, listWorkersSchema)
        const { snapshot, status } = await source.status()
        const workers = status.workers.filter(
          (worker) => (cluster === undefined || worker.cluster === cluster) && mentions(q, worker.key),
        )
        const rest = pageOf(workers, ({ key }) => key, JSON.stringify(['workers', cluster, q]), page)
        const items = rest.items.map((worker) => workerBody(worker, snapshot))
        const body = { ...asOf(snapshot), ...rest, items }
        return sendTagged(request, reply, contentTag(body), body)
      },
    },
    {
      method: 'GET',
      url: `/workers/${keySegment}`,
      action: 'read',
      id: 'GetWorker',
      schema: getWorkerSchema,
      handler: async (request, reply) => {
        const body = await bodyFor(workerKeyOf(request))
        return sendTagged(request, reply, contentTag(body), body)
      },
    },
    {
      method: 'PUT',
      url: `/workers/${keySegment}/pause`,
      action: 'pause',
      id: 'PauseWorker',
      schema: pauseWorkerSchema,
      handler: async (request, reply) => {
        const key = workerKeyOf(request)
        const { reason } = bodyOf(request, pauseWorkerSchema)
        const done = await operator.pause(key, instructionOf(request, guard, reason))
        source.outdate()
        found(done === 'unknown' ? undefined : done, 'worker')
        return reply.code(202).send(await bodyFor(key))
      },
    },
    {
      method: 'DELETE',
      url: `/workers/${keySegment}/pause`,
      action: 'pause',
      id: 'ResumeWorker',
      schema: resumeWorkerSchema,
      handler: async (request, reply) => {
        const key = workerKeyOf(request)
        const { reason = usualReasons.resume } = queryOf(request, resumeWorkerSchema)
        const done = await operator.resume(key, instructionOf(request, guard, reason))
        source.outdate()
        found(done === 'unknown' ? undefined : done, 'worker')
        return reply.code(204).send()
      },
    },
    {
      method: 'DELETE',
      url: `/workers/${keySegment}`,
      action: 'forget',
      id: 'ForgetWorker',
      schema: forgetWorkerSchema,
      handler: async (request, reply) => {
        const key = workerKeyOf(request)
        const { reason = usualReasons.forget } = queryOf(request, forgetWorkerSchema)
        const done = await operator.forgetWorker(key, instructionOf(request, guard, reason))
        source.outdate()
        found(done === 'unknown' ? undefined : done, 'worker')
        if (done === 'registered')
          throw new HttpProblem(
            'conflict',
            'Some node has registered the worker. Pause it, if nobody is to run it.',
          )
        if (done === 'named')
          throw new HttpProblem(
            'conflict',
            'A node still holds a lease of the worker. Try again in a moment.',
          )
        return reply.code(204).send()
      },
    },
  ]
}
