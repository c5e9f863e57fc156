/**
 * Runs a campaign of faults on real processes and a real database, or judges the history of one.
 *
 *     npm run chaos -- --database postgres --seconds 600
 *
 *     npm run chaos -- --check history.ndjson
 *
 * - `--database`: `postgres`, `mariadb` or `sqlite`, which the campaign sets up; `mysql` or `mssql`, a new database on
 *   the server of `TEST_MYSQL_URL` or `TEST_MSSQL_URL`; or the URL of an empty database.
 * - `--seconds` (300) and `--faults` (no limit): when it ends.
 * - `--nodes` (5) and `--ttl` (3000): how many processes, and their ttl in ms.
 * - `--seed` and `--only kind,kind`: the order of the faults, and their kinds. The course of events depends on the
 *   machine, not only on the seed.
 * - `--history FILE`: where the history is kept. `--check FILE` judges a history again, and runs nothing.
 */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { atLeastOne, mustOpen, namesIn, optionsOf, refuse, seeds } from '../support/command-line.js'
import { interruptible } from '../support/interruptible.js'
import { allFaults, randomSeed, runCampaign, whyNot, whyUnreachable } from './campaign.js'
import { check, report } from './check.js'
import { type Entry, readHistory } from './history.js'

const usage = `
npm run chaos -- [--database postgres|mariadb|sqlite|mysql|mssql|URL] [--seconds 300] [--faults N] [--nodes 5] [--ttl 3000] [--seed N]
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
  {
    texts: ['history', 'check'],
    ways: [['database', 'seconds', 'faults', 'nodes', 'ttl', 'seed', 'only', 'history'], ['check']],
    // A coordinator takes no other ttl; a node that is refused would be started again and again.
    whole: { faults: atLeastOne, nodes: atLeastOne, ttl: [500, 3_600_000], seed: seeds },
  },
)

const kinds = namesIn(
  usage,
  values.only,
  'kind of fault',
  allFaults.map(({ kind }) => kind),
)
if (values.check === undefined) await interruptible(campaign)
else judge(historyIn(values.check))

async function campaign(asked: AbortSignal): Promise<void> {
  const why = whyNot(values.database)
  if (why !== undefined) refuse(usage, `--database: ${why}.`)
  const unreachable = await whyUnreachable(values.database)
  if (unreachable !== undefined) return fail(`--database: ${unreachable}`)
  if (values.history !== undefined) mustOpen(usage, 'history', values.history, 'a')
  const history =
    values.history ?? join(await mkdtemp(join(tmpdir(), 'coordination-history-')), 'history.ndjson')
  process.stdout.write(`seed ${values.seed}, history ${history}\n`)
  const plan = {
    database: values.database,
    history,
    faults: values.faults,
    seconds: values.seconds,
    nodes: values.nodes,
    ttlMs: values.ttl,
    seed: values.seed,
    faultsPerRound: 40,
    kinds,
  }
  await runCampaign(plan, asked)
  judge(readHistory(history))
}

function fail(why: string): void {
  process.stderr.write(`${why}\n`)
  process.exitCode = 2
}

/** What is no history has no violation either: it would seem to have passed. */
function historyIn(file: string): Entry[] {
  mustOpen(usage, 'check', file, 'r')
  const entries = readHistory(file)
  if (!entries.some(({ t }) => t === 'campaign'))
    refuse(usage, `--check: ${file} is no history of a campaign.`)
  return entries
}

function judge(history: readonly Entry[]): void {
  const verdict = check(history)
  process.stdout.write(`${report(verdict)}\n`)
  process.exitCode = verdict.violations.length === 0 ? 0 : 1
}
