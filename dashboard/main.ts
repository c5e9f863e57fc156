/** Keeps the page up to date and handles user input. */
import { ApiError, Clock, type Failure, overviewPath, patienceMs, read, watch } from './api.js'
import { panelView, readPanel } from './details.js'
import { dialogIn } from './dialogs.js'
import { type Child, h, patch } from './dom.js'
import {
  type EventPage,
  type Explanation,
  eventFilters,
  type Happening,
  horizonOf,
  keyInPath,
  type Lease,
  merged,
  type Overview,
} from './model.js'
import {
  type Acts,
  type Freshness,
  isCurrent,
  type Panel,
  type Place,
  type Section,
  type State,
} from './parts.js'
import {
  announcement,
  assignmentsView,
  attentionView,
  barView,
  eventsView,
  leasesView,
  nodesView,
  staleView,
  verdictView,
} from './views.js'

/** Interval between readings, and its limit after repeated failures. */
const lookEveryMs = 2_000
const mostPatientMs = 30_000
/** Maximum age at which a response counts as current. */
const currentForMs = lookEveryMs + patienceMs / 2
/** Delay that turns a burst of events into one reading. */
const breathMs = 300

/** On a wide window the panel lies beside the page; on others it covers the page. */
const wide = matchMedia('(min-width: 1200px)')

const clock = new Clock()
const element = (id: string) => document.getElementById(id) as HTMLElement

let overview: Overview | undefined
let events: readonly Happening[] = []
/** Events of the chosen filter, which may be older than all of {@link events}. */
let eventsOfFilter: readonly Happening[] = []
let horizonMs = 0
let latestEvent: string | null | undefined
/** Revision as of which all events were read. When a reading of the events fails, it is repeated. */
let eventsOfRevision: number | undefined
let panel: Panel | undefined
/** The fragment whose panel is shown. */
let panelAt: string | undefined
/** The lease that the dialog follows, which the overview need not list. */
let followed: Lease | undefined
let failure: Failure | undefined
let trouble = ''
let failures = 0
let waitAtLeastMs = 0
/**
 * Time of the latest response by this machine's wall clock, which runs on during sleep; 0 when there has been none
 * since polling started.
 */
let answeredAtMs = 0
let paused = false
let asOfMs = 0
/** `asOfMs` of what the page shows, which may be held. */
let shownAsOfMs = 0
/** The filter of the overview that was read last. */
let askedFor = ''
let stoppedAtMs: number | undefined
let drawn = false
let stream: AbortController | undefined
let timer: number | undefined
let looking: Promise<void> | undefined
let lookAgain = false

let chosen: Pick<State, 'filter' | 'eventFilter' | 'utc' | 'theme'> = {
  filter: '',
  eventFilter: 'All',
  utc: remembered('utc') === 'true',
  theme: themeOf(remembered('theme')),
}
let rows: Readonly<Record<Section, number>> = {
  leases: 12,
  nodes: 12,
  assignments: 12,
  events: 12,
  problems: 6,
  slots: 20,
}

const dialog = dialogIn(element('dialog') as HTMLDialogElement, nowMs, draw)

const acts: Acts = {
  set(change) {
    chosen = { ...chosen, ...change }
    remember('theme', chosen.theme)
    remember('utc', String(chosen.utc))
    wear(chosen.theme)
    if (change.eventFilter !== undefined) void lookForEvents(change.eventFilter)
    if (change.filter !== undefined) void look()
    drawAtOnce()
  },
  async more(section) {
    const shown = rows[section]
    const before = rowsOf(section).length
    rows = { ...rows, [section]: shown < 50 ? 100 : Math.min(500, shown + 100) }
    drawAtOnce()
    await look()
    // The button disappears when there are no more rows. The focus then moves to the first row that it has added.
    if (document.activeElement === document.body) rowsOf(section)[before]?.querySelector('a')?.focus()
  },
  pause() {
    paused = !paused
    if (paused) stop()
    else start()
    draw()
  },
  retry: start,
  open(order) {
    dialog.ask(() => order(state()))
    draw()
  },
}

function rowsOf(section: Section): NodeListOf<Element> {
  const id = section === 'slots' ? 'panel' : section === 'problems' ? 'attention' : section
  const row = section === 'slots' ? 'tbody tr' : ':is(tbody tr, .assignment, li)'
  return document.querySelectorAll(`#${id} ${row}`)
}

function freshness(): Freshness {
  if (failure) return failure
  if (paused) return 'paused'
  if (document.hidden) return 'hidden'
  if (!overview) return 'loading'
  if (Math.abs(Date.now() - answeredAtMs) > currentForMs) return 'catching-up'
  if (dialog.isOpen()) return 'asking'
  return isMarkingText() ? 'held' : 'live'
}

/** Returns the time by the database's clock. It stands still while no response arrives to check it against. */
function nowMs(): number {
  if (!overview) return Date.now()
  if (isCurrent(freshness())) stoppedAtMs = undefined
  else stoppedAtMs ??= clock.nowMs()
  return stoppedAtMs ?? clock.nowMs()
}

function state(): State {
  return {
    ...chosen,
    filter: askedFor,
    overview,
    events: eventsOfFilter.length === 0 ? events : merged(events, eventsOfFilter, Infinity),
    horizonMs,
    freshness: freshness(),
    trouble,
    nowMs: nowMs(),
    asOfMs: shownAsOfMs,
    clockJumpMs: clock.jumpMs,
    clockAheadMs: clock.aheadMs,
    rows,
    place: place(),
    panel,
    followed,
  }
}

const sections = {
  verdict: verdictView,
  attention: attentionView,
  leases: leasesView,
  nodes: nodesView,
  assignments: assignmentsView,
  events: eventsView,
}

/** Draws everything in its present state. The page stays as it is beneath an open dialog and while text is selected. */
function draw(): void {
  const begunMs = performance.now()
  const isHeld = dialog.isOpen() || isMarkingText()
  if (!isHeld) shownAsOfMs = asOfMs
  const now = state()
  element('verdict').classList.toggle('muted', now.freshness !== 'live')
  patch(element('bar'), barView(now, acts))
  patch(element('stale'), staleView(now, acts))
  document.documentElement.dataset.fresh = now.freshness
  if (!isHeld) {
    for (const [id, view] of Object.entries(sections)) {
      const section = element(id)
      patch(section, overview ? view({ ...now, overview }, acts) : waiting(id, now))
      section.hidden = section.childElementCount === 0
    }
    drawPanel(now)
  }
  announce(now)
  dialog.draw(followed)
  measure(begunMs)
}

/** Draws what the user has asked for. Text that is selected would hold it back. */
function drawAtOnce(): void {
  if (isMarkingText()) document.getSelection()?.removeAllRanges()
  draw()
}

function waiting(id: string, { freshness }: State): Child[] {
  return [id === 'verdict' && h('h1', freshness === 'loading' ? 'Loading…' : 'Nothing to show yet')]
}

function drawPanel(now: State): void {
  const aside = element('panel')
  const at = now.place && location.hash
  aside.hidden = now.place === undefined
  document.body.classList.toggle('beside', now.place !== undefined)
  // When the panel covers the page, nothing beneath it may be reached, for example with Tab.
  for (const each of document.querySelectorAll<HTMLElement>('.skip, #bar, main'))
    each.inert = now.place !== undefined && !wide.matches
  patch(aside, panelView(now, acts, closePanel))
  if (at && at !== panelAt) aside.querySelector('h2')?.focus({ preventScroll: true })
  panelAt = at
}

function announce(now: State): void {
  const text = announcement(now)
  const aloud = element('aloud')
  if (aloud.textContent !== text) aloud.textContent = text
  document.title = now.overview ? `${text.replace(/\..*$/, '')} – Coordination` : 'Coordination'
}

/** For the browser's developer tools: `draw` is the first drawing with data, `update` every later one. */
function measure(begunMs: number): void {
  if (!overview) return
  performance.measure(drawn ? 'update' : 'draw', { start: begunMs })
  drawn = true
  if (performance.getEntriesByName('update').length > 300) performance.clearMeasures('update')
}

/** Two readings never run at the same time; a call during a reading causes another one after it. */
async function look(): Promise<void> {
  if (looking) {
    lookAgain = true
    return looking
  }
  looking = lookOnce().finally(() => {
    looking = undefined
  })
  await looking
  if (lookAgain) {
    lookAgain = false
    await look()
  }
}

async function lookOnce(): Promise<void> {
  const before = overview
  try {
    const { body, fresh } = await read<Overview>(overviewPath(chosen.filter, rows))
    askedFor = chosen.filter
    if (fresh) clock.heard(body.now)
    overview = body
    if (body.revision !== eventsOfRevision) {
      await readEvents()
      eventsOfRevision = body.revision
    }
    const at = place()
    if (at) panel = await readPanel(at, rows.slots)
    followed = await readFollowed(dialog.follows())
    if (failure === 'signed-out') start()
    failure = undefined
    failures = 0
    waitAtLeastMs = 0
    trouble = ''
    answeredAtMs = Date.now()
    asOfMs = clock.nowMs()
    stoppedAtMs = undefined
    draw()
  } catch (error) {
    overview = before
    failed(error)
    draw()
  }
}

async function readFollowed(key: string | undefined): Promise<Lease | undefined> {
  if (key === undefined) return undefined
  const { body } = await read<Explanation>(`leases/${keyInPath(key)}/explain`).catch(forgotten)
  return body?.lease
}

function failed(error: unknown): void {
  failures += 1
  const known = error instanceof ApiError ? error : undefined
  failure = known?.failure ?? 'away'
  trouble = known?.status ? known.message : ''
  waitAtLeastMs = known?.retryAfterMs ?? 0
  // Each page that is visible holds a connection for its stream, and of those a browser has six for all its windows.
  if ((error as Error).name === 'TimeoutError') stream?.abort()
  if (failure === 'signed-out') stop()
}

/** Reads the latest events at first, and later only those that are new. */
async function readEvents(): Promise<void> {
  if (typeof latestEvent === 'string') {
    const { body } = await read<EventPage>(`events?after=${latestEvent}&limit=500`).catch(forgotten)
    if (body !== undefined) {
      events = merged(events, body.items)
      horizonMs = horizonOf(events, horizonMs)
      latestEvent = body.next ?? latestEvent
      if (body.items.length < 500) return
    }
  }
  const { body } = await read<EventPage>('events?limit=500')
  events = merged([], body.items)
  eventsOfFilter = []
  void lookForEvents(chosen.eventFilter)
  latestEvent = body.next
  horizonMs = body.items.length < 500 ? 0 : Date.parse(body.items.at(-1)?.at ?? '')
}

/** What the page knew of may have been cleared away, or the database restored from an earlier state. */
function forgotten(error: unknown): { body: undefined } {
  if (error instanceof ApiError && error.failure === 'refused') return { body: undefined }
  throw error
}

/** Rare events may be older than the latest events of all types. */
async function lookForEvents(filter: State['eventFilter']): Promise<void> {
  if (filter === 'All') return
  const page = await read<EventPage>(`events?type=${eventFilters[filter]}&limit=100`).catch(() => undefined)
  if (page && filter === chosen.eventFilter) eventsOfFilter = page.body.items
  draw()
}

function start(): void {
  stop()
  if (paused || document.hidden) return
  answeredAtMs = 0
  void keepLooking()
  void keepWatching()
}

function stop(): void {
  clearTimeout(timer)
  timer = undefined
  stream?.abort()
  stream = undefined
}

async function keepLooking(): Promise<void> {
  await look()
  if (paused || document.hidden || failure === 'signed-out') return
  const waitMs = Math.max(waitAtLeastMs, Math.min(mostPatientMs, lookEveryMs * 2 ** failures))
  clearTimeout(timer)
  timer = setTimeout(keepLooking, waitMs * (0.9 + 0.2 * Math.random()))
}

/** Watches the stream. Without a stream, polling every other second has to suffice. */
async function keepWatching(): Promise<void> {
  const own = new AbortController()
  stream = own
  let isDue = false
  const called = (): void => {
    if (isDue) return
    isDue = true
    setTimeout(() => {
      isDue = false
      if (!own.signal.aborted) void look()
    }, breathMs)
  }
  while (!own.signal.aborted) {
    const waitMs = await watch(own.signal, called).then(
      () => 2_000,
      () => 15_000,
    )
    await new Promise((resolve) => setTimeout(resolve, waitMs))
  }
}

function place(): Place | undefined {
  const [, kind, text = ''] = /^#\/(lease|node|assignment)\/(.+)$/.exec(location.hash) ?? []
  if (!kind) return undefined
  try {
    return { kind: kind as Place['kind'], id: decodeURIComponent(text).replace(':', '/').replace('~', '#') }
  } catch {
    return undefined
  }
}

function closePanel(): void {
  const at = location.hash
  history.replaceState(null, '', '#')
  drawAtOnce()
  document.querySelector<HTMLElement>(`main a[href="${CSS.escape(at)}"]`)?.focus()
}

function isMarkingText(): boolean {
  const selection = document.getSelection()
  return (
    selection?.isCollapsed === false &&
    ['main', 'panel'].some((id) => element(id).contains(selection.anchorNode))
  )
}

/** Storage may be forbidden or full; a setting then lasts only as long as the page. */
function remembered(name: string): string | null {
  try {
    return localStorage.getItem(`coordination-${name}`)
  } catch {
    return null
  }
}

function remember(name: string, value: string): void {
  try {
    localStorage.setItem(`coordination-${name}`, value)
  } catch {}
}

function themeOf(text: string | null): State['theme'] {
  return text === 'light' || text === 'dark' ? text : 'light dark'
}

function wear(theme: State['theme']): void {
  document.documentElement.style.colorScheme = theme
}

function listen(): void {
  const filter = element('filter') as HTMLInputElement
  let typing: number | undefined
  filter.addEventListener('input', () => {
    clearTimeout(typing)
    // No name contains a question mark, and the server would refuse the replaced characters.
    typing = setTimeout(() => acts.set({ filter: filter.value.replace(/[^ -~]/g, '?').trim() }), 150)
  })
  document.addEventListener('keydown', (event) => {
    const { target, key } = event
    const isTyping = target instanceof Element && target.closest('input, select, textarea, dialog')
    if (key === '/' && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault()
      filter.focus()
    } else if (key === 'Escape' && !dialog.isOpen()) {
      if (target === filter && filter.value !== '') {
        filter.value = ''
        acts.set({ filter: '' })
      } else if (place() !== undefined) closePanel()
    }
  })
  document.addEventListener('selectionchange', () => {
    const held = document.documentElement.dataset.fresh === 'held'
    if (held !== (freshness() === 'held')) draw()
  })
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) stop()
    else start()
    draw()
  })
  addEventListener('hashchange', () => {
    rows = { ...rows, slots: 20 }
    drawAtOnce()
    void look()
  })
  setInterval(() => {
    if (!document.hidden) draw()
  }, 1_000)
}

wear(chosen.theme)
listen()
draw()
start()
