/** Servers of a campaign's own, when they do not do what they are told. */
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { eventually } from '../support/eventually.js'
import { PostgresServer } from './postgres.js'
import { serverFaults } from './server-faults.js'
import { findFaketime, type World } from './world.js'

t.setTimeout(120_000)

t.test('a server is stopped even when one of its processes hangs, and starts again', async (t) => {
  const server = await serverFor(t)
  await server.inSession(async (run) => {
    const [row] = await run('select pg_backend_pid() as pid')
    process.kill(Number(row?.pid), 'SIGSTOP')
    t.match(
      server.condition(),
      new RegExp(`^${row?.pid} postgres: .*: T \\(stopped\\)`, 'm'),
      'what hangs is named',
    )
    t.equal(await server.stop('fast', 500), false)
  })
  await server.start()
  t.equal((await server.query('select 1 as one'))[0]?.one, 1)
  t.equal(await server.stop('fast'), true, 'without such a process it ends by itself')
})

t.test('a server that has ended by itself is stopped, and starts again', async (t) => {
  const server = await serverFor(t)
  const [row] = await server.query("select pg_read_file('postmaster.pid') as line")
  process.kill(Number.parseInt(String(row?.line), 10), 'SIGTERM')
  t.equal(await server.stop('immediate'), true)
  await server.start()
  t.equal((await server.query('select 1 as one'))[0]?.one, 1)
})

t.test(
  'no process hangs when a timer goes off while it reads a faked time',
  { skip: findFaketime() === undefined && 'libfaketime is not installed' },
  async (t) => {
    const server = await serverFor(t, findFaketime())
    const readAndBeCancelled = async (): Promise<void> =>
      server.inSession(async (run) => {
        await run("set statement_timeout = '3ms'")
        for (let statement = 0; statement < 1_000; statement++)
          await run('select count(clock_timestamp()) from generate_series(1, 200)').catch(() => undefined)
      })
    await Promise.all(Array.from({ length: 10 }, readAndBeCancelled))
    t.equal(await server.stop('fast'), true)
  },
)

t.test(
  'the clock of a server is set back also when the fault that set it fails',
  { skip: findFaketime() === undefined && 'libfaketime is not installed' },
  async (t) => {
    const server = await serverFor(t, findFaketime())
    const offS = async (): Promise<number> => Math.abs((await server.nowS()) - Date.now() / 1_000)
    const failing = {
      ...{ server, plan: { random: () => 0 }, ttls: () => 0 },
      async pause() {
        t.ok((await offS()) > 3_600, 'the clock is off')
        throw new Error('in the middle of it')
      },
    }
    const jump = serverFaults.find(({ kind }) => kind === 'clock of the database jumps')
    await t.rejects(async () => jump?.inject(failing as unknown as World), { message: 'in the middle of it' })
    await eventually(async () => (await offS()) < 60)
  },
)

async function serverFor(t: Test, faketime?: string): Promise<PostgresServer> {
  const folder = await mkdtemp(join(tmpdir(), 'coordination-server-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  // As root the server runs as another user, which must be able to reach its data through this folder.
  await chmod(folder, 0o755)
  const server = await PostgresServer.create({ folder: join(folder, 'server'), faketime })
  t.teardown(() => server.remove())
  return server
}
