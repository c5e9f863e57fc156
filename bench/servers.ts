/**
 * Starts servers for the benches alone, on loopback and in folders that are removed at their end, so that no other load
 * is measured. Each syncs to disk as it does by default, even PostgreSQL, which the tests run without it; only Redis
 * writes nothing to disk.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect as dial, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { Client } from 'pg'
import { usePostgresCluster, useSqlite } from '../test/support/databases.js'
import { eventually } from '../test/support/eventually.js'
import { freePort } from '../test/support/ports.js'
import type { Lifetime } from './lifetime.js'
import { cpuMsOf, memoryMbOf } from './machine.js'

export interface Server {
  readonly url: string
  readonly version: string
  cpuMs(): number
  memoryMb(): number
  /** Number of requests it has received since it started; undefined when only its clients can count them. */
  requests?(): Promise<number>
  /** Creates an unused database in it, where it supports that. */
  fresh?(): Promise<string>
}

/** Starts a server, or returns the reason why there is none. */
export type Start = (lifetime: Lifetime) => Promise<Server | string>

export async function startPostgres(
  lifetime: Lifetime,
  settings: Readonly<Record<string, string>> = {},
): Promise<Server> {
  const { url } = await usePostgresCluster(lifetime, { fsync: 'on', max_connections: '1300', ...settings })
  const client = new Client({ connectionString: url })
  await client.connect()
  client.on('error', () => undefined)
  lifetime.teardown(() => client.end())
  const { rows } = await client.query<{ version: string; folder: string }>(
    `select current_setting('server_version') as version, current_setting('data_directory') as folder`,
  )
  const [{ version, folder } = { version: '', folder: '' }] = rows
  const [pid] = (
    await client.query<{ line: string }>(`select pg_read_file($1) as line`, [join(folder, 'postmaster.pid')])
  ).rows.map(({ line }) => Number(line.split('\n')[0]))
  let databases = 0
  return {
    url,
    version: `PostgreSQL ${version.split(' ')[0]}`,
    ...figuresOf(pid ?? 0),
    async fresh() {
      databases += 1
      const name = `bench_${databases}`
      await client.query(`create database ${name}`)
      const place = new URL(url)
      place.pathname = `/${name}`
      return place.href
    },
  }
}

/** SQLite has no server: the cost of a file arises in the processes that use it. */
export async function startSqlite(lifetime: Lifetime): Promise<Server> {
  const { url } = await useSqlite(lifetime)
  const fresh = async (): Promise<string> => (await useSqlite(lifetime)).url
  return { url, version: 'SQLite', cpuMs: () => 0, memoryMb: () => 0, fresh }
}

export const startEtcd: Start = async (lifetime) => {
  const program = programNamed('etcd')
  if (program === undefined) return 'etcd is not installed'
  const [folder, port, peerPort] = [await useFolder(lifetime), await freePort(), await freePort()]
  const url = `http://127.0.0.1:${port}`
  const peers = `http://127.0.0.1:${peerPort}`
  const server = run(lifetime, program, [
    ...['--name', 'bench', '--data-dir', join(folder, 'data'), '--log-level', 'error'],
    ...['--listen-client-urls', url, '--advertise-client-urls', url],
    ...['--listen-peer-urls', peers, '--initial-advertise-peer-urls', peers],
    ...['--initial-cluster', `bench=${peers}`],
  ])
  await eventually(async () => (await fetch(`${url}/health`)).ok, { until: 'etcd answers' })
  const version = (await (await fetch(`${url}/version`)).json()) as { etcdserver: string }
  return {
    url: `127.0.0.1:${port}`,
    version: `etcd ${version.etcdserver}`,
    ...figuresOf(server.pid ?? 0),
    async requests() {
      const metrics = await (await fetch(`${url}/metrics`)).text()
      const received = metrics.matchAll(/^grpc_server_msg_received_total\{.*\} (\S+)$/gm)
      return [...received].reduce((sum, [, count]) => sum + Number(count), 0)
    },
  }
}

export const startRedis: Start = async (lifetime) => {
  const program = programNamed('redis-server')
  if (program === undefined) return 'Redis is not installed'
  const [folder, port] = [await useFolder(lifetime), await freePort()]
  const server = run(lifetime, program, [
    ...['--bind', '127.0.0.1', '--port', String(port), '--dir', folder],
    ...['--save', '', '--appendonly', 'no'],
  ])
  const info = async (section: string): Promise<string> => say(port, `INFO ${section}\r\nQUIT\r\n`)
  const found = await eventually(async () => /redis_version:(\S+)/.exec(await info('server')), {
    until: 'Redis answers',
  })
  return {
    url: `redis://127.0.0.1:${port}`,
    version: `Redis ${found?.[1]}, nothing written to disk`,
    ...figuresOf(server.pid ?? 0),
    async requests() {
      return Number(/total_commands_processed:(\d+)/.exec(await info('stats'))?.[1] ?? 0)
    },
  }
}

/** ZooKeeper from Debian's package, run in the foreground with a configuration of its own. */
export const startZookeeper: Start = async (lifetime) => {
  const jar = '/usr/share/java/zookeeper.jar'
  const java = programNamed('java')
  if (java === undefined || !existsSync(jar)) return 'ZooKeeper is not installed'
  const [folder, port] = [await useFolder(lifetime), await freePort()]
  const configuration = join(folder, 'zoo.cfg')
  await writeFile(
    configuration,
    [
      ...[`dataDir=${folder}/data`, `clientPort=${port}`, 'clientPortAddress=127.0.0.1'],
      ...['tickTime=500', 'minSessionTimeout=1000', 'maxSessionTimeout=60000', 'maxClientCnxns=0'],
      ...['admin.enableServer=false', '4lw.commands.whitelist=*'],
    ].join('\n'),
  )
  const server = run(lifetime, java, [
    ...['-Xmx512m', '-cp', `${folder}:${jar}`, 'org.apache.zookeeper.server.quorum.QuorumPeerMain'],
    configuration,
  ])
  const said = await eventually(async () => /version: ([\d.]+)/.exec(await say(port, 'srvr')), {
    until: 'ZooKeeper answers',
  })
  return {
    url: `127.0.0.1:${port}`,
    version: `ZooKeeper ${said?.[1]}`,
    ...figuresOf(server.pid ?? 0),
    async requests() {
      return Number(/Received: (\d+)/.exec(await say(port, 'srvr'))?.[1] ?? 0)
    },
  }
}

function figuresOf(pid: number): Pick<Server, 'cpuMs' | 'memoryMb'> {
  return { cpuMs: () => cpuMsOf(pid), memoryMb: () => memoryMbOf(pid) }
}

/** Starts a server that is killed when the bench ends. Its output is discarded. */
function run(lifetime: Lifetime, program: string, options: readonly string[]): ChildProcess {
  const server = spawn(program, options, { stdio: ['ignore', 'ignore', 'ignore'] })
  lifetime.teardown(async () => {
    if (server.exitCode !== null || server.signalCode !== null) return
    server.kill('SIGKILL')
    await once(server, 'exit')
  })
  return server
}

async function useFolder(lifetime: Lifetime): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'coordination-bench-'))
  lifetime.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

function programNamed(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin']
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path))
}

/** Returns the version that a program prints, for reports. */
export function versionOf(program: string): string {
  return execFileSync(program, ['--version'], { encoding: 'utf8' }).split('\n')[0] ?? ''
}

async function say(port: number, words: string): Promise<string> {
  const socket: Socket = dial(port, '127.0.0.1')
  // A server that is still starting may accept the connection and never answer on it.
  socket.setTimeout(2_000, () => socket.destroy(new Error('no answer in time')))
  await once(socket, 'connect')
  socket.write(words)
  return text(socket)
}
