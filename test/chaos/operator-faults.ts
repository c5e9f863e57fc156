/** Orders of operators, given while other faults go on. */
import { anywhere, type Fault } from './faults.js'
import type { World } from './world.js'

export const operatorFaults: readonly Fault[] = [
  fault('revoke', (world) =>
    withHeld(world, ({ key, token }) =>
      world.order('revoke', async (by) => {
        const { kind } = await world.operator.release({ key, token, cooldownMs: world.ttls(0, 2), ...by })
        return kind
      }),
    ),
  ),
  fault('transfer', (world) =>
    withHeld(world, ({ key, token }) =>
      world.order('transfer', async (by) => {
        const { kind } = await world.operator.transfer({ key, token, cooldownMs: world.ttls(0, 1), ...by })
        return kind
      }),
    ),
  ),
  fault('drain', async (world) => {
    const { nodes } = await world.status()
    const node = world.pick(nodes.filter(({ state }) => state === 'active'))
    if (node === undefined) return 0
    const drained = await world.order('drain', (by) => world.operator.drain(node.id, by))
    await world.pause(world.ttls(0.2, 0.8))
    await world.order('undrain', (by) => world.operator.undrain(node.id, by))
    return drained ? 1 : 0
  }),
  fault('pause', async (world) => {
    const { workers } = await world.status()
    const worker = world.pick(workers)
    if (worker === undefined) return 0
    const paused = await world.order('pause', (by) => world.operator.pause(worker.key, by))
    await world.pause(world.ttls(0.1, 0.5))
    await world.order('resume', (by) => world.operator.resume(worker.key, by))
    return paused ? 1 : 0
  }),
  fault('rebalance', async (world) => {
    const { workers } = await world.status()
    const worker = world.pick(workers)
    if (worker === undefined) return 0
    const by = { actor: 'campaign', reason: 'rebalance' }
    const { kind } = await world.operator.rebalance({ key: worker.key, ...by })
    return kind === 'planned' ? 1 : 0
  }),
]

function fault(kind: string, inject: Fault['inject']): Fault {
  return { kind, lane: 'operator', missing: anywhere, inject }
}

async function withHeld(
  world: World,
  work: (lease: { readonly key: string; readonly token: number }) => Promise<boolean>,
): Promise<number> {
  const { leases } = await world.status()
  const lease = world.pick(leases.filter(({ worker, holder }) => worker !== null && holder !== null))
  return lease !== undefined && (await work(lease)) ? 1 : 0
}
