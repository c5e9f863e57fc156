import t, { type Test } from 'tap'
import { nextToken, raisedFloor } from '../../plugin/core/changes/token.js'

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

t.test('the floor leaps ahead of the time, and goes above everything known', async (t) => {
  const table: readonly [string, number, number, number, number, number][] = [
    ['nothing is known but the time', 0, 0, 0, nowMs, nowMs + 1e9],
    ['the floor is highest', nowMs + 2e9, nowMs, nowMs, nowMs, nowMs + 2e9 + 10_000],
    ['the floor is of a moment ago', nowMs + 1e9 - 2_000, nowMs, nowMs, nowMs, nowMs + 1e9],
    ['the floor is of this moment', nowMs + 1e9, nowMs, nowMs, nowMs, nowMs + 1e9 + 10_000],
    ['a lease is highest', 0, nowMs + 2e9, nowMs, nowMs, nowMs + 2e9 + 10_000],
    ['this node has seen what the database has lost', 0, 5, nowMs + 2e9, nowMs, nowMs + 2e9 + 10_000],
    ['the clock was set back a day', 0, nowMs, 0, nowMs - 86_400_000, nowMs - 86_400_000 + 1e9],
    ['the clock stands at 1970', nowMs, 0, 0, 0, nowMs + 10_000],
    ['the clock has fractions', 0, 0, 0, nowMs + 0.5, nowMs + 1e9],
  ]
  for (const [name, floor, highest, seen, now, raised] of table)
    t.equal(raisedFloor(floor, highest, seen, now), raised, name)
})

t.test('floors of servers that follow each other within seconds do not pile up', async (t) => {
  isAboveForgotten(t, { servers: 5, apartMs: 1_000, claims: 10, claimedAfterMs: 0 })
})

t.test('however many records of servers are forgotten, the next one lies above their tokens', async (t) => {
  isAboveForgotten(t, { servers: 50, apartMs: 5, claims: 100, claimedAfterMs: 10_000 })
})

/** Checks that a server that has forgotten all those before it still gives a greater token than they have given. */
function isAboveForgotten(
  t: Test,
  course: {
    readonly servers: number
    readonly apartMs: number
    /** How many claims there are under each server, and how long after it is recorded. */
    readonly claims: number
    readonly claimedAfterMs: number
  },
): void {
  const before = { floor: 0, token: nowMs }
  let { floor, token } = before
  let now = nowMs
  for (let server = 0; server < course.servers; server++) {
    now += course.apartMs
    floor = raisedFloor(floor, token, 0, now)
    now += course.claimedAfterMs
    for (let claim = 0; claim < course.claims; claim++) token = nextToken(token, floor, now)
  }
  now += Math.max(0, course.apartMs - course.claimedAfterMs)
  const forgotten = raisedFloor(before.floor, before.token, 0, now)
  t.ok(nextToken(before.token, forgotten, now + course.claimedAfterMs) > token)
}

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
  t.throws(() => raisedFloor(most - 10_000 + 1, 0, 0, nowMs), RangeError)
  t.throws(() => raisedFloor(0, 0, 0, most - 1e9 + 1), RangeError)
  t.throws(() => raisedFloor(0, 0, Number.NaN, nowMs), RangeError)
})
