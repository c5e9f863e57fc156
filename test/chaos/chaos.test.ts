/**
 * A share of the campaigns on real processes and databases; `npm run chaos` runs longer ones. What a seed leads to
 * depends on the machine, so the history of a failed campaign is kept, and its path is printed.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { withoutMysql } from '../support/databases.js'
import { randomSeed, runCampaign } from './campaign.js'
import { check, report } from './check.js'
import { readHistory } from './history.js'
import { withoutMariadb } from './mariadb.js'

t.setTimeout(600_000)

t.test('real processes on postgres keep all promises through a campaign of faults', (t) =>
  keeps(t, 'postgres'),
)

t.test('real processes on sqlite keep all promises through a campaign of faults', (t) => keeps(t, 'sqlite'))

t.test(
  'real processes on mariadb keep all promises through a campaign of faults',
  { skip: withoutMariadb ?? false },
  (t) => keeps(t, 'mariadb'),
)

t.test(
  'real processes on mysql keep all promises through a campaign of faults',
  { skip: withoutMysql ?? (withoutMariadb === undefined && "MariaDB of the campaign's own takes its place") },
  (t) => keeps(t, 'mysql'),
)

async function keeps(t: Test, database: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'coordination-history-'))
  const history = join(folder, 'history.ndjson')
  const seed = randomSeed()
  const length = { faults: 30, seconds: 30, faultsPerRound: 30 }
  await runCampaign({ database, history, seed, nodes: 4, ttlMs: 5_000, kinds: [], ...length })
  const verdict = check(readHistory(history))
  for (const line of report(verdict).split('\n')) t.comment(line)
  t.same(verdict.violations, [], `seed ${seed}, ${history}`)
  t.ok(
    [...verdict.faults.values()].some(({ happened }) => happened > 0),
    'faults have happened',
  )
  t.ok(verdict.terms > 0, 'leases were held')
  t.ok(verdict.writes > 0, 'fenced writes were made')
  if (verdict.violations.length === 0) await rm(folder, { recursive: true, force: true })
}
