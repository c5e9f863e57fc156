/** What a node's lives are lived in. */
import type { Events } from '../events.js'
import type { Identity } from '../identity.js'
import type { Log } from '../log.js'
import type { Outage } from '../outage.js'
import type { Store } from '../store.js'
import type { Clock } from '../time/clock.js'
import type { Timing } from '../time/timing.js'
import type { Machine } from '../watch/machine.js'
import type { Watchdog } from '../watch/watchdog.js'
import type { Requests } from '../work/acquire.js'
import type { Runner } from '../work/worker.js'
import type { Holdings } from './holdings.js'
import type { KnownServer } from './server.js'

/** What outlives a life: the process and its work. */
export interface Surroundings {
  readonly identity: Identity
  readonly timing: Timing
  readonly labels: Readonly<Record<string, string>>
  readonly version: string | null
  /** Undefined where other processes cannot be observed, or the application has turned that off. */
  readonly machine: Machine | undefined
  readonly watchdog: Watchdog | undefined
  readonly store: Store
  readonly clock: Clock
  readonly log: Log
  readonly events: Events
  readonly outage: Outage
  readonly server: KnownServer
  readonly holdings: Holdings
  readonly requests: Requests
  /** The workers registered in this process, by key. */
  readonly runners: ReadonlyMap<string, Runner>
}
