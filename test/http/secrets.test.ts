/** Tests that the password of the database is never disclosed. */
import { randomBytes } from 'node:crypto'
import Fastify, { type FastifyInstance } from 'fastify'
import { Client } from 'pg'
import t, { type Test } from 'tap'
import { StoreError } from '../../plugin/core/errors.js'
import workerCoordination from '../../plugin/index.js'
import { usePostgres } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { mira, threeWorkers, useApp } from './application.js'

t.test('the connection string is in no answer and in no line of the log, whatever happens', async (t) => {
  const secret = await useSecret(t)
  secret.searchParams.set('application_name', 'hunter3')
  const lines: string[] = []
  const stream = { write: (line: string) => void lines.push(line) }
  const app = await useApp(t, {
    app: Fastify({ logger: { level: 'trace', stream } }),
    url: secret.href,
    options: { authorize: mira },
    workers: threeWorkers,
  })
  await eventually(() => app.coordination.isHeld('indexing'))
  const { operator, nodeId } = app.coordination
  const paths = [
    '/status',
    '/nodes',
    `/nodes/${nodeId}`,
    '/workers',
    '/leases',
    '/leases/c1:indexing/explain',
  ]
  paths.push('/events', '/assignments', '/health', '/health/ready', '/metrics', '/nothing', '/nodes?x=1')
  const answers: string[] = []
  const askAll = async (): Promise<void> => {
    for (const path of paths) answers.push((await app.inject(`/coordination${path}`)).body)
    const pause = { method: 'PUT', url: '/coordination/workers/global:data/pause' } as const
    answers.push((await app.inject({ ...pause, payload: { reason: 'a good one' } })).body)
  }
  await askAll()
  t.notMatch(lines.join(''), 'hunter')
  const { snapshot } = operator
  const causes = [new Error(`no connection to ${secret.href}`), new Error('timeout')]
  for (const cause of causes) {
    for (const error of [new StoreError('It is away.', 'none', { cause }), cause]) {
      operator.snapshot = () => Promise.reject(error)
      const status = error === cause ? 500 : 503
      answers.push(
        (await eventually(() => bodyWith(app, status), { until: `it is answered ${status}` })) ?? '',
      )
    }
  }
  operator.snapshot = snapshot
  t.notMatch(answers.join('\n'), 'hunter')
  lines.length = 0
  await app.coordination.close()
  await askAll()
  t.ok(answers.some((answer) => answer.includes('store-unavailable')))
  t.notMatch(answers.join('\n'), 'hunter')
  t.ok(lines.length > 10, 'the log says something')
  t.notMatch(lines.join(''), 'hunter')
})

t.test('nor is it told when the database refuses', async (t) => {
  const secret = await useSecret(t)
  const wrong = [
    new URL(`${secret.pathname}_that_is_not_there`, secret),
    Object.assign(new URL(secret), { username: 'nobody-of-that-name' }),
    Object.assign(new URL(secret), { port: '1' }),
  ]
  for (const database of wrong) {
    const lines: string[] = []
    const stream = { write: (line: string) => void lines.push(line) }
    const app = Fastify({ logger: { level: 'trace', stream } })
    t.teardown(() => app.close())
    try {
      await app.register(workerCoordination, { database: database.href })
      t.fail('it was registered')
    } catch (error) {
      app.log.error(error)
      t.match(error, { code: 'WCO_STORE' })
      t.notMatch(String(error), 'hunter')
      t.notMatch(lines.join(''), 'hunter', 'nor when the application logs the error')
      t.match(lines.join(''), 'WCO_STORE')
    }
  }
})

/** Returns the body, or undefined while the status is another one: what was read is reused for a moment. */
async function bodyWith(app: FastifyInstance, status: number): Promise<string | undefined> {
  const reply = await app.inject('/coordination/status')
  return reply.statusCode === status ? reply.body : undefined
}

/** Returns the URL of a database with a password that is the right one, in case the server asks for it. */
async function useSecret(t: Test): Promise<URL> {
  const { url } = await usePostgres(t)
  const role = `coordination_test_${randomBytes(8).toString('hex')}`
  const command = async (sql: string): Promise<void> => {
    const client = new Client({ connectionString: url })
    await client.connect()
    await client.query(sql).finally(() => client.end())
  }
  await command(`create role ${role} login superuser password 'hunter2'`)
  t.teardown(() => command(`drop owned by ${role}; drop role ${role}`))
  return Object.assign(new URL(url), { username: role, password: 'hunter2' })
}
