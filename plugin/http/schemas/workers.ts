import {
  body,
  flag,
  name,
  noContent,
  notModified,
  number,
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

export const schedule = {
  type: 'object',
  nullable: true,
  description: 'When its passes begin; null for a worker without a schedule',
  required: ['cron', 'timeZone', 'missed', 'lastFireAt', 'nextFireAt'],
  properties: {
    cron: text,
    timeZone: text,
    missed: { type: 'string', enum: ['once', 'skip'] },
    lastFireAt: { ...time, nullable: true, description: 'The latest scheduled time for which a pass began' },
    nextFireAt: {
      ...time,
      nullable: true,
      description: 'The next scheduled time; in the past while no node can act on it',
    },
  },
} as const

export const scheduleExample = {
  cron: '0 3 1 * *',
  timeZone: 'Europe/Vienna',
  missed: 'once',
  lastFireAt: '2026-11-01T02:00:00.000Z',
  nextFireAt: '2026-12-01T02:00:00.000Z',
}

export const pause = {
  type: 'object',
  nullable: true,
  description: 'Who paused it, and why; null when it is not paused, or when the audit trail no longer says',
  required: ['since', 'actor', 'reason'],
  properties: { since: time, actor: { ...text, nullable: true }, reason: { ...text, nullable: true } },
} as const

export const workerItem = {
  type: 'object',
  required: [
    'key',
    'name',
    'kind',
    'scope',
    'generation',
    'slots',
    'paused',
    'pause',
    'candidates',
    'schedule',
  ],
  properties: {
    key: text,
    name: text,
    kind: { type: 'string', enum: ['single', 'coordinated', 'partitioned'] },
    scope: { type: 'string', enum: ['cluster', 'global'] },
    cluster: { ...text, nullable: true },
    generation: { ...number, description: 'Number of the plan in force' },
    slots: { ...number, description: 'Number of leases in the plan' },
    paused: flag,
    pause,
    candidates: { type: 'array', items: text, description: 'Names of the nodes that may hold its leases' },
    schedule,
  },
} as const

const workerExample = {
  key: 'global/month-close',
  name: 'month-close',
  kind: 'single',
  scope: 'global',
  cluster: null,
  generation: 0,
  slots: 1,
  paused: false,
  pause: null,
  candidates: ['node-1', 'node-2'],
  schedule: scheduleExample,
}

const workerReply = one('The worker', workerItem, workerExample)

export const listWorkersSchema = {
  summary: 'List workers',
  querystring: query({ cluster: name, ...pageQuery }),
  response: reads({ 200: pageOf(workerItem, workerExample), 304: notModified }),
} as const

export const getWorkerSchema = {
  summary: 'Get a worker',
  querystring: query({}),
  response: reads({ 200: workerReply, 304: notModified }, 'not-found'),
} as const

export const pauseWorkerSchema = {
  summary:
    'Pause a worker: no node runs it until it is resumed, even after restarts; the first reason is kept',
  querystring: query({}),
  body: body({ reason }, ['reason'], { reason: 'the upstream is down' }),
  response: writes({ 202: workerReply }, 'not-found'),
} as const

export const resumeWorkerSchema = {
  summary: 'Resume a paused worker',
  querystring: query({ reason }),
  body: optionalBody({}),
  response: writes({ 204: noContent }, 'not-found'),
} as const

export const forgetWorkerSchema = {
  summary: 'Forget a worker that no node registers any more: remove it and its leases from the list',
  querystring: query({ reason }),
  body: optionalBody({}),
  response: writes({ 204: noContent }, 'not-found', 'conflict'),
} as const
