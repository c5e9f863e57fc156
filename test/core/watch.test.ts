import t from 'tap'
import type { Reading } from '../../plugin/core/time/clock.js'
import { lookEveryMs, resolveTiming, standstillMs } from '../../plugin/core/time/timing.js'
import { openWindow, remainingMs } from '../../plugin/core/time/trust.js'
import { Standstill } from '../../plugin/core/watch/watch.js'

const options = { waitMs: 1_000, staleAfterMs: 500 }

t.test('what has stood still for the whole wait is answered, and not a moment before', async (t) => {
  const watch = new Standstill<number>(options)
  t.same(look(watch, { a: 1, b: 1 }, 0), [])
  t.same(look(watch, { a: 1, b: 2 }, 400), [])
  t.same(look(watch, { a: 1, b: 3 }, 800), [])
  t.same(look(watch, { a: 1, b: 3 }, 999), [])
  t.same(look(watch, { a: 1, b: 3 }, 1_000), ['a'])
})

t.test('it is answered again at each look, until it moves or is no longer seen', async (t) => {
  const watch = new Standstill<number>(options)
  for (const atMs of [0, 400, 800]) look(watch, { a: 1 }, atMs)
  t.same(look(watch, { a: 1 }, 1_200), ['a'])
  t.same(look(watch, { a: 1 }, 1_400), ['a'])
  t.same(look(watch, { a: 2 }, 1_600), [])
  t.same(look(watch, {}, 1_800), [])
})

t.test('time spent on the way of a request is not time seen standing still', async (t) => {
  const watch = new Standstill<number>(options)
  watch.observe(new Map([['a', 1]]), at(0), at(300))
  watch.observe(new Map([['a', 1]]), at(600), at(700))
  t.same(
    watch.observe(new Map([['a', 1]]), at(1_000), at(1_100)),
    [],
    'sent a whole wait after the first was sent',
  )
  t.same(
    watch.observe(new Map([['a', 1]]), at(1_299), at(1_400)),
    [],
    'answered a whole wait after the first answer',
  )
  t.same(watch.observe(new Map([['a', 1]]), at(1_300), at(1_400)), ['a'])
})

t.test('what was not seen for one look is watched from the beginning', async (t) => {
  const watch = new Standstill<number>(options)
  look(watch, { a: 1 }, 0)
  look(watch, {}, 400)
  look(watch, { a: 1 }, 800)
  t.same(look(watch, { a: 1 }, 1_200), [])
  t.same(look(watch, { a: 1 }, 1_600), [])
  t.same(look(watch, { a: 1 }, 1_800), ['a'])
})

t.test('a node that was late looks again before it judges others', async (t) => {
  const watch = new Standstill<number>(options)
  for (const atMs of [0, 400, 800]) look(watch, { a: 1 }, atMs)
  t.same(look(watch, { a: 1 }, 1_301), [], 'a gap of 501 ms')
  for (const atMs of [1_700, 2_100]) t.same(look(watch, { a: 1 }, atMs), [])
  t.same(look(watch, { a: 1 }, 2_301), ['a'])
})

t.test('a gap just as long as allowed is no gap', async (t) => {
  const watch = new Standstill<number>(options)
  for (const atMs of [0, 500]) look(watch, { a: 1 }, atMs)
  t.same(look(watch, { a: 1 }, 1_000), ['a'])
})

t.test('a node that stood still between sending a look and reading its answer was late too', async (t) => {
  const watch = new Standstill<number>(options)
  for (const atMs of [0, 400, 800]) look(watch, { a: 1 }, atMs)
  t.same(watch.observe(new Map([['a', 1]]), at(1_100), at(9_000)), [])
  t.same(look(watch, { a: 1 }, 9_400), [])
})

t.test('a suspension of the watcher counts as being late and not as having watched', async (t) => {
  const watch = new Standstill<number>(options)
  for (const atMs of [0, 400]) look(watch, { a: 1 }, atMs)
  const awake = { monoMs: 700, bootMs: 60_700 }
  t.same(watch.observe(new Map([['a', 1]]), awake, awake), [])
  t.equal(watch.dueInMs(awake), 1_000)
})

t.test('a suspension too short to make it late counts for nothing', async (t) => {
  const watch = new Standstill<number>(options)
  const looks = [0, 300, 600, 900].map((monoMs) => ({ monoMs, bootMs: monoMs + (monoMs > 300 ? 150 : 0) }))
  for (const reading of looks) t.same(watch.observe(new Map([['a', 1]]), reading, reading), [])
  const due = { monoMs: 1_000, bootMs: 1_150 }
  t.same(watch.observe(new Map([['a', 1]]), due, due), ['a'])
})

t.test('one clock that leaps ahead buries nobody', async (t) => {
  for (const leapt of [at(400, 90_000_000), at(90_000_000, 400)]) {
    const watch = new Standstill<number>({ ...options, staleAfterMs: Number.POSITIVE_INFINITY })
    look(watch, { a: 1 }, 0)
    t.same(watch.observe(new Map([['a', 1]]), leapt, leapt), [])
  }
})

t.test('answers that come in the wrong order bury nobody early', async (t) => {
  const watch = new Standstill<number>(options)
  watch.observe(new Map([['a', 2]]), at(100), at(150))
  t.same(watch.observe(new Map([['a', 1]]), at(0), at(400)), [])
  t.same(watch.observe(new Map([['a', 2]]), at(700), at(700)), [])
  t.same(watch.observe(new Map([['a', 2]]), at(1_150), at(1_150)), [])
})

t.test('each thing can have a wait of its own', async (t) => {
  const waits: Readonly<Record<string, number>> = { quick: 300, slow: 5_000 }
  const watch = new Standstill<number>({ ...options, waitMs: (id) => waits[id] ?? options.waitMs })
  const all = { quick: 1, plain: 1, slow: 1 }
  look(watch, all, 0)
  t.equal(watch.dueInMs(at(0)), 300)
  t.same(look(watch, all, 300), ['quick'])
  t.equal(watch.dueInMs(at(300)), 700)
  look(watch, all, 700)
  t.same(look(watch, all, 1_000), ['quick', 'plain'])
  t.equal(watch.dueInMs(at(1_000)), 4_000)
})

t.test('a wait may change, and is taken from what it is at this look', async (t) => {
  let waitMs = 900
  const watch = new Standstill<number>({ ...options, waitMs: () => waitMs })
  look(watch, { a: 1 }, 0)
  waitMs = 400
  t.same(look(watch, { a: 1 }, 400), ['a'])
})

t.test('it tells when a look could complete the earliest wait', async (t) => {
  const watch = new Standstill<number>(options)
  t.equal(watch.dueInMs(at(0)), undefined, 'nothing is watched')
  look(watch, { a: 1 }, 0)
  look(watch, { a: 1, b: 1 }, 400)
  t.equal(watch.dueInMs(at(400)), 600)
  t.equal(watch.dueInMs(at(999.5)), 1, 'whole milliseconds, never too early')
  t.equal(watch.dueInMs(at(1_000)), 0)
  t.equal(watch.dueInMs(at(7_000)), 0)
})

t.test('what is complete but cannot be dealt with does not keep anybody awake', async (t) => {
  const watch = new Standstill<number>(options)
  for (const atMs of [0, 400, 800]) look(watch, { a: 1 }, atMs)
  t.same(look(watch, { a: 1 }, 1_000), ['a'])
  t.equal(watch.dueInMs(at(1_000)), undefined)
  look(watch, { a: 1, b: 1 }, 1_200)
  t.equal(watch.dueInMs(at(1_200)), 1_000, 'only b is waited for')
})

t.test('after a reset everything starts afresh', async (t) => {
  const watch = new Standstill<number>(options)
  for (const atMs of [0, 400, 800]) look(watch, { a: 1 }, atMs)
  watch.reset()
  t.equal(watch.dueInMs(at(800)), undefined)
  t.same(look(watch, { a: 1 }, 1_200), [])
  watch.reset()
  watch.reset()
})

t.test('ids that look like properties are ids like others', async (t) => {
  const watch = new Standstill<number>({ waitMs: 100, staleAfterMs: 500 })
  const seen = new Map([
    ['__proto__', 1],
    ['constructor', 1],
  ])
  watch.observe(seen, at(0), at(0))
  t.same(watch.observe(seen, at(100), at(100)), ['__proto__', 'constructor'])
})

t.test(
  'nobody is buried while it may still trust, with clocks 1 % apart, suspensions and slow answers',
  async (t) => {
    const timing = resolveTiming({ ttlMs: 3_000 })
    let buried = 0
    for (let seed = 1; seed <= 2_000; seed++) {
      const random = randomFrom(seed)
      const holder = machine(random)
      const watcher = machine(random)
      const sentAtMs = 1_000 * random()
      const stampedAtMs = sentAtMs + 500 * random()
      const window = openWindow(holder(sentAtMs), timing)
      const watch = new Standstill<number>({ waitMs: standstillMs(timing), staleAfterMs: 1_500 })
      let lookAtMs = 500 * random()
      while (lookAtMs < 30_000) {
        const readAtMs = lookAtMs + 200 * random()
        const answeredAtMs = readAtMs + 200 * random()
        const beat = readAtMs < stampedAtMs ? 1 : 2
        const judged = watch.observe(new Map([['holder', beat]]), watcher(lookAtMs), watcher(answeredAtMs))
        if (judged.length > 0) break
        const dueInMs = watch.dueInMs(watcher(answeredAtMs)) ?? 0
        lookAtMs = answeredAtMs + Math.min(lookEveryMs(timing), dueInMs + 1) * (0.98 + 0.04 * random())
      }
      if (lookAtMs >= 30_000) continue
      buried += 1
      const leftMs = remainingMs(window, holder(lookAtMs))
      if (leftMs > 0) t.fail(`seed ${seed}: buried with ${leftMs} ms of trust left`)
    }
    t.ok(buried > 1_900, `${buried} of 2000 were buried in the end`)
  },
)

/**
 * Returns the clocks of one machine at true times. Their rate is up to 1 % wrong, the boot-time clock ticks, and the
 * machine may be suspended once.
 */
function machine(random: () => number): (trueMs: number) => Reading {
  const rate = [0.99, 1, 1.01][Math.floor(3 * random())] ?? 1
  const tickMs = [1, 10, 16][Math.floor(3 * random())] ?? 1
  const originMs = 1_000_000 * random()
  const suspendedAtMs = 8_000 * random()
  const suspendedForMs = random() < 0.5 ? 0 : 3_000 * random()
  return (trueMs) => {
    const asleepMs = Math.min(suspendedForMs, Math.max(0, trueMs - suspendedAtMs))
    const bootMs = Math.floor((originMs + rate * trueMs) / tickMs) * tickMs
    return { monoMs: originMs / 2 + rate * (trueMs - asleepMs), bootMs }
  }
}

/** Returns a Mulberry32 generator. */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

function look(
  watch: Standstill<number>,
  seen: Readonly<Record<string, number>>,
  atMs: number,
): readonly string[] {
  return watch.observe(new Map(Object.entries(seen)), at(atMs), at(atMs))
}

function at(monoMs: number, bootMs = monoMs): Reading {
  return { monoMs, bootMs }
}
