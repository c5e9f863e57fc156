/** Counts nodes, workers and leases by their states, for people and for the metrics alike. */
import { isSilent } from '../../core/reports/pulse.js'
import type { Status } from '../../core/reports/status.js'
import type { Snapshot } from '../../core/store.js'

export const nodeStates = ['active', 'draining', 'silent', 'gone'] as const
export const workerStates = ['running', 'paused'] as const
export const leaseStates = ['held', 'moving', 'silent', 'blocked', 'unclaimed', 'free'] as const

/** The number of items in each state, including states without any. */
export interface Counts {
  readonly nodes: Readonly<Record<(typeof nodeStates)[number], number>>
  readonly workers: Readonly<Record<(typeof workerStates)[number], number>>
  readonly leases: Readonly<Record<(typeof leaseStates)[number], number>>
}

/**
 * Returns the counts. Silent nodes, and leases whose holder is silent, count as nothing else: their rows still call them
 * active and held, but nobody works on them.
 */
export function countsOf({ nodes, workers, leases }: Status, snapshot: Snapshot): Counts {
  return {
    nodes: counted(
      nodeStates,
      nodes.map((node) => (isSilent(node, snapshot) ? 'silent' : node.state)),
    ),
    workers: counted(
      workerStates,
      workers.map(({ paused }) => (paused ? 'paused' : 'running')),
    ),
    leases: counted(
      leaseStates,
      leases.map(({ holder, state }) => (isSilent(holder, snapshot) ? 'silent' : state)),
    ),
  }
}

function counted<State extends string>(
  states: readonly State[],
  found: readonly State[],
): Readonly<Record<State, number>> {
  const counts = states.map((state) => [state, found.filter((each) => each === state).length])
  return Object.fromEntries(counts) as Record<State, number>
}
