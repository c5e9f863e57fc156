/**
 * Faults of a database server of the campaign's own. Most are known to both kinds of server, some to one. Several are
 * counted by what the server logs or counts.
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createConnection } from 'mysql2/promise'
import { eventually } from '../support/eventually.js'
import { and, type Fault, needsSmallDisk, onMariadb, onPostgres, onServer } from './faults.js'
import { monotonicMs } from './history.js'
import { MariadbServer } from './mariadb.js'
import { PostgresServer } from './postgres.js'
import { needsFaketime } from './process-faults.js'
import type { DatabaseServer, Refusal } from './server.js'
import type { World } from './world.js'

const dayS = 86_400

export const serverFaults: readonly Fault[] = [
  fault('restart', (world, server) => restarted(world, server, 'fast')),
  fault('restart without warning', (world, server) => restarted(world, server, 'immediate')),
  postgresFault('crash', crashed),
  fault('server frozen', async (world, server) => {
    const times = server.freeze()
    await world.pause(world.ttls(0.2, 1.5))
    server.thaw()
    return times
  }),
  fault('connections killed', (_world, server) => server.endSessions()),
  mariadbFault('no connection left', (world, server) =>
    server.takingAllConnections(() => world.pause(world.ttls(0.3, 1.2))),
  ),
  mariadbFault('read-only for a while', readOnly),
  fault('deadlock', (world, server) => counting(server, 'deadlock', () => crossLocks(world, server))),
  postgresFault('serialization failure', serialized),
  fault('lock wait', async (world, server) => {
    await lockedOut(world, server, world.ttls(0.02, 0.15))
    return 1
  }),
  fault('statement timeout', (world, server) =>
    counting(server, 'timeout', () => lockedOut(world, server, world.ttls(0.4, 0.8))),
  ),
  fault('all tables locked', async (world, server) => {
    await server.lockingTables(['coordination_nodes', 'coordination_leases'], () =>
      world.pause(world.ttls(0.1, 1.2)),
    )
    return 1
  }),
  fault('idle in a transaction', (world, server) =>
    counting(server, 'idle in a transaction', () => dawdled(world, server)),
  ),
  {
    ...fault('clock of the database jumps', (world, server) => jumped(world, server, 0.3)),
    missing: and(onServer, needsFaketime),
  },
  {
    ...fault('clock of the database blips', (world, server) => jumped(world, server, 0.02)),
    missing: and(onServer, needsFaketime),
  },
  { ...postgresFault('disk full', diskFull), missing: and(onPostgres, needsSmallDisk) },
  fault('lossy promotion', promoted),
  fault('promotion', promotedInOrder),
]

function fault(kind: string, inject: (world: World, server: DatabaseServer) => Promise<number>): Fault {
  return {
    kind,
    lane: 'database',
    missing: onServer,
    inject: async (world) => (world.server === undefined ? 0 : inject(world, world.server)),
  }
}

function postgresFault(
  kind: string,
  inject: (world: World, server: PostgresServer) => Promise<number>,
): Fault {
  const only = async (world: World, server: DatabaseServer): Promise<number> =>
    server instanceof PostgresServer ? inject(world, server) : 0
  return { ...fault(kind, only), missing: onPostgres }
}

function mariadbFault(kind: string, inject: (world: World, server: MariadbServer) => Promise<number>): Fault {
  const only = async (world: World, server: DatabaseServer): Promise<number> =>
    server instanceof MariadbServer ? inject(world, server) : 0
  return { ...fault(kind, only), missing: onMariadb }
}

/** Returns how often the server has refused something while `work` ran. */
async function counting(server: DatabaseServer, what: Refusal, work: () => Promise<void>): Promise<number> {
  const before = await server.refused(what)
  await work()
  return (await server.refused(what)) - before
}

async function restarted(world: World, server: DatabaseServer, how: 'fast' | 'immediate'): Promise<number> {
  await server.stop(how)
  await world.pause(world.ttls(0, 0.8))
  await server.start()
  return 1
}

async function crashed(_world: World, server: PostgresServer): Promise<number> {
  const evidence = /database system was interrupted|was not properly shut down/
  const before = server.logged(evidence)
  if (!(await server.crash())) return 0
  await eventually(() => server.query('select 1'), { timeoutMs: 60_000 })
  return server.logged(evidence) - before
}

/** Behaves like a primary that is demoted and takes over again: it ends no session, and refuses to write. */
async function readOnly(world: World, server: MariadbServer): Promise<number> {
  await server.set('read_only', 1)
  const probe = await createConnection(server.url)
  const refused = await probe.query('update coordination_meta set revision = revision').then(
    () => 0,
    () => 1,
  )
  probe.destroy()
  await world.pause(world.ttls(0.3, 1.2))
  await server.set('read_only', 0)
  return refused
}

/** Locks some nodes' rows, and then the one row that every change takes first: the opposite order of a change. */
async function crossLocks(world: World, server: DatabaseServer): Promise<void> {
  for (let round = 0; round < 8; round++) {
    await server
      .inSession(async (run) => {
        await run('begin')
        await run(`select id from coordination_nodes order by md5(concat(id, '${round}')) limit 3 for update`)
        await world.pause(20)
        await run('select 1 from coordination_meta for update')
        await world.pause(20)
        await run('rollback')
      })
      .catch(() => undefined)
  }
}

/** Makes all transactions serializable for a while. */
async function serialized(world: World, server: PostgresServer): Promise<number> {
  const evidence = /could not serialize access/
  const before = server.logged(evidence)
  await server.set('default_transaction_isolation', 'serializable')
  await world.pause(world.ttls(1, 2))
  await server.set('default_transaction_isolation', undefined)
  return server.logged(evidence) - before
}

async function lockedOut(world: World, server: DatabaseServer, ms: number): Promise<void> {
  await server.inSession(async (run) => {
    await run('begin')
    await run('select 1 from coordination_meta for update')
    await run('select 1 from coordination_nodes for update')
    await world.pause(ms)
    await run('rollback')
  })
}

/** Lets applications keep fenced transactions idle for longer than the server allows. */
async function dawdled(world: World, server: DatabaseServer): Promise<void> {
  await server.limitIdleTransactions(1)
  for (const node of world.nodes) node.tell({ command: 'dawdle', ms: 1_500 })
  await world.pause(2_000)
  await server.limitIdleTransactions(undefined)
}

async function jumped(world: World, server: DatabaseServer, ttls: number): Promise<number> {
  if (!server.canBeLiedTo) return 0
  const before = await server.nowS()
  server.setClock(Math.round((world.plan.random() * 2 - 1) * dayS))
  try {
    const after = await server.nowS()
    await world.pause(world.ttls(ttls, 3 * ttls))
    return Math.abs(after - before) > 10 ? 1 : 0
  } finally {
    server.setClock(0)
  }
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
function promoted(world: World, server: DatabaseServer): Promise<number> {
  return withReplica(world, server, async (copy) => {
    await copy.stopReceiving()
    await world.pause(world.ttls(0.3, 1.5))
    const written = await revisionOf(server)
    await server.stop('fast')
    const received = await revisionOf(copy)
    await takenOver(world, server, copy)
    world.add({ t: 'forgot', atMs: monotonicMs() })
    return written > received ? 1 : 0
  })
}

/** The number of the last change of the nodes. */
async function revisionOf(server: DatabaseServer): Promise<number> {
  const [row] = await server.query('select revision from coordination_meta')
  return Number(row?.revision)
}

/** Promotes a replica that has received everything. */
function promotedInOrder(world: World, server: DatabaseServer): Promise<number> {
  return withReplica(world, server, async (copy) => {
    await copy.stopPrimary(server)
    await takenOver(world, server, copy)
    return 1
  })
}

let copies = 0

/** Starts a replica. When it cannot take over, it is removed, and the primary goes on. */
async function withReplica(
  world: World,
  server: DatabaseServer,
  work: (copy: DatabaseServer) => Promise<number>,
): Promise<number> {
  copies += 1
  const copy = await server.replica(join(world.serverFolder, `server-${copies}`))
  try {
    return await work(copy)
  } catch (error) {
    if (world.server === copy) throw error
    await copy.remove()
    await restarted(world, server, 'fast')
    throw error
  }
}

async function takenOver(world: World, server: DatabaseServer, copy: DatabaseServer): Promise<void> {
  await copy.promote()
  await world.moveTo(copy)
  await server.remove()
}
