/**
 * The namespace at the moment at which a command is given.
 */
import type { Coordinator } from '../core/coordinator.js'
import { isSilent } from '../core/reports/pulse.js'
import { describe, type NodeReference, type NodeStatus, type Status } from '../core/reports/status.js'
import { Trail } from '../core/reports/trail.js'
import type { Snapshot } from '../core/store.js'
import { resolveTiming, type Timing } from '../core/time/timing.js'

export interface Scene {
  readonly snapshot: Snapshot
  readonly status: Status
  /** The durations of the nodes, as far as the rows tell them. */
  readonly timing: Timing
  /** Whether a node has sent no heartbeat for longer than its ttl. */
  readonly isSilent: (node: Pick<NodeReference, 'id'> | null) => boolean
  /** Names that several present nodes bear. */
  readonly sharedNames: ReadonlySet<string>
}

export async function look({ operator, settings, state }: Coordinator): Promise<Scene> {
  const snapshot = await operator.snapshot()
  const { longestTtlMs } = snapshot.meta
  const status = describe(snapshot, settings, undefined, state)
  const seen = new Set<string>()
  const sharedNames = new Set<string>()
  for (const { name } of status.nodes.filter(isPresent)) (seen.has(name) ? sharedNames : seen).add(name)
  return {
    snapshot,
    status,
    timing: longestTtlMs > 0 ? resolveTiming({ ttlMs: longestTtlMs }) : settings.timing,
    isSilent: (node) => isSilent(node, snapshot),
    sharedNames,
  }
}

/** Reads from the audit trail what the sentences about this reading tell of. */
export async function readBesides({ snapshot }: Scene, { operator }: Coordinator): Promise<void> {
  await new Trail((query) => operator.events(query)).tell(snapshot)
}

export function isPresent({ state }: Pick<NodeStatus, 'state'>): boolean {
  return state !== 'gone'
}

/** Returns the name of a node, and the beginning of its id where several bear that name. */
export function labelOf({ id, name }: Pick<NodeReference, 'id' | 'name'>, { sharedNames }: Scene): string {
  return sharedNames.has(name) ? `${name} (${id.slice(0, 8)})` : name
}

/** Returns the label of the node with this id; the id itself when the node is not listed any more. */
export function labelOfId(id: string, scene: Scene): string {
  const node = scene.snapshot.nodes.find((each) => each.id === id)
  return node === undefined ? id : labelOf(node, scene)
}

/** Returns a command as it must be typed for this namespace. */
export function typed(command: string, { status: { namespace } }: Scene): string {
  return namespace === 'default' ? command : `${command} --namespace ${namespace}`
}
