/**
 * Takes the pictures of `docs/screenshots`: `npm run screenshots`. They show the real page over invented rows, with the
 * fonts of this machine.
 */
import { mkdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import Fastify from 'fastify'
import type { Page } from 'playwright-core'
import workerCoordination from '../../plugin/index.js'
import { writeCrowd } from '../support/crowd.js'
import { launch, reads, rowOf, withoutChromium } from './browser.js'
import { keepAlive, writeScene } from './scene.js'

if (withoutChromium !== undefined) throw new Error(withoutChromium)
const pictures = join(process.cwd(), 'docs', 'screenshots')
mkdirSync(pictures, { recursive: true })
const folder = await mkdtemp(join(tmpdir(), 'coordination-screenshots-'))
const browser = await launch()
const night = await serve('night', (database) => writeScene(database))
const beating = setInterval(() => keepAlive(night.path), 500)
const crowd = await serve('crowd', ({ url }) =>
  writeCrowd(url, { nodes: 2_000, leases: 60, partitions: 4_096 }),
)
try {
  await overview()
  await phone()
  await large()
} finally {
  clearInterval(beating)
  await browser.close()
  await Promise.all([night, crowd].map(({ app }) => app.close()))
  await rm(folder, { recursive: true, force: true })
}

async function overview(): Promise<void> {
  const page = await open(night.address, 1_280, 'light')
  await page.setViewportSize({ width: 1_280, height: 1_520 })
  await take(page, 'overview')
  await page.emulateMedia({ colorScheme: 'dark' })
  await rowOf(page, 'nodes', 'api-4-s4t').getByRole('link').first().click()
  await reads(page.locator('#panel'), /Holds/)
  await page.setViewportSize({ width: 1_600, height: 1_000 })
  await take(page, 'node-dark')
  await page.emulateMedia({ colorScheme: 'light' })
  await rowOf(page, 'leases', 'eu-1/webhook-retry').getByRole('link').first().click()
  await reads(page.locator('#panel'), /Why nobody/)
  await take(page, 'why-nobody')
  await page.keyboard.press('Escape')
  await page.setViewportSize({ width: 1_280, height: 800 })
  await rowOf(page, 'leases', 'eu-1/billing-cron').getByRole('button').click()
  await page.getByLabel('Reason').fill('does nothing since 03:10')
  await take(page, 'release')
  await page.keyboard.press('Escape')
  await page.route('**/coordination/*', (route) => route.abort())
  await reads(page.locator('#stale'), /Not updating/)
  await page.setViewportSize({ width: 1_280, height: 500 })
  await take(page, 'not-updating')
}

async function phone(): Promise<void> {
  const page = await open(night.address, 390, 'dark')
  await page.setViewportSize({ width: 390, height: 1_200 })
  await take(page, 'phone')
}

async function large(): Promise<void> {
  const page = await open(crowd.address, 1_280, 'light')
  await page.setViewportSize({ width: 1_280, height: 1_000 })
  await page.evaluate(
    "scrollTo(0, document.querySelector('#leases .foot').getBoundingClientRect().top - 120)",
  )
  await take(page, 'two-thousand-nodes')
}

async function open(address: string, width: number, colorScheme: 'light' | 'dark'): Promise<Page> {
  const context = await browser.newContext({
    viewport: { width, height: 844 },
    colorScheme,
    reducedMotion: 'reduce',
    timezoneId: 'UTC',
  })
  const page = await context.newPage()
  await page.goto(address)
  await reads(page.locator('.fresh'), /^Live$/)
  await reads(page.locator('#events'), /\w/)
  return page
}

/** Takes a picture of what can be seen without scrolling. */
async function take(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: join(pictures, `${name}.png`), animations: 'disabled' })
}

/** Serves the page over a database of its own, without a node that would tidy it up. */
async function serve(
  name: string,
  write: (database: { url: string; path: string }) => Promise<unknown>,
): Promise<{ app: FastifyInstance; address: string; path: string }> {
  const path = join(folder, `${name}.db`)
  const url = `sqlite:${path}`
  await write({ url, path })
  const app = Fastify()
  await app.register(workerCoordination, {
    ...{ database: url, autoStart: false, identity: { node: 'api-1-7pl', cluster: 'eu-1' } },
    authorize: () => ({ id: 'mira@ops' }),
  })
  const origin = await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, address: `${origin}/coordination/ui/`, path }
}
