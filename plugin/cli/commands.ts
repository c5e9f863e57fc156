/**
 * What each command asks or does.
 */
import type { Coordinator } from '../core/coordinator.js'
import { type Explanation, explain } from '../core/reports/explain.js'
import { Pauses } from '../core/reports/pauses.js'
import { type Problem, problemsIn } from '../core/reports/problems.js'
import {
  describe,
  isSilent,
  type LeaseStatus,
  type NodeReference,
  type NodeStatus,
  type Status,
} from '../core/reports/status.js'
import { type Term, termEvents, termsOf } from '../core/reports/terms.js'
import { Vacancies } from '../core/reports/vacancies.js'
import { vacancyOf } from '../core/reports/vacancy.js'
import type { EventQuery, EventRow, Snapshot } from '../core/store.js'
import { blockWaitMs, resolveTiming, type Timing } from '../core/time/timing.js'
import type { Command, Order } from './arguments.js'
import { type Answer, type Cell, exitCodes, type Mood, type Table } from './output.js'

/** The commands for which the namespace is read first. */
type Asking = Exclude<Command, 'check' | 'migrate'>

type Ways = {
  readonly [Name in Asking]: (
    scene: Scene,
    order: Order<Name>,
    coordinator: Coordinator,
  ) => Answer | Promise<Answer>
}

/** The namespace at the moment at which a command is given. */
interface Scene {
  readonly snapshot: Snapshot
  readonly status: Status
  /** The durations of the nodes, as far as the rows tell them. */
  readonly timing: Timing
  /** Whether a node has sent no heartbeat for longer than its ttl. */
  readonly isSilent: (node: Pick<NodeReference, 'id'> | null) => boolean
}

/** Carries out the commands that need only a coordinator, which has not been started. */
export async function obey(
  coordinator: Coordinator,
  order: Order<Exclude<Command, 'check'>>,
): Promise<Answer> {
  // Connecting has already run the migrations.
  if (order.command === 'migrate') return done({ migrated: true }, ['The tables are up to date.'])
  const scene = await look(coordinator)
  const isUnused = scene.snapshot.meta.revision === 0
  const known = isUnused ? await coordinator.operator.namespaces() : []
  if (known.length > 0) return noNamespace(order.namespace, known)
  return follow(scene, order, coordinator)
}

function follow<Name extends Asking>(
  scene: Scene,
  order: Order<Name>,
  coordinator: Coordinator,
): Answer | Promise<Answer> {
  return ways[order.command](scene, order, coordinator)
}

const ways: Ways = {
  status: async (scene, _order, coordinator) => {
    const { status, isSilent } = scene
    const others = (await coordinator.operator.namespaces()).filter((each) => each !== status.namespace)
    const problems = await problemsOf(scene, coordinator)
    const nodes = status.nodes.map((node) => ({ ...node, silent: isSilent(node) }))
    const leases = status.leases.map((lease) => ({ ...lease, silent: isSilent(lease.holder) }))
    return found(scene, problems, { ...status, nodes, leases, problems }, [
      `Namespace ${status.namespace}, ${counted(status.nodes.filter(isPresent), 'node')}`,
      ...(others.length > 0 ? [`Other namespaces in this database: ${listed(others)}`] : []),
      '',
      nodeTable(scene, status.nodes),
      '',
      leaseTable(scene, status.leases),
    ])
  },

  leaders: async (scene, _order, coordinator) => {
    const { status, isSilent } = scene
    const problems = await problemsOf(scene, coordinator)
    const singles = new Set(status.workers.flatMap(({ key, kind }) => (kind === 'single' ? [key] : [])))
    const leases = status.leases.filter(({ worker }) => worker !== null && singles.has(worker))
    // The same as `GET /leaders`, and whether each of them is silent.
    const leaders = leases.flatMap(({ key, holder, token, acquiredAtMs }) => {
      if (holder === null) return []
      const sinceMs = acquiredAtMs === null ? null : Math.max(0, status.nowMs - acquiredAtMs)
      const { name: node, id, cluster } = holder
      return [[key, { node, id, cluster, token, sinceMs, silent: isSilent(holder) }]]
    })
    return found(scene, problems, Object.fromEntries(leaders), [leaseTable(scene, leases)])
  },

  explain: async (scene, { key }, { operator }) => {
    const { timing } = scene
    const lease = scene.snapshot.leases.find((each) => each.key === key)
    if (lease === undefined) return noLease(scene, key)
    const latest = (type: string, subject: string | null) =>
      operator.events({ types: [type], subject: subject ?? '', limit: 1 })
    const [revoked] = await latest('lease.revoked', key)
    const [pause] = await latest('worker.paused', lease.worker)
    const vacancy = await vacancyOf(lease, (query) => operator.events(query))
    const circumstances = { timing, revokedAtMs: revoked?.atMs ?? null, pause, vacancy }
    const explanation = explain(scene.snapshot, key, circumstances)
    if (explanation === undefined) return noLease(scene, key)
    const terms = termsOf(await operator.events({ types: termEvents, subject: key, limit: 20 }))
    return done({ ...explanation, terms }, [
      ...explanation.reasons.map(({ sentence }) => sentence),
      ...scheduleLines(explanation),
      '',
      termTable(scene, terms),
    ])
  },

  release: async (scene, { key, token, immediate, cooldownMs, by }, { operator }) => {
    const cooldown = cooldownMs === undefined ? {} : { cooldownMs }
    const answer = await operator.release({ key, token, immediate, ...cooldown, ...by })
    if (answer.kind === 'unknown') return noLease(scene, key)
    if (answer.kind === 'fenced')
      return no(
        'A transaction of the application fences it: nothing was released. Try again once that has ended.',
      )
    if (answer.kind === 'stale') {
      const { holder } = answer.lease
      const now = holder === null ? 'nobody holds it' : `its token is ${answer.lease.token}`
      return no(`Nothing was released: by now ${now}.`, answer)
    }
    if (answer.kind === 'repeated') return done(answer, ['It had been released already.'])
    if (!answer.blocked) return done(answer, ['Released. The next holder may begin at once.'])
    const { snapshot } = scene
    const waitMs = blockWaitMs(scene.timing)
    const { holder } = snapshot.leases.find((lease) => lease.key === key) ?? {}
    const name = snapshot.nodes.find(({ id }) => id === holder)?.name ?? 'The holder'
    return done(answer, [
      `Released. ${name} is told to stop. The next holder begins once it has, or after ${Math.ceil(waitMs / 1_000)} s at the latest.`,
      `Work on ${name} that ignores its signal goes on even then: restart that process. \`explain ${key}\` shows how it stands.`,
    ])
  },

  drain: (scene, { node, by }, { operator }) =>
    toNode(scene, node, (id) => operator.drain(id, by), {
      done: 'It hands over, and gets nothing new.',
      unchanged: 'It was draining already.',
    }),

  undrain: (scene, { node, by }, { operator }) =>
    toNode(scene, node, (id) => operator.undrain(id, by), {
      done: 'It takes part again.',
      unchanged: 'It was not draining.',
    }),

  pause: async (scene, { key, by }, { operator }) =>
    ofWorker(scene, key, await operator.pause(key, by), {
      done: 'Nobody runs it until it is resumed.',
      unchanged: 'It was paused already.',
    }),

  resume: async (scene, { key, by }, { operator }) =>
    ofWorker(scene, key, await operator.resume(key, by), {
      done: 'Its nodes run it again.',
      unchanged: 'It was not paused.',
    }),
}

async function look({ operator, settings, state }: Coordinator): Promise<Scene> {
  const snapshot = await operator.snapshot()
  const silent = snapshot.nodes.filter((node) => isSilent(node, snapshot.nowMs))
  const ids = new Set(silent.map(({ id }) => id))
  const { longestTtlMs } = snapshot.meta
  return {
    snapshot,
    status: describe(snapshot, settings, undefined, state),
    timing: longestTtlMs > 0 ? resolveTiming({ ttlMs: longestTtlMs }) : settings.timing,
    isSilent: (node) => node !== null && ids.has(node.id),
  }
}

/** Returns the same problems as `GET /status`, except those that only the node that answers can know. */
async function problemsOf({ snapshot, status, timing }: Scene, coordinator: Coordinator): Promise<Problem[]> {
  const events = (query: EventQuery): Promise<EventRow[]> => coordinator.operator.events(query)
  await Promise.all([new Pauses(events).tell(snapshot), new Vacancies(events).tell(snapshot)])
  return problemsIn(snapshot, status, coordinator.health(), timing)
}

/** Returns what has been seen, and below it what is wrong. */
function found(
  { status, isSilent }: Scene,
  problems: readonly Problem[],
  json: unknown,
  text: Answer['text'],
): Answer {
  const present = status.nodes.filter(isPresent)
  const isAlone = present.length > 0 && present.every(isSilent)
  const alone = 'No node is running. Leases of silent nodes are taken over once another node has started.'
  return {
    json,
    text: [
      ...text,
      ...(problems.length > 0 ? ['', problemTable(problems)] : []),
      ...(isAlone ? ['', alone] : []),
    ],
    exitCode: problems.some(({ severity }) => severity === 'error') ? exitCodes.no : exitCodes.done,
  }
}

/**
 * Refuses a namespace that does not exist. Where no namespace exists yet, any is accepted: it may be that of the
 * first node.
 */
function noNamespace(namespace: string, known: readonly string[]): Answer {
  return no(`There is no namespace "${namespace}" in this database. There is ${listed(known)}.`, {
    namespaces: known,
  })
}

/** How many names fit into a sentence. */
const mostNamed = 10

function listed(names: readonly string[]): string {
  const more = names.length > mostNamed ? ` and ${names.length - mostNamed} more` : ''
  return `${names.slice(0, mostNamed).map(quoted).join(', ')}${more}`
}

function noLease({ status }: Scene, key: string): Answer {
  const meant = ofSameName(key, status.leases)
  return no(
    `There is no lease "${key}". ${hint(meant, 'global/month-close, eu-1/indexing or global/consumer#12')}`,
  )
}

interface Words {
  readonly done: string
  readonly unchanged: string
}

function ofWorker(
  { status }: Scene,
  worker: string,
  outcome: 'done' | 'unchanged' | 'unknown',
  words: Words,
): Answer {
  if (outcome !== 'unknown') return done({ outcome }, [words[outcome]])
  const meant = ofSameName(worker.replace(/#.*/, ''), status.workers)
  return no(`There is no worker "${worker}". ${hint(meant, 'global/month-close or eu-1/indexing')}`, {
    outcome,
  })
}

/**
 * Returns the keys that are the same after the slash. The typed key may be the name alone, have another scope, or
 * lack the slot.
 */
function ofSameName(key: string, things: readonly { readonly key: string }[]): string[] {
  const nameIn = (text: string): string => text.slice(text.indexOf('/') + 1)
  const keys = things.map((thing) => thing.key)
  const same = keys.filter((each) => nameIn(each) === nameIn(key))
  return same.length > 0 ? same : keys.filter((each) => nameIn(each).replace(/#.*/, '') === nameIn(key))
}

function hint(meant: readonly string[], examples: string): string {
  if (meant.length > mostNamed)
    return `Did you mean one of ${meant.length}, such as ${quoted(meant[0] ?? '')}?`
  if (meant.length > 0) return `Did you mean ${meant.map(quoted).join(' or ')}?`
  return `Keys are written like ${examples}; \`status\` lists those there are.`
}

/** Gives an order to a node, which is identified by its id or, where only one has it, by its name. */
async function toNode(
  scene: Scene,
  subject: string,
  order: (id: string) => Promise<'done' | 'unchanged' | 'gone'>,
  words: Words,
): Promise<Answer> {
  const { nodes } = scene.status
  const byName = nodes.filter((node) => isPresent(node) && node.name === subject)
  const [node, ...others] = nodes.some(({ id }) => id === subject)
    ? nodes.filter(({ id }) => id === subject)
    : byName
  if (node !== undefined && others.length > 0) {
    const sentence = `${byName.length} nodes are called "${subject}". Name the one you mean by its id.`
    const answer = no(sentence, { nodes: byName.map(({ id }) => id) })
    return { ...answer, text: [sentence, '', nodeTable(scene, byName)] }
  }
  const outcome = node === undefined ? 'unknown' : await order(node.id)
  if (outcome === 'unknown')
    return no(`There is no node "${subject}". \`status\` lists those there are.`, { outcome })
  if (outcome === 'gone') return no(`The node "${subject}" is gone.`, { outcome })
  return done({ outcome }, [words[outcome]])
}

function isPresent({ state }: NodeStatus): boolean {
  return state !== 'gone'
}

const silentCell: Cell = { text: 'silent', mood: 'bad' }

function nodeTable({ status: { leases, nowMs }, isSilent }: Scene, nodes: readonly NodeStatus[]): Table {
  const moods: Readonly<Record<string, Mood>> = { active: 'good', draining: 'doubtful', gone: 'bad' }
  return {
    head: ['NODE', 'CLUSTER', 'STATE', 'HEARTBEAT', 'LEASES', 'VERSION', 'ID'],
    rows: nodes.map(({ id, name, cluster, state, heartbeatAtMs, version }): Cell[] => [
      name,
      cluster,
      isSilent({ id }) ? silentCell : { text: state, mood: moods[state] ?? 'doubtful' },
      `${ago(nowMs - heartbeatAtMs)} ago`,
      String(leases.filter(({ holder }) => holder?.id === id).length),
      version ?? '-',
      id,
    ]),
  }
}

function problemTable(problems: readonly Problem[]): Table {
  const cells: Readonly<Record<Problem['severity'], Cell>> = {
    error: { text: 'error', mood: 'bad' },
    warning: { text: 'warning', mood: 'doubtful' },
    info: 'info',
  }
  return {
    head: ['PROBLEM', 'WHAT IT IS'],
    rows: problems.map(({ severity, sentence }) => [cells[severity], sentence]),
  }
}

/** Says when a scheduled worker acted last, and when it will next. */
function scheduleLines({ schedule }: Explanation): string[] {
  if (schedule === null) return []
  const { cron, timeZone, lastFireAtMs, nextFireAtMs } = schedule
  const at = (ms: number | null): string => (ms === null ? 'none' : time(ms))
  return [
    `Its schedule is ${cron} (${timeZone}). The last time begun: ${at(lastFireAtMs)}. The next: ${at(nextFireAtMs)}.`,
  ]
}

function termTable({ snapshot }: Scene, terms: readonly Term[]): Table {
  const nameOf = (id: string | null): string =>
    snapshot.nodes.find((node) => node.id === id)?.name ?? id ?? 'unknown'
  const howOf = ({ ended }: Term): string => {
    if (ended === null) return 'holds it now'
    const by = ended.actor === null ? '' : ` by ${ended.actor}`
    return `${ended.how}${by}${ended.reason === null ? '' : `: ${ended.reason}`}`
  }
  return {
    head: ['HELD BY', 'FROM', 'TO', 'TOKEN', 'HOW IT ENDED'],
    rows: terms.map((term) => [
      nameOf(term.holder),
      term.fromMs === null ? 'unknown' : time(term.fromMs),
      term.toMs === null ? '-' : time(term.toMs),
      String(term.token),
      howOf(term),
    ]),
  }
}

/** Formats an instant, by the database's clock. */
function time(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')} UTC`
}

function leaseTable({ status: { nowMs, workers }, isSilent }: Scene, leases: readonly LeaseStatus[]): Table {
  const paused = new Set(workers.flatMap((worker) => (worker.paused ? [worker.key] : [])))
  const stateOf = ({ holder, worker, state }: LeaseStatus): string =>
    holder === null && paused.has(worker ?? '') ? 'paused' : state
  const moods: Readonly<Record<string, Mood>> = { held: 'good', blocked: 'bad', unclaimed: 'bad' }
  return {
    head: ['LEASE', 'STATE', 'HOLDER', 'SINCE', 'TOKEN'],
    rows: leases.map((lease): Cell[] => {
      const { key, holder, acquiredAtMs, token } = lease
      const state = stateOf(lease)
      return [
        key,
        isSilent(holder) ? silentCell : { text: state, mood: moods[state] ?? 'doubtful' },
        holder?.name ?? '-',
        holder === null || acquiredAtMs === null ? '-' : ago(nowMs - acquiredAtMs),
        String(token),
      ]
    }),
  }
}

/** Formats a duration in the largest unit that it fills. */
function ago(ms: number): string {
  const units: [string, number][] = [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['min', 60_000],
  ]
  const [unit, lengthMs] = units.find(([, lengthMs]) => ms >= lengthMs) ?? ['s', 1_000]
  return `${Math.max(0, Math.floor(ms / lengthMs))} ${unit}`
}

function counted(things: readonly unknown[], word: string): string {
  return `${things.length} ${word}${things.length === 1 ? '' : 's'}`
}

function quoted(text: string): string {
  return `"${text}"`
}

function done(json: unknown, text: Answer['text']): Answer {
  return { json, text, exitCode: exitCodes.done }
}

function no(sentence: string, facts: object = {}): Answer {
  return { json: { error: sentence, ...facts }, text: [sentence], exitCode: exitCodes.no }
}
