/** etcd through `etcd3`: the library's own election, with one campaign per key. */
import { type Join, keysOf, type Order, peer } from './adapter.js'

interface Campaign {
  on(event: 'elected' | 'error', listener: (error?: unknown) => void): this
  resign(): Promise<void>
}

interface Etcd {
  readonly Etcd3: new (
    options: object,
  ) => {
    election(key: string, ttlS: number): { campaign(value: string): Campaign }
    close(): void
  }
}

export const etcd: Join = async (order: Order, node, leads) => {
  const { Etcd3 } = peer<Etcd>('etcd3')
  // Disables the library's circuit breaker. When many leaders die at once, it makes standbys give up permanently.
  const never = {
    execute: async <T>(work: (context: { signal: AbortSignal }) => T): Promise<Awaited<T>> =>
      await work({ signal: new AbortController().signal }),
  }
  const client = new Etcd3({
    hosts: [order.url],
    faultHandling: { host: () => never, global: never },
  })
  const campaigns = new Map<string, Campaign>()
  const campaign = (key: string): void => {
    const election = client.election(key, Math.ceil(order.ttlMs / 1_000)).campaign(node)
    campaigns.set(key, election)
    election.on('elected', () => leads(key)).on('error', () => undefined)
  }
  for (const key of keysOf(order, node)) campaign(key)
  return {
    resign: async (key) => campaigns.get(key)?.resign(),
    campaign,
    close: async () => client.close(),
  }
}
