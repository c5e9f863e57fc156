/**
 * Whether a database and a set of durations can hold the promises: tried, not assumed.
 *
 * Nothing is left behind: what is written is rolled back.
 */

import type { Store } from '../core/store.js'
import type { Timing } from '../core/timing.js'
import { timingFigures } from '../core/timing.js'
import { type Answer, exitCodes, type Mood } from './output.js'

interface Finding {
  readonly what: string
  readonly verdict: 'good' | 'bad' | 'doubtful'
  readonly detail: string
}

/** How often the way to the database and back is timed. */
const roundTrips = 25

/** @param nowMs the wall clock of this machine. */
export async function check(store: Store, timing: Timing, nowMs: () => number): Promise<Answer> {
  const findings = [
    { what: 'connection and tables', verdict: 'good', detail: `${store.dialect}, up to date` } as const,
    await writing(store),
    ...(await latency(store, timing)),
    await clock(store, nowMs),
    hints(store, timing),
  ]
  const figures = timingFigures(timing)
  const isBad = findings.some(({ verdict }) => verdict === 'bad')
  const words: Readonly<Record<Mood, string>> = { good: 'ok', doubtful: 'mind', bad: 'FAILED' }
  return {
    json: { findings, timing, ...figures },
    text: [
      {
        head: ['', 'WHAT', ''],
        rows: findings.map(({ what, verdict, detail }) => [
          { text: words[verdict], mood: verdict },
          what,
          detail,
        ]),
      },
      '',
      {
        head: ['WITH THESE DURATIONS', 'MS'],
        rows: Object.entries(figures).map(([name, ms]) => [name, String(ms)]),
      },
    ],
    exitCode: isBad ? exitCodes.no : exitCodes.done,
  }
}

class RolledBack extends Error {}

/** A change that writes a row of each kind it can, and is undone. */
async function writing(store: Store): Promise<Finding> {
  const what = 'writing in an ordered change'
  try {
    await store.change(undefined, async (change) => {
      await change.record([{ type: 'check.tried', subject: 'database' }])
      await change.highestToken()
      await change.view('nobody')
      throw new RolledBack()
    })
    return { what, verdict: 'bad', detail: 'it was not rolled back' }
  } catch (error) {
    if (error instanceof RolledBack) return { what, verdict: 'good', detail: 'done and rolled back' }
    return { what, verdict: 'bad', detail: error instanceof Error ? error.message : String(error) }
  }
}

async function latency(store: Store, { statementTimeoutMs, heartbeatMs }: Timing): Promise<Finding[]> {
  const took: number[] = []
  for (let trip = 0; trip < roundTrips; trip++) {
    const begunMs = performance.now()
    await store.news('nobody')
    took.push(performance.now() - begunMs)
  }
  took.sort((a, b) => a - b)
  const medianMs = took[Math.floor(took.length / 2)] ?? 0
  const longestMs = took.at(-1) ?? 0
  const detail = `median ${medianMs.toFixed(1)} ms, longest ${longestMs.toFixed(1)} ms of ${roundTrips}`
  const verdict =
    longestMs > statementTimeoutMs / 2 ? 'bad' : longestMs > heartbeatMs / 10 ? 'doubtful' : 'good'
  return [{ what: `round trips, against a limit of ${statementTimeoutMs} ms`, verdict, detail }]
}

/** No promise rests on it; schedules and what people read do. */
async function clock(store: Store, nowMs: () => number): Promise<Finding> {
  const beforeMs = nowMs()
  const { nowMs: databaseMs } = await store.snapshot()
  const offsetMs = Math.round(databaseMs - (beforeMs + nowMs()) / 2)
  const verdict = Math.abs(offsetMs) > 2_000 ? 'doubtful' : 'good'
  const detail = `${offsetMs} ms ahead of this machine's; no lease depends on it, schedules and logs do`
  return { what: "the database's clock", verdict, detail }
}

function hints(store: Store, { pollMs }: Timing): Finding {
  const { push } = store.capabilities
  const detail = push
    ? 'pushed by the database'
    : `polled every ${pollMs} ms: hand-overs take that much longer`
  return { what: 'hints', verdict: 'good', detail }
}
