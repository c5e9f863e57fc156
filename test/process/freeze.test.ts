/**
 * Processes that stand still for longer than their session lives. When they go on, other nodes have their leases, and
 * nothing has told them.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type Database, eachDatabase } from '../support/databases.js'
import type { WorkerOrder } from './node.js'
import { holders, NodeProcess, type Observer, observe, overlaps, settledOn, shortTtlMs } from './processes.js'

t.setTimeout(300_000)

const key = 'global/report'
const workers: readonly WorkerOrder[] = [
  { name: 'report', kind: 'single', scope: 'global' },
  { name: 'data', kind: 'coordinated', scope: 'global' },
  { name: 'consumer', kind: 'partitioned', scope: 'global', partitions: 4 },
]

t.test('a process that was frozen past the ttl does no more work when it goes on, and cannot write', (t) =>
  eachDatabase(t, async (t, database) => {
    const { observer, leader, other } = await useLeader(t, database)
    await leader.freeze(observer)
    await observer.until('the other one has everything', settledOn([other]))
    await other.heard('worked', (work) => work.key === key)

    // These commands wait for the process, and reach it in the moment in which it goes on.
    leader.tell({ command: 'write', key })
    leader.tell({ command: 'write-unasked', key })
    const continuedAtMs = monotonicMs()
    leader.signal('SIGCONT')
    await hasStopped(t, leader, continuedAtMs)
    await cannotWrite(t, leader, 2)
    await otherCanWrite(t, other, observer)
    await comesBack(t, leader, other, observer)
    t.strictSame(overlaps([leader, other]), [])
  }),
)

t.test('a process whose event loop was blocked past the ttl does no more work afterwards', (t) =>
  eachDatabase(t, async (t, database) => {
    const { observer, leader, other } = await useLeader(t, database)
    const folder = await mkdtemp(join(tmpdir(), 'coordination-block-'))
    t.teardown(() => rm(folder, { recursive: true, force: true }))
    const untilFile = join(folder, 'go-on')
    leader.tell({ command: 'block', untilFile })
    await observer.until('the other one has everything', settledOn([other]))
    await other.heard('worked', (work) => work.key === key)

    leader.tell({ command: 'write', key })
    const continuedAtMs = monotonicMs()
    await writeFile(untilFile, '')
    await hasStopped(t, leader, continuedAtMs)
    await cannotWrite(t, leader, 1)
    await otherCanWrite(t, other, observer)
    await comesBack(t, leader, other, observer)
    t.strictSame(overlaps([leader, other]), [])
  }),
)

/** Starts two nodes at work. One of them is the leader. */
async function useLeader(
  t: Test,
  database: Database,
): Promise<{ observer: Observer; leader: NodeProcess; other: NodeProcess }> {
  const observer = await observe(t, database)
  const nodes = await Promise.all(
    ['n1', 'n2'].map((node) =>
      NodeProcess.start(t, {
        database: database.url,
        namespace: 'default',
        node,
        cluster: 'c1',
        timing: { ttlMs: shortTtlMs(database) },
        workers,
      }),
    ),
  )
  const status = await observer.until('two nodes share the work', settledOn(nodes))
  const leader = nodes.find(({ name }) => name === holders(status)[key])
  const other = nodes.find((node) => node !== leader)
  if (leader === undefined || other === undefined) throw new Error('One of two leads')
  await leader.heard('worked', (work) => work.key === key)
  return { observer, leader, other }
}

/** Every pass that was under way has ended, and has done nothing since the process went on. */
async function hasStopped(t: Test, node: NodeProcess, continuedAtMs: number): Promise<void> {
  const old = new Set(
    node
      .said('worked')
      .filter(({ atMs }) => atMs < continuedAtMs)
      .map(({ token }) => token),
  )
  for (const token of old) {
    const stopped = await node.heard('stopped', (report) => report.token === token)
    t.ok(stopped.aborted || stopped.noticedBy === 'check', `${stopped.key} was found lost`)
  }
  await node.allHeard()
  t.strictSame(
    node.said('worked').filter(({ token, atMs }) => old.has(token) && atMs >= continuedAtMs),
    [],
    'no piece of work under any of its old leases',
  )
}

async function cannotWrite(t: Test, node: NodeProcess, tries: number): Promise<void> {
  for (let number = 0; number < tries; number++) {
    await node.heard('wrote', (report) => node.said('wrote').indexOf(report) === number)
  }
  t.strictSame(
    node.said('wrote').map(({ error }) => error),
    Array.from({ length: tries }, () => 'FencedError'),
    'its fenced writes fail',
  )
}

async function otherCanWrite(t: Test, other: NodeProcess, observer: Observer): Promise<void> {
  other.tell({ command: 'write', key })
  const { token, error } = await other.heard('wrote')
  t.equal(error, null, 'the fenced write of the new holder succeeds')
  t.strictSame(await observer.writes(), [{ lease: key, token }], 'and is the only one')
}

/** It joins again under a new session, because the old one was buried. */
async function comesBack(t: Test, node: NodeProcess, other: NodeProcess, observer: Observer): Promise<void> {
  const status = await observer.until('it has joined again and has its share', (status) => {
    const active = status.nodes.filter(({ state }) => state === 'active').map(({ name }) => name)
    const share = Object.entries(holders(status)).some(
      ([key, name]) => key.startsWith('global/data#') && name === node.name,
    )
    return active.sort().join() === 'n1,n2' && share
  })
  t.notOk(
    status.nodes.some(({ id, state }) => id === node.id && state !== 'gone'),
    'its old session is gone',
  )
  t.equal(holders(status)[key], other.name, 'the new leader goes on leading')
  await Promise.all([node.allHeard(), other.allHeard()])
}

function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}
