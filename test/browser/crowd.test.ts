/** Tests that the page is readable and has an end, with one node or thousands, on wide and narrow screens. */
import type { Page } from 'playwright-core'
import type { Test } from 'tap'
import { listening, mira, useApp } from '../http/application.js'
import { type Crowd, writeCrowd } from '../support/crowd.js'
import { useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'
import { accessible, drawn, fitsSideways, inBrowser, reads, rowOf, type Visit } from './browser.js'

const crowds: readonly Crowd[] = [
  { nodes: 1, leases: 1, partitions: 0 },
  { nodes: 10, leases: 8, partitions: 64 },
  { nodes: 200, leases: 60, partitions: 1_024 },
  { nodes: 2_000, leases: 1_000, partitions: 4_096 },
]

const widths = [390, 768, 1_024, 1_440, 2_560]

/** The limit for the elements of a page, however many nodes there are. */
const mostElements = 8_000

for (const crowd of crowds)
  inBrowser(`${crowd.nodes} nodes, ${crowd.leases} leases, ${crowd.partitions} partitions`, (t, visit) =>
    isReadable(t, visit, crowd),
  )

async function isReadable(t: Test, visit: Visit, crowd: Crowd): Promise<void> {
  const { url } = await useSqlite(t)
  const { nodes } = await writeCrowd(url, crowd)
  const app = await useApp(t, { url, options: { authorize: mira } })
  const page = await visit(`${await listening(app)}/coordination/ui/`)
  await reads(page.locator('.fresh'), /^Live$/)
  await reads(page.locator('#leases header'), new RegExp(`^Leases ${grouped(crowd.leases)}\\b`))
  await reads(page.locator('#nodes header'), new RegExp(`^Nodes ${grouped(crowd.nodes + 1)}\\b`))
  await drawn(page, 3)
  await tellTimes(t, page, crowd)

  const count = (selector: string): Promise<number> => page.locator(selector).count()
  t.ok((await count('#leases tbody tr')) <= 12)
  t.ok((await count('#nodes tbody tr')) <= 12)
  t.ok((await count('#events li')) <= 12)
  t.ok((await count('.cells .cell')) <= 512)
  t.equal(
    await count('.map i'),
    crowd.nodes > 50 ? crowd.nodes + 1 : 0,
    'a square for each, where there are many',
  )
  t.ok((await count('body *')) <= mostElements, `${await count('body *')} elements`)

  for (const width of widths) {
    await page.setViewportSize({ width, height: 900 })
    t.ok(await fitsSideways(page), `${width} px are enough`)
  }
  if (crowd.nodes < 200) {
    await page.setViewportSize({ width: 390, height: 844 })
    await accessible(t, page, '390 px')
  }
  await page.setViewportSize({ width: 1_440, height: 900 })
  await accessible(t, page, '1440 px')
  if (crowd.nodes < 200) return

  const last = nodes.filter((_, at) => at % 100 !== 87).at(-1)?.name ?? ''
  t.equal(await page.getByRole('link', { name: last, exact: true }).count(), 0, 'it is far down')
  await page.locator('#filter').fill(last.slice(4))
  await rowOf(page, 'nodes', last).waitFor()
  await page.locator('#filter').fill('')
  const button = page.locator('#nodes').getByRole('button', { name: 'Show more' })
  await button.click()
  const more = Math.min(100, crowd.nodes + 1)
  await eventually(async () => (await count('#nodes tbody tr')) === more, { until: 'more are shown' })
  if (crowd.nodes < 2_000) {
    await button.press('Enter')
    await eventually(async () => (await count('#nodes tbody tr')) === 200)
    await button.press('Enter')
    await button.waitFor({ state: 'detached' })
    const newest = `[...document.querySelectorAll('#nodes tbody tr')].indexOf(document.activeElement.closest('tr'))`
    await eventually(async () => (await page.evaluate(newest)) === 200, {
      until: 'the first new row has the focus that the button had',
    })
    return
  }

  await page.evaluate("for (const _ of 'four') document.querySelector('#nodes .foot button').click()")
  await reads(page.locator('#nodes .foot'), /^1 501 more nodes: narrow them down with the filter$/)
  await page.goto(`${page.url().replace(/#.*/, '')}#/assignment/${encodeURIComponent('global:consumer')}`)
  await reads(page.locator('#panel .facts'), /Partitions 4 096: /)
  t.ok((await count('#panel tbody tr')) <= 20)
}

/** Reports the times without judging them, because they depend on the machine, too. */
async function tellTimes(t: Test, page: Page, { nodes }: Crowd): Promise<void> {
  const times = await page.evaluate<number[][]>(
    `['draw', 'update'].map((name) => performance.getEntriesByName(name).map(({ duration }) => duration))`,
  )
  const [draws = [], updates = []] = times
  t.equal(draws.length, 1)
  t.ok(updates.length >= 3)
  const middle = [...updates].sort((a, b) => a - b)[Math.floor(updates.length / 2)]
  t.comment(
    `${nodes} nodes: first draw ${draws[0]?.toFixed(1)} ms of script, update ${middle?.toFixed(1)} ms ` +
      `(median of ${updates.length}, most ${Math.max(...updates).toFixed(1)})`,
  )
}

function grouped(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ' ')
}
