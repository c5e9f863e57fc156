/** Tests the examples: each runs as its first comment says, as real processes over one real database. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { type Database, databases, type FileDatabase, useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'

// The tests mostly wait for one another.
t.jobs = 4
t.setTimeout(600_000)

/** The time for a program to open its database, which takes some servers long when the machine is busy. */
const patienceMs = 240_000

const folder = fileURLToPath(new URL('../../examples/', import.meta.url))

/** A running example. */
interface Program {
  readonly child: ChildProcess
  readonly lines: string[]
  /** Returns the first line that matches, once there is one. */
  said(what: RegExp): Promise<string>
  /** Asks the program to end, and returns its exit code. */
  stopped(): Promise<number | null>
}

/** Starts an example. The environment can name, for example, its node and its cluster. */
function run(
  t: Test,
  name: string,
  { url, path = '' }: Database & Partial<FileDatabase>,
  environment: Readonly<Record<string, string>> = {},
): Program {
  tried.add(name)
  const { NODE_OPTIONS: _, NODE_V8_COVERAGE: __, ...env } = process.env
  const child = spawn(process.execPath, [`${folder}run.js`, name], {
    env: { ...env, DATABASE_URL: url, DATABASE_PATH: path, PORT: '0', ...environment },
    stdio: 'pipe',
  })
  const lines: string[] = []
  for (const output of [child.stdout, child.stderr])
    createInterface({ input: output }).on('line', (line) => lines.push(line))
  const ended = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  return {
    child,
    lines,
    async said(what) {
      const until = `${name} has said ${what}`
      try {
        const line = await eventually(() => lines.find((line) => what.test(line)), {
          timeoutMs: patienceMs,
          until,
        })
        return line ?? ''
      } catch (error) {
        throw new Error(`${String(error)}\n${lines.join('\n')}`)
      }
    },
    async stopped() {
      child.kill('SIGTERM')
      const [code] = await ended
      return code as number | null
    },
  }
}

const tried = new Set<string>()
const node = (name: string, cluster = 'eu') => ({ NODE_NAME: name, CLUSTER_NAME: cluster })

t.test('the quick start runs as the README tells it', async (t) => {
  const database = await useSqlite(t)
  const program = run(t, 'quick-start', database)
  await program.said(/I am the leader of this cluster/)
  const [, address] = /dashboard: (http:[^"]+)/.exec(await program.said(/dashboard:/)) ?? []
  t.match(await (await fetch(`${address}`)).text(), /<html/)
  const { origin } = new URL(`${address}`)
  const leaders = (await (await fetch(`${origin}/coordination/leaders`)).json()) as Leaders
  const release = releaseOfReadme(origin, leaders['default/indexing']?.token ?? 0)
  t.equal((await fetch(...release)).status, 200, 'as the README tells')
  t.equal(await program.stopped(), 0)
})

for (const [dialect, use] of Object.entries(databases)) {
  t.test(
    `three-nodes on ${dialect}: what is released, killed and started again is at work again`,
    async (t) => releasedKilledAndStarted(t, await use(t)),
  )
}

async function releasedKilledAndStarted(t: Test, database: Database): Promise<void> {
  const port = await freePorts(3)
  const program = run(t, 'three-nodes', database, { PORT: String(port) })
  const origins = new Map(
    ['node-1', 'node-2', 'node-3'].map((node, at) => [node, `http://127.0.0.1:${port + at}`]),
  )
  const ask = async (node: string, path: string) =>
    (await fetch(`${origins.get(node)}/coordination${path}`)).json()
  const settled = (node: string, ...alive: string[]) =>
    eventually(async () => isSettled((await ask(node, '/status')) as Shown, alive), { timeoutMs: patienceMs })

  await settled('node-3', 'node-1', 'node-2', 'node-3')
  const before = (await ask('node-1', '/leaders')) as Leaders
  t.match(before, {
    'eu-1/indexing': { node: /node-[12]/ },
    'us-1/indexing': { node: 'node-3' },
    'global/month-close': { token: Number },
  })

  const { token } = before['global/month-close'] ?? { token: 0 }
  const [path, request] = releaseOfReadme(`http://127.0.0.1:${port}`, token)
  const ofOther = path.replace('default:indexing', 'global:month-close')
  t.equal((await fetch(ofOther, request)).status, 200, 'as the README tells of another one')
  await eventually(
    async () => (((await ask('node-1', '/leaders')) as Leaders)['global/month-close']?.token ?? 0) > token,
  )

  const killed = ((await ask('node-3', '/leaders')) as Leaders)['eu-1/indexing']?.node ?? ''
  const other = killed === 'node-1' ? 'node-2' : 'node-1'
  const up = await program.said(new RegExp(`^${killed} .* pid \\d+`))
  process.kill(Number(/pid (\d+)/.exec(up)?.[1]), 'SIGKILL')
  await program.said(new RegExp(`^${killed} \\| has ended \\(SIGKILL\\)`))
  await settled(other, other, 'node-3')
  t.match(await ask(other, '/leaders'), { 'eu-1/indexing': { node: other } })

  program.child.stdin?.write(`${killed.at(-1)}\n`)
  await settled(killed, 'node-1', 'node-2', 'node-3')
  t.equal(await program.stopped(), 0)
  const ends = program.lines.filter((line) => line.includes('has ended (exit code 0)'))
  t.equal(ends.length, 3, 'each of them ended by itself')
}

t.test('leader-per-cluster: killed, its leader is replaced in its own cluster', async (t) => {
  const database = await useSqlite(t)
  const a = run(t, 'leader-per-cluster', database, node('a'))
  await a.said(/a leads eu/)
  const b = run(t, 'leader-per-cluster', database, node('b'))
  const c = run(t, 'leader-per-cluster', database, node('c', 'us'))
  await b.said(/b stands by in eu/)
  await c.said(/c leads us/)
  a.child.kill('SIGKILL')
  await b.said(/b leads eu/)
  t.notOk(c.lines.some((line) => line.includes('eu')))
  t.equal(await b.stopped(), 0)
})

t.test('leader-global: its term goes from one to the other', async (t) => {
  const database = await useSqlite(t)
  const [a, b] = [node('a'), node('b', 'us')].map((each) => run(t, 'leader-global', database, each))
  await a?.said(/a leads everywhere, round 3/)
  await b?.said(/b leads everywhere, round 3/)
  await a?.said(/a no longer leads global\/month-close: stepped-down/)
  const tokens = [a, b].flatMap((each) => each?.lines.flatMap((line) => /token (\d+)/.exec(line)?.[1] ?? []))
  t.ok(new Set(tokens).size > 1, 'each term has a token of its own')
})

t.test('coordinated: shares are shared out anew, and nothing is in two', async (t) => {
  const database = await useSqlite(t)
  const a = run(t, 'coordinated', database, node('a'))
  await a.said(/a has share 0 of 1/)
  const b = run(t, 'coordinated', database, node('b'))
  const shares = [await a.said(/of 2/), await b.said(/of 2/)].map((line) =>
    (line.split(': ')[1] ?? '').split(' '),
  )
  t.equal(new Set(shares.flat()).size, 20)
  t.equal(shares.flat().length, 20)
  const before = b.lines.length
  t.equal(await a.stopped(), 0)
  await eventually(() => b.lines.slice(before).some((line) => line.includes('share 0 of 1')))
})

t.test('partitions: half of them move to a newcomer, and back', async (t) => {
  const database = await useSqlite(t)
  const a = run(t, 'partitions', database, node('a'))
  await eventually(() => a.lines.filter((line) => line.includes('consumes')).length === 8)
  const b = run(t, 'partitions', database, node('b'))
  await eventually(() => b.lines.filter((line) => line.includes('consumes')).length === 4)
  t.equal(a.lines.filter((line) => line.includes('leaves')).length, 4)
  b.child.kill('SIGKILL')
  await eventually(() => a.lines.filter((line) => line.includes('consumes')).length === 12)
})

t.test('fenced-write: the late write is refused', async (t) => {
  const program = run(t, 'fenced-write', await useSqlite(t))
  await program.said(/^a has written with token \d+/)
  await program.said(/^refused: The lease "global\/report" is no longer held with token \d+/)
  await program.said(/^b has written with token \d+/)
  if (program.child.exitCode === null) await once(program.child, 'exit')
  t.equal(program.child.exitCode, 0)
  t.notOk(program.lines.some((line) => line.startsWith('a, late')))
})

for (const [name, what] of [
  ['cron', 'writes the report of'],
  ['node-cron', 'makes the backup of'],
] as const) {
  t.test(`${name}: each time by one of two nodes`, async (t) => {
    const database = await useSqlite(t)
    const [a, b] = ['a', 'b'].map((each) => run(t, name, database, node(each)))
    const said = () => [a, b].flatMap((each) => each?.lines.filter((line) => line.includes(what)) ?? [])
    await eventually(() => said().length >= 3, { timeoutMs: 60_000 })
    const times = said().map((line) => line.split(' of ')[1])
    t.equal(new Set(times).size, times.length)
    t.equal(await a?.stopped(), 0)
    const before = b?.lines.length ?? 0
    await eventually(() => b?.lines.slice(before).some((line) => line.includes(what)), { timeoutMs: 60_000 })
  })
}

t.test('behind-auth: viewers read, operators act, others neither', async (t) => {
  const database = await useSqlite(t)
  const program = run(t, 'behind-auth', database, { VIEWER_TOKEN: 'look', OPERATOR_TOKEN: 'act' })
  const origin = (await program.said(/listening at/)).split(' ').at(-1)
  const ask = async (token: string | undefined, path: string, method = 'GET') => {
    const body = method === 'PUT' ? { body: '{"reason":"a trial"}' } : {}
    const headers = {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(method === 'PUT' ? { 'content-type': 'application/json' } : {}),
    }
    return (await fetch(`${origin}/coordination${path}`, { method, headers, ...body })).status
  }
  await eventually(async () => (await ask('look', '/leases/default:indexing')) === 200)
  const pause = '/workers/default:indexing/pause'
  t.strictSame(
    [
      await ask(undefined, '/leaders'),
      await ask('guess', '/leaders'),
      await ask('look', '/leaders'),
      await ask('look', pause, 'PUT'),
      await ask('act', pause, 'PUT'),
    ],
    [403, 403, 200, 403, 202],
  )
})

t.test('an Express application serves its own routes and those of the coordination', async (t) => {
  const program = run(t, 'express', await useSqlite(t))
  const origin = (await program.said(/listening at/)).split(' ').at(-1)
  await eventually(async () => (await (await fetch(`${origin}/`)).text()) === '{"leads":true}')
  t.equal((await fetch(`${origin}/coordination/leaders`)).status, 200)
  t.equal(await program.stopped(), 0)
})

t.test('a coordinator works in a program without Fastify', async (t) => {
  const program = run(t, 'without-fastify', await useSqlite(t))
  await program.said(/rebuilding under token \d+/)
  await program.said(/warming up/)
  await program.said(/everything is given back/)
})

t.test('every example is run', async (t) => {
  const examples = readdirSync(folder).filter((name) => existsSync(`${folder}${name}/main.js`))
  t.strictSame(
    examples.filter((name) => !tried.has(name)),
    [],
  )
  const program = run(t, 'nothing', await useSqlite(t))
  const said = await program.said(/Which example\?/)
  for (const name of examples) t.match(said, name)
})

type Leaders = Record<string, { token: number; node: string } | undefined>

interface Shown {
  readonly nodes: readonly { name: string; state: string }[]
  readonly leases: readonly { state: string; holder: { name: string } | null }[]
}

/**
 * Returns whether exactly these nodes are active and each holds something. Each holds a share of the coordinated
 * worker. Of the others, they hold together one lease in each cluster, one global lease and eight partitions. Shares
 * that no node needs stay free.
 */
function isSettled({ nodes, leases }: Shown, alive: readonly string[]): boolean {
  const active = nodes.filter(({ state }) => state === 'active').map(({ name }) => name)
  const held = leases.filter(({ state }) => state === 'held').map(({ holder }) => holder?.name)
  const [expected, there, holding] = [alive, active, held].map((each) => [...new Set(each)].sort().join())
  return there === expected && holding === expected && held.length === alive.length + 2 + 1 + 8
}

/** Returns the request with which the README frees a lease with curl, addressed to this server. */
function releaseOfReadme(origin: string, token: number): [url: string, request: RequestInit] {
  const readme = readFileSync(new URL('README.md', projectRoot()), 'utf8')
  const [curl = ''] = /^curl -X POST[^`]*/m.exec(readme) ?? []
  const headers = [...curl.matchAll(/-H '([^:]+): ([^']+)'/g)].map(
    ([, name = '', value = '']): [string, string] => [name, value.replace('<token>', String(token))],
  )
  const [, method = ''] = /-X (\w+)/.exec(curl) ?? []
  const [, body = ''] = /-d '([^']+)'/.exec(curl) ?? []
  const [, path = ''] = /http:\/\/localhost:3000(\S+)/.exec(curl) ?? []
  return [`${origin}${path}`, { method, headers, body }]
}

function projectRoot(): URL {
  let folder = new URL('.', import.meta.url)
  while (!existsSync(new URL('README.md', folder)) || !existsSync(new URL('plugin', folder)))
    folder = new URL('..', folder)
  return folder
}

/** Returns the first of `count` ports in a row on which nothing listens. */
async function freePorts(count: number): Promise<number> {
  const first = 20_000 + Math.floor(Math.random() * 10_000)
  const servers = Array.from({ length: count }, (_, at) => createServer().listen(first + at, '127.0.0.1'))
  const outcomes = await Promise.allSettled(servers.map((server) => once(server, 'listening')))
  await Promise.all(
    servers.filter(({ listening }) => listening).map((server) => once(server.close(), 'close')),
  )
  return outcomes.every(({ status }) => status === 'fulfilled') ? first : freePorts(count)
}
