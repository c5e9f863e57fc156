/**
 * node-cron runs in every process, and one process executes each run. Start it as several nodes:
 *
 *     NODE_NAME=a npm run example node-cron
 *     NODE_NAME=b npm run example node-cron
 */
import { createCoordinator } from 'fastify-worker-coordination/coordinator'
import { runCoordinator } from 'fastify-worker-coordination/node-cron'
import cron from 'node-cron'

const coordinator = await createCoordinator({
  database: process.env.DATABASE_URL ?? 'sqlite:coordination.db',
  identity: { node: process.env.NODE_NAME ?? `node-${process.pid}`, cluster: 'eu' },
})
await coordinator.start()
const { node } = coordinator.settings.identity

cron.setRunCoordinator(runCoordinator(coordinator))
const backup = cron.schedule(
  '*/2 * * * * *',
  ({ date }) => console.log(`${node} makes the backup of ${date.toISOString()}`),
  { name: 'backup', distributed: true },
)

async function stop(): Promise<void> {
  await backup.destroy()
  await coordinator.close()
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void stop())
