/**
 * All nodes work at the same time, each on its own share of the rows. Start it as several nodes, and stop one of them:
 *
 *     NODE_NAME=a npm run example coordinated
 *     NODE_NAME=b npm run example coordinated
 */
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import workerCoordination from 'fastify-worker-coordination'

const app = Fastify()

await app.register(workerCoordination, {
  database: process.env.DATABASE_URL ?? 'sqlite:coordination.db',
  identity: { node: process.env.NODE_NAME ?? `node-${process.pid}`, cluster: 'eu' },
})
const { node } = app.coordination.settings.identity
const rows = Array.from({ length: 20 }, (_, index) => `row-${index + 1}`)

app.coordination.worker({
  name: 'data-processor',
  kind: 'coordinated',
  scope: 'global',
  async run({ assignment, signal }) {
    const { index, count, generation } = assignment
    const own = rows.filter((row) => assignment.owns(row))
    console.log(`${node} has share ${index} of ${count} in generation ${generation}: ${own.join(' ')}`)
    await sleep(3_600_000, undefined, { signal })
  },
})

await app.ready()

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void app.close())
