/** Faults of a PostgreSQL server. Several are counted by their lines in the server's log. */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from '../support/eventually.js'
import { and, type Fault, onServer } from './faults.js'
import { monotonicMs } from './history.js'
import { type PostgresServer, withSession } from './postgres.js'
import { needsFaketime } from './process-faults.js'
import type { World } from './world.js'

const dayS = 86_400

export const postgresFaults: readonly Fault[] = [
  fault('restart', async (world, server) => restarted(world, server, 'fast')),
  fault('restart without warning', async (world, server) => restarted(world, server, 'immediate')),
  fault('crash', crashed),
  fault('server frozen', async (world, server) => {
    const times = server.freeze()
    await world.pause(world.ttls(0.2, 1.5))
    server.thaw()
    return times
  }),
  fault('connections killed', async (_world, server) => {
    const rows = await server.query(
      'select pg_terminate_backend(pid) from pg_stat_activity ' +
        "where pid <> pg_backend_pid() and backend_type = 'client backend'",
    )
    return rows.length
  }),
  fault('deadlock', deadlocked),
  fault('serialization failure', async (world, server) =>
    withSetting(
      world,
      server,
      "default_transaction_isolation = 'serializable'",
      /could not serialize access/,
    ),
  ),
  fault('lock wait', (world, server) => lockedOut(world, server, world.ttls(0.02, 0.15))),
  fault('statement timeout', async (world, server) => {
    const before = server.logged(/canceling statement due to (statement|lock) timeout/)
    await lockedOut(world, server, world.ttls(0.4, 0.8))
    return server.logged(/canceling statement due to (statement|lock) timeout/) - before
  }),
  fault('all tables locked', async (world, server) =>
    withSession(server.url, async (client) => {
      await client.query('begin')
      await client.query('lock table coordination_nodes, coordination_leases in access exclusive mode')
      await world.pause(world.ttls(0.1, 1.2))
      await client.query('rollback')
      return 1
    }),
  ),
  fault('idle in a transaction', idleKilled),
  {
    ...fault('clock of the database jumps', (world, server) => jumped(world, server, 0.3)),
    missing: and(onServer, needsFaketime),
  },
  {
    ...fault('clock of the database blips', (world, server) => jumped(world, server, 0.02)),
    missing: and(onServer, needsFaketime),
  },
  { ...fault('disk full', diskFull), missing: and(onServer, needsSmallDisk) },
  fault('lossy promotion', promoted),
  fault('promotion', promotedInOrder),
]

function fault(kind: string, inject: (world: World, server: PostgresServer) => Promise<number>): Fault {
  return {
    kind,
    lane: 'database',
    missing: onServer,
    inject: (world) => (world.server === undefined ? Promise.resolve(0) : inject(world, world.server)),
  }
}

export function needsSmallDisk(world: World): string | undefined {
  return world.smallDisk === undefined ? 'no file system can be mounted here' : undefined
}

async function restarted(world: World, server: PostgresServer, how: 'fast' | 'immediate'): Promise<number> {
  await server.stop(how)
  await world.pause(world.ttls(0, 0.8))
  await server.start()
  return 1
}

async function crashed(_world: World, server: PostgresServer): Promise<number> {
  const before = server.logged(/database system was interrupted|was not properly shut down/)
  if (!(await server.crash())) return 0
  await eventually(() => server.query('select 1'), { timeoutMs: 60_000 })
  return server.logged(/database system was interrupted|was not properly shut down/) - before
}

/** Locks some nodes' rows, and then the one row that every change takes first: the opposite order of a change. */
async function deadlocked(world: World, server: PostgresServer): Promise<number> {
  const before = await deadlocks(server)
  for (let round = 0; round < 8; round++) {
    await withSession(server.url, async (client) => {
      await client.query('begin')
      await client.query('select id from coordination_nodes order by random() limit 3 for update')
      await world.pause(20)
      await client.query('select 1 from coordination_meta for update')
      await world.pause(20)
      await client.query('rollback')
    }).catch(() => undefined)
  }
  return (await deadlocks(server)) - before
}

async function deadlocks(server: PostgresServer): Promise<number> {
  return server.logged(/deadlock detected/)
}

/** Changes a setting of the server for a while, and counts its effects in the log. */
async function withSetting(
  world: World,
  server: PostgresServer,
  setting: string,
  evidence: RegExp,
): Promise<number> {
  const before = server.logged(evidence)
  await server.query(`alter system set ${setting}`)
  await server.query('select pg_reload_conf()')
  await world.pause(world.ttls(1, 2))
  await server.query(`alter system reset ${setting.split(' ')[0]}`)
  await server.query('select pg_reload_conf()')
  return server.logged(evidence) - before
}

async function lockedOut(world: World, server: PostgresServer, ms: number): Promise<number> {
  return withSession(server.url, async (client) => {
    await client.query('begin')
    await client.query('select 1 from coordination_meta for update')
    await client.query('select 1 from coordination_nodes for update')
    await world.pause(ms)
    await client.query('rollback')
    return 1
  })
}

/** Lets applications keep fenced transactions idle for longer than the server allows. */
async function idleKilled(world: World, server: PostgresServer): Promise<number> {
  const evidence = /terminating connection due to idle-in-transaction timeout/
  const before = server.logged(evidence)
  await server.query("alter system set idle_in_transaction_session_timeout = '40ms'")
  await server.query('select pg_reload_conf()')
  for (const node of world.nodes) node.tell({ command: 'dawdle', ms: 300 })
  await world.pause(world.ttls(0.5, 1))
  await server.query('alter system reset idle_in_transaction_session_timeout')
  await server.query('select pg_reload_conf()')
  return server.logged(evidence) - before
}

async function jumped(world: World, server: PostgresServer, ttls: number): Promise<number> {
  if (!server.canBeLiedTo) return 0
  const [before] = await server.query('select extract(epoch from clock_timestamp()) as s')
  server.setClock(Math.round((world.plan.random() * 2 - 1) * dayS))
  const [after] = await server.query('select extract(epoch from clock_timestamp()) as s')
  await world.pause(world.ttls(ttls, 3 * ttls))
  server.setClock(0)
  return Math.abs(Number(after?.s) - Number(before?.s)) > 10 ? 1 : 0
}

/** Fills the disk. A server that panics may not come back by itself; then it is started again once there is room. */
async function diskFull(world: World, server: PostgresServer): Promise<number> {
  const evidence = /No space left on device/
  const before = server.logged(evidence)
  const ballast = join(world.smallDisk ?? world.plan.folder, 'ballast')
  await writeFile(ballast, Buffer.alloc(512 * 1024 * 1024)).catch(() => undefined)
  await server.query('select pg_switch_wal()').catch(() => undefined)
  await server
    .query("create table chaos_ballast as select repeat('x', 1000) from generate_series(1, 20000)")
    .catch(() => undefined)
  await world.pause(world.ttls(0.2, 0.8))
  await rm(ballast, { force: true })
  await eventually(() => server.query('select 1'), { timeoutMs: 3_000, everyMs: 100 }).catch(async () => {
    await server.stop('immediate')
    await server.start()
  })
  await server.query('drop table if exists chaos_ballast')
  return server.logged(evidence) - before
}

/** Promotes a replica that has missed the last writes, as may happen with asynchronous replication. */
async function promoted(world: World, server: PostgresServer): Promise<number> {
  const copy = await copyOf(world, server)
  await copy.stopReceiving()
  const missedFrom = monotonicMs()
  await world.pause(world.ttls(0.3, 1.5))
  await takenOver(world, server, copy)
  world.add({ t: 'forgot', atMs: monotonicMs() })
  return monotonicMs() > missedFrom ? 1 : 0
}

/** Promotes a replica that has received everything: the primary is stopped in good order first. */
async function promotedInOrder(world: World, server: PostgresServer): Promise<number> {
  const copy = await copyOf(world, server)
  await copy.isReceiving()
  await takenOver(world, server, copy)
  return 1
}

let copies = 0

async function copyOf(world: World, server: PostgresServer): Promise<PostgresServer> {
  copies += 1
  return server.replica(join(world.smallDisk ?? world.plan.folder, `server-${copies}`))
}

async function takenOver(world: World, server: PostgresServer, copy: PostgresServer): Promise<void> {
  await server.stop('fast')
  await copy.promote()
  await world.moveTo(copy)
  await server.remove()
}
