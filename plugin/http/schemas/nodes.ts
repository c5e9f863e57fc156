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
    id: {
      ...text,
      description: 'Id of its session; a new one whenever the process joins, also when it joins again',
    },
    name: text,
    cluster: text,
    state: { type: 'string', enum: ['active', 'draining', 'gone'] },
    workers: { type: 'array', items: text, description: 'Keys of the workers it is a candidate for' },
    labels: { type: 'object', additionalProperties: text },
    version: { ...text, nullable: true },
    startedAt: time,
    heartbeatAt: time,
    goneAt: { ...time, nullable: true },
    watcher: { ...flag, description: 'Whether it is one of the two watchers, which look for dead nodes' },
  },
} as const

const nodeDetail = {
  required: [...nodeItem.required, 'leases'],
  properties: {
    ...nodeItem.properties,
    leases: {
      type: 'array',
      items: leaseItem,
      description: 'Leases that it holds, is the target of, or had revoked and has not acknowledged',
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
  summary: 'List nodes, including those that are gone',
  querystring: query({
    state: { type: 'string', enum: ['active', 'draining', 'gone'] },
    name: { ...name, description: 'Exact name; a node that is gone may have had the same name' },
    cluster: name,
    ...pageQuery,
  }),
  response: reads({ 200: pageOf(nodeItem, nodeExample), 304: notModified }),
} as const

export const getNodeSchema = {
  summary: 'Get a node and its leases',
  params: nodeParameters,
  querystring: query({}),
  response: reads({ 200: detailReply, 304: notModified }, 'not-found'),
} as const

export const drainNodeSchema = {
  summary: 'Drain a node: ask it to hand everything over and to take nothing new',
  params: nodeParameters,
  querystring: query({}),
  body: body({ reason }, ['reason'], { reason: 'deploy of 1.4.3' }),
  response: writes({ 202: detailReply }, 'not-found', 'conflict'),
} as const

export const undrainNodeSchema = {
  summary: 'Cancel a drain',
  params: nodeParameters,
  querystring: query({ reason }),
  body: optionalBody({}),
  response: writes({ 204: noContent }, 'not-found', 'conflict'),
} as const

export const forgetNodeSchema = {
  summary: 'Forget a node that is gone: remove it from the list',
  params: nodeParameters,
  querystring: query({ reason }),
  body: optionalBody({}),
  response: writes({ 204: noContent }, 'not-found', 'conflict'),
} as const
