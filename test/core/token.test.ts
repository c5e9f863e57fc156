import t from 'tap'
import { nextToken, raisedFloor } from '../../plugin/core/token.js'

const nowMs = 1_790_000_000_000

t.test('a token is above the previous one, above the floor, and not below the time', async (t) => {
  const table: readonly [string, number, number, number, number][] = [
    ['the first one is the time', 0, 0, nowMs, nowMs],
    ['a second one in the same millisecond', nowMs, 0, nowMs, nowMs + 1],
    ['the clock was set back an hour', nowMs, 0, nowMs - 3_600_000, nowMs + 1],
    ['the clock was set forward an hour', nowMs, 0, nowMs + 3_600_000, nowMs + 3_600_000],
    ['the floor was raised', nowMs, nowMs + 1e9, nowMs + 5, nowMs + 1e9 + 1],
    ['the row is above the floor again', nowMs + 1e9 + 1, nowMs + 1e9, nowMs + 9, nowMs + 1e9 + 2],
    ['the clock stands at 1970', 7, 3, 0, 8],
    ['the clock has fractions', 7, 3, nowMs + 0.75, nowMs],
    ['the last one there is', Number.MAX_SAFE_INTEGER - 1, 0, nowMs, Number.MAX_SAFE_INTEGER],
  ]
  for (const [name, previous, floor, now, token] of table)
    t.equal(nextToken(previous, floor, now), token, name)
})

t.test('tokens strictly grow whatever the clock does', async (t) => {
  const clock = [nowMs, nowMs, nowMs - 7_200_000, 0, nowMs + 7_200_000, nowMs, nowMs + 1, 12]
  let token = 0
  for (const now of clock) {
    const next = nextToken(token, 0, now)
    t.ok(next > token, `${next} after ${token}`)
    token = next
  }
})

t.test(
  'the floor goes 1 000 000 000 above everything known when the database has a new identity',
  async (t) => {
    const table: readonly [string, number, number, number, number, number][] = [
      ['nothing is known but the time', 0, 0, 0, nowMs, nowMs + 1e9],
      ['the floor is highest', nowMs + 2e9, nowMs, nowMs, nowMs, nowMs + 3e9],
      ['a lease is highest', 0, nowMs + 5, nowMs, nowMs, nowMs + 5 + 1e9],
      ['this node has seen a token the database has lost', 0, nowMs, nowMs + 7, nowMs - 1, nowMs + 7 + 1e9],
      ['the clock has fractions', 0, 0, 0, nowMs + 0.5, nowMs + 1e9],
    ]
    for (const [name, floor, highest, seen, now, raised] of table) {
      t.equal(raisedFloor(floor, highest, seen, now), raised, name)
    }
  },
)

t.test('a token that a lossy failover forgot is not given again', async (t) => {
  const lost = nextToken(100, 0, 104)
  const floor = raisedFloor(0, 100, 100, 104)
  t.ok(nextToken(100, floor, 104) > lost)
})

t.test('a token beyond the safe integers is refused', async (t) => {
  const most = Number.MAX_SAFE_INTEGER
  t.throws(() => nextToken(most, 0, nowMs), RangeError)
  t.throws(() => nextToken(0, most, nowMs), RangeError)
  t.throws(() => nextToken(0, 0, most + 1), { message: /whole number of at most 9007199254740991/ })
  t.throws(() => nextToken(0, 0, Number.POSITIVE_INFINITY), RangeError)
  t.throws(() => nextToken(0, 0, Number.NaN), RangeError)
  t.throws(() => nextToken(nowMs + 0.5, 0, 0), RangeError)
  t.throws(() => raisedFloor(most - 1e9 + 1, 0, 0, nowMs), RangeError)
  t.throws(() => raisedFloor(0, 0, Number.NaN, nowMs), RangeError)
})
