/**
 * Nodes behind PgBouncer in transaction mode, where each transaction may use another connection to the server than the
 * one before it. Debian has PgBouncer as a package; where it is not installed, the test is skipped.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { Client } from 'pg'
import t, { type Test } from 'tap'
import {
  type Coordinator,
  createCoordinator,
  FencedError,
  type PassContext,
} from '../../plugin/coordinator.js'
import { usePostgres } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/ports.js'

const program = ['/usr/sbin/pgbouncer', '/usr/bin/pgbouncer'].find((path) => existsSync(path))

t.test(
  'behind PgBouncer in transaction mode',
  { skip: program ? false : 'PgBouncer is not installed' },
  async (t) => {
    const { url } = await usePostgres(t)
    const pooled = await usePooler(t, url)
    const said: string[] = []
    const first = await node(t, pooled, 'a', said)
    const second = await node(t, pooled, 'b', said)
    const passes: { node: string; pass: PassContext }[] = []
    for (const [name, coordinator] of Object.entries({ a: first, b: second })) {
      coordinator.worker({
        name: 'leader',
        kind: 'single',
        scope: 'global',
        run: async (pass) => {
          passes.push({ node: name, pass })
          await new Promise((resolve) => pass.signal.addEventListener('abort', resolve, { once: true }))
        },
      })
    }
    await first.start()
    await second.start()

    t.test('the log says that news is polled, and why', async (t) => {
      t.ok(
        said.some((line) => line.includes('pooler')),
        said.join('\n'),
      )
    })

    t.test('a leader steps down again and again, and the other one takes over by polling', async (t) => {
      for (let term = 0; term < 6; term++) {
        const present = await eventually(() => passes[term])
        if (term > 0) t.not(present?.node, passes[term - 1]?.node)
        present?.pass.stepDown(1)
      }
      await eventually(() => passes[6])
    })

    t.test('many changes at once, over fewer connections than there are clients', async (t) => {
      const names = Array.from({ length: 40 }, (_, index) => `lease-${index}`)
      const leases = await Promise.all(
        names.map((name, index) => (index % 2 ? first : second).acquire(name, { timeoutMs: 30_000 })),
      )
      const { leases: rows } = await first.status()
      t.equal(rows.filter(({ key }) => key.startsWith('global/lease-')).length, 40)
      await Promise.all(leases.map((lease) => lease.release()))
    })

    t.test('a transaction through the pooler is fenced', async (t) => {
      const lease = await first.acquire('fenced')
      const client = new Client({ connectionString: pooled })
      await client.connect()
      t.teardown(() => client.end())
      await client.query('begin')
      await lease.fence(client)
      await client.query('commit')
      await lease.release()
      await client.query('begin')
      await t.rejects(
        Promise.resolve().then(() => lease.fence(client)),
        FencedError,
      )
      await client.query('rollback')
    })

    t.test('nothing is left behind on the connections that others get', async (t) => {
      const client = new Client({ connectionString: url })
      await client.connect()
      t.teardown(() => client.end())
      const { rows } = await client.query<{ count: string }>(
        `select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`,
      )
      t.equal(Number(rows[0]?.count), 0)
      const viaPooler = new Client({ connectionString: pooled })
      await viaPooler.connect()
      t.teardown(() => viaPooler.end())
      const prepared = await viaPooler.query('select name from pg_prepared_statements')
      t.same(prepared.rows, [])
      const { rows: settings } = await viaPooler.query(
        `select current_setting('statement_timeout') as timeout`,
      )
      t.same(settings, [{ timeout: '0' }])
    })
  },
)

async function node(t: Test, database: string, name: string, said: string[]): Promise<Coordinator> {
  const note = (_: unknown, message?: string): void => {
    if (message !== undefined) said.push(message)
  }
  const coordinator = await createCoordinator({
    ...{ database, pollMs: 100, watchProcesses: false },
    identity: { node: name, cluster: 'eu-1' },
    log: { debug: note, info: note, warn: note, error: note },
  })
  t.teardown(() => coordinator.close())
  return coordinator
}

/**
 * Starts a pooler with two connections to the database for all clients. It refuses to run as root, and then runs as
 * nobody.
 */
async function usePooler(t: Test, url: string): Promise<string> {
  const { hostname, port, username, password, pathname } = new URL(url)
  const folder = await mkdtemp(join(tmpdir(), 'coordination-pooler-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await chmod(folder, 0o755)
  const ownPort = await freePort()
  const secret = password === '' ? '' : ` password=${decodeURIComponent(password)}`
  const configuration = join(folder, 'pgbouncer.ini')
  await writeFile(
    configuration,
    [
      '[databases]',
      `* = host=${hostname} port=${port || 5432} user=${decodeURIComponent(username)}${secret}`,
      '[pgbouncer]',
      ...['listen_addr = 127.0.0.1', `listen_port = ${ownPort}`, 'unix_socket_dir ='],
      ...['auth_type = any', 'pool_mode = transaction', 'default_pool_size = 2', 'max_client_conn = 200'],
    ].join('\n'),
  )
  const asNobody = userInfo().uid === 0 ? { uid: 65_534, gid: 65_534 } : {}
  const pooler = spawn(program ?? '', [configuration], { stdio: ['ignore', 'ignore', 'pipe'], ...asNobody })
  t.teardown(() => end(pooler))
  const complaints: string[] = []
  pooler.stderr?.setEncoding('utf8').on('data', (text: string) => complaints.push(text))
  const pooled = `postgres://anybody@127.0.0.1:${ownPort}${pathname}`
  await eventually(() => {
    if (pooler.exitCode !== null) throw new Error(complaints.join(''))
    return reachable(pooled)
  })
  return pooled
}

async function reachable(url: string): Promise<boolean> {
  const client = new Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  await client.end()
  return true
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  await once(child, 'exit')
}
