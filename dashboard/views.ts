/** The sections of the page, from top to bottom. */

import { release } from './details.js'
import { type Child, h, icon, stamped, type VNode } from './dom.js'
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
  type Lease,
  laneMs,
  laneOf,
  markOfAssignment,
  markOfLease,
  markOfNode,
  markOfProblem,
  newsOf,
  type Overview,
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
  type Freshness,
  leaseLink,
  may,
  namer,
  nodeLink,
  type Section,
  type State,
  when,
} from './parts.js'

/** So many nodes have a row each and a column for each lease; more have a map. */
const gridNodes = 50
const gridLeases = 12

const freshnessWords: Readonly<Record<Freshness, readonly [word: string, tone: string]>> = {
  loading: ['Loading', 'off'],
  live: ['Live', 'live'],
  held: ['Held while you mark text', 'warn'],
  paused: ['Paused', 'move'],
  hidden: ['Asleep', 'off'],
  away: ['Not updating', 'bad'],
  database: ['Not updating', 'bad'],
  'signed-out': ['Signed out', 'bad'],
}

export function barView(state: State, acts: Acts): Child[] {
  const { overview, freshness, utc, theme } = state
  const [word, tone] = freshnessWords[freshness]
  const next = { system: 'light', light: 'dark', dark: 'system' } as const
  return [
    h('strong.brand', 'Coordination'),
    h('span.muted', h('bdi', overview?.namespace ?? '')),
    h(
      'span',
      { class: `fresh ${tone}` },
      icon(tone === 'bad' ? 'alert' : freshness === 'live' ? 'check' : 'pause'),
      word,
    ),
    button(
      [
        icon(freshness === 'paused' ? 'play' : 'pause'),
        h('span.label', freshness === 'paused' ? 'Resume' : 'Pause'),
      ],
      acts.pause,
    ),
    h('span', { class: 'space' }),
    overview && h('span.muted.who', icon('person'), h('span', whoIs(overview))),
    button([icon('clock'), h('span.label', utc ? 'UTC' : 'Local time')], () => acts.set({ utc: !utc }), {
      title: 'UTC or local time',
    }),
    button(
      [icon('theme'), h('span.label', { system: 'Theme', light: 'Light', dark: 'Dark' }[theme])],
      () => acts.set({ theme: next[theme] }),
      {
        title: 'As the system has it, light, or dark',
      },
    ),
  ]
}

function whoIs({ capabilities }: Overview): Child[] {
  const { actor, ...allowed } = capabilities
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
  const { freshness, asOfMs, utc, trouble, overview, clockAheadMs, clockJumpMs } = state
  const asOf = overview === undefined ? '' : ` What you see is as of ${timeOf(asOfMs, utc)}.`
  const again = button('Try now', acts.retry)
  const bars: Partial<Record<Freshness, Child[]>> = {
    away: [
      icon('alert'),
      h('span', h('b', 'Not updating.'), ` The server does not answer.${asOf} ${trouble}`),
      again,
    ],
    database: [
      icon('alert'),
      h('span', h('b', 'Not updating.'), ` The server answers, its database does not.${asOf}`),
      again,
    ],
    'signed-out': [
      icon('block'),
      h('span', h('b', 'Signed out.'), ` You may not read this, or not any more.${asOf} ${trouble}`),
      button('Reload', () => location.reload()),
    ],
    paused: [icon('pause'), h('span', h('b', 'Paused.'), asOf), button('Resume', acts.pause)],
    hidden: [icon('pause'), h('span', h('b', 'Asleep while nobody looks.'), asOf)],
    held: [icon('pause'), h('span', h('b', 'Held while you mark text.'), asOf)],
  }
  const stale = bars[freshness]
  const clock =
    clockJumpMs !== 0
      ? `The database’s clock has jumped by ${span(Math.abs(clockJumpMs))} ${clockJumpMs < 0 ? 'backwards' : 'forwards'}: times from before do not fit those after.`
      : Math.abs(clockAheadMs) > 5_000
        ? `The clock of this browser is ${span(Math.abs(clockAheadMs))} ${clockAheadMs < 0 ? 'behind' : 'ahead'}. All times here are the database’s.`
        : undefined
  return [
    stale &&
      h(
        'div',
        {
          key: 'stale',
          class: `notice ${['paused', 'hidden', 'held'].includes(freshness) ? 'move' : 'bad'}`,
        },
        ...stale,
      ),
    clock !== undefined && h('div', { key: 'clock', class: 'notice warn' }, icon('clock'), h('span', clock)),
  ]
}

/** What is said aloud when it changes: the state of everything, without anything that counts. */
export function announcement(state: State): string {
  const { overview, freshness, events, nowMs } = state
  if (overview === undefined || freshness === 'loading') return ''
  if (!['live', 'held'].includes(freshness)) return freshnessWords[freshness][0]
  const news = newsOf(events, nowMs)
  const death =
    news === undefined
      ? ''
      : ` ${namer(state)(news.node)} died; ${news.moved} of ${news.lost} leases have moved.`
  return `${verdictOf(overview, news).word}.${death}`
}

export function verdictView(state: State): Child[] {
  const { overview, events, nowMs, horizonMs, freshness, asOfMs, utc } = state
  if (overview === undefined) return [h('h1', freshness === 'loading' ? 'Loading…' : 'Nothing to show yet')]
  const { counts, totals } = overview
  const news = newsOf(events, nowMs)
  const { icon: drawing, word, tone } = verdictOf(overview, news)
  const isNow = freshness === 'live'
  const there = counts.nodes.active + counts.nodes.draining
  const sinceMs = Math.max(horizonMs, nowMs - laneMs)
  const changes = events.filter(
    ({ type, subject, at }) =>
      type === 'lease.acquired' && !subject.includes('#') && Date.parse(at) >= sinceMs,
  ).length
  const total = (part: string, rest: string): VNode => h('li', h('b', part), ` ${rest}`)
  return [
    h(
      'h1',
      { class: isNow ? '' : 'muted' },
      h('span', { class: isNow ? tone : '' }, icon(isNow ? drawing : 'clock')),
      isNow ? word : `${word}, as of ${timeOf(asOfMs, utc)}`,
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

export function attentionView(state: State, acts: Acts): Child[] {
  const { overview, rows } = state
  if (overview === undefined || overview.problems.length === 0) return []
  const { error, warning } = overview.problemCounts
  const shown = pickedProblems(overview, rows.problems)
  const rest = shown.reduce((sum, { more }) => sum + more, 0)
  return [
    h('h2.hidden', 'Needs attention'),
    h(
      'ul',
      { class: `attention ${error > 0 ? 'bad' : warning > 0 ? 'warn' : 'move'}` },
      ...shown.map(({ problem, more }) => problemRow(state, acts, problem, more)),
    ),
    rest > 0 && rows.problems === shownProblems && moreButton('problems', '', acts),
  ]
}

function problemRow(state: State, acts: Acts, problem: Problem, more: number): VNode {
  const { subject, sentence } = problem
  const roster = state.overview?.roster
  const place = roster?.ids.indexOf(subject) ?? -1
  const name = place < 0 ? subject : (roster?.names[place] ?? subject)
  const kind =
    place >= 0
      ? 'node'
      : state.overview?.assignments.items.some(({ worker }) => worker === subject)
        ? 'assignment'
        : 'lease'
  const at = sentence.indexOf(`"${name}"`)
  const link = h('a', { href: addressOf({ kind, id: subject }) }, h('bdi', name))
  const text =
    at < 0 || subject === 'database'
      ? [sentence]
      : [sentence.slice(0, at), link, sentence.slice(at + name.length + 2)]
  const lease = state.overview?.leases.items.find(({ key }) => key === subject)
  return h(
    'li',
    { key: `${problem.code} ${subject}` },
    badge(markOfProblem(problem)),
    h('span.sentence', ...text, more > 0 && h('span.muted', ` And ${grouped(more)} more like this.`)),
    lease?.holder &&
      may(state, 'release') &&
      button('Release…', () => acts.open(release(state, lease)), { class: 'bad' }),
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
  return h('header', h('h2', title), h('span.muted', note), h('span', { class: 'space' }), ...more)
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

export function leasesView(state: State, acts: Acts): Child[] {
  const { overview, filter } = state
  if (overview === undefined) return []
  const { items, total } = overview.leases
  if (total === 0)
    return [
      heading('Leases', '0'),
      h(
        'p.empty',
        filter === ''
          ? 'No lease yet: a row appears when the first node asks for one.'
          : 'No lease is called that, or held by such a node.',
      ),
    ]
  const columns = leaseColumns.map(([name, group]) => h('th', { class: group, scope: 'col' }, name))
  return [
    heading('Leases', `${grouped(total)}${total > 1 ? ', problems first' : ''}`),
    h(
      'table.leases',
      h(
        'thead',
        h(
          'tr',
          ...columns,
          h(
            'th',
            { class: 'lane', scope: 'col' },
            h('span.axis', h('span', '15 min ago'), h('span', '10'), h('span', '5'), h('span', 'now')),
          ),
          h('th.act', h('span.hidden', 'Action')),
        ),
      ),
      h('tbody', ...items.map((lease) => leaseRow(state, acts, lease))),
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
    h('td.num.mono.token', lease.token === 0 ? '—' : String(lease.token)),
    h('td.num.cand', grouped(lease.candidateCount)),
    h('td.lane', laneView(state, lease)),
    h(
      'td.act',
      lease.holder &&
        may(state, 'release') &&
        button('Release…', () => acts.open(release(state, lease)), {
          'aria-label': `Release ${lease.key}…`,
          class: 'quiet',
        }),
    ),
  )
}

function leaderOf(state: State, { holder, target, blockedNode, state: how }: Lease): Child[] {
  if (holder !== null)
    return how === 'moving' && target && target.id !== holder.id
      ? [nodeLink(state, holder), ' → ', nodeLink(state, target)]
      : [nodeLink(state, holder)]
  if (blockedNode !== null) return [h('span.muted', 'was '), nodeLink(state, blockedNode)]
  return target === null ? [nodeLink(state, null)] : [h('span.muted', 'next: '), nodeLink(state, target)]
}

function sinceFree({ events, nowMs }: State, { key, cooldown }: Lease): string {
  const ended = events.find(
    ({ subject, type }) =>
      subject === key && ['lease.released', 'lease.lost', 'lease.revoked'].includes(type),
  )
  if (ended !== undefined) return `free for ${span(nowMs - Date.parse(ended.at))}`
  return cooldown === null ? '—' : `cools down for ${span(Date.parse(cooldown.until) - nowMs)}`
}

/** Who held it, and when nobody did. Where nothing is known there is nothing drawn. */
function laneView(state: State, lease: Lease): VNode {
  const { nowMs, events } = state
  const spans = laneOf(lease, events, nowMs)
  const selected = selectedNode(state)
  const oldest = events.findLast(({ subject, type }) => subject === lease.key && type.startsWith('lease.'))
  const known =
    oldest === undefined
      ? 1_000
      : Math.max(0, Math.round(1_000 * (1 - (nowMs - Date.parse(oldest.at)) / laneMs)))
  const name = namer(state)
  const now = spans.find(({ current }) => current)
  const label = `${counted(spans.filter(({ current }) => !current).length, 'earlier term')} in 15 minutes; now ${now?.node ? name(now.node) : 'nobody'}`
  return h(
    'svg',
    { class: 'lane', viewBox: '0 0 1000 16', preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    h('path', { class: 'gap', d: `M${Math.min(known, spans.at(-1)?.from ?? 1_000)} 8H1000` }),
    ...[...spans].reverse().map(({ from, to, node, current }, at) =>
      h('rect', {
        key: `${at}`,
        class: node !== null && node === selected ? 'sel' : current ? 'now' : 'past',
        x: from,
        y: 2,
        width: Math.max(2, to - from - (current ? 0 : 2)),
        height: 12,
      }),
    ),
  )
}

export function nodesView(state: State, acts: Acts): Child[] {
  const { overview } = state
  if (overview === undefined) return []
  const { items, total } = overview.nodes
  const { versions, roster } = overview
  const leases = overview.leases.items.filter(({ key }) => !key.includes('#'))
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
    h(
      'table.nodes',
      h(
        'thead',
        h(
          'tr',
          ...['Node', 'State', 'Heartbeat'].map((name) => h('th', { scope: 'col' }, name)),
          ...(asGrid
            ? leases.map(({ key }) => h('th', { key, class: 'turned', scope: 'col' }, leaseLink(key)))
            : [h('th', { scope: 'col', class: 'leads' }, 'Leads')]),
          ...['Shares', 'Version', 'Up'].map((name) =>
            h('th', { scope: 'col', class: `num ${name.toLowerCase()}` }, name),
          ),
        ),
      ),
      h('tbody', ...items.map((node) => nodeRow(state, node, asGrid ? leases : undefined, overview))),
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
  const { nowMs } = state
  const mark = markOfNode(node)
  const most = Math.max(
    1,
    ...nodes.items.map(({ slotCount, fairSlotCount }) => Math.max(slotCount, fairSlotCount)),
  )
  const odd = versions.length > 1 && node.version !== null && node.version !== versions[0]?.version
  const sinceMs = node.goneAt === null ? nowMs - Date.parse(node.startedAt) : 0
  return h(
    'tr',
    {
      key: node.id,
      class: `${selectedNode(state) === node.id ? 'lit ' : ''}${node.state === 'gone' ? 'gone' : ''}`,
    },
    h('th', { scope: 'row' }, nodeLink(state, node), h('span.muted.cluster', ' ', h('bdi', node.cluster))),
    h('td.state', badge(mark)),
    h('td.beat', node.goneAt === null ? when(state, node.heartbeatAt) : ['gone ', when(state, node.goneAt)]),
    ...(leases?.map((lease) => gridCell(node, lease)) ?? [h('td.leads', ...leadsOf(node))]),
    h(
      'td.num.shares',
      h(
        'span.load',
        bar(node.slotCount / most, '', node.fairSlotCount > 0 ? node.fairSlotCount / most : undefined),
        h('span', { title: `${node.fairSlotCount} would be its fair share` }, grouped(node.slotCount)),
      ),
    ),
    h(
      'td',
      { class: `num version ${odd ? 'warn' : ''}` },
      node.version === null ? '—' : h('bdi', node.version),
    ),
    h('td.num.up', node.goneAt === null ? span(sinceMs) : '—'),
  )
}

function gridCell(node: CoordinationNode, lease: Lease): VNode {
  const leads = lease.holder?.id === node.id
  const stands = node.state === 'active' && lease.worker !== null && node.workers.includes(lease.worker)
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
function rosterView({ overview, place }: State): Child {
  if (overview === undefined) return false
  const { ids, names, states } = overview.roster
  const selected = place?.kind === 'node' ? ids.indexOf(place.id) : -1
  const kinds = [...'slgda'].flatMap((letter) => {
    const count = states.split(letter).length - 1
    const mark = rosterMarks[letter]
    return count === 0 || mark === undefined ? [] : [{ letter, count, word: mark.word }]
  })
  const label = kinds.map(({ count, word }) => `${grouped(count)} ${word}`).join(', ')
  const open = (event: MouseEvent): void => {
    const id = ids[clicked(event)]
    if (id !== undefined) location.hash = addressOf({ kind: 'node', id })
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
      ...kinds.map(({ letter, count, word }) =>
        h('span', h('i', { class: letter }), `${grouped(count)} ${word}`),
      ),
    ),
  )
}

export function assignmentsView(state: State, acts: Acts): Child[] {
  const { overview, filter } = state
  if (overview === undefined) return []
  const { items, total } = overview.assignments
  if (total === 0)
    return filter === '' ? [heading('Assignments', '0'), h('p.empty', 'No work is being shared out.')] : []
  const legend = [
    ['o', 'owned'],
    ['m', 'moving'],
    ['u', 'no owner'],
  ] as const
  return [
    heading(
      'Assignments',
      grouped(total),
      h(
        'span.legend.muted',
        ...legend.map(([letter, word]) => [h('i', { class: `cell ${letter}` }), word]),
        h('span.gapped', 'a wide gap: the next owner'),
      ),
    ),
    ...items.map((each) => assignmentRow(state, each)),
    moreOf('assignments', items.length, total, 'assignments', acts),
  ]
}

function assignmentRow(state: State, assignment: Assignment): VNode {
  const { worker, kind, slots, owners, least, most, generation, map } = assignment
  const each =
    owners === 0
      ? 'owned by nobody'
      : `${least === most ? least : `${least}–${most}`} on each of ${counted(owners, 'node')}`
  const what = counted(slots, kind === 'partitioned' ? 'partition' : 'share')
  const mark = markOfAssignment(assignment)
  const cells = map === null ? [] : cellsOf(map)
  const size = cells[0] === undefined ? 1 : cells[0].to - cells[0].from + 1
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
    map === null
      ? h(
          'p.muted',
          `${grouped(assignment.owned)} owned, ${grouped(assignment.moving)} moving, ${grouped(assignment.unowned)} without owner`,
        )
      : cellsView(state, worker, cells, map),
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
  const words: Readonly<Record<string, string>> = { o: 'owned', m: 'moving', u: 'no owner' }
  const open = (event: MouseEvent): void => {
    const cell = cells[clicked(event)]
    if (cell !== undefined)
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
      'aria-label': `${worker}: its parts one by one; the same as a table behind its name`,
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
          title: `${from === to ? from : `${from}–${to}`}: ${words[how]}, ${who}`,
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

export function eventsView(state: State, acts: Acts): Child[] {
  const { events, eventFilter, rows, filter } = state
  const name = namer(state)
  const wanted = filter.toLowerCase()
  const fit = (event: Happening): boolean =>
    passes(eventFilter, event) &&
    `${event.subject} ${event.node === null ? '' : name(event.node)} ${event.actor ?? ''}`
      .toLowerCase()
      .includes(wanted)
  const found = events.filter(fit)
  const buttons = (Object.keys(eventFilters) as EventFilter[]).map((each) =>
    button(filterWords[each], () => acts.set({ eventFilter: each }), {
      key: each,
      'aria-pressed': each === eventFilter ? 'true' : 'false',
    }),
  )
  const shown = found.slice(0, rows.events)
  return [
    heading(
      'Events',
      '',
      h('div', { class: 'tabs', role: 'group', 'aria-label': 'Which events' }, ...buttons),
    ),
    shown.length === 0
      ? h('p.empty', 'Nothing of the kind, as far back as is known here.')
      : h('ol.events', ...shown.map((event) => eventRow(state, event, name))),
    found.length > shown.length && moreButton('events', '', acts),
  ]
}

function eventRow(state: State, event: Happening, name: (id: string) => string): VNode {
  const { id, at, subject, node, reason } = event
  const { mark, text } = sentenceOf(event, name)
  const who = actorOf(event, name)
  const isNode = subject === node
  const isThing = subject.includes('/')
  const lit = selectedNode(state) !== undefined && node === selectedNode(state)
  const about = isNode
    ? nodeLink(state, { id: subject, name: name(subject) })
    : isThing
      ? leaseLink(subject)
      : h('span', subject)
  return h(
    'li',
    { key: id, class: lit ? 'lit' : undefined },
    h('span.at', when(state, at)),
    badge(mark),
    h('span.about', about),
    h(
      'span.what',
      text,
      who !== undefined && [', by ', h('b', h('bdi', who))],
      reason !== null && [': “', h('bdi', reason), '”'],
    ),
  )
}
