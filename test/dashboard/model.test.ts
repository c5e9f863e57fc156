/** Tests what things mean on the page. These functions are pure, so no browser is needed. */
import t from 'tap'
import {
  ago,
  cellsOf,
  dateOf,
  grouped,
  type Happening,
  horizonOf,
  isAfter,
  keyInPath,
  type Lease,
  laneOf,
  markOfAssignment,
  markOfEvent,
  markOfLease,
  markOfNode,
  merged,
  newsOf,
  passes,
  sentenceOfNews,
  span,
  timeLeft,
  timeOf,
  verdictOf,
  wordsOfReason,
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
  kind: 'single',
  paused: false,
  inUse: true,
  candidateCount: 2,
  schedule: null,
  session: { pulse: 'steady', ttlMs: 15_000, heartbeatAt: at(3) },
}
const free: Lease = { ...held, state: 'free', holder: null, target: null, session: null, acquiredAt: null }

function event(id: string, secondsAgo: number, type: string, more: Partial<Happening> = {}): Happening {
  const rest = { node: null, nodeName: null, token: null, actor: null, reason: null, sentence: '' }
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
    'not in use': { ...free, key: 'global/data#2', worker: 'global/data', slot: 2, inUse: false },
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

t.test('a share of an older plan lacks no owner, but one that is still held is shown as such', async (t) => {
  const share = { key: 'global/data#2', worker: 'global/data', slot: 2, inUse: false }
  t.match(markOfLease({ ...free, ...share }), { word: 'not in use', tone: 'off' })
  t.match(markOfLease({ ...free, ...share, inUse: true }), { word: 'no owner', tone: 'warn' })
  t.match(markOfLease({ ...held, ...share }), { word: 'held' })
  t.match(markOfLease({ ...free, ...share, state: 'blocked' }), { word: 'stopping' })
})

t.test('the reasons of the engine have words, and what a person wrote stays as it is', async (t) => {
  t.equal(wordsOfReason('passes-failed', null), 'its passes failed')
  t.equal(wordsOfReason('stepped-down', null), 'stepped down')
  t.equal(wordsOfReason('passes-failed', 'mira'), undefined)
  t.equal(wordsOfReason('the holder did not hand over in time', null), 'the holder did not hand over in time')
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
  const rest = { owners: 1, least: 4, most: 4, paused: false, pause: null, candidateCount: 1, map: null }
  t.equal(markOfAssignment({ ...well, ...rest }).word, 'all owned')
  t.equal(markOfAssignment({ ...well, ...rest, moving: 2 }).word, '2 moving')
  t.equal(markOfAssignment({ ...well, ...rest, moving: 2, unowned: 1 }).word, '1 without owner')
  t.equal(markOfAssignment({ ...well, ...rest, unowned: 4, paused: true }).word, 'paused')
  t.match(markOfAssignment({ ...well, ...rest, slots: 0, owned: 0, owners: 0 }), {
    word: 'nobody',
    tone: 'bad',
  })
})

t.test('the verdict counts problems and warnings, and a death that is over is said to be over', async (t) => {
  const counts = (error: number, warning: number, paused = 0) => ({
    problemCounts: { error, warning, info: 3 },
    counts: { workers: { running: 1, paused } },
  })
  t.equal(verdictOf(counts(0, 0), undefined).word, 'All well')
  t.equal(verdictOf(counts(0, 0, 2), undefined).word, 'All well, 2 paused')
  t.equal(verdictOf(counts(1, 2), undefined).word, '1 problem, 2 warnings')
  t.equal(verdictOf(counts(0, 1), undefined).tone, 'warn')
  const idle = { ...counts(0, 1), problemCodes: [{ code: 'worker-without-candidates', count: 1 }] }
  t.match(verdictOf(idle, undefined), { word: 'Nothing runs, 1 warning', tone: 'bad' })
  const news = { names: ['node-1'], back: false, atMs: nowMs, lost: 1, moved: 1 }
  t.equal(verdictOf(counts(0, 0), news).word, 'All well again')
})

t.test('the news tells how much of what a dead node held has moved', async (t) => {
  const death = event('9-0', 10, 'node.gone', { subject: 'n1', node: 'n1', nodeName: 'node-1' })
  const lost = [
    event('9-1', 10, 'lease.lost', { node: 'n1' }),
    event('9-2', 10, 'lease.lost', { node: 'n1', subject: 'global/month-close' }),
    event('9-3', 10, 'lease.lost', { node: 'n9', subject: 'global/of-another' }),
  ]
  const earlier = event('3-0', 90, 'lease.acquired', { node: 'n1' })
  const taken = event('10-0', 9, 'lease.acquired', { node: 'n2' })
  const planned = event('11-0', 9, 'target.passed-over', { node: 'n3', subject: 'global/month-close' })
  const some = newsOf(merged([death, ...lost, earlier], [taken, planned]), nowMs)
  t.strictSame(some, { names: ['node-1'], back: false, atMs: nowMs - 10_000, lost: 2, moved: 1 })
  const news = { names: ['node-1'], back: false, atMs: nowMs, lost: 2, moved: 1 }
  t.equal(
    sentenceOfNews(news, ' 10 s ago'),
    'node-1 was declared gone 10 s ago: 1 of the 2 leases it held have moved so far.',
  )
  t.equal(
    sentenceOfNews({ ...news, moved: 2 }),
    'node-1 was declared gone: all it held has moved (2 leases).',
  )
  t.equal(sentenceOfNews({ ...news, lost: 0, moved: 0 }), 'node-1 was declared gone: it held nothing.')
  const back = event('12-0', 2, 'node.joined', { subject: 'n8', node: 'n8', nodeName: 'node-1' })
  t.match(
    sentenceOfNews(newsOf([back, death], nowMs) ?? news),
    'node-1 was declared gone, and is back: it held nothing.',
  )
  const second = event('11-5', 4, 'node.gone', { subject: 'n2', node: 'n2', nodeName: 'node-2' })
  const both = newsOf([second, taken, ...lost, death], nowMs)
  t.match(both, { names: ['node-2', 'node-1'], lost: 2, moved: 1 })
  t.equal(
    sentenceOfNews(both ?? news, ' 4 s ago'),
    '2 nodes were declared gone (node-2, node-1), the last 4 s ago: 1 of the 2 leases they held have moved so far.',
  )
  const many = ['a', 'b', 'c', 'd', 'e', 'f', 'g']
  t.equal(
    sentenceOfNews({ ...news, names: many, moved: 2 }),
    '7 nodes were declared gone (a, b, c, d, e and 2 more): all they held has moved (2 leases).',
  )
  t.equal(newsOf([{ ...death, at: at(301) }], nowMs), undefined, 'five minutes later it is none any more')
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
  const older = [event('0-1', 0, 'x')]
  t.strictSame(merged(merged(many, []), older, Number.POSITIVE_INFINITY).at(-1), older[0], 'unless wanted')
  const kept = merged(many, [])
  t.equal(horizonOf(kept, 0), Date.parse(kept.at(-1)?.at ?? ''), 'nothing is said of the time before')
  t.equal(horizonOf(kept, nowMs), nowMs)
  t.equal(horizonOf(kept.slice(1), 0), 0, 'all of them are there')
})

t.test('only what a person did passes for that', async (t) => {
  t.ok(passes('By people', event('1-0', 1, 'lease.revoked', { actor: 'mira' })))
  t.notOk(passes('By people', event('1-0', 1, 'lease.revoked')), 'a watcher revokes as well')
  t.notOk(passes('By people', event('1-0', 1, 'node.gone', { actor: 'n2' })))
  t.ok(passes('All', event('1-0', 1, 'whatever')))
  t.notOk(passes('Nodes', event('1-0', 1, 'lease.acquired')))
  t.ok(passes('Nodes', event('1-0', 1, 'node.gone')))
})

t.test('every event has a word, also one that is not known yet', async (t) => {
  t.equal(markOfEvent(event('1-0', 1, 'lease.transferred')).word, 'step down')
  t.equal(markOfEvent(event('1-0', 1, 'target.passed-over')).word, 'passed over')
  t.equal(markOfEvent(event('1-0', 1, 'lease.lost')).tone, 'bad')
  t.equal(markOfEvent(event('1-0', 1, 'assignment.changed')).tone, 'move')
  t.equal(markOfEvent(event('1-0', 1, 'server.changed')).tone, 'warn')
  t.strictSame(markOfEvent(event('1-0', 1, 'moon.risen')), { icon: 'ring', word: 'risen', tone: 'off' })
})

t.test('a lane shows earlier terms, the present one, and the gaps between them', async (t) => {
  const events = [
    event('5-0', 90, 'lease.acquired', { node: 'n1', token: 41 }),
    event('4-0', 180, 'lease.lost', { node: 'n2', token: 40 }),
    event('3-0', 450, 'lease.acquired', { node: 'n2', token: 40 }),
    event('2-0', 500, 'lease.acquired', { node: 'n3', token: 7, subject: 'another/lease' }),
  ]
  t.strictSame(laneOf(held, events, nowMs), {
    spans: [
      { from: 900, to: 1_000, node: 'n1' },
      { from: 500, to: 800, node: 'n2' },
    ],
    knownFrom: 500,
  })
  t.strictSame(
    laneOf(free, [], nowMs),
    { spans: [], knownFrom: 1_000 },
    'of what is not known nothing is drawn',
  )
  const lost = event('4-0', 180, 'lease.lost', { node: 'n2', token: 40 })
  t.strictSame(laneOf(free, [lost], nowMs), { spans: [], knownFrom: 800 }, 'since then nobody has it')
  const long = { ...held, acquiredAt: at(100_000) }
  t.strictSame(laneOf(long, [], nowMs).spans, [{ from: 0, to: 1_000, node: 'n1' }])
  const fresh = { ...held, acquiredAt: at(0) }
  t.strictSame(
    laneOf(fresh, [], nowMs).spans,
    [{ from: 998, to: 1_000, node: 'n1' }],
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

t.test('local times are right on the days on which clocks are changed', async (t) => {
  const { TZ: before } = process.env
  t.teardown(() => {
    if (before === undefined) delete process.env.TZ
    else process.env.TZ = before
  })
  const local: [zone: string, at: string, shown: string][] = [
    ['Europe/Vienna', '2026-10-25T00:30:00Z', '2026-10-25 02:30:00'],
    ['Europe/Vienna', '2026-10-25T01:30:00Z', '2026-10-25 02:30:00'],
    ['America/New_York', '2026-03-08T09:00:00Z', '2026-03-08 05:00:00'],
    ['America/New_York', '2026-11-01T08:00:00Z', '2026-11-01 03:00:00'],
    ['Asia/Kolkata', '2026-11-01T18:31:00Z', '2026-11-02 00:01:00'],
  ]
  for (const [zone, at, shown] of local) {
    process.env.TZ = zone
    t.equal(dateOf(at, false), shown, `${at} in ${zone}`)
    t.equal(dateOf(at, true), at.slice(0, 19).replace('T', ' '))
  }
})

t.test('what is left of a session is counted by the time that is given', async (t) => {
  t.strictSame(timeLeft(held, nowMs), { text: '12 s left', part: 0.8 })
  t.strictSame(timeLeft(held, nowMs + 20_000), { text: 'over for 8 s', part: 0 })
  t.equal(timeLeft(free, nowMs), null)
})

t.test('keys are written in paths as the server reads them', async (t) => {
  t.equal(keyInPath('global/consumer#12'), 'global%3Aconsumer~12')
})
