/** Faults of packets and cables between nodes and their database; see `links.ts`. */
import { and, type Fault, onLinks, onNetwork } from './faults.js'
import type { Heading, Links } from './links.js'
import type { World } from './world.js'

const bothWays: readonly Heading[] = ['to the database', 'to the node']

export const linkFaults: readonly Fault[] = [
  fault('cable out', (world, links) => world.withConnected((index) => unplugged(world, links, [index], 1.5))),
  fault('cables of several out', (world, links) => unplugged(world, links, several(world), 1.2)),
  fault('packets vanish', (world, links) => lost(world, links, bothWays, 1)),
  fault('packets to the database vanish', (world, links) => lost(world, links, ['to the database'], 1)),
  fault('packets to the node vanish', (world, links) => lost(world, links, ['to the node'], 1)),
  fault('packets get lost', (world, links) => lost(world, links, bothWays, someOf(world))),
  fault('packets of all get lost', (world, links) =>
    links.losing(allOf(world), bothWays, someOf(world), () => world.pause(world.ttls(0.5, 2))),
  ),
]

function fault(kind: string, inject: (world: World, links: Links) => Promise<number>): Fault {
  return {
    kind,
    lane: 'network',
    missing: and(onNetwork, onLinks),
    inject: (world) => (world.links === undefined ? Promise.resolve(0) : inject(world, world.links)),
  }
}

function unplugged(
  world: World,
  links: Links,
  indices: readonly number[],
  mostTtls: number,
): Promise<number> {
  const nodes = indices.map((index) => ({ index, pid: world.nodes[index]?.pid ?? 0 }))
  return links.unplugged(nodes, () => world.pause(world.ttls(0.3, mostTtls)))
}

function lost(world: World, links: Links, headings: readonly Heading[], share: number): Promise<number> {
  return world.withConnected((index) =>
    links.losing([index], headings, share, () => world.pause(world.ttls(0.3, 1.5))),
  )
}

/** A share of lost packets that TCP still copes with, or hardly does: 10 to 50 %. */
function someOf(world: World): number {
  return 0.1 + 0.4 * world.plan.random()
}

function allOf(world: World): number[] {
  return world.ways.map((_way, index) => index)
}

/** Picks at least two nodes, sometimes all. */
function several(world: World): number[] {
  const left = allOf(world)
  const count = 2 + Math.floor(world.plan.random() * (left.length - 1))
  return Array.from({ length: count }, () =>
    left.splice(Math.floor(world.plan.random() * left.length), 1),
  ).flat()
}
