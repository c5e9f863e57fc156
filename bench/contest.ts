/** Running one contestant after another, each on a server of its own. */
import { type ContestantName, contestants, missing, versionsOf } from './adapters/index.js'
import type { Crew } from './crew.js'
import { type Lifetime, withLifetime } from './lifetime.js'
import type { Report } from './report.js'
import type { Server } from './servers.js'

/** Has the work done on a server that nobody else uses; undefined, and a word in the report, where it cannot be. */
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

/** What the server has been asked, counted by it where it can and else by its clients. */
export async function requestsOf(crew: Crew, server: Server): Promise<number> {
  return (await server.requests?.()) ?? (await crew.spent()).requests
}
