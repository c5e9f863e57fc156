/**
 * Measures what a healthy cluster costs while nothing happens: the requests and the CPU time of the server. One part
 * has 50 nodes that are candidates for the same 20 keys. The other has 50 nodes that hold 20 or 1 000 leases each.
 *
 * CPU time is that of the server's processes as the kernel counts it, so other load on the machine hardly matters.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Order } from './adapters/adapter.js'
import type { ContestantName } from './adapters/index.js'
import { contest, requestsOf } from './contest.js'
import { Crew } from './crew.js'
import { Report, type Row, times } from './report.js'
import type { Server } from './servers.js'

const nodes = Array.from({ length: 50 }, (_, index) => `node-${index}`)
const keys = Array.from({ length: 20 }, (_, index) => `key-${index}`)
const ttlMs = 15_000
const windowMs = Number(process.argv[2] ?? 15_000)
const report = new Report('steady-state')
const mine = 'this project, PostgreSQL'

interface Cost {
  readonly requests: number
  readonly cpuMs: number
  readonly memoryMb: number
  readonly clientCpuMs: number
}

const standby: ContestantName[] = [
  mine,
  'etcd (etcd3)',
  'ZooKeeper (recipe)',
  'Redis (redlock)',
  '.NET library, cluster locks',
  '.NET library, global locks',
  '.NET library, coordinated workers',
]
await compare(
  `50 nodes compete for 20 keys; ttl ${ttlMs / 1_000} s, the .NET library's its own`,
  standby.map((name) => [name, { keys }]),
)
await compare(`50 nodes hold leases of their own; ttl ${ttlMs / 1_000} s, the .NET library's its own`, [
  [mine, { keys: [], heldEach: 20 }, 'this project, 20 leases a node'],
  [mine, { keys: [], heldEach: 1_000 }, 'this project, 1 000 leases a node'],
  ['etcd (etcd3)', { keys: [], heldEach: 20 }],
  ['.NET library, cluster locks', { keys: [], heldEach: 20 }],
])
await report.end()

async function compare(
  title: string,
  given: readonly (readonly [ContestantName, Pick<Order, 'keys' | 'heldEach'>, string?])[],
): Promise<void> {
  const costs: Record<string, Cost> = {}
  for (const [name, order, label = name] of given) {
    const cost = await contest(report, name, (server) => measure(name, order, server))
    if (cost !== undefined) costs[label] = cost
  }
  const [first] = Object.values(costs)
  const rows = Object.entries(costs).map(([label, cost]): [string, Row] => [
    label,
    {
      'requests/s': cost.requests,
      'per node and heartbeat': (cost.requests * ttlMs) / 3_000 / nodes.length,
      'to the first': times(cost.requests, first?.requests),
      'server CPU ms/s': cost.cpuMs,
      'CPU to the first': times(cost.cpuMs, first?.cpuMs),
      'server MB': cost.memoryMb,
      'client CPU ms/s a node': cost.clientCpuMs / nodes.length,
    },
  ])
  report.table(`${title}; over ${windowMs / 1_000} s`, Object.fromEntries(rows))
}

async function measure(
  name: ContestantName,
  order: Pick<Order, 'keys' | 'heldEach'>,
  server: Server,
): Promise<Cost> {
  const crew = new Crew(name)
  try {
    await crew.add({ url: server.url, nodes, ttlMs, ...order })
    await crew.untilLed(order.heldEach === undefined ? keys.length : order.heldEach * nodes.length)
    // By now the node that started last has sent a heartbeat, and the effects of the start have settled.
    await sleep(ttlMs / 2)
    const clientBefore = (await crew.spent()).cpuMs
    const before = { requests: await requestsOf(crew, server), cpuMs: server.cpuMs() }
    const fromMs = performance.now()
    await sleep(windowMs)
    const seconds = (performance.now() - fromMs) / 1_000
    const cpuMs = server.cpuMs() - before.cpuMs
    const clientCpuMs = (await crew.spent()).cpuMs - clientBefore
    const requests = (await requestsOf(crew, server)) - before.requests
    return {
      requests: requests / seconds,
      cpuMs: cpuMs / seconds,
      clientCpuMs: clientCpuMs / seconds,
      memoryMb: server.memoryMb(),
    }
  } finally {
    await crew.close()
  }
}
