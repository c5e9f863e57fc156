/** Tests the statements of the store on MySQL and MariaDB: how many they are, what they read and what they lock. */
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/mysql2'
import type { Connection } from 'mysql2/promise'
import t, { type Test } from 'tap'
import { loads } from '../../plugin/stores/mysql/change-queries.js'
import type { MysqlOptions } from '../../plugin/stores/mysql/index.js'
import type { MysqlStore } from '../../plugin/stores/mysql/store.js'
import { forgetNodes } from '../../plugin/stores/mysql/verb-queries.js'
import { commit, join, newLease, newWorker, saveLeases } from '../../plugin/testing/conformance/world.js'
import { useMysql, withoutMysql } from '../support/databases.js'
import { type TcpProxy, throughProxy } from '../support/proxy.js'
import { connected, namespace, opened } from './mysql-scene.js'

if (withoutMysql) t.plan(0, withoutMysql)
else tests()

function tests(): void {
  t.setTimeout(180_000)

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
}

async function openedThroughProxy(
  t: Test,
  url: string,
  more: Partial<MysqlOptions> = {},
): Promise<[MysqlStore, TcpProxy]> {
  const { proxy, url: way } = await throughProxy(t, url)
  return [await opened(t, way, more), proxy]
}

/** Returns how many rows this connection has read. */
async function rowsRead(client: Connection): Promise<number> {
  const [counts] = await client.query("show session status like 'Handler\\_read\\_%'")
  return (counts as { Value: string }[]).reduce((sum, { Value }) => sum + Number(Value), 0)
}

/** Returns whether the server says that it has prepared a statement: a packet of twelve bytes that begins with zero. */
function answersPreparation(bytes: Buffer): boolean {
  return bytes.length > 16 && bytes.readUIntLE(0, 3) === 12 && bytes[3] === 1 && bytes[4] === 0
}
