import { severities } from '../../core/reports/problems.js'
import { interventions } from '../guard/access.js'
import { leaseStates, nodeStates, workerStates } from '../snapshot/counts.js'
import { assignment, assignmentExample } from './assignments.js'
import { asOf, flag, notModified, number, one, query, reads, text } from './common.js'
import { leaseExample, leaseItem } from './leases.js'
import { nodeExample, nodeItem } from './nodes.js'

const durations = {
  ttlMs: { ...number, description: 'A node without a new heartbeat for this long is declared gone' },
  heartbeatMs: number,
  pollMs: number,
  claimTimeoutMs: number,
  handoverTimeoutMs: number,
  drainTimeoutMs: number,
  longestTtlMs: {
    ...number,
    description:
      'The longest `ttlMs` of all nodes: how long a node waits before it judges others follows from it',
  },
  blockWaitMs: {
    ...number,
    description: 'How long after a revocation the old holder has stopped at the latest',
  },
} as const

const counted = <const Name extends string>(names: readonly Name[]) =>
  ({ type: 'object', required: names, properties: eachOf(names, number) }) as const

/** Counts by states of which `silent` excludes every other. */
const countedWithSilent = <const Name extends string>(names: readonly Name[], silent: string) => {
  const { properties, ...schema } = counted(names)
  return { ...schema, properties: { ...properties, silent: { ...number, description: silent } } } as const
}

/** Returns properties with these names that all have the same schema. */
function eachOf<const Name extends string, Schema>(
  names: readonly Name[],
  schema: Schema,
): Readonly<Record<Name, Schema>> {
  return Object.fromEntries(names.map((name) => [name, schema])) as Record<Name, Schema>
}

export const problem = {
  type: 'object',
  required: ['code', 'severity', 'subject', 'sentence'],
  properties: {
    code: { ...text, description: 'For programs; a code never changes its meaning' },
    severity: { type: 'string', enum: severities },
    subject: { ...text, description: 'Key of a lease or worker, or id of a node' },
    sentence: text,
  },
} as const

/** The properties that `/status` and `/overview` share. */
export const statusProperties = {
  namespace: text,
  self: {
    type: 'object',
    required: ['name', 'cluster', 'state'],
    properties: {
      id: { ...text, nullable: true, description: 'Id of this node; null while it has not joined' },
      name: text,
      cluster: text,
      state: { type: 'string', enum: ['idle', 'starting', 'running', 'closing', 'closed'] },
    },
  },
  counts: {
    type: 'object',
    required: ['nodes', 'workers', 'leases'],
    properties: {
      nodes: countedWithSilent(
        nodeStates,
        'Nodes from which no heartbeat has come for longer than their ttl; counted nowhere else',
      ),
      workers: counted(workerStates),
      leases: countedWithSilent(leaseStates, 'Leases of silent holders; counted nowhere else'),
    },
  },
  problems: { type: 'array', description: 'What needs attention, the worst first', items: problem },
  capabilities: {
    type: 'object',
    description: 'Who made the request, and what they may do',
    required: ['actor', 'read', ...interventions],
    properties: {
      actor: {
        type: 'object',
        nullable: true,
        required: ['id'],
        properties: { id: text, display: text },
      },
      read: flag,
      ...eachOf(interventions, flag),
    },
  },
  timing: { type: 'object', required: Object.keys(durations), properties: durations },
} as const

const properties = {
  ...statusProperties,
  nodes: { type: 'array', items: nodeItem, description: 'The first 100 nodes, those that are gone last' },
  leases: { type: 'array', items: leaseItem, description: 'The first 100 leases, by key' },
  assignments: {
    type: 'array',
    items: assignment,
    description: 'The first 100 assignments, by key of the worker',
  },
} as const

const { capabilities: _ofOneViewer, ...stateProperties } = statusProperties

/** What the stream sends of it: the same for every viewer, without lists. */
export const streamedState = {
  type: 'object',
  required: [...Object.keys(asOf), ...Object.keys(stateProperties)],
  properties: { ...asOf, ...stateProperties },
} as const

export const statusExample = {
  namespace: 'default',
  self: { id: '4d2c1c3e-0c5e-4ab2-9a1e-6a5f8f0d4f11', name: 'node-1', cluster: 'eu-1', state: 'running' },
  counts: {
    nodes: { active: 2, draining: 0, silent: 1, gone: 1 },
    workers: { running: 4, paused: 0 },
    leases: { held: 45, moving: 0, silent: 22, blocked: 0, unclaimed: 0, free: 0 },
  },
  problems: [
    {
      code: 'node-silent',
      severity: 'error',
      subject: '0b7f4d52-77d1-4c4c-8f43-1a1b3f2f9a02',
      sentence: 'No heartbeat of node "node-2" has come since 2026-03-01 03:09:44 UTC.',
    },
  ],
  capabilities: {
    actor: { id: 'mira', display: 'Mira' },
    read: true,
    ...Object.fromEntries(interventions.map((action) => [action, true])),
  },
  timing: {
    ttlMs: 15_000,
    heartbeatMs: 5_000,
    pollMs: 1_000,
    claimTimeoutMs: 2_000,
    handoverTimeoutMs: 30_000,
    drainTimeoutMs: 20_000,
    longestTtlMs: 15_000,
    blockWaitMs: 19_650,
  },
}

const example = {
  ...statusExample,
  nodes: [nodeExample],
  leases: [leaseExample],
  assignments: [assignmentExample],
}

export const statusSchema = {
  summary: 'Get the state of the namespace, and what needs attention',
  querystring: query({}),
  response: reads({
    200: one('The namespace at one instant', { properties, required: Object.keys(properties) }, example),
    304: notModified,
  }),
} as const
