/** Tests opening a store on PostgreSQL: errors, roles, start-ups at once, and databases with defaults of their own. */
import { randomBytes } from 'node:crypto'
import pg, { type Client } from 'pg'
import t, { type Test } from 'tap'
import { openPostgresStore } from '../../plugin/stores/postgres/index.js'
import { migrationSql } from '../../plugin/stores/shared/migrate.js'
import { join, rejectionOf } from '../../plugin/testing/conformance/world.js'
import { usePostgres, usePostgresCluster } from '../support/databases.js'
import { describe } from '../support/errors.js'
import { eventually } from '../support/eventually.js'
import { throughProxy } from '../support/proxy.js'
import {
  connected,
  onDatabase,
  opened,
  options,
  storeProcesses,
  usePool,
  withSearchPath,
} from './postgres-scene.js'

t.setTimeout(300_000)

t.test('opening', async (t) => {
  t.test(
    'a database that cannot be reached is named, with what to check, and never with the password',
    async (t) => {
      const { url } = await usePostgres(t)
      const missing = new URL(url)
      missing.pathname = '/not_there'
      missing.password ||= 'hunter2'
      for (const [database, expected] of [
        [
          'postgres://someone:hunter2@127.0.0.1:1/shop',
          /"shop" at 127.0.0.1:1 .*ECONNREFUSED.* Check host and port/,
        ],
        ['postgres://someone:hunter2@localhost:1/shop', /"shop" at localhost:1 .*ECONNREFUSED/],
        [missing.href, /"not_there" at .* Create the database/],
      ] as const) {
        const error = await rejectionOf(openPostgresStore(options(database)))
        t.match(error, { name: 'StoreError', outcome: 'none', message: expected })
        t.notMatch(`${describe(error)}`, new RegExp(missing.password))
      }
      const unreadable = await rejectionOf(
        openPostgresStore(options('postgres://someone:hunter2@127.0.0.1:99999/shop')),
      )
      t.match(unreadable, { name: 'CoordinationError', code: 'WCO_OPTIONS' })
      t.notMatch(describe(unreadable), /hunter2/)
    },
  )

  t.test('a limit of connections is named with what raises it', async (t) => {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    const role = `few_${randomBytes(6).toString('hex')}`
    await admin.query(`create role ${role} login password 'few' connection limit 0`)
    t.teardown(() => onDatabase(url, `drop role ${role}`))
    const theirs = new URL(url)
    theirs.username = role
    theirs.password = 'few'
    const refused = (): Promise<unknown> =>
      rejectionOf(openPostgresStore(options(theirs.href, { statementTimeoutMs: 500 })))
    t.match(await refused(), { message: /too many connections for role .* Raise the role's limit/ })
    await admin.query(`alter role ${role} connection limit -1`)
    await admin.query(`alter database ${theirs.pathname.slice(1)} connection limit 0`)
    t.match(await refused(), { message: /too many connections for database .* Raise the database's limit/ })
  })

  t.test('any number of processes may start at once on an empty database', async (t) => {
    const { url } = await usePostgres(t)
    const stores = await Promise.all(Array.from({ length: 8 }, () => opened(t, url)))
    const revisions = await Promise.all(stores.map((store, index) => join(store, [`node-${index}`])))
    t.same(
      revisions.sort((a, b) => a - b),
      [1, 2, 3, 4, 5, 6, 7, 8],
    )
  })

  t.test('a server that takes no notice of advisory locks is not migrated by itself', async (t) => {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    await admin.query(`
      create schema deaf;
      create function deaf.pg_advisory_xact_lock(bigint) returns void language sql as 'select'`)
    const deaf = withSearchPath(url, 'deaf, pg_catalog, public')
    const error = await rejectionOf(openPostgresStore(options(deaf)))
    t.match(error, {
      code: 'WCO_SCHEMA_PENDING',
      message: /no notice of advisory locks.*migrationSql\('postgres'\)/,
    })
    const { rows } = await admin.query("select from pg_class where relname = 'coordination_nodes'")
    t.equal(rows.length, 0, 'nothing was made')
    await admin.query(`set search_path = deaf, pg_catalog, public; ${migrationSql('postgres')}`)
    await join(await opened(t, deaf), ['a'])
  })

  t.test('a connection that is ended in the same breath as it is welcomed ends no process', async (t) => {
    const { url } = await usePostgres(t)
    const { proxy, url: way } = await throughProxy(t, url)
    const welcome = Buffer.from('R\0\0\0\x08\0\0\0\0', 'latin1')
    const fields = 'SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0'
    const farewell = Buffer.from(`E\0\0\0${String.fromCharCode(fields.length + 4)}${fields}`, 'latin1')
    proxy.toClient.alter((bytes) => (bytes.includes(welcome) ? Buffer.concat([bytes, farewell]) : bytes))
    const error = await rejectionOf(openPostgresStore(options(way, { statementTimeoutMs: 500 })))
    t.match(error, { name: 'StoreError' })
  })

  t.test('a server that cannot pass over locked rows is refused when the store opens', async (t) => {
    const { url } = await usePostgres(t)
    await (await opened(t, url)).close()
    const { proxy, url: way } = await throughProxy(t, url)
    proxy.toServer.swap('skip locked', 'skip nobody')
    const error = await rejectionOf(openPostgresStore(options(way)))
    t.match(error, { name: 'StoreError', message: /SKIP LOCKED/ })
  })

  t.test('a role that may not look at the log, nor create anything, can run a store', async (t) => {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    const privileged = await opened(t, url)
    const role = `clerk_${randomBytes(6).toString('hex')}`
    await admin.query(`create role ${role} login password 'clerk'`)
    t.teardown(() => onDatabase(url, `drop owned by ${role}; drop role ${role}`))
    await admin.query(`
      grant usage on schema public to ${role};
      grant select, insert, update, delete on all tables in schema public to ${role};
      revoke create on schema public from public;
      revoke execute on function pg_current_wal_lsn() from public`)
    const clerks = new URL(url)
    clerks.username = role
    clerks.password = 'clerk'
    const store = await opened(t, clerks.href)
    await join(store, ['a'])
    const [mine, theirs] = await Promise.all([store.heartbeat('a', 1), privileged.view('a')])
    t.match(mine?.serverIdentity, /^\d+$/)
    t.match(theirs?.serverIdentity, /^\d+\.[0-9A-F]{8}$/)

    const { serverIdentity: full = '' } = theirs ?? {}
    const [started] = full.split('.')
    const identityOnRecord = async (record: string) => {
      await privileged.change(undefined, (change) => change.saveMeta({ serverIdentity: record }))
      const { result } = await store.change(undefined, async ({ serverIdentity }) => serverIdentity)
      t.equal((await store.view('a'))?.serverIdentity, result)
      t.equal((await store.heartbeat('a', ++beat))?.serverIdentity, result)
      return result
    }
    let beat = 1
    t.equal(await identityOnRecord(full), full, 'it goes by what another role has seen and recorded')
    t.equal(await identityOnRecord(`${full}#7@1000`), full, 'also where the record is doubted')
    t.equal(await identityOnRecord(`${started}`), started)
    t.equal(await identityOnRecord(`${started}#7@1000`), started)
    t.equal(
      await identityOnRecord(`${started}0.00000001`),
      started,
      'but not of a server started at another time',
    )
  })

  t.test('a connection bears the name of this library, unless the application has given one', async (t) => {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    await opened(t, url)
    t.ok((await storeProcesses(admin)).length > 0)
    const named = new URL(url)
    named.searchParams.set('application_name', 'shop')
    await opened(t, named.href)
    const { rows } = await admin.query(
      "select from pg_stat_activity where application_name = 'shop' and datname = current_database()",
    )
    t.ok(rows.length > 0)
  })
})

t.test('whatever the defaults of the database are', async (t) => {
  async function useStrict(t: Test) {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    const database = new URL(url).pathname.slice(1)
    await admin.query(`
      alter database ${database} set default_transaction_isolation = serializable;
      alter database ${database} set idle_session_timeout = '1min'`)
    return { url, admin }
  }

  async function waiting(admin: Client): Promise<number> {
    const { rows } = await admin.query(
      "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
    )
    return rows.length
  }

  t.test('a process that waits while another one migrates finds the work done', async (t) => {
    const { url, admin } = await useStrict(t)
    await admin.query(`select pg_advisory_lock(${migrationLock})`)
    const opening = [opened(t, url), opened(t, url)]
    await eventually(async () => (await waiting(admin)) === 2)
    await admin.query(`select pg_advisory_unlock(${migrationLock})`)
    t.equal((await Promise.all(opening)).length, 2)
  })

  t.test('a heartbeat that meets a change of its node waits and is answered', async (t) => {
    const { url, admin } = await useStrict(t)
    // Within a transaction a look at the others stays as it was.
    const watcher = await connected(t, url)
    const store = await opened(t, url)
    await join(store, ['a'])
    await admin.query('begin isolation level read committed')
    await admin.query("update coordination_nodes set news_revision = 7 where id = 'a'")
    const heartbeat = store.heartbeat('a', 1)
    await eventually(async () => (await waiting(watcher)) === 1)
    await admin.query('commit')
    t.match(await heartbeat, { newsRevision: 7 })
  })

  t.test('the connection for heartbeats may be idle for as long as it likes', async (t) => {
    const { url } = await useStrict(t)
    const clients: Client[] = []
    class Noted extends pg.Client {
      constructor(config?: string | pg.ClientConfig) {
        super(config)
        clients.push(this)
      }
    }
    const pool = usePool(t, url, { Client: Noted, max: 1 })
    await opened(t, pool)
    const heartbeats = clients.at(-1)
    t.equal((await heartbeats?.query('show idle_session_timeout'))?.rows[0].idle_session_timeout, '0')
    t.equal((await pool.query('show idle_session_timeout')).rows[0].idle_session_timeout, '1min')
  })

  t.test('a change waits for another one for longer than the server gives a transaction', async (t) => {
    const { url } = await usePostgresCluster(t, { transaction_timeout: '1s' })
    const admin = await connected(t, url)
    // Within a transaction a look at the others stays as it was.
    const watcher = await connected(t, url)
    for (const database of [url, usePool(t, url)]) {
      const store = await opened(t, database)
      await store.change(undefined, (change) => change.saveMeta({ tokenFloor: 0 }))
      await admin.query('set transaction_timeout = 0; begin; update coordination_meta set token_floor = 1')
      const change = store.change(undefined, (change) => change.saveMeta({ tokenFloor: 2 }))
      const isLate = async () => {
        const late = "wait_event_type = 'Lock' and clock_timestamp() > xact_start + interval '1.1 s'"
        return (await watcher.query(`select from pg_stat_activity where ${late}`)).rows.length === 1
      }
      await Promise.race([change, eventually(isLate)])
      await admin.query('commit')
      t.match(await change, { committed: true })
      await store.close()
    }
  })
})

t.test(
  'a database in another encoding is used with a warning, and a text it cannot hold is told',
  async (t) => {
    const { url } = await usePostgres(t)
    const inLatin1 = new URL(url)
    inLatin1.pathname += '_latin1'
    const name = inLatin1.pathname.slice(1)
    const admin = await connected(t, url)
    await admin.query(`create database "${name}" encoding 'LATIN1' locale 'C' template template0`)
    t.teardown(async () => {
      const owner = new pg.Client(url)
      await owner.connect()
      await owner.query(`drop database "${name}" with (force)`)
      await owner.end()
    })
    const warnings: string[] = []
    const store = await opened(t, inLatin1.href, { onWarning: (text: string) => void warnings.push(text) })
    t.match(warnings, [/encoded in LATIN1: reasons, actors and labels with characters it lacks are refused/])
    await join(store, ['a'])
    const noted = (reason: string) =>
      store.change(undefined, (change) => change.record([{ type: 'thing.happened', subject: 'a', reason }]))
    await noted('hängt')
    await t.rejects(noted('hängt → neu'), {
      code: 'WCO_STORE',
      message: /Use other characters, or a database in UTF8/,
    })
    await store.close()
  },
)

/** The number that a migration locks. */
const migrationLock = 726_415_927_301
