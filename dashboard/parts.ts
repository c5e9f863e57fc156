/** What all views receive, and the small elements from which they are built. */
import { type Child, h, icon, type Props, type VNode } from './dom.js'
import {
  type Action,
  ago,
  dateOf,
  type EventFilter,
  grouped,
  type Happening,
  keyInPath,
  type Lease,
  type Mark,
  type NodeRef,
  type Overview,
  wordsOfReason,
} from './model.js'

/** The subject of the panel, from the fragment of the address. */
export interface Place {
  readonly kind: 'lease' | 'node' | 'assignment'
  /** A key, or the id of a node. */
  readonly id: string
}

/** How current the page is. All countdowns stop while no response arrives to check them against. */
export type Freshness =
  | 'loading'
  | 'live'
  /** The user is selecting text, so nothing beneath is redrawn. */
  | 'held'
  /** A dialog is open, so nothing beneath is redrawn. */
  | 'asking'
  /** The latest response is old and the next one has not arrived yet. */
  | 'catching-up'
  | 'paused'
  | 'hidden'
  | 'away'
  | 'database'
  | 'signed-out'
  | 'refused'

/** Returns whether responses arrive, even if they are not drawn at the moment. */
export function isCurrent(freshness: Freshness): boolean {
  return ['live', 'held', 'asking'].includes(freshness)
}

/** Everything from which views are built. */
export interface State {
  readonly overview: Overview | undefined
  /** Newest first. */
  readonly events: readonly Happening[]
  /** Events before this time may be missing from the list. */
  readonly horizonMs: number
  readonly freshness: Freshness
  /** What the server has said about the failure, if anything. */
  readonly trouble: string
  /** Time by the database's clock; stands still while the page is not current. */
  readonly nowMs: number
  /** Time of the latest response that the page shows, by the database's clock. */
  readonly asOfMs: number
  readonly clockJumpMs: number
  readonly clockAheadMs: number
  readonly filter: string
  readonly rows: Readonly<Record<Section, number>>
  readonly eventFilter: EventFilter
  readonly place: Place | undefined
  readonly panel: Panel | undefined
  /** The lease that the dialog is about, as it was read last. The overview need not list it. */
  readonly followed: Lease | undefined
  readonly utc: boolean
  /** As CSS has it: with both, the system chooses. */
  readonly theme: 'light dark' | 'light' | 'dark'
}

/** The state once there is something to show. */
export interface Loaded extends State {
  readonly overview: Overview
}

export type Section = 'leases' | 'nodes' | 'assignments' | 'events' | 'problems' | 'slots'

/** The data of the panel. */
export interface Panel extends Place {
  /** The responses, in the order in which this kind of panel expects them. */
  readonly bodies: readonly unknown[]
  /** Set when the subject does not exist or could not be read. */
  readonly missing?: string
}

/** The actions that views can trigger. */
export interface Acts {
  set(change: Partial<Pick<State, 'filter' | 'eventFilter' | 'utc' | 'theme'>>): void
  more(section: Section): Promise<void>
  pause(): void
  retry(): void
  /** @param order called at each drawing, because what it describes may have changed. */
  open(order: (state: State) => Order): void
}

/** A question to confirm before an action, and the request to send then. */
export interface Order {
  readonly title: string
  readonly facts?: readonly Fact[]
  /** What the user should understand first. */
  readonly notes: readonly Child[]
  /** Text that the user must type, so that nothing healthy is ended by a slip. */
  readonly typed?: string | undefined
  /** Nodes from which the user must choose one. */
  readonly nodes?: readonly NodeRef[] | undefined
  readonly submit: string
  /** The action ends something by force. */
  readonly danger?: boolean
  /** `DELETE` withdraws something and needs no reason. */
  readonly method: 'POST' | 'PUT' | 'DELETE'
  readonly path: string
  /** Token to which the action applies. */
  readonly token?: number
  /** Title when the action has been performed, shown above the server's sentence. */
  readonly done: string
  /** Additional text after the countdown. */
  readonly afterwards?: string
  /** Key of the lease whose next holder is told as well, once there is one. */
  readonly follows?: string
  /** Title when the action was not performed. */
  readonly refused?: string
}

export type Fact = readonly [label: string, value: Child]

/** Continues a sentence with a reason. What a person wrote is quoted. */
export function because(reason: string | null, person: string | null): Child {
  if (!reason) return false
  const words = wordsOfReason(reason, person)
  return words ? `: ${words}` : [': “', h('bdi', reason), '”']
}

export function badge(mark: Mark, props: Props = {}): VNode {
  return h('span', { class: `badge ${mark.tone}`, ...props }, icon(mark.icon), h('span.word', mark.word))
}

export function addressOf({ kind, id }: Place): string {
  return `#/${kind}/${keyInPath(id)}`
}

export function keyLink(kind: Place['kind'], key: string, props?: Props): VNode {
  return h('a', { href: addressOf({ kind, id: key }), title: key, ...props }, named(key))
}

/** Returns the subject of an event or a problem, as a link when there is a panel for it. */
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

/** The scope of a key matters less than its name. */
function named(key: string): VNode {
  const slash = key.indexOf('/') + 1
  return h('bdi', h('span.scope', key.slice(0, slash)), key.slice(slash))
}

/** Returns the id of the node whose panel is open; empty when none is. */
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

/** Returns the name of a node on the roster; any other id unchanged. */
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

export function moreOf(
  section: Section,
  shown: number,
  total: number,
  acts: Acts,
  what: string = section,
): Child {
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

/** A bar filled to this part; text beside it says the same. */
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
 * Draws many items as squares, anew only when the stamp changes.
 *
 * @param look returns class and title of an item.
 * @param place returns what a click on an item opens.
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
