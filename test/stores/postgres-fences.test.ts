/** Tests fences in transactions of the application on PostgreSQL. */
import { drizzle } from 'drizzle-orm/node-postgres'
import t from 'tap'
import { FencedError } from '../../plugin/core/errors.js'
import { commit, join, newLease, rejectionOf, saveLeases } from '../../plugin/testing/conformance/world.js'
import { usePostgres } from '../support/databases.js'
import { connected, opened, usePool } from './postgres-scene.js'

t.setTimeout(300_000)

t.test('a fence', async (t) => {
  const { url } = await usePostgres(t)
  const store = await opened(t, url)
  const client = await connected(t, url)
  const claim = { key: 'l', node: 'a', token: 7 }
  await join(store, ['a', 'b'])
  const held = () => saveLeases(store, newLease('l', { holder: 'a', token: 7 }), newLease('free'))
  await held()

  t.test('holds a lease that a change then sees, leaves alone, and does not wait for', async (t) => {
    await client.query('begin')
    await store.fence(client, claim)
    await commit(store, async (change) => {
      const rows = await change.leases({ keys: ['l', 'free'] })
      t.same(
        rows.map(({ key, fenced }) => [key, fenced]),
        [
          ['free', false],
          ['l', true],
        ],
      )
      await change.saveLeases([newLease('free', { token: 1 })])
      await change.deleteLeases(['l'])
    })
    const taken = rejectionOf(
      saveLeases(store, newLease('free', { token: 2 }), newLease('l', { holder: 'b', token: 8 })),
    )
    t.match(await taken, { name: 'StoreError', outcome: 'none' })
    await client.query('commit')
    t.match((await store.snapshot()).leases, [
      { key: 'free', token: 1 },
      { key: 'l', holder: 'a', token: 7 },
    ])
  })

  t.test('takes a transaction of Drizzle, nested ones too, as well as a client', async (t) => {
    const pool = usePool(t, url)
    const fencedIn = async (transaction: unknown, seen: () => Promise<unknown>): Promise<void> => {
      await store.fence(transaction, claim)
      t.equal(await seen(), true)
    }
    const isFenced = async () => {
      const { result } = await store.change(undefined, (change) => change.leases({ keys: ['l'] }))
      return result[0]?.fenced
    }
    await drizzle({ client: pool }).transaction(async (tx) => fencedIn(tx, isFenced))
    await drizzle({ client: pool }).transaction((tx) => tx.transaction(async (tx) => fencedIn(tx, isFenced)))
    await drizzle({ client }).transaction(async (tx) => fencedIn(tx, isFenced))
    t.equal(await isFenced(), false)
  })

  t.test('refuses what is not an open transaction of this database', async (t) => {
    const pool = usePool(t, url)
    const elsewhere = await connected(t, (await usePostgres(t)).url)
    await elsewhere.query('begin')
    const refused: [string, unknown][] = [
      ['a client outside of a transaction', client],
      ['a pool', pool],
      ["Drizzle's database on a pool", drizzle({ client: pool })],
      ["Drizzle's database on a client", drizzle({ client })],
      ['another database', elsewhere],
      ['a URL', url],
      ['nothing', undefined],
    ]
    for (const [what, target] of refused) {
      const error = await rejectionOf(store.fence(target, claim))
      t.match(error, { name: 'CoordinationError', code: 'WCO_FENCE_TARGET' }, what)
      t.equal(
        /A pool is not/.test(String(error)),
        /a pool/.test(what),
        `${what}: whether a pool is spoken of`,
      )
    }
  })

  t.test('finds its lease whatever search_path and isolation the transaction has', async () => {
    await client.query('begin isolation level serializable; set local search_path = pg_catalog')
    await store.fence(client, claim)
    await client.query('commit')
  })

  t.test('fails when the lease was taken over, also behind the back of an old snapshot', async (t) => {
    await client.query('begin')
    t.type(await rejectionOf(store.fence(client, { ...claim, token: 6 })), FencedError)
    await client.query('rollback')
    await client.query('begin isolation level repeatable read')
    await client.query('select 1 from coordination_nodes')
    await saveLeases(store, newLease('l', { holder: 'b', token: 8 }))
    const error = await rejectionOf(store.fence(client, claim))
    t.type(error, FencedError)
    t.match(error, { cause: { code: '40001' } })
    await client.query('rollback')
    await held()
  })

  t.test('leaves the database its own error when the lease was touched and not lost', async (t) => {
    await client.query('begin isolation level repeatable read')
    await client.query('select 1 from coordination_nodes')
    await saveLeases(store, newLease('l', { holder: 'a', token: 7, waiters: ['b'] }))
    t.match(await rejectionOf(store.fence(client, claim)), { code: '40001', severity: 'ERROR' })
    await client.query('rollback')
  })

  t.test('leaves the database its own error when there is no connection to look at the lease', async (t) => {
    const pool = usePool(t, url, { max: 1 })
    const lent = await opened(t, pool, { statementTimeoutMs: 1_000 })
    const only = await pool.connect()
    await only.query('begin isolation level repeatable read')
    await only.query('select 1 from coordination_nodes')
    await held()
    t.match(await rejectionOf(lent.fence(only, claim)), { code: '40001', severity: 'ERROR' })
    await only.query('rollback')
    only.release()
  })

  t.test('fails when the node is gone, even if the lease still names it', async (t) => {
    await commit(store, (change) => change.bury('a'))
    await client.query('begin')
    t.type(await rejectionOf(store.fence(client, claim)), FencedError)
    await client.query('rollback')
  })
})
