/**
 * One leader across all clusters, which steps down after every third round. Start it as several nodes:
 *
 *     NODE_NAME=a CLUSTER_NAME=eu npm run example leader-global
 *     NODE_NAME=b CLUSTER_NAME=us npm run example leader-global
 */
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
const { node } = app.coordination.settings.identity

let rounds = 0
app.coordination.worker({
  name: 'month-close',
  kind: 'single',
  scope: 'global',
  everyMs: 500,
  run({ lease, stepDown }) {
    rounds += 1
    console.log(`${node} leads everywhere, round ${rounds}, token ${lease.token}`)
    if (rounds % 3 === 0) stepDown()
  },
})

app.coordination.on('lease.ended', ({ key, reason }) =>
  console.log(`${node} no longer leads ${key}: ${reason}`),
)
await app.ready()

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void app.close())
