/**
 * Tests that old data is never shown as new: each way of not being current is visible, and nothing counts on meanwhile.
 */
import type { FastifyInstance } from 'fastify'
import type { Locator, Page } from 'playwright-core'
import type { Test } from 'tap'
import { deferred } from '../../plugin/core/time/loop.js'
import type { WorkerCoordinationOptions } from '../../plugin/index.js'
import { listening, mira, threeWorkers, useApp } from '../http/application.js'
import { usePostgres, useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { useProxy } from '../support/proxy.js'
import { accessible, drawn, failing, inBrowser, reads, rowOf, textOf } from './browser.js'

const lease = 'c1/indexing'

/** Starts a node that leads, and another one that serves the page. */
async function useTwo(
  t: Test,
  url: string,
  {
    before = () => undefined,
    ...options
  }: Partial<WorkerCoordinationOptions> & {
    before?: (app: FastifyInstance) => unknown
  } = {},
): Promise<FastifyInstance> {
  const ttlMs = 15_000
  const leader = await useApp(t, { url, options: { authorize: mira, ttlMs }, workers: threeWorkers })
  await eventually(() => leader.coordination.isHeld('indexing'))
  return useApp(t, { url, node: 'viewer', options: { authorize: mira, ttlMs, ...options }, before })
}

/**
 * Presses the button, and returns how many requests the page makes at that moment. The page also tries by itself: once
 * the server is back it may have done so just now, and then there is no button left to press.
 */
async function tryNow(page: Page): Promise<number> {
  return page.evaluate(`{
    const { fetch } = window
    let asked = 0
    window.fetch = (...given) => (asked++, fetch(...given))
    for (const button of document.querySelectorAll('#stale button')) button.click()
    window.fetch = fetch
    asked
  }`)
}

/** Lets more time pass than there is between two looks, and checks that what the page says of time does not change. */
async function standsStill(t: Test, page: Page): Promise<void> {
  const shown = async (): Promise<(string | null)[]> => [
    await textOf(counting(page)),
    await textOf(rowOf(page, 'leases', lease).locator('td.held')),
    await textOf(rowOf(page, 'nodes', 'n1').locator('td.beat')),
    await textOf(page.locator('h1')),
  ]
  const before = await shown()
  await passing(page, 2_500)
  t.strictSame(await shown(), before, 'what counts has stopped')
  t.match(before[3], /^All well, as of \d\d:\d\d:\d\d$/)
  t.equal(await page.locator('#verdict.muted').count(), 1, 'the verdict is not shown as if it were of now')
}

function counting(page: Page): Locator {
  return rowOf(page, 'leases', lease).locator('td.left')
}

/** Lets some of the page's time pass, and has the page drawn. */
async function passing(page: Page, ms: number): Promise<void> {
  await page.clock.runFor(ms)
  for (const _ of ['light', 'dark', 'system']) await page.locator('#bar button').last().click()
}

async function isLive(page: Page): Promise<void> {
  await reads(page.locator('.fresh'), /^Live$/)
  await reads(page.locator('h1'), /^All well$/)
  await reads(counting(page), /^\d+ s left$/)
}

/** Returns the paths that the page requests from now on, without its own files. */
function asked(page: Page): string[] {
  const paths: string[] = []
  page.on('request', (request) => void paths.push(new URL(request.url()).pathname))
  return paths
}

inBrowser('the server goes, and comes back', async (t, visit) => {
  const { url } = await useSqlite(t)
  const first = await useTwo(t, url)
  const origin = await listening(first)
  const expected = failing('net::', 503)
  const page = await visit(`${origin}/coordination/ui/`, { movable: true, expected })
  await isLive(page)
  const doing = page.getByRole('button', { name: /^Release/ })
  t.ok((await doing.count()) > 0)
  const live = await textOf(counting(page))
  await eventually(async () => (await textOf(counting(page))) !== live, {
    until: 'it counts while it is live',
  })

  await first.close()
  await reads(page.locator('.fresh'), /^Not updating$/)
  await reads(
    page.locator('#stale'),
    /^Not updating\. The server does not answer\. What you see is as of \d\d:\d\d:\d\d\. .*Try now$/,
  )
  await standsStill(t, page)
  t.equal(await doing.count(), 0, 'nothing is offered that could not be done')
  await reads(page.locator('#aloud'), /^Not updating$/)
  t.match(await page.title(), /^Not updating/)
  await accessible(t, page, 'the server is gone')
  await page.setViewportSize({ width: 320, height: 256 })
  await page.evaluate('scrollTo(0, document.body.scrollHeight)')
  t.ok(
    await page.evaluate(`document.querySelector('.head').getBoundingClientRect().bottom <= 0`),
    'zoomed in',
  )
  await page.setViewportSize({ width: 1_280, height: 900 })
  t.ok((await tryNow(page)) > 0, 'the button asks at once')

  const again = await useApp(t, { url, node: 'viewer', options: { authorize: mira } })
  await again.listen({ port: Number(new URL(origin).port), host: '127.0.0.1' })
  await tryNow(page)
  await isLive(page)
  t.equal(await textOf(page.locator('#stale')), '')
  t.ok((await doing.count()) > 0)
})

inBrowser('windows whose streams take all connections of the browser go on without one', async (t, visit) => {
  // Where nobody has a name, the server gives each of them a stream.
  const app = await useApp(t, { options: { access: { read: 'public' } } })
  const first = await visit(`${await listening(app)}/coordination/ui/`)
  const pages = [first]
  // Chromium opens six connections to a server that speaks HTTP/1.1, for all windows together.
  while (pages.length < 6) {
    const page = await first.context().newPage()
    await page.goto(first.url())
    pages.push(page)
  }
  const answers = pages.map((page) => {
    const times: number[] = []
    page.on('response', (response) => {
      if (response.url().includes('/overview')) times.push(response.status())
    })
    return times
  })
  await eventually(() => answers.every((each) => each.length > 5), {
    timeoutMs: 90_000,
    until: 'each has had more answers than come before the connections are taken',
  })
  for (const page of pages) await reads(page.locator('.fresh'), /^Live$/)
})

inBrowser('details that cover the page do not cover that it is not up to date', async (t, visit) => {
  const app = await useTwo(t, (await useSqlite(t)).url)
  const viewport = { width: 1_024, height: 700 }
  const page = await visit(`${await listening(app)}/coordination/ui/`, {
    viewport,
    expected: failing('net::'),
  })
  await isLive(page)
  await rowOf(page, 'leases', lease).getByRole('link', { name: lease }).click()
  await reads(page.locator('#panel .facts'), /Leader n1/)
  await page.route('**/coordination/*', (route) => route.abort())
  await reads(page.locator('#stale'), /^Not updating/)
  const bar = await page.locator('#stale').boundingBox()
  const [x, y] = [(bar?.x ?? 0) + 60, (bar?.y ?? 0) + (bar?.height ?? 0) / 2]
  t.equal(await page.evaluate(`document.elementFromPoint(${x}, ${y}).closest('[id]').id`), 'stale')
  await accessible(t, page, 'details that are out of date')
  await page.unrouteAll({ behavior: 'wait' })
  await tryNow(page)
  await reads(page.locator('.fresh'), /^Live$/)
})

inBrowser('an answer that is not the server’s is not taken for one', async (t, visit) => {
  const app = await useTwo(t, (await useSqlite(t)).url)
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  const strange: ((body: object) => object)[] = [
    () => ({ status: 'maintenance' }),
    (body) => ({ ...body, totals: undefined }),
  ]
  for (const changed of strange) {
    await isLive(page)
    await page.route('**/overview*', async (route) => {
      const response = await route.fetch({ headers: { ...route.request().headers(), 'if-none-match': '' } })
      await route.fulfill({ json: changed(await response.json()) })
    })
    await reads(page.locator('#stale'), /^Not updating\. The server does not answer\. What you see is as of/)
    t.match(await reads(page.locator('h1'), /as of/), /^All well, as of/, 'what was known stays')
    await page.unrouteAll({ behavior: 'wait' })
    await tryNow(page)
  }
  await isLive(page)

  await page.getByRole('link', { name: 'c1/indexing' }).first().click()
  const terms = page.locator('#panel .terms')
  await reads(terms, /holds it now/)
  for (const part of ['**/explain', '**/history*', '**/events?type=*']) {
    await page.route(part, (route) => route.fulfill({ json: { status: 'maintenance' } }))
    if (part.includes('events')) {
      const asked = page.waitForResponse('**/events?type=*')
      await page.getByRole('button', { name: 'By people' }).click()
      await asked
      await drawn(page, 2)
    } else {
      await reads(page.locator('#stale'), /^Not updating\. The server does not answer\./)
      t.match(await textOf(terms), /holds it now/, 'what was known of details stays, too')
    }
    await page.unrouteAll({ behavior: 'wait' })
    if (!part.includes('events')) await tryNow(page)
    await isLive(page)
  }
})

inBrowser('an answer to an action that is not the server’s is not taken for one', async (t, visit) => {
  const app = await useTwo(t, (await useSqlite(t)).url)
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  const { token } = (await app.inject('/coordination/leases/c1:indexing')).json()
  await isLive(page)
  await page.route('**/release', (route) => route.fulfill({ json: { status: 'maintenance' } }))
  await page.getByRole('button', { name: 'Release c1/indexing…' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByLabel('Reason').fill('stuck since 03:10')
  await dialog.getByLabel(/^Type/).fill('c1/indexing')
  await dialog.getByRole('button', { name: 'Release lease' }).click()
  await reads(dialog.locator('h2'), /^No answer$/)
  await reads(dialog, /Whether it was done is not known: look before you try again\./)
  t.equal((await app.inject('/coordination/leases/c1:indexing')).json().token, token, 'it was not done')
})

inBrowser('the server answers, its database does not', async (t, visit) => {
  const { url } = await usePostgres(t)
  const { hostname, port, pathname } = new URL(url)
  const proxy = await useProxy(t, { host: hostname, port: Number(port || 5432) })
  const through = new URL(url)
  through.host = `127.0.0.1:${proxy.port}`
  t.equal(through.pathname, pathname)
  const leader = await useApp(t, { url, options: { authorize: mira }, workers: threeWorkers })
  await eventually(() => leader.coordination.isHeld('indexing'))
  const app = await useApp(t, { url: through.href, node: 'viewer', options: { authorize: mira } })
  const page = await visit(`${await listening(app)}/coordination/ui/`, {
    movable: true,
    expected: failing(503),
  })
  await isLive(page)
  proxy.refuse()
  await reads(
    page.locator('#stale'),
    /^Not updating\. The server answers, its database does not\. What you see/,
  )
  await standsStill(t, page)
  await accessible(t, page, 'the database is gone')
  proxy.reset()
  await tryNow(page)
  await reads(page.locator('.fresh'), /^Live$/)
})

for (const [how, answer] of Object.entries({
  'with 401': 401,
  'by being sent to a form': 302,
  'because authorize says no': 403,
}))
  inBrowser(`who is signed out ${how} is told so, and nothing more is asked`, async (t, visit) => {
    let isIn = true
    const app = await useTwo(t, (await useSqlite(t)).url, {
      authorize: () => (isIn || answer !== 403) && { id: 'mira' },
      before: (app) =>
        app.addHook('onRequest', async (_request, reply) => {
          if (isIn || answer === 403) return
          if (answer === 302) return reply.redirect('/login')
          return reply.code(401).type('text/plain').send('Who are you?')
        }),
    })
    const page = await visit(`${await listening(app)}/coordination/ui/`, {
      movable: true,
      expected: failing(401, 403),
    })
    await isLive(page)
    isIn = false
    await reads(page.locator('.fresh'), /^Signed out$/)
    await reads(
      page.locator('#stale'),
      /^Signed out\. You may not read this, or not any more\. What you see is as of/,
    )
    const paths = asked(page)
    await standsStill(t, page)
    t.strictSame(paths, [], 'nothing is asked')
    if (answer === 401) await accessible(t, page, 'signed out')
    isIn = true
    await page.getByRole('button', { name: 'Reload' }).click()
    await isLive(page)
  })

inBrowser('who is signed in again elsewhere, and opens something, sees the page go on', async (t, visit) => {
  let isIn = true
  const app = await useTwo(t, (await useSqlite(t)).url, { authorize: () => isIn && { id: 'mira' } })
  const page = await visit(`${await listening(app)}/coordination/ui/`, { expected: failing(403) })
  await isLive(page)
  isIn = false
  await reads(page.locator('.fresh'), /^Signed out$/)
  isIn = true
  await rowOf(page, 'leases', lease).getByRole('link', { name: lease }).click()
  await isLive(page)
  const paths = asked(page)
  const looks = (): number => paths.filter((path) => path.endsWith('/overview')).length
  await eventually(() => looks() > 4, { until: 'it asks again by itself' })
})

/** Chromium without a window never hides a tab, so the page is told that it is hidden. */
const hideable = `
  let isHidden = false
  Object.defineProperty(document, 'hidden', { get: () => isHidden })
  window.hide = (hidden) => {
    isHidden = hidden
    document.dispatchEvent(new Event('visibilitychange'))
  }`

inBrowser('a hidden tab asks nothing, and asks at once when it is looked at again', async (t, visit) => {
  const app = await useTwo(t, (await useSqlite(t)).url)
  const page = await visit(`${await listening(app)}/coordination/ui/`, { movable: true, before: hideable })
  await isLive(page)
  await page.evaluate('hide(true)')
  await reads(page.locator('.fresh'), /^Asleep$/)
  await reads(page.locator('#stale'), /^Asleep while nobody looks\. What you see is as of/)
  const paths = asked(page)
  await standsStill(t, page)
  t.strictSame(paths, [], 'nothing is asked')
  await accessible(t, page, 'asleep')
  await page.evaluate('hide(false)')
  await isLive(page)
  t.ok(paths.includes('/coordination/overview'))
  t.ok(paths.includes('/coordination/stream'))
})

inBrowser('who comes back is not shown old data as current while no answer has come', async (t, visit) => {
  const app = await useTwo(t, (await useSqlite(t)).url)
  const page = await visit(`${await listening(app)}/coordination/ui/`, { before: hideable })
  const press = (name: string) => () => page.getByRole('button', { name, exact: true }).first().click()
  const ways: [go: () => Promise<unknown>, back: () => Promise<unknown>][] = [
    [() => page.evaluate('hide(true)'), () => page.evaluate('hide(false)')],
    [press('Pause'), press('Resume')],
  ]
  for (const [go, back] of ways) {
    await isLive(page)
    await go()
    const answered = deferred<void>()
    await page.route('**/overview*', (route) => answered.promise.then(() => route.continue()))
    await back()
    await reads(page.locator('.fresh'), /^Catching up$/)
    await reads(
      page.locator('#stale'),
      /^Catching up\. The next answer has not come yet\. What you see is as of/,
    )
    t.match(await textOf(page.locator('h1')), /^All well, as of \d\d:\d\d:\d\d$/)
    answered.resolve()
    await isLive(page)
    await page.unrouteAll({ behavior: 'wait' })
  }
})

inBrowser('a server that refuses is not called one that does not answer', async (t, visit) => {
  let isFull = false
  const app = await useTwo(t, (await useSqlite(t)).url, {
    before: (app) =>
      app.addHook('onRequest', async (_request, reply) => {
        if (!isFull) return
        reply.header('retry-after', '1')
        throw Object.assign(new Error('Rate limit exceeded'), { statusCode: 429 })
      }),
  })
  const page = await visit(`${await listening(app)}/coordination/ui/`, { expected: failing(429) })
  await isLive(page)
  isFull = true
  await reads(
    page.locator('#stale'),
    /^Not updating\. The server refuses to answer\. What you see is as of .* Rate limit exceeded Try now$/,
  )
  isFull = false
  await tryNow(page)
  await isLive(page)
})

inBrowser('a page that is paused stands still, and asks nothing', async (t, visit) => {
  const app = await useTwo(t, (await useSqlite(t)).url)
  const page = await visit(`${await listening(app)}/coordination/ui/`, { movable: true })
  await isLive(page)
  await page.getByRole('button', { name: 'Pause', exact: true }).click()
  await reads(page.locator('#stale'), /^Paused\. What you see is as of \d\d:\d\d:\d\d\. Resume$/)
  const paths = asked(page)
  await standsStill(t, page)
  t.strictSame(paths, [], 'nothing is asked')
  await accessible(t, page, 'paused')
  await page.locator('#stale').getByRole('button', { name: 'Resume' }).click()
  await isLive(page)
})

inBrowser('what is read while the page is paused is shown as of then', async (t, visit) => {
  const app = await useTwo(t, (await useSqlite(t)).url)
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  await isLive(page)
  await page.getByRole('button', { name: 'Pause', exact: true }).click()
  const heartbeat = async (): Promise<string> =>
    (await app.inject('/coordination/leases/c1:indexing/explain')).json().lease.session.heartbeatAt
  const before = await heartbeat()
  await eventually(async () => Date.parse(await heartbeat()) > Date.parse(before) + 1_000)
  await rowOf(page, 'leases', lease).getByRole('link', { name: lease }).click()
  await reads(page.locator('#panel .facts'), /Leader n1/)
  await reads(page.locator('.fresh'), /^Paused$/)
  t.match(await textOf(counting(page)), /^(\d|1[0-5]) s left$/, 'no longer than its session can last')
  await page.locator('#stale').getByRole('button', { name: 'Resume' }).click()
  await isLive(page)
})

inBrowser('a page in which text is marked stands still', async (t, visit) => {
  const app = await useTwo(t, (await useSqlite(t)).url)
  const page = await visit(`${await listening(app)}/coordination/ui/`, { expected: failing('net::') })
  await isLive(page)
  await page.evaluate(`getSelection().selectAllChildren(document.querySelector('td.left'))`)
  await reads(page.locator('.fresh'), /^Held while you select text$/)
  const marked = await page.evaluate<string>('getSelection().toString()')
  await drawn(page, 4)
  t.equal(await page.evaluate('getSelection().toString()'), marked, 'what is marked stays as it was')
  t.match(marked, /\d+ s left/)
  t.equal(await page.locator('#verdict.muted').count(), 1, 'the verdict is not shown as if it were of now')
  await page.route('**/coordination/*', (route) => route.abort())
  await reads(page.locator('#aloud'), /^Not updating$/)
  t.match(await page.title(), /^Not updating/)
  t.equal(await page.evaluate('getSelection().toString()'), marked)
  await page.unrouteAll({ behavior: 'wait' })
  await tryNow(page)
  await page.evaluate('getSelection().removeAllRanges()')
  await isLive(page)
})

inBrowser('times are the database’s, and the page says when the browser’s clock is off', async (t, visit) => {
  const app = await useTwo(t, (await useSqlite(t)).url)
  const origin = await listening(app)
  for (const [hours, word] of [
    [2, 'ahead'],
    [-2, 'behind'],
  ] as const) {
    const before = `const now = Date.now; Date.now = () => now() + ${hours * 3_600_000}`
    const page = await visit(`${origin}/coordination/ui/`, { before })
    await isLive(page)
    t.match(
      await reads(page.locator('#stale'), /clock/),
      new RegExp(
        `^The clock of this browser is (2 h|1 h 59 min) ${word}\\. All times here are the database’s\\.$`,
      ),
    )
    await reads(rowOf(page, 'leases', lease).locator('td.held'), /^\d+ s$/)
    await reads(rowOf(page, 'nodes', 'n1').locator('td.beat'), /^(just now|\d+ s ago)$/)
    if (hours > 0) await accessible(t, page, `the browser’s clock is ${word}`)
  }
  const right = await visit(`${origin}/coordination/ui/`)
  await isLive(right)
  t.equal(await textOf(right.locator('#stale')), '')
})

inBrowser('a jump of the database’s clock is said, and is not taken for the browser’s', async (t, visit) => {
  const app = await useTwo(t, (await useSqlite(t)).url)
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  await isLive(page)
  await page.route('**/overview*', async (route) => {
    const headers = { ...route.request().headers(), 'if-none-match': '' }
    const response = await route.fetch({ headers })
    const body = await response.json()
    const now = new Date(Date.parse(body.now) - 600_000).toISOString()
    await route.fulfill({ response, json: { ...body, now } })
  })
  await reads(
    page.locator('#stale'),
    /^The database’s clock has jumped by (9|10) min backwards: times from before do not fit those after\.$/,
  )
})
