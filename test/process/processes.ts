/** Starts nodes as processes, collects their reports, and judges what they did. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import BetterSqlite from 'better-sqlite3'
import { silentLog } from '../../plugin/core/log.js'
import { describe, type Status } from '../../plugin/core/reports/status.js'
import type { EventRow } from '../../plugin/core/store.js'
import { openStore } from '../../plugin/stores/open.js'
import { type Database, type Lifetime, withMssql } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import type { Command, NodeOrder, Report } from './node.js'

/** A node in a process of its own, which ends at the latest with the test. */
export class NodeProcess {
  readonly name: string
  readonly reports: Report[] = []
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown[]>

  private constructor(name: string, child: ChildProcess) {
    this.name = name
    this.#child = child
    this.#ended = once(child, 'exit')
    child.on('message', (report: Report) => this.reports.push(report))
  }

  /** Starts a node. Resolves once it has joined. */
  static async start(t: Lifetime, order: NodeOrder): Promise<NodeProcess> {
    const program = fileURLToPath(new URL('./node.js', import.meta.url))
    // Without what tap loads to measure coverage: most of these processes are killed and could not report any.
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
   * Stops the process where it stands, but not in the middle of a write to a SQLite file or of a change on SQL Server.
   * No other process could write until it goes on: a file has no server that would end the write, and SQL Server does
   * not.
   */
  async freeze(observer: Observer): Promise<void> {
    for (;;) {
      this.signal('SIGSTOP')
      if (await observer.canWrite()) return
      this.signal('SIGCONT')
    }
  }

  /** Kills the process. Resolves once it has ended; does nothing when it has ended already. */
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

  /** Waits until everything that the node has reported so far has arrived. */
  async allHeard(): Promise<void> {
    const word = String(this.reports.length)
    this.tell({ command: 'echo', word })
    await this.heard('echo', (report) => report.word === word)
  }
}

/** Observes a namespace from outside, without being a node. */
export interface Observer {
  status(): Promise<Status>
  /** Returns up to 1 000 events, oldest first. */
  events(): Promise<EventRow[]>
  /** Waits for a status that fits. */
  until(what: string, fits: (status: Status) => boolean): Promise<Status>
  /** Whether the database can be written to, with no process standing still in the middle of a write. */
  canWrite(): Promise<boolean>
  /** Returns the rows that nodes have written under a fence, by token. */
  writes(): Promise<{ lease: string; token: number }[]>
}

/** Opens an observer. Also creates the table for {@link Observer.writes}. */
export async function observe(t: Lifetime, database: Database, namespace = 'default'): Promise<Observer> {
  const store = await openStore({
    database: database.url,
    namespace,
    // Nothing depends on how soon it observes something, and some servers answer slowly at first.
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
 * Returns whether no process stands still in the middle of a write to this SQLite file, or of a change on this SQL
 * Server. Other servers end such a write by themselves.
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
 * Returns a short ttl that still leaves the database the time it needs. A server that speaks the protocol of SQL Server
 * has taken a second for each statement that was new to a connection.
 */
export function shortTtlMs({ dialect }: Database): number {
  return dialect === 'mssql' ? 40_000 : 3_000
}

/** Returns the name of the node that holds each lease. */
export function holders({ leases }: Status): Record<string, string> {
  return Object.fromEntries(
    leases.flatMap(({ key, holder }) => (holder === null ? [] : [[key, holder.name]])),
  )
}

/**
 * Exactly these nodes are active, each lease with a target is held, and each coordinated worker has a share per node. A
 * node that was too slow to claim has none for a while.
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
 * Returns violations, each as one sentence: work under a lease after the next holder had begun, or under an older
 * generation of a coordinated worker after a newer one had begun.
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

/** All work in one term, from the first piece to the last. */
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

/** Returns a sentence for each span that had not ended before one with a greater number began. */
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

/** Waits for far longer than any machine needs. */
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
    const { createConnection } = await import('mysql2/promise')
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
  const { Client } = await import('pg')
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query(sql)).rows
  } finally {
    await client.end()
  }
}
