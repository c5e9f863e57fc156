/**
 * How a node that closes hands over: its work is given time to settle, its leases are given back, and it leaves.
 */
import { StoreError } from '../errors.js'
import { sleep, within } from '../time/loop.js'
import { retryPauseMs } from '../time/timing.js'
import { elapsedMs } from '../time/trust.js'
import type { Life } from './life.js'
import { wishesAtOnce } from './portions.js'
import type { Surroundings } from './surroundings.js'

/**
 * Claims nothing new, aborts the signals, lets work settle, and releases everything in one change.
 *
 * What settles at once waits for that change: released before it, it would go to a node that then had to wait for it
 * too. Heartbeats go on until the work has settled, because until then it may need its leases. What fails is tried
 * again while trust lasts; without trust, the others need no message from this node to take over.
 */
export async function handOver(life: Life, surroundings: Surroundings): Promise<void> {
  const { timing, clock, log, events, holdings } = surroundings
  const beganAt = clock.read()
  const leftMs = (): number => Math.max(0, timing.drainTimeoutMs - elapsedMs(beganAt, clock.read()))
  const hasTime = (): boolean => life.trusted() && leftMs() > 0
  life.claimNothing()
  life.rest()
  holdings.endAll('closing')
  const held = holdings.all()
  const areMany = held.length > wishesAtOnce.most
  if (areMany || !(await within(clock, 0, holdings.whenSettled()))) {
    life.goOn()
    const over = new AbortController()
    const settled = giveTimeToSettle(surroundings).finally(() => over.abort())
    // Work is given its time to end even while the database is unavailable.
    await insist(() => life.drain(), surroundings, hasTime, over.signal).catch((error: unknown) => {
      log.warn({ err: error }, 'could not tell the others that this node hands over')
    })
    await settled
    // More leases than fit into one change are released in turns.
    const givenBack = Promise.all(held.map((holding) => holding.whenForgotten))
    if (areMany) await within(clock, leftMs(), givenBack)
  }
  try {
    if (await insist(() => life.leave(), surroundings, hasTime)) {
      events.emit('node.left', { node: life.id })
      log.info({ session: life.id }, 'left')
    } else {
      log.warn({ session: life.id }, 'could not leave: this node had been declared gone before')
    }
  } catch (error) {
    log.warn(
      { err: error },
      'could not give the leases back; they become free when this node is declared gone',
    )
  }
  await life.stop()
  holdings.abandon('closing')
}

/** Waits for work that was told to end, up to `drainTimeoutMs`. */
export async function giveTimeToSettle({ timing, clock, log, holdings }: Surroundings): Promise<void> {
  if (await within(clock, timing.drainTimeoutMs, holdings.whenSettled())) return
  const unsettled = holdings.all().filter((holding) => holding.unsettled)
  if (unsettled.length === 0) return
  log.warn(
    { leases: unsettled.map((holding) => holding.key) },
    'work goes on although its signal has aborted; its leases are given back all the same',
  )
}

/** Tries once, and again after requests that failed, while that is of use. */
async function insist<T>(
  work: () => Promise<T>,
  { timing, clock }: Surroundings,
  isOfUse: () => boolean,
  over = new AbortController().signal,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      const pauseMs = retryPauseMs(timing, attempt, clock.random())
      if (error instanceof StoreError) await sleep(clock, pauseMs, over)
      if (!(error instanceof StoreError) || over.aborted || !isOfUse()) throw error
    }
  }
}
