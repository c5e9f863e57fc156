/**
 * How a node becomes a candidate for workers, and ceases to be one: it joins, registers other workers than before, and
 * leaves.
 */
import type { Ahead, Change, NewNode } from '../store.js'
import { type Contradiction, type Declaration, declare, type OtherSchedule } from './declarations.js'
import { Draft } from './draft.js'
import type { Instruction } from './operations.js'
import { missWorkers, noteNodes, sortOut } from './rules.js'
import { planWorkers } from './targets.js'

/** The workers for which a node is now a candidate, and what the node should know about them. */
export interface Candidacy {
  readonly workers: readonly string[]
  readonly otherSchedules: readonly OtherSchedule[]
  /** Those whose partitions are to be planned again; see {@link Draft.unfinished}. */
  readonly unfinished: readonly string[]
}

/** The same, with the workers for which it is not a candidate, because other nodes contradict them. */
export interface Registered extends Candidacy {
  readonly refused: readonly Contradiction[]
}

/** A change of the workers that a node is a candidate for. */
export interface Registration {
  /** Those it remains a candidate for. They are declared again where the database has forgotten it. */
  readonly kept: readonly Declaration[]
  readonly added: readonly Declaration[]
  /** Those that a later change is to add. One that has been added already, by a change without an answer, stays. */
  readonly later: readonly Declaration[]
}

/**
 * Joins a node, with the workers for which it is a candidate. A join that is repeated after a lost answer finds that
 * the node has joined already or has been buried since. If it was buried, this life is over and the next one needs a
 * new id. Returns the workers for which the node is now a candidate: all that are declared, except those that could
 * not be written because of a fence.
 *
 * @param drained given for a process that was draining when it lost its last session: it is still draining.
 * @throws Contradiction when other nodes contradict a worker; one by nodes that have been heard of, if there is one.
 */
export async function join(
  change: Change,
  node: Omit<NewNode, 'workers'>,
  declarations: readonly Declaration[],
  drained: Instruction | undefined,
): Promise<Candidacy | 'buried'> {
  const [earlier] = await change.nodesById([node.id])
  if (earlier !== undefined)
    return earlier.state === 'gone'
      ? 'buried'
      : { workers: earlier.workers, otherSchedules: [], unfinished: earlier.workers }
  const draft = new Draft(change)
  const { workers, refused, otherSchedules } = await declare(draft, node.id, declarations)
  const contradiction = refused.find(({ bySilent }) => !bySilent) ?? refused[0]
  if (contradiction !== undefined) throw contradiction
  await change.addNode({ ...node, workers }, 1)
  if (drained !== undefined) await change.updateNode(node.id, { state: 'draining' })
  draft.markPresent(node.id)
  await planWorkers(draft, workers)
  draft.record({
    type: 'node.joined',
    subject: node.id,
    node: node.id,
    detail: { name: node.name, cluster: node.cluster },
  })
  if (drained !== undefined)
    draft.record({ type: 'node.draining', subject: node.id, node: node.id, ...drained })
  draft.concern([node.id, ...(await neighboursOf(draft, node))])
  await noteNodes(draft)
  await draft.write()
  return { workers, otherSchedules, unfinished: [...draft.unfinished] }
}

/** Nodes on the same machine look at each other's processes, so each must know of the others. */
async function neighboursOf(draft: Draft, { id, machine }: Omit<NewNode, 'workers'>): Promise<string[]> {
  if (machine === null) return []
  const present = await draft.presentNodes()
  return present.filter((each) => each.machine === machine && each.id !== id).map((each) => each.id)
}

/**
 * Replaces the workers for which a node is a candidate: by those that it remains a candidate for, which have been
 * declared before, and by others, which are declared now. It may have been a candidate for another worker of the same
 * key. Returns the workers for which it is now a candidate, without those that are refused or could not be written
 * because of a fence.
 */
export async function register(
  change: Change,
  node: string,
  { kept, added, later }: Registration,
): Promise<Registered> {
  const before = new Set(change.session?.workers ?? [])
  const draft = new Draft(change)
  const standing = [...kept, ...later].filter(({ key }) => before.has(key)).map(({ key }) => key)
  const forgotten = kept.filter(({ key }) => !before.has(key))
  const { workers, refused, otherSchedules } = await declare(draft, node, [...forgotten, ...added])
  const now = new Set([...standing, ...workers])
  await change.updateNode(node, { workers: [...now] })
  draft.nodesChanged()
  const withdrawn = [...before].filter((key) => !now.has(key))
  await planWorkers(draft, [...withdrawn, ...workers])
  missWorkers(draft, withdrawn)
  draft.concern([node])
  await draft.write()
  return { workers: [...now], refused, otherSchedules, unfinished: [...draft.unfinished] }
}

/** Removes a node at its own request. Everything it holds is free at once. */
export async function leave(change: Change, node: string): Promise<void> {
  if (change.session === undefined) return
  await sortOut(
    change,
    [change.session],
    (draft, id) => draft.record({ type: 'node.left', subject: id, node: id }),
    { type: 'lease.released', reason: 'closing' },
  )
  await change.bury(node)
}

/** The rows that {@link leave} is going to read. */
export function aheadOfLeave(node: string, workers: readonly string[]): Ahead {
  return { leases: { nodes: [node], workers }, nodes: true }
}
