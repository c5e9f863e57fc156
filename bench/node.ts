/** A node in a process of its own, which tells its parent when it begins to lead. */
import { createCoordinator } from 'fastify-worker-coordination/coordinator'

const [database = '', ttlMs = '3000'] = process.argv.slice(2)
const coordinator = await createCoordinator({ database, ttlMs: Number(ttlMs) })

coordinator.worker({
  name: 'leader',
  kind: 'single',
  scope: 'global',
  run: async ({ signal }) => {
    process.send?.({ leadsSinceNs: String(process.hrtime.bigint()) })
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
  },
})

process.on('SIGTERM', () => void coordinator.close().then(() => process.disconnect()))
await coordinator.start()
process.send?.({ joined: true })
