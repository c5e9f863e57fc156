/** Tests the command line beside nodes at work. `program.test.ts` tests it as a program of its own. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import Database from 'better-sqlite3'
import Fastify from 'fastify'
import t from 'tap'
import type { Scene } from '../../plugin/cli/scene.js'
import { termTable } from '../../plugin/cli/tables.js'
import { type Coordinator, createCoordinator } from '../../plugin/coordinator.js'
import { deferred } from '../../plugin/core/time/loop.js'
import workerCoordination from '../../plugin/index.js'
import { eachDatabase, usePostgres, useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { cli, type Ended, key, nodeAtWork, user } from './scene.js'

// For all of them together: on a server that is slow to become ready, each test takes many seconds.
t.setTimeout(600_000)

t.test('who leads, why, and how it is', (t) =>
  eachDatabase(t, async (t, database) => {
    await nodeAtWork(t, database)
    const status = await cli(database.url, 'status')
    t.equal(status.code, 0, status.err)
    t.match(status.out, /^Namespace default, 1 node: no problems\n\nNODE +CLUSTER /)
    t.match(status.out, /\n\nWork that ignores its signal is known only to its own process: .+\n$/)
    t.match(status.out, /^n1 +c1 +active +\d+ s ago +1 +- /m)
    t.notMatch(status.out, '\u001b', 'no colours where no terminal is')
    const leaders = JSON.parse((await cli(database.url, 'leaders', '--json')).out)
    t.match(leaders, { [key]: { node: 'n1', cluster: 'c1', token: Number, sinceMs: Number } })
    const why = (await cli(database.url, 'explain', key)).out
    t.match(why, /^n1 \(c1\) has held it/)
    t.match(why, /^n1 +\d{4}-\d\d-\d\d [\d:]+ UTC +- +\d+ +holds it now$/m)
    t.match((await cli(database.url, 'explain', 'global:month-close')).out, /n1/, 'as in paths')
    t.match(await cli(database.url, 'explain', 'global/nothing'), { code: 1, out: /There is no lease/ })
  }),
)

t.test('a lease whose row was deleted by hand is told with what makes it again', async (t) => {
  const database = await useSqlite(t)
  await nodeAtWork(t, database)
  const file = new Database(database.url.replace(/^sqlite:/, ''))
  file.prepare('delete from coordination_leases').run()
  file.close()
  t.match(await cli(database.url, 'explain', key), {
    code: 1,
    out: /^The lease "global\/month-close" is missing although its worker is registered.* restart one\.\n$/,
  })
})

t.test('a worker whose row was deleted by hand is told with what makes it again', async (t) => {
  const database = await useSqlite(t)
  await nodeAtWork(t, database)
  const file = new Database(database.url.replace(/^sqlite:/, ''))
  file.prepare('delete from coordination_workers').run()
  file.close()
  t.match(await cli(database.url, 'explain', key), { code: 0, out: /The row of its worker is missing: / })
  t.match(await cli(database.url, 'pause', key, '--reason', 'a deploy'), {
    code: 1,
    out: /^The worker "global\/month-close" is missing although there are leases of it.* made again\.\n$/,
  })
})

t.test('leaders are told by the same fields and in the same units as over HTTP', async (t) => {
  const { url } = await useSqlite(t)
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(workerCoordination, { database: url, identity: { node: 'n1', cluster: 'c1' } })
  app.coordination.worker({ name: 'month-close', kind: 'single', scope: 'global', run: () => undefined })
  await app.ready()
  await eventually(() => app.coordination.isHeld('month-close'))
  const overHttp = async () => {
    const headers = { host: 'localhost' }
    const request = { url: '/coordination/leaders', remoteAddress: '127.0.0.1', headers }
    return (await app.inject(request)).json()[key]
  }
  await eventually(async () => (await overHttp()).sinceMs > 0)
  const before = await overHttp()
  const { [key]: leader } = JSON.parse((await cli(url, 'leaders', '--json')).out)
  const { silent, ...told } = leader
  t.equal(silent, false)
  t.strictSame({ ...told, sinceMs: 0 }, { ...before, sinceMs: 0 })
  t.ok(before.sinceMs <= told.sinceMs)
  // Answers over HTTP may be a second old.
  await eventually(async () => (await overHttp()).sinceMs >= told.sinceMs)
})

t.test('where several nodes bear a name, none of them is taken for the one that is meant', async (t) => {
  const database = await useSqlite(t)
  const nodes = [await nodeAtWork(t, database), await nodeAtWork(t, database)]
  const ids = nodes.map(({ nodeId }) => nodeId ?? '')
  const why = ['--reason', 'a deploy']
  const { code, out } = await cli(database.url, 'drain', 'n1', ...why)
  t.equal(code, 1)
  t.match(out, /^2 nodes are called "n1"\. Name the one you mean by its id\.\n\nNODE +CLUSTER +/)
  for (const id of ids) t.match(out, new RegExp(` ${id}$`, 'm'))
  const json = JSON.parse((await cli(database.url, 'drain', 'n1', ...why, '--json')).out)
  t.strictSame(json.nodes.sort(), ids.sort())
  t.match(await cli(database.url, 'drain', ids[1] ?? '', ...why), { code: 0, out: /hands over/ })
  await nodes[0]?.close()
  const gone = nodes[0] === undefined ? '' : ids.find((id) => id !== nodes[1]?.nodeId)
  t.match(await cli(database.url, 'drain', gone ?? '', ...why), {
    code: 1,
    out: /^The node ".+" is gone\.\n$/,
  })
  t.match(
    await cli(database.url, 'undrain', 'n1', ...why),
    { code: 0 },
    'of those that are not gone there is one',
  )
  await nodes[1]?.close()
  const last = await cli(database.url, 'drain', 'n1', ...why)
  t.match(last, { code: 1, out: 'The node "n1" is gone.\n' }, 'also by its name')
})

t.test('a namespace in which nothing ever was is told, with those there are', (t) =>
  eachDatabase(t, async (t, database) => {
    await nodeAtWork(t, database, { namespace: 'billing' })
    const out = 'There is no namespace "biling" in this database. There is "billing".\n'
    const orders = [
      ['status'],
      ['leaders'],
      ['explain', key],
      ['pause', key, '--reason', 'a deploy'],
      ['drain', 'n1', '--reason', 'a deploy'],
    ]
    for (const typed of orders)
      t.match(await cli(database.url, ...typed, '--namespace', 'biling'), { code: 1, out }, typed.join(' '))
    t.match(JSON.parse((await cli(database.url, 'status', '--json')).out), { namespaces: ['billing'] })
    t.match(await cli(database.url, 'status', '--namespace', 'billing'), {
      code: 0,
      out: /1 node: no problems\n/,
    })
    await nodeAtWork(t, database, { namespace: 'biling' })
    const others = /Other namespaces in this database: "billing"\n/
    t.match(await cli(database.url, 'status', '--namespace', 'biling'), { code: 0, out: others })
  }),
)

t.test(
  'a key that leads nowhere is answered with the one that was meant, or with what keys are like',
  async (t) => {
    const database = await useSqlite(t)
    const coordinator = await nodeAtWork(t, database)
    coordinator.worker({
      name: 'feed',
      kind: 'partitioned',
      scope: 'cluster',
      partitions: 2,
      run: () => undefined,
    })
    const many = { name: 'many', kind: 'partitioned', scope: 'cluster', partitions: 11 } as const
    coordinator.worker({ ...many, run: () => undefined })
    await eventually(() => coordinator.isHeld('feed') && coordinator.isHeld('many'))
    await coordinator.acquire('by-hand', { scope: 'global' })
    const why = ['--reason', 'a deploy']
    const cases: [string[], RegExp][] = [
      [
        ['explain', 'month-close'],
        /^There is no lease "month-close"\. Did you mean "global\/month-close"\?\n$/,
      ],
      [['explain', 'c1/month-close'], /Did you mean "global\/month-close"\?/],
      [['release', 'month-close', '--token', '1', ...why], /Did you mean "global\/month-close"\?/],
      [['explain', 'feed~1'], /Did you mean "c1\/feed#1"\?/],
      [['explain', 'feed'], /Did you mean "c1\/feed#0" or "c1\/feed#1"\?/],
      [['explain', 'many'], /Did you mean one of 11, such as "c1\/many#0"\?/],
      [
        ['explain', 'nothing'],
        /Keys are written like global\/month-close, .*; `status` lists those there are\.\n$/,
      ],
      [['pause', 'feed', ...why], /^There is no worker "feed"\. Did you mean "c1\/feed"\?\n$/],
      [['resume', 'c1/feed#1', ...why], /^There is no worker "c1\/feed#1"\. Did you mean "c1\/feed"\?\n$/],
      [
        ['pause', 'global/by-hand', ...why],
        /^"global\/by-hand" is a lease that is acquired by name: no worker belongs to it\./,
      ],
      [['pause', 'nothing', ...why], /Keys are written like global\/month-close or eu-1\/indexing; /],
      [['drain', 'nobody', ...why], /^There is no node "nobody"\. `status` lists those there are\.\n$/],
    ]
    for (const [typed, out] of cases)
      t.match(await cli(database.url, ...typed), { code: 1, out }, typed.join(' '))
  },
)

t.test('a lease is released by its token and no other, and the audit trail says by whom and why', (t) =>
  eachDatabase(t, async (t, database) => {
    const coordinator = await nodeAtWork(t, database)
    const { [key]: leader } = JSON.parse((await cli(database.url, 'leaders', '--json')).out)
    const release = (...more: string[]): Promise<Ended> =>
      cli(database.url, 'release', key, '--reason', 'it hangs', ...more)
    t.match(await release('--token', String(leader.token - 1)), {
      code: 1,
      out: `Nothing was released: by now n1 holds it, with token ${leader.token}.`,
    })
    t.ok(coordinator.isHeld('month-close'))
    const ended = new Promise((resolve) => coordinator.once('lease.ended', resolve))
    t.match(await release('--token', String(leader.token), '--cooldown-ms', '0'), {
      code: 0,
      out: new RegExp(
        '^Released\\. n1 is told to stop\\. .* after 79 s at the latest\\.\n' +
          'Until then `explain global/month-close` shows whether n1 has said .*\n' +
          'Work on n1 that ignores its signal goes on .* the log and `/status` of n1 show: ',
      ),
    })
    t.match(await ended, { key, token: leader.token, reason: 'revoked' })
    const events = await coordinator.operator.events({ limit: 100, types: ['lease.revoked'] })
    t.match(events, [{ actor: user, reason: 'it hangs', token: leader.token }])
    await eventually(async () => (await acknowledgements(coordinator)).includes(leader.token))
    const told = new RegExp(` ${leader.token} +revoked by ${user}: it hangs$`, 'm')
    t.match((await cli(database.url, 'explain', key)).out, told)
    t.match(await release(), { code: 2, err: /Which term\? Say --token N, as `explain` shows it/ })
    const { code, out } = await cli(database.url, 'explain', key)
    t.match(
      { code, out },
      { code: 0, out: new RegExp(` ${leader.token} `) },
      'of any lease, not only those of leaders',
    )
  }),
)

t.test('a holder that never said that it has stopped is told of', async (t) => {
  const database = await useSqlite(t)
  const coordinator = await nodeAtWork(t, database)
  const token = async (): Promise<number | undefined> =>
    JSON.parse((await cli(database.url, 'leaders', '--json')).out)[key]?.token
  const first = await token()
  const why = ['--reason', 'it hangs', '--actor', 'mira']
  t.match(await cli(database.url, 'release', key, '--token', String(first), '--immediate', ...why), {
    code: 0,
    out: /^Released\. The next holder may begin at once\.\nn1 may still be at work, which only the log and .* show: /,
  })
  await eventually(async () => ![undefined, first].includes(await token()))
  const told = (end: string) =>
    new RegExp(` ${first} +revoked by mira: it hangs; never said that it has stopped${end}$`, 'm')
  t.match((await cli(database.url, 'explain', key)).out, told(''))
  await coordinator.close()
  t.match((await cli(database.url, 'explain', key)).out, told(', and is gone by now'))
})

t.test('a term whose passes failed too often is told as such', async (t) => {
  const failed = { how: 'released', reason: 'passes-failed', actor: null, acknowledged: null } as const
  const term = { holder: null, token: 7, fromMs: 0, toMs: 60_000, ended: failed }
  const scene = { snapshot: { nodes: [] } } as unknown as Scene
  t.match(termTable(scene, [term]).rows, [
    [/unknown/, /1970/, /1970/, '7', 'gave it back: its passes failed'],
  ])
})

t.test('nodes hear of an order at once, and not with their next heartbeat', (t) =>
  eachDatabase(t, async (t, database) => {
    const timing = { ttlMs: 3_600_000, heartbeatMs: 1_200_000, pollMs: 250 }
    const coordinator = await nodeAtWork(t, database, timing)
    for (const [command, held] of [
      ['pause', false],
      ['resume', true],
    ] as const) {
      t.match(await cli(database.url, command, key, '--reason', 'a deploy'), { code: 0 }, command)
      await eventually(() => coordinator.isHeld('month-close') === held)
    }
    const events = await coordinator.operator.events({ limit: 10, types: ['target.passed-over'] })
    t.same(events, [])
  }),
)

t.test('nodes are drained and workers paused, by name, and back', (t) =>
  eachDatabase(t, async (t, database) => {
    const coordinator = await nodeAtWork(t, database)
    const why = ['--reason', 'a deploy', '--actor', 'mira']
    const words: [string, string, RegExp][] = [
      ['pause', key, /Nobody runs it/],
      ['pause', key, /paused already/],
      ['resume', 'global:month-close', /run it again/],
      ['drain', 'n1', /hands over/],
      ['drain', coordinator.nodeId ?? '', /draining already/],
      ['undrain', 'n1', /takes part again/],
    ]
    for (const [command, subject, out] of words)
      t.match(await cli(database.url, command, subject, ...why), { code: 0, out }, command)
    await cli(database.url, 'pause', key, ...why)
    t.match((await cli(database.url, 'explain', key)).out, /mira paused it .* ago: “a deploy”/)
    await cli(database.url, 'resume', key, ...why)
    t.match(await cli(database.url, 'pause', 'global/nothing', ...why), { code: 1, out: /no worker/ })
    t.match(await cli(database.url, 'drain', 'nobody', ...why), { code: 1, out: /no node/ })
    const short: [string, string][] = [
      ['pause', key],
      ['drain', 'n1'],
    ]
    for (const [command, subject] of short) t.match(await cli(database.url, command, subject), { code: 2 })
    await cli(database.url, 'pause', key, ...why)
    t.match(await cli(database.url, 'resume', key, '--actor', 'mira'), { code: 0, err: '' })
    await cli(database.url, 'drain', 'n1', ...why)
    t.match(await cli(database.url, 'undrain', 'n1', '--actor', 'mira'), { code: 0, err: '' })
    const events = await coordinator.operator.events({ limit: 9, types: ['node.resumed', 'worker.resumed'] })
    t.strictSame(
      events.map(({ reason }) => reason),
      ['drain withdrawn', 'resumed', 'a deploy', 'a deploy', 'a deploy'],
      'what is withdrawn needs no reason',
    )
    await eventually(() => coordinator.isHeld('month-close'))
  }),
)

t.test('a worker that no program registers any more is forgotten', (t) =>
  eachDatabase(t, async (t, database) => {
    const coordinator = await nodeAtWork(t, database)
    t.match(await cli(database.url, 'forget', key), { code: 1, out: /^Some node has registered it/ })
    await coordinator.close()
    t.match(
      (await cli(database.url, 'status')).out,
      /warning +worker-without-candidates +[^→]*$/,
      'no node is left',
    )
    const identity = { node: 'n2', cluster: 'c1' }
    const other = await createCoordinator({ database: database.url, identity })
    t.teardown(() => other.close())
    await other.start()
    t.match((await cli(database.url, 'status')).out, / → .*forget global\/month-close/)
    t.match(await cli(database.url, 'forget', key), { code: 0, out: /^It is removed, with its leases\./ })
    t.match((await cli(database.url, 'status')).out, /no problems/)
    t.match(await cli(database.url, 'forget', key), { code: 1, out: /no worker/ })
  }),
)

t.test('a database is brought up to date, and checked without a trace', (t) =>
  eachDatabase(t, async (t, { url, dialect }) => {
    const remedy = /npx fastify-worker-coordination migrate\n$/
    t.match(await cli(url, 'check'), { code: 3, err: remedy }, 'before there are tables')
    t.match(await cli(url, 'status'), { code: 3, err: remedy }, 'looking changes no tables')
    t.match(await cli(url, 'status'), { err: /Is this the right database\? If it is new: / })
    t.match(await cli(url, 'migrate'), { code: 0, out: /up to date/ })
    t.match(
      (await cli(url, 'status')).out,
      /^Namespace default, 0 nodes: .+\nNo node has ever joined here\.\n/,
    )
    // A server may need longer for a query that it has never seen than `fast` allows.
    const [preset, ttlMs] = dialect === 'mssql' ? ['relaxed', 60_000] : ['fast', 6_000]
    const { code, out, err } = await cli(url, 'check', '--json', '--preset', preset)
    t.equal(code, 0, out + err)
    const { findings, timing } = JSON.parse(out)
    t.equal(timing.ttlMs, ttlMs)
    t.match(
      findings[4].detail,
      /schedules go by it, logs and node-cron by this machine's, leases by neither$/,
    )
    t.strictSame(
      findings.map(({ what }: { what: string }) => what.split(',')[0]),
      [
        'connection and tables',
        'writing in an ordered change',
        'deleting what is old',
        'round trips',
        "the database's clock",
        'hints',
      ],
    )
    t.match(JSON.parse((await cli(url, 'status', '--json')).out), { revision: 0, nodes: [] })
  }),
)

t.test('only migrate makes a file of SQLite', async (t) => {
  const { url, path } = await useSqlite(t)
  for (const typed of [['leaders'], ['check'], ['pause', key, '--reason', 'a deploy']])
    t.match(
      await cli(url, ...typed),
      { code: 3, out: '', err: `There is no file "${path}". Is this the right database? If it is new: npx ` },
      typed.join(' '),
    )
  t.notOk(existsSync(path))
  const here = `There is no file "${resolve('not-here.db')}". `
  t.match(await cli('sqlite:not-here.db', 'status'), { code: 3, err: here }, 'from which folder it is')
  t.match(await cli(`sqlite://${path}`, 'migrate'), { code: 0 })
  t.match(await cli(`sqlite://${path}`, 'leaders'), { code: 0 })
  const { url: empty, path: emptyPath } = await useSqlite(t)
  await writeFile(emptyPath, '')
  const err = `There are no tables of this package in "${emptyPath}". Is this the right database? If it is new: `
  t.match(await cli(empty, 'leaders'), { code: 3, out: '', err })
})

t.test('a database of an older version is to be brought up to date', async (t) => {
  const { url, path } = await useSqlite(t)
  await cli(url, 'migrate')
  const older = new Database(path)
  const journal = 'worker_coordination_migrations'
  const [latest] = older
    .prepare(`DELETE FROM ${journal} WHERE name > '20261124' RETURNING name`)
    .pluck()
    .all()
  older.close()
  const err = `Migrations are pending ("${latest}"). To run them: npx fastify-worker-coordination migrate\n`
  t.match(await cli(url, 'status'), { code: 3, out: '', err })
})

t.test('what is wrong is listed, as over HTTP', (t) =>
  eachDatabase(t, async (t, database) => {
    const coordinator = await nodeAtWork(t, database)
    const listed = async (command: string): Promise<string> => (await cli(database.url, command)).out
    for (const command of ['status', 'leaders']) t.notMatch(await listed(command), 'SEVERITY')
    await cli(database.url, 'pause', key, '--reason', 'until the bank calls', '--actor', 'kim')
    await eventually(async () => (await coordinator.status()).leases.some(({ state }) => state === 'free'))
    const paused =
      /^info +worker-paused +The worker "global\/month-close" is paused: nobody runs it\. kim paused it at .+: “until the bank calls”\.\n +→ resume global\/month-close$/m
    for (const command of ['status', 'leaders'])
      t.match(await cli(database.url, command), { code: 0, out: paused })
    await cli(database.url, 'resume', key)
    await cli(database.url, 'drain', 'n1', '--reason', 'a deploy')
    await eventually(async () => (await coordinator.status()).leases.some(({ state }) => state === 'free'))
    const { problems } = JSON.parse((await cli(database.url, 'status', '--json')).out)
    t.match(problems, [
      { code: 'worker-without-candidates', severity: 'warning', subject: key },
      { code: 'node-draining', severity: 'info', subject: coordinator.nodeId },
    ])
    const first = '^Namespace default, 1 node: 1 warning, 1 info\n\nSEVERITY +CODE +PROBLEM\n'
    const drained =
      `warning +worker-without-candidates +No active node is .+\n` +
      `info +node-draining +Node "n1" hands everything over .+ ${user} asked for it at .+ UTC: “a deploy”\\.\n` +
      ` +→ undrain n1\n\n`
    t.match(await listed('status'), new RegExp(`${first}${drained}NODE +CLUSTER `))
    t.match(await listed('leaders'), new RegExp(`${first}${drained}LEASE +STATE `))
  }),
)

t.test('a node whose heartbeat has stood still for its ttl is shown as silent, and so are its leases', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const holder = spawn(process.execPath, ['--input-type=module', '-e', leading], {
      env: { ...process.env, NODE_OPTIONS: '', NODE_V8_COVERAGE: '', DATABASE_URL: url },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    t.teardown(() => holder.kill('SIGKILL'))
    await once(holder.stdout, 'data')
    t.match(await cli(url, 'leaders'), { code: 0 })
    holder.kill('SIGKILL')
    await eventually(async () => (await cli(url, 'status')).code === 1)
    const { out } = await cli(url, 'status')
    t.match(out, /^n1 +c1 +silent /m)
    t.match(out, /^global\/month-close +silent +n1 /m)
    t.match(
      out,
      /^Namespace default, 1 node: 1 error\nNo node renews its session: none runs, or the database takes/,
    )
    t.match(out, /^error +node-silent +No heartbeat of node "n1" has come since [\d: -]+ UTC\.$/m)
    const why = ['--reason', 'a deploy']
    t.match(await cli(url, 'drain', 'n1', ...why), { code: 0, out: /^It gets nothing new\. It is silent, / })
    t.match(await cli(url, 'undrain', 'n1'), { code: 0, out: /^It takes part again if it goes on/ })
    const leaders = await cli(url, 'leaders', '--json')
    t.equal(leaders.code, 1)
    t.match(JSON.parse(leaders.out), { [key]: { node: 'n1', silent: true } })
    const status = JSON.parse((await cli(url, 'status', '--json')).out)
    t.match(status, { nodes: [{ state: 'active', silent: true }], leases: [{ state: 'held', silent: true }] })
    t.match(status.problems, [{ code: 'node-silent', severity: 'error' }])
  }),
)

t.test('nodes that are gone are counted, and those of one name told apart', async (t) => {
  const database = await useSqlite(t)
  const gone = [await nodeAtWork(t, database), await nodeAtWork(t, database)]
  const goneIds = gone.map(({ nodeId }) => nodeId ?? '')
  for (const node of gone) await node.close()
  const nodes = [await nodeAtWork(t, database), await nodeAtWork(t, database)]
  await eventually(() => nodes.some((node) => node.isHeld('month-close')))
  const { out } = await cli(database.url, 'status')
  t.match(
    out,
    /^Namespace default, 2 nodes: no problems\nSeveral nodes have one name \("n1"\): HOLDER also shows /,
  )
  t.match(out, /\n2 nodes are gone\.\n\nLEASE /)
  for (const id of goneIds) t.notMatch(out, id)
  const holder = nodes.find((node) => node.isHeld('month-close'))?.nodeId ?? ''
  t.match(out, new RegExp(`^global/month-close +held +n1 \\(${holder.slice(0, 8)}\\) `, 'm'))
  const json = JSON.parse((await cli(database.url, 'status', '--json')).out)
  t.equal(json.nodes.length, 4)
  await cli(database.url, 'drain', holder, '--reason', 'a deploy')
  t.match((await cli(database.url, 'status')).out, new RegExp(`^ +→ undrain ${holder}$`, 'm'))
})

t.test('a lease on its way is shown with both nodes, and the command fits the namespace', async (t) => {
  const database = await useSqlite(t)
  const settle = deferred()
  t.teardown(() => settle.resolve())
  const options = { namespace: 'billing', ttlMs: 60_000, heartbeatMs: 500 }
  const start = async (node: string): Promise<Coordinator> => {
    const identity = { node, cluster: 'c1' }
    const coordinator = await createCoordinator({ database: database.url, identity, ...options })
    t.teardown(() => {
      settle.resolve()
      return coordinator.close()
    })
    coordinator.worker({ name: 'slow', kind: 'single', scope: 'global', run: () => settle.promise })
    await coordinator.start()
    return coordinator
  }
  const first = await start('n1')
  await eventually(() => first.isHeld('slow'))
  await start('n2')
  const billing = ['--namespace', 'billing']
  await cli(database.url, 'drain', 'n1', '--reason', 'a deploy', ...billing)
  const { out } = await cli(database.url, 'status', ...billing)
  t.match(out, /^global\/slow +moving +n1 → n2 /m)
  t.match(out, /^ +→ undrain n1 --namespace billing$/m)
})

/** The program of a node that says so once it leads. The test kills it. */
const leading = `
  import { createCoordinator } from '${new URL('../../plugin/coordinator.js', import.meta.url)}'
  const coordinator = await createCoordinator({
    database: process.env.DATABASE_URL,
    identity: { node: 'n1', cluster: 'c1' },
    preset: 'fast',
  })
  coordinator.worker({
    name: 'month-close',
    kind: 'single',
    scope: 'global',
    run: ({ signal }) => {
      console.log('leads')
      return new Promise((resolve) => signal.addEventListener('abort', resolve))
    },
  })
  await coordinator.start()
`

t.test('nothing in the database can disguise what is written', async (t) => {
  const database = await useSqlite(t)
  const { url, path } = database
  const coordinator = await nodeAtWork(t, database)
  const bad = 'x\n\u001b[2J\u009b2J\u202eoops'
  const file = new Database(path)
  t.teardown(() => file.close())
  file.prepare('update coordination_nodes set name = ?').run(bad)
  file
    .prepare(
      'insert into coordination_meta select ?, 1, watchers, 1, 0, server_identity, 1 from coordination_meta',
    )
    .run(bad)
  for (const typed of [['status'], ['explain', key], ['status', '--namespace', 'nope']]) {
    const { out } = await cli(url, ...typed)
    t.match(out, 'x\ufffd\ufffd[2J\ufffd2J\ufffdoops', typed.join(' '))
    t.notMatch(out, /(?!\n)[\p{Cc}\u202e]/u, typed.join(' '))
  }
  const { out } = await cli(url, 'status', '--json')
  t.notMatch(out, /(?!\n)[\p{Cc}\u202e]/u)
  const [node] = JSON.parse(out).nodes
  t.match(node, { id: coordinator.nodeId, name: bad }, 'and programs read what is there')
})

t.test('a check says no where the promises could not be held', async (t) => {
  const { url } = await usePostgres(t)
  await cli(url, 'migrate')
  const readOnly = new URL(url)
  readOnly.searchParams.set('options', '-c default_transaction_read_only=on')
  const { code, out } = await cli(readOnly.href, 'check')
  t.equal(code, 1, out)
  t.match(out, /^FAILED +writing in an ordered change +.*read-only/m)
  t.match(out, /^FAILED +deleting what is old +.*read-only/m)
  t.match(out, /^ok +connection and tables/m)
  t.match(await cli(url, 'check'), { code: 0, out: /^ok +deleting what is old/m })
})

/** Returns the tokens of the terms after which their holder said that it has stopped. */
async function acknowledgements({ operator }: Coordinator): Promise<(number | null)[]> {
  const events = await operator.events({ types: ['lease.acknowledged'], limit: 100 })
  return events.map(({ token }) => token)
}

t.test('what cannot be understood is said, with how it is meant, and nothing is done', async (t) => {
  const { url } = await useSqlite(t)
  const cases: [string | undefined, string[], RegExp][] = [
    [url, ['elect'], /There is no command "elect"/],
    [url, ['release'], /Expected: release <lease>/],
    [url, ['pause', key], /Why\? Say --reason/],
    [
      url,
      ['release', key, '--reason', 'it hangs', '--token', 'x'],
      /--token: expected a whole number, got "x"/,
    ],
    [
      url,
      ['pause', key, '--reason', 'no'],
      /--reason: expected 3 to 200 characters, not only spaces, with no line break .*, got "no"\./,
    ],
    [url, ['pause', key, '--reason', 'a\nforged line'], /--reason: expected .*, got "a\\nforged line"\./],
    [url, ['pause', key, '--reason', 'a'.repeat(201)], /--reason: expected .* \(201 characters\)\./],
    [url, ['pause', key, '--reason', 'it hangs', '--actor', ''], /--actor: expected 1 to 200 .*, got ""\./],
    [url, ['pause', key, '--reason', 'it hangs', '--actor', '\u001b[2J'], /--actor: expected 1 to 200 /],
    [url, ['status', '--colour'], /--colour/],
    [url, ['status', '--preset', 'fast'], /^`status` takes no --preset; it is for check\.\n/],
    [
      url,
      ['pause', key, '--reason', 'a deploy', '--immediate'],
      /^`pause` takes no --immediate; .* release\./,
    ],
    [
      url,
      ['leaders', '--reason', 'to know'],
      /takes no --reason; it is for release, drain, undrain, pause, resume, forget\.\n/,
    ],
    [url, ['check', '--token', '1'], /^`check` takes no --token; /],
    [url, ['check', '--preset', 'slow'], /^--preset: expected default, fast or relaxed, got "slow"/],
    ...['status', 'check', 'migrate'].map((command): [string, string[], RegExp] => [
      url,
      [command, '--namespace', 'our jobs'],
      /^--namespace: expected 1 to 100 of the characters .*, got "our jobs"\.\n/,
    ]),
    [undefined, ['status'], /Say --database URL, or set DATABASE_URL/],
    ...[[], ['status'], ['explain']].map((typed): [string, string[], RegExp] => [
      url,
      [...typed, 'postgres://ops:s3cret@127.0.0.1/app'],
      /^Is the URL that of the database\? Say --database URL/,
    ]),
    ['carrier-pigeon:', ['status'], /expected a URL that begins with/],
  ]
  for (const [database, typed, err] of cases) {
    const ended = await cli(database, ...typed)
    t.match(ended, { code: 2, out: '' }, typed.join(' '))
    t.match(ended.err, err)
    t.match(ended.err, /\nRun npx fastify-worker-coordination --help to see what there is\.\n$/)
    t.notMatch(ended.err, /Usage:|s3cret/)
  }
  t.match(await cli('postgres://127.0.0.1:1/nowhere', 'status'), { code: 3, out: '' })
  t.match(await cli(undefined, '--help'), { code: 0, out: /Exit codes/ })
  t.match(await cli(undefined, '--version'), { code: 0, out: /^\d+\.\d+\.\d+/ })
})
