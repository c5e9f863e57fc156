import { asOf, key, number, pageQuery, query, reads, text, time } from './common.js'

const eventId = { type: 'string', pattern: '^[0-9]{1,15}-[0-9]{1,9}$' } as const

export const event = {
  type: 'object',
  required: ['id', 'at', 'type', 'subject', 'sentence'],
  properties: {
    id: text,
    at: time,
    type: { ...text, description: 'Type of the event, such as `lease.revoked`' },
    subject: { ...text, description: 'Key of a lease or worker, or id of a node' },
    node: { ...text, nullable: true, description: 'Id of the node on which, or to which, it happened' },
    nodeName: {
      ...text,
      nullable: true,
      description: 'Name of that node; null when it is no longer known',
    },
    token: { ...number, nullable: true },
    actor: { ...text, nullable: true },
    reason: { ...text, nullable: true },
    sentence: {
      ...text,
      description: 'What happened, for people to read; `actor` and `reason` say who asked for it and why',
    },
    detail: { type: 'object', nullable: true, additionalProperties: true },
  },
} as const

const example = {
  id: '1207-0',
  at: '2026-03-01T03:12:00.000Z',
  type: 'lease.revoked',
  subject: 'eu-1/indexing',
  node: '4d2c1c3e-0c5e-4ab2-9a1e-6a5f8f0d4f11',
  nodeName: 'node-1',
  token: 41,
  actor: 'mira',
  reason: 'stuck since 03:10',
  sentence: 'It was taken away from node-1.',
  detail: { immediate: false, cooldownMs: 60_000 },
}

const subject = {
  type: 'string',
  pattern: `${key.pattern}|^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`,
  description: 'Key of a lease or worker, or id of a node',
} as const

export const eventsReply = {
  description: 'The events',
  type: 'object',
  required: ['now', 'revision', 'items', 'next'],
  properties: {
    ...asOf,
    items: { type: 'array', items: event },
    next: {
      ...text,
      nullable: true,
      description: 'The `after` of the next request; null while there are no events',
    },
  },
  examples: [{ now: '2026-03-01T03:13:00.000Z', revision: 1210, items: [example], next: '1207-0' }],
} as const

export const listEventsSchema = {
  summary: 'List events: the latest, newest first; with `after`, those that came later, oldest first',
  querystring: query({
    after: {
      ...eventId,
      description:
        'The `next` of an earlier response, or the id of an event; `0-0` to begin with the oldest event',
    },
    type: {
      type: 'string',
      pattern: '^[a-z][a-z.-]{0,49}(,[a-z][a-z.-]{0,49}){0,19}$',
      description:
        'One event type, or several separated by commas; `node.` selects all types that begin with it',
    },
    subject,
    limit: pageQuery.limit,
  }),
  response: reads(
    {
      200: eventsReply,
    },
    'cursor-expired',
  ),
} as const
