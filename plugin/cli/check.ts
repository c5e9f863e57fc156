/**
 * Checks whether a database and a set of durations can hold the promises: by trying, not by assuming.
 *
 * Nothing is left behind: what is written is rolled back.
 */

import { freshLease } from '../core/changes/rows.js'
import type { Store, WorkerRow } from '../core/store.js'
import type { Timing } from '../core/time/timing.js'
import { timingFigures } from '../core/time/timing.js'
import { type Answer, exitCodes, type Mood } from './output.js'

interface Finding {
  readonly what: string
  readonly verdict: 'good' | 'bad' | 'doubtful'
  readonly detail: string
}

/** How many round trips to the database are timed. */
const roundTrips = 25

/**
 * Runs all checks.
 *
 * @param nowMs the wall clock of this machine
 * @param warnings what was logged while the store opened: a pooler in between, a slow journal
 */
export async function check(
  store: Store,
  timing: Timing,
  nowMs: () => number,
  warnings: readonly string[],
): Promise<Answer> {
  const findings: Finding[] = [
    { what: 'connection and tables', verdict: 'good', detail: `${store.dialect}, up to date` },
    ...warnings.map((detail): Finding => ({ what: 'the way to the database', verdict: 'doubtful', detail })),
    await writing(store),
    await clearing(store),
    ...(await latency(store, timing)),
    await clock(store, nowMs),
    hints(store, timing),
  ]
  const figures = timingFigures(timing, store.capabilities.push)
  const isBad = findings.some(({ verdict }) => verdict === 'bad')
  const words: Readonly<Record<Mood, string>> = { good: 'ok', doubtful: 'warn', bad: 'FAILED' }
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

/** Writes to each table in a change that is rolled back. This finds missing rights. */
async function writing(store: Store): Promise<Finding> {
  const what = 'writing in an ordered change'
  try {
    await store.change(undefined, async (change) => {
      const id = `check-${performance.timeOrigin}`
      await change.addNode({ ...someNode, id }, 1)
      await change.updateNode(id, { state: 'draining' })
      await change.tell(new Set([id]))
      await change.saveWorkers([{ ...someWorker, key: id }])
      await change.saveLeases([{ ...freshLease(id, null, 0), holder: id }])
      await change.view(id)
      await change.deleteLeases([id])
      await change.forgetWorker(id)
      await change.bury(id)
      await change.forgetNode(id)
      await change.saveMeta({ tokenFloor: change.meta.tokenFloor })
      await change.record([{ type: 'check.tried', subject: 'database' }])
      throw new RolledBack()
    })
    return { what, verdict: 'bad', detail: 'it was not rolled back' }
  } catch (error) {
    if (error instanceof RolledBack) return { what, verdict: 'good', detail: 'done and rolled back' }
    return { what, verdict: 'bad', detail: sentenceOf(error) }
  }
}

const someNode = {
  ...{ name: 'check', cluster: 'check', workers: [], labels: {}, version: null },
  ...{ machine: null, process: null, ttlMs: 15_000 },
}

const someWorker: WorkerRow = {
  key: 'check',
  ...{
    name: 'check',
    kind: 'single',
    scope: 'global',
    cluster: null,
    generation: 0,
    slots: 1,
    paused: false,
  },
  ...{ handoverTimeoutMs: 30_000, schedule: null, revision: 0 },
}

/** Requests the deletion of everything older than a thousand years. */
async function clearing(store: Store): Promise<Finding> {
  const what = 'deleting what is old'
  const aThousandYearsMs = 1_000 * 365 * 86_400_000
  try {
    await store.prune({ eventsForMs: aThousandYearsMs, goneNodesForMs: aThousandYearsMs, events: 1e9 })
    return { what, verdict: 'good', detail: 'allowed; nothing was deleted' }
  } catch (error) {
    return { what, verdict: 'bad', detail: sentenceOf(error) }
  }
}

/** Returns the message of an error, followed by what the database itself gave as the cause. */
function sentenceOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error ? `${error.message} ${sentenceOf(error.cause)}` : error.message
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

/** Which clock is for what. No promise depends on any. */
async function clock(store: Store, nowMs: () => number): Promise<Finding> {
  const beforeMs = nowMs()
  const { nowMs: databaseMs } = await store.snapshot()
  const offsetMs = Math.round(databaseMs - (beforeMs + nowMs()) / 2)
  const verdict = Math.abs(offsetMs) > 2_000 ? 'doubtful' : 'good'
  const direction = offsetMs < 0 ? 'behind' : 'ahead of'
  const detail =
    `${Math.abs(offsetMs)} ms ${direction} this machine's; schedules go by it, logs and node-cron by this ` +
    "machine's, leases by neither"
  return { what: "the database's clock", verdict, detail }
}

function hints(store: Store, { pollMs }: Timing): Finding {
  const { push } = store.capabilities
  const detail = push
    ? 'pushed by the database'
    : `polled every ${pollMs} ms: hand-overs take that much longer`
  return { what: 'hints', verdict: 'good', detail }
}
