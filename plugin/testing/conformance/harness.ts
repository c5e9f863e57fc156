/** What the cases need from a database, and what a case is. */
import type { Store } from '../../core/store.js'

/** One promise and its proof. */
export interface ConformanceCase {
  /** A sentence that can serve as the name of a test. */
  readonly promise: string
  /** Returns why this promise cannot be tested with this harness, or undefined when it can. */
  reasonToSkip(harness: ConformanceHarness): string | undefined
  /** Resolves when the promise holds; rejects with an `AssertionError` when it does not. */
  run(harness: ConformanceHarness): Promise<void>
}

/** Access to a database with the schema in place. */
export interface ConformanceHarness {
  readonly capabilities: HarnessCapabilities
  /** Opens another store on the same database, with its own connections. The case closes it. */
  open(options: StoreOptions): Promise<Store>
  /** Users beside the stores. Omit it when the only access is one database object, which leaves no room for users. */
  readonly user?: ConformanceUser
  /** Runs one statement on the tables of this library without any store noticing. Omit it when there are no tables. */
  execute?(sql: string): Promise<void>
  /** Opens a store whose connection to the database can be disturbed. Omit it when there is no connection. */
  openFragile?(options: StoreOptions): Promise<FragileStore>
}

/** An application that uses the same database for its own purposes. */
export interface ConformanceUser {
  /**
   * Runs a transaction on its own connection. It commits when `work` is done; when `work` throws, it rolls back and
   * rethrows the error. The handle is what users would pass to `Store.fence`; `work` does so in its first statement.
   */
  transaction(work: (handle: unknown) => Promise<void>): Promise<void>
  /** Passes the same kind of handle to `work`, with no transaction open on it. */
  outsideTransaction(work: (handle: unknown) => Promise<void>): Promise<void>
}

/** How databases differ, as far as the cases are concerned. */
export interface HarnessCapabilities {
  /** Whether one transaction can write while another one is open. SQLite has one writer. */
  readonly concurrentTransactions: boolean
  /** What the stores report about themselves: see `Capabilities` of the port. */
  readonly push: boolean
  /** How many statements a heartbeat takes that finds its session: two where an update returns no rows. Default 1. */
  readonly statementsPerHeartbeat?: number
}

/** The options with which a case opens a store. */
export interface StoreOptions {
  readonly namespace: string
  /** See `Store`: every verb ends within this time, or rejects. */
  readonly statementTimeoutMs: number
}

/** A store that reaches its database through something that can fail. */
export interface FragileStore {
  readonly store: Store
  /** The database carries out the next verb of this kind, and the connection breaks before the answer arrives. */
  loseAnswerTo(verb: 'heartbeat' | 'change'): void
  /** From now on everything sent is dropped, in both directions, and no connection breaks. */
  goSilent(): void
  /** Breaks all connections now. New ones can be made, and work. */
  cut(): void
}
