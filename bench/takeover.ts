/**
 * Measures how long keys have no leader when its process ends, for the databases and the peers.
 *
 *     apart        only silence reveals the end, as between machines: of 17 nodes that lead one key each, 16 are
 *                  killed at once, the two watchers among them
 *     one machine  the processes of one machine notice each other's end
 *     clean stop   SIGTERM: a process that ends hands its leases over
 */
import type { ChildProcess } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ContestantName } from './adapters/index.js'
import { contest } from './contest.js'
import { Crew } from './crew.js'
import { Report, type Row, summarise, times } from './report.js'

const ttlMs = 3_000
const nodes = 17
const rounds = Number(process.argv[2] ?? 2)
const trials = 5 * rounds
const report = new Report('takeover')

const apart: Record<string, Row> = {}
for (const name of [
  'this project, PostgreSQL',
  'this project, SQLite',
  'etcd (etcd3)',
  'ZooKeeper (recipe)',
] as const) {
  const tookMs = await contest(report, name, async (server) => {
    const took: number[] = []
    for (let round = 0; round < rounds; round++) {
      took.push(...(await killAllButOne(name, (await server.fresh?.()) ?? server.url, round)))
    }
    return took
  })
  if (tookMs === undefined) continue
  const { n, min, median, max } = summarise(tookMs.filter(Number.isFinite))
  const lost = tookMs.length - n
  apart[name] = {
    keys: tookMs.length,
    min,
    median,
    max,
    'max to ttl': times(max, ttlMs),
    'never taken over': lost,
  }
}
report.table(
  `Killed (-9), apart: ${nodes - 1} of ${nodes} nodes at once, each leading a key; ttl ${ttlMs} ms; ms`,
  apart,
)

const near: Record<string, Row> = {}
for (const name of ['this project, PostgreSQL', 'this project, SQLite'] as const) {
  await contest(report, name, async (server) => {
    for (const [what, signal, ttl] of [
      ['killed (-9), one machine, ttl 15 s', 'SIGKILL', 15_000],
      ['clean stop (SIGTERM)', 'SIGTERM', 15_000],
    ] as const) {
      const url = (await server.fresh?.()) ?? server.url
      near[`${name}: ${what}`] = { ...summarise(await replaceLeaders(name, url, signal, ttl)) }
    }
  })
}
report.table('The leader of three processes ends, ms', near)
await report.end()

async function killAllButOne(name: ContestantName, url: string, round: number): Promise<number[]> {
  const crew = new Crew(name)
  const keys = Array.from({ length: nodes }, (_, index) => `round-${round}-${index}`)
  try {
    const processes: ChildProcess[] = []
    for (let node = 0; node < nodes; node++) {
      processes.push(await crew.add({ url, nodes: [`node-${node}`], keys, ttlMs, apart: true }))
    }
    await crew.untilLed(keys.length)
    // Each round kills at a different moment between two heartbeats.
    await sleep(ttlMs + (round * ttlMs) / 3 / rounds)
    return await crew.end(processes.slice(0, -1), 'SIGKILL', 10 * ttlMs)
  } finally {
    await crew.close()
  }
}

async function replaceLeaders(
  name: ContestantName,
  url: string,
  signal: NodeJS.Signals,
  ttl: number,
): Promise<number[]> {
  const crew = new Crew(name)
  const key = 'leader'
  const add = (node: number): Promise<ChildProcess> =>
    crew.add({ url, nodes: [`node-${node}`], keys: [key], ttlMs: ttl })
  try {
    for (let node = 0; node < 3; node++) await add(node)
    const tookMs: number[] = []
    for (let trial = 0; trial < trials; trial++) {
      const { process: leader } = await crew.leader(key)
      tookMs.push(...(await crew.end([leader], signal, 2 * ttl)))
      await add(3 + trial)
      await sleep(500)
    }
    return tookMs
  } finally {
    await crew.close()
  }
}
