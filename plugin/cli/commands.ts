/** What each command asks or does. */
import type { Coordinator } from '../core/coordinator.js'
import { explain } from '../core/explain.js'
import { describe, type LeaseStatus, type NodeReference, type Status } from '../core/status.js'
import type { Order } from './arguments.js'
import { type Answer, type Cell, exitCodes, type Mood } from './output.js'

type Obey = (coordinator: Coordinator, order: Order) => Promise<Answer>

/** Those that need nothing but a coordinator, which has not been started. */
export const obey: Readonly<Record<Exclude<Order['command'], 'check'>, Obey>> = {
  status: async (coordinator) => {
    const scene = await look(coordinator)
    const { status, isSilent } = scene
    const nodes = status.nodes.map((node) => ({ ...node, silent: isSilent(node) }))
    const leases = status.leases.map((lease) => ({ ...lease, silent: isSilent(lease.holder) }))
    return found(scene, { ...status, nodes, leases }, [
      `Namespace ${status.namespace}, ${counted(status.nodes.filter(isStanding), 'node')}`,
      '',
      nodeTable(scene),
      '',
      leaseTable(scene, status.leases),
    ])
  },

  leaders: async (coordinator) => {
    const scene = await look(coordinator)
    const { status, isSilent } = scene
    const singles = new Set(status.workers.flatMap(({ key, kind }) => (kind === 'single' ? [key] : [])))
    const leases = status.leases.filter(({ worker }) => worker !== null && singles.has(worker))
    const leaders = leases.map(({ key, holder, token, acquiredAtMs }) => ({
      worker: key,
      node: holder?.name ?? null,
      cluster: holder?.cluster ?? null,
      token,
      sinceMs: holder === null ? null : acquiredAtMs,
      silent: isSilent(holder),
    }))
    return found(scene, leaders, [leaseTable(scene, leases)])
  },

  explain: async (coordinator, { subject }) => {
    const { timing } = coordinator.settings
    const explanation = explain(await coordinator.operator.snapshot(), subject, { timing, revokedAtMs: null })
    if (explanation === undefined) return no(`There is no lease "${subject}".`)
    return done(
      explanation,
      explanation.reasons.map(({ sentence }) => sentence),
    )
  },

  release: async (coordinator, { subject: key, token, actor, reason, immediate, cooldownMs }) => {
    const cooldown = cooldownMs === undefined ? {} : { cooldownMs }
    const answer = await coordinator.operator.release({ key, token, actor, reason, immediate, ...cooldown })
    if (answer.kind === 'unknown') return no(`There is no lease "${key}".`)
    if (answer.kind === 'fenced') return no('A transaction fences it at the moment. Nothing was released.')
    if (answer.kind === 'stale') {
      const { holder } = answer.lease
      const now = holder === null ? 'nobody holds it' : `its token is ${answer.lease.token}`
      return no(`Nothing was released: by now ${now}.`, answer)
    }
    if (answer.kind === 'repeated') return done(answer, ['It had been released already.'])
    const next = answer.blocked
      ? 'The next holder begins once the old one has stopped, or cannot trust its lease any more.'
      : 'The next holder may begin at once.'
    return done(answer, [`Released. ${next}`])
  },

  drain: async (coordinator, { subject, actor, reason }) =>
    ofNode(await coordinator.operator.drain(await nodeId(coordinator, subject), { actor, reason }), subject, {
      done: 'It hands over, and gets nothing new.',
      unchanged: 'It was draining already.',
    }),

  undrain: async (coordinator, { subject, actor, reason }) =>
    ofNode(
      await coordinator.operator.undrain(await nodeId(coordinator, subject), { actor, reason }),
      subject,
      {
        done: 'It takes part again.',
        unchanged: 'It was not draining.',
      },
    ),

  pause: async (coordinator, { subject, actor, reason }) =>
    ofWorker(await coordinator.operator.pause(subject, { actor, reason }), subject, {
      done: 'Nobody runs it until it is resumed.',
      unchanged: 'It was paused already.',
    }),

  resume: async (coordinator, { subject, actor, reason }) =>
    ofWorker(await coordinator.operator.resume(subject, { actor, reason }), subject, {
      done: 'Its nodes run it again.',
      unchanged: 'It was not paused.',
    }),

  /** Connecting has done it. */
  migrate: async () => done({ migrated: true }, ['The tables are up to date.']),
}

/** The namespace, and which of its nodes have sent no heartbeat for longer than their ttl. */
interface Scene {
  readonly status: Status
  readonly isSilent: (node: Pick<NodeReference, 'id'> | null) => boolean
}

/** By the database's clock, and for showing only: a node is declared gone by nodes that have watched it themselves. */
async function look({ operator, settings, state }: Coordinator): Promise<Scene> {
  const snapshot = await operator.snapshot()
  const silent = snapshot.nodes.filter(
    (node) => node.state !== 'gone' && snapshot.nowMs - node.heartbeatAtMs > node.ttlMs,
  )
  const ids = new Set(silent.map(({ id }) => id))
  return {
    status: describe(snapshot, settings, undefined, state),
    isSilent: (node) => node !== null && ids.has(node.id),
  }
}

/** What has been seen, and below it what is wrong. */
function found({ status, isSilent }: Scene, json: unknown, text: Answer['text']): Answer {
  const standing = status.nodes.filter(isStanding)
  const silent = standing.filter(isSilent)
  if (silent.length === 0) return done(json, text)
  const sentences = silent.map(
    ({ name, heartbeatAtMs }) =>
      `No heartbeat of node "${name}" has come for ${ago(status.nowMs - heartbeatAtMs)}.`,
  )
  const alone =
    silent.length === standing.length
      ? ['No node is running. Leases of silent nodes are taken over once another node has started.']
      : []
  return { json, text: [...text, '', ...sentences, ...alone], exitCode: exitCodes.no }
}

interface Words {
  readonly done: string
  readonly unchanged: string
}

function ofNode(outcome: 'done' | 'unchanged' | 'gone', node: string, words: Words): Answer {
  if (outcome === 'gone') return no(`There is no node "${node}", or it is gone.`, { outcome })
  return done({ outcome }, [words[outcome]])
}

function ofWorker(outcome: 'done' | 'unchanged' | 'unknown', worker: string, words: Words): Answer {
  if (outcome === 'unknown') return no(`There is no worker "${worker}".`, { outcome })
  return done({ outcome }, [words[outcome]])
}

/** A node may be named by its id or, where only one bears it, by its name. */
async function nodeId(coordinator: Coordinator, subject: string): Promise<string> {
  const { nodes } = await coordinator.status()
  const named = nodes.filter((node) => isStanding(node) && node.name === subject)
  return named.length === 1 ? (named[0]?.id ?? subject) : subject
}

function isStanding({ state }: Status['nodes'][number]): boolean {
  return state !== 'gone'
}

const silentCell: Cell = { text: 'silent', mood: 'bad' }

function nodeTable({ status: { nodes, leases, nowMs }, isSilent }: Scene) {
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

function leaseTable({ status: { nowMs }, isSilent }: Scene, leases: readonly LeaseStatus[]) {
  const moods: Readonly<Record<string, Mood>> = { held: 'good', blocked: 'bad', unclaimed: 'bad' }
  return {
    head: ['LEASE', 'STATE', 'HOLDER', 'SINCE', 'TOKEN'],
    rows: leases.map(({ key, state, holder, acquiredAtMs, token }): Cell[] => [
      key,
      isSilent(holder) ? silentCell : { text: state, mood: moods[state] ?? 'doubtful' },
      holder?.name ?? '-',
      holder === null || acquiredAtMs === null ? '-' : ago(nowMs - acquiredAtMs),
      String(token),
    ]),
  }
}

/** In the largest unit of which there is one. */
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

function done(json: unknown, text: Answer['text']): Answer {
  return { json, text, exitCode: exitCodes.done }
}

function no(sentence: string, facts: object = {}): Answer {
  return { json: { error: sentence, ...facts }, text: [sentence], exitCode: exitCodes.no }
}
