import { flag, notModified, number, one, pulse, query, reads, text } from './common.js'
import { leaseDetail, leaseDetailExample } from './leases.js'
import { nodeExample, nodeItem } from './nodes.js'
import { problem, statusExample, statusProperties } from './status.js'
import { pause } from './workers.js'

const rows = <const Item extends object>(what: string, item: Item) =>
  ({
    type: 'object',
    description: `${what}, at most as many as were requested; those that need attention come first`,
    required: ['items', 'total'],
    properties: { items: { type: 'array', items: item }, total: number },
  }) as const

const node = {
  type: 'object',
  required: [...nodeItem.required, 'ttlMs', 'pulse', 'leads', 'leadCount', 'slotCount', 'fairSlotCount'],
  properties: {
    ...nodeItem.properties,
    ttlMs: number,
    pulse,
    leads: {
      type: 'array',
      items: text,
      description: 'Keys of the leases it holds, without shares and partitions; at most 20',
    },
    leadCount: number,
    slotCount: { ...number, description: 'Number of shares and partitions it holds' },
    fairSlotCount: {
      type: 'number',
      description: 'Number of shares and partitions it would hold if all candidates held the same number',
    },
  },
} as const

const assignment = {
  type: 'object',
  required: [
    'worker',
    'kind',
    'generation',
    'slots',
    'owned',
    'moving',
    'unowned',
    'owners',
    'least',
    'most',
    'paused',
    'pause',
    'candidateCount',
    'map',
  ],
  properties: {
    worker: text,
    kind: { type: 'string', enum: ['coordinated', 'partitioned'] },
    generation: number,
    slots: number,
    owned: number,
    moving: number,
    unowned: number,
    owners: { ...number, description: 'Number of nodes that own any; each owns from `least` to `most`' },
    least: number,
    most: number,
    paused: flag,
    pause,
    candidateCount: number,
    map: {
      type: 'object',
      nullable: true,
      description: 'Null when there are too many slots: GET /assignments/{key} returns them',
      required: ['states', 'owners'],
      properties: {
        states: { ...text, description: 'One letter per slot: o(wned), m(oving), u(nowned)' },
        owners: {
          type: 'array',
          items: number,
          description: 'For each slot, the index of its owner in the roster; -1 for none',
        },
      },
    },
  },
} as const

const properties = {
  ...statusProperties,
  problems: {
    type: 'array',
    description: 'What needs attention, the worst first: some problems of each kind',
    items: {
      ...problem,
      required: [...problem.required, 'lease', 'forgettable', 'more'],
      properties: {
        ...problem.properties,
        lease: { ...leaseDetail, nullable: true, description: 'The lease that is the subject, if it is one' },
        forgettable: {
          ...flag,
          description: 'Whether the subject is a worker that no node registers, and that may be forgotten',
        },
        more: {
          ...number,
          description: 'Number of problems of this kind that are left out; given with the last one shown',
        },
      },
    },
  },
  problemCodes: {
    type: 'array',
    description: 'Number of problems of each kind, the worst kind first',
    items: { type: 'object', required: ['code', 'count'], properties: { code: text, count: number } },
  },
  problemCounts: {
    type: 'object',
    description: 'Number of problems of each severity',
    required: ['error', 'warning', 'info'],
    properties: { error: number, warning: number, info: number },
  },
  totals: {
    type: 'object',
    description:
      '`leases` and `held` count leases without shares and partitions, `slots` and `owned` only those. What a ' +
      'silent node holds is neither held nor owned.',
    required: ['leases', 'held', 'slots', 'owned'],
    properties: { leases: number, held: number, slots: number, owned: number },
  },
  roster: {
    type: 'object',
    description: 'At most 4 096 nodes; those that are gone come last',
    required: ['ids', 'names', 'states'],
    properties: {
      ids: { type: 'array', items: text },
      names: { type: 'array', items: text },
      states: { ...text, description: 'One letter per node: a(ctive), l(ate), s(ilent), d(raining), g(one)' },
    },
  },
  versions: {
    type: 'array',
    description: 'Versions of the nodes that are not gone, the most common first; at most 10',
    items: { type: 'object', required: ['version', 'count'], properties: { version: text, count: number } },
  },
  nodes: rows('Nodes', node),
  leases: rows('Leases (shares and partitions only with `q`)', leaseDetail),
  assignments: rows('Assignments', assignment),
} as const

const example = {
  ...statusExample,
  problems: statusExample.problems.map((each) => ({ ...each, lease: null, forgettable: false, more: 0 })),
  problemCodes: [{ code: 'node-silent', count: 1 }],
  problemCounts: { error: 1, warning: 0, info: 0 },
  totals: { leases: 1, held: 1, slots: 3, owned: 2 },
  roster: { ids: [nodeExample.id], names: ['node-1'], states: 'a' },
  versions: [{ version: '1.4.2', count: 3 }],
  nodes: {
    items: [
      {
        ...nodeExample,
        ttlMs: 15_000,
        pulse: 'steady',
        leads: ['eu-1/indexing'],
        leadCount: 1,
        slotCount: 22,
        fairSlotCount: 21.7,
      },
    ],
    total: 1,
  },
  leases: {
    items: [leaseDetailExample],
    total: 1,
  },
  assignments: {
    items: [
      {
        worker: 'global/consumer',
        kind: 'partitioned',
        generation: 0,
        slots: 3,
        owned: 2,
        moving: 0,
        unowned: 1,
        owners: 1,
        least: 2,
        most: 2,
        paused: false,
        pause: null,
        candidateCount: 1,
        map: { states: 'oou', owners: [0, 0, -1] },
      },
    ],
    total: 1,
  },
}

const limit = (what: string) =>
  ({
    type: 'integer',
    minimum: 1,
    maximum: 500,
    description: `Maximum number of ${what}; default 12`,
  }) as const

export const overviewReply = one(
  'The namespace at one instant',
  { properties, required: Object.keys(properties) },
  example,
)

export const overviewSchema = {
  summary: 'Get what one page can show of the namespace, however large it is',
  querystring: query({
    q: {
      type: 'string',
      pattern: '^[ -~]{1,100}$',
      description: 'Only items that contain this text, ignoring case; leases are also found by their holder',
    },
    nodes: limit('nodes'),
    leases: limit('leases'),
    assignments: limit('assignments'),
    problems: {
      type: 'integer',
      minimum: 1,
      maximum: 500,
      description: 'Approximate number of problems, spread evenly over the kinds; default 10 of each kind',
    },
  }),
  response: reads({
    200: overviewReply,
    304: notModified,
  }),
} as const
