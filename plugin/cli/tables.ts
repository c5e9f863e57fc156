/**
 * Tables for people.
 */

import { givenBack } from '../core/reports/event-sentences.js'
import { mayBeForgotten, type Problem } from '../core/reports/problems.js'
import type { LeaseStatus, NodeStatus } from '../core/reports/status.js'
import type { Term } from '../core/reports/terms.js'
import { drainOf, isClosing } from '../core/reports/trail.js'
import type { Cell, Mood, Table } from './output.js'
import { isPresent, labelOf, labelOfId, type Scene, typed } from './scene.js'

const silentCell: Cell = { text: 'silent', mood: 'bad' }

export function nodeTable(scene: Scene, nodes: readonly NodeStatus[]): Table {
  const { leases, nowMs } = scene.status
  const moods: Readonly<Record<string, Mood>> = { active: 'good', draining: 'doubtful', gone: 'bad' }
  return {
    head: ['NODE', 'CLUSTER', 'STATE', 'HEARTBEAT', 'LEASES', 'VERSION', 'ID'],
    rows: nodes.map(({ id, name, cluster, state, heartbeatAtMs, version }): Cell[] => [
      name,
      cluster,
      scene.isSilent({ id }) ? silentCell : { text: state, mood: moods[state] ?? 'doubtful' },
      `${ago(nowMs - heartbeatAtMs)} ago`,
      String(leases.filter(({ holder }) => holder?.id === id).length),
      version ?? '-',
      id,
    ]),
  }
}

/** Under some problems stands the command that ends it, or tells more. */
export function problemTable(scene: Scene, problems: readonly Problem[]): Table {
  const cells: Readonly<Record<Problem['severity'], Cell>> = {
    error: { text: 'error', mood: 'bad' },
    warning: { text: 'warning', mood: 'doubtful' },
    info: 'info',
  }
  return {
    head: ['SEVERITY', 'CODE', 'PROBLEM'],
    rows: problems.flatMap((problem): Cell[][] => {
      const { severity, code, sentence } = problem
      const command = commandFor(problem, scene)
      return [
        [cells[severity], code, sentence],
        ...(command === undefined ? [] : [['', '', `→ ${typed(command, scene)}`]]),
      ]
    }),
  }
}

function commandFor({ code, subject }: Problem, scene: Scene): string | undefined {
  switch (code) {
    case 'worker-paused':
      return `resume ${subject}`
    case 'worker-without-candidates':
      return mayBeForgotten(subject, scene.snapshot) ? `forget ${subject}` : undefined
    case 'lease-unclaimed':
    case 'lease-blocked':
    case 'lease-moving':
    case 'schedule-overdue':
      return `explain ${subject}`
    case 'node-draining':
      return undrainOf(subject, scene)
  }
  return undefined
}

/** A node that closes is not to take work again. */
function undrainOf(id: string, { snapshot, sharedNames }: Scene): string | undefined {
  const node = snapshot.nodes.find((each) => each.id === id)
  if (node === undefined || isClosing(node, drainOf(node, snapshot))) return undefined
  return `undrain ${sharedNames.has(node.name) ? id : node.name}`
}

export function termTable(scene: Scene, terms: readonly Term[]): Table {
  return {
    head: ['HELD BY', 'FROM', 'TO', 'TOKEN', 'HOW IT ENDED'],
    rows: terms.map((term, at) => [
      term.holder === null ? 'unknown' : labelOfId(term.holder, scene),
      term.fromMs === null ? 'unknown' : time(term.fromMs),
      term.toMs === null ? '-' : time(term.toMs),
      String(term.token),
      howItEnded(term, scene, at === 0),
    ]),
  }
}

function howItEnded({ holder, ended }: Term, { snapshot }: Scene, isLatest: boolean): string {
  if (ended === null) return 'holds it now'
  const { how, actor, reason, acknowledged } = ended
  if (how === 'released' && reason === 'passes-failed') return givenBack(reason)
  const by = actor === null ? '' : ` by ${actor}`
  const why = reason === null ? '' : `: ${reason}`
  if (acknowledged !== false) return `${how}${by}${why}`
  const said = isLatest ? 'has not said that it has stopped' : 'never said that it has stopped'
  const isThere = snapshot.nodes.some((node) => node.id === holder && isPresent(node))
  return `${how}${by}${why}; ${said}${isThere ? '' : ', and is gone by now'}`
}

export function leaseTable(scene: Scene, leases: readonly LeaseStatus[]): Table {
  const { nowMs, workers } = scene.status
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
        scene.isSilent(holder) ? silentCell : { text: state, mood: moods[state] ?? 'doubtful' },
        holderCell(lease, scene),
        holder === null || acquiredAtMs === null ? '-' : ago(nowMs - acquiredAtMs),
        String(token),
      ]
    }),
  }
}

/** A lease on its way also names the next holder. */
function holderCell({ state, holder, target }: LeaseStatus, scene: Scene): string {
  if (holder === null) return '-'
  const isMoving = state === 'moving' && target !== null && target.id !== holder.id
  return [holder, ...(isMoving ? [target] : [])].map((node) => labelOf(node, scene)).join(' → ')
}

/** Formats an instant, by the database's clock. */
export function time(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')} UTC`
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
