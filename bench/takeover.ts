/**
 * How long a worker is without a leader: after `kill -9` of the leader's process, and after its clean
 * stop, on each database. Three processes; the ended one is started again before the next trial.
 */
import { type Database, usePostgres, useSqlite } from '../test/support/databases.js'
import { Fleet } from './fleet.js'
import { withLifetime } from './lifetime.js'
import { printTable, type Series, summarise } from './report.js'

const ttlMs = 3_000
const trials = Number(process.argv[2] ?? 20)

await withLifetime(async (lifetime) => {
  const databases = [await useSqlite(lifetime), await usePostgres(lifetime)]
  const rows: Record<string, Record<string, number>> = {}
  for (const database of databases) {
    rows[`${database.dialect}: clean stop, ms`] = { ...(await measure(database, 'SIGTERM')) }
    rows[`${database.dialect}: kill -9, ms`] = { ...(await measure(database, 'SIGKILL')) }
  }
  printTable(`Leaderless time, ttl ${ttlMs} ms, 3 processes`, rows)
})

async function measure(database: Database, signal: NodeJS.Signals): Promise<Series> {
  const fleet = new Fleet(database.url, ttlMs)
  try {
    for (let node = 0; node < 3; node++) await fleet.add()
    const tookMs: number[] = []
    while (tookMs.length < trials) {
      tookMs.push(await fleet.replaceLeader(signal))
      await fleet.add()
    }
    return summarise(tookMs)
  } finally {
    await fleet.end()
  }
}
