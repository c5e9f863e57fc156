/** How a migration minds those who run. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Deadline } from './deadline.js'

interface Lending<Lent> {
  lend<T>(what: string, work: (loan: Lent) => Promise<T>, deadline: Deadline): Promise<T>
}

/**
 * A migration takes whole tables, and whoever runs meanwhile stands behind it, also while it waits for its turn. So it gives
 * way before their heartbeats are given up, lets them through, and begins anew, for as long as there is time.
 *
 * @param pauseMs for which the others are let through.
 * @param gaveWay whether that is what went wrong with a migration on this loan.
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
