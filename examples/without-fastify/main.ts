/**
 * Leases acquired by name, without a server and without workers: a critical section across processes.
 *
 *     npm run example without-fastify
 */
import { createCoordinator } from 'fastify-worker-coordination/coordinator'

const coordinator = await createCoordinator({
  database: process.env.DATABASE_URL ?? 'sqlite:coordination.db',
})
await coordinator.start()

const lease = await coordinator.acquire('rebuild-cache', { timeoutMs: 60_000 })
try {
  console.log(`rebuilding under token ${lease.token}`)
  lease.assertHeld()
} finally {
  await lease.release()
}

const warmUp = await coordinator.tryAcquire('warm-up')
console.log(warmUp === undefined ? 'somebody else warms up' : 'warming up')
await warmUp?.release()

await coordinator.close()
console.log('everything is given back')
