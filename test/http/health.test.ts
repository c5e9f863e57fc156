/**
 * Tests what load balancers and supervisors ask, over real sockets. It is answered from memory, whatever the database
 * does.
 */
import t from 'tap'
import { StoreError } from '../../plugin/core/errors.js'
import { resolveTiming } from '../../plugin/core/time/timing.js'
import { registerHealth } from '../../plugin/http/routes/health.js'
import { type Database, eachDatabase, type Lifetime, useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { untilAborted } from '../support/workers.js'
import { type Room, useRoom } from './room.js'

const workers = () => [
  untilAborted('month-close'),
  untilAborted('indexing', { scope: 'cluster' }),
  untilAborted('consumer', { kind: 'partitioned', partitions: 2 }),
]

t.test('a node that runs is alive, ready, and leads what it leads', (t) =>
  eachDatabase(t, async (t, database) => {
    const room = await useHealth(t, database)
    await eventually(async () => (await ask(room, '/leader/global:consumer~1')).status === 200)
    await eventually(async () => (await ask(room, '/leader/global:month-close')).status === 200)
    await eventually(async () => (await ask(room, '/leader/c1:indexing')).status === 200)
    const table: Readonly<Record<string, readonly [number, string]>> = {
      '': [200, 'alive'],
      '/ready': [200, 'ready'],
      '/leader/global:month-close': [200, 'leader'],
      '/leader/global%2Fmonth-close': [200, 'leader'],
      '/leader/c1:indexing': [200, 'leader'],
      '/leader/c2:indexing': [503, 'not-leader'],
      '/leader/global:indexing': [503, 'not-leader'],
      '/leader/global:consumer': [200, 'leader'],
      '/leader/global:consumer~1': [200, 'leader'],
      '/leader/global%2Fconsumer%231': [200, 'leader'],
      '/leader/global:consumer~2': [503, 'not-leader'],
      '/leader/global:nothing': [503, 'not-leader'],
    }
    for (const [path, [status, word]] of Object.entries(table)) {
      t.strictSame(await ask(room, path), { status, body: { status: word } }, path)
    }
    for (const path of ['/leader/nothing', '/leader/a:b:c', '/leader/%00', '/leader/__proto__']) {
      t.equal((await ask(room, path)).status, 400, path)
    }
  }),
)

t.test('nothing of it asks the database', async (t) => {
  const room = await useHealth(t, await useSqlite(t), resolveTiming({ preset: 'relaxed' }))
  await eventually(() => room.coordinator.isHeld('month-close'))
  const before = total(room)
  for (let times = 0; times < 50; times++) {
    for (const path of ['', '/ready', '/leader/global:month-close'])
      t.equal((await ask(room, path)).status, 200)
  }
  t.ok(total(room) - before < 20, `${total(room) - before} calls, all of them the engine’s own`)
})

t.test('a node that cannot renew its session is alive, but neither ready nor a leader', async (t) => {
  const room = await useHealth(t, await useSqlite(t), resolveTiming({ ttlMs: 1_000 }))
  await eventually(async () => (await ask(room, '/leader/global:month-close')).status === 200)
  room.failure = new StoreError('It is away.', 'none')
  await eventually(async () => (await ask(room, '/ready')).status === 503)
  t.strictSame(await ask(room, '/ready'), { status: 503, body: { status: 'not-ready' } })
  t.strictSame(await ask(room, ''), { status: 200, body: { status: 'alive' } })
  t.equal((await ask(room, '/leader/global:month-close')).status, 503)
  room.failure = undefined
  await eventually(async () => (await ask(room, '/ready')).status === 200)
})

t.test('a node that closes is not ready from the first moment, and in the end not alive', async (t) => {
  const room = await useHealth(t, await useSqlite(t))
  await eventually(() => room.coordinator.isHeld('month-close'))
  const closed = room.coordinator.close()
  t.equal((await ask(room, '/ready')).status, 503)
  await closed
  t.strictSame(await ask(room, ''), { status: 503, body: { status: 'closed' } })
  t.equal((await ask(room, '/leader/global:month-close')).status, 503)
})

function useHealth(t: Lifetime, database: Database, timing = resolveTiming({})): Promise<Room> {
  return useRoom(t, database, registerHealth, { timing, workers: workers() })
}

async function ask({ origin }: Room, path: string): Promise<{ status: number; body: unknown }> {
  const reply = await fetch(`${origin}/coordination/health${path}`, { headers: { 'x-user': 'probe' } })
  return { status: reply.status, body: await reply.json() }
}

function total({ calls }: Room): number {
  return [...calls.values()].reduce((sum, count) => sum + count, 0)
}
