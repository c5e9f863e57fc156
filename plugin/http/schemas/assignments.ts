import {
  asOf,
  body,
  flag,
  matching,
  name,
  nodeReference,
  notModified,
  number,
  one,
  pageOf,
  pageQuery,
  query,
  reads,
  reason,
  text,
  writes,
} from './common.js'

export const assignment = {
  type: 'object',
  required: ['worker', 'kind', 'generation', 'planRevision', 'slots'],
  properties: {
    worker: text,
    kind: { type: 'string', enum: ['coordinated', 'partitioned'] },
    generation: { ...number, description: 'Number of the plan in force' },
    planRevision: {
      ...number,
      description: 'Number of the latest change to any of it; the ETag begins with it, for use in If-Match',
    },
    slots: {
      type: 'array',
      description: 'The shares or partitions',
      items: {
        type: 'object',
        required: ['slot', 'key', 'state', 'token'],
        properties: {
          slot: number,
          key: { ...text, description: 'Key of its lease' },
          state: {
            type: 'string',
            enum: ['owned', 'moving', 'unowned'],
            description:
              'owned: held by its target; moving: its owner has been asked to hand it over; unowned: held by no ' +
              'node, or only by a silent one',
          },
          owner: nodeReference,
          target: { ...nodeReference, description: 'The node that is meant to hold it (the target)' },
          token: number,
        },
      },
    },
  },
} as const

const reference = { id: '4d2c1c3e-0c5e-4ab2-9a1e-6a5f8f0d4f11', name: 'node-1', cluster: 'eu-1' }

export const assignmentExample = {
  worker: 'global/consumer',
  kind: 'partitioned',
  generation: 0,
  planRevision: 1207,
  slots: [
    { slot: 0, key: 'global/consumer#0', state: 'owned', owner: reference, target: reference, token: 12 },
  ],
}

export const listAssignmentsSchema = {
  summary: 'List the shares and partitions of all workers that have any',
  querystring: query({ cluster: name, ...pageQuery }),
  response: reads({ 200: pageOf(assignment, assignmentExample), 304: notModified }),
} as const

export const getAssignmentSchema = {
  summary: 'Get the shares or partitions of a worker; the ETag begins with `planRevision`',
  querystring: query({}),
  response: reads(
    { 200: one('The assignment', assignment, assignmentExample), 304: notModified },
    'not-found',
  ),
} as const

const moves = {
  type: 'object',
  required: ['now', 'revision', 'worker', 'dryRun', 'generation', 'moves'],
  properties: {
    ...asOf,
    worker: text,
    dryRun: { ...flag, description: 'Whether this was a dry run, which changes nothing' },
    generation: number,
    moves: {
      type: 'array',
      items: {
        type: 'object',
        required: ['slot', 'from', 'to'],
        properties: { slot: number, from: nodeReference, to: nodeReference },
      },
    },
  },
  examples: [
    {
      now: '2026-03-01T03:10:00.000Z',
      revision: 1208,
      worker: 'global/consumer',
      dryRun: true,
      generation: 0,
      moves: [{ slot: 3, from: null, to: reference }],
    },
  ],
} as const

export const rebalanceSchema = {
  summary: 'Plan shares or partitions anew; a dry run only reports what would move, and needs no If-Match',
  headers: matching('revision'),
  querystring: query({}),
  body: body({ reason, dryRun: flag }, ['reason'], { reason: 'after adding node-4', dryRun: true }),
  response: writes(
    {
      200: { description: 'The moves that would be made; empty if there are none', ...moves },
      202: { description: 'The moves that are being made', ...moves },
    },
    'not-found',
    'token-mismatch',
    'precondition-required',
  ),
} as const
