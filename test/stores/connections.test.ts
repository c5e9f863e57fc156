/**
 * Tests lending connections that take time to become ready. It uses PostgreSQL, where a connection waits for a lock for
 * as long as the test wants.
 */
import { setTimeout } from 'node:timers/promises'
import { Client, Pool, type PoolClient } from 'pg'
import t, { type Test } from 'tap'
import { judgement } from '../../plugin/stores/postgres/failures.js'
import { LentConnections, Loan, type Readiness, settingUp } from '../../plugin/stores/shared/connections.js'
import type { Deadline } from '../../plugin/stores/shared/deadline.js'
import { connectPatiently, limitsWithin } from '../../plugin/stores/shared/limits.js'
import { gate, rejectionOf } from '../../plugin/testing/conformance/world.js'
import { usePostgres } from '../support/databases.js'
import { eventually } from '../support/eventually.js'

type PgLoan = Loan<PoolClient>

/** The time limit of a verb that is meant to be late. */
const hastyMs = 300

t.test('an attempt that the driver ends a moment before its time is up is followed by another', async (t) => {
  let attempts = 0
  const connect = async (): Promise<string> => {
    attempts += 1
    if (attempts === 3) return 'connected'
    await setTimeout(0.97 * hastyMs)
    throw new Error("the driver's own limit")
  }
  t.equal(await connectPatiently(connect, limitsWithin(hastyMs)), 'connected')
})

t.test('a connection that is ready too late for one verb serves the next', async (t) => {
  const { connections, makeSlow, serverProcesses } = await useConnections(t, { max: 1 })
  const makeQuick = await makeSlow()
  t.match(await rejectionOf(connections.lend('A verb', processOf)), {
    message: `A verb did not end within ${hastyMs} ms: it waited for a connection of the pool all that time.`,
    outcome: 'none',
  })
  const process = await eventually(async () => one(await serverProcesses()))
  await makeQuick()
  t.equal(await connections.lendPatiently('Another', processOf), process)
})

t.test('a verb takes what is given back when its own connection is not ready by then', async (t) => {
  const { connections, makeSlow, serverProcesses } = await useConnections(t)
  const lent = gate()
  const { opened, open } = gate()
  const process = connections.lendPatiently('A verb', async (loan) => {
    lent.open()
    await opened
    return processOf(loan)
  })
  await lent.opened
  await makeSlow()
  const other = connections.lendPatiently('Another', processOf)
  await eventually(async () => (await serverProcesses()).length === 2)
  open()
  t.equal(await other, await process)
})

t.test('closing ends what is being made ready for nobody', async (t) => {
  const { connections, makeSlow, serverProcesses } = await useConnections(t)
  await makeSlow()
  await rejectionOf(connections.lend('A verb', processOf))
  await eventually(async () => one(await serverProcesses()))
  t.equal(connections.pool.totalCount, 1)
  await connections.close()
  t.equal(connections.pool.totalCount, 0)
})

t.test('closing waits for a verb, and so for the connection that is made ready for it', async (t) => {
  const { connections, makeSlow, serverProcesses } = await useConnections(t)
  const makeQuick = await makeSlow()
  const verb = connections.lendPatiently('A verb', processOf)
  await eventually(async () => one(await serverProcesses()))
  const closed = connections.close()
  await makeQuick()
  t.type(await verb, 'number')
  await closed
  t.match(await rejectionOf(connections.lend('A verb', processOf)), { message: /the store is closed/ })
})

t.test('a connection that does not get ready is given up, and the next one is made anew', async (t) => {
  const { connections, makeSlow } = await useConnections(t, { readyMs: hastyMs })
  const makeQuick = await makeSlow()
  await rejectionOf(connections.lend('A verb', processOf))
  await eventually(() => connections.pool.totalCount === 0)
  await makeQuick()
  t.type(await connections.lendPatiently('Another', processOf), 'number')
})

t.test('a connection that cannot be made ready fails its verb, and says why', async (t) => {
  const { connections } = await useConnections(t, { settings: 'select 1/0' })
  t.match(await rejectionOf(connections.lendPatiently('A verb', processOf)), {
    message: `${settingUp} failed: division by zero`,
    outcome: 'none',
  })
})

t.test('where that costs much, one connection is made ready at a time', async (t) => {
  const { connections, makeSlow, preparing } = await useConnections(t, { max: 3, oneByOne: true })
  const makeQuick = await makeSlow()
  const verbs = ['One', 'Two', 'Three', 'Four'].map((verb) => connections.lendPatiently(verb, processOf))
  await eventually(() => connections.pool.totalCount === 3 && connections.pool.idleCount === 2)
  await eventually(async () => (await preparing()) === 1)
  await makeQuick()
  for (const process of await Promise.all(verbs)) t.type(process, 'number')
})

t.test('a verb takes one that lies idle below one that is not ready', async (t) => {
  const { connections, makeSlow, preparing } = await useConnections(t, { max: 3, oneByOne: true })
  const [lent, used, late] = [gate(), gate(), gate()]
  const one = connections.lendPatiently('One', async (loan) => {
    lent.open()
    await used.opened
    return processOf(loan)
  })
  await lent.opened
  await makeSlow()
  const two = connections.lendPatiently('Two', processOf)
  await eventually(async () => (await preparing()) === 1)
  connections.late = late.opened
  const three = connections.lendPatiently('Three', processOf)
  connections.late = undefined
  await eventually(() => connections.pool.totalCount === 3 && connections.pool.waitingCount === 0)
  used.open()
  t.equal(await two, await one)
  late.open()
  t.equal(await three, await one, 'though it had another one when this one was given back')
})

t.test('the next one begins where the one that was waited for does not get ready', async (t) => {
  const { connections, makeSlow } = await useConnections(t, { readyMs: hastyMs, oneByOne: true })
  const makeQuick = await makeSlow()
  const hasty = connections.lend('A verb', processOf)
  const patient = connections.lendPatiently('Another', processOf)
  await rejectionOf(hasty)
  await makeQuick()
  t.type(await patient, 'number')
})

class Patient extends LentConnections<PoolClient, PgLoan> {
  /** While this promise is pending, a newly acquired connection is kept from the verb. */
  late: Promise<unknown> | undefined

  constructor(
    readonly pool: Pool,
    readiness: Readiness,
    settings: string,
  ) {
    super(limitsWithin(hastyMs), readiness)
    this.prepareBy((loan) => loan.send(settingUp, () => loan.client.query(settings)))
  }

  protected async acquire(): Promise<PoolClient> {
    const { late } = this
    const client = await this.pool.connect()
    await late
    return client
  }

  protected override get idle(): number {
    return this.pool.idleCount
  }

  protected release(client: PoolClient): void {
    client.release()
  }

  protected loanOf(client: PoolClient, deadline: Deadline): PgLoan {
    return new Loan(client, deadline, judgement)
  }

  protected takeBack({ client, spoiled }: PgLoan): void {
    client.release(spoiled)
    if (spoiled) client.connection?.stream.destroy()
  }

  protected end(): Promise<void> {
    return this.pool.end()
  }
}

/** Opens connections to a database of their own, with means to keep them from becoming ready. */
async function useConnections(
  t: Test,
  {
    readyMs = 60_000,
    oneByOne = false,
    max = 2,
    settings = 'select pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1)',
  } = {},
) {
  const { url } = await usePostgres(t)
  const admin = new Client({ connectionString: url })
  await admin.connect()
  t.teardown(() => admin.end())
  const pool = new Pool({ connectionString: url, max })
  // Connections end in the background when the database is dropped. This is no error of the code under test.
  pool.on('error', () => undefined)
  const connections = new Patient(pool, { readyMs, oneByOne }, settings)
  t.teardown(() => connections.close())
  return {
    connections,
    /** Keeps further connections from becoming ready until the returned function is called. */
    async makeSlow(): Promise<() => Promise<unknown>> {
      await admin.query('select pg_advisory_lock(1)')
      return () => admin.query('select pg_advisory_unlock(1)')
    },
    /** Returns how many connections are waiting to become ready. */
    async preparing(): Promise<number> {
      const { rows } = await admin.query(
        "select 1 from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database()) and not granted",
      )
      return rows.length
    },
    async serverProcesses(): Promise<number[]> {
      const { rows } = await admin.query<{ pid: number }>(
        'select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
      )
      return rows.map(({ pid }) => pid)
    },
  }
}

async function processOf(loan: PgLoan): Promise<unknown> {
  const { rows } = await loan.client.query<{ pid: number }>('select pg_backend_pid() as pid')
  return rows[0]?.pid
}

/** Returns the element of a list of one. */
function one<T>(list: readonly T[]): T | undefined {
  return list.length === 1 ? list[0] : undefined
}
