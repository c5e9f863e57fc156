import t from 'tap'
import type { Reading } from '../../plugin/core/time/clock.js'
import { elapsedMs, later, openWindow, remainingMs, surelyElapsedMs } from '../../plugin/core/time/trust.js'

const timing = { ttlMs: 15_000, marginMs: 1_500 }
const lengthMs = 13_350

t.test('two clocks bound what has elapsed from above and from below', async (t) => {
  const table: readonly [string, Reading, Reading, number, number][] = [
    ['nothing', at(5, 7), at(5, 7), 0, 0],
    ['both agree', at(100, 900), at(350, 1_150), 250, 250],
    ['the machine was suspended for 4 s', at(100, 900), at(1_600, 6_400), 5_500, 1_500],
    ['the coarse clock is a tick behind', at(100, 900), at(108, 900), 8, 0],
    ['the coarse clock is a tick ahead', at(100, 900), at(102, 910), 10, 2],
    ['the coarse clock went back', at(100, 900), at(350, 0), 250, 0],
    ['readings the wrong way round', at(100, 900), at(50, 850), 0, 0],
  ]
  for (const [name, from, to, most, least] of table) {
    t.equal(elapsedMs(from, to), most, `${name}: at most`)
    t.equal(surelyElapsedMs(from, to), least, `${name}: at least`)
  }
})

t.test('trust ends ttl·0.99 less the margin after the heartbeat was sent', async (t) => {
  const window = openWindow(at(1_000, 1_000), timing)
  t.equal(window.lengthMs, lengthMs)
  t.equal(remainingMs(window, at(1_000, 1_000)), lengthMs)
  t.equal(remainingMs(window, at(1_000 + lengthMs - 1, 1_000 + lengthMs - 1)), 1)
  t.equal(remainingMs(window, at(1_000 + lengthMs, 1_000 + lengthMs)), 0)
  t.ok(remainingMs(window, at(60_000, 60_000)) < 0)
})

t.test('a slow heartbeat does not lengthen trust', async (t) => {
  const sentAt = at(0, 0)
  const answeredAt = at(2_900, 2_900)
  t.equal(remainingMs(openWindow(sentAt, timing), answeredAt), lengthMs - 2_900)
})

t.test('a suspension uses up trust although the monotonic clock stood still', async (t) => {
  const window = openWindow(at(0, 0), timing)
  t.ok(remainingMs(window, at(200, 20_000)) <= 0)
})

t.test('a coarse clock that lags does not lengthen trust', async (t) => {
  const window = openWindow(at(0, 0), timing)
  t.equal(remainingMs(window, at(lengthMs, lengthMs - 10)), 0)
})

t.test('a late answer takes nothing from what a newer heartbeat gave', async (t) => {
  const older = openWindow(at(0, 0), timing)
  const newer = openWindow(at(5_000, 5_000), timing)
  t.equal(later(undefined, older), older)
  t.equal(later(older, newer), newer)
  t.equal(later(newer, older), newer)
})

t.test('of two windows the one that ends later counts, not the one that began later', async (t) => {
  const long = { from: at(0, 0), lengthMs: 10_000 }
  const short = { from: at(5_000, 5_000), lengthMs: 1_000 }
  t.equal(later(long, short), long)
  t.equal(later(short, long), long)
})

t.test('a window opened after a suspension outlasts one opened before it', async (t) => {
  const before = openWindow(at(1_000, 1_000), timing)
  const after = openWindow(at(1_001, 9_000), timing)
  t.equal(later(before, after), after)
  t.equal(later(after, before), after)
})

t.test('windows opened at the same reading are equally good, and the one in force stays', async (t) => {
  const first = openWindow(at(1_000, 1_000), timing)
  t.equal(later(first, openWindow(at(1_000, 1_000), timing)), first)
})

function at(monoMs: number, bootMs: number): Reading {
  return { monoMs, bootMs }
}
