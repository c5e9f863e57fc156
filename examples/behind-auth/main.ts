/**
 * Access control: viewers may read, operators may also release, drain and pause, and everyone else may do nothing.
 *
 *     VIEWER_TOKEN=look OPERATOR_TOKEN=act npm run example behind-auth
 *     curl -H 'authorization: Bearer look' http://localhost:3000/coordination/leaders
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import Fastify, { type FastifyRequest } from 'fastify'
import workerCoordination, { type Authorize } from 'fastify-worker-coordination'

const tokens = [
  { id: 'viewer', token: process.env.VIEWER_TOKEN, may: ['read', 'probe'] },
  { id: 'operator', token: process.env.OPERATOR_TOKEN, may: ['read', 'probe', 'release', 'drain', 'pause'] },
]

/**
 * Put your own login here: a session, a JWT, or the header of an API gateway. The returned id names the actor in the
 * audit trail.
 */
const authorize: Authorize = (request, action) => {
  const known = tokens.find(({ token }) => token !== undefined && bears(request, token))
  return known?.may.includes(action) ? { id: known.id } : false
}

/** Compares digests, so that the time taken reveals nothing about the token. */
function bears({ headers }: FastifyRequest, token: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(headers.authorization ?? ''), digest(`Bearer ${token}`))
}

const app = Fastify()
await app.register(workerCoordination, {
  database: process.env.DATABASE_URL ?? 'sqlite:coordination.db',
  authorize,
})
app.coordination.worker({ name: 'indexing', kind: 'single', scope: 'cluster', run: () => undefined })

const address = await app.listen({ port: Number(process.env.PORT ?? 3_000) })
console.log(`listening at ${address}`)

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void app.close())
