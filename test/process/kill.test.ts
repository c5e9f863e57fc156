/** Processes that are killed, stopped and started again: their leases move once, and under greater tokens. */
import t from 'tap'
import type { Status } from '../../plugin/index.js'
import { type Database, eachDatabase } from '../support/databases.js'
import type { NodeOrder, WorkerOrder } from './node.js'
import { holders, NodeProcess, observe, overlaps, settledOn, shortTtlMs } from './processes.js'

t.setTimeout(600_000)

const allKinds: readonly WorkerOrder[] = [
  { name: 'indexing', kind: 'single', scope: 'cluster' },
  { name: 'month-close', kind: 'single', scope: 'global' },
  { name: 'data', kind: 'coordinated', scope: 'global' },
  { name: 'consumer', kind: 'partitioned', scope: 'global', partitions: 6 },
]

t.test('what a killed leader had moves to the others, and is shared out anew when it comes back', (t) =>
  eachDatabase(t, async (t, database) => {
    const observer = await observe(t, database)
    const first = await Promise.all(
      ['n1', 'n2', 'n3'].map((node) => NodeProcess.start(t, order(database, { node, workers: allKinds }))),
    )
    const before = await observer.until('three nodes share the work', settledOn(first))
    t.equal(before.workers.find(({ key }) => key === 'global/data')?.slots, 3)
    t.strictSame(partitionsPerNode(holders(before)), [2, 2, 2])

    const leader = holders(before)['global/month-close']
    const [victim] = first.filter(({ name }) => name === leader)
    if (victim === undefined) throw new Error('Nobody leads')
    const survivors = first.filter((node) => node !== victim)
    await victim.kill()
    const after = await observer.until('two nodes share the work', settledOn(survivors))
    t.equal(after.workers.find(({ key }) => key === 'global/data')?.slots, 2)
    t.strictSame(partitionsPerNode(holders(after)), [3, 3])
    const tokens = new Map(before.leases.map(({ key, token }) => [key, token]))
    for (const { key, token, holder } of after.leases) {
      const moved = holder !== null && holders(before)[key] !== holder.name
      if (moved) t.ok(token > (tokens.get(key) ?? 0), `${key} moved under a greater token`)
    }
    t.not(holders(after)['global/month-close'], leader)
    t.match(
      (await observer.events()).filter(({ type }) => type === 'node.gone'),
      [{ subject: victim.id }],
      'it was declared gone, and nobody else was',
    )

    const back = await NodeProcess.start(t, order(database, { node: victim.name, workers: allKinds }))
    const again = await observer.until('three nodes share the work again', settledOn([...survivors, back]))
    t.equal(again.workers.find(({ key }) => key === 'global/data')?.slots, 3)
    t.strictSame(partitionsPerNode(holders(again)), [2, 2, 2])
    t.equal(
      holders(again)['global/month-close'],
      holders(after)['global/month-close'],
      'a healthy leader is not moved for the sake of balance',
    )

    await Promise.all([...survivors, back].map((node) => node.allHeard()))
    t.strictSame(overlaps([...first, back]), [])
  }),
)

t.test('a node that is told to stop hands over at once: no expiry is waited for', (t) =>
  eachDatabase(t, async (t, database) => {
    const observer = await observe(t, database)
    const timing = { ttlMs: 600_000 }
    const nodes = await Promise.all(
      ['n1', 'n2'].map((node) => NodeProcess.start(t, order(database, { node, workers: allKinds, timing }))),
    )
    const [one, two] = nodes
    if (one === undefined || two === undefined) throw new Error('Two nodes were started')
    const before = await observer.until('two nodes share the work', settledOn(nodes))
    const leader = holders(before)['global/month-close']
    const [stopped, other] = one.name === leader ? [one, two] : [two, one]
    stopped.signal('SIGTERM')
    t.equal(await stopped.ended(), 0, 'the process ends by itself: nothing of ours keeps it alive')
    const after = await observer.until('one node does all the work', settledOn([other]))
    t.strictSame([...new Set(Object.values(holders(after)))], [other.name])

    const events = await observer.events()
    t.strictSame(
      events.filter(({ type }) => type === 'node.gone'),
      [],
      'nobody was declared gone',
    )
    const left = events.find(({ type, subject }) => type === 'node.left' && subject === stopped.id)
    t.ok(left, 'it has left by itself')
    await other.allHeard()
    t.strictSame(overlaps(nodes), [])
  }),
)

t.test('a node whose process has ended is replaced at once by those on its machine, whatever the ttl', (t) =>
  eachDatabase(t, async (t, database) => {
    const observer = await observe(t, database)
    const timing = { ttlMs: 600_000 }
    const watchProcesses = true
    const nodes = await Promise.all(
      ['n1', 'n2', 'n3', 'n4'].map((node) =>
        NodeProcess.start(t, order(database, { node, workers: allKinds, timing, watchProcesses })),
      ),
    )
    const before = await observer.until('four nodes share the work', settledOn(nodes))
    const leader = holders(before)['global/month-close']
    const [frozen, survivor, ...killed] = nodes.filter(({ name }) => name !== leader)
    if (frozen === undefined || survivor === undefined) throw new Error('Four nodes were started')
    frozen.signal('SIGSTOP')
    for (const node of nodes) if (node.name === leader || killed.includes(node)) await node.kill()
    const gone = ({ nodes }: Status): string[] =>
      nodes.flatMap(({ name, state }) => (state === 'gone' ? [name] : [])).sort()
    const after = await observer.until('two are found gone', (status) => gone(status).length === 2)
    t.strictSame(
      gone(after),
      nodes.map(({ name }) => name).filter((name) => ![frozen.name, survivor.name].includes(name)),
      'those that have ended, and not the one that is merely silent',
    )
    frozen.signal('SIGCONT')
    await observer.until('two nodes share the work', settledOn([frozen, survivor]))
    await Promise.all([frozen, survivor].map((node) => node.allHeard()))
    t.strictSame(overlaps(nodes), [])
  }),
)

t.test('when all nodes are killed at once, those that are started later take everything over', (t) =>
  eachDatabase(t, async (t, database) => {
    const observer = await observe(t, database)
    const start = (): Promise<NodeProcess[]> =>
      Promise.all(
        ['n1', 'n2'].map((node) => NodeProcess.start(t, order(database, { node, workers: allKinds }))),
      )
    const first = await start()
    const before = await observer.until('two nodes share the work', settledOn(first))
    await Promise.all(first.map((node) => node.kill()))
    const second = await start()
    const after = await observer.until('two new nodes share the work', settledOn(second))
    const tokens = new Map(before.leases.map(({ key, token }) => [key, token]))
    for (const key of Object.keys(holders(after))) {
      const token = after.leases.find((lease) => lease.key === key)?.token ?? 0
      t.ok(token > (tokens.get(key) ?? 0), `${key} has a greater token`)
    }
    await Promise.all(second.map((node) => node.allHeard()))
    t.strictSame(overlaps([...first, ...second]), [])
  }),
)

t.test('a node that is killed while it holds a fence does not hold anybody up for longer', (t) =>
  eachDatabase(t, async (t, database) => {
    const observer = await observe(t, database)
    const workers: WorkerOrder[] = [{ name: 'report', kind: 'single', scope: 'global' }]
    const nodes = await Promise.all(
      ['n1', 'n2'].map((node) => NodeProcess.start(t, order(database, { node, workers }))),
    )
    const before = await observer.until('one of two leads', settledOn(nodes))
    const [victim] = nodes.filter(({ name }) => name === holders(before)['global/report'])
    const [other] = nodes.filter((node) => node !== victim)
    if (victim === undefined || other === undefined) throw new Error('One of two leads')
    victim.tell({ command: 'hold', key: 'global/report' })
    await victim.heard('holding')
    await victim.kill()
    await observer.until('the other one leads', settledOn([other]))
    other.tell({ command: 'write', key: 'global/report' })
    t.match(await other.heard('wrote'), { error: null })
    const writes = await observer.writes()
    t.match(writes, [{ lease: 'global/report', token: Number }], 'nothing of the killed transaction is left')
    await other.allHeard()
    t.strictSame(overlaps(nodes), [])
  }),
)

t.test('two applications in one database do not see each other', (t) =>
  eachDatabase(t, async (t, database) => {
    const workers: WorkerOrder[] = [{ name: 'report', kind: 'single', scope: 'global' }]
    const start = (namespace: string): Promise<NodeProcess> =>
      NodeProcess.start(t, order(database, { node: 'n1', workers, namespace }))
    const ones = await observe(t, database, 'one')
    const twos = await observe(t, database, 'two')
    const [one, two] = await Promise.all([start('one'), start('two')])
    await Promise.all([ones.until('one leads', settledOn([one])), twos.until('two leads', settledOn([two]))])
    await one.kill()
    const successor = await start('one')
    await ones.until('its successor leads', settledOn([successor]))
    const { leases, nodes } = await twos.status()
    t.match(nodes, [{ id: two.id, state: 'active' }])
    t.match(leases, [{ key: 'global/report', holder: { id: two.id } }])
    await two.allHeard()
    t.strictSame(two.said('stopped'), [], 'the other application has not noticed anything')
  }),
)

function order(
  database: Database,
  given: Pick<NodeOrder, 'node' | 'workers'> & Partial<NodeOrder>,
): NodeOrder {
  // Long enough for a busy machine: who claims too late is passed over, and has fewer partitions for a while.
  const timing = { ttlMs: shortTtlMs(database), claimTimeoutMs: 60_000 }
  return { database: database.url, namespace: 'default', cluster: 'c1', timing, ...given }
}

function partitionsPerNode(holders: Readonly<Record<string, string>>): number[] {
  const counts = new Map<string, number>()
  for (const [key, name] of Object.entries(holders)) {
    if (key.startsWith('global/consumer#')) counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  return [...counts.values()].sort()
}
