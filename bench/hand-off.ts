/**
 * Measures how long a key has no leader when its leader gives it up: from the call to the first line of the next
 * leader's work. The nodes are processes. Each contestant has a server of its own, and all are measured one after
 * another.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ContestantName } from './adapters/index.js'
import { contest, requestsOf } from './contest.js'
import { Crew } from './crew.js'
import { Report, type Row, type Series, summarise, times } from './report.js'
import type { Server } from './servers.js'

const ttlMs = 15_000
const trials = Number(process.argv[2] ?? 100)
const key = 'hand-off'
const fast = [
  'this project, PostgreSQL',
  'this project, PostgreSQL, by name',
  'this project, SQLite',
  'etcd (etcd3)',
  'ZooKeeper (recipe)',
  'Redis (redis-semaphore)',
  'PostgreSQL advisory locks',
] as const satisfies ContestantName[]
/** Their standbys wait for their next attempt, so a few trials are as informative as many. */
const polled = ['Redis (redlock)', '.NET library, cluster locks'] as const satisfies ContestantName[]
const crowded = [
  'this project, PostgreSQL',
  'this project, PostgreSQL, by name',
  'etcd (etcd3)',
  'ZooKeeper (recipe)',
  'PostgreSQL advisory locks',
] as const satisfies ContestantName[]

const report = new Report('hand-off')
const only = process.argv[3]
const chosen = <T extends string>(names: readonly T[]): T[] =>
  names.filter((name) => only === undefined || name.includes(only))

await compare('Hand-off between two processes, ms', chosen(fast), (name, server) =>
  measure(name, server, { processes: 2, nodesEach: 1, warm: 10, count: trials }),
)
await compare(
  'Hand-off with 49 standbys, in five processes of ten nodes, ms',
  chosen(crowded),
  (name, server) =>
    measure(name, server, { processes: 5, nodesEach: 10, warm: 10, count: Math.ceil(trials / 2) }),
)
await compare('Hand-off where the next one tries now and then, ms', chosen(polled), (name, server) =>
  measure(name, server, { processes: 2, nodesEach: 1, warm: 1, count: Math.min(trials, 6) }),
)
await report.end()

async function compare(
  title: string,
  names: readonly ContestantName[],
  work: (name: ContestantName, server: Server) => Promise<Row & Series>,
): Promise<void> {
  const rows: Record<string, Row & Series> = {}
  for (const name of names) {
    const row = await contest(report, name, (server) => work(name, server))
    if (row !== undefined) rows[name] = row
  }
  report.table(
    title,
    Object.fromEntries(
      Object.entries(rows).map(([name, row]) => [
        name,
        {
          ...row,
          'median to etcd': times(row.median, rows['etcd (etcd3)']?.median),
          'p99 to etcd': times(row.p99, rows['etcd (etcd3)']?.p99),
          'median to ZooKeeper': times(row.median, rows['ZooKeeper (recipe)']?.median),
        },
      ]),
    ),
  )
}

async function measure(
  name: ContestantName,
  server: Server,
  { processes, nodesEach, warm, count }: Record<'processes' | 'nodesEach' | 'warm' | 'count', number>,
): Promise<Row & Series> {
  const crew = new Crew(name)
  try {
    for (let each = 0; each < processes; each++) {
      const nodes = Array.from({ length: nodesEach }, (_, index) => `node-${each}-${index}`)
      await crew.add({ url: server.url, nodes, keys: [key], ttlMs })
    }
    await crew.leader(key)
    for (let tried = 0; tried < warm; tried++) await trial(crew)
    const tookMs: number[] = []
    const before = { cpuMs: server.cpuMs(), requests: await requestsOf(crew, server) }
    while (tookMs.length < count) tookMs.push(await trial(crew))
    const after = { cpuMs: server.cpuMs(), requests: await requestsOf(crew, server) }
    return {
      ...summarise(tookMs),
      'requests each': (after.requests - before.requests) / count,
      'server CPU ms each': (after.cpuMs - before.cpuMs) / count,
    }
  } finally {
    await crew.close()
  }
}

/** Runs one trial after a pause, so that every standby has gone back to waiting. */
async function trial(crew: Crew): Promise<number> {
  await sleep(50 + Math.random() * 50)
  return crew.handOver(key)
}
