/**
 * The watchdog's own thread (see `watchdog.ts`). It sleeps until the last deadline it knows, checks whether there is a
 * later one by now, and sleeps on. When there is none, it ends the process.
 */
import { write } from 'node:fs'
import { workerData } from 'node:worker_threads'
import { SharedDeadline, type WatchdogOrder } from './watchdog.js'

/** A stalled reader of standard error must not keep the process alive for longer than this. */
const lastWordsMs = 20

const { memory, lookEveryMs, node } = workerData as WatchdogOrder
const shared = new SharedDeadline(memory)
if (isDue()) endProcess()

/** Blocks. Returns true when the deadline has passed, false when there is nothing to watch any more. */
function isDue(): boolean {
  for (;;) {
    const { state } = shared
    if (state === 'over') return false
    const leftMs = state === 'armed' ? shared.leftMs() : Number.POSITIVE_INFINITY
    if (leftMs <= 0) return true
    shared.waitWhile(state, state === 'armed' ? Math.min(leftMs, lookEveryMs) : leftMs)
  }
}

/** Sends SIGKILL, because the blocked event loop would have to handle any other signal. */
function endProcess(): void {
  const kill = (): void => void process.kill(process.pid, 'SIGKILL')
  setTimeout(kill, lastWordsMs)
  const line =
    `The watchdog ends process ${process.pid}, node ${node}: its event loop is blocked or it stood still, ` +
    'and the trust window of the leases it holds has ended.\n'
  write(2, line, kill)
}
