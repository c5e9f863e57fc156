/**
 * Eight partitions, each consumed by one node at a time. Start it as several nodes, and stop one of them:
 *
 *     NODE_NAME=a npm run example partitions
 *     NODE_NAME=b npm run example partitions
 */
import Fastify from 'fastify'
import workerCoordination from 'fastify-worker-coordination'

const app = Fastify()

await app.register(workerCoordination, {
  database: process.env.DATABASE_URL ?? 'sqlite:coordination.db',
  identity: { node: process.env.NODE_NAME ?? `node-${process.pid}`, cluster: 'eu' },
})
const { node } = app.coordination.settings.identity

app.coordination.worker({
  name: 'consumer',
  kind: 'partitioned',
  scope: 'global',
  partitions: 8,
  async run({ partition, lease, signal }) {
    console.log(`${node} consumes partition ${partition} with token ${lease.token}`)
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
    console.log(`${node} leaves partition ${partition}`)
  },
})

await app.ready()

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void app.close())
