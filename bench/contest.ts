/** Runs contestants one after another, each on a server of its own. */
import { type ContestantName, contestants, missing, versionsOf } from './adapters/index.js'
import type { Crew } from './crew.js'
import { type Lifetime, withLifetime } from './lifetime.js'
import type { Report } from './report.js'
import type { Server } from './servers.js'

/**
 * Runs the work on a server that nothing else uses; returns undefined, with a note in the report, where that is
 * impossible.
 */
export async function contest<T>(
  report: Report,
  name: ContestantName,
  work: (server: Server, lifetime: Lifetime) => Promise<T>,
): Promise<T | undefined> {
  process.stderr.write(`${name} …\n`)
  return withLifetime(async (lifetime) => {
    const { server: start, needs } = contestants[name]
    const server = missing(needs) ?? (await start(lifetime))
    if (typeof server === 'string') {
      report.note(`Left out, ${name}: ${server}.`)
      return undefined
    }
    for (const version of [server.version, ...versionsOf(needs)]) report.version(version)
    return work(server, lifetime)
  })
}

/** Returns the number of requests to the server. The server counts them if it can, otherwise its clients do. */
export async function requestsOf(crew: Crew, server: Server): Promise<number> {
  return (await server.requests?.()) ?? (await crew.spent()).requests
}
