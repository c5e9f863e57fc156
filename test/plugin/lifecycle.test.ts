/** Tests what registering, starting and closing promise, with real databases and without a listening server. */
import { execFile } from 'node:child_process'
import { readdirSync, readlinkSync } from 'node:fs'
import { promisify } from 'node:util'
import Fastify, { type FastifyInstance } from 'fastify'
import { createConnection, type RowDataPacket } from 'mysql2/promise'
import { Client, Pool } from 'pg'
import t from 'tap'
import { deferred } from '../../plugin/core/time/loop.js'
import workerCoordination, {
  CoordinationError,
  type Coordinator,
  createCoordinator,
  type WorkerCoordinationOptions,
} from '../../plugin/index.js'
import {
  type Database,
  eachDatabase,
  endPool,
  usePostgres,
  useSqlite,
  withMssql,
} from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { useProxy } from '../support/proxy.js'

declare module 'fastify' {
  interface FastifyInstance {
    billing: Coordinator
  }
}

const identity = { node: 'n1', cluster: 'c1' }

t.test('a start that failed is what is told, though closing after it fails as well', async (t) => {
  const lines: string[] = []
  const stream = { write: (line: string) => void lines.push(line) }
  const app = Fastify({ logger: { level: 'warn', stream } })
  const { url } = await useSqlite(t)
  await app.register(workerCoordination, { database: url, identity })
  const { coordination } = app
  const close = coordination.close.bind(coordination)
  coordination.start = () => Promise.reject(new Error('no start'))
  coordination.close = () => Promise.reject(new Error('no end'))
  await t.rejects(async () => app.ready(), { message: 'no start' })
  await eventually(() => lines.some((line) => line.includes('no end')))
  coordination.close = close
  await app.close().catch(() => undefined)
  await close()
})

t.test(
  'registering connects, migrates and decorates; ready starts; close hands over and leaves nothing',
  (t) =>
    eachDatabase(t, async (t, database) => {
      const app = Fastify()
      await app.register(workerCoordination, { database: database.url, identity })
      t.equal(app.coordination.state, 'idle', 'nothing runs before the application is ready')
      const tokens: number[] = []
      const working = deferred()
      app.coordination.worker({
        name: 'indexing',
        kind: 'single',
        scope: 'cluster',
        async run({ lease, signal }) {
          tokens.push(lease.token)
          working.resolve()
          await aborted(signal)
        },
      })
      await app.ready()
      t.equal(app.coordination.state, 'running')
      await working.promise
      t.ok(app.coordination.isHeld('indexing'))
      await app.close()
      t.equal(app.coordination.state, 'closed')
      t.equal(tokens.length, 1)
      await eventually(async () => (await connectionsTo(database)) === 0)

      const next = await createCoordinator({ database: database.url, identity })
      t.teardown(() => next.close())
      const { nodes, leases } = await next.status()
      t.strictSame(
        nodes.map(({ name, state }) => ({ name, state })),
        [{ name: 'n1', state: 'gone' }],
      )
      t.match(leases, [{ key: 'c1/indexing', holder: null, token: tokens[0] }])
    }),
)

t.test('an application can be registered with twice, under two names', async (t) => {
  const { url } = await useSqlite(t)
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(workerCoordination, { database: url, identity, namespace: 'one' })
  await app.register(workerCoordination, {
    database: url,
    identity,
    namespace: 'two',
    decorateAs: 'billing',
    prefix: '/billing',
  })
  await app.ready()
  t.equal(app.coordination.settings.namespace, 'one')
  t.equal(app.billing.settings.namespace, 'two')
  for (const [path, namespace] of Object.entries({ '/coordination': 'one', '/billing': 'two' })) {
    const reply = await app.inject(`${path}/status`)
    t.match(reply.json(), { namespace, self: { name: 'n1' }, counts: { nodes: { active: 1 } } })
  }
})

t.test('a taken decorator is refused before anything is opened, and the way out is named', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  app.decorate('coordination', 'mine' as never)
  const error = await refusal(app, { database: nowhere, identity })
  t.equal(error.code, 'WCO_DECORATOR_TAKEN')
  t.match(error.message, '"coordination"')
  t.match(error.message, '`decorateAs`')
})

t.test('a taken prefix is named, and so is the way out', async (t) => {
  const { url } = await useSqlite(t)
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(workerCoordination, { database: url, identity })
  const error = await refusal(app, { database: url, identity, decorateAs: 'billing' })
  t.equal(error.code, 'WCO_OPTIONS')
  t.match(error.message, /^prefix: .*"\/coordination\/status".*`prefix: "\/jobs"`\.$/)
})

t.test('bad options are refused before anything is opened', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  const error = await refusal(app, { database: nowhere, identity, ttlMs: 10, http: 1 } as never)
  t.equal(error.code, 'WCO_OPTIONS')
  t.match(error.message, 'ttlMs: ')
  t.match(error.message, 'http: ')
})

t.test('an unreachable database is an error that names neither password nor driver text', async (t) => {
  const rows: Record<string, string> = {
    'nobody listens': nowhere,
    'no such folder': 'sqlite:/no/such/folder/coordination.db',
  }
  for (const [what, database] of Object.entries(rows)) {
    const app = Fastify()
    const error = await refusal(app, { database, identity })
    t.equal(error.code, 'WCO_STORE', what)
    t.match(error.message, /^[A-Z].*\.$/s, `a sentence: ${error.message}`)
    t.notMatch(error.message, 'hunter2')
    await app.close()
  }
})

t.test('a database that says nothing is given up on in time, with the reason', async (t) => {
  const { createServer } = await import('node:net')
  const silent = createServer((socket) => socket.on('error', () => undefined).resume())
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
  t.teardown(() => silent.close())
  const address = silent.address()
  if (address === null || typeof address === 'string') throw new Error('No port')
  const app = Fastify({ pluginTimeout: 1_000 })
  t.teardown(() => app.close())
  const error = await refusal(app, {
    database: `postgres://app:hunter2@127.0.0.1:${address.port}/app`,
    identity,
  })
  t.equal(error.code, 'WCO_STORE')
  t.match(error.message, '`pluginTimeout`')
})

t.test('when the boot fails after the database was opened, closing the application closes it', (t) =>
  eachDatabase(t, async (t, database) => {
    const app = Fastify()
    app.register(workerCoordination, { database: database.url, identity })
    app.register(async () => {
      throw new Error('another plugin')
    })
    await t.rejects(async () => app.ready(), { message: 'another plugin' })
    await app.close()
    await eventually(async () => (await connectionsTo(database)) === 0)
  }),
)

t.test('when our own registration fails late, closing the application closes the database', async (t) => {
  const database = await useSqlite(t)
  const app = Fastify()
  app.get('/coordination/status', async () => 'mine')
  await t.rejects(async () => app.register(workerCoordination, { database: database.url, identity }), {
    code: 'WCO_OPTIONS',
    message: /^prefix: .* "\/coordination\/status"/,
  })
  await app.close()
  t.equal(await connectionsTo(database), 0)
})

t.test('an application that is closed before it was ready leaves nothing', (t) =>
  eachDatabase(t, async (t, database) => {
    const app = Fastify()
    await app.register(workerCoordination, { database: database.url, identity })
    await app.close()
    t.equal(app.coordination.state, 'closed')
    await eventually(async () => (await connectionsTo(database)) === 0)
  }),
)

t.test('closing during the start is harmless, and nothing keeps the process alive', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const program = `
      import Fastify from ${JSON.stringify(import.meta.resolve('fastify'))}
      import workerCoordination from ${JSON.stringify(import.meta.resolve('../../plugin/index.js'))}
      const app = Fastify()
      await app.register(workerCoordination, ${JSON.stringify({ database: url, identity })})
      const started = app.coordination.start()
      await Promise.all([app.ready(), started, app.close(), app.coordination.close()])
      await app.coordination.close()
      console.log(app.coordination.state)`
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['--input-type=module', '--eval', program],
      {
        timeout: 60_000,
      },
    )
    t.equal(stdout.trim(), 'closed')
  }),
)

t.test(
  'an application that is closed while it registers ends, where what follows is a plugin of its own',
  (t) =>
    eachDatabase(t, async (t, database) => {
      const app = Fastify()
      const closed = deferred()
      const closing = (): typeof identity => {
        app.close().then(closed.resolve, closed.reject)
        return identity
      }
      // Awaited, both of them: added to the application itself, the hook would make Fastify wait for ever.
      await app.register(workerCoordination, { database: database.url, identity: closing })
      await app.register(async (own) => {
        own.addHook('onRequest', async () => undefined)
        own.get('/leading', async () => own.coordination.isHeld('w'))
      })
      await closed.promise
      t.equal(app.coordination.state, 'closed')
      await eventually(async () => (await connectionsTo(database)) === 0)
    }),
)

t.test('starting twice and closing twice are harmless', (t) =>
  eachDatabase(t, async (t, database) => {
    const coordinator = await createCoordinator({ database: database.url, identity })
    await Promise.all([coordinator.start(), coordinator.start()])
    const { nodes } = await coordinator.status()
    t.equal(nodes.filter(({ state }) => state === 'active').length, 1, 'one node, not two')
    await Promise.all([coordinator.close(), coordinator.close()])
    await coordinator.close()
    await t.rejects(coordinator.start(), { code: 'WCO_NOT_RUNNING' })
  }),
)

t.test('an application that did not get ready in time does not lead afterwards', async (t) => {
  const { url } = await usePostgres(t)
  const { hostname, port } = new URL(url)
  const proxy = await useProxy(t, { host: hostname, port: Number(port || 5432) })
  const database = new URL(url)
  database.host = `${proxy.host}:${proxy.port}`
  const app = Fastify({ pluginTimeout: 3_000 })
  t.teardown(() => app.close())
  await app.register(workerCoordination, { database: database.href, identity })
  proxy.refuse()
  const error: CoordinationError = await app.ready().then(
    () => t.fail('it became ready'),
    (reason) => reason,
  )
  t.match(error, { code: 'WCO_STORE', message: /did not let this node join within 2700 ms/ })
  t.match(error.cause, { code: 'WCO_STORE' }, 'and why')
  await eventually(() => app.coordination.state === 'closed')
})

t.test('autoStart: false waits to be told', async (t) => {
  const { url } = await useSqlite(t)
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(workerCoordination, { database: url, identity, autoStart: false })
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.equal(app.coordination.state, 'idle')
  const reply = await app.inject('/coordination/status')
  t.match(
    reply.json(),
    { self: { state: 'idle', id: null }, counts: { nodes: { active: 0 } } },
    'the status can be asked all the same',
  )
  await app.coordination.start()
  t.equal(app.coordination.state, 'running')
})

t.test("autoStart: 'listen' starts once the server listens, and not before", async (t) => {
  const { url } = await useSqlite(t)
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(workerCoordination, { database: url, identity, autoStart: 'listen' })
  await app.ready()
  t.equal(app.coordination.state, 'idle')
  await app.listen({ port: 0, host: '127.0.0.1' })
  await eventually(() => app.coordination.state === 'running')
})

t.test(
  "autoStart: 'listen' tries again while the database is away, until it is back or all is over",
  async (t) => {
    const { url } = await usePostgres(t)
    const { hostname, port } = new URL(url)
    const proxy = await useProxy(t, { host: hostname, port: Number(port || 5432) })
    const database = new URL(url)
    database.host = `${proxy.host}:${proxy.port}`
    const applications = [await useListener('n1'), await useListener('n2')] as const
    proxy.refuse()
    for (const { app } of applications) await app.listen({ port: 0, host: '127.0.0.1' })
    for (const { failed } of applications) await failed.promise
    const [goesOn, ends] = applications
    await ends.app.close()
    t.equal(ends.app.coordination.state, 'closed')
    proxy.reset()
    await eventually(() => goesOn.app.coordination.state === 'running')
    const { nodes } = await goesOn.app.coordination.status()
    t.match(nodes, [{ name: 'n1', state: 'active' }])

    /** Returns an application that is connected and about to listen. */
    async function useListener(node: string) {
      const failed = deferred()
      const write = (line: string): void => {
        const { level, msg } = JSON.parse(line)
        if (level === 50 && msg.startsWith('could not start: ')) failed.resolve()
      }
      const app = Fastify({ pluginTimeout: 60_000, logger: { level: 'error', stream: { write } } })
      t.teardown(() => app.close())
      const options = { database: database.href, identity: { node, cluster: 'c1' }, preset: 'fast' } as const
      await app.register(workerCoordination, { ...options, autoStart: 'listen' })
      return { app, failed }
    }
  },
)

t.test('leases are handed over before onClose, for which a kept-alive connection may make us wait', (t) =>
  eachDatabase(t, async (t, database) => {
    const other = await createCoordinator({ database: database.url, identity: { node: 'n2', cluster: 'c1' } })
    t.teardown(() => other.close())
    await other.start()
    const app = Fastify()
    await app.register(workerCoordination, { database: database.url, identity })
    let tokenBeforeOurs: number | undefined
    // Hooks of this name run in reverse order, so this one runs before that of the plugin.
    app.addHook('onClose', async () => {
      const next = await other.acquire('report')
      tokenBeforeOurs = next.token
      await next.release()
    })
    await app.ready()
    const lease = await app.coordination.acquire('report')
    lease.signal.addEventListener('abort', () => void lease.release())
    await app.close()
    t.type(tokenBeforeOurs, 'number')
  }),
)

t.test('leases are handed over although the application ends its own pool first', async (t) => {
  const database = await usePostgres(t)
  for (const moment of ['before', 'during']) {
    const pool = new Pool({ connectionString: database.url, options: '-c search_path=own,public' })
    await pool.query('create schema if not exists own')
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(workerCoordination, { database: pool, identity })
    await app.ready()
    const lease = await app.coordination.acquire('rebuild')
    let left = false
    app.coordination.on('node.left', () => {
      left = true
    })
    if (moment === 'before') await endPool(pool)
    const closed = app.close()
    if (moment === 'during') await endPool(pool)
    await Promise.all([lease.release(), closed])
    t.ok(left, moment)
    await eventually(async () => (await connectionsTo(database)) === 0)
  }
})

t.test('a pass that is slow to settle makes close wait, and is no error', async (t) => {
  const { url } = await useSqlite(t)
  const app = Fastify({ pluginTimeout: 500 })
  let settled = false
  let settledBeforeEarlierHook = false
  // A hook that was there before the plugin comes after the hand-over: this is where a pool can be closed.
  app.addHook('onClose', async () => {
    settledBeforeEarlierHook = settled
  })
  await app.register(workerCoordination, { database: url, identity })
  const working = deferred()
  const release = deferred()
  app.coordination.worker({
    name: 'stubborn',
    kind: 'single',
    scope: 'global',
    async run() {
      working.resolve()
      await release.promise
      settled = true
    },
  })
  // This hook ends the pass. That it runs at all shows that `preClose` did not wait for the pass.
  app.addHook('onClose', async () => release.resolve())
  await app.ready()
  await working.promise
  await app.close()
  t.ok(settled)
  t.ok(settledBeforeEarlierHook)
  t.equal(app.coordination.state, 'closed')
})

t.test('createCoordinator leaves nothing open when it fails midway', async (t) => {
  const database = await useSqlite(t)
  const log = { debug: fail, info: fail, warn: fail, error: fail }
  await t.rejects(createCoordinator({ database: database.url, identity, log }), {
    message: 'the log is full',
  })
  t.equal(await connectionsTo(database), 0)
})

t.test('the log says at the beginning what the chosen durations mean', async (t) => {
  const { url } = await useSqlite(t)
  const lines: object[] = []
  const note = (fields: object, message: string): void => void lines.push({ ...fields, message })
  const log = { debug: note, info: note, warn: note, error: note }
  const coordinator = await createCoordinator({ database: url, identity, log, ttlMs: 15_000 })
  t.teardown(() => coordinator.close())
  t.match(lines[0], {
    message: 'coordination is connected',
    node: 'n1',
    cluster: 'c1',
    namespace: 'default',
    dialect: 'sqlite',
    ttlMs: 15_000,
    hints: 'pushed',
    toleratedOutageMs: 4_850,
    toleratedStallMs: 7_850,
    takeoverAfterCrashMs: 17_150,
    takeoverAfterStopMs: 500,
  })
})

/** Nothing listens on port 1. */
const nowhere = 'postgres://app:hunter2@127.0.0.1:1/app'

async function refusal(app: FastifyInstance, options: WorkerCoordinationOptions): Promise<CoordinationError> {
  try {
    await app.register(workerCoordination, options)
  } catch (error) {
    if (error instanceof CoordinationError) return error
    throw error
  }
  throw new Error('It was registered')
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}

function fail(): never {
  throw new Error('the log is full')
}

/** Returns how many connections to this database are open: on the server, or to the file in this process. */
async function connectionsTo(database: Database): Promise<number> {
  const { dialect, url } = database
  if (dialect === 'sqlite') return openFiles().filter((path) => path === url.slice('sqlite:'.length)).length
  if (dialect === 'mysql') return connectionsToMysql(url)
  if (dialect === 'mssql') return connectionsToMssql(url)
  return connectionsToPostgres(url)
}

async function connectionsToPostgres(url: string): Promise<number> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query<{ count: number }>(
      `select count(*)::int as count from pg_stat_activity
       where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()`,
    )
    return rows[0]?.count ?? 0
  } finally {
    await client.end()
  }
}

async function connectionsToMysql(url: string): Promise<number> {
  const client = await createConnection(url)
  try {
    const [rows] = await client.query<RowDataPacket[]>(
      'select count(*) as count from information_schema.processlist where db = database() and id <> connection_id()',
    )
    return Number(rows[0]?.count)
  } finally {
    await client.end()
  }
}

async function connectionsToMssql(url: string): Promise<number> {
  return withMssql(url, async (pool) => {
    const { recordset } = await pool.query<{ count: number }>(
      `select count(*) as count from sys.dm_exec_sessions
       where database_id = db_id() and is_user_process = 1 and session_id <> @@spid`,
    )
    return recordset[0]?.count ?? 0
  })
}

/** Returns no files where the system does not list them. */
function openFiles(): string[] {
  try {
    return readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`)
      } catch {
        return []
      }
    })
  } catch {
    return []
  }
}
