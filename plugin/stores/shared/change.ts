/**
 * The part of a change that is the same on all database servers.
 *
 * Writes are gathered and sent before the next read or before the commit. A change keeps all other changes waiting
 * until it commits, and each statement is a round trip to the database. Gathering keeps a typical change to a handful
 * of statements, regardless of the number of rows.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { type CoordinationError, StoreError } from '../../core/errors.js'
import type {
  Changed,
  LeaseRow,
  MetaRow,
  NewEvent,
  NewNode,
  NodeRow,
  SessionKey,
  WorkerRow,
} from '../../core/store.js'
import type { Lending, Loan } from './connections.js'
import { Deadline } from './deadline.js'
import { storeError, tooSlow } from './failures.js'
import type { Limits } from './limits.js'

/** The name of a change in error messages. */
export const aChange = 'A change'

/** What a change knows once it has its number. */
export interface Taken {
  readonly nowMs: number
  readonly serverIdentity: string
  readonly meta: MetaRow
  /** Undefined when the session is gone, or has already made a change of this number or a later one. */
  readonly session: NodeRow | undefined
}

/** An event and its place among the events of its change. */
export type PlacedEvent = NewEvent & { readonly position: number; readonly atMs: number }

/** The gathered writes. */
export interface Gathered {
  readonly leases: readonly LeaseRow[]
  readonly workers: readonly WorkerRow[]
  readonly events: readonly PlacedEvent[]
  /** The nodes whose `newsRevision` is stamped. */
  readonly told: readonly string[]
}

export abstract class ServerChange<Lent extends Loan<unknown>> {
  readonly revision: number
  readonly nowMs: number
  readonly serverIdentity: string
  readonly meta: MetaRow
  readonly session: NodeRow | undefined
  protected readonly loan: Lent
  readonly #asking: SessionKey | undefined
  #leases = new Map<string, LeaseRow>()
  #workers = new Map<string, WorkerRow>()
  #events: PlacedEvent[] = []
  #told = new Set<string>()
  readonly #woken = new Set<string>()
  #position = 0
  #wrote = false
  #failure: CoordinationError | undefined
  #over = false
  #committed: Promise<void> | undefined

  constructor(loan: Lent, asking: SessionKey | undefined, taken: Taken) {
    this.meta = taken.meta
    this.revision = taken.meta.revision
    this.nowMs = taken.nowMs
    this.serverIdentity = taken.serverIdentity
    this.session = taken.session
    this.loan = loan
    this.#asking = asking
  }

  /**
   * The error that broke the transaction. Once it is set, the transaction is dead, however `work` handled the error.
   */
  get failure(): CoordinationError | undefined {
    return this.#failure
  }

  /** The nodes to wake by a hint: those told, except the node that makes this change, which already knows. */
  get woken(): ReadonlySet<string> {
    return this.#woken
  }

  /** Commits unless nothing was written. Returns whether it committed. */
  async finish(): Promise<boolean> {
    await this.flush()
    if (!this.#wrote) {
      await this.undo()
      return false
    }
    await (this.#committed ?? this.#commit())
    this.#over = true
    this.loan.spoiled = false
    return true
  }

  /** Rolls back. When that fails, the connection is closed and the server rolls back by itself. */
  async undo(): Promise<void> {
    this.#over = true
    if (this.#failure !== undefined) return
    await this.rollback().then(
      () => {
        this.loan.spoiled = false
      },
      () => undefined,
    )
  }

  async saveWorkers(rows: readonly WorkerRow[]): Promise<void> {
    this.#guard()
    for (const row of rows) this.#workers.set(row.key, row)
  }

  async saveLeases(rows: readonly LeaseRow[]): Promise<void> {
    this.#guard()
    for (const row of rows) this.#leases.set(row.key, row)
  }

  async record(events: readonly NewEvent[]): Promise<void> {
    this.#guard()
    for (const event of events) {
      this.#events.push({ ...event, position: this.#position, atMs: this.nowMs })
      this.#position += 1
    }
  }

  async tell(nodes: ReadonlySet<string>): Promise<void> {
    this.#guard()
    for (const node of nodes) {
      this.#told.add(node)
      if (node !== this.#asking?.node) this.#woken.add(node)
    }
  }

  protected abstract commit(): Promise<void>
  protected abstract rollback(): Promise<unknown>
  /** Writes what was gathered; at least one of the lists is not empty. Rows carry the number of the change. */
  protected abstract writeGathered(gathered: Gathered): Promise<void>

  /** Returns the row of a node that joins now. */
  protected joined(
    { id, name, cluster, workers, labels, version, machine, process, ttlMs }: NewNode,
    operation: number,
  ) {
    const { revision, nowMs } = this
    return {
      ...{ id, name, cluster, workers, labels, version, machine, process, ttlMs },
      ...{ state: 'active' as const, operation, beat: 0, startedAtMs: nowMs, heartbeatAtMs: nowMs },
      ...{ joinedRevision: revision, newsRevision: revision, revision },
    }
  }

  /** The columns to set on a node that is gone from now on. */
  protected get buried() {
    return { state: 'gone' as const, goneAtMs: this.nowMs, revision: this.revision }
  }

  /** Reads, after sending all gathered writes, so that the read sees them. */
  protected async read<T>(send: () => Promise<T>): Promise<T> {
    await this.flush()
    return this.ask(send)
  }

  /** Writes. Returns false when `send` resolves to false, which means that it wrote nothing. */
  protected async write(send: () => Promise<unknown>): Promise<boolean> {
    await this.flush()
    const wrote = (await this.ask(send)) !== false
    this.#wrote ||= wrote
    return wrote
  }

  /** Sends the gathered writes. */
  protected async flush(): Promise<void> {
    this.#guard()
    const gathered = {
      leases: [...this.#leases.values()],
      workers: [...this.#workers.values()],
      events: this.#events,
      told: [...this.#told],
    }
    if (Object.values(gathered).every((list) => list.length === 0)) return
    this.#leases = new Map()
    this.#workers = new Map()
    this.#events = []
    this.#told = new Set()
    this.#wrote = true
    await this.writeGathered(gathered)
  }

  /**
   * Starts the commit before {@link finish} waits for it. Does nothing when nothing was written. If `before` fails,
   * the commit fails with the same error.
   */
  protected commitAhead(before: Promise<unknown>): void {
    if (!this.#wrote || this.#committed !== undefined) return
    this.#committed = this.#commit(before)
    this.#committed.catch(() => undefined)
  }

  /**
   * Sends a request. Any error inside a transaction ends the transaction and its connection, because the state of
   * both is then unreliable.
   */
  protected async ask<T>(send: () => Promise<T>): Promise<T> {
    this.#guard()
    try {
      return await this.loan.send(aChange, send)
    } catch (error) {
      // When several requests are in flight, the others fail because the first one did.
      this.#failure ??= error as CoordinationError
      throw this.#failure
    }
  }

  #commit(before?: Promise<unknown>): Promise<void> {
    return this.ask(async () => {
      this.loan.outcome = 'unknown'
      const committed = this.commit()
      committed.catch(() => undefined)
      await before
      await committed
    })
  }

  #guard(): void {
    if (this.#failure !== undefined) throw this.#failure
    if (this.#over) throw new StoreError('This change has ended.', 'none')
    const { deadline, lost, judgement } = this.loan
    if (lost !== undefined) throw storeError(aChange, 'none', lost, judgement.advice(lost))
    // After a stall, the timer that ends this verb may be late. Nothing is sent once the caller has stopped waiting.
    if (deadline.remainingMs === 0) throw tooSlow(aChange, deadline.limitMs, 'none')
  }
}

/**
 * Returns the error for a change that tried to write leases held by a user's transaction. It should have read them
 * first.
 */
export function writesFenced(): StoreError {
  return new StoreError('A change was to write leases that are fenced by a transaction.', 'none')
}

/** How changes are made on a server. */
export interface ChangeWay<Lent extends Loan<unknown>, C extends ServerChange<Lent>> {
  begin(loan: Lent): Promise<C>
  /** Whether the database undid the change in favour of another transaction, so that it is worth trying again. */
  isConflict(failure: unknown): boolean
  committed(change: C): void
}

/**
 * Makes a change. Restarts it from the beginning after a conflict with another transaction, as long as time remains.
 */
export async function makeChange<Lent extends Loan<unknown>, C extends ServerChange<Lent>, T>(
  connections: Lending<Lent>,
  { verbMs }: Limits,
  way: ChangeWay<Lent, C>,
  work: (change: C) => Promise<T>,
): Promise<Changed<T>> {
  const deadline = new Deadline(verbMs)
  for (let attempt = 1; ; attempt += 1) {
    const ended = await connections.lend(aChange, (loan) => tryChange(loan, way, work), deadline)
    if (!('conflict' in ended)) return ended
    const pauseMs = attempt * 20 * (0.5 + Math.random())
    if (pauseMs > deadline.remainingMs) throw ended.conflict
    await pause(pauseMs)
  }
}

async function tryChange<Lent extends Loan<unknown>, C extends ServerChange<Lent>, T>(
  loan: Lent,
  { begin, isConflict, committed: told }: ChangeWay<Lent, C>,
  work: (change: C) => Promise<T>,
): Promise<Changed<T> | { conflict: unknown }> {
  let change: C | undefined
  try {
    change = await begin(loan)
    const result = await work(change)
    const committed = await change.finish()
    if (committed) told(change)
    return { result, committed }
  } catch (error) {
    await change?.undo()
    if (isConflict(change === undefined ? error : change.failure)) return { conflict: error }
    throw error
  }
}
