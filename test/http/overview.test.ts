/** Tests `GET /overview`: what a page can show of few and of thousands. */
import t from 'tap'
import { writeCrowd } from '../support/crowd.js'
import { eachDatabase, useSqlite } from '../support/databases.js'
import { eventually, latest } from '../support/eventually.js'
import { threeWorkers, useApp } from './application.js'

t.test('a small namespace is there as a whole', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const app = await useApp(t, { url, workers: threeWorkers })
    const read = async (query = '') => (await app.inject(`/coordination/overview${query}`)).json()
    const body = await eventually(async () => {
      const now = await read()
      return now.totals.held === 1 && now.totals.owned === 13 && now
    })
    t.strictSame(body.totals, { leases: 1, held: 1, slots: 13, owned: 13 })
    t.strictSame(body.problemCounts, { error: 0, warning: 0, info: 0 })
    t.match(body.capabilities, { actor: { id: 'mira' }, release: true, drain: true })
    const [node] = body.nodes.items
    t.match(node, {
      name: 'n1',
      pulse: 'steady',
      leads: ['c1/indexing'],
      leadCount: 1,
      slotCount: 13,
      fairSlotCount: 13,
    })
    t.strictSame(body.roster, { ids: [node.id], names: ['n1'], states: 'a' })
    t.match(body.leases.items, [
      { key: 'c1/indexing', kind: 'single', paused: false, candidateCount: 1, session: { pulse: 'steady' } },
    ])
    t.strictSame(
      body.assignments.items.map(({ worker, owned, map }: Assignment) => [worker, owned, map.states]),
      [
        ['global/consumer', 12, 'o'.repeat(12)],
        ['global/data', 1, 'o'],
      ],
    )
    t.ok(body.assignments.items.every(({ map }: Assignment) => map.owners.every((owner) => owner === 0)))
  }),
)

t.test('a lease by name that nobody holds or waits for is no problem, and is not counted', async (t) => {
  const app = await useApp(t, { workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('indexing'))
  await (await app.coordination.tryAcquire('a-rebuild'))?.release()
  const { leases, totals } = await eventually(async () => {
    const body = (await app.inject('/coordination/overview')).json()
    return body.leases.total === 2 && body.leases.items.some(isFree) && body
  })
  t.match(totals, { leases: 1, held: 1 })
  t.strictSame(
    leases.items.map(({ key }: { key: string }) => key),
    ['c1/indexing', 'global/a-rebuild'],
    'it comes last',
  )

  function isFree({ key, state }: { readonly key: string; readonly state: string }): boolean {
    return key === 'global/a-rebuild' && state === 'free'
  }
})

t.test('of a worker with a schedule it shows when it was fired last, and when it will be next', async (t) => {
  const schedule = { cron: '* * * * * *', timeZone: 'Europe/Vienna' } as const
  const report = { name: 'report', kind: 'single', scope: 'global', schedule, run: () => undefined } as const
  const app = await useApp(t, { workers: [report, ...threeWorkers] })
  const read = async (path: string) => (await app.inject(`/coordination${path}`)).json()
  const { lastFireAt, nextFireAt } = await eventually(async () => {
    const { schedule } = await read('/workers/global:report')
    return schedule.lastFireAt !== null && schedule
  })
  t.equal(Date.parse(nextFireAt) - Date.parse(lastFireAt), 1_000)
  const { items } = await read('/workers')
  t.strictSame(
    items.map(({ schedule }: { schedule: { cron: string } | null }) => schedule?.cron),
    [undefined, undefined, undefined, '* * * * * *'],
  )
  const { leases } = await read('/overview')
  const [lease] = leases.items.filter(({ key }: { key: string }) => key === 'global/report')
  t.match(lease.schedule, { ...schedule, missed: 'once', lastFireAt: String, nextFireAt: String })
})

t.test('what is looked for is found among leases, partitions, nodes and holders', async (t) => {
  const app = await useApp(t, { workers: threeWorkers })
  const read = async (q: string) => (await app.inject({ url: '/coordination/overview', query: { q } })).json()
  await eventually(async () => (await read('consumer#3')).leases.total === 1)
  const partition = await read('CONSUMER#3')
  t.strictSame([partition.leases.total, partition.nodes.total, partition.assignments.total], [1, 0, 0])
  const holder = await eventually(async () => {
    const now = await read('n1')
    return now.leases.total === 14 && now
  })
  t.equal(holder.nodes.total, 1)
  t.equal((await app.inject('/coordination/overview?q=%00')).statusCode, 400)
  t.equal((await app.inject('/coordination/overview?leases=501')).statusCode, 400)
})

t.test('an overview that has not changed is not sent again', async (t) => {
  const app = await useApp(t)
  const asked = async (): Promise<number> => {
    const { headers } = await app.inject('/coordination/overview')
    const again = await app.inject({
      url: '/coordination/overview',
      headers: { 'if-none-match': String(headers.etag) },
    })
    return again.statusCode
  }
  t.equal(await latest(asked, (status) => status === 304), 304)
})

t.test('of thousands the worst come first, and no list is without end', async (t) => {
  const { url } = await useSqlite(t)
  await writeCrowd(url, { nodes: 600, leases: 100, partitions: 9_000 })
  const app = await useApp(t, { url, options: { authorize: () => ({ id: 'mira' }) } })
  const reply = await app.inject('/coordination/overview')
  t.ok(reply.body.length < 120_000, `${reply.body.length} characters`)
  const body = reply.json()
  t.strictSame([body.nodes.items.length, body.nodes.total], [12, 601])
  t.strictSame([body.leases.items.length, body.leases.total], [12, 100])
  t.equal(body.totals.slots, 9_000)
  t.equal(body.assignments.items[0].map, null, 'there is no room for a map of so many')
  t.equal(body.nodes.items[0].pulse, 'silent')
  const states = body.nodes.items.map(({ state }: { state: string }) => state)
  t.notOk(states.includes('gone'), 'those long gone need nobody')
  t.equal(body.roster.states.length, 601)
  t.match(body.roster.states, /^[alsd]+g+$/)
  const alike = body.problems.filter(({ code }: { code: string }) => code === 'worker-paused')
  t.ok(alike.length <= 10)
  const few = (await app.inject('/coordination/overview?problems=3')).json()
  t.strictSame(
    few.problems.map(({ code }: { code: string }) => code),
    few.problemCodes.flatMap(({ code, count }: { code: string; count: number }) =>
      Array(Math.min(count, Math.ceil(3 / few.problemCodes.length))).fill(code),
    ),
    'many of one kind do not hide the others',
  )
  // Each answer is checked by itself: between two requests a lease may have become one that no node claims in time.
  for (const { problems, problemCodes, problemCounts } of [body, few]) {
    const { error, warning, info } = problemCounts
    const counted = problemCodes.reduce((sum: number, { count }: { count: number }) => sum + count, 0)
    t.equal(counted, error + warning + info)
    t.equal(
      problems.reduce((sum: number, each: { more: number }) => sum + 1 + each.more, 0),
      counted,
      'and how many are left out is said',
    )
  }
  t.ok(body.versions[0].count > body.versions[1].count)
  const more = (await app.inject('/coordination/overview?nodes=500&leases=500')).json()
  t.strictSame([more.nodes.items.length, more.leases.items.length], [500, 100])
  const pulses = more.leases.items.map(({ session }: { session: { pulse: string } | null }) => session?.pulse)
  t.ok(pulses.includes('silent'))
  t.ok(
    pulses.lastIndexOf('silent') < pulses.indexOf('steady'),
    'whose holder is silent comes before the others',
  )
})

t.test('silent nodes, and what they hold, are counted by themselves, here as in the metrics', async (t) => {
  const { url } = await useSqlite(t)
  await writeCrowd(url, { nodes: 60, leases: 20, partitions: 100 })
  const app = await useApp(t, { url, options: { authorize: () => ({ id: 'mira' }) } })
  const { counts, roster, totals, leases, assignments } = (await app.inject('/coordination/overview')).json()
  const { active, draining, silent, gone } = counts.nodes
  t.ok(silent > 0)
  t.equal(silent, roster.states.split('s').length - 1)
  t.equal(gone, roster.states.split('g').length - 1)
  t.equal(active + draining + silent + gone, roster.ids.length, 'each is counted once')
  t.ok(counts.leases.silent > 0)
  const counted = Object.values<number>(counts.leases).reduce((sum, count) => sum + count, 0)
  const slots = assignments.items.reduce((sum: number, each: { slots: number }) => sum + each.slots, 0)
  t.equal(counted, leases.total + slots)
  t.equal(
    counts.leases.held + counts.leases.moving,
    totals.held + totals.owned + movingSlots(assignments.items),
  )
  // Time passes between two requests, and nodes fall silent in it.
  await eventually(async () => {
    const metrics = (await app.inject('/coordination/metrics')).body
    const status = (await app.inject('/coordination/status')).json()
    return (['nodes', 'leases'] as const).every((what) =>
      Object.entries(status.counts[what]).every(([state, count]) =>
        metrics.includes(`coordination_${what}{state="${state}"} ${count}\n`),
      ),
    )
  })
})

function movingSlots(assignments: readonly { readonly moving: number }[]): number {
  return assignments.reduce((sum, { moving }) => sum + moving, 0)
}

interface Assignment {
  readonly worker: string
  readonly owned: number
  readonly map: { readonly states: string; readonly owners: readonly number[] }
}
