import t from 'tap'
import { CoordinationError } from '../../plugin/core/errors.js'
import {
  backoffMs,
  blockWaitMs,
  jittered,
  lookEveryMs,
  type Preset,
  resolveTiming,
  standstillMs,
  type Timing,
  timingFigures,
  timingProblems,
  trustMs,
} from '../../plugin/core/time/timing.js'
import { thrownBy } from '../support/errors.js'

const presets: readonly Preset[] = ['default', 'fast', 'relaxed']

function sentencesOf(timing: Timing): string[] {
  return timingProblems(timing).map(({ sentence }) => sentence)
}

t.test('nothing given is the default preset', async (t) => {
  t.same(resolveTiming({}), {
    ttlMs: 15_000,
    heartbeatMs: 5_000,
    statementTimeoutMs: 3_000,
    marginMs: 1_500,
    claimTimeoutMs: 2_000,
    handoverTimeoutMs: 30_000,
    drainTimeoutMs: 20_000,
    pollMs: 1_000,
  })
  t.same(resolveTiming({ preset: 'default' }), resolveTiming({}))
})

t.test('every preset is accepted', async (t) => {
  for (const preset of presets) t.same(sentencesOf(resolveTiming({ preset })), [], preset)
})

t.test('the ttl alone gives everything else in proportion', async (t) => {
  t.same(resolveTiming({ ttlMs: 3_000 }), {
    ttlMs: 3_000,
    heartbeatMs: 1_000,
    statementTimeoutMs: 600,
    marginMs: 600,
    claimTimeoutMs: 1_000,
    handoverTimeoutMs: 30_000,
    drainTimeoutMs: 20_000,
    pollMs: 600,
  })
  t.same(resolveTiming({ ttlMs: 15_000 }), resolveTiming({ preset: 'default' }))
})

t.test('every allowed ttl is accepted with what follows from it', async (t) => {
  for (const ttlMs of [500, 501, 503, 599, 997, 1_000, 3_000, 4_999, 9_999, 45_000, 3_599_999, 3_600_000]) {
    t.same(sentencesOf(resolveTiming({ ttlMs })), [], `${ttlMs}`)
  }
  for (let ttlMs = 500; ttlMs < 60_000; ttlMs += 7) {
    const problems = sentencesOf(resolveTiming({ ttlMs }))
    if (problems.length > 0) t.fail(`${ttlMs}: ${problems}`)
  }
})

t.test('what is given stands, and only the rest is filled in', async (t) => {
  const derived = resolveTiming({ ttlMs: 30_000, heartbeatMs: 4_000 })
  t.match(derived, { ttlMs: 30_000, heartbeatMs: 4_000, statementTimeoutMs: 6_000, marginMs: 3_000 })
  const named = resolveTiming({ preset: 'fast', ttlMs: 8_000, pollMs: 100 })
  t.match(named, { ttlMs: 8_000, heartbeatMs: 2_000, statementTimeoutMs: 1_000, pollMs: 100 })
  t.match(resolveTiming({ heartbeatMs: 4_000 }), { ttlMs: 15_000, heartbeatMs: 4_000 })
})

t.test('durations cannot be changed afterwards', async (t) => {
  t.ok(Object.isFrozen(resolveTiming({})))
})

t.test('a preset that does not exist is refused by name', async (t) => {
  for (const preset of ['quick', '', '__proto__', 'toString']) {
    const error = thrownBy(() => resolveTiming({ preset: preset as Preset }))
    t.type(error, CoordinationError)
    t.match(error, { code: 'WCO_OPTIONS', message: 'preset: expected "default", "fast" or "relaxed", got ' })
    t.match(error, { message: `"${preset}"` })
  }
})

t.test('a violated inequality is told with its arithmetic', async (t) => {
  t.same(sentencesOf(resolveTiming({ statementTimeoutMs: 5_000, marginMs: 50, preset: 'default' })), [
    'statementTimeoutMs must be less than (ttlMs - heartbeatMs) / 2, so that two tries fit: ' +
      '5000 is not less than (15000 - 5000) / 2 = 5000.',
    '1.1 * heartbeatMs + 2 * statementTimeoutMs + marginMs must be at most 0.99 * ttlMs, so that one slow heartbeat ' +
      'costs no lease: 5500 + 10000 + 50 = 15550 is more than 14850.',
  ])
  t.same(sentencesOf(resolveTiming({ marginMs: 3_351 })), [
    '1.1 * heartbeatMs + 2 * statementTimeoutMs + marginMs must be at most 0.99 * ttlMs, so that one slow heartbeat ' +
      'costs no lease: 5500 + 6000 + 3351 = 14851 is more than 14850.',
  ])
  t.same(sentencesOf(resolveTiming({ marginMs: 3_350 })), [], 'equal is enough')
})

t.test(
  'heartbeats are no rarer than what is presumed where two of them are said to be missing',
  async (t) => {
    const rare = { ttlMs: 15_000, heartbeatMs: 11_000, statementTimeoutMs: 500, marginMs: 1_000 }
    t.same(sentencesOf(resolveTiming(rare)), [
      '3 * heartbeatMs must be at most ttlMs, so that a node from which nothing has come for two thirds of a ttl has ' +
        'missed two heartbeats: 3 * 11000 = 33000 is more than 15000.',
    ])
    t.equal(timingProblems(resolveTiming({ ...rare, heartbeatMs: 5_001 })).length, 1)
    t.same(sentencesOf(resolveTiming({ ...rare, heartbeatMs: 5_000 })), [], 'equal is enough')
  },
)

t.test('a value that is no sensible number of milliseconds is told with what was expected', async (t) => {
  const table: readonly [Partial<Timing>, string][] = [
    [{ ttlMs: 499 }, 'ttlMs: expected a whole number of milliseconds from 500 to 3600000, got 499.'],
    [
      { ttlMs: 3_600_001 },
      'ttlMs: expected a whole number of milliseconds from 500 to 3600000, got 3600001.',
    ],
    [{ ttlMs: Number.NaN }, 'ttlMs: expected a whole number of milliseconds from 500 to 3600000, got NaN.'],
    [{ heartbeatMs: 0 }, 'heartbeatMs: expected a whole number of milliseconds from 100 to 3600000, got 0.'],
    [{ statementTimeoutMs: -1 }, 'statementTimeoutMs: expected a whole number'],
    [{ marginMs: 0 }, 'marginMs: expected a whole number'],
    [{ claimTimeoutMs: 0 }, 'claimTimeoutMs: expected a whole number'],
    [{ handoverTimeoutMs: Number.POSITIVE_INFINITY }, 'handoverTimeoutMs: expected a whole number'],
    [{ drainTimeoutMs: 0 }, 'drainTimeoutMs: expected a whole number'],
    [{ pollMs: 0.5 }, 'pollMs: expected a whole number of milliseconds from 1 to 3600000, got 0.5.'],
    [
      { pollMs: '250' as unknown as number },
      'pollMs: expected a whole number of milliseconds from 1 to 3600000, got "250".',
    ],
  ]
  for (const [given, sentence] of table) {
    const problems = sentencesOf(resolveTiming(given))
    t.ok(problems[0]?.startsWith(sentence), `${JSON.stringify(given)}: ${problems[0]}`)
  }
})

t.test('all problems are told at once', async (t) => {
  const problems = timingProblems({
    ttlMs: 1_000,
    heartbeatMs: 5_000,
    statementTimeoutMs: 3_000,
    marginMs: 1_000,
    claimTimeoutMs: 0,
    handoverTimeoutMs: 0,
    drainTimeoutMs: 0,
    pollMs: 0,
  })
  t.same(
    problems.map(({ options }) => options),
    [
      ['claimTimeoutMs'],
      ['handoverTimeoutMs'],
      ['drainTimeoutMs'],
      ['pollMs'],
      ['heartbeatMs', 'ttlMs'],
      ['statementTimeoutMs', 'ttlMs', 'heartbeatMs'],
      ['heartbeatMs', 'statementTimeoutMs', 'marginMs', 'ttlMs'],
    ],
    'and which durations each is about',
  )
})

t.test(
  'a holder has stopped a margin before any watcher can bury it, whatever the two clock rates',
  async (t) => {
    for (const timing of [
      ...presets.map((preset) => resolveTiming({ preset })),
      resolveTiming({ ttlMs: 500 }),
    ]) {
      const stoppedAtMs = trustMs(timing) / 0.99
      const buriedAtMs = standstillMs(timing) / 1.01
      t.ok(buriedAtMs - stoppedAtMs >= timing.marginMs, `${timing.ttlMs}: ${stoppedAtMs} and ${buriedAtMs}`)
    }
  },
)

t.test('the durations that follow from the ttl', async (t) => {
  const timing = resolveTiming({})
  t.equal(trustMs(timing), 13_350)
  t.equal(standstillMs(timing), 15_150)
  t.equal(blockWaitMs(timing), 19_650)
  t.equal(lookEveryMs(timing), 1_500)
  t.equal(lookEveryMs({ ttlMs: 999 }), 99)
})

t.test('jitter stays within its fraction, to both sides', async (t) => {
  t.equal(jittered(5_000, 0.1, 0), 4_500)
  t.equal(jittered(5_000, 0.1, 0.5), 5_000)
  t.equal(jittered(5_000, 0.1, 0.999_999), 5_500)
  t.equal(jittered(0, 0.1, 0.9), 0)
  t.equal(jittered(5_000, 0, 0.9), 5_000)
})

t.test('backoff doubles up to its bound, and is never nothing', async (t) => {
  const options = { firstMs: 100, maxMs: 5_000 }
  const table: readonly [number, number, number][] = [
    [1, 50, 100],
    [2, 100, 200],
    [3, 200, 400],
    [6, 1_600, 3_200],
    [7, 2_500, 5_000],
    [5_000, 2_500, 5_000],
    [0, 50, 100],
  ]
  for (const [attempt, leastMs, mostMs] of table) {
    t.equal(backoffMs(attempt, options, 0), leastMs, `attempt ${attempt}, least`)
    t.equal(backoffMs(attempt, options, 0.999_999), mostMs, `attempt ${attempt}, most`)
  }
  t.equal(
    backoffMs(1, { firstMs: 9_000, maxMs: 5_000 }, 0.999_999),
    5_000,
    'the bound holds for the first too',
  )
})

t.test('the figures for the log', async (t) => {
  t.same(timingFigures(resolveTiming({})), {
    toleratedOutageMs: 13_350 - 5_500 - 3_000,
    toleratedStallMs: 13_350 - 5_500,
    takeoverAfterCrashMs: 15_150 + 1_500 + 1_000 + 500,
    takeoverAfterStopMs: 1_000 + 500,
  })
  t.match(
    timingFigures(resolveTiming({}), true),
    { takeoverAfterCrashMs: 15_150 + 1_500 + 500, takeoverAfterStopMs: 500 },
    'where hints are pushed nothing is polled',
  )
  for (const preset of presets) {
    const { toleratedOutageMs } = timingFigures(resolveTiming({ preset }))
    t.ok(toleratedOutageMs > 0, `${preset} tolerates an outage`)
  }
})
