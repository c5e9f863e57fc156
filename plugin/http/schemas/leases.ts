import { maxCooldownMs } from '../../core/changes/rows.js'
import {
  asOf,
  body,
  flag,
  key,
  matching,
  name,
  nodeReference,
  notModified,
  number,
  one,
  optionalBody,
  pageOf,
  pageQuery,
  pulse,
  query,
  reads,
  reason,
  text,
  time,
  writes,
} from './common.js'
import { schedule, scheduleExample } from './workers.js'

const state = {
  type: 'string',
  enum: ['held', 'moving', 'blocked', 'unclaimed', 'free'],
  description:
    'held: held by its target; moving: its holder has been asked to hand it over; blocked: a revoked holder has ' +
    'not acknowledged that it has stopped; unclaimed: its target does not hold it yet; free: it has no target. A ' +
    'holder may be silent until it is declared gone.',
} as const

export const leaseItem = {
  type: 'object',
  required: ['key', 'slot', 'state', 'token', 'waiting'],
  properties: {
    key: text,
    worker: { ...text, nullable: true, description: 'Key of its worker; null for a lease acquired by name' },
    slot: { ...number, description: 'Number of the share or partition' },
    state,
    holder: nodeReference,
    target: { ...nodeReference, description: 'The node that is meant to hold it (the target)' },
    token: { ...number, description: 'The latest fencing token' },
    acquiredAt: { ...time, nullable: true },
    blockedNode: {
      ...nodeReference,
      description: 'A revoked holder that has not acknowledged that it has stopped',
    },
    waiting: { ...number, description: 'Number of nodes that wait for it' },
    cooldown: {
      type: 'object',
      nullable: true,
      description: 'A node that does not get it back before that time while other nodes are available',
      required: ['node', 'until'],
      properties: { node: nodeReference, until: time },
    },
  },
} as const

/** One lease with all details. */
export const leaseDetail = {
  type: 'object',
  required: [...leaseItem.required, 'paused', 'inUse', 'candidateCount', 'schedule'],
  properties: {
    ...leaseItem.properties,
    kind: {
      ...text,
      nullable: true,
      description: 'Kind of its worker; null for a lease acquired by name',
    },
    paused: flag,
    inUse: { ...flag, description: 'False for a share of an older plan, which no node needs to hold' },
    candidateCount: { ...number, description: 'Number of nodes that may hold it' },
    schedule,
    session: {
      type: 'object',
      nullable: true,
      description: 'The session of the holder',
      required: ['pulse', 'ttlMs', 'heartbeatAt'],
      properties: { pulse, ttlMs: number, heartbeatAt: time },
    },
  },
} as const

const reference = { id: '4d2c1c3e-0c5e-4ab2-9a1e-6a5f8f0d4f11', name: 'node-1', cluster: 'eu-1' }

export const leaseExample = {
  key: 'eu-1/indexing',
  worker: 'eu-1/indexing',
  slot: 0,
  state: 'held',
  holder: reference,
  target: reference,
  token: 41,
  acquiredAt: '2026-03-01T01:00:01.000Z',
  blockedNode: null,
  waiting: 0,
  cooldown: null,
}

export const leaseDetailExample = {
  ...leaseExample,
  kind: 'single',
  paused: false,
  inUse: true,
  candidateCount: 2,
  schedule: scheduleExample,
  session: { pulse: 'steady', ttlMs: 15_000, heartbeatAt: '2026-03-01T03:09:58.000Z' },
}

const headers = matching('token')

export const leasesReply = pageOf(leaseItem, leaseExample)

export const listLeasesSchema = {
  summary: 'List leases',
  querystring: query({
    state: { type: 'string', enum: ['held', 'moving', 'blocked', 'unclaimed', 'free'] },
    holder: { ...name, description: 'Id or name of a node' },
    worker: key,
    ...pageQuery,
  }),
  response: reads({ 200: leasesReply, 304: notModified }),
} as const

export const getLeaseSchema = {
  summary: 'Get a lease; its ETag begins with its token',
  querystring: query({}),
  response: reads({ 200: one('The lease', leaseItem, leaseExample), 304: notModified }, 'not-found'),
} as const

export const leadersSchema = {
  summary:
    'List leaders: the holders of the leases of single workers, by key of the worker, without silent nodes',
  querystring: query({}),
  response: reads({
    200: {
      description: 'The leaders',
      type: 'object',
      additionalProperties: {
        type: 'object',
        required: ['node', 'id', 'cluster', 'token', 'sinceMs'],
        properties: {
          node: { ...text, description: 'Name of the node' },
          id: { ...text, description: 'Id of the node, because names need not be unique' },
          cluster: text,
          token: number,
          sinceMs: { ...number, nullable: true, description: 'How long it has been the leader' },
        },
      },
      examples: [
        {
          'eu-1/indexing': {
            node: reference.name,
            id: reference.id,
            cluster: 'eu-1',
            token: 41,
            sinceMs: 7_800_000,
          },
        },
      ],
    },
    304: notModified,
  }),
} as const

export const term = {
  type: 'object',
  required: ['holder', 'token', 'from', 'to', 'ended'],
  properties: {
    holder: { ...nodeReference, description: 'Null when it is no longer known' },
    holderId: { ...text, nullable: true, description: 'Id of the holder, kept for longer than its name' },
    token: number,
    from: { ...time, nullable: true },
    to: { ...time, nullable: true, description: 'Null while the term lasts, or when unknown' },
    ended: {
      type: 'object',
      nullable: true,
      description: 'How the term ended; null while it lasts',
      required: ['how', 'reason', 'actor', 'acknowledged'],
      properties: {
        how: { type: 'string', enum: ['released', 'revoked', 'lost', 'unknown'] },
        reason: {
          ...text,
          nullable: true,
          description:
            'What the actor wrote, or the reason of the engine, such as `passes-failed` or `draining`',
        },
        actor: { ...text, nullable: true, description: 'Who asked for it; null if nobody did' },
        acknowledged: {
          ...flag,
          nullable: true,
          description:
            'Of a term that was revoked: whether its holder has said that it has stopped, before the next term began',
        },
      },
    },
  },
} as const

const termExample = {
  holder: reference,
  holderId: reference.id,
  token: 41,
  from: '2026-03-01T01:00:01.000Z',
  to: '2026-03-01T03:10:00.000Z',
  ended: { how: 'revoked', reason: 'stuck since 03:10', actor: 'mira', acknowledged: true },
}

export const historyReply = {
  description: 'The terms',
  type: 'object',
  required: ['now', 'revision', 'items'],
  properties: { ...asOf, items: { type: 'array', items: term } },
  examples: [{ now: '2026-03-01T03:11:00.000Z', revision: 1210, items: [termExample] }],
} as const

export const historySchema = {
  summary: 'List the terms of a lease, newest first, as far back as the audit trail reaches',
  querystring: query({
    limit: { ...pageQuery.limit, description: 'Number of events to look through; default 100' },
  }),
  response: reads({ 200: historyReply }, 'not-found'),
} as const

const nullableTime = { ...time, nullable: true } as const
const nullableNumber = { ...number, nullable: true } as const

export const explanation = {
  required: ['key', 'lease', 'reasons', 'candidateCount', 'candidates'],
  properties: {
    key: text,
    lease: leaseDetail,
    reasons: {
      type: 'array',
      description: 'The most important reason first',
      items: {
        type: 'object',
        required: ['code', 'sentence'],
        properties: {
          code: { ...text, description: 'For programs; a code never changes its meaning' },
          sentence: text,
        },
      },
    },
    holder: {
      type: 'object',
      nullable: true,
      properties: { node: nodeReference, token: number, acquiredAt: nullableTime, heartbeatAgoMs: number },
    },
    target: {
      type: 'object',
      nullable: true,
      properties: { node: nodeReference, namedAt: nullableTime, unclaimedForMs: nullableNumber },
    },
    paused: flag,
    schedule,
    block: {
      type: 'object',
      nullable: true,
      properties: { node: nodeReference, token: number, until: nullableTime },
    },
    barrier: {
      type: 'array',
      items: nodeReference,
      description: 'Nodes that all shares of the new plan wait for',
    },
    candidateCount: { ...number, description: 'Number of nodes that could hold it now' },
    candidates: {
      type: 'array',
      items: {
        type: 'object',
        required: ['node', 'obstacles', 'coolingForMs'],
        properties: {
          node: { ...nodeReference, nullable: false },
          obstacles: { type: 'array', items: text },
          coolingForMs: nullableNumber,
        },
      },
    },
    waiting: { type: 'array', items: nodeReference },
  },
} as const

const explanationExample = {
  key: 'eu-1/indexing',
  lease: { ...leaseDetailExample, candidateCount: 1 },
  reasons: [{ code: 'held', sentence: 'Node "node-1" holds it.' }],
  holder: { node: reference, token: 41, acquiredAt: '2026-03-01T01:00:01.000Z', heartbeatAgoMs: 2_000 },
  target: { node: reference, namedAt: '2026-03-01T01:00:00.500Z', unclaimedForMs: null },
  paused: false,
  schedule: scheduleExample,
  block: null,
  barrier: [],
  candidateCount: 1,
  candidates: [{ node: reference, obstacles: [], coolingForMs: null }],
  waiting: [],
}

export const explainReply = one('The explanation', explanation, explanationExample)

export const explainSchema = {
  summary: 'Explain why a lease has this holder, or why it has none',
  querystring: query({}),
  response: reads({ 200: explainReply }, 'not-found'),
} as const

const cooldownMs = {
  type: 'integer',
  minimum: 0,
  maximum: maxCooldownMs,
  description:
    'How long the old holder does not get the lease back while other nodes are available; default 60 000',
} as const

export const releaseReply = {
  description: 'The lease has been taken away. Repeating the request gives the same response.',
  type: 'object',
  required: ['released', 'previousHolder', 'previousToken', 'safeAt', 'acknowledged', 'eventId', 'sentence'],
  properties: {
    released: { ...flag, description: 'False if nobody held it' },
    previousHolder: { ...nodeReference, description: 'Null when it is no longer known' },
    previousToken: number,
    safeAt: {
      ...time,
      description:
        'By this time the old holder has lost the lease, whether or not it acknowledges. Work that ignores ' +
        'its signal continues even then.',
    },
    acknowledged: { ...flag, description: 'Whether the old holder has already stopped' },
    eventId: { ...text, nullable: true, description: 'Id of the event in the audit trail' },
    sentence: { ...text, description: 'The same, for people to read' },
  },
  examples: [
    {
      released: true,
      previousHolder: reference,
      previousToken: 41,
      safeAt: '2026-03-01T03:12:20.000Z',
      acknowledged: false,
      eventId: '1207-0',
      sentence:
        'node-1 has not confirmed that it has stopped. The lease can be claimed at the end of this wait at the latest. ' +
        'For 60 s it will not get the lease back while another node is available.',
    },
  ],
} as const

export const releaseSchema = {
  summary: 'Revoke a lease: take it away from its holder by force',
  headers,
  querystring: query({}),
  body: body(
    {
      reason,
      cooldownMs,
      immediate: {
        type: 'boolean',
        description:
          'Whether the next holder may begin before the old one has stopped; both may then work at once',
      },
    },
    ['reason'],
    { reason: 'stuck since 03:10', cooldownMs: 60_000 },
  ),
  response: writes(
    {
      200: releaseReply,
    },
    'not-found',
    'conflict',
    'token-mismatch',
    'precondition-required',
  ),
} as const

export const transferReply = {
  202: {
    description: 'The holder has been asked to hand over',
    type: 'object',
    required: ['key', 'token', 'from', 'to', 'sentence'],
    properties: {
      key: text,
      token: number,
      from: nodeReference,
      to: { ...nodeReference, description: 'The node that is meant to hold it next (the target)' },
      sentence: { ...text, description: 'The same, for people to read' },
    },
    examples: [
      {
        key: 'eu-1/indexing',
        token: 41,
        from: reference,
        to: { id: '0b7f4d52-77d1-4c4c-8f43-1a1b3f2f9a02', name: 'node-2', cluster: 'eu-1' },
        sentence: 'node-1 has been asked. node-2 is to have it next, once its pass has ended.',
      },
    ],
  },
} as const
const transferProblems = ['not-found', 'conflict', 'token-mismatch', 'precondition-required'] as const

export const stepDownSchema = {
  summary: 'Ask the holder to step down; another node follows when its pass has ended',
  headers,
  querystring: query({}),
  body: { ...optionalBody({ reason, cooldownMs }), examples: [{ reason: 'before the upgrade' }] },
  response: writes(transferReply, ...transferProblems),
} as const

export const transferSchema = {
  summary: 'Ask the holder to hand over to a given node',
  headers,
  querystring: query({}),
  body: body(
    {
      to: {
        ...name,
        description:
          'Id of the node that is to have it next, not its name; a cool-down of that node for this lease ends',
      },
      reason,
      cooldownMs: {
        ...cooldownMs,
        description:
          'How long the old holder does not get the lease back while other nodes are available; default 60 000, and 0 for a partition, since partitions are shared out evenly again after that time',
      },
    },
    ['to', 'reason'],
    {
      to: '0b7f4d52-77d1-4c4c-8f43-1a1b3f2f9a02',
      reason: 'node-1 is about to be replaced',
    },
  ),
  response: writes(transferReply, ...transferProblems),
} as const
