/** Faults of the connections to the database, injected by a TCP proxy for each node. */
import { answersCommit, type TcpProxy } from '../support/proxy.js'
import { and, type Fault, onNetwork, onPostgres } from './faults.js'
import type { World } from './world.js'

export const networkFaults: readonly Fault[] = [
  onWay('black hole', async (world, way) => {
    way.goSilent()
    await world.pause(world.ttls(0.3, 1.5))
    way.cut()
  }),
  onWay('requests lost', async (world, way) => {
    way.toServer.drop()
    await world.pause(world.ttls(0.3, 1.5))
    way.cut()
  }),
  onWay('answers lost', async (world, way) => {
    way.toClient.drop()
    await world.pause(world.ttls(0.3, 1.5))
    way.cut()
  }),
  onWay('requests held back, then let go', async (world, way) => {
    way.toServer.hold()
    await world.pause(world.ttls(0.3, 1.5))
    way.toServer.release()
  }),
  onWay('answers held back, then let go', async (world, way) => {
    way.toClient.hold()
    await world.pause(world.ttls(0.3, 1.5))
    way.toClient.release()
  }),
  onWay('latency', async (world, way) => {
    way.toServer.delayMs = world.ttls(0.01, 0.1)
    way.toClient.delayMs = world.ttls(0.01, 0.1)
    await world.pause(world.ttls(0.5, 1.5))
    way.toServer.delayMs = 0
    way.toClient.delayMs = 0
  }),
  onWay('reset', async (_world, way) => way.reset()),
  onWay('refused', async (world, way) => {
    way.refuse()
    await world.pause(world.ttls(0.2, 1.2))
    way.cut()
  }),
  {
    kind: 'answer cut after commit',
    lane: 'network',
    missing: and(onNetwork, onPostgres),
    inject: (world) =>
      world.withWay(async (way) => {
        const cut = way.cutAtAnswer(answersCommit).then(() => 1)
        const times = await Promise.race([cut, world.pause(world.ttls(2, 3)).then(() => 0)])
        way.cut()
        return times
      }),
  },
  {
    kind: 'black hole for all',
    lane: 'network',
    missing: onNetwork,
    inject: async (world) => {
      for (const way of world.ways) way.goSilent()
      await world.pause(world.ttls(0.3, 1.2))
      for (const way of world.ways) way.cut()
      return world.ways.length
    },
  },
]

function onWay(kind: string, disturb: (world: World, way: TcpProxy) => Promise<void>): Fault {
  return {
    kind,
    lane: 'network',
    missing: onNetwork,
    inject: (world) =>
      world.withWay(async (way) => {
        await disturb(world, way)
        return 1
      }),
  }
}
