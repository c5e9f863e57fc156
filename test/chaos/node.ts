/**
 * A node of a campaign, as a process of its own. Every 20 ms it records which leases it trusts to hold, and from time
 * to time it writes a row under a fence. It ends when the process that started it ends.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import {
  CoordinationError,
  type Coordinator,
  type CoordinatorOptions,
  createCoordinator,
  type HeldLease,
  type PassContext,
  type WorkerDefinition,
} from '../../plugin/coordinator.js'
import { type HeldTerm, History, monotonicMs } from './history.js'
import { openRegister } from './register.js'

/** What the process is told when it starts. */
export interface ChaosOrder {
  /** The name of the process in the history. */
  readonly by: string
  readonly history: string
  readonly options: Pick<
    CoordinatorOptions,
    'namespace' | 'ttlMs' | 'watchdog' | 'watchProcesses' | 'keepEvents'
  > & {
    readonly database: string
    readonly identity: { readonly node: string; readonly cluster: string }
  }
  /** The mean pause between two fenced writes, in ms; 0 for no writes. */
  readonly writeEveryMs: number
}

/** What it is told later. */
export type ChaosCommand =
  /** Blocks the event loop for this long. */
  | { readonly command: 'block'; readonly ms: number }
  /** Works for ever under all leases it holds, without yielding or checking. */
  | { readonly command: 'spin' }
  /** Makes a fenced transaction that stays idle for this long before it writes. */
  | { readonly command: 'dawdle'; readonly ms: number }
  /** Throws an error that nothing catches. */
  | { readonly command: 'throw' }
  /** Allocates memory until none is left. */
  | { readonly command: 'exhaust' }
  /** Closes the coordinator and ends. */
  | { readonly command: 'close' }

/** What it reports. */
export type ChaosReport =
  | { readonly report: 'joined' | 'dawdled' | 'spinning' }
  /** The node cannot use the schema of the database. */
  | { readonly report: 'refused'; readonly code: string }

/** The time between two records of what it holds. */
const sampleEveryMs = 20

const order = JSON.parse(process.argv[2] ?? '') as ChaosOrder
const { by } = order
const history = new History(order.history)
const terms = new Map<string, { readonly lease: HeldLease; readonly generation: number }>()
const errors: string[] = []
const log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: (fields: object, message: string) => void errors.push(`${message} ${JSON.stringify(fields)}`),
}

process.on('disconnect', () => process.exit())
const register = openRegister(order.options.database)
const coordinator = await opened()
for (const worker of workers()) coordinator.worker(worker)
process.on('message', (command: ChaosCommand) => obey(command))
coordinator.on('node.joined', ({ node }) => {
  history.add({ t: 'joined', atMs: monotonicMs(), by, id: node })
})
await joined()
say({ report: 'joined' })
setInterval(sample, sampleEveryMs)
if (order.writeEveryMs > 0) void keepWriting()
void keepAcquiring()

/** One worker of each kind, and single ones in both scopes. */
function workers(): WorkerDefinition[] {
  return [
    { name: 'report', kind: 'single', scope: 'global', everyMs: 20, run },
    { name: 'indexing', kind: 'single', scope: 'cluster', everyMs: 20, run },
    { name: 'data', kind: 'coordinated', scope: 'global', everyMs: 20, run },
    { name: 'consumer', kind: 'partitioned', scope: 'global', partitions: 5, everyMs: 20, run },
  ]
}

/** Tries until the database is usable; a platform would restart a real application. */
async function opened(): Promise<Coordinator> {
  let refused = false
  for (;;) {
    try {
      return await createCoordinator({ ...order.options, log })
    } catch (error) {
      if (!refused && error instanceof CoordinationError && error.code === 'WCO_SCHEMA_NEWER') {
        say({ report: 'refused', code: error.code })
        refused = true
      }
      await sleep(200)
    }
  }
}

async function joined(): Promise<void> {
  for (;;) {
    try {
      return await coordinator.start()
    } catch {
      await sleep(200)
    }
  }
}

async function run({
  lease,
  signal,
  assignment,
}: PassContext & { assignment?: { generation: number } }): Promise<void> {
  note(lease, assignment?.generation ?? 0)
  await sleep(500, undefined, { signal }).catch(() => undefined)
}

function note(lease: HeldLease, generation: number): void {
  terms.set(`${lease.key} ${lease.token}`, { lease, generation })
  sample()
}

/** The time is taken first. What is held after it was held then too, because a term that has ended never comes back. */
function sample(): void {
  const atMs = monotonicMs()
  for (const [id, { lease }] of terms) if (!lease.held) terms.delete(id)
  if (terms.size === 0) return
  const held = [...terms.values()].map(
    ({ lease, generation }): HeldTerm => [lease.key, lease.token, generation],
  )
  history.add({ t: 'held', atMs, by, terms: held })
}

async function keepWriting(): Promise<void> {
  for (;;) {
    await sleep(order.writeEveryMs * (0.5 + Math.random()))
    const lease = anyHeld()
    if (lease !== undefined) await write(lease, Math.random() < 0.2 ? 30 : 0)
  }
}

/** Picks any term, even a lost one: refusing its writes is what the fence is for. */
function anyHeld(): HeldLease | undefined {
  const all = [...terms.values()]
  return all[Math.floor(Math.random() * all.length)]?.lease
}

async function write(lease: HeldLease, pauseMs: number): Promise<void> {
  let error: string | null = null
  try {
    await register.write(lease, pauseMs)
  } catch (thrown) {
    error = thrown instanceof Error ? thrown.name : String(thrown)
  }
  history.add({ t: 'wrote', atMs: monotonicMs(), by, key: lease.key, token: lease.token, error })
}

/** Again and again acquires a lease that all nodes want, and holds it for a moment. */
async function keepAcquiring(): Promise<void> {
  for (;;) {
    await sleep(300 * Math.random())
    try {
      await using lease = await coordinator.acquire('turn', { timeoutMs: 5_000 })
      note(lease, 0)
      await sleep(300 * Math.random(), undefined, { signal: lease.signal })
    } catch {
      if (coordinator.state !== 'running') return
    }
  }
}

function obey(command: ChaosCommand): void {
  if (command.command === 'block') block(command.ms)
  else if (command.command === 'spin') spin()
  else if (command.command === 'throw') throw new Error('thrown by a fault')
  else if (command.command === 'exhaust') exhaust()
  else if (command.command === 'close') void coordinator.close().then(() => process.exit())
  else void dawdle(command.ms)
}

async function dawdle(ms: number): Promise<void> {
  const lease = anyHeld()
  if (lease !== undefined) await write(lease, ms)
  say({ report: 'dawdled' })
}

function block(ms: number): void {
  stand(ms)
  sample()
}

/** Stands still without leaving the CPU busy, which the other nodes of this machine need. */
function stand(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

/** Behaves like a loop that has forgotten about leases. */
function spin(): never {
  const held = [...terms.values()].filter(({ lease }) => lease.held)
  say({ report: 'spinning' })
  for (;;) {
    const atMs = monotonicMs()
    for (const { lease } of held) {
      history.add({ t: 'unasked', atMs, by, key: lease.key, token: lease.token })
    }
    stand(2)
  }
}

function exhaust(): never {
  const kept: unknown[] = []
  for (;;) kept.push(new Array(100_000).fill(kept.length))
}

function say(report: ChaosReport): void {
  if (process.connected) process.send?.(report)
}
