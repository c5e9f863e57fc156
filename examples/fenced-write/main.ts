/**
 * A transaction that commits only while its lease is held. It runs in the database that stores the leases.
 *
 *     npm run example fenced-write
 */
import Database from 'better-sqlite3'
import { createCoordinator, FencedError, type HeldLease } from 'fastify-worker-coordination/coordinator'

const path = process.env.DATABASE_PATH ?? 'coordination.db'
const db = new Database(path)
db.exec('create table if not exists reports (writer text, token integer)')

/** Writes a report. The fence is the first statement: if the lease has been lost, it throws and nothing is written. */
function writeReport(lease: HeldLease, writer: string): void {
  db.transaction(() => {
    lease.fence(db)
    db.prepare('insert into reports values (?, ?)').run(writer, lease.token)
  })()
  console.log(`${writer} has written with token ${lease.token}`)
}

const [a, b] = await Promise.all(
  ['a', 'b'].map(async (node) => {
    const coordinator = await createCoordinator({
      database: `sqlite:${path}`,
      identity: { node, cluster: 'example' },
    })
    await coordinator.start()
    return coordinator
  }),
)

const first = await a?.acquire('report')
if (first === undefined) throw new Error('The lease "report" is held by another process.')
writeReport(first, 'a')

// An operator releases the lease by force. Its holder has not noticed yet and tries another write, which is refused.
await b?.operator.release({
  key: first.key,
  token: first.token,
  actor: 'example',
  reason: 'to show what happens',
})
try {
  writeReport(first, 'a, late,')
} catch (error) {
  if (!(error instanceof FencedError)) throw error
  console.log(`refused: ${error.message}`)
}
await first.release()

const second = await b?.acquire('report')
if (second !== undefined) writeReport(second, 'b')
await second?.release()

await Promise.all([a?.close(), b?.close()])
db.close()
