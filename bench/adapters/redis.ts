/** Redis through `redlock` and through `redis-semaphore`, each with its own default intervals for retries. */
import { type Join, keysOf, pause, peer } from './adapter.js'

interface Redis {
  disconnect(): void
}

interface Redlock {
  acquire(keys: string[], ttlMs: number): Promise<RedisLock>
  on(event: 'error', listener: () => void): void
}

interface RedisLock {
  extend(ttlMs: number): Promise<RedisLock>
  release(): Promise<unknown>
}

export const redlock: Join = async (order, node, leads) => {
  const { Redis: Client } = peer<{ Redis: new (url: string) => Redis }>('ioredis')
  const { default: Lock } = peer<{ default: new (clients: Redis[], options: object) => Redlock }>('redlock')
  const client = new Client(order.url)
  const locks = new Lock([client], { retryCount: -1 })
  locks.on('error', () => undefined)
  const held = new Map<string, RedisLock>()
  let closed = false
  const keep = async (key: string, acquired: RedisLock): Promise<void> => {
    for (let lock = acquired; ; ) {
      await pause(order.ttlMs / 3)
      if (closed || held.get(key) !== lock) return
      const extended = await lock.extend(order.ttlMs).catch(() => lock)
      if (held.get(key) !== lock) return
      held.set(key, extended)
      lock = extended
    }
  }
  const campaign = async (key: string): Promise<void> => {
    const lock = await locks.acquire([key], order.ttlMs).catch(() => undefined)
    if (lock === undefined) return
    held.set(key, lock)
    leads(key)
    void keep(key, lock)
  }
  for (const key of keysOf(order, node)) void campaign(key)
  return {
    async resign(key) {
      const lock = held.get(key)
      held.delete(key)
      await lock?.release()
    },
    campaign: (key) => void campaign(key),
    async close() {
      closed = true
      client.disconnect()
    },
  }
}

interface Mutex {
  acquire(): Promise<void>
  release(): Promise<void>
}

export const redisSemaphore: Join = async (order, node, leads) => {
  const { Redis: Client } = peer<{ Redis: new (url: string) => Redis }>('ioredis')
  const { Mutex } = peer<{ Mutex: new (client: Redis, key: string, options: object) => Mutex }>(
    'redis-semaphore',
  )
  const client = new Client(order.url)
  const held = new Map<string, Mutex>()
  const campaign = async (key: string): Promise<void> => {
    const options = { lockTimeout: order.ttlMs, acquireTimeout: 2 ** 31, onLockLost: () => undefined }
    const mutex = new Mutex(client, key, options)
    await mutex.acquire()
    held.set(key, mutex)
    leads(key)
  }
  for (const key of keysOf(order, node)) void campaign(key).catch(() => undefined)
  return {
    resign: async (key) => held.get(key)?.release(),
    campaign: (key) => void campaign(key).catch(() => undefined),
    close: async () => client.disconnect(),
  }
}
