/** What the cases ask of a database, and what each of them is. */
import type { Store } from '../../core/store.js'

/** One promise and its proof. */
export interface ConformanceCase {
  /** A sentence, fit to be the name of a test. */
  readonly promise: string
  /** Why this promise cannot be tried with this harness; undefined when it can. */
  reasonToSkip(harness: ConformanceHarness): string | undefined
  /** Resolves when the promise holds; rejects with an `AssertionError` when it does not. */
  run(harness: ConformanceHarness): Promise<void>
}

/** A database with the schema in place, as the cases need to reach it. */
export interface ConformanceHarness {
  readonly capabilities: HarnessCapabilities
  /** Another store on the same database, with connections of its own. The case closes it. */
  open(options: StoreOptions): Promise<Store>
  /** Users beside the stores. Leave it out where all there is is one database object, which has no room for them. */
  readonly user?: ConformanceUser
  /** Runs one statement on the tables of this library, behind the backs of all stores. Leave it out where there are no tables. */
  execute?(sql: string): Promise<void>
  /** A store whose connection to the database can be disturbed. Leave it out where there is no connection. */
  openFragile?(options: StoreOptions): Promise<FragileStore>
}

/** An application that uses the same database for its own ends. */
export interface ConformanceUser {
  /**
   * A transaction, on a connection of its own: commits when `work` is done, rolls back when it throws, and throws
   * that on. The handle is what users would give to `Store.fence`; `work` does so in its first statement.
   */
  transaction(work: (handle: unknown) => Promise<void>): Promise<void>
  /** The same handle when no transaction is open on it. */
  outsideTransaction(work: (handle: unknown) => Promise<void>): Promise<void>
}

/** What databases differ in, as far as the cases are concerned. */
export interface HarnessCapabilities {
  /** Whether one transaction can write while another one is open. SQLite has one writer. */
  readonly concurrentTransactions: boolean
  /** What the stores say of themselves: see `Capabilities` of the port. */
  readonly push: boolean
  /** How many statements a heartbeat takes that finds its session: two where an update answers no rows. Default 1. */
  readonly statementsPerHeartbeat?: number
}

/** How a case wants its store. */
export interface StoreOptions {
  readonly namespace: string
  /** See `Store`: every verb ends within it, or rejects. */
  readonly statementTimeoutMs: number
}

/** A store that reaches its database through something that can fail. */
export interface FragileStore {
  readonly store: Store
  /** The database carries out the next verb of this kind, and the connection breaks before it has said so. */
  loseAnswerTo(verb: 'heartbeat' | 'change'): void
  /** Everything sent from now on is swallowed, in both directions, and nothing breaks. */
  goSilent(): void
  /** All connections break now. New ones can be made, and work. */
  cut(): void
}
