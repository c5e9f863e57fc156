/** What things mean on the page: pure, so it is tested without a browser. */
import t from 'tap'
import {
  ago,
  cellsOf,
  flawOfReason,
  grouped,
  type Happening,
  isAfter,
  keyInPath,
  type Lease,
  laneOf,
  markOfAssignment,
  markOfLease,
  markOfNode,
  merged,
  newsOf,
  type Problem,
  passes,
  pickedProblems,
  sentenceOf,
  sentenceOfNews,
  span,
  timeLeft,
  timeOf,
  verdictOf,
} from '../../dashboard/model.js'

const nowMs = Date.parse('2026-03-01T12:00:00.000Z')
const at = (secondsAgo: number): string => new Date(nowMs - 1_000 * secondsAgo).toISOString()
const node = { id: 'n1', name: 'node-1', cluster: 'eu-1' }
const other = { id: 'n2', name: 'node-2', cluster: 'eu-1' }

const held: Lease = {
  key: 'eu-1/indexing',
  worker: 'eu-1/indexing',
  slot: 0,
  state: 'held',
  holder: node,
  target: node,
  token: 41,
  acquiredAt: at(90),
  blockedNode: null,
  waiting: 0,
  cooldown: null,
  paused: false,
  candidateCount: 2,
  session: { pulse: 'steady', ttlMs: 15_000, heartbeatAt: at(3) },
}
const free: Lease = { ...held, state: 'free', holder: null, target: null, session: null, acquiredAt: null }

function event(id: string, secondsAgo: number, type: string, more: Partial<Happening> = {}): Happening {
  const rest = { node: null, token: null, actor: null, reason: null, detail: null }
  return { id, at: at(secondsAgo), type, subject: held.key, ...rest, ...more }
}

t.test('every state of a lease has a word, an icon and a tone of its own', async (t) => {
  const silent = { pulse: 'silent', ttlMs: 15_000, heartbeatAt: at(20) } as const
  const leases: Record<string, Lease> = {
    held,
    'holder silent': { ...held, session: silent },
    'heartbeat late': { ...held, session: { ...silent, pulse: 'late' } },
    'handing over': { ...held, state: 'moving', target: other },
    stopping: { ...free, state: 'blocked', blockedNode: node },
    unclaimed: { ...free, state: 'unclaimed', target: other },
    paused: { ...free, paused: true },
    'no leader': { ...free, candidateCount: 0 },
    free: { ...free, worker: null },
  }
  for (const [word, lease] of Object.entries(leases)) t.equal(markOfLease(lease).word, word)
  const bad = Object.values(leases).filter((lease) => markOfLease(lease).tone === 'bad')
  t.strictSame(
    bad.map((lease) => markOfLease(lease).word),
    ['holder silent', 'no leader'],
  )
  t.equal(markOfLease(held).tone, 'calm', 'what is well has no colour')
})

t.test('a node that is gone is gone, however it was before', async (t) => {
  t.equal(markOfNode({ state: 'gone', pulse: 'silent' }).word, 'gone')
  t.equal(markOfNode({ state: 'draining', pulse: 'silent' }).word, 'silent', 'silence is worse than draining')
  t.equal(markOfNode({ state: 'draining', pulse: 'steady' }).word, 'draining')
  t.equal(markOfNode({ state: 'active', pulse: 'steady' }).tone, 'calm')
})

t.test('an assignment says the worst of its parts', async (t) => {
  const well = {
    worker: 'global/c',
    kind: 'partitioned',
    generation: 0,
    slots: 4,
    owned: 4,
    moving: 0,
    unowned: 0,
  }
  const rest = { owners: 1, least: 4, most: 4, paused: false, candidateCount: 1, map: null }
  t.equal(markOfAssignment({ ...well, ...rest }).word, 'all owned')
  t.equal(markOfAssignment({ ...well, ...rest, moving: 2 }).word, '2 moving')
  t.equal(markOfAssignment({ ...well, ...rest, moving: 2, unowned: 1 }).word, '1 without owner')
  t.equal(markOfAssignment({ ...well, ...rest, unowned: 4, paused: true }).word, 'paused')
})

t.test('the verdict counts problems and warnings, and a death that is over is said to be over', async (t) => {
  const counts = (error: number, warning: number) => ({ problemCounts: { error, warning, info: 3 } })
  t.equal(verdictOf(counts(0, 0), undefined).word, 'All well')
  t.equal(verdictOf(counts(1, 2), undefined).word, '1 problem, 2 warnings')
  t.equal(verdictOf(counts(0, 1), undefined).tone, 'warn')
  const news = { node: 'n1', atMs: nowMs, lost: 1, moved: 1 }
  t.equal(verdictOf(counts(0, 0), news).word, 'All well again')
})

t.test('the news tells how much of what a dead node held has moved', async (t) => {
  const death = event('9-0', 10, 'node.gone', { subject: 'n1', node: 'n1' })
  const lost = [
    event('9-1', 10, 'lease.lost', { node: 'n1' }),
    event('9-2', 10, 'lease.lost', { node: 'n1', subject: 'global/month-close' }),
    event('9-3', 10, 'lease.lost', { node: 'n9', subject: 'global/of-another' }),
  ]
  const earlier = event('3-0', 90, 'lease.acquired', { node: 'n1' })
  const taken = event('10-0', 9, 'lease.acquired', { node: 'n2' })
  const planned = event('11-0', 9, 'target.passed-over', { node: 'n3', subject: 'global/month-close' })
  const some = newsOf(merged([death, ...lost, earlier], [taken, planned]), nowMs)
  t.strictSame(some, { node: 'n1', atMs: nowMs - 10_000, lost: 2, moved: 1 })
  t.equal(
    sentenceOfNews({ node: 'n1', atMs: nowMs - 10_000, lost: 2, moved: 1 }, 'node-1', nowMs),
    'node-1 died 10 s ago: 1 of the 2 leases it held have moved so far.',
  )
  t.match(sentenceOfNews({ node: 'n1', atMs: nowMs, lost: 0, moved: 0 }, 'node-1', nowMs), /held nothing/)
  t.equal(newsOf([{ ...death, at: at(301) }], nowMs), undefined, 'five minutes later it is none any more')
})

t.test('many problems of one kind do not hide the others', async (t) => {
  const problem = (code: string, at: number): Problem => ({
    code,
    severity: 'error',
    subject: `${code} ${at}`,
    sentence: '',
  })
  const silent = Array.from({ length: 10 }, (_, at) => problem('node-silent', at))
  const problems = [...silent, problem('lease-blocked', 0)]
  const problemCodes = [
    { code: 'node-silent', count: 63 },
    { code: 'lease-blocked', count: 1 },
  ]
  const picked = pickedProblems({ problems, problemCodes }, 6)
  t.strictSame(
    picked.map(({ problem, more }) => [problem.subject, more]),
    [
      ['node-silent 0', 0],
      ['node-silent 1', 0],
      ['node-silent 2', 60],
      ['lease-blocked 0', 0],
    ],
  )
  const few = pickedProblems(
    { problems: silent.slice(0, 4), problemCodes: [{ code: 'node-silent', count: 4 }] },
    6,
  )
  t.equal(few.length, 4, 'few are all shown')
})

t.test('places in the audit trail are compared as numbers', async (t) => {
  t.ok(isAfter('10-0', '9-5'))
  t.ok(isAfter('9-10', '9-9'))
  t.notOk(isAfter('9-9', '9-9'))
})

t.test('events of two answers are one list, newest first, each once, and not without end', async (t) => {
  const a = [event('3-0', 1, 'x'), event('2-0', 2, 'x')]
  t.strictSame(
    merged(a, [event('2-0', 2, 'x'), event('10-0', 0, 'x')]).map(({ id }) => id),
    ['10-0', '3-0', '2-0'],
  )
  const many = Array.from({ length: 1_500 }, (_, at) => event(`${at}-0`, at, 'x'))
  t.equal(merged(many, []).length, 1_000)
})

t.test('only what a person did passes for that', async (t) => {
  t.ok(passes('people', event('1-0', 1, 'lease.revoked', { actor: 'mira' })))
  t.notOk(passes('people', event('1-0', 1, 'lease.revoked')), 'a watcher revokes as well')
  t.notOk(passes('people', event('1-0', 1, 'node.gone', { actor: 'n2' })))
  t.ok(passes('all', event('1-0', 1, 'whatever')))
  t.notOk(passes('nodes', event('1-0', 1, 'lease.acquired')))
})

t.test('every event has a sentence, also one that is not known yet', async (t) => {
  const name = (id: string): string => `node ${id}`
  const transfer = event('1-0', 1, 'lease.transferred', { node: 'n1', detail: { to: 'n2' } })
  t.equal(sentenceOf(transfer, name).text, 'node n1 was asked to hand over for node n2')
  const moved = event('1-0', 1, 'assignment.changed', { detail: { moved: 1 } })
  t.equal(sentenceOf(moved, name).text, '1 partition to move')
  t.equal(sentenceOf(event('1-0', 1, 'moon.risen'), name).mark.word, 'risen')
})

t.test('a lane shows earlier terms, the present one, and the gaps between them', async (t) => {
  const events = [
    event('5-0', 90, 'lease.acquired', { node: 'n1', token: 41 }),
    event('4-0', 180, 'lease.lost', { node: 'n2', token: 40 }),
    event('3-0', 450, 'lease.acquired', { node: 'n2', token: 40 }),
    event('2-0', 500, 'lease.acquired', { node: 'n3', token: 7, subject: 'another/lease' }),
  ]
  t.strictSame(laneOf(held, events, nowMs), [
    { from: 900, to: 1_000, node: 'n1', current: true },
    { from: 500, to: 800, node: 'n2', current: false },
  ])
  t.strictSame(laneOf(free, [], nowMs), [], 'of what is not known nothing is drawn')
  const long = { ...held, acquiredAt: at(100_000) }
  t.strictSame(laneOf(long, [], nowMs), [{ from: 0, to: 1_000, node: 'n1', current: true }])
  const fresh = { ...held, acquiredAt: at(0) }
  t.strictSame(
    laneOf(fresh, [], nowMs),
    [{ from: 998, to: 1_000, node: 'n1', current: true }],
    'who has only just begun is seen as well',
  )
})

t.test('thousands of partitions become at most 512 cells, each as bad as its worst', async (t) => {
  const states = `${'o'.repeat(4_090)}muoooo`
  const cells = cellsOf({ states, owners: [...states].map((_, at) => at % 5) })
  t.equal(cells.length, 512)
  t.equal(cells.at(-1)?.state, 'u')
  t.equal(cells.at(-1)?.to, 4_095)
  t.equal(cells.filter(({ state }) => state === 'o').length, 511)
  t.notOk(
    cells.some(({ gap }) => gap),
    'a cell of several has no one owner',
  )
  const few = cellsOf({ states: 'ooo', owners: [0, 0, 1] })
  t.strictSame(
    few.map(({ gap }) => gap),
    [false, false, true],
  )
  t.strictSame(cellsOf({ states: '', owners: [] }), [])
})

t.test('durations are short, and numbers are grouped', async (t) => {
  const wanted = {
    0: '0 s',
    59999: '59 s',
    60000: '1 min',
    3600000: '1 h',
    18720000: '5 h 12 min',
    270000000: '3 d 3 h',
  }
  for (const [ms, text] of Object.entries(wanted)) t.equal(span(Number(ms)), text)
  t.equal(span(-5), '0 s')
  t.equal(ago(500), 'just now')
  t.equal(ago(61_000), '1 min ago')
  t.equal(grouped(1_234_567), '1 234 567')
  t.equal(timeOf(nowMs, true), '12:00:00')
})

t.test('what is left of a session is counted by the time that is given', async (t) => {
  t.strictSame(timeLeft(held, nowMs), { text: '12 s left', part: 0.8 })
  t.strictSame(timeLeft(held, nowMs + 20_000), { text: 'over for 8 s', part: 0 })
  t.equal(timeLeft(free, nowMs), null)
})

t.test('a reason is as long as the server wants it', async (t) => {
  t.match(flawOfReason('  ab '), /at least 3/)
  t.equal(flawOfReason('abc'), undefined)
  t.equal(flawOfReason('x'.repeat(200)), undefined)
  t.match(flawOfReason('x'.repeat(201)), /201 characters/)
})

t.test('keys are written in paths as the server reads them', async (t) => {
  t.equal(keyInPath('global/consumer#12'), 'global%3Aconsumer~12')
})
