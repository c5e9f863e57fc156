import t from 'tap'
import { hash32, rendezvousScore } from '../../plugin/core/changes/hash.js'
import {
  type Candidate,
  chooseSuccessor,
  nextAfter,
  planPartitions,
  planShares,
} from '../../plugin/core/changes/plan.js'

type Slots = readonly (string | null)[]

t.test('the successor is the candidate with the fewest leases', async (t) => {
  const table: readonly [string, readonly Candidate[], readonly string[], string | undefined][] = [
    ['nobody stands', [], [], undefined],
    ['one stands', [node('a', { load: 9 })], [], 'a'],
    ['fewest leases', [node('a', { load: 2 }), node('b', { load: 1 }), node('c', { load: 3 })], [], 'b'],
    ['the idlest is to be avoided', [node('a', { load: 2 }), node('b', { load: 1 })], ['b'], 'a'],
    ['everybody is to be avoided', [node('a', { load: 2 }), node('b', { load: 1 })], ['a', 'b'], 'b'],
    ['someone who does not stand is to be avoided', [node('a')], ['x'], 'a'],
  ]
  for (const [name, candidates, avoid, expected] of table) {
    t.equal(chooseSuccessor('eu-1/indexing', candidates, new Set(avoid)), expected, name)
  }
})

t.test('leadership of many workers spreads over equally loaded nodes, whoever plans', async (t) => {
  const candidates = nodes(5)
  const wins = new Map(candidates.map(({ id }) => [id, 0]))
  for (let worker = 0; worker < 1_000; worker++) {
    const chosen = chooseSuccessor(`eu-1/worker-${worker}`, candidates) ?? ''
    assertSame(chooseSuccessor(`eu-1/worker-${worker}`, [...candidates].reverse()), chosen, 'reversed')
    wins.set(chosen, (wins.get(chosen) ?? 0) + 1)
  }
  t.ok(Math.min(...wins.values()) > 150, [...wins.values()].join(' '))
})

t.test('passing over one after another gives every candidate its turn', async (t) => {
  for (const key of ['global/a', 'global/b', 'eu-1/c']) {
    const candidates = nodes(7)
    let target = chooseSuccessor(key, candidates)
    const tried = new Set<string>()
    for (let turn = 0; turn < candidates.length; turn++) {
      tried.add(target ?? '')
      target = nextAfter(key, target ?? '', candidates)
    }
    t.equal(tried.size, candidates.length)
    t.equal(target, [...tried][0], 'and then begins again')
  }
})

t.test('who comes after a failed target', async (t) => {
  const key = 'eu-1/indexing'
  const [first, second, third] = ring(key, ['a', 'b', 'c'])
  const all = ['a', 'b', 'c'].map((id) => node(id))
  const table: readonly [
    string,
    string | undefined,
    readonly Candidate[],
    readonly (string | undefined)[],
    string | undefined,
  ][] = [
    ['the next one', first, all, [], second],
    ['the first one after the last', third, all, [], first],
    ['the one behind the next, which is to be avoided', first, all, [second], third],
    ['the avoided one before the failed one', first, all.filter(({ id }) => id !== third), [second], second],
    ['the failed one when nobody else stands', 'a', [node('a')], [], 'a'],
    ['the failed one when nobody else stands, even if it is to be avoided', 'a', [node('a')], ['a'], 'a'],
    ['nobody when the failed one has left too', 'a', [], [], undefined],
    [
      'the next one although the failed one has left',
      first,
      all.filter(({ id }) => id !== first),
      [],
      second,
    ],
  ]
  for (const [name, failed, candidates, avoid, expected] of table) {
    t.equal(nextAfter(key, failed ?? '', candidates, new Set(avoid.map((id) => id ?? ''))), expected, name)
  }
})

t.test('survivors keep their share, the highest move down, newcomers fill the rest', async (t) => {
  const table: readonly [string, Slots, string, string, boolean][] = [
    ['the first nodes, oldest first', [], 'c1 a2 b2', 'c a b', true],
    ['nobody is there and nobody comes', [], '', '', false],
    ['nothing has happened', ['a', 'b', 'c'], 'a1 b2 c3', 'a b c', false],
    ['the order of joining does not matter to survivors', ['c', 'a', 'b'], 'a1 b2 c3', 'c a b', false],
    ['one joins', ['a', 'b'], 'a1 b2 c3', 'a b c', true],
    ['the last leaves', ['a', 'b', 'c'], 'a1 b2', 'a b', true],
    ['the first leaves', ['a', 'b', 'c'], 'b2 c3', 'c b', true],
    ['one leaves and one joins', ['a', 'b', 'c'], 'b2 c3 d4', 'd b c', true],
    ['two leave', ['a', 'b', 'c', 'd', 'e'], 'b2 d4 e5', 'd b e', true],
    ['two in the middle leave and one joins', ['a', 'b', 'c', 'd', 'e'], 'a1 d4 e5 f6', 'a e f d', true],
    ['by index and not by age', ['a', 'b', 'c', 'd'], 'c4 d3', 'c d', true],
    ['all are replaced', ['a', 'b'], 'd4 c3', 'c d', true],
    ['all leave', ['a', 'b'], '', '', true],
    ['a hole is filled', ['a', null, 'c'], 'a1 b2 c3', 'a b c', true],
    ['only the count changes', ['a', 'b', null], 'a1 b2', 'a b', true],
    ['one node is named twice', ['a', 'a', 'b'], 'a1 b2 c3', 'a c b', true],
    ['joined in one change, then by id', [], 'z1 y1 x1', 'x y z', true],
  ]
  for (const [name, current, candidates, shares, changed] of table) {
    const plan = planShares(current, joined(candidates))
    t.same(plan, { shares: shares.split(' ').filter(Boolean), changed }, name)
  }
})

t.test('shares: every candidate has exactly one, and the fewest indices change', async (t) => {
  forSeeds(t, 400, (random) => {
    const before = nodes(random.below(9))
    const current = planShares([], shuffled(before, random)).shares
    const after = changedNodes(before, random)
    const { shares, changed } = planShares(current, shuffled(after, random))
    assertSame([...shares].sort(), after.map(({ id }) => id).sort(), 'one share each')
    assertSame(planShares(shares, after), { shares, changed: false }, 'planning the plan changes nothing')
    assertSame(planShares(current, after).shares, shares, 'the order of candidates does not matter')
    assertSame(changed, shares.join() !== current.join(), 'changed')
    for (const [index, id] of shares.entries()) {
      const indexBefore = current.indexOf(id)
      if (indexBefore >= 0 && indexBefore < shares.length)
        assertSame(index, indexBefore, `${id} keeps its index`)
    }
  })
})

t.test('partitions without candidates belong to nobody', async (t) => {
  t.same(planPartitions(['a', null, 'b'], []), [null, null, null])
  t.same(planPartitions([], nodes(3)), [])
})

t.test('fewer partitions than nodes: one each for some', async (t) => {
  const plan = planPartitions([null, null], nodes(5))
  t.equal(new Set(plan).size, 2)
  t.notOk(plan.includes(null))
})

t.test(
  'partitions: balanced to ±1 with the fewest moves there can be, named nodes stand, order is nothing',
  async (t) => {
    forSeeds(t, 600, (random) => {
      const { current, candidates } = randomTable(random, 12, 80)
      const plan = planPartitions(current, shuffled(candidates, random))
      assertSound(plan, current, candidates)
      assertSame(movesOf(current, plan), fewestMoves(current, candidates), 'moves')
      assertSame(
        planPartitions(current, shuffled(candidates, random)),
        plan,
        'the order of candidates does not matter',
      )
      assertSame(
        planPartitions(plan, shuffled(candidates, random)),
        plan,
        'planning the plan changes nothing',
      )
    })
  },
)

t.test('no balanced plan whatever moves fewer partitions', async (t) => {
  forSeeds(t, 150, (random) => {
    const { current, candidates } = randomTable(random, 3, 6)
    if (candidates.length === 0) return
    const everyPlan = allPlans(
      current.length,
      candidates.map(({ id }) => id),
    )
    const balanced = everyPlan.filter((plan) => spreadOf(plan, candidates) <= 1)
    const fewest = Math.min(...balanced.map((plan) => movesOf(current, plan)))
    assertSame(movesOf(current, planPartitions(current, candidates)), fewest, 'moves')
  })
})

t.test('when a node leaves only its own partitions move', async (t) => {
  forSeeds(t, 200, (random) => {
    const before = nodes(2 + random.below(10))
    const current = planPartitions(empty(random.below(100)), before)
    const gone = before[random.below(before.length)]?.id
    const plan = planPartitions(
      current,
      before.filter(({ id }) => id !== gone),
    )
    for (const [slot, id] of current.entries()) {
      if (id !== gone) assertSame(plan[slot], id, `partition ${slot}`)
    }
  })
})

t.test('a node that joins takes no more than its share, and nothing else moves', async (t) => {
  forSeeds(t, 200, (random) => {
    const before = nodes(1 + random.below(10))
    const partitions = random.below(100)
    const current = planPartitions(empty(partitions), before)
    const newcomer = node('newcomer', { joinedRevision: 1_000 })
    const plan = planPartitions(current, [...before, newcomer])
    const taken = plan.filter((id) => id === newcomer.id).length
    assertSame(movesOf(current, plan), taken, 'only what the newcomer got has moved')
    const share = Math.floor(partitions / (before.length + 1))
    if (taken > share) t.fail(`took ${taken} where ${share} are enough`)
  })
})

t.test(
  'the odd partition goes to a node of the newest version, not to one that will soon be replaced',
  async (t) => {
    const old = ['a', 'b', 'c'].map((id) => node(id, { version: '1', joinedRevision: 1 }))
    const fresh = node('z', { version: '2', joinedRevision: 9, load: 50 })
    for (const partitions of [1, 5, 9, 13]) {
      const plan = planPartitions(empty(partitions), [...old, fresh])
      t.equal(countOf(plan, 'z'), Math.ceil(partitions / 4), `${partitions} partitions`)
    }
  },
)

t.test('partitions are taken from nodes of older versions first', async (t) => {
  const current = ['a', 'a', 'b', 'b', 'c', 'c']
  const candidates = [
    node('a', { version: '2', joinedRevision: 5 }),
    node('b', { version: '1', joinedRevision: 1 }),
    node('c', { version: '1', joinedRevision: 2 }),
    node('d', { version: '2', joinedRevision: 6 }),
  ]
  const plan = planPartitions(current, candidates)
  t.equal(countOf(plan, 'a'), 2, 'the newer node keeps both')
  t.equal(movesOf(current, plan), 1)
})

t.test('the newest version is that of the candidate that joined last, not the greatest text', async (t) => {
  const candidates = [
    node('a', { version: '9.0', joinedRevision: 1 }),
    node('b', { version: '10.0', joinedRevision: 2 }),
  ]
  t.same(planPartitions([null], candidates), ['b'])
  const rolledBack = [
    node('a', { version: '9.0', joinedRevision: 3 }),
    node('b', { version: '10.0', joinedRevision: 2 }),
  ]
  t.same(planPartitions([null], rolledBack), ['a'])
})

t.test(
  'among equals the odd partition goes where fewer leases are, so many small workers spread',
  async (t) => {
    const load = new Map(nodes(4).map(({ id }) => [id, 0]))
    for (let worker = 0; worker < 40; worker++) {
      const candidates = nodes(4).map((candidate) => ({ ...candidate, load: load.get(candidate.id) ?? 0 }))
      for (const id of planPartitions([null], candidates)) load.set(id ?? '', (load.get(id ?? '') ?? 0) + 1)
    }
    t.same([...load.values()], [10, 10, 10, 10])
  },
)

t.test('a rolling deploy moves fewer partitions when it can tell the versions apart', async (t) => {
  let knowing = 0
  let ignorant = 0
  for (const [partitions, count] of [
    [64, 3],
    [64, 10],
    [256, 10],
    [100, 7],
  ] as const) {
    knowing += rollingDeploy(partitions, count, '2')
    ignorant += rollingDeploy(partitions, count, '1')
  }
  t.ok(knowing < ignorant, `${knowing} against ${ignorant}`)
})

t.test('a node gives away the partitions for which it scores lowest', async (t) => {
  const current = new Array<string>(10).fill('a')
  const plan = planPartitions(current, [node('a'), node('b')])
  const scores = current.map((id, slot) => ({ slot, score: rendezvousScore(String(slot), id) }))
  const lowest = scores.sort((a, b) => a.score - b.score).slice(0, 5)
  t.same(
    lowest.map(({ slot }) => plan[slot]),
    ['b', 'b', 'b', 'b', 'b'],
  )
})

t.test('a node gives away first what is about to change hands anyway', async (t) => {
  const current = new Array<string>(10).fill('a')
  for (let slot = 0; slot + 1 < 10; slot++) {
    const pending = new Set([slot, slot + 1])
    const plan = planPartitions(current, [node('a'), node('b')], pending)
    t.same([plan[slot], plan[slot + 1]], ['b', 'b'])
    t.equal(movesOf(current, plan), 5, 'and no more than without')
  }
})

t.test('nodes whose hashes are equal are told apart by their ids', async (t) => {
  const twins = idsOfEqualHash().map((id) => node(id))
  const reversed = [...twins].reverse()
  t.equal(twins.length, 2)
  t.equal(chooseSuccessor('eu-1/indexing', twins), chooseSuccessor('eu-1/indexing', reversed))
  t.equal(nextAfter('eu-1/indexing', twins[0]?.id ?? '', twins), twins[1]?.id)
  t.equal(nextAfter('eu-1/indexing', twins[1]?.id ?? '', twins), twins[0]?.id)
  t.same(planPartitions(empty(7), twins), planPartitions(empty(7), reversed))
})

t.test('a hundred nodes and thousands of partitions are planned soundly', async (t) => {
  const before = nodes(100)
  const current = planPartitions(empty(4_096), before)
  assertSound(current, empty(4_096), before)
  const after = [...before.slice(3), node('x', { joinedRevision: 500 }), node('y', { joinedRevision: 501 })]
  const plan = planPartitions(current, after)
  assertSound(plan, current, after)
  t.equal(movesOf(current, plan), fewestMoves(current, after))
})

/** Replaces one node after another: a successor joins, then the old node leaves. Returns how many partitions moved. */
function rollingDeploy(partitions: number, count: number, newVersion: string): number {
  let candidates = nodes(count).map((candidate) => ({ ...candidate, version: '1' }))
  let plan = planPartitions(empty(partitions), candidates)
  let moves = 0
  const change = (next: typeof candidates): void => {
    candidates = next
    const planned = planPartitions(plan, candidates)
    moves += movesOf(plan, planned)
    plan = planned
  }
  for (let index = 0; index < count; index++) {
    const joinedRevision = 100 + index
    change([...candidates, { id: `new-${index}`, version: newVersion, joinedRevision, load: 0 }])
    change(candidates.filter(({ id }) => id !== `node-${index}`))
  }
  return moves
}

function assertSound(plan: Slots, current: Slots, candidates: readonly Candidate[]): void {
  assertSame(plan.length, current.length, 'as many partitions as before')
  const standing = new Set<string | null>(candidates.map(({ id }) => id))
  if (candidates.length === 0) standing.add(null)
  for (const id of plan) if (!standing.has(id)) throw new Error(`${id} does not stand`)
  if (spreadOf(plan, candidates) > 1) throw new Error(`not balanced: ${plan}`)
}

/** Returns the difference between the most and the fewest partitions of a candidate. */
function spreadOf(plan: Slots, candidates: readonly Candidate[]): number {
  if (candidates.length === 0) return 0
  const counts = new Map(candidates.map(({ id }) => [id, 0]))
  for (const id of plan) if (id !== null) counts.set(id, (counts.get(id) ?? 0) + 1)
  return Math.max(...counts.values()) - Math.min(...counts.values())
}

function movesOf(current: Slots, plan: Slots): number {
  return plan.filter((id, slot) => id !== current[slot]).length
}

/** Counts by definition: a node can keep its fair share, and `remainder` of the nodes above it can keep one more. */
function fewestMoves(current: Slots, candidates: readonly Candidate[]): number {
  if (candidates.length === 0) return current.filter((id) => id !== null).length
  const fairShare = Math.floor(current.length / candidates.length)
  const remainder = current.length % candidates.length
  const held = candidates.map(({ id }) => countOf(current, id))
  const kept = held.reduce((sum, count) => sum + Math.min(count, fairShare), 0)
  const above = held.filter((count) => count > fairShare).length
  return current.length - kept - Math.min(above, remainder)
}

function allPlans(partitions: number, ids: readonly string[]): string[][] {
  if (partitions === 0) return [[]]
  return allPlans(partitions - 1, ids).flatMap((plan) => ids.map((id) => [...plan, id]))
}

/** Returns a random table. It may be unbalanced, have holes, and name nodes that are gone. */
function randomTable(
  random: Random,
  mostNodes: number,
  mostPartitions: number,
): { current: Slots; candidates: readonly Candidate[] } {
  const candidates = nodes(random.below(mostNodes + 1)).map((candidate) => ({
    ...candidate,
    load: random.below(30),
    joinedRevision: random.below(20),
    version: random.below(3) === 0 ? null : `${random.below(3)}`,
  }))
  const names = [null, 'gone-1', 'gone-2', ...candidates.map(({ id }) => id)].slice(random.below(3))
  const favourites = names.slice(0, 1 + random.below(names.length || 1))
  const current = empty(random.below(mostPartitions + 1)).map(() => {
    const from = random.below(3) === 0 ? favourites : names
    return from[random.below(from.length)] ?? null
  })
  return { current, candidates }
}

/** Returns the nodes after some have left and others have joined. */
function changedNodes(before: readonly Candidate[], random: Random): readonly Candidate[] {
  const survivors = before.filter(() => random.below(3) > 0)
  const newcomers = Array.from({ length: random.below(4) }, (_, index) =>
    node(`new-${index}`, { joinedRevision: 100 + random.below(3) }),
  )
  return [...survivors, ...newcomers]
}

/** Reads candidates from a text: `c1 a2` means that c joined in change 1 and a in change 2. */
function joined(text: string): Candidate[] {
  return text
    .split(' ')
    .filter(Boolean)
    .map((word) => node(word.charAt(0), { joinedRevision: Number(word.slice(1)) }))
}

function nodes(count: number): Candidate[] {
  return Array.from({ length: count }, (_, index) => node(`node-${index}`, { joinedRevision: index }))
}

function node(id: string, rest: Partial<Candidate> = {}): Candidate {
  return { id, version: null, joinedRevision: 1, load: 0, ...rest }
}

function empty(partitions: number): null[] {
  return new Array<null>(partitions).fill(null)
}

function countOf(plan: Slots, id: string): number {
  return plan.filter((holder) => holder === id).length
}

/** Returns the candidates in the order in which they are chosen when all have the same load. */
function ring(key: string, ids: readonly string[]): string[] {
  const left = new Set(ids)
  return ids.map(() => {
    const next =
      chooseSuccessor(
        key,
        [...left].map((id) => node(id)),
      ) ?? ''
    left.delete(next)
    return next
  })
}

/** Returns two ids with the same 32-bit hash. Among some hundred thousand texts there is such a pair. */
function idsOfEqualHash(): string[] {
  const seen = new Map<number, string>()
  for (let index = 0; index < 1_000_000; index++) {
    const id = `node-${index}`
    const twin = seen.get(hash32(id))
    if (twin !== undefined) return [twin, id]
    seen.set(hash32(id), id)
  }
  return []
}

interface Random {
  /** Returns a whole number from 0 to `limit` - 1. */
  below(limit: number): number
}

function forSeeds(
  t: { pass(message: string): unknown },
  seeds: number,
  check: (random: Random) => void,
): void {
  for (let seed = 1; seed <= seeds; seed++) {
    try {
      check(randomFrom(seed))
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error })
    }
  }
  t.pass(`${seeds} seeds`)
}

/** Returns a Mulberry32 generator. */
function randomFrom(seed: number): Random {
  let state = seed
  return {
    below(limit) {
      state = (state + 0x6d2b79f5) | 0
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
      return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit)
    },
  }
}

function shuffled<Item>(items: readonly Item[], random: Random): Item[] {
  return items
    .map((item) => ({ item, place: random.below(1_000_000) }))
    .sort((a, b) => a.place - b.place)
    .map(({ item }) => item)
}

/**
 * Throws when two values differ. Loops of thousands use it, because an assertion in each turn would bury the report.
 */
function assertSame(actual: unknown, expected: unknown, what: string): void {
  const [actualText, expectedText] = [JSON.stringify(actual), JSON.stringify(expected)]
  if (actualText !== expectedText) throw new Error(`${what}: expected ${expectedText}, got ${actualText}`)
}
