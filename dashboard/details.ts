/** One thing in full beside the page, and what may be done about it. */
import { ApiError, overviewPath, read, write } from './api.js'
import { type Child, h, icon, type Props } from './dom.js'
import {
  ago,
  type CoordinationNode,
  counted,
  dateOf,
  grouped,
  keyInPath,
  type Lease,
  markOfLease,
  markOfNode,
  type NodeRef,
  type Overview,
  ownership,
  span,
  timeOf,
} from './model.js'
import {
  type Acts,
  assignmentLink,
  badge,
  button,
  column,
  type Fact,
  facts,
  leaseLink,
  may,
  nodeLink,
  type Order,
  type Panel,
  type Place,
  type State,
  table,
  thingLink,
  when,
} from './parts.js'

interface Explanation {
  readonly now: string
  readonly reasons: readonly { readonly code: string; readonly sentence: string }[]
  readonly holder: { readonly node: NodeRef; readonly heartbeatAgoMs: number } | null
  readonly paused: boolean
  readonly schedule: {
    readonly cron: string
    readonly timeZone: string
    readonly lastFireAt: string | null
    readonly nextFireAt: string | null
  } | null
  readonly block: { readonly node: NodeRef; readonly until: string | null } | null
  readonly candidateCount: number
  readonly candidates: readonly { readonly node: NodeRef; readonly obstacles: readonly string[] }[]
}

interface History {
  readonly items: readonly {
    readonly holder: NodeRef | null
    readonly holderId: string | null
    readonly token: number
    readonly from: string | null
    readonly to: string | null
    readonly ended: {
      readonly how: string
      readonly reason: string | null
      readonly actor: string | null
    } | null
  }[]
}

interface LeaseList {
  readonly items: readonly Lease[]
  readonly total: number
}

/** Reads what a panel shows. */
export async function readPanel({ kind, id }: Place, slots: number): Promise<Panel> {
  const of = `${kind} ${id}`
  const key = keyInPath(id)
  const paths: Readonly<Record<string, string>> = {
    lease: {
      lease: `leases/${key}`,
      why: `leases/${key}/explain`,
      history: `leases/${key}/history?limit=20`,
    },
    node: {
      about: overviewPath(id, { nodes: 1, leases: 1, assignments: 1 }),
      holds: `leases?holder=${key}&limit=${slots}`,
    },
    assignment: {
      worker: `workers/${key}`,
      about: overviewPath(id, { nodes: 1, leases: 1, assignments: 100 }),
      slots: `leases?worker=${key}&limit=${slots}`,
    },
  }[kind]
  try {
    const bodies = Object.entries(paths).map(async ([name, path]) => [name, (await read(path)).body] as const)
    return { of, bodies: Object.fromEntries(await Promise.all(bodies)) }
  } catch (error) {
    if (error instanceof ApiError && error.failure === 'refused')
      return { of, bodies: {}, missing: error.message }
    throw error
  }
}

export function panelView(state: State, acts: Acts, close: () => void): Child[] {
  const { place, panel } = state
  if (place === undefined) return []
  const known = panel?.of === `${place.kind} ${place.id}` ? panel : undefined
  const views = { lease: leasePanel, node: nodePanel, assignment: assignmentPanel }
  return [
    h(
      'header',
      h('h2', { tabindex: -1 }, titleOf(state, place)),
      button(icon('close'), close, { 'aria-label': 'Close', class: 'icon' }),
    ),
    h(
      'div',
      { class: 'inside', key: `${place.kind} ${place.id}` },
      ...(known === undefined
        ? [h('p.muted', 'Loading…')]
        : known.missing
          ? [h('p', known.missing)]
          : views[place.kind](state, acts, known)),
    ),
  ]
}

function titleOf({ overview }: State, { kind, id }: Place): Child {
  const at = kind === 'node' ? (overview?.roster.ids.indexOf(id) ?? -1) : -1
  return [h('small.muted', kind), ' ', h('bdi', overview?.roster.names[at] ?? id)]
}

function leasePanel(state: State, acts: Acts, { bodies }: Panel): Child[] {
  const why = bodies.why as Explanation
  const lease = completed(bodies.lease as Lease, why, state.overview)
  const history = bodies.history as History
  const { holder, acquiredAt, worker } = lease
  return [
    badge(markOfLease(lease)),
    actions(leaseActions(state, acts, lease, why)),
    h('h3', holder ? 'Why it is there' : 'Why nobody holds it'),
    h('ul.why', ...why.reasons.map((each) => h('li', { key: each.code }, each.sentence))),
    facts([
      ['Leader', nodeLink(state, holder)],
      [
        'Since',
        !acquiredAt || !holder
          ? '—'
          : [dateOf(acquiredAt, state.utc), ` (${ago(state.nowMs - Date.parse(acquiredAt))})`],
      ],
      ['Last heartbeat', lease.session ? when(state, lease.session.heartbeatAt) : '—'],
      ['Token', h('span.mono', lease.token)],
      ['Candidates', grouped(lease.candidateCount)],
      ...scheduleFacts(state, why.schedule),
      ...(worker && worker !== lease.key ? [['Worker', assignmentLink(worker)] as const] : []),
    ]),
    h('h3', 'Who had it'),
    h('ol.terms', ...history.items.map((term) => termRow(state, term))),
    history.items.length === 0 && h('p.muted', 'Nothing is known of earlier terms.'),
  ]
}

/** A next time that has passed is shown as it is: why nobody acts is told above. */
function scheduleFacts(state: State, schedule: Explanation['schedule']): Fact[] {
  if (!schedule) return []
  const shown = (at: string | null): string => (at ? dateOf(at, state.utc) : '—')
  return [
    ['Schedule', h('span.mono', `${schedule.cron} ${schedule.timeZone}`)],
    ['Last fire', shown(schedule.lastFireAt)],
    ['Next fire', shown(schedule.nextFireAt)],
  ]
}

function termRow(
  state: State,
  { holder, holderId, token, from, to, ended }: History['items'][number],
): Child {
  const lastedMs = !from || (!to && ended) ? null : (to ? Date.parse(to) : state.nowMs) - Date.parse(from)
  const end =
    ended === null
      ? 'holds it now'
      : `${ended.how === 'unknown' ? 'ended, nothing tells how' : ended.how}${ended.actor ? ` by ${ended.actor}` : ''}`
  return h(
    'li',
    { key: token },
    h('span', holder ? nodeLink(state, holder) : h('span.mono', holderId?.slice(0, 8) ?? 'unknown')),
    h(
      'span.muted',
      from ? dateOf(from, state.utc) : 'before',
      lastedMs === null ? '' : `, for ${span(lastedMs)}`,
    ),
    h(
      'span',
      end,
      ended?.reason != null && ended.how !== 'released' ? [': “', h('bdi', ended.reason), '”'] : '',
    ),
  )
}

/** A lease as the page has it, from one that is listed by itself and its explanation. */
function completed(lease: Lease, why: Explanation, overview: Overview | undefined): Lease {
  const ttlMs = overview?.timing.ttlMs ?? 0
  const agoMs = why.holder?.heartbeatAgoMs ?? 0
  const pulse = agoMs > ttlMs ? 'silent' : agoMs > (2 * ttlMs) / 3 ? 'late' : 'steady'
  const session = why.holder
    ? ({ pulse, ttlMs, heartbeatAt: new Date(Date.parse(why.now) - agoMs).toISOString() } as const)
    : null
  return {
    ...lease,
    paused: why.paused,
    candidateCount: why.candidateCount,
    session,
  }
}

function actions(buttons: readonly Child[]): Child {
  return buttons.some(Boolean) && h('p.row', ...buttons)
}

function leaseActions(state: State, acts: Acts, lease: Lease, why: Explanation): Child[] {
  const { holder, worker, key } = lease
  const others = why.candidates
    .filter(
      ({ node, obstacles }) => node.id !== holder?.id && !obstacles.some((each) => each !== 'cooling-down'),
    )
    .map((each) => each.node)
  const coordinated = state.overview?.assignments.items.some(
    (each) => each.worker === worker && each.kind === 'coordinated',
  )
  const isHeld = holder && may(state, 'release')
  const canMove = isHeld && lease.state === 'held' && others.length > 0
  return [
    canMove && button('Step down…', () => acts.open(handOver(lease))),
    canMove && coordinated !== true && button('Transfer…', () => acts.open(handOver(lease, others))),
    releaseButton(state, acts, lease, { class: 'bad' }),
    worker === key && pauseButton(state, acts, key, lease.paused),
  ]
}

function pauseButton(state: State, acts: Acts, key: string, paused: boolean): Child {
  return (
    may(state, 'pause') &&
    button(paused ? 'Resume…' : 'Pause…', () => acts.open(paused ? resume(key) : pause(key)))
  )
}

function nodePanel(state: State, acts: Acts, { bodies }: Panel): Child[] {
  const { items } = (bodies.about as Overview).nodes
  const holds = bodies.holds as LeaseList
  const node = items[0]
  if (!node) return [h('p', 'There is no such node any more.')]
  const labels = Object.entries(node.labels)
  const fair = node.fairSlotCount > 0 ? ` (${node.fairSlotCount} would be its fair share)` : ''
  return [
    badge(markOfNode(node)),
    actions(nodeActions(state, acts, node)),
    facts([
      ['Cluster', h('bdi', node.cluster)],
      ['Last heartbeat', when(state, node.heartbeatAt)],
      ['Declared dead after', span(node.ttlMs)],
      ['Started', dateOf(node.startedAt, state.utc)],
      ...(node.goneAt ? [['Gone since', dateOf(node.goneAt, state.utc)] as const] : []),
      ['Version', node.version ?? '—'],
      ['Shares and partitions', `${grouped(node.slotCount)}${fair}`],
      ['Looks for the dead', node.watcher ? 'yes' : 'no'],
      ['Id', h('span.mono', node.id)],
      ...labels.slice(0, 20).map(([name, value]): Fact => [name, h('bdi', value)]),
    ]),
    h('h3', `Holds ${grouped(holds.total)}`),
    slotTable(state, acts, holds, false),
    h('h3', 'Stands for'),
    h(
      'ul.chips',
      ...node.workers.slice(0, 50).map((key) => h('li', { key }, thingLink(state, key, { class: 'chip' }))),
    ),
  ]
}

function nodeActions(state: State, acts: Acts, node: CoordinationNode): Child[] {
  return [
    node.state === 'active' && may(state, 'drain') && button('Drain…', () => acts.open(drain(node))),
    node.state === 'draining' &&
      may(state, 'drain') &&
      button('Take back the drain…', () => acts.open(undrain(node))),
    node.state === 'gone' &&
      may(state, 'forget') &&
      button('Remove from the list…', () => acts.open(forget(node))),
  ]
}

function assignmentPanel(state: State, acts: Acts, { bodies }: Panel): Child[] {
  const worker = bodies.worker as {
    key: string
    kind: string
    scope: string
    slots: number
    generation: number
    paused: boolean
    candidates: readonly string[]
  }
  const about = (bodies.about as Overview).assignments.items.find((each) => each.worker === worker.key)
  return [
    actions([pauseButton(state, acts, worker.key, worker.paused)]),
    worker.paused &&
      h('p.notice.move', icon('pause'), h('span', 'It is paused: nobody runs it until it is resumed.')),
    facts([
      ['Kind', `${worker.kind}, ${worker.scope}`],
      [
        worker.kind === 'partitioned' ? 'Partitions' : 'Shares',
        `${grouped(worker.slots)}${about ? `: ${ownership(about)}` : ''}`,
      ],
      ['Plan', worker.generation || '—'],
      ['Nodes that stand for it', grouped(worker.candidates.length)],
    ]),
    slotTable(state, acts, bodies.slots as LeaseList, worker.paused),
  ]
}

function slotTable(state: State, acts: Acts, { items, total }: LeaseList, paused: boolean): Child[] {
  return [
    items.length > 0 &&
      table(
        'slots',
        ['Lease', 'State', 'Node', 'Since'].map((name) => column(name)),
        items.map((lease) =>
          h(
            'tr',
            { key: lease.key },
            h('th', { scope: 'row' }, leaseLink(lease.key)),
            h('td.state', badge(markOfLease({ ...lease, session: null, paused, candidateCount: 1 }))),
            h('td', nodeLink(state, lease.holder ?? lease.target)),
            h('td', lease.acquiredAt && lease.holder ? when(state, lease.acquiredAt) : '—'),
          ),
        ),
      ),
    total > items.length &&
      (items.length < 500
        ? button(`Show more of ${grouped(total)}`, () => acts.more('slots'))
        : h(
            'p.muted',
            `${grouped(total - items.length)} more: the filter finds them by number, say #${items.length}`,
          )),
  ]
}

export function releaseButton(state: State, acts: Acts, lease: Lease, props: Props): Child {
  return (
    lease.holder && may(state, 'release') && button('Release…', () => acts.open(release(state, lease)), props)
  )
}

/** Takes a lease from its holder. */
function release({ nowMs, utc }: State, lease: Lease): Order {
  const { key, token, session, candidateCount } = lease
  const healthy = session?.pulse === 'steady'
  const name = lease.holder?.name ?? 'nobody'
  const alone = candidateCount < 2
  return {
    title: `Release ${key}?`,
    facts: [
      ...holderFacts(lease),
      [
        'Last heartbeat',
        session
          ? `${ago(nowMs - Date.parse(session.heartbeatAt))}, at ${timeOf(session.heartbeatAt, utc)}`
          : '—',
      ],
      ['Candidates', `${grouped(candidateCount)}${alone ? ': no other one' : ''}`],
    ],
    notes: [
      healthy
        ? [`${name} is alive. It is told to stop; its work goes on until it has.`, 'warn']
        : [`Nothing has been heard of ${name} for a while.`],
      [`The next holder begins once ${name} has stopped, or cannot act on token ${token} any more.`],
      alone && ['No other node may hold it: it may stay free, or come back to the same one.', 'bad'],
      [`Only token ${token} is released. Should the lease move before you confirm, nothing happens.`],
    ],
    typed: healthy ? key : undefined,
    reason: true,
    submit: 'Release lease',
    danger: true,
    refused: 'Nothing was released.',
    run: async (reason) => {
      const done = await write<{
        released: boolean
        previousHolder: NodeRef | null
        safeAt: string
        acknowledged: boolean
      }>('POST', `leases/${keyInPath(key)}/release`, { reason }, token)
      if (!done?.released) return { title: 'Nobody held it', lines: ['There was nothing to release.'] }
      const who = done.previousHolder?.name ?? 'The holder'
      const lines = done.acknowledged
        ? [`${who} has stopped.`]
        : [
            `${who} has not yet said that it has stopped. At the latest it has by ${timeOf(done.safeAt, utc)}.`,
          ]
      return {
        title: 'Released',
        lines: [...lines, `For a minute ${who} does not win it again while others stand.`],
        safeAtMs: done.acknowledged ? undefined : Date.parse(done.safeAt),
      }
    },
  }
}

/** What orders without many words are like: `done` is what to say afterwards. Only what asks for a reason sends one. */
function plain(
  title: string,
  text: string,
  submit: string,
  [method, path]: readonly [method: string, path: string],
  [heading, line]: readonly [heading: string, line: string],
  more: Partial<Order> = {},
): Order {
  const reason = method === 'PUT'
  return {
    ...{ title, submit, reason, notes: [[text]], refused: 'Nothing was done.' },
    async run(why) {
      await write(method, path, reason ? { reason: why } : undefined)
      return { title: heading, lines: [line] }
    },
    ...more,
  }
}

function holderFacts(lease: Lease): Fact[] {
  return [
    ['Holder', h('span.mono', lease.holder?.name ?? 'nobody')],
    ['Fencing token', h('span.mono', lease.token)],
  ]
}

/** @param nodes to choose one from; without any the plan decides. */
function handOver(lease: Lease, nodes?: readonly NodeRef[]): Order {
  const { key } = lease
  const [title, submit, verb, text] = nodes
    ? ([`Transfer ${key}`, 'Transfer', 'transfer', 'the node you choose follows.'] as const)
    : ([
        `Ask ${lease.holder?.name} to step down from ${key}?`,
        'Ask to step down',
        'step-down',
        'another node follows. Work that ignores the signal is taken away later.',
      ] as const)
  return {
    ...{ title, submit, nodes, facts: holderFacts(lease), reason: true, refused: 'Nobody was asked.' },
    notes: [[`Its signal aborts, its pass ends, and ${text}`]],
    async run(reason, to) {
      const body = nodes ? { to, reason } : { reason }
      const done = await write<{ from: NodeRef | null; to: NodeRef | null }>(
        'POST',
        `leases/${keyInPath(key)}/${verb}`,
        body,
        lease.token,
      )
      const next = `${done?.to?.name ?? 'Another node'} is to have it next`
      return {
        title: 'Asked',
        lines: [`${done?.from?.name ?? 'The holder'} has been asked. ${next}, once its pass has ended.`],
      }
    },
  }
}

function drain({ id, name, leadCount, slotCount }: CoordinationNode): Order {
  return plain(
    `Drain ${name}?`,
    'It hands everything over and takes nothing new until the drain is taken back or it restarts.',
    'Drain node',
    ['PUT', `nodes/${id}/drain`],
    ['Draining', `${name} hands over ${counted(leadCount + slotCount, 'lease')} as its passes end.`],
    {
      facts: [
        ['Leads', grouped(leadCount)],
        ['Shares and partitions', grouped(slotCount)],
      ],
    },
  )
}

function undrain({ id, name }: CoordinationNode): Order {
  return plain(
    `Let ${name} take work again?`,
    'It stands for what it stood for before.',
    'Take back the drain',
    ['DELETE', `nodes/${id}/drain`],
    ['Taken back', `${name} takes work again.`],
  )
}

function forget({ id, name }: CoordinationNode): Order {
  return plain(
    `Remove ${name} from the list?`,
    'It is gone. Its events stay.',
    'Remove',
    ['DELETE', `nodes/${id}`],
    ['Removed', `${name} is not listed any more.`],
  )
}

function pause(key: string): Order {
  return plain(
    `Pause ${key}?`,
    'Nobody runs it until it is resumed, restarts or not. Whoever runs it is told to stop.',
    'Pause',
    ['PUT', `workers/${keyInPath(key)}/pause`],
    ['Paused', `${key} is given up as its passes end.`],
  )
}

function resume(key: string): Order {
  return plain(
    `Resume ${key}?`,
    'Nodes that stand for it begin at once.',
    'Resume',
    ['DELETE', `workers/${keyInPath(key)}/pause`],
    ['Resumed', `Nodes may run ${key} again.`],
  )
}
