/**
 * Tests a database that answers but takes no writes, as after a failover or with a full disk: no node is said to lead.
 */
import BetterSqlite from 'better-sqlite3'
import t from 'tap'
import { useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { mira, threeWorkers, useApp } from './application.js'

t.test(
  'while the database takes no writes nobody is said to lead, and afterwards they do again',
  async (t) => {
    const { url, path } = await useSqlite(t)
    const options = { authorize: mira, ttlMs: 2_000 }
    const app = await useApp(t, { url, options, workers: threeWorkers })
    const read = async (path: string) => (await app.inject(`/coordination${path}`)).json()
    const metric = async (name: string): Promise<number> => {
      const { body } = await app.inject('/coordination/metrics')
      const [, value] = body.match(new RegExp(`^${name.replace(/[{}]/g, '\\$&')} (\\S+)$`, 'm')) ?? []
      return Number(value)
    }
    const leaderless = 'coordination_leaderless_seconds{worker="c1/indexing"}'
    const all = { leases: 1, held: 1, slots: 13, owned: 13 }
    const total = async (kind: 'held' | 'owned'): Promise<number> => (await read('/overview')).totals[kind]
    await eventually(async () => (await total('owned')) === 13 && (await total('held')) === 1)
    t.equal(await metric(leaderless), 0)

    const other = new BetterSqlite(path)
    t.teardown(() => other.close())
    other.exec('begin immediate')
    const first = await eventually(() => metric(leaderless))
    await eventually(async () => (await metric(leaderless)) > first, { until: 'it grows' })
    t.equal(await metric('coordination_database_up'), 1, 'it can be read')
    for (const [name, value] of Object.entries({
      'coordination_nodes{state="active"}': 0,
      'coordination_nodes{state="silent"}': 1,
      'coordination_leases{state="held"}': 0,
      'coordination_leases{state="silent"}': 14,
      'coordination_partitions{worker="global/consumer",state="owned"}': 0,
      'coordination_partitions{worker="global/consumer",state="unowned"}': 12,
    }))
      t.equal(await metric(name), value, name)
    t.strictSame(await read('/leaders'), {})
    const overview = await read('/overview')
    t.strictSame(overview.totals, { ...all, held: 0, owned: 0 })
    const [consumer] = overview.assignments.items
    t.match(consumer, { owned: 0, unowned: 12, map: { states: 'u'.repeat(12) } })
    t.match((await read('/assignments/global:consumer')).slots[0], { state: 'unowned' })
    const [own] = (await read('/status')).problems
    t.match(own, {
      code: 'trust-expired',
      sentence: /can be read.* cannot renew its session.*takes no writes\.$/,
    })
    const { reasons } = await read('/leases/c1:indexing/explain')
    t.strictSame(
      reasons.slice(0, 2).map(({ code }: { code: string }) => code),
      ['silent', 'held'],
    )
    t.match(reasons[0].sentence, /nobody works under it/)
    t.notMatch(JSON.stringify(reasons), /healthy/)

    other.exec('rollback')
    await eventually(async () => (await total('held')) === 1 && (await total('owned')) === 13)
    t.equal(await metric(leaderless), 0)
    t.match(await read('/leaders'), { 'c1/indexing': { node: 'n1' } })
  },
)
