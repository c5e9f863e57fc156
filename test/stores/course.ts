/**
 * Courses: random calls on a store, one after another, as plain data.
 *
 * A course has a small cast of names, so that its steps meet each other's rows again and again. Its names are such that
 * some database takes one for another. What must fit what is stored, such as the number of a heartbeat, is given
 * relative to it. So a course stays meaningful when steps are left out of it, and a failing one can be shortened.
 */
import fc from 'fast-check'
import type {
  EventQuery,
  LeaseFilter,
  LeaseRow,
  MetaRow,
  NewEvent,
  NewNode,
  WorkerRow,
} from '../../plugin/core/store.js'
import { names } from '../../plugin/testing/conformance/world.js'

export interface Course {
  readonly cast: readonly string[]
  readonly steps: readonly Step[]
}

export interface Step {
  /** The store that is asked. The first two have the same namespace, the third has another in the same database. */
  readonly via: 0 | 1 | 2
  /** The time that passes before the step, where the test owns the clock. A negative time sets it back. */
  readonly passMs: number
  readonly verb: Verb
}

/** How a number relates to the stored one. */
export type Relation = 'next' | 'far' | 'same' | 'older'

export type Read =
  | { readonly verb: 'view' | 'news'; readonly node: string }
  | { readonly verb: 'look' | 'snapshot' }
  | { readonly verb: 'beats' | 'leasesAfter'; readonly after: string; readonly most: number }
  | { readonly verb: 'neighbours'; readonly machine: string }
  | { readonly verb: 'events'; readonly query: EventQuery }

export interface Heartbeat {
  readonly verb: 'heartbeat'
  readonly node: string
  readonly beat: Relation
}

/** How old something may be: everything is too old, nothing is, or an age in ms where the test owns the clock. */
export type Age = 'all' | 'none' | number

export type Verb =
  | Read
  | Heartbeat
  | { readonly verb: 'prune'; readonly events: number; readonly eventsFor: Age; readonly goneNodesFor: Age }
  | {
      readonly verb: 'fence'
      /** Undefined for a lease that is held, if there is one. */
      readonly key: string | undefined
      /** Undefined for the holder. */
      readonly node: string | undefined
      readonly token: Relation
    }
  | { readonly verb: 'change'; readonly change: Alteration }
  /** Two changes at once, in two stores. */
  | { readonly verb: 'race'; readonly changes: readonly [Alteration, Alteration] }

export interface Alteration {
  readonly session: { readonly node: string; readonly operation: Relation } | undefined
  /** Whether the change says ahead what it will read first, and whether that is true. */
  readonly ahead: 'nothing' | 'the truth' | 'something else'
  readonly deeds: readonly Deed[]
  /** Asked of another store when half of the deeds are done. */
  readonly beside: readonly (Read | Heartbeat)[]
  /** `goes on`: the change ignores deeds that fail. */
  readonly end: 'well' | 'throws' | 'goes on' | 'asks when it is over' | 'with a last view'
}

/** What the engine does to a lease that it has read. */
export const edits = [
  ...([
    'plan',
    'claim',
    'release',
    'revoke',
    'acknowledge',
    'queue',
    'withdraw',
    'cool',
    'warm',
    'fire',
  ] as const),
  ...(['belong', 'clear'] as const),
]

export type Deed =
  | { readonly deed: 'nodes' | 'loads' | 'highestToken' }
  | { readonly deed: 'nodesById'; readonly ids: readonly string[] }
  | { readonly deed: 'workers'; readonly keys: readonly string[] }
  | { readonly deed: 'leases'; readonly filter: LeaseFilter }
  | { readonly deed: 'view'; readonly node: string }
  | { readonly deed: 'addNode'; readonly node: NewNode; readonly operation: number }
  | {
      readonly deed: 'updateNode'
      readonly id: string
      readonly patch: { readonly state?: 'active' | 'draining'; readonly workers?: readonly string[] }
    }
  | { readonly deed: 'bury'; readonly id: string; readonly beat: Relation | undefined }
  | { readonly deed: 'forgetNode'; readonly id: string }
  | { readonly deed: 'forgetWorker'; readonly key: string }
  | { readonly deed: 'saveWorkers'; readonly rows: readonly WorkerRow[] }
  | { readonly deed: 'saveLeases'; readonly rows: readonly LeaseRow[] }
  | {
      readonly deed: 'edit'
      readonly key: string
      readonly as: (typeof edits)[number]
      readonly other: string
      readonly number: number
    }
  | { readonly deed: 'deleteLeases'; readonly keys: readonly string[] }
  | { readonly deed: 'saveMeta'; readonly patch: Partial<Omit<MetaRow, 'revision'>> }
  | { readonly deed: 'record'; readonly events: readonly NewEvent[] }
  | { readonly deed: 'tell'; readonly nodes: readonly string[] }

/** Returns the steps with the names of the cast in place of their placeholders. */
export function cast({ cast, steps }: Course): readonly Step[] {
  return named(steps, new Map(cast.map((name, place) => [placeholder(place), name])))
}

function named<T>(value: T, cast: ReadonlyMap<string, string>): T {
  if (typeof value === 'string') return (cast.get(value) ?? value) as T
  if (Array.isArray(value)) return value.map((each) => named(each, cast)) as T
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, named(each, cast)])) as T
}

function placeholder(place: number): string {
  return `<${place}>`
}

const castSize = 6

/**
 * Names that are alike, and names that have caused faults elsewhere. The longest has as many characters as a key can
 * have.
 */
const hostileNames = [
  ...names,
  ...[
    '',
    'strasse',
    'straße',
    'Straße',
    'a/b',
    'A/b',
    'a/B',
    'a#1',
    'a#01',
    'a#1 ',
    'a# 1',
    'a\u00a0',
    'a\u0000'.slice(0, 1),
  ],
  ...['ａ', '\uff5e', '𝒳', 'ñ', 'n\u0303', 'N\u0303', 'œ', 'oe', 'ﬁ', 'fi', '\u212b', '\u00c5', 'A\u030a'],
  ...['x'.repeat(212), `${'x'.repeat(211)}X`, `${'x'.repeat(211)} `, 'é'.repeat(212), '😀'.repeat(106)],
]

/** Names that are alike. A cast is more often made of one such family than of unrelated names. */
const families = [
  ['plain', 'Plain', 'PLAIN', 'plain ', ' plain', 'pl\u00e1in', 'pla\u0301in', 'plain\t', 'plain%', 'pl_in'],
  ['strasse', 'straße', 'Straße', 'ß', 'ss', 'STRASSE', 'ẞ'],
  ['i', 'I', 'ı', 'İ', '\u0131\u0307', 'i\u0307'],
  ['a', 'A', 'ａ', 'á', 'a ', 'a  ', 'a\u200b', 'a\u00a0', 'æ', 'ae'],
  ['\uff5e', '😀', '\ue000', 'x \ue000', 'x ', 'x', 'x \ue000\ue000'],
  ['0', '00', '0 ', '0.0', '-0', '1e3', '1000', 'null', ''],
]

const manyNames = fc.constantFrom(...new Set(hostileNames))
const castOf = (name: fc.Arbitrary<string>): fc.Arbitrary<string[]> =>
  fc.uniqueArray(name, { minLength: castSize, maxLength: castSize })

const casts = fc.oneof(
  { arbitrary: castOf(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g')), weight: 1 },
  { arbitrary: castOf(manyNames), weight: 3 },
  { arbitrary: fc.oneof(...families.map((family) => castOf(fc.constantFrom(...family)))), weight: 3 },
)

/** A name of the cast, seldom another one. */
const who = fc.oneof(
  { arbitrary: fc.nat(castSize - 1).map(placeholder), weight: 24 },
  { arbitrary: manyNames, weight: 1 },
)

/** There are fewer node names, so that most of the nodes named exist. */
const aNode = fc.oneof({ arbitrary: fc.nat(2).map(placeholder), weight: 12 }, { arbitrary: who, weight: 2 })

const few = fc.array(who, { maxLength: 3 })
const fewNodes = fc.array(aNode, { maxLength: 3 })
const orNothing = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | null> => fc.option(arbitrary, { freq: 2 })

/** Mostly small numbers, and some that are too large for a column with too few bits. */
const numbers = fc.oneof(
  { arbitrary: fc.nat(5), weight: 6 },
  {
    arbitrary: fc.constantFrom(2 ** 31 - 1, 2 ** 31, 2 ** 32 + 1, 1_790_000_000_000, Number.MAX_SAFE_INTEGER),
    weight: 1,
  },
)

const relations: fc.Arbitrary<Relation> = fc.oneof(
  { arbitrary: fc.constant<Relation>('next'), weight: 6 },
  { arbitrary: fc.constantFrom<Relation[]>('far', 'same', 'older'), weight: 2 },
)

/** Text that people and programs write and that is in no index. */
const freeText = fc.oneof(
  manyNames,
  fc.constantFrom(
    '',
    'a\0b',
    '\ud800',
    'x\udc00y',
    '\ufdd0',
    '\uffff',
    '\\u0000',
    '"\\',
    'a\r\nb',
    'x'.repeat(3_000),
  ),
)

const details = fc.letrec<{ value: unknown; detail: Record<string, unknown> }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 2, withCrossShrink: true },
    fc.oneof(freeText, numbers, fc.boolean(), fc.constantFrom(null, -1, 0.1, 1e-7, 1e21, -2.5e300)),
    fc.array(tie('value'), { maxLength: 3 }),
    tie('detail'),
  ),
  detail: fc.dictionary(
    fc.oneof(manyNames, fc.constantFrom('b', 'a', '10', '9', 'toString', 'length')),
    tie('value'),
    { maxKeys: 3, noNullPrototype: true },
  ),
})).detail

const machines = fc.constantFrom('here', 'Here', 'here ', 'there')

const newNodes: fc.Arbitrary<NewNode> = fc.record({
  id: fc.oneof(aNode, who),
  name: who,
  cluster: who,
  workers: few,
  labels: fc.dictionary(manyNames, manyNames, { maxKeys: 2, noNullPrototype: true }),
  version: orNothing(manyNames),
  machine: orNothing(machines),
  process: orNothing(fc.constantFrom('1@1', '2@1', '')),
  ttlMs: numbers,
})

const workerRows: fc.Arbitrary<WorkerRow> = fc.record({
  key: who,
  name: who,
  kind: fc.constantFrom('coordinated', 'single', 'partitioned'),
  scope: fc.constantFrom('global', 'cluster'),
  cluster: orNothing(who),
  generation: numbers,
  slots: fc.constantFrom(1, 0, 3, 2 ** 31 - 1),
  paused: fc.boolean(),
  handoverTimeoutMs: numbers,
  schedule: orNothing(fc.constantFrom('{"cron":"0 3 * * *"}', '', ' ')),
  revision: fc.constantFrom(0, 77),
})

const leaseRows: fc.Arbitrary<LeaseRow> = fc.record({
  key: who,
  worker: orNothing(who),
  slot: fc.constantFrom(0, 1, 2 ** 31 - 1),
  generation: numbers,
  target: orNothing(aNode),
  targetAtMs: orNothing(numbers),
  holder: orNothing(aNode),
  token: numbers,
  attempt: orNothing(numbers),
  identity: orNothing(manyNames),
  acquiredAtMs: orNothing(numbers),
  blockedNode: orNothing(aNode),
  blockedToken: orNothing(numbers),
  cooldownNode: orNothing(aNode),
  cooldownUntilMs: orNothing(numbers),
  firedAtMs: orNothing(numbers),
  waiters: fewNodes,
  pending: fc.boolean(),
  revision: fc.constantFrom(0, 77),
})

const filters: fc.Arbitrary<LeaseFilter> = fc.record(
  { keys: few, workers: few, nodes: fewNodes },
  { requiredKeys: [] },
)

const newEvents: fc.Arbitrary<NewEvent> = fc.record(
  {
    type: fc.constantFrom('lease.acquired', 'node.gone', 'Node.gone'),
    subject: who,
    node: orNothing(who),
    token: orNothing(numbers),
    actor: orNothing(freeText),
    reason: orNothing(freeText),
    detail: orNothing(details),
  },
  { requiredKeys: ['type', 'subject'] },
)

const metaPatches: fc.Arbitrary<Partial<Omit<MetaRow, 'revision'>>> = fc.record(
  {
    watchers: fc.uniqueArray(aNode, { maxLength: 3 }),
    longestTtlMs: numbers,
    tokenFloor: numbers,
    serverIdentity: manyNames,
    identitySettled: fc.boolean(),
  },
  { requiredKeys: [] },
)

const nodePatches = fc.oneof(
  fc.record({
    state: fc.constantFrom<('active' | 'draining')[]>('draining', 'draining', 'draining', 'active'),
  }),
  fc.record({ workers: few }),
  fc.record({
    state: fc.constantFrom<('active' | 'draining')[]>('draining', 'draining', 'draining', 'active'),
    workers: few,
  }),
)

const joins: fc.Arbitrary<Deed & { deed: 'addNode' }> = fc.record({
  deed: fc.constant('addNode' as const),
  node: newNodes,
  operation: fc.constantFrom(1, 2, 2 ** 40),
})

const deeds: fc.Arbitrary<Deed> = oneOf<Deed>(
  [1, fc.record({ deed: fc.constantFrom('nodes' as const, 'highestToken' as const) })],
  [2, fc.record({ deed: fc.constant('loads' as const) })],
  [1, fc.record({ deed: fc.constant('nodesById' as const), ids: fewNodes })],
  [1, fc.record({ deed: fc.constant('workers' as const), keys: few })],
  [2, fc.record({ deed: fc.constant('leases' as const), filter: filters })],
  [1, fc.record({ deed: fc.constant('view' as const), node: aNode })],
  [2, joins],
  [3, fc.record({ deed: fc.constant('updateNode' as const), id: aNode, patch: nodePatches })],
  [
    2,
    fc.record({
      deed: fc.constant('bury' as const),
      id: aNode,
      beat: fc.constantFrom<(Relation | undefined)[]>(undefined, 'same', 'same', 'older', 'far'),
    }),
  ],
  [2, fc.record({ deed: fc.constant('forgetNode' as const), id: aNode })],
  [1, fc.record({ deed: fc.constant('forgetWorker' as const), key: who })],
  [2, fc.record({ deed: fc.constant('saveWorkers' as const), rows: fc.array(workerRows, { maxLength: 2 }) })],
  [2, fc.record({ deed: fc.constant('saveLeases' as const), rows: fc.array(leaseRows, { maxLength: 3 }) })],
  [
    5,
    fc.record({
      deed: fc.constant('edit' as const),
      key: who,
      as: fc.constantFrom(...edits),
      other: aNode,
      number: numbers,
    }),
  ],
  [1, fc.record({ deed: fc.constant('deleteLeases' as const), keys: few })],
  [1, fc.record({ deed: fc.constant('saveMeta' as const), patch: metaPatches })],
  [2, fc.record({ deed: fc.constant('record' as const), events: fc.array(newEvents, { maxLength: 3 }) })],
  [1, fc.record({ deed: fc.constant('tell' as const), nodes: fewNodes })],
)

const heartbeats: fc.Arbitrary<Heartbeat> = fc.record({
  verb: fc.constant('heartbeat' as const),
  node: aNode,
  beat: relations,
})

const queries: fc.Arbitrary<EventQuery> = fc.record(
  {
    limit: fc.constantFrom(3, 1, 100, 0),
    after: fc.record({ revision: fc.nat(12), position: fc.nat(2) }),
    types: fc.array(fc.constantFrom('node.gone', 'Node.gone', 'lease.acquired', 'nothing'), { maxLength: 2 }),
    subject: who,
  },
  { requiredKeys: ['limit'] },
)

const reads: fc.Arbitrary<Read> = oneOf<Read>(
  [3, fc.record({ verb: fc.constantFrom('view' as const, 'news' as const), node: aNode })],
  [1, fc.record({ verb: fc.constant('snapshot' as const) })],
  [2, fc.record({ verb: fc.constant('look' as const) })],
  [
    1,
    fc.record({
      verb: fc.constantFrom('beats' as const, 'leasesAfter' as const),
      after: fc.oneof(aNode, fc.constant('')),
      most: fc.nat(4),
    }),
  ],
  [1, fc.record({ verb: fc.constant('neighbours' as const), machine: machines })],
  [3, fc.record({ verb: fc.constant('events' as const), query: queries })],
)

const alterations: fc.Arbitrary<Alteration> = fc.record({
  session: fc.option(fc.record({ node: aNode, operation: relations }), { nil: undefined, freq: 2 }),
  ahead: fc.constantFrom<Alteration['ahead'][]>('nothing', 'the truth', 'the truth', 'something else'),
  deeds: fc.array(deeds, { maxLength: 7, size: 'max' }),
  beside: fc.oneof(
    { arbitrary: fc.constant([]), weight: 3 },
    { arbitrary: fc.array(fc.oneof(reads, heartbeats), { maxLength: 3 }), weight: 1 },
  ),
  end: oneOf<Alteration['end']>(
    [14, fc.constant('well')],
    [2, fc.constant('with a last view')],
    [1, fc.constant('throws')],
    [2, fc.constant('goes on')],
    [1, fc.constant('asks when it is over')],
  ),
})

const ages: fc.Arbitrary<Age> = fc.oneof(fc.constantFrom<Age[]>('none', 'all'), fc.constantFrom(0, 1, 5, 40))

const verbs: fc.Arbitrary<Verb> = oneOf<Verb>(
  [8, reads],
  [5, heartbeats],
  [
    4,
    fc.record({
      verb: fc.constant('prune' as const),
      events: fc.constantFrom(100, 3, 0),
      eventsFor: ages,
      goneNodesFor: ages,
    }),
  ],
  [
    4,
    fc.record({
      verb: fc.constant('fence' as const),
      key: fc.option(who, { nil: undefined, freq: 2 }),
      node: fc.option(aNode, { nil: undefined, freq: 2 }),
      token: fc.constantFrom<Relation[]>('same', 'same', 'same', 'older', 'next'),
    }),
  ],
  [14, fc.record({ verb: fc.constant('change' as const), change: alterations })],
  [2, fc.record({ verb: fc.constant('race' as const), changes: fc.tuple(alterations, alterations) })],
)

const steps: fc.Arbitrary<Step> = fc.record({
  via: fc.constantFrom<Step['via'][]>(0, 0, 0, 1, 1, 2),
  passMs: fc.oneof(
    { arbitrary: fc.nat(9), weight: 12 },
    { arbitrary: fc.constantFrom(-1_000, 60_000), weight: 1 },
  ),
  verb: verbs,
})

/** Lets most namespaces have nodes from the beginning, because there would be little to meet otherwise. */
function founding(via: 0 | 2): fc.Arbitrary<readonly Step[]> {
  const founders = fc
    .tuple(joins, joins, joins)
    .map((three) => three.map((join, place) => ({ ...join, node: { ...join.node, id: placeholder(place) } })))
  const found = (deeds: readonly Deed[]): Step[] => [
    {
      via,
      passMs: 1,
      verb: {
        verb: 'change',
        change: { session: undefined, ahead: 'nothing', deeds, beside: [], end: 'well' },
      },
    },
  ]
  return fc.oneof(
    { withCrossShrink: true },
    { arbitrary: fc.constant([]), weight: 1 },
    { arbitrary: founders.map(found), weight: 9 },
  )
}

/** Returns courses of up to `length` steps. In most of them two namespaces are founded first. */
export function courses(length: number): fc.Arbitrary<Course> {
  const rest = fc.array(steps, { maxLength: length, size: 'max' })
  const all = fc.tuple(founding(0), founding(2), rest).map((parts) => parts.flat())
  return fc.record({ cast: casts, steps: all })
}

function oneOf<T>(...choices: readonly (readonly [number, fc.Arbitrary<T>])[]): fc.Arbitrary<T> {
  return fc.oneof(...choices.map(([weight, arbitrary]) => ({ arbitrary, weight })))
}
