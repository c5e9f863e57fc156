/** The panel beside the page: one lease, node or assignment in full, and the actions on it. */
import { ApiError, overviewPath, read } from './api.js'
import { type Child, h, icon } from './dom.js'
import {
  ago,
  dateOf,
  type Explanation,
  grouped,
  type History,
  keyInPath,
  type Lease,
  type LeaseList,
  markOfLease,
  markOfNode,
  type Overview,
  ownership,
  span,
} from './model.js'
import { drain, forget, handOver, offer, pauseOrResume, releaseButton, undrain } from './orders.js'
import {
  type Acts,
  addressOf,
  badge,
  because,
  button,
  type Fact,
  facts,
  keyLink,
  moreOf,
  nameOf,
  nodeLink,
  type Panel,
  type Place,
  type State,
  table,
  thingLink,
  when,
} from './parts.js'

/** Reads the data of a panel. */
export async function readPanel({ kind, id }: Place, slots: number): Promise<Panel> {
  const key = keyInPath(id)
  const about = overviewPath(id, { nodes: 1, leases: 1, assignments: 500, problems: 1 })
  const paths = {
    lease: [`leases/${key}/explain`, `leases/${key}/history?limit=20`],
    node: [about, `leases?holder=${key}&limit=${slots}`],
    assignment: [about, `leases?worker=${key}&limit=${slots}`],
  }[kind]
  try {
    const answers = await Promise.all(paths.map((path) => read(path)))
    return { kind, id, bodies: answers.map(({ body }) => body) }
  } catch (error) {
    if (!(error instanceof ApiError && error.failure === 'refused')) throw error
    // A link to a worker may have been made without knowing that it has no lease of its own.
    if (error.worker) location.replace(addressOf({ kind: 'assignment', id: error.worker }))
    return { kind, id, bodies: [], missing: error.message }
  }
}

export function panelView(state: State, acts: Acts, close: () => void): Child[] {
  const { place, panel } = state
  if (place === undefined) return []
  const known = panel?.kind === place.kind && panel.id === place.id ? panel : undefined
  const views = { lease: leasePanel, node: nodePanel, assignment: assignmentPanel }
  return [
    h(
      'header',
      h('h2', { tabindex: -1 }, h('small.muted', place.kind), ' ', h('bdi', nameOf(state, place.id))),
      button(icon('close'), close, { 'aria-label': 'Close' }),
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

function leasePanel(state: State, acts: Acts, { bodies }: Panel): Child[] {
  const [why, history] = bodies as [Explanation, History]
  const { lease } = why
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
      ...scheduleFacts(state, lease.schedule),
      ...(worker && worker !== lease.key ? [['Worker', keyLink('assignment', worker)] as const] : []),
    ]),
    h('h3', 'Who had it'),
    h('ol.terms', ...history.items.map((term) => termRow(state, term))),
    history.items.length === 0 && h('p.muted', 'Nothing is known of earlier terms.'),
  ]
}

/** A next fire time in the past is shown unchanged; the reasons above it explain why nothing runs. */
function scheduleFacts(state: State, schedule: Lease['schedule']): Fact[] {
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
  const { how = 'holds it now', actor, reason, acknowledged } = ended ?? {}
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
      how === 'unknown' ? 'ended somehow' : how,
      actor && [' by ', h('bdi', actor)],
      because(reason ?? null, actor ?? null),
      acknowledged === false && ', and has not said that it has stopped',
    ),
  )
}

function actions(buttons: readonly Child[]): Child {
  return buttons.some(Boolean) && h('p.row', ...buttons)
}

function leaseActions(state: State, acts: Acts, lease: Lease, why: Explanation): Child[] {
  const { holder, worker, key } = lease
  const others = why.candidates
    .filter(
      ({ node, obstacles }) => node.id !== holder?.id && obstacles.every((each) => each === 'cooling-down'),
    )
    .map((each) => each.node)
  const canMove = lease.state === 'held' && others.length > 0
  return [
    canMove && offer(state, acts, 'release', 'Step down…', () => handOver(lease)),
    canMove &&
      lease.kind !== 'coordinated' &&
      offer(state, acts, 'release', 'Transfer…', () => handOver(lease, others)),
    releaseButton(state, acts, lease, { class: 'bad' }),
    worker === key && pauseButton(state, acts, key, lease.paused),
  ]
}

function pauseButton(state: State, acts: Acts, key: string, paused: boolean): Child {
  return offer(state, acts, 'pause', paused ? 'Resume…' : 'Pause…', () => pauseOrResume(key, paused), {
    key: 'pause',
  })
}

function nodePanel(state: State, acts: Acts, { bodies, id }: Panel): Child[] {
  const [about, holds] = bodies as [Overview, LeaseList]
  const node = about.nodes.items.find((each) => each.id === id)
  if (!node) return [h('p', 'There is no such node.')]
  const labels = Object.entries(node.labels)
  const [action, label, order] = nodeActions[node.state]
  const fair = node.fairSlotCount > 0 ? ` (${node.fairSlotCount} would be its fair share)` : ''
  return [
    badge(markOfNode(node)),
    actions([offer(state, acts, action, label, () => order(node))]),
    facts([
      ['Cluster', h('bdi', node.cluster)],
      ['Last heartbeat', when(state, node.heartbeatAt)],
      ['Declared gone after', span(node.ttlMs)],
      ['Started', dateOf(node.startedAt, state.utc)],
      ...(node.goneAt ? [['Gone since', dateOf(node.goneAt, state.utc)] as const] : []),
      ['Version', node.version ?? '—'],
      ['Shares and partitions', `${grouped(node.slotCount)}${fair}`],
      ['Watcher', node.watcher ? 'yes' : 'no'],
      ['Id', h('span.mono', node.id)],
      ...labels.slice(0, 20).map(([name, value]): Fact => [name, h('bdi', value)]),
    ]),
    h('h3', `Holds ${grouped(holds.total)}`),
    slotTable(state, acts, holds, false),
    h('h3', 'Candidate for'),
    h(
      'ul.chips',
      ...node.workers.slice(0, 50).map((key) => h('li', { key }, thingLink(state, key, { class: 'chip' }))),
    ),
  ]
}

const nodeActions = {
  active: ['drain', 'Drain…', drain],
  draining: ['drain', 'End the drain…', undrain],
  gone: ['forget', 'Remove…', forget],
} as const

function assignmentPanel(state: State, acts: Acts, { bodies, id }: Panel): Child[] {
  const [about, parts] = bodies as [Overview, LeaseList]
  const assignment = about.assignments.items.find((each) => each.worker === id)
  if (!assignment) return [h('p', 'There is no such worker.')]
  const { kind, slots, generation, paused, pause, candidateCount } = assignment
  return [
    actions([pauseButton(state, acts, id, paused)]),
    paused &&
      h(
        'p.notice.move',
        icon('pause'),
        h(
          'span',
          'It is paused: nobody runs it until it is resumed.',
          pause && [
            ' ',
            h('bdi', pause.actor),
            ` paused it at ${dateOf(pause.since, state.utc)}: “`,
            h('bdi', pause.reason),
            '”.',
          ],
        ),
      ),
    facts([
      ['Kind', kind],
      [kind === 'partitioned' ? 'Partitions' : 'Shares', `${grouped(slots)}: ${ownership(assignment)}`],
      ['Plan', generation || '—'],
      ['Candidates', grouped(candidateCount)],
    ]),
    slotTable(state, acts, parts, paused, slots),
  ]
}

/** @param slots the number of leases in use; by default all are. */
function slotTable(
  state: State,
  acts: Acts,
  { items, total }: LeaseList,
  paused: boolean,
  slots = Infinity,
): Child[] {
  return [
    items.length > 0 &&
      table(
        'slots',
        [['Lease'], ['State', 'state'], ['Node'], ['Since', 'since']],
        items.map((lease) =>
          h(
            'tr',
            { key: lease.key },
            h('th', { scope: 'row' }, keyLink('lease', lease.key)),
            h(
              'td.state',
              badge(
                markOfLease({
                  ...lease,
                  session: null,
                  paused,
                  inUse: lease.slot < slots,
                  candidateCount: 1,
                }),
              ),
            ),
            h('td', nodeLink(state, lease.holder ?? lease.target)),
            h('td', lease.acquiredAt && lease.holder ? when(state, lease.acquiredAt) : '—'),
          ),
        ),
      ),
    moreOf('slots', items.length, total, acts, 'leases'),
  ]
}
