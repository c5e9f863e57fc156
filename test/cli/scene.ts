/** A node at work, and the command line typed beside it. */
import type { Test } from 'tap'
import { run } from '../../plugin/cli/run.js'
import { type Coordinator, type CoordinatorOptions, createCoordinator } from '../../plugin/coordinator.js'
import type { Database } from '../support/databases.js'
import { eventually } from '../support/eventually.js'

/** What one run of the command line wrote, and its exit code. */
export interface Ended {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** The key of the lease that {@link nodeAtWork} holds. */
export const key = 'global/month-close'

/** Who is written down where no actor is named. */
export const user = 'an operator'

/** Types this into the command line, in this process. */
export async function cli(database: string | undefined, ...typed: readonly string[]): Promise<Ended> {
  const written = { out: '', err: '' }
  const into = (end: 'out' | 'err') => ({
    write: (text: string) => {
      written[end] += text
    },
  })
  const env = database === undefined ? {} : { DATABASE_URL: database }
  const code = await run(typed, { env, user: () => user, out: into('out'), err: into('err') })
  return { code, ...written }
}

/** Starts a node that holds a lease, and resolves once it does. */
export async function nodeAtWork(
  t: Test,
  { url }: Database,
  options: Partial<CoordinatorOptions> = {},
): Promise<Coordinator> {
  const identity = { node: 'n1', cluster: 'c1' }
  const timing = { ttlMs: 60_000, heartbeatMs: 500 }
  const coordinator = await createCoordinator({ database: url, identity, ...timing, ...options })
  t.teardown(() => coordinator.close())
  coordinator.worker({
    name: 'month-close',
    kind: 'single',
    scope: 'global',
    run: ({ signal }) => new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve())),
  })
  await coordinator.start()
  await eventually(async () => (await coordinator.status()).leases.some(({ state }) => state === 'held'))
  return coordinator
}
