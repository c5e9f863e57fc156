/**
 * A campaign of faults on real processes and a real database:
 *
 *     npm run chaos -- --database postgres --seconds 600
 *
 *     npm run chaos -- --check history.ndjson
 *
 * `--database` is `postgres` or `sqlite`, which it sets up for itself, `mysql` or `mssql`, a new database on the server of `TEST_MYSQL_URL`
 * or `TEST_MSSQL_URL`, or the URL of an empty database. `--seconds` (300) and `--faults`
 * (no limit) say when it ends, `--nodes` (5) and `--ttl` (3000) how many processes of which ttl in ms, `--seed` and
 * `--only kind,kind` which faults in which order. `--history FILE` is where what was seen is kept; `--check` judges it again, and runs nothing. A seed gives
 * the order of faults, not the course of events: those are up to the machine.
 */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { namesIn, optionsOf } from '../support/command-line.js'
import { allFaults, randomSeed, runCampaign } from './campaign.js'
import { check, report } from './check.js'
import { readHistory } from './history.js'

const usage = `
npm run chaos -- [--database postgres|sqlite|mysql|mssql|URL] [--seconds 300] [--faults N] [--nodes 5] [--ttl 3000] [--seed N]
                 [--only kind,kind] [--history FILE]
npm run chaos -- --check FILE
`

const values = optionsOf(
  usage,
  {
    database: 'postgres',
    seconds: 300,
    faults: Number.POSITIVE_INFINITY,
    nodes: 5,
    ttl: 3_000,
    seed: randomSeed(),
    only: '',
  },
  { texts: ['history', 'check'] },
)

const kinds = namesIn(
  usage,
  values.only,
  'kind of fault',
  allFaults.map(({ kind }) => kind),
)
if (values.check === undefined) await campaign()
else judge(values.check)

async function campaign(): Promise<void> {
  const history =
    values.history ?? join(await mkdtemp(join(tmpdir(), 'coordination-history-')), 'history.ndjson')
  process.stdout.write(`seed ${values.seed}, history ${history}\n`)
  await runCampaign({
    database: values.database,
    history,
    faults: values.faults,
    seconds: values.seconds,
    nodes: values.nodes,
    ttlMs: values.ttl,
    seed: values.seed,
    faultsPerRound: 40,
    kinds,
  })
  judge(history)
}

function judge(history: string): void {
  const verdict = check(readHistory(history))
  process.stdout.write(`${report(verdict)}\n`)
  process.exitCode = verdict.violations.length === 0 ? 0 : 1
}
