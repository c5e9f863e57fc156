/** Tests fences in transactions of the application on MySQL and MariaDB, and the application's own connections. */
import { drizzle } from 'drizzle-orm/mysql2'
import { createConnection as createWithCallbacks } from 'mysql2'
import { type Connection, createConnection, createPool, type Pool } from 'mysql2/promise'
import t, { type Test } from 'tap'
import { FencedError } from '../../plugin/core/errors.js'
import { openMysqlStore } from '../../plugin/stores/mysql/index.js'
import { openStore } from '../../plugin/stores/open.js'
import { join, newLease, rejectionOf, saveLeases } from '../../plugin/testing/conformance/world.js'
import { useMysql, withoutMysql } from '../support/databases.js'
import { connected, opened, options } from './mysql-scene.js'

if (withoutMysql) t.plan(0, withoutMysql)
else tests()

function tests(): void {
  t.setTimeout(180_000)

  t.test('a fence', async (t) => {
    const { url } = await useMysql(t)
    const store = await opened(t, url)
    const claim = { key: 'l', node: 'a', token: 5 }
    await join(store, ['a'])
    await saveLeases(store, newLease('l', { holder: 'a', token: 5 }))
    const fenced = async (): Promise<boolean | undefined> =>
      (await store.change(undefined, (change) => change.leases({ keys: ['l'] }))).result[0]?.fenced

    t.test('holds in whatever the driver or Drizzle calls a transaction', async (t) => {
      const client = await connected(t, url)
      await client.query('begin')
      await store.fence(client, claim)
      t.equal(await fenced(), true)
      await client.query('rollback')
      t.equal(await fenced(), false)

      const plain = createWithCallbacks(url)
      t.teardown(() => plain.destroy())
      await plain.promise().beginTransaction()
      await store.fence(plain, claim)
      t.equal(await fenced(), true)
      await plain.promise().commit()

      const pool = usePool(t, url)
      await drizzle({ client: pool }).transaction(async (tx) => {
        await store.fence(tx, claim)
        t.equal(await fenced(), true)
      })
      const lent = await pool.getConnection()
      await lent.query('set autocommit = 0')
      await store.fence(lent, claim)
      t.equal(await fenced(), true, 'where nothing is committed by itself, it begins the transaction')
      await lent.rollback()
      await lent.query('set autocommit = 1')
      lent.release()
      t.equal(await fenced(), false)
    })

    t.test('refuses what is no open transaction on the database of the store', async (t) => {
      const client = await connected(t, url)
      const pool = usePool(t, url)
      for (const target of [client, pool, drizzle({ client: pool }), drizzle({ client })]) {
        t.match(await rejectionOf(store.fence(target, claim)), { code: 'WCO_FENCE_TARGET' })
      }
      await client.query('begin')
      await client.end()
      t.match(await rejectionOf(store.fence(client, claim)), { code: 'WCO_FENCE_TARGET', message: /ended/ })
    })

    t.test(
      'works on a connection with settings of its own, and on another database of the server',
      async (t) => {
        const options = {
          charset: 'latin1',
          rowsAsArray: true,
          namedPlaceholders: true,
          bigNumberStrings: true,
        }
        const odd = await createConnection({ uri: url, ...options, supportBigNumbers: true })
        t.teardown(() => odd.end())
        const name = '\ud83d\ude80'
        await join(store, [name])
        await saveLeases(store, newLease(name, { holder: name, token: 7 }))
        await odd.query("set sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'")
        await odd.query('use information_schema')
        await odd.query('begin')
        await store.fence(odd, { key: name, node: name, token: 7 })
        t.type(await rejectionOf(store.fence(odd, { key: name, node: name, token: 8 })), FencedError)
        await odd.query('rollback')
      },
    )

    t.test('sees what is, in a transaction that keeps to an old snapshot', async (t) => {
      const client = await connected(t, url)
      await saveLeases(store, newLease('old', { holder: 'a', token: 1 }))
      await client.query('set session transaction isolation level repeatable read')
      await client.query('start transaction with consistent snapshot')
      await saveLeases(store, newLease('old', { holder: 'a', token: 2 }))
      const late = rejectionOf(store.fence(client, { key: 'old', node: 'a', token: 1 }))
      t.type(await late, FencedError)
      await client.query('rollback')
    })

    t.test('is in the way of no heartbeat, at any isolation level', async (t) => {
      const client = await connected(t, url)
      for (const [index, level] of ['read committed', 'repeatable read', 'serializable'].entries()) {
        await client.query(`set session transaction isolation level ${level}`)
        await client.query('begin')
        await store.fence(client, claim)
        t.ok(await store.heartbeat('a', index + 1), level)
        await client.query('rollback')
      }
    })

    t.test('on a lease that is not there is in the way of no other lease', async (t) => {
      const client = await connected(t, url)
      await client.query('begin')
      t.type(await rejectionOf(store.fence(client, { ...claim, key: 'nobody' })), FencedError)
      await saveLeases(store, newLease('nobod'), newLease('nobody'), newLease('nobody!'))
      await client.query('rollback')
    })

    t.test('makes a change fail that would write the row all the same', async (t) => {
      const client = await connected(t, url)
      await client.query('begin')
      await store.fence(client, claim)
      t.match(await rejectionOf(saveLeases(store, newLease('l'))), {
        name: 'StoreError',
        outcome: 'none',
        message: /fenced/,
      })
      await client.query('rollback')
      t.match(
        (await store.snapshot()).leases.find(({ key }) => key === 'l'),
        { holder: 'a', token: 5 },
      )
    })
  })

  t.test("an application's pool or connection", async (t) => {
    t.test('says where to connect, and is not used', async (t) => {
      const { url } = await useMysql(t)
      const pool = usePool(t, url, { connectionLimit: 1, rowsAsArray: true, multipleStatements: true })
      const plain = createWithCallbacks(url)
      t.teardown(() => plain.destroy())
      const used = await pool.getConnection()
      const before = await settingsOf(used)
      for (const [index, client] of [pool, pool.pool, plain, used, drizzle({ client: pool })].entries()) {
        const store = await openStore({ ...options(client), push: false, log: { warn: () => undefined } })
        t.equal(await join(store, [`node-${index}`]), index + 1)
        t.ok(await store.heartbeat(`node-${index}`, 1))
        await store.close()
        await store.close()
        t.match(await rejectionOf(store.view('a')), { name: 'StoreError', outcome: 'none' })
      }
      t.same(await settingsOf(used), before, 'and has none of our settings')
      used.release()
    })

    t.test('that names no database is refused', async (t) => {
      const { url } = await useMysql(t)
      const server = new URL(url)
      server.pathname = '/'
      for (const database of [server.href, usePool(t, server.href)]) {
        t.match(await rejectionOf(openMysqlStore(options(database))), {
          code: 'WCO_OPTIONS',
          message: /name of a database/,
        })
      }
    })
  })
}

function usePool(t: Test, url: string, more: object = {}): Pool {
  const pool = createPool({ uri: url, ...more })
  t.teardown(() => pool.end())
  return pool
}

async function settingsOf(client: Connection): Promise<unknown> {
  const [rows] = await client.query('show session variables')
  // Values that the last statement has left behind are not settings.
  return Array.isArray(rows)
    ? rows.filter(
        (row) =>
          !/timestamp|last_gtid|gtid_executed|statement_id|rand_seed|error_count|warning_count|in_transaction/.test(
            String(Object.values(row)[0]),
          ),
      )
    : rows
}
