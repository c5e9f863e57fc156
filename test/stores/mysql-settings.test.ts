/** Tests the store on MariaDB under settings of a whole server, on a server of the test's own. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openMysqlStore } from '../../plugin/stores/mysql/index.js'
import {
  commit,
  join as joined,
  newLease,
  rejectionOf,
  saveLeases,
} from '../../plugin/testing/conformance/world.js'
import { MariadbServer, withoutMariadb } from '../chaos/mariadb.js'

if (withoutMariadb) t.plan(0, withoutMariadb)
else tests()

function tests(): void {
  t.setTimeout(180_000)

  t.test('a store opens, migrates and works whatever the defaults of the server are', async (t) => {
    const server = await useServer(t)
    for (const [index, settings] of [
      { sql_select_limit: '1' },
      { sql_big_selects: '0', max_join_size: '1' },
      { init_connect: "'set names latin1, autocommit = 0, sql_select_limit = 0'" },
      { sql_mode: "'ORACLE,NO_BACKSLASH_ESCAPES,EMPTY_STRING_IS_NULL'", completion_type: "'CHAIN'" },
      { tx_isolation: "'SERIALIZABLE'", sql_safe_updates: '1', autocommit: '0' },
    ].entries()) {
      const url = await freshDatabase(server, `shop_${index}`)
      await setAll(server, settings)
      const what = JSON.stringify(settings)
      for (const node of ['a', 'b']) {
        const store = await openedAt(t, url)
        await joined(store, [node])
        await saveLeases(store, newLease('l', { holder: node }), newLease('m'))
        t.ok(await store.heartbeat(node, 1), what)
        await commit(store, (change) => change.deleteLeases(['m']))
        t.match((await store.snapshot()).leases, [{ key: 'l', holder: node }], what)
        await store.close()
      }
      await setAll(server, Object.fromEntries(Object.keys(settings).map((name) => [name, 'default'])))
    }
  })

  t.test(
    'tables that the server has made without transactions are refused until they are InnoDB',
    async (t) => {
      const server = await useServer(t)
      const url = await freshDatabase(server, 'shop')
      await setAll(server, { enforce_storage_engine: 'Aria' })
      t.match(await rejectionOf(openedAt(t, url)), {
        name: 'StoreError',
        outcome: 'none',
        message:
          /coordination_events \(Aria\), .*coordination_workers \(Aria\)\. Unset enforce_storage_engine/,
      })
      await setAll(server, { enforce_storage_engine: 'null' })
      const all = ['events', 'leases', 'meta', 'nodes', 'workers']
      for (const name of all) {
        t.match(await rejectionOf(openedAt(t, url)), { message: new RegExp(`needs: coordination_${name} `) })
        await server.query(`alter table shop.coordination_${name} engine = InnoDB`)
      }
      await joined(await openedAt(t, url), ['a'])
    },
  )

  t.test('a statement that is longer than the server takes is an error that names the limit', async (t) => {
    const server = await useServer(t)
    await server.query('set global max_allowed_packet = 16384')
    const store = await openedAt(t, await freshDatabase(server, 'shop'))
    const leases = Array.from({ length: 1_000 }, (_, index) => newLease(`lease-${index}`))
    t.match(await rejectionOf(saveLeases(store, ...leases)), {
      name: 'StoreError',
      outcome: 'none',
      message: /'max_allowed_packet' bytes\. Raise the server's max_allowed_packet\.$/,
    })
    await saveLeases(store, newLease('l'))
    t.match((await store.snapshot()).leases, [{ key: 'l' }])
  })
}

async function setAll(server: MariadbServer, settings: Readonly<Record<string, string>>): Promise<void> {
  const parts = Object.entries(settings).map(([name, value]) => `global ${name} = ${value}`)
  await server.query(`set ${parts.join(', ')}`)
}

async function useServer(t: Test): Promise<MariadbServer> {
  const folder = await mkdtemp(join(tmpdir(), 'coordination-mariadb-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const server = await MariadbServer.create({ folder: join(folder, 'server'), faketime: undefined })
  t.teardown(() => server.remove())
  return server
}

/** Creates a database for the user who has no right to override the server's settings. */
async function freshDatabase(server: MariadbServer, name: string): Promise<string> {
  await server.query(`create database ${name}`)
  await server.query(`grant all on ${name}.* to app@'127.0.0.1'`)
  const url = new URL(server.url)
  url.pathname = `/${name}`
  return url.href
}

async function openedAt(t: Test, database: string) {
  const common = { namespace: 'shop', statementTimeoutMs: 30_000, migrate: true }
  const store = await openMysqlStore({ ...common, database, onWarning: () => undefined })
  t.teardown(() => store.close())
  return store
}
