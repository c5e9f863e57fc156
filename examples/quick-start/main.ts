/**
 * The program at the start of the README: one node with one worker. Start it in several terminals, and kill the one
 * that leads.
 *
 *     PORT=3000 npm run example quick-start
 */
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import workerCoordination, { allowLoopback } from 'fastify-worker-coordination'

const app = Fastify({ logger: true })
const stop = () => app.close().then(() => process.exit()) // hands everything over first
process.once('SIGINT', stop).once('SIGTERM', stop)

await app.register(workerCoordination, {
  database: process.env.DATABASE_URL ?? 'sqlite:coordination.db', // or postgres://, mysql://, mssql://
  identity: { node: `node-${process.env.PORT ?? 3_000}` }, // default: the host name
  authorize: allowLoopback(), // for a trial: anybody on this machine may do everything
})

app.coordination.worker({
  name: 'indexing',
  kind: 'single',
  scope: 'cluster',
  async run({ lease, signal, log }) {
    log.info({ token: lease.token }, 'I am the leader of this cluster')
    await sleep(3_600_000, undefined, { signal }) // your work goes here
  },
})

const address = await app.listen({ port: Number(process.env.PORT ?? 3_000) })
app.log.info(`dashboard: ${address}/coordination/ui/`)
