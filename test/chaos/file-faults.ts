/** Faults of a SQLite file and of its disk. */
import { spawn } from 'node:child_process'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import BetterSqlite from 'better-sqlite3'
import { and, type Fault, needsSmallDisk, onFile } from './faults.js'
import type { ChaosNode } from './fleet.js'
import { endTracer } from './process-faults.js'
import { canWrite, type World } from './world.js'

export const fileFaults: readonly Fault[] = [
  fault('busy', (world) => kept(world, 'begin immediate', world.ttls(0.05, 0.3))),
  fault('busy for long', (world) => kept(world, 'begin immediate', world.ttls(0.6, 1.5))),
  fault('a reader that does not end', (world) =>
    kept(world, 'begin; select * from coordination_nodes', world.ttls(1, 2)),
  ),
  fault('killed in the middle of a write', (world) =>
    world.withNode(async (node) => {
      const caught = await caughtWriting(world, node)
      await node.kill()
      return caught ? 1 : 0
    }),
  ),
  fault('frozen in the middle of a write', (world) =>
    world.withNode(async (node) => {
      const caught = await caughtWriting(world, node)
      await world.pause(world.ttls(0.3, 1.3))
      node.thaw()
      return caught ? 1 : 0
    }),
  ),
  { ...fault('disk full under the file', diskFull), missing: and(onFile, needsSmallDisk) },
  {
    ...fault('I/O error', (world) => world.withNode((node) => failing(world, node))),
    missing: and(onFile, () => (existsSync('/usr/bin/strace') ? undefined : 'strace is not installed')),
  },
]

function fault(kind: string, inject: Fault['inject']): Fault {
  return { kind, lane: 'database', missing: onFile, inject }
}

/** Locks the file from this process: locks belong to a connection, so another process would do the same. */
async function kept(world: World, begin: string, ms: number): Promise<number> {
  const file = new BetterSqlite(world.path, { timeout: 2_000 })
  try {
    file.exec(begin)
    await world.pause(ms)
    file.exec('rollback')
    return 1
  } catch {
    return 0
  } finally {
    file.close()
  }
}

/**
 * Freezes the node again and again, until it holds the write slot at that moment. Returns whether this was achieved.
 */
async function caughtWriting(world: World, node: ChaosNode): Promise<boolean> {
  for (let attempt = 0; attempt < 400 && node.alive; attempt++) {
    node.freeze()
    if (!canWrite(world.path)) return true
    node.thaw()
    await world.pause(3)
  }
  return false
}

async function diskFull(world: World): Promise<number> {
  const ballast = join(world.smallDisk ?? world.plan.folder, 'ballast')
  let full = false
  try {
    writeFileSync(ballast, Buffer.alloc(64 * 1024 * 1024))
  } catch {
    full = true
  }
  await world.pause(world.ttls(0.3, 1.2))
  rmSync(ballast, { force: true })
  return full ? 1 : 0
}

/** Makes the second of its writes to files fail, and every third one after it. */
async function failing(world: World, node: ChaosNode): Promise<number> {
  const tracer = spawn(
    'strace',
    [
      ...['-f', '-qq', '-o', '/dev/null', '-p', String(node.pid)],
      ...['-e', 'trace=pwrite64', '-e', 'inject=pwrite64:error=EIO:when=2+3'],
    ],
    { stdio: 'ignore' },
  )
  const ended = new Promise((resolve) => tracer.once('exit', resolve))
  await world.pause(world.ttls(0.3, 0.8))
  const attached = tracer.exitCode === null && tracer.pid !== undefined
  if (attached) endTracer(tracer.pid ?? 0)
  await ended
  return attached ? 1 : 0
}
