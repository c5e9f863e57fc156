/**
 * PostgreSQL's advisory locks: one connection per key and node, blocked in the server until it gets the lock. This is
 * the lower bound for a hand-over, paid for in connections. It has no token and no time limit.
 */
import { Client } from 'pg'
import { type Join, keysOf } from './adapter.js'

export const advisory: Join = async (order, node, leads) => {
  const clients = new Map<string, Client>()
  const lock = async (key: string): Promise<void> => {
    await clients.get(key)?.query('select pg_advisory_lock(hashtext($1))', [key])
    leads(key)
  }
  const campaign = (key: string): void => void lock(key).catch(() => undefined)
  for (const key of keysOf(order, node)) {
    const client = new Client({ connectionString: order.url })
    client.on('error', () => undefined)
    await client.connect()
    clients.set(key, client)
    campaign(key)
  }
  return {
    async resign(key) {
      await clients.get(key)?.query('select pg_advisory_unlock(hashtext($1))', [key])
    },
    campaign,
    async close() {
      await Promise.all([...clients.values()].map((client) => client.end().catch(() => undefined)))
    },
  }
}
