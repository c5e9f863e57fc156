/**
 * A worker with a schedule, here every other second. Each time is handled once, by one node. Start it as several nodes:
 *
 *     NODE_NAME=a npm run example cron
 *     NODE_NAME=b npm run example cron
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
  name: 'report',
  kind: 'single',
  scope: 'global',
  schedule: { cron: '*/2 * * * * *', timeZone: 'Europe/Vienna', missed: 'once' },
  run({ dueAtMs }) {
    console.log(`${node} writes the report of ${new Date(dueAtMs ?? 0).toISOString()}`)
  },
})

await app.ready()

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void app.close())
