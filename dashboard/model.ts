/**
 * Meanings and names of what the page shows. Pure: from the server's responses and the time by the database's clock.
 */
import type { Icon } from './icons.js'

export interface NodeRef {
  readonly id: string
  readonly name: string
  readonly cluster: string
}

export type Pulse = 'steady' | 'late' | 'silent'

/** An item of `GET /leases`. */
export interface LeaseItem {
  readonly key: string
  readonly worker: string | null
  readonly slot: number
  readonly state: 'held' | 'moving' | 'blocked' | 'unclaimed' | 'free'
  readonly holder: NodeRef | null
  readonly target: NodeRef | null
  readonly token: number
  readonly acquiredAt: string | null
  readonly blockedNode: NodeRef | null
  readonly waiting: number
  readonly cooldown: { readonly node: NodeRef | null; readonly until: string } | null
}

/** A lease with everything that is known about it. */
export interface Lease extends LeaseItem {
  readonly kind: string | null
  readonly paused: boolean
  /** False for a share of an older plan. */
  readonly inUse: boolean
  readonly candidateCount: number
  readonly schedule: {
    readonly cron: string
    readonly timeZone: string
    readonly lastFireAt: string | null
    readonly nextFireAt: string | null
  } | null
  readonly session: { readonly pulse: Pulse; readonly ttlMs: number; readonly heartbeatAt: string } | null
}

export interface CoordinationNode extends NodeRef {
  readonly state: 'active' | 'draining' | 'gone'
  readonly workers: readonly string[]
  readonly labels: Readonly<Record<string, string>>
  readonly version: string | null
  readonly startedAt: string
  readonly heartbeatAt: string
  readonly goneAt: string | null
  readonly watcher: boolean
  readonly ttlMs: number
  readonly pulse: Pulse
  readonly leads: readonly string[]
  readonly leadCount: number
  readonly slotCount: number
  readonly fairSlotCount: number
}

export interface Assignment {
  readonly worker: string
  readonly kind: string
  readonly generation: number
  readonly slots: number
  readonly owned: number
  readonly moving: number
  readonly unowned: number
  readonly owners: number
  readonly least: number
  readonly most: number
  readonly paused: boolean
  readonly pause: {
    readonly since: string
    readonly actor: string | null
    readonly reason: string | null
  } | null
  readonly candidateCount: number
  readonly map: { readonly states: string; readonly owners: readonly number[] } | null
}

export interface Problem {
  readonly code: string
  readonly severity: 'error' | 'warning' | 'info'
  readonly subject: string
  readonly sentence: string
  /** The lease that is the subject, if it is one. */
  readonly lease: Lease | null
  /** Whether the subject is a worker that may be removed. */
  readonly forgettable: boolean
  /** Number of further problems with this code that are not listed. */
  readonly more: number
}

export type Action = 'release' | 'drain' | 'pause' | 'rebalance' | 'forget'

/** `GET /overview`. */
export interface Overview {
  readonly now: string
  readonly revision: number
  readonly namespace: string
  /** The node that has answered. */
  readonly self: { readonly id: string | null; readonly name: string; readonly cluster: string }
  readonly counts: {
    readonly nodes: Readonly<Record<'active' | 'draining' | 'silent' | 'gone', number>>
    readonly workers: Readonly<Record<'running' | 'paused', number>>
    readonly leases: Readonly<Record<Lease['state'] | 'silent', number>>
  }
  readonly problems: readonly Problem[]
  readonly problemCounts: Readonly<Record<Problem['severity'], number>>
  readonly problemCodes: readonly { readonly code: string; readonly count: number }[]
  readonly capabilities: Readonly<Record<Action | 'read', boolean>> & {
    readonly actor: { readonly id: string; readonly display?: string } | null
  }
  readonly timing: Readonly<Record<string, number>>
  readonly totals: Readonly<Record<'leases' | 'held' | 'slots' | 'owned', number>>
  readonly roster: {
    readonly ids: readonly string[]
    readonly names: readonly string[]
    readonly states: string
  }
  readonly versions: readonly { readonly version: string; readonly count: number }[]
  readonly nodes: Rows<CoordinationNode>
  readonly leases: Rows<Lease>
  readonly assignments: Rows<Assignment>
}

export interface Rows<Item> {
  readonly items: readonly Item[]
  readonly total: number
}

/** An item of `GET /events`. */
export interface Happening {
  readonly id: string
  readonly at: string
  readonly type: string
  readonly subject: string
  readonly node: string | null
  readonly nodeName: string | null
  readonly token: number | null
  readonly actor: string | null
  readonly reason: string | null
  readonly sentence: string
}

/** `GET /events`. */
export interface EventPage {
  readonly items: readonly Happening[]
  readonly next: string | null
}

/** `GET /leases/{key}/explain`. */
export interface Explanation {
  readonly lease: Lease
  readonly reasons: readonly { readonly code: string; readonly sentence: string }[]
  readonly candidates: readonly { readonly node: NodeRef; readonly obstacles: readonly string[] }[]
}

/** `GET /leases/{key}/history`. */
export interface History {
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
      /** False if it was taken from a holder that has not said that it has stopped. */
      readonly acknowledged: boolean | null
    } | null
  }[]
}

/** `GET /leases`. */
export type LeaseList = Rows<LeaseItem>

/** The fields of the response to an intervention that are shown. It is empty when there is nothing to report. */
export interface Answer {
  readonly sentence?: string
  readonly released?: boolean
  readonly acknowledged?: boolean
  readonly safeAt?: string
}

/** A refusal, as an HTTP problem. */
export interface Refusal {
  readonly type: string
  readonly detail: string
  readonly worker?: string
}

/** How a state looks: never by colour alone. */
export interface Mark {
  readonly icon: Icon
  readonly word: string
  readonly tone: Tone
}

export type Tone = 'calm' | 'bad' | 'warn' | 'move' | 'off' | 'lack'

export function markOfLease({
  key,
  state,
  paused,
  inUse,
  session,
  worker,
  candidateCount,
}: Pick<Lease, 'key' | 'state' | 'paused' | 'inUse' | 'session' | 'worker' | 'candidateCount'>): Mark {
  if (state === 'held' || state === 'moving') {
    if (session?.pulse === 'silent') return mark('alert', 'holder silent', 'bad')
    if (session?.pulse === 'late') return mark('clock', 'heartbeat late', 'warn')
    return state === 'held' ? mark('check', 'held', 'calm') : mark('move', 'handing over', 'move')
  }
  if (state === 'blocked') return mark('block', 'stopping', 'warn')
  if (!inUse) return mark('free', 'not in use', 'off')
  if (paused) return mark('pause', 'paused', 'move')
  if (state === 'unclaimed') return mark('clock', 'unclaimed', 'warn')
  if (!worker) return mark('free', 'free', 'off')
  return mark('none', worker === key ? 'no leader' : 'no owner', candidateCount === 0 ? 'bad' : 'warn')
}

/** Meaning of the letters of a map: nodes, then shares and partitions. */
const letters: Readonly<Record<string, Mark>> = {
  g: mark('close', 'gone', 'off'),
  s: mark('alert', 'silent', 'bad'),
  l: mark('clock', 'late', 'warn'),
  d: mark('down', 'draining', 'move'),
  a: mark('check', 'alive', 'calm'),
  o: mark('check', 'owned', 'calm'),
  m: mark('move', 'moving', 'move'),
  u: mark('none', 'no owner', 'lack'),
}

export function markOfLetter(letter = 'a'): Mark {
  return letters[letter] ?? mark('ring', letter, 'off')
}

export function markOfNode({ state, pulse }: Pick<CoordinationNode, 'state' | 'pulse'>): Mark {
  if (state === 'gone') return markOfLetter('g')
  if (pulse !== 'steady') return markOfLetter(pulse.charAt(0))
  return markOfLetter(state.charAt(0))
}

export function mark(icon: Icon, word: string, tone: Tone): Mark {
  return { icon, word, tone }
}

export function markOfAssignment({ slots, unowned, moving, paused }: Assignment): Mark {
  if (paused) return mark('pause', 'paused', 'move')
  if (slots === 0) return mark('none', 'nobody', 'bad')
  if (unowned > 0) return mark('none', `${grouped(unowned)} without owner`, 'bad')
  if (moving > 0) return mark('move', `${grouped(moving)} moving`, 'move')
  return mark('check', 'all owned', 'calm')
}

const severityMarks = {
  error: ['alert', 'bad'],
  warning: ['clock', 'warn'],
  info: ['ring', 'move'],
} as const

const problemWords: Readonly<Record<string, readonly [icon: Icon, word?: string]>> = {
  'node-draining': ['down', 'draining'],
  'worker-without-candidates': ['none', 'no candidate'],
  'worker-paused': ['pause', 'paused'],
  'lease-unclaimed': ['none', 'unclaimed'],
  'lease-blocked': ['block', 'stopping'],
  'lease-moving': ['move', 'handover slow'],
}

export function markOfProblem({ code, severity }: Problem): Mark {
  const [icon, tone] = severityMarks[severity]
  const [own, word = wordOf(code)] = problemWords[code] ?? [icon]
  return mark(own, word, tone)
}

function wordOf(name: string): string {
  return name.replaceAll('-', ' ')
}

/** Sums up the namespace in a few words. Paused workers are intended, but must not be forgotten. */
export function verdictOf(
  {
    problemCounts,
    problemCodes = [],
    counts,
  }: Pick<Overview, 'problemCounts'> &
    Partial<Pick<Overview, 'problemCodes'>> & { counts: Pick<Overview['counts'], 'workers'> },
  news: News | undefined,
): Mark {
  const { error, warning } = problemCounts
  const { paused, running } = counts.workers
  const idle = problemCodes.find(({ code }) => code === 'worker-without-candidates')?.count ?? 0
  const nothing = idle > 0 && idle >= running
  const parts = [
    nothing && 'Nothing runs',
    error > 0 && counted(error, 'problem'),
    warning > 0 && counted(warning, 'warning'),
  ]
  if (parts.some(Boolean))
    return mark('alert', parts.filter(Boolean).join(', '), error > 0 || nothing ? 'bad' : 'warn')
  const word = news ? 'All well again' : 'All well'
  return mark('check', paused > 0 ? `${word}, ${grouped(paused)} paused` : word, 'calm')
}

/** Nodes that were declared gone recently, and what became of their leases. */
export interface News {
  /** The latest first. */
  readonly names: readonly string[]
  /** Whether nodes of all these names have joined again. */
  readonly back: boolean
  /** When the latest one was declared gone. */
  readonly atMs: number
  readonly lost: number
  readonly moved: number
}

const newsForMs = 300_000

/**
 * Returns the deaths of the last five minutes.
 *
 * @param events newest first.
 */
export function newsOf(events: readonly Happening[], nowMs: number): News | undefined {
  const deaths = events.filter(
    (each) => each.type === 'node.gone' && nowMs - Date.parse(each.at) <= newsForMs,
  )
  const [latest] = deaths
  if (!latest) return undefined
  const dead = new Set<string | null>(deaths.map(({ subject }) => subject))
  const lost = events.filter((each) => each.type === 'lease.lost' && dead.has(each.node))
  const isTaken = ({ id, subject }: Happening): boolean =>
    events.some(
      (later) => later.type === 'lease.acquired' && later.subject === subject && isAfter(later.id, id),
    )
  const isBack = ({ id, nodeName }: Happening): boolean =>
    nodeName !== null &&
    events.some((each) => each.type === 'node.joined' && each.nodeName === nodeName && isAfter(each.id, id))
  return {
    names: [...new Set(deaths.map(({ nodeName, subject }) => nodeName ?? subject))],
    back: deaths.every(isBack),
    atMs: Date.parse(latest.at),
    lost: lost.length,
    moved: lost.filter(isTaken).length,
  }
}

/** @param when time of the latest death as text, where it is to be mentioned. */
export function sentenceOfNews({ names, back, lost, moved }: News, when = ''): string {
  const held = counted(lost, 'lease')
  const [name] = names
  const alone = names.length === 1
  const they = alone ? 'it' : 'they'
  const fate =
    lost === 0
      ? `${they} held nothing`
      : moved === lost
        ? `all ${they} held has moved (${held})`
        : `${moved} of the ${held} ${they} held have moved so far`
  if (alone) return `${name} was declared gone${when}${back ? ', and is back' : ''}: ${fate}.`
  const some = names.slice(0, 5).join(', ')
  const listed = names.length > 5 ? `${some} and ${grouped(names.length - 5)} more` : some
  return `${counted(names.length, 'node')} were declared gone${back ? ', and are back' : ''} (${listed})${when && `, the last${when}`}: ${fate}.`
}

/** Returns whether the first place in the audit trail comes after the second. */
export function isAfter(a: string, b: string): boolean {
  const [revision = 0, position = 0] = a.split('-').map(Number)
  const [otherRevision = 0, otherPosition = 0] = b.split('-').map(Number)
  return revision - otherRevision > 0 || (revision === otherRevision && position > otherPosition)
}

const mostKept = 1_000

/** Merges two lists of events into one, newest first, without duplicates. The oldest of too many are dropped. */
export function merged(
  a: readonly Happening[],
  b: readonly Happening[],
  most: number = mostKept,
): Happening[] {
  const byId = new Map([...a, ...b].map((event) => [event.id, event]))
  return [...byId.values()].sort((x, y) => (isAfter(x.id, y.id) ? -1 : 1)).slice(0, most)
}

/** Returns from when on a list of {@link merged} is complete, in ms: it drops the oldest events when there are too many. */
export function horizonOf(kept: readonly Happening[], horizonMs: number): number {
  return kept.length < mostKept ? horizonMs : Math.max(horizonMs, Date.parse(kept.at(-1)?.at ?? ''))
}

/** Icon, tone and word of an event, by its type or the end of its type, which is also the default word. */
const happenings: Readonly<Record<string, readonly [icon: Icon, tone?: Tone, word?: string]>> = {
  acquired: ['star'],
  released: ['free'],
  revoked: ['block', 'warn'],
  acknowledged: ['check', 'off', 'stopped'],
  lost: ['close', 'bad'],
  transferred: ['move', 'move', 'step down'],
  joined: ['plus'],
  left: ['move'],
  gone: ['close', 'bad'],
  draining: ['down', 'move'],
  resumed: ['play'],
  forgotten: ['close'],
  paused: ['pause', 'move'],
  rebalanced: ['move', 'move'],
  changed: ['move', 'move'],
  'passed-over': ['none', 'warn'],
  'server.changed': ['alert', 'warn'],
}

export function markOfEvent({ type }: Happening): Mark {
  const end = type.replace(/.*\./, '')
  const [icon, tone = 'off', word = wordOf(end)] = happenings[type] ?? happenings[end] ?? ['ring']
  return mark(icon, word, tone)
}

/** The filters for events, by prefixes of their types. */
export const eventFilters = {
  All: '',
  Leases: 'lease.',
  Nodes: 'node.',
  Assignments: 'assignment.,worker.rebalanced,target.',
  'By people': 'lease.revoked,lease.transferred,node.draining,node.resumed,node.forgotten,worker.',
} as const

export type EventFilter = keyof typeof eventFilters

export function passes(filter: EventFilter, event: Happening): boolean {
  const types = eventFilters[filter].split(',')
  return types.some((type) => event.type.startsWith(type)) && (filter !== 'By people' || event.actor !== null)
}

/** Returns whether an event of this type ends a term. */
export function isEnd(type: string): boolean {
  return /lost|released|revoked/.test(type)
}

/** Returns the person who asked for something. A node that declares another one gone is no person. */
export function personIn({ actor, type }: Happening): string | null {
  return type === 'node.gone' ? null : actor
}

/** Returns the words for a reason of the engine, which names no person with it; undefined for what a person wrote. */
export function wordsOfReason(reason: string, person: string | null): string | undefined {
  if (person !== null) return undefined
  return reason === 'passes-failed' ? 'its passes failed' : wordOf(reason)
}

/** The time of one holder on a lane of 15 minutes, in thousandths of the lane. */
export interface Span {
  readonly from: number
  readonly to: number
  readonly node: string | null
}

export const laneMs = 900_000

/** Minimum width, so that a new holder is visible. */
const narrowest = 2

/**
 * Returns the holders of a lease, the present one first, and the place from which anything is known about it.
 *
 * @param events newest first, at least those of this lease.
 */
export function laneOf(
  { key, holder, token, acquiredAt }: Lease,
  events: readonly Happening[],
  nowMs: number,
): { spans: Span[]; knownFrom: number } {
  const placeOf = (at: string): number =>
    Math.round(1_000 * Math.max(0, 1 - (nowMs - Date.parse(at)) / laneMs))
  const spans: Span[] = []
  let end = 1_000
  if (holder) {
    end = Math.min(end - narrowest, acquiredAt ? placeOf(acquiredAt) : end)
    spans.push({ from: end, to: 1_000, node: holder.id })
  }
  let knownFrom = end
  for (const event of events) {
    if (event.subject !== key || !event.type.startsWith('lease.')) continue
    const place = placeOf(event.at)
    knownFrom = Math.min(knownFrom, place)
    if (holder && event.token === token) continue
    if (event.type === 'lease.acquired' && end > place) spans.push({ from: place, to: end, node: event.node })
    if (event.type === 'lease.acquired' || isEnd(event.type)) end = Math.min(end, place)
  }
  return { spans, knownFrom }
}

/** How far a plan has been carried out. */
export function ownership(assignment: Assignment): string {
  return `${grouped(assignment.owned)} owned, ${grouped(assignment.moving)} moving, ${grouped(assignment.unowned)} without owner`
}

/** One cell of an assignment's map. It covers several slots when there would otherwise be too many cells. */
export interface Cell {
  readonly from: number
  readonly to: number
  /** The worst state of its slots: u(nowned), m(oving), o(wned). */
  readonly state: string
  readonly owners: readonly number[]
  /** Whether another owner begins here, which is drawn as a wider gap. */
  readonly gap: boolean
}

const mostCells = 512

export function cellsOf({ states, owners }: NonNullable<Assignment['map']>): Cell[] {
  const size = Math.ceil(states.length / mostCells)
  const cells: Cell[] = []
  for (let from = 0; from < states.length; from += size) {
    const part = states.slice(from, from + size)
    const own = owners.slice(from, from + size)
    const state = ['u', 'm'].find((letter) => part.includes(letter)) ?? 'o'
    const gap = size === 1 && from > 0 && owners[from] !== owners[from - 1]
    cells.push({ from, to: from + part.length - 1, state, owners: own, gap })
  }
  return cells
}

/** Formats a duration: `4 s`, `3 min`, `5 h 12 min`, `3 d 4 h`. */
export function span(ms: number): string {
  const seconds = Math.floor(Math.max(0, ms) / 1_000)
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`
  const [size, unit, part, small] = seconds < 86_400 ? [3_600, 'h', 60, 'min'] : [86_400, 'd', 3_600, 'h']
  const rest = Math.floor((seconds % size) / part)
  return `${Math.floor(seconds / size)} ${unit}${rest === 0 ? '' : ` ${rest} ${small}`}`
}

export function ago(ms: number): string {
  return ms < 1_000 ? 'just now' : `${span(ms)} ago`
}

/** Returns how long a holder's session lasts without another heartbeat, as text and as a fraction of its ttl. */
export function timeLeft(
  { session }: Pick<Lease, 'session'>,
  nowMs: number,
): { text: string; part: number } | null {
  if (!session) return null
  const leftMs = Date.parse(session.heartbeatAt) + session.ttlMs - nowMs
  if (leftMs < 0) return { text: `over for ${span(-leftMs)}`, part: 0 }
  return { text: `${span(leftMs + 999)} left`, part: Math.min(1, leftMs / session.ttlMs) }
}

export function grouped(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ' ')
}

export function counted(count: number, what: string): string {
  return `${grouped(count)} ${what}${count === 1 ? '' : 's'}`
}

/** Returns a key in the form that it has in paths. */
export function keyInPath(key: string): string {
  return encodeURIComponent(key.replace('/', ':').replace('#', '~'))
}

/** Formats the time of day. */
export function timeOf(at: string | number, utc: boolean): string {
  return dateOf(at, utc).slice(11)
}

/** Formats a date and a time. */
export function dateOf(at: string | number, utc: boolean): string {
  const date = new Date(at)
  const offsetMs = utc ? 0 : 60_000 * date.getTimezoneOffset()
  return new Date(date.getTime() - offsetMs).toISOString().slice(0, 19).replace('T', ' ')
}
