/** What each command asks or does. */
import type { Coordinator } from '../core/coordinator.js'
import { explain } from '../core/explain.js'
import type { LeaseStatus, Status } from '../core/status.js'
import type { Order } from './arguments.js'
import { type Answer, type Cell, exitCodes, type Mood } from './output.js'

type Obey = (coordinator: Coordinator, order: Order) => Promise<Answer>

/** Those that need nothing but a coordinator, which has not been started. */
export const obey: Readonly<Record<Exclude<Order['command'], 'check'>, Obey>> = {
  status: async (coordinator) => {
    const status = await coordinator.status()
    return done(status, [
      `Namespace ${status.namespace}, ${counted(status.nodes.filter(isStanding), 'node')}`,
      '',
      nodeTable(status),
      '',
      leaseTable(status, status.leases),
    ])
  },

  leaders: async (coordinator) => {
    const status = await coordinator.status()
    const singles = new Set(status.workers.flatMap(({ key, kind }) => (kind === 'single' ? [key] : [])))
    const leases = status.leases.filter(({ worker }) => worker !== null && singles.has(worker))
    const leaders = leases.map(({ key, holder, token, acquiredAtMs }) => ({
      worker: key,
      node: holder?.name ?? null,
      cluster: holder?.cluster ?? null,
      token,
      sinceMs: holder === null ? null : acquiredAtMs,
    }))
    return done(leaders, [leaseTable(status, leases)])
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

function nodeTable({ nodes, leases, nowMs }: Status) {
  const moods: Readonly<Record<string, Mood>> = { active: 'good', draining: 'doubtful', gone: 'bad' }
  return {
    head: ['NODE', 'CLUSTER', 'STATE', 'HEARTBEAT', 'LEASES', 'VERSION', 'ID'],
    rows: nodes.map(({ id, name, cluster, state, heartbeatAtMs, version }): Cell[] => [
      name,
      cluster,
      { text: state, mood: moods[state] ?? 'doubtful' },
      `${ago(nowMs - heartbeatAtMs)} ago`,
      String(leases.filter(({ holder }) => holder?.id === id).length),
      version ?? '-',
      id,
    ]),
  }
}

function leaseTable({ nowMs }: Status, leases: readonly LeaseStatus[]) {
  const moods: Readonly<Record<string, Mood>> = { held: 'good', blocked: 'bad', unclaimed: 'bad' }
  return {
    head: ['LEASE', 'STATE', 'HOLDER', 'SINCE', 'TOKEN'],
    rows: leases.map(({ key, state, holder, acquiredAtMs, token }): Cell[] => [
      key,
      { text: state, mood: moods[state] ?? 'doubtful' },
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
