/** Lets a migration give way to nodes that are running. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Lending } from './connections.js'
import type { Deadline } from './deadline.js'

/**
 * Runs a migration, which locks whole tables. Running nodes queue behind it, even while it waits for its own lock. It
 * therefore gives way before their heartbeats time out, lets them through, and starts again, as long as time remains.
 *
 * @param pauseMs how long the others are let through, in milliseconds.
 * @param gaveWay whether a migration on this loan failed because it gave way.
 */
export async function migrateGivingWay<Lent, T>(
  connections: Lending<Lent>,
  deadline: Deadline,
  pauseMs: number,
  migrate: (loan: Lent) => Promise<T>,
  gaveWay: (error: unknown, loan: Lent) => boolean,
): Promise<T> {
  for (;;) {
    let again = false
    const attempt = (loan: Lent): Promise<T> =>
      migrate(loan).catch((error: unknown) => {
        again = gaveWay(error, loan)
        throw error
      })
    try {
      return await connections.lend('Migrating', attempt, deadline)
    } catch (error) {
      if (!again || deadline.remainingMs <= pauseMs) throw error
      await sleep(pauseMs)
    }
  }
}
