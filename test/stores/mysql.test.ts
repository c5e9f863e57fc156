/** Tests what is special about the store on MySQL and MariaDB: its connections, locks, fences and migrations. */
import { randomBytes } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/mysql2'
import { createConnection as createWithCallbacks } from 'mysql2'
import { type Connection, createConnection, createPool, type Pool } from 'mysql2/promise'
import t, { type Test } from 'tap'
import { CoordinationError, FencedError } from '../../plugin/core/errors.js'
import { examine } from '../../plugin/stores/mysql/capabilities.js'
import { loads } from '../../plugin/stores/mysql/change-queries.js'
import { PooledConnections } from '../../plugin/stores/mysql/connections.js'
import { type MysqlOptions, openMysqlStore } from '../../plugin/stores/mysql/index.js'
import { migrationTarget } from '../../plugin/stores/mysql/migrations.js'
import type { MysqlStore } from '../../plugin/stores/mysql/store.js'
import { forgetNodes } from '../../plugin/stores/mysql/verb-queries.js'
import { openStore } from '../../plugin/stores/open.js'
import { limitsWithin } from '../../plugin/stores/shared/limits.js'
import { applyMigrations, journalTable, shippedMigrations } from '../../plugin/stores/shared/migrate.js'
import {
  commit,
  gate,
  join,
  newLease,
  newNode,
  newWorker,
  rejectionOf,
  saveLeases,
} from '../../plugin/testing/conformance/world.js'
import { useMysql, withoutMysql } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { type TcpProxy, useProxy } from '../support/proxy.js'
import { documentedGrants } from '../support/rights.js'

if (withoutMysql) t.plan(0, withoutMysql)
else tests()

function tests(): void {
  t.setTimeout(180_000)
  const namespace = 'shop'

  t.test('statements are few, whatever the number of rows', async (t) => {
    const { url } = await useMysql(t)
    const store = await opened(t, url)
    await join(store, ['a', 'b'], { workers: ['w'] })
    const count = async (work: () => Promise<unknown>): Promise<number> => {
      const before = store.statements
      await work()
      return store.statements - before
    }
    t.equal(await count(() => store.heartbeat('a', 1)), 2, 'one that stamps, and one that reads')
    t.equal(await count(() => store.heartbeat('a', 1)), 1, 'nothing is read when there was nothing to stamp')
    for (const read of [
      () => store.view('a'),
      () => store.look(),
      () => store.snapshot(),
      () => store.news('a'),
    ])
      t.equal(await count(read), 1)
    const rows = Array.from({ length: 900 }, (_, slot) => newLease(`l-${slot}`, { worker: 'w', slot }))
    const change = store.change({ node: 'a', operation: 2 }, async (change) => {
      await change.saveWorkers([newWorker('w')])
      await change.saveLeases(rows)
      await change.record(rows.map(({ key }) => ({ type: 'lease.acquired', subject: key })))
      await change.tell(new Set(['a', 'b']))
    })
    t.equal(
      await count(() => change),
      8,
      'three to begin, one to look for fences, and one for each table and for the news',
    )
  })

  t.test('who counts what nodes hold reads none of the leases that nobody has', async (t) => {
    const { url } = await useMysql(t)
    const store = await opened(t, url)
    await join(store, ['a', 'b'])
    await saveLeases(store, ...Array.from({ length: 3_000 }, (_, index) => newLease(`unused-${index}`)))
    await saveLeases(
      store,
      newLease('held', { holder: 'a' }),
      newLease('moving', { holder: 'a', target: 'b' }),
    )
    const client = await connected(t, url)
    await client.query('analyze table coordination_leases')
    const statement = loads(drizzle({ client }), { namespace, collation: sql`utf8mb4_bin` }).toSQL()
    const before = await rowsRead(client)
    await client.query(statement.sql, statement.params)
    const read = (await rowsRead(client)) - before
    t.ok(read < 1_000, `${read} rows were read, to count them included`)
  })

  t.test('who forgets nodes reads no lease that does not name them', async (t) => {
    const { url } = await useMysql(t)
    const store = await opened(t, url)
    const names = Array.from({ length: 40 }, (_, index) => `node-${index}`)
    await join(store, names)
    await saveLeases(store, ...Array.from({ length: 1_000 }, (_, index) => newLease(`unused-${index}`)))
    await saveLeases(store, newLease('held', { holder: 'node-0' }))
    await commit(store, async (change) => {
      for (const name of names) await change.bury(name)
    })
    const client = await connected(t, url)
    await client.query('analyze table coordination_leases, coordination_nodes')
    const statement = forgetNodes(
      drizzle({ client }),
      { namespace, collation: sql`utf8mb4_bin` },
      -1_000,
    ).toSQL()
    const before = await rowsRead(client)
    await client.query(statement.sql, statement.params)
    const read = (await rowsRead(client)) - before
    t.ok(read < 1_000, `${read} rows were read, to count them included`)
    t.match((await store.snapshot()).nodes, [{ id: 'node-0' }])
  })

  t.test('statements that are repeated are prepared on the server', async (t) => {
    const { url } = await useMysql(t)
    const [store, proxy] = await openedThroughProxy(t, url)
    await join(store, ['a'])
    let prepared = 0
    proxy.cutAtAnswer((bytes) => {
      if (answersPreparation(bytes)) prepared += 1
      return false
    })
    for (let beat = 1; beat < 6; beat += 1) {
      await store.heartbeat('a', beat)
      await store.view('a')
    }
    t.equal(prepared, 3, 'the two of the heartbeat, and the view')
  })

  t.test('the server says the same of itself on every connection', async (t) => {
    const { url } = await useMysql(t)
    const stores = await Promise.all([opened(t, url), opened(t, url)])
    const [first] = stores
    await join(first, ['a'])
    const identities = new Set<string>()
    for (const [index, store] of stores.entries()) {
      identities.add((await store.heartbeat('a', index + 1))?.serverIdentity ?? '')
      identities.add((await store.view('a'))?.serverIdentity ?? '')
    }
    t.equal(identities.size, 1)
    t.match([...identities][0], /.\.\d{10}$/, 'who it is, and since when')
  })

  t.test('a store outlives the end of all its connections while they are idle', async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    const warnings: string[] = []
    const store = await opened(t, url, { onWarning: (message) => warnings.push(message) })
    await join(store, ['a'])
    await store.heartbeat('a', 1)
    t.ok((await killStores(admin)) >= 2)
    await eventually(() => warnings.length === 1)
    t.match(await store.heartbeat('a', 2), { state: 'active' })
    t.equal(await join(store, ['b']), 2)
  })

  t.test('while no connection can be made nothing happens, and afterwards all goes on', async (t) => {
    const { url } = await useMysql(t)
    const warnings: string[] = []
    const onWarning = (message: string) => warnings.push(message)
    const [store, proxy] = await openedThroughProxy(t, url, { onWarning })
    await join(store, ['a'])
    proxy.refuse()
    await eventually(() => warnings.length > 0)
    const verbs = [
      () => store.heartbeat('a', 1),
      () => store.heartbeat('a', 2),
      () => store.view('a'),
      () => join(store, ['b']),
    ]
    for (const verb of verbs) t.match(await rejectionOf(verb()), { name: 'StoreError', outcome: 'none' })
    proxy.cut()
    t.match(await store.heartbeat('a', 3), { state: 'active' })
    t.equal(await join(store, ['b']), 2)
  })

  t.test('a change whose connection ends is undone, and says so', async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    const store = await opened(t, url)
    await join(store, ['a'])
    const error = await rejectionOf(
      store.change(undefined, async (change) => {
        await change.addNode(newNode('b'), 1)
        await killStores(admin)
        await eventually(async () => (await storeProcesses(admin)).length <= 1)
        await change.addNode(newNode('c'), 1)
      }),
    )
    t.match(error, { name: 'StoreError', outcome: 'none' })
    t.equal(await join(store, ['d']), 2)
    t.same(
      (await store.snapshot()).nodes.map(({ id }) => id),
      ['a', 'd'],
    )
  })

  t.test('when the network swallows everything each verb ends, and later all is well again', async (t) => {
    const { url } = await useMysql(t)
    const [store, proxy] = await openedThroughProxy(t, url, { statementTimeoutMs: 1_000 })
    await join(store, ['a'])
    await store.heartbeat('a', 1)
    proxy.goSilent()
    const outcomes = {
      heartbeat: await rejectionOf(store.heartbeat('a', 2)),
      change: await rejectionOf(saveLeases(store, newLease('l'))),
      view: await rejectionOf(store.view('a')),
      secondHeartbeat: await rejectionOf(store.heartbeat('a', 3)),
    }
    t.match(outcomes, {
      heartbeat: { name: 'StoreError', outcome: 'unknown' },
      change: { name: 'StoreError', outcome: 'none' },
      view: { name: 'StoreError', outcome: 'none' },
      secondHeartbeat: { name: 'StoreError', outcome: 'none' },
    })
    proxy.cut()
    t.ok(await eventually(() => store.heartbeat('a', 4).catch(() => undefined)))
    await eventually(() => saveLeases(store, newLease('l')).catch(() => undefined))
    t.ok(await store.view('a'))
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

  t.test('a commit that nobody answers may have happened', async (t) => {
    const { url } = await useMysql(t)
    const [store, proxy] = await openedThroughProxy(t, url, { statementTimeoutMs: 2_000 })
    await join(store, ['a'])
    // Only the commit of this change is left when the answers stop.
    const error = await rejectionOf(
      store.change(undefined, async (change) => {
        await change.saveLeases([newLease('l')])
        await change.nodes()
        proxy.toClient.drop()
      }),
    )
    t.match(error, { name: 'StoreError', outcome: 'unknown' })
    const direct = await opened(t, url)
    await eventually(async () => (await direct.snapshot()).leases.length === 1)
  })

  t.test('a process that freezes in the middle of a change does not stop the others', async (t) => {
    const { url } = await useMysql(t)
    const [frozen, proxy] = await openedThroughProxy(t, url, { statementTimeoutMs: 3_000 })
    const other = await opened(t, url, { statementTimeoutMs: 20_000 })
    await join(other, ['a'])
    const begun = gate()
    const thawed = gate()
    const change = rejectionOf(
      frozen.change(undefined, async (change) => {
        await change.addNode(newNode('frozen'), 1)
        begun.open()
        await thawed.opened
        await change.addNode(newNode('thawed'), 1)
      }),
    )
    await begun.opened
    proxy.toServer.hold()
    t.equal(await join(other, ['b']), 2)
    proxy.toServer.release()
    thawed.open()
    t.match(await change, { name: 'StoreError', outcome: 'none' })
    t.same(
      (await other.snapshot()).nodes.map(({ id }) => id),
      ['a', 'b'],
    )
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

  t.test('a change gives up waiting for a revision row that is held by force', async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    const store = await opened(t, url, { statementTimeoutMs: 2_000 })
    await join(store, ['a'])
    await admin.query('begin')
    await admin.query('select * from coordination_meta for update')
    t.match(await rejectionOf(join(store, ['b'])), {
      name: 'StoreError',
      outcome: 'none',
      message: /Another transaction holds a lock, .*: SHOW FULL PROCESSLIST shows it\.$/,
    })
    t.ok(await store.heartbeat('a', 1), 'heartbeats wait for no change')
    await admin.query('rollback')
    t.equal(await join(store, ['b']), 2)
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

  t.test('a change that the database undoes for the sake of another is made again', async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    const store = await opened(t, url)
    await failInserts(admin, 1213, 2)
    let tries = 0
    const revision = await commit(store, async (change) => {
      tries += 1
      await change.record([{ type: 'thing.happened', subject: 'a' }])
    })
    t.equal(tries, 3)
    t.equal(revision, 1)
    t.equal((await store.events({ limit: 10 })).length, 1)
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

  t.test('what is read and locked is found by its index, and nobody else is in the way', async (t) => {
    const { url } = await useMysql(t)
    const store = await opened(t, url)
    const neighbour = await opened(t, url, { namespace: 'another shop' })
    for (const each of [store, neighbour]) {
      await saveLeases(
        each,
        ...Array.from({ length: 50 }, (_, index) => newLease(`l-${index}`, { holder: 'a' })),
      )
    }
    await store.change(undefined, async (change) => {
      t.equal((await change.leases({ nodes: ['a'] })).filter(({ fenced }) => fenced).length, 0)
      const { result } = await neighbour.change(undefined, (other) => other.leases({ nodes: ['a'] }))
      t.equal(result.length, 50)
      t.equal(
        result.filter(({ fenced }) => fenced).length,
        0,
        'the locks of one namespace are not in the other',
      )
    })
  })

  t.test("names are told apart byte by byte, whatever the database's own collation", async (t) => {
    const { url } = await useMysql(t)
    const admin = await connected(t, url)
    await admin.query('alter database character set latin1 collate latin1_swedish_ci')
    const store = await opened(t, url)
    const ids = ['node', 'Node', 'node ', 'n\u00f6de', '\u8282\u70b9', '\ud83d\ude80']
    await join(store, ids, { workers: ids })
    await commit(store, (change) => change.saveMeta({ watchers: ids }))
    await commit(store, (change) => change.saveWorkers(ids.map((key) => newWorker(key))))
    t.same((await store.heartbeat('node', 1))?.watchers.map(({ id }) => id).sort(), ids.slice(1).sort())
    t.same((await store.view('node'))?.workers.map(({ key }) => key).sort(), [...ids].sort())
  })

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

  t.test('opening', async (t) => {
    t.test('a database that cannot be reached is named, and never with the password', async (t) => {
      const { url } = await useMysql(t)
      const missing = new URL(url)
      missing.pathname = '/not_there'
      const { hostname, port } = new URL(url)
      for (const [database, expected] of [
        [
          'mysql://someone:hunter2@127.0.0.1:1/shop',
          { name: 'StoreError', message: /"shop" at 127.0.0.1:1 .*ECONNREFUSED.* Check host and port/ },
        ],
        [missing.href, { name: 'StoreError', message: /"not_there" at .* Create the database/ }],
        [
          `mysql://nobody:hunter2@${hostname}:${port || 3306}/shop`,
          {
            name: 'StoreError',
            message: /Check the user and the password, and whether the server wants SSL/,
          },
        ],
        ['mysql://someone:hunter2@127.0.0.1:99999/shop', { code: 'WCO_OPTIONS' }],
        ['mysql://someone:%hunter2@127.0.0.1/shop', { code: 'WCO_OPTIONS' }],
        [
          'mysql://someone:hunter2@127.0.0.1/shop?multipleStatements=true',
          { code: 'WCO_OPTIONS', message: /"multipleStatements"/ },
        ],
        [
          'mysql://someone:hunter2@127.0.0.1:1/shop?ssl=false',
          { name: 'StoreError', message: /ECONNREFUSED/ },
        ],
        ['mysql://someone:hunter2@127.0.0.1/shop?ssl={', { code: 'WCO_OPTIONS', message: /"ssl"/ }],
      ] as const) {
        const error = await rejectionOf(openMysqlStore(options(database)))
        t.type(error, CoordinationError)
        t.match(error, expected)
        t.notMatch(describe(error), /hunter2/)
      }
    })

    t.test("a limit of a user's connections is named with what raises it", async (t) => {
      const { url } = await useMysql(t)
      const admin = await connected(t, url)
      const clerk = await useUser(t, admin, url)
      await admin.query(`alter user ${clerk.user} with max_user_connections 1`)
      await connected(t, clerk.url)
      t.match(await rejectionOf(openMysqlStore(options(clerk.url, { statementTimeoutMs: 500 }))), {
        name: 'StoreError',
        message: /max_user_connections.* Raise the user's max_user_connections/,
      })
    })

    t.test('a database that does not answer ends the attempt', async (t) => {
      const { url } = await useMysql(t)
      const proxy = await useProxy(t, addressOf(url))
      proxy.goSilent()
      const error = await rejectionOf(
        openMysqlStore(options(through(proxy, url), { statementTimeoutMs: 500 })),
      )
      t.match(error, { name: 'StoreError', outcome: 'none' })
      await eventually(() => proxy.connections === 0, { until: 'nothing is left open' })
    })

    t.test('a server that is too old is refused, and told which would do', async (t) => {
      const { url } = await useMysql(t)
      const proxy = await useProxy(t, addressOf(url))
      proxy.cutAtAnswer((bytes) => madeOld(bytes) && false)
      t.match(await rejectionOf(openMysqlStore(options(through(proxy, url)))), {
        name: 'StoreError',
        outcome: 'none',
        message: /MySQL 8\.0\.17 or MariaDB 10\.6/,
      })
    })

    t.test('a user who may create nothing can run a store once the schema is there', async (t) => {
      const { url } = await useMysql(t)
      const admin = await connected(t, url)
      const clerk = await useUser(t, admin, url)
      const refused = await rejectionOf(openMysqlStore(options(clerk.url)))
      t.match(refused, { code: 'WCO_SCHEMA_PENDING', message: /migrationSql\('mysql'\)/ })
      await (await opened(t, url)).close()
      await admin.query(`grant insert on worker_coordination_migrations to ${clerk.user}`)
      t.match(await rejectionOf(openMysqlStore(options(clerk.url))), {
        code: 'WCO_STORE',
        message:
          /^Opening the store failed: .*denied .+\. Grant the user the rights that docs\/databases\/mysql\.md lists\.$/,
      })
      await admin.query(`grant select on worker_coordination_migrations to ${clerk.user}`)
      const cut = await rejectionOf(join(await opened(t, clerk.url), ['a']))
      t.match(cut, {
        code: 'WCO_STORE',
        message: /denied .+\. Grant the user the rights that docs\/databases\/mysql\.md lists\.$/,
      })
      for (const grant of await documentedGrants('mysql', 'app', clerk.user, nameIn(url))) {
        await admin.query(grant)
      }
      const store = await opened(t, clerk.url, { migrate: false })
      await join(store, ['a'])
      await saveLeases(store, newLease('l', { holder: 'a', token: 1 }))
      t.match((await store.heartbeat('a', 1))?.serverIdentity, /.\.\d{10}$/)
      await store.prune({ eventsForMs: 0, events: 0, goneNodesForMs: 0 })
      await commit(store, (change) => change.deleteLeases(['l']))
    })

    t.test('a user who only fences needs to read one table and to lock in it', async (t) => {
      const { url } = await useMysql(t)
      const admin = await connected(t, url)
      const store = await opened(t, url)
      await join(store, ['a'])
      await saveLeases(store, newLease('l', { holder: 'a', token: 1 }))
      const { user, url: reports } = await useUser(t, admin, url)
      for (const grant of await documentedGrants('mysql', 'reports', user, nameIn(url))) {
        await admin.query(grant)
      }
      const client = await connected(t, reports)
      await client.query('begin')
      await store.fence(client, { key: 'l', node: 'a', token: 1 })
      await client.query('commit')
    })
  })

  t.test('a connection keeps to our settings, whatever those of the server are', async (t) => {
    const { url } = await useMysql(t)
    const client = await connected(t, url)
    const settings = (await examine(client)).settings(limitsWithin(3_000))
    await client.query(`set names latin1, autocommit = 0, completion_type = 'CHAIN', wait_timeout = 2,
      sql_select_limit = 3, max_join_size = 1, sql_big_selects = 0, sql_safe_updates = 1, sql_mode = 'ANSI'`)
    for (const statement of settings) await client.query(statement)
    const here = `concat_ws(' ', @@character_set_client, @@character_set_connection, @@character_set_results,
      @@autocommit + 0, @@completion_type, @@sql_select_limit, @@sql_big_selects + 0, @@sql_safe_updates + 0,
      @@sql_mode)`
    t.equal(
      await only(client, `select ${here}`),
      'utf8mb4 utf8mb4 utf8mb4 1 NO_CHAIN 18446744073709551615 1 0 STRICT_ALL_TABLES',
    )
    t.equal(await only(client, 'select @@wait_timeout'), 28_800, 'heartbeats may be far apart')
  })

  t.test('migrations', async (t) => {
    t.test('have one statement each', async (t) => {
      for (const { name, statements } of shippedMigrations('mysql')) t.equal(statements.length, 1, name)
    })

    t.test('what fails can be mended and gone on with, and what came before it stays', async (t) => {
      const { target, admin } = await useTarget(t)
      const first = { name: '1', statements: ['create table first (id int)'] }
      const broken = { name: '2', statements: ['create nonsense'] }
      const mended = { name: '2', statements: ['create table second (id int)'] }
      const apply = (...steps: { name: string; statements: string[] }[]) =>
        applyMigrations('mysql', steps, target, { migrate: true })
      t.match(await rejectionOf(apply(first, broken)), { code: 'WCO_SCHEMA_PENDING', message: /nonsense/ })
      t.equal(await only(admin, `select group_concat(name) from ${journalTable}`), '1')
      await apply(first, mended)
      t.equal(await only(admin, `select group_concat(name order by name) from ${journalTable}`), '1,2')
    })

    t.test('have time, however little the server gives a statement', async (t) => {
      const { url } = await useMysql(t)
      const admin = await connected(t, url)
      if (!/mariadb/i.test(String(await only(admin, 'select version()')))) return
      const pool = createPool(url)
      pool.pool.on('connection', (client) => client.query('set max_statement_time = 1'))
      const connections = new PooledConnections(pool.pool, limitsWithin(30_000))
      t.teardown(() => connections.close())
      const step = { name: '1', statements: ['create table seen as select @@max_statement_time as limited'] }
      await applyMigrations('mysql', [step], migrationTarget(connections), { migrate: true })
      t.equal(Number(await only(admin, 'select limited from seen')), 120)
    })

    t.test('what a process did and died before it could note it is noted by the next', async (t) => {
      const { target, admin } = await useTarget(t)
      await admin.query('create table first (id int, more int, key found (id))')
      const steps = [
        'create table first (id int)',
        'alter table first add column more int',
        'create index found on first (id)',
      ].map((statement, index) => ({ name: String(index), statements: [statement] }))
      await applyMigrations('mysql', steps, target, { migrate: true })
      t.equal(await only(admin, `select count(*) from ${journalTable}`), 3)
    })
  })

  async function useTarget(t: Test) {
    const { url } = await useMysql(t)
    const connections = new PooledConnections(createPool(url).pool, limitsWithin(30_000))
    t.teardown(() => connections.close())
    return { admin: await connected(t, url), target: migrationTarget(connections) }
  }

  function options(
    database: MysqlOptions['database'] | object,
    more: Partial<MysqlOptions> = {},
  ): MysqlOptions {
    return {
      database: database as MysqlOptions['database'],
      namespace,
      statementTimeoutMs: 30_000,
      migrate: true,
      onWarning: () => undefined,
      ...more,
    }
  }

  async function opened(t: Test, url: string, more: Partial<MysqlOptions> = {}): Promise<MysqlStore> {
    const store = await openMysqlStore(options(url, more))
    t.teardown(() => store.close())
    return store
  }

  async function openedThroughProxy(
    t: Test,
    url: string,
    more: Partial<MysqlOptions> = {},
  ): Promise<[MysqlStore, TcpProxy]> {
    const proxy = await useProxy(t, addressOf(url))
    return [await opened(t, through(proxy, url), more), proxy]
  }
}

function addressOf(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port || 3306) }
}

function through(proxy: TcpProxy, url: string): string {
  const way = new URL(url)
  way.hostname = '127.0.0.1'
  way.port = String(proxy.port)
  return way.href
}

/** Makes any server look old: its variable `version` now begins with a five. */
function madeOld(bytes: Buffer): true {
  const name = Buffer.from('\x07version')
  const at = bytes.indexOf(name)
  if (at >= 0) bytes.write('5.5.5.', at + name.length + 1)
  return true
}

/** Returns how many rows this connection has read. */
async function rowsRead(client: Connection): Promise<number> {
  const [counts] = await client.query("show session status like 'Handler\\_read\\_%'")
  return (counts as { Value: string }[]).reduce((sum, { Value }) => sum + Number(Value), 0)
}

async function connected(t: Test, url: string): Promise<Connection> {
  const client = await createConnection(url)
  t.teardown(() => client.destroy())
  return client
}

function usePool(t: Test, url: string, more: object = {}): Pool {
  const pool = createPool({ uri: url, ...more })
  t.teardown(() => pool.end())
  return pool
}

/** Makes a user who may only read the journal of migrations, if there is one, and a table of another application. */
async function useUser(t: Test, admin: Connection, url: string) {
  const user = `clerk_${randomBytes(6).toString('hex')}`
  await admin.query(`create user ${user} identified by 'clerk'`)
  t.teardown(() => onServer(url, `drop user ${user}`))
  await admin.query(`grant select on ${journalTable} to ${user}`).catch(() => undefined)
  const theirs = new URL(url)
  await admin.query(`create table if not exists of_somebody (id int)`)
  await admin.query(`grant select on of_somebody to ${user}`)
  theirs.username = user
  theirs.password = 'clerk'
  return { user, url: theirs.href }
}

function nameIn(url: string): string {
  return new URL(url).pathname.slice(1)
}

async function onServer(url: string, sql: string): Promise<void> {
  const client = await createConnection(url)
  await client.query(sql)
  await client.end()
}

/** Counts the transactions in this database that wait for a row. */
const waiting = `
  select count(*) from information_schema.innodb_trx join information_schema.processlist on id = trx_mysql_thread_id
  where trx_state = 'LOCK WAIT' and db = database()`

async function only(client: Connection, sql: string): Promise<unknown> {
  const [rows] = await client.query({ sql, rowsAsArray: true })
  const [row] = Array.isArray(rows) ? rows : []
  return Array.isArray(row) ? row[0] : undefined
}

/** Returns whether the server says that it has prepared a statement: a packet of twelve bytes that begins with zero. */
function answersPreparation(bytes: Buffer): boolean {
  return bytes.length > 16 && bytes.readUIntLE(0, 3) === 12 && bytes[3] === 1 && bytes[4] === 0
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

/** Returns everything that a log of this error could show. */
function describe(error: unknown): string {
  const seen: unknown[] = []
  for (let at = error; at instanceof Error; at = at.cause) {
    seen.push(at.message, at.stack, JSON.stringify(at), Object.values(at))
  }
  return JSON.stringify(seen)
}
