/** Routes for nodes: listing them, draining them, and forgetting those that are gone. */
import type { FastifyRequest } from 'fastify'
import { usualReasons } from '../../core/audit.js'
import type { Status } from '../../core/reports/status.js'
import type { Snapshot } from '../../core/store.js'
import type { Dependencies } from '../dependencies.js'
import { contentTag, sendTagged } from '../etag.js'
import { instructionOf } from '../guard/instruction.js'
import { HttpProblem } from '../http-problems.js'
import { pageOf } from '../paging.js'
import { bodyOf, mentions, nodeIdOf, notFound, queryOf, type Route } from '../route.js'
import {
  drainNodeSchema,
  forgetNodeSchema,
  getNodeSchema,
  listNodesSchema,
  undrainNodeSchema,
} from '../schemas/nodes.js'
import { asOf, leaseBody, nodeBody } from '../snapshot/presenters.js'

export function nodeRoutes(dependencies: Dependencies): Route[] {
  const { coordinator, source, guard } = dependencies
  const { operator } = coordinator

  return [
    {
      method: 'GET',
      url: '/nodes',
      action: 'read',
      id: 'ListNodes',
      schema: listNodesSchema,
      handler: async (request, reply) => {
        const { state, name, cluster, q, ...page } = queryOf(request, listNodesSchema)
        const { snapshot, status } = await source.status()
        const nodes = status.nodes.filter(
          (node) =>
            (state === undefined || node.state === state) &&
            (name === undefined || node.name === name) &&
            (cluster === undefined || node.cluster === cluster) &&
            mentions(q, node.id, node.name, node.cluster),
        )
        const place = ({ cluster, name, id }: { cluster: string; name: string; id: string }): string =>
          `${cluster}/${name}/${id}`
        const list = JSON.stringify(['nodes', state, name, cluster, q])
        const { items, ...rest } = pageOf(nodes, place, list, page)
        const body = { ...asOf(snapshot), items: items.map(nodeBody), ...rest }
        return sendTagged(request, reply, contentTag(body), body)
      },
    },
    {
      method: 'GET',
      url: '/nodes/:id',
      action: 'read',
      id: 'GetNode',
      schema: getNodeSchema,
      handler: async (request, reply) => {
        const { snapshot, status } = await source.status()
        const body = detailOf(nodeIdOf(request), snapshot, status)
        return sendTagged(request, reply, contentTag(body), body)
      },
    },
    {
      method: 'PUT',
      url: '/nodes/:id/drain',
      action: 'drain',
      id: 'DrainNode',
      schema: drainNodeSchema,
      handler: async (request, reply) => {
        const id = nodeIdOf(request)
        const { reason } = bodyOf(request, drainNodeSchema)
        const done = await operator.drain(id, instructionOf(request, guard, reason))
        source.outdate()
        if (done === 'gone') await refuseGone(dependencies, request)
        const { snapshot, status } = await source.status()
        return reply.code(202).send(detailOf(id, snapshot, status))
      },
    },
    {
      method: 'DELETE',
      url: '/nodes/:id/drain',
      action: 'drain',
      id: 'UndrainNode',
      schema: undrainNodeSchema,
      handler: async (request, reply) => {
        const { reason = usualReasons.undrain } = queryOf(request, undrainNodeSchema)
        const done = await operator.undrain(nodeIdOf(request), instructionOf(request, guard, reason))
        source.outdate()
        if (done === 'gone') await refuseGone(dependencies, request)
        return reply.code(204).send()
      },
    },
    {
      method: 'DELETE',
      url: '/nodes/:id',
      action: 'forget',
      id: 'ForgetNode',
      schema: forgetNodeSchema,
      handler: async (request, reply) => {
        const { reason = usualReasons.forget } = queryOf(request, forgetNodeSchema)
        const id = nodeIdOf(request)
        const done = await operator.forget(id, instructionOf(request, guard, reason))
        source.outdate()
        if (done === 'unknown') throw noNode(id)
        if (done === 'alive')
          throw new HttpProblem('conflict', 'The node is alive. Drain it, or stop its process.')
        if (done === 'named')
          throw new HttpProblem('conflict', 'Some leases still refer to the node. Try again in a moment.')
        return reply.code(204).send()
      },
    },
  ]
}

function detailOf(id: string, snapshot: Snapshot, status: Status) {
  const node = status.nodes.find((each) => each.id === id)
  if (node === undefined) throw noNode(id)
  const leases = status.leases
    .filter(({ holder, target, blockedNode }) =>
      [holder, target, blockedNode].some((named) => named?.id === id),
    )
    .map((lease) => leaseBody(lease, snapshot))
  return { ...asOf(snapshot), ...nodeBody(node), leases }
}

async function refuseGone({ source }: Dependencies, request: FastifyRequest): Promise<never> {
  const { nodes } = await source.current()
  const id = nodeIdOf(request)
  if (nodes.every((node) => node.id !== id)) throw noNode(id)
  throw new HttpProblem('conflict', 'The node is gone: there is nothing that it could hand over.')
}

/** Names of nodes may recur, so paths have ids. What does not look like one is probably a name. */
function noNode(id: string): HttpProblem {
  const isId = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id)
  const hint = `Nodes are named by id: GET /nodes?name=${id} lists those that are called so.`
  return notFound('node', isId ? undefined : hint)
}
