/** Tests what becomes of verbs on MySQL and MariaDB when their connections fail, or when a lock is in the way. */
import type { Connection } from 'mysql2/promise'
import t from 'tap'
import { join, newNode, rejectionOf } from '../../plugin/testing/conformance/world.js'
import { useMysql, withoutMysql } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { connected, only, opened } from './mysql-scene.js'
import { testConnections } from './server-tests.js'

if (withoutMysql) t.plan(0, withoutMysql)
else tests()

function tests(): void {
  t.setTimeout(180_000)

  testConnections(t, {
    ...{ use: useMysql, connected, opened, storeProcesses },
    endStores: killStores,
    undoEvents: (admin, times) => failInserts(admin, 1213, times),
    whoHoldsLocks: /Another transaction holds a lock, .*: SHOW FULL PROCESSLIST shows it\.$/,
  })

  t.test('a heartbeat that was stamped and not read again may have happened, and has', async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    const store = await opened(t, url)
    await join(store, ['a'])
    await store.heartbeat('a', 1)
    await admin.query('rename table coordination_meta to elsewhere')
    t.match(await rejectionOf(store.heartbeat('a', 2)), { name: 'StoreError', outcome: 'unknown' })
    await admin.query('rename table elsewhere to coordination_meta')
    t.match((await store.snapshot()).nodes, [{ id: 'a', beat: 2 }])
    t.match(await store.heartbeat('a', 3), { state: 'active' })
  })

  t.test('connections stay though they are idle for longer than a transaction may be', async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    const store = await opened(t, url, { statementTimeoutMs: 2_000 })
    await join(store, ['a'])
    await rejectionOf(store.change(undefined, () => Promise.reject(new Error('on purpose'))))
    const before = await storeProcesses(admin)
    // The server ends this one later than it would end the others.
    const idle = await connected(t, url)
    await idle.query('set wait_timeout = 2')
    await new Promise((resolve) => idle.on('end', resolve).on('error', resolve))
    t.ok(await store.heartbeat('a', 1))
    t.equal(await join(store, ['b']), 2)
    t.same(await storeProcesses(admin), before)
  })

  t.test('who stood still in a change is not sent to settings of the server', async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    const isMariaDb = /mariadb/i.test(String(await only(admin, 'select version()')))
    const store = await opened(t, url, { statementTimeoutMs: 4_000 })
    await join(store, ['a'])
    const error = await rejectionOf(
      store.change(undefined, async (change) => {
        await change.record([{ type: 'thing.happened', subject: 'a' }])
        await eventually(async () => (await only(admin, silent)) === 0, { everyMs: 200 })
        await change.nodes()
      }),
    )
    t.match(error, { name: 'StoreError', outcome: 'none' })
    if (!isMariaDb) t.match(error, { message: stoodStill })
    await failInserts(admin, 4031, 1)
    const record = store.change(undefined, (change) =>
      change.record([{ type: 'thing.happened', subject: 'a' }]),
    )
    t.match(await rejectionOf(record), { name: 'StoreError', message: stoodStill })
    t.equal(await join(store, ['b']), 2, 'nothing has been written')
  })

  t.test('the time a change tells is not older than what it has waited for', async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    const store = await opened(t, url)
    await join(store, ['a'])
    await admin.query('begin')
    await admin.query('select * from coordination_meta for update')
    const change = store.change(undefined, async ({ nowMs }) => nowMs)
    // The server repeats its last answer for a tenth of a second, and for as long as it is asked more often than that.
    await eventually(async () => (await only(admin, waiting)) !== 0, { everyMs: 200 })
    const now = await only(admin, 'select floor(unix_timestamp(now(3)) * 1000)')
    await admin.query('commit')
    t.ok((await change).result >= Number(now))
  })

  t.test('a change that the database undoes as it begins is made again, too', async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    const store = await opened(t, url)
    await failInserts(admin, 1213, 2, 'coordination_meta')
    t.equal(await join(store, ['a']), 1)
    t.equal(await only(admin, 'select max(id) from failures'), 3)
  })

  t.test('a change that fails otherwise as it begins is not made again', async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    const store = await opened(t, url)
    await failInserts(admin, 1644, 1, 'coordination_meta')
    t.match(await rejectionOf(join(store, ['a'])), { outcome: 'none', message: /failing on purpose/ })
    t.equal(await join(store, ['a']), 1)
  })

  t.test('a connection to a server that turns out to be read-only is given up', async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    const store = await opened(t, url)
    await join(store, ['a'])
    for (const number of [1036, 1290]) {
      const before = await storeProcesses(admin)
      await admin.query(`
        create trigger fail before update on coordination_nodes for each row
          signal sqlstate '45000' set mysql_errno = ${number}, message_text = 'read only on purpose'`)
      t.match(await rejectionOf(store.heartbeat('a', number)), {
        name: 'StoreError',
        outcome: 'none',
        message: /on purpose\. The database takes no writes there/,
      })
      await admin.query('drop trigger fail')
      t.ok(await store.heartbeat('a', number))
      const after = await storeProcesses(admin)
      t.not(
        before.every((id) => after.includes(id)),
        String(number),
      )
    }
  })

  t.test('a change that fails otherwise is not made again, whatever its work makes of that', async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    const store = await opened(t, url)
    await failInserts(admin, 1644, 1)
    const error = await rejectionOf(
      store.change(undefined, async (change) => {
        await change.addNode(newNode('a'), 1)
        await change.record([{ type: 'thing.happened', subject: 'a' }])
        await change.nodes().catch(() => undefined)
      }),
    )
    t.match(error, { name: 'StoreError', outcome: 'none', message: /failing on purpose/ })
    t.same((await store.snapshot()).nodes, [])
    t.equal(await join(store, ['a']), 1)
  })
}

const stoodStill = /stood still in a transaction\. The library sets wait_timeout itself\.$/

/** Counts the transactions in this database. */
const silent = `
  select count(*) from information_schema.innodb_trx join information_schema.processlist on id = trx_mysql_thread_id
  where db = database()`

/** Counts the transactions in this database that wait for a row. */
const waiting = `
  select count(*) from information_schema.innodb_trx join information_schema.processlist on id = trx_mysql_thread_id
  where trx_state = 'LOCK WAIT' and db = database()`

/** Returns the ids of all connections to this database but the asking one. In these tests they belong to stores. */
async function storeProcesses(admin: Connection): Promise<number[]> {
  const [rows] = await admin.query({
    sql: 'select id from information_schema.processlist where db = database() and id <> connection_id()',
    rowsAsArray: true,
  })
  return (Array.isArray(rows) ? rows : []).map((row) => Number(Array.isArray(row) ? row[0] : 0))
}

async function killStores(admin: Connection): Promise<number> {
  const processes = await storeProcesses(admin)
  for (const id of processes) await admin.query(`kill ${id}`).catch(() => undefined)
  return processes.length
}

/**
 * Makes the next inserts into a table, as many as `times`, fail with an error of this number. The count of failures
 * outlives a rollback.
 */
async function failInserts(
  admin: Connection,
  number: number,
  times: number,
  table = 'coordination_events',
): Promise<void> {
  await admin.query('create table failures (id int auto_increment primary key)')
  await admin.query(`
    create trigger fail before insert on ${table} for each row begin
      insert into failures values (null);
      if last_insert_id() <= ${times} then
        signal sqlstate '45000' set mysql_errno = ${number}, message_text = 'failing on purpose';
      end if;
    end`)
}
