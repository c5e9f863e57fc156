/** What all views are given, and the small things they are made of. */
import { type Child, h, icon, type Props, type VNode } from './dom.js'
import {
  type Action,
  ago,
  dateOf,
  type EventFilter,
  grouped,
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

/** How current the page is. All countdowns stop where nothing comes that they could be checked by. */
export type Freshness =
  | 'loading'
  | 'live'
  /** Somebody is marking text: nothing is redrawn beneath it. */
  | 'held'
  /** Nor beneath an open dialog. */
  | 'asking'
  /** The latest answer is old, and the next one has not come yet. */
  | 'catching-up'
  | 'paused'
  | 'hidden'
  | 'away'
  | 'database'
  | 'signed-out'
  | 'refused'

/** Whether answers come, though they may not be drawn. */
export function isCurrent(freshness: Freshness): boolean {
  return ['live', 'held', 'asking'].includes(freshness)
}

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
export interface Panel extends Place {
  /** In the order in which the kind of panel wants them. */
  readonly bodies: readonly unknown[]
  /** Set when there is no such thing, or it could not be read. */
  readonly missing?: string
}

/** What views can ask for. */
export interface Acts {
  set(change: Partial<Pick<State, 'filter' | 'eventFilter' | 'utc' | 'theme'>>): void
  more(section: Section): Promise<void>
  pause(): void
  retry(): void
  /** @param order is made anew whenever it is drawn: what it tells may have changed since. */
  open(order: (state: State) => Order): void
}

/** A question to be answered before something is done, and what is sent then. */
export interface Order {
  readonly title: string
  readonly facts?: readonly Fact[]
  /** What the person should have understood. */
  readonly notes: readonly Child[]
  /** To be typed, so that nothing healthy is ended by a slip. */
  readonly typed?: string | undefined
  /** One of these is to be chosen. */
  readonly nodes?: readonly NodeRef[] | undefined
  readonly submit: string
  /** It ends something by force. */
  readonly danger?: boolean
  /** What is withdrawn needs no reason. */
  readonly method: 'POST' | 'PUT' | 'DELETE'
  readonly path: string
  /** The one it is about. */
  readonly token?: number
  /** What to say when it was done, above what the server says. */
  readonly done: string
  /** What to say besides once nobody is waited for any more. */
  readonly afterwards?: string
  /** What to say when it was not. */
  readonly refused?: string
}

export type Fact = readonly [label: string, value: Child]

export function badge(mark: Mark, props: Props = {}): VNode {
  return h('span', { class: `badge ${mark.tone}`, ...props }, icon(mark.icon), h('span.word', mark.word))
}

export function addressOf({ kind, id }: Place): string {
  return `#/${kind}/${kind === 'node' ? encodeURIComponent(id) : keyInPath(id)}`
}

export function keyLink(kind: Place['kind'], key: string, props?: Props): VNode {
  return h('a', { href: addressOf({ kind, id: key }), title: key, ...props }, named(key))
}

/** What an event or a problem is about: a link where there is something to be seen. */
export function thingLink(
  state: State,
  subject: string,
  props?: Props,
  name = nameOf(state, subject),
): Child {
  if (subject.includes('/')) {
    const shared = state.overview?.assignments.items.some((each) => each.worker === subject)
    return keyLink(shared ? 'assignment' : 'lease', subject, props)
  }
  return subject === 'database' ? subject : nodeLink(state, { id: subject, name })
}

/** A key, whose scope matters less than the rest. */
function named(key: string): VNode {
  const slash = key.indexOf('/') + 1
  return h('bdi', h('span.scope', key.slice(0, slash)), key.slice(slash))
}

/** The id of the node that is open; empty when none is. */
export function selectedNode({ place }: State): string {
  return place?.kind === 'node' ? place.id : ''
}

export function nodeLink(state: State, node: Pick<NodeRef, 'id' | 'name'> | null): Child {
  if (!node) return h('span.muted', '—')
  return h(
    'a',
    {
      class: selectedNode(state) === node.id ? 'mono sel' : 'mono',
      href: addressOf({ kind: 'node', id: node.id }),
      title: node.name,
    },
    h('bdi', node.name),
  )
}

/** The name of a node where it is on the roster; everything else is called as it is. */
export function nameOf({ overview }: Pick<State, 'overview'>, id: string): string {
  return overview?.roster.names[overview.roster.ids.indexOf(id)] ?? id
}

export function when(state: Pick<State, 'nowMs' | 'utc'>, at: string): VNode {
  return h('time', { datetime: at, title: dateOf(at, state.utc) }, ago(state.nowMs - Date.parse(at)))
}

export function button(text: Child, onclick: () => void, props: Props = {}): VNode {
  return h('button', { type: 'button', onclick, ...props }, text)
}

export function facts(list: readonly Fact[]): VNode {
  return h('dl.facts', ...list.map(([label, value]) => h('div', h('dt', label), h('dd', value))))
}

export function moreButton(section: Section, acts: Acts, note?: string): VNode {
  return h(
    'p.foot',
    button('Show more', () => void acts.more(section)),
    h('span.muted', note),
  )
}

export function moreOf(section: Section, shown: number, total: number, what: string, acts: Acts): Child {
  if (total <= shown) return false
  const rest = `${grouped(total - shown)} more ${what}`
  return shown >= 500
    ? h('p.foot.muted', `${rest}: narrow them down with the filter`)
    : moreButton(section, acts, rest)
}

export type Column = readonly [name: Child, kind?: string]

export function table(kind: string, columns: readonly Column[], rows: readonly VNode[]): VNode {
  const heads = columns.map(([name, kind]) => h('th', { scope: 'col', class: kind }, name))
  return h(`table.${kind}`, h('thead', h('tr', ...heads)), h('tbody', ...rows))
}

export function may(state: State, action: Action): boolean {
  return (
    state.overview?.capabilities[action] === true &&
    !['signed-out', 'away', 'database', 'refused'].includes(state.freshness)
  )
}

/** A bar of so much; the words beside it say the same. */
export function bar(part: number, tone: string, tick?: number): VNode {
  const mark = (at: number, kind?: string): VNode =>
    h('i', { class: kind, '--at': `${Math.round(100 * Math.min(1, Math.max(0, at)))}%` })
  return h(
    'span',
    { class: `bar ${tone}`, 'aria-hidden': 'true' },
    mark(part),
    tick !== undefined && mark(tick, 'tick'),
  )
}

/**
 * Many things, each as a square. They are drawn anew only when the stamp is another.
 *
 * @param look class and title of one.
 * @param place what is opened when it is clicked.
 */
export function squares<Item>(
  kind: string,
  label: string,
  stamp: string,
  items: readonly Item[],
  look: (item: Item, at: number) => readonly [kind: string, title: string],
  place: (item: Item) => Place,
): VNode {
  const onclick = ({ currentTarget, target }: MouseEvent): void => {
    const item = items[[...(currentTarget as Element).children].indexOf(target as Element)]
    if (item !== undefined) location.hash = addressOf(place(item))
  }
  return h(
    'div',
    {
      class: `${kind}${items.length > 250 ? ' small' : ''}`,
      role: 'img',
      'aria-label': label,
      stamp,
      onclick,
    },
    () =>
      items.map((item, at) => {
        const [kind, title] = look(item, at)
        return h('i', { class: `cell ${kind}`, title })
      }),
  )
}
