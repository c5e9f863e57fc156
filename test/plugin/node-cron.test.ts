/** Tests node-cron's own tasks as several nodes would run them, over one real database. */
import cron, { type ScheduledTask } from 'node-cron'
import t, { type Test } from 'tap'
import { type Coordinator, createCoordinator } from '../../plugin/coordinator.js'
import { runCoordinator } from '../../plugin/node-cron.js'
import { eachDatabase, useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'

async function useNode(t: Test, database: string, node: string, cluster = 'c1'): Promise<Coordinator> {
  const coordinator = await createCoordinator({ database, identity: { node, cluster } })
  t.teardown(() => coordinator.close())
  await coordinator.start()
  return coordinator
}

/** What has been run and what has been skipped, as `node date`. */
interface Seen {
  readonly ran: string[]
  readonly skipped: string[]
}

/** Schedules a task that is due each second. */
function useTask(t: Test, coordinator: Coordinator, seen: Seen): ScheduledTask {
  const { node } = coordinator.settings.identity
  const note = (list: string[]) => {
    return ({ date }: { date: Date }): void => void list.push(`${node} ${date.toISOString()}`)
  }
  const task = cron.schedule('* * * * * *', note(seen.ran), {
    name: 'backup',
    distributed: true,
    runCoordinator: runCoordinator(coordinator),
    // On a busy machine, no execution counts as missed.
    missedExecutionTolerance: 20_000,
    suppressMissedWarning: true,
  })
  task.on('execution:skipped', note(seen.skipped))
  t.teardown(() => task.destroy())
  return task
}

t.test('each time of a task is run by one of the nodes, also when one ends', async (t) => {
  const { url } = await useSqlite(t)
  const [a, b] = [await useNode(t, url, 'a'), await useNode(t, url, 'b')]
  const seen: Seen = { ran: [], skipped: [] }
  const task = useTask(t, a, seen)
  useTask(t, b, seen)
  await eventually(() => seen.ran.length >= 3 && seen.skipped.length >= 2)
  await task.stop()
  await a.close()
  const before = seen.ran.length
  await eventually(() => seen.ran.slice(before).filter((line) => line.startsWith('b')).length >= 2)
  const times = seen.ran.map((line) => line.split(' ')[1])
  t.equal(new Set(times).size, times.length, 'none was run twice')
})

t.test('a time is claimed once, whoever asks, in whichever order', (t) =>
  eachDatabase(t, async (t, { url }) => {
    const nodes = [await useNode(t, url, 'a'), await useNode(t, url, 'b'), await useNode(t, url, 'c', 'c2')]
    const [a, b, c] = nodes.map((node) => runCoordinator(node))
    const day = new Date().toISOString().slice(0, 10)
    const ask = (time: string) =>
      Promise.all([a, b, c].map((node) => node?.shouldRun(`backup:${day}T${time}.000Z`)))
    for (const time of ['00:00:01', '00:00:02', '00:00:03']) {
      t.strictSame((await ask(time)).filter(Boolean), [true])
    }
    t.strictSame(await ask('00:00:03'), [false, false, false], 'also afterwards')
    t.strictSame(await ask('00:00:02'), [false, false, false], 'a node whose clock is late gets nothing')
    t.equal(
      await a?.shouldRun(`other:${day}T00:00:02.000Z`),
      true,
      'tasks have nothing to do with one another',
    )
    const [first, again] = [await useNode(t, url, 'd'), await useNode(t, url, 'e')].map((node) =>
      runCoordinator(node),
    )
    t.equal(await first?.shouldRun(`backup:${day}T00:00:03.000Z`), false, 'a restart forgets nothing')
    t.equal(await again?.shouldRun(`backup:${day}T00:00:04.000Z`), true)
  }),
)

t.test('in each cluster by itself, when that is wanted', async (t) => {
  const { url } = await useSqlite(t)
  const nodes = [
    await useNode(t, url, 'a', 'c1'),
    await useNode(t, url, 'b', 'c2'),
    await useNode(t, url, 'c', 'c2'),
  ]
  const key = `backup:${new Date().toISOString()}`
  const asked = nodes.map((node) => runCoordinator(node, { scope: 'cluster' }).shouldRun(key))
  const [inFirst, ...inSecond] = await Promise.all(asked)
  t.equal(inFirst, true)
  t.strictSame(inSecond.sort(), [false, true])
})

t.test('a clock that is wrong by days runs nothing, and silences nothing', async (t) => {
  const { url } = await useSqlite(t)
  const { shouldRun } = runCoordinator(await useNode(t, url, 'a'))
  const inDays = (days: number): string => `backup:${new Date(Date.now() + days * 86_400_000).toISOString()}`
  t.equal(await shouldRun(inDays(400)), false)
  t.equal(await shouldRun(inDays(0)), true)
})

t.test('what cannot be coordinated is an error, which node-cron skips by', async (t) => {
  const { url } = await useSqlite(t)
  const a = await useNode(t, url, 'a')
  a.worker({ name: 'taken', kind: 'single', scope: 'global', enabled: false, run: () => undefined })
  a.worker({ name: 'busy', kind: 'single', scope: 'global', run: () => undefined })
  await eventually(() => a.isHeld('busy'))
  const { shouldRun } = runCoordinator(a)
  const time = new Date().toISOString()
  await t.rejects(shouldRun(`nightly backup:${time}`), { code: 'WCO_NAME' })
  await t.rejects(shouldRun(`busy:${time}`), { code: 'WCO_NAME' })
  await t.rejects(shouldRun('backup'), { code: 'WCO_OPTIONS' })
  const other = await useNode(t, url, 'b')
  await t.rejects(
    runCoordinator(other).shouldRun(`busy:${time}`),
    { code: 'WCO_NAME' },
    "another node's worker",
  )
  t.throws(() => runCoordinator(a, { scope: 'planet' as never }), { code: 'WCO_OPTIONS' })
  await a.close()
  await t.rejects(shouldRun(`backup:${time}`), { code: 'WCO_NOT_RUNNING' })
})
