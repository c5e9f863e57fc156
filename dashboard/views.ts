/** The sections of the page, from top to bottom. */

import { type Child, h, icon, type VNode } from './dom.js'
import type { Icon } from './icons.js'
import {
  type Assignment,
  ago,
  type Cell,
  type CoordinationNode,
  cellsOf,
  counted,
  type EventFilter,
  eventFilters,
  grouped,
  type Happening,
  isEnd,
  type Lease,
  laneMs,
  laneOf,
  markOfAssignment,
  markOfEvent,
  markOfLease,
  markOfLetter,
  markOfNode,
  markOfProblem,
  newsOf,
  type Overview,
  ownership,
  type Problem,
  passes,
  personIn,
  sentenceOfNews,
  span,
  timeLeft,
  timeOf,
  verdictOf,
} from './model.js'
import { forget, offer, releaseButton } from './orders.js'
import {
  type Acts,
  badge,
  bar,
  because,
  button,
  type Column,
  type Freshness,
  isCurrent,
  keyLink,
  type Loaded,
  moreButton,
  moreOf,
  nameOf,
  nodeLink,
  type State,
  selectedNode,
  squares,
  table,
  thingLink,
  when,
} from './parts.js'

/** Up to these numbers, the table of nodes has a column for each lease. With more nodes there is a map. */
const gridNodes = 50
const gridLeases = 12

/** Word and tone of each freshness, and the rest of the sentence where there is one. */
const freshnessWords: Readonly<Record<Freshness, readonly [word: string, tone: string, more?: string]>> = {
  loading: ['Loading', 'off'],
  live: ['Live', 'live'],
  held: ['Held while you select text', 'warn'],
  asking: ['Held while a dialog is open', 'warn'],
  'catching-up': ['Catching up', 'warn', '. The next answer has not come yet'],
  paused: ['Paused', 'move'],
  hidden: ['Asleep', 'off', ' while nobody looks'],
  away: ['Not updating', 'bad', '. The server does not answer'],
  database: ['Not updating', 'bad', '. The server answers, its database does not'],
  'signed-out': ['Signed out', 'bad', '. You may not read this, or not any more'],
  refused: ['Not updating', 'bad', '. The server refuses to answer'],
}

/** The label of each theme and the theme that follows it. */
const themes = {
  'light dark': ['Theme', 'light'],
  light: ['Light', 'dark'],
  dark: ['Dark', 'light dark'],
} as const

export function barView(state: State, acts: Acts): Child[] {
  const { overview, freshness, utc } = state
  const [word, tone] = freshnessWords[freshness]
  const [themeWord, next] = themes[state.theme]
  const choice = (drawing: Icon, label: string, onclick: () => void, title?: string): VNode =>
    button([icon(drawing), h('span.label', label)], onclick, { title })
  return [
    h('strong', 'Coordination'),
    h('span.muted', h('bdi', overview?.namespace)),
    h(
      'span',
      { class: `fresh ${tone}` },
      icon(tone === 'bad' ? 'alert' : tone === 'live' ? 'check' : 'pause'),
      word,
    ),
    freshness === 'paused' ? choice('play', 'Resume', acts.pause) : choice('pause', 'Pause', acts.pause),
    h('span.space'),
    overview && h('span.muted.self', 'answered by ', h('bdi', overview.self.name)),
    overview && h('span.muted.who', icon('person'), h('span', whoIs(overview))),
    choice('clock', utc ? 'UTC' : 'Local time', () => acts.set({ utc: !utc }), 'UTC or local time'),
    choice('theme', themeWord, () => acts.set({ theme: next }), 'Light or dark'),
  ]
}

function whoIs(overview: Overview): Child[] {
  const { actor, read: _, ...allowed } = overview.capabilities
  const words = Object.entries(allowed).flatMap(([action, may]) => (may ? [action] : []))
  const rights =
    words.length === 0
      ? 'only look'
      : words.length === Object.keys(allowed).length
        ? 'do everything'
        : words.join(', ')
  return [h('bdi', actor?.display ?? actor?.id ?? 'anybody'), `, may ${rights}`]
}

/** Returns notices about what is wrong with the data shown; none when it is current. */
export function staleView(state: State, acts: Acts): Child[] {
  const { freshness, clockAheadMs, clockJumpMs } = state
  const [word, tone, more = ''] = freshnessWords[freshness]
  const asOf = state.overview && ` What you see is as of ${timeOf(state.asOfMs, state.utc)}.`
  const clock =
    clockJumpMs !== 0
      ? `The database’s clock has jumped by ${span(Math.abs(clockJumpMs))} ${clockJumpMs < 0 ? 'backwards' : 'forwards'}: times from before do not fit those after.`
      : Math.abs(clockAheadMs) > 5_000 &&
        `The clock of this browser is ${span(Math.abs(clockAheadMs))} ${clockAheadMs < 0 ? 'behind' : 'ahead'}. All times here are the database’s.`
  return [
    !['live', 'loading'].includes(freshness) &&
      h(
        'div',
        { key: 'stale', class: `notice ${tone === 'bad' ? tone : 'move'}` },
        icon(tone === 'bad' ? 'alert' : 'pause'),
        h('span', h('b', word), `${more}.`, asOf, ` ${state.trouble}`),
        freshness === 'paused'
          ? button('Resume', acts.pause)
          : freshness === 'signed-out'
            ? button('Reload', () => location.reload())
            : tone === 'bad' && button('Try now', acts.retry),
      ),
    clock && h('div.notice.warn', { key: 'clock' }, icon('clock'), h('span', clock)),
  ]
}

/** Returns what screen readers announce when it changes: the state of the namespace, without anything that counts. */
export function announcement(state: State): string {
  const { overview, freshness } = state
  if (!overview || freshness === 'loading') return ''
  if (!isCurrent(freshness)) return freshnessWords[freshness][0]
  const news = newsOf(state.events, state.nowMs)
  return `${verdictOf(overview, news).word}.${news ? ` ${sentenceOfNews(news)}` : ''}`
}

export function verdictView(state: Loaded): Child[] {
  const { overview, events, nowMs } = state
  const { counts, totals } = overview
  const news = newsOf(events, nowMs)
  const { icon: drawing, word, tone } = verdictOf(overview, news)
  const isNow = state.freshness === 'live'
  const { active, draining, silent } = counts.nodes
  const there = active + draining + silent
  const sinceMs = Math.max(state.horizonMs, nowMs - laneMs)
  const changes = events.filter(
    (each) => each.type === 'lease.acquired' && !each.subject.includes('#') && Date.parse(each.at) >= sinceMs,
  ).length
  const total = (part: string, rest: string): VNode => h('li', h('b', part), ` ${rest}`)
  return [
    h(
      'h1',
      h('span', { class: isNow ? tone : '' }, icon(isNow ? drawing : 'clock')),
      isNow ? word : `${word}, as of ${timeOf(state.asOfMs, state.utc)}`,
    ),
    h(
      'ul.totals',
      total(`${grouped(totals.held)} of ${grouped(totals.leases)}`, 'leases held'),
      total(grouped(there), there === 1 ? 'node' : 'nodes'),
      draining > 0 && total(grouped(draining), 'draining'),
      silent > 0 && total(grouped(silent), 'silent'),
      totals.slots > 0 &&
        total(`${grouped(totals.owned)} of ${grouped(totals.slots)}`, 'shares and partitions owned'),
      total(
        grouped(changes),
        `${changes === 1 ? 'change' : 'changes'} of leader in ${span(Math.min(laneMs, nowMs - sinceMs))}`,
      ),
    ),
    news && h('p.news', icon('close'), sentenceOfNews(news, ` ${ago(nowMs - news.atMs)}`)),
  ]
}

export function attentionView(state: Loaded, acts: Acts): Child[] {
  const { overview, rows } = state
  const { problems } = overview
  if (problems.length === 0) return []
  const { error, warning } = overview.problemCounts
  return [
    h('h2.hidden', 'Needs attention'),
    h(
      'ul',
      { class: `attention ${error > 0 ? 'bad' : warning > 0 ? 'warn' : 'move'}` },
      ...problems.map((each) => problemRow(state, acts, each)),
    ),
    problems.some(({ more }) => more > 0) && rows.problems < 100 && moreButton('problems', acts),
  ]
}

function problemRow(state: Loaded, acts: Acts, problem: Problem): VNode {
  const { code, subject, sentence, more, lease, forgettable } = problem
  const { id, name } = state.overview.self
  const text = linked([sentence], `"${nameOf(state, subject)}"`, () => thingLink(state, subject))
  return h(
    'li',
    { key: `${code} ${subject}` },
    badge(markOfProblem(problem)),
    h(
      'span.sentence',
      ...linked(text, `"${name}"`, () => (id ? nodeLink(state, { id, name }) : name)),
      more > 0 && h('span.muted', ` And ${grouped(more)} more like this.`),
    ),
    // Releasing the lease of the present holder does not stop work that goes on after its own lease has ended.
    code !== 'work-unsettled' && lease && releaseButton(state, acts, lease, { class: 'bad' }),
    forgettable &&
      offer(state, acts, 'forget', 'Remove…', () => forget({ id: subject, name: subject }, 'workers')),
  )
}

/** Turns quoted text into a link where it first occurs. */
function linked(text: readonly Child[], quoted: string, link: () => Child): Child[] {
  return text.flatMap((part) => {
    if (typeof part !== 'string' || !part.includes(quoted)) return [part]
    const [before = '', ...after] = part.split(quoted)
    return [before, link(), after.join(quoted)]
  })
}

function heading(title: string, note: Child, ...more: Child[]): VNode {
  return h('header', h('h2', title), h('span.muted', note), h('span.space'), ...more)
}

const leaseColumns: readonly Column[] = [
  ['Lease'],
  ['State', 'state'],
  ['Leader', 'leader'],
  ['Session', 'left'],
  ['Held for', 'num held'],
  ['Token', 'num token'],
  ['Candidates', 'num cand'],
]

export function leasesView(state: Loaded, acts: Acts): Child[] {
  const { items, total } = state.overview.leases
  if (total === 0)
    return [
      heading('Leases', '0'),
      h(
        'p.empty',
        state.filter === ''
          ? 'No lease yet: the first appears when a node asks for it.'
          : 'No lease or holder is called that.',
      ),
    ]
  const axis = h('span.axis', ...['15 min ago', '10', '5', 'now'].map((each) => h('span', each)))
  return [
    heading('Leases', `${grouped(total)}${total > 1 ? ', problems first' : ''}`),
    table(
      'leases',
      [...leaseColumns, [axis, 'lane'], [h('span.hidden', 'Action'), 'act']],
      items.map((lease) => leaseRow(state, acts, lease)),
    ),
    moreOf('leases', items.length, total, acts),
  ]
}

function leaseRow(state: State, acts: Acts, lease: Lease): VNode {
  const { nowMs, place } = state
  const mark = markOfLease(lease)
  const left = timeLeft(lease, nowMs)
  const isLit = [lease.holder?.id, lease.target?.id].includes(selectedNode(state))
  const isOpen = place?.kind === 'lease' && place.id === lease.key
  return h(
    'tr',
    { key: lease.key, class: `${isLit ? 'lit ' : ''}${isOpen ? 'open' : ''}` },
    h('th', { scope: 'row' }, keyLink('lease', lease.key), h('span.under', ...leaderOf(state, lease))),
    h('td.state', badge(mark)),
    h('td.leader', ...leaderOf(state, lease)),
    h(
      'td.left',
      left
        ? [h('span', { class: left.part === 0 ? 'bad' : '' }, left.text), bar(left.part, mark.tone)]
        : h('span.muted', sinceFree(state, lease)),
    ),
    h('td.num.held', lease.holder && lease.acquiredAt ? span(nowMs - Date.parse(lease.acquiredAt)) : '—'),
    h('td.num.mono.token', lease.token || '—'),
    h('td.num.cand', grouped(lease.candidateCount)),
    h('td.lane', laneView(state, lease)),
    h('td.act', releaseButton(state, acts, lease, { class: 'quiet', 'aria-label': `Release ${lease.key}…` })),
  )
}

function leaderOf(state: State, { holder, target, blockedNode, state: how }: Lease): Child[] {
  if (holder)
    return how === 'moving' && target && target.id !== holder.id
      ? [nodeLink(state, holder), ' → ', nodeLink(state, target)]
      : [nodeLink(state, holder)]
  if (blockedNode) return [h('span.muted', 'was '), nodeLink(state, blockedNode)]
  return target ? [h('span.muted', 'next: '), nodeLink(state, target)] : [nodeLink(state, null)]
}

function sinceFree({ events, nowMs }: State, { key, cooldown }: Lease): string {
  const ended = events.find((each) => each.subject === key && isEnd(each.type))
  if (ended) return `free for ${span(nowMs - Date.parse(ended.at))}`
  return cooldown ? `cools down for ${span(Date.parse(cooldown.until) - nowMs)}` : '—'
}

/** Draws terms and the gaps between them. Nothing is drawn where nothing is known. */
function laneView(state: State, lease: Lease): VNode {
  const { spans, knownFrom } = laneOf(lease, state.events, state.nowMs)
  const selected = selectedNode(state)
  const now = lease.holder ? 0 : -1
  const earlier = lease.holder ? spans.length - 1 : spans.length
  const label = `${counted(earlier, 'earlier term')} in 15 minutes; now ${lease.holder?.name ?? 'nobody'}`
  return h(
    'svg',
    { viewBox: '0 0 1000 16', preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    // A lease without a worker need not have a holder.
    h('path', { class: lease.worker ? 'gap' : 'gap idle', d: `M${knownFrom} 8H1000` }),
    ...spans.map(({ from, to, node }, at) =>
      h('rect', {
        class: node === selected ? 'sel' : at === now ? 'now' : 'past',
        x: from,
        y: 2,
        width: Math.max(2, to - from - (at === now ? 0 : 2)),
        height: 12,
      }),
    ),
  )
}

export function nodesView(state: Loaded, acts: Acts): Child[] {
  const { overview } = state
  const { items, total } = overview.nodes
  const { versions, roster } = overview
  const leases = overview.leases.items.filter((each) => !each.key.includes('#'))
  const there = roster.states.replaceAll('g', '').length
  const asGrid = total <= gridNodes && leases.length > 0 && overview.leases.total <= gridLeases
  const note = [
    grouped(total),
    versions.length > 1 && h('span.warn', `, ${versions.length} versions running`),
  ]
  if (total === 0) return [heading('Nodes', '0'), h('p.empty', 'There is no such node.')]
  return [
    heading('Nodes', note, asGrid && h('span.muted.legend', icon('star'), 'leads', icon('ring'), 'may lead')),
    there > gridNodes && rosterView(state),
    table(
      'nodes',
      [
        ['Node'],
        ['State'],
        ['Heartbeat', 'beat'],
        ...(asGrid
          ? leases.map(({ key }): Column => [keyLink('lease', key), 'turned'])
          : [['Leads', 'leads'] as const]),
        ['Shares', 'num shares'],
        ['Version', 'num version'],
        ['Up', 'num up'],
      ],
      items.map((node) => nodeRow(state, node, asGrid ? leases : undefined, overview)),
    ),
    moreOf('nodes', items.length, total, acts),
  ]
}

function nodeRow(
  state: State,
  node: CoordinationNode,
  leases: readonly Lease[] | undefined,
  { versions, nodes }: Overview,
): VNode {
  const mark = markOfNode(node)
  const most = Math.max(1, ...nodes.items.map((each) => Math.max(each.slotCount, each.fairSlotCount)))
  const odd = versions.length > 1 && node.version && node.version !== versions[0]?.version
  const sinceMs = node.goneAt ? 0 : state.nowMs - Date.parse(node.startedAt)
  return h(
    'tr',
    {
      key: node.id,
      class: `${selectedNode(state) === node.id ? 'lit ' : ''}${node.state === 'gone' ? 'gone' : ''}`,
    },
    h('th', { scope: 'row' }, nodeLink(state, node), h('span.muted.cluster', ' ', h('bdi', node.cluster))),
    h('td.state', badge(mark)),
    h('td.beat', node.goneAt ? ['gone ', when(state, node.goneAt)] : when(state, node.heartbeatAt)),
    ...(leases?.map((lease) => gridCell(node, lease)) ?? [h('td.leads', ...leadsOf(node))]),
    h(
      'td.num.shares',
      h(
        'span.load',
        bar(node.slotCount / most, '', node.fairSlotCount > 0 ? node.fairSlotCount / most : undefined),
        h('span', { title: `${node.fairSlotCount} would be its fair share` }, grouped(node.slotCount)),
      ),
    ),
    h('td', { class: `num version ${odd ? 'warn' : ''}` }, node.version ? h('bdi', node.version) : '—'),
    h('td.num.up', node.goneAt ? '—' : span(sinceMs)),
  )
}

function gridCell(node: CoordinationNode, lease: Lease): VNode {
  const leads = lease.holder?.id === node.id
  const stands = node.state === 'active' && lease.worker && node.workers.includes(lease.worker)
  const word = leads ? 'leads' : stands ? 'may lead' : ''
  return h(
    'td',
    { key: lease.key, class: `grid ${leads ? 'star' : ''} ${node.pulse === 'silent' ? 'bad' : ''}` },
    word !== '' && [icon(leads ? 'star' : 'ring'), h('span.hidden', word)],
  )
}

function leadsOf({ leads, leadCount }: CoordinationNode): Child[] {
  const shown = leads.slice(0, 3)
  const rest = leadCount - shown.length
  return [
    ...shown.map((key) => keyLink('lease', key, { class: 'chip', key })),
    rest > 0 && h('span.muted', `and ${grouped(rest)} more`),
    leadCount === 0 && h('span.muted', '—'),
  ]
}

/** One square for each node. The rows below and the filter show the same. */
function rosterView(state: Loaded): Child {
  const { ids, names, states } = state.overview.roster
  const selected = selectedNode(state)
  const kinds = [...'slgda'].flatMap((letter) => {
    const count = states.split(letter).length - 1
    return count === 0
      ? []
      : [{ tone: markOfLetter(letter).tone, words: `${grouped(count)} ${markOfLetter(letter).word}` }]
  })
  return h(
    'figure.roster',
    squares(
      'map',
      kinds.map(({ words }) => words).join(', '),
      `${selected} ${states} ${ids.join()}`,
      ids,
      (id, at) => [
        `${markOfLetter(states[at]).tone}${id === selected ? ' sel' : ''}`,
        `${names[at]}: ${markOfLetter(states[at]).word}`,
      ],
      (id) => ({ kind: 'node', id }),
    ),
    h('figcaption', ...kinds.map(({ tone, words }) => h('span', h('i', { class: `cell ${tone}` }), words))),
  )
}

export function assignmentsView(state: Loaded, acts: Acts): Child[] {
  const { items, total } = state.overview.assignments
  if (total === 0)
    return state.filter === ''
      ? [heading('Assignments', '0'), h('p.empty', 'No work is being shared out.')]
      : []
  return [
    heading(
      'Assignments',
      grouped(total),
      h(
        'span.legend.muted',
        ...[...'omu'].map((letter) => [
          h('i', { class: `cell ${markOfLetter(letter).tone}` }),
          markOfLetter(letter).word,
        ]),
        h('span', 'a wide gap: the next owner'),
      ),
    ),
    ...items.map((each) => assignmentRow(state, each)),
    moreOf('assignments', items.length, total, acts),
  ]
}

function assignmentRow(state: State, assignment: Assignment): VNode {
  const { worker, owners, least, most, generation, map } = assignment
  const each =
    owners === 0
      ? 'owned by nobody'
      : `${least === most ? least : `${least}–${most}`} on each of ${counted(owners, 'node')}`
  const what = counted(assignment.slots, assignment.kind === 'partitioned' ? 'partition' : 'share')
  const mark = markOfAssignment(assignment)
  const cells = map ? cellsOf(map) : []
  const size = cells[0] ? cells[0].to - cells[0].from + 1 : 1
  return h(
    'div',
    { key: worker, class: 'assignment' },
    h(
      'div',
      h('h3', keyLink('assignment', worker), badge(mark)),
      h(
        'p.muted',
        `${what}, ${each}${generation > 0 ? `, plan ${generation}` : ''}${size > 1 ? `; 1 cell = ${size}` : ''}`,
      ),
    ),
    map ? cellsView(state, assignment, map, cells) : h('p.muted', ownership(assignment)),
  )
}

function cellsView(
  state: State,
  assignment: Assignment,
  map: NonNullable<Assignment['map']>,
  cells: readonly Cell[],
): VNode {
  const { worker } = assignment
  const { ids = [], names = [] } = state.overview?.roster ?? {}
  const selected = ids.indexOf(selectedNode(state))
  return squares(
    'cells',
    `${worker}: ${ownership(assignment)}`,
    `${selected} ${map.states} ${map.owners.join()} ${names.length}`,
    cells,
    ({ from, to, state: letter, owners, gap }) => {
      const lit = selected >= 0 && owners.includes(selected)
      const who = from === to ? (names[owners[0] ?? -1] ?? 'nobody') : counted(new Set(owners).size, 'owner')
      return [
        `${markOfLetter(letter).tone}${gap ? ' gap' : ''}${lit ? ' sel' : ''}`,
        `${from === to ? from : `${from}–${to}`}: ${markOfLetter(letter).word}, ${who}`,
      ]
    },
    ({ from, to }) =>
      from === to ? { kind: 'lease', id: `${worker}#${from}` } : { kind: 'assignment', id: worker },
  )
}

export function eventsView(state: Loaded, acts: Acts): Child[] {
  const { eventFilter } = state
  const wanted = state.filter.toLowerCase()
  const found = state.events.filter(
    (event) =>
      passes(eventFilter, event) &&
      `${event.subject} ${event.nodeName} ${event.actor}`.toLowerCase().includes(wanted),
  )
  const buttons = (Object.keys(eventFilters) as EventFilter[]).map((each) =>
    button(each, () => acts.set({ eventFilter: each }), {
      key: each,
      'aria-pressed': String(each === eventFilter),
    }),
  )
  const shown = found.slice(0, state.rows.events)
  return [
    heading(
      'Events',
      '',
      h('div', { class: 'tabs', role: 'group', 'aria-label': 'Which events' }, ...buttons),
    ),
    shown.length === 0
      ? h('p.empty', 'Nothing of the kind is known here.')
      : h('ol.events', ...shown.map((event) => eventRow(state, event))),
    moreOf('events', shown.length, found.length, acts),
  ]
}

function eventRow(state: State, event: Happening): VNode {
  const { id, at, subject, node, nodeName, reason, sentence } = event
  const who = personIn(event)
  return h(
    'li',
    { key: id, class: node === selectedNode(state) ? 'lit' : undefined },
    h('span.at', when(state, at)),
    badge(markOfEvent(event)),
    h('span.about', thingLink(state, subject, {}, nodeName ?? subject.slice(0, 8))),
    // The author and the reason continue the sentence.
    h(
      'span.what',
      h('bdi', sentence.slice(0, -1)),
      who && [', by ', h('b', h('bdi', who))],
      // That its passes failed is in the sentence.
      (who || reason !== 'passes-failed') && because(reason, who),
    ),
  )
}
