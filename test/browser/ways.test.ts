/** Whoever comes, with a keyboard, a phone, a dark room or a screen reader: it can be used. */
import type { Page } from 'playwright-core'
import { listening, mira, threeWorkers, untilAborted, useApp } from '../http/application.js'
import { eventually } from '../support/eventually.js'
import { accessible, fitsSideways, inBrowser, reads, rowOf } from './browser.js'

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
  await reads(page.locator('#leases'), /No lease is called that/)
  await press('Escape')
  await reads(page.locator('#leases tbody'), /indexing/)

  await tabTo(/c1\/indexing/)
  await press('Enter')
  await reads(page.locator('#panel .facts'), /Leader n1/)
  t.equal(await focused('tagName'), 'H2', 'what has been opened has the focus')
  await press('Escape')
  t.equal(await page.locator('#panel').isVisible(), false)
  t.match(await focused('textContent'), /c1\/indexing/, 'and gives it back')

  await tabTo(/Release c1\/indexing/)
  await press('Enter')
  await reads(page.locator('dialog h2'), /^Release c1\/indexing\?$/)
  t.equal(await focused('name'), 'reason')
  await page.keyboard.type('done without a mouse')
  await press('Tab')
  await page.keyboard.type('c1/indexing')
  await press('Enter')
  await reads(page.locator('dialog h2'), /^Released$/)
  t.equal(await focused('name'), 'close')
  await press('Enter')
  t.equal(await page.locator('dialog').isVisible(), false)
  await tabTo(/By people/)
  await press('Space')
  await reads(page.locator('.events li'), /by mira: “done without a mouse”/)
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
