/** Tests the store on an application's pool of PostgreSQL, and behind a pooler. */
import { randomBytes } from 'node:crypto'
import pg, { type ClientBase } from 'pg'
import t from 'tap'
import { StoreError } from '../../plugin/core/errors.js'
import { commit, join, newLease, rejectionOf, saveLeases } from '../../plugin/testing/conformance/world.js'
import { endPool, usePostgres } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { throughProxy } from '../support/proxy.js'
import { connected, failInserts, onDatabase, opened, queriesOf, usePool } from './postgres-scene.js'

t.setTimeout(300_000)

t.test("an application's pool", async (t) => {
  t.test('serves the store and outlives it', async (t) => {
    const { url } = await usePostgres(t)
    const pool = usePool(t, url, { application_name: 'shop' })
    const store = await opened(t, pool)
    await join(store, ['a'])
    t.ok(await store.heartbeat('a', 1))
    t.ok(await store.view('a'))
    await store.prune({ eventsForMs: 0, events: 0, goneNodesForMs: 0 })
    const { rows } = await pool.query(
      "select count(*)::int as n from pg_stat_activity where application_name = 'shop' and datname = current_database()",
    )
    t.equal(rows[0].n, 2, 'one connection of the pool, and one for heartbeats')
    await store.close()
    await store.close()
    t.equal((await pool.query('select 1 as one')).rows[0].one, 1)
    t.equal(pool.listenerCount('error'), 0)
    const client = await pool.connect()
    t.equal(client.listenerCount('error'), 0)
    client.release()
    t.match(await rejectionOf(store.view('a')), { name: 'StoreError', outcome: 'none' })
  })

  t.test('that is used up by the application is said to be', async (t) => {
    const { url } = await usePostgres(t)
    const pool = usePool(t, url, { max: 1 })
    const store = await opened(t, pool, { statementTimeoutMs: 1_000 })
    const client = await pool.connect()
    await t.rejects(store.look(), { code: 'WCO_STORE', message: /it waited for a connection of the pool/ })
    client.release()
    t.ok(await store.look(), 'and serves again afterwards')
  })

  t.test('keeps its own settings', async (t) => {
    const { url } = await usePostgres(t)
    const pool = usePool(t, url, { max: 1 })
    const settings = async () =>
      (await pool.query("select name, setting from pg_settings where source in ('session', 'client')")).rows
    const before = await settings()
    const store = await opened(t, pool)
    await join(store, ['a'])
    await store.view('a')
    await store.look()
    t.same(await settings(), before)
  })

  t.test('may leave JSON and numbers as texts', async (t) => {
    const { url } = await usePostgres(t)
    const asText = new pg.TypeOverrides()
    for (const type of [20, 114, 1700, 3802]) asText.setTypeParser(type, String)
    const pool = usePool(t, url, { types: asText })
    const store = await opened(t, pool)
    await join(store, ['a'])
    const { result } = await store.change({ node: 'a', operation: 2 }, async ({ meta, session }) => ({
      revision: meta.revision,
      id: session?.id,
    }))
    t.same(result, { revision: 2, id: 'a' })
  })

  for (const [what, parse, only] of [
    ['everything as texts', String],
    ['whole numbers as BigInt', BigInt, [20, 21, 23]],
  ] as const) {
    t.test(`may read ${what}`, async (t) => {
      const { url } = await usePostgres(t)
      const warnings: string[] = []
      const onWarning = (message: string): void => void warnings.push(message)
      const types = new pg.TypeOverrides()
      for (const type of only ?? [16, 20, 23, 25, 114, 1700, 3802]) {
        types.setTypeParser<unknown>(type, parse)
      }
      for (const attempt of ['that migrates', 'that finds the tables']) {
        const store = await opened(t, usePool(t, url, { types }), { onWarning })
        t.ok(store.capabilities.push, attempt)
      }
      t.same(warnings, [])
    })
  }

  t.test('may rename the columns of every answer', async (t) => {
    const { url } = await usePostgres(t)
    const store = await opened(t, usePool(t, url, { Client: Renaming }))
    t.equal(await join(store, ['a']), 1)
    const { result } = await store.change(undefined, async ({ nowMs, serverIdentity }) => ({
      nowMs,
      serverIdentity,
    }))
    t.ok(result.nowMs > 0)
    t.equal(result.serverIdentity, (await store.heartbeat('a', 1))?.serverIdentity)
  })

  t.test('may find its schema by what it does to each connection', async (t) => {
    const { url } = await usePostgres(t)
    await (await connected(t, url)).query('create schema hidden')
    const pool = usePool(t, url)
    pool.on('connect', (client: ClientBase) => void client.query('set search_path = hidden'))
    const store = await opened(t, pool)
    await join(store, ['a'])
    t.ok(await store.heartbeat('a', 1))
    const { rows } = await pool.query("select from pg_tables where schemaname = 'hidden'")
    t.ok(rows.length > 0)
  })

  t.test('may take on a role with what it does to each connection', async (t) => {
    const { url } = await usePostgres(t)
    const role = `owner_${randomBytes(4).toString('hex')}`
    const login = `login_${randomBytes(4).toString('hex')}`
    const admin = await connected(t, url)
    await admin.query(`
      create role ${role};
      create role ${login} login noinherit password 'login' in role ${role};
      grant create on schema public to ${role}`)
    t.teardown(() => onDatabase(url, `drop owned by ${role}; drop role ${login}; drop role ${role}`))
    const clerks = new URL(url)
    clerks.username = login
    clerks.password = 'login'
    const pool = new pg.Pool({ connectionString: clerks.href })
    pool.on('connect', (client: ClientBase) => void client.query(`set role ${role}`))
    const store = await opened(t, pool)
    await join(store, ['a'])
    t.ok(await store.heartbeat('a', 1))
    await endPool(pool)
    t.match(await store.snapshot(), { nodes: [{ id: 'a' }] }, 'also where it has ended the pool')
  })

  t.test('may leave another search path on a connection', async (t) => {
    const { url } = await usePostgres(t)
    const pool = usePool(t, url, { max: 1 })
    const store = await opened(t, pool)
    await pool.query('create schema tenant; set search_path = tenant')
    t.equal(await join(store, ['a']), 1)
    t.match(await store.snapshot(), { nodes: [{ id: 'a' }] })
    t.equal((await pool.query('show search_path')).rows[0].search_path, 'tenant')
  })

  t.test('loses a connection that has failed, and no more', async (t) => {
    const { url } = await usePostgres(t)
    const admin = await connected(t, url)
    const pool = usePool(t, url, { max: 1 })
    const store = await opened(t, pool)
    await failInserts(admin, 'P0001', 1)
    t.type(
      await rejectionOf(commit(store, (change) => change.record([{ type: 'x', subject: 'y' }]))),
      StoreError,
    )
    t.equal((await pool.query('select 1 as one')).rows[0].one, 1)
    t.equal(await join(store, ['a']), 1)
  })

  t.test('that is ended while a verb waits for it is left as soon as it shows', async (t) => {
    const { url } = await usePostgres(t)
    const pool = new pg.Pool({ connectionString: url, max: 2 })
    const store = await opened(t, pool)
    await join(store, ['a'])
    const clients = [await pool.connect(), await pool.connect()]
    const changes = [join(store, ['b']), join(store, ['c'])]
    await eventually(() => pool.waitingCount === 2)
    const ended = endPool(pool)
    clients.pop()?.release()
    await Promise.all(changes)
    t.equal((await store.snapshot()).nodes.length, 3)
    clients.pop()?.release()
    await ended
    t.equal(pool.totalCount, 0, 'no connection of it is kept')
  })

  t.test('that is ended gets back the connection that it was making for a verb', async (t) => {
    const { url } = await usePostgres(t)
    const { proxy, url: proxied } = await throughProxy(t, url)
    const pool = new pg.Pool({ connectionString: proxied, max: 2 })
    const store = await opened(t, pool)
    await join(store, ['a'])
    const lent = await pool.connect()
    proxy.toClient.hold()
    const changes = [join(store, ['b'])]
    await eventually(() => pool.totalCount === 2)
    const ended = pool.end()
    changes.push(join(store, ['c']))
    proxy.toClient.release()
    await Promise.all(changes)
    lent.release()
    await eventually(() => pool.totalCount === 0)
    await ended
  })

  t.test('that is used up makes a verb fail in time and not for ever', async (t) => {
    const { url } = await usePostgres(t)
    const pool = usePool(t, url, { max: 1 })
    const store = await opened(t, pool, { statementTimeoutMs: 1_000 })
    const client = await pool.connect()
    t.match(await rejectionOf(store.view('a')), { name: 'StoreError', outcome: 'none' })
    client.release()
    t.equal(await store.view('a'), undefined)
    t.equal(pool.idleCount, 1)
  })
})

t.test('behind a pooler', async (t) => {
  const { url } = await usePostgres(t)
  const { proxy, url: way } = await throughProxy(t, url)
  proxy.cutAtAnswer((bytes) => disguised(bytes) && false)
  const warnings: string[] = []
  const store = await opened(t, way, { onWarning: (message) => warnings.push(message) })
  await join(store, ['a'])
  t.ok(await store.heartbeat('a', 1))
  t.ok(await store.view('a'))
  await store.look()
  await saveLeases(store, newLease('l', { holder: 'a' }))
  await store.prune({ eventsForMs: 0, events: 0, goneNodesForMs: 0 })

  t.test('nothing is pushed, and the application is told', async (t) => {
    t.equal(store.capabilities.push, false)
    t.match(warnings, [/pooler/])
  })

  t.test('no connection is given names or settings that another client might meet', async (t) => {
    const sent = await queriesOf(async () => {
      await store.heartbeat('a', 2)
      await store.view('a')
    })
    t.same(
      sent.map(({ name, text }) => `${name} ${text.split(/[ \n]/)[0]}`),
      [' with', 'undefined begin', ' with', 'undefined commit'],
    )
  })
})

/** Changes the process number that the server gives to a new connection. A pooler makes up its own. */
function disguised(bytes: Buffer): true {
  const at = bytes.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]))
  if (at >= 0) bytes.writeInt32BE(1, at + 5)
  return true
}

/** Renames columns as the package `pg-camelcase` does for a whole application. */
class Renaming extends pg.Client {
  override query(...args: unknown[]): never {
    const answer: unknown = Reflect.apply(super.query, this, args)
    return (answer instanceof Promise ? answer.then(renamed) : answer) as never
  }
}

function renamed(answer: pg.QueryResult | pg.QueryResult[]) {
  for (const result of [answer].flat()) {
    result.rows = result.rows.map((row) => {
      if (Array.isArray(row)) return row
      const entries = Object.entries(row)
      return Object.fromEntries(
        entries.map(([name, value]) => [name.replace(/_(\w)/g, (_, next) => next.toUpperCase()), value]),
      )
    })
  }
  return answer
}
