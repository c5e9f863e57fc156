/**
 * What a healthy cluster costs: statements per second, counted in the log of the database server.
 * Twenty nodes hold 20 leases each, then 200 each; the cost must not depend on how many they are.
 */
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { createCoordinator } from 'fastify-worker-coordination/coordinator'
import { usePostgresCluster } from '../test/support/databases.js'
import { eventually } from '../test/support/eventually.js'
import { withLifetime } from './lifetime.js'
import { printTable } from './report.js'

const nodes = 20
const ttlMs = 15_000
const windowMs = Number(process.argv[2] ?? 60_000)

await withLifetime(async (lifetime) => {
  const rows: Record<string, Record<string, number>> = {}
  for (const leasesPerNode of [20, 200]) {
    rows[`${nodes} nodes x ${leasesPerNode} leases`] = await measure(lifetime, leasesPerNode)
  }
  printTable(`Steady state on PostgreSQL, ttl ${ttlMs} ms, over ${windowMs / 1_000} s`, rows)
})

async function measure(
  lifetime: { teardown(undo: () => unknown): void },
  leasesPerNode: number,
): Promise<Record<string, number>> {
  const server = await usePostgresCluster(lifetime, { log_statement: 'all' })
  const fleet = await Promise.all(
    Array.from({ length: nodes }, (_, index) =>
      createCoordinator({
        database: server.url,
        ttlMs,
        identity: { node: `node-${index}`, cluster: 'bench' },
      }),
    ),
  )
  let held = 0
  for (const coordinator of fleet) {
    coordinator.worker({
      name: 'consumer',
      kind: 'partitioned',
      scope: 'global',
      partitions: nodes * leasesPerNode,
      run: async ({ signal }) => {
        held += 1
        await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
        held -= 1
      },
    })
    await coordinator.start()
  }
  await eventually(() => held === nodes * leasesPerNode, { timeoutMs: 300_000 })
  await sleep(ttlMs)
  const before = await statements(server.logPath)
  await sleep(windowMs)
  const after = await statements(server.logPath)
  await Promise.all(fleet.map((coordinator) => coordinator.close()))
  const perSecond = ((after.all - before.all) * 1_000) / windowMs
  return {
    'statements/s': perSecond,
    'heartbeats/s': ((after.heartbeats - before.heartbeats) * 1_000) / windowMs,
    'per node and heartbeat': (perSecond * ttlMs) / 3_000 / nodes,
  }
}

async function statements(logPath: string): Promise<{ all: number; heartbeats: number }> {
  const lines = (await readFile(logPath, 'utf8'))
    .split('\n')
    .filter((line) => /LOG:\s+(statement|execute)/.test(line))
  return {
    all: lines.length,
    heartbeats: lines.filter((line) => line.includes('"heartbeat_at_ms" =')).length,
  }
}
