/** Tests releases by force over HTTP: who is next, and what is waited for. */

import mssql from 'mssql'
import { createConnection } from 'mysql2/promise'
import { Client } from 'pg'
import t, { type Test } from 'tap'
import { deferred } from '../../plugin/core/time/loop.js'
import { type Database, eachDatabase, mssqlConfig, useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { post, revisionOf, single, untilAborted, useApp } from './application.js'

// For all of them together: on a server that is slow to become ready, each test takes many seconds.
t.setTimeout(600_000)

const reason = 'stuck since 03:10'

interface Stuck {
  readonly aborted: Promise<void>
  readonly isBusy: boolean
  stop(): void
}

/**
 * Starts a holder that renews its session but does nothing and ignores its signal, and a node that waits for the lease.
 */
async function useStuckLease(
  t: Test,
  url: Database['url'],
  timing: { ttlMs?: number; handoverTimeoutMs?: number } = {},
) {
  const key = 'global/report'
  const begun = deferred()
  const aborted = deferred()
  const released = deferred()
  let busy = false
  const stuck: Stuck = {
    aborted: aborted.promise,
    stop: () => released.resolve(),
    get isBusy() {
      return busy
    },
  }
  const run = async ({ signal }: { signal: AbortSignal }): Promise<void> => {
    busy = true
    begun.resolve()
    signal.addEventListener('abort', () => aborted.resolve())
    await released.promise
    busy = false
  }
  const options = { authorize: () => ({ id: 'mira' }), ...timing }
  const old = await useApp(t, { url, node: 'n1', options, workers: [single(key, run)] })
  t.teardown(() => stuck.stop())
  await begun.promise
  const other = await useApp(t, { url, node: 'n2', options, workers: [single(key, untilAborted)] })
  return { old, other, stuck, key, path: '/coordination/leases/global:report' }
}

/** Begins a transaction of the application's own. */
async function useTransaction(
  t: Test,
  { dialect, url }: Database,
): Promise<{ client: object; rollback(): Promise<unknown> }> {
  if (dialect === 'mssql') {
    const pool = await new mssql.ConnectionPool(mssqlConfig(url)).connect()
    t.teardown(() => pool.close())
    const client = pool.transaction()
    await client.begin()
    return { client, rollback: () => client.rollback() }
  }
  if (dialect === 'mysql') {
    const client = await createConnection(url)
    t.teardown(() => client.end())
    await client.query('begin')
    return { client, rollback: () => client.query('rollback') }
  }
  const client = new Client({ connectionString: url })
  await client.connect()
  t.teardown(() => client.end())
  await client.query('begin')
  return { client, rollback: () => client.query('rollback') }
}

t.test('a stuck lease is freed by force, and the next holder begins when the old one has stopped', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const { old, other, stuck, key, path } = await useStuckLease(t, url)
    const before = (await old.inject(path)).json()
    const token: number = before.token

    const reply = await post(other, `${path}/release`, { reason, cooldownMs: 600_000 }, `"${token}"`)
    t.equal(reply.statusCode, 200)
    const answer = reply.json()
    t.match(answer, {
      released: true,
      previousHolder: { id: old.coordination.nodeId, name: 'n1', cluster: 'c1' },
      previousToken: token,
      acknowledged: false,
      eventId: /^\d+-\d+$/,
      sentence:
        'n1 has not confirmed that it has stopped. The lease can be claimed at the end of this wait at the latest. ' +
        'For 600 s it will not get the lease back while another node is available.',
    })
    t.ok(Date.parse(answer.safeAt) > Date.parse(before.now))
    await stuck.aborted
    t.notOk(old.coordination.isHeld(key))

    const [event] = (await other.inject('/coordination/events?type=lease.revoked')).json().items
    t.match(event, {
      id: answer.eventId,
      subject: key,
      token,
      actor: 'mira',
      reason,
      node: old.coordination.nodeId,
      nodeName: 'n1',
      sentence: 'It was taken away from n1.',
    })
    t.match((await other.inject(path)).json(), {
      state: 'blocked',
      holder: null,
      token,
      blockedNode: { name: 'n1' },
    })
    t.match((await other.inject('/coordination/status')).json().problems, [
      { code: 'lease-blocked', subject: key },
    ])
    const own = (await old.inject('/coordination/status')).json().problems
    t.ok(own.some(({ code }: { code: string }) => code === 'work-unsettled'))

    const revision = await revisionOf(other)
    for (const app of [old, other]) {
      const again = await post(app, `${path}/release`, { reason: 'once more' }, `"${token}"`)
      t.equal(again.statusCode, 200)
      t.strictSame(again.json(), answer, 'repeating it answers the same')
    }
    t.equal(await revisionOf(other), revision, 'and changes nothing')

    stuck.stop()
    await eventually(() => other.coordination.isHeld(key))
    const next = (await other.inject(path)).json()
    t.match(next, { state: 'held', holder: { name: 'n2' }, cooldown: { node: { name: 'n1' } } })
    t.ok(next.token > token)
    t.ok(Date.parse(next.now) < Date.parse(answer.safeAt), 'nobody waited for longer than needed')

    const late = await post(other, `${path}/release`, { reason }, `"${token}"`)
    t.equal(late.statusCode, 412)
    t.match(late.json(), {
      type: /token-mismatch$/,
      current: { key, token: next.token, holder: { name: 'n2' } },
    })
    t.ok(other.coordination.isHeld(key), 'with a newer token nothing happens')

    const third = await useApp(t, { url, node: 'n3', workers: [single(key, untilAborted)] })
    await other.close()
    await eventually(() => third.coordination.isHeld(key) || old.coordination.isHeld(key))
    t.ok(third.coordination.isHeld(key), 'the one that was stuck does not win again in its cool-down')
  }),
)

t.test('who never acknowledges is waited for until safeAt, and no longer', (t) =>
  eachDatabase(t, async (t, { url, dialect }) => {
    // Short, but long enough for the first answer of a server that is slow at first.
    const ttlMs = dialect === 'mssql' ? 15_000 : 3_000
    const timing = { ttlMs, handoverTimeoutMs: 60_000 }
    const { old, other, stuck, key, path } = await useStuckLease(t, url, timing)
    const { token } = (await old.inject(path)).json()
    const answer = (await post(other, `${path}/release`, { reason }, `"${token}"`)).json()
    await eventually(() => other.coordination.isHeld(key), { timeoutMs: 120_000 })
    const { acquiredAt } = (await other.inject(path)).json()
    const earlyMs = Date.parse(answer.safeAt) - Date.parse(acquiredAt)
    t.ok(earlyMs < 500, `it is held by another from about safeAt on (${earlyMs} ms before)`)
    t.ok(stuck.isBusy, 'though the old work goes on')
  }),
)

t.test('released immediately, the next holder waits for nobody', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const { old, other, stuck, key, path } = await useStuckLease(t, url)
    const { token } = (await old.inject(path)).json()
    const reply = await post(other, `${path}/release`, { reason, immediate: true }, `"${token}"`)
    t.match(reply.json(), {
      released: true,
      acknowledged: false,
      sentence: /^The lease can be claimed at once\. n1 has not confirmed that it has stopped/,
    })
    await eventually(() => other.coordination.isHeld(key))
    t.ok(stuck.isBusy)
    const { items } = (await other.inject(`${path}/history`)).json()
    t.match(items[1], { token, holder: { name: 'n1' }, ended: { how: 'revoked', reason, actor: 'mira' } })
  }),
)

t.test('a release that waits is made immediate by another one with the same tag', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const { old, other, stuck, key, path } = await useStuckLease(t, url)
    const { token } = (await old.inject(path)).json()
    const release = async (body: object) =>
      (await post(other, `${path}/release`, { reason, ...body }, `"${token}"`)).json()
    t.match(await release({}), { sentence: /The lease can be claimed at the end of this wait at the latest/ })
    t.match(await release({ immediate: true }), { sentence: /^The lease can be claimed at once/ })
    await eventually(() => other.coordination.isHeld(key))
    t.ok(stuck.isBusy)
  }),
)

t.test('one after another is stuck: who was first does not win again while another stands', async (t) => {
  const { url } = await useSqlite(t)
  const worker = single('global/report', untilAborted)
  const first = await useApp(t, { url, node: 'n1', workers: [worker] })
  await eventually(() => first.coordination.isHeld('report'))
  const second = await useApp(t, { url, node: 'n2', workers: [worker] })
  const path = '/coordination/leases/global:report'
  let taken = 0
  const take = async (): Promise<void> => {
    // A read may return a state older than a change made a moment ago.
    taken = await eventually(async () => {
      const { token } = (await second.inject(path)).json()
      return token > taken && token
    })
    t.equal((await post(second, `${path}/release`, { reason }, `"${taken}"`)).statusCode, 200)
  }
  await take()
  await eventually(() => second.coordination.isHeld('report'))
  await take()
  await eventually(() => first.coordination.isHeld('report'), { until: 'there is nobody else' })

  const busy = [worker, single('global/a', untilAborted), single('global/b', untilAborted)]
  const third = await useApp(t, { url, node: 'n3', workers: busy })
  await eventually(() => third.coordination.isHeld('a') && third.coordination.isHeld('b'))
  await take()
  await eventually(() => second.coordination.isHeld('report') || third.coordination.isHeld('report'))
  t.ok(third.coordination.isHeld('report'), 'though it has more to do than the other two')
})

t.test('a lease that nobody holds has nothing to release', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const app = await useApp(t, { url })
    const lease = await app.coordination.acquire('by-hand')
    await lease.release()
    const revision = await revisionOf(app)
    const reply = await post(
      app,
      '/coordination/leases/global:by-hand/release',
      { reason },
      `"${lease.token}"`,
    )
    t.equal(reply.statusCode, 200)
    t.match(reply.json(), {
      released: false,
      previousHolder: null,
      previousToken: lease.token,
      eventId: null,
      sentence: 'Nobody held it: there was nothing to release.',
    })
    t.equal(await revisionOf(app), revision)
  }),
)

t.test('who repeats a release after it was acknowledged is told so', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const app = await useApp(t, { url })
    const path = '/coordination/leases/global:by-hand'
    const lease = await app.coordination.acquire('by-hand')
    const first = (await post(app, `${path}/release`, { reason }, `"${lease.token}"`)).json()
    t.equal(first.acknowledged, false)
    await lease.release()
    await eventually(async () => (await app.inject(path)).json().state === 'free')
    const again = (await post(app, `${path}/release`, { reason }, `"${lease.token}"`)).json()
    const sentence =
      'n1 has stopped. For 60 s it will not get the lease back while another node is available.'
    t.strictSame(again, { ...first, acknowledged: true, sentence })
  }),
)

t.test('a transaction that fences a lease is not disturbed, and the answer says why', (t) =>
  eachDatabase(t, async (t, database) => {
    if (database.dialect === 'sqlite') return void t.plan(0, 'a write of SQLite waits for the one before it')
    const app = await useApp(t, { url: database.url })
    const lease = await app.coordination.acquire('by-hand')
    const transaction = await useTransaction(t, database)
    await lease.fence(transaction.client)
    for (const what of ['release', 'step-down']) {
      const reply = await post(
        app,
        `/coordination/leases/global:by-hand/${what}`,
        { reason },
        `"${lease.token}"`,
      )
      t.equal(reply.statusCode, 409, what)
      t.match(reply.json(), { type: /conflict$/, detail: /transaction/ })
    }
    t.ok(lease.held)
    await transaction.rollback()
    await lease.release()
  }),
)
