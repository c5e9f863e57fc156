/** Faults of processes, and of the machine under them. */
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { eventually } from '../support/eventually.js'
import { anywhere, type Fault } from './faults.js'
import type { ChaosNode } from './fleet.js'
import type { World } from './world.js'

const dayS = 86_400

export const processFaults: readonly Fault[] = [
  fault('kill', (world) => world.withNode(killed)),
  fault('kill most at once', async (world) => {
    const victims = world.nodes.filter((node) => node.alive).slice(1)
    await Promise.all(victims.map(killed))
    return victims.length
  }),
  fault('clean stop', (world) => world.withNode(async (node) => ends(node, 'close', '0'))),
  fault('uncaught error', (world) => world.withNode(async (node) => ends(node, 'throw'))),
  fault('out of memory', (world) => world.withNode(async (node) => ends(node, 'exhaust'))),
  fault('short freeze', (world) => world.withNode((node) => frozen(world, node, world.ttls(0.1, 0.6)))),
  fault('long freeze', (world) => world.withNode((node) => frozen(world, node, world.ttls(1.1, 2)))),
  fault('short block', (world) => world.withNode((node) => blocked(world, node, world.ttls(0.1, 0.6)))),
  fault('long block', (world) => world.withNode((node) => blocked(world, node, world.ttls(1.1, 2)))),
  {
    ...fault('starvation', (world) => world.withNode((node) => starved(world, node))),
    missing: () => (canStarve() ? undefined : 'no cgroup of its own can be made here'),
  },
  fault('busy machine', busyMachine),
  {
    ...fault('clock jump', (world) => world.withNode((node) => jumped(world, node, 0.3))),
    missing: needsFaketime,
  },
  {
    ...fault('clock blip', (world) => world.withNode((node) => jumped(world, node, 0.02))),
    missing: needsFaketime,
  },
  fault('many contenders', async (world) => visited(world, ['v1', 'v2', 'v3'])),
  fault('duplicate name', async (world) => {
    const twin = world.pick(world.nodes)
    return twin === undefined ? 0 : visited(world, [twin.name])
  }),
]

function fault(kind: string, inject: Fault['inject']): Fault {
  return { kind, lane: 'process', missing: anywhere, inject }
}

export function needsFaketime(world: World): string | undefined {
  return world.faketime === undefined ? 'libfaketime is not installed' : undefined
}

async function killed(node: ChaosNode): Promise<number> {
  await node.kill()
  return 1
}

async function ends(node: ChaosNode, command: 'close' | 'throw' | 'exhaust', how?: string): Promise<number> {
  node.expectEnd()
  node.tell({ command })
  await eventually(() => !node.alive, { timeoutMs: 20_000, everyMs: 50 }).catch(() => node.kill())
  return how === undefined || (await node.ended()) === how ? 1 : 0
}

async function frozen(world: World, node: ChaosNode, ms: number): Promise<number> {
  node.freeze()
  await world.pause(ms)
  node.thaw()
  return 1
}

async function blocked(world: World, node: ChaosNode, ms: number): Promise<number> {
  node.tell({ command: 'block', ms })
  await world.pause(ms)
  return 1
}

const cgroups = '/sys/fs/cgroup/cpu'

function canStarve(): boolean {
  const probe = `${cgroups}/coordination-chaos-probe-${process.pid}`
  try {
    mkdirSync(probe)
    writeFileSync(`${probe}/cpu.cfs_quota_us`, '5000')
    rmdirSync(probe)
    return true
  } catch {
    return false
  }
}

/** Limits the node to a few percent of one processor. */
async function starved(world: World, node: ChaosNode): Promise<number> {
  const group = `${cgroups}/coordination-chaos-${node.pid}`
  mkdirSync(group)
  try {
    writeFileSync(`${group}/cpu.cfs_quota_us`, '3000')
    writeFileSync(`${group}/cgroup.procs`, String(node.pid))
    await world.pause(world.ttls(0.5, 1.5))
    if (node.alive) writeFileSync(`${cgroups}/cgroup.procs`, String(node.pid))
    return 1
  } catch {
    return 0
  } finally {
    await eventually(() => removed(group), { timeoutMs: 10_000 }).catch(() => undefined)
  }
}

function removed(group: string): boolean {
  rmdirSync(group)
  return true
}

/** Runs four busy loops for a while. */
async function busyMachine(world: World): Promise<number> {
  const loops = Array.from({ length: 4 }, () =>
    spawn(
      process.execPath,
      ['-e', `const end = Date.now() + ${world.ttls(0.5, 1)}; while (Date.now() < end);`],
      {
        stdio: 'ignore',
      },
    ),
  )
  await Promise.all(loops.map((loop) => new Promise((resolve) => loop.once('exit', resolve))))
  return loops.length
}

/** Sets the clock off by up to one day in either direction, and mostly back again. */
async function jumped(world: World, node: ChaosNode, ttls: number): Promise<number> {
  if (!node.canBeLiedTo) return 0
  node.setClock(Math.round((world.plan.random() * 2 - 1) * dayS))
  await world.pause(world.ttls(ttls, 3 * ttls))
  if (world.plan.random() < 0.7) node.setClock(0)
  return 1
}

/** Starts more nodes for a while. Some leave in good order, some are killed. */
async function visited(world: World, names: readonly string[]): Promise<number> {
  const visitors = names.map((name) => world.visitor(name))
  const deadline = world.pause(world.ttls(1, 2))
  await eventually(() => visitors.some((visitor) => visitor.joined), { timeoutMs: 40_000 }).catch(
    () => undefined,
  )
  await deadline
  const joined = visitors.filter((visitor) => visitor.joined).length
  await Promise.all(
    visitors.map((visitor) => (world.plan.random() < 0.5 ? killed(visitor) : ends(visitor, 'close'))),
  )
  return joined
}

/** Ends a tracer that this process has attached to another process. */
export function endTracer(pid: number): void {
  try {
    execFileSync('kill', ['-INT', String(pid)], { stdio: 'ignore' })
  } catch {
    // It has ended together with the process it was attached to.
  }
}
