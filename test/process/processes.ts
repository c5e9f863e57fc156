/** Starts nodes as processes, listens to their reports, and judges what they did. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import BetterSqlite from 'better-sqlite3'
import { createConnection } from 'mysql2/promise'
import { Client } from 'pg'
import { silentLog } from '../../plugin/core/log.js'
import { describe, type Status } from '../../plugin/core/reports/status.js'
import type { EventRow } from '../../plugin/core/store.js'
import { openStore } from '../../plugin/stores/open.js'
import { type Database, type Lifetime, withMssql } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import type { Command, NodeOrder, Report } from './node.js'

/** A node in a process of its own, which ends with the test at the latest. */
export class NodeProcess {
  readonly name: string
  /** Everything it has said so far. */
  readonly reports: Report[] = []
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown[]>

  private constructor(name: string, child: ChildProcess) {
    this.name = name
    this.#child = child
    this.#ended = once(child, 'exit')
    child.on('message', (report: Report) => this.reports.push(report))
  }

  /** Resolves once the node has joined. */
  static async start(t: Lifetime, order: NodeOrder): Promise<NodeProcess> {
    const program = fileURLToPath(new URL('./node.js', import.meta.url))
    // Without what tap loads into each process to measure coverage: most of these are killed, and none would tell.
    const env = { ...process.env, NODE_OPTIONS: '', NODE_V8_COVERAGE: '' }
    const child = fork(program, [JSON.stringify(order)], { env })
    const node = new NodeProcess(order.node, child)
    t.teardown(() => node.kill())
    await node.heard('running')
    return node
  }

  /** The id of its session. */
  get id(): string {
    const [running] = this.said('running')
    if (running === undefined) throw new Error(`${this.name} has not joined`)
    return running.id
  }

  tell(command: Command): void {
    this.#child.send(command)
  }

  signal(signal: 'SIGTERM' | 'SIGSTOP' | 'SIGCONT'): void {
    this.#child.kill(signal)
  }

  /**
   * Stops the process where it stands, but not in the middle of a write to an SQLite file, or of a change on SQL Server:
   * nobody could write before it goes on, and there is no server to put an end to it, or one that does not.
   */
  async freeze(observer: Observer): Promise<void> {
    for (;;) {
      this.signal('SIGSTOP')
      if (await observer.canWrite()) return
      this.signal('SIGCONT')
    }
  }

  /** Resolves once the process has ended. Harmless when it has. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  /** Resolves to the exit code once the process has ended by itself. */
  async ended(): Promise<unknown> {
    const [code] = await this.#ended
    return code
  }

  said<Kind extends Report['report']>(kind: Kind): Extract<Report, { report: Kind }>[] {
    return this.reports.filter(
      (report): report is Extract<Report, { report: Kind }> => report.report === kind,
    )
  }

  /** Waits for the first report of a kind that fits. */
  async heard<Kind extends Report['report']>(
    kind: Kind,
    fits: (report: Extract<Report, { report: Kind }>) => boolean = () => true,
  ): Promise<Extract<Report, { report: Kind }>> {
    return patiently(`${this.name} reports "${kind}"`, () => {
      if (this.#child.exitCode !== null) throw new Error(`${this.name} ended with ${this.#child.exitCode}`)
      return this.said(kind).find(fits)
    })
  }

  /** Waits until everything the node has reported so far has arrived. */
  async allHeard(): Promise<void> {
    const word = String(this.reports.length)
    this.tell({ command: 'echo', word })
    await this.heard('echo', (report) => report.word === word)
  }
}

/** Looks at a namespace from outside, as no node. */
export interface Observer {
  status(): Promise<Status>
  /** All events, oldest first. */
  events(): Promise<EventRow[]>
  /** Waits for a status that fits. */
  until(what: string, fits: (status: Status) => boolean): Promise<Status>
  /** Whether somebody else than the running nodes keeps the database from being written to. */
  canWrite(): Promise<boolean>
  /** Rows that nodes have written under a fence, oldest first. */
  writes(): Promise<{ lease: string; token: number }[]>
}

/** Also creates the table for {@link Observer.writes}. */
export async function observe(t: Lifetime, database: Database, namespace = 'default'): Promise<Observer> {
  const store = await openStore({
    database: database.url,
    namespace,
    // Nothing depends on how soon it sees something, and some servers are slow to answer for the first time.
    statementTimeoutMs: 60_000,
    migrate: true,
    push: false,
    log: silentLog,
  })
  t.teardown(() => store.close())
  await query(database, createWrites(database))
  const identity = { node: 'observer', cluster: 'none' }
  const status = async (): Promise<Status> =>
    describe(await store.snapshot(), { namespace, identity }, undefined, 'idle')
  return {
    status,
    events: async () => (await store.events({ limit: 1_000 })).reverse(),
    until: (what, fits) =>
      patiently(what, async () => {
        const now = await status()
        return fits(now) ? now : undefined
      }),
    canWrite: () => canWrite(database),
    async writes() {
      const rows = await query(database, 'select lease, token from writes order by token')
      return rows.map(({ lease, token }) => ({ lease: String(lease), token: Number(token) }))
    },
  }
}

function createWrites({ dialect }: Database): string {
  const columns = '(lease text not null, token bigint not null)'
  if (dialect !== 'mssql') return `create table if not exists writes ${columns}`
  return `if object_id('writes') is null create table writes ${columns.replace('text', 'nvarchar(400)')}`
}

/**
 * Whether nobody stands still in the middle of a write to this SQLite file, or of a change on this SQL Server. The other
 * servers put an end to that.
 */
export async function canWrite(database: Database): Promise<boolean> {
  if (database.dialect === 'sqlite') return canBegin(database.url.slice('sqlite:'.length))
  if (database.dialect !== 'mssql') return true
  return succeeds(query(database, 'set lock_timeout 500; update coordination_meta set revision = revision'))
}

function canBegin(path: string): boolean {
  const file = new BetterSqlite(path, { timeout: 500 })
  try {
    file.exec('begin immediate')
    return true
  } catch {
    return false
  } finally {
    file.close()
  }
}

/**
 * A ttl that is soon over, but not before the database has had the time it needs. A server that speaks the protocol of SQL
 * Server has taken a second for a statement it had not seen before, on each connection.
 */
export function shortTtlMs({ dialect }: Database): number {
  return dialect === 'mssql' ? 40_000 : 3_000
}

/** Which node holds which lease, by name. */
export function holders({ leases }: Status): Record<string, string> {
  return Object.fromEntries(
    leases.flatMap(({ key, holder }) => (holder === null ? [] : [[key, holder.name]])),
  )
}

/**
 * Every lease in use is held by the node that is meant to hold it, these are the nodes at work, and each has its share. One
 * that was too slow to claim has none for a while.
 */
export function settledOn(nodes: readonly NodeProcess[]): (status: Status) => boolean {
  const names = nodes.map(({ id }) => id).sort()
  return ({ leases, nodes, workers }) => {
    const active = nodes.filter(({ state }) => state === 'active').map(({ id }) => id)
    const wanted = leases.filter(({ target }) => target !== null)
    return (
      active.sort().join() === names.join() &&
      wanted.length > 0 &&
      workers.every(({ kind, slots }) => kind !== 'coordinated' || slots === names.length) &&
      leases.every(({ state }) => state === 'held' || state === 'free') &&
      wanted.every(({ state }) => state === 'held')
    )
  }
}

/**
 * What may not be: work under a lease after the next holder had begun, or under an older plan of a coordinated
 * worker after a newer one had begun. Each is one sentence.
 */
export function overlaps(nodes: readonly NodeProcess[]): string[] {
  const spans = workSpans(nodes)
  return [
    ...consecutive(
      groupedBy(spans, ({ key }) => key),
      ({ token }) => token,
    ),
    ...consecutive(
      groupedBy(
        spans.filter(({ generation }) => generation !== undefined),
        ({ key }) => key.split('#')[0] ?? '',
      ),
      ({ generation }) => generation ?? 0,
    ),
  ]
}

/** All the work done in one term, from the first piece to the last. */
interface Span {
  readonly node: string
  readonly key: string
  readonly token: number
  readonly generation: number | undefined
  readonly firstMs: number
  readonly lastMs: number
}

function workSpans(nodes: readonly NodeProcess[]): Span[] {
  const spans = new Map<string, Span>()
  for (const node of nodes) {
    for (const { key, token, share, atMs } of node.said('worked')) {
      const id = `${key} ${token} ${node.name}`
      const { firstMs, lastMs } = spans.get(id) ?? { firstMs: atMs, lastMs: atMs }
      spans.set(id, {
        node: node.name,
        key,
        token,
        generation: share?.generation,
        firstMs: Math.min(firstMs, atMs),
        lastMs: Math.max(lastMs, atMs),
      })
    }
  }
  return [...spans.values()]
}

function groupedBy(spans: readonly Span[], of: (span: Span) => string): Span[][] {
  const groups = new Map<string, Span[]>()
  for (const span of spans) groups.set(of(span), [...(groups.get(of(span)) ?? []), span])
  return [...groups.values()]
}

/** Each must have ended before any with a greater number began. */
function consecutive(groups: readonly Span[][], number: (span: Span) => number): string[] {
  return groups.flatMap((group) =>
    group.flatMap((early) =>
      group
        .filter((late) => number(late) > number(early) && late.firstMs <= early.lastMs)
        .map(
          (late) =>
            `${early.node} worked on ${early.key} (${early.token}) ${(early.lastMs - late.firstMs).toFixed(3)} ms ` +
            `after ${late.node} had begun ${late.key} (${late.token})`,
        ),
    ),
  )
}

function succeeds(work: Promise<unknown>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  )
}

/** Far more time than any machine needs. */
async function patiently<T>(until: string, look: () => T | undefined | Promise<T | undefined>): Promise<T> {
  const found = await eventually(look, { timeoutMs: 180_000, everyMs: 25, until })
  if (found === undefined) throw new Error(until)
  return found
}

async function query({ dialect, url }: Database, sql: string): Promise<Record<string, unknown>[]> {
  if (dialect === 'sqlite') {
    const file = new BetterSqlite(url.slice('sqlite:'.length))
    try {
      const statement = file.prepare(sql)
      return statement.reader ? (statement.all() as Record<string, unknown>[]) : [{ ...statement.run() }]
    } finally {
      file.close()
    }
  }
  if (dialect === 'mysql') {
    const client = await createConnection(url)
    try {
      const [rows] = await client.query(sql)
      return Array.isArray(rows) ? rows.map((row) => ({ ...row })) : []
    } finally {
      await client.end()
    }
  }
  if (dialect === 'mssql')
    return withMssql(url, async (pool) => [...((await pool.query(sql)).recordset ?? [])])
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query(sql)).rows
  } finally {
    await client.end()
  }
}
