/** The sections of the page, from top to bottom. */

import { releaseButton } from './details.js'
import { type Child, h, icon, stamped, type VNode } from './dom.js'
import type { Icon } from './icons.js'
import {
  type Assignment,
  actorOf,
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
  markOfLease,
  markOfNode,
  markOfProblem,
  newsOf,
  type Overview,
  ownership,
  type Problem,
  passes,
  pickedProblems,
  rosterMarks,
  sentenceOf,
  sentenceOfNews,
  span,
  timeLeft,
  timeOf,
  verdictOf,
} from './model.js'
import {
  type Acts,
  addressOf,
  assignmentLink,
  badge,
  bar,
  button,
  clicked,
  column,
  type Freshness,
  type Loaded,
  leaseLink,
  namer,
  nodeLink,
  type Section,
  type State,
  table,
  thingLink,
  when,
} from './parts.js'

/** So many nodes have a row each and a column for each lease; more have a map. */
const gridNodes = 50
const gridLeases = 12

/** What it is called, how it looks, and what is to be said of it where that is not all. */
const freshnessWords: Readonly<Record<Freshness, readonly [word: string, tone: string, more?: string]>> = {
  loading: ['Loading', 'off'],
  live: ['Live', 'live'],
  held: ['Held while you mark text', 'warn'],
  paused: ['Paused', 'move'],
  hidden: ['Asleep', 'off', ' while nobody looks'],
  away: ['Not updating', 'bad', '. The server does not answer'],
  database: ['Not updating', 'bad', '. The server answers, its database does not'],
  'signed-out': ['Signed out', 'bad', '. You may not read this, or not any more'],
}

/** What each is called, and which one follows. */
const themes = { system: ['Theme', 'light'], light: ['Light', 'dark'], dark: ['Dark', 'system'] } as const

export function barView(state: State, acts: Acts): Child[] {
  const { overview, freshness, utc } = state
  const [word, tone] = freshnessWords[freshness]
  const [themeWord, next] = themes[state.theme]
  const choice = (drawing: Icon, label: string, onclick: () => void, title?: string): VNode =>
    button([icon(drawing), h('span.label', label)], onclick, { title })
  return [
    h('strong.brand', 'Coordination'),
    h('span.muted', h('bdi', overview?.namespace)),
    h(
      'span',
      { class: `fresh ${tone}` },
      icon(tone === 'bad' ? 'alert' : tone === 'live' ? 'check' : 'pause'),
      word,
    ),
    freshness === 'paused' ? choice('play', 'Resume', acts.pause) : choice('pause', 'Pause', acts.pause),
    h('span.space'),
    overview && h('span.muted.who', icon('person'), h('span', whoIs(overview))),
    choice('clock', utc ? 'UTC' : 'Local time', () => acts.set({ utc: !utc }), 'UTC or local time'),
    choice('theme', themeWord, () => acts.set({ theme: next }), 'As the system has it, light, or dark'),
  ]
}

function whoIs(overview: Overview): Child[] {
  const { actor, ...allowed } = overview.capabilities
  const words = (['release', 'drain', 'pause', 'rebalance', 'forget'] as const).filter(
    (action) => allowed[action],
  )
  const rights =
    words.length === 0
      ? 'may only look'
      : words.length === 5
        ? 'may do everything'
        : `may ${words.join(', ')}`
  return [h('bdi', actor?.display ?? actor?.id ?? 'anybody'), `, ${rights}`]
}

/** Says what is wrong with what is shown; nothing when it is current. */
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

/** What is said aloud when it changes: the state of everything, without anything that counts. */
export function announcement(state: State): string {
  const { overview, freshness } = state
  if (!overview || freshness === 'loading') return ''
  if (!['live', 'held'].includes(freshness)) return freshnessWords[freshness][0]
  const news = newsOf(state.events, state.nowMs)
  const death = news
    ? ` ${namer(state)(news.node)} died; ${news.moved} of ${news.lost} leases have moved.`
    : ''
  return `${verdictOf(overview, news).word}.${death}`
}

export function verdictView(state: Loaded): Child[] {
  const { overview, events, nowMs } = state
  const { counts, totals } = overview
  const news = newsOf(events, nowMs)
  const { icon: drawing, word, tone } = verdictOf(overview, news)
  const isNow = state.freshness === 'live'
  const there = counts.nodes.active + counts.nodes.draining
  const sinceMs = Math.max(state.horizonMs, nowMs - laneMs)
  const changes = events.filter(
    (each) => each.type === 'lease.acquired' && !each.subject.includes('#') && Date.parse(each.at) >= sinceMs,
  ).length
  const total = (part: string, rest: string): VNode => h('li', h('b', part), ` ${rest}`)
  return [
    h(
      'h1',
      { class: isNow ? '' : 'muted' },
      h('span', { class: isNow ? tone : '' }, icon(isNow ? drawing : 'clock')),
      isNow ? word : `${word}, as of ${timeOf(state.asOfMs, state.utc)}`,
    ),
    h(
      'ul.totals',
      total(`${grouped(totals.held)} of ${grouped(totals.leases)}`, 'leases held'),
      total(grouped(there), there === 1 ? 'node' : 'nodes'),
      counts.nodes.draining > 0 && total(grouped(counts.nodes.draining), 'draining'),
      totals.slots > 0 &&
        total(`${grouped(totals.owned)} of ${grouped(totals.slots)}`, 'shares and partitions owned'),
      total(
        grouped(changes),
        `${changes === 1 ? 'change' : 'changes'} of leader in ${span(Math.min(laneMs, nowMs - sinceMs))}`,
      ),
    ),
    news && h('p.news', icon('close'), sentenceOfNews(news, namer(state)(news.node), nowMs)),
  ]
}

const shownProblems = 6

export function attentionView(state: Loaded, acts: Acts): Child[] {
  const { overview, rows } = state
  if (overview.problems.length === 0) return []
  const { error, warning } = overview.problemCounts
  const shown = pickedProblems(overview, rows.problems)
  const rest = shown.reduce((sum, each) => sum + each.more, 0)
  return [
    h('h2.hidden', 'Needs attention'),
    h(
      'ul',
      { class: `attention ${error > 0 ? 'bad' : warning > 0 ? 'warn' : 'move'}` },
      ...shown.map((each) => problemRow(state, acts, each.problem, each.more)),
    ),
    rest > 0 && rows.problems === shownProblems && moreButton('problems', '', acts),
  ]
}

function problemRow(state: State, acts: Acts, problem: Problem, more: number): VNode {
  const { subject, sentence } = problem
  const name = subject.includes('/') ? subject : namer(state)(subject)
  const quoted = `"${name}"`
  const [before = '', ...after] = sentence.split(quoted)
  const text = after.length === 0 ? [sentence] : [before, thingLink(state, subject), after.join(quoted)]
  const lease = state.overview?.leases.items.find((each) => each.key === subject)
  return h(
    'li',
    { key: `${problem.code} ${subject}` },
    badge(markOfProblem(problem)),
    h('span.sentence', ...text, more > 0 && h('span.muted', ` And ${grouped(more)} more like this.`)),
    lease && releaseButton(state, acts, lease, { class: 'bad' }),
  )
}

function moreButton(section: Section, note: string, acts: Acts): VNode {
  return h(
    'p.foot',
    button('Show more', () => acts.more(section)),
    note !== '' && h('span.muted', ` ${note}`),
  )
}

function moreOf(section: Section, shown: number, total: number, what: string, acts: Acts): Child {
  if (total <= shown) return false
  const rest = `${grouped(total - shown)} more ${what}`
  return shown >= 500
    ? h('p.foot.muted', `${rest}: narrow them down with the filter`)
    : moreButton(section, rest, acts)
}

function heading(title: string, note: Child, ...more: Child[]): VNode {
  return h('header', h('h2', title), h('span.muted', note), h('span.space'), ...more)
}

function selectedNode({ place }: State): string | undefined {
  return place?.kind === 'node' ? place.id : undefined
}

const leaseColumns = [
  ['Lease', ''],
  ['State', 'state'],
  ['Leader', 'leader'],
  ['Session', 'left'],
  ['Held for', 'num held'],
  ['Token', 'num token'],
  ['Candidates', 'num cand'],
] as const

export function leasesView(state: Loaded, acts: Acts): Child[] {
  const { items, total } = state.overview.leases
  if (total === 0)
    return [
      heading('Leases', '0'),
      h(
        'p.empty',
        state.filter === ''
          ? 'No lease yet: the first appears when a node asks for it.'
          : 'No lease is called that, or held by such a node.',
      ),
    ]
  const columns = leaseColumns.map(([name, kind]) => column(name, { class: kind }))
  const axis = h('span.axis', ...['15 min ago', '10', '5', 'now'].map((each) => h('span', each)))
  return [
    heading('Leases', `${grouped(total)}${total > 1 ? ', problems first' : ''}`),
    table(
      'leases',
      [...columns, column(axis, { class: 'lane' }), column(h('span.hidden', 'Action'), { class: 'act' })],
      items.map((lease) => leaseRow(state, acts, lease)),
    ),
    moreOf('leases', items.length, total, 'leases', acts),
  ]
}

function leaseRow(state: State, acts: Acts, lease: Lease): VNode {
  const { nowMs, place } = state
  const mark = markOfLease(lease)
  const left = timeLeft(lease, nowMs)
  const isLit =
    selectedNode(state) !== undefined && [lease.holder?.id, lease.target?.id].includes(selectedNode(state))
  const isOpen = place?.kind === 'lease' && place.id === lease.key
  return h(
    'tr',
    { key: lease.key, class: `${isLit ? 'lit ' : ''}${isOpen ? 'open' : ''}` },
    h('th', { scope: 'row' }, leaseLink(lease.key), h('span.under', ...leaderOf(state, lease))),
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

/** Who held it, and when nobody did. Where nothing is known there is nothing drawn. */
function laneView(state: State, lease: Lease): VNode {
  const { nowMs, events } = state
  const spans = laneOf(lease, events, nowMs)
  const selected = selectedNode(state)
  const oldest = events.findLast((each) => each.subject === lease.key && each.type.startsWith('lease.'))
  const known = oldest
    ? Math.max(0, Math.round(1_000 * (1 - (nowMs - Date.parse(oldest.at)) / laneMs)))
    : 1_000
  const name = namer(state)
  const now = spans.find((each) => each.current)
  const label = `${counted(spans.filter((each) => !each.current).length, 'earlier term')} in 15 minutes; now ${now?.node ? name(now.node) : 'nobody'}`
  return h(
    'svg',
    { class: 'lane', viewBox: '0 0 1000 16', preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    h('path', { class: 'gap', d: `M${Math.min(known, spans.at(-1)?.from ?? 1_000)} 8H1000` }),
    ...[...spans].reverse().map(({ from, to, node, current }, at) =>
      h('rect', {
        key: `${at}`,
        class: node && node === selected ? 'sel' : current ? 'now' : 'past',
        x: from,
        y: 2,
        width: Math.max(2, to - from - (current ? 0 : 2)),
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
  const there = roster.ids.length - (roster.states.match(/g/g)?.length ?? 0)
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
        ...['Node', 'State', 'Heartbeat'].map((name) => column(name)),
        ...(asGrid
          ? leases.map(({ key }) => column(leaseLink(key), { key, class: 'turned' }))
          : [column('Leads', { class: 'leads' })]),
        ...['Shares', 'Version', 'Up'].map((name) => column(name, { class: `num ${name.toLowerCase()}` })),
      ],
      items.map((node) => nodeRow(state, node, asGrid ? leases : undefined, overview)),
    ),
    moreOf('nodes', items.length, total, 'nodes', acts),
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
    ...shown.map((key) => leaseLink(key, { class: 'chip', key })),
    rest > 0 && h('span.muted', `and ${grouped(rest)} more`),
    leadCount === 0 && h('span.muted', '—'),
  ]
}

/** A square for each node. The same is in the rows below, and in the filter. */
function rosterView({ overview, place }: Loaded): Child {
  const { ids, names, states } = overview.roster
  const selected = place?.kind === 'node' ? ids.indexOf(place.id) : -1
  const kinds = [...'slgda'].flatMap((letter) => {
    const count = states.split(letter).length - 1
    const mark = rosterMarks[letter]
    return count === 0 || !mark ? [] : [{ letter, count, word: mark.word }]
  })
  const label = kinds.map((each) => `${grouped(each.count)} ${each.word}`).join(', ')
  const open = (event: MouseEvent): void => {
    const id = ids[clicked(event)]
    if (id) location.hash = addressOf({ kind: 'node', id })
  }
  return h(
    'figure.roster',
    stamped(
      'div',
      { class: ids.length > 500 ? 'map small' : 'map', role: 'img', 'aria-label': label, onclick: open },
      `${selected} ${states} ${ids.join()}`,
      () =>
        ids.map((_, at) =>
          h('i', {
            class: at === selected ? `${states[at]} sel` : states[at],
            title: `${names[at]}: ${rosterMarks[states[at] ?? 'a']?.word}`,
          }),
        ),
    ),
    h(
      'figcaption',
      ...kinds.map((each) =>
        h('span', h('i', { class: each.letter }), `${grouped(each.count)} ${each.word}`),
      ),
    ),
  )
}

/** What a letter of a map stands for. */
const cellWords: Readonly<Record<string, string>> = { o: 'owned', m: 'moving', u: 'no owner' }

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
        ...Object.entries(cellWords).map(([letter, word]) => [h('i', { class: `cell ${letter}` }), word]),
        h('span.gapped', 'a wide gap: the next owner'),
      ),
    ),
    ...items.map((each) => assignmentRow(state, each)),
    moreOf('assignments', items.length, total, 'assignments', acts),
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
      h('h3', assignmentLink(worker), badge(mark)),
      h(
        'p.muted',
        `${what}, ${each}${generation > 0 ? `, plan ${generation}` : ''}${size > 1 ? `; 1 cell = ${size}` : ''}`,
      ),
    ),
    map ? cellsView(state, worker, cells, map) : h('p.muted', ownership(assignment)),
  )
}

function cellsView(
  state: State,
  worker: string,
  cells: readonly Cell[],
  map: NonNullable<Assignment['map']>,
): VNode {
  const { ids = [], names = [] } = state.overview?.roster ?? {}
  const selected = ids.indexOf(selectedNode(state) ?? '')
  const open = (event: MouseEvent): void => {
    const cell = cells[clicked(event)]
    if (cell)
      location.hash = addressOf(
        cell.from === cell.to
          ? { kind: 'lease', id: `${worker}#${cell.from}` }
          : { kind: 'assignment', id: worker },
      )
  }
  const dense = cells.length > 128 ? 'cells dense' : 'cells'
  return stamped(
    'div',
    {
      class: dense,
      role: 'img',
      'aria-label': `${worker}: its parts; the same as a table behind its name`,
      onclick: open,
    },
    `${selected} ${map.states} ${map.owners.join()} ${names.length}`,
    () =>
      cells.map(({ from, to, state: how, owners, gap }) => {
        const lit = selected >= 0 && owners.includes(selected)
        const who =
          from === to ? (names[owners[0] ?? -1] ?? 'nobody') : counted(new Set(owners).size, 'owner')
        return h('i', {
          class: `cell ${how}${gap ? ' gap' : ''}${lit ? ' sel' : ''}`,
          title: `${from === to ? from : `${from}–${to}`}: ${cellWords[how]}, ${who}`,
        })
      }),
  )
}

const filterWords: Readonly<Record<EventFilter, string>> = {
  all: 'All',
  leases: 'Leases',
  nodes: 'Nodes',
  assignments: 'Assignments',
  people: 'By people',
}

export function eventsView(state: Loaded, acts: Acts): Child[] {
  const { eventFilter } = state
  const name = namer(state)
  const wanted = state.filter.toLowerCase()
  const fit = (event: Happening): boolean =>
    passes(eventFilter, event) &&
    `${event.subject} ${event.node ? name(event.node) : ''} ${event.actor ?? ''}`
      .toLowerCase()
      .includes(wanted)
  const found = state.events.filter(fit)
  const buttons = (Object.keys(eventFilters) as EventFilter[]).map((each) =>
    button(filterWords[each], () => acts.set({ eventFilter: each }), {
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
      : h('ol.events', ...shown.map((event) => eventRow(state, event, name))),
    found.length > shown.length && moreButton('events', '', acts),
  ]
}

function eventRow(state: State, event: Happening, name: (id: string) => string): VNode {
  const { reason } = event
  const { mark, text } = sentenceOf(event, name)
  const who = actorOf(event, name)
  const lit = selectedNode(state) !== undefined && event.node === selectedNode(state)
  return h(
    'li',
    { key: event.id, class: lit ? 'lit' : undefined },
    h('span.at', when(state, event.at)),
    badge(mark),
    h('span.about', thingLink(state, event.subject)),
    h('span.what', text, who && [', by ', h('b', h('bdi', who))], reason && [': “', h('bdi', reason), '”']),
  )
}
