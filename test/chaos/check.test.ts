/** The checker of histories: it finds each kind of violation, and nothing in a history without one. */
import t from 'tap'
import { check } from './check.js'
import type { Entry, HeldTerm } from './history.js'

function held(by: string, atMs: number, ...terms: HeldTerm[]): Entry {
  return { t: 'held', atMs, by, terms }
}

const fine: readonly Entry[] = [
  { t: 'fault', atMs: 1, kind: 'kill', number: 1 },
  held('a', 10, ['global/w', 5, 0], ['global/d#0', 5, 1]),
  held('a', 20, ['global/w', 5, 0]),
  { t: 'happened', atMs: 25, kind: 'kill', number: 1, times: 1, detail: '' },
  held('b', 30, ['global/w', 6, 0], ['global/d#0', 6, 2]),
  { t: 'ended', atMs: 31, by: 'a', how: 'SIGKILL', asked: true },
  { t: 'ordered', atMs: 32, what: 'drain', reason: 'drain 1' },
  { t: 'wrote', atMs: 33, by: 'b', key: 'global/w', token: 6, error: null },
  { t: 'wrote', atMs: 33, by: 'a', key: 'global/w', token: 5, error: 'FencedError' },
  { t: 'quiet', atMs: 40 },
  { t: 'settled', atMs: 50, ok: true, detail: '' },
  {
    t: 'written',
    rows: [
      ['global/w', 5],
      ['global/w', 6],
    ],
  },
  { t: 'events', reasons: ['drain 1'] },
]

t.test('a history in which nothing is wrong', async (t) => {
  const verdict = check(fine)
  t.same(verdict.violations, [])
  t.same([...verdict.faults], [['kill', { tried: 1, happened: 1 }]])
  t.match(verdict, { terms: 4, writes: 1, refused: 1, slowestSettlingMs: 10 })
})

t.test('what may not be is found', async (t) => {
  const wrong: Readonly<Record<string, readonly Entry[]>> = {
    'still held': [held('a', 30, ['global/w', 5, 0])],
    'generation 2': [held('a', 29, ['global/d#1', 4, 1]), held('a', 31, ['global/d#1', 4, 1])],
    'got global/w with token 6 after': [held('c', 60, ['global/w', 6, 0])],
    'came after one under': [
      {
        t: 'written',
        rows: [
          ['global/w', 6],
          ['global/w', 5],
        ],
      },
    ],
    'no event has its reason': [{ t: 'ordered', atMs: 33, what: 'pause', reason: 'pause 2' }],
    'not everything found its place': [{ t: 'settled', atMs: 70, ok: false, detail: 'global/w is free' }],
    'was let in': [{ t: 'admitted', atMs: 71, by: 'older.9' }],
    'ended by itself': [{ t: 'ended', atMs: 71, by: 'b', how: '1', asked: false }],
  }
  for (const [sentence, entries] of Object.entries(wrong)) {
    const { violations } = check([...fine, ...entries])
    t.equal(violations.length, 1, `${sentence}: ${violations.join('; ')}`)
    t.match(violations[0], sentence)
  }
})

t.test('what a lossy failover has forgotten is not asked for', async (t) => {
  const lost: readonly Entry[] = [
    { t: 'ordered', atMs: 33, what: 'pause', reason: 'pause 2' },
    { t: 'forgot', atMs: 34 },
  ]
  t.same(check([...fine, ...lost]).violations, [])
})
