/** What all views are given, and the small things they are made of. */
import { type Child, h, icon, type Props, type VNode } from './dom.js'
import {
  type Action,
  ago,
  dateOf,
  type EventFilter,
  type Happening,
  keyInPath,
  type Mark,
  type NodeRef,
  type Overview,
} from './model.js'

/** What a panel is about, as the hash of the address says. */
export interface Place {
  readonly kind: 'lease' | 'node' | 'assignment'
  /** A key, or the id of a node. */
  readonly id: string
}

/** How current the page is. Anything but `live` stops all countdowns. */
export type Freshness =
  | 'loading'
  | 'live'
  /** Somebody is marking text: nothing is redrawn beneath it. */
  | 'held'
  | 'paused'
  | 'hidden'
  | 'away'
  | 'database'
  | 'signed-out'

/** Everything a view is made from. */
export interface State {
  readonly overview: Overview | undefined
  /** Newest first. */
  readonly events: readonly Happening[]
  /** Before this there may be events that are not known here. */
  readonly horizonMs: number
  readonly freshness: Freshness
  /** Why, where the server has said something about it. */
  readonly trouble: string
  /** By the database's clock; stands still while the page is not current. */
  readonly nowMs: number
  /** When the latest answer came, by the database's clock. */
  readonly asOfMs: number
  readonly clockJumpMs: number
  readonly clockAheadMs: number
  readonly filter: string
  readonly rows: Readonly<Record<Section, number>>
  readonly eventFilter: EventFilter
  readonly place: Place | undefined
  readonly panel: Panel | undefined
  readonly utc: boolean
  readonly theme: 'system' | 'light' | 'dark'
}

/** The same, once there is something to show. */
export interface Loaded extends State {
  readonly overview: Overview
}

export type Section = 'leases' | 'nodes' | 'assignments' | 'events' | 'problems' | 'slots'

/** What has been read for the panel. */
export interface Panel {
  readonly of: string
  readonly bodies: Readonly<Record<string, unknown>>
  /** Set when there is no such thing, or it could not be read. */
  readonly missing?: string
}

/** What views can ask for. */
export interface Acts {
  set(change: Partial<Pick<State, 'filter' | 'eventFilter' | 'utc' | 'theme'>>): void
  more(section: Section): void
  pause(): void
  retry(): void
  open(order: Order): void
}

/** A question to be answered with a reason, before something is done. */
export interface Order {
  readonly title: string
  readonly facts?: readonly Fact[]
  /** What the person should have understood. */
  readonly notes: readonly (readonly [text: string, tone?: 'bad' | 'warn'] | false)[]
  /** To be typed, so that nothing healthy is ended by a slip. */
  readonly typed?: string | undefined
  /** One of these is to be chosen. */
  readonly nodes?: readonly NodeRef[] | undefined
  /** Some things need no reason. */
  readonly reason: boolean
  readonly submit: string
  /** It ends something by force. */
  readonly danger?: boolean
  /** @throws ApiError */
  readonly run: (reason: string, node: string) => Promise<Outcome>
  /** What to say when it was about how things were before. */
  readonly refused: string
}

export interface Outcome {
  readonly title: string
  readonly lines: readonly string[]
  /** It was not done, or nobody knows. */
  readonly failed?: boolean
  /** Counted down to, by the database's clock. */
  readonly safeAtMs?: number | undefined
}

export type Fact = readonly [label: string, value: Child]

export function badge(mark: Mark, props: Props = {}): VNode {
  return h('span', { class: `badge ${mark.tone}`, ...props }, icon(mark.icon), h('span.word', mark.word))
}

export function addressOf({ kind, id }: Place): string {
  return `#/${kind}/${kind === 'node' ? encodeURIComponent(id) : keyInPath(id)}`
}

export function leaseLink(key: string, props?: Props): VNode {
  return keyLink('lease', key, props)
}

export function assignmentLink(key: string, props?: Props): VNode {
  return keyLink('assignment', key, props)
}

function keyLink(kind: Place['kind'], key: string, props?: Props): VNode {
  return h('a', { href: addressOf({ kind, id: key }), ...props }, named(key))
}

/** What an event or a problem is about: a link where there is something to be seen. */
export function thingLink(state: State, subject: string, props?: Props): Child {
  if (subject.includes('/')) {
    const shared = state.overview?.assignments.items.some((each) => each.worker === subject)
    return keyLink(shared ? 'assignment' : 'lease', subject, props)
  }
  return subject === 'database' ? subject : nodeLink(state, { id: subject, name: namer(state)(subject) })
}

/** A key, whose scope matters less than the rest. */
function named(key: string): VNode {
  const slash = key.indexOf('/') + 1
  return h('bdi', h('span.scope', key.slice(0, slash)), key.slice(slash))
}

export function nodeLink({ place }: Pick<State, 'place'>, node: Pick<NodeRef, 'id' | 'name'> | null): Child {
  if (!node) return h('span.muted', '—')
  const selected = place?.kind === 'node' && place.id === node.id
  return h(
    'a',
    { class: selected ? 'mono sel' : 'mono', href: addressOf({ kind: 'node', id: node.id }) },
    h('bdi', node.name),
  )
}

/** The name of a node by its id, as far as it is known here. */
export function namer({ overview, events }: Pick<State, 'overview' | 'events'>): (id: string) => string {
  const roster = overview?.roster
  const made = namers.get(events)
  if (made && made.roster === roster) return made.name
  const names = new Map(roster?.ids.map((id, place) => [id, roster.names[place] ?? id]))
  for (const { subject, type, detail } of events)
    if (type === 'node.joined' && !names.has(subject)) names.set(subject, String(detail?.name ?? subject))
  const name = (id: string): string => names.get(id) ?? id.slice(0, 8)
  namers.set(events, { roster, name })
  return name
}

/** Thousands of names are not sorted out anew for every line. */
const namers = new WeakMap<object, { roster: Overview['roster'] | undefined; name: (id: string) => string }>()

export function when(state: Pick<State, 'nowMs' | 'utc'>, at: string): VNode {
  return h('time', { datetime: at, title: dateOf(at, state.utc) }, ago(state.nowMs - Date.parse(at)))
}

export function button(text: Child, onclick: () => void, props: Props = {}): VNode {
  return h('button', { type: 'button', onclick, ...props }, text)
}

export function facts(list: readonly Fact[]): VNode {
  return h('dl.facts', ...list.map(([label, value]) => h('div', h('dt', label), h('dd', value))))
}

export function table(kind: string, columns: readonly VNode[], rows: readonly VNode[]): VNode {
  return h(`table.${kind}`, h('thead', h('tr', ...columns)), h('tbody', ...rows))
}

export function column(name: Child, props: Props = {}): VNode {
  return h('th', { scope: 'col', ...props }, name)
}

export function may(state: State, action: Action): boolean {
  return (
    state.overview?.capabilities[action] === true &&
    !['signed-out', 'away', 'database', 'loading'].includes(state.freshness)
  )
}

/** A bar of so much; the words beside it say the same. */
export function bar(part: number, tone: string, tick?: number): VNode {
  const fill = `${Math.round(100 * Math.min(1, Math.max(0, part)))}%`
  const mark =
    tick === undefined ? false : h('i', { class: 'tick', '--at': `${Math.round(100 * Math.min(1, tick))}%` })
  return h('span', { class: `bar ${tone}`, 'aria-hidden': 'true' }, h('i', { '--at': fill }), mark)
}

/** Which of the things in a drawing has been clicked. */
export function clicked(event: MouseEvent): number {
  return [...(event.currentTarget as Element).children].indexOf(event.target as Element)
}
