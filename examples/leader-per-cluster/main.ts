/**
 * One leader in each cluster. Start several nodes, each in its own terminal:
 *
 *     NODE_NAME=a CLUSTER_NAME=eu npm run example leader-per-cluster
 *     NODE_NAME=b CLUSTER_NAME=eu npm run example leader-per-cluster
 *     NODE_NAME=c CLUSTER_NAME=us npm run example leader-per-cluster
 */
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import workerCoordination from 'fastify-worker-coordination'

const app = Fastify()

await app.register(workerCoordination, {
  database: process.env.DATABASE_URL ?? 'sqlite:coordination.db',
  identity: {
    node: process.env.NODE_NAME ?? `node-${process.pid}`,
    cluster: process.env.CLUSTER_NAME ?? 'eu',
  },
})
const { node, cluster } = app.coordination.settings.identity

app.coordination.worker({
  name: 'indexing',
  kind: 'single',
  scope: 'cluster',
  async run({ signal }) {
    console.log(`${node} leads ${cluster}`)
    await sleep(3_600_000, undefined, { signal })
  },
})

await app.ready()
console.log(`${node} stands by in ${cluster}`)

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void app.close())
