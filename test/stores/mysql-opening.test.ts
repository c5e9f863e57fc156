/** Tests opening a store on MySQL and MariaDB: errors, rights, settings and migrations. */
import { randomBytes } from 'node:crypto'
import { type Connection, createConnection, createPool } from 'mysql2/promise'
import t, { type Test } from 'tap'
import { CoordinationError } from '../../plugin/core/errors.js'
import { examine } from '../../plugin/stores/mysql/capabilities.js'
import { PooledConnections } from '../../plugin/stores/mysql/connections.js'
import { openMysqlStore } from '../../plugin/stores/mysql/index.js'
import { migrationTarget } from '../../plugin/stores/mysql/migrations.js'
import { limitsWithin } from '../../plugin/stores/shared/limits.js'
import { applyMigrations, journalTable, shippedMigrations } from '../../plugin/stores/shared/migrate.js'
import { commit, join, newLease, rejectionOf, saveLeases } from '../../plugin/testing/conformance/world.js'
import { useMysql, withoutMysql } from '../support/databases.js'
import { describe } from '../support/errors.js'
import { throughProxy } from '../support/proxy.js'
import { documentedGrants } from '../support/rights.js'
import { connected, only, opened, options } from './mysql-scene.js'

if (withoutMysql) t.plan(0, withoutMysql)
else tests()

function tests(): void {
  t.setTimeout(180_000)

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

    t.test(
      'a server that wants SSL gets it, and one whose certificate is not trusted is refused',
      async (t) => {
        const { url } = await useMysql(t)
        const admin = await connected(t, url)
        const clerk = await useUser(t, admin, url)
        await admin.query(`grant all on ${nameIn(url)}.* to ${clerk.user}`)
        await admin.query(`alter user ${clerk.user} require ssl`)
        const open = (ssl: string) => openMysqlStore(options(`${clerk.url}?ssl=${encodeURIComponent(ssl)}`))
        const untrusted = await rejectionOf(open('true'))
        if (/does not support secure/.test(describe(untrusted))) return t.plan(0, 'This server has no SSL')
        t.match(untrusted, { name: 'StoreError', message: /certificate.*"ssl" says: docs\/databases/ })
        t.match(await rejectionOf(open('false')), {
          name: 'StoreError',
          message: /whether the server wants SSL/,
        })
        const store = await open('{"rejectUnauthorized":false}')
        t.teardown(() => store.close())
        t.equal(await join(store, ['a']), 1)
      },
    )

    t.test('a server that is too old is refused, and told which would do', async (t) => {
      const { url } = await useMysql(t)
      const { proxy, url: way } = await throughProxy(t, url)
      proxy.cutAtAnswer((bytes) => madeOld(bytes) && false)
      t.match(await rejectionOf(openMysqlStore(options(way))), {
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
      if (!/mariadb/i.test(String(await only(admin, 'select version()'))))
        return t.plan(0, 'MySQL limits nothing but reads')
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
}

async function useTarget(t: Test) {
  const { url } = await useMysql(t)
  const connections = new PooledConnections(createPool(url).pool, limitsWithin(30_000))
  t.teardown(() => connections.close())
  return { admin: await connected(t, url), target: migrationTarget(connections) }
}

/** Makes any server look old: its variable `version` now begins with a five. */
function madeOld(bytes: Buffer): true {
  const name = Buffer.from('\x07version')
  const at = bytes.indexOf(name)
  if (at >= 0) bytes.write('5.5.5.', at + name.length + 1)
  return true
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
