/** Tests the explanations of why a lease has its holder or none: one row per case, then rows of the engine itself. */
import t from 'tap'
import {
  type Explanation,
  type ExplanationCircumstances,
  type ExplanationCode,
  explain,
  mostCandidates,
} from '../../plugin/core/reports/explain.js'
import { Trail } from '../../plugin/core/reports/trail.js'
import type { EventRow, LeaseRow, NodeRow, Snapshot, WorkerRow } from '../../plugin/core/store.js'
import { timetableOf, writtenSchedule } from '../../plugin/core/work/schedule.js'
import { newLease } from '../../plugin/testing/conformance/world.js'
import { World } from '../support/world.js'

const nowMs = 1_000_000_000
const key = 'c1/indexing'
const timing = { ttlMs: 15_000, statementTimeoutMs: 3_000, claimTimeoutMs: 2_000 }

interface Case {
  readonly lease?: Partial<LeaseRow>
  readonly others?: readonly LeaseRow[]
  readonly worker?: Partial<WorkerRow> | null
  readonly nodes?: readonly NodeRow[]
  readonly settled?: boolean
  readonly revokedAtMs?: number | null
  readonly pause?: ExplanationCircumstances['pause']
  /** The codes that are expected, in this order. */
  readonly codes: readonly ExplanationCode[]
  readonly says?: readonly RegExp[]
  readonly facts?: Partial<Record<keyof Explanation, unknown>>
}

const a = { id: 'a-1', name: 'a', cluster: 'c1' }
const b = { id: 'b-1', name: 'b', cluster: 'c1' }
const held = { holder: 'a-1', target: 'a-1', token: 7, acquiredAtMs: nowMs - 184_000 }
const workerRow: WorkerRow = {
  key,
  name: 'indexing',
  kind: 'single',
  scope: 'cluster',
  cluster: 'c1',
  generation: 0,
  slots: 1,
  paused: false,
  handoverTimeoutMs: 30_000,
  schedule: null,
  revision: 1,
}

/** By 13:46:40, which `nowMs` is, its time has come. */
const daily = writtenSchedule(timetableOf('37 13 * * *'))

const shares = { kind: 'coordinated', generation: 5, slots: 2 } as const

const table: Readonly<Record<string, Case>> = {
  'a leader that is healthy': {
    lease: held,
    codes: ['held', 'candidates'],
    says: [
      /^a \(c1\) has held it for 3 min 4 s, with token 7\. .* a healthy holder is not moved\.$/,
      /^2 nodes are candidates/,
    ],
    facts: {
      holder: { node: a, token: 7, acquiredAtMs: nowMs - 184_000, heartbeatAgoMs: 1_000 },
      target: { node: a, unclaimedForMs: null },
      block: null,
      barrier: [],
      candidateCount: 2,
      candidates: [
        { node: a, obstacles: [], coolingForMs: null },
        { node: b, obstacles: [], coolingForMs: null },
      ],
    },
  },
  'a holder whose heartbeat stands still': {
    lease: held,
    nodes: [node('a', { heartbeatAtMs: nowMs - 11_000 }), node('b')],
    codes: ['held', 'silent', 'candidates'],
    says: [/has held/, /came 11 s ago\. It is declared gone .* seen no newer one for 15\.1 s/],
  },
  'a holder that cannot act any more, but is not yet declared gone': {
    lease: held,
    nodes: [node('a', { heartbeatAtMs: nowMs - 16_000 }), node('b')],
    codes: ['silent', 'held', 'candidates'],
    says: [
      /came 16 s ago\. It cannot act on the lease any more: nobody works under it\. It is declared gone/,
      /^a \(c1\) has held it .* token 7\.$/,
    ],
  },
  'a holder that is to hand over': {
    lease: { ...held, target: 'b-1', targetAtMs: nowMs - 2_500 },
    codes: ['held', 'handing-over', 'candidates'],
    says: [
      /^a \(c1\) has held it .*7\.$/,
      /to hand over to b \(c1\), which was chosen 2\.5 s ago\..*than 30 s/,
    ],
    facts: { target: { node: b, unclaimedForMs: null } },
  },
  'a holder whose node is draining, with nobody to follow': {
    lease: { ...held, target: null },
    nodes: [node('a', { state: 'draining' })],
    codes: ['held', 'handing-over', 'candidates'],
    says: [
      /./,
      /nobody is meant to have it next\. Its node is draining/,
      /^No node is a candidate; a \(c1\) is draining\.$/,
    ],
    facts: { candidateCount: 0, candidates: [{ node: a, obstacles: ['draining'] }] },
  },
  'a worker that was paused while somebody works': {
    lease: { ...held, target: null },
    worker: { paused: true },
    codes: ['held', 'paused'],
    says: [/./, /paused: nobody runs it until it is resumed/],
    facts: { paused: true, candidateCount: 0 },
  },
  'a worker that is paused, and nobody works': {
    worker: { paused: true },
    codes: ['paused'],
    facts: { holder: null, candidates: [{ obstacles: ['paused'] }, { obstacles: ['paused'] }] },
    says: [/^Its worker is paused: nobody runs it until it is resumed\.$/],
  },
  'a worker of which the audit trail tells who paused it': {
    worker: { paused: true },
    pause: { atMs: nowMs - 3 * 86_400_000, actor: 'mira', reason: 'INC-42' },
    codes: ['paused'],
    says: [/until it is resumed\. mira paused it 3 d ago: “INC-42”\.$/],
  },
  'a share of an older plan': {
    lease: { ...held, generation: 4 },
    worker: shares,
    codes: ['held', 'outdated', 'candidates'],
    says: [/./, /plan 4; plan 5 is in force/],
    facts: { barrier: [a] },
  },
  'a share': {
    lease: { ...held, slot: 1, generation: 5 },
    worker: shares,
    codes: ['held', 'candidates'],
    says: [/share 1 of 2 in plan 5/],
    facts: { barrier: [] },
  },
  'a partition': {
    lease: { ...held, slot: 3 },
    worker: { kind: 'partitioned', slots: 8 },
    codes: ['held', 'candidates'],
    says: [/partition 3 of 8\./],
  },
  'a lease by name, with others waiting': {
    lease: { ...held, worker: null, waiters: ['b-1'] },
    worker: null,
    codes: ['held', 'awaited'],
    says: [/asked for the lease by name/, /^1 node waits for it/],
    facts: { waiting: [b], candidates: [{ obstacles: [] }, { obstacles: [] }] },
  },
  'a lease by name, with nodes in its queue that are gone': {
    lease: { worker: null, waiters: ['b-1', 'deleted-1'] },
    worker: null,
    nodes: [node('a'), node('b', { state: 'gone' })],
    codes: ['not-asked-for'],
    facts: { waiting: [] },
  },
  'a lease whose worker somebody has deleted, and which is held': {
    lease: held,
    worker: null,
    codes: ['held'],
    says: [/with token 7\. The row of its worker is missing: somebody has deleted it\. Restart one node /],
  },
  'a lease whose worker somebody has deleted, and which is free': {
    worker: null,
    codes: ['no-candidates'],
    says: [/^The row of its worker is missing: somebody has deleted it\. Restart one node /],
  },
  'a lease by name that nobody asks for': {
    lease: { worker: null },
    worker: null,
    codes: ['not-asked-for'],
    facts: { candidateCount: 0, candidates: [{ obstacles: ['not-registered'] }, {}] },
  },
  'a holder that is gone, its row not cleared yet': {
    lease: { ...held, target: 'b-1', targetAtMs: nowMs - 100 },
    nodes: [node('a', { state: 'gone' }), node('b')],
    codes: ['holder-gone', 'named', 'candidates'],
    says: [
      /^a \(c1\) held it and is gone\..*fences it/,
      /chosen as the next holder 100 ms ago\. It is about to claim it/,
    ],
    facts: { holder: null, target: { node: b, unclaimedForMs: 100 } },
  },
  'a holder so long gone that only its id is left': {
    lease: { ...held, target: null },
    nodes: [],
    codes: ['holder-gone', 'no-candidates', 'candidates'],
    says: [/^a-1 \(gone\) held it and is gone/],
  },
  'a target that has not claimed in time': {
    lease: { target: 'b-1', targetAtMs: nowMs - 3_000 },
    codes: ['unclaimed', 'perhaps-fenced', 'candidates'],
    says: [/^b \(c1\) was chosen as the next holder 3 s ago and has not claimed it\..*After 2 s/, /fences/],
    facts: { target: { node: b, unclaimedForMs: 3_000 } },
  },
  'a revoked holder that has not acknowledged, since a known time': {
    lease: { target: 'b-1', targetAtMs: nowMs - 5_000, blockedNode: 'a-1', blockedToken: 7, token: 7 },
    revokedAtMs: nowMs - 5_000,
    codes: ['blocked', 'named', 'candidates'],
    says: [
      /^It was taken from a \(c1\), which held it with token 7 .* in 14\.6 s at the latest/,
      /claims the lease when/,
    ],
    facts: { block: { node: a, token: 7, untilMs: nowMs - 5_000 + 19_650 } },
  },
  'a revoked holder that has not acknowledged, since an unknown time': {
    lease: { target: 'b-1', targetAtMs: nowMs - 5_000, blockedNode: 'a-1', blockedToken: 7, token: 7 },
    codes: ['blocked', 'named', 'candidates'],
    says: [/itself seen that for 19\.6 s/],
    facts: { block: { untilMs: null } },
  },
  'a revoked holder that is gone stands in nobody’s way': {
    lease: { target: 'b-1', targetAtMs: nowMs - 50, blockedNode: 'a-1', blockedToken: 7, token: 7 },
    nodes: [node('a', { state: 'gone' }), node('b')],
    codes: ['named', 'candidates'],
    facts: { block: null },
  },
  'a new share that waits for older ones': {
    lease: { target: 'b-1', targetAtMs: nowMs - 5_000, slot: 1, generation: 4 },
    others: [
      lease({ key: `${key}#0`, ...held, generation: 4 }),
      lease({ key: `${key}#2`, blockedNode: 'c-1', blockedToken: 3 }),
    ],
    nodes: [node('a'), node('b'), node('c')],
    worker: shares,
    codes: ['barrier', 'named', 'candidates'],
    says: [/^No share of plan 5 begins .*: a \(c1\), c \(c1\)\.$/, /when nothing prevents/],
    facts: { barrier: [a, { id: 'c-1', name: 'c', cluster: 'c1' }] },
  },
  'a server that was restarted': {
    lease: { target: 'b-1', targetAtMs: nowMs - 5_000 },
    settled: false,
    codes: ['server-changed', 'named', 'candidates'],
    says: [/until 19\.6 s have passed/],
  },
  'nobody is a candidate': {
    nodes: [node('a', { workers: [] }), node('b', { state: 'draining' })],
    codes: ['no-candidates', 'candidates'],
    says: [
      /^No node can take it: every node that has registered its worker is draining\. End a drain, or start a node/,
      /^No node is a candidate; b \(c1\) is draining, 1 node has not registered its worker\.$/,
    ],
    facts: {
      candidateCount: 0,
      candidates: [
        { node: b, obstacles: ['draining'] },
        { node: a, obstacles: ['not-registered'] },
      ],
    },
  },
  'nobody has registered its worker': {
    nodes: [node('a', { workers: [] })],
    codes: ['no-candidates', 'candidates'],
    says: [/^No node can take it: no active node has registered its worker\.$/],
  },
  'a few nodes are draining': {
    lease: held,
    nodes: [node('a'), node('b', { state: 'draining' }), node('c', { state: 'draining' })],
    codes: ['held', 'candidates'],
    says: [/has held/, /^1 node is a candidate; b \(c1\) and c \(c1\) are draining\.$/],
  },
  'many nodes are draining': {
    lease: held,
    nodes: [node('a'), ...['b', 'c', 'd'].map((name) => node(name, { state: 'draining' }))],
    codes: ['held', 'candidates'],
    says: [/has held/, /^1 node is a candidate; 3 more are draining\.$/],
  },
  'a slot the plan has no use for': {
    lease: { slot: 2 },
    worker: shares,
    codes: ['not-planned', 'candidates'],
    says: [/the one in force has 2 slots/],
  },
  'a slot that a plan for one node has no use for': {
    lease: { slot: 1 },
    worker: { ...shares, slots: 1 },
    codes: ['not-planned', 'candidates'],
    says: [/the one in force has 1 slot\.$/],
  },
  'a node that cools down': {
    lease: { ...held, cooldownNode: 'b-1', cooldownUntilMs: nowMs + 45_000 },
    codes: ['held', 'cooling-down', 'candidates'],
    says: [/./, /^b \(c1\) should not win it again for 45 s/],
    facts: {
      candidateCount: 1,
      candidates: [{ node: a }, { obstacles: ['cooling-down'], coolingForMs: 45_000 }],
    },
  },
  'a node that cools down from another share': {
    lease: { ...held, generation: 5 },
    others: [lease({ key: `${key}#1`, cooldownNode: 'b-1', cooldownUntilMs: nowMs + 5_000 })],
    worker: shares,
    codes: ['held', 'cooling-down', 'candidates'],
  },
  'a cool-down that has passed': {
    lease: { ...held, cooldownNode: 'b-1', cooldownUntilMs: nowMs - 1 },
    codes: ['held', 'candidates'],
  },
  'a cool-down that a clock in the future has set': {
    lease: { ...held, cooldownNode: 'b-1', cooldownUntilMs: nowMs + 1e12 },
    codes: ['held', 'cooling-down', 'candidates'],
    says: [/./, /for 1 d, as long/],
  },
  'a time of a schedule that has come, while an earlier pass still runs': {
    lease: { ...held, firedAtMs: nowMs - 86_400_000 },
    worker: { schedule: daily },
    codes: ['held', 'overdue', 'candidates'],
    says: [/has held/, /came 9 min 40 s ago, and no pass has begun.* still runs on a \(c1\)/],
  },
  'a time of a schedule that has come just now': {
    lease: { ...held, firedAtMs: nowMs - 1_000 },
    worker: { schedule: writtenSchedule(timetableOf('40 46 13 * * *')) },
    codes: ['held', 'candidates'],
  },
  'a clock that was set back': {
    lease: { ...held, acquiredAtMs: nowMs + 60_000 },
    codes: ['held', 'candidates'],
    says: [/has held it for 0 ms/],
  },
}

for (const [name, { codes, says = [], facts = {}, ...given }] of Object.entries(table)) {
  t.test(name, async (t) => {
    const explanation = explained(given)
    t.strictSame(
      explanation?.reasons.map(({ code }) => code),
      codes,
    )
    for (const [at, pattern] of says.entries()) t.match(explanation?.reasons[at]?.sentence, pattern)
    for (const { sentence } of explanation?.reasons ?? []) t.match(sentence, /^[A-Za-z0-9].*\.$/, sentence)
    t.match(explanation, facts)
  })
}

t.test('a lease that there is not has no explanation', async (t) => {
  t.equal(explain(snapshotOf({}), 'c1/nothing', { timing, revokedAtMs: null }), undefined)
})

t.test('however many nodes there are, so many are listed, and those that may have it first', async (t) => {
  const many = Array.from({ length: 500 }, (_, at) => node(`n${at}`, { workers: at < 400 ? [] : [key] }))
  const explanation = explained({ nodes: many })
  t.equal(explanation?.candidateCount, 100)
  t.equal(explanation?.candidates.length, mostCandidates)
  t.ok(explanation?.candidates.every(({ obstacles }) => obstacles.length === 0))
  t.match(explanation?.reasons.at(-1)?.sentence, /^100 nodes are candidates; 400 nodes have not registered/)
})

t.test('a forced release, as the engine itself does it, is explained at each step', async (t) => {
  const world = new World(t)
  const nodes = [await world.node('a'), await world.node('b')] as const
  let settle = (): void => undefined
  for (const { coordinator } of nodes) {
    coordinator.worker({
      name: 'stuck',
      kind: 'single',
      scope: 'global',
      run: () =>
        new Promise<void>((resolve) => {
          settle = resolve
        }),
    })
  }
  await world.start(...nodes)
  await world.advance(1_000)
  const { operator } = nodes[1].coordinator
  const why = async (revokedAtMs: number | null) =>
    explain(await operator.snapshot(), 'global/stuck', { timing: world.timing, revokedAtMs })
  const before = await why(null)
  const first = before?.holder?.node.name
  t.match(before?.reasons[0]?.code, 'held')
  const token = before?.holder?.token ?? 0
  const stop = settle
  const revoked = await operator.release({ key: 'global/stuck', token, actor: 'ops', reason: 'it hangs' })
  const blocked = await why(revoked.kind === 'revoked' ? revoked.nowMs : null)
  t.match(blocked, {
    holder: null,
    block: { node: { name: first }, token },
    candidates: [{ obstacles: [] }, { node: { name: first }, obstacles: ['cooling-down'] }],
  })
  t.strictSame(
    blocked?.reasons.map(({ code }) => code),
    ['blocked', 'named', 'cooling-down', 'candidates'],
  )
  stop()
  await world.advance(1_000)
  const after = await why(null)
  t.strictSame(
    after?.reasons.map(({ code }) => code),
    ['held', 'cooling-down', 'candidates'],
  )
  t.not(after?.holder?.node.name, first)
  settle()
})

t.test('who asked a node to hand over is said, when and why', async (t) => {
  const { drained, event } = drainedBy('otto', 'deploy 1.4')
  await new Trail(async () => [event]).tell(drained)
  const told = (snapshot: Snapshot) => {
    const reasons = explain(snapshot, key, { timing, revokedAtMs: null })?.reasons ?? []
    return reasons.map(({ sentence }) => sentence)
  }
  const [, handingOver, candidates] = told(drained)
  t.match(handingOver, /Its node is draining: otto asked for it 12 min ago, “deploy 1\.4”\./)
  t.equal(
    candidates,
    '1 node is a candidate; a (c1) is draining: otto asked for it 12 min ago, “deploy 1.4”.',
  )
  const closing = drainedBy('a', 'the node is closing')
  await new Trail(async () => [closing.event]).tell(closing.drained)
  t.match(told(closing.drained)[1], /Its node is draining, since it is closing\./)
})

function drainedBy(actor: string, reason: string): { drained: Snapshot; event: EventRow } {
  const drained = snapshotOf({
    lease: { ...held, target: 'b-1', targetAtMs: nowMs - 2_500 },
    nodes: [node('a', { state: 'draining' }), node('b')],
  })
  const place = { revision: 8, position: 0, atMs: nowMs - 720_000, token: null, detail: null }
  return { drained, event: { ...place, type: 'node.draining', subject: 'a-1', node: 'a-1', actor, reason } }
}

function explained({ revokedAtMs = null, pause, ...given }: Omit<Case, 'codes'>): Explanation | undefined {
  return explain(snapshotOf(given), key, { timing, revokedAtMs, pause })
}

function snapshotOf({
  lease: patch = {},
  others = [],
  worker = {},
  nodes = [node('a'), node('b')],
  settled = true,
}: Omit<Case, 'codes' | 'revokedAtMs' | 'pause'>): Snapshot {
  return {
    nowMs,
    meta: {
      revision: 9,
      watchers: ['a-1', 'b-1'],
      longestTtlMs: 15_000,
      tokenFloor: 0,
      serverIdentity: 's',
      identitySettled: settled,
    },
    nodes,
    workers: worker === null ? [] : [{ ...workerRow, ...worker }],
    leases: [lease(patch), ...others],
  }
}

function lease(patch: Partial<LeaseRow>): LeaseRow {
  return newLease(key, { worker: key, revision: 1, ...patch })
}

function node(name: string, patch: Partial<NodeRow> = {}): NodeRow {
  return {
    id: `${name}-1`,
    name,
    cluster: 'c1',
    state: 'active',
    workers: [key],
    labels: {},
    version: null,
    machine: null,
    process: null,
    ttlMs: 15_000,
    operation: 1,
    beat: 1,
    startedAtMs: nowMs - 3_600_000,
    heartbeatAtMs: nowMs - 1_000,
    goneAtMs: null,
    joinedRevision: 1,
    newsRevision: 1,
    revision: 1,
    ...patch,
  }
}
