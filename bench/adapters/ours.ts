/** This project: one single worker per key, or leases acquired by name, as locks are. */
import { createCoordinator, type PassContext } from 'fastify-worker-coordination/coordinator'
import { eventually } from '../../test/support/eventually.js'
import { type Join, keysOf, type Order } from './adapter.js'

/** Runs one single worker per key. Its pass waits for its signal. */
export const ours: Join = async (order, node, leads) => {
  if (order.heldEach !== undefined) return oursByName(order, node, leads)
  const coordinator = await join(order, node)
  const passes = new Map<string, PassContext>()
  for (const name of order.keys) {
    coordinator.worker({
      name,
      kind: 'single',
      scope: 'global',
      // A node that gets back what it stepped down from a moment ago waits for this long, which is not what is measured.
      everyMs: 0,
      run: async (pass) => {
        passes.set(name, pass)
        leads(name)
        await ended(pass.signal)
      },
    })
  }
  await started(coordinator)
  return {
    async resign(key) {
      passes.get(key)?.stepDown(1)
    },
    campaign: () => undefined,
    close: () => coordinator.close(),
  }
}

export const oursByName: Join = async (order, node, leads) => {
  const coordinator = await join(order, node)
  await started(coordinator)
  const held = new Map<string, { release(): Promise<void> }>()
  const campaign = async (key: string): Promise<void> => {
    const lease = await coordinator.acquire(key).catch(() => undefined)
    if (lease === undefined) return
    held.set(key, lease)
    leads(key)
  }
  for (const key of keysOf(order, node)) void campaign(key)
  return {
    resign: async (key) => held.get(key)?.release(),
    campaign: (key) => void campaign(key),
    close: () => coordinator.close(),
  }
}

/**
 * Starts the coordinator, repeatedly if necessary: a busy machine may need more attempts than an application would
 * make.
 */
function started(coordinator: { start(): Promise<void> }): Promise<boolean> {
  return eventually(() => coordinator.start().then(() => true))
}

function join({ url, ttlMs, apart = false }: Order, node: string) {
  return createCoordinator({
    ...{ database: url, ttlMs, watchProcesses: !apart },
    identity: { node, cluster: 'bench' },
  })
}

function ended(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
