/**
 * Coordination inside an Express application, with its routes and its dashboard.
 *
 *     npm run example express
 */
import express from 'express'
import Fastify from 'fastify'
import workerCoordination, { allowLoopback } from 'fastify-worker-coordination'
import { toNodeHandler } from 'fastify-worker-coordination/node-handler'

// While it hands over, Fastify would otherwise answer 503 to the paths of Express, too.
const coordination = Fastify({ return503OnClosing: false })
await coordination.register(workerCoordination, {
  database: process.env.DATABASE_URL ?? 'sqlite:coordination.db',
  authorize: allowLoopback(),
})
coordination.coordination.worker({ name: 'indexing', kind: 'single', scope: 'cluster', run: () => undefined })

const app = express()
app.use(express.json())
app.use(toNodeHandler(coordination)) // handles paths below /coordination and passes on all others
app.get('/', (_request, response) => {
  response.json({ leads: coordination.coordination.isHeld('indexing') })
})

const server = app.listen(Number(process.env.PORT ?? 3_000), () => {
  const address = server.address()
  if (typeof address === 'object') console.log(`listening at http://localhost:${address?.port}`)
})

async function stop(): Promise<void> {
  await coordination.close() // hands everything over and ends the streams
  server.close()
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void stop())
