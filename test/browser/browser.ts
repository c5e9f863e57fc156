/**
 * Runs pages in a real Chromium without a window. It is the program that `CHROMIUM` names, or the first of the usual
 * names on the `PATH`. Where there is none, the tests say so and are skipped.
 */
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { AxeBuilder } from '@axe-core/playwright'
import { type Browser, type BrowserContextOptions, chromium, type Locator, type Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { eventually } from '../support/eventually.js'

const executable = process.env.CHROMIUM || onPath(['chromium', 'chromium-browser', 'google-chrome'])

/** Why nothing can be tested in a browser. Undefined when it can. */
export const withoutChromium =
  executable === undefined
    ? 'there is no Chromium on this machine (Debian: apt-get install chromium; or name one: CHROMIUM=/path)'
    : undefined

const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-dev-shm-usage',
  '--disable-sync',
  '--host-resolver-rules=MAP *.house.test 127.0.0.1',
]

let launched: Promise<Browser> | undefined

/** Returns the browser of this process, which ends with its tests. */
function useBrowser(): Promise<Browser> {
  if (launched === undefined) {
    launched = launch()
    t.teardown(async () => (await launched)?.close())
  }
  return launched
}

/** Starts a browser of the caller's own. */
export function launch(): Promise<Browser> {
  return chromium.launch({ ...(executable ? { executablePath: executable } : {}), args: flags })
}

/** How a page is opened. */
export interface Look extends BrowserContextOptions {
  /** Runs before the page's own script. */
  readonly before?: string
  /** What the browser may say about answers: it reports each one that is no success as an error. */
  readonly expected?: RegExp
  /**
   * Lets the test move the page's clock, which also runs by itself. No measures are taken then, for which {@link drawn}
   * waits.
   */
  readonly movable?: boolean
}

/** Opens a page, and resolves once it has loaded. */
export type Visit = (address: string, look?: Look) => Promise<Page>

/** Adds a test with pages of its own. None of them may write to the console. */
export function inBrowser(name: string, body: (t: Test, visit: Visit) => Promise<void>): void {
  t.setTimeout(600_000)
  t.test(name, { skip: withoutChromium ?? false }, async (t) => {
    const complaints: string[] = []
    const browser = await useBrowser()
    await body(t, async (address, { before, expected, movable, ...options } = {}) => {
      const context = await browser.newContext({ viewport: { width: 1_280, height: 900 }, ...options })
      t.teardown(() => context.close())
      if (before !== undefined) await context.addInitScript(before)
      const page = await context.newPage()
      page.setDefaultTimeout(60_000)
      page.on('pageerror', (error) => complaints.push(String(error)))
      page.on('console', (message) => {
        const text = message.text()
        if (networkChanged.test(text)) return
        if (expected?.test(text) !== true) complaints.push(`${message.type()}: ${text}`)
      })
      if (movable) await page.clock.install()
      await page.goto(address)
      return page
    })
    t.strictSame(complaints, [], 'the console is silent')
  })
}

/**
 * What Chromium says when an address of this machine comes or goes, as in the tests of packets and cables that may run
 * at the same time. It breaks off what it is loading then. The page asks again.
 */
const networkChanged = /net::ERR_NETWORK_CHANGED$/

/** Returns what Chromium says when an answer is no success, or when there is none. */
export function failing(...statuses: readonly (number | string)[]): RegExp {
  return new RegExp(`^Failed to load resource: .*(${statuses.join('|')})`)
}

/**
 * Checks that axe finds nothing wrong with what is shown now, light or dark. Only colours can differ between the two.
 */
export async function accessible(t: Test, page: Page, what: string): Promise<void> {
  // The page has no frames, so axe needs no second tab to combine its results.
  const axe = (): AxeBuilder => new AxeBuilder({ page }).setLegacyMode(true)
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' })
  const light = await axe().analyze()
  await page.emulateMedia({ colorScheme: 'dark', reducedMotion: 'reduce' })
  const dark = await axe().withRules(['color-contrast']).analyze()
  t.ok(light.passes.length > 10, `${light.passes.length} rules were looked at`)
  for (const [colours, { violations }] of Object.entries({ light, dark }))
    t.strictSame(
      violations.flatMap(({ id, nodes }) => nodes.map(({ target, html }) => `${id}: ${target} ${html}`)),
      [],
      `${what}, ${colours}`,
    )
}

/** Waits until an element's text fits, and returns it. */
export async function reads(locator: Locator, fits: RegExp): Promise<string> {
  let text = ''
  await eventually(
    async () => {
      text = await textOf(locator)
      return fits.test(text)
    },
    { timeoutMs: 90_000, everyMs: 50, until: `${locator} reads ${fits}` },
  ).catch((error: Error) => {
    throw new Error(`${error.message}; it reads: ${text}`)
  })
  return text
}

/** Returns the visible text of the first element, on one line. */
export async function textOf(locator: Locator): Promise<string> {
  await locator.first().waitFor({ state: 'attached' })
  const [text = ''] = await locator.allInnerTexts()
  return text.replace(/\s+/g, ' ').trim()
}

/** Returns the row of a table or list that has a link of this name. */
export function rowOf(page: Page, section: string, name: string): Locator {
  return page.locator(`#${section} tbody tr, #${section} .assignment`).filter({
    has: page.getByRole('link', { name, exact: true }),
  })
}

/** Waits until the page has been drawn this many times more. It is drawn at least once a second. */
export async function drawn(page: Page, times: number): Promise<void> {
  await page.evaluate(
    `new Promise((resolve) => {
      let left = ${times}
      new PerformanceObserver((list) => {
        left -= list.getEntriesByName('update').length
        if (left <= 0) resolve()
      }).observe({ type: 'measure' })
    })`,
  )
}

/** Returns whether the page fits without scrolling sideways. */
export async function fitsSideways(page: Page): Promise<boolean> {
  return page.evaluate('document.documentElement.scrollWidth <= document.documentElement.clientWidth')
}

function onPath(names: readonly string[]): string | undefined {
  const folders = (process.env.PATH ?? '').split(delimiter)
  return names.flatMap((name) => folders.map((folder) => join(folder, name))).find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
