/**
 * What things mean and how they are called: pure, from what the server answers and the time by the database's clock.
 */
import type { Icon } from './icons.js'

export interface NodeRef {
  readonly id: string
  readonly name: string
  readonly cluster: string
}

export type Pulse = 'steady' | 'late' | 'silent'

export interface Lease {
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
  readonly paused: boolean
  readonly candidateCount: number
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
  readonly candidateCount: number
  readonly map: { readonly states: string; readonly owners: readonly number[] } | null
}

export interface Problem {
  readonly code: string
  readonly severity: 'error' | 'warning' | 'info'
  readonly subject: string
  readonly sentence: string
}

export type Action = 'release' | 'drain' | 'pause' | 'rebalance' | 'forget'

/** `GET /overview`. */
export interface Overview {
  readonly now: string
  readonly revision: number
  readonly namespace: string
  readonly self: { readonly name: string; readonly cluster: string }
  readonly counts: {
    readonly nodes: Readonly<Record<'active' | 'draining' | 'gone', number>>
    readonly workers: Readonly<Record<'running' | 'paused', number>>
    readonly leases: Readonly<Record<Lease['state'], number>>
  }
  readonly problems: readonly Problem[]
  readonly problemCounts: Readonly<Record<Problem['severity'], number>>
  readonly problemCodes: readonly { readonly code: string; readonly count: number }[]
  readonly capabilities: Readonly<Record<Action, boolean>> & {
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
  readonly token: number | null
  readonly actor: string | null
  readonly reason: string | null
  readonly detail: Readonly<Record<string, unknown>> | null
}

/** How a state looks: never by colour alone. */
export interface Mark {
  readonly icon: Icon
  readonly word: string
  readonly tone: Tone
}

export type Tone = 'calm' | 'bad' | 'warn' | 'move' | 'off'

export function markOfLease({ key, state, paused, session, worker, candidateCount }: Lease): Mark {
  if (state === 'held' || state === 'moving') {
    if (session?.pulse === 'silent') return mark('alert', 'holder silent', 'bad')
    if (session?.pulse === 'late') return mark('clock', 'heartbeat late', 'warn')
    return state === 'held' ? mark('check', 'held', 'calm') : mark('move', 'handing over', 'move')
  }
  if (state === 'blocked') return mark('block', 'stopping', 'warn')
  if (paused) return mark('pause', 'paused', 'move')
  if (state === 'unclaimed') return mark('clock', 'unclaimed', 'warn')
  if (!worker) return mark('free', 'free', 'off')
  return mark('none', worker === key ? 'no leader' : 'no owner', candidateCount === 0 ? 'bad' : 'warn')
}

export function markOfNode({ state, pulse }: Pick<CoordinationNode, 'state' | 'pulse'>): Mark {
  if (state === 'gone') return mark('close', 'gone', 'off')
  if (pulse === 'silent') return mark('alert', 'silent', 'bad')
  if (pulse === 'late') return mark('clock', 'late', 'warn')
  return state === 'draining' ? mark('down', 'draining', 'move') : mark('check', 'alive', 'calm')
}

export function mark(icon: Icon, word: string, tone: Tone): Mark {
  return { icon, word, tone }
}

/** What a letter of the roster stands for. */
export const rosterMarks: Readonly<Record<string, Mark>> = {
  s: markOfNode({ state: 'active', pulse: 'silent' }),
  l: markOfNode({ state: 'active', pulse: 'late' }),
  d: markOfNode({ state: 'draining', pulse: 'steady' }),
  g: markOfNode({ state: 'gone', pulse: 'steady' }),
  a: markOfNode({ state: 'active', pulse: 'steady' }),
}

export function markOfAssignment({ unowned, moving, paused }: Assignment): Mark {
  if (paused) return mark('pause', 'paused', 'move')
  if (unowned > 0) return mark('none', `${grouped(unowned)} without owner`, 'bad')
  if (moving > 0) return mark('move', `${grouped(moving)} moving`, 'move')
  return mark('check', 'all owned', 'calm')
}

const severityMarks = {
  error: ['alert', 'bad'],
  warning: ['clock', 'warn'],
  info: ['info', 'move'],
} as const

const problemWords: Readonly<Record<string, readonly [word: string, icon?: Icon]>> = {
  'node-draining': ['draining', 'down'],
  'worker-without-candidates': ['no candidate', 'none'],
  'worker-paused': ['paused', 'pause'],
  'lease-unclaimed': ['unclaimed', 'none'],
  'lease-blocked': ['stopping', 'block'],
  'lease-moving': ['handover slow', 'move'],
  'server-changed': ['database changed'],
}

export function markOfProblem({ code, severity }: Problem): Mark {
  const [icon, tone] = severityMarks[severity]
  const [word, own = icon] = problemWords[code] ?? [code.replaceAll('-', ' ')]
  return mark(own, word, tone)
}

/** Some of each kind, so that many of one do not hide the others: with each how many more there are of it. */
export function pickedProblems(
  { problems, problemCodes }: Pick<Overview, 'problems' | 'problemCodes'>,
  most: number,
): { problem: Problem; more: number }[] {
  const all = problemCodes.reduce((sum, { count }) => sum + count, 0)
  const each = all <= most ? most : Math.max(1, Math.floor(most / problemCodes.length))
  return problemCodes.flatMap(({ code, count }) => {
    const shown = problems.filter((problem) => problem.code === code).slice(0, each)
    return shown.map((problem, at) => ({ problem, more: at === shown.length - 1 ? count - shown.length : 0 }))
  })
}

/** The state of everything in a few words. */
export function verdictOf(overview: Pick<Overview, 'problemCounts'>, news: News | undefined): Mark {
  const { error, warning } = overview.problemCounts
  const parts = [
    ...(error > 0 ? [counted(error, 'problem')] : []),
    ...(warning > 0 ? [counted(warning, 'warning')] : []),
  ]
  if (parts.length > 0) return mark('alert', parts.join(', '), error > 0 ? 'bad' : 'warn')
  return mark('check', news ? 'All well again' : 'All well', 'calm')
}

/** A node that has died, and what became of what it held. */
export interface News {
  readonly node: string
  readonly atMs: number
  readonly lost: number
  readonly moved: number
}

const newsForMs = 300_000

/** The latest death of these five minutes. @param events newest first. */
export function newsOf(events: readonly Happening[], nowMs: number): News | undefined {
  const death = events.find((each) => each.type === 'node.gone')
  if (!death || nowMs - Date.parse(death.at) > newsForMs) return undefined
  const lost = events.filter((each) => each.type === 'lease.lost' && each.node === death.subject)
  const moved = lost.filter((each) =>
    events.some(
      (later) =>
        later.type === 'lease.acquired' && later.subject === each.subject && isAfter(later.id, each.id),
    ),
  )
  return { node: death.subject, atMs: Date.parse(death.at), lost: lost.length, moved: moved.length }
}

export function sentenceOfNews({ lost, moved, atMs }: News, name: string, nowMs: number): string {
  const fate =
    lost === 0
      ? 'it held nothing'
      : moved === lost
        ? `all it held has moved (${counted(lost, 'lease')})`
        : `${moved} of the ${counted(lost, 'lease')} it held have moved so far`
  return `${name} died ${ago(nowMs - atMs)}: ${fate}.`
}

/** Whether one place in the audit trail comes after another. */
export function isAfter(a: string, b: string): boolean {
  const [revision = 0, position = 0] = a.split('-').map(Number)
  const [otherRevision = 0, otherPosition = 0] = b.split('-').map(Number)
  return revision - otherRevision > 0 || (revision === otherRevision && position > otherPosition)
}

const mostKept = 1_000

/** Events of two answers as one list, newest first, each once. */
export function merged(a: readonly Happening[], b: readonly Happening[]): Happening[] {
  const byId = new Map([...a, ...b].map((event) => [event.id, event]))
  return [...byId.values()].sort((x, y) => (isAfter(x.id, y.id) ? -1 : 1)).slice(0, mostKept)
}

/** What an event says; a word in braces is one of the event's own. */
const happenings: Readonly<Record<string, readonly [word: string, icon: Icon, tone: Tone, text: string]>> = {
  'lease.acquired': ['acquired', 'star', 'off', '{node} holds it, with token {token}'],
  'lease.released': ['released', 'free', 'off', '{node} gave it back'],
  'lease.revoked': ['revoked', 'block', 'warn', 'taken away from {node}'],
  'lease.acknowledged': ['stopped', 'check', 'off', '{node} has said that it stopped'],
  'lease.lost': ['lost', 'close', 'bad', '{node} held it and is gone'],
  'lease.transferred': ['step down', 'move', 'move', '{node} was asked to hand over{to}'],
  'node.joined': ['joined', 'plus', 'off', '{node} joined'],
  'node.left': ['left', 'move', 'off', '{node} left of its own accord'],
  'node.gone': ['gone', 'close', 'bad', '{node} is gone'],
  'node.draining': ['draining', 'down', 'move', '{node} hands everything over'],
  'node.resumed': ['undrained', 'play', 'off', '{node} takes work again'],
  'node.forgotten': ['forgotten', 'close', 'off', '{name} was removed from the list'],
  'worker.paused': ['paused', 'pause', 'move', 'nobody runs it any more'],
  'worker.resumed': ['resumed', 'play', 'off', 'nodes may run it again'],
  'worker.rebalanced': ['rebalanced', 'move', 'move', '{moves} to move'],
  'assignment.changed': ['planned', 'move', 'move', '{plan}'],
  'target.passed-over': ['passed over', 'none', 'warn', '{node} did not claim it in time'],
  'server.changed': ['database', 'alert', 'warn', 'another server, or one that crashed'],
}

/** What can be picked out of the events. */
export const eventFilters = {
  all: '',
  leases: typesOf('lease.'),
  nodes: typesOf('node.'),
  assignments: 'assignment.changed,worker.rebalanced,target.passed-over',
  people:
    'lease.revoked,lease.transferred,node.draining,node.resumed,node.forgotten,worker.paused,worker.resumed,worker.rebalanced',
} as const

function typesOf(what: string): string {
  return Object.keys(happenings)
    .filter((type) => type.startsWith(what))
    .join()
}

export type EventFilter = keyof typeof eventFilters

export function passes(filter: EventFilter, event: Happening): boolean {
  const types: readonly string[] = eventFilters[filter].split(',')
  return filter === 'all' || (types.includes(event.type) && (filter !== 'people' || event.actor !== null))
}

/** @param name knows nodes by their ids. */
export function sentenceOf(
  { type, node, token, detail }: Happening,
  name: (id: string) => string,
): { mark: Mark; text: string } {
  const [word, icon, tone, text] = happenings[type] ?? [type.replace(/^.*\./, ''), 'info', 'off', type]
  const who = node ? name(node) : 'a node'
  const { to, moved, generation, count, moves, name: named = who } = detail ?? {}
  const words: Readonly<Record<string, unknown>> = {
    node: who,
    token,
    moves,
    name: named,
    to: typeof to === 'string' ? ` for ${name(to)}` : '',
    plan:
      moved === undefined
        ? `plan ${generation}, ${counted(Number(count), 'share')}`
        : `${counted(Number(moved), 'partition')} to move`,
  }
  return { mark: mark(icon, word, tone), text: text.replace(/{(\w+)}/g, (_, own) => String(words[own])) }
}

/** Whether it ends somebody's term. */
export function isEnd(type: string): boolean {
  return /lost|released|revoked/.test(type)
}

/** Who did something: an actor's name, or the node that found something out. */
export function actorOf({ actor, type }: Happening, name: (id: string) => string): string | undefined {
  if (!actor) return undefined
  return type === 'node.gone' ? name(actor) : actor
}

/** One holder's time on a lane of fifteen minutes, in parts of a thousand. */
export interface Span {
  readonly from: number
  readonly to: number
  readonly node: string | null
  readonly current: boolean
}

export const laneMs = 900_000

/** Who has only just begun is seen as well. */
const narrowest = 2

/** @param events newest first, at least those of this lease. */
export function laneOf(lease: Lease, events: readonly Happening[], nowMs: number): Span[] {
  const at = (ms: number): number => Math.round(1_000 * Math.max(0, 1 - (nowMs - ms) / laneMs))
  const spans: Span[] = []
  let end = 1_000
  const { holder, acquiredAt } = lease
  if (holder) {
    end = Math.min(1_000 - narrowest, at(acquiredAt ? Date.parse(acquiredAt) : nowMs))
    spans.push({ from: end, to: 1_000, node: holder.id, current: true })
  }
  for (const event of events) {
    if (event.subject !== lease.key) continue
    if (event.token === lease.token && holder) continue
    const place = at(Date.parse(event.at))
    if (event.type === 'lease.acquired') {
      if (end > place) spans.push({ from: place, to: end, node: event.node, current: false })
      end = place
    } else if (isEnd(event.type)) end = Math.min(end, place)
    if (end === 0) break
  }
  return spans.filter((each) => each.to > each.from)
}

/** How far a plan has been carried out. */
export function ownership(assignment: Assignment): string {
  return `${grouped(assignment.owned)} owned, ${grouped(assignment.moving)} moving, ${grouped(assignment.unowned)} without owner`
}

/** What is drawn of an assignment: so many slots in one cell that there are not too many cells. */
export interface Cell {
  readonly from: number
  readonly to: number
  /** The worst of its slots: u(nowned), m(oving), o(wned). */
  readonly state: string
  readonly owners: readonly number[]
  /** Where another owner begins: a wider gap. */
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

/** `350 ms`, `4 s`, `3 min`, `5 h 12 min`, `3 d 4 h`. */
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

/** How long a holder's session lasts without another heartbeat: as text, and as a part of its whole. */
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

/** As keys are written in addresses. */
export function keyInPath(key: string): string {
  return encodeURIComponent(key.replace('/', ':').replace('#', '~'))
}

/** Why a reason is none yet; undefined when it is one. */
export function flawOfReason(text: string): string | undefined {
  const { length } = text.trim()
  if (length < 3) return 'Say why, in at least 3 characters.'
  return length > 200 ? `${length} characters are too many: 200 at most.` : undefined
}

/** The time of day by the database's clock. */
export function timeOf(at: string | number, utc: boolean): string {
  return dateOf(at, utc).slice(11)
}

/** A day and a time. */
export function dateOf(at: string | number, utc: boolean): string {
  const date = new Date(at)
  if (!utc) date.setMinutes(date.getMinutes() - date.getTimezoneOffset())
  return date.toISOString().slice(0, 19).replace('T', ' ')
}
