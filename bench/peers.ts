/**
 * Measures the cost of taking and releasing one lock without contention: one client with sixteen locks at a time, for a
 * few seconds per contestant. Rates depend on the other load of the machine; CPU time per lock hardly does.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Order } from './adapters/adapter.js'
import type { ContestantName } from './adapters/index.js'
import { contest } from './contest.js'
import { Crew } from './crew.js'
import { Report, type Row, times } from './report.js'

const forMs = Number(process.argv[2] ?? 4_000)
const atOnce = 16
const report = new Report('peers')
const rows: Record<string, { each: number; row: Row }> = {}
const names = [
  'this project, PostgreSQL, by name',
  'this project, SQLite, by name',
  'etcd (etcd3)',
  'ZooKeeper (recipe)',
  'Redis (redlock)',
  'Redis (redis-semaphore)',
  'PostgreSQL advisory locks',
] as const satisfies ContestantName[]
for (const name of names) {
  await contest(report, name, async (server) => {
    const crew = new Crew(name)
    const keys = Array.from({ length: atOnce }, (_, index) => `key-${index}`)
    const order: Order = { url: server.url, nodes: ['node'], keys, ttlMs: 15_000 }
    try {
      await crew.add(order)
      await crew.untilLed(atOnce)
      let count = 0
      let until = Number.POSITIVE_INFINITY
      const again = async (key: string): Promise<void> => {
        while (performance.now() < until) {
          await crew.takeAgain(key)
          count += 1
        }
      }
      const loops = keys.map(again)
      await sleep(500)
      const clientBefore = (await crew.spent()).cpuMs
      const before = { count, cpuMs: server.cpuMs(), atMs: performance.now() }
      until = before.atMs + forMs
      await Promise.all(loops)
      const seconds = (performance.now() - before.atMs) / 1_000
      const done = count - before.count
      const serverMs = (server.cpuMs() - before.cpuMs) / done
      const clientMs = ((await crew.spent()).cpuMs - clientBefore) / done
      rows[name] = {
        each: serverMs + clientMs,
        row: { 'locks/s': done / seconds, 'server CPU ms each': serverMs, 'client CPU ms each': clientMs },
      }
    } finally {
      await crew.close()
    }
  })
}
const first = rows[names[0]]?.each
report.table(
  `A lock taken and given back, ${atOnce} at a time`,
  Object.fromEntries(
    Object.entries(rows).map(([name, { each, row }]) => [
      name,
      { ...row, 'CPU to the first': times(each, first) },
    ]),
  ),
)
await report.end()
