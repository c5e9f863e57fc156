/** Tests what is special about SQLite: one writer, a driver that blocks, and a database that is a file. */

import { once } from 'node:events'
import { chmodSync, existsSync, linkSync, renameSync, rmSync } from 'node:fs'
import { dirname, join as joinPath } from 'node:path'
import Sqlite from 'better-sqlite3'
import { drizzle } from 'drizzle-orm/better-sqlite3'
import t, { type Test } from 'tap'
import { CoordinationError, FencedError, StoreError } from '../../plugin/core/errors.js'
import type { Store } from '../../plugin/core/store.js'
import { FileWatch } from '../../plugin/stores/sqlite/hints.js'
import { openSqliteStore, openSqliteStoreOver } from '../../plugin/stores/sqlite/index.js'
import { refuseUnfit } from '../../plugin/stores/sqlite/source.js'
import { join, newLease, rejectionOf } from '../../plugin/testing/conformance/world.js'
import { useSqlite } from '../support/databases.js'
import { eventually, latest } from '../support/eventually.js'
import { kill, startProcess } from './store-process.js'

t.setTimeout(120_000)

t.test('a file that another process keeps busy does not stop the event loop', async (t) => {
  const { store, path } = await useStore(t)
  await join(store, ['a'])
  const other = startProcess(t)
  await other.ask('hold', path)

  let done = false
  const { statements } = store
  const verbs = Promise.all([store.heartbeat('a', 1), tell(store, 'a')]).finally(() => {
    done = true
  })
  await eventually(() => store.statements >= statements + 3)
  t.notOk(done, 'they wait, and this process does not')
  t.equal((await store.snapshot()).nodes.length, 1, 'reads do not even wait')

  await other.ask('letGo')
  const [answer] = await verbs
  t.ok(answer, 'and go on when the file is free')
})

t.test('a heartbeat that could not be committed is no heartbeat', async (t) => {
  const { path } = await useSqlite(t)
  const store = await openSqliteStore({ ...common, database: path })
  t.teardown(() => store.close())
  await join(store, ['a'])
  const other = new Sqlite(path)
  t.teardown(() => other.close())
  // What this trigger writes is checked when the statement commits, after the row has been returned.
  other.exec(`
    create table one (id integer primary key);
    create table another (id integer references one deferrable initially deferred);
    create trigger fail after update of beat on coordination_nodes begin insert into another values (1); end`)
  t.match(await rejectionOf(store.heartbeat('a', 1)), { name: 'StoreError', outcome: 'none' })
  other.exec('drop trigger fail')
  t.ok(await store.heartbeat('a', 1), 'the same one is not late')
})

t.test(
  'a file that stays busy is an error after the statement timeout, and nothing has happened',
  async (t) => {
    const { store, path, url } = await useStore(t)
    await join(store, ['a'])
    const hurried = await openSqliteStore({ ...common, database: path, statementTimeoutMs: 100 })
    t.teardown(() => hurried.close())
    const other = startProcess(t)
    await other.ask('open', url)
    await other.ask('hold', path)
    for (const verb of [() => hurried.heartbeat('a', 1), () => tell(hurried, 'a')]) {
      const error = await storeErrorOf(verb())
      t.equal(error.outcome, 'none')
      t.match(
        error.message,
        /database is locked \(SQLITE_BUSY\w*\)\. Another process writes to the file, or has /,
      )
    }
    await other.ask('letGo')
    t.match(await store.snapshot(), { meta: { revision: 1 }, nodes: [{ beat: 0 }] })
  },
)

t.test('outside of WAL mode a reader holds up a commit, but not the event loop', async (t) => {
  const { path } = await useSqlite(t)
  const [client, reader] = [new Sqlite(path, { timeout: 0 }), new Sqlite(path)]
  t.teardown(() => [client.close(), reader.close()])
  const store = await openSqliteStoreOver(client, common)
  const hurried = await openSqliteStoreOver(client, { ...common, statementTimeoutMs: 100 })
  reader.exec('begin; select * from coordination_nodes')
  const error = await storeErrorOf(join(hurried, ['a']))
  t.equal(error.outcome, 'none')
  let done = false
  const commits = countingCommits(client)
  const joined = join(store, ['b']).finally(() => {
    done = true
  })
  await eventually(() => commits() >= 3)
  t.notOk(done)
  reader.exec('commit')
  await joined
  t.strictSame(ids(await store.snapshot()), ['b'])
})

t.test('a process that dies while it has the file leaves it free', async (t) => {
  const { store, path } = await useStore(t)
  const other = startProcess(t)
  await other.ask('hold', path)
  const joined = join(store, ['a'])
  await kill(other.child)
  await joined
  t.equal((await store.snapshot()).nodes.length, 1)
})

t.test('what was acknowledged outlives the process that was told so', async (t) => {
  const { store, url } = await useStore(t)
  await join(store, ['a'])
  const other = startProcess(t)
  await other.ask('open', url)
  let acknowledged = 0
  other.child.on('message', (message: { acknowledged: number }) => {
    acknowledged = message.acknowledged
  })
  other.child.send({ command: 'changeForEver', args: ['a'] })
  await eventually(() => acknowledged > 20)
  await kill(other.child)
  t.ok(((await store.news('a')) ?? 0) >= acknowledged)
  t.ok((await store.heartbeat('a', 1)) !== undefined)
})

t.test('commits wait for the disk, and readers for nobody', async (t) => {
  const statements: string[] = []
  const { path } = await useSqlite(t)
  class Overheard extends Sqlite {
    constructor(name: string, options: Sqlite.Options) {
      super(name, { ...options, verbose: (statement) => statements.push(String(statement)) })
    }
  }
  const store = await openSqliteStore({ ...common, database: new Overheard(path, {}) })
  t.teardown(() => store.close())
  t.ok(statements.some((statement) => /synchronous = FULL/.test(statement)))
  t.equal(new Sqlite(path).pragma('journal_mode', { simple: true }), 'wal')
})

t.test('a heartbeat is one statement', async (t) => {
  const statements: string[] = []
  const client = new Sqlite(':memory:', { verbose: (statement) => statements.push(String(statement)) })
  t.teardown(() => client.close())
  const store = await openSqliteStoreOver(client, common)
  await join(store, ['a', 'b'])
  await store.change(undefined, (change) => change.saveMeta({ watchers: ['a', 'b'] }))
  await store.heartbeat('a', 1)
  statements.length = 0
  t.match(await store.heartbeat('a', 2), { watchers: [{ id: 'b', beat: 0 }] })
  t.equal(statements.length, 1)
})

t.test('a file put in the place of the database is used, and is another server', async (t) => {
  const { store, path, url } = await useStore(t)
  await join(store, ['a'])
  const before = await identityOf(store, 'a')
  t.equal(await identityOf(store, 'a'), before, 'a file that stays is one server')
  const twin = await openSqliteStore({ ...common, database: path })
  t.teardown(() => twin.close())
  t.equal(await identityOf(twin, 'a'), before, 'for everybody')
  const other = startProcess(t)
  await other.ask('open', url)

  backUp(path, `${path}.backup`)
  await join(store, ['b'])
  restore(`${path}.backup`, path)

  for (const each of [store, twin]) {
    t.strictSame(ids(await each.snapshot()), ['a'], 'what came after the backup is no more')
    t.not(await identityOf(each, 'a'), before)
  }
  t.equal(await identityOf(store, 'a'), await identityOf(twin, 'a'))
  await other.ask('join', 'c')
  await join(twin, ['d'])
  t.strictSame(ids(await store.snapshot()), ['a', 'c', 'd'])
  t.equal(checked(path), 'ok')
})

t.test('a system that tells no time of creation does not make a new server of each write', async (t) => {
  const { url } = await useSqlite(t)
  const process = startProcess(t)
  await process.ask('forgetBirths')
  await process.ask('open', url)
  await process.ask('join', 'a')
  t.equal(await process.ask('tell', 'a'), 2)
})

t.test('a process that may not look at itself knows a file as others do', async (t) => {
  const { store, url } = await useStore(t)
  await join(store, ['a'])
  const process = startProcess(t)
  await process.ask('hideProcess')
  await process.ask('open', url)
  t.equal(await process.ask('identity', 'a'), await identityOf(store, 'a'))
})

t.test('a restored file is not mixed with what the old one left beside it', async (t) => {
  const { store, path } = await useStore(t)
  await join(store, ['a'])
  backUp(path, `${path}.backup`)
  await join(store, ['b'])
  renameSync(`${path}.backup`, path)
  for (const verb of [() => store.heartbeat('a', 1), () => tell(store, 'a'), () => store.snapshot()]) {
    const error = await storeErrorOf(verb())
    t.match(error.message, '"-wal" and "-shm"')
    t.equal(error.outcome, 'none')
  }
  rmSync(`${path}-wal`)
  rmSync(`${path}-shm`)
  t.strictSame(ids(await store.snapshot()), ['a'])
  await join(store, ['c'])
  t.equal(checked(path), 'ok')
})

for (const companion of ['-wal', '-shm']) {
  t.test(`nobody goes on with a ${companion} that was deleted, and what it held is not lost`, async (t) => {
    const { store, path } = await useStore(t)
    const twin = await openSqliteStore({ ...common, database: path })
    t.teardown(() => twin.close())
    await join(store, ['a'])
    rmSync(`${path}${companion}`)
    const late = openSqliteStore({ ...common, database: path, statementTimeoutMs: 100 })
    t.match((await storeErrorOf(late)).message, 'one of the two was deleted')
    for (const verb of [() => store.heartbeat('a', 1), () => tell(twin, 'a'), () => twin.snapshot()]) {
      const error = await storeErrorOf(verb())
      t.match(error.message, 'was deleted while it was in use')
      t.equal(error.outcome, 'none')
    }
    await Promise.all([store.close(), twin.close()])
    const again = await openSqliteStore({ ...common, database: path })
    t.teardown(() => again.close())
    t.strictSame(ids(await again.snapshot()), ['a'])
    t.ok(await again.heartbeat('a', 1))
    t.equal(checked(path), 'ok')
  })
}

t.test('nobody opens a file that another process has open by another name', async (t) => {
  const { url, path } = await useSqlite(t)
  const other = startProcess(t)
  await other.ask('open', url)
  await other.ask('join', 'a')
  const link = `${path}.link`
  linkSync(path, link)
  const hurried = { ...common, database: link, statementTimeoutMs: 100 }
  const error = await storeErrorOf(openSqliteStore(hurried))
  t.match(error, { outcome: 'none', message: /it was opened by another name, such as a hard link/ })
  t.ok(error.message.startsWith(`The database file "${link}" is in use`), 'which file it is')
  await other.ask('close')
  const store = await openSqliteStore(hurried)
  t.teardown(() => store.close())
  t.strictSame(ids(await store.snapshot()), ['a'])
  t.equal(checked(link), 'ok')
})

t.test('who opens a file that is kept locked outside of WAL mode is told what may keep it', async (t) => {
  const { path } = await useSqlite(t)
  const other = new Sqlite(path)
  t.teardown(() => other.close())
  other.exec('create table app (id integer); begin exclusive')
  const hurried = { ...common, database: path, statementTimeoutMs: 100 }
  t.match((await storeErrorOf(openSqliteStore(hurried))).message, 'a transaction that was left open')
  other.exec('rollback; pragma locking_mode = exclusive; insert into app values (1)')
  t.match((await storeErrorOf(openSqliteStore(hurried))).message, 'locking_mode = EXCLUSIVE')
})

t.test('who opens a file that is locked for a moment waits for it', async (t) => {
  const { path } = await useSqlite(t)
  const other = new Sqlite(path)
  t.teardown(() => other.close())
  other.exec('create table app (id integer); begin exclusive')
  let attempts = 0
  class Counted extends Sqlite {
    constructor(...given: ConstructorParameters<typeof Sqlite>) {
      super(...given)
      attempts += 1
    }
  }
  const mine = new Counted(path)
  t.teardown(() => mine.close())
  const opening = openSqliteStore({ ...common, database: mine })
  await eventually(() => attempts > 3)
  other.exec('rollback')
  await (await opening).close()
})

t.test('a file that is gone is an error and not an empty database, until it is back', async (t) => {
  const { store, path } = await useStore(t)
  await join(store, ['a'])
  const before = await identityOf(store, 'a')
  await store.close()
  const again = await openSqliteStore({ ...common, database: path })
  t.teardown(() => again.close())
  const away = `${path}.away`
  for (const suffix of ['', '-wal', '-shm']) renameSync(`${path}${suffix}`, `${away}${suffix}`)
  const error = await storeErrorOf(again.heartbeat('a', 1))
  t.equal(error.outcome, 'none')
  t.notOk(existsSync(path))
  for (const suffix of ['-shm', '-wal', '']) renameSync(`${away}${suffix}`, `${path}${suffix}`)
  t.equal(await identityOf(again, 'a'), before, 'it is the same file')
})

t.test('a file with an older schema, put in place of the database, is migrated like any other', async (t) => {
  const { store, path } = await useStore(t)
  const strict = await openSqliteStore({ ...common, database: path, migrate: false })
  t.teardown(() => strict.close())
  new Sqlite(`${path}.empty`).exec('create table of_the_application (id text)').close()
  restore(`${path}.empty`, path)
  const error = await storeErrorOf(strict.snapshot())
  t.match(error.message, 'Migrations are pending')
  await join(store, ['a'])
  t.strictSame(ids(await strict.snapshot()), ['a'])
})

t.test('a file that cannot be written can be read, and written once it can be', async (t) => {
  const { path } = await useSqlite(t)
  const owner = await openSqliteStore({ ...common, database: path })
  await join(owner, ['a'])
  t.teardown(() => owner.close())
  const restricted = readOnly(path)
  const store = await restricted(() => openSqliteStore({ ...common, database: path }))
  t.teardown(() => store.close())
  t.strictSame(ids(await restricted(() => store.snapshot())), ['a'])
  for (const verb of [() => store.heartbeat('a', 1), () => tell(store, 'a')]) {
    const error = await restricted(() => storeErrorOf(verb()))
    t.equal(error.outcome, 'none')
    t.match(error.message, /readonly database/)
  }
  t.ok(await store.heartbeat('a', 1))
})

t.test('an empty file that cannot be written leaves migrations pending, and says why', async (t) => {
  const { path } = await useSqlite(t)
  new Sqlite(path).exec('create table of_the_application (id text)').close()
  const restricted = readOnly(path)
  const error = await restricted(() => rejectionOf(openSqliteStore({ ...common, database: path })))
  t.match(error, { code: 'WCO_SCHEMA_PENDING' })
  t.match(String(error), /readonly database/)
})

t.test('a full disk loses nothing and keeps nothing of a change by half', async (t) => {
  const { path } = await useSqlite(t)
  const client = new Sqlite(path, { timeout: 0 })
  t.teardown(() => client.close())
  client.pragma('journal_mode = WAL')
  const store = await openSqliteStoreOver(client, common)
  await join(store, ['a'])
  const before = await store.snapshot()
  const pages = client.pragma('page_count', { simple: true })
  client.pragma(`max_page_count = ${pages}`)

  const rows = Array.from({ length: 1_000 }, (_, index) => newLease(`lease ${index}`))
  const error = await storeErrorOf(store.change(undefined, (change) => change.saveLeases(rows)))
  t.equal(error.outcome, 'none')
  t.match(error.message, /disk is full/)
  const unnoticed = store.change(undefined, async (change) => {
    await change.saveLeases(rows).catch(() => undefined)
    await change.saveMeta({ tokenFloor: 1 }).catch(() => undefined)
  })
  t.match((await storeErrorOf(unnoticed)).message, /disk is full/, 'though the work took no notice')
  t.strictSame({ ...(await store.snapshot()), nowMs: 0 }, { ...before, nowMs: 0 })

  client.pragma('max_page_count = 1000000')
  await store.change(undefined, (change) => change.saveLeases(rows))
  t.equal((await store.snapshot()).leases.length, 1_000)
})

t.test('a driver that would end the process is refused, and what to install instead is said', async (t) => {
  t.throws(() => refuseUnfit('13.2.0', '9'), {
    code: 'WCO_DRIVER_MISSING',
    message: 'better-sqlite3 13.2.0 needs Node 22.14 or later. Run `npm install better-sqlite3@12`.',
  })
  t.doesNotThrow(() => refuseUnfit('13.2.0', '10'))
  t.doesNotThrow(() => refuseUnfit('12.11.1', '9'))
})

t.test('a file that is no database is an error that says so', async (t) => {
  const { path } = await useSqlite(t)
  const missing = joinPath(dirname(path), 'missing', 'folder.db')
  t.match((await storeErrorOf(openSqliteStore({ ...common, database: missing }))).message, /directory/)
  t.match(
    (await storeErrorOf(openSqliteStore({ ...common, database: dirname(path) }))).message,
    /unable to open/,
  )
})

t.test('hints cross from process to process, none missing, without waiting for the slow tick', async (t) => {
  stopTicking(t)
  const { store, url } = await useStore(t)
  await join(store, ['a'])
  const other = startProcess(t)
  await other.ask('open', url)
  let seen = 0
  t.teardown(store.listen('a', () => void store.news('a').then((news = 0) => (seen = Math.max(seen, news)))))
  for (let round = 1; round <= 50; round += 1) {
    const told = await other.ask('tell', 'a')
    const isHeard = (revision: number): boolean => revision >= told
    const heard = await latest(() => seen, isHeard, { everyMs: 1 })
    t.ok(isHeard(heard), `hint ${round}: up to change ${heard}, and ${told} was told`)
  }
})

t.test('only the nodes that are told are woken', async (t) => {
  const { store, url } = await useStore(t)
  await join(store, ['a', 'b'])
  const woken = { a: 0, b: 0 }
  for (const node of ['a', 'b'] as const) t.teardown(store.listen(node, () => (woken[node] += 1)))
  const other = startProcess(t)
  await other.ask('open', url)
  await eventually(() => other.ask('tell', 'a').then(() => woken.a > 0))
  const before = woken.b
  for (let round = 1; round <= 10; round += 1) {
    const reached = woken.a
    await other.ask('tell', 'a')
    await eventually(() => woken.a > reached)
  }
  t.equal(woken.b, before)
})

t.test('a folder that cannot be watched is a warning, and the tick stands in', async (t) => {
  const tick = stopTicking(t)
  const warnings: string[] = []
  let looks = 0
  const watch = new FileWatch(
    '/nowhere/at/all.db',
    () => (looks += 1),
    (message) => warnings.push(message),
  )
  watch.start()
  watch.start()
  t.match(warnings, [/cannot be watched/])
  t.equal(warnings.length, 1)
  tick()
  tick()
  t.equal(looks, 2)
  watch.stop()
  watch.stop()
})

t.test('listening does not keep a process alive', async (t) => {
  const { url } = await useSqlite(t)
  const other = startProcess(t)
  await other.ask('open', url)
  await other.ask('join', 'a')
  await other.ask('listen', 'a')
  const ended = once(other.child, 'exit')
  other.child.disconnect()
  t.strictSame(await ended, [0, null])
})

t.test('a database that was handed in lends its file and nothing else', async (t) => {
  const { path } = await useSqlite(t)
  const client = new Sqlite(path)
  t.teardown(() => client.close())
  client.exec('create table of_the_application (id text)')
  const store = await openSqliteStore({ ...common, database: client })
  client.exec('begin')
  client.prepare('select * from of_the_application').all()
  await join(store, ['a'])
  t.ok(client.inTransaction)
  t.equal(
    client.prepare('select count(*) from coordination_nodes').pluck().get(),
    0,
    'it still sees its own instant',
  )
  client.exec('rollback')
  t.equal(client.prepare('select count(*) from coordination_nodes').pluck().get(), 1)
  await store.close()
  t.ok(client.open)
})

t.test('a database that was handed in is found wherever the working directory is by then', async (t) => {
  const { path } = await useSqlite(t)
  const back = process.cwd()
  t.teardown(() => process.chdir(back))
  process.chdir(dirname(path))
  const client = new Sqlite(' here.db\n')
  t.teardown(() => client.close())
  client.pragma('journal_mode = wal')
  client.exec('create table of_the_application (id text); insert into of_the_application values (1), (2)')
  process.chdir('/')
  const reading = client.prepare('select * from of_the_application').iterate()
  reading.next()
  const store = await openSqliteStore({ ...common, database: client })
  t.teardown(() => store.close())
  reading.return?.()
  await join(store, ['a'])
  t.equal(client.prepare('select count(*) from coordination_nodes').pluck().get(), 1)
})

t.test('a database that was handed in may be locked at that moment', async (t) => {
  const { path } = await useSqlite(t)
  const client = new Sqlite(path, { timeout: 0 })
  const other = new Sqlite(path)
  t.teardown(() => [client, other].map((each) => each.close()))
  other.exec('begin exclusive; create table of_the_application (id text)')
  const opening = openSqliteStore({ ...common, database: client })
  const outcome = Promise.allSettled([opening])
  other.exec('commit')
  t.match(await outcome, [{ status: 'fulfilled' }])
  await (await opening).close()
})

t.test('a database in memory that was handed in is refused', async (t) => {
  const client = new Sqlite(':memory:')
  t.teardown(() => client.close())
  const error = await rejectionOf(openSqliteStore({ ...common, database: client }))
  t.match(error, { code: 'WCO_OPTIONS' })
  t.match(String(error), 'in memory')
})

t.test('a database in memory of its own is a whole store', async (t) => {
  const store = await openSqliteStore({ ...common, database: ':memory:' })
  await join(store, ['a'])
  let woken = 0
  store.listen('a', () => (woken += 1))
  await tell(store, 'a')
  await eventually(() => woken === 1)
  t.equal(await identityOf(store, 'a'), await identityOf(store, 'a'))
  await store.close()
})

t.test('many stores over one open database take turns, hear each other, and leave it open', async (t) => {
  const client = new Sqlite(':memory:')
  t.teardown(() => client.close())
  const clock = { nowMs: () => 5_000, identity: () => 'the same for all' }
  const stores = await Promise.all(
    Array.from({ length: 5 }, () => openSqliteStoreOver(client, { ...common, ...clock })),
  )
  const [first, second] = stores
  if (!first || !second) throw new Error('No stores')
  let woken = 0
  second.listen('node 0', () => (woken += 1))
  const verbs = stores.flatMap((store, index) => [
    join(store, [`node ${index}`]),
    ...Array.from({ length: 10 }, () => tell(store, 'node 0')),
    store.snapshot(),
  ])
  await Promise.all(verbs)
  const { meta, nowMs } = await first.snapshot()
  t.equal(meta.revision, 55)
  t.equal(nowMs, 5_000)
  t.equal(await identityOf(first, 'node 0'), 'the same for all')
  await eventually(() => woken > 0)
  await Promise.all(stores.map((store) => store.close()))
  t.ok(client.open)
})

t.test('a fence is taken through the driver and through Drizzle, nested or not', async (t) => {
  const { store, path } = await useStore(t)
  await holdLease(store)
  const client = new Sqlite(path)
  t.teardown(() => client.close())
  const db = drizzle({ client })
  client.transaction(() => {
    store.fence(client, claim)
    store.fence(db, claim)
  })()
  db.transaction((tx) => {
    store.fence(tx, claim)
    tx.transaction((nested) => void store.fence(nested, claim))
  })
  t.throws(() => db.transaction((tx) => void store.fence(tx, { ...claim, token: 4 })), FencedError)
})

t.test('a fence is taken through another version of Drizzle than ours', async (t) => {
  const { store, path } = await useStore(t)
  await holdLease(store)
  const client = new Sqlite(path)
  t.teardown(() => client.close())
  // All versions have this in common: a database with `$client`, and transactions with a session.
  store.fence({ $client: begun(client) }, claim)
  store.fence({ session: { client } }, claim)
  client.exec('rollback')
  for (const target of [{ $client: client }, { session: { client } }])
    refuses(t, store, target, /not inside a transaction/)
})

t.test('a fence refuses a transaction of a database that is not ours', async (t) => {
  const { store } = await useStore(t)
  const { path } = await useSqlite(t)
  const client = begun(new Sqlite(path))
  t.teardown(() => client.close())
  refuses(t, store, client, /it is another database/)
})

t.test(
  'a fence holds off everybody else until its transaction ends, and lets the driver say when it is busy',
  async (t) => {
    const { store, path } = await useStore(t)
    const hurried = await openSqliteStore({ ...common, database: path, statementTimeoutMs: 100 })
    t.teardown(() => hurried.close())
    await holdLease(store)
    const [client, late] = [begun(new Sqlite(path)), begun(new Sqlite(path, { timeout: 0 }))]
    t.teardown(() => [client.close(), late.close()])
    store.fence(client, claim)
    t.throws(() => store.fence(late, claim), { code: 'SQLITE_BUSY' })
    await storeErrorOf(hurried.change(undefined, (change) => change.saveLeases([newLease('l')])))
    t.match(await store.view('a'), { leases: [{ holder: 'a', token: 5 }] }, 'reads go on')
    client.exec('commit')
    await store.change(undefined, (change) => change.saveLeases([newLease('l')]))
    t.match(await store.snapshot(), { leases: [{ holder: null }] })
  },
)

const common = { namespace: 'test', statementTimeoutMs: 30_000, migrate: true }
const claim = { key: 'l', node: 'a', token: 5 }

async function useStore(t: Test) {
  const { path, url } = await useSqlite(t)
  const store = await openSqliteStore({ ...common, database: path })
  t.teardown(() => store.close())
  return { store, path, url }
}

async function tell(store: Store, node: string): Promise<void> {
  await store.change(undefined, (change) => change.tell(new Set([node])))
}

async function holdLease(store: Store): Promise<void> {
  await join(store, ['a'])
  await store.change(undefined, (change) => change.saveLeases([{ ...newLease('l'), holder: 'a', token: 5 }]))
}

async function identityOf(store: Store, node: string): Promise<string | undefined> {
  return (await store.view(node))?.serverIdentity
}

function ids({ nodes }: { readonly nodes: readonly { readonly id: string }[] }): string[] {
  return nodes.map(({ id }) => id)
}

function backUp(path: string, to: string): void {
  const client = new Sqlite(path)
  client.prepare('vacuum into ?').run(to)
  client.close()
}

function restore(from: string, path: string): void {
  for (const suffix of ['-wal', '-shm']) rmSync(`${path}${suffix}`, { force: true })
  renameSync(from, path)
}

function checked(path: string): unknown {
  const client = new Sqlite(path)
  try {
    return client.pragma('integrity_check', { simple: true })
  } finally {
    client.close()
  }
}

/** Withdraws the right to write the file while work is done. When run as root, the process becomes another user. */
function readOnly(path: string): <T>(work: () => Promise<T>) => Promise<T> {
  const nobody = 65_534
  const isRoot = process.geteuid?.() === 0
  chmodSync(dirname(path), 0o777)
  return async (work) => {
    chmodSync(path, 0o444)
    if (isRoot) process.seteuid?.(nobody)
    try {
      return await work()
    } finally {
      if (isRoot) process.seteuid?.(0)
      chmodSync(path, 0o644)
    }
  }
}

/** Replaces the interval timer. It fires only when the returned function is called. */
function stopTicking(t: Test): () => void {
  let fire = (): void => undefined
  const setInterval = (tick: () => void) => {
    fire = tick
    return globalThis.setTimeout(() => undefined)
  }
  t.intercept(globalThis, 'setInterval', { value: setInterval })
  return () => fire()
}

function begun(client: Sqlite.Database): Sqlite.Database {
  return client.exec('begin')
}

function refuses(t: Test, store: Store, target: unknown, why: RegExp): void {
  try {
    store.fence(target, claim)
    t.fail('expected a refusal')
  } catch (error) {
    t.ok(error instanceof CoordinationError)
    t.match(error, { code: 'WCO_FENCE_TARGET', message: why })
  }
}

async function storeErrorOf(attempt: Promise<unknown>): Promise<StoreError> {
  const error = await rejectionOf(attempt)
  if (error instanceof StoreError) return error
  throw new Error('Expected a StoreError', { cause: error })
}

/** Returns a function that counts how often this client has been asked to commit since, whatever the outcome. */
function countingCommits(client: Sqlite.Database): () => number {
  let commits = 0
  const exec = client.exec.bind(client)
  client.exec = (sql) => {
    if (sql === 'COMMIT') commits += 1
    return exec(sql)
  }
  return () => commits
}
