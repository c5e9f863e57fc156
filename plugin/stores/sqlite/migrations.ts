/** Migrates SQLite: in one transaction that holds the file's one write slot. */
import type { Database } from 'better-sqlite3'
import { journalTable, type MigrationSession, type MigrationTarget } from '../shared/migrate.js'
import { transact } from './connections.js'
import { isBusy } from './failures.js'
import { pause } from './pause.js'

/** Returns a connection that has no other user meanwhile as a migration target. */
export function migrationTarget(client: Database, deadlineMs: number): MigrationTarget {
  const session: MigrationSession = {
    appliedNames: async () => appliedNames(client),
    execute: async (sql) => void client.exec(sql),
    record: async (name) => void client.prepare(`insert into ${journalTable} (name) values (?)`).run(name),
  }
  return {
    appliedNames: session.appliedNames,
    locked: (work) => locked(client, deadlineMs, () => work(session)),
  }
}

async function locked<T>(client: Database, deadlineMs: number, work: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const { result } = await transact(client, deadlineMs, async () => ({
        result: await work(),
        commit: true,
      }))
      return result
    } catch (error) {
      if (!isBusy(error) || performance.now() >= deadlineMs) throw error
    }
    await pause(attempt, deadlineMs)
  }
}

function appliedNames(client: Database): string[] | undefined {
  const journal = client
    .prepare("select 1 from sqlite_master where type = 'table' and name = ?")
    .get(journalTable)
  if (journal === undefined) return undefined
  return client.prepare<[], string>(`select name from ${journalTable}`).pluck().all()
}
