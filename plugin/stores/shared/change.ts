/**
 * The inside of a change on a server, as far as it is the same on all of them.
 *
 * What is written is gathered, and goes out before the next read or the commit. Until it commits a change keeps all
 * others waiting, and each statement is a journey to the database and back: so a typical one makes a handful of
 * them, whatever the number of rows.
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
import type { Loan } from './connections.js'
import { Deadline } from './deadline.js'
import { storeError, tooSlow } from './failures.js'
import type { Limits } from './limits.js'

/** What a change is called in errors. */
export const aChange = 'A change'

/** What a change finds when it has got its number. */
export interface Taken {
  readonly nowMs: number
  readonly serverIdentity: string
  readonly meta: MetaRow
  /** Undefined when it is gone, or has made a change of this number or a later one. */
  readonly session: NodeRow | undefined
}

/** An event and its place among those of its change. */
export type PlacedEvent = NewEvent & { readonly position: number; readonly atMs: number }

/** What has been gathered to be written. */
export interface Gathered {
  readonly leases: readonly LeaseRow[]
  readonly workers: readonly WorkerRow[]
  readonly events: readonly PlacedEvent[]
  /** The nodes that are to find news. */
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

  /** What went wrong with the transaction: then it is dead, whatever `work` has made of the error. */
  get failure(): CoordinationError | undefined {
    return this.#failure
  }

  /** The nodes a hint is for: those told, but for the one that makes this change and knows. */
  get woken(): ReadonlySet<string> {
    return this.#woken
  }

  /** Commits, unless nothing was written. Answers whether it did. */
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

  /** Rolls back. Where that fails, the connection ends and the server rolls back by itself. */
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
  /** Writes what has been gathered, none of which is empty in all its parts. Rows bear the number of the change. */
  protected abstract writeGathered(gathered: Gathered): Promise<void>

  /** The row of a node that has joined now. */
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

  /** What becomes of the row of a node that is gone now. */
  protected get buried() {
    return { state: 'gone' as const, goneAtMs: this.nowMs, revision: this.revision }
  }

  /** Reads, and sees what has been written before. */
  protected async read<T>(send: () => Promise<T>): Promise<T> {
    await this.flush()
    return this.ask(send)
  }

  /** Writes, if `send` does not answer that it has written nothing. */
  protected async write(send: () => Promise<unknown>): Promise<boolean> {
    await this.flush()
    const wrote = (await this.ask(send)) !== false
    this.#wrote ||= wrote
    return wrote
  }

  /** Sends what has been gathered. */
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

  /** Commits what has been written before anybody waits for it, {@link finish} does; and fails as what was asked before. */
  protected commitAhead(before: Promise<unknown>): void {
    if (!this.#wrote || this.#committed !== undefined) return
    this.#committed = this.#commit(before)
    this.#committed.catch(() => undefined)
  }

  /** Any error inside a transaction ends it, and its connection: both are in a state nobody should build on. */
  protected async ask<T>(send: () => Promise<T>): Promise<T> {
    this.#guard()
    try {
      return await this.loan.send(aChange, send)
    } catch (error) {
      // Of several that were under way the others fail because the first one did.
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
    const { deadline, lost } = this.loan
    if (lost !== undefined) throw storeError(aChange, 'none', lost)
    // After a stall the timer that ends this verb may be late; nothing is sent that nobody waits for.
    if (deadline.remainingMs === 0) throw tooSlow(aChange, deadline.limitMs, 'none')
  }
}

/** A change was about to write rows of leases that a user's transaction holds: it should have read them first. */
export function writesFenced(): StoreError {
  return new StoreError('A change was to write leases that are fenced by a transaction.', 'none')
}

/** How changes are made on a server. */
export interface ChangeWay<Lent extends Loan<unknown>, C extends ServerChange<Lent>> {
  begin(loan: Lent): Promise<C>
  /** The database undid it for the sake of another transaction, so that it is worth making again. */
  isConflict(failure: unknown): boolean
  committed(change: C): void
}

interface Lending<Lent> {
  lend<T>(what: string, work: (loan: Lent) => Promise<T>, deadline: Deadline): Promise<T>
}

/** Makes a change, and again from the start when it was in the way of another transaction, for as long as there is time. */
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
