/** Tests what a person sees and does, with real nodes on real databases. */
import type { FastifyInstance } from 'fastify'
import type { Page } from 'playwright-core'
import type { Test } from 'tap'
import { deferred } from '../../plugin/core/time/loop.js'
import type { Authorize, WorkerDefinition } from '../../plugin/index.js'
import { listening, mira, threeWorkers, untilAborted, useApp } from '../http/application.js'
import type { WorkerOrder } from '../process/node.js'
import { NodeProcess, shortTtlMs } from '../process/processes.js'
import { type Database, databases, useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { drawn, failing, inBrowser, reads, rowOf, textOf, type Visit } from './browser.js'

const key = 'global/month-close'
const why = 'stuck since 03:10'

for (const [dialect, use] of Object.entries(databases)) {
  inBrowser(
    `${dialect}: a leader dies, and the page says who follows and what became of its work`,
    async (t, visit) => aLeaderDies(t, visit, await use(t)),
  )
  // What follows asks nothing of a database that `test/http` does not ask of each of them.
  if (dialect !== 'sqlite' && dialect !== 'postgres') continue
  inBrowser(`${dialect}: a stuck lease is freed through the dialog`, async (t, visit) =>
    aStuckLeaseIsFreed(t, visit, await use(t)),
  )
  inBrowser(`${dialect}: a lease that moves under an open dialog is not released`, async (t, visit) =>
    aLeaseMovesMeanwhile(t, visit, await use(t)),
  )
  inBrowser(`${dialect}: step down, transfer, drain and pause from the page`, async (t, visit) =>
    everythingElse(t, visit, await use(t)),
  )
}

const work: readonly WorkerOrder[] = [
  { name: 'month-close', kind: 'single', scope: 'global' },
  { name: 'consumer', kind: 'partitioned', scope: 'global', partitions: 4 },
]

/** Returns a ttl so long that a node on a busy machine is not taken for dead. */
function patientTtlMs(database: Database): number {
  return Math.max(6_000, shortTtlMs(database))
}

async function aLeaderDies(t: Test, visit: Visit, database: Database): Promise<void> {
  const { url } = database
  const ttlMs = patientTtlMs(database)
  const viewer = await useApp(t, { url, node: 'viewer', options: { authorize: mira, ttlMs } })
  const start = (node: string): Promise<NodeProcess> =>
    NodeProcess.start(t, {
      ...{ database: url, namespace: 'default', node, cluster: 'c1' },
      ...{ timing: { ttlMs }, workers: work },
    })
  const nodes = await Promise.all(['n1', 'n2'].map(start))
  const page = await visit(`${await listening(viewer)}/coordination/ui/`)
  await reads(page.locator('h1'), /^All well$/)
  await reads(page.locator('#verdict'), /1 of 1 leases held.*3 nodes.*4 of 4 shares and partitions owned/)
  const leader = await reads(rowOf(page, 'leases', key).locator('td.leader'), /^n[12]$/)
  const [victim, heir] = leader === 'n1' ? nodes : [...nodes].reverse()
  if (victim === undefined || heir === undefined) throw new Error('Two nodes were started')

  await victim.kill()
  await reads(rowOf(page, 'leases', key).locator('td.leader'), new RegExp(`^${heir.name}$`))
  t.match(
    await reads(page.locator('.news'), /all it held has moved/),
    new RegExp(`^${victim.name} was declared gone .*: all it held has moved \\(3 leases\\)\\.$`),
  )
  await reads(page.locator('h1'), /^All well again$/)
  t.match(
    await reads(page.locator('#aloud'), /declared gone/),
    /All well again\. n\d was declared gone: all it held has moved \(3 leases\)\./,
  )
  await reads(rowOf(page, 'nodes', victim.name).locator('td.state'), /^gone$/)
  await reads(rowOf(page, 'assignments', 'global/consumer'), /all owned 4 partitions, 4 on each of 1 node/)
  t.match(await reads(rowOf(page, 'leases', key).locator('td.held'), /s$/), /^\d+ s$/, 'since when')
  const lane = rowOf(page, 'leases', key).getByRole('img')
  t.match(await lane.getAttribute('aria-label'), `1 earlier term in 15 minutes; now ${heir.name}`)
}

/** Starts a holder that renews its session but ignores its signal, and a candidate to follow it. */
async function useStuckLease(t: Test, database: Database) {
  const { url } = database
  // Long enough for the page to show the wait before it is over.
  const options = { authorize: mira, ttlMs: Math.max(30_000, shortTtlMs(database)) }
  const stuck = deferred<void>()
  const worker = (run: WorkerDefinition['run']): WorkerDefinition =>
    ({ name: 'month-close', kind: 'single', scope: 'global', run }) as WorkerDefinition
  const old = await useApp(t, {
    ...{ url, node: 'n1', workers: [worker(() => stuck.promise)] },
    options,
  })
  await eventually(() => old.coordination.isHeld('month-close'))
  const other = await useApp(t, {
    ...{ url, node: 'n2', workers: [worker(untilAborted)] },
    options,
  })
  // The teardown registered last runs first: closing waits for the pass.
  t.teardown(() => stuck.resolve())
  return { old, other, stuck }
}

async function aStuckLeaseIsFreed(t: Test, visit: Visit, database: Database): Promise<void> {
  const { old, other, stuck } = await useStuckLease(t, database)
  const page = await visit(`${await listening(other)}/coordination/ui/`)
  const row = rowOf(page, 'leases', key)
  await reads(row.locator('td.leader'), /^n1$/)
  await reads(row.locator('td.cand'), /^2$/)
  const token = await textOf(row.locator('td.token'))
  await row.getByRole('button', { name: `Release ${key}…` }).click()

  const dialog = page.getByRole('dialog', { name: `Release ${key}?` })
  const text = await reads(dialog, /Holder n1/)
  t.match(text, `Fencing token ${token}`)
  t.match(text, /Last heartbeat (just now|\d+ s ago), at \d\d:\d\d:\d\d Candidates 2/)
  t.match(text, /n1 is alive\. It is told to stop; its work goes on until it has\./)
  t.match(text, `Only token ${token} is released: if the lease moves meanwhile, nothing happens.`)
  // Shortens the wait, so that its end is seen soon.
  await page.route('**/release', async (route) => {
    const response = await route.fetch()
    const safeAt = new Date(Date.now() + 5_000).toISOString()
    await route.fulfill({ response, json: { ...(await response.json()), safeAt } })
  })
  const confirm = dialog.getByRole('button', { name: 'Release lease' })
  await confirm.click()
  await reads(dialog.getByRole('alert'), /^Say why, in at least 3 characters/)
  await dialog.getByLabel('Reason').fill(why)
  await confirm.click()
  await reads(dialog.getByRole('alert'), new RegExp(`^The holder is healthy: type ${key}`))
  t.ok(other.coordination.isHeld('month-close') === false, 'nothing has happened yet')
  await dialog.getByLabel(`Type ${key} to confirm`).fill(key)
  await confirm.click()
  await reads(page.locator('dialog h2'), new RegExp(`^Released ${key}$`))
  const outcome = await reads(page.locator('dialog'), /The next holder may begin in \d+ s/)
  t.match(
    outcome,
    /n1 has not confirmed that it has stopped\. The lease can be claimed at the end of this wait at the latest\./,
  )
  await reads(
    page.locator('dialog'),
    /The next holder may begin now\. If work on n1 ignores its signal, it still runs there: restart that process\./,
  )
  await page.getByRole('button', { name: 'Close', exact: true }).click()

  await reads(row.locator('td.state'), /^stopping$/)
  await reads(row.locator('td.leader'), /^was n1$/)
  await reads(page.locator('#attention'), /stopping The lease global\/month-close was taken from node "n1"/)
  await reads(page.locator('#bar .self'), /^answered by n2$/)
  const there = await visit(`${await listening(old)}/coordination/ui/`)
  const unsettled = there.locator('#attention li').filter({ hasText: 'work unsettled' })
  await reads(
    unsettled,
    /month-close has ended on node n1, but the work under it .* restart that process, which joined at 2.* UTC\.$/,
  )
  t.equal(await unsettled.getByRole('button').count(), 0, 'what would be released is what has followed')
  await reads(there.locator('#bar .self'), /^answered by n1$/)
  stuck.resolve()
  await reads(row.locator('td.leader'), /^n2$/)
  await reads(page.locator('h1'), /^All well$/)
  await page.getByRole('button', { name: 'By people' }).click()
  t.match(
    await reads(page.locator('.events li'), /revoked/),
    /revoked global\/month-close It was taken away from n1, by mira: “stuck since 03:10”/,
  )
  await row.getByRole('link', { name: key }).click()
  t.match(await reads(page.locator('#panel .terms'), /revoked/), /n1 .* revoked by mira: “stuck since 03:10”/)
}

inBrowser('after a release the dialog says who leads next, and on what grounds', async (t, visit) => {
  for (const waited of [false, true]) {
    const { old, other, stuck } = await useStuckLease(t, await useSqlite(t))
    const page = await visit(`${await listening(other)}/coordination/ui/`)
    if (waited)
      await page.route('**/release', async (route) => {
        const response = await route.fetch()
        const safeAt = new Date(Date.now() - 60_000).toISOString()
        await route.fulfill({ response, json: { ...(await response.json()), safeAt } })
      })
    const { token } = (await old.inject('/coordination/leases/global:month-close')).json()
    await rowOf(page, 'leases', key)
      .getByRole('button', { name: `Release ${key}…` })
      .click()
    const dialog = page.locator('dialog')
    await dialog.getByLabel('Reason').fill(why)
    await dialog.getByLabel('Type').fill(key)
    await dialog.getByRole('button', { name: 'Release lease' }).click()
    await reads(
      dialog,
      waited ? /The next holder may begin now\. If work on n1/ : /The next holder may begin in \d+ s/,
    )
    stuck.resolve()
    await eventually(() => other.coordination.isHeld('month-close'))
    const next = (await other.inject('/coordination/leases/global:month-close')).json()
    t.ok(next.token > token)
    const told = await reads(dialog, /leads now/)
    const left = waited
      ? ` If work on n1 ignores its signal, it still runs there: restart that process. Until then only the fence, or a check of token ${token}, keeps out what it writes.`
      : ''
    t.equal(await page.evaluate('document.activeElement.name'), 'close', 'the focus stays in the dialog')
    t.equal(told, `Released ${key} n2 leads now, with token ${next.token}.${left} Close`)
    await dialog.getByRole('button', { name: 'Close' }).click()
    await reads(rowOf(page, 'leases', key).locator('td.leader'), /^n2$/)
  }
})

inBrowser('how a term ended is said once and in full', async (t, visit) => {
  const { old, other, stuck } = await useStuckLease(t, await useSqlite(t))
  const page = await visit(`${await listening(other)}/coordination/ui/#/lease/global:month-close`)
  const terms = page.locator('#panel .terms')
  await reads(terms, /holds it now$/)
  const { token } = (await old.inject('/coordination/leases/global:month-close')).json()
  await old.inject({
    ...{ method: 'POST', url: '/coordination/leases/global:month-close/release' },
    headers: { 'if-match': `"${token}"` },
    payload: { reason: why },
  })
  await reads(terms, /revoked by mira: “stuck since 03:10”, and has not said that it has stopped$/)
  stuck.resolve()
  await reads(terms, /revoked by mira: “stuck since 03:10”$/)

  const run = async (): Promise<never> => {
    throw new Error('no such account')
  }
  const failing = await useApp(t, {
    options: { authorize: mira, ttlMs: 60_000 },
    workers: [{ name: 'failing', kind: 'single', scope: 'global', maxFailures: 1, run }],
  })
  const next = await visit(`${await listening(failing)}/coordination/ui/`)
  const event = next.locator('.events li', { hasText: 'gave it back' }).first()
  await reads(event.locator('.what'), /^n1 gave it back: its passes failed$/)
})

inBrowser('a share of an older plan is not in use, and lacks no owner', async (t, visit) => {
  const { url } = await useSqlite(t)
  const options = { authorize: mira, ttlMs: 60_000 }
  const [n1, n2] = [
    await useApp(t, { url, node: 'n1', options, workers: threeWorkers }),
    await useApp(t, { url, node: 'n2', options, workers: threeWorkers }),
  ]
  const owned = async (): Promise<number> =>
    (await n1.inject('/coordination/leases?worker=global:data&state=held')).json().total
  await eventually(async () => (await owned()) === 2)
  await n2.close()
  await eventually(async () => (await owned()) === 1)
  const page = await visit(`${await listening(n1)}/coordination/ui/#/assignment/global%3Adata`)
  const panel = page.locator('#panel')
  await reads(panel, /Shares 1: 1 owned, 0 moving, 0 without owner/)
  const row = panel.locator('tbody tr').filter({ hasText: 'data#1' })
  t.equal(await textOf(row.locator('td.state')), 'not in use')
  await row.getByRole('link').click()
  await reads(panel, /^lease global\/data#1 not in use/)
  t.match(await textOf(panel.locator('.why')), 'It is left over from an older plan')
})

inBrowser(
  'a worker of shares or partitions is found from everywhere, whatever the filter',
  async (t, visit) => {
    const app = await useApp(t, { workers: threeWorkers })
    await eventually(() => app.coordination.isHeld('indexing'))
    const page = await visit(`${await listening(app)}/coordination/ui/`, { expected: failing(404) })
    await reads(page.locator('h1'), /^All well$/)
    await page.locator('#filter').fill('n1')
    await page.locator('#assignments').waitFor({ state: 'hidden' })
    await rowOf(page, 'nodes', 'n1').getByRole('link', { name: 'n1' }).click()
    const panel = page.locator('#panel')
    for (const [worker, what] of [
      ['consumer', /^assignment global\/consumer .*Partitions 12/],
      ['data', /^assignment global\/data .*Shares 1/],
    ] as const) {
      await panel.locator('.chips').getByRole('link', { name: worker }).click()
      await reads(panel, what)
      await page.goBack()
    }
    await page.goto(`${page.url().replace(/#.*/, '')}#/lease/global:consumer~12`)
    await reads(panel, /^assignment global\/consumer .*Partitions 12/)
    await page.goto(`${page.url().replace(/#.*/, '')}#/lease/${encodeURIComponent('global:nothing')}`)
    await reads(panel, /^lease global\/nothing There is no such lease\.$/)
  },
)

async function aLeaseMovesMeanwhile(t: Test, visit: Visit, database: Database): Promise<void> {
  const options = { authorize: mira, ttlMs: patientTtlMs(database) }
  const use = (node: string): Promise<FastifyInstance> =>
    useApp(t, { url: database.url, node, options, workers: threeWorkers })
  const [n1, n2] = [await use('n1'), await use('n2')]
  const lease = 'c1/indexing'
  await eventually(() => n1.coordination.isHeld('indexing'))
  const page = await visit(`${await listening(n2)}/coordination/ui/`, { expected: failing(412) })
  const row = rowOf(page, 'leases', lease)
  await reads(row.locator('td.leader'), /^n1$/)
  await row.getByRole('button', { name: `Release ${lease}…` }).click()
  const dialog = page.locator('dialog')
  await dialog.getByLabel('Reason').fill(why)
  await dialog.getByLabel('Type').fill(lease)

  await transfer(n1, lease, n2)
  await eventually(() => n2.coordination.isHeld('indexing'))
  const { token } = (await n1.inject(`/coordination/leases/c1:indexing`)).json()
  await reads(page.locator('.fresh'), /^Held while a dialog is open$/)
  // On the way there the page may have seen that nobody holds it.
  await reads(dialog, /The lease has moved since: n2 holds it, with token \d+\. Nothing will be released\./)
  t.match(await textOf(row.locator('td.leader')), /^n1$/, 'nothing is redrawn beneath the person')
  t.match(await textOf(page.locator('#stale')), /^Held while a dialog is open\. What you see is as of/)
  t.equal(await dialog.getByLabel('Reason').inputValue(), why)
  await dialog.getByRole('button', { name: 'Release lease' }).click()
  await reads(dialog.locator('h2'), /^Nothing was released\.$/)
  t.match(await reads(dialog, /By now/), `By now the lease is held by node "n2" with token ${token}.`)
  t.ok(n2.coordination.isHeld('indexing'), 'and it has it still')
  await dialog.getByRole('button', { name: 'Close' }).click()
  await reads(row.locator('td.leader'), /^n2$/)
  const { items } = (await n1.inject('/coordination/events?type=lease.revoked')).json()
  t.strictSame(items, [])
}

async function transfer(app: FastifyInstance, lease: string, to: FastifyInstance): Promise<void> {
  const path = `/coordination/leases/${lease.replace('/', ':')}`
  const { token } = (await app.inject(path)).json()
  const reply = await app.inject({
    method: 'POST',
    url: `${path}/transfer`,
    headers: { 'if-match': `"${token}"` },
    payload: { to: to.coordination.nodeId, reason: 'meanwhile' },
  })
  if (reply.statusCode !== 202) throw new Error(reply.body)
}

async function everythingElse(t: Test, visit: Visit, database: Database): Promise<void> {
  const options = { authorize: mira, ttlMs: patientTtlMs(database) }
  const use = (node: string): Promise<FastifyInstance> =>
    useApp(t, { url: database.url, node, options, workers: threeWorkers })
  const [n1, n2] = [await use('n1'), await use('n2')]
  await eventually(() => n1.coordination.isHeld('indexing'))
  const page = await visit(`${await listening(n2)}/coordination/ui/`)
  const panel = page.locator('#panel')
  const row = rowOf(page, 'leases', 'c1/indexing')
  await reads(page.locator('h1'), /^All well$/)

  await row.getByRole('link', { name: 'c1/indexing' }).click()
  await reads(
    panel,
    /lease c1\/indexing held Step down… Transfer… Release… Pause… Why it is there n1 \(c1\) has held it/,
  )
  await panel.getByRole('button', { name: 'Step down…' }).click()
  await answered(
    page,
    'Ask to step down',
    /^Asked for c1\/indexing n1 has been asked\. n2 is to have it next/,
  )
  await reads(row.locator('td.leader'), /^n2$/)
  await reads(panel.locator('.facts'), /Leader n2/)

  await panel.getByRole('button', { name: 'Transfer…' }).click()
  await page.locator('dialog select').selectOption(n1.coordination.nodeId ?? '')
  await answered(page, 'Transfer', /^Asked for c1\/indexing n2 has been asked\. n1 is to have it next/)
  await reads(row.locator('td.leader'), /^n1$/)

  await panel.getByRole('button', { name: 'Pause…' }).click()
  await answered(page, 'Pause', /^c1\/indexing is given up as its passes end Close$/)
  await reads(row.locator('td.state'), /^paused$/)
  await reads(page.locator('#attention'), /paused The worker c1\/indexing is paused: nobody runs it/)
  await reads(panel, /Why nobody holds it/)
  t.match(await reads(panel.locator('.why'), /paused/), /paused/)
  await panel.getByRole('button', { name: 'Resume…' }).click()
  await answered(page, 'Resume', /^Nodes may run c1\/indexing again Close$/, '')
  await reads(row.locator('td.state'), /^held$/)

  await rowOf(page, 'nodes', 'n1').getByRole('link', { name: 'n1' }).click()
  await panel.getByRole('button', { name: 'Drain…' }).click()
  await answered(page, 'Drain node', /^n1 hands over as its passes end Close$/)
  await reads(rowOf(page, 'nodes', 'n1').locator('td.state'), /^draining$/)
  await reads(panel, /Holds 0/)
  await reads(row.locator('td.leader'), /^n2$/)
  await panel.getByRole('button', { name: 'End the drain…' }).click()
  await answered(page, 'End the drain', /^n1 takes work again Close$/)
  await reads(rowOf(page, 'assignments', 'global/consumer'), /all owned 12 partitions, 6 on each of 2 nodes/)
  await reads(rowOf(page, 'nodes', 'n1').locator('td.state'), /^alive$/)

  await page.goto(`${page.url().replace(/#.*/, '')}#/assignment/${encodeURIComponent('global:consumer')}`)
  await panel.getByRole('button', { name: 'Pause…' }).click()
  await answered(page, 'Pause', /^global\/consumer is given up/)
  await reads(panel, /It is paused: nobody runs it until it is resumed/)
  await reads(rowOf(page, 'assignments', 'global/consumer'), /paused/)
  await page.keyboard.press('Escape')
  t.equal(await panel.isVisible(), false)

  await page.getByRole('button', { name: 'By people' }).click()
  await eventually(async () => (await page.locator('.events li').count()) === 7, {
    until: 'all seven are listed',
  })
  for (const item of await page.locator('.events li').all()) t.match(await textOf(item), /, by mira/)
}

inBrowser('nodes of one name can be told apart when a lease is transferred', async (t, visit) => {
  const { url } = await useSqlite(t)
  const use = (node: string): Promise<FastifyInstance> =>
    useApp(t, { url, node, options: { authorize: mira, ttlMs: 60_000 }, workers: threeWorkers })
  const first = await use('n1')
  await eventually(() => first.coordination.isHeld('indexing'))
  const twins = [await use('n2'), await use('n2')]
  const page = await visit(`${await listening(first)}/coordination/ui/#/lease/c1:indexing`)
  await reads(page.locator('#panel .facts'), /Candidates 3/)
  await page.locator('#panel').getByRole('button', { name: 'Transfer…' }).click()
  const names = twins.map(({ coordination: { nodeId = '' } }) => `n2 (c1, ${nodeId.slice(0, 8)})`)
  t.strictSame((await page.locator('dialog option').allTextContents()).sort(), names.sort())
})

/** Gives the reason, confirms, and closes the dialog that shows the outcome. */
async function answered(page: Page, submit: string, outcome: RegExp, reason = why): Promise<void> {
  const dialog = page.locator('dialog')
  if (reason !== '') await dialog.getByLabel('Reason').fill(reason)
  await dialog.getByRole('button', { name: submit, exact: true }).click()
  await reads(dialog, outcome)
  await dialog.getByRole('button', { name: 'Close' }).click()
}

inBrowser('what becomes of one lease is not told in the dialog of another', async (t, visit) => {
  const single = (name: string): WorkerDefinition => ({
    ...{ name, kind: 'single', scope: 'cluster', run: untilAborted },
  })
  const app = await useApp(t, {
    options: { authorize: mira, ttlMs: 60_000 },
    workers: [single('indexing'), single('reports')],
  })
  await eventually(() => app.coordination.isHeld('indexing') && app.coordination.isHeld('reports'))
  const page = await visit(`${await listening(app)}/coordination/ui/`, { expected: failing(503) })
  const held = deferred<void>()
  await page.route('**/release', (route) => held.promise.then(() => route.continue()))
  const dialog = page.locator('dialog')
  const ask = async (lease: string): Promise<void> => {
    await page.getByRole('button', { name: `Release ${lease}…` }).click()
    await reads(dialog.locator('h2'), new RegExp(`^Release ${lease}\\?$`))
  }
  await ask('c1/indexing')
  await dialog.getByLabel('Reason').fill(why)
  await dialog.getByLabel('Type').fill('c1/indexing')
  await dialog.getByRole('button', { name: 'Release lease' }).click()
  await reads(dialog, /One moment…/)
  // A browser lets a page keep its dialog open only once.
  for (let times = 0; times < 10 && (await dialog.isVisible()); times += 1)
    await page.keyboard.press('Escape')
  t.equal(await dialog.isVisible(), false)

  await ask('c1/reports')
  t.notMatch(await textOf(dialog), /One moment/)
  await dialog.getByLabel('Reason').fill('another one')
  held.resolve()
  await eventually(() => !app.coordination.isHeld('indexing') || app.coordination.health().held.length === 2)
  await drawn(page, 2)
  t.match(await textOf(dialog.locator('h2')), /^Release c1\/reports\?$/)
  t.equal(await dialog.getByLabel('Reason').inputValue(), 'another one')
  await dialog.getByRole('button', { name: 'Cancel' }).click()
  await reads(dialog.locator('h2'), /^Released c1\/indexing$/)
  await dialog.getByRole('button', { name: 'Close' }).click()
  t.equal(await dialog.isVisible(), false)

  await page.route('**/pause', (route) =>
    route.fulfill({
      status: 503,
      contentType: 'application/problem+json',
      json: { type: 'urn:x:store-unavailable', detail: 'The database is too slow.' },
    }),
  )
  await rowOf(page, 'leases', 'c1/reports').getByRole('link', { name: 'c1/reports' }).click()
  await page.getByRole('button', { name: 'Pause…' }).click()
  await answered(
    page,
    'Pause',
    /^No answer You asked: Pause c1\/reports\? Whether it was done is not known: look before you try again\. The database is too slow\. Close$/,
  )
})

inBrowser('when a scheduled worker fired, and when it does next, stands in its panel', async (t, visit) => {
  const due: number[] = []
  const scheduled = (name: string, schedule: { cron: string; timeZone?: string }): WorkerDefinition => ({
    name,
    kind: 'single',
    scope: 'cluster',
    schedule,
    run: async ({ dueAtMs }) => void due.push(dueAtMs ?? 0),
  })
  const app = await useApp(t, {
    workers: [
      scheduled('often', { cron: '*/2 * * * * *' }),
      scheduled('yearly', { cron: '30 3 1 1 *', timeZone: 'Europe/Vienna' }),
    ],
  })
  const page = await visit(`${await listening(app)}/coordination/ui/`, { timezoneId: 'UTC' })
  const facts = page.locator('#panel .facts')
  await rowOf(page, 'leases', 'c1/often').getByRole('link', { name: 'c1/often' }).click()
  const first = await reads(facts, /Last fire \d/)
  t.match(first, /Schedule \*\/2 \* \* \* \* \* UTC /)
  const [last = 0, next = 0] = firesIn(first)
  t.ok(due.includes(last), 'it is a time that the worker was given')
  t.equal(next - last, 2_000)
  await eventually(async () => (firesIn(await textOf(facts))[0] ?? 0) > last, {
    until: 'the page has seen it fire again',
  })

  await rowOf(page, 'leases', 'c1/yearly').getByRole('link', { name: 'c1/yearly' }).click()
  const rare = await reads(facts, /Vienna/)
  t.match(
    rare,
    /Schedule 30 3 1 1 \* Europe\/Vienna Last fire — Next fire \d{4}-01-01 02:30:00$/,
    'it has not fired yet',
  )
})

/** Returns the last and the next time, as the page shows them. */
function firesIn(text: string): number[] {
  return [...text.matchAll(/fire ([\d-]+ [\d:]+)/g)].map(([, time]) => Date.parse(`${time}Z`))
}

inBrowser('a worker that no program registers any more is taken off the list', async (t, visit) => {
  const database = await useSqlite(t)
  const options = { authorize: mira, ttlMs: 6_000 }
  const old = await useApp(t, { url: database.url, options, workers: threeWorkers })
  await eventually(() => old.coordination.isHeld('indexing'))
  const app = await useApp(t, { url: database.url, node: 'n2', options })
  await old.close()
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  const problem = page.locator('.attention li', { hasText: 'c1/indexing' })
  await reads(problem, /No active node is a candidate .* forget it/)
  await problem.getByRole('button', { name: 'Remove…' }).click()
  const dialog = page.getByRole('dialog')
  await reads(dialog, /Remove c1\/indexing\?/)
  await dialog.getByRole('button', { name: 'Remove', exact: true }).click()
  await reads(dialog, /Removed c1\/indexing/)
  await dialog.getByRole('button', { name: 'Close' }).click()
  await problem.waitFor({ state: 'detached' })
  t.equal((await app.inject('/coordination/workers/c1:indexing')).statusCode, 404)
})

inBrowser(
  'a worker is not offered for removal while a node that drains has registered it',
  async (t, visit) => {
    const { url } = await useSqlite(t)
    const options = { authorize: mira, ttlMs: 60_000 }
    const old = await useApp(t, { url, options, workers: threeWorkers })
    await eventually(() => old.coordination.isHeld('indexing'))
    const app = await useApp(t, { url, node: 'n2', options })
    const { self } = await old.coordination.status()
    const why = { reason: 'a deploy' }
    await app.inject({ method: 'PUT', url: `/coordination/nodes/${self.id}/drain`, payload: why })
    const page = await visit(`${await listening(app)}/coordination/ui/`)
    const problem = page.locator('.attention li', { hasText: 'c1/indexing' })
    await reads(problem, /: every node that has registered it is draining\.$/)
    t.equal(await page.getByRole('button', { name: 'Remove…' }).count(), 0)
    await old.close()
    await reads(problem, /If no program registers it any more, forget it\. ?Remove…$/)
  },
)

inBrowser('what needs attention can be released whatever the filter shows', async (t, visit) => {
  const app = await useApp(t, {
    options: { authorize: mira, ttlMs: 60_000 },
    workers: [
      {
        name: 'nightly',
        kind: 'single',
        scope: 'global',
        schedule: { cron: '* * * * * *' },
        run: untilAborted,
      },
    ],
  })
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  const problem = page.locator('.attention li')
  await reads(problem, /The schedule of global\/nightly was due/)
  await page.getByRole('searchbox').fill('no such thing')
  await reads(page.locator('#leases'), /No lease or holder is called that/)
  await problem.getByRole('button', { name: 'Release…' }).click()
  const dialog = page.getByRole('dialog', { name: 'Release global/nightly?' })
  await reads(dialog, /Last heartbeat .* Candidates 1: no other one/)
  const { token } = (await app.inject('/coordination/leases/global:nightly')).json()
  await app.inject({
    ...{ method: 'POST', url: '/coordination/leases/global:nightly/release' },
    headers: { 'if-match': `"${token}"` },
    payload: { reason: why },
  })
  await reads(dialog, /The lease has moved since: .* Nothing will be released\./)
})

inBrowser('what somebody may not do is not offered, and the server refuses it anyway', async (t, visit) => {
  let allowed: readonly string[] = ['read']
  const authorize: Authorize = (_request, action) =>
    allowed.includes(action) && { id: 'gast', display: 'Gast' }
  const app = await useApp(t, { options: { authorize, ttlMs: 6_000 }, workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('indexing'))
  const page = await visit(`${await listening(app)}/coordination/ui/`, { expected: failing(403) })
  await reads(rowOf(page, 'leases', 'c1/indexing').locator('td.leader'), /^n1$/)
  await reads(page.locator('.who'), /^Gast, may only look$/)
  const doing = page.getByRole('button', { name: /Release|Step down|Transfer|Drain|Pause…|Remove/ })
  t.equal(await doing.count(), 0)
  for (const [section, name] of [
    ['leases', 'c1/indexing'],
    ['nodes', 'n1'],
    ['assignments', 'global/consumer'],
  ] as const) {
    await rowOf(page, section, name).getByRole('link', { name }).click()
    await reads(page.locator('#panel .inside'), /Token|Cluster|Kind/)
    t.equal(await doing.count(), 0, name)
  }
  const { token } = (await app.inject('/coordination/leases/c1:indexing')).json()
  const status = await page.evaluate(
    `fetch('../leases/c1:indexing/release', {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'if-match': '"${token}"' },
      body: JSON.stringify({ reason: 'I want it anyway' })
    }).then(({ status }) => status)`,
  )
  t.equal(status, 403)

  allowed = ['read', 'pause', 'drain']
  await reads(page.locator('.who'), /^Gast, may drain, pause$/)
  t.equal(await page.getByRole('button', { name: /Release/ }).count(), 0)
  await page.getByRole('button', { name: 'Pause…' }).click()
  allowed = ['read']
  const dialog = page.locator('dialog')
  await dialog.getByLabel('Reason').fill(why)
  await dialog.getByRole('button', { name: 'Pause' }).click()
  await reads(dialog.locator('h2'), /^Nothing was done\.$/)
  await reads(dialog, /You may not do this\./)
  await dialog.getByRole('button', { name: 'Close' }).click()
  await reads(page.locator('.who'), /^Gast, may only look$/)
  t.ok(app.coordination.isHeld('indexing'), 'nothing has changed')
})
