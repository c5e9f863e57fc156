/** Faults of a cluster in which not all nodes run the same version. */
import { eventually } from '../support/eventually.js'
import { anywhere, type Fault } from './faults.js'
import type { ChaosNode } from './fleet.js'
import { monotonicMs } from './history.js'
import type { World } from './world.js'

export const versionFaults: readonly Fault[] = [
  fault('newer version rolled out', rolledOut),
  fault('older version started', startedOlder),
]

function fault(kind: string, inject: Fault['inject']): Fault {
  return { kind, lane: 'process', missing: anywhere, inject }
}

/**
 * One or two nodes of a newer version migrate the database while the others hold leases and go on. For a while both
 * versions run side by side; then the others are replaced as well. The fault has happened when a node of an older
 * version held a lease throughout the migration.
 */
async function rolledOut(world: World): Promise<number> {
  const version = await world.versions.release()
  const waves = wavesOf(world)
  try {
    const [first = [], ...others] = waves
    const replacing = replaced(world, first, version)
    const wentOn = await heldThroughout(world, version, first)
    await replacing
    if (wentOn !== undefined) world.add({ t: 'migrated', atMs: monotonicMs(), version, wentOn })
    await world.pause(world.ttls(0.3, 1.5))
    for (const wave of others) await replaced(world, wave, version)
    return wentOn ?? 0
  } finally {
    await world.replaceOlder(version)
  }
}

/** Starts a node that knows fewer migrations than the database has. It must be refused. */
async function startedOlder(world: World): Promise<number> {
  const { newest } = world.versions
  const { moves } = world
  if (newest === 0 || !(await world.hasMigrated(newest))) return 0
  const visitor = world.visitor('older', Math.floor(newest * world.plan.random()))
  await eventually(() => visitor.refused !== undefined || visitor.joined || !visitor.alive, {
    timeoutMs: 30_000,
  }).catch(() => undefined)
  // A failover may have forgotten the migration; then admitting the node was right.
  if (visitor.joined && world.moves === moves) {
    world.add({ t: 'admitted', atMs: monotonicMs(), by: visitor.by })
  }
  await visitor.kill()
  return visitor.refused === 'WCO_SCHEMA_NEWER' ? 1 : 0
}

/** Returns all nodes in a random order: a first wave of one or two, and two waves of the others. */
function wavesOf(world: World): number[][] {
  const left = world.nodes.map((_node, index) => index)
  const take = (count: number): number[] =>
    Array.from({ length: count }, () => left.splice(Math.floor(world.plan.random() * left.length), 1)).flat()
  const first = take(world.plan.random() < 0.5 ? 1 : 2)
  return [first, take(Math.ceil(left.length / 2)), take(left.length)]
}

/** Closes or kills nodes to replace them. A node that takes too long to come back is waited for after the round. */
async function replaced(world: World, indices: readonly number[], version: number): Promise<void> {
  await Promise.all(
    indices.map(async (index) => {
      const node = world.replace(index, version)
      if (node?.joined && world.plan.random() < 0.6) node.tell({ command: 'close' })
      else await node?.kill()
      await eventually(() => node?.alive !== true, { timeoutMs: 8_000 }).catch(() => node?.kill())
    }),
  )
  const nodes = (): (ChaosNode | undefined)[] => indices.map((index) => world.nodes[index])
  const isBack = (): boolean => nodes().every((node) => node?.alive && node.joined)
  await eventually(isBack, { timeoutMs: 12_000 }).catch(() => undefined)
}

/**
 * Returns how many leases other nodes held both just before and just after the migrations were applied; undefined when
 * they are not applied in time.
 */
async function heldThroughout(
  world: World,
  version: number,
  indices: readonly number[],
): Promise<number | undefined> {
  let before: string[] = []
  const migrated = async (): Promise<boolean> => {
    const held = await heldByOthers(world, indices)
    if (await world.hasMigrated(version)) return true
    before = held
    return false
  }
  try {
    await eventually(migrated, { timeoutMs: 25_000, everyMs: 30 })
    const after = await eventually(() => heldByOthers(world, indices), { timeoutMs: 5_000 })
    return after.filter((term) => before.includes(term)).length
  } catch {
    return undefined
  }
}

/** Returns what nodes other than these hold, as key and token. */
async function heldByOthers(world: World, indices: readonly number[]): Promise<string[]> {
  const names = indices.map((index) => world.nodes[index]?.name)
  const { leases } = await world.status()
  return leases.flatMap(({ key, holder, token }) =>
    holder === null || names.includes(holder.name) ? [] : [`${key} ${token}`],
  )
}
