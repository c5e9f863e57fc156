/**
 * A transaction that commits only while its lease is held, in the database where the leases are.
 *
 *     npm run example fenced-write
 */
import Database from 'better-sqlite3'
import { createCoordinator, FencedError, type HeldLease } from 'fastify-worker-coordination/coordinator'

const path = process.env.DATABASE_PATH ?? 'coordination.db'
const db = new Database(path)
db.exec('create table if not exists reports (writer text, token integer)')

/** The fence is the first statement. If the lease has been lost, it throws, and nothing is written. */
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

// An operator takes the lease away. Its holder has not noticed yet, and writes once more: too late.
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
