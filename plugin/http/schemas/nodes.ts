import {
  body,
  flag,
  name,
  noContent,
  nodeParameters,
  notModified,
  one,
  optionalBody,
  pageOf,
  pageQuery,
  query,
  reads,
  reason,
  text,
  time,
  writes,
} from './common.js'
import { leaseExample, leaseItem } from './leases.js'

export const nodeItem = {
  type: 'object',
  required: ['id', 'name', 'cluster', 'state', 'workers', 'labels', 'startedAt', 'heartbeatAt', 'watcher'],
  properties: {
    id: { ...text, description: 'One life of one process; a new one at each start' },
    name: text,
    cluster: text,
    state: { type: 'string', enum: ['active', 'draining', 'gone'] },
    workers: { type: 'array', items: text, description: 'Keys of the workers it is a candidate for' },
    labels: { type: 'object', additionalProperties: text },
    version: { ...text, nullable: true },
    startedAt: time,
    heartbeatAt: time,
    goneAt: { ...time, nullable: true },
    watcher: { ...flag, description: 'One of the two nodes that look for dead nodes' },
  },
} as const

const nodeDetail = {
  required: [...nodeItem.required, 'leases'],
  properties: {
    ...nodeItem.properties,
    leases: {
      type: 'array',
      items: leaseItem,
      description: 'Leases it holds, is named for, or has had taken away without acknowledging',
    },
  },
} as const

export const nodeExample = {
  id: '4d2c1c3e-0c5e-4ab2-9a1e-6a5f8f0d4f11',
  name: 'node-1',
  cluster: 'eu-1',
  state: 'active',
  workers: ['eu-1/indexing'],
  labels: { zone: 'eu-1a' },
  version: '1.4.2',
  startedAt: '2026-03-01T01:00:00.000Z',
  heartbeatAt: '2026-03-01T03:09:58.000Z',
  goneAt: null,
  watcher: true,
}

const detailReply = one('The node', nodeDetail, { ...nodeExample, leases: [leaseExample] })

export const listNodesSchema = {
  summary: 'Nodes, gone ones included',
  querystring: query({
    state: { type: 'string', enum: ['active', 'draining', 'gone'] },
    name: { ...name, description: 'Exactly so; a gone node may have had the same name' },
    cluster: name,
    ...pageQuery,
  }),
  response: reads({ 200: pageOf(nodeItem, nodeExample), 304: notModified }),
} as const

export const getNodeSchema = {
  summary: 'One node, with its leases',
  params: nodeParameters,
  querystring: query({}),
  response: reads({ 200: detailReply, 304: notModified }, 'not-found'),
} as const

export const drainNodeSchema = {
  summary: 'Ask a node to hand everything over and to take nothing new',
  params: nodeParameters,
  querystring: query({}),
  body: body({ reason }, ['reason'], { reason: 'deploy of 1.4.3' }),
  response: writes({ 202: detailReply }, 'not-found', 'conflict'),
} as const

export const undrainNodeSchema = {
  summary: 'Take that back',
  params: nodeParameters,
  querystring: query({}),
  body: optionalBody({}),
  response: writes({ 204: noContent }, 'not-found', 'conflict'),
} as const

export const forgetNodeSchema = {
  summary: 'Remove a node that is gone from the list',
  params: nodeParameters,
  querystring: query({}),
  body: optionalBody({}),
  response: writes({ 204: noContent }, 'not-found', 'conflict'),
} as const
