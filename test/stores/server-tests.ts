/** Tests of what the stores on PostgreSQL and MySQL do alike when connections end, or when a lock is in the way. */
import type { Test } from 'tap'
import type { Store } from '../../plugin/core/store.js'
import {
  commit,
  gate,
  join,
  newLease,
  newNode,
  rejectionOf,
  saveLeases,
} from '../../plugin/testing/conformance/world.js'
import type { Database } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { type TcpProxy, throughProxy } from '../support/proxy.js'

/** A kind of server. `Admin` is a connection of its driver. */
export interface Server<Admin extends Queried> {
  use(t: Test): Promise<Database>
  connected(t: Test, url: string): Promise<Admin>
  opened(t: Test, url: string, more?: StoreSettings): Promise<Store>
  /** Returns the ids of all connections of stores to the database of `admin`. */
  storeProcesses(admin: Admin): Promise<number[]>
  /** Ends these connections. Returns how many there were. */
  endStores(admin: Admin): Promise<number>
  /** Makes the next events, as often as `times`, fail as what the server undoes for the sake of another change. */
  undoEvents(admin: Admin, times: number): Promise<void>
  /** What the error says of a lock that was waited for in vain. */
  readonly whoHoldsLocks: RegExp
}

export interface Queried {
  query(sql: string): Promise<unknown>
}

export interface StoreSettings {
  readonly statementTimeoutMs?: number
  readonly onWarning?: (message: string) => void
}

export function testConnections<Admin extends Queried>(t: Test, server: Server<Admin>): void {
  const { use, connected, opened, storeProcesses, endStores, undoEvents, whoHoldsLocks } = server
  const openedThroughProxy = async (
    t: Test,
    url: string,
    more?: StoreSettings,
  ): Promise<[Store, TcpProxy]> => {
    const { proxy, url: way } = await throughProxy(t, url)
    return [await opened(t, way, more), proxy]
  }

  t.test('a store outlives the end of all its connections while they are idle', async (t) => {
    const { url } = await use(t)
    const admin = await connected(t, url)
    const warnings: string[] = []
    const store = await opened(t, url, { onWarning: (message) => warnings.push(message) })
    await join(store, ['a'])
    await store.heartbeat('a', 1)
    t.ok((await endStores(admin)) >= 2)
    await eventually(() => warnings.length === 1)
    t.match(await store.heartbeat('a', 2), { state: 'active' })
    t.equal(await join(store, ['b']), 2)
  })

  t.test('while no connection can be made nothing happens, and afterwards all goes on', async (t) => {
    const { url } = await use(t)
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
    const { url } = await use(t)
    const admin = await connected(t, url)
    const store = await opened(t, url)
    await join(store, ['a'])
    const error = await rejectionOf(
      store.change(undefined, async (change) => {
        await change.addNode(newNode('b'), 1)
        await endStores(admin)
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
    const { url } = await use(t)
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

  t.test('a commit that nobody answers may have happened', async (t) => {
    const { url } = await use(t)
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
    const { url } = await use(t)
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

  t.test('a change gives up waiting for a revision row that is held by force', async (t) => {
    const { url } = await use(t)
    const admin = await connected(t, url)
    const store = await opened(t, url, { statementTimeoutMs: 2_000 })
    await join(store, ['a'])
    await admin.query('begin')
    await admin.query('select * from coordination_meta for update')
    t.match(await rejectionOf(join(store, ['b'])), {
      name: 'StoreError',
      outcome: 'none',
      message: whoHoldsLocks,
    })
    t.ok(await store.heartbeat('a', 1), 'heartbeats wait for no change')
    await admin.query('rollback')
    t.equal(await join(store, ['b']), 2)
  })

  t.test('a change that the database undoes for the sake of another is made again', async (t) => {
    const { url } = await use(t)
    const admin = await connected(t, url)
    const store = await opened(t, url)
    await undoEvents(admin, 2)
    let tries = 0
    const revision = await commit(store, async (change) => {
      tries += 1
      await change.record([{ type: 'thing.happened', subject: 'a' }])
    })
    t.equal(tries, 3)
    t.equal(revision, 1)
    t.equal((await store.events({ limit: 10 })).length, 1)
  })
}
