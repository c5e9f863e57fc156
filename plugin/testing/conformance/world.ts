/** The parts that cases are built from: a world of stores in a fresh namespace, rows to put in it, and ways to wait. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { freshLease } from '../../core/changes/rows.js'
import { StoreError } from '../../core/errors.js'
import type {
  Change,
  LeaseRow,
  MetaRow,
  NewNode,
  NodeRow,
  Snapshot,
  Store,
  WorkerRow,
} from '../../core/store.js'
import type {
  ConformanceCase,
  ConformanceHarness,
  ConformanceUser,
  FragileStore,
  StoreOptions,
} from './harness.js'

/** Makes a case of one promise. `needs` returns the reason to skip it when the harness lacks something. */
export function promise(
  sentence: string,
  prove: (world: World) => Promise<void>,
  needs: (harness: ConformanceHarness) => string | undefined = () => undefined,
): ConformanceCase {
  return {
    promise: sentence,
    reasonToSkip: needs,
    async run(harness) {
      const world = new World(harness)
      try {
        await prove(world)
      } finally {
        await world.close()
      }
    },
  }
}

/** For promises about what one transaction does while another one is open. */
export function concurrentTransactions({ capabilities }: ConformanceHarness): string | undefined {
  return capabilities.concurrentTransactions ? undefined : 'this database has one writer at a time'
}

/** For promises about users' transactions. */
export function users({ user }: ConformanceHarness): string | undefined {
  return user ? undefined : 'nobody beside the stores can use this database'
}

/** For promises about users' transactions that are open while changes are made. */
export function concurrentUsers(harness: ConformanceHarness): string | undefined {
  return users(harness) ?? concurrentTransactions(harness)
}

/** For promises about rows that were not written through a store. */
export function tables({ execute }: ConformanceHarness): string | undefined {
  return execute ? undefined : 'there are no tables that could be written behind the backs of the stores'
}

/** For promises about lost connections. */
export function fragileConnections({ openFragile }: ConformanceHarness): string | undefined {
  return openFragile ? undefined : 'there is no connection to this database that could be disturbed'
}

/** Long enough for any machine. A case that wants a verb to be late sets a shorter limit. */
const patientMs = 30_000

/** The stores of one case, all on one namespace unless they say otherwise. */
export class World {
  readonly harness: ConformanceHarness
  readonly namespace = `conformance-${randomUUID()}`
  readonly #opened: Store[] = []

  constructor(harness: ConformanceHarness) {
    this.harness = harness
  }

  async open(options: Partial<StoreOptions> = {}): Promise<Store> {
    const store = await this.harness.open(this.#complete(options))
    this.#opened.push(store)
    return store
  }

  async openMany(count: number): Promise<Store[]> {
    return Promise.all(Array.from({ length: count }, () => this.open()))
  }

  async openFragile(options: Partial<StoreOptions> = {}): Promise<FragileStore> {
    assert(this.harness.openFragile)
    const fragile = await this.harness.openFragile(this.#complete(options))
    this.#opened.push(fragile.store)
    return fragile
  }

  async execute(sql: string): Promise<void> {
    assert(this.harness.execute)
    await this.harness.execute(sql)
  }

  get user(): ConformanceUser {
    assert(this.harness.user)
    return this.harness.user
  }

  async close(): Promise<void> {
    await within(Promise.all(this.#opened.map((store) => store.close())), 'all stores have closed')
  }

  #complete(options: Partial<StoreOptions>): StoreOptions {
    return { namespace: this.namespace, statementTimeoutMs: patientMs, ...options }
  }
}

/** Runs a change that must write, on behalf of no session, and returns its number. */
export async function commit(store: Store, work: (change: Change) => Promise<unknown>): Promise<number> {
  const { result, committed } = await store.change(undefined, async (change) => {
    await work(change)
    return change.revision
  })
  assert.equal(committed, true, 'a change that wrote something is committed')
  return result
}

/** Makes nodes join, with the given properties. */
export async function join(store: Store, ids: readonly string[], as: Partial<NewNode> = {}): Promise<number> {
  return commit(store, async (change) => {
    for (const id of ids) await change.addNode(newNode(id, as), 1)
  })
}

export function newNode(id: string, as: Partial<NewNode> = {}): NewNode {
  return {
    id,
    name: `name of ${id}`,
    cluster: 'eu-1',
    workers: [],
    labels: {},
    version: null,
    machine: null,
    process: null,
    ttlMs: 15_000,
    ...as,
  }
}

export function newWorker(key: string, as: Partial<WorkerRow> = {}): WorkerRow {
  return {
    key,
    name: key,
    kind: 'single',
    scope: 'global',
    cluster: null,
    generation: 0,
    slots: 1,
    paused: false,
    handoverTimeoutMs: 30_000,
    schedule: null,
    revision: 0,
    ...as,
  }
}

/** Returns a lease that has no holder and no target. */
export function newLease(key: string, as: Partial<LeaseRow> = {}): LeaseRow {
  const { fenced: _, ...row } = freshLease(key, null, 0)
  return { ...row, ...as }
}

export async function saveLeases(store: Store, ...rows: LeaseRow[]): Promise<number> {
  return commit(store, (change) => change.saveLeases(rows))
}

/** Returns a node's row as it is stored, gone or not. */
export async function nodeOf(store: Store, id: string): Promise<NodeRow> {
  return found((await store.snapshot()).nodes.find((node) => node.id === id))
}

export async function leaseOf(store: Store, key: string): Promise<LeaseRow> {
  return found((await store.snapshot()).leases.find((lease) => lease.key === key))
}

export async function metaOf(store: Store): Promise<MetaRow> {
  return (await store.snapshot()).meta
}

/** Returns everything stored, without the time of the read, for comparison with a later result. */
export async function contents(store: Store): Promise<Omit<Snapshot, 'nowMs'> & { events: unknown }> {
  const { meta, nodes, workers, leases } = await store.snapshot()
  return {
    meta,
    nodes: [...nodes].sort((a, b) => compare(a.id, b.id)),
    workers: [...workers].sort((a, b) => compare(a.key, b.key)),
    leases: [...leases].sort((a, b) => compare(a.key, b.key)),
    events: await store.events({ limit: 1_000 }),
  }
}

/** Returns the value, which must exist. */
export function found<T>(value: T | undefined): T {
  assert(value !== undefined, 'a row that must be there is missing')
  return value
}

/** Returns the keys in order, for comparison with a list. */
export function keysOf(rows: readonly { readonly key: string }[]): string[] {
  return rows.map((row) => row.key).sort(compare)
}

/** Returns the ids in order, for comparison with a list. */
export function idsOf(rows: readonly { readonly id: string }[]): string[] {
  return rows.map((row) => row.id).sort(compare)
}

export function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Calls `each` with 0, 1, … one after another, and returns the results. */
export async function times<T>(count: number, each: (index: number) => Promise<T>): Promise<T[]> {
  const results: T[] = []
  for (let index = 0; index < count; index += 1) results.push(await each(index))
  return results
}

/** Calls `each` with 0, 1, … without waiting in between, and returns the results. */
export async function atOnce<T>(count: number, each: (index: number) => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: count }, (_, index) => each(index)))
}

/** Something that others wait for until it is opened. */
export interface Gate {
  readonly opened: Promise<void>
  open(): void
}

export function gate(): Gate {
  let open: () => void = () => undefined
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { opened, open }
}

/** A change that has begun, has done its `work`, and stays open until `end` is called. */
export interface OpenChange {
  /** Commits, or undoes everything by throwing `error`, and waits until that is done. */
  end(error?: Error): Promise<void>
}

/** Resolves once the `work` of a change has been done, and leaves the change open. */
export async function openChange(
  store: Store,
  work: (change: Change) => Promise<unknown>,
): Promise<OpenChange> {
  const done = gate()
  const ending = gate()
  let failure: Error | undefined
  const ended = store.change(undefined, async (change) => {
    await work(change)
    done.open()
    await ending.opened
    if (failure) throw failure
  })
  await within(Promise.race([done.opened, ended]), 'the change has done its work')
  return {
    async end(error) {
      failure = error
      ending.open()
      if (error) assert.equal(await rejectionOf(ended), error)
      else await ended
    },
  }
}

/** Returns the result of the promise, unless it takes so long that it must be hanging. */
export async function within<T>(promised: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new assert.AssertionError({ message: `Waited in vain until ${what}` })),
      deadlineMs,
    )
  })
  try {
    return await Promise.race([promised, deadline])
  } finally {
    clearTimeout(timer)
  }
}

const deadlineMs = 2 * patientMs

/** Returns whether a condition has become true within the given time. */
export async function eventually(condition: () => boolean, timeoutMs: number): Promise<boolean> {
  const deadlineMs = performance.now() + timeoutMs
  while (!condition() && performance.now() < deadlineMs) await delay(5)
  return condition()
}

/** Returns the `StoreError` that a promise rejects with. Any other end is a failure. */
export async function storeErrorOf(promised: Promise<unknown>, what: string): Promise<StoreError> {
  const error = await within(rejectionOf(promised), `${what} has ended`)
  assert(error instanceof StoreError, `${what} must reject with a StoreError, not end with ${error}`)
  return error
}

/** Returns what a promise rejects with, or undefined when it does not reject. */
export async function rejectionOf(promised: Promise<unknown>): Promise<unknown> {
  return promised.then(
    () => undefined,
    (error: unknown) => error,
  )
}

/**
 * Texts that some database, some driver or some hand-written SQL would mistake for another text. The engine refuses
 * most of them as names; a store that keeps them all apart has nothing left to confuse.
 */
export const names: readonly string[] = [
  'plain',
  'Plain',
  'PLAIN',
  'plain ',
  ' plain',
  'pl ain',
  'plain\t',
  'plain\n',
  'pl\u00e1in',
  'pla\u0301in',
  'plain%',
  '%',
  '_',
  'pl_in',
  '*',
  "'",
  "''",
  '"',
  '`',
  '\\',
  '\\\\',
  "\\'",
  '$1',
  '?',
  ':name',
  '@name',
  '[x]',
  '{x}',
  '{"x":1}',
  'null',
  'NULL',
  'undefined',
  'true',
  '0',
  '00',
  '1e3',
  "'; delete from coordination_leases; --",
  '/* plain */',
  'ß',
  'ss',
  'ı',
  'i',
  'İ',
  '\u03a9',
  '\u2126',
  '日本語',
  'שלום',
  '😀',
  '👩‍👩‍👧',
  '\u200b',
  '\u00a0',
  'constructor',
  'x'.repeat(100),
  `${'x'.repeat(99)}y`,
  'é'.repeat(100),
  '😀'.repeat(100),
]
