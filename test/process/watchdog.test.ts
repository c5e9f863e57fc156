/**
 * Work that never yields: no timer fires and no signal aborts, so only the watchdog's thread can end it. Each process
 * records what it did, by the clock that all share, and the tests judge these records.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { silentLog } from '../../plugin/core/log.js'
import { Operator } from '../../plugin/core/operator.js'
import { describe, type Status } from '../../plugin/core/reports/status.js'
import { resolveTiming, trustMs } from '../../plugin/core/time/timing.js'
import { openStore } from '../../plugin/stores/open.js'
import { ChaosNode } from '../chaos/fleet.js'
import { type Entry, History, HistoryReader, monotonicMs } from '../chaos/history.js'
import { type Database, eachDatabase } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { canWrite, shortTtlMs } from './processes.js'

t.setTimeout(600_000)

const key = 'global/report'

/** The longest wait: a ttl on the slowest database, and what follows it. */
const patienceMs = 240_000

t.test('a process whose loop never yields is ended before anybody else begins', (t) =>
  eachDatabase(t, async (t, database) => {
    const { fleet, entries } = await useFleet(t, database)
    const blocked = await fleet.start('n1', true)
    await eventually(() => holdersOf(entries()).get(key) === 'n1', {
      timeoutMs: patienceMs,
      until: 'the first one leads',
    })
    const other = await fleet.start('n2', true)
    await eventually(() => other.joined, { timeoutMs: patienceMs, until: 'the other one has joined' })

    blocked.expectEnd()
    blocked.tell({ command: 'spin' })
    t.equal(await blocked.ended(), 'SIGKILL', 'it is killed, by nobody but itself')
    await eventually(() => holdersOf(entries()).get(key) === 'n2', {
      timeoutMs: patienceMs,
      until: 'the other one leads',
    })

    const unasked = entries().flatMap((entry) => (entry.t === 'unasked' && entry.key === key ? [entry] : []))
    t.ok(unasked.length > 0, 'it went on working while it was blocked')
    const lastWorkAtMs = Math.max(...unasked.map(({ atMs }) => atMs))
    const lastHeldAtMs = Math.max(
      ...entries().flatMap((entry) => (entry.t === 'held' && entry.by === 'n1' ? [entry.atMs] : [])),
    )
    const ttlMs = shortTtlMs(database)
    const { marginMs } = resolveTiming({ ttlMs })
    t.ok(
      lastWorkAtMs - lastHeldAtMs <= trustMs({ ttlMs, marginMs }) + marginMs,
      'no work after the last instant at which its last heartbeat can have let it',
    )
    const firstOfOther = Math.min(
      ...entries().flatMap((entry) =>
        entry.t === 'held' && entry.by === 'n2' && entry.terms.some(([held]) => held === key)
          ? [entry.atMs]
          : [],
      ),
    )
    t.ok(lastWorkAtMs < firstOfOther, 'no work after the other one had begun')
    t.match(await readFile(blocked.complaints, 'utf8'), /watchdog ends process \d+, node n1/, 'it says why')
  }),
)

t.test('without the option such a process works on after another one has begun', (t) =>
  eachDatabase(t, async (t, database) => {
    const { fleet, entries } = await useFleet(t, database)
    const blocked = await fleet.start('n1', false)
    await eventually(() => holdersOf(entries()).get(key) === 'n1', {
      timeoutMs: patienceMs,
      until: 'the first one leads',
    })
    await fleet.start('n2', false)
    await freezeBetweenWrites(blocked, database)
    blocked.tell({ command: 'spin' })
    blocked.thaw()
    const workedOn = (): boolean => {
      const other = entries().find(
        (entry) => entry.t === 'held' && entry.by === 'n2' && entry.terms.some(([held]) => held === key),
      )
      return entries().some(
        (entry) => entry.t === 'unasked' && other !== undefined && 'atMs' in other && entry.atMs > other.atMs,
      )
    }
    await eventually(workedOn, { timeoutMs: patienceMs, everyMs: 200, until: 'both work' })
    t.ok(blocked.alive, 'nobody ends it: this is what the watchdog is for')
  }),
)

t.test(
  'a process that was frozen beyond its window does nothing when it goes on, though its loop never yields',
  (t) =>
    eachDatabase(t, async (t, database) => {
      const { fleet, entries } = await useFleet(t, database)
      const frozen = await fleet.start('n1', true)
      await eventually(() => holdersOf(entries()).get(key) === 'n1', {
        timeoutMs: patienceMs,
        until: 'the first one leads',
      })
      await fleet.start('n2', true)
      frozen.expectEnd()
      // The process receives this in the moment in which it goes on: a loop that would never end.
      await freezeBetweenWrites(frozen, database)
      frozen.tell({ command: 'spin' })
      await eventually(() => holdersOf(entries()).get(key) === 'n2', {
        timeoutMs: patienceMs,
        until: 'the other one leads',
      })
      const continuedAtMs = monotonicMs()
      frozen.thaw()
      await eventually(() => !frozen.alive || frozen.reports.some(({ report }) => report === 'spinning'), {
        until: 'it was killed, or has noticed that it holds nothing and spins over nothing',
      })
      await frozen.kill()
      t.strictSame(
        entries().filter(
          (entry) =>
            ((entry.t === 'unasked' && entry.key === key) || entry.t === 'held') &&
            entry.by === 'n1' &&
            entry.atMs >= continuedAtMs,
        ),
        [],
        'it did nothing any more',
      )
    }),
)

t.test('a loop that is blocked for less than its window allows is left alone', (t) =>
  eachDatabase(t, async (t, database) => {
    const { fleet, entries } = await useFleet(t, database)
    const busy = await fleet.start('n1', true)
    await eventually(() => holdersOf(entries()).get(key) === 'n1', {
      timeoutMs: patienceMs,
      until: 'it leads',
    })
    const looks = (): number => entries().filter((entry) => entry.t === 'held').length
    const before = looks()
    busy.tell({ command: 'block', ms: 500 })
    await eventually(() => looks() > before + 10, { until: 'it works on' })
    t.ok(busy.alive)
    t.equal(await readFile(busy.complaints, 'utf8'), '')
  }),
)

t.test('a process that holds nothing is left alone, however long its loop is blocked', (t) =>
  eachDatabase(t, async (t, database) => {
    const { fleet, entries } = await useFleet(t, database)
    const idle = await fleet.start('n1', true)
    await eventually(() => holdersOf(entries()).get(key) === 'n1', {
      timeoutMs: patienceMs,
      until: 'it leads',
    })
    const { operator, status } = await observe(t, database)
    const [id = ''] = entries().flatMap((entry) => (entry.t === 'joined' ? [entry.id] : []))
    await operator.drain(id, { actor: 'test', reason: 'to hold nothing' })
    await eventually(async () => (await status()).leases.every(({ holder }) => holder === null), {
      timeoutMs: patienceMs,
      until: 'it holds nothing',
    })
    const joined = (): number => entries().filter(({ t }) => t === 'joined').length
    await fleet.start('n2', true)
    await eventually(() => joined() === 2, { timeoutMs: patienceMs, until: 'there is somebody to bury it' })
    idle.tell({ command: 'block', ms: 2 * shortTtlMs(database) })
    await eventually(() => joined() === 3, {
      timeoutMs: patienceMs,
      until: 'it was buried and has joined again',
    })
    t.equal(await readFile(idle.complaints, 'utf8'), '')
  }),
)

t.test('a process with a watchdog ends when it has nothing more to do', (t) =>
  eachDatabase(t, async (t, database) => {
    const { fleet } = await useFleet(t, database)
    const node = await fleet.start('n1', true)
    node.expectEnd()
    node.tell({ command: 'close' })
    t.equal(await node.ended(), '0')
  }),
)

interface TestFleet {
  start(node: string, watchdog: boolean): Promise<ChaosNode>
}

async function useFleet(
  t: Test,
  database: Database,
): Promise<{ fleet: TestFleet; entries: () => readonly Entry[] }> {
  const folder = await mkdtemp(join(tmpdir(), 'coordination-watchdog-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const history = new History(join(folder, 'history.ndjson'))
  const reader = new HistoryReader(history.path)
  t.teardown(() => {
    history.close()
    reader.close()
  })
  return {
    entries: () => reader.entries(),
    fleet: {
      async start(name, watchdog) {
        const identity = { node: name, cluster: 'c1' }
        const options = {
          database: database.url,
          namespace: 'default',
          ttlMs: shortTtlMs(database),
          watchdog,
          watchProcesses: false,
          identity,
        }
        const order = { by: name, history: history.path, options, writeEveryMs: 0 }
        const node = new ChaosNode({ order, folder, faketime: undefined, namespace: undefined }, history)
        t.teardown(() => node.kill())
        await eventually(() => node.joined, { timeoutMs: patienceMs, until: `${name} has joined` })
        return node
      },
    },
  }
}

/** Observes the namespace from outside. */
async function observe(
  t: Test,
  { url }: Database,
): Promise<{ operator: Operator; status: () => Promise<Status> }> {
  const store = await openStore({
    database: url,
    namespace: 'default',
    statementTimeoutMs: 60_000,
    migrate: false,
    push: false,
    log: silentLog,
  })
  t.teardown(() => store.close())
  const settings = { namespace: 'default', identity: { node: 'observer', cluster: 'none' } }
  return {
    operator: new Operator(
      () => store,
      () => 0,
    ),
    status: async () => describe(await store.snapshot(), settings, undefined, 'idle'),
  }
}

/**
 * Freezes a node, but not in the middle of a write to a SQLite file or of a change on SQL Server, where it would stop
 * all other nodes until it goes on.
 */
async function freezeBetweenWrites(node: ChaosNode, database: Database): Promise<void> {
  for (;;) {
    node.freeze()
    if (await canWrite(database)) return
    node.thaw()
    await eventually(() => canWrite(database), { until: 'it has ended what it was in the middle of' })
  }
}

/** Returns the process that was last seen with each lease. */
function holdersOf(entries: readonly Entry[]): Map<string, string> {
  return new Map(
    entries.flatMap((entry) =>
      entry.t === 'held' ? entry.terms.map(([key]): [string, string] => [key, entry.by]) : [],
    ),
  )
}
