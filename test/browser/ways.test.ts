/** Tests that the page can be used with a keyboard, on a phone, in a dark room and with a screen reader. */
import type { Page } from 'playwright-core'
import { listening, mira, threeWorkers, untilAborted, useApp } from '../http/application.js'
import { eventually } from '../support/eventually.js'
import { accessible, failing, fitsSideways, inBrowser, reads, rowOf, textOf } from './browser.js'

inBrowser('a node alone, with nothing to do yet', async (t, visit) => {
  const app = await useApp(t)
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  await reads(page.locator('h1'), /^All well$/)
  await reads(page.locator('#leases'), /^Leases 0 No lease yet: the first appears when a node asks for it\.$/)
  await reads(page.locator('#nodes tbody tr'), /^n1 c1 alive/)
  await reads(page.locator('#assignments'), /^Assignments 0 No work is being shared out\.$/)
  await accessible(t, page, 'nothing to do')
})

inBrowser('whatever is open is accessible', async (t, visit) => {
  const app = await useApp(t, { workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('indexing'))
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  const panel = page.locator('#panel')
  await rowOf(page, 'leases', 'c1/indexing').getByRole('link').first().click()
  await reads(panel.locator('.facts'), /Leader n1/)
  await accessible(t, page, 'a lease')
  await panel.getByRole('button', { name: 'Release…' }).click()
  await accessible(t, page, 'the dialog')
  await page.getByRole('button', { name: 'Release lease' }).click()
  await reads(page.getByRole('dialog').getByRole('alert'), /Say why/)
  await accessible(t, page, 'the dialog, with a flaw')
  await page.keyboard.press('Escape')
  await rowOf(page, 'nodes', 'n1').getByRole('link').first().click()
  await reads(panel.locator('.facts'), /Cluster c1/)
  await accessible(t, page, 'a node')
  await rowOf(page, 'assignments', 'global/consumer').getByRole('link').first().click()
  await reads(panel.locator('.facts'), /Partitions 12/)
  await page.setViewportSize({ width: 390, height: 844 })
  t.ok(await fitsSideways(page))
  await accessible(t, page, 'an assignment')
})

inBrowser('everything can be done with the keyboard alone', async (t, visit) => {
  const app = await useApp(t, {
    options: { authorize: mira, ttlMs: 60_000 },
    workers: [{ name: 'indexing', kind: 'single', scope: 'cluster', run: untilAborted }],
  })
  await eventually(() => app.coordination.isHeld('indexing'))
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  await reads(page.locator('h1'), /^All well$/)
  const press = (key: string): Promise<void> => page.keyboard.press(key)
  const focused = (what: string): Promise<string> => page.evaluate(`document.activeElement.${what} ?? ''`)
  const tabTo = async (name: RegExp): Promise<void> => {
    for (let steps = 0; steps < 60; steps += 1) {
      await press('Tab')
      const label = `${await focused("getAttribute('aria-label')")} ${await focused('textContent')}`
      if (!name.test(label)) continue
      t.ok(await isMarked(page), `${label.trim()} can be seen to have the focus`)
      return
    }
    t.fail(`Tab does not lead to ${name}`)
  }

  await press('Tab')
  t.equal(await focused('textContent'), 'Skip to content')
  await press('/')
  t.equal(await focused('id'), 'filter')
  await page.keyboard.type('nothing')
  await reads(page.locator('#leases'), /No lease or holder is called that/)
  await press('Escape')
  await reads(page.locator('#leases tbody'), /indexing/)

  await tabTo(/c1\/indexing/)
  await press('Enter')
  await reads(page.locator('#panel .facts'), /Leader n1/)
  t.equal(await focused('tagName'), 'H2', 'what has been opened has the focus')
  await page.locator('#panel .terms a').first().focus()
  await press('Enter')
  await reads(page.locator('#panel .facts'), /Cluster c1/)
  t.equal(await focused('tagName'), 'H2', 'also from within')
  await page.goBack()
  await reads(page.locator('#panel .facts'), /Leader n1/)
  await press('Escape')
  t.equal(await page.locator('#panel').isVisible(), false)
  t.equal(await focused("getAttribute('href')"), '#/lease/c1%3Aindexing', 'and gives it back')

  await tabTo(/Release c1\/indexing/)
  await press('Enter')
  await reads(page.locator('dialog h2'), /^Release c1\/indexing\?$/)
  t.equal(await focused('name'), 'reason')
  await press('Tab')
  await page.keyboard.type('c1/index')
  await press('Enter')
  t.equal(await focused('name'), 'reason', 'which is missing')
  await page.keyboard.type('done without a mouse')
  await press('Enter')
  t.equal(await focused('name'), 'typed', 'which is not the name')
  await press('End')
  await page.keyboard.type('ing')
  await press('Enter')
  await reads(page.locator('dialog h2'), /^Released c1\/indexing$/)
  t.equal(await focused('name'), 'close')
  await press('Enter')
  t.equal(await page.locator('dialog').isVisible(), false)
  await tabTo(/By people/)
  await press('Space')
  await reads(page.locator('.events li'), /by mira: “done without a mouse”/)
})

inBrowser('what was paused with the keyboard is resumed with the same button', async (t, visit) => {
  const app = await useApp(t, { workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('indexing'))
  const page = await visit(`${await listening(app)}/coordination/ui/#/lease/c1:indexing`)
  const outcome = page.locator('dialog .end')
  const focused = (): Promise<string> => page.evaluate('document.activeElement.textContent')
  await page.getByRole('button', { name: 'Pause…' }).press('Enter')
  await page.keyboard.type('a look')
  await page.keyboard.press('Enter')
  await reads(outcome, /is given up as its passes end/)
  await page.keyboard.press('Enter')
  await page.getByRole('button', { name: 'Resume…' }).waitFor()
  t.equal(await focused(), 'Resume…')
  await page.keyboard.press('Enter')
  await reads(page.locator('dialog h2'), /^Resume c1\/indexing\?$/)
  await page.keyboard.press('Enter')
  await reads(outcome, /Nodes may run c1\/indexing again/)
  await page.keyboard.press('Enter')
  await page.getByRole('button', { name: 'Pause…' }).waitFor()
  t.equal(await focused(), 'Pause…')
})

inBrowser('what has the focus can be seen, whatever lies above the page', async (t, visit) => {
  const app = await useApp(t, { workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('indexing'))
  const viewport = { width: 1_024, height: 420 }
  const page = await visit(`${await listening(app)}/coordination/ui/`, { viewport })
  await reads(page.locator('h1'), /^All well$/)
  const hidden = (): Promise<string> =>
    page.evaluate(`{
      const focused = document.activeElement
      const isBelow = focused.getBoundingClientRect().bottom > document.querySelector('.head').getBoundingClientRect().bottom
      isBelow || focused.closest('.head, .skip, body:focus') ? '' : focused.outerHTML
    }`)
  for (let steps = 0; steps < 50; steps += 1) {
    await page.keyboard.press('Shift+Tab')
    t.equal(await hidden(), '')
  }

  await page.setViewportSize({ width: 1_300, height: 380 })
  await rowOf(page, 'assignments', 'global/consumer').getByRole('link').first().click()
  await page.locator('#panel tbody a').last().focus()
  const beneath = (): Promise<string> =>
    page.evaluate(`{
      const { bottom } = document.querySelector('#panel header').getBoundingClientRect()
      const focused = document.activeElement
      focused.closest('.inside') && focused.getBoundingClientRect().bottom <= bottom ? focused.outerHTML : ''
    }`)
  for (let steps = 0; steps < 24; steps += 1) {
    await page.keyboard.press('Shift+Tab')
    t.equal(await beneath(), '')
  }
  await page.keyboard.press('Escape')

  await page.setViewportSize({ width: 390, height: 844 })
  await rowOf(page, 'leases', 'c1/indexing').getByRole('link', { name: 'c1/indexing' }).click()
  await reads(page.locator('#panel .facts'), /Leader n1/)
  for (let steps = 0; steps < 20; steps += 1) {
    await page.keyboard.press('Tab')
    t.equal(await page.evaluate(`document.activeElement.closest('main, .head, .skip')`), null)
  }
  await page.keyboard.press('Escape')
  const href = await page.evaluate("document.activeElement.getAttribute('href')")
  t.equal(href, '#/lease/c1%3Aindexing', 'and gives it back')
})

inBrowser('what is asked for is shown, although text is selected', async (t, visit) => {
  const app = await useApp(t, { workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('indexing'))
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  await reads(page.locator('h1'), /^All well$/)
  const select = async (what: string): Promise<void> => {
    await page.evaluate(`getSelection().selectAllChildren(document.querySelector('${what}'))`)
    await reads(page.locator('.fresh'), /^Held while you select text$/)
  }
  await select('td.token')
  await page.getByRole('button', { name: 'By people' }).click()
  await reads(page.locator('#events'), /Nothing of the kind is known here/)
  await reads(page.locator('.fresh'), /^Live$/)

  await select('td.token')
  await rowOf(page, 'leases', 'c1/indexing').getByRole('link').first().press('Enter')
  const panel = page.locator('#panel')
  await reads(panel.locator('.facts'), /Leader n1/)
  await select('#panel .facts')
  await page.keyboard.press('Escape')
  await panel.waitFor({ state: 'hidden' })
  await page.keyboard.press('Enter')
  await reads(panel.locator('.facts'), /Leader n1/)
  await select('#panel .facts')
  await panel.getByRole('button', { name: 'Close' }).click()
  await panel.waitFor({ state: 'hidden' })
})

inBrowser('which events are shown can be seen where the system chooses all colours', async (t, visit) => {
  const app = await useApp(t)
  const page = await visit(`${await listening(app)}/coordination/ui/`, { forcedColors: 'active' })
  await reads(page.locator('h1'), /^All well$/)
  const ground = (pressed: boolean): Promise<string> =>
    page.evaluate(`getComputedStyle(document.querySelector('[aria-pressed="${pressed}"]')).backgroundColor`)
  t.not(await ground(true), await ground(false))
})

inBrowser('only a node that is called so exactly is shown as it', async (t, visit) => {
  const app = await useApp(t, { workers: threeWorkers })
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  for (const part of ['n', 'n1', 'c1']) {
    await page.goto(`${page.url().replace(/#.*/, '')}#/node/${part}`)
    await reads(page.locator('#panel'), new RegExp(`^node ${part} There is no such node\\.$`))
  }
  await page.keyboard.press('Escape')
  await page.locator('#filter').fill('ü')
  await reads(page.locator('#leases'), /No lease or holder is called that/)
})

inBrowser('however long names are, what can be done can be reached', async (t, visit) => {
  const node = `payments-${'x'.repeat(91)}`
  const name = `settlement-${'y'.repeat(89)}`
  const app = await useApp(t, {
    node,
    options: { authorize: mira, labels: { image: 'registry.example/'.repeat(12), zone: 'z'.repeat(200) } },
    workers: [
      { name, kind: 'single', scope: 'cluster', run: untilAborted },
      { name: `s${'_'.repeat(98)}z`, kind: 'partitioned', scope: 'global', partitions: 2, run: untilAborted },
      ...threeWorkers,
    ],
  })
  await eventually(() => app.coordination.isHeld(name))
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  const row = rowOf(page, 'leases', `c1/${name}`)
  await reads(row.locator('td.state'), /^held$/)
  t.equal(await row.locator('td.leader a').getAttribute('title'), node, 'the whole name can be read')
  t.equal(await row.locator('th a').first().getAttribute('title'), `c1/${name}`)
  const title = rowOf(page, 'assignments', `global/s${'_'.repeat(98)}z`).locator('h3')
  await title.waitFor()
  t.ok(
    await title.evaluate((h3) => h3.scrollWidth <= h3.clientWidth),
    'a name without hyphens stays beside its partitions',
  )
  const reach = async (what: string): Promise<void> => {
    t.ok(await fitsSideways(page), `${what}: nothing lies to the side`)
    for (const button of await page.locator('#leases .act button, #events .tabs button').all()) {
      const box = await button.boundingBox()
      const card = await page.locator('#leases').boundingBox()
      const right = (box?.x ?? 1e9) + (box?.width ?? 0)
      t.ok(right <= (card?.x ?? 0) + (card?.width ?? 0), `${what}: ${await textOf(button)} ends at ${right}`)
    }
  }
  for (const width of [320, 390, 560, 600, 683, 768, 1_024, 1_280, 1_366, 1_920]) {
    await page.setViewportSize({ width, height: 900 })
    await reach(`${width} px`)
  }
  for (const [section, link] of [
    ['leases', `c1/${name}`],
    ['nodes', node],
    ['assignments', 'global/consumer'],
  ] as const)
    for (const width of [1_200, 1_366]) {
      await page.setViewportSize({ width, height: 900 })
      await rowOf(page, section, link).getByRole('link', { name: link, exact: true }).click()
      await reads(page.locator('#panel .facts'), /Token|Cluster|Kind/)
      await reach(`${width} px beside ${link}`)
      const isWide = `document.querySelector('#panel').scrollWidth > document.querySelector('#panel').clientWidth`
      t.equal(await page.evaluate(isWide), false, `${link} fits`)
    }
})

inBrowser('on a phone each state has its word', async (t, visit) => {
  const app = await useApp(t, { workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('indexing'))
  const viewport = { width: 390, height: 844 }
  const page = await visit(`${await listening(app)}/coordination/ui/`, { viewport })
  await reads(page.locator('h1'), /^All well$/)
  const lease = rowOf(page, 'leases', 'c1/indexing')
  const cell = (word: string) => lease.getByRole('cell', { name: word, exact: true })
  await cell('held').waitFor()
  await rowOf(page, 'nodes', 'n1').getByRole('cell', { name: 'alive', exact: true }).waitFor()
  const by = { actor: 'mira', reason: 'a good one' }
  await app.coordination.operator.pause('c1/indexing', by)
  await cell('paused').waitFor()
  const box = await lease.locator('.word').boundingBox()
  t.ok((box?.width ?? 0) > 20, 'and what is not well can be read')
  await accessible(t, page, 'a paused lease on a phone')
  await page.setViewportSize({ width: 360, height: 740 })
  await rowOf(page, 'assignments', 'global/consumer').getByRole('link').first().click()
  const share = page.locator('#panel .slots th a').first()
  await share.waitFor()
  t.ok(((await share.boundingBox())?.height ?? 99) < 50, 'the name of a partition has room in the details')
})

inBrowser('on paper, details stand below the page and not on top of it', async (t, visit) => {
  const app = await useApp(t, { workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('indexing'))
  const page = await visit(`${await listening(app)}/coordination/ui/#/lease/c1:indexing`, {
    expected: failing('net::'),
  })
  await reads(page.locator('#panel .facts'), /Leader n1/)
  await page.route('**/coordination/*', (route) => route.abort())
  await reads(page.locator('#stale'), /^Not updating/)
  await page.emulateMedia({ media: 'print' })
  for (const width of [794, 1_280]) {
    await page.setViewportSize({ width, height: 1_123 })
    const [head, main, panel] = [
      await page.locator('.head').boundingBox(),
      await page.locator('main').boundingBox(),
      await page.locator('#panel').boundingBox(),
    ]
    t.ok((panel?.y ?? 0) >= (main?.y ?? 0) + (main?.height ?? 1e9), `${width} px`)
    t.ok((main?.y ?? 0) >= (head?.y ?? 0) + (head?.height ?? 1e9), `${width} px: that it is old stands above`)
  }
})

function isMarked(page: Page): Promise<boolean> {
  return page.evaluate(`parseFloat(getComputedStyle(document.activeElement).outlineWidth) >= 2`)
}

inBrowser('who wants nothing to move has nothing move', async (t, visit) => {
  const app = await useApp(t, { workers: threeWorkers })
  const origin = await listening(app)
  const moving = async (reducedMotion: 'reduce' | 'no-preference'): Promise<number> => {
    const page = await visit(`${origin}/coordination/ui/`, { reducedMotion })
    await reads(page.locator('h1'), /^All well$/)
    return page.evaluate(
      `[...document.querySelectorAll('*')].filter((each) => {
        const { transitionDuration, animationName } = getComputedStyle(each)
        return transitionDuration !== '0s' || animationName !== 'none'
      }).length`,
    )
  }
  t.ok((await moving('no-preference')) > 0)
  t.equal(await moving('reduce'), 0)
})

inBrowser('light and dark can be chosen, and the choice is kept', async (t, visit) => {
  const app = await useApp(t)
  const page = await visit(`${await listening(app)}/coordination/ui/`, { colorScheme: 'light' })
  await reads(page.locator('h1'), /^All well$/)
  const ground = (): Promise<string> => page.evaluate('getComputedStyle(document.body).backgroundColor')
  const light = await ground()
  const button = page.locator('#bar button').last()
  await button.click()
  await reads(button, /^Light$/)
  await button.click()
  await reads(button, /^Dark$/)
  const dark = await ground()
  t.not(dark, light)
  await page.reload()
  await reads(page.locator('h1'), /^All well$/)
  t.equal(await ground(), dark)
  await page.locator('#bar button').last().click()
  t.equal(await ground(), light, 'as the system has it')
})

inBrowser('events that were refused once are read with the next look', async (t, visit) => {
  const app = await useApp(t, { workers: threeWorkers })
  await eventually(() => app.coordination.isHeld('indexing'))
  const page = await visit(`${await listening(app)}/coordination/ui/`, { expected: failing(429) })
  await reads(page.locator('h1'), /^All well$/)
  await page.route('**/events?*', (route) => route.fulfill({ status: 429, json: {} }), { times: 2 })
  await app.coordination.operator.pause('c1/indexing', { actor: 'mira', reason: 'a look' })
  await reads(page.locator('#events .events'), /paused/)
})
