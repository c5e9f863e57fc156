/**
 * A process with nodes, which a bench drives over its channel. Times are read from the monotonic clock, which all
 * processes of a machine share.
 */
import { Client } from 'pg'
import type { Candidate, Order } from './adapters/adapter.js'
import { type ContestantName, contestants } from './adapters/index.js'

export type Told =
  | { readonly resign: string; readonly node: string }
  | { readonly campaign: string; readonly node: string }
  | { readonly report: number }
  | { readonly close: true }

export type Says =
  | { readonly ready: true }
  | { readonly leads: string; readonly node: string; readonly atNs: string }
  | { readonly resigned: string; readonly calledAtNs: string }
  | { readonly report: number; readonly requests: number; readonly cpuMs: number }

const [name = '', given = '{}'] = process.argv.slice(2)
const order = JSON.parse(given) as Order
const { join } = contestants[name as ContestantName]
const candidates = new Map<string, Candidate>()
const requests = countRequests()

process.on('message', (told: Told) => void hear(told))
process.on('disconnect', () => process.exit())
process.on('SIGTERM', () => {
  const closed = [...candidates.values()].map((each) => each.close())
  void Promise.all(closed).then(() => process.exit())
})
for (const node of order.nodes) {
  const leads = (key: string): void => say({ leads: key, node, atNs: String(process.hrtime.bigint()) })
  candidates.set(node, await join(order, node, leads))
}
say({ ready: true })

async function hear(told: Told): Promise<void> {
  if ('resign' in told) {
    const calledAtNs = String(process.hrtime.bigint())
    await candidates.get(told.node)?.resign(told.resign)
    say({ resigned: told.resign, calledAtNs })
  } else if ('campaign' in told) {
    await candidates.get(told.node)?.campaign(told.campaign)
  } else if ('report' in told) {
    const { user, system } = process.cpuUsage()
    say({ report: told.report, requests: requests(), cpuMs: (user + system) / 1_000 })
  } else {
    await Promise.all([...candidates.values()].map((each) => each.close()))
    process.disconnect()
  }
}

function say(words: Says): void {
  if (process.connected) process.send?.(words)
}

/** Counts all requests to PostgreSQL in this process. All of them go through one method of the driver. */
function countRequests(): () => number {
  let count = 0
  const query = Client.prototype.query
  Client.prototype.query = function (this: Client, ...given: unknown[]) {
    count += 1
    return Reflect.apply(query, this, given)
  } as typeof query
  return () => count
}
