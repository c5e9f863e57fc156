/** Tests what the option `database` may be, and the messages when it is something else. */
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { dirname, join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { drizzle as drizzleSqlite } from 'drizzle-orm/better-sqlite3'
import { drizzle as drizzlePostgres } from 'drizzle-orm/node-postgres'
import pg, { Client, Pool } from 'pg'
import t, { type Test } from 'tap'
import { openStore } from '../../plugin/stores/open.js'
import { driverMissing, loadDriver } from '../../plugin/stores/shared/driver.js'
import { rejectionOf } from '../../plugin/testing/conformance/world.js'
import { usePostgres, useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'

t.setTimeout(60_000)

t.test('a URL says which database it is, in any of its spellings', async (t) => {
  const sqlite = await useSqlite(t)
  const postgres = await usePostgres(t)
  const rest = postgres.url.slice(postgres.url.indexOf(':'))
  const urls = {
    [`sqlite:${sqlite.path}`]: 'sqlite',
    [`sqlite://${sqlite.path}`]: 'sqlite',
    [`SQLite:${sqlite.path}`]: 'sqlite',
    'sqlite::memory:': 'sqlite',
    [`postgres${rest}`]: 'postgres',
    [`postgresql${rest}`]: 'postgres',
  }
  for (const [url, dialect] of Object.entries(urls)) {
    const store = await open(url)
    t.equal(store.dialect, dialect, url.slice(0, url.indexOf(':') + 1))
    await store.close()
  }
})

t.test('a relative path is a file in the working directory, wherever that is later', async (t) => {
  const { path } = await useSqlite(t)
  const back = process.cwd()
  t.teardown(() => process.chdir(back))
  process.chdir(join(path, '..'))
  const store = await open('sqlite:here.db')
  process.chdir('/')
  await store.change(undefined, (change) => change.saveMeta({ tokenFloor: 1 }))
  t.equal((await store.snapshot()).meta.tokenFloor, 1)
  await store.close()
})

t.test('a line end behind a path is no part of it, as for the driver', async (t) => {
  const { url, path } = await useSqlite(t)
  await (await open(`${url}\n`)).close()
  const client = new Sqlite(path, { fileMustExist: true })
  t.ok(client.prepare("select 1 from sqlite_master where name = 'coordination_meta'").get())
  client.close()
})

t.test("a driver's client, or Drizzle over it, is used and left open", async (t) => {
  const { path } = await useSqlite(t)
  const file = new Sqlite(path)
  const pool = new Pool({ connectionString: (await usePostgres(t)).url })
  // The database may be dropped before its last connections have ended.
  pool.on('error', () => undefined)
  t.teardown(() => file.close())
  // Before version 0.34 of Drizzle a database had no `$client`, but a session with the client in it.
  const stores = {
    sqlite: [file, drizzleSqlite({ client: file }), { session: { client: file } }],
    postgres: [pool, drizzlePostgres({ client: pool }), { session: { client: pool } }],
  }
  for (const [dialect, databases] of Object.entries(stores)) {
    for (const database of databases) {
      const store = await open(database)
      t.equal(store.dialect, dialect)
      await store.close()
    }
  }
  t.ok(file.open)
  t.equal((await pool.query('select 1')).rowCount, 1)
  await pool.end()
})

t.test('anything else is refused, with what was expected and what came', async (t) => {
  const table: readonly [string | object, string][] = [
    ['oracle://root:secret@host/name', 'got a URL that begins with "oracle:"'],
    ['', 'got an empty string'],
    ['coordination.db', 'got a string that begins with none of these'],
    ['user:secret@host/name', 'got a string that begins with none of these'],
    ['postgres:root:secret@localhost:5432/app', 'got a URL without "//"'],
    ['MySQL:/root:secret@localhost/app', 'got a URL without "//"'],
    ['mariadb:///root:secret@localhost/app', 'got a URL without a host'],
    ...['secret@x/secret', '1/secret', 'x@x#secret', 'x@x?secret', '1/x?secret'].map(
      (password): [string, string] => [
        `postgres://app:${password}@host:5432/app`,
        'got a URL whose user or password has a special character that is not percent-encoded',
      ],
    ),
    ['mysql://app:a@b/secret@host/app', 'special character that is not percent-encoded'],
    ['mssql://app:a@b/secret@host/app', 'special character that is not percent-encoded'],
    ['sqlite:', 'got a URL without a path'],
    ['sqlite://', 'got a URL without a path'],
    ['sqlite: ', 'got a URL without a path'],
    [{}, 'got an object of class Object'],
    [new Map(), 'got an object of class Map'],
    [Object.create(null), 'got an object.'],
    [new Client(), 'got an object of class Client'],
    [{ $client: 1 }, 'got a value of type number'],
  ]
  for (const [database, got] of table) {
    const error = await rejectionOf(open(database))
    t.match(error, { code: 'WCO_OPTIONS' }, got)
    t.match(String(error), got)
    t.match(
      String(error),
      'database: expected a URL that begins with "postgres:", "postgresql:", "mysql:", "mariadb:"',
    )
    t.notMatch(String(error), 'secret')
  }
})

t.test(
  'a URL of PostgreSQL that names no database, where no user stands in for the name, is refused',
  async (t) => {
    const { user } = pg.defaults
    t.teardown(() => {
      pg.defaults.user = user
    })
    pg.defaults.user = undefined
    const message =
      'database: expected the name of a database on the server, as in postgres://user:password@host:5432/name, got none.'
    for (const url of ['postgres://', 'postgres://127.0.0.1:1'])
      t.match(await rejectionOf(open(url)), { code: 'WCO_OPTIONS', message }, url)
  },
)

t.test(
  'a parameter that the URL of a server cannot have is named, and nothing else of the URL',
  async (t) => {
    const cases: [url: string, got: string][] = [
      ['mysql://u:secret@h/d?pool=3', 'one with the parameter "pool"'],
      ['mysql://u:secret@h/d?ssl=%7B', 'one whose parameter "ssl" is no JSON'],
      ['mysql://u:secret@h/d?ssl=secret', 'one whose parameter "ssl" names no profile of the driver'],
      ['mssql://u:secret@h/d?pool=3', 'one with the parameter "pool"'],
      [
        'mssql://u:secret@h/d?encrypt=secret',
        'one whose parameter "encrypt" has a value that it cannot have',
      ],
      ['mssql://u:secret@h', 'one that cannot be read'],
    ]
    for (const [url, got] of cases) {
      const error = await rejectionOf(open(url))
      t.match(error, { code: 'WCO_OPTIONS' }, url)
      t.match(String(error), /: database: expected a URL like m[ys]sql:/, url)
      t.match(String(error), `, got ${got}.`)
      t.notMatch(String(error), 'secret@', url)
      t.notMatch(String(error), '=secret', url)
    }
  },
)

t.test('a URL of SQLite takes no parameters, which would become part of the name of the file', async (t) => {
  const message = /, got a sqlite: URL with parameters or with a URL as its path\.$/
  for (const path of ['here.db?mode=ro', ':memory:?cache=shared', 'file:here.db'])
    t.match(await rejectionOf(open(`sqlite:${path}`)), { code: 'WCO_OPTIONS', message }, path)
})

t.test('a file of SQLite that cannot be opened is named, with what may be done about it', async (t) => {
  const { path } = await useSqlite(t)
  const folder = dirname(path)
  const text = join(folder, 'text')
  await writeFile(text, 'not what SQLite begins a file with, and long enough for a header of it'.repeat(20))
  const cases: [path: string, advice: string][] = [
    [
      join(folder, 'none', 'a.db'),
      `There is no folder "${join(folder, 'none')}": make it, or correct the path.`,
    ],
    [folder, 'That is a folder: name a file in it.'],
    [text, 'It is no database of SQLite, or a damaged or encrypted one: check the path.'],
  ]
  for (const [file, advice] of cases) {
    const error = await rejectionOf(open(`sqlite:${file}`))
    t.match(error, { code: 'WCO_STORE', outcome: 'none', cause: Error })
    const { message } = error as Error
    t.ok(message.startsWith(`SQLite could not open the file "${file}": `), message)
    t.ok(message.endsWith(`. ${advice}`), message)
  }
})

t.test('a server that says nothing is tried again, until there is no server', async (t) => {
  const tries = { postgres: 4, mysql: 4, mssql: 2 }
  const ways = Object.entries(tries).map(async ([dialect, most]) => {
    const { url, sockets } = await useSilence(t, most)
    const error = await rejectionOf(open(url(dialect), 300))
    t.match(error, { code: 'WCO_STORE', outcome: 'none' }, dialect)
    t.equal(sockets.length, most, dialect)
    await eventually(() => sockets.every(({ destroyed }) => destroyed), { until: 'nothing is left open' })
  })
  await Promise.all(ways)
})

t.test('a driver that cannot be loaded is an error that says what to install', async (t) => {
  const cause = new Error("Cannot find package 'of-no-kind'\nimported from here")
  const error = await rejectionOf(loadDriver('of-no-kind@1', () => Promise.reject(cause)))
  t.match(error, { code: 'WCO_DRIVER_MISSING', cause })
  t.match(String(error), 'npm install of-no-kind@1')
  t.notMatch(String(error), 'imported from here')
  t.match(driverMissing('it', 'a reason').message, 'a reason')
})

t.test('a driver whose binary half is missing counts as missing', async (t) => {
  class Unbuilt extends Sqlite {
    constructor(name: string) {
      super(name)
      throw new Error('Could not locate the bindings file. Tried: …')
    }
  }
  const { path } = await useSqlite(t)
  const handle = Object.setPrototypeOf(new Sqlite(path), Unbuilt.prototype)
  t.teardown(() => Sqlite.prototype.close.call(handle))
  t.match(await rejectionOf(open(handle)), { code: 'WCO_DRIVER_MISSING' })
})

/** Starts a server that takes connections without a word. It is gone once it has taken `most`. */
async function useSilence(t: Test, most: number) {
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket.on('error', () => undefined).resume())
    if (sockets.length < most) return
    server.close()
    for (const each of sockets) each.resetAndDestroy()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  return { sockets, url: (dialect: string) => `${dialect}://app:secret@127.0.0.1:${port}/app` }
}

function open(database: string | object, statementTimeoutMs = 30_000) {
  return openStore({
    database,
    namespace: 'test',
    statementTimeoutMs,
    migrate: true,
    push: false,
    log: { warn: () => undefined },
  })
}
