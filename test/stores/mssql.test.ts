/** Tests what is special about the store on SQL Server: its connections, and the rights it needs. */
import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { isLockTimeout } from '../../plugin/stores/mssql/failures.js'
import { type MssqlOptions, openMssqlStore } from '../../plugin/stores/mssql/index.js'
import type { MssqlStore } from '../../plugin/stores/mssql/store.js'
import {
  commit,
  join,
  newLease,
  newWorker,
  rejectionOf,
  saveLeases,
} from '../../plugin/testing/conformance/world.js'
import { useMssql, withMssql, withoutMssql } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { throughProxy } from '../support/proxy.js'
import { documentedGrants } from '../support/rights.js'
import { within } from './mssql-harness.js'

if (withoutMssql) t.plan(0, withoutMssql)
else tests()

function tests(): void {
  t.setTimeout(600_000)

  t.test('what is rehearsed when a store opens leaves no row', async (t) => {
    const { url } = await useMssql(t)
    await opened(t, url)
    for (const table of tables) {
      t.same(await query(url, `select count(*) as [rows] from coordination_${table}`), [{ rows: 0 }], table)
    }
  })

  t.test('a lease comes in one statement with its worker and the nodes that it names', async (t) => {
    const { url } = await useMssql(t)
    const store = await opened(t, url)
    await join(store, ['holds', 'blocks', 'cools down'])
    await commit(store, (change) => change.saveWorkers([newWorker('w')]))
    const named = { holder: 'holds', blockedNode: 'blocks', cooldownNode: 'cools down' }
    await saveLeases(store, newLease('l', { worker: 'w', ...named }))
    const before = store.statements
    await store.change(undefined, async (change) => {
      t.match(await change.leases({ keys: ['l'] }), [{ key: 'l', ...named }])
      t.match(await change.workers(['w']), [{ key: 'w' }])
      const ids = Object.values(named).sort()
      t.match(
        await change.nodesById(ids),
        ids.map((id) => ({ id })),
      )
    })
    t.equal(store.statements - before, 3, 'two to begin, and one that reads')
  })

  t.test('a connection that takes longer to get ready than a verb may take serves a later one', async (t) => {
    const { url } = await useMssql(t)
    const { proxy, url: proxied } = await throughProxy(t, url)
    const store = await opened(t, proxied, { statementTimeoutMs: 2_000 })
    proxy.cut()
    // A connection becomes ready after six requests, one after another.
    proxy.toClient.delayMs = 400
    t.same((await eventually(() => store.look(), { timeoutMs: 120_000 })).nodes, [])
  })

  t.test('a connection gets ready as long as it goes on answering, whatever that takes in all', async (t) => {
    const { url } = await useMssql(t)
    const { proxy, url: proxied } = await throughProxy(t, url)
    const store = await opened(t, proxied, { statementTimeoutMs: 12_000 })
    proxy.cut()
    // Six times this delay is longer than one answer may take.
    proxy.toClient.delayMs = 2_700
    t.same((await eventually(() => store.look(), { timeoutMs: 120_000 })).nodes, [])
  })

  t.test('a store outlives the end of all its connections while they are idle', async (t) => {
    const { url } = await useMssql(t)
    const { proxy, url: proxied } = await throughProxy(t, url)
    const store = await opened(t, proxied)
    await join(store, ['a'])
    await store.heartbeat('a', 1)
    proxy.cut()
    t.match(await eventually(() => store.heartbeat('a', 2)), { state: 'active' })
    t.equal(await eventually(() => join(store, ['b'])), 2)
  })

  t.test(
    'a change that waits too long for a row is undone, and its connection serves the next',
    async (t) => {
      const { url } = await useMssql(t)
      const store = await opened(t, url, { statementTimeoutMs: 12_000 })
      await join(store, ['a'])
      await saveLeases(store, newLease('l', { holder: 'a', token: 1 }))
      await withMssql(url, (pool) =>
        within(pool.transaction(), async (transaction) => {
          await transaction.request().query('update coordination_leases set [revision] = [revision]')
          const late = await rejectionOf(saveLeases(store, newLease('l', { holder: 'a', token: 2 })))
          t.match(late, {
            ...{ code: 'WCO_STORE', outcome: 'none' },
            message: /Another transaction holds a lock, .*: sys\.dm_tran_locks shows it\.$/,
          })
          t.ok(isLockTimeout(late), 'whatever number the server has for it')
        }),
      )
      t.match(await store.snapshot(), { meta: { revision: 2 }, leases: [{ token: 1 }] })
      t.equal(await saveLeases(store, newLease('l', { holder: 'a', token: 2 })), 3)
    },
  )

  t.test('a user with the rights of the documentation can run a store', async (t) => {
    const { url } = await useMssql(t)
    await (await opened(t, url)).close()
    const clerk = await useUser(t, url)
    t.match(await rejectionOf(query(clerk.url, 'create table own (id int)')), { message: /permission/i })
    for (const grant of await documentedGrants('mssql', 'app', clerk.user)) await query(url, grant)
    const store = await opened(t, clerk.url, { migrate: false })
    await join(store, ['a'])
    await saveLeases(store, newLease('l', { holder: 'a', token: 1 }))
    t.match(await store.heartbeat('a', 1), { serverIdentity: /./ })
    await store.prune({ eventsForMs: 0, events: 0, goneNodesForMs: 0 })
    await commit(store, (change) => change.deleteLeases(['l']))
    t.equal((await store.snapshot()).leases.length, 0)
  })

  t.test('a user without one of them is told so when the store opens', async (t) => {
    const { url } = await useMssql(t)
    await (await opened(t, url)).close()
    const clerk = await useUser(t, url)
    for (const grant of await documentedGrants('mssql', 'app', clerk.user)) await query(url, grant)
    await query(url, `revoke insert on coordination_events from ${clerk.user}`)
    const refused = await rejectionOf(openMssqlStore(options(clerk.url, { migrate: false })))
    t.match(refused, { code: 'WCO_STORE', message: /permission.*coordination_events/i })
  })

  t.test('a user who only fences needs to read two tables and to lock in one', async (t) => {
    const { url } = await useMssql(t)
    const store = await opened(t, url)
    await join(store, ['a'])
    await saveLeases(store, newLease('l', { holder: 'a', token: 1 }))
    const reports = await useUser(t, url)
    for (const grant of await documentedGrants('mssql', 'reports', reports.user)) await query(url, grant)
    await withMssql(reports.url, (pool) =>
      within(pool.transaction(), (transaction) =>
        store.fence(transaction, { key: 'l', node: 'a', token: 1 }),
      ),
    )
    t.match(await rejectionOf(query(reports.url, 'delete from coordination_leases')), {
      message: /permission/i,
    })
  })
}

const tables = ['nodes', 'workers', 'leases', 'events', 'meta']

function options(database: string, more: Partial<MssqlOptions> = {}): MssqlOptions {
  return {
    ...{ database, namespace: 'shop', statementTimeoutMs: 30_000, migrate: true },
    onWarning: () => undefined,
    ...more,
  }
}

async function opened(t: Test, url: string, more: Partial<MssqlOptions> = {}): Promise<MssqlStore> {
  const store = await openMssqlStore(options(url, more))
  t.teardown(() => store.close())
  return store
}

/** Makes a user of this database who has no rights yet. The user ends with the database. */
async function useUser(t: Test, url: string): Promise<{ user: string; url: string }> {
  const user = `clerk_${randomBytes(6).toString('hex')}`
  const password = `Secret-${randomBytes(12).toString('hex')}`
  await query(url, `create login ${user} with password = '${password}'`)
  t.teardown(() => query(url, `drop login ${user}`))
  await query(url, `create user ${user} for login ${user}`)
  const theirs = new URL(url)
  theirs.username = user
  theirs.password = password
  return { user, url: theirs.href }
}

async function query(url: string, sql: string): Promise<unknown> {
  return withMssql(url, async (pool) => (await pool.query(sql)).recordset)
}
