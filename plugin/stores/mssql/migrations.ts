/** Migrates SQL Server: in one transaction, under an application lock that ends with it. */
import { StoreError } from '../../core/errors.js'
import { Deadline } from '../shared/deadline.js'
import { migrateGivingWay } from '../shared/giving-way.js'
import { journalTable, type MigrationSession, type MigrationTarget } from '../shared/migrate.js'
import type { Connections, Loan } from './connections.js'
import { isConflict, isLockTimeout } from './failures.js'

/** Building an index on existing rows may take a while, and so may another process that migrates first. */
const limitMs = 120_000

/** Returns the database at the other end of these connections as a migration target. */
export function migrationTarget(connections: Connections): MigrationTarget {
  const what = 'Looking for pending migrations'
  return {
    appliedNames: () => connections.lendPatiently(what, appliedNames),
    locked: (work) => locked(connections, work),
  }
}

/** A wait for a table gives way to the requests that queue behind it. */
function locked<T>(connections: Connections, work: (session: MigrationSession) => Promise<T>): Promise<T> {
  const migrate = async (loan: Loan): Promise<T> => {
    // Until it has ended well, the transaction and its connection go together.
    loan.spoiled = true
    await loan.begin()
    await takeLock(loan)
    try {
      const result = await work(sessionOn(loan))
      await loan.commit()
      loan.spoiled = false
      return result
    } catch (error) {
      await loan.rollback().catch(() => undefined)
      throw error
    }
  }
  const gaveWay = (error: unknown): boolean => isLockTimeout(error) || isConflict(error)
  return migrateGivingWay(connections, new Deadline(limitMs), connections.limits.lockMs, migrate, gaveWay)
}

/** Such a lock belongs to the database. Any negative result means that it was not obtained. */
async function takeLock(loan: Loan): Promise<void> {
  const [[row] = []] = await loan.ask(`
    declare @got int
    exec @got = sp_getapplock @Resource = N'${journalTable}', @LockMode = N'Exclusive',
      @LockOwner = N'Transaction', @LockTimeout = ${limitMs}
    select @got as [got]`)
  if (Number(row?.got) >= 0) return
  throw new StoreError('Another process has been migrating this database for too long.', 'none')
}

function sessionOn(loan: Loan): MigrationSession {
  return {
    appliedNames: () => appliedNames(loan),
    execute: async (statement) => void (await loan.ask(statement)),
    record: async (name) =>
      void (await loan.ask(`insert into ${journalTable} (name) values (@name)`, { name })),
  }
}

/** Returns the names in the journal. Needs only the right to read. A missing table is an answer, not an error. */
async function appliedNames(loan: Loan): Promise<string[] | undefined> {
  const [[found] = []] = await loan.ask(`select object_id(N'${journalTable}', N'U') as [there]`)
  if (found?.there === null || found === undefined) return undefined
  const [rows = []] = await loan.ask(`select name from ${journalTable} order by name`)
  return rows.map(({ name }) => String(name))
}
