/**
 * From checked options to a coordinator that is connected but not yet started.
 */

import type { CoordinatorConfig } from './coordinator-options.js'
import { Coordinator } from './core/coordinator.js'
import { type Log, withFields } from './core/log.js'
import type { Store } from './core/store.js'
import { systemClock } from './core/time/clock.js'
import { timingFigures } from './core/time/timing.js'
import { thisMachine } from './core/watch/machine.js'
import { startWatchdog } from './core/watch/watchdog.js'
import { openStore } from './stores/open.js'

/** Connects, migrates, and creates the coordinator, which from then on owns the connection. */
export async function openCoordinator(config: CoordinatorConfig, log: Log): Promise<Coordinator> {
  const { database, namespace, timing, migrate, push, identity } = config
  const { statementTimeoutMs } = timing
  const own = withFields(log, { node: identity.node, cluster: identity.cluster })
  const store = await openStore({ database, namespace, statementTimeoutMs, migrate, push, log: own })
  try {
    return connected(config, store, log, own)
  } catch (error) {
    await store.close()
    throw error
  }
}

/**
 * Logs what the chosen durations mean when something fails, while others can still be chosen. A log that throws even at
 * this first line is a mistake, and is refused; later it does no harm.
 */
function connected(config: CoordinatorConfig, store: Store, log: Log, own: Log): Coordinator {
  const { namespace, identity, timing, labels, version, retention, watchProcesses } = config
  const { node, cluster } = identity
  const { ttlMs } = timing
  const { dialect, capabilities } = store
  const hints = capabilities.push ? 'pushed' : 'polled'
  log.info(
    { node, cluster, dialect, namespace, ttlMs, hints, ...timingFigures(timing, capabilities.push) },
    'coordination is connected',
  )
  const machine = watchProcesses ? thisMachine() : undefined
  const watchdog = config.watchdog ? startWatchdog(node, timing, own) : undefined
  const settings = { namespace, identity, timing, labels, version, retention }
  return new Coordinator(settings, store, systemClock, log, { machine, watchdog })
}
