/**
 * Issues the statements of the .NET library on which this project is modelled, at that library's own intervals, over a
 * pool of ten connections per node. It models only what the library asks of its database. Decisions that the library
 * makes by the clocks of its nodes are left out.
 *
 *     cluster lock   ttl 30 s; its holder selects and updates it every 10 s
 *     global lock    ttl 60 s; its holder updates it every 15 s
 *     both           a node that does not hold it begins, selects and commits every 5 s
 *     coordinated    each worker selects and updates its row every 2.5 s; every fifth time, stale rows are deleted;
 *                    before each pass, once a second, all rows of its type are selected
 */
import { Pool, type PoolClient } from 'pg'
import { type Join, keysOf, pause } from './adapter.js'

const tables = `
  create table if not exists dotnet_locks (
    key text primary key, owner text, acquired_at timestamptz, expires_at timestamptz not null);
  create table if not exists dotnet_workers (
    type text not null, id text not null, seen_at timestamptz not null, primary key (type, id))`

interface Kind {
  readonly ttlMs: number
  readonly renewMs: number
  /** Whether a renewal reads the row before it writes it. */
  readonly reads: boolean
}

const clusterKind: Kind = { ttlMs: 30_000, renewMs: 10_000, reads: true }
const globalKind: Kind = { ttlMs: 60_000, renewMs: 15_000, reads: false }
const standbyMs = 5_000

export const dotnetCluster = locks(clusterKind)
export const dotnetGlobal = locks(globalKind)

function locks(kind: Kind): Join {
  return async (order, node, leads) => {
    const pool = await poolFor(order.url)
    const led = new Set<string>()
    let closed = false
    const take = (key: string): Promise<boolean> => inTransaction(pool, (client) => tryTake(client, key))
    const tryTake = async (client: PoolClient, key: string): Promise<boolean> => {
      const { rows } = await client.query<{ free: boolean }>(
        'select expires_at < now() as free from dotnet_locks where key = $1',
        [key],
      )
      if (rows[0]?.free === false) return false
      const taken = await client.query(
        `insert into dotnet_locks (key, owner, acquired_at, expires_at)
        values ($1, $2, now(), now() + $3 * interval '1 ms')
        on conflict (key) do update set owner = $2, acquired_at = now(), expires_at = excluded.expires_at
        where dotnet_locks.expires_at < now()`,
        [key, node, kind.ttlMs],
      )
      return taken.rowCount === 1
    }
    const renew = async (key: string): Promise<void> => {
      if (kind.reads) await pool.query('select owner, expires_at from dotnet_locks where key = $1', [key])
      await pool.query(
        `update dotnet_locks set expires_at = now() + $3 * interval '1 ms' where key = $1 and owner = $2`,
        [key, node, kind.ttlMs],
      )
    }
    const compete = async (key: string): Promise<void> => {
      await pause(Math.random() * standbyMs)
      while (!closed && !(await take(key))) await pause(standbyMs)
      if (closed) return
      led.add(key)
      leads(key)
      await pause(kind.renewMs)
      while (!closed && led.has(key)) {
        await renew(key)
        await pause(kind.renewMs)
      }
    }
    const campaign = (key: string): void => void compete(key).catch(() => undefined)
    for (const key of keysOf(order, node)) campaign(key)
    return {
      async resign(key) {
        led.delete(key)
        await pool.query('delete from dotnet_locks where key = $1 and owner = $2', [key, node])
      },
      campaign,
      async close() {
        closed = true
        await pool.end()
      },
    }
  }
}

/** Each key is a type. Every node runs one worker of each type, and all of them work at once. */
export const dotnetCoordinated: Join = async (order, node, leads) => {
  const pool = await poolFor(order.url)
  let closed = false
  const beat = async (type: string): Promise<void> => {
    await pause(Math.random() * 2_500)
    for (let count = 1; !closed; count++) {
      const { rowCount } = await pool.query(
        'select seen_at from dotnet_workers where type = $1 and id = $2',
        [type, node],
      )
      const write =
        rowCount === 0
          ? 'insert into dotnet_workers (type, id, seen_at) values ($1, $2, now()) on conflict do nothing'
          : 'update dotnet_workers set seen_at = now() where type = $1 and id = $2'
      await pool.query(write, [type, node])
      if (count % 5 === 0) {
        await pool.query(`delete from dotnet_workers where type = $1 and seen_at < now() - interval '30 s'`, [
          type,
        ])
      }
      await pause(2_500)
    }
  }
  const work = async (type: string): Promise<void> => {
    await pause(Math.random() * 1_000)
    leads(type)
    while (!closed) {
      await pool.query('select id, seen_at from dotnet_workers where type = $1 order by id', [type])
      await pause(1_000)
    }
  }
  for (const type of order.keys) {
    void beat(type).catch(() => undefined)
    void work(type).catch(() => undefined)
  }
  return {
    resign: async () => undefined,
    campaign: () => undefined,
    async close() {
      closed = true
      await pool.end()
    },
  }
}

async function poolFor(url: string): Promise<Pool> {
  const pool = new Pool({ connectionString: url, max: 10 })
  pool.on('error', () => undefined)
  await pool.query(tables).catch(() => pool.query(tables))
  return pool
}

async function inTransaction<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect()
  try {
    await client.query('begin')
    const answer = await work(client)
    await client.query('commit')
    return answer
  } finally {
    client.release()
  }
}
