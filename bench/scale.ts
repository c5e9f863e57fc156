/**
 * Measures how cost grows with the number of nodes, leases, workers, partitions, viewers and listeners.
 *
 * Where the number of nodes is the point, they are simulated. Their heartbeats are real statements of the real store,
 * sent by a few processes over shared connections: the subject is the database, not five gigabytes of Node.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import Fastify from 'fastify'
import workerCoordination from 'fastify-worker-coordination'
import { createCoordinator } from 'fastify-worker-coordination/coordinator'
import { Client } from 'pg'
import { type Candidate, planPartitions } from '../plugin/core/changes/plan.js'
import { refuse } from '../test/support/command-line.js'
import { writeCrowd } from '../test/support/crowd.js'
import { eventually } from '../test/support/eventually.js'
import type { Beats, BeatsDone } from './beats.js'
import { withLifetime } from './lifetime.js'
import { cpuMsOf } from './machine.js'
import { Report, type Row, summarise } from './report.js'
import { startPostgres } from './servers.js'

const report = new Report('scale')
const parts: Record<string, () => Promise<void> | void> = {
  plan: plans,
  workers: manyWorkers,
  idle: idleNode,
  heartbeats: manyHeartbeats,
  start: manyStarts,
  status: manyViewers,
  listeners: manyListeners,
}
const chosen = process.argv.slice(2)
const unknown = chosen.filter((name) => !Object.hasOwn(parts, name))
if (unknown.length > 0)
  refuse(
    `node build/bench/scale.js [${Object.keys(parts).join('] [')}]`,
    `There is no part "${unknown.join('", "')}".`,
  )
for (const [name, part] of Object.entries(parts)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue
  process.stderr.write(`${name} …\n`)
  await part()
}
await report.end()

/** Measures planning. All other changes wait while a plan is made. */
function plans(): void {
  const rows: Record<string, Row> = {}
  for (const [nodes, partitions] of [
    [10, 1_024],
    [100, 4_096],
    [1_000, 16_384],
  ] as const) {
    const candidates = crowdOf(nodes)
    const nobody = Array.from({ length: partitions }, () => null)
    const first = planPartitions(nobody, candidates)
    const one = candidates.slice(1)
    const tenth = candidates.slice(Math.floor(nodes / 10))
    const newcomers = [...candidates, ...crowdOf(nodes + Math.ceil(nodes / 10)).slice(nodes)]
    for (const [what, current, present] of [
      ['from nothing', nobody, candidates],
      ['one leaves', first, one],
      ['a tenth leaves', first, tenth],
      ['a tenth comes', first, newcomers],
      ['nothing has changed', first, candidates],
    ] as const) {
      const tookMs: number[] = []
      const times = 20
      let plan = planPartitions(current, present)
      const before = process.cpuUsage()
      for (let time = 0; time < times; time++) {
        const fromMs = performance.now()
        plan = planPartitions(current, present)
        tookMs.push(performance.now() - fromMs)
      }
      const { user, system } = process.cpuUsage(before)
      rows[`${nodes} × ${partitions}, ${what}`] = {
        'CPU ms': (user + system) / 1_000 / times,
        'median ms': summarise(tookMs).median,
        'max ms': summarise(tookMs).max,
        moved: moves(current, plan),
        'moves at least': fewestMoves(current, present),
        'max/mean': fullest(plan) / (partitions / present.length),
      }
    }
  }
  report.table('Plans of nodes × partitions', rows)
}

function crowdOf(nodes: number): Candidate[] {
  return Array.from({ length: nodes }, (_, index) => ({
    id: `node-${String(index).padStart(5, '0')}`,
    version: null,
    joinedRevision: index,
    load: 0,
  }))
}

function moves(before: readonly (string | null)[], after: readonly (string | null)[]): number {
  return after.filter((id, slot) => id !== before[slot]).length
}

/**
 * Returns the fewest moves of any balanced plan. A partition without a candidate as holder must move, and so must what
 * a node holds beyond its share.
 */
function fewestMoves(before: readonly (string | null)[], present: readonly Candidate[]): number {
  const held = new Map(present.map(({ id }) => [id, 0]))
  for (const id of before) if (id !== null && held.has(id)) held.set(id, (held.get(id) ?? 0) + 1)
  const least = Math.floor(before.length / present.length)
  const more = before.length % present.length
  const above = [...held.values()].filter((count) => count > least).length
  const kept =
    [...held.values()].reduce((sum, count) => sum + Math.min(count, least), 0) + Math.min(above, more)
  return before.length - kept
}

function fullest(plan: readonly (string | null)[]): number {
  const counts = new Map<string | null, number>()
  for (const id of plan) counts.set(id, (counts.get(id) ?? 0) + 1)
  return Math.max(...counts.values())
}

/** Measures many workers in this process on SQLite, so that the cost is that of the engine's timers and loops. */
async function manyWorkers(): Promise<void> {
  const rows: Record<string, Row> = {}
  for (const workers of [20, 1_000, 10_000]) {
    await using coordinator = await createCoordinator({
      database: 'sqlite::memory:',
      identity: { node: 'a', cluster: 'bench' },
      watchProcesses: false,
      // A join with ten thousand workers is one change, which needs this preset's time limit.
      preset: 'relaxed',
    })
    let passes = 0
    for (let worker = 0; worker < workers; worker++) {
      const run = (): void => {
        passes += 1
      }
      coordinator.worker({ name: `worker-${worker}`, kind: 'single', scope: 'global', everyMs: 1_000, run })
    }
    const fromMs = performance.now()
    await coordinator.start()
    await eventually(() => passes >= workers, { timeoutMs: 120_000, until: 'all workers have run' })
    const startedMs = performance.now() - fromMs
    await sleep(3_000)
    const delay = monitorEventLoopDelay({ resolution: 1 })
    delay.enable()
    const before = { passes, cpu: process.cpuUsage(), atMs: performance.now() }
    await sleep(5_000)
    delay.disable()
    const seconds = (performance.now() - before.atMs) / 1_000
    const { user, system } = process.cpuUsage(before.cpu)
    rows[`${workers} workers, a pass a second each`] = {
      'until all have run, ms': startedMs,
      'passes/s': (passes - before.passes) / seconds,
      'CPU ms/s': (user + system) / 1_000 / seconds,
      'loop delay p99 ms': delay.percentile(99) / 1e6,
      'loop delay max ms': delay.max / 1e6,
    }
  }
  report.table('Workers in one process', rows)
}

/** Measures a process with 20 workers that have nothing to do, and one with nothing in it for comparison. */
async function idleNode(): Promise<void> {
  await withLifetime(async (lifetime) => {
    const server = await startPostgres(lifetime)
    report.version(server.version)
    const windowMs = 30_000
    const rows: Record<string, Row> = {}
    for (const [what, ...nodes] of [
      ['a bare process', []],
      ['with the drivers and the engine loaded', ['load']],
      ['a node with 20 idle workers, ttl 15 s', ['run']],
      ['the same, with another one on the machine', ['run'], ['run', 'other']],
    ] as const) {
      const url = (await server.fresh?.()) ?? server.url
      const children: ChildProcess[] = []
      for (const options of nodes) {
        const child = forkNamed('idle.js', options.length === 0 ? [] : [url, ...options])
        lifetime.teardown(() => ended(child))
        await once(child, 'message')
        children.push(child)
      }
      // V8 cleans up after a start once the process has been idle for some seconds.
      await sleep(30_000)
      rows[what] = await costOf(children[0], windowMs)
      for (const child of children) await ended(child)
    }
    report.table(`What an idle node costs its process, over ${windowMs / 1_000} s`, rows)
  })
}

async function costOf(child: ChildProcess | undefined, windowMs: number): Promise<Row> {
  const pid = child?.pid
  if (child === undefined || pid === undefined) throw new Error('It has not been started.')
  const before = cpuMsOf(pid)
  await sleep(windowMs)
  const cpuMs = cpuMsOf(pid) - before
  child.send('memory')
  const [memory] = (await once(child, 'message')) as [{ rssMb: number; heapMb: number }]
  return {
    'CPU ms/s': (cpuMs * 1_000) / windowMs,
    'resident MB': memory.rssMb,
    'live heap MB': memory.heapMb,
  }
}

/** Measures sessions that send a heartbeat every 5 s, from two processes with twelve connections each. */
async function manyHeartbeats(): Promise<void> {
  await withLifetime(async (lifetime) => {
    const server = await startPostgres(lifetime)
    const rows: Record<string, Row> = {}
    for (const nodes of [1_000, 10_000, 20_000]) {
      const url = (await server.fresh?.()) ?? server.url
      await writeCrowd(url, { nodes: 0, leases: 0, partitions: 0 })
      const orders = [0, 1].map(
        (): Beats => ({ url, nodes: nodes / 2, everyMs: 5_000, forMs: 20_000, connections: 12 }),
      )
      const children = orders.map((order) => forkNamed('beats.js', [JSON.stringify(order)]))
      for (const child of children) lifetime.teardown(() => ended(child))
      await Promise.all(children.map((child) => once(child, 'message')))
      const before = server.cpuMs()
      const fromMs = performance.now()
      for (const child of children) child.send('go')
      const answers = await Promise.all(children.map((child) => once(child, 'message')))
      const done: BeatsDone[] = answers.map(([answer]) => answer)
      const seconds = (performance.now() - fromMs) / 1_000
      const tookMs = done.flatMap((each) => each.tookMs)
      const { median, p99, max } = summarise(tookMs)
      rows[`${nodes} nodes, one heartbeat each 5 s`] = {
        'heartbeats/s': tookMs.length / seconds,
        'on time': `${((100 * tookMs.length) / ((nodes * 20) / 5)).toFixed(1)} %`,
        'median ms': median,
        'p99 ms': p99,
        'max ms': max,
        'server CPU ms/s': (server.cpuMs() - before) / seconds,
        'server CPU µs each': ((server.cpuMs() - before) * 1_000) / tookMs.length,
      }
    }
    report.table('Heartbeats of many nodes, from when each was due until it was answered', rows)
  })
}

/** Measures real coordinators in this process that all start at once. */
async function manyStarts(): Promise<void> {
  await withLifetime(async (lifetime) => {
    const server = await startPostgres(lifetime)
    const rows: Record<string, Row> = {}
    for (const nodes of [20, 200]) {
      const url = (await server.fresh?.()) ?? server.url
      const partitions = 2 * nodes
      let held = 0
      let refused = 0
      const begun = performance.now()
      const cpuBefore = server.cpuMs()
      const fleet = await Promise.all(
        Array.from({ length: nodes }, async (_, index) => {
          const coordinator = await createCoordinator({
            database: url,
            identity: { node: `node-${index}`, cluster: 'bench' },
          })
          coordinator.worker({
            name: 'consumer',
            kind: 'partitioned',
            scope: 'global',
            partitions,
            run: async ({ signal }) => {
              held += 1
              await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
              held -= 1
            },
          })
          const start = (): Promise<boolean> =>
            coordinator.start().then(
              () => true,
              () => {
                refused += 1
                return false
              },
            )
          await eventually(start, { timeoutMs: 120_000, until: 'it has joined' })
          return coordinator
        }),
      )
      const joinedMs = performance.now() - begun
      const settled = async (): Promise<boolean> => {
        if (held !== partitions) return false
        const { leases } = await (fleet[0]?.status() ?? Promise.reject(new Error('nobody has started')))
        return leases.every((lease) => lease.state === 'held')
      }
      await eventually(settled, {
        timeoutMs: 120_000,
        everyMs: 250,
        until: 'every partition is held as planned',
      })
      const heldMs = performance.now() - begun
      const status = await fleet[0]?.status()
      rows[`${nodes} nodes, ${partitions} partitions`] = {
        'all joined, ms': joinedMs,
        'all held as planned, ms': heldMs,
        'starts that gave up and were made again': refused,
        changes: status?.revision ?? Number.NaN,
        'lost leases': partitions - held,
        'server CPU ms': server.cpuMs() - cpuBefore,
      }
      await Promise.all(fleet.map((coordinator) => coordinator.close()))
    }
    report.table('Nodes that start at once on an empty database, in one process', rows)
  })
}

/** Measures the plugin's own `GET /status` for a namespace of 2 000 nodes. */
async function manyViewers(): Promise<void> {
  await withLifetime(async (lifetime) => {
    const server = await startPostgres(lifetime)
    const url = (await server.fresh?.()) ?? server.url
    await writeCrowd(url, { nodes: 2_000, leases: 1_000, partitions: 0 })
    const app = Fastify()
    await app.register(workerCoordination, { database: url })
    const address = await app.listen({ port: 0, host: '127.0.0.1' })
    lifetime.teardown(() => app.close())
    const page = `${address}/coordination/status`
    const before = app.coordination.health().statements
    const cpuBefore = { server: server.cpuMs(), own: process.cpuUsage() }
    const tookMs: number[] = []
    const failures: number[] = []
    const untilMs = performance.now() + 10_000
    const view = async (viewer: number): Promise<void> => {
      await sleep(20 * viewer)
      while (performance.now() < untilMs) {
        const fromMs = performance.now()
        const answer = await fetch(page)
        await answer.arrayBuffer()
        if (answer.ok) tookMs.push(performance.now() - fromMs)
        else failures.push(answer.status)
        await sleep(1_000)
      }
    }
    await Promise.all(Array.from({ length: 50 }, (_, viewer) => view(viewer)))
    const { n, median, p99, max } = summarise(tookMs)
    const { user, system } = process.cpuUsage(cpuBefore.own)
    report.table('GET /status at 2 000 nodes, 50 viewers who ask once a second, over 10 s', {
      status: {
        requests: n,
        failed: failures.length,
        'median ms': median,
        'p99 ms': p99,
        'max ms': max,
        'statements/s in all': (app.coordination.health().statements - before) / 10,
        'server CPU ms/s': (server.cpuMs() - cpuBefore.server) / 10,
        'CPU ms/s with the viewers': (user + system) / 10_000,
      },
    })
  })
}

/** Measures the cost of a notification by the number of listening connections, and the cost of polling instead. */
async function manyListeners(): Promise<void> {
  await withLifetime(async (lifetime) => {
    const server = await startPostgres(lifetime)
    const rows: Record<string, Row> = {}
    const sender = new Client({ connectionString: server.url })
    await sender.connect()
    lifetime.teardown(() => sender.end())
    const listeners: Client[] = []
    lifetime.teardown(() => Promise.all(listeners.map((client) => client.end())))
    for (const count of [0, 1, 10, 100, 300, 1_000]) {
      while (listeners.length < count) {
        const client = new Client({ connectionString: server.url })
        client.on('error', () => undefined)
        await client.connect()
        await client.query('listen coordination_bench')
        listeners.push(client)
      }
      const times = 100
      const tookMs: number[] = []
      await sleep(500)
      const before = server.cpuMs()
      for (let time = 0; time < times; time++) {
        const fromMs = performance.now()
        await sender.query(`select pg_notify('coordination_bench', '${randomUUID()}')`)
        tookMs.push(performance.now() - fromMs)
      }
      await sleep(500)
      rows[`${count} listening`] = {
        'sender waits, median ms': summarise(tookMs).median,
        'server CPU µs each': ((server.cpuMs() - before) * 1_000) / times,
      }
    }
    await sender.query('create table poll (id text primary key, news bigint)')
    await sender.query(`insert into poll select 'node-' || n, n from generate_series(1, 1000) as n`)
    const before = server.cpuMs()
    const polls = 2_000
    for (let poll = 0; poll < polls; poll++) {
      await sender.query({
        name: 'poll',
        text: 'select news from poll where id = $1',
        values: [`node-${poll % 1_000}`],
      })
    }
    rows['a poll instead, by primary key'] = {
      'sender waits, median ms': '',
      'server CPU µs each': ((server.cpuMs() - before) * 1_000) / polls,
    }
    report.table('Notifications, by the number of connections that listen', rows)
  })
}

function forkNamed(program: string, options: readonly string[]): ChildProcess {
  const child = fork(fileURLToPath(new URL(`./${program}`, import.meta.url)), options, {
    execArgv: ['--expose-gc'],
  })
  return child
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}
