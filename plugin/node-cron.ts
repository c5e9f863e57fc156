/**
 * Makes node-cron's distributed tasks fire once across all nodes, by means of the database that is there already.
 *
 * @example
 * import cron from 'node-cron'
 * import { runCoordinator } from 'fastify-worker-coordination/node-cron'
 *
 * cron.setRunCoordinator(runCoordinator(app.coordination))
 * cron.schedule('0 3 * * *', backUp, { name: 'backup', distributed: true })
 */
import type { Coordinator } from './core/coordinator.js'
import { CoordinationError } from './core/errors.js'
import { checkCoordinator, checkOptions, checkScope } from './core/inputs.js'
import { shown } from './core/names.js'
import type { Scope } from './core/store.js'

/** The part of node-cron's interface that this package implements. */
export interface RunCoordinator {
  /** @param key name of a task, a colon, and the time that is due */
  shouldRun(key: string): Promise<boolean>
}

export interface RunCoordinatorOptions {
  /** Whether a task fires once in all, or once in each cluster. Default `global`. */
  readonly scope?: Scope | undefined
}

/**
 * Returns a run coordinator for `cron.setRunCoordinator`, or for the option `runCoordinator` of one task.
 *
 * Of all nodes that ask for one time of one task, one is told to run it, even when nodes die, restart or have clocks
 * that are late, because claimed times are stored in the database. When the database does not answer, node-cron
 * skips that time and reports it. Tasks need a `name`, the same on all nodes, of letters, digits, `.`, `_` and `-`,
 * that no lease and no worker has.
 *
 * @throws {CoordinationError} `WCO_OPTIONS` when it is given no coordinator, or options that there are not.
 */
export function runCoordinator(
  coordinator: Coordinator,
  options: RunCoordinatorOptions = {},
): RunCoordinator {
  checkCoordinator('runCoordinator', coordinator)
  checkOptions('runCoordinator', options, ['scope'])
  const scope = checkScope('runCoordinator', options.scope)
  return {
    async shouldRun(key) {
      const [, name, time] = /^(.*):(\d{4,}-.*Z)$/s.exec(key) ?? []
      if (name === undefined || time === undefined) {
        throw new CoordinationError('WCO_OPTIONS', `A key of node-cron is not understood: ${shown(key)}.`)
      }
      return coordinator.claimTime(name, new Date(time), { scope })
    },
  }
}
