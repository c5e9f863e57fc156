/** Tests the page wherever it is served, and whatever is written in what it shows. */
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import helmet from '@fastify/helmet'
import BetterSqlite from 'better-sqlite3'
import type { Page } from 'playwright-core'
import type { Test } from 'tap'
import { listening, mira, threeWorkers, useApp } from '../http/application.js'
import { writeCrowd } from '../support/crowd.js'
import { useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { accessible, inBrowser, reads, rowOf } from './browser.js'

const lease = 'c1/indexing'

/** Checks that everything is there, that the stream keeps it up to date, and that an intervention works. */
async function works(page: Page): Promise<void> {
  await reads(page.locator('.fresh'), /^Live$/)
  await reads(page.locator('h1'), /^All well$/)
  await page.getByRole('button', { name: `Release ${lease}…` }).click()
  const dialog = page.locator('dialog')
  await dialog.getByLabel('Reason').fill('to see whether it can be done')
  await dialog.getByLabel('Type').fill(lease)
  await dialog.getByRole('button', { name: 'Release lease' }).click()
  await reads(dialog.locator('h2'), /^Released c1\/indexing$/)
  await dialog.getByRole('button', { name: 'Close' }).click()
  await page.getByRole('button', { name: 'By people' }).click()
  await reads(
    page.locator('.events li'),
    /^.* revoked c1\/indexing It was taken away from n1, by Mira?: “to see/i,
  )
}

inBrowser('under any prefix', async (t, visit) => {
  for (const prefix of ['/coordination', '/a/b']) {
    const app = await useApp(t, { options: { authorize: mira, prefix }, workers: threeWorkers })
    await eventually(() => app.coordination.isHeld('indexing'))
    const page = await visit(`${await listening(app)}${prefix}/ui`)
    t.match(page.url(), new RegExp(`${prefix}/ui/$`))
    await works(page)
  }
})

inBrowser(
  'behind a proxy that takes a prefix away, by a name of the house and without TLS',
  async (t, visit) => {
    const app = await useApp(t, { workers: threeWorkers })
    await eventually(() => app.coordination.isHeld('indexing'))
    const port = await useStrippingProxy(t, '/ops/eu', await listening(app))
    const page = await visit(`http://ops.house.test:${port}/ops/eu/coordination/ui`, {
      expected: /^The Cross-Origin-Opener-Policy header has been ignored/,
    })
    t.match(page.url(), /\/ops\/eu\/coordination\/ui\/$/)
    const streamed = page.waitForRequest(/\/ops\/eu\/coordination\/stream$/)
    await page.reload()
    await streamed
    await works(page)
  },
)

async function useStrippingProxy(t: Test, prefix: string, origin: string): Promise<number> {
  const front = createServer((incoming: IncomingMessage, outgoing: ServerResponse) => {
    const { method, headers, url = '' } = incoming
    if (!url.startsWith(`${prefix}/`)) return void outgoing.writeHead(404).end()
    const passed = request(`${origin}${url.slice(prefix.length)}`, { method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(outgoing)
    })
    passed.on('error', () => outgoing.destroy())
    outgoing.on('close', () => passed.destroy())
    incoming.pipe(passed)
  })
  await new Promise<void>((resolve) => front.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    front.closeAllConnections()
    front.close()
  })
  return (front.address() as AddressInfo).port
}

inBrowser('inside an application with @fastify/helmet', async (t, visit) => {
  const app = await useApp(t, { workers: threeWorkers, before: (app) => app.register(helmet) })
  await eventually(() => app.coordination.isHeld('indexing'))
  await works(await visit(`${await listening(app)}/coordination/ui/`))
})

inBrowser('nothing but its own script runs in it, and no text becomes markup', async (t, visit) => {
  const app = await useApp(t, { workers: threeWorkers })
  const page = await visit(`${await listening(app)}/coordination/ui/`, {
    expected: /Content Security Policy|Trusted(HTML|Script)|script/,
  })
  await reads(page.locator('h1'), /^All well$/)
  await t.rejects(page.evaluate("document.body.innerHTML = '<b>bold</b>'"), /TrustedHTML/)
  await t.rejects(
    page.evaluate("setTimeout('document.title = 1')"),
    /TrustedScript|Content Security Policy|unsafe-eval/,
  )
  await page
    .evaluate(`{
    const script = document.createElement('script')
    script.append('window.ran = true')
    document.head.append(script)
    document.body.setAttribute('onclick', 'window.ran = true')
  }`)
    .catch(() => undefined)
  await page.locator('h1').click()
  t.equal(await page.evaluate('window.ran'), undefined)
})

inBrowser('a page of another site cannot tell which leases there are', async (t, visit) => {
  const app = await useApp(t, { workers: threeWorkers })
  const origin = await listening(app)
  const elsewhere = createServer((_incoming, outgoing) => {
    outgoing.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>elsewhere</title>')
  })
  await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    elsewhere.closeAllConnections()
    elsewhere.close()
  })
  const { port } = elsewhere.address() as AddressInfo
  const page = await visit(`http://elsewhere.house.test:${port}/`, { expected: /./ })
  const saw = (tag: string, address: string, path: string): Promise<unknown> =>
    page.evaluate(`new Promise((resolve) => {
      const element = document.createElement('${tag}')
      element.onload = element.onerror = ({ type }) => resolve(type)
      element.${address} = '${origin}/coordination/leases/${path}'
      document.body.append(element)
    })`)
  for (const [tag, address] of [
    ['object', 'data'],
    ['script', 'src'],
    ['img', 'src'],
    ['iframe', 'src'],
  ] as const)
    t.equal(await saw(tag, address, 'c1:indexing'), await saw(tag, address, 'c1:nothing'), tag)
  t.equal((await app.inject('/coordination/leases/c1:indexing')).statusCode, 200, 'one of them is there')
})

const markup = `"><img src=x onerror="window.ran='yes'"><script>window.ran='yes'</script>`
/** Reverses the direction of all text that follows, unless it is isolated. */
const bidi = 'gnp.\u202eexe'

inBrowser('names full of markup are shown as they are', async (t, visit) => {
  const { url, path } = await useSqlite(t)
  const { leases } = await writeCrowd(url, { nodes: 3, leases: 3, partitions: 6 })
  const [bad = '', odd = ''] = leases
  spoil(path, { bad, odd })
  const authorize = (): { id: string; display: string } => ({ id: 'mira', display: markup })
  const app = await useApp(t, { url, options: { authorize } })
  const page = await visit(`${await listening(app)}/coordination/ui/`, {
    expected: /^Failed to load resource: .*(400|404)/,
  })
  await reads(page.locator('.fresh'), /^Live$/)
  const all = await reads(page.locator('body'), /onerror.*may do everything/)
  for (const [what, text] of Object.entries({
    lease: `eu-1/${markup}`,
    node: `node ${markup}`,
    version: `2 ${markup}`,
    reason: `why ${markup}`,
    actor: `by actor ${markup}`,
  }))
    t.ok(all.includes(text), what)

  await page
    .getByRole('link', { name: `node ${markup}` })
    .first()
    .click()
  t.match(await reads(page.locator('#panel'), /zone/), `zone ${markup}`)
  await rowOf(page, 'leases', `eu-1/${markup}`)
    .getByRole('link', { name: `eu-1/${markup}` })
    .click()
  await reads(page.locator('#panel .inside'), /\w/)
  await rowOf(page, 'leases', `eu-2/${bidi}`).getByRole('link').first().click()
  await reads(page.locator('#panel .inside'), /\w/)
  await accessible(t, page, 'names full of markup')
  await page.locator('#filter').fill(`eu-1/${markup}`)
  await eventually(async () => (await page.locator('#leases tbody tr').count()) === 1, {
    until: 'the filter has found it',
  })
  t.equal(await page.evaluate('window.ran'), undefined)
  t.equal(await page.locator('body img, body script, body b b').count(), 0)
})

/** Writes names that the plugin would refuse, because other programs can write to a database, too. */
function spoil(path: string, { bad, odd }: { bad: string; odd: string }): void {
  const file = new BetterSqlite(path)
  const [node] = file.prepare('select id from coordination_nodes order by name').all() as { id: string }[]
  const run = (sql: string, ...values: unknown[]): void => void file.prepare(sql).run(...values)
  run(
    'update coordination_nodes set name = ?, version = ?, labels = ? where id = ?',
    `node ${markup}`,
    `2 ${markup}`,
    JSON.stringify({ zone: markup }),
    node?.id,
  )
  for (const [key, name] of [
    [bad, `eu-1/${markup}`],
    [odd, `eu-2/${bidi}`],
  ]) {
    run('update coordination_leases set key = ?, worker = ? where key = ?', name, name, key)
    run('update coordination_workers set key = ? where key = ?', name, key)
    run('update coordination_events set subject = ? where subject = ?', name, key)
  }
  run(
    "update coordination_events set type = 'lease.revoked', actor = ?, reason = ? where subject = ?",
    `actor ${markup}`,
    `why ${markup}`,
    `eu-1/${markup}`,
  )
  run('update coordination_meta set revision = revision + 1')
  file.close()
}
