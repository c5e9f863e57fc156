/** How a migration minds those who run. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Deadline } from './deadline.js'

/**
 * A migration takes whole tables, and whoever runs meanwhile stands behind it, also while it waits for its turn. So it gives
 * way before their heartbeats are given up, lets them through, and begins anew, for as long as there is time.
 *
 * @param attempt told how to say that what goes wrong with it is that.
 */
export async function givingWay<T>(
  deadline: Deadline,
  pauseMs: number,
  attempt: (giveWay: () => void) => Promise<T>,
): Promise<T> {
  for (;;) {
    let gaveWay = false
    try {
      return await attempt(() => {
        gaveWay = true
      })
    } catch (error) {
      if (!gaveWay || deadline.remainingMs <= pauseMs) throw error
      await sleep(pauseMs)
    }
  }
}
